"""Layer 5: rewritten return addresses in a certain walk: recovered, and held against what was traced.

Source:
    kernel/trace/fgraph.c: __ftrace_return_to_handler, function_graph_enter_regs;
    arch/arm64/kernel/entry-ftrace.S: return_to_handler (Linux 7.3).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from surefoot.dtypes import Addr, Mask, Row
from surefoot.unwind.callsites import Call, leads_to
from surefoot.unwind.context import Context
from surefoot.unwind.cursor import Cursor, Step
from surefoot.unwind.reasons import Reason
from surefoot.unwind.regions import FunctionClass
from surefoot.unwind.state import Source
from surefoot.unwind.trace import Evidence
from surefoot.unwind.trampolines import Match, match_entries, owner_in_chain

__all__ = ["handler_window", "leftover", "pass_returned", "recover"]

_SUB_SP: Final = 0xD100_03FF
"""SUB SP, SP, #n, the number left out (DDI 0487, C6.2)."""


def recover(ctx: Context, cur: Cursor, at: Row, step: Step, function: Row, callee: Row) -> None:
    """Replace trampoline addresses by the original ones, and check that they belong to the frame below.

    Args:
        ctx: the walk.
        cur: the walks; bookkeeping cursors move.
        at: (k,) int64.
        step: the step, PAC stripped; changed.
        function: (k,) int64, the function below.
        callee: (k,) int64, changed: the function that the call before the original address was made to.
    """
    # A function that is traced and probed and was entered by a tail branch from another such function has one
    # return address, rewritten four times, turn by turn. Every turn claims an entry or fails, so this ends.
    while True:
        on = (step.reason == 0) & ~step.final & (step.source == Source.FRAME)
        graph = np.flatnonzero(on & (step.pc == np.uint64(ctx.return_to_handler)))
        probe = np.flatnonzero(on & (step.pc == np.uint64(ctx.kretprobe_trampoline)))
        if graph.size:
            _recover_fgraph(ctx, cur, at, step, function, callee, graph)
        if probe.size:
            _recover_kretprobe(ctx, cur, at, step, probe)
        if not graph.size and not probe.size:
            return


def _recover_fgraph(ctx: Context, cur: Cursor, at: Row, step: Step, function: Row, callee: Row, idx: Row) -> None:
    """Recover function-graph addresses of the walks `idx`."""
    book, task, key = ctx.tasks.fgraph, cur.task[at[idx]], step.fp[idx]
    cursor = cur.fgraph[at[idx]]
    match = match_entries(book, task, cursor, key, ctx.return_to_handler, spare=cur.spare[at[idx]])
    _fail(step, idx, book.broken[task], Reason.FGRAPH_BROKEN, key)
    _fail(step, idx, match.entry < 0, Reason.FGRAPH_NO_MATCH, key)
    traced = _traced_function(ctx, match)
    _fail(step, idx, match.skipped | (traced < 0), Reason.FGRAPH_MISMATCH, key)
    below = np.maximum(function[idx], 0)
    start, end = ctx.code.functions.start[below], ctx.code.functions.end[below]
    own = owner_in_chain(book, cursor, match.entry, key, start, end)
    ask = np.flatnonzero(~own & (traced >= 0))
    if ask.size:  # entered by a tail branch from the traced function
        entry = ctx.code.functions.start[traced[ask]]
        own[ask] = leads_to(ctx.code, entry, function[idx[ask]]) != Call.MISMATCH
    _fail(step, idx, ~own, Reason.FGRAPH_MISMATCH, key)
    found = match.entry >= 0
    step.pc[idx[found]] = ctx.layout.strip(match.ret[found])
    step.mark(idx[found], Evidence.FGRAPH)
    callee[idx[found]] = traced[found]
    cur.fgraph[at[idx[found]]] = match.entry[found] + 1


def _recover_kretprobe(ctx: Context, cur: Cursor, at: Row, step: Step, idx: Row) -> None:
    """Recover kretprobe addresses of the walks `idx`."""
    book, task, key = ctx.tasks.kretprobe, cur.task[at[idx]], step.fp[idx]
    match = match_entries(book, task, cur.kretprobe[at[idx]], key, ctx.kretprobe_trampoline, zero_ends=True)
    _fail(step, idx, book.broken[task], Reason.KRETPROBE_BROKEN, key)
    _fail(step, idx, (match.entry < 0) | match.skipped, Reason.KRETPROBE_NO_MATCH, key)
    found = match.entry >= 0
    step.pc[idx[found]] = ctx.layout.strip(match.ret[found])
    step.mark(idx[found], Evidence.KRETPROBE)
    cur.kretprobe[at[idx[found]]] = match.entry[found] + 1


