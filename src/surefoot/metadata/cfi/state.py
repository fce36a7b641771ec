"""Layer 2: the rules in force in every row, worked out for all programs at once.

A rule holds until the next instruction that sets it. So for each of the five things that rows say (what the CFA is
computed from, its offset, x29, x30, signed or not) the instructions that set it are listed, and each of them is
repeated for as many rows as end between it and the next: no loop. What DW_CFA_restore_state sets is what
held at its DW_CFA_remember_state, which is again the last setter before that; chains of them are shortened by
doubling. Partners are found by sorting, so a deep stack costs no more than a flat one.

Invariant: nothing is rounded or wrapped. What the columns cannot hold becomes a Detail, and what a Detail cannot hold
ends the program by name.

Source: DWARF 5, section 6.4.2; for DW_CFA_AARCH64_negate_ra_state AADWARF64, section 4.4.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Addr, Code, Mask, Off, Off32, Row
from surefoot.metadata.cfi import opcodes
from surefoot.metadata.cfi.locations import row_starts
from surefoot.metadata.cfi.opcodes import KIND, Flag, Kind
from surefoot.metadata.cfi.pointers import Bases
from surefoot.metadata.cfi.program import Ops, Programs
from surefoot.metadata.cfi.reasons import Refusals
from surefoot.metadata.cfi.section import Section
from surefoot.metadata.rules import FpRule, SideKind

__all__ = ["CFA_DETAIL", "CFA_NONE", "Details", "Initial", "Rows", "execute"]

CFA_NONE: Final = -1
"""cfa_reg: no rule yet."""
CFA_DETAIL: Final = -2
"""cfa_reg: an expression; cfa_off is the number of the detail."""
_T = TypeVar("_T", bound=np.generic)
_INT32: Final = np.iinfo(np.int32)
_REGISTER_MAX: Final = 2**31 - 1
_EXACT_MAX: Final = 2.0**62
"""Products up to here are exact in int64 and are told from larger ones in float64."""

# The codes of x29 and x30 are the same numbers in FpRule and RaRule; state.py uses FpRule's names for both.
_SAVED, _OTHER = int(FpRule.AT_CFA), int(FpRule.OTHER)


@dataclass(slots=True)
class Details:
    """Rules that columns cannot hold, numbered as they are met.

    Attributes:
        parts: columns (kind, reg, offset, position of the expression, its length) of each batch.
        count: rules so far.
    """

    parts: list[tuple[Code, Off, Off, Off, Off]] = field(default_factory=list)
    count: int = 0

    def add(self, kind: SideKind, reg: Off | int, offset: Off | int, pos: Off | int, length: Off | int) -> int:
        """Add a batch of one kind, whose longest column gives its size; returns the first number."""
        columns = np.broadcast_arrays(np.uint8(kind), reg, offset, pos, length)
        self.parts.append(tuple(np.asarray(column) for column in columns))  # type: ignore[arg-type]
        first = self.count
        self.count += columns[0].size
        return first

    def columns(self) -> tuple[Code, Off, Off, Off, Off]:
        """Give the five columns, (count,) each."""
        nothing = np.zeros(0, dtype=np.int64)
        whole = [np.concatenate([nothing, *(part[k] for part in self.parts)]) for k in range(5)]
        return whole[0].astype(np.uint8), whole[1], whole[2], whole[3], whole[4]


@dataclass(frozen=True, slots=True)
class Initial:
    """State at the end of each CIE; arrays have one entry per CIE. int64 may be int32 where the numbers allow it.

    Attributes:
        cfa_reg: (c,) int64, register, CFA_NONE or CFA_DETAIL.
        cfa_off: (c,) int64, bytes, or number of the detail.
        fp_rule: (c,) uint8, FpRule.
        fp_off: (c,) int64, bytes from the CFA, or number of the detail where OTHER.
        ra_rule: (c,) uint8, RaRule.
        ra_off: (c,) int64, as fp_off.
        signed: (c,) bool.
    """

    cfa_reg: Off | Off32
    cfa_off: Off | Off32
    fp_rule: Code
    fp_off: Off | Off32
    ra_rule: Code
    ra_off: Off | Off32
    signed: Mask

    @classmethod
    def nothing(cls, count: int) -> Initial:
        """Give the state before any instruction, `count` times."""
        zero, code = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.uint8)
        return cls(np.full(count, CFA_NONE), zero, code, zero, code, zero, np.zeros(count, dtype=np.bool_))


@dataclass(frozen=True, slots=True)
class Rows(Initial):
    """The rows of all programs, those behind a refused instruction included; as Initial, one entry per row.

    Attributes:
        start: (r,) uint64, address.
        lane: (r,) int32, program.
        heads: (p,) int64, first row of each program.
        pos: (r,) int64, offset of the instruction that begins the row; the row is finished where the next one begins.
    """

    start: Addr
    lane: NDArray[np.int32]
    heads: Row
    pos: Off


@dataclass(frozen=True, slots=True)
class _Machine:
    """What the steps below share."""

    section: Section
    ops: Ops
    programs: Programs
    initial: Initial
    details: Details
    refused: Refusals
    restores: Row
    """(k,) int64, indices of DW_CFA_restore_state."""
    partners: Row
    """(k,) int64, indices of their DW_CFA_remember_state."""
    row_of: NDArray[np.int32]
    """(n,) int32, the row that each instruction belongs to."""
    rows: int
    """How many rows there are."""

    def cie(self, which: Row) -> Row:
        """(k,) int64, CIE of some instructions."""
        return self.programs.cie[self.ops.lane[which]]

    def operand(self, which: Row, *, signed: bool = False, at: Off | None = None) -> Off:
        """(k,) int64, LEB128 operands; refuses those beyond 63 bits."""
        leb = self.section.leb(self.ops.arg(which) if at is None else at, signed=signed)
        if not leb.ok.all():
            self.ops.refuse(self.refused, which[~leb.ok], "an operand beyond 63 bits")
        return leb.value * leb.ok

    def register(self, which: Row) -> Off:
        """(k,) int64, register numbers; refuses those that a side rule cannot hold."""
        value = self.operand(which)
        wrong = value > _REGISTER_MAX
        if wrong.any():
            self.ops.refuse(self.refused, which[wrong], "a register number beyond 31 bits")
            value = np.where(wrong, 0, value)
        return value

    def factored(self, which: Row, *, signed: bool = False, at: Off | None = None) -> Off:
        """(k,) int64, operands times the data alignment factor; refuses those that are not exact."""
        value = self.operand(which, signed=signed, at=at)
        factor = self.programs.data_factor[self.cie(which)]
        inexact = np.abs(value.astype(np.float64) * factor) >= _EXACT_MAX
        if inexact.any():
            self.ops.refuse(self.refused, which[inexact], "a factored offset beyond 62 bits")
            value = np.where(inexact, 0, value)
        return value * factor


def execute(
    section: Section,
    ops: Ops,
    programs: Programs,
    initial: Initial,
    details: Details,
    refused: Refusals,
    bases: Bases,
) -> Rows:
    """Run all programs.

    Args:
        section: the bytes.
        ops: the instructions, from `split`.
        programs: where they come from.
        initial: state at the end of each CIE.
        details: takes rules that the columns cannot hold.
        refused: takes what cannot be decoded exactly.
        bases: what relative pointers count from.
    """
    restores, partners = _pair(ops, refused)
    begins = (ops.flags & np.uint16(Flag.ROW)) != 0
    rows = np.flatnonzero(begins)
    row_of = np.cumsum(begins, dtype=np.int32) - np.int32(1)
    machine = _Machine(section, ops, programs, initial, details, refused, restores, partners, row_of, rows.size)
    other = ops.having(Flag.SP)
    if other.size:
        _refuse_other_registers(machine, other)
    start, heads = row_starts(section, ops, rows, programs, bases, refused)
    cfa_reg, cfa_off = _cfa(machine)
    fp_rule, fp_off = _register(machine, opcodes.FP)
    ra_rule, ra_off = _register(machine, opcodes.RA)
    signed = _signed(machine)
    return Rows(
        cfa_reg, cfa_off, fp_rule, fp_off, ra_rule, ra_off, signed, start, ops.lane[rows], heads, ops.pos[rows]
    )


def _pair(ops: Ops, refused: Refusals) -> tuple[Row, Row]:
    """Find the DW_CFA_remember_state of every DW_CFA_restore_state; refuses those that have none.

    Counting +1 and -1, partners are neighbours among the instructions of one program and one depth.
    """
    both = ops.having(Flag.REMEMBER | Flag.RESTORE)
    if not both.size:
        return both, both
    closes = (ops.flags[both] & np.uint16(Flag.RESTORE)) != 0
    lane = ops.lane[both]
    depth = np.cumsum(np.where(closes, -1, 1))
    opened = np.flatnonzero(np.append(True, lane[1:] != lane[:-1]))
    before = depth[opened] - np.where(closes[opened], -1, 1)
    depth -= np.repeat(before, np.diff(np.append(opened, both.size)))
    level = depth + closes  # of a restore: the depth that it leaves
    order = np.lexsort((level, lane))  # stable: the order of the program within a level
    back = np.empty(both.size, dtype=np.int64)
    back[order[1:]] = order[:-1]
    back[order[:1]] = order[:1]
    restore = np.flatnonzero(closes)
    lost = level[restore] <= 0
    partner = np.where(lost, ops.heads[lane[restore]], both[back[restore]])
    ops.refuse(refused, both[restore[lost]], "DW_CFA_restore_state without DW_CFA_remember_state")
    return both[restore], partner


@dataclass(frozen=True, slots=True)
class _Setters:
    """The instructions that set one thing.

    Attributes:
        which: (s,) int64, their indices, ascending; every program's head is among them.
        code: (s,) uint8, their first bytes.
        source: (s,) int64, whose value each of them sets: its own, but for DW_CFA_restore_state.
        counts: (s,) int64, rows in which each of them has the last word.
    """

    which: Row
    code: Code
    source: Row
    counts: Row

    def at(self, ops: Row) -> Row:
        """Give the setter in force behind each of the instructions `ops`."""
        held: Row = self.source[np.searchsorted(self.which, ops, side="right") - 1]
        return held

    def in_rows(self, value: NDArray[_T]) -> NDArray[_T]:
        """Give the values, one per setter, as one per row."""
        return np.repeat(value[self.source], self.counts)

    def numbers_in_rows(self, value: Off) -> Off | Off32:
        """As `in_rows`, in half the memory where the values allow it."""
        small = int(value.min()) >= _INT32.min and int(value.max()) <= _INT32.max
        return self.in_rows(value.astype(np.int32)) if small else self.in_rows(value)


def _setters(machine: _Machine, flag: int) -> _Setters:
    """List the instructions that have a flag."""
    which = machine.ops.having(flag)
    first = machine.row_of[which]  # a later setter of the same row leaves none for the earlier one
    counts = np.diff(first, append=np.int32(machine.rows)).astype(np.int64)
    source = np.arange(which.size, dtype=np.int64)
    if machine.restores.size:
        at = np.searchsorted(which, machine.restores)
        source[at] = np.searchsorted(which, machine.partners, side="right") - 1
        while True:
            further = source[source[at]]
            if np.array_equal(further, source[at]):
                break
            source[at] = further
    return _Setters(which, machine.ops.code[which], source, counts)


def _cfa(machine: _Machine) -> tuple[Off | Off32, Off | Off32]:
    """Give register and offset of the CFA in every row: (r,) int64 or int32 each."""
    initial = machine.initial
    of = _setters(machine, Flag.CFA_REG)
    reg = np.zeros(of.which.size, dtype=np.int64)
    some = np.flatnonzero(of.code == opcodes.HEAD)
    reg[some] = initial.cfa_reg[machine.programs.cie]
    named = (of.code == opcodes.DEF_CFA) | (of.code == opcodes.DEF_CFA_SF) | (of.code == opcodes.DEF_CFA_REGISTER)
    some = np.flatnonzero(named)
    reg[some] = machine.register(of.which[some])
    reg[of.code == opcodes.DEF_CFA_EXPRESSION] = CFA_DETAIL
    off_of = _setters(machine, Flag.CFA_OFF)
    if reg.min() < 0:
        only = np.flatnonzero(of.code == opcodes.DEF_CFA_REGISTER)
        _demand_register(machine, of.which[only], reg[of.source[only - 1]], "DW_CFA_def_cfa_register")
        half = (off_of.code == opcodes.DEF_CFA_OFFSET) | (off_of.code == opcodes.DEF_CFA_OFFSET_SF)
        only = off_of.which[half]
        _demand_register(machine, only, reg[of.at(only)], "DW_CFA_def_cfa_offset")
    return of.numbers_in_rows(reg), off_of.numbers_in_rows(_cfa_offsets(machine, off_of))


def _cfa_offsets(machine: _Machine, of: _Setters) -> Off:
    """(s,) int64, offset of the CFA, or number of the detail, that each setter sets."""
    off = np.zeros(of.which.size, dtype=np.int64)
    some = np.flatnonzero(of.code == opcodes.HEAD)
    off[some] = machine.initial.cfa_off[machine.programs.cie]
    some = np.flatnonzero(of.code == opcodes.DEF_CFA_OFFSET)
    off[some] = machine.operand(of.which[some])
    some = np.flatnonzero(of.code == opcodes.DEF_CFA_OFFSET_SF)
    off[some] = machine.factored(of.which[some], signed=True)
    for operation in (opcodes.DEF_CFA, opcodes.DEF_CFA_SF):
        some = np.flatnonzero(of.code == operation)
        at = machine.ops.arg(of.which[some])
        at = at + machine.section.leb_length(at)
        read = machine.operand if operation == opcodes.DEF_CFA else machine.factored
        off[some] = read(of.which[some], signed=operation == opcodes.DEF_CFA_SF, at=at)
    some = np.flatnonzero(of.code == opcodes.DEF_CFA_EXPRESSION)
    off[some] = _blocks(machine, of.which[some], SideKind.EXPRESSION, machine.ops.arg(of.which[some]))
    return off


def _demand_register(machine: _Machine, which: Row, held: Off, name: str) -> None:
    """Refuse instructions that change half of a CFA rule that is not register + offset."""
    wrong = held < 0
    if wrong.any():
        machine.ops.refuse(machine.refused, which[wrong], f"{name} while the CFA is not a register and an offset")


def _blocks(machine: _Machine, which: Row, kind: SideKind, at: Off) -> Off:
    """Make details of the blocks whose lengths stand at `at`: (k,) int64 numbers."""
    if not which.size:
        return which
    size = machine.section.leb(at, signed=False)
    length = np.minimum(size.value * size.ok, machine.section.size)
    return machine.details.add(kind, -1, 0, at + size.length, length) + np.arange(which.size)


def _register(machine: _Machine, register: int) -> tuple[Code, Off | Off32]:
    """Give the rule of x29 or x30 in every row: (r,) uint8 code, (r,) int64 or int32 offset or detail."""
    is_fp = register == opcodes.FP
    initial = machine.initial
    of = _setters(machine, Flag.FP if is_fp else Flag.RA)
    rule = np.zeros(of.which.size, dtype=np.uint8)
    off = np.zeros(of.which.size, dtype=np.int64)
    kind = KIND[of.code]
    some = np.flatnonzero(kind == Kind.INITIAL)
    cie = machine.cie(of.which[some])
    rule[some] = (initial.fp_rule if is_fp else initial.ra_rule)[cie]
    off[some] = (initial.fp_off if is_fp else initial.ra_off)[cie]
    some = np.flatnonzero(kind == Kind.OFFSET)
    rule[some] = _SAVED
    off[some] = machine.factored(of.which[some])
    for other in range(Kind.OFFSET + 1, int(kind.max()) + 1):
        some = np.flatnonzero(kind == other)
        if not some.size:
            continue
        rule[some], off[some] = _rare(machine, of.which[some], other, register)
    return of.in_rows(rule), of.numbers_in_rows(off)


def _rare(machine: _Machine, which: Row, kind: int, register: int) -> tuple[Code | int, Off | int]:
    """Give code and offset of rules that compilers hardly write."""
    if kind in {Kind.OFFSET_SF, Kind.OFFSET_NEGATIVE}:
        value = machine.factored(which, signed=kind == Kind.OFFSET_SF)
        return _SAVED, -value if kind == Kind.OFFSET_NEGATIVE else value
    if kind == Kind.UNDEFINED:
        return int(FpRule.UNDEFINED), 0
    if kind == Kind.SAME:
        return int(FpRule.UNCHANGED), 0
    number = machine.details.count + np.arange(which.size, dtype=np.int64)
    if kind == Kind.REGISTER:
        source = machine.register(which)
        machine.details.add(SideKind.REGISTER, source, 0, 0, 0)
        own = source == register
        return np.where(own, FpRule.UNCHANGED, FpRule.OTHER).astype(np.uint8), np.where(own, 0, number)
    if kind in {Kind.VAL_OFFSET, Kind.VAL_OFFSET_SF}:
        machine.details.add(SideKind.CFA_VALUE, -1, machine.factored(which, signed=kind == Kind.VAL_OFFSET_SF), 0, 0)
        return _OTHER, number
    side = SideKind.EXPRESSION if kind == Kind.EXPRESSION else SideKind.VAL_EXPRESSION
    return _OTHER, _blocks(machine, which, side, machine.ops.arg(which))


def _refuse_other_registers(machine: _Machine, which: Row) -> None:
    """Refuse rules of SP and RA_SIGN_STATE, but for those that say what holds anyway: caller's SP = CFA."""
    kind = KIND[machine.ops.code[which]]
    register = np.where(machine.ops.code[which] >= opcodes.OFFSET, machine.ops.code[which] & 0x3F, 0).astype(np.int64)
    extended = np.flatnonzero(register == 0)
    register[extended] = machine.section.leb(machine.ops.pos[which[extended]] + 1, signed=False).value
    harmless = (kind == Kind.INITIAL) & (register == opcodes.SP)
    for number, signed in ((Kind.VAL_OFFSET, False), (Kind.VAL_OFFSET_SF, True)):
        some = np.flatnonzero((kind == number) & (register == opcodes.SP))
        harmless[some] = machine.operand(which[some], signed=signed) == 0
    for number, name in ((opcodes.SP, "SP"), (opcodes.RA_SIGN_STATE, "RA_SIGN_STATE")):
        wrong = ~harmless & (register == number)
        machine.ops.refuse(machine.refused, which[wrong], f"a rule for {name}, which rule tables cannot hold")


