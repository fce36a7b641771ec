"""Layer 4: what an exception-table entry does before control goes on at its fixup."""

from __future__ import annotations

import numpy as np

from surefoot.dtypes import Row
from surefoot.isa.branches import NOP
from surefoot.isa.effects import FP, LR, Effects, FpEffect, LrEffect, effects
from surefoot.proof.domain import Code

__all__ = ["fault_effects"]


def fault_effects(code: Code, which: Row) -> Effects:
    """Give what the handlers of some entries of `Code.faults` do to x29 and x30, as if it were an instruction.

    The instruction that faults has no effect: an abort leaves the base of its address as it was.
    """
    does = effects(np.full(which.size, NOP, dtype=np.uint32))
    if code.fault_writes.size:
        writes = code.fault_writes[which]
        does.writes[:] = writes
        does.fp[writes >> np.uint32(FP) & np.uint32(1) != 0] = FpEffect.OTHER
        does.lr[writes >> np.uint32(LR) & np.uint32(1) != 0] = LrEffect.OTHER
    return does
