"""Layer 5: the code of a running kernel as the walker sees it: functions, live words, rules and proofs.

Invariant: all addresses are run-time addresses (KASLR and module placement applied).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Addr, Code, Insn, Mask, Row
from surefoot.metadata.rules import RuleTable
from surefoot.proof.verdicts import NO_PROOFS, Proofs

__all__ = ["CodeMap", "FunctionKind", "Functions", "TextWords"]


class FunctionKind(IntEnum):
    """What the symbol table says of a range of code."""

    FUNC = 0
    """STT_FUNC: compiled code, or assembly between SYM_FUNC_START and SYM_FUNC_END."""
    CODE = 1
    """Sized STT_NOTYPE in text: assembly that does not follow the procedure call standard (SYM_CODE_*)."""


@dataclass(frozen=True, slots=True)
class Functions:
    """Code ranges in address order, without overlap.

    Attributes:
        start: (f,) uint64, ascending.
        end: (f,) uint64, first address behind each.
        kind: (f,) uint8, `FunctionKind`.
        names: (f,) names; any sequence, so that they may be decoded on demand.
    """

    start: Addr
    end: Addr
    kind: Code
    names: Sequence[str]

    def lookup(self, addr: Addr, is_ra: Mask) -> Row:
        """Give the function that holds each address (return addresses one byte earlier), -1 for none."""
        if not self.start.size:
            return np.full(addr.shape, -1, dtype=np.int64)
        at = addr - is_ra.astype(np.uint64)
        index = np.searchsorted(self.start, at, side="right").astype(np.int64) - 1
        inside = (index >= 0) & (at < self.end[np.maximum(index, 0)])
        return np.where(inside, index, np.int64(-1))


@dataclass(frozen=True, slots=True)
class TextWords:
    """Instruction words of the running kernel; ranges in address order, without overlap.

    Attributes:
        addr: (t,) uint64, start of each range, 4-byte aligned.
        word_off: (t + 1,) int64, range i holds words[word_off[i]:word_off[i + 1]].
        words: (w,) uint32.
        live: the words were read from the target; False where they are the image's and boot-time patching
            (alternatives, ftrace, jump labels) cannot be seen.
    """

    addr: Addr
    word_off: Row
    words: Insn
    live: bool = True

    def words_at(self, addr: Addr) -> tuple[Insn, Mask]:
        """Give the word at each address: (n,) uint32 and (n,) bool, False (and 0) where there is none."""
        if not self.addr.size:
            return np.zeros(addr.shape, dtype=np.uint32), np.zeros(addr.shape, dtype=np.bool_)
        index = np.searchsorted(self.addr, addr, side="right").astype(np.int64) - 1
        safe = np.maximum(index, 0)
        at = self.word_off[safe] + ((addr - self.addr[safe]) >> np.uint64(2)).astype(np.int64)
        good = (index >= 0) & (addr & np.uint64(3) == 0) & (at < self.word_off[safe + 1]) & (at >= 0)
        return np.where(good, self.words[np.where(good, at, 0)], np.uint32(0)), good

    @classmethod
    def from_ranges(cls, ranges: Sequence[tuple[int, Insn]], *, live: bool = True) -> TextWords:
        """Join (address, words) ranges, in any order, into one.

        Raises:
            ValueError: two ranges overlap (a bug of the caller).
        """
        ordered = sorted(((addr, words) for addr, words in ranges if words.size), key=lambda item: item[0])
        for (addr, words), (after, _) in pairwise(ordered):
            if addr + 4 * words.size > after:
                raise ValueError(f"text ranges overlap at {after:#x}")
        sizes = np.array([0, *(words.size for _, words in ordered)], dtype=np.int64)
        joined = np.concatenate([words for _, words in ordered]) if ordered else np.zeros(0, dtype=np.uint32)
        addrs = np.array([addr for addr, _ in ordered], dtype=np.uint64)
        return cls(addrs, np.cumsum(sizes), joined.astype(np.uint32, copy=False), live)


@dataclass(frozen=True)
class CodeMap:
    """Everything the walker knows about the code of one target.

    Attributes:
        functions: code ranges of the kernel and its modules.
        text: instruction words.
        rules: a table from `RuleTable.for_lookup`, ABI defaults applied.
        proofs: verdicts on the rules.
        redirects: (k, 2) uint64, pairs (old function, new function) that live patches redirect.
        changed: (c,) uint64, sorted addresses of text words that differ from the image in a way no known
            mechanism explains.
        labels: name -> run-time address of the symbols that `surefoot.unwind.regions` asks for.
    """

    functions: Functions
    text: TextWords
    rules: RuleTable
    proofs: Proofs = NO_PROOFS
    redirects: NDArray[np.uint64] = field(default_factory=lambda: np.zeros((0, 2), dtype=np.uint64))
    changed: Addr = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    labels: dict[str, int] = field(default_factory=dict)

    def is_changed(self, addr: Addr) -> Mask:
        """(n,) bool: the word that holds each address differs from the image without explanation."""
        if not self.changed.size:
            return np.zeros(addr.shape, dtype=np.bool_)
        word = addr & ~np.uint64(3)
        at = np.minimum(np.searchsorted(self.changed, word), self.changed.size - 1)
        return np.asarray(self.changed[at] == word)
