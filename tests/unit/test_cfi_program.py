"""Programs: cutting them into instructions, addresses of rows, and every reason to refuse the rest of one."""

from __future__ import annotations

import numpy as np
import pytest

import cfi_builder as b
from cfi_reference import State, rows_of
from surefoot.metadata.cfi import decode_debug_frame, decode_eh_frame
from surefoot.metadata.rules import CfaBase, FpRule, FunctionFlag, RaRule, RuleTable, SideKind

CFA_CUT = "the operands of call frame instruction 0x0e are cut short or too long"
HALF = "while the CFA is not a register and an offset"


def _reason(table: RuleTable, func: int = 0) -> str:
    """Give the sentence by which a function is refused, or nothing."""
    number = int(table.functions.reason[func])
    assert bool(table.functions.flags[func] & FunctionFlag.REFUSED) == (number >= 0)
    return table.reasons[number] if number >= 0 else ""


@pytest.mark.parametrize(
    ("rest", "reason"),
    [
        (b"\x17", "call frame instruction 0x17 is not supported"),
        (b"\x3f", "call frame instruction 0x3f is not supported"),
        (b"\x2b", "call frame instruction 0x2b (DW_CFA_AARCH64_set_ra_state) is not supported"),
        (b"\x2c", "call frame instruction 0x2c (DW_CFA_AARCH64_negate_ra_state_with_pc) is not supported"),
        (b"\x0e" + b"\x80" * 10 + b"\0", CFA_CUT),
        (b"\x0c\x1f" + b"\x80" * 10 + b"\0", CFA_CUT.replace("0x0e", "0x0c")),
        (b"\x93" + b"\x80" * 10 + b"\0", CFA_CUT.replace("0x0e", "0x93")),
        (b"\x0f\x40", CFA_CUT.replace("0x0e", "0x0f")),
        (b"\x16\x1d\xff\xff\xff\x7f", CFA_CUT.replace("0x0e", "0x16")),
        (b"\x10" + b"\x80" * 10 + b"\0\0", CFA_CUT.replace("0x0e", "0x10")),
        (b"\x04\0", CFA_CUT.replace("0x0e", "0x04")),
        (b.def_cfa_offset(2**63), "an operand beyond 63 bits"),
        (b.op(0x05, b.uleb(2**64 + 29), b.uleb(1)), "a register number beyond 63 bits"),
        (b.def_cfa_register(2**31), "a register number beyond 31 bits"),
        (b.op(0x09, b.uleb(b.RA), b.uleb(2**31)), "a register number beyond 31 bits"),
        (b.offset(b.FP, 2**59), "a factored offset beyond 62 bits"),
        (b.op(0x13, b.sleb(-(2**62))), "a factored offset beyond 62 bits"),
        (b.RESTORE_STATE, "DW_CFA_restore_state without DW_CFA_remember_state"),
        (b.REMEMBER + b.RESTORE_STATE * 2, "DW_CFA_restore_state without DW_CFA_remember_state"),
        (b.op(0x0F, b.block(b"\x70\0")) + b.def_cfa_offset(16), f"DW_CFA_def_cfa_offset {HALF}"),
        (b.op(0x0F, b.block(b"\x70\0")) + b.def_cfa_register(29), f"DW_CFA_def_cfa_register {HALF}"),
        (b.offset(b.SP, 2), "a rule for SP, which rule tables cannot hold"),
        (b.op(0x08, b.uleb(b.SP)), "a rule for SP, which rule tables cannot hold"),
        (b.op(0x14, b.uleb(b.SP), b.uleb(1)), "a rule for SP, which rule tables cannot hold"),
        (b.op(0x16, b.uleb(34), b.block(b"\x31")), "a rule for RA_SIGN_STATE, which rule tables cannot hold"),
        (b.restore(34), "a rule for RA_SIGN_STATE, which rule tables cannot hold"),
        (b.advance(64, 1), "a location beyond the function's end"),
        (b.advance(2**64 - 1, 8), "a location beyond the function's end"),
        (b.advance(2**32 - 1, 4), "a location beyond the function's end"),
        (b.set_loc(0x1008) + b.set_loc(0x1004), "DW_CFA_set_loc leads backwards"),
        (b.set_loc(0x1101), "a location beyond the function's end"),
        (b.set_loc(0xFFF), "a location beyond the function's end"),
        (b.set_loc(0x10FC) + b.advance(2), "a location beyond the function's end"),
    ],
)
def test_the_rest_of_a_program_is_refused(rest: bytes, reason: str) -> None:
    """Rows that were finished before stand; the one in progress does not; neighbours are not touched."""
    frames = b.Frames(align=1)
    cie = frames.cie()
    frames.fde(cie, b.def_cfa_offset(16) + b.advance(1) + b.offset(b.FP, 2) + rest)
    frames.fde(cie, b.advance(1) + b.def_cfa_offset(32), start=0x2000)
    table = decode_debug_frame(frames.bytes())
    table.check()
    assert _reason(table) == reason
    assert rows_of(table, 0)[0] == (0x1000, State(("reg", b.SP, 16)))
    assert all(address >= 0x1000 for address, _ in rows_of(table, 0))
    assert _reason(table, 1) == ""
    assert [address for address, _ in rows_of(table, 1)] == [0x2000, 0x2004]


