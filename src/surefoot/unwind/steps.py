"""Layer 5: certain steps: each yields the caller together with evidence, or the reason why nobody can know.

Which evidence a step needs depends on what kind of code the frame is in:

* interrupted code (an exception boundary): the rule at exactly pc decides whether the return address is in LR or
  in memory; frame records cannot;
* code that made a call: the rule before the return address and the frame record at x29, which must agree;
* code without rules that made a call: the frame record, vouched for by a direct call to that very function;
* a traced function while its tracer runs: the records that ftrace_caller makes of it and of its caller;
* the bottom of a stack: struct pt_regs or the final record, exactly where the entry code puts it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from surefoot.dtypes import Addr, Code, Mask, Row
from surefoot.metadata.rules import CfaBase, FpRule, FunctionFlag, RaRule
from surefoot.proof.verdicts import Verdict
from surefoot.unwind.callsites import makes_record
from surefoot.unwind.context import Context, Mode
from surefoot.unwind.cursor import ALLOWED, Cursor, Step
from surefoot.unwind.reasons import Reason
from surefoot.unwind.records import read_record
from surefoot.unwind.regions import FunctionClass
from surefoot.unwind.rewritten import handler_window, pass_returned, recover
from surefoot.unwind.state import Source, StackKind
from surefoot.unwind.trace import Evidence
from surefoot.unwind.tracer import leave_site, leave_tracer
from surefoot.unwind.verify import verify_caller

__all__ = ["boundary_refusal", "certain_step"]

_BOUNDARY_REFUSALS: Final[dict[FunctionClass, Reason]] = {
    FunctionClass.ENTRY: Reason.ENTRY_CODE,
    FunctionClass.FORK: Reason.ENTRY_CODE,
    FunctionClass.START: Reason.ENTRY_CODE,
    FunctionClass.IRQ_STACK: Reason.ENTRY_CODE,
    FunctionClass.SWITCH: Reason.SWITCHING,
    FunctionClass.RETURN_TO_HANDLER: Reason.TRAMPOLINE_WINDOW,
    FunctionClass.KRETPROBE: Reason.TRAMPOLINE_WINDOW,
    FunctionClass.FTRACE_CALLER: Reason.TRAMPOLINE_WINDOW,
    FunctionClass.SDEI: Reason.ENTRY_CODE,
    FunctionClass.FIRMWARE: Reason.FIRMWARE,
    FunctionClass.ASSEMBLY: Reason.ASSEMBLY,
}
_CALL_REFUSALS: Final[dict[FunctionClass, Reason]] = {
    FunctionClass.SWITCH: Reason.ASSEMBLY,
    FunctionClass.KRETPROBE: Reason.TRAMPOLINE_WINDOW,
    FunctionClass.SDEI: Reason.SDEI_BOUNDARY,
    FunctionClass.FIRMWARE: Reason.FIRMWARE,
    FunctionClass.ASSEMBLY: Reason.ASSEMBLY,
}
_ENDS: Final = (FunctionClass.ENTRY, FunctionClass.FORK, FunctionClass.START)
_EL1H: Final = 0x5
_EL2H: Final = 0x9
"""Low five bits of PSTATE for kernel code on its own stack pointer, without and with VHE."""


def boundary_refusal(ctx: Context, pc: Addr) -> Code:
    """(n,) uint8, `Reason` why code at these exact addresses cannot be left, whatever its registers; 0 for none."""
    kind = ctx.class_of(ctx.code.functions.lookup(pc, np.zeros(pc.shape, dtype=np.bool_)))
    reasons = np.zeros(len(FunctionClass), dtype=np.uint8)
    for which, reason in _BOUNDARY_REFUSALS.items():
        reasons[which] = reason
    return np.asarray(reasons[kind])


def certain_step(ctx: Context, cur: Cursor, at: Row, function: Row) -> Step:
    """Take one step for the walks `at`, or say why that is not possible with certainty.

    Args:
        ctx: the walk, mode HYBRID or SFRAME.
        cur: where the walks stand; bookkeeping cursors move, nothing else is changed.
        at: (k,) int64.
        function: (k,) int64, the function that each walk's pc lies in.

    Returns:
        the outcome of every walk.
    """
    step = Step.blank(at.size)
    pc, source = cur.pc[at], cur.source[at]
    kind = ctx.class_of(function)
    boundary = source == Source.REGS
    row = ctx.code.rules.lookup(pc, ~ctx.is_exact(pc, source))
    step.fail((function < 0) | (pc & np.uint64(3) != 0), Reason.NOT_TEXT, pc)
    step.fail(boundary & ctx.code.is_changed(pc), Reason.TEXT_CHANGED, pc)
    for refused, reasons in ((boundary, _BOUNDARY_REFUSALS), (~boundary, _CALL_REFUSALS)):
        for which, reason in reasons.items():
            step.fail(refused & (kind == which), reason, pc)
    normal = kind == FunctionClass.NORMAL
    step.fail(boundary & normal & (row < 0), Reason.NO_RULE_AT_BOUNDARY, pc, cur.lr[at])
    step.fail(normal & _is_foreign(ctx, function, row), Reason.RULE_REFUSED, pc)
    _judge_rule(ctx, step, pc, source, function, normal & (row >= 0))
    todo = step.reason == 0
    ends = todo & ~boundary & np.isin(kind, _ENDS)
    rules_only = ctx.mode is Mode.SFRAME
    tracer = ~boundary & (kind == FunctionClass.FTRACE_CALLER)
    traced = ~boundary & (cur.evidence[at] & np.uint16(Evidence.TRACER) != 0)
    step.fail(todo & ~boundary & normal & (row < 0) & (rules_only | traced), Reason.NO_METADATA, pc)
    step.fail((tracer & rules_only) | (traced & ~normal), Reason.IN_FTRACE_CALLER, pc)
    todo = step.reason == 0
    callee = function.copy()
    called = ~boundary & normal & ~traced
    moves: tuple[tuple[Mask, Callable[[Row], Step]], ...] = (
        (todo & boundary & normal, lambda i: _boundary_step(ctx, cur, at[i], row[i])),
        (todo & called & (row >= 0), lambda i: _call_step(ctx, cur, at[i], row[i], function[i])),
        (todo & tracer, lambda i: leave_tracer(ctx, cur, at[i])),
        (todo & traced, lambda i: leave_site(ctx, cur, at[i], row[i], function[i])),
        (todo & called & (row < 0), lambda i: _bare_step(ctx, cur, at[i], function[i])),
        (todo & ~boundary & (kind == FunctionClass.IRQ_STACK), lambda i: _irq_stack_step(ctx, cur, at[i])),
        (ends, lambda i: _end_step(ctx, cur, at[i], kind[i])),
    )
    for mask, move in moves:
        idx = np.flatnonzero(mask)
        if idx.size:
            part = move(idx)
            part.evidence |= step.evidence[idx]
            step.put(idx, part)
    window = np.flatnonzero(todo & ~boundary & (kind == FunctionClass.RETURN_TO_HANDLER))
    if window.size:
        part, callee[window] = handler_window(ctx, cur, at[window])
        step.put(window, part)
    step.pc = ctx.layout.strip(step.pc)
    recover(ctx, cur, at, step, callee.copy(), callee)
    bare = (normal & (row < 0) & ~boundary) | (kind == FunctionClass.IRQ_STACK) | tracer
    verify_caller(ctx, step, callee, needs_direct=bare)
    return step


def _is_foreign(ctx: Context, function: Row, row: Row) -> Mask:
    """Tell which rules come from a descriptor that reaches beyond the function they are asked for.

    Such a descriptor is wrong about its own extent, and what it says of its neighbour, assembly perhaps, is noise.
    """
    result = np.zeros(row.shape, dtype=np.bool_)
    at = np.flatnonzero((row >= 0) & (function >= 0))
    if at.size:
        index, code = ctx.code.rules.functions, ctx.code.functions
        owner, inside = ctx.code.rules.func[row[at]], function[at]
        start = index.start[owner]
        result[at] = (start < code.start[inside]) | (start + index.size[owner] > code.end[inside])
    return result


def _judge_rule(ctx: Context, step: Step, pc: Addr, source: Code, function: Row, mask: Mask) -> None:
    """Ask the proofs about the rules that the walks of `mask` would use."""
    verdict = ctx.verdict(pc, source)
    step.fail(mask & (verdict == Verdict.REFUTED), Reason.RULE_REFUTED, pc)
    unproven = mask & (verdict != Verdict.PROVEN)
    # Where proofs are at hand, an exception boundary is crossed at a proved address only: the code may be anywhere
    # in its prologue or epilogue, where no frame record vouches for the rule.
    boundary = source == Source.REGS
    step.fail(unproven if ctx.strict else unproven & boundary & ctx.is_proved, Reason.RULE_UNPROVEN, pc)
    exact = np.flatnonzero(unproven & boundary & (step.reason == 0))
    if exact.size and ctx.mode is Mode.HYBRID:
        rust = np.zeros(mask.shape, dtype=np.bool_)
        rust[exact] = ctx.is_calls_only(function[exact], verdict[exact])
        step.fail(rust, Reason.CALLS_ONLY_METADATA, pc)
    step.mark(mask & (verdict == Verdict.PROVEN), Evidence.PROVEN)


class _Rule:
    """The rules of some rows, gathered; k rows."""

    __slots__ = (
        "base",
        "cfa_off",
        "fp_at",
        "fp_kept",
        "fp_off",
        "ra_at",
        "ra_in_lr",
        "ra_off",
        "refused",
        "undefined",
    )

    def __init__(self, ctx: Context, row: Row) -> None:
        rules = ctx.code.rules
        self.base = rules.cfa_base[row]
        self.cfa_off = rules.cfa_off[row].astype(np.int64).astype(np.uint64)
        fp_rule, ra_rule = rules.fp_rule[row], rules.ra_rule[row]
        self.fp_at, self.fp_kept = fp_rule == FpRule.AT_CFA, fp_rule == FpRule.UNCHANGED
        self.ra_at, self.ra_in_lr = ra_rule == RaRule.AT_CFA, ra_rule == RaRule.IN_LR
        self.fp_off = rules.fp_off[row].astype(np.int64).astype(np.uint64)
        self.ra_off = rules.ra_off[row].astype(np.int64).astype(np.uint64)
        self.undefined = (ra_rule == RaRule.UNDEFINED) | (self.base == CfaBase.UNDEFINED)
        partial = rules.functions.flags[rules.func[row]] & np.uint8(FunctionFlag.REFUSED) != 0
        known = (self.fp_at | self.fp_kept) & (self.ra_at | self.ra_in_lr)
        self.refused = ~self.undefined & (partial | ~known | (self.base == CfaBase.OTHER))


def _boundary_step(ctx: Context, cur: Cursor, at: Row, row: Row) -> Step:
    """Leave interrupted code: every register is exact, and the rule at exactly pc says where the caller is."""
    step = Step.blank(at.size)
    rule = _Rule(ctx, row)
    pc, sp, fp = cur.pc[at], cur.sp[at], cur.fp[at]
    step.fail(rule.refused, Reason.RULE_REFUSED, pc)
    step.fail(rule.undefined, Reason.RULE_UNDEFINED, pc)
    if ctx.mode is Mode.HYBRID:
        # GCC restores x29 in epilogues before it says so. A row that still reckons from x29 then names the caller's
        # record, and the caller would be omitted; without a proof such an epilogue cannot be told from the body.
        unproven = ctx.verdict(pc, cur.source[at]) != Verdict.PROVEN
        step.fail(unproven & (rule.base == CfaBase.FP), Reason.RULE_UNPROVEN, pc)
    stack = cur.stack[at]
    cfa = np.where(rule.base == CfaBase.SP, sp, fp) + rule.cfa_off
    high = ctx.stacks.high[np.maximum(stack, 0)]
    step.fail((cfa < sp) | (cfa > high) | (stack < 0), Reason.RECORD_OUTSIDE, cfa)
    ra_slot, fp_slot = cfa + rule.ra_off, cfa + rule.fp_off
    below = (rule.ra_at & (ra_slot < sp)) | (rule.fp_at & (fp_slot < sp))
    step.fail(below, Reason.SLOT_BELOW_SP, pc)
    ra, ra_ok = ctx.stacks.read(stack, ra_slot)
    caller_fp, fp_ok = ctx.stacks.read(stack, fp_slot)
    step.fail((rule.ra_at & ~ra_ok) | (rule.fp_at & ~fp_ok), Reason.UNREADABLE, cfa)
    step.pc = np.where(rule.ra_at, ra, cur.lr[at])
    step.fp = np.where(rule.fp_at, caller_fp, fp)
    step.sp, step.sp_known[:] = cfa, True
    step.source[:] = Source.FRAME
    step.evidence[:] = Evidence.RULE
    step.mark(rule.ra_in_lr, Evidence.LR)
    step.stack, step.low = stack, cfa.copy()
    made = (step.reason == 0) & rule.fp_at & (fp_slot == fp)
    pass_returned(ctx, cur, at[made], fp[made])
    return step


def _call_step(ctx: Context, cur: Cursor, at: Row, row: Row, function: Row) -> Step:
    """Leave code that made a call: by its rule and by its frame record, which must agree."""
    rule = _Rule(ctx, row)
    pc, sp, fp, sp_known = cur.pc[at], cur.sp[at], cur.fp[at], cur.sp_known[at]
    by_rule = Step.blank(at.size)
    by_rule.fail(rule.refused, Reason.RULE_REFUSED, pc)
    by_rule.fail(rule.undefined, Reason.RULE_UNDEFINED, pc)
    by_rule.fail(rule.ra_in_lr, Reason.RA_NOT_SAVED, pc)
    on_fp = rule.base == CfaBase.FP
    framed = rule.ra_at & rule.fp_at & (rule.ra_off == rule.fp_off + np.uint64(8))
    # Where SP was lost, x29 still points at the record of this frame, if the function makes one at all; the rule
    # says how far the CFA is from it.
    derived = framed & ~on_fp & ~sp_known & (ctx.mode is Mode.HYBRID)
    by_rule.fail(~on_fp & ~sp_known & ~derived, Reason.SP_UNKNOWN, pc)
    ask = np.flatnonzero(derived & (by_rule.reason == 0))
    if ask.size:
        derived[ask] = makes_record(ctx.code, function[ask])
        by_rule.fail(~on_fp & ~sp_known & ~derived, Reason.NO_METADATA, pc)
    cfa = np.where(on_fp, fp, sp) + rule.cfa_off
    cfa = np.where(derived, fp - rule.fp_off, cfa)
    by_rule.fail(cfa <= cur.low[at], Reason.RECORD_BELOW_SP, cfa)
    stack = cur.stack[at]
    by_rule.fail((stack < 0) | (cfa > ctx.stacks.high[np.maximum(stack, 0)]), Reason.RECORD_OUTSIDE, cfa)
    ra_slot, fp_slot = cfa + rule.ra_off, cfa + rule.fp_off
    by_rule.fail(ra_slot < cur.low[at], Reason.RECORD_BELOW_SP, ra_slot)
    by_rule.fail(rule.fp_at & (fp_slot < cur.low[at]), Reason.RECORD_BELOW_SP, fp_slot)
    by_rule.pc, ra_ok = ctx.stacks.read(stack, ra_slot)
    caller_fp, fp_ok = ctx.stacks.read(stack, fp_slot)
    by_rule.fail(~ra_ok | (rule.fp_at & ~fp_ok), Reason.UNREADABLE, cfa)
    by_rule.fp = np.where(rule.fp_at, caller_fp, fp)
    by_rule.sp, by_rule.sp_known[:] = cfa, True
    by_rule.source[:] = Source.FRAME
    by_rule.evidence[:] = Evidence.RULE
    by_rule.stack, by_rule.low = stack, cfa.copy()
    if ctx.mode is Mode.SFRAME:
        return by_rule
    return _agree(ctx, cur, at, by_rule, has_record=rule.fp_at)


def _agree(ctx: Context, cur: Cursor, at: Row, by_rule: Step, has_record: Mask) -> Step:
    """Hold the rule's answer against the frame record's; where they differ nobody knows.

    A function that keeps the caller's x29 has no record of its own (`has_record` False): the record at x29 is its
    caller's, and there is nothing to compare.
    """
    by_record = read_record(ctx, cur, at, cur.fp[at])
    differs = (by_record.pc != by_rule.pc) | (by_record.fp != by_rule.fp)
    ended = by_record.final | (by_record.source == Source.REGS)
    failed = has_record & (by_rule.reason == 0) & (by_record.reason != 0)
    by_rule.reason[failed] = by_record.reason[failed]
    by_rule.reason_addr[failed] = by_record.reason_addr[failed]
    by_rule.fail(has_record & ended, Reason.END_UNEXPECTED, cur.fp[at])
    by_rule.fail(
        has_record & differs,
        Reason.RULE_RECORD_MISMATCH,
        ctx.layout.strip(by_rule.pc),
        ctx.layout.strip(by_record.pc),
    )
    moved = by_record.stack != by_rule.stack
    by_rule.fail(has_record & moved, Reason.STACK_ORDER, cur.fp[at])
    by_rule.mark(has_record, Evidence.RECORD)
    return by_rule


def _bare_step(ctx: Context, cur: Cursor, at: Row, function: Row) -> Step:
    """Leave code without rules by its frame record alone; `verify_caller` then demands a direct call to it.

    Code that makes no record has called with x29 still at its caller's; to follow that one would omit the caller.
    """
    step = read_record(ctx, cur, at, cur.fp[at])
    fp = cur.fp[at]
    recordless = np.zeros(at.size, dtype=np.bool_)
    recordless[:] = ~makes_record(ctx.code, function)
    by_record = step.reason == 0
    step.fail(by_record & recordless, Reason.NO_METADATA, cur.pc[at])
    step.fail(step.final | (step.source == Source.REGS), Reason.END_UNEXPECTED, fp)
    step.fail(cur.sp_known[at] & (fp < cur.sp[at]), Reason.RECORD_BELOW_SP, fp)
    step.fail(step.stack != cur.stack[at], Reason.STACK_ORDER, fp)
    return step


def _irq_stack_step(ctx: Context, cur: Cursor, at: Row) -> Step:
    """Leave call_on_irq_stack: its record is on the stack that it came from, right above that stack's SP.

    It calls with SP at the very top of the stack that it goes to.

    Source:
        arch/arm64/kernel/entry.S: call_on_irq_stack.
    """
    step = read_record(ctx, cur, at, cur.fp[at])
    step.fail(step.final | (step.source == Source.REGS), Reason.END_UNEXPECTED, cur.fp[at])
    old, new = cur.stack[at], np.maximum(step.stack, 0)
    kinds = ctx.stacks.kind
    legal = ALLOWED[kinds[np.maximum(old, 0)], kinds[new]] & (old >= 0) & (step.stack != old)
    step.fail(~legal, Reason.STACK_ORDER, cur.fp[at])
    empty = cur.sp_known[at] & (cur.sp[at] == ctx.stacks.high[np.maximum(old, 0)])
    step.fail(~empty, Reason.STACK_ORDER, cur.sp[at])
    step.sp, step.sp_known[:] = step.low.copy(), True
    return step


def _end_step(ctx: Context, cur: Cursor, at: Row, kind: Code) -> Step:
    """Leave entry code: the struct pt_regs at SP ends the stack, or is an exception boundary.

    Source:
        arch/arm64/kernel/entry.S: kernel_entry; process.c: copy_thread; head.S: init_cpu_task.
    """
    sp, sp_known = cur.sp[at], cur.sp_known[at]
    fp = cur.fp[at]
    record = sp + np.uint64(ctx.layout.pt_regs_stackframe)
    if ctx.mode is Mode.SFRAME:
        fp = record
    step = read_record(ctx, cur, at, fp)
    if ctx.mode is Mode.SFRAME:
        step.fail(~sp_known, Reason.SP_UNKNOWN, cur.pc[at])
    boundary = step.source == Source.REGS
    step.fail(~step.final & ~boundary, Reason.END_UNEXPECTED, fp)
    step.fail(boundary & (kind != FunctionClass.ENTRY), Reason.END_UNEXPECTED, fp)
    step.fail(sp_known & (fp != record), Reason.RECORD_BELOW_SP, fp, record)
    step.fail(step.stack != cur.stack[at], Reason.STACK_ORDER, fp)
    _check_regs(ctx, step, boundary)
    return step


def _check_regs(ctx: Context, step: Step, boundary: Mask) -> None:
    """Verify that registers saved by an exception are those of kernel code on the same stack."""
    end = step.regs + np.uint64(ctx.layout.pt_regs_size)
    overflow = ctx.stacks.kind[np.maximum(step.stack, 0)] == StackKind.OVERFLOW
    step.fail(boundary & ((step.sp != end) | overflow), Reason.REGS_SP, step.sp, end)
    pstate, readable = ctx.stacks.read(step.stack, step.regs + np.uint64(ctx.layout.pt_regs_pstate))
    level = pstate & np.uint64(0x1F)
    kernel = readable & ((level == _EL1H) | (level == _EL2H))
    step.fail(boundary & ~kernel, Reason.REGS_UNEXPECTED, step.regs)
