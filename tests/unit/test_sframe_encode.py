"""The encoder against sections assembled field by field, and its refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import sframe_builder as make
from sframe_builder import Fde, Fre
from surefoot.errors import Inconsistent
from surefoot.metadata import sframe
from surefoot.metadata.compare import compare
from surefoot.metadata.rules import CfaBase, FpRule, FunctionFlag, RaRule, RuleTable, SideKind, empty_side
from surefoot.metadata.sframe import fitting


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("abi", [make.AARCH64, make.AARCH64_BE, make.AMD64, make.S390X])
@pytest.mark.parametrize("flags", [0, make.SORTED | make.PCREL])
def test_decode_then_encode_gives_the_same_bytes(version: int, abi: int, flags: int) -> None:
    rows = [Fre(0), Fre(4, (2, -8), size=2), Fre(8, (300, -8), make.FP, size=4)]
    fdes = [Fde(0, 70000, rows, kind=2, key_b=True), Fde(70000, 16, [Fre(0, ())]), Fde(70016, 16, [])]
    if version > 1:
        fdes.append(Fde(80000, 64, [Fre(0), Fre(8)], mask=True, rep_size=16))
    if version == 3:
        fdes += [Fde(90000, 0x300, [Fre(0x2FF, (0xF9, -128, 0, 2, 3))], kind=1, flex=True, signal=True)]
    data = make.section(fdes, version, abi=abi, flags=flags, tail=bytes(6))
    assert sframe.encode(sframe.decode(data)) == data


def test_unusual_layouts_survive() -> None:
    """Auxiliary header, a gap before the descriptors, row blocks out of order, tables back to back."""
    fdes = [Fde(0, 8, fre_off=8), Fde(8, 8, fre_off=0)]
    data = make.section(fdes, aux=b"abcde", fdeoff=8)
    assert sframe.encode(sframe.decode(data)) == data
    data += bytes(3) + make.section([Fde(8, 8)], 2)
    assert sframe.encode(sframe.decode(data)) == data


def build(rows: RuleTable, version: int = 3) -> sframe.Built:
    """Write rules and hold that what comes back says the same."""
    built = sframe.from_rules(rows, version=version)
    again = sframe.decode(sframe.encode(built.section), relocations=built.relocations)
    assert sframe.encode(again) == sframe.encode(built.section)
    left = {item.func for item in built.left_out}
    kept = [func for func in range(len(rows.functions)) if func not in left]
    difference = compare(_pick(rows, kept), again.to_rules())
    assert difference.is_equal
    return built


def _pick(rows: RuleTable, kept: list[int]) -> RuleTable:
    """Give the table with the rows of chosen functions only."""
    return rows.take_rows(np.flatnonzero(np.isin(rows.func, kept)))


def typical(version: int = 3) -> RuleTable:
    """Give rules of typical functions."""
    return sframe.decode(make.section(make.typical(), version)).to_rules()


@pytest.mark.parametrize("version", [2, 3])
def test_rules_make_the_bytes_that_the_tools_make(version: int) -> None:
    built = build(typical(), version)
    assert sframe.encode(built.section) == make.section(make.typical(), version)
    assert built.left_out == ()
    assert built.source_func.tolist() == [0, 1, 2, 3]


def test_version_1_cannot_mark_outermost_frames() -> None:
    built = build(typical(), 1)
    assert [item.reason for item in built.left_out] == [fitting.LEFT_OUT[fitting.NO_OUTERMOST]]
    assert built.section.tables[0].header.flags == 1


def test_repeated_and_empty_rows_are_not_written() -> None:
    fdes = [Fde(0, 16, [Fre(0), Fre(4), Fre(8, (16, -8, -16)), Fre(12, (16, -8, -16)), Fre(16)])]
    built = build(sframe.decode(make.section(fdes)).to_rules())
    assert built.section.tables[0].fres.start.tolist() == [0, 8]


def test_functions_are_sorted_and_twins_written_once() -> None:
    fdes = [Fde(0x200, 8), Fde(0x100, 8), Fde(0x200, 8), Fde(0x300, 8), Fde(0x304, 8), Fde(0x400, 0)]
    built = build(sframe.decode(make.section(fdes, flags=make.PCREL)).to_rules())
    assert built.section.tables[0].fdes.start.tolist() == [0x100, 0x200]
    assert built.source_func.tolist() == [1, 0]
    reasons = {item.func: item.reason for item in built.left_out}
    names = {2: fitting.DUPLICATE, 3: fitting.DISPUTED, 4: fitting.DISPUTED, 5: fitting.EMPTY}
    assert reasons == {func: fitting.LEFT_OUT[code] for func, code in names.items()}


def _with(rows: RuleTable, row: int, **columns: int) -> RuleTable:
    """Give the table with some columns of one row changed."""
    changed = {}
    for name, value in columns.items():
        changed[name] = getattr(rows, name).copy()
        changed[name][row] = value
    return replace(rows, **changed)


def test_the_shadow_call_stack_window_becomes_a_flexible_descriptor() -> None:
    """FP on the stack while RA is in x30, the rule for which gas drops the whole function."""
    rows = _with(typical(), 3, ra_rule=RaRule.IN_LR, ra_off=0)
    fdes = build(rows).section.tables[0].fdes
    assert fdes.is_flex.tolist() == [False, True, False, False]
    built = build(rows, 2)
    assert [item.reason for item in built.left_out] == [fitting.LEFT_OUT[fitting.NEEDS_FLEX]]


def _side(rows: RuleTable, row: int, name: str, **entry: int) -> RuleTable:
    """Give the table with one rule moved to the side table."""
    side = empty_side(1)
    for key, value in entry.items():
        side[name][key] = value
    column = {"cfa": "cfa_base", "ra": "ra_rule", "fp": "fp_rule"}[name]
    other = {"cfa": CfaBase.OTHER, "ra": RaRule.OTHER, "fp": FpRule.OTHER}[name]
    return replace(_with(rows, row, side=0, **{column: int(other), f"{name}_off": 0}), side_rules=side)


@pytest.mark.parametrize("name", ["cfa", "ra", "fp"])
@pytest.mark.parametrize("deref", [0, 1])
@pytest.mark.parametrize("offset", [0, -8, 70000, -(2**31)])
@pytest.mark.parametrize("register", [0, 18, 31, 32, 5000])
def test_register_rules_become_flexible_rows(name: str, deref: int, offset: int, register: int) -> None:
    rows = _side(typical(), 3, name, kind=SideKind.REGISTER, reg=register, deref=deref, offset=offset)
    if not (name == "cfa" and register == 31 and not deref):
        assert build(rows).left_out == ()


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (_side(typical(), 0, "cfa", kind=SideKind.EXPRESSION), fitting.CFA_EXPRESSION),
        (_side(typical(), 0, "fp", kind=SideKind.VAL_EXPRESSION), fitting.FP_EXPRESSION),
        (_side(typical(), 0, "ra", kind=SideKind.EXPRESSION), fitting.RA_EXPRESSION),
        (_side(typical(), 0, "fp", kind=SideKind.CFA_VALUE, offset=8), fitting.CFA_VALUE),
        (_side(typical(), 0, "cfa", kind=SideKind.RANGE, offset=2**31), fitting.OFFSET_RANGE),
        (_side(typical(), 0, "ra", kind=SideKind.REGISTER, reg=3, offset=2**31), fitting.OFFSET_RANGE),
        (_with(typical(), 0, cfa_base=CfaBase.UNDEFINED), fitting.NO_CFA),
        (_with(typical(), 0, fp_rule=FpRule.UNDEFINED), fitting.FP_LOST),
    ],
)
def test_what_cannot_be_written_is_left_out_by_name(rows: RuleTable, reason: int) -> None:
    left = build(rows).left_out
    assert [(item.func, item.start, item.reason) for item in left] == [(0, 0x1000, fitting.LEFT_OUT[reason])]


def test_refused_functions_keep_their_reason() -> None:
    rows = sframe.decode(make.section([Fde(0, 8, [Fre(9)]), Fde(8, 8)])).to_rules()
    assert [item.reason for item in build(rows).left_out] == ["a row lies outside the function"]


def test_descriptors_without_rows_need_version_3() -> None:
    fdes = [Fde(0, 8, [], signal=True), Fde(8, 8, []), Fde(16, 8, signal=True)]
    rows = sframe.decode(make.section(fdes)).to_rules()
    built = build(rows)
    flags = built.section.to_rules().functions.flags.tolist()
    assert flags == [FunctionFlag.SIGNAL, FunctionFlag.OUTERMOST, FunctionFlag.SIGNAL]
    codes = (fitting.NO_RULES, fitting.NO_RULES, fitting.NO_SIGNAL)
    assert [item.reason for item in build(rows, 2).left_out] == [fitting.LEFT_OUT[code] for code in codes]


def test_far_functions_need_version_3() -> None:
    rows = sframe.decode(make.section([Fde(2**32, 8), Fde(0, 8)], flags=make.PCREL)).to_rules()
    assert build(rows).left_out == ()
    assert [item.start for item in build(rows, 2).left_out] == [2**32]


def test_functions_with_more_rows_than_a_descriptor_counts_are_cut() -> None:
    count = 70000
    rows = [Fre(4 * i, (8 * (i % 2), -8, -16)) for i in range(count)]
    table = sframe.decode(make.section([Fde(0, 4 * count, rows, kind=2)], 2)).to_rules()
    built = build(table)
    fdes = built.section.tables[0].fdes
    assert fdes.num_fres.tolist() == [0xFFFF, count - 0xFFFF]
    assert fdes.start.tolist() == [0, 4 * 0xFFFF]


def test_relocatable_objects_get_one_relocation_each() -> None:
    data = make.section([Fde(0, 8), Fde(0, 8), Fde(0, 8)], flags=make.PCREL)
    where = np.array([28, 44, 60], dtype=np.uint64)
    relocations = sframe.RelocationTable(
        offset=where,
        type=np.full(3, 260, dtype=np.uint32),
        symbol_value=np.zeros(3, dtype=np.uint64),
        symbol_section=np.array([4, 1, 4], dtype=np.int32),
        addend=np.array([0x20, 0, 0], dtype=np.int64),
    )
    rows = sframe.decode(data, relocations=relocations).to_rules()
    built = build(rows)
    assert built.relocations is not None
    assert built.relocations.symbol_section.tolist() == [4, 1, 4]
    assert built.relocations.addend.tolist() == [0x20, 0, 0]
    assert built.section.tables[0].header.flags == make.PCREL


def test_s390x_offsets_must_be_multiples_of_eight() -> None:
    rows = sframe.decode(make.section([Fde(0, 32, [Fre(0), Fre(6, (3, 0, -72))])], abi=make.S390X)).to_rules()
    assert build(rows).left_out == ()
    assert [i.reason for i in build(_with(rows, 1, cfa_off=161)).left_out] == [fitting.LEFT_OUT[fitting.CFA_SCALE]]


def test_s390x_registers_are_written_in_either_version() -> None:
    """Version 2 has odd words for them, version 3 flexible descriptors; each comes back from the other."""
    rows = [Fre(0), Fre(6, (0, 0, 17 << 1 | 1)), Fre(10, (0, 16 << 1 | 1, 17 << 1 | 1)), Fre(14, (0, 16 << 1 | 1))]
    data = make.section([Fde(0, 32, rows)], 2, abi=make.S390X)
    rules = sframe.decode(data).to_rules()
    assert sframe.encode(build(rules, 2).section) == data
    third = build(rules)
    assert third.section.tables[0].fdes.is_flex.tolist() == [True]
    assert sframe.encode(build(third.section.to_rules(), 2).section) == data


def test_amd64_return_addresses_are_where_the_header_says() -> None:
    fdes = [Fde(0, 32, [Fre(0, (8,)), Fre(1, (16, -16))]), Fde(32, 8, [Fre(0, (8,))])]
    rows = sframe.decode(make.section(fdes, abi=make.AMD64)).to_rules()
    assert sframe.encode(build(rows).section) == make.section(fdes, abi=make.AMD64)
    assert build(_with(rows, 1, ra_off=-256)).section.tables[0].fdes.is_flex.tolist() == [True, False]
    lost = build(_with(rows, 1, ra_rule=RaRule.IN_LR, ra_off=0)).left_out
    assert [item.reason for item in lost] == [fitting.LEFT_OUT[fitting.RA_NOT_FIXED]]


@pytest.mark.parametrize(
    ("column", "value"), [("num_fres", 70000), ("fre_off", 90000), ("info", 3), ("info", 2)], ids=str
)
def test_values_that_do_not_fit_are_refused(column: str, value: int) -> None:
    table = sframe.decode(make.section([Fde(0, 8)])).tables[0]
    fdes = replace(table.fdes, **{column: np.array([value], dtype=getattr(table.fdes, column).dtype)})
    with pytest.raises(Inconsistent):
        sframe.encode(sframe.SFrameSection((replace(table, fdes=fdes),), table.end))


def test_words_that_do_not_fit_are_refused() -> None:
    table = sframe.decode(make.section([Fde(0, 8)])).tables[0]
    fres = replace(table.fres, words=np.array([200], dtype=np.int32))
    with pytest.raises(Inconsistent, match="a data word of 1 bytes"):
        sframe.encode(sframe.SFrameSection((replace(table, fres=fres),), table.end))


def test_unknown_versions_are_not_written() -> None:
    with pytest.raises(Inconsistent, match="version 4"):
        sframe.from_rules(typical(), version=4)


def test_no_functions_make_a_header() -> None:
    built = sframe.from_rules(sframe.decode(make.section([])).to_rules())
    assert sframe.encode(built.section) == make.section([])