def _signed(machine: _Machine) -> Mask:
    """(r,) bool, whether the return address is signed in every row.

    Every program head and every DW_CFA_restore_state starts a count of DW_CFA_AARCH64_negate_ra_state anew; the
    latter from what held at its partner.
    """
    ops = machine.ops
    held = machine.initial.signed[machine.programs.cie]
    of = _setters(machine, Flag.HEAD | Flag.NEGATE | Flag.RESTORE)
    toggles = of.code == opcodes.AARCH64_NEGATE_RA_STATE
    if not toggles.any():
        return np.repeat(held[ops.lane[of.which]], of.counts)
    odd = (np.cumsum(toggles, dtype=np.int32) & 1).astype(np.bool_)
    anchors = np.flatnonzero(~toggles)
    anchor_of = np.cumsum(~toggles, dtype=np.int32) - 1
    parent = np.arange(anchors.size, dtype=np.int64)
    flip = np.zeros(anchors.size, dtype=np.bool_)
    if machine.restores.size:
        at = anchor_of[np.searchsorted(of.which, machine.restores)]
        partner = np.searchsorted(of.which, machine.partners, side="right") - 1
        parent[at] = anchor_of[partner]
        flip[at] = odd[partner] ^ odd[anchors[parent[at]]]
    while True:
        further = parent[parent]
        if np.array_equal(further, parent):
            break
        flip ^= flip[parent]
        parent = further
    value = held[ops.lane[of.which[anchors]]] ^ flip ^ odd[anchors]
    return np.repeat(value[anchor_of] ^ odd, of.counts)
