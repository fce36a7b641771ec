"""Comparison of rule tables, at every address."""

from __future__ import annotations

import numpy as np
import pytest

import sframe_builder as make
from sframe_builder import Fde, Fre
from surefoot.errors import Inconsistent
from surefoot.metadata import sframe
from surefoot.metadata.compare import Aspect, compare, describe_row
from surefoot.metadata.rules import RuleTable

FRAME = (32, -24, -32)


def table(*fdes: Fde, abi: int = make.AARCH64) -> RuleTable:
    """Give rules of the given functions."""
    return sframe.decode(make.section(list(fdes), abi=abi, flags=make.PCREL)).to_rules()


def test_equal_tables_have_no_difference_whatever_their_encoding() -> None:
    one = table(Fde(0, 16, [Fre(0), Fre(8, FRAME)]), Fde(16, 4))
    rows = [Fre(0, (0xF9, 0)), Fre(4, (0xF9, 0)), Fre(8, (0xF9, 32, 2, -24, 2, -32), size=2)]
    two = table(Fde(16, 4), Fde(0, 16, rows, flex=True))
    result = compare(one, two)
    assert result.is_equal
    assert (result.bytes_both, result.bytes_equal) == (20, 20)


@pytest.mark.parametrize(
    ("rows", "aspects"),
    [
        ([Fre(0), Fre(8, (40, -24, -32))], Aspect.CFA),
        ([Fre(0), Fre(8, FRAME, make.FP)], Aspect.CFA),
        ([Fre(0), Fre(8, (32, -16, -32))], Aspect.RA),
        ([Fre(0), Fre(8, (32, -24))], Aspect.FP),
        ([Fre(0), Fre(8, FRAME, signed=True)], Aspect.SIGNED),
        ([Fre(0), Fre(8, ())], Aspect.CFA | Aspect.FP | Aspect.RA),
    ],
)
def test_each_aspect_is_told_apart(rows: list[Fre], aspects: Aspect) -> None:
    result = compare(table(Fde(0, 16, [Fre(0), Fre(8, FRAME)])), table(Fde(0, 16, rows)))
    assert (result.start.tolist(), result.end.tolist(), result.aspects.tolist()) == ([8], [16], [int(aspects)])
    assert (result.bytes_both, result.bytes_equal) == (16, 8)


def test_a_difference_of_one_instruction_is_found() -> None:
    one = table(Fde(0x100, 64, [Fre(0), Fre(20, FRAME), Fre(40)]))
    two = table(Fde(0x100, 64, [Fre(0), Fre(24, FRAME), Fre(40)]))
    result = compare(one, two)
    assert (result.start.tolist(), result.end.tolist()) == ([0x114], [0x118])
    assert describe_row(result.first, int(result.first_row[0])) == "cfa=sp+32 fp=[cfa-32] ra=[cfa-24]"
    assert describe_row(result.second, int(result.second_row[0])) == "cfa=sp+0 fp=fp ra=lr"


def test_addresses_of_one_table_alone_are_told() -> None:
    result = compare(table(Fde(0, 16)), table(Fde(8, 16, [Fre(4)])))
    assert result.start.tolist() == [0, 16]
    assert result.end.tolist() == [12, 24]
    assert result.aspects.tolist() == [Aspect.ONLY_FIRST, Aspect.ONLY_SECOND]
    assert describe_row(result.first, -1) == "no rule"


def test_flags_of_functions_count() -> None:
    rows = [Fre(0, signed=True)]
    key = compare(table(Fde(0, 8, rows)), table(Fde(0, 8, rows, key_b=True)))
    assert key.aspects.tolist() == [Aspect.SIGNED]
    signal = compare(table(Fde(0, 8)), table(Fde(0, 8, signal=True)))
    assert signal.aspects.tolist() == [Aspect.SIGNAL]
    assert signal.only(Aspect.SIGNAL).tolist() == [True]
    unsigned = compare(table(Fde(0, 8)), table(Fde(0, 8, key_b=True)))
    assert unsigned.is_equal


def test_side_rules_are_compared_by_content() -> None:
    def flex(*words: int) -> RuleTable:
        return table(Fde(0, 8, [Fre(0, words)], flex=True))

    assert compare(flex(0xF9, 0, 0x93, -8), flex(0xF9, 0, 0x93, -8)).is_equal
    other = compare(flex(0xF9, 0, 0x93, -8), flex(0xF9, 0, 0x91, -8))
    assert other.aspects.tolist() == [Aspect.RA]
    assert describe_row(other.first, 0) == "cfa=sp+0 fp=fp ra=[r18-8]"
    assert describe_row(other.second, 0) == "cfa=sp+0 fp=fp ra=r18-8"
    assert compare(flex(0xF9, 0), flex(0x01, 0)).aspects.tolist() == [Aspect.CFA]


def test_sections_of_objects_are_kept_apart() -> None:
    relocations = sframe.RelocationTable(
        offset=np.array([28, 44], dtype=np.uint64),
        type=np.full(2, 260, dtype=np.uint32),
        symbol_value=np.zeros(2, dtype=np.uint64),
        symbol_section=np.array([3, 7], dtype=np.int32),
        addend=np.array([0, 0], dtype=np.int64),
    )
    one, two = (
        sframe.decode(make.section([Fde(0, 8), Fde(0, 8, [row])]), relocations=relocations).to_rules()
        for row in (Fre(0), Fre(0, (16,)))
    )
    result = compare(one, two)
    assert (result.section.tolist(), result.start.tolist(), result.end.tolist()) == ([7], [0], [8])


def test_contradicting_functions_are_counted_not_compared() -> None:
    one = table(Fde(0, 16), Fde(8, 16), Fde(64, 8))
    result = compare(one, table(Fde(64, 8)))
    assert result.is_equal
    assert result.disputed == (2, 0)


def test_register_files_are_not_mixed() -> None:
    with pytest.raises(Inconsistent):
        compare(table(Fde(0, 8)), table(Fde(0, 8, [Fre(0, (8,))]), abi=make.AMD64))


def test_empty_tables_are_equal() -> None:
    assert compare(table(), table()).is_equal
