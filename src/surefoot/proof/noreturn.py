"""Layer 4: functions that never return, found from the code itself.

A function without a return, whose every way out leads into a function that never returns, never returns. The set is
the greatest one with that property: mutual recursion of such functions is allowed.
"""

from __future__ import annotations

import numpy as np

from surefoot.dtypes import Addr, Mask, Row
from surefoot.isa.effects import Flow
from surefoot.proof.domain import Code, Domain
from surefoot.proof.survey import Survey

__all__ = ["find_noreturn", "without_return"]


def find_noreturn(domain: Domain, found: Survey, code: Code) -> Mask:
    """Find the functions that never return: (f,) bool.

    Whatever is not known to end there counts as a return: indirect jumps, ERET, undefined words, code without
    rules, the middle of another function, a call through a register as the last instruction.
    """
    may = ~domain.usable
    ends = (Flow.RETURN, Flow.JUMP_REG, Flow.ERET, Flow.UNDEFINED)
    may[domain.func(np.flatnonzero(np.isin(found.flow, ends)))] = True
    may[domain.func(found.sites[np.isin(found.variants.flow, ends)])] = True
    leaves = [_outside(domain, found.jumps, found.jump_to)]
    branching = np.isin(found.variants.flow, (Flow.JUMP, Flow.COND))
    leaves.append(_outside(domain, found.sites[branching], found.variant_to[branching]))
    fault = domain.find(code.faults)
    leaves.append(_outside(domain, fault[fault >= 0], code.fixups[fault >= 0]))
    last = domain.first[1:] - 1
    falls = last[found.on[last]]
    called = falls[found.flow[falls] == Flow.CALL]
    may[domain.func(falls[found.flow[falls] != Flow.CALL])] = True
    leaves.append((domain.func(called), _function_at(domain, found.call_to[np.searchsorted(found.calls, called)])))
    at_last = np.isin(found.sites, last) & found.variant_on
    may[domain.func(found.sites[at_last])] = True
    source = np.concatenate([one for one, _ in leaves])
    target = np.concatenate([two for _, two in leaves])
    may[source[target < 0]] = True
    source, target = source[target >= 0], target[target >= 0]
    while True:  # each round makes at least one more function return, so this ends
        more = source[may[target] & ~may[source]]
        if not more.size:
            return ~may
        may[more] = True


def without_return(domain: Domain, found: Survey, noreturn: Mask) -> Mask:
    """Give `Survey.on` for calls that do not come back: (n,) bool.

    A call that the kernel may replace by something else (a variant) is taken to come back.
    """
    on = found.on.copy()
    callee = np.where(domain.is_start(found.call_at), domain.func(np.maximum(found.call_at, 0)), np.int64(-1))
    lost = found.calls[(callee >= 0) & noreturn[callee]]
    on[lost[~np.isin(lost, found.sites)]] = False
    return on


def _outside(domain: Domain, at: Row, target: Addr) -> tuple[Row, Row]:
    """Give the branches that leave their function: the function, and the one that starts where they go, or -1."""
    func = domain.func(at)
    index = domain.rules.functions
    leaves = (target < index.start[func]) | (target >= index.end[func])
    return func[leaves], _function_at(domain, target[leaves])


def _function_at(domain: Domain, addr: Addr) -> Row:
    """(k,) int64, the function that starts at each address, -1 for none."""
    at = domain.find(addr)
    return np.where(domain.is_start(at), domain.func(np.maximum(at, 0)), np.int64(-1))
