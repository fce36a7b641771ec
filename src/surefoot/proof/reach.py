"""Layer 4: instructions that no path reaches, as far as that is seen at once.

Where nothing leads, every claim would hold of every path; such code is not proved. Mostly it lies behind calls that
do not return, or is reached by means that are not known.
"""

from __future__ import annotations

import numpy as np

from surefoot.dtypes import Mask, Row
from surefoot.isa.effects import Flow
from surefoot.proof.domain import Code, Domain
from surefoot.proof.entries import Entries
from surefoot.proof.survey import Survey

__all__ = ["unreached"]


def unreached(domain: Domain, found: Survey, entries: Entries, code: Code, on: Mask) -> Row:
    """Find instructions that are perhaps not reached from any entry.

    The code is cut into runs, through which control falls. A run is entered by some branch from a run before it, or
    only by branches from behind: such a run is reached if the origin of one of these is. An answer may name code that
    is reached, not the other way round.

    Returns:
        (k,) int64, first instructions of runs.
    """
    if not len(domain):
        return np.zeros(0, dtype=np.int64)
    source, target = _edges(domain, found, code)
    through = on.copy()
    through[found.sites[found.variant_on]] = True
    through[domain.first[1:] - 1] = False
    head = np.append(True, ~through[:-1])
    run = np.cumsum(head) - 1
    heads = np.flatnonzero(head)
    entered = np.zeros(heads.size, dtype=np.bool_)
    for at in (entries.called, entries.blind):
        entered[run[at[head[at]]]] = True
    into = head[target]
    source, target = run[source[into]], run[target[into]]
    parent = np.arange(heads.size, dtype=np.int64)
    ahead = source < target
    parent[target[ahead]] = source[ahead]
    parent[entered] = np.flatnonzero(entered)
    while True:  # each round halves the way to the origin
        further = parent[parent]
        if bool(np.all(further == parent)):
            break
        parent = further
    reached = entered.copy()
    while True:  # each round reaches an origin
        fresh = reached[parent[source]] & ~reached[parent[target]] & (parent[target] == target)
        if not bool(np.any(fresh)):
            return heads[~reached[parent]]
        reached[target[fresh]] = True


def _edges(domain: Domain, found: Survey, code: Code) -> tuple[Row, Row]:
    """Give all branches to instructions: source and target."""
    branching = np.isin(found.variants.flow, (Flow.JUMP, Flow.COND))
    fault = domain.find(code.faults)
    local = found.call_at
    inner = (local >= 0) & ~domain.is_start(local)
    source = np.concatenate([found.jumps, found.sites[branching], fault[fault >= 0], found.calls[inner]])
    other = domain.find(np.concatenate([found.variant_to[branching], code.fixups[fault >= 0]]))
    target = np.concatenate([found.jump_at, other, local[inner]])
    return source[target >= 0], target[target >= 0]
