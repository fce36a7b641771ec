"""Layer 4: the fast path: every edge of an image, each checked by itself.

If the row at the source of every edge, pushed through its instruction, makes the row at the target true, and the
first row is that of a function's entry, then every row of the function is an invariant, by induction over the run.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from surefoot.dtypes import Addr, Mask, Row
from surefoot.isa.effects import Flow, FpEffect, LrEffect, SpEffect, Store
from surefoot.proof.domain import Code, Domain, Part
from surefoot.proof.machine import Fit, State, claimed_state, fits
from surefoot.proof.transfer import transfer

__all__ = ["Edges", "check_edges"]


@dataclass
class Edges:
    """What the edges of some functions have shown.

    Attributes:
        failed: (f,) bool over all functions of the domain: an edge, the entry or an exit does not hold.
        foreign: addresses inside functions that other functions jump to (their rows hold there).
    """

    failed: Mask
    foreign: list[Addr] = field(default_factory=list)


def check_edges(domain: Domain, low: int, high: int, code: Code, noreturn: Mask, found: Edges) -> None:
    """Check all edges of functions low:high and mark those functions that need a closer look.

    Args:
        domain: the instructions.
        low: first function.
        high: function behind the last.
        code: exception table, jump labels, stops.
        noreturn: (f,) bool.
        found: changed.
    """
    part = domain.slice_of(low, high)
    func, flow = part.func, part.effects.flow
    on = part.continues(code.stops, noreturn)
    bad = np.zeros(len(part), dtype=np.bool_)
    last = np.append(func[1:] != func[:-1], True)
    _check_next(part, on & ~last, bad)
    _check_jumps(part, np.flatnonzero((flow == Flow.JUMP) | (flow == Flow.COND)), bad, found)
    _check_local_calls(part, bad)
    _check_detours(part, code, bad, found)
    _check_exits(part, np.flatnonzero((flow == Flow.RETURN) | (flow == Flow.JUMP_REG)), bad)
    falls = on & last & (flow != Flow.CALL) & (flow != Flow.CALL_REG)
    bad |= falls | (flow == Flow.UNDEFINED)
    found.failed[func[bad]] = True
    _check_entries(domain, low, high, found)


def _neutral(part: Part) -> Mask:
    """(m,) bool: the instruction changes nothing that a row can speak of."""
    effects = part.effects
    calm = (effects.sp == SpEffect.KEEP) & (effects.fp == FpEffect.KEEP) & (effects.lr == LrEffect.KEEP)
    outside = np.isin(effects.store, (Store.NONE, Store.ELSEWHERE))
    return np.asarray(calm & outside)


def _after(part: Part, which: Row) -> State:
    """Give the states after the instructions `which`, if their rows hold before them."""
    return transfer(claimed_state(part.domain.rules, part.row[which]), part.effects.take(which))


def _check_next(part: Part, on: Mask, bad: Mask) -> None:
    """Fall through from each instruction to the one behind it."""
    neutral = _neutral(part)
    moved = np.append(part.row[1:] != part.row[:-1], True)
    which = np.flatnonzero(on & (moved | ~neutral))
    bad[which] |= fits(_after(part, which), part.domain.rules, part.row[which + 1]) != Fit.YES


def _check_jumps(part: Part, which: Row, bad: Mask, found: Edges) -> None:
    """Follow direct branches, inside the function and out of it."""
    rules = part.domain.rules
    target = part.targets(which)
    row = rules.lookup(target, np.zeros(target.shape, dtype=np.bool_))
    same = (row == part.row[which]) & _neutral(part)[which]
    odd = (target & np.uint64(3)) != 0
    ask = np.flatnonzero(~same)
    state = _after(part, which[ask])
    bad[which[ask]] |= fits(state, rules, row[ask]) != Fit.YES
    bad[which[odd]] = True
    func = rules.func[np.maximum(row, 0)].astype(np.int64)
    foreign = (row >= 0) & (func != part.func[which]) & (rules.functions.start[func] != target)
    if bool(np.any(foreign)):
        found.foreign.append(target[foreign])


def _check_local_calls(part: Part, bad: Mask) -> None:
    """A BL into its own function's body is a jump that also sets x30: leave it to the exact analysis."""
    call = np.flatnonzero(part.effects.flow == Flow.CALL)
    target = part.targets(call)
    index = part.domain.rules.functions
    func = part.func[call]
    inside = (target > index.start[func]) & (target < index.end[func])
    bad[call[inside]] = True


def _check_detours(part: Part, code: Code, bad: Mask, found: Edges) -> None:
    """Faults that continue at a fixup, words that the kernel turns into branches: taken instead of the word."""
    site, goal = code.detours
    at = np.searchsorted(part.addr, site)
    here = (at < len(part)) & (part.addr[np.minimum(at, len(part) - 1)] == site)
    which, goal = at[here].astype(np.int64), goal[here]
    rules = part.domain.rules
    row = rules.lookup(goal, np.zeros(goal.shape, dtype=np.bool_))
    state = claimed_state(rules, part.row[which])
    same = row == part.row[which]
    bad[which] |= ~same & (fits(state, rules, row) != Fit.YES)
    func = rules.func[np.maximum(row, 0)].astype(np.int64)
    foreign = (row >= 0) & (func != part.func[which])
    if bool(np.any(foreign)):
        found.foreign.append(goal[foreign])


def _check_exits(part: Part, which: Row, bad: Mask) -> None:
    """A return, or an indirect tail branch, leaves with the state of the entry."""
    state = claimed_state(part.domain.rules, part.row[which])
    leaves = fits(state, part.domain.rules, np.full(which.size, -1, dtype=np.int64)) == Fit.YES
    through_lr = part.effects.target_reg[which] == 30
    returns = part.effects.flow[which] == Flow.RETURN
    bad[which] |= ~leaves | (returns & ~through_lr)


def _check_entries(domain: Domain, low: int, high: int, found: Edges) -> None:
    """The first row of a function is what a call leaves behind."""
    rows = domain.rules.functions.first_row[low:high]
    state = State.entry(high - low)
    wrong = fits(state, domain.rules, rows) != Fit.YES
    found.failed[low:high] |= wrong | ~domain.usable[low:high]
