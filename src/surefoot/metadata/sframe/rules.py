"""Layer 2: from the columns of an SFrame table to unwind rules.

Invariant: a function's rows are taken as a whole or refused as a whole, by name; no row is repaired. What the
columns of `RuleTable` cannot hold goes to its side table exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Code, Mask, Off, Row
from surefoot.metadata.rules import (
    Abi,
    CfaBase,
    FpRule,
    FunctionFlag,
    FunctionIndex,
    Provenance,
    RaRule,
    RuleTable,
    SideKind,
    empty_side,
)
from surefoot.metadata.sframe.constants import (
    ABI_INFO,
    INFO_KEY_B,
    INFO_PC_MASK,
    INFO_SIGNAL,
    Version,
)
from surefoot.metadata.sframe.model import SFrameTable
from surefoot.metadata.sframe.words import Pair, allowed_counts, flex_words

__all__ = ["REASONS", "is_arm", "to_rules"]

_INT32: Final = (-(2**31), 2**31 - 1)

# Kept in its register, saved at the CFA, anything else, row without words.
_RA_CODES: Final = (RaRule.IN_LR, RaRule.AT_CFA, RaRule.OTHER, RaRule.UNDEFINED)
_FP_CODES: Final = (FpRule.UNCHANGED, FpRule.AT_CFA, FpRule.OTHER, FpRule.NOT_STATED)

REASONS: Final = (
    "the function reaches beyond the address space",
    "rows are not in strictly ascending order",
    "a row lies outside the function",
    "a row lies outside the repeated block",
    "a row has a number of words that its ABI does not define",
    "the words of a flexible row break off or are left over",
    "the CFA of a flexible row is not based on a register",
    "a return address at CFA+0 is padding to GNU tools and a stack slot to the specification",
    "the function was discarded by the linker",
    "the rows could not be read to their end",
    "the descriptor's type does not exist",
)
"""Why a function's rows were refused; `FunctionIndex.reason` points in here."""
(
    _WRAPS,
    _ORDER,
    _OUTSIDE,
    _OUTSIDE_BLOCK,
    _WORDS,
    _FLEX_WORDS,
    _FLEX_CFA,
    _RA_ZERO,
    _DISCARDED,
    _UNREAD,
    _FDE_TYPE,
) = range(len(REASONS))


def is_arm(abi: Abi) -> bool:
    """Whether return addresses may be signed and keys chosen."""
    return abi in {Abi.AARCH64_LE, Abi.AARCH64_BE}


@dataclass(slots=True)
class _Columns:
    """Row columns of a RuleTable in the making; offsets still 64 bits wide."""

    cfa_base: Code
    cfa_off: Off
    fp_rule: Code
    fp_off: Off
    ra_rule: Code
    ra_off: Off
    side: NDArray[np.int32]
    side_rules: NDArray[np.void]


def to_rules(table: SFrameTable) -> RuleTable:
    """Interpret one table.

    Returns:
        rows and functions in stored order. A row without words becomes CFA UNDEFINED and RA UNDEFINED (outermost
        frame), its FP NOT_STATED. Absent RA and FP words say IN_LR and UNCHANGED, as the format defines. Functions
        whose rows cannot be believed carry REFUSED, a reason out of `REASONS`, and no rows.

    Raises:
        Nothing: a table that was decoded has an interpretation.
    """
    reason = _refusals(table)
    fdes, fres = table.fdes, table.fres
    columns = _default_rows(table)
    flex = np.flatnonzero(fdes.is_flex.take(fres.func)) if fdes.is_flex.any() else np.zeros(0, dtype=np.int64)
    if flex.size:
        _flex_rows(table, flex, columns)
    _word_registers(table, columns)
    _wide_offsets(columns)
    counts = fdes.row_count
    rows = RuleTable(
        start=fdes.start.take(fres.func) + fres.start.astype(np.uint64),
        cfa_base=columns.cfa_base,
        cfa_off=columns.cfa_off.astype(np.int32),
        fp_rule=columns.fp_rule,
        fp_off=columns.fp_off.astype(np.int32),
        ra_rule=columns.ra_rule,
        ra_off=columns.ra_off.astype(np.int32),
        ra_signed=(fres.info >> 7).astype(np.bool_) if is_arm(table.abi) else np.zeros(len(fres), dtype=np.bool_),
        func=fres.func,
        side=columns.side,
        functions=_functions(table, reason),
        side_rules=columns.side_rules,
        reasons=REASONS,
        abi=table.abi,
    )
    refused = reason >= 0
    if refused.any() and counts.size:
        return rows.take_rows(np.flatnonzero(~refused.take(fres.func)))
    return rows


