"""The decoder against a scalar interpreter, on programs of every instruction in any order."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

import cfi_builder as b
from cfi_reference import Insn, State, encode, rows_of, run
from surefoot.metadata.cfi import decode_debug_frame, decode_eh_frame
from surefoot.metadata.rules import FunctionFlag

START, SIZE = 0xFFFF_8000_0000_1000, 0x400

registers = st.sampled_from([29, 30, 29, 30, 19, 28, 31, 34, 63])
any_register = st.one_of(registers, st.integers(0, 200))
small = st.integers(0, 300)
unsigned = st.one_of(small, st.integers(0, 2**40))
signed = st.one_of(st.integers(-40, 40), st.integers(-(2**40), 2**40))
blocks = st.binary(max_size=20)


def _insn(name: str, *args: st.SearchStrategy[int] | st.SearchStrategy[bytes]) -> st.SearchStrategy[Insn]:
    """Give a strategy for one instruction."""
    return st.tuples(st.just(name), st.tuples(*args))


advances = st.one_of(
    _insn("advance", st.integers(0, 20), st.just(0)),
    _insn("advance", st.integers(0, 9), st.sampled_from([1, 2, 4, 8])),
)
plain = st.one_of(
    advances,
    *(_insn(name) for name in ("nop", "negate", "remember", "restore_state")),
    *(_insn(name, registers) for name in ("restore",)),
    *(_insn(name, any_register) for name in ("restore_extended", "undefined", "same_value", "def_cfa_register")),
    *(
        _insn(name, any_register, unsigned)
        for name in ("offset_extended", "val_offset", "negative_offset", "def_cfa")
    ),
    *(_insn(name, any_register, signed) for name in ("offset_extended_sf", "val_offset_sf", "def_cfa_sf")),
    _insn("offset", registers, unsigned),
    _insn("register", any_register, any_register),
    _insn("def_cfa_offset", unsigned),
    _insn("args_size", unsigned),
    _insn("def_cfa_offset_sf", signed),
    *(_insn(name, any_register, blocks) for name in ("expression", "val_expression")),
    _insn("def_cfa_expression", blocks),
)
usual = st.one_of(
    advances,
    *(_insn(name) for name in ("negate", "remember", "restore_state")),
    _insn("def_cfa_offset", small),
    _insn("offset", st.sampled_from([29, 30]), small),
    _insn("restore", st.sampled_from([29, 30])),
)
programs = st.lists(st.one_of(st.lists(usual, max_size=40), st.lists(plain, max_size=40)), min_size=1, max_size=6)


def _fix(program: list[Insn]) -> list[Insn]:
    """Name offset_sf as `encode` calls it."""
    return [("offset_sf", args) if name == "offset_extended_sf" else (name, args) for name, args in program]


@given(programs, st.booleans())
@settings(max_examples=250)
def test_tables_say_what_a_scalar_interpreter_says(many: list[list[Insn]], eh: bool) -> None:
    """Rows, addresses, side rules and refusals of several functions at once are those of each function alone."""
    many = [_fix(program) for program in many]
    frames = b.Frames(eh=eh)
    cie = frames.cie()
    for number, program in enumerate(many):
        code = b"".join(map(encode, program))
        frames.fde(cie, code, start=START + number * SIZE, size=SIZE)
    table = (decode_eh_frame if eh else decode_debug_frame)(frames.bytes())
    table.check()
    assert len(table.functions) == len(many)
    for number, program in enumerate(many):
        rows, refused = run(program, State(("reg", b.SP, 0)), START + number * SIZE, SIZE)
        assert rows_of(table, number) == rows
        assert bool(table.functions.flags[number] & FunctionFlag.REFUSED) == refused
        assert (int(table.functions.reason[number]) >= 0) == refused
    assert int(table.functions.row_count.sum()) == len(table)


first_rules = st.lists(
    st.one_of(
        _insn("def_cfa_expression", blocks),
        _insn("def_cfa", any_register, unsigned),
        _insn("negate"),
        *(_insn(name, registers) for name in ("undefined", "same_value")),
        _insn("offset", st.sampled_from([29, 30]), unsigned),
        _insn("val_expression", st.sampled_from([29, 30]), blocks),
        _insn("register", st.sampled_from([29, 30]), any_register),
    ),
    max_size=8,
)


@given(first_rules, programs, st.integers(0, 40), st.integers(-40, 40))
@settings(max_examples=100)
def test_programs_start_from_what_their_cie_says(
    initial: list[Insn], many: list[list[Insn]], code: int, data: int
) -> None:
    """Initial rules, and what DW_CFA_restore brings back, are the CIE's; a refused CIE refuses its functions."""
    frames = b.Frames()
    other = frames.cie(b.SP_PLUS_0 + b.offset(29, 1))
    cie = frames.cie(b"".join(map(encode, initial)), code=code, data=data, version=3)
    frames.fde(other, b.advance(1))
    for number, program in enumerate(many):
        frames.fde(cie, b"".join(map(encode, _fix(program))), start=START + number * SIZE, size=SIZE)
    table = decode_debug_frame(frames.bytes())
    base, wrong = run(initial, State(), 0, 0, code, data)
    for number, program in enumerate(many, start=1):
        start = START + (number - 1) * SIZE
        rows, refused = ([], True) if wrong else run(_fix(program), base[0][1], start, SIZE, code, data)
        assert rows_of(table, number) == rows
        assert bool(table.functions.flags[number] & FunctionFlag.REFUSED) == refused
