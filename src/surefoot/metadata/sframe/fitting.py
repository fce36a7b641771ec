"""Layer 2: how each unwind rule is written as SFrame data words, or why it cannot be.

Invariant: a row is written exactly or its function is left out by name.

Default rows hold CFA = SP/FP + n and slots at CFA + n; flexible rows (version 3) hold, besides, registers and
loads from registers. A row without words is an outermost frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Code, Mask, Off, Row
from surefoot.metadata.rules import Abi, CfaBase, FpRule, RaRule, RuleTable, SideKind
from surefoot.metadata.sframe.constants import ABI_INFO, ROW_BASE_SP, ROW_SIGNED, Version
from surefoot.metadata.sframe.words import CONTROL_DEREF, CONTROL_REG, CONTROL_SHIFT

__all__ = ["LEFT_OUT", "MAX_WORDS", "Fit", "fit_rows", "pack_rows"]

MAX_WORDS: Final = 6

LEFT_OUT: Final = (
    "the source refused it",
    "it covers no address",
    "the source has no rules for it",
    "it is 4 GiB or larger",
    "it lies too far from the section",
    "another function claims the same addresses with other rules",
    "the same function is there twice",
    "a signal frame cannot be marked before version 3",
    "a row has no CFA",
    "a DWARF expression gives the CFA",
    "a DWARF expression gives the frame pointer",
    "a DWARF expression gives the return address",
    "an offset does not fit into 32 bits",
    "a value relative to the CFA that is not in memory cannot be written",
    "the frame pointer is stated to be lost",
    "the return address is not where the ABI fixes it",
    "a CFA offset is not the multiple that the ABI's scaling asks for",
    "a row needs a flexible descriptor, which exists since version 3",
    "an outermost frame cannot be marked in version 1",
    "its repeated block is not 1 to 255 bytes long",
)
"""Why `from_rules` leaves a function out."""
(
    REFUSED,
    EMPTY,
    NO_RULES,
    TOO_LARGE,
    TOO_FAR,
    DISPUTED,
    DUPLICATE,
    NO_SIGNAL,
    NO_CFA,
    CFA_EXPRESSION,
    FP_EXPRESSION,
    RA_EXPRESSION,
    OFFSET_RANGE,
    CFA_VALUE,
    FP_LOST,
    RA_NOT_FIXED,
    CFA_SCALE,
    NEEDS_FLEX,
    NO_OUTERMOST,
    REPEAT,
) = range(len(LEFT_OUT))


_Blame: TypeAlias = Callable[[Mask, int], None]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where one of CFA, RA, FP is, in the terms of a flexible row; one entry per row.

    Attributes:
        control: (r,) int64 control word, 0 = nothing to write.
        offset: (r,) int64.
    """

    control: Row
    offset: Off


@dataclass(frozen=True, slots=True)
class Fit:
    """How the rows of a table can be written.

    Attributes:
        why: (r,) int8, index into `LEFT_OUT`, -1 where the row can be written.
        needs_flex: (r,) bool, only a flexible descriptor can hold it.
        is_outermost: (r,) bool, written without words.
        cfa: CFA, offsets already unscaled to stored units.
        ra: return address.
        fp: frame pointer.
    """

    why: NDArray[np.int8]
    needs_flex: Mask
    is_outermost: Mask
    cfa: _Place
    ra: _Place
    fp: _Place


