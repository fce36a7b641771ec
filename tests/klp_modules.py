"""The test modules of `kernel/modules_klp`, built for a kernel that `surefoot vm build` made.

The build needs the kernel's headers and build tools, which `vm build` does not keep: they are made again out of its
source and configuration, within its private root, and the modules are kept in the cache folder by what they are
made from.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

from surefoot.targets.vm import build, kernels, sid
from surefoot.targets.vm.folders import cache_folder, staging
from surefoot.targets.vm.recipe import Recipe

__all__ = ["NOSCS", "build_modules", "built_kernel"]

NOSCS = Recipe(scs=False, sframe=True)
"""The kernel that the tests of Linux's own live patching run: the assembler covers all C code of it with SFrame."""

_SOURCES = Path(__file__).parent / "kernel" / "modules_klp"
_WORK = "klp-modules"
_TREE = f"/{_WORK}/linux"
_OWN = f"/{_WORK}/own"


def built_kernel() -> kernels.Kernel:
    """Have the kernel: minutes the first time, of a moment later."""
    return build.build(NOSCS).kernel


def build_modules(kernel: kernels.Kernel, recipe: Recipe = NOSCS) -> Path:
    """Have the modules for this kernel.

    Returns:
        a folder with the .ko files, debug information included.
    """
    sources = sorted(path for path in _SOURCES.iterdir() if path.suffix == ".c" or path.name == "Kbuild")
    parts = [kernel.build_id, *([path.name, path.read_text("utf-8")] for path in sources)]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    folder = cache_folder() / "klp-modules" / key
    if not folder.is_dir():
        with sid.using(build.ROOT):
            root = sid.open_root(build.ROOT)
            work = root.folder / _WORK
            try:
                _build(root, recipe, kernel, sources)
                with staging(folder) as kept:
                    for module in (work / "own").glob("*.ko"):
                        shutil.copyfile(module, kept / module.name)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    return folder


def _build(root: sid.Root, recipe: Recipe, kernel: kernels.Kernel, sources: list[Path]) -> None:
    work = root.folder / _WORK
    shutil.rmtree(work, ignore_errors=True)
    tree, own = work / "linux", work / "own"
    tree.mkdir(parents=True)
    own.mkdir()
    version = kernel.release.partition("-")[0]
    shutil.copyfile(build.fetch_source(version).tarball, work / "source.tar.xz")
    for path in sources:
        shutil.copyfile(path, own / path.name)
    steps = (
        ["tar", "-xJf", "../source.tar.xz", "--strip-components=1"],
        ["cp", f"/{_WORK}/config", ".config"],
        ["cp", f"/{_WORK}/Module.symvers", "Module.symvers"],
        recipe.make(2, "modules_prepare"),
        recipe.make(2, f"M={_OWN}", "modules"),
    )
    for name in ("config", "Module.symvers"):
        shutil.copyfile(kernel.folder / name, work / name)
    for step in steps:
        done = subprocess.run(
            root.inside(step, cwd=_TREE), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, f"{' '.join(step)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
