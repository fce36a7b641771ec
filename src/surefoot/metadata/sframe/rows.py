"""Layer 2: the verifier's judgement of rows; part of `check`.

Invariant: as in `check`. All rows are judged at once; a finding names one row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from surefoot.dtypes import Mask, Off, Row
from surefoot.metadata.rules import Abi
from surefoot.metadata.sframe.constants import ABI_INFO, INFO_PC_MASK, ROW_BASE_SP, Version
from surefoot.metadata.sframe.faults import Collector, Place
from surefoot.metadata.sframe.model import SFrameTable
from surefoot.metadata.sframe.words import CONTROL_UNUSED, FlexWords, allowed_counts, flex_words

__all__ = ["Judge", "check_rows"]

_WORD: Final = 8
# Highest DWARF register numbers that mean a register (AAPCS64 and x86-64, s390x psABI DWARF mappings).
_LAST_REGISTER: Final = {Abi.AARCH64_LE: 127, Abi.AARCH64_BE: 127, Abi.AMD64_LE: 130, Abi.S390X_BE: 83}


@dataclass(frozen=True, slots=True)
class Judge:
    """One table, and where findings about it go.

    Attributes:
        faults: receiver.
        table: the table.
        first_fde: descriptors of the tables before it.
    """

    faults: Collector
    table: SFrameTable
    first_fde: int

    def some_fdes(self, code: str, fdes: Row, say: Callable[[int], str]) -> None:
        """Report descriptors; `say` takes a descriptor number."""
        offset = self.table.fde_off + fdes * self.table.header.fde_size
        columns = self.table.fdes
        place = Place(
            offset=offset, fde=fdes + self.first_fde, address=columns.start[fdes], section=columns.section[fdes]
        )
        self.faults.many(code, fdes.size, place, lambda i: say(int(fdes[i])))

    def fdes(self, code: str, chosen: Mask, say: Callable[[int], str]) -> None:
        """Report the chosen descriptors; `say` takes a descriptor number."""
        self.some_fdes(code, np.flatnonzero(chosen), say)

    def some_rows(self, code: str, rows: Row, say: Callable[[int], str]) -> None:
        """Report rows; `say` takes a row number of the table."""
        fres, fdes = self.table.fres, self.table.fdes
        func = fres.func[rows].astype(np.int64)
        place = Place(
            offset=fres.offset[rows],
            fde=func + self.first_fde,
            row=rows - fdes.first_row[func],
            address=fdes.start[func] + fres.start[rows],
            section=fdes.section[func],
        )
        self.faults.many(code, rows.size, place, lambda i: say(int(rows[i])))

    def rows(self, code: str, chosen: Mask, say: Callable[[int], str]) -> None:
        """Report the chosen rows; `say` takes a row number of the table."""
        self.some_rows(code, np.flatnonzero(chosen), say)


@dataclass(frozen=True, slots=True)
class _Slots:
    """Rules of some rows in common terms, for default and flexible descriptors alike.

    Attributes:
        rows: (n,) int64, row numbers in the table.
        is_sp: (n,) bool, the CFA is SP + cfa.
        cfa: (n,) int64.
        has_ra: (n,) bool, RA is in memory at CFA + ra.
        ra: (n,) int64.
        has_fp: (n,) bool.
        fp: (n,) int64.
    """

    rows: Row
    is_sp: Mask
    cfa: Off
    has_ra: Mask
    ra: Off
    has_fp: Mask
    fp: Off


def check_rows(judge: Judge) -> None:
    """Judge every row of a table: order, extent, words, plausibility."""
    table = judge.table
    fres = table.fres
    if not len(fres):
        return
    _check_starts(judge)
    _check_info(judge)
    is_flex = table.fdes.is_flex.take(fres.func)
    plain, flex = np.flatnonzero(~is_flex & (fres.word_count > 0)), np.flatnonzero(is_flex & (fres.word_count > 0))
    if plain.size:
        _check_plain(judge, plain)
        _check_slots(judge, _plain_slots(table, plain))
    if flex.size:
        words = flex_words(table, flex)
        _check_flex(judge, flex, words)
        _check_slots(judge, _flex_slots(table, flex, words))
    _check_repeats(judge)


def _check_starts(judge: Judge) -> None:
    """Judge the starts of rows."""
    fdes, fres = judge.table.fdes, judge.table.fres
    same = np.append(np.False_, fres.func[1:] == fres.func[:-1])
    back = same & np.append(np.False_, fres.start[1:] <= fres.start[:-1])
    judge.rows("sframe-row-order", back, lambda i: f"the row at +{int(fres.start[i]):#x} does not come after +"
               f"{int(fres.start[i - 1]):#x}")  # fmt: skip
    is_mask = ((fdes.info & INFO_PC_MASK) != 0).take(fres.func)
    blocks = is_mask & (judge.table.header.version != Version.V1)
    limit = np.where(blocks, fdes.rep_size.take(fres.func), fdes.size.take(fres.func))
    outside = (fres.start > limit) | (blocks & (fres.start >= limit))
    judge.rows("sframe-row-outside", outside, lambda i: f"the row at +{int(fres.start[i]):#x} lies behind "
               f"+{int(limit[i]):#x}")  # fmt: skip
    at_end = (fres.start == limit) & ~blocks
    judge.rows("sframe-row-at-end", at_end, lambda i: f"the row at +{int(fres.start[i]):#x} covers nothing")
    late = ~same & (fres.start > 0) & ~outside
    judge.rows("sframe-first-row", late, lambda i: f"the first {int(fres.start[i])} bytes have no rule")


def _check_info(judge: Judge) -> None:
    """Judge info bytes."""
    table = judge.table
    fres, is_arm = table.fres, table.abi in {Abi.AARCH64_LE, Abi.AARCH64_BE}
    empty = fres.word_count == 0
    judge.rows(
        "sframe-outermost-early", empty & (table.header.version == Version.V1), lambda _: "a row without words"
    )
    odd = empty & (fres.info != 0)
    judge.rows("sframe-outermost-bits", odd, lambda i: f"info byte {int(fres.info[i]):#x} of a row without words")
    signed = (fres.info >= 0x80) & (not is_arm)
    judge.rows("sframe-signed", signed, lambda _: f"a signed return address on {table.abi.name}")


def _check_plain(judge: Judge, rows: Row) -> None:
    """Judge word counts of default descriptors, and the ambiguous return address offset 0."""
    table = judge.table
    count, allowed = table.fres.word_count[rows], allowed_counts(table)
    wrong = rows[count > allowed.max()]
    judge.some_rows("sframe-word-count", wrong, lambda i: f"{int(table.fres.word_count[i])} data words")
    if table.abi in {Abi.AARCH64_LE, Abi.AARCH64_BE} and not table.header.fixed_ra:
        zero = rows[(count > 1) & (table.fres.word(1)[rows] == 0)]
        judge.some_rows("sframe-ra-zero", zero, lambda _: "the return address offset is 0")


def _check_flex(judge: Judge, rows: Row, words: FlexWords) -> None:
    """Judge the words of flexible rows."""
    table = judge.table
    fres = table.fres
    count = fres.word_count[rows]
    broken = words.is_short | (words.used < count)
    judge.some_rows("sframe-flex-words", rows[broken], lambda i: f"{int(fres.word_count[i])} words break the layout")
    no_base = words.cfa.is_present & ~words.cfa.is_register
    judge.some_rows("sframe-flex-cfa", rows[no_base], lambda _: "the CFA is based on the CFA")
    pairs = (words.cfa, words.ra, words.fp)
    unused = np.zeros(rows.size, dtype=np.bool_)
    foreign, scratch = unused.copy(), unused.copy()
    info = ABI_INFO[table.abi]
    for pair in pairs:
        unused |= (pair.control & CONTROL_UNUSED) != 0
        unused |= pair.is_present & ~pair.is_register & (pair.register != 0)
        is_register = pair.is_present & pair.is_register
        foreign |= is_register & (pair.register > _LAST_REGISTER[table.abi])
        scratch |= is_register & (pair.register != info.sp) & (pair.register != info.fp) & (pair.register != info.ra)
    unused |= (fres.info[rows] & ROW_BASE_SP) != 0
    judge.some_rows("sframe-flex-bits", rows[unused], lambda _: "bits without meaning are set")
    judge.some_rows("sframe-flex-register", rows[foreign], lambda _: "a register that the ABI does not have")
    judge.some_rows("sframe-flex-scratch", rows[scratch & ~foreign], lambda _: "a rule depends on a scratch register")
    has_fp_word = count > 2 + np.where(words.ra.is_present, 2, 1)
    trailing = ~broken & (count > 2) & np.where(has_fp_word, ~words.fp.is_present, ~words.ra.is_present)
    judge.some_rows("sframe-flex-padding", rows[trailing], lambda _: "the last word is padding")


def _plain_slots(table: SFrameTable, rows: Row) -> _Slots:
    """Give the rules of default rows in common terms."""
    fres, header, info = table.fres, table.header, ABI_INFO[table.abi]
    count = fres.word_count[rows]
    cfa = fres.word(0)[rows] * info.cfa_scale + info.cfa_bias
    fp_at = 1 + (header.fixed_ra == 0)
    no = np.zeros(rows.size, dtype=np.bool_)
    if header.fixed_ra:
        has_ra, ra = no | True, np.full(rows.size, header.fixed_ra, dtype=np.int64)
    else:
        ra = fres.word(1)[rows]
        has_ra = (count > 1) & (ra != 0)
    has_fp, fp = count > fp_at, fres.word(fp_at)[rows]
    if table.abi == Abi.S390X_BE and header.version == Version.V2:  # odd words are registers
        has_ra &= (ra & 1) == 0
        has_fp &= (fp & 1) == 0
    return _Slots(rows, (fres.info[rows] & ROW_BASE_SP) != 0, cfa, has_ra, ra, has_fp, fp)


def _flex_slots(table: SFrameTable, rows: Row, words: FlexWords) -> _Slots:
    """Give the rules of flexible rows in common terms, as far as they are CFA-based."""
    info, fixed = ABI_INFO[table.abi], table.header.fixed_ra
    cfa, ra, fp = words.cfa, words.ra, words.fp
    is_sp = cfa.is_register & ~cfa.is_deref & (cfa.register == info.sp)
    in_ra = ra.is_present & ~ra.is_register & ra.is_deref
    in_fp = fp.is_present & ~fp.is_register & fp.is_deref
    has_ra = in_ra | (~ra.is_present & (fixed != 0))
    return _Slots(rows, is_sp, cfa.offset, has_ra, np.where(in_ra, ra.offset, fixed), in_fp, fp.offset)


def _check_slots(judge: Judge, slots: _Slots) -> None:
    """Judge where rows say that things are."""
    rows, cfa, table = slots.rows, slots.cfa, judge.table
    info = ABI_INFO[table.abi]
    below = slots.is_sp & ((slots.has_ra & (cfa + slots.ra < 0)) | (slots.has_fp & (cfa + slots.fp < 0)))
    judge.some_rows("sframe-below-sp", rows[below], lambda _: "a saved register is said to lie below SP")
    judge.some_rows("sframe-cfa-below-sp", rows[slots.is_sp & (cfa < 0)], lambda _: "the CFA lies below SP")
    pushed = slots.has_ra & (slots.ra >= 0) & (info.fixed_ra != 0)
    judge.some_rows("sframe-ra-above-cfa", rows[pushed], lambda _: "the return address is said to lie above the CFA")
    above = (slots.has_ra & (slots.ra >= 0) & ~pushed) | (slots.has_fp & (slots.fp >= 0))
    judge.some_rows("sframe-slot-above-cfa", rows[above], lambda _: "a saved register lies at or above the CFA")
    same = slots.has_ra & slots.has_fp & (slots.ra == slots.fp)
    judge.some_rows("sframe-same-slot", rows[same], lambda _: "FP and return address lie in one slot")
    skewed = (slots.has_ra & (slots.ra % _WORD != 0)) | (slots.has_fp & (slots.fp % _WORD != 0))
    judge.some_rows("sframe-slot-align", rows[skewed], lambda _: "a slot's offset is no multiple of 8")
    uneven = slots.is_sp & (cfa % _WORD != 0)
    judge.some_rows("sframe-cfa-align", rows[uneven], lambda _: "the CFA offset is no multiple of 8")
    fdes, fres = table.fdes, table.fres
    is_first = fdes.first_row[fres.func[rows]] == rows
    is_first &= (fres.start[rows] == 0) & ((fdes.info[fres.func[rows]] & INFO_PC_MASK) == 0)
    at_entry = slots.is_sp & (cfa == info.entry_cfa) & ~slots.has_fp & (slots.has_ra == (info.fixed_ra != 0))
    judge.some_rows("sframe-entry-state", rows[is_first & ~at_entry], lambda _: "not the rules at a function's entry")


def _check_repeats(judge: Judge) -> None:
    """Report rows that say the same as the row before them."""
    fres = judge.table.fres
    same = np.append(np.False_, (fres.func[1:] == fres.func[:-1]) & (fres.info[1:] == fres.info[:-1]))
    rows = np.flatnonzero(same)
    nth = 0
    count = fres.word_count[rows]
    while rows.size and (more := count > nth).any():
        here = fres.words.take(np.minimum(fres.first_word[rows] + nth, fres.words.size - 1))
        before = fres.words.take(np.minimum(fres.first_word[rows - 1] + nth, fres.words.size - 1))
        keep = ~more | (here == before)
        rows, count = rows[keep], count[keep]
        nth += 1
    judge.some_rows("sframe-row-repeats", rows, lambda _: "the row says the same as the one before it")