def _functions(table: SFrameTable, reason: NDArray[np.int16]) -> FunctionIndex:
    """Give the function index, `first_row` and `row_count` as they are before refused rows are dropped."""
    fdes = table.fdes
    is_signal = np.not_equal(fdes.info & INFO_SIGNAL, 0) & (table.header.version == Version.V3)
    is_repeated = np.not_equal(fdes.info & INFO_PC_MASK, 0)
    is_outermost = np.equal(fdes.num_fres, 0) & ~is_signal & (table.header.version == Version.V3)
    has_key_b = np.not_equal(fdes.info & INFO_KEY_B, 0) & is_arm(table.abi)
    flags = np.zeros(len(fdes), dtype=np.uint8)
    for mask, flag in (
        (is_signal, FunctionFlag.SIGNAL),
        (has_key_b, FunctionFlag.KEY_B),
        (is_outermost, FunctionFlag.OUTERMOST),
        (is_repeated, FunctionFlag.REPEATED),
        (reason >= 0, FunctionFlag.REFUSED),
    ):
        flags |= mask.astype(np.uint8) * np.uint8(flag)
    return FunctionIndex(
        start=fdes.start,
        size=fdes.size.astype(np.uint64),
        first_row=fdes.first_row,
        row_count=fdes.row_count,
        provenance=np.full(len(fdes), Provenance.SFRAME, dtype=np.uint8),
        flags=flags,
        source_off=table.fde_off + np.arange(len(fdes), dtype=np.int64) * table.header.fde_size,
        section=fdes.section,
        rep_size=fdes.rep_size,
        reason=reason,
    )


def _default_rows(table: SFrameTable) -> _Columns:
    """Give the columns as if every descriptor were of the default type."""
    fres, header, info = table.fres, table.header, ABI_INFO[table.abi]
    count = (fres.info >> 1) & 15
    is_stated = (count > 0).view(np.uint8)
    cfa_off = (fres.word(0) * info.cfa_scale + info.cfa_bias) * is_stated
    # Bit 0 set means SP (1), clear means FP (2); no words at all UNDEFINED (0).
    cfa_base = ((np.uint8(CfaBase.FP) - (fres.info & 1)) * is_stated).astype(np.uint8)
    fp_index = 1 + (header.fixed_ra == 0)
    if header.fixed_fp:
        fp_rule, fp_off = is_stated * np.uint8(FpRule.AT_CFA), is_stated * np.int64(header.fixed_fp)
    else:
        fp_rule = is_stated + (count > fp_index).view(np.uint8)  # 1 UNCHANGED, 2 AT_CFA
        fp_off = fres.word(fp_index)
    if header.fixed_ra:
        ra_rule, ra_off = is_stated * np.uint8(RaRule.AT_CFA), is_stated * np.int64(header.fixed_ra)
    else:
        ra_off = fres.word(1)
        ra_rule = np.uint8(RaRule.IN_LR) + (ra_off != 0).view(np.uint8)  # 1 IN_LR, 2 AT_CFA
    ra_rule += (np.uint8(1) - is_stated) * np.uint8(RaRule.UNDEFINED - (0 if header.fixed_ra else RaRule.IN_LR))
    side = np.full(len(fres), -1, dtype=np.int32)
    return _Columns(cfa_base, cfa_off, fp_rule.astype(np.uint8), fp_off, ra_rule, ra_off, side, empty_side())


