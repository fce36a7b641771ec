"""The modules of `kernel/modules`, built for a kernel that Debian built, as anybody would build them.

Headers and build tools come from the archive's packages and lie in a private root beside the compiler; nothing is
installed. The result is kept in the cache folder by what it is made from.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

from surefoot.targets.vm import build, kernels, recipe, sid
from surefoot.targets.vm.apt import PrivateApt
from surefoot.targets.vm.folders import cache_folder, locked, staging

__all__ = ["SOURCES", "debian_modules"]

SOURCES = Path(__file__).parent / "kernel" / "modules"
_OWN = "guest-modules"


def debian_modules(kernel: kernels.Kernel) -> Path:
    """Have the modules for this kernel.

    Returns:
        a folder with the .ko files, debug information included.
    """
    sources = sorted(path for path in SOURCES.iterdir() if path.suffix in {".c", ".h"} or path.name == "Kbuild")
    parts = [kernel.build_id, *([path.name, path.read_text("utf-8")] for path in sources)]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    folder = cache_folder() / _OWN / key
    if folder.is_dir():
        return folder
    with sid.using(build.ROOT):
        root = sid.prepare(build.ROOT, (*sid.BASE, *recipe.TOOLCHAIN))
        links = _unpack_headers(root, kernel.release)
        work = root.folder / _OWN
        try:
            (work / "own").mkdir(parents=True)
            for path in sources:
                shutil.copyfile(path, work / "own" / path.name)
            _make(root, kernel.release)
            with staging(folder) as kept:
                for module in (work / "own").glob("*.ko"):
                    shutil.copyfile(module, kept / module.name)
        finally:
            shutil.rmtree(work, ignore_errors=True)
            for link in links:
                link.unlink(missing_ok=True)
    return folder


def _unpack_headers(root: sid.Root, release: str) -> list[Path]:
    """Unpack headers and build tools into the root; their makefiles name each other by absolute paths.

    Returns:
        the links that lead to them, to be removed.
    """
    work = root.folder / _OWN
    shutil.rmtree(work, ignore_errors=True)
    base = release.partition("-")[0]
    tree = work / "tree"
    wanted = (
        ("arm64", (f"linux-headers-{release}", f"linux-headers-{base}-common")),
        (sid.host_arch(), (f"linux-kbuild-{base}",)),
    )
    for arch, names in wanted:
        place = cache_folder() / "apt" if arch == "arm64" else cache_folder() / _OWN / f"apt-{arch}"
        with locked(cache_folder() / "fetch.lock"):
            apt = PrivateApt(place, arch=arch)
            apt.refresh()
            debs = work / f"debs-{arch}"
            debs.mkdir(parents=True)
            for deb in apt.download(apt.show(names), debs):
                apt.extract(deb, tree)
    links = []
    for path in (*tree.glob("usr/src/*"), *tree.glob("usr/lib/linux-kbuild-*")):
        link = root.folder / path.relative_to(tree)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(f"/{path.relative_to(root.folder)}")
        links.append(link)
    return links


def _make(root: sid.Root, release: str) -> None:
    command = ["make", "-C", f"/usr/src/linux-headers-{release}", f"M=/{_OWN}/own", "ARCH=arm64"]
    command += ["CROSS_COMPILE=aarch64-linux-gnu-", "CC=aarch64-linux-gnu-gcc"]
    # No pahole for BTF, which nobody needs here; the layout of struct module is that of the headers all the same.
    command += ["CONFIG_DEBUG_INFO_BTF_MODULES=", "modules"]
    done = subprocess.run(root.inside(command), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
