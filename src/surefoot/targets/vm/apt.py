"""Layer 7: Debian packages by apt in a private root; the system's own apt state is neither used nor changed.

The system's apt *configuration* stays in force (proxies, certificates, logins, retries), because only places
and architecture are overridden, by a configuration file that apt reads last.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from surefoot.errors import SurefootError, TargetError, Unavailable
from surefoot.targets.vm import mirror as mirrors
from surefoot.targets.vm.folders import Report, check_tools, os_errors, silent

__all__ = [
    "DEFAULT_SUITES",
    "KernelPackages",
    "Package",
    "PrivateApt",
    "kernel_packages",
    "parse_show",
    "parse_simulation",
    "release_fits",
    "release_key",
]

ARCH = "arm64"
DEFAULT_SUITES = ("trixie-backports", "sid")
_LISTS_MAX_AGE_S = 24 * 3600
_DBG = re.compile(r"^linux-image-(?P<release>\d[\w.+~-]*)-dbg$")

_INST = re.compile(r"^Inst (?P<name>[^\s:]+)\S* (?:\[[^]]*\] )?\((?P<version>\S+) ")

_CONFIG = """\
// Written by surefoot; read after the system's own files.
Dir::Etc::SourceList "{root}/sources.list";
Dir::Etc::SourceParts "{root}/sources.list.d";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "{root}/state";
Dir::State::Lists "{root}/lists";
Dir::State::Status "/dev/null";
Dir::Cache "{root}/cache";
Dir::Log "{root}/log";
APT::Architecture "{arch}";
#clear APT::Architectures;
APT::Architectures {{ "{arch}"; }};
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
Acquire::Languages "none";
APT::Sandbox::User "root";
"""


@dataclass(frozen=True)
class Package:
    """One version of a package, as the index has it.

    Attributes:
        name: without architecture.
        version: Debian version.
        size_bytes: of the .deb file.
        sha256: of the .deb file, in hexadecimal; apt has compared it when a download ends well.
    """

    name: str
    version: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class KernelPackages:
    """The packages that make up one kernel.

    Attributes:
        release: what ``uname -r`` prints.
        names: debug symbols first, then image and modules.
    """

    release: str
    names: tuple[str, ...]


def parse_show(text: str) -> list[Package]:
    """Give the packages of an ``apt-cache show`` listing, in its order.

    Raises:
        SurefootError: a stanza lacks a field that every Debian index has.
    """
    found = []
    for stanza in re.split(r"\n\s*\n", text.strip()):
        fields = {
            key: value.strip()
            for key, colon, value in (line.partition(":") for line in stanza.splitlines())
            if colon and not key.startswith(" ")
        }
        try:
            found.append(Package(fields["Package"], fields["Version"], int(fields["Size"]), fields.get("SHA256", "")))
        except (KeyError, ValueError) as error:
            raise SurefootError(f"the package index has an entry that is not usable: {error}") from error
    return found


def release_key(release: str) -> tuple[int, ...]:
    """Give what orders kernel releases: the numbers of the upstream version, then of the Debian release."""
    return tuple(int(number) for number in re.findall(r"\d+", release.partition("-")[0]))


def release_fits(release: str, version: str) -> bool:
    """Say whether a release is of a version: the same, or longer by something after a dot, plus or dash."""
    return not version or release == version or release.startswith(tuple(version + end for end in ".+-"))


def kernel_packages(names: Iterable[str], flavour: str, version: str = "") -> KernelPackages:
    """Choose a kernel out of the package names on offer.

    Args:
        names: every package name of the archive that starts with ``linux-``.
        flavour: end of the release, such as ``cloud-arm64``.
        version: a release or the beginning of one ("7.3", "7.3.4"); empty for the newest.

    Raises:
        Unavailable: no kernel with debug symbols fits; the hint lists what there is.
    """
    on_offer = set(names)
    releases = sorted(
        (
            match["release"]
            for match in map(_DBG.match, on_offer)
            if match and match["release"].endswith(f"-{flavour}")
        ),
        key=release_key,
    )
    fitting = [release for release in releases if release_fits(release, version)]
    if not fitting:
        have = ", ".join(release.partition("+")[0] for release in releases) or "none at all"
        raise Unavailable(
            f"no {flavour} kernel with debug symbols fits version '{version}'", hint=f"there is: {have}"
        )
    release = fitting[-1]
    chosen = [f"linux-image-{release}-dbg"]
    image = (f"linux-binary-{release}", f"linux-image-{release}", f"linux-image-{release}-unsigned")
    chosen += [name for name in image if name in on_offer][:1]
    chosen += [name for name in (f"linux-modules-{release}",) if name in on_offer]
    if len(chosen) < 2:
        raise Unavailable(f"the archive has debug symbols for {release} but no kernel image")
    return KernelPackages(release, tuple(chosen))


def parse_simulation(text: str) -> list[tuple[str, str]]:
    """Give name and version of every package that ``apt-get -s install`` would install, in its order."""
    return [(match["name"], match["version"]) for match in map(_INST.match, text.splitlines()) if match]


class PrivateApt:
    """An apt with its own sources, lists and cache in one folder; several processes must not share it at once.

    Args:
        root: the folder; made when first needed.
        suites: releases of the archive to look in; one that the mirror lacks is passed over.
        mirror: address of a mirror, or empty for the one that the system uses.
        arch: Debian architecture of the packages.
        report: told about each step.
    """

    def __init__(
        self,
        root: Path,
        *,
        suites: Sequence[str] = DEFAULT_SUITES,
        mirror: str = "",
        arch: str = ARCH,
        report: Report = silent,
    ) -> None:
        self.root = root
        self.suites = tuple(suites)
        self.arch = arch
        self._mirror = mirror
        self._report = report

    def refresh(self, *, force: bool = False) -> None:
        """Have package lists not older than a day for these suites.

        Raises:
            Unavailable: apt is missing, no mirror is known, or no list could be fetched.
        """
        check_tools(apt_get="apt", apt_cache="apt", dpkg="dpkg")
        sources = self._find_mirror().deb822(self.suites, self.arch)
        sources_file = self.root / "sources.list.d" / "debian.sources"
        stamp = self.root / "refreshed"
        with os_errors(f"prepare {self.root}"):
            for folder in ("sources.list.d", "state", "lists/partial", "cache/archives/partial", "log"):
                (self.root / folder).mkdir(parents=True, exist_ok=True)
            self._config.write_text(_CONFIG.format(root=self.root, arch=self.arch))
            same = sources_file.is_file() and sources_file.read_text() == sources
            fresh = stamp.is_file() and time.time() - stamp.stat().st_mtime < _LISTS_MAX_AGE_S
            if same and fresh and not force:
                return
            stamp.unlink(missing_ok=True)
            sources_file.write_text(sources)
        self._report("fetching the package lists")
        result = self._run("apt-get", "update", "--quiet", check=False)
        if not list((self.root / "lists").glob("*Packages*")):
            raise _failed("the package lists could not be fetched", result)
        if result.returncode == 0:
            stamp.touch()

    def names(self, prefix: str) -> list[str]:
        """Give the package names that start so."""
        return self._run("apt-cache", "pkgnames", prefix).stdout.split()

    def show(self, names: Sequence[str]) -> list[Package]:
        """Give the version that would be downloaded of each package.

        Raises:
            Unavailable: a package is not in the archive.
        """
        result = self._run("apt-cache", "--no-all-versions", "show", *names, check=False)
        if result.returncode:
            raise _failed("the archive lacks a package", result)
        return parse_show(result.stdout)

    def closure(self, names: Sequence[str]) -> list[Package]:
        """Give these packages and all they depend on, as if nothing were installed; recommendations are left out.

        Raises:
            Unavailable: a package is not in the archive, or its dependencies cannot be had together.
        """
        options = ("-s", "-q", "-y", "--no-install-recommends")
        result = self._run("apt-get", *options, "install", *names, check=False)
        if result.returncode:
            raise _failed("the archive cannot provide the packages", result)
        return self.show([f"{name}={version}" for name, version in parse_simulation(result.stdout)])

    def download(self, packages: Sequence[Package], folder: Path) -> list[Path]:
        """Have the .deb files in a folder; apt has checked their hashes.

        Raises:
            Unavailable: the network or the mirror failed; apt's own words are in the hint.
        """
        total = sum(package.size_bytes for package in packages)
        wanted = [f"{package.name}:{self.arch}={package.version}" for package in packages]
        with subprocess.Popen(
            ["apt-get", "-c", str(self._config), "download", "-qq", *wanted],
            cwd=folder,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            while True:
                try:
                    _, errors = process.communicate(timeout=0.5)
                    break
                except subprocess.TimeoutExpired:
                    done = sum(path.stat().st_size for path in folder.rglob("*.deb*") if path.is_file())
                    self._report(f"downloading: {done >> 20} of {total >> 20} MiB")
        if process.returncode:
            raise _failed(
                "the packages could not be downloaded",
                subprocess.CompletedProcess([], process.returncode, "", errors),
            )
        return sorted(folder.glob("*.deb"))

    def extract(self, deb: Path, folder: Path) -> None:
        """Unpack the files of a .deb file into a folder; nothing is installed, no script of it runs.

        Raises:
            TargetError: dpkg failed, as on a full disk.
        """
        self._report(f"unpacking {deb.name.partition('_')[0]}")
        result = subprocess.run(
            ["dpkg", "-x", str(deb), str(folder)],
            capture_output=True,
            text=True,
            check=False,
            env=_environment(),
        )
        if result.returncode:
            raise TargetError(f"{deb.name} could not be unpacked: {_last_line(result.stderr)}")

    @property
    def _config(self) -> Path:
        return self.root / "apt.conf"

    def _find_mirror(self) -> mirrors.Mirror:
        if self._mirror:
            return mirrors.given_mirror(self._mirror)
        check_tools(apt_config="apt")
        result = subprocess.run(
            ["apt-config", "shell", "LIST", "Dir::Etc::sourcelist/f", "PARTS", "Dir::Etc::sourceparts/d"],
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            raise _failed("apt's configuration could not be read", result)
        paths = mirrors.parse_config_shell(result.stdout)
        return mirrors.choose_mirror(
            mirrors.read_sources(
                Path(paths.get("LIST", "/etc/apt/sources.list")),
                Path(paths.get("PARTS", "/etc/apt/sources.list.d")),
            )
        )

    def _run(self, program: str, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            [program, "-c", str(self._config), *words],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            env=_environment(),
        )
        if check and result.returncode:
            raise _failed(f"{program} failed", result)
        return result


def _environment() -> dict[str, str]:
    """Give the environment for apt: the caller's, but in a language whose messages can be passed on."""
    return {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no message"


def _failed(message: str, result: subprocess.CompletedProcess[str]) -> Unavailable:
    """Give an error with apt's own first complaint as the hint."""
    complaints = [line for line in result.stderr.splitlines() if line.startswith(("E:", "W: Failed"))]
    hint = complaints[0][2:].strip() if complaints else _last_line(result.stderr)
    return Unavailable(message, hint=f"apt says: {hint}")