def handler_window(ctx: Context, cur: Cursor, at: Row) -> tuple[Step, Row]:
    """Leave return_to_handler while its C part runs: the traced function has returned, its caller is next.

    return_to_handler makes no frame record, so plain walking skips the caller (the parent of the traced
    function) without a trace. The parent's address is in the newest entry that is left on the return stack,
    whose position is the parent's frame record, where x29 already points. Where the entry has been taken off, the
    address is in the saved registers; see `_popped`.

    Args:
        ctx: the walk.
        cur: the walks; bookkeeping cursors move.
        at: (k,) int64, walks whose pc is a return address inside return_to_handler.

    Returns:
        the step, and (k,) int64, the traced function that the parent called; -1 where it is not known any more.
    """
    step = Step.blank(at.size)
    book, task, key = ctx.tasks.fgraph, cur.task[at], cur.fp[at]
    spare, cursor, stop = cur.spare[at], cur.fgraph[at], book.first[task + 1]
    newest = _has_key(ctx, cursor, stop, key)
    behind = (cursor == spare) & _has_key(ctx, cursor + 1, stop, key)
    match = match_entries(book, task, cursor, key, ctx.return_to_handler, spare=spare)
    step.fail(book.broken[task], Reason.FGRAPH_BROKEN, key)
    saved, is_popped = _popped(ctx, cur, at)
    # Words left in an entry that is being written can name this frame, whose own entry may have been taken off. Then
    # the registers hold the address; where they hold the entry's, it is right either way.
    agree = is_popped & (ctx.layout.strip(saved) == ctx.layout.strip(match.ret))
    doubtful = newest & ~behind & (cursor == cur.suspect[at]) & ~agree
    newest |= behind
    is_popped &= ~newest
    step.fail(doubtful, Reason.TRAMPOLINE_WINDOW, cur.pc[at])
    step.fail(~is_popped & (~newest | (match.entry < 0)), Reason.TRAMPOLINE_WINDOW, cur.pc[at])
    traced = np.where(is_popped, np.int64(-1), _traced_function(ctx, match))
    step.fail(~is_popped & (match.skipped | (traced < 0)), Reason.FGRAPH_MISMATCH, key)
    step.pc = np.where(is_popped, saved, match.ret)
    step.fp = key.copy()
    size = np.uint64(ctx.layout.ftrace_regs_size)
    step.sp, step.sp_known = cur.sp[at] + size, cur.sp_known[at] & (ctx.layout.ftrace_regs_size > 0)
    step.source[:] = Source.FRAME
    step.evidence[:] = Evidence.FGRAPH
    step.stack = cur.stack[at]
    step.low = np.where(step.sp_known, step.sp, cur.low[at])
    _place_parent(ctx, step)
    found = (step.reason == 0) & ~is_popped
    cur.fgraph[at[found]] = match.entry[found] + 1
    return step, traced


def _has_key(ctx: Context, entry: Row, stop: Row, key: Addr) -> Mask:
    """(k,) bool: there is such an entry before `stop`, and it belongs to the frame at `key`."""
    found = entry < stop
    if ctx.tasks.fgraph.key.size:
        found = found & (ctx.tasks.fgraph.key[np.where(found, entry, 0)] == key)
    return np.asarray(found)


def _popped(ctx: Context, cur: Cursor, at: Row) -> tuple[Addr, Mask]:
    """Give the parent's address that the C part of return_to_handler has put into the saved registers.

    __ftrace_return_to_handler() writes it there when it has read the entry, and takes the entry off much later,
    behind a barrier(). So where the newest entry is not the parent's any more, the word has been written; and the
    entry does not come back. (A newest entry that is being written in an interrupt of that time hides the parent's,
    but then that one is left over at the end of the walk, which is refused.) Before v6.14 the C part was not given
    these registers, and return_to_handler kept a smaller block on the stack: its first instruction tells.

    Returns:
        (k,) uint64, and (k,) bool: SP is known, and return_to_handler keeps the whole struct ftrace_regs there.
    """
    layout = ctx.layout
    first = np.full(at.shape, ctx.return_to_handler, dtype=np.uint64)
    words, _ = ctx.code.text.words_at(first)
    keeps = words == np.uint32(_SUB_SP | (layout.ftrace_regs_size & 0xFFF) << 10)
    saved, readable = ctx.stacks.read(cur.stack[at], cur.sp[at] + np.uint64(layout.ftrace_regs_pc))
    good = keeps & readable & cur.sp_known[at] & (layout.ftrace_regs_size > 0)
    return saved, good & (saved != np.uint64(ctx.return_to_handler))


