"""Layer 4: where functions are entered from outside, and which of them hang together by that.

A fragment is a function of the rules whose first row does not fit a call, which no BL calls, and to which other
functions branch: the part of a function that the compiler moved away (`.cold`). It is entered by those branches
only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from surefoot.dtypes import Insn, Mask, Row
from surefoot.isa.effects import Flow
from surefoot.proof.bare import branches_into
from surefoot.proof.domain import Code, Domain
from surefoot.proof.machine import Fit, State, fits
from surefoot.proof.survey import Survey

__all__ = ["Entries", "find_entries", "with_relatives"]


@dataclass(frozen=True)
class Entries:
    """Ways into functions.

    Attributes:
        fragment: (f,) bool.
        called: (k,) int64, instructions that are entered like functions: first instructions, and inner ones that a
            BL calls or a symbol names.
        blind: (b,) int64, instructions that code without rules branches to: nothing is known there.
        ties: (t, 2) int64, pairs of functions one of which enters the other elsewhere than by a call.
    """

    fragment: Mask
    called: Row
    blind: Row
    ties: Row


def find_entries(domain: Domain, found: Survey, code: Code, ranges: Sequence[tuple[int, Insn]]) -> Entries:
    """Find all ways into functions.

    Args:
        domain: the instructions.
        found: of the domain.
        code: symbols, exception table.
        ranges: (address, words) of all executable code, that without rules included.
    """
    inner_calls, blind = branches_into(domain, found, code, ranges)
    call_at = found.call_at
    inside = call_at >= 0
    starts = domain.is_start(call_at)
    func = domain.func(np.maximum(call_at, 0))
    inner = inside & ~starts & (func != domain.func(found.calls))
    named = domain.find(code.entries)
    inner_at = np.concatenate([call_at[inner], inner_calls, named[named >= 0]])
    inner_at = np.unique(inner_at[~domain.is_start(inner_at)])
    source, target = _branches(domain, found, code)
    fragment = _fragments(domain, func[starts & inside], source, target)
    goal = domain.func(target)
    tied = ~domain.is_start(target) | fragment[goal]
    first = domain.first[:-1][~fragment & (np.diff(domain.first) > 0)]
    ties = np.stack([domain.func(source)[tied], goal[tied]], axis=1)
    return Entries(fragment, np.concatenate([first, inner_at]), blind, ties)


def _branches(domain: Domain, found: Survey, code: Code) -> tuple[Row, Row]:
    """Give every branch from one function into another: source and target instruction."""
    branching = np.isin(found.variants.flow, (Flow.JUMP, Flow.COND))
    fault = domain.find(code.faults)
    source = np.concatenate([found.jumps, found.sites[branching], fault[fault >= 0]])
    other = domain.find(np.concatenate([found.variant_to[branching], code.fixups[fault >= 0]]))
    target = np.concatenate([found.jump_at, other])
    source, target = source[target >= 0], target[target >= 0]
    cross = domain.func(source) != domain.func(target)
    return source[cross], target[cross]


def _fragments(domain: Domain, called: Row, source: Row, target: Row) -> Mask:
    """(f,) bool: parts that the compiler moved away."""
    count = domain.usable.size
    found = np.zeros(count, dtype=np.bool_)
    if not count:
        return found
    found[domain.func(target[domain.is_start(target)])] = True
    found[called] = False
    found &= fits(State.entry(count), domain.rules, domain.rules.functions.first_row) != Fit.YES
    return found & (source.size > 0)


def with_relatives(chosen: Mask, ties: Row) -> Mask:
    """Give the functions that hang together with chosen ones: (f,) bool."""
    found = chosen.copy()
    while ties.size:
        one, two = found[ties[:, 0]], found[ties[:, 1]]
        more = ties[one != two]
        if not more.size:
            break
        found[more.ravel()] = True
    return found
