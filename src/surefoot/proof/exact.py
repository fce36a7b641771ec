"""Layer 4: the slow path: the exact state before every instruction of the functions that the fast path left open.

States flow forward along all edges of all functions at once, from the entries, until nothing changes. Where paths
meet, only what holds on all of them stays; so the analysis ends, and what it knows is true.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from surefoot.dtypes import Code as Codes
from surefoot.dtypes import Mask, Row
from surefoot.isa.effects import Effects, Flow
from surefoot.proof.entries import Entries
from surefoot.proof.graph import Graph, Tables
from surefoot.proof.machine import Fit, State, fits
from surefoot.proof.survey import is_neutral
from surefoot.proof.transfer import transfer

__all__ = ["Exact", "analyse"]

_MAX_ROUNDS: Final = 1_000_000
"""Bound on rounds, each of which moves every open path on by one instruction."""


@dataclass(frozen=True)
class Exact:
    """What is known before each instruction of a graph; m instructions.

    Attributes:
        state: exact states; meaningless where not reached.
        reached: (m,) bool, some path leads here.
        fit: (m,) uint8, `Fit` of the rule row there.
        exits: (m,) bool, the instruction leaves the function in a state that is not surely that of its entry.
        breaks: (m,) bool, an exit in a state that surely is another than that of the entry.
        loose: (m,) bool, control may go on at a place that is not known.
    """

    state: State
    reached: Mask
    fit: Codes
    exits: Mask
    breaks: Mask
    loose: Mask


def analyse(graph: Graph, entries: Entries, noreturn: Mask, tail: Row, tables: Tables) -> Exact:
    """Find the exact state before every instruction of some functions.

    Args:
        graph: the functions.
        entries: ways into functions.
        noreturn: (f,) bool, functions that never return.
        tail: instructions of the domain, indirect jumps that leave the function if taken in the state of its entry.
        tables: indirect jumps whose targets are edges of the graph; all their targets, unless they are in `tail` too.
    """
    state, reached = _flow(graph, entries)
    rules = graph.domain.rules
    fit = fits(state, rules, graph.row)
    exits, breaks = _exits(graph, noreturn, state, reached)
    bare = np.full(len(graph), -1, dtype=np.int64)
    leaves = fits(state, rules, bare) == Fit.YES
    jump = graph.flow == Flow.JUMP_REG
    jump[graph.place(np.setdiff1d(tables.site, tail))] = False
    ends = np.zeros(len(graph), dtype=np.bool_)
    ends[graph.place(tail)] = True
    loose = reached & jump & ~(ends & leaves)
    loose[graph.stray] = True
    return Exact(state, reached, fit, exits, breaks, loose & reached)


def _flow(graph: Graph, entries: Entries) -> tuple[State, Mask]:
    """Move states along until nothing changes: exact states and what is reached, for each instruction.

    Instructions that control reaches only from the one before, which leaves the state as it is, share its state.
    """
    state, reached, seeds = _seeds(graph, entries)
    shares = np.zeros(len(graph), dtype=np.bool_)
    plain = (graph.target == graph.source + 1) & (graph.act == graph.source) & ~graph.lost
    plain &= is_neutral(graph.effects)[graph.act]
    shares[graph.target[plain]] = True
    shares &= np.bincount(graph.target, minlength=len(graph)) == 1
    shares[seeds] = False
    heads = np.flatnonzero(~shares)
    head = np.cumsum(~shares) - 1
    kept = ~shares[graph.target]
    source, act = head[graph.source[kept]], graph.act[kept]
    paths = _Paths(
        np.searchsorted(source, np.arange(heads.size + 1)), source, act, head[graph.target[kept]], graph.lost[kept]
    )
    state, reached, pending = state.take(heads), reached[heads], head[seeds]
    for _ in range(_MAX_ROUNDS):
        if not pending.size:
            break
        pending = _advance(graph.effects, paths, state, reached, pending)
    else:
        reached[:] = False  # not finished: nothing is known
    return state.take(head), reached[head]


@dataclass(frozen=True, slots=True)
class _Paths:
    """Edges between heads; see `Graph`.

    Attributes:
        first: (h + 1,) int64, the first edge of each head.
    """

    first: Row
    source: Row
    act: Row
    target: Row
    lost: Mask


def _seeds(graph: Graph, entries: Entries) -> tuple[State, Mask, Row]:
    """Start at the functions' entries, and where code without rules jumps in."""
    state = State.entry(len(graph))
    reached = np.zeros(len(graph), dtype=np.bool_)
    called, blind = graph.place(entries.called), graph.place(entries.blind)
    called, blind = called[called >= 0], blind[blind >= 0]
    reached[called] = reached[blind] = True
    state.lose(blind)
    return state, reached, np.unique(np.concatenate([called, blind]))


def _advance(effects: Effects, paths: _Paths, state: State, reached: Mask, pending: Row) -> Row:
    """Push the states of the pending heads along their edges; give the heads that changed."""
    low = paths.first[pending]
    count = paths.first[pending + 1] - low
    pick = np.repeat(low - (np.cumsum(count) - count), count) + np.arange(int(count.sum()), dtype=np.int64)
    if not pick.size:
        return pick
    after = transfer(state.take(paths.source[pick]), effects.take(paths.act[pick]))
    after.lose(np.flatnonzero(paths.lost[pick]))
    changed: list[Row] = []
    rest = np.arange(pick.size, dtype=np.int64)
    while rest.size:  # one round per edge that leads to the same instruction
        goal, at = np.unique(paths.target[pick[rest]], return_index=True)
        now = rest[at]
        changed.append(_join(state, reached, goal, after.take(now)))
        keep = np.ones(rest.size, dtype=np.bool_)
        keep[at] = False
        rest = rest[keep]
    return np.unique(np.concatenate(changed))


def _join(state: State, reached: Mask, goal: Row, arriving: State) -> Row:
    """Merge states into distinct instructions; give those that know less than before, or are new."""
    fresh = ~reached[goal]
    met, less = state.take(goal).meet(arriving)
    new = goal[fresh]
    state.put(new, arriving.take(np.flatnonzero(fresh)))
    reached[new] = True
    worse = np.flatnonzero(~fresh & less)
    state.put(goal[worse], met.take(worse))
    return np.concatenate([new, goal[worse]])


def _exits(graph: Graph, noreturn: Mask, state: State, reached: Mask) -> tuple[Mask, Mask]:
    """Judge the ways out: returns, tail branches, falls off the end; (m,) bool, `Exact.exits` and `breaks`."""
    rules = graph.domain.rules
    wrong, surely = np.zeros(len(graph), dtype=np.bool_), np.zeros(len(graph), dtype=np.bool_)
    back = np.flatnonzero(graph.flow == Flow.RETURN)
    bare = np.full(back.size, -1, dtype=np.int64)
    fit = fits(state.take(back), rules, bare)
    register = graph.effects.target_reg[back] != 30
    wrong[back] = (fit != Fit.YES) | register
    surely[back] = (fit == Fit.NO) & ~register
    out = graph.out_source
    after = transfer(state.take(out), graph.effects.take(graph.out_act))
    fit = fits(after, rules, np.full(out.size, -1, dtype=np.int64))
    wrong[out[fit != Fit.YES]] = True
    surely[out[(fit == Fit.NO) & ~((graph.out_to >= 0) & noreturn[graph.out_to])]] = True
    wrong |= graph.flow == Flow.UNDEFINED
    return wrong & reached, surely & reached
