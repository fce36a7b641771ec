"""Layer 7: kernels in the cache folder, fetched or built, each with a manifest that says what it is made of."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from surefoot.errors import InputError, SurefootError, Unavailable
from surefoot.targets.vm.apt import DEFAULT_SUITES, PrivateApt, kernel_packages, release_fits, release_key
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

__all__ = [
    "MANIFEST",
    "SCHEMA",
    "Kernel",
    "fetch",
    "find",
    "installed",
    "kernels_folder",
    "open_kernel",
    "read_build_id",
]

DEFAULT_FLAVOUR = "cloud-arm64"
SCHEMA = "surefoot.vm-kernel/1"
MANIFEST = "manifest.json"
_NT_GNU_BUILD_ID = "NT_GNU_BUILD_ID"


@dataclass(frozen=True)
class Kernel:
    """A kernel on disk, ready to boot.

    Attributes:
        release: what ``uname -r`` prints.
        folder: where it lies.
        vmlinuz: bootable image.
        vmlinux: the same kernel with debug symbols.
        modules: folder with the modules as they are loaded.
        debug_modules: folder with the modules' debug symbols, as ``surefoot stack --modules`` takes it.
        busybox: static arm64 binary for the guest's root file system.
        build_id: of vmlinux, in hexadecimal.
        packages: what it was made of: name -> {version, sha256}.
        build: of a kernel that was built here: key, options, toolchain, what the assembler left without SFrame
            data; empty for a fetched one.
    """

    release: str
    folder: Path
    vmlinuz: Path
    vmlinux: Path
    modules: Path
    debug_modules: Path
    busybox: Path
    build_id: str
    packages: dict[str, dict[str, str]]
    build: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What ``surefoot vm boot --kernel`` takes: the name of the folder."""
        return self.folder.name

    def to_json(self) -> dict[str, Any]:
        """Give the manifest with absolute paths."""
        plain = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self).items()}
        return {"name": self.name, **plain}


def kernels_folder() -> Path:
    """Give the folder in which each kernel has one of its own; it need not exist."""
    return cache_folder() / "kernels"


def read_build_id(path: Path) -> str:
    """Give the GNU build-id of an ELF file in hexadecimal.

    Raises:
        InputError: not an ELF file, or it has none.
    """
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile
    from elftools.elf.sections import NoteSection

    try:
        with path.open("rb") as file:
            for section in ELFFile(file).iter_sections():
                if not isinstance(section, NoteSection):
                    continue
                for note in section.iter_notes():
                    if note["n_type"] == _NT_GNU_BUILD_ID:
                        return str(note["n_desc"])
    except (ELFError, OSError) as error:
        raise InputError(f"cannot be read as ELF: {error}", file=str(path)) from error
    raise InputError("the file has no build-id", file=str(path))


