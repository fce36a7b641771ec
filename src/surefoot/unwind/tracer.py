"""Layer 5: from a tracer outwards: through ftrace_caller into the traced function, and on to that one's caller.

A traced function calls ftrace_caller from its patch site, before it has done anything: x9 holds its return address.
ftrace_caller makes two frame records above the registers that it saves (struct ftrace_regs), an inner one that names
the site and an outer one that names the function's caller; nobody writes to them.

Function-graph tracing puts the caller's address on the task's return stack and the trampoline into the saved
registers, in this order. Whichever has been done, the outer record holds the true address: the frames are certain
throughout. What is left to decide is whether the newest entry of the return stack is this function's; see `_claim`.

Source:
    arch/arm64/kernel/entry-ftrace.S: ftrace_caller; arch/arm64/kernel/ftrace.c: ftrace_graph_func;
    kernel/trace/fgraph.c: ftrace_push_return_trace (Linux 7.3).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from surefoot.dtypes import Mask, Row
from surefoot.isa.branches import MOV_X9_X30
from surefoot.metadata.rules import CfaBase, FpRule, RaRule
from surefoot.unwind.context import Context
from surefoot.unwind.cursor import Cursor, Step
from surefoot.unwind.reasons import Reason
from surefoot.unwind.records import read_record
from surefoot.unwind.state import Source
from surefoot.unwind.trace import Evidence

__all__ = ["leave_site", "leave_tracer"]

_RECORD: Final = np.uint64(16)


def leave_tracer(ctx: Context, cur: Cursor, at: Row) -> Step:
    """Leave ftrace_caller while it calls a tracer: the traced function is next, at its patch site.

    x29 points at the inner record, which lies right above the saved registers, where SP is; the outer one follows.
    A tracer may send the task elsewhere than back (live patching does) by writing the saved pc. What it chose is then
    on no stack, and the walk is refused. Before it has chosen nobody can know: that is for those who ask to decide,
    who see ftrace_caller in the trace.

    Args:
        ctx: the walk.
        cur: the walks.
        at: (k,) int64, walks whose pc is a return address inside ftrace_caller.

    Returns:
        the step; its caller demands a direct call of ftrace_caller before the site.
    """
    fp, stack = cur.fp[at], cur.stack[at]
    step = read_record(ctx, cur, at, fp)
    step.fail(step.final | (step.source == Source.REGS), Reason.END_UNEXPECTED, fp)
    step.fail(step.stack != stack, Reason.STACK_ORDER, fp)
    size = ctx.layout.ftrace_regs_size
    regs = fp - np.uint64(size)
    unknown = np.full(at.shape, size == 0, dtype=np.bool_)
    step.fail(unknown | (step.fp != fp + _RECORD), Reason.IN_FTRACE_CALLER, cur.pc[at])
    step.fail((cur.sp_known[at] & (cur.sp[at] != regs)) | (regs < cur.low[at]), Reason.RECORD_BELOW_SP, fp)
    target, readable = ctx.stacks.read(stack, regs + np.uint64(ctx.layout.ftrace_regs_pc))
    step.fail(~readable, Reason.UNREADABLE, regs)
    step.fail(target != step.pc, Reason.IN_FTRACE_CALLER, cur.pc[at], target)
    step.sp, step.sp_known[:] = fp + _RECORD + _RECORD, True
    step.mark(step.reason == 0, Evidence.TRACER)
    return step


def leave_site(ctx: Context, cur: Cursor, at: Row, row: Row, function: Row) -> Step:
    """Leave a traced function at its patch site: its caller is in the outer record of ftrace_caller.

    Three witnesses: the word before the call moves LR to x9, which is what the record holds; the rule says that LR
    holds the return address there and that x29 and SP are the caller's; and the caller's call, checked as any other,
    must lead to this function.

    Args:
        ctx: the walk.
        cur: the walks, entered by `leave_tracer`; the cursor of the return stack moves.
        at: (k,) int64.
        row: (k,) int64, the rule of the call at the site.
        function: (k,) int64, the traced function.

    Returns:
        the step, PAC not yet stripped and trampolines not yet replaced.
    """
    pc, fp, rules = cur.pc[at], cur.fp[at], ctx.code.rules
    step = read_record(ctx, cur, at, fp)
    step.fail(step.final | (step.source == Source.REGS), Reason.END_UNEXPECTED, fp)
    step.fail(step.stack != cur.stack[at], Reason.STACK_ORDER, fp)
    words, _ = ctx.code.text.words_at(pc - np.uint64(8))
    plain = (rules.cfa_base[row] == CfaBase.SP) & (rules.cfa_off[row] == 0)
    untouched = plain & (rules.ra_rule[row] == RaRule.IN_LR) & (rules.fp_rule[row] == FpRule.UNCHANGED)
    step.fail(~untouched, Reason.RULE_RECORD_MISMATCH, pc)
    step.fail(words != np.uint32(MOV_X9_X30), Reason.IN_FTRACE_CALLER, pc)
    step.sp, step.sp_known[:] = cur.sp[at], True
    step.low = cur.sp[at].copy()
    step.evidence |= np.uint16(Evidence.RULE)
    _claim(ctx, cur, at, step, function)
    return step


def _claim(ctx: Context, cur: Cursor, at: Row, step: Step, function: Row) -> None:
    """Claim the entry that the graph tracer has made for the function, where it has.

    No answer depends on it: the caller's address is in the record, whatever the list says. What depends on it is
    whether an entry is left over at the end of the walk, which is refused as the sign of a function passed over.

    The newest entry is this activation's if it has this function, this return address and this frame of the caller:
    an older activation with the same three would have to be live in a call that the caller, whose frame it is, has
    since left to make this one. While it is being written only the return address is sure to be there; the rest are
    words of an older use of its slot. So an entry that agrees in the return address alone may be passed over, once:
    either it is this activation's and nobody else claims it, or that of an outer activation which will claim it. If
    the words left from before make another frame claim it in error, that frame's own entry is left over.

    Where the caller's address is the trampoline itself (the function was entered by a tail branch from another
    traced one), both entries share the frame; `recover` passes over those that hold the trampoline and finds the
    true address in the same older entry with this function's entry on the list or not.
    """
    todo = np.flatnonzero(step.reason == 0)
    whole, same = _compare(ctx, cur, at, step, function, todo)
    again = todo[~whole & (cur.spare[at[todo]] == cur.fgraph[at[todo]])]
    _note(cur, at[todo], whole, same)
    if again.size:  # what may be passed over has been offered on the inside: pass over it, and look at the next
        cur.fgraph[at[again]] += 1
        _note(cur, at[again], *_compare(ctx, cur, at, step, function, again))


def _note(cur: Cursor, at: Row, whole: Mask, same: Mask) -> None:
    """Claim the newest entries that are whole; of the others note that they may be half-written, or passed over."""
    newest = cur.fgraph[at]
    cur.suspect[at[~whole]] = newest[~whole]
    cur.spare[at[same & ~whole]] = newest[same & ~whole]
    cur.fgraph[at[whole]] += 1


def _compare(ctx: Context, cur: Cursor, at: Row, step: Step, function: Row, idx: Row) -> tuple[Mask, Mask]:
    """Hold the newest entries of the walks `idx` against their step: (j,) bool all alike, (j,) bool address alike."""
    book, entry = ctx.tasks.fgraph, cur.fgraph[at[idx]]
    left = entry < book.first[cur.task[at[idx]] + 1]
    if not book.ret.size:
        return left, left
    safe, ret = np.where(left, entry, 0), ctx.layout.strip(step.pc[idx])
    start, end = ctx.code.functions.start[function[idx]], ctx.code.functions.end[function[idx]]
    same = left & (ctx.layout.strip(book.ret[safe]) == ret)
    whole = same & (book.func[safe] >= start) & (book.func[safe] < end) & (book.key[safe] == step.fp[idx])
    return whole & (ret != np.uint64(ctx.return_to_handler)), same
