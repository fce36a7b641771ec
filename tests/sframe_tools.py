"""The GNU tools of three ages, and what they make of our assembly sources.

The tools that write versions 3 and 2 come from Debian by apt (sid, and trixie's 2.44) into private roots in the
user's cache folder; the system is not changed. Version 1 is written by binutils 2.40 alone, which a bookworm system
has itself.

The files under tests/golden/sframe/ are made by this recipe: `python tests/sframe_tools.py` makes them anew.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from surefoot.errors import Unavailable
from surefoot.targets.vm import sid

GOLDEN = Path(__file__).parent / "golden" / "sframe"
SOURCES = GOLDEN / "sources"
ARCHES = {"aarch64": "aarch64", "amd64": "x86_64", "s390x": "s390x"}


@dataclass(frozen=True)
class Tools:
    """Assembler, linker and readelf of one binutils release, for every machine it was asked for.

    Attributes:
        root: where they are; None for the system's own.
        version: SFrame version that the assembler writes.
    """

    root: sid.Root | None
    version: int

    def run(self, program: str, *args: str | Path, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        """Run a tool of the root."""
        tool = self.root.tool(program) if self.root else [program]
        command = [*tool, *map(str, args)]
        env = {**os.environ, "LC_ALL": "C"}
        return subprocess.run(command, capture_output=True, check=check, env=env, timeout=120)

    def version_of(self, arch: str) -> str:
        """Give the assembler's own words on its version."""
        return self.run(f"{arch}-linux-gnu-as", "--version").stdout.decode().splitlines()[0]

    def assemble(self, arch: str, source: Path, out: Path, *options: str | Path) -> Path:
        """Assemble with SFrame."""
        self.run(f"{arch}-linux-gnu-as", "--gsframe", *options, source, "-o", out)
        return out

    def readelf(self, file: Path) -> bytes:
        """Give readelf's text of .sframe."""
        arch = "aarch64" if self.version > 1 else _arch_of(file)
        return self.run(f"{arch}-linux-gnu-readelf", "--sframe=.sframe", file).stdout


def _arch_of(file: Path) -> str:
    return ARCHES.get(file.name.split(".")[0].split("-")[0], "aarch64")


def _prepare(name: str, suites: tuple[str, ...], packages: tuple[str, ...]) -> sid.Root:
    with sid.using(name):
        return sid.prepare(name, packages, suites=suites)


@functools.cache
def newest() -> Tools:
    """Give binutils of sid, which write version 3, and their sources."""
    names = ("aarch64", "x86-64", "s390x")
    packages = (*(f"binutils-{name}-linux-gnu" for name in names), "binutils-source")
    return Tools(_prepare("binutils-sid", ("sid",), packages), 3)


@functools.cache
def second() -> Tools:
    """Give binutils of trixie, which write version 2."""
    packages = ("binutils-aarch64-linux-gnu", "binutils-x86-64-linux-gnu")
    return Tools(_prepare("binutils-trixie", ("trixie",), packages), 2)


def first() -> Tools:
    """Give the system's own tools, if they are binutils 2.40, which write version 1.

    Raises:
        Unavailable: they are not.
    """
    tools = Tools(None, 1)
    for arch in ("aarch64", "x86_64"):
        said = tools.version_of(arch) if shutil.which(f"{arch}-linux-gnu-as") else "missing"
        if "2.40" not in said:
            raise Unavailable(f"binutils 2.40 for {arch} is needed for SFrame version 1; the system's is {said}")
    return tools


def make_fixtures(tools: Tools, folder: Path) -> Iterator[Path]:
    """Assemble and link our sources into a folder; yield each file that has SFrame."""
    folder.mkdir(parents=True, exist_ok=True)
    yield _object(tools, folder, "aarch64")
    yield tools.assemble("aarch64", SOURCES / "aarch64.s", folder / "aarch64-be.o", "-EB")
    image = folder / "aarch64.elf"
    tools.run("aarch64-linux-gnu-ld", "-e", "leaf", folder / "aarch64.o", "-o", image)
    yield image
    for name in ("amd64", "s390x"):
        if name == "s390x" and tools.version < 3:
            continue
        yield _object(tools, folder, name)
        library = folder / f"{name}.so"
        tools.run(f"{ARCHES[name]}-linux-gnu-ld", "-shared", "-z", "now", folder / f"{name}.o", "-o", library)
        yield library
    if tools.version == 3:
        for source in sorted([*SOURCES.glob("bug*.s"), SOURCES / "huge.s", SOURCES / "scs.s"]):
            arch = "x86_64" if source.stem == "bug5-far-slot" else "aarch64"
            yield tools.assemble(arch, source, folder / f"{source.stem}.o")


def _object(tools: Tools, folder: Path, name: str) -> Path:
    return tools.assemble(ARCHES[name], SOURCES / f"{name}.s", folder / f"{name}.o")


def main() -> None:
    """Make the golden files anew."""
    for tools in (first(), second(), newest()):
        folder = GOLDEN / f"v{tools.version}"
        judge = newest() if tools.version > 1 else tools
        for path in make_fixtures(tools, folder):
            path.with_name(path.name + ".txt").write_bytes(judge.readelf(path))
            sys.stdout.write(f"{path.relative_to(GOLDEN)}\n")
        said = f"assembler: {tools.version_of('aarch64')}\nreadelf: {judge.version_of('aarch64')}\n"
        (folder / "VERSIONS").write_text(said, encoding="ascii")


if __name__ == "__main__":
    main()
