"""Damage to captured stacks, thousands of damaged copies in one batch, and a survey of what a walk makes of them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from checker import Checker
from surefoot.dtypes import Addr, Mask, Row
from surefoot.unwind import verify
from surefoot.unwind.callsites import Call
from surefoot.unwind.code import CodeMap
from surefoot.unwind.consume import Walkable
from surefoot.unwind.context import Mode
from surefoot.unwind.state import Bookkeeping, Stacks, Tasks
from surefoot.unwind.trace import Traces
from surefoot.unwind.walker import walk

__all__ = ["Survey", "copies", "frames_of", "survey", "watch_reads"]


def frames_of(traces: Traces, task: int) -> list[tuple[int, bool]]:
    """Give a trace as (pc, exact), innermost first."""
    part = slice(int(traces.first[task]), int(traces.first[task + 1]))
    return [(int(pc), not is_ra) for pc, is_ra in zip(traces.pc[part], traces.is_ra[part], strict=True)]


def watch_reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Hold every answer of Stacks.read against the bounds and the words; gives a count of the words read."""
    counts: Counter[str] = Counter()
    true_read = Stacks.read

    def read(stacks: Stacks, stack: Row, addr: Addr) -> tuple[NDArray[np.uint64], Mask]:
        words, good = true_read(stacks, stack, addr)
        at, where = stack[good], addr[good]
        counts["words"] += at.size
        assert bool(np.all(at >= 0))
        assert bool(np.all((where >= stacks.captured[at]) & (where <= stacks.high[at] - np.uint64(8))))
        index = stacks.word_off[at] + ((where - stacks.captured[at]) // np.uint64(8)).astype(np.int64)
        assert np.array_equal(words[good], stacks.words[index])
        assert not words[~good].any(), "what was not read is not passed on"
        return words, good

    monkeypatch.setattr(Stacks, "read", read)
    return counts


def copies(tasks: Tasks, stacks: Stacks, rows: Row) -> tuple[Tasks, Stacks]:
    """Give the chosen tasks, each with stacks of its own at the addresses of the original ones."""
    chosen = tasks.take(rows)
    has = chosen.stacks >= 0
    origin = chosen.stacks[has].astype(np.int64)
    mine = np.full(chosen.stacks.shape, -1, dtype=np.int32)
    mine[has] = np.arange(origin.size, dtype=np.int32)
    sizes = ((stacks.high[origin] - stacks.captured[origin]) >> np.uint64(3)).astype(np.int64)
    offsets = np.cumsum(sizes) - sizes
    pick = np.repeat(stacks.word_off[origin] - offsets, sizes) + np.arange(int(sizes.sum()), dtype=np.int64)
    own = Stacks(
        stacks.low[origin],
        stacks.high[origin],
        stacks.kind[origin],
        stacks.captured[origin],
        offsets,
        stacks.words[pick],
    )
    fgraph, kretprobe = _own_book(chosen.fgraph), _own_book(chosen.kretprobe)
    return replace(chosen, stacks=mine, fgraph=fgraph, kretprobe=kretprobe), own


def _own_book(book: Bookkeeping) -> Bookkeeping:
    return Bookkeeping(book.first, book.ret.copy(), book.key.copy(), book.func.copy(), book.broken.copy())


class _Spoiler:
    """Damages one copy after the other; near misses are preferred to noise."""

    def __init__(self, tasks: Tasks, stacks: Stacks, intact: Traces, rows: Row, rng: random.Random) -> None:
        self.tasks, self.stacks, self.rng = tasks, stacks, rng
        self.intact, self.rows = intact, rows
        self.addresses = np.unique(intact.pc)

    def spoil(self, copy: int) -> str:
        """Change one value of a copy; gives what was changed."""
        kinds = ("word", "record", "record", "record", "register", "book", "final")
        kind = self.rng.choice(kinds)
        if kind == "book" and not self._spoil_book(copy):
            kind = "record"
        if kind in {"word", "record"} and not self._spoil_word(copy, near_record=kind == "record"):
            kind = "register"
        if kind == "register":
            name = self.rng.choice(("pc", "sp", "fp", "lr"))
            column = getattr(self.tasks, name)
            column[copy] = self._other(copy, int(column[copy]))
        elif kind == "final":
            self.tasks.final_record[copy] = self._other(copy, int(self.tasks.final_record[copy]))
        return kind

    def _spoil_word(self, copy: int, *, near_record: bool) -> bool:
        held = [int(s) for s in self.tasks.stacks[copy] if s >= 0]
        if not held:
            return False
        if near_record:
            row = int(self.rows[copy])
            frames = self.intact.fp[int(self.intact.first[row]) : int(self.intact.first[row + 1])]
            addr = int(self.rng.choice(frames.tolist() or [0])) + 8 * self.rng.randrange(-2, 3)
        else:
            stack = self.rng.choice(held)
            addr = self.rng.randrange(int(self.stacks.captured[stack]), int(self.stacks.high[stack]) + 1, 8)
        for stack in held:
            low, high = int(self.stacks.captured[stack]), int(self.stacks.high[stack])
            if low <= addr < high:
                index = int(self.stacks.word_off[stack]) + (addr - low) // 8
                self.stacks.words[index] = self._other(copy, int(self.stacks.words[index]))
                return True
        return False

    def _spoil_book(self, copy: int) -> bool:
        book = self.rng.choice((self.tasks.fgraph, self.tasks.kretprobe))
        low, high = int(book.first[copy]), int(book.first[copy + 1])
        if low == high:
            return False
        column = getattr(book, self.rng.choice(("ret", "key", "func")))
        at = self.rng.randrange(low, high)
        column[at] = self._other(copy, int(column[at]))
        return True

    def _other(self, copy: int, value: int) -> int:
        """Give another value: a bit, a neighbour, a word or an address of the same stack, some function's caller."""
        rng, held = self.rng, [int(s) for s in self.tasks.stacks[copy] if s >= 0]
        kind = rng.randrange(6)
        if kind == 0:
            return value ^ 1 << rng.randrange(64)
        if kind == 1:
            return (value + rng.choice((-64, -32, -16, -8, -4, -1, 1, 4, 8, 16, 32, 64))) % 2**64
        if kind == 2 and held:
            stack = rng.choice(held)
            size = (int(self.stacks.high[stack]) - int(self.stacks.captured[stack])) // 8
            return int(self.stacks.words[int(self.stacks.word_off[stack]) + rng.randrange(size)]) if size else 0
        if kind == 3 and held:
            stack = rng.choice(held)
            return rng.randrange(int(self.stacks.captured[stack]), int(self.stacks.high[stack]) + 1, 8)
        if kind == 4 and self.addresses.size:
            return int(self.addresses[rng.randrange(self.addresses.size)])
        return rng.choice((0, 1, 2, 2**64 - 1, 2**64 - 8, 2**63, rng.getrandbits(64)))


@dataclass
class Survey:
    """What became of damaged stacks.

    Attributes:
        counts: damaged; changed (the trace or the verdict differs); accepted (called reliable with another trace);
            rejected (accepted, but no stack of this code); accepted without call sites.
        accepted: a line for each accepted case.
    """

    counts: Counter[str] = field(default_factory=Counter)
    accepted: list[str] = field(default_factory=list)


def survey(source: Walkable, count: int, seed: int, monkeypatch: pytest.MonkeyPatch) -> Survey:
    """Damage copies of a capture's reliable tasks, walk them in every mode, and judge what is called reliable."""
    result, rng = Survey(), random.Random(seed)
    code = source.code
    intact = walk(code, source.stacks, source.tasks, source.layout)
    walked = np.flatnonzero(intact.reliable & (np.diff(intact.first) > 0))
    rows = walked[np.arange(count, dtype=np.int64) % walked.size]
    tasks, stacks = copies(source.tasks, source.stacks, rows)
    spoiler = _Spoiler(tasks, stacks, intact, rows, rng)
    kinds = [spoiler.spoil(copy) for copy in range(count)]
    for mode in (Mode.FP, Mode.SFRAME):
        walk(code, stacks, tasks, source.layout, mode=mode)
    traces = walk(code, stacks, tasks, source.layout)
    truths = {int(row): frames_of(intact, int(row)) for row in walked}
    judge = Checker(code)
    for copy, kind in enumerate(kinds):
        truth, frames = truths[int(rows[copy])], frames_of(traces, copy)
        result.counts["damaged"] += 1
        result.counts["changed"] += not traces.reliable[copy] or frames != truth
        if traces.reliable[copy] and frames != truth:
            result.counts["accepted"] += 1
            result.counts["rejected"] += not judge.is_trace(frames)
            result.accepted.append(f"{kind}: {_difference(code, truth, frames)}")
    monkeypatch.setattr(verify, "check_calls", _any_call)
    unchecked = walk(code, stacks, tasks, source.layout)
    accepted = [c for c in range(count) if unchecked.reliable[c] and frames_of(unchecked, c) != truths[int(rows[c])]]
    result.counts["accepted without call sites"] += len(accepted)
    return result


def _any_call(_: CodeMap, ra: Addr, __: Row) -> NDArray[np.uint8]:
    """Stand in for the call-site check and accept everything."""
    return np.full(ra.shape, Call.DIRECT, dtype=np.uint8)


def _difference(code: CodeMap, truth: Sequence[tuple[int, bool]], frames: Sequence[tuple[int, bool]]) -> str:
    """Say where a trace first differs from the truth."""
    depth = next(
        (i for i, (a, b) in enumerate(zip(truth, frames, strict=False)) if a != b), min(len(truth), len(frames))
    )

    def name(chain: Sequence[tuple[int, bool]]) -> str:
        if depth >= len(chain):
            return "the end"
        pc, exact = chain[depth]
        index = int(code.functions.lookup(np.array([pc], dtype=np.uint64), np.array([not exact]))[0])
        return f"{code.functions.names[index]}+{pc - int(code.functions.start[index]):#x}" if index >= 0 else hex(pc)

    return f"frame {depth} of {len(truth)}: {name(truth)} became {name(frames)} of {len(frames)}"