def test_the_first_reason_counts() -> None:
    table = decode_debug_frame(b.one(b.advance(1) + b.RESTORE_STATE + b.advance(63) + b"\x3f"))
    assert table.reasons[int(table.functions.reason[0])].startswith("DW_CFA_restore_state without")
    assert table.start.tolist() == [0x1000]


def test_a_refused_function_is_known_by_its_flag_after_a_lookup() -> None:
    """Its last row seems to hold up to its end, which nobody said: whoever looks up has to ask for the flag."""
    frames = b.Frames()
    cie = frames.cie()
    frames.fde(cie, b.advance(1) + b.advance(1) + b"\x3f")
    frames.fde(cie, b.advance(1), start=0x1100)
    table = decode_debug_frame(frames.bytes())
    assert table.start.tolist() == [0x1000, 0x1004, 0x1100, 0x1104]
    ready = table.for_lookup()
    found = ready.lookup(np.array([0x1000, 0x10F0, 0x1104], dtype=np.uint64), np.zeros(3, dtype=np.bool_))
    flags = ready.functions.flags[ready.func[found]] & FunctionFlag.REFUSED
    assert flags.tolist() == [FunctionFlag.REFUSED, FunctionFlag.REFUSED, 0]


def test_a_row_at_the_function_s_end_stands() -> None:
    """The assembler writes one where directives follow the last instruction."""
    table = decode_debug_frame(b.one(b.advance(2) + b.NEGATE, size=8))
    assert table.start.tolist() == [0x1000, 0x1008]
    assert _reason(table) == ""


@pytest.mark.parametrize(("code", "deltas"), [(4, [2**62]), (2**30, [2**33] * 4), (2**30, [2**32 - 1] * 5)])
def test_steps_that_would_wrap_are_refused(code: int, deltas: list[int]) -> None:
    """Products and sums that are small modulo 2**64 only."""
    frames = b.Frames()
    frames.fde(frames.cie(code=code), b"".join(b.advance(delta, 8) for delta in deltas), size=2**32 - 1)
    table = decode_debug_frame(frames.bytes())
    assert _reason(table) == "a location beyond the function's end"
    assert table.start.tolist() == [0x1000]


@pytest.mark.parametrize("big", [False, True])
def test_advances_of_every_width(big: bool) -> None:
    order = "big" if big else "little"
    program = b.advance(3) + b.advance(200, 1) + b.advance(0x1234, 2, order) + b.advance(0x12345, 4, order)
    program += b.advance(5, 8, order) + b.advance(0)
    frames = b.Frames(big=big)
    frames.fde(frames.cie(), program, size=2**31)
    table = decode_debug_frame(frames.bytes(), big_endian=big)
    steps = [0, 3, 200, 0x1234, 0x12345, 5, 0]
    assert table.start.tolist() == [0x1000 + 4 * sum(steps[: k + 1]) for k in range(7)]


