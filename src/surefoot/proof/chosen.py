"""Layer 4: proofs of single functions, for those who need few and cannot wait for all.

What a function's proof rests on beside its own code is taken from the whole image: where it is entered from
elsewhere, which functions never return, and which of the functions that it calls come back in another state than
they were called in. So the verdicts are those of the proof of the whole image. One thing is not looked for: tables of
other functions that lead into this one without any branch between the two (assumption "loose-jumps").

The last of these would ask for the analysis of everything that can be called from the function. It does not have to:
a function breaks its word if its own code surely leaves with another state; taking its callees for better than they
are can only find more such functions, since from more knowledge follows more. So the callees of the function, and
those in which they end, are analysed, and nothing beyond them.
"""

from __future__ import annotations

import numpy as np

from surefoot.dtypes import Mask, Row
from surefoot.proof.compact import KeptProof, keep
from surefoot.proof.domain import Domain
from surefoot.proof.entries import with_relatives
from surefoot.proof.prove import Outline, prove_chosen
from surefoot.proof.survey import Survey

__all__ = ["prove_functions"]


def prove_functions(outline: Outline, funcs: Row) -> KeptProof:
    """Prove or refute the rule row at every instruction of some functions.

    Args:
        outline: of the image.
        funcs: (k,) int64, functions of the outline's rules.

    Returns:
        verdicts on the instructions of these functions, and on no others.
    """
    chosen = np.zeros(outline.domain.usable.size, dtype=np.bool_)
    chosen[funcs] = True
    together = with_relatives(chosen, outline.entries.ties)
    trusted = _trusted(outline.domain, outline.found, together)
    return keep(prove_chosen(outline, with_relatives(together | trusted, outline.entries.ties)), chosen)


def _trusted(domain: Domain, found: Survey, callers: Mask) -> Mask:
    """(f,) bool: functions that the chosen ones call, and those in which these end."""
    trusted = np.zeros(callers.shape, dtype=np.bool_)
    trusted[_starts(domain, found.calls, found.call_at, np.flatnonzero(callers))] = True
    fresh = np.flatnonzero(trusted)
    while fresh.size:
        more = np.unique(_starts(domain, found.jumps, found.jump_at, fresh))
        fresh = more[~trusted[more]]
        trusted[fresh] = True
    return trusted


def _starts(domain: Domain, at: Row, goal: Row, funcs: Row) -> Row:
    """Give the functions at whose starts some functions' branches go; `at` and `goal` are the branches, ascending."""
    low, high = np.searchsorted(at, domain.first[funcs]), np.searchsorted(at, domain.first[funcs + 1])
    count = high - low
    pick = np.repeat(low - (np.cumsum(count) - count), count) + np.arange(int(count.sum()), dtype=np.int64)
    to = goal[pick]
    return domain.func(to[domain.is_start(to)])
