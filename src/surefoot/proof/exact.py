"""Layer 4: the slow path: the exact state before every instruction of the functions that the fast path left open.

States flow forward along all edges of all functions at once, from the entries, until nothing changes. Where paths
meet, only what holds on all of them stays; so the analysis ends, and what it knows is true.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Addr, Mask, Row
from surefoot.isa.effects import Flow
from surefoot.proof.domain import Code, Part
from surefoot.proof.machine import Fit, Lr, State, claimed_state, fits
from surefoot.proof.transfer import transfer

__all__ = ["Exact", "analyse"]

_MAX_ROUNDS: Final = 200_000
"""Bound on rounds, each of which moves every open path on by one instruction."""


@dataclass(frozen=True)
class Exact:
    """What is known before each instruction of a part; m instructions.

    Attributes:
        state: exact states; meaningless where not reached.
        reached: (m,) bool, some path leads here.
        fit: (m,) uint8, `Fit` of the rule row there.
        exits: (m,) bool, the instruction leaves the function in a state that is not that of its entry.
        unresolved: (m,) bool, an indirect jump whose targets are not known.
        edge_from: (e,) int64 and edge_to: (e,) int64, all edges between instructions of the part.
    """

    state: State
    reached: Mask
    fit: NDArray[np.uint8]
    exits: Mask
    unresolved: Mask
    edge_from: Row
    edge_to: Row


def analyse(part: Part, code: Code, noreturn: Mask, foreign: Addr) -> Exact:
    """Find the exact state before every instruction of some functions.

    Args:
        part: the instructions (`Domain.gather`).
        code: exception table, jump labels, stops.
        noreturn: (f,) bool.
        foreign: addresses that other functions jump to, where their rows hold.

    Returns:
        the states and what follows from them.
    """
    source, target, kind = _edges(part, code, noreturn)
    order = np.argsort(source, kind="stable")
    source, target, kind = source[order], target[order], kind[order]
    state, reached, pending = _seeds(part, foreign)
    for _ in range(_MAX_ROUNDS):
        if not pending.size:
            break
        pending = _advance(part, state, reached, pending, (source, target, kind))
    else:
        reached[:] = False  # not finished: nothing is known
    fit = fits(state, part.domain.rules, part.row)
    exits, unresolved = _exits(part, state, reached)
    return Exact(state, reached, fit, exits, unresolved, source, target)


_THROUGH: Final = 0
"""The edge is taken after the instruction."""
_BEFORE: Final = 1
"""The edge is taken instead of the instruction: a fault, a jump label."""
_LINK: Final = 2
"""The edge is a BL into its own function: taken after the instruction, with x30 pointing behind it."""


def _edges(part: Part, code: Code, noreturn: Mask) -> tuple[Row, Row, NDArray[np.uint8]]:
    """Give all edges inside the functions of a part."""
    func, flow = part.func, part.effects.flow
    every = np.arange(len(part), dtype=np.int64)
    next_ = every[part.continues(code.stops, noreturn) & ~np.append(func[1:] != func[:-1], True)]
    jumps = np.flatnonzero((flow == Flow.JUMP) | (flow == Flow.COND))
    calls = np.flatnonzero(flow == Flow.CALL)
    pieces = [(next_, next_ + 1, _THROUGH)]
    for which, kind in ((jumps, _THROUGH), (calls, _LINK)):
        to = _inside(part, which, part.targets(which))
        keep = to >= 0
        if kind == _LINK:
            keep &= part.addr[np.maximum(to, 0)] != part.domain.rules.functions.start[func[which]]
        pieces.append((which[keep], to[keep], kind))
    site, goal = code.detours
    at = np.searchsorted(part.addr, site)
    here = (at < len(part)) & (part.addr[np.minimum(at, len(part) - 1)] == site)
    which = at[here].astype(np.int64)
    to = _inside(part, which, goal[here])
    pieces.append((which[to >= 0], to[to >= 0], _BEFORE))
    kinds = np.concatenate([np.full(a.size, kind, dtype=np.uint8) for a, _, kind in pieces])
    return np.concatenate([a for a, _, _ in pieces]), np.concatenate([b for _, b, _ in pieces]), kinds


def _inside(part: Part, which: Row, target: Addr) -> Row:
    """Give the index of each target address if it is in the same function as `which`, else -1."""
    at = np.minimum(np.searchsorted(part.addr, target), len(part) - 1).astype(np.int64)
    same = (part.addr[at] == target) & (part.func[at] == part.func[which])
    return np.where(same, at, np.int64(-1))


def _seeds(part: Part, foreign: Addr) -> tuple[State, Mask, Row]:
    """Start at the functions' entries, and where other functions jump in."""
    state = State.entry(len(part))
    reached = np.zeros(len(part), dtype=np.bool_)
    index = part.domain.rules.functions
    start = np.flatnonzero(part.addr == index.start[part.func])
    reached[start] = True
    at = np.minimum(np.searchsorted(part.addr, foreign), len(part) - 1).astype(np.int64)
    at = np.unique(at[part.addr[at] == foreign])
    at = at[~reached[at]]
    state.put(at, claimed_state(part.domain.rules, part.row[at]))
    reached[at] = True
    return state, reached, np.concatenate([start, at])


def _advance(part: Part, state: State, reached: Mask, pending: Row, edges: tuple[Row, Row, NDArray[np.uint8]]) -> Row:
    """Push the states of the pending instructions along their edges; give the instructions that changed."""
    source, target, kind = edges
    low = np.searchsorted(source, pending, side="left")
    count = np.searchsorted(source, pending, side="right") - low
    pick = np.repeat(low - (np.cumsum(count) - count), count) + np.arange(int(count.sum()), dtype=np.int64)
    if not pick.size:
        return pick
    before = state.take(source[pick])
    after = transfer(before, part.effects.take(source[pick]))
    skip = np.flatnonzero(kind[pick] == _BEFORE)
    after.put(skip, before.take(skip))
    after.lr[kind[pick] == _LINK] = Lr.CLOBBERED
    changed: list[Row] = []
    rest = np.arange(pick.size, dtype=np.int64)
    while rest.size:  # one round per edge that leads to the same instruction
        goal, at = np.unique(target[pick[rest]], return_index=True)
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


def _exits(part: Part, state: State, reached: Mask) -> tuple[Mask, Mask]:
    """Judge the ways out of the functions: returns, tail branches, falls off the end, indirect jumps."""
    rules, flow, func = part.domain.rules, part.effects.flow, part.func
    wrong = np.zeros(len(part), dtype=np.bool_)
    none = np.full(len(part), -1, dtype=np.int64)
    leaves = fits(state, rules, none) == Fit.YES
    returns = flow == Flow.RETURN
    wrong |= returns & ~(leaves & (part.effects.target_reg == 30))
    unresolved = reached & (flow == Flow.JUMP_REG) & ~leaves
    jumps = np.flatnonzero(reached & ((flow == Flow.JUMP) | (flow == Flow.COND)))
    target = part.targets(jumps)
    index = rules.functions
    outside = (target < index.start[func[jumps]]) | (target >= index.end[func[jumps]])
    jumps, target = jumps[outside], target[outside]
    row = rules.lookup(target, np.zeros(target.shape, dtype=np.bool_))
    after = transfer(state.take(jumps), part.effects.take(jumps))
    wrong[jumps] |= fits(after, rules, row) != Fit.YES
    wrong |= flow == Flow.UNDEFINED
    return wrong & reached, unresolved