def test_operands_of_registers_that_do_not_matter_are_passed_over() -> None:
    """Padded numbers, long blocks, GNU_args_size: nothing but the advance has an effect."""
    program = b.op(0x2E, b.uleb(300)) + b.op(0x10, b.uleb(19), b.block(b"\x2d" * 300)) + b.offset(19, 70000)
    program += b.op(0x05, b.uleb(28, pad=3), b.uleb(1, pad=8)) + b.op(0x16, b.uleb(200), b.block(b"")) + b.advance(1)
    program += b.op(0x0F, b.block(b"\x0b" * 70000)) + b.SP_PLUS_0
    assert rows_of(decode_debug_frame(b.one(program)), 0) == [
        (0x1000, State(("reg", b.SP, 0))),
        (0x1004, State(("reg", b.SP, 0))),
    ]


def test_one_long_program_among_short_ones() -> None:
    """The long one's rest is cut by doubling; 20,000 rows, two-byte operands, blocks and an unknown end."""
    frames = b.Frames()
    cie = frames.cie()
    unit = b.advance(1) + b.def_cfa_offset(1000) + b.op(0x10, b.uleb(19), b.block(b"\x0e\x7f")) + b.advance(1)
    unit += b.def_cfa_offset(16) + b.nop(5)
    frames.fde(cie, unit * 10_000, size=2**20)
    frames.fde(cie, unit * 10_000 + b"\x3e", start=2**21, size=2**20)
    for k in range(50):
        frames.fde(cie, b.advance(1), start=2**22 + 256 * k)
    table = decode_debug_frame(frames.bytes())
    assert table.functions.row_count.tolist() == [20_001, 20_000] + [2] * 50
    assert table.cfa_off[:4].tolist() == [0, 1000, 16, 1000]
    assert np.array_equal(table.start[:20_001], 0x1000 + 4 * np.arange(20_001, dtype=np.uint64))
    assert (_reason(table), _reason(table, 1)) == ("", "call frame instruction 0x3e is not supported")


def test_a_deep_stack_costs_no_more_than_a_flat_one() -> None:
    """50,000 states remembered, then restored in order."""
    depth = 50_000
    program = (
        b"".join(b.def_cfa_offset(k) + b.REMEMBER for k in range(depth)) + (b.RESTORE_STATE + b.advance(0)) * depth
    )
    table = decode_debug_frame(b.one(program))
    assert table.cfa_off.tolist() == [*range(depth - 1, -1, -1), 0]
    assert _reason(table) == ""


def test_states_bring_back_everything() -> None:
    """The CFA, both registers and whether the address is signed; a chain of restores gives the first state."""
    frame = b.def_cfa_offset(32) + b.offset(b.FP, 4) + b.offset(b.RA, 3) + b.NEGATE + b.advance(1)
    gone = b.def_cfa(b.FP, 0) + b.restore(b.FP) + b.op(0x07, b.uleb(b.RA)) + b.NEGATE + b.advance(1)
    table = decode_debug_frame(b.one(frame + (b.REMEMBER + gone + b.RESTORE_STATE + b.advance(1)) * 3))
    saved = State(("reg", b.SP, 32), ("cfa", -32), ("cfa", -24), signed=True)
    left = State(("reg", b.FP, 0), ("none", None), ("undefined", None))
    assert [state for _, state in rows_of(table, 0)][:7] == [saved, left, saved, left, saved, left, saved]


