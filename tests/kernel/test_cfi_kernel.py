"""All of a real kernel's .debug_frame: the rows of readelf, and the processor time of other tools."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from cfi_readelf import differences
from surefoot.metadata.cfi import decode_debug_frame
from surefoot.metadata.rules import RuleTable
from surefoot.targets.vm import kernels

READELF: Final = "aarch64-linux-gnu-readelf"
GOLDEN: Final = Path(__file__).parent.parent / "golden" / "cfi"
BENCH: Final = Path(__file__).parent.parent.parent / "benchmarks" / "bench_cfi.py"
pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def vmlinux() -> Path:
    return kernels.fetch().vmlinux


@pytest.fixture(scope="module")
def table(vmlinux: Path) -> RuleTable:
    listing = subprocess.run([READELF, "-SW", str(vmlinux)], capture_output=True, text=True, check=True).stdout
    words = next(line for line in listing.splitlines() if " .debug_frame " in line).split("PROGBITS")[1].split()
    mapped = np.memmap(vmlinux, dtype=np.uint8, mode="r", offset=int(words[1], 16), shape=(int(words[2], 16),))
    return decode_debug_frame(mapped)


def _text(*arguments: str) -> Iterator[str]:
    """Yield readelf's lines while it prints them."""
    with subprocess.Popen([READELF, *arguments], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        yield from child.stdout
    assert child.returncode == 0


@pytest.mark.needs(READELF, "apt-get", "dpkg")
def test_every_row_is_the_one_that_readelf_prints(vmlinux: Path, table: RuleTable) -> None:
    """All functions; where all instructions are nops readelf prints no row, and the table has the CIE's."""
    found, silent, printed = differences(table, _text("--debug-dump=frames-interp", str(vmlinux)))
    assert found[:5] == []
    assert printed + silent == len(table)
    assert printed > 100_000
    assert table.reasons == ()
    table.check()


@pytest.mark.needs(READELF, "apt-get", "dpkg", "llvm-dwarfdump")
def test_it_takes_less_processor_time_than_other_tools(vmlinux: Path) -> None:
    """The goals of benchmarks/bench_cfi.py: below llvm-dwarfdump, a quarter of readelf, a fortieth of pyelftools."""
    done = subprocess.run([sys.executable, str(BENCH), str(vmlinux)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.needs("aarch64-linux-gnu-as", "aarch64-linux-gnu-ld", "aarch64-linux-gnu-objcopy", READELF)
def test_fixtures_are_what_their_recipe_makes(tmp_path: Path) -> None:
    """Rebuilt equals committed, for the assembler that made them."""
    for name in ("build.sh", "frames.s"):
        (tmp_path / name).write_bytes((GOLDEN / name).read_bytes())
    if (
        "2.40"
        not in subprocess.run(
            ["aarch64-linux-gnu-as", "--version"], capture_output=True, text=True, check=True
        ).stdout
    ):
        pytest.skip("the fixtures were made by binutils 2.40")
    subprocess.run(["sh", str(tmp_path / "build.sh")], check=True)
    for path in GOLDEN.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name
