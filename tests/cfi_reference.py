"""A scalar interpreter of call frame programs: a plain reading of DWARF 5, section 6.4.2, one instruction at a time.

It works on symbolic instructions (name, operands), not on bytes, so that it shares nothing with the decoder; `encode`
turns the same instructions into bytes. Rules are tuples: ("none",), ("cfa", n), ("reg", r), ("expr", bytes), ...
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

import cfi_builder as b
from surefoot.metadata.rules import CfaBase, FpRule, RuleTable, SideKind

Rule = tuple[str, object]
Insn = tuple[str, tuple[int | bytes, ...]]

NONE: Rule = ("none", None)


class Refused(Exception):
    """The rest of the program cannot be used."""


@dataclass(frozen=True)
class State:
    """What a row says."""

    cfa: tuple[str, object, object] = ("none", None, None)
    fp: Rule = NONE
    ra: Rule = NONE
    signed: bool = False


def encode(insn: Insn) -> bytes:
    """Encode one instruction."""
    name, args = insn
    numbers = [value for value in args if isinstance(value, int)]
    blocks = [b.block(value) for value in args if isinstance(value, bytes)]
    if name == "advance":
        return b.advance(numbers[0], numbers[1])
    if name == "offset":
        return b.offset(*numbers)
    if name == "restore":
        return b.restore(*numbers)
    signed = {"offset_sf": 0x11, "def_cfa_sf": 0x12, "def_cfa_offset_sf": 0x13, "val_offset_sf": 0x15}
    if name in signed:
        return b.op(signed[name], *(b.uleb(value) for value in numbers[:-1]), b.sleb(numbers[-1]))
    codes = {
        "nop": 0x00, "offset_extended": 0x05, "restore_extended": 0x06, "undefined": 0x07, "same_value": 0x08,
        "register": 0x09, "remember": 0x0A, "restore_state": 0x0B, "def_cfa": 0x0C, "def_cfa_register": 0x0D,
        "def_cfa_offset": 0x0E, "def_cfa_expression": 0x0F, "expression": 0x10, "val_offset": 0x14,
        "val_expression": 0x16, "negate": 0x2D, "args_size": 0x2E, "negative_offset": 0x2F,
    }  # fmt: skip
    return b.op(codes[name], *(b.uleb(value) for value in numbers), *blocks)


def _set(state: State, reg: int, rule: Rule) -> State:
    """Set the rule of a register; only x29 and x30 are kept, SP and RA_SIGN_STATE cannot be."""
    if reg in {31, 34}:
        if reg == 31 and rule == ("val", 0):
            return state
        raise Refused
    if reg == b.FP:
        return replace(state, fp=rule)
    return replace(state, ra=rule) if reg == b.RA else state


def _cfa(state: State, name: str, args: list[int], data: int) -> State:
    """Apply an instruction that defines the CFA by register and offset."""
    kind, reg, off = state.cfa
    if name in {"def_cfa", "def_cfa_sf"}:
        return replace(state, cfa=("reg", args[0], args[1] * (data if name == "def_cfa_sf" else 1)))
    if kind != "reg":
        raise Refused
    if name == "def_cfa_register":
        return replace(state, cfa=("reg", args[0], off))
    return replace(state, cfa=("reg", reg, args[0] * (data if name == "def_cfa_offset_sf" else 1)))


def _rule(name: str, args: tuple[int | bytes, ...], data: int, initial: Rule) -> Rule:
    """Give the rule that a register instruction states."""
    if name in {"restore", "restore_extended"}:
        return initial
    if name in {"undefined", "same_value"}:
        return (name, None)
    if name == "register":
        return ("same_value", None) if args[0] == args[1] else ("reg", args[1])
    if name in {"expression", "val_expression"}:
        return (name, args[1])
    value = int(args[1]) * data
    if name in {"val_offset", "val_offset_sf"}:
        return ("val", value)
    return ("cfa", -value if name == "negative_offset" else value)


def run(
    program: list[Insn], first: State, start: int, size: int, code: int = 4, data: int = -8
) -> tuple[list[tuple[int, State]], bool]:
    """Interpret a program.

    Returns:
        finished rows (address, state), and whether the program was refused on the way.
    """
    rows: list[tuple[int, State]] = []
    stack: list[State] = []
    state, loc = first, start
    for name, args in program:
        numbers = [value for value in args if isinstance(value, int)]
        try:
            if name == "advance":
                rows.append((loc, state))
                loc += numbers[0] * code
                if loc > start + size:
                    return rows, True
            elif name == "remember":
                stack.append(state)
            elif name == "restore_state":
                if not stack:
                    return rows, True
                state = stack.pop()
            elif name == "negate":
                state = replace(state, signed=not state.signed)
            elif name == "def_cfa_expression":
                state = replace(state, cfa=("expr", args[0], None))
            elif name.startswith("def_cfa"):
                state = _cfa(state, name, numbers, data)
            elif name in {"restore", "restore_extended"} and numbers[0] == 31:
                continue
            elif name not in {"nop", "args_size"}:
                initial = first.fp if numbers[0] == b.FP else first.ra
                state = _set(state, numbers[0], _rule(name, args, data, initial))
        except Refused:
            return rows, True
    return [*rows, (loc, state)], False


def _side(rule: np.void, expressions: bytes) -> Rule:
    """Give a side rule in the words of this module."""
    kind = SideKind(int(rule["kind"]))
    data = expressions[int(rule["expr"]) : int(rule["expr"]) + int(rule["expr_len"])]
    number = int(rule["offset"])
    if kind == SideKind.REGISTER:
        assert number == 0
        assert not rule["deref"]
        return ("reg", int(rule["reg"]))
    assert bool(rule["deref"]) == (kind in {SideKind.EXPRESSION, SideKind.RANGE})
    words: dict[SideKind, Rule] = {
        SideKind.RANGE: ("cfa", number),
        SideKind.CFA_VALUE: ("val", number),
        SideKind.EXPRESSION: ("expression", data),
        SideKind.VAL_EXPRESSION: ("val_expression", data),
    }
    return words[kind]


def rows_of(table: RuleTable, func: int) -> list[tuple[int, State]]:
    """Give one function's rows of a table in the words of this module."""
    first, count = int(table.functions.first_row[func]), int(table.functions.row_count[func])
    rows = []
    for row in range(first, first + count):
        assert int(table.func[row]) == func
        side = table.side_rules[table.side[row]] if table.side[row] >= 0 else None
        saved = []
        for code, off, name in ((table.fp_rule, table.fp_off, "fp"), (table.ra_rule, table.ra_off, "ra")):
            kind = FpRule(int(code[row]))
            if kind == FpRule.OTHER:
                assert side is not None
                saved.append(_side(side[name], table.expressions))
                continue
            assert side is None or side[name]["kind"] == SideKind.NONE
            names = {FpRule.NOT_STATED: "none", FpRule.UNCHANGED: "same_value", FpRule.UNDEFINED: "undefined"}
            saved.append(("cfa", int(off[row])) if kind == FpRule.AT_CFA else (names[kind], None))
        cfa = _cfa_of(table, row, side)
        rows.append((int(table.start[row]), State(cfa, saved[0], saved[1], bool(table.ra_signed[row]))))
    return rows


def _cfa_of(table: RuleTable, row: int, side: np.void | None) -> tuple[str, object, object]:
    """Give the CFA of a row in the words of this module."""
    base = CfaBase(int(table.cfa_base[row]))
    if base == CfaBase.UNDEFINED:
        return ("none", None, None)
    if base != CfaBase.OTHER:
        return ("reg", b.SP if base == CfaBase.SP else b.FP, int(table.cfa_off[row]))
    assert side is not None
    rule = side["cfa"]
    if rule["kind"] == SideKind.EXPRESSION:
        return ("expr", table.expressions[int(rule["expr"]) : int(rule["expr"]) + int(rule["expr_len"])], None)
    large = not -(2**31) <= int(rule["offset"]) < 2**31
    assert rule["kind"] == (SideKind.RANGE if large and rule["reg"] in {b.SP, b.FP} else SideKind.REGISTER)
    return ("reg", int(rule["reg"]), int(rule["offset"]))