def fit_rows(table: RuleTable, version: int) -> Fit:
    """Judge every row of a table, to be written in the given version."""
    info = ABI_INFO[table.abi]
    why = np.full(len(table), -1, dtype=np.int8)
    needs_flex = np.zeros(len(table), dtype=np.bool_)

    def blame(rows: Mask, code: int) -> None:
        why[rows & (why < 0)] = code

    cfa = _cfa(table, blame)
    ra = _slot(table, "ra", table.ra_rule, table.ra_off, int(RaRule.AT_CFA), int(RaRule.OTHER), blame)
    fp = _slot(table, "fp", table.fp_rule, table.fp_off, int(FpRule.AT_CFA), int(FpRule.OTHER), blame)
    is_outermost = table.ra_rule == RaRule.UNDEFINED
    blame(table.fp_rule == FpRule.UNDEFINED, FP_LOST)
    blame(table.cfa_base == CfaBase.UNDEFINED, NO_CFA)
    if info.cfa_scale != 1:
        blame((cfa.offset - info.cfa_bias) % info.cfa_scale != 0, CFA_SCALE)
        cfa = _Place(cfa.control, (cfa.offset - info.cfa_bias) // info.cfa_scale)
    needs_flex |= table.cfa_base == CfaBase.OTHER
    other_ra, other_fp = table.ra_rule == RaRule.OTHER, table.fp_rule == FpRule.OTHER
    if table.abi == Abi.S390X_BE and version == Version.V2:
        ra, other_ra = _in_registers(ra, other_ra)
        fp, other_fp = _in_registers(fp, other_fp)
    needs_flex |= other_ra | other_fp
    if info.fixed_ra:
        in_place = (table.ra_rule == RaRule.AT_CFA) & (table.ra_off == info.fixed_ra)
        blame((table.ra_rule == RaRule.IN_LR) | (table.ra_rule == RaRule.NOT_STATED), RA_NOT_FIXED)
        needs_flex |= (table.ra_rule == RaRule.AT_CFA) & ~in_place
        ra = _Place(np.where(in_place, 0, ra.control), np.where(in_place, 0, ra.offset))
    else:
        needs_flex |= (table.ra_rule == RaRule.AT_CFA) & (table.ra_off == 0)
        if table.abi != Abi.S390X_BE:
            needs_flex |= (table.fp_rule == FpRule.AT_CFA) & (table.ra_rule != RaRule.AT_CFA)
    for place in (cfa, ra, fp):
        blame((place.offset < -(2**31)) | (place.offset >= 2**31), OFFSET_RANGE)
    why[is_outermost] = -1
    needs_flex &= ~is_outermost
    return Fit(why, needs_flex, is_outermost, cfa, ra, fp)


def _in_registers(place: _Place, is_other: Mask) -> tuple[_Place, Mask]:
    """Write plain registers as version 2 does on s390x: an odd word, (number << 1) | 1.

    Returns:
        the places, and (r,) bool the other rules that are left.
    """
    is_plain = (place.control & (CONTROL_REG | CONTROL_DEREF)) == CONTROL_REG
    held: Mask = is_other & is_plain & (place.offset == 0)
    word = (place.control >> CONTROL_SHIFT << 1) | 1
    return _Place(np.where(held, CONTROL_DEREF, place.control), np.where(held, word, place.offset)), is_other & ~held


def _cfa(table: RuleTable, blame: _Blame) -> _Place:
    """Give the CFA of every row as register + offset."""
    info = ABI_INFO[table.abi]
    register = np.where(table.cfa_base == CfaBase.FP, info.fp, info.sp).astype(np.int64)
    control = (register << CONTROL_SHIFT) | CONTROL_REG
    offset = table.cfa_off.astype(np.int64)
    rows = np.flatnonzero(table.side >= 0)
    if rows.size:
        entry = table.side_rules["cfa"][table.side[rows]]
        other = table.cfa_base[rows] == CfaBase.OTHER
        _blame_kinds(rows, entry, other, len(table), CFA_EXPRESSION, blame)
        blame(_mask(rows[entry["kind"] == SideKind.RANGE], len(table)), OFFSET_RANGE)
        control[rows[other]] = _side_control(entry[other])
        offset[rows[other]] = entry[other]["offset"]
    return _Place(control, offset)


def _slot(
    table: RuleTable, name: str, rule: Code, off: NDArray[np.int32], at_cfa: int, other_code: int, blame: _Blame
) -> _Place:
    """Give where RA or FP of every row is; control 0 where it is still in its register."""
    control = (rule == at_cfa).astype(np.int64) * CONTROL_DEREF
    offset = np.where(rule == at_cfa, off, 0).astype(np.int64)
    rows = np.flatnonzero((table.side >= 0) & (rule == other_code))
    if rows.size:
        entry = table.side_rules[name][table.side[rows]]
        every = np.ones(rows.size, dtype=np.bool_)
        _blame_kinds(rows, entry, every, len(table), RA_EXPRESSION if name == "ra" else FP_EXPRESSION, blame)
        control[rows] = _side_control(entry)
        offset[rows] = entry["offset"]
    return _Place(control, offset)


def _blame_kinds(rows: Row, entry: NDArray[np.void], where: Mask, total: int, expression: int, blame: _Blame) -> None:
    """Name the side rules that no data word can hold."""
    kind = entry["kind"]
    for kinds, code in (
        ((SideKind.EXPRESSION, SideKind.VAL_EXPRESSION, SideKind.NONE), expression),
        ((SideKind.CFA_VALUE,), CFA_VALUE),
        ((SideKind.RANGE,), OFFSET_RANGE),
    ):
        blame(_mask(rows[where & np.isin(kind, kinds)], total), code)


def _side_control(entry: NDArray[np.void]) -> Row:
    """Give the control words of register rules."""
    register = entry["reg"].astype(np.int64)
    return (register << CONTROL_SHIFT) | CONTROL_REG | (entry["deref"].astype(np.int64) * CONTROL_DEREF)


def _mask(rows: Row, total: int) -> Mask:
    """(total,) bool, True at the given rows."""
    mask = np.zeros(total, dtype=np.bool_)
    mask[rows] = True
    return mask


def pack_rows(table: RuleTable, fit: Fit, is_flex: Mask) -> tuple[Code, NDArray[np.int32], Row]:
    """Give info bytes and data words of rows that can be written.

    Args:
        table: the rules.
        fit: what `fit_rows` said of them.
        is_flex: (r,) bool, the row belongs to a flexible descriptor.

    Returns:
        info (r,) uint8, words (w,) int32 as stored (sign extended), first_word (r,) int64.
    """
    rows = len(table)
    words = np.zeros((MAX_WORDS, rows), dtype=np.int64)
    unsigned = np.zeros((MAX_WORDS, rows), dtype=np.bool_)
    count = np.zeros(rows, dtype=np.int64)
    plain, flex = np.flatnonzero(~is_flex & ~fit.is_outermost), np.flatnonzero(is_flex & ~fit.is_outermost)
    words[0, plain] = fit.cfa.offset[plain]
    count[plain] = 1
    has_fp, has_ra = fit.fp.control[plain] != 0, fit.ra.control[plain] != 0
    if ABI_INFO[table.abi].fixed_ra == 0:
        has_ra |= has_fp  # s390x: a word 0 pads the missing return address
        words[1, plain] = fit.ra.offset[plain]
        words[2, plain] = fit.fp.offset[plain]
        count[plain] += has_ra.astype(np.int64) + has_fp
    else:
        words[1, plain] = fit.fp.offset[plain]
        count[plain] += has_fp
    _put_flex(words, unsigned, count, fit, flex)
    size_code = _size_codes(words, unsigned, count)
    base = np.where(is_flex, 0, (table.cfa_base == CfaBase.SP) * ROW_BASE_SP).astype(np.int64)
    info = base | (count << 1) | (size_code << 5) | (table.ra_signed * np.int64(ROW_SIGNED))
    info[fit.is_outermost] = 0
    first = np.cumsum(count) - count
    out = np.zeros(int(count.sum()), dtype=np.int32)
    bits = np.int64(8) << size_code
    for nth in range(MAX_WORDS):
        has = np.flatnonzero(count > nth)
        if not has.size:
            break
        span = np.int64(1) << bits[has]
        value = words[nth, has] & (span - 1)
        out[first[has] + nth] = value - np.where(value >= span >> 1, span, 0)
    return info.astype(np.uint8), out, first


def _put_flex(words: Row, unsigned: Mask, count: Row, fit: Fit, rows: Row) -> None:
    """Lay out control and offset pairs of flexible rows: CFA, RA or padding, FP; trailing padding is not written."""
    if not rows.size:
        return
    has_fp = fit.fp.control[rows] != 0
    at = np.zeros(rows.size, dtype=np.int64)
    for place, pads in ((fit.cfa, None), (fit.ra, has_fp), (fit.fp, None)):
        there = place.control[rows] != 0
        chosen, slot = rows[there], at[there]
        words[slot, chosen] = place.control[chosen]
        unsigned[slot, chosen] = True
        words[slot + 1, chosen] = place.offset[chosen]
        at += there * 2
        if pads is not None:
            at += ~there & pads  # the word stays 0: padding
    count[rows] = at


def _size_codes(words: Row, unsigned: Mask, count: Row) -> Row:
    """(r,) int64: 0, 1 or 2 for the smallest word of 1, 2 or 4 bytes that holds all words of the row."""
    code = np.zeros(count.size, dtype=np.int64)
    for nth in range(MAX_WORDS):
        if not (count > nth).any():
            break
        value = words[nth]
        # An unsigned control word of k bits is as wide as a signed word of k + 1 bits: halve it to compare alike.
        reach = np.where(unsigned[nth], value >> 1, np.where(value < 0, ~value, value))
        need = (reach > 0x7F).astype(np.int64) + (reach > 0x7FFF)
        code = np.maximum(code, np.where(count > nth, need, 0))
    return code
