"""What the GNU tools wrote and printed: our sources, assembled by three generations of binutils."""

from __future__ import annotations

from pathlib import Path

import pytest

from surefoot.image.anyelf import AnyElf, decode_any_elf
from surefoot.image.files import map_file, open_image
from surefoot.image.rules import load_rules
from surefoot.metadata import sframe
from surefoot.metadata.compare import compare
from surefoot.metadata.rules import Provenance
from surefoot.metadata.sframe import CATALOGUE, Severity, SFrameSection

GOLDEN = Path(__file__).parent.parent / "golden" / "sframe"
FILES = [path.with_suffix("") for path in sorted(GOLDEN.glob("v?/*.txt"))]
IDS = [f"{path.parent.name}-{path.name}" for path in FILES]
NOTED = ("sframe-zero-size", "sframe-equal-starts", "sframe-flag-not-pcrel")
"""What the tools write on purpose: an empty function; starts relative to the section before binutils 2.45."""


def load(path: Path) -> tuple[AnyElf, bytes, SFrameSection]:
    """Give the file, its section's bytes, and the section decoded."""
    elf = decode_any_elf(map_file(path), path.name)
    index = elf.find(".sframe")[0]
    data = elf.section_bytes(index).tobytes()
    relocations = elf.relocations(index) if elf.is_relocatable else None
    return elf, data, sframe.decode(data, section_addr=elf.addr(index), relocations=relocations)


def test_all_three_versions_and_machines_are_there() -> None:
    kinds = {(path.parent.name, path.name.split(".")[0]) for path in FILES}
    assert {("v1", "aarch64"), ("v2", "aarch64-be"), ("v1", "amd64"), ("v3", "s390x")} <= kinds
    assert len(FILES) == 25


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_the_text_is_readelf_s(path: Path) -> None:
    _, _, section = load(path)
    assert sframe.dump_readelf(section) == path.with_name(path.name + ".txt").read_bytes()


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_encoding_gives_the_bytes_of_the_tools(path: Path) -> None:
    _, data, section = load(path)
    assert section.version == int(path.parent.name[1])
    assert sframe.encode(section) == data


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_good_sections_have_no_errors_and_the_assembler_s_bugs_are_found(path: Path) -> None:
    elf, data, section = load(path)
    index = elf.find(".sframe")[0]
    relocations = elf.relocations(index) if elf.is_relocatable else None
    findings = sframe.check(data, section_addr=elf.addr(index), relocations=relocations, machine=elf.machine)
    codes = {item.code for item in findings}
    errors = {code for code in codes if CATALOGUE[code].severity == Severity.ERROR} - set(NOTED)
    expected = {
        "scs.o": {"sframe-below-sp"},
        "bug1-restore.o": {"sframe-below-sp"},
        "bug4-expression.o": {"sframe-flex-register"},
        "bug5-far-slot.o": {"sframe-ra-above-cfa"},
    }
    assert errors == expected.get(path.name, set())
    assert section.num_fdes


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("bug1-restore.o", ["sframe-cfi-differs"]),
        ("bug2-register.o", ["sframe-cfi-differs"]),
        ("bug3-nested.o", ["sframe-cfi-differs"]),
        ("bug4-expression.o", ["sframe-cfi-differs"]),
        ("bug6-repeats.o", []),
        ("aarch64.o", []),
        ("scs.o", ["sframe-cfi-only"] * 4),
    ],
)
def test_the_cfi_of_the_same_file_convicts_the_assembler(name: str, codes: list[str]) -> None:
    """Bug 5 is AMD64, whose CFI is not read: the section convicts itself. Bug 6 wastes rows, which is no error."""
    path = GOLDEN / "v3" / name
    reference = load_rules(open_image(path), (Provenance.DEBUG_FRAME, Provenance.EH_FRAME))
    _, _, section = load(path)
    findings, result = sframe.check_against(section.to_rules(), reference)
    assert [item.code for item in findings] == codes
    assert result.disputed == (0, 0)
    if name == "bug6-repeats.o":
        assert section.to_rules().same_as_previous().tolist() == [False, True, True]


@pytest.mark.parametrize("name", ["aarch64.o", "aarch64.elf", "scs.o", "bug1-restore.o", "bug2-register.o"])
def test_converting_from_cfi_equals_the_cfi_everywhere(name: str) -> None:
    path = GOLDEN / "v3" / name
    image = open_image(path)
    reference = load_rules(image, (Provenance.DEBUG_FRAME, Provenance.EH_FRAME))
    built = sframe.from_rules(reference, section_addr=0x400000)
    again = sframe.decode(sframe.encode(built.section), section_addr=0x400000, relocations=built.relocations)
    result = compare(again.to_rules(), reference)
    assert result.is_equal
    assert result.bytes_equal == result.bytes_both > 0
    assert {item.reason for item in built.left_out} <= {"it covers no address"}


def test_the_function_that_gas_drops_is_held_by_a_flexible_descriptor() -> None:
    reference = load_rules(open_image(GOLDEN / "v3" / "scs.o"), (Provenance.EH_FRAME,))
    fdes = sframe.from_rules(reference).section.tables[0].fdes
    assert fdes.is_flex.tolist() == [True, False]
    _, _, section = load(GOLDEN / "v3" / "scs.o")
    assert section.num_fdes == 1


@pytest.mark.parametrize("version", [1, 2])
def test_versions_of_one_source_say_the_same(version: int) -> None:
    """Two marks are newer: version 2 has none for signal frames, version 1 none for outermost frames either."""
    elf, _, newest = load(GOLDEN / "v3" / "aarch64.elf")
    other, _, older = load(GOLDEN / f"v{version}" / "aarch64.elf")
    newer = [_by_name(elf, newest), _by_name(other, older)]
    assert newer[0].keys() == newer[1].keys()
    different = {name for name in newer[0] if newer[0][name] != newer[1][name]}
    assert different <= {"signal", "outermost"}


def _by_name(elf: AnyElf, section: SFrameSection) -> dict[str, list[tuple[int, ...]]]:
    """Give the rows of each function as plain numbers, starts counted from the function."""
    start, _, _, names = elf.functions()
    at = dict(zip(start.tolist(), names, strict=True))
    rules = section.to_rules().compact()
    out: dict[str, list[tuple[int, ...]]] = {}
    for row in range(len(rules)):
        func = int(rules.func[row])
        begin = int(rules.functions.start[func])
        columns = (rules.cfa_base, rules.cfa_off, rules.fp_rule, rules.fp_off, rules.ra_rule, rules.ra_off)
        numbers = [int(column[row]) for column in (*columns, rules.ra_signed, rules.functions.flags[rules.func])]
        out.setdefault(at.get(begin, ""), []).append((int(rules.start[row]) - begin, *numbers))
    return out