def _flex_rows(table: SFrameTable, rows: Row, columns: _Columns) -> None:
    """Put the rules of flexible descriptors into the columns, and into the side table what they cannot hold."""
    info, header = ABI_INFO[table.abi], table.header
    words = flex_words(table, rows)
    is_stated = table.fres.word_count[rows] > 0
    side = empty_side(rows.size)
    cfa = words.cfa
    plain = cfa.is_register & ~cfa.is_deref & ((cfa.register == info.sp) | (cfa.register == info.fp))
    base = np.where(cfa.register == info.sp, CfaBase.SP, CfaBase.FP)
    columns.cfa_base[rows] = np.where(is_stated, np.where(plain, base, CfaBase.OTHER), CfaBase.UNDEFINED)
    columns.cfa_off[rows] = np.where(plain, cfa.offset, 0)
    _put_side(side, "cfa", cfa, is_stated & ~plain)
    for name, pair, own, fixed, codes in (
        ("ra", words.ra, info.ra, header.fixed_ra, _RA_CODES),
        (
            "fp",
            words.fp,
            info.fp,
            header.fixed_fp,
            (FpRule.UNCHANGED, FpRule.AT_CFA, FpRule.OTHER, FpRule.NOT_STATED),
        ),
    ):
        kept, saved, other, nothing = (int(code) for code in codes)
        in_slot = pair.is_present & ~pair.is_register & pair.is_deref
        is_own = pair.is_register & ~pair.is_deref & (pair.register == own) & (pair.offset == 0)
        is_other = pair.is_present & ~in_slot & ~is_own
        rule = np.where(in_slot, saved, np.where(is_other, other, kept))
        offset = np.where(in_slot, pair.offset, 0)
        if fixed:
            rule = np.where(pair.is_present, rule, saved)
            offset = np.where(pair.is_present, offset, fixed)
        rules, offsets = (columns.ra_rule, columns.ra_off) if name == "ra" else (columns.fp_rule, columns.fp_off)
        rules[rows] = np.where(is_stated, rule, nothing)
        offsets[rows] = np.where(is_stated, offset, 0)
        _put_side(side, name, pair, is_other & is_stated)
    _attach(columns, rows, side)


def _put_side(side: NDArray[np.void], name: str, pair: Pair, where: Mask) -> None:
    """Write the pairs of the chosen rows into one field of side entries."""
    entry = side[name]
    entry["kind"][where] = np.where(pair.is_register, SideKind.REGISTER, SideKind.CFA_VALUE)[where]
    entry["deref"][where] = pair.is_deref[where]
    entry["reg"][where] = pair.register[where]
    entry["offset"][where] = pair.offset[where]


def _attach(columns: _Columns, rows: Row, side: NDArray[np.void]) -> None:
    """Keep the side entries that say something, and point their rows at them."""
    used = np.flatnonzero(side["cfa"]["kind"] | side["fp"]["kind"] | side["ra"]["kind"])
    if not used.size:
        return
    columns.side[rows[used]] = columns.side_rules.size + np.arange(used.size, dtype=np.int32)
    columns.side_rules = np.concatenate([columns.side_rules, side[used]])


def _word_registers(table: SFrameTable, columns: _Columns) -> None:
    """Version 2 on s390x: an odd RA or FP word names a register, (number << 1) | 1, that holds the value."""
    if table.abi != Abi.S390X_BE or table.header.version != Version.V2:
        return
    in_ra = (columns.ra_rule == RaRule.AT_CFA) & ((columns.ra_off & 1) != 0)
    in_fp = (columns.fp_rule == FpRule.AT_CFA) & ((columns.fp_off & 1) != 0)
    rows = np.flatnonzero(in_ra | in_fp)
    if not rows.size:
        return
    side = empty_side(rows.size)
    for name, mask, offsets in (("ra", in_ra[rows], columns.ra_off), ("fp", in_fp[rows], columns.fp_off)):
        side[name]["kind"][mask] = SideKind.REGISTER
        side[name]["reg"][mask] = offsets[rows][mask] >> 1
    columns.ra_rule[in_ra], columns.ra_off[in_ra] = RaRule.OTHER, 0
    columns.fp_rule[in_fp], columns.fp_off[in_fp] = FpRule.OTHER, 0
    _attach(columns, rows, side)