def _place_parent(ctx: Context, step: Step) -> None:
    """Check that a parent's frame record lies where it can: above SP, or, for call_on_irq_stack, on another stack.

    That function's record is on the stack it came from, while its callees start at the top of the one it went to;
    the step that leaves it checks both.
    """
    low, high = (bound[np.maximum(step.stack, 0)] for bound in (ctx.stacks.low, ctx.stacks.high))
    here = (step.fp >= low) & (step.fp < high)
    step.fail(step.sp_known & ((step.sp > high) | (here & (step.sp > step.fp))), Reason.RECORD_BELOW_SP, step.fp)
    parent = ctx.code.functions.lookup(ctx.layout.strip(step.pc), np.ones(step.pc.shape, dtype=np.bool_))
    step.fail(~here & (ctx.class_of(parent) != FunctionClass.IRQ_STACK), Reason.STACK_ORDER, step.fp)


def pass_returned(ctx: Context, cur: Cursor, at: Row, fp: Addr) -> None:
    """Pass over kretprobe instances of functions that have returned into interrupted code.

    __kretprobe_trampoline_handler() sets the saved pc to the true address, runs the probes' handlers, and unlinks the
    instances last. Seen from in between, the probed function's caller has been interrupted at its return address, by
    the trampoline's own trap, and the instances are left.

    An instance holds x29 as it was when the probed function was entered. Where that is the record of the very
    function that an exception interrupted, whoever that function called has returned to it; and what runs on top of
    the exception has records above it. So the instance belongs to no live function, and there is none to be missed.

    Args:
        ctx: the walk.
        cur: the walks; cursors of the instances move.
        at: (k,) int64, walks at an exception boundary, in a function that has made its frame record.
        fp: (k,) uint64, address of that record.
    """
    book, stop = ctx.tasks.kretprobe, ctx.tasks.kretprobe.first[cur.task[at] + 1]
    todo = np.flatnonzero(cur.kretprobe[at] < stop)
    while todo.size:
        todo = todo[book.key[cur.kretprobe[at[todo]]] == fp[todo]]
        cur.kretprobe[at[todo]] += 1
        todo = todo[cur.kretprobe[at[todo]] < stop[todo]]


def leftover(ctx: Context, cur: Cursor, at: Row) -> tuple[Mask, Mask]:
    """Tell which complete walks have rewritten return addresses that no frame claimed.

    Such an entry means that the walk has passed over a function. The other causes are instants at which a trampoline
    or its C part works on the list: a complete walk has told these by then (`tracer`, `pass_returned`).

    Returns:
        (k,) bool for function-graph entries and (k,) bool for kretprobe instances.
    """
    task = cur.task[at]
    graph, probe = ctx.tasks.fgraph, ctx.tasks.kretprobe
    entry = cur.fgraph[at] + (cur.fgraph[at] == cur.spare[at])
    return entry < graph.first[task + 1], cur.kretprobe[at] < probe.first[task + 1]


def _traced_function(ctx: Context, match: Match) -> Row:
    """(k,) int64, the function whose entry was matched, -1 where there is none."""
    book = ctx.tasks.fgraph
    func = np.zeros(match.entry.shape, dtype=np.uint64)
    found = match.entry >= 0
    func[found] = book.func[match.entry[found]]
    index = ctx.code.functions.lookup(func, np.zeros(func.shape, dtype=np.bool_))
    return np.where(found, index, np.int64(-1))


def _fail(step: Step, idx: Row, mask: Mask, reason: Reason, addr: Addr) -> None:
    """Step.fail for masks and addresses that speak of the walks `idx` only."""
    whole = np.zeros(step.reason.shape, dtype=np.bool_)
    whole[idx] = mask
    addrs = np.zeros(step.reason.shape, dtype=np.uint64)
    addrs[idx] = addr
    step.fail(whole, reason, addrs)
