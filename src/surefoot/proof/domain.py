"""Layer 4: what is proved: every instruction that a rule speaks of, as flat arrays, and how an image's code runs.

Invariant: the instructions of a function are adjacent and in address order, and so are the functions; the
instruction behind index i is index i + 1 as long as both belong to one function.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Addr, Bytes, Insn, Mask, Row, Row32
from surefoot.isa import branches
from surefoot.isa.effects import Flow, effects
from surefoot.metadata.rules import FunctionFlag, RuleTable

__all__ = ["NO_DATA", "Code", "Domain", "NoData", "ReadOnly", "member", "no_addresses", "no_words"]

_FOUR: Final = np.uint64(4)
_UNFIT: Final = np.uint8(FunctionFlag.REFUSED | FunctionFlag.SIGNAL)
"""Rows that were not decoded to their end; frames that nobody called."""


def no_addresses() -> Addr:
    """Give an empty address array."""
    return np.zeros(0, dtype=np.uint64)


def no_words() -> Insn:
    """Give an empty array of words."""
    return np.zeros(0, dtype=np.uint32)


class ReadOnly(Protocol):
    """Data that nobody writes."""

    def read(self, addr: int, size: int) -> Bytes | None:
        """Give `size` bytes at an address, (size,) uint8; None unless all of them are known and never written."""
        ...


class NoData:
    """Nothing is known to be read-only: jump tables stay unresolved."""

    def read(self, addr: int, size: int) -> Bytes | None:  # noqa: ARG002
        """Give None."""
        return None


NO_DATA = NoData()


@dataclass(frozen=True, slots=True)
class Code:
    """How an image's code runs differently from what its words say; all addresses as in the rules.

    Attributes:
        faults: (x,) uint64, instructions with an exception-table entry.
        fixups: (x,) uint64, where each continues after a fault.
        fault_writes: (x,) uint32, bit r set if the fixup handler writes general register r; empty for none.
        sites: (v,) uint64, words that the kernel may replace: jump labels, alternatives.
        words: (v,) uint32, what it may put there.
        targets: (v,) uint64, where that branches to if it is an immediate branch.
        copies: (c, 2) uint64, [start, end) of replacement code, which never runs where it lies.
        stops: (b,) uint64, sorted instructions that control does not go past (BUG).
        entries: (e,) uint64, symbols of code: those inside a function of the rules are entered like functions.
        data: the image's read-only data, for jump tables.
    """

    faults: Addr = field(default_factory=no_addresses)
    fixups: Addr = field(default_factory=no_addresses)
    fault_writes: NDArray[np.uint32] = field(default_factory=no_words)
    sites: Addr = field(default_factory=no_addresses)
    words: Insn = field(default_factory=no_words)
    targets: Addr = field(default_factory=no_addresses)
    copies: Addr = field(default_factory=lambda: np.zeros((0, 2), dtype=np.uint64))
    stops: Addr = field(default_factory=no_addresses)
    entries: Addr = field(default_factory=no_addresses)
    data: ReadOnly = NO_DATA

    def is_stop(self, addr: Addr) -> Mask:
        """(n,) bool: control does not go past the instruction."""
        return member(addr, self.stops)


def member(values: Addr, among: Addr) -> Mask:
    """(n,) bool: the value is in a sorted array."""
    if not among.size:
        return np.zeros(values.shape, dtype=np.bool_)
    at = np.minimum(np.searchsorted(among, values), among.size - 1)
    found: Mask = among[at] == values
    return found


@dataclass(frozen=True, slots=True)
class Domain:
    """Instructions under rules; n of them, in f functions.

    Attributes:
        rules: table from `RuleTable.for_lookup`, ABI defaults applied.
        row_first: (r + 1,) int64, index of the first instruction of each row.
        first: (f + 1,) int64, index of the first instruction of each function.
        usable: (f,) bool, False where rows or words are missing or misaligned: nothing can be proved.
        words: (n,) uint32.
        row: (n,) int32, rule row of each instruction.
        stubs: (s,) uint64, ascending, the linker's stubs whose instruction was put back into `words`, and
        moved: (s,) int64, ascending, the instructions that they replace.
    """

    rules: RuleTable
    row_first: Row
    first: Row
    usable: Mask
    words: Insn
    row: Row32
    stubs: Addr
    moved: Row

    @classmethod
    def of(cls, rules: RuleTable, ranges: Sequence[tuple[int, Insn]]) -> Domain:
        """Lay out the instructions under a table's rows.

        Args:
            rules: table from `RuleTable.for_lookup`, ABI defaults applied.
            ranges: (address, words) of executable code, in any order, without overlap.
        """
        rules = _without_stray_rows(rules)
        index = rules.functions
        length = ((rules.end - rules.start) >> np.uint64(2)).astype(np.int64)
        row_first = np.zeros(len(rules) + 1, dtype=np.int64)
        np.cumsum(length, out=row_first[1:])
        first = np.append(row_first[index.first_row], row_first[-1]) if len(index) else np.zeros(1, dtype=np.int64)
        words = np.zeros(int(row_first[-1]), dtype=np.uint32)
        usable = ((index.start | index.size) & np.uint64(3)) == 0
        usable[rules.func[(rules.start & np.uint64(3)) != 0]] = False
        if len(index):
            usable &= rules.start[index.first_row] == index.start
            usable &= np.diff(first) == (index.size >> np.uint64(2)).astype(np.int64)
        usable &= (index.flags & _UNFIT) == 0
        held = np.zeros(len(index), dtype=np.bool_)
        for addr, part in ranges:
            low = int(np.searchsorted(index.start, np.uint64(addr), side="left"))
            high = int(np.searchsorted(index.end, np.uint64(addr + 4 * part.size), side="right"))
            if low < high:
                held[low:high] = True
                _fill(words, first, index.start, part, addr, low, high)
        row = np.repeat(np.arange(len(rules), dtype=np.int32), length)
        found = cls(rules, row_first, first, usable & held, words, row, rules.start[:0], first[:0])
        stubs, moved = found._inline_stubs(ranges)
        return replace(found, stubs=stubs, moved=moved)

    def __len__(self) -> int:
        return int(self.words.size)

    def addr(self, at: Row) -> Addr:
        """Give the address of each instruction, (k,) uint64."""
        row = self.row[at]
        return self.rules.start[row] + ((at - self.row_first[row]).astype(np.uint64) << np.uint64(2))

    def func(self, at: Row) -> Row:
        """Give the function of each instruction, (k,) int64."""
        return self.rules.func[self.row[at]].astype(np.int64)

    def find(self, addr: Addr) -> Row:
        """Give the instruction at each address, (k,) int64; -1 where no rule speaks of it, or in mid-instruction."""
        row = self.rules.lookup(addr, np.zeros(addr.shape, dtype=np.bool_))
        safe = np.maximum(row, 0)
        if not len(self.rules):
            return row
        off = addr - self.rules.start[safe]
        at = self.row_first[safe] + (off >> np.uint64(2)).astype(np.int64)
        good = (row >= 0) & (off & np.uint64(3) == 0) & (at < self.row_first[safe + 1])
        return np.where(good, at, np.int64(-1))

    def is_start(self, at: Row) -> Mask:
        """(k,) bool: the instruction is the first of its function; False for -1."""
        safe = np.maximum(at, 0)
        found: Mask = (at >= 0) & (self.first[self.func(safe)] == safe)
        return found

    def _inline_stubs(self, ranges: Sequence[tuple[int, Insn]]) -> tuple[Addr, Row]:
        """Put instructions that the linker moved away back to their places.

        A stub (for erratum 843419, say) holds the instruction and a branch back; a branch took its place. The
        addresses of the stubs and the instructions are given.
        """
        site = np.flatnonzero(branches.is_b(self.words))
        addr = self.addr(site)
        target = branches.branch_target(self.words[site], addr)
        outside = np.flatnonzero(self.rules.lookup(target, np.zeros(target.shape, dtype=np.bool_)) < 0)
        site, addr, target = site[outside], addr[outside], target[outside]
        moved, known = _words_at(ranges, target)
        back, known_back = _words_at(ranges, target + _FOUR)
        returns = branches.is_b(back) & (branches.branch_target(back, target + _FOUR) == addr + _FOUR)
        relative = branches.is_adr(moved) | branches.is_adrp(moved) | ((moved >> np.uint32(24)) & 0x3B == 0x18)
        plain = (effects(moved).flow == Flow.NEXT) & ~relative
        good = known & known_back & returns & plain
        self.words[site[good]] = moved[good]
        return np.sort(target[good]), site[good]


def _without_stray_rows(rules: RuleTable) -> RuleTable:
    """Give the table without rows behind their function's end, which look-ups would take for a neighbour's.

    Such functions count as not decoded to their end. A function keeps its first row.
    """
    index = rules.functions
    stray = rules.start >= index.end[rules.func] if len(rules) else np.zeros(0, dtype=np.bool_)
    if not bool(np.any(stray)):
        return rules
    flags = index.flags.copy()
    flags[rules.func[stray]] |= np.uint8(FunctionFlag.REFUSED)
    keep = ~stray
    keep[index.first_row] = True
    return replace(rules, functions=replace(index, flags=flags)).take_rows(np.flatnonzero(keep))


def _fill(words: Insn, first: Row, start: Addr, part: Insn, addr: int, low: int, high: int) -> None:
    """Copy the words of functions low:high out of one range, all at once."""
    offset = ((start[low:high] - np.uint64(addr)) >> np.uint64(2)).astype(np.int64)
    count = np.diff(first[low : high + 1])
    run = first[low:high] - first[low]
    step = np.arange(int(count.sum()), dtype=np.int64)
    source = np.repeat(offset - run, count) + step
    words[first[low] : first[low] + step.size] = part[np.minimum(source, part.size - 1)]


def _words_at(ranges: Sequence[tuple[int, Insn]], addr: Addr) -> tuple[Insn, Mask]:
    """Give the word at each address, and whether it is known: (k,) uint32, (k,) bool."""
    found, known = np.zeros(addr.shape, dtype=np.uint32), np.zeros(addr.shape, dtype=np.bool_)
    for start, part in ranges:
        off = addr - np.uint64(start)
        here = np.flatnonzero((off < np.uint64(4 * part.size)) & (off & np.uint64(3) == 0))
        found[here] = part[(off[here] >> np.uint64(2)).astype(np.int64)]
        known[here] = True
    return found, known
