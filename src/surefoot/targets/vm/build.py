"""Layer 7: Linux kernels of our own configuration, built from Debian's source by Debian's newest cross compiler.

A build works in a private root (``sid``) and touches nothing else; its result appears in the kernel folder whole
or not at all. Kernels are told apart by a key over source, configuration and toolchain, so that nothing is built
twice; without ``refresh``, what was downloaded before is used again and the archive is not asked.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surefoot.errors import SurefootError, TargetError, Unavailable
from surefoot.targets.vm import recipe as recipes
from surefoot.targets.vm import sid
from surefoot.targets.vm.apt import DEFAULT_SUITES, Package, PrivateApt
from surefoot.targets.vm.folders import (
    Report,
    cache_folder,
    locked,
    os_errors,
    read_json,
    silent,
    staging,
    write_json,
)
from surefoot.targets.vm.kconfig import config_text, parse, refused
from surefoot.targets.vm.kernels import MANIFEST, SCHEMA, Kernel, kernels_folder, open_kernel, read_build_id
from surefoot.targets.vm.recipe import Recipe

__all__ = ["ROOT", "Built", "Source", "build", "fetch_source"]

ROOT = "kernel-build"
"""Name of the private root in which kernels are built."""

_TREE = "/build/linux"
_ENVIRONMENT = {
    "KBUILD_BUILD_USER": "surefoot",
    "KBUILD_BUILD_HOST": "surefoot",
    "KBUILD_BUILD_TIMESTAMP": "Thu Jan  1 00:00:00 UTC 1970",
}
"""The same recipe gives the same bytes, whoever builds it and when."""
_NEEDED_BYTES = 5 << 30
_KILL_AFTER_S = 10.0
_STRIP = "aarch64-linux-gnu-strip"


@dataclass(frozen=True)
class Source:
    """A kernel source in the cache.

    Attributes:
        package: ``linux-source-X.Y``.
        version: Debian version.
        tarball: the source itself.
        busybox: static arm64 binary for the guest's root file system.
        packages: both packages: name -> {version, sha256}.
    """

    package: str
    version: str
    tarball: Path
    busybox: Path
    packages: dict[str, dict[str, str]]


@dataclass(frozen=True)
class Built:
    """A kernel and whether it was built just now.

    Attributes:
        kernel: as in the cache.
        new: False if it was there already.
    """

    kernel: Kernel
    new: bool


def build(
    recipe: Recipe,
    *,
    version: str = "",
    jobs: int = 0,
    suites: Sequence[str] = DEFAULT_SUITES,
    mirror: str = "",
    refresh: bool = False,
    report: Report = silent,
) -> Built:
    """Have a kernel of this recipe in the cache.

    Args:
        recipe: what to build.
        version: an upstream version or its beginning; empty for the newest 7.3, else the newest.
        jobs: compilers at once; 0 for one a CPU.
        suites: Debian releases to take the source from.
        mirror: address, or empty for the mirror that the system uses.
        refresh: ask the archive for a newer source and toolchain.
        report: told about each step.

    Raises:
        InputError: a fragment of the configuration holds a line that is no option.
        Unavailable: what the build needs cannot be had; the hint says what would help.
        TargetError: the build failed, with the first complaint; the log is kept and named.
    """
    # A fragment that cannot be read is told before anything is fetched.
    _ = recipe.options
    have = None if refresh else _in_cache(recipe, version)
    if have:
        return Built(have, new=False)
    report("waiting for another build to end")
    with sid.using(ROOT):
        source = fetch_source(version, suites=suites, mirror=mirror, refresh=refresh, report=report)
        packages = (*sid.BASE, *recipes.TOOLCHAIN)
        root = sid.prepare(ROOT, packages, mirror=mirror, refresh=refresh, report=report)
        # Again, because another process may have built it meanwhile, and a refresh may have brought nothing new.
        have = _in_cache(recipe, version, source)
        if have:
            return Built(have, new=False)
        name = f"{recipes.upstream_version(source.version)}-{recipe.label}"
        session = _Session(root, recipe, source, jobs or len(os.sched_getaffinity(0)), name, report)
        try:
            session.make_all()
            with staging(kernels_folder() / name) as work:
                session.collect(work)
        finally:
            session.clean()
    return Built(open_kernel(kernels_folder() / name), new=True)


def fetch_source(
    version: str = "",
    *,
    suites: Sequence[str] = DEFAULT_SUITES,
    mirror: str = "",
    refresh: bool = False,
    report: Report = silent,
) -> Source:
    """Have the source of a kernel, and a busybox, in the cache; see :func:`build` for arguments and errors."""
    cache = cache_folder()
    with locked(cache / "fetch.lock"):
        if not refresh:
            with contextlib.suppress(Unavailable):
                return _cached_source(version)
        apt = PrivateApt(cache / "apt", suites=suites, mirror=mirror, report=report)
        apt.refresh(force=refresh)
        chosen = recipes.choose_source(apt.show(apt.names("linux-source-")), version)
        packages = apt.show([chosen.name, "busybox-static"])
        folder = cache / "sources" / f"{chosen.name}_{chosen.version.replace(':', '_')}"
        if not (folder / MANIFEST).is_file():
            with staging(folder) as work:
                for deb in apt.download(packages, work):
                    apt.extract(deb, work / "root")
                    deb.unlink()
                with os_errors(f"tidy {work}"):
                    (work / f"root/usr/src/{chosen.name}.tar.xz").rename(work / "source.tar.xz")
                    (work / "root/usr/bin/busybox").rename(work / "busybox")
                    shutil.rmtree(work / "root")
                versions = {
                    package.name: {"version": package.version, "sha256": package.sha256} for package in packages
                }
                write_json(work / MANIFEST, {"package": chosen.name, "version": chosen.version, "packages": versions})
        return _open_source(folder)


def _in_cache(recipe: Recipe, version: str, source: Source | None = None) -> Kernel | None:
    """Give the kernel that this recipe makes of what is in the cache, or None; wait for nobody."""
    with contextlib.suppress(SurefootError):
        source, root = source or _cached_source(version), sid.open_root(ROOT)
        kernel = open_kernel(kernels_folder() / f"{recipes.upstream_version(source.version)}-{recipe.label}")
        if kernel.build.get("key") == recipe.key(source.version, recipes.toolchain_versions(root.packages)):
            return kernel
    return None


def _cached_source(version: str) -> Source:
    """Give the source in the cache that fits best.

    Raises:
        Unavailable: none fits.
    """
    have = {source.version: source for source in _sources()}
    offer = [Package(source.package, source.version, 0, "") for source in have.values()]
    return have[recipes.choose_source(offer, version).version]


def _sources() -> list[Source]:
    """Give the sources in the cache; damaged ones are left out."""
    found = []
    for manifest in (cache_folder() / "sources").glob(f"*/{MANIFEST}"):
        with contextlib.suppress(SurefootError):
            found.append(_open_source(manifest.parent))
    return found


def _open_source(folder: Path) -> Source:
    value = read_json(folder / MANIFEST)
    try:
        source = Source(
            str(value["package"]),
            str(value["version"]),
            folder / "source.tar.xz",
            folder / "busybox",
            dict(value["packages"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SurefootError(f"{folder / MANIFEST} is damaged: {error}", hint="delete its folder") from error
    for path in (source.tarball, source.busybox):
        if not path.is_file():
            raise Unavailable(f"{path} is gone", hint="delete its folder")
    return source


class _Session:
    """One build: the folder ``/build`` of the root, and a log."""

    def __init__(self, root: sid.Root, recipe: Recipe, source: Source, jobs: int, name: str, report: Report) -> None:
        self._root = root
        self._recipe = recipe
        self._source = source
        self._jobs = jobs
        self._name = name
        self._report = report
        self._work = root.folder / "build"
        self._tree = root.folder / _TREE.lstrip("/")
        self._log = cache_folder() / "logs" / f"build-{name}.log"
        self._begin = time.monotonic()
        self._made = 0

    def make_all(self) -> None:
        """Make kernel and modules in the tree."""
        # What a build left that was killed; nobody else is in here, because the root is held.
        self.clean()
        with os_errors(f"prepare {self._work}"):
            self._tree.mkdir(parents=True)
            self._log.parent.mkdir(parents=True, exist_ok=True)
            self._log.unlink(missing_ok=True)
            free = shutil.disk_usage(self._work).free
            if free < _NEEDED_BYTES:
                raise TargetError(
                    f"the build needs {_NEEDED_BYTES >> 30} GiB, but {self._work} has {free >> 30} GiB left",
                    hint="set SUREFOOT_CACHE to a folder with more space",
                )
            shutil.copyfile(self._source.tarball, self._work / "source.tar.xz")
            (self._work / "fragment").write_text(config_text(self._recipe.options))
        self._report("unpacking the kernel source")
        self._run(["tar", "-xJf", "../source.tar.xz", "--strip-components=1"])
        self._report("configuring")
        self._run(self._recipe.make(self._jobs, "alldefconfig"), KCONFIG_ALLCONFIG="/build/fragment")
        self._run(self._recipe.make(self._jobs, "Image", "modules"))
        if (self._tree / recipes.SELFTESTS).is_dir():
            self._run(self._recipe.make(self._jobs, f"M={recipes.SELFTESTS}", "modules"))

    def collect(self, work: Path) -> None:
        """Put what is worth keeping into a folder, with a manifest."""
        self._report("collecting")
        tree = self._tree
        with os_errors(f"collect from {tree}"):
            shutil.copyfile(tree / "arch/arm64/boot/Image", work / "vmlinuz")
            (tree / "vmlinux").rename(work / "vmlinux")
            shutil.copyfile(self._source.busybox, work / "busybox")
            for name, kept in (
                (".config", "config"),
                ("System.map", "System.map"),
                ("Module.symvers", "Module.symvers"),
            ):
                shutil.copyfile(tree / name, work / kept)
            for module in sorted(tree.rglob("*.ko")):
                self._keep_module(module, work)
            log = self._log.read_text("utf-8", "replace")
            options = parse((work / "config").read_text(), "config")
            release = (tree / "include/config/kernel.release").read_text().strip()
            shutil.copyfile(self._log, work / "build.log")
        toolchain = recipes.toolchain_versions(self._root.packages)
        # An option that did not come out is told and no error: releases rename options.
        manifest: dict[str, Any] = {
            "schema": SCHEMA,
            "release": release,
            **{name: name for name in ("vmlinuz", "vmlinux", "modules", "busybox")},
            "debug_modules": "debug-modules",
            "build_id": read_build_id(work / "vmlinux"),
            "packages": self._source.packages,
            "build": {
                "key": self._recipe.key(self._source.version, toolchain),
                **self._recipe.to_json(),
                "refused": refused(self._recipe.options, options),
                "toolchain": toolchain,
                "sframe_dropped": recipes.dropped_functions(log),
                "seconds": round(time.monotonic() - self._begin, 1),
                "jobs": self._jobs,
            },
        }
        write_json(work / MANIFEST, manifest)

    def _keep_module(self, module: Path, work: Path) -> None:
        """Keep a module as built, and without debug information as it is loaded."""
        place = module.relative_to(self._tree)
        full, loaded = work / "debug-modules" / place, work / "modules" / place
        for path in (full, loaded):
            path.parent.mkdir(parents=True, exist_ok=True)
        module.rename(full)
        words = [*self._root.tool(_STRIP), "--strip-debug", "-o", str(loaded), str(full)]
        result = subprocess.run(words, capture_output=True, text=True, check=False)
        if result.returncode:
            raise TargetError(f"{place} could not be stripped: {result.stderr.strip()}")

    def clean(self) -> None:
        """Remove the tree."""
        with os_errors(f"remove {self._work}"):
            if self._work.exists():
                shutil.rmtree(self._work)

    def _run(self, command: Sequence[str], **env: str) -> None:
        """Run a command in the tree; its output goes to the log, its progress to the report."""
        words = self._root.inside(command, cwd=_TREE, env={**_ENVIRONMENT, **env})
        with os_errors(f"write {self._log}"), self._log.open("a") as log:
            log.write(f"$ {' '.join(command)}\n")
            status = _run_logged(words, lambda line: self._heard(line, log.write))
        if status:
            said = recipes.first_error(self._log.read_text("utf-8", "replace"))
            raise TargetError(f"{command[0]} failed while building {self._name}: {said}", hint=f"see {self._log}")

    def _heard(self, line: str, write: Callable[[str], object]) -> None:
        write(line)
        step = recipes.progress(line.rstrip("\n"))
        if step:
            self._made += 1
            minutes = (time.monotonic() - self._begin) / 60
            self._report(f"building {self._name}: {minutes:.1f} min, {self._made} files, {step}")


def _run_logged(words: Sequence[str], heard: Callable[[str], object]) -> int:
    """Run a command, hand on each line that it prints, and give its status; an exception ends all it started."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    with subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        env={**os.environ, "PATH": path},
    ) as process:
        try:
            for line in process.stdout or ():
                heard(line)
            return process.wait()
        except BaseException:
            _end_group(process)
            raise


def _end_group(process: subprocess.Popen[str]) -> None:
    """End a process and all of its group, at first by asking."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_KILL_AFTER_S)