def open_kernel(folder: Path) -> Kernel:
    """Read the manifest of a kernel that was fetched or built before.

    Raises:
        Unavailable: there is none, or files that it names are gone.
    """
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise Unavailable(f"there is no kernel in {folder}", hint="run: surefoot vm fetch, or: surefoot vm build")
    value = read_json(manifest)
    try:
        names = ("vmlinuz", "vmlinux", "modules", "debug_modules", "busybox")
        paths = {name: folder / str(value[name]) for name in names}
        kernel = Kernel(
            release=str(value["release"]),
            folder=folder,
            build_id=str(value["build_id"]),
            packages=dict(value["packages"]),
            build=dict(value.get("build", {})),
            **paths,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SurefootError(f"{manifest} is damaged: {error}", hint="delete its folder") from error
    for path in paths.values():
        if not path.exists():
            raise Unavailable(f"{path} is gone", hint="delete the folder and run: surefoot vm fetch")
    return kernel


def installed() -> list[Kernel]:
    """Give the kernels in the cache: built ones, then fetched ones, each by release; damaged ones are left out."""
    found = []
    for manifest in kernels_folder().glob(f"*/{MANIFEST}"):
        try:
            found.append(open_kernel(manifest.parent))
        except SurefootError:
            continue
    return sorted(found, key=lambda kernel: (not kernel.build, release_key(kernel.release), kernel.name))


def find(version: str = "", name: str = "") -> Kernel:
    """Give a kernel of the cache.

    Args:
        version: its release or the beginning; the newest that fits is taken, a built one only if none was fetched.
        name: of its folder, whole; then the version has to fit as well.

    Raises:
        Unavailable: none fits; the hint lists the names that there are.
    """
    have = installed()
    fitting = [kernel for kernel in have if release_fits(kernel.release, version) and name in {"", kernel.name}]
    if not fitting:
        wanted = f" of version {version}" if version else ""
        wanted += f" named {name}" if name else ""
        names = ", ".join(kernel.name for kernel in have)
        hint = f"there is: {names}" if names else "run: surefoot vm fetch, or: surefoot vm build"
        raise Unavailable(f"no kernel{wanted} is in the cache", hint=hint)
    return fitting[-1]


def fetch(
    version: str = "",
    *,
    suites: Sequence[str] = DEFAULT_SUITES,
    mirror: str = "",
    flavour: str = DEFAULT_FLAVOUR,
    report: Report = silent,
) -> Kernel:
    """Have a Debian arm64 kernel with its debug symbols and a busybox in the cache.

    What is there already is not fetched again; a download that is broken off leaves nothing behind.

    Args:
        version: a release or the beginning of one; empty for the newest of the archive.
        suites: Debian releases to look in.
        mirror: address, or empty for the mirror that the system uses.
        flavour: end of the release name.
        report: told about each step.

    Raises:
        Unavailable: apt or dpkg is missing, the network fails, or no kernel fits.
        TargetError: the files cannot be written.
    """
    root = cache_folder()
    with locked(root / "fetch.lock"):
        apt = PrivateApt(root / "apt", suites=suites, mirror=mirror, report=report)
        apt.refresh()
        chosen = kernel_packages(apt.names("linux-"), flavour, version)
        folder = kernels_folder() / chosen.release
        packages = apt.show([*chosen.names, "busybox-static"])
        try:
            have = open_kernel(folder)
        except SurefootError:
            have = None
        if have and all(
            have.packages.get(package.name, {}).get("version") == package.version
            for package in packages
            if package.name != "busybox-static"
        ):
            return have
        with staging(folder) as work:
            tree = work / "root"
            (work / "debs").mkdir()
            for deb in apt.download(packages, work / "debs"):
                apt.extract(deb, tree)
            with os_errors(f"tidy {work}"):
                shutil.rmtree(work / "debs")
                manifest = _sort(work, tree, chosen.release)
            manifest["packages"] = {
                package.name: {"version": package.version, "sha256": package.sha256} for package in packages
            }
            write_json(work / MANIFEST, manifest)
        return open_kernel(folder)


def _sort(work: Path, tree: Path, release: str) -> dict[str, Any]:
    """Move the parts that are used out of the unpacked packages; give the manifest but for the packages."""
    debug = _one(tree, f"usr/lib/debug/lib/modules/{release}", f"usr/lib/debug/usr/lib/modules/{release}")
    modules = _one(tree, f"usr/lib/modules/{release}", f"lib/modules/{release}")
    images = (f"usr/lib/modules/{release}/vmlinuz", f"boot/vmlinuz-{release}", f"boot/vmlinux-{release}")
    _one(tree, *images).rename(work / "vmlinuz")
    _followed(tree, debug / "vmlinux").rename(work / "vmlinux")
    (debug / "kernel").rename(work / "debug-modules")
    (modules / "kernel").rename(work / "modules")
    _one(tree, "usr/bin/busybox", "bin/busybox").rename(work / "busybox")
    shutil.rmtree(tree)
    return {
        "schema": SCHEMA,
        "release": release,
        "vmlinuz": "vmlinuz",
        "vmlinux": "vmlinux",
        "modules": "modules",
        "debug_modules": "debug-modules",
        "busybox": "busybox",
        "build_id": read_build_id(work / "vmlinux"),
    }


def _followed(tree: Path, path: Path) -> Path:
    """Give the file behind a symbolic link of a package, whose absolute links start at the unpacked tree.

    Raises:
        Unavailable: the link leads out of the packages, or to nothing.
    """
    if path.is_symlink():
        goal = path.readlink()
        path = tree / goal.relative_to("/") if goal.is_absolute() else path.parent / goal
    found = path.resolve()
    if not found.is_relative_to(tree.resolve()) or not found.is_file():
        raise Unavailable(f"the packages do not hold what {path.name} stands for")
    return found


def _one(tree: Path, *names: str) -> Path:
    for name in names:
        if (tree / name).exists():
            return tree / name
    raise Unavailable(f"the packages hold none of: {', '.join(names)}")
