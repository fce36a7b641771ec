"""Layer 7: what a built kernel is made from, its name, its key, and the commands that make it; pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from surefoot.errors import Unavailable
from surefoot.targets.vm.apt import Package, release_fits, release_key
from surefoot.targets.vm.kconfig import base_fragment, config_text, merge, parse

__all__ = [
    "SELFTESTS",
    "TOOLCHAIN",
    "Recipe",
    "choose_source",
    "dropped_functions",
    "first_error",
    "progress",
    "toolchain_versions",
    "upstream_version",
]

TOOLCHAIN = (
    *("bc", "binutils-aarch64-linux-gnu", "bison", "flex", "gcc", "gcc-aarch64-linux-gnu", "libc6-dev"),
    *("libelf-dev", "libssl-dev", "make", "openssl", "perl", "python3-minimal"),
)
"""Debian packages that the build of a kernel runs, besides what every root has."""

SELFTESTS = "tools/testing/selftests/livepatch/test_modules"
"""Folder of the kernel's own test modules for live patches."""

_FORMAT = 1
"""Part of every key: counted up when a build of the same recipe would give something else than before."""
_PREFERRED = "7.3"
_SOURCE = re.compile(r"^linux-source-\d+\.\d+$")
_TOOLCHAIN_PACKAGE = re.compile(r"^(?:gcc|binutils)(?:-\d+)?-aarch64-linux-gnu$")
_DROPPED = re.compile(r"no SFrame FDE emitted; (?P<reason>.*\S)")
_STEP = re.compile(r"^  (?P<what>[A-Z][A-Z0-9_]*) +(?:\[M\] +)?(?P<path>\S+)$")
_ERROR = re.compile(r"(?:\berror:|^make(?:\[\d+\])?: \*\*\* |\bundefined reference\b|^/?\S+: fatal )", re.IGNORECASE)
_NO_ERROR = re.compile(r"Waiting for unfinished jobs")


def upstream_version(version: str) -> str:
    """Give the upstream part of a Debian version: ``1:7.3.4-1~bpo13+1`` -> ``7.3.4``."""
    return version.rpartition(":")[2].rpartition("-")[0] or version


def choose_source(packages: Iterable[Package], version: str = "") -> Package:
    """Choose the kernel source out of what is on offer.

    Args:
        packages: of any name; those called ``linux-source-X.Y`` count.
        version: an upstream version or its beginning; empty for the newest 7.3, else the newest of all.

    Raises:
        Unavailable: none fits; the hint lists what there is.
    """
    sources = sorted(
        (package for package in packages if _SOURCE.match(package.name)),
        key=lambda package: release_key(upstream_version(package.version)),
    )
    for wanted in [version] if version else [_PREFERRED, ""]:
        fitting = [package for package in sources if release_fits(upstream_version(package.version), wanted)]
        if fitting:
            return fitting[-1]
    have = ", ".join(upstream_version(package.version) for package in sources) or "none at all"
    raise Unavailable(f"no kernel source fits version '{version}'", hint=f"there is: {have}")


def toolchain_versions(packages: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Give the versions of compiler and assembler out of a root's packages, by name."""
    return {name: entry["version"] for name, entry in sorted(packages.items()) if _TOOLCHAIN_PACKAGE.match(name)}


@dataclass(frozen=True)
class Recipe:
    """Which kernel to build.

    Attributes:
        scs: with shadow call stack.
        sframe: let the assembler write .sframe sections.
        extra: more fragments of configuration, later ones count.
    """

    scs: bool = True
    sframe: bool = False
    extra: tuple[str, ...] = ()

    @property
    def options(self) -> dict[str, str]:
        """The options that are asked for, by name.

        Raises:
            InputError: a fragment holds a line that is no option.
        """
        own = {"SHADOW_CALL_STACK": "y" if self.scs else "n"}
        return merge([parse(base_fragment(), "kernel.config"), *map(parse, self.extra), own])

    @property
    def label(self) -> str:
        """What the release name ends with; other fragments, other label."""
        words = ["surefoot", "scs" if self.scs else "noscs"]
        if self.sframe:
            words.append("sframe")
        if self.extra:
            words.append(hashlib.sha256(config_text(self.options).encode()).hexdigest()[:8])
        return "-".join(words)

    def key(self, source: str, toolchain: Mapping[str, str]) -> str:
        """Give a hash over everything that decides what the build gives, in hexadecimal.

        Args:
            source: Debian version of the kernel source.
            toolchain: versions by package name.
        """
        parts = [_FORMAT, source, sorted(toolchain.items()), self.label, config_text(self.options)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def make(self, jobs: int, *targets: str) -> list[str]:
        """Give the words that make targets in the source folder, within the root."""
        words = ["make", f"-j{jobs}", "ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-", f"LOCALVERSION=-{self.label}"]
        if self.sframe:
            words += ["KCFLAGS=-Wa,--gsframe", "KAFLAGS=-Wa,--gsframe"]
        return [*words, *targets]

    def to_json(self) -> dict[str, Any]:
        """Give plain values for the manifest."""
        return {"scs": self.scs, "sframe": self.sframe, "options": self.options}


def dropped_functions(log: str) -> dict[str, int]:
    """Give how many functions the assembler left without SFrame data, by its own words for the reason."""
    counts = Counter(match["reason"] for match in map(_DROPPED.search, log.splitlines()) if match)
    return dict(counts.most_common())


def progress(line: str) -> str:
    """Give what a line of make's output says is being made, or an empty string."""
    match = _STEP.match(line)
    return f"{match['what']} {match['path']}" if match else ""


def first_error(log: str) -> str:
    """Give the first complaint in a log of make, or its last line."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    for line in lines:
        if _ERROR.search(line) and not _NO_ERROR.search(line):
            return line
    return lines[-1] if lines else "no message"
