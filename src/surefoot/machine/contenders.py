"""Layer 7: ways of walking an interrupted stack that the field argues about, side by side.

FP-first and LR-first are what profilers and debuggers print: they never say that they do not know. The others give a
verdict. All are made of the walker's own public modes; none knows that the machine is emulated.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from surefoot.dtypes import Addr, Mask, Row
from surefoot.proof.verdicts import NO_PROOFS
from surefoot.unwind.consume import Walkable
from surefoot.unwind.context import Mode
from surefoot.unwind.state import Source
from surefoot.unwind.trace import Traces
from surefoot.unwind.walker import walk

__all__ = ["Answer", "Contender", "answer"]


class Contender(StrEnum):
    """A way of walking."""

    FP_FIRST = "fp-first"
    """The interrupted pc, then the chain of frame records."""
    LR_FIRST = "lr-first"
    """The interrupted pc, then LR, then the chain of frame records."""
    FP_RELIABLE = "fp-reliable"
    """What Linux 7.3 accepts as reliable: frame records, nothing across an interrupted function."""
    SFRAME = "sframe"
    """The rules alone, unproved, at every frame."""
    HYBRID = "hybrid"
    """Frame records and proved rules, which must agree."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a contender says of n boundaries.

    Attributes:
        first: (n + 1,) int64, the frames of boundary i are first[i]:first[i + 1].
        pc: (m,) uint64, innermost first.
        exact: (m,) bool, an interrupted address, not a return address.
        claims: (n,) bool, the trace is given out as complete.
        traces: the walk behind it.
    """

    first: Row
    pc: Addr
    exact: Mask
    claims: Mask
    traces: Traces


_MODES = {
    Contender.FP_FIRST: Mode.FP,
    Contender.LR_FIRST: Mode.FP,
    Contender.FP_RELIABLE: Mode.FP,
    Contender.SFRAME: Mode.SFRAME,
    Contender.HYBRID: Mode.HYBRID,
}


def answer(contender: Contender, source: Walkable, *, fp: Traces | None = None) -> Answer:
    """Ask one contender.

    Args:
        contender: which.
        source: the boundaries.
        fp: the walk along frame records, where it has been made already.
    """
    mode = _MODES[contender]
    code = replace(source.code, proofs=NO_PROOFS) if contender is Contender.SFRAME else source.code
    if mode is Mode.FP and fp is not None:
        traces = fp
    else:
        traces = walk(code, source.stacks, source.tasks, source.layout, mode=mode)
    exact = traces.source == Source.REGS
    plain = Answer(traces.first, traces.pc, exact, traces.reliable, traces)
    if contender is Contender.FP_FIRST:
        return replace(plain, claims=np.ones(len(traces), dtype=np.bool_))
    if contender is Contender.LR_FIRST:
        return _with_link_registers(source, plain)
    return plain


def _with_link_registers(source: Walkable, plain: Answer) -> Answer:
    """Put LR behind every interrupted pc, unless the next frame is that very address."""
    traces, layout = plain.traces, source.layout
    at = np.flatnonzero(plain.exact)
    owner = np.searchsorted(traces.first, at, side="right").astype(np.int64) - 1
    regs = traces.regs[at]
    stack = np.full(at.size, -1, dtype=np.int64)
    for kind in range(source.tasks.stacks.shape[1]):
        index = source.tasks.stacks[owner, kind].astype(np.int64)
        safe = np.maximum(index, 0)
        stack = np.where(
            (index >= 0) & (source.stacks.low[safe] <= regs) & (source.stacks.high[safe] > regs), index, stack
        )
    saved, _ = source.stacks.read(stack, regs + np.uint64(layout.pt_regs_lr))
    lr = layout.strip(np.where(regs == 0, source.tasks.lr[owner], saved))
    follows = at + 1 < traces.first[owner + 1]
    after = traces.pc[np.where(follows, at + 1, at)]
    new = ~follows | (after != lr)
    where, owner = at[new] + 1, owner[new]
    extra = np.bincount(owner, minlength=len(traces))
    first = traces.first.copy()
    first[1:] += np.cumsum(extra)
    return Answer(
        first,
        np.insert(traces.pc, where, lr[new]),
        np.insert(plain.exact, where, np.zeros(where.size, dtype=np.bool_)),
        np.ones(len(traces), dtype=np.bool_),
        traces,
    )
