"""Layer 6: every word of an image's text with the verdict on it, as one flat array.

Invariant: words are in address order, section after section; an index is a word's place in that order.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Addr, Code, Insn, Mask, Row
from surefoot.image.functions import Ranges
from surefoot.image.symbols import SymbolKind
from surefoot.proof.prove import Proof

__all__ = ["Cover", "TextMap"]


class Cover(IntEnum):
    """What is known of a word; the first four are `surefoot.proof.verdicts.Verdict`."""

    NO_METADATA = 0
    UNPROVEN = 1
    REFUTED = 2
    PROVEN = 3
    PADDING = 4
    """Outside of every function, and no rule speaks of it: fill, literals of patch sites, replacements."""
    DATA = 5
    """Inside a data symbol."""


@dataclass(frozen=True)
class TextMap:
    """Words and verdicts; n words in t sections, m code ranges.

    Attributes:
        start: (t,) uint64, address of each section.
        first: (t + 1,) int64, index of each section's first word.
        words: (n,) uint32.
        cover: (n,) uint8, `Cover`.
        owner: (n,) int32, code range of each word, -1 outside of all.
    """

    start: Addr
    first: Row
    words: Insn
    cover: Code
    owner: NDArray[np.int32]

    @classmethod
    def of(cls, parts: list[tuple[int, Insn]], ranges: Ranges, proof: Proof | None) -> TextMap:
        """Lay the verdicts over the text.

        Args:
            parts: (address, words) of each executable section, ascending.
            ranges: code ranges.
            proof: verdicts, None where the image has no metadata.
        """
        start = np.array([addr for addr, _ in parts], dtype=np.uint64)
        sizes = np.array([0, *(words.size for _, words in parts)], dtype=np.int64)
        first = np.cumsum(sizes)
        words = np.concatenate([np.zeros(0, dtype=np.uint32), *(part for _, part in parts)])
        owner = np.full(words.size, -1, dtype=np.int32)
        cover = np.full(words.size, Cover.PADDING, dtype=np.uint8)
        self = cls(start, first, words, cover, owner)
        low, high = self.span(ranges.start, ranges.end)
        at, which = _expand(low, high)
        owner[at] = which
        kinds = np.where(ranges.kind == SymbolKind.OBJECT, np.uint8(Cover.DATA), np.uint8(Cover.NO_METADATA))
        cover[at] = kinds[which]
        if proof is not None:
            index = proof.rules.functions
            low, high = self.span(index.start, index.end)
            count = np.minimum(high - low, np.diff(proof.first))
            at, which = _expand(low, low + count)
            within = at - low[which]
            cover[at] = proof.verdicts[proof.first[which] + within]
        return self

    def __len__(self) -> int:
        return int(self.words.size)

    def index(self, addr: Addr) -> Row:
        """Give the index of the word at each address, (n,) int64; -1 outside of the text."""
        if not self.start.size:
            return np.full(addr.shape, -1, dtype=np.int64)
        part = np.searchsorted(self.start, addr, side="right").astype(np.int64) - 1
        safe = np.maximum(part, 0)
        at = self.first[safe] + ((addr - self.start[safe]) >> np.uint64(2)).astype(np.int64)
        return np.where((part >= 0) & (at < self.first[safe + 1]), at, np.int64(-1))

    def addr(self, index: Row) -> Addr:
        """Give the address of each word."""
        part = np.searchsorted(self.first, index, side="right") - 1
        return self.start[part] + ((index - self.first[part]).astype(np.uint64) << np.uint64(2))

    def span(self, start: Addr, end: Addr) -> tuple[Row, Row]:
        """Give the words [low, high) of address ranges; empty (0, 0) for a range that is not in the text."""
        low = self.index(start)
        last = self.index(end - np.uint64(1))
        good = (low >= 0) & (last >= low) & (end > start)
        return np.where(good, low, 0), np.where(good, last + 1, 0)

    def word_at(self, addr: Addr) -> tuple[Insn, Mask]:
        """Give the word at each address and whether there is one."""
        at = self.index(addr)
        good = at >= 0
        return np.where(good, self.words[np.maximum(at, 0)] if len(self) else np.uint32(0), np.uint32(0)), good

    def tally(self, owners: int) -> NDArray[np.int64]:
        """(owners, 6) int64, words of each code range by `Cover`."""
        inside = np.flatnonzero(self.owner >= 0)
        key = self.owner[inside].astype(np.int64) * len(Cover) + self.cover[inside]
        return np.bincount(key, minlength=owners * len(Cover)).reshape(owners, len(Cover))

    def totals(self) -> NDArray[np.int64]:
        """(6,) int64, words by `Cover`."""
        return np.bincount(self.cover, minlength=len(Cover)).astype(np.int64)


def _expand(low: Row, high: Row) -> tuple[Row, Row]:
    """Give every index of the ranges [low, high), and which range it is of."""
    count = high - low
    which = np.repeat(np.arange(low.size, dtype=np.int64), count)
    shift = low - (np.cumsum(count) - count)
    return np.arange(which.size, dtype=np.int64) + shift[which], which