def _wide_offsets(columns: _Columns) -> None:
    """Move CFA offsets that exceed 32 bits after scaling (s390x) to the side table."""
    if not columns.cfa_off.size or (_INT32[0] <= columns.cfa_off.min() and columns.cfa_off.max() <= _INT32[1]):
        return
    rows = np.flatnonzero((columns.cfa_off < _INT32[0]) | (columns.cfa_off > _INT32[1]))
    fresh = rows[columns.side[rows] < 0]
    side = empty_side(fresh.size)
    side["cfa"]["kind"] = SideKind.RANGE
    columns.side[fresh] = columns.side_rules.size + np.arange(fresh.size, dtype=np.int32)
    columns.side_rules = np.concatenate([columns.side_rules, side])
    entry = columns.side_rules["cfa"]
    at = columns.side[rows]
    entry["kind"][at] = SideKind.RANGE
    entry["offset"][at] = columns.cfa_off[rows]
    columns.cfa_off[rows] = 0


def _refusals(table: SFrameTable) -> NDArray[np.int16]:
    """(f,) int16: index into `REASONS` of the first reason not to believe a function, -1 = none."""
    fdes, fres = table.fdes, table.fres
    reason = np.full(len(fdes), -1, dtype=np.int16)

    def refuse(functions: NDArray[np.int32] | Mask, why: int) -> None:
        fresh = np.zeros(len(fdes), dtype=np.bool_)
        fresh[functions] = True
        reason[fresh & (reason < 0)] = why

    top = np.uint64(2**64 - 1)
    if table.is_relocatable:
        refuse(fdes.section < 0, _DISCARDED)
    refuse(fdes.size.astype(np.uint64) > top - fdes.start, _WRAPS)
    refuse(fdes.row_count != fdes.num_fres, _UNREAD)
    refuse(np.greater(fdes.info2 & 0x1F, 1), _FDE_TYPE)
    same = fres.func[1:] == fres.func[:-1]
    refuse(fres.func[1:][same & (fres.start[1:] <= fres.start[:-1])], _ORDER)
    is_repeated = np.not_equal(fdes.info & INFO_PC_MASK, 0)
    limit = fdes.size.copy()
    if table.header.version != Version.V1:
        limit[is_repeated] = fdes.rep_size[is_repeated]
        refuse(is_repeated & (fdes.rep_size == 0), _OUTSIDE_BLOCK)
    beyond = np.flatnonzero(fres.start > limit.take(fres.func)) if len(fres) else np.zeros(0, dtype=np.int64)
    refuse(fres.func[beyond], _OUTSIDE)
    if is_repeated.any():
        at_end = np.flatnonzero(is_repeated.take(fres.func) & (fres.start >= limit.take(fres.func)))
        refuse(fres.func[at_end], _OUTSIDE_BLOCK)
    count = (fres.info >> 1) & 15
    is_flex = fdes.is_flex
    default = ~is_flex.take(fres.func) if is_flex.any() else np.ones(len(fres), dtype=np.bool_)
    refuse(fres.func[default & (count > allowed_counts(table).max())], _WORDS)
    if is_arm(table.abi) and not table.header.fixed_ra:
        refuse(fres.func[default & (count > 1) & (fres.word(1) == 0)], _RA_ZERO)
    _refuse_flex(table, np.flatnonzero(~default), refuse)
    return reason


def _refuse_flex(table: SFrameTable, rows: Row, refuse: Callable[[NDArray[np.int32], int], None]) -> None:
    """Judge the words of flexible rows."""
    if not rows.size:
        return
    words = flex_words(table, rows)
    func, count = table.fres.func[rows], table.fres.word_count[rows]
    refuse(func[words.is_short | (words.used < count)], _FLEX_WORDS)
    refuse(func[words.cfa.is_present & ~words.cfa.is_register], _FLEX_CFA)
