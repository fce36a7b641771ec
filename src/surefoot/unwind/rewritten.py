"""Layer 5: rewritten return addresses in a certain walk: recovered, and held against what was traced.

Source:
    kernel/trace/fgraph.c: __ftrace_return_to_handler, function_graph_enter_regs;
    arch/arm64/kernel/entry-ftrace.S: return_to_handler (Linux 7.3).
"""

from __future__ import annotations

import numpy as np

from surefoot.dtypes import Addr, Mask, Row
from surefoot.unwind.callsites import Call, leads_to
from surefoot.unwind.context import Context
from surefoot.unwind.cursor import Cursor, Step
from surefoot.unwind.reasons import Reason
from surefoot.unwind.state import Source
from surefoot.unwind.trace import Evidence
from surefoot.unwind.trampolines import Match, match_entries, owner_in_chain

__all__ = ["handler_window", "leftover", "recover"]


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
    match = match_entries(book, task, cursor, key, ctx.return_to_handler)
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
    whose position is the parent's frame record, where x29 already points. The same address is in the pc slot
    of the ftrace_regs that return_to_handler keeps at SP.

    Args:
        ctx: the walk.
        cur: the walks; bookkeeping cursors move.
        at: (k,) int64, walks whose pc is a return address inside return_to_handler.

    Returns:
        the step, and (k,) int64, the traced function that the parent called.
    """
    step = Step.blank(at.size)
    book, task, key = ctx.tasks.fgraph, cur.task[at], cur.fp[at]
    cursor = cur.fgraph[at]
    left = cursor < book.first[task + 1]
    safe = np.where(left, cursor, 0)
    newest = left.copy()
    if book.key.size:
        newest &= book.key[safe] == key
    match = match_entries(book, task, cursor, key, ctx.return_to_handler)
    step.fail(book.broken[task], Reason.FGRAPH_BROKEN, key)
    step.fail(~newest | (match.entry < 0), Reason.TRAMPOLINE_WINDOW, cur.pc[at])
    traced = _traced_function(ctx, match)
    step.fail(match.skipped | (traced < 0), Reason.FGRAPH_MISMATCH, key)
    found = step.reason == 0
    step.pc = match.ret.copy()
    step.fp = key.copy()
    size = np.uint64(ctx.layout.ftrace_regs_size)
    step.sp, step.sp_known = cur.sp[at] + size, cur.sp_known[at] & (ctx.layout.ftrace_regs_size > 0)
    step.source[:] = Source.FRAME
    step.evidence[:] = Evidence.FGRAPH
    step.stack = cur.stack[at]
    step.low = np.where(step.sp_known, step.sp, cur.low[at])
    high = ctx.stacks.high[np.maximum(step.stack, 0)]
    step.fail(step.sp_known & ((step.sp > high) | (step.sp > key)), Reason.RECORD_BELOW_SP, key)
    cur.fgraph[at[found]] = match.entry[found] + 1
    return step, traced


def leftover(ctx: Context, cur: Cursor, at: Row) -> tuple[Mask, Mask]:
    """Tell which complete walks have rewritten return addresses that no frame claimed.

    Such an entry means that the walk has passed over a function. The other causes are instants inside a
    trampoline (the entry is made before the return address is rewritten, and a kretprobe's is unlinked after its
    frame has gone), which no complete walk crosses but in the last case; that one is given up.

    Returns:
        (k,) bool for function-graph entries and (k,) bool for kretprobe instances.
    """
    task = cur.task[at]
    graph, probe = ctx.tasks.fgraph, ctx.tasks.kretprobe
    return cur.fgraph[at] < graph.first[task + 1], cur.kretprobe[at] < probe.first[task + 1]


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
