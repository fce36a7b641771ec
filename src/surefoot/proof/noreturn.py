"""Layer 4: functions that never return, found from the code itself.

A function without a return, whose every way out leads into a function that never returns, never returns. The set is
the greatest one with that property: mutual recursion of such functions is allowed.
"""

from __future__ import annotations

import numpy as np

from surefoot.dtypes import Addr, Mask, Row
from surefoot.isa.effects import Flow
from surefoot.proof.domain import Domain

__all__ = ["find_noreturn"]

_CHUNK = 1 << 18


def find_noreturn(domain: Domain, stops: Addr) -> Mask:
    """Find the functions that never return.

    Args:
        domain: the instructions.
        stops: (b,) uint64, sorted addresses that control does not go past.

    Returns:
        (f,) bool.
    """
    count = domain.usable.size
    may = ~domain.usable
    leaves_from: list[Row] = []
    leaves_to: list[Row] = []
    nobody = np.zeros(count, dtype=np.bool_)
    low = 0
    while low < count:
        high = max(low + 1, int(np.searchsorted(domain.first, domain.first[low] + _CHUNK, side="right")) - 1)
        high = min(high, count)
        part = domain.slice_of(low, high)
        func, flow = part.func, part.effects.flow
        ends = np.isin(flow, (Flow.RETURN, Flow.JUMP_REG, Flow.ERET))
        may[func[ends]] = True
        jumps = np.flatnonzero((flow == Flow.JUMP) | (flow == Flow.COND))
        target = part.targets(jumps)
        start, end = domain.rules.functions.start[func[jumps]], domain.rules.functions.end[func[jumps]]
        outside = (target < start) | (target >= end)
        leaves_from.append(func[jumps[outside]])
        leaves_to.append(_function_at(domain, target[outside]))
        last = domain.first[low + 1 : high + 1] - 1 - part.base
        last = last[last >= 0]
        falls = last[part.continues(stops, nobody)[last]]
        called = falls[flow[falls] == Flow.CALL]
        may[func[falls[flow[falls] != Flow.CALL]]] = True
        leaves_from.append(func[called])
        leaves_to.append(_function_at(domain, part.targets(called)))
        low = high
    source, target = np.concatenate(leaves_from), np.concatenate(leaves_to)
    may[source[target < 0]] = True
    source, target = source[target >= 0], target[target >= 0]
    while True:  # each round makes at least one more function return, so this ends
        more = source[may[target] & ~may[source]]
        if not more.size:
            return ~may
        may[more] = True


def _function_at(domain: Domain, addr: Addr) -> Row:
    """(n,) int64, the function that starts at each address, -1 for none."""
    row = domain.rules.lookup(addr, np.zeros(addr.shape, dtype=np.bool_))
    func = domain.rules.func[np.maximum(row, 0)].astype(np.int64)
    good = (row >= 0) & (domain.rules.functions.start[func] == addr)
    return np.where(good, func, np.int64(-1))
