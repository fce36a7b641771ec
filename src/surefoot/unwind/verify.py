"""Layer 5: what every caller found by a certain step must still satisfy."""

from __future__ import annotations

import numpy as np

from surefoot.dtypes import Addr, Mask, Row
from surefoot.unwind.callsites import Call, check_calls
from surefoot.unwind.context import Context, Mode
from surefoot.unwind.cursor import Step
from surefoot.unwind.reasons import Reason
from surefoot.unwind.state import Source
from surefoot.unwind.trace import Evidence

__all__ = ["verify_caller", "verify_start"]


def verify_caller(ctx: Context, step: Step, callee: Row, needs_direct: Mask) -> None:
    """Check that each return address lies in known, unchanged code, right after a call that leads to the callee.

    Args:
        ctx: the walk.
        step: the step, PAC stripped and trampolines replaced; changed.
        callee: (k,) int64, the function that the call must lead to; -1 where any will do.
        needs_direct: (k,) bool, only a call of that very function is evidence enough: through a register or by
            way of tail branches it might be one of another, which then called the function below.
    """
    idx = np.flatnonzero((step.reason == 0) & ~step.final & (step.source == Source.FRAME))
    if not idx.size:
        return
    ra = step.pc[idx]
    function = ctx.code.functions.lookup(ra, np.ones(ra.shape, dtype=np.bool_))
    step.function[idx] = function
    call = check_calls(ctx.code, ra, callee[idx])
    changed = ctx.code.is_changed(ra - np.uint64(4))
    reason = np.zeros(idx.size, dtype=np.uint8)
    for mask, why in (
        (needs_direct[idx] & ((call == Call.INDIRECT) | (call == Call.TAIL)), Reason.NO_METADATA),
        (call == Call.MISMATCH, Reason.CALL_MISMATCH),
        (call == Call.NOT_A_CALL, Reason.NOT_A_CALL),
        (call == Call.UNKNOWN, Reason.CALL_UNKNOWN),
        (changed, Reason.TEXT_CHANGED),
        (function < 0, Reason.NOT_TEXT),
    ):  # the last one that applies is the one to name
        if ctx.mode is Mode.HYBRID or why is Reason.NOT_TEXT:
            reason[mask] = why
    step.reason[idx] = reason
    step.reason_addr[idx[reason != 0]] = ra[reason != 0]
    for kind, flag in (
        (Call.DIRECT, Evidence.CALL_DIRECT),
        (Call.VENEER, Evidence.CALL_TAIL),
        (Call.TAIL, Evidence.CALL_TAIL),
        (Call.INDIRECT, Evidence.CALL_INDIRECT),
    ):
        step.mark(idx[call == kind], flag)


def verify_start(ctx: Context, pc: Addr) -> Mask:
    """Tell which blocked tasks' saved pc follows a call of cpu_switch_to (or is ret_from_fork itself).

    Args:
        ctx: the walk.
        pc: (k,) uint64, cpu_context.pc, PAC stripped.

    Returns:
        (k,) bool.
    """
    callee = np.full(pc.shape, ctx.cpu_switch_to, dtype=np.int64)
    call = check_calls(ctx.code, pc, callee)
    switched = np.isin(call, (Call.DIRECT, Call.VENEER, Call.TAIL)) & (ctx.cpu_switch_to >= 0)
    return np.equal(pc, np.uint64(ctx.ret_from_fork)) | switched
