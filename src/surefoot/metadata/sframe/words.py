"""Layer 2: what the data words of a row mean, before they become rules.

Invariant: every row gets a value for every place; rows whose words break the layout are named in `bad_layout`.

Source:
    SFrame specification, sections 3.3 (default descriptors), 3.4 (flexible descriptors of version 3) and chapter 4
    (AArch64, AMD64, s390x); the order of flexible pairs is CFA, RA, FP.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from surefoot.dtypes import Mask, Off, Row
from surefoot.metadata.rules import Abi
from surefoot.metadata.sframe.constants import ABI_INFO
from surefoot.metadata.sframe.model import SFrameTable

__all__ = [
    "CONTROL_DEREF",
    "CONTROL_REG",
    "CONTROL_SHIFT",
    "CONTROL_UNUSED",
    "FlexWords",
    "Pair",
    "allowed_counts",
    "flex_words",
]

CONTROL_REG: Final = 1
CONTROL_DEREF: Final = 2
CONTROL_UNUSED: Final = 4
CONTROL_SHIFT: Final = 3


@dataclass(frozen=True, slots=True)
class Pair:
    """One control word and its offset, for many rows.

    Attributes:
        is_present: (n,) bool, there is a control word and it is not padding.
        control: (n,) int64, unsigned value of the control word; 0 where not present.
        offset: (n,) int64, bytes (the CFA of s390x already scaled); 0 where not present.
    """

    is_present: Mask
    control: Row
    offset: Off

    @property
    def is_register(self) -> Mask:
        """(n,) bool: the base is a register, not the CFA."""
        is_register: Mask = (self.control & CONTROL_REG) != 0
        return is_register

    @property
    def is_deref(self) -> Mask:
        """(n,) bool: the value is loaded from base + offset."""
        is_deref: Mask = (self.control & CONTROL_DEREF) != 0
        return is_deref

    @property
    def register(self) -> Row:
        """(n,) int64: DWARF register number."""
        return self.control >> CONTROL_SHIFT


@dataclass(frozen=True, slots=True)
class FlexWords:
    """Rows of flexible descriptors, taken apart.

    Attributes:
        cfa: where the CFA is.
        ra: where the return address is.
        fp: where the caller's frame pointer is.
        used: (n,) int64, words that the three pairs take up.
        is_short: (n,) bool, a control word lacks its offset, or there is no CFA.
    """

    cfa: Pair
    ra: Pair
    fp: Pair
    used: Row
    is_short: Mask


def flex_words(table: SFrameTable, rows: Row) -> FlexWords:
    """Take rows of flexible descriptors apart.

    Args:
        table: the table.
        rows: (n,) int64, rows of flexible descriptors.

    Returns:
        the pairs; rows without words (outermost frames) have no pair and are not short.
    """
    fres, info = table.fres, ABI_INFO[table.abi]
    count = fres.word_count[rows]
    first = fres.first_word[rows]
    width_mask = (np.int64(1) << (fres.word_size[rows] * 8)) - 1
    words = fres.words if fres.words.size else np.zeros(1, dtype=np.int32)
    used = np.zeros(rows.size, dtype=np.int64)
    is_short = np.zeros(rows.size, dtype=np.bool_)
    pairs: list[Pair] = []
    for which in range(3):
        is_there = used < count
        control = words.take(np.minimum(first + used, words.size - 1)).astype(np.int64) & width_mask
        control = np.where(is_there, control, 0)
        is_pair = control != 0 if which else is_there
        is_complete = is_pair & (used + 1 < count)
        is_short |= is_pair & ~is_complete
        offset = words.take(np.minimum(first + used + 1, words.size - 1)).astype(np.int64)
        if which == 0:
            offset = offset * info.cfa_scale + info.cfa_bias
        pairs.append(Pair(is_complete, np.where(is_complete, control, 0), np.where(is_complete, offset, 0)))
        used = used + np.where(is_pair, 2, 1) * is_there
    return FlexWords(pairs[0], pairs[1], pairs[2], used, is_short)


def allowed_counts(table: SFrameTable) -> Row:
    """Give the word counts that rows of default descriptors may have, besides 0 = outermost.

    AMD64 tracks CFA and FP; the others CFA, RA and FP. gas writes two words (CFA, RA) on AArch64 although the
    specification names only one and three.
    """
    tracked = 1 + (table.header.fixed_ra == 0) + (table.header.fixed_fp == 0)
    if table.abi != Abi.AMD64_LE and not table.header.fixed_fp:
        tracked = max(tracked, 2)
    return np.arange(1, tracked + 1)
