"""Layer 4: every instruction that a rule speaks of, as flat arrays, and where control goes from it.

Invariant: the instructions of a function are adjacent and in address order, and so are the functions; the
instruction behind index i is index i + 1 as long as both belong to one function.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from surefoot.dtypes import Addr, Insn, Mask, Row
from surefoot.isa import branches
from surefoot.isa.effects import Effects, Flow, effects
from surefoot.metadata.rules import FunctionFlag, RuleTable

__all__ = ["Code", "Domain", "Part", "no_addresses"]


def no_addresses() -> Addr:
    """Give an empty address array."""
    return np.zeros(0, dtype=np.uint64)


@dataclass(frozen=True, slots=True)
class Code:
    """What the prover is told of an image besides its words and rules; all addresses as in the rules.

    Attributes:
        faults: (x,) uint64, instructions with an exception-table entry.
        fixups: (x,) uint64, where each continues after a fault.
        jump_sites: (j,) uint64, words that the kernel may turn into a branch: jump labels, alternatives.
        jump_targets: (j,) uint64, where those branches go.
        falls: (p,) uint64, branches that the kernel may turn into a NOP.
        stops: (b,) uint64, sorted instructions that control does not go past (BUG).
    """

    faults: Addr = field(default_factory=no_addresses)
    fixups: Addr = field(default_factory=no_addresses)
    jump_sites: Addr = field(default_factory=no_addresses)
    jump_targets: Addr = field(default_factory=no_addresses)
    falls: Addr = field(default_factory=no_addresses)
    stops: Addr = field(default_factory=no_addresses)

    @property
    def detours(self) -> tuple[Addr, Addr]:
        """Edges that are taken instead of the instruction at their source: (source, target), uint64 each."""
        source = np.concatenate([self.faults, self.jump_sites, self.falls])
        return source, np.concatenate([self.fixups, self.jump_targets, self.falls + np.uint64(4)])


@dataclass(frozen=True, slots=True)
class Domain:
    """Instructions under rules; n of them, in f functions.

    Attributes:
        rules: table from `RuleTable.for_lookup`, ABI defaults applied.
        row_first: (r + 1,) int64, index of the first instruction of each row.
        first: (f + 1,) int64, index of the first instruction of each function.
        usable: (f,) bool, False where rows or words are missing or misaligned: nothing can be proved.
        words: (n,) uint32.
    """

    rules: RuleTable
    row_first: Row
    first: Row
    usable: Mask
    words: Insn

    @classmethod
    def of(cls, rules: RuleTable, ranges: list[tuple[int, Insn]]) -> Domain:
        """Lay out the instructions under a table's rows.

        Args:
            rules: table from `RuleTable.for_lookup`, ABI defaults applied.
            ranges: (address, words) of executable code, in any order, without overlap.
        """
        index = rules.functions
        ends = rules.end
        length = ((ends - rules.start) >> np.uint64(2)).astype(np.int64)
        row_first = np.zeros(len(rules) + 1, dtype=np.int64)
        np.cumsum(length, out=row_first[1:])
        first = np.append(row_first[index.first_row], row_first[-1]) if len(index) else np.zeros(1, dtype=np.int64)
        words = np.zeros(int(row_first[-1]), dtype=np.uint32)
        usable = ((index.start | index.size) & np.uint64(3)) == 0
        odd = (rules.start & np.uint64(3)) != 0
        usable[rules.func[odd]] = False
        usable &= rules.start[index.first_row] == index.start
        usable &= (index.flags & np.uint8(FunctionFlag.REFUSED)) == 0
        held = np.zeros(len(index), dtype=np.bool_)
        for addr, part in ranges:
            end = addr + 4 * part.size
            low = int(np.searchsorted(index.start, np.uint64(addr), side="left"))
            high = int(np.searchsorted(index.end, np.uint64(end), side="right"))
            if low >= high:
                continue
            held[low:high] = True
            _fill(words, first, index.start, index.end, part, addr, low, high)
        return cls(rules, row_first, first, usable & held, words)

    def __len__(self) -> int:
        return int(self.words.size)

    def slice_of(self, low: int, high: int) -> Part:
        """Give the instructions of functions low:high."""
        first_row = int(self.rules.functions.first_row[low])
        last_row = int(self.rules.functions.first_row[high]) if high < self.usable.size else len(self.rules)
        base = int(self.first[low])
        counts = np.diff(self.row_first[first_row : last_row + 1])
        row = np.repeat(np.arange(first_row, last_row, dtype=np.int64), counts)
        within = np.arange(row.size, dtype=np.int64) - (self.row_first[row] - base)
        addr = self.rules.start[row] + (within.astype(np.uint64) << np.uint64(2))
        words = self.words[base : base + row.size]
        return Part(self, base, row, addr, words, effects(words))

    def gather(self, funcs: Row) -> Part:
        """Give the instructions of chosen functions (ascending); `base` is -1, as they are not adjacent."""
        counts = self.first[funcs + 1] - self.first[funcs]
        total = int(counts.sum())
        start = np.cumsum(counts) - counts
        at = np.repeat(self.first[funcs] - start, counts) + np.arange(total, dtype=np.int64)
        row = np.searchsorted(self.row_first, at, side="right").astype(np.int64) - 1
        addr = self.rules.start[row] + ((at - self.row_first[row]).astype(np.uint64) << np.uint64(2))
        words = self.words[at]
        return Part(self, -1, row, addr, words, effects(words), at)


def _fill(words: Insn, first: Row, start: Addr, end: Addr, part: Insn, addr: int, low: int, high: int) -> None:
    """Copy the words of functions low:high out of one range, all at once."""
    offset = ((start[low:high] - np.uint64(addr)) >> np.uint64(2)).astype(np.int64)
    count = np.minimum(
        ((end[low:high] - start[low:high]) >> np.uint64(2)).astype(np.int64), np.diff(first[low : high + 1])
    )
    total = int(count.sum())
    run = np.cumsum(count) - count
    step = np.arange(total, dtype=np.int64)
    words[np.repeat(first[low:high] - run, count) + step] = part[np.repeat(offset - run, count) + step]


@dataclass(frozen=True)
class Part:
    """Some functions' instructions with everything that a check needs; m of them.

    Attributes:
        domain: where they come from.
        base: index in the domain of the first one, or -1.
        row: (m,) int64, rule row.
        addr: (m,) uint64.
        words: (m,) uint32.
        effects: of the words.
        at: (m,) int64, index in the domain, where base is -1.
    """

    domain: Domain
    base: int
    row: Row
    addr: Addr
    words: Insn
    effects: Effects
    at: Row | None = None

    def __len__(self) -> int:
        return int(self.row.size)

    @property
    def func(self) -> Row:
        """(m,) int64, function of each instruction."""
        return self.domain.rules.func[self.row].astype(np.int64)

    def continues(self, stops: Addr, noreturn: Mask) -> Mask:
        """(m,) bool: control may reach the instruction behind.

        Args:
            stops: sorted addresses that control does not go past.
            noreturn: (f,) bool, functions that never return.
        """
        flow = self.effects.flow
        on = np.isin(flow, (Flow.NEXT, Flow.COND, Flow.CALL, Flow.CALL_REG, Flow.EXCEPTION))
        if stops.size:
            trap = np.flatnonzero(flow == Flow.EXCEPTION)
            place = np.minimum(np.searchsorted(stops, self.addr[trap]), stops.size - 1)
            on[trap[stops[place] == self.addr[trap]]] = False
        on[self.words == _TRAP] = False
        call = np.flatnonzero(flow == Flow.CALL)
        target = self.targets(call)
        callee = self.domain.rules.lookup(target, np.zeros(target.shape, dtype=np.bool_))
        func = self.domain.rules.func[np.maximum(callee, 0)]
        at_start = self.domain.rules.functions.start[func] == target
        on[call[(callee >= 0) & at_start & noreturn[func]]] = False
        return on

    def targets(self, which: Row) -> Addr:
        """Give the branch targets of the instructions `which` (immediate branches)."""
        return branches.branch_target(self.words[which], self.addr[which])


_TRAP = 0xD4207D00
"""BRK #1000: what compilers emit for __builtin_trap(); nothing continues after it."""
