"""Layer 4: the fast path: every edge of an image, each checked by itself.

If the row at the source of every edge, pushed through its instruction, makes the row at the target true, and the
rows at the entries are true of calls, then every row is an invariant, by induction over the run. Functions with an
edge that fails are left to the exact analysis, together with all that are entered from them in other ways than by
calls; so what is proved here rests on nothing that is not.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from surefoot.dtypes import Addr, Mask, Row
from surefoot.isa.effects import Effects, Flow, Store
from surefoot.proof.domain import Code, Domain
from surefoot.proof.entries import Entries
from surefoot.proof.faults import fault_effects
from surefoot.proof.machine import Fit, Fp, State, claimed_state, fits
from surefoot.proof.survey import Survey
from surefoot.proof.transfer import transfer

__all__ = ["check_edges"]

_CHUNK: Final = 1 << 16
"""Edges per piece: its arrays fit the caches."""


def check_edges(domain: Domain, found: Survey, entries: Entries, code: Code, on: Mask) -> Mask:
    """Find the functions that need a closer look.

    Args:
        domain: the instructions.
        found: of the domain.
        entries: of the domain.
        code: exception table.
        on: (n,) bool, control may reach the instruction behind.

    Returns:
        (f,) bool, functions with an edge, an entry or an exit that does not hold.
    """
    bad: list[Row] = []
    last = np.zeros(len(domain), dtype=np.bool_)
    last[domain.first[1:][np.diff(domain.first) > 0] - 1] = True
    call = (found.flow == Flow.CALL) | (found.flow == Flow.CALL_REG)
    bad += [np.flatnonzero(on & last & ~call), np.flatnonzero(found.flow == Flow.UNDEFINED), entries.blind]
    moved = np.flatnonzero(domain.row[1:] != domain.row[:-1])
    moved = moved[on[moved] & ~last[moved]]
    bad.append(_rows_differ(domain, moved[~_member(moved, found.acts)], None))
    bad.append(_acts_break(domain, found, on & ~last))
    bad.append(_branches_break(domain, entries.fragment, found.jumps, found.jump_to))
    bad.append(_calls_inside(domain, found))
    bad.append(_variants_break(domain, entries.fragment, found, last))
    bad.append(_faults_break(domain, entries.fragment, code))
    bad.append(_exits_break(domain, found))
    entry = State.entry(entries.called.size)
    bad.append(entries.called[fits(entry, domain.rules, domain.row[entries.called]) != Fit.YES])
    failed = ~domain.usable
    failed[domain.func(np.concatenate(bad))] = True
    return failed


def _member(values: Row, among: Row) -> Mask:
    """(k,) bool: the value is in a sorted array."""
    if not among.size:
        return np.zeros(values.shape, dtype=np.bool_)
    found: Mask = among[np.minimum(np.searchsorted(among, values), among.size - 1)] == values
    return found


def _after(domain: Domain, at: Row, does: Effects | None) -> State:
    """Give the states after instructions, if their rows hold before them; before them without `does`."""
    state = claimed_state(domain.rules, domain.row[at])
    return state if does is None else transfer(state, does)


def _rows_differ(domain: Domain, at: Row, does: Effects | None, to: Row | None = None) -> Row:
    """Give those instructions after which the row behind (or at `to`; -1: a call's) is not surely true."""
    parts: list[Row] = [np.zeros(0, dtype=np.int64)]
    for low in range(0, at.size, _CHUNK):
        some = slice(low, low + _CHUNK)
        state = _after(domain, at[some], None if does is None else does.take(some))
        goal = at[some] + 1 if to is None else to[some]
        row = np.where(goal < 0, np.int64(-1), domain.row[np.maximum(goal, 0)])
        parts.append(at[some][fits(state, domain.rules, row) != Fit.YES])
    return np.concatenate(parts)


def _acts_break(domain: Domain, found: Survey, on: Mask) -> Row:
    """Instructions that change something and fall through."""
    which = np.flatnonzero(on[found.acts])
    at, does = found.acts[which], found.effects.take(which)
    state = claimed_state(domain.rules, domain.row[at])
    # A row does not say where both SP and x29 are: a store through the other one may hit a slot.
    unknown = (does.store == Store.FP) & (state.fp != Fp.FRAME) | (does.store == Store.SP) & ~state.s_known
    return np.concatenate([at[unknown], _rows_differ(domain, at, does)])


def _branches_break(domain: Domain, fragment: Mask, at: Row, target: Addr, does: Effects | None = None) -> Row:
    """Direct branches: inside the function, into fragments, and to what must be entered like a function."""
    goal = domain.find(target)
    row = domain.rules.lookup(target, np.zeros(target.shape, dtype=np.bool_))
    lost = at[(goal < 0) & (row >= 0)]  # no instruction, although rules speak of the place
    func = domain.func(np.maximum(goal, 0))
    goal = np.where(domain.is_start(goal) & ~fragment[func] & (func != domain.func(at)), np.int64(-1), goal)
    same = (goal >= 0) & (domain.row[np.maximum(goal, 0)] == domain.row[at]) if does is None else goal < -1
    ask = np.flatnonzero(~same)
    wrong = _rows_differ(domain, at[ask], None if does is None else does.take(ask), goal[ask])
    return np.concatenate([wrong, lost])


def _calls_inside(domain: Domain, found: Survey) -> Row:
    """A BL into its own function's body is a jump that also sets x30: left to the exact analysis."""
    goal = found.call_at
    inside = (goal >= 0) & ~domain.is_start(goal)
    inside &= domain.func(np.maximum(goal, 0)) == domain.func(found.calls)
    return found.calls[inside]


def _variants_break(domain: Domain, fragment: Mask, found: Survey, last: Mask) -> Row:
    """Words that the kernel may put in the place of others."""
    sites, flow = found.sites, found.variants.flow
    through = np.flatnonzero(found.variant_on & ~last[sites])
    jump = np.flatnonzero((flow == Flow.JUMP) | (flow == Flow.COND))
    strange = np.isin(flow, (Flow.RETURN, Flow.JUMP_REG, Flow.UNDEFINED, Flow.ERET)) | (
        found.variant_on & last[sites]
    )
    inner = domain.find(found.variant_to)
    strange |= (flow == Flow.CALL) & (inner >= 0) & ~domain.is_start(inner)
    return np.concatenate(
        [
            sites[strange],
            _rows_differ(domain, sites[through], found.variants.take(through)),
            _branches_break(domain, fragment, sites[jump], found.variant_to[jump], found.variants.take(jump)),
        ]
    )


def _faults_break(domain: Domain, fragment: Mask, code: Code) -> Row:
    """Faults that continue at a fixup, instead of the instruction."""
    at = domain.find(code.faults)
    which = np.flatnonzero(at >= 0)
    does = fault_effects(code, which)
    return _branches_break(domain, fragment, at[which], code.fixups[which], does)


def _exits_break(domain: Domain, found: Survey) -> Row:
    """A return leaves with the state of the entry; indirect jumps are left to the exact analysis."""
    jump = found.flow[found.leaves] == Flow.JUMP_REG
    back = found.leaves[~jump]
    state = _after(domain, back, None)
    bare = np.full(back.size, -1, dtype=np.int64)
    wrong = (fits(state, domain.rules, bare) != Fit.YES) | (found.leave_by[~jump] != 30)
    return np.concatenate([found.leaves[jump], back[wrong]])
