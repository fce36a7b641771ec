"""Layer 2: rows laid out as the columns of a rule table, and beside them what the columns cannot hold.

Invariant: an entry of the side table belongs to one row, says `kind` NONE for the parts that the columns hold, and
holds its numbers exactly.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Code, Mask, Off, Off32, Row, Row32
from surefoot.metadata.cfi import opcodes
from surefoot.metadata.cfi.entries import Fdes
from surefoot.metadata.cfi.reasons import Refusals
from surefoot.metadata.cfi.section import Section
from surefoot.metadata.cfi.state import CFA_DETAIL, CFA_NONE, Details, Initial, Rows
from surefoot.metadata.rules import (
    Abi,
    CfaBase,
    FpRule,
    FunctionFlag,
    FunctionIndex,
    Provenance,
    RuleTable,
    SideKind,
    empty_side,
)

__all__ = ["build_table"]

_MIN: Final = -(2**31)
_MAX: Final = 2**31 - 1
_OTHER: Final = np.uint8(FpRule.OTHER)
_SAVED: Final = np.uint8(FpRule.AT_CFA)


def build_table(
    section: Section,
    fdes: Fdes,
    sections: Row32,
    rows: Rows | None,
    details: Details,
    refused: Refusals,
    *,
    eh: bool,
) -> RuleTable:
    """Give the rule table of a section.

    Args:
        section: the bytes, which expressions are copied from.
        fdes: the functions.
        sections: (f,) int32, section of each function's code, or -1.
        rows: all rows, or None where there is no function.
        details: what the rows' details mean.
        refused: where programs end early.
        eh: .eh_frame instead of .debug_frame.
    """
    count = len(fdes)
    found = refused.first(count)
    flags, reason = fdes.flags, np.full(count, -1, dtype=np.int16)
    state: Initial = Initial.nothing(0) if rows is None else rows
    start, lane, first = np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int64)
    if rows is not None:
        start, lane, first = rows.start, rows.lane, rows.heads
    counts = np.diff(np.append(first, start.size))
    if found is not None and rows is not None:
        where, reason = found
        flags = flags | np.where(reason >= 0, np.uint8(FunctionFlag.REFUSED), np.uint8(0))
        keep = np.flatnonzero(_finished(rows, where))
        state, start, lane = _take(rows, keep), start[keep], lane[keep]
        counts = np.bincount(lane, minlength=count).astype(np.int64)
        first = np.cumsum(counts) - counts
    columns, side, side_rules, expressions = _columns(section, state, details)
    index = FunctionIndex(
        start=fdes.start,
        size=fdes.size,
        first_row=first,
        row_count=counts,
        provenance=np.full(count, Provenance.EH_FRAME if eh else Provenance.DEBUG_FRAME, dtype=np.uint8),
        flags=flags,
        source_off=fdes.offset,
        section=sections,
        rep_size=np.zeros(count, dtype=np.uint8),
        reason=reason,
    )
    reasons = tuple(refused.sentences)
    abi = Abi.AARCH64_BE if section.big_endian else Abi.AARCH64_LE
    return RuleTable(start, *columns, state.signed, lane, side, index, side_rules, expressions, reasons, abi)


def _finished(rows: Rows, where: Off) -> Mask:
    """(r,) bool, which rows were finished before the refused instruction of their program.

    A row is finished where the next one begins; behind the last row of a program that is the next program, which lies
    behind whatever was refused.
    """
    finish = np.append(rows.pos[1:], np.iinfo(np.int64).max - 1)
    return finish <= where[rows.lane]


def _take(rows: Rows, keep: Row) -> Initial:
    """Give the state of the chosen rows."""
    return Initial(
        rows.cfa_reg[keep],
        rows.cfa_off[keep],
        rows.fp_rule[keep],
        rows.fp_off[keep],
        rows.ra_rule[keep],
        rows.ra_off[keep],
        rows.signed[keep],
    )


def _columns(
    section: Section, state: Initial, details: Details
) -> tuple[tuple[Code, Off32, Code, Off32, Code, Off32], Row32, NDArray[np.void], bytes]:
    """Give the six rule columns, `side`, the side table and the expressions."""
    reg = state.cfa_reg
    base = (reg == opcodes.SP).view(np.uint8) * np.uint8(CfaBase.SP)
    base |= (reg == opcodes.FP).view(np.uint8) * np.uint8(CfaBase.FP)
    rest = np.flatnonzero(base == 0)
    base[rest[reg[rest] != CFA_NONE]] = CfaBase.OTHER
    base[_beyond(state.cfa_off)] = CfaBase.OTHER
    fp_rule, ra_rule = state.fp_rule.copy(), state.ra_rule.copy()
    for rule, off in ((fp_rule, state.fp_off), (ra_rule, state.ra_off)):
        rule[_beyond(off)] = _OTHER  # a detail's number is never that large
    odd = np.flatnonzero((base == CfaBase.OTHER) | (fp_rule == _OTHER) | (ra_rule == _OTHER))
    side = np.full(reg.size, -1, dtype=np.int32)
    side[odd] = np.arange(odd.size, dtype=np.int32)
    side_rules = empty_side(odd.size)
    expressions = b""
    if odd.size:
        kinds, regs, offsets, where, lengths = details.columns()
        expressions, exprs = _gather(section, where, lengths)
        known = (kinds, regs, offsets, exprs, lengths)
        _fill_cfa(side_rules["cfa"], state, base, odd, known)
        _fill_register(side_rules["fp"], state.fp_rule[odd], fp_rule[odd], state.fp_off[odd], known)
        _fill_register(side_rules["ra"], state.ra_rule[odd], ra_rule[odd], state.ra_off[odd], known)
    cfa_off = _narrow(state.cfa_off, base != CfaBase.OTHER)
    fp_off, ra_off = _narrow(state.fp_off, fp_rule == _SAVED), _narrow(state.ra_off, ra_rule == _SAVED)
    return (base, cfa_off, fp_rule, fp_off, ra_rule, ra_off), side, side_rules, expressions


def _beyond(off: Off | Off32) -> Row:
    """(k,) int64, rows whose offset does not fit 32 bits."""
    if off.dtype == np.int32 or not off.size or (int(off.min()) >= _MIN and int(off.max()) <= _MAX):
        return np.zeros(0, dtype=np.int64)
    return np.flatnonzero((off < _MIN) | (off > _MAX))


def _narrow(off: Off | Off32, fits: Mask) -> Off32:
    """Give the offsets as int32, 0 where they are somewhere else."""
    return (off * fits).astype(np.int32, copy=False)


def _gather(section: Section, where: Off, lengths: Off) -> tuple[bytes, Off]:
    """Copy the expressions out of the section, one behind the other; (k,) int64, where each begins."""
    begins = np.cumsum(lengths) - lengths
    total = int(lengths.sum())
    source = np.repeat(where - begins, lengths) + np.arange(total, dtype=np.int64)
    return section.data[np.minimum(source, section.size)].tobytes(), begins


def _fill_cfa(
    part: NDArray[np.void], state: Initial, base: Code, odd: Row, known: tuple[Code, Off, Off, Off, Off]
) -> None:
    """Fill the CFA's side rules: an expression, another register, or an offset too large."""
    reg, off = state.cfa_reg[odd], state.cfa_off[odd]
    mine = np.flatnonzero((base[odd] == CfaBase.OTHER) & (reg != CFA_DETAIL))
    large = (off[mine] < _MIN) | (off[mine] > _MAX)
    usual = (reg[mine] == opcodes.SP) | (reg[mine] == opcodes.FP)
    part["kind"][mine] = np.where(large & usual, SideKind.RANGE, SideKind.REGISTER)
    part["reg"][mine] = reg[mine]
    part["offset"][mine] = off[mine]
    mine = np.flatnonzero(reg == CFA_DETAIL)
    _copy(part, mine, off[mine], known)


def _fill_register(
    part: NDArray[np.void], said: Code, rule: Code, off: Off | Off32, known: tuple[Code, Off, Off, Off, Off]
) -> None:
    """Fill the side rules of x29 or x30: `said` by the source, `rule` in the column."""
    mine = np.flatnonzero((rule == _OTHER) & (said == _SAVED))
    part["kind"][mine] = SideKind.RANGE
    part["deref"][mine] = True
    part["reg"][mine] = -1
    part["offset"][mine] = off[mine]
    mine = np.flatnonzero(said == _OTHER)
    _copy(part, mine, off[mine], known)


def _copy(part: NDArray[np.void], mine: Row, numbers: Off | Off32, known: tuple[Code, Off, Off, Off, Off]) -> None:
    """Copy details into side rules."""
    kinds, regs, offsets, exprs, lengths = known
    part["kind"][mine] = kinds[numbers]
    part["reg"][mine] = regs[numbers]
    part["offset"][mine] = offsets[numbers]
    part["expr"][mine] = exprs[numbers]
    part["expr_len"][mine] = lengths[numbers]
    part["deref"][mine] = part["kind"][mine] == SideKind.EXPRESSION
