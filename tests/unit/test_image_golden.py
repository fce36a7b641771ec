"""Two small files made by the real toolchain (tests/golden/elf), read and held against readelf's output."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from surefoot.image import tables
from surefoot.image.binary import Image, ImageKind
from surefoot.image.files import open_image
from surefoot.image.model import SectionFlag
from surefoot.image.rules import load_rules
from surefoot.image.symbols import Binding, SymbolKind

GOLDEN: Final = Path(__file__).parent.parent / "golden" / "elf"
FILES: Final = ("tiny.so", "tiny.o")


@pytest.fixture(params=FILES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def dump(name: str) -> str:
    return (GOLDEN / f"{name}.readelf").read_text()


def address(image: Image, name: str) -> int:
    found = image.symbols.address_of(name)
    assert found is not None
    return found


def test_sections(name: str) -> None:
    table = open_image(GOLDEN / name).sections
    pattern = (
        r"\[ *(\d+)\] (\S+) +\S+ +([0-9a-f]{16}) ([0-9a-f]+) ([0-9a-f]+) ([0-9a-f]+) +[A-Zo]* +(\d+) +(\d+) +(\d+)"
    )
    rows = re.findall(pattern, dump(name))
    assert len(rows) == len(table) - 1
    for number, section, addr, offset, size, entsize, link, info, align in rows:
        i = int(number)
        assert table.names[i] == section
        hexadecimal = [int(value[i]) for value in (table.addr, table.offset, table.size, table.entsize)]
        assert hexadecimal == [int(value, 16) for value in (addr, offset, size, entsize)]
        assert [int(value[i]) for value in (table.link, table.info, table.align)] == [
            int(link),
            int(info),
            int(align),
        ]


def test_symbols(name: str) -> None:
    """Everything that readelf lists as code or data, without mapping symbols and undefined ones, in file order."""
    text = dump(name).partition("Symbol table '.symtab'")[2]
    pattern = r"^ +\d+: ([0-9a-f]{16}) +(\d+) (NOTYPE|OBJECT|FUNC) +(LOCAL|GLOBAL|WEAK) +DEFAULT +(\d+|ABS) (\S+)$"
    rows = [row for row in re.findall(pattern, text, re.MULTILINE) if not row[5].startswith("$")]
    symbols = open_image(GOLDEN / name).symbols
    ours = [
        (
            f"{symbols.addr[i]:016x}",
            str(symbols.size[i]),
            SymbolKind(symbols.kind[i]).name,
            Binding(symbols.binding[i]).name,
            "ABS" if symbols.section[i] < 0 else str(symbols.section[i]),
            symbols.name(i),
        )
        for i in range(len(symbols))
    ]
    assert ours == rows
    assert len(rows) > 5


def test_relocations(name: str) -> None:
    image = open_image(GOLDEN / name)
    for section, block in re.findall(r"Relocation section '(\S+)' at .*\n.*\n((?:[0-9a-f]{16} .*\n)+)", dump(name)):
        found = image.elf.relocation_table(image.sections.find(section)[0])
        lines = block.splitlines()
        assert len(found) == len(lines)
        for k, line in enumerate(lines):
            offset, info = line.split()[:2]
            assert int(found.offset[k]) == int(offset, 16)
            assert (int(found.symbol[k]) << 32) + int(found.type[k]) == int(info, 16)
            addend = re.search(r"(?:\+ | (?=-)|- )(-?[0-9a-f]+)$", line)
            assert addend
            value = int(addend[1], 16) * (-1 if " - " in line else 1)
            assert int(found.addend[k]) == value, line


def test_build_id() -> None:
    found = re.search(r"Build ID: ([0-9a-f]+)", dump("tiny.so"))
    assert found
    assert open_image(GOLDEN / "tiny.so").build_id == found[1]
    assert not open_image(GOLDEN / "tiny.o").build_id


def test_rules_are_those_of_readelf(name: str) -> None:
    """Addresses and CFA of every row; in tiny.so the section is compressed."""
    image = open_image(GOLDEN / name)
    index = image.sections.find(".debug_frame")[0]
    assert bool(int(image.sections.flags[index]) & SectionFlag.COMPRESSED) == (name == "tiny.so")
    rules = load_rules(image)
    blocks = (GOLDEN / f"{name}.frames").read_text().split(" FDE ")[1:]
    assert len(rules.functions) == len(blocks)
    functions = rules.functions
    for k, block in enumerate(text.partition(" CIE ")[0] for text in blocks):
        extent = re.search(r"pc=([0-9a-f]{16})\.\.([0-9a-f]{16})", block)
        assert extent
        assert (int(functions.start[k]), int(functions.end[k])) == (int(extent[1], 16), int(extent[2], 16))
        rows = re.findall(r"^([0-9a-f]{16}) sp\+(\d+) ", block, re.MULTILINE)
        mine = slice(int(functions.first_row[k]), int(functions.first_row[k] + functions.row_count[k]))
        ours = [
            (f"{a:016x}", str(o))
            for a, o in zip(rules.start[mine].tolist(), rules.cfa_off[mine].tolist(), strict=True)
        ]
        assert ours == (rows or [(extent[1], "0")])  # a function without changes is not tabulated


def both() -> list[Image]:
    return [open_image(GOLDEN / "tiny.so"), open_image(GOLDEN / "tiny.o").laid_out()]


def test_tables_are_what_the_source_says() -> None:
    """Linked and relocatable: the same code, the same places."""
    for image in both():
        plain, vectors, inner = (address(image, name) for name in ("plain", "vectors", "inner"))
        extable = tables.exception_table(image)
        assert extable.insn.tolist() == [plain + 8]
        assert extable.fixup.tolist() == [plain + 12]
        assert (extable.type.tolist(), extable.data.tolist()) == ([2], [0x3E0])
        found = tables.alternatives(image)
        assert found.orig.tolist() == [vectors]
        assert image.text.words_at(found.repl)[0].tolist() == [0xD5033FDF]  # isb
        jumps = tables.jump_table(image)
        assert (jumps.code.tolist(), jumps.target.tolist()) == ([vectors], [inner])
        assert jumps.key.tolist() == [address(image, "counter")]
        assert jumps.flags.tolist() == [1]
        sites = tables.patch_sites(image)
        assert sites.func.tolist() == [address(image, "helper"), address(image, "compiled")]
        assert bool(np.all(sites.has_literal))
        assert (sites.site - sites.func).tolist() == [4, 4]


def test_functions_are_what_the_source_says() -> None:
    for image in both():
        functions = image.functions
        plain, inner = address(image, "plain"), address(image, "inner")
        at = functions.lookup(np.array([plain, plain + 15, plain + 16, inner, inner - 4], dtype=np.uint64))
        assert [functions.name(i) for i in at.tolist()] == ["plain", "plain", "noreturn", "vectors", "vectors"]
        assert functions.kind[at[3]] == SymbolKind.NOTYPE
        after_call = functions.lookup(np.array([plain + 16], dtype=np.uint64), np.array([True]))
        assert functions.name(int(after_call[0])) == "plain"


def test_the_kinds_of_the_files() -> None:
    assert [image.kind for image in both()] == [ImageKind.KERNEL, ImageKind.OBJECT]


@pytest.mark.kernel
@pytest.mark.needs("aarch64-linux-gnu-gcc", "aarch64-linux-gnu-ld")
def test_the_recipe_makes_the_fixtures(tmp_path: Path) -> None:
    """Byte for byte where the toolchain is the one of the recipe, else with the same functions."""
    for name in ("build.sh", "tiny.S", "tiny.c"):
        shutil.copy(GOLDEN / name, tmp_path)
    subprocess.run(["sh", "build.sh"], cwd=tmp_path, check=True, env=dict(os.environ, LC_ALL="C"))
    version = subprocess.run(
        ["aarch64-linux-gnu-gcc", "--version"], capture_output=True, text=True, check=True
    ).stdout
    for name in FILES:
        fresh, kept = open_image(tmp_path / name), open_image(GOLDEN / name)
        assert {fresh.symbols.name(i) for i in range(len(fresh.symbols))} >= {
            "plain",
            "helper",
            "compiled",
            "vectors",
        }
        if "12.2.0" in version.splitlines()[0]:
            assert fresh.elf.data.tobytes() == kept.elf.data.tobytes()
