"""Layer 4: branches out of code that no rules speak of (hand-written assembly) into the middle of functions.

Such code is searched from its symbols, from what branches to it and from where control falls into it, along its own
branches; data among it are not taken for code. Where it jumps through a register, what it takes the address of is
searched too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from surefoot.dtypes import Addr, Insn, Mask, Row
from surefoot.isa import branches
from surefoot.isa.effects import Flow, effects
from surefoot.isa.fields import adr_target
from surefoot.proof.domain import Code, Domain
from surefoot.proof.survey import Survey, goes_on

__all__ = ["branches_into"]

_NEAR: Final = 1024
"""Words before an indirect jump in which a taken address may be its target."""


def branches_into(domain: Domain, found: Survey, code: Code, ranges: Sequence[tuple[int, Insn]]) -> tuple[Row, Row]:
    """Find where code without usable rules enters functions with them elsewhere than at their start.

    Returns:
        instructions that are called, and instructions that are jumped to; (k,) int64 each.
    """
    parts = [_Bare(domain, code, start, words) for start, words in ranges]
    index = domain.rules.functions
    seeds = np.concatenate([found.jump_to, found.call_to, found.variant_to, code.fixups, code.entries])
    seeds = np.concatenate([seeds, index.end, index.start[~domain.usable], *(part.addresses() for part in parts)])
    while seeds.size:
        seeds = np.concatenate([seeds[:0], *(part.reach(seeds) for part in parts)])
    called = [part.into(domain, link=True) for part in parts]
    jumped = [part.into(domain, link=False) for part in parts]
    none = np.zeros(0, dtype=np.int64)
    return np.unique(np.concatenate([none, *called])), np.unique(np.concatenate([none, *jumped]))


class _Bare:
    """The words of one range that no usable rules speak of; b of them."""

    def __init__(self, domain: Domain, code: Code, start: int, words: Insn) -> None:
        bare = np.ones(words.size, dtype=np.bool_)
        index, stubs = domain.rules.functions, domain.stubs
        copies = code.copies[np.argsort(code.copies[:, 0], kind="stable")]
        ranges = ((index.start[domain.usable], index.end[domain.usable]), (stubs, stubs + np.uint64(8)))
        lows, highs = zip(*ranges, (copies[:, 0], copies[:, 1]), strict=True)
        _clear(bare, np.concatenate(lows), np.concatenate(highs), start)
        at = np.flatnonzero(bare)
        self._start, self._size, self._at, self._words = start, words.size, at, words[at]
        self._addr = np.uint64(start) + (at.astype(np.uint64) << np.uint64(2))
        flow = effects(self._words).flow
        self._flow = flow
        on = goes_on(flow, self._words)
        broken = np.append(~on[:-1] | (np.diff(at) != 1), True) if at.size else np.zeros(0, dtype=np.bool_)
        stops = np.flatnonzero(broken)
        self._stop = stops[np.searchsorted(stops, np.arange(at.size))] if at.size else stops
        self._reached = np.zeros(at.size, dtype=np.bool_)
        branch = np.flatnonzero(branches.is_immediate_branch(self._words))
        self._branch, self._target = branch, branches.branch_target(self._words[branch], self._addr[branch])

    def addresses(self) -> Addr:
        """Give the addresses that are taken shortly before an indirect jump."""
        jump = np.flatnonzero(self._flow == Flow.JUMP_REG)
        taken = np.flatnonzero(branches.is_adr(self._words))
        if not jump.size or not taken.size:
            return self._addr[:0]
        next_ = np.minimum(np.searchsorted(jump, taken), jump.size - 1)
        near = np.abs(jump[next_] - taken) <= _NEAR
        return adr_target(self._words[taken[near]], self._addr[taken[near]])

    def reach(self, seeds: Addr) -> Addr:
        """Mark what runs from addresses on; give where the branches go that were reached for the first time."""
        off = seeds - np.uint64(self._start)
        off = off[(off < np.uint64(4 * self._size)) & (off & np.uint64(3) == 0)]
        asked = np.zeros(self._size, dtype=np.bool_)
        asked[(off >> np.uint64(2)).astype(np.int64)] = True
        begin = np.flatnonzero(asked[self._at] & ~self._reached)
        depth = np.bincount(begin, minlength=self._at.size + 1)
        depth -= np.bincount(self._stop[begin] + 1, minlength=self._at.size + 1)
        fresh = (np.cumsum(depth[:-1]) > 0) & ~self._reached
        self._reached |= fresh
        return self._target[fresh[self._branch]]

    def into(self, domain: Domain, *, link: bool) -> Row:
        """Give the instructions inside functions that BL (`link`) or other branches of what was reached go to."""
        which = self._reached[self._branch]
        which &= branches.is_bl(self._words[self._branch]) == link
        goal = domain.find(self._target[which])
        return goal[(goal >= 0) & ~domain.is_start(goal)]


def _clear(bare: Mask, low: Addr, high: Addr, start: int) -> None:
    """Take ranges of addresses out of a mask of words that begins at `start`."""
    limit = np.int64(bare.size)
    begin = np.clip((low - np.uint64(start)).view(np.int64) >> 2, 0, limit)
    end = np.clip((high - np.uint64(start)).view(np.int64) >> 2, 0, limit)
    depth = np.bincount(begin, minlength=bare.size + 1) - np.bincount(end, minlength=bare.size + 1)
    bare &= np.cumsum(depth[:-1]) == 0