def test_set_loc_in_every_encoding() -> None:
    """The operand has the encoding of the CIE's R letter; CIEs of different widths in one section."""
    frames = b.Frames(eh=True)
    cies = {width: frames.cie(augmentation="zR", extra=bytes([code])) for width, code in ((8, 4), (4, 3), (2, 2))}
    for width, cie in cies.items():
        frames.fde(cie, b.advance(1) + b.set_loc(0x1010, width) + b.advance(2), width=width, extra=b"")
    lebs = frames.cie(augmentation="zR", extra=b"\1")
    frames.record(len(frames.data) + 4 - lebs, b.uleb(0x1000) + b.uleb(64) + b"\0" + b.advance(1) + b"\1\x90\x20")
    relative = frames.cie(augmentation="zR", extra=b"\x1b")
    frames.fde(relative, b.set_loc(0x1010 - (len(frames.data) + 18), 4), width=4, extra=b"", pcrel=0)
    table = decode_eh_frame(frames.bytes())
    assert [[row for row, _ in rows_of(table, k)] for k in range(3)] == [[0x1000, 0x1004, 0x1010, 0x1018]] * 3
    assert [row for row, _ in rows_of(table, 3)] == [0x1000, 0x1004]
    assert _reason(table, 3) == "the operands of call frame instruction 0x01 are cut short or too long"
    assert [row for row, _ in rows_of(table, 4)] == [0x1000, 0x1010]


def test_rules_beyond_the_columns_are_kept_exactly() -> None:
    """One row per kind; expressions are copied out, offsets beyond 32 bits are RANGE, others zero in the columns."""
    kinds = [
        (b.def_cfa(19, 8), "cfa", (SideKind.REGISTER, 19, 8)),
        (b.def_cfa(b.SP, 2**31), "cfa", (SideKind.RANGE, b.SP, 2**31)),
        (b.def_cfa(b.FP, 2**40), "cfa", (SideKind.RANGE, b.FP, 2**40)),
        (b.SP_PLUS_0 + b.offset(b.FP, 2**40), "fp", (SideKind.RANGE, -1, -(2**43))),
        (b.offset(b.FP, 2) + b.op(0x09, b.uleb(b.RA), b.uleb(17)), "ra", (SideKind.REGISTER, 17, 0)),
        (b.op(0x14, b.uleb(b.RA), b.uleb(2)), "ra", (SideKind.CFA_VALUE, -1, -16)),
    ]
    program = b"".join(code + b.advance(1) for code, _, _ in kinds)
    table = decode_debug_frame(b.one(program))
    for row, (_, name, want) in enumerate(kinds):
        rule = table.side_rules[table.side[row]][name]
        assert (SideKind(int(rule["kind"])), int(rule["reg"]), int(rule["offset"])) == want
    assert set(table.cfa_base[:3].tolist()) == {CfaBase.OTHER}
    assert table.cfa_off[:3].tolist() == [0, 0, 0]
    assert (table.fp_rule[3], table.fp_off[3], table.ra_rule[4]) == (FpRule.OTHER, 0, RaRule.OTHER)


def test_not_stated_undefined_and_unchanged_are_told_apart() -> None:
    program = b.advance(1) + b.op(0x07, b.uleb(b.FP)) + b.op(0x07, b.uleb(b.RA)) + b.advance(1)
    program += b.op(0x08, b.uleb(b.FP)) + b.op(0x09, b.uleb(b.RA), b.uleb(b.RA))
    table = decode_debug_frame(b.one(program))
    assert table.fp_rule.tolist() == [FpRule.NOT_STATED, FpRule.UNDEFINED, FpRule.UNCHANGED]
    assert table.ra_rule.tolist() == [RaRule.NOT_STATED, RaRule.UNDEFINED, RaRule.IN_LR]


def test_a_cie_without_a_cfa_gives_rows_without_one() -> None:
    frames = b.Frames()
    frames.fde(frames.cie(b""), b.advance(1))
    table = decode_debug_frame(frames.bytes())
    assert table.cfa_base.tolist() == [CfaBase.UNDEFINED] * 2


def test_sp_may_be_said_to_be_the_cfa() -> None:
    """What holds anyway is no rule that is lost."""
    program = b.op(0x14, b.uleb(b.SP), b.uleb(0)) + b.op(0x15, b.uleb(b.SP), b.sleb(0)) + b.restore(b.SP)
    table = decode_debug_frame(b.one(program + b.op(0x06, b.uleb(b.SP))))
    assert _reason(table) == ""
    assert len(table) == 1
