"""Layer 7: programs newer than the system's own: Debian packages unpacked in a private root, never installed.

A root is a folder with the files of some packages and of all that they depend on, as ``dpkg -x`` gives them: no
script of a package runs, nothing outside the folder changes, and being root is not needed. Two ways to use one:

- :meth:`Root.tool` runs one program on the system's own files, by the root's dynamic loader. That is enough for an
  assembler or readelf, which start no other program.
- :meth:`Root.inside` runs a command that sees the root as its whole file system. That is what a compiler or make
  needs; it takes chroot as root, else a user namespace or bubblewrap.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from surefoot.errors import SurefootError, TargetError, Unavailable
from surefoot.targets.vm.apt import Package, PrivateApt
from surefoot.targets.vm.folders import (
    Report,
    cache_folder,
    check_tools,
    locked,
    os_errors,
    read_json,
    silent,
    staging,
    write_json,
)

__all__ = ["BASE", "SUITES", "Root", "entrances", "host_arch", "open_root", "prepare", "using"]

SUITES = ("sid",)
BASE = (
    *("base-files", "bash", "coreutils", "dash", "debianutils", "diffutils", "findutils", "grep", "gzip"),
    *("mawk", "perl-base", "sed", "tar", "xz-utils"),
)
"""What build scripts take for granted, where a whole root is needed; no package depends on these."""

_SCHEMA = "surefoot.root/1"
_MANIFEST = "root.json"
_NAME = re.compile(r"^[a-z0-9][a-z0-9-]*$")
_MERGED = ("bin", "lib", "lib64", "sbin")
_ALTERNATIVES = {"usr/bin/awk": "mawk", "usr/bin/which": "which.debianutils"}
"""Names that a package's own script would make on installation."""
_LOADERS = {
    "usr/lib64/ld-linux-x86-64.so.2": "usr/lib/x86_64-linux-gnu",
    "usr/lib/ld-linux-aarch64.so.1": "usr/lib/aarch64-linux-gnu",
}
"""Dynamic loaders -> where their libraries lie. A cross compiler's libraries lie elsewhere."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_DEVICES = {"null": (1, 3), "zero": (1, 5), "urandom": (1, 9)}

# Runs within new namespaces, on the system's files: $1 is the root, the rest is the command.
_ENTER = (
    'root=$1; shift; mount --rbind /dev "$root/dev" && mount --rbind /proc "$root/proc" && exec chroot "$root" "$@"'
)
_PROBE = ("/bin/sh", "-c", "echo probe >/dev/null && test -c /dev/null")


@dataclass(frozen=True)
class Root:
    """A private root that is ready for use.

    Attributes:
        folder: where it lies.
        packages: what it holds: name -> {version, sha256}.
    """

    folder: Path
    packages: dict[str, dict[str, str]]

    def version(self, package: str) -> str:
        """Give the Debian version of a package.

        Raises:
            Unavailable: the root does not hold it.
        """
        if package not in self.packages:
            raise Unavailable(f"the private root {self.folder} lacks {package}")
        return self.packages[package]["version"]

    def tool(self, program: str) -> list[str]:
        """Give the words that run a program of the root on the system's own files; its arguments follow.

        For programs that start no others: assembler, linker, readelf, objdump.

        Raises:
            Unavailable: the root holds no such program, or no loader for it.
        """
        path = self.folder / "usr/bin" / program
        loader = next((name for name in _LOADERS if (self.folder / name).is_file()), "")
        if not path.is_file() or not loader:
            raise Unavailable(f"the private root {self.folder} holds no program {program}")
        return [str(self.folder / loader), "--library-path", str(self.folder / _LOADERS[loader]), str(path)]

    def inside(self, command: Sequence[str], *, cwd: str = "/", env: Mapping[str, str] | None = None) -> list[str]:
        """Give the words that run a command which sees the root as its file system.

        The environment is empty but for PATH, HOME, LC_ALL and what ``env`` holds.

        Args:
            command: program and arguments, paths as within the root.
            cwd: folder within the root.
            env: variables to set.

        Raises:
            Unavailable: this user cannot run anything in a root of its own; the hint says what would allow it.
        """
        settings = {"PATH": _PATH, "HOME": "/tmp", "LC_ALL": "C", **(env or {})}  # noqa: S108 - of the root
        words = ["/usr/bin/env", "-i", "-C", cwd, *(f"{key}={value}" for key, value in settings.items())]
        return [*_entrance(self.folder), *words, *command]


def entrances(folder: Path, *, is_root: bool) -> dict[str, list[str]]:
    """Give every way into a root: what it is called -> the words before the command; pure, best first."""
    script = ["/bin/sh", "-c", _ENTER, "sh", str(folder)]
    bubblewrap = ["bwrap", "--die-with-parent", "--bind", str(folder), "/", "--dev", "/dev", "--proc", "/proc"]
    if is_root:
        return {
            "mount namespace": ["unshare", "--mount", "--", *script],
            "chroot": ["chroot", str(folder)],
            "bubblewrap": bubblewrap,
        }
    return {
        "user namespace": ["unshare", "--user", "--map-root-user", "--mount", "--", *script],
        "bubblewrap": bubblewrap,
    }


@functools.cache
def _entrance(folder: Path) -> tuple[str, ...]:
    """Give the first way into a root that works here."""
    is_root = os.geteuid() == 0
    said = []
    for name, words in entrances(folder, is_root=is_root).items():
        if name == "chroot":
            _make_devices(folder / "dev")
        try:
            result = subprocess.run(
                [*words, *_PROBE],
                capture_output=True,
                text=True,
                check=False,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"},
            )
        except OSError as error:
            said.append(f"{name}: {error.strerror}")
            continue
        if result.returncode == 0:
            return tuple(words)
        said.append(f"{name}: {(result.stderr.strip().splitlines() or ['failed'])[-1]}")
    raise Unavailable(
        f"no command can be run with its own root file system ({'; '.join(said)})",
        hint="run as root, or allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, on Ubuntu "
        "kernel.apparmor_restrict_unprivileged_userns=0), or install bubblewrap",
    )


def _make_devices(folder: Path) -> None:
    """Make the device nodes that a plain chroot needs; where that is not allowed, the probe fails and says so."""
    for name, (major, minor) in _DEVICES.items():
        path = folder / name
        if path.is_char_device():
            continue
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
            os.mknod(path, 0o20666, os.makedev(major, minor))
            path.chmod(0o666)


def host_arch() -> str:
    """Give the Debian architecture whose programs run here.

    Raises:
        Unavailable: dpkg is missing.
    """
    check_tools(dpkg="dpkg")
    result = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True)
    return result.stdout.strip()


def _folder(name: str) -> Path:
    if not _NAME.match(name):
        raise SurefootError(f"'{name}' cannot name a private root")
    return cache_folder() / "roots" / name


def open_root(name: str) -> Root:
    """Give a root that was prepared before.

    Raises:
        Unavailable: there is none.
    """
    folder = _folder(name)
    manifest = folder / _MANIFEST
    if not manifest.is_file():
        raise Unavailable(f"there is no private root in {folder}")
    value = read_json(manifest)
    try:
        return Root(folder, {key: dict(entry) for key, entry in value["packages"].items()})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SurefootError(f"{manifest} is damaged: {error}", hint="delete its folder") from error


@contextlib.contextmanager
def using(name: str) -> Iterator[None]:
    """Hold a root for a block: nobody prepares it anew meanwhile, and nobody else who asks like this uses it."""
    with locked(_folder(name).parent / f".{name}.lock"):
        yield


def prepare(
    name: str,
    packages: Sequence[str],
    *,
    suites: Sequence[str] = SUITES,
    mirror: str = "",
    refresh: bool = False,
    report: Report = silent,
) -> Root:
    """Have a private root with these packages of the machine's own architecture and all they depend on.

    One that holds them all is taken as it is, without asking the archive; so its versions stay the same until
    ``refresh``. A download that is broken off leaves the old root, or nothing. The caller holds :func:`using`.

    Args:
        name: of the root, for its folder: lower-case letters, digits, dashes.
        packages: what is wanted by name.
        suites: Debian releases to take them from.
        mirror: address, or empty for the mirror that the system uses.
        refresh: take what the archive has now.
        report: told about each step.

    Raises:
        Unavailable: apt or dpkg is missing, the network fails, or the archive cannot provide the packages.
        TargetError: the files cannot be written.
    """
    if not refresh:
        try:
            root = open_root(name)
        except Unavailable:
            root = Root(Path(), {})
        if all(package in root.packages for package in packages):
            return root
    cache = cache_folder()
    with locked(cache / "roots" / ".apt.lock"):
        apt = PrivateApt(cache / "roots" / ".apt", suites=suites, mirror=mirror, arch=host_arch(), report=report)
        apt.refresh(force=refresh)
        wanted = apt.closure(packages)
        with staging(_folder(name)) as work:
            _unpack(apt, wanted, work, report)
            versions = {package.name: {"version": package.version, "sha256": package.sha256} for package in wanted}
            write_json(work / _MANIFEST, {"schema": _SCHEMA, "packages": versions})
    return open_root(name)


def _unpack(apt: PrivateApt, packages: Sequence[Package], work: Path, report: Report) -> None:
    """Fill a folder with the files of packages and with the few names that their scripts would have made."""
    with os_errors(f"prepare {work}"):
        for name in (*(f"usr/{name}" for name in _MERGED), "dev", "proc", "tmp", ".debs"):
            (work / name).mkdir(parents=True)
        (work / "tmp").chmod(0o1777)
        for name in _MERGED:
            (work / name).symlink_to(f"usr/{name}")
    debs = apt.download(packages, work / ".debs")
    if len(debs) != len(packages):
        raise TargetError(f"apt downloaded {len(debs)} of {len(packages)} packages")
    for number, deb in enumerate(debs, 1):
        apt.extract(deb, work)
        report(f"unpacking {number} of {len(debs)} packages")
        deb.unlink()
    with os_errors(f"prepare {work}"):
        shutil.rmtree(work / ".debs")
        for name, target in _ALTERNATIVES.items():
            link = work / name
            if (link.parent / target).exists() and not link.is_symlink():
                link.symlink_to(target)
    split = [name for name in _MERGED if not (work / name).is_symlink()]
    if split:
        raise TargetError(f"a package has replaced the link /{split[0]} of the private root by a folder")
