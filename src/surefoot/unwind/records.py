"""Layer 5: steps along frame records, as the kernel's own walk makes them.

Source:
    arch/arm64/kernel/stacktrace.c: kunwind_next_frame_record, kunwind_next_frame_record_meta,
    kunwind_next_regs_pc, kunwind_recover_return_address of Linux 7.3.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from surefoot.dtypes import Addr, Mask, Row
from surefoot.unwind.context import Context
from surefoot.unwind.cursor import Cursor, Step
from surefoot.unwind.reasons import Reason
from surefoot.unwind.state import Source
from surefoot.unwind.trace import Evidence
from surefoot.unwind.trampolines import match_entries

__all__ = ["follow_record", "read_record", "recover_as_kernel"]

_RECORD: Final = 16
_METADATA_RECORD: Final = 24
_TYPE_FINAL: Final = 1
"""FRAME_META_TYPE_FINAL (arch/arm64/include/asm/stacktrace/frame.h)."""
_TYPE_PT_REGS: Final = 2
"""FRAME_META_TYPE_PT_REGS."""


def read_record(ctx: Context, cur: Cursor, at: Row, fp: Addr) -> Step:
    """Take one step along the frame record at each fp.

    Args:
        ctx: the walk.
        cur: where the walks stand (not changed).
        at: (k,) int64, the walks to move.
        fp: (k,) uint64, address of the record.

    Returns:
        the outcome, PAC not yet stripped and trampolines not yet replaced; a record with metadata has been
        followed to the final record or to the saved registers.
    """
    step = Step.blank(at.size)
    step.fail(fp & np.uint64(7) != 0, Reason.FP_MISALIGNED, fp)
    stack = cur.find_stack(at, ctx.tasks, ctx.stacks, fp, _RECORD)
    step.fail(stack < 0, Reason.RECORD_OUTSIDE, fp)
    step.fp, readable = ctx.stacks.read(stack, fp)
    step.pc, also = ctx.stacks.read(stack, fp + np.uint64(8))
    step.fail(~(readable & also), Reason.UNREADABLE, fp)
    step.stack, step.low = stack, fp + np.uint64(_RECORD)
    step.source[:] = Source.FRAME
    step.evidence[:] = Evidence.RECORD
    meta = np.flatnonzero((step.reason == 0) & (step.fp == 0) & (step.pc == 0))
    if meta.size:
        _follow_metadata(ctx, cur, at, step, meta, fp)
    return step


def _follow_metadata(ctx: Context, cur: Cursor, at: Row, step: Step, meta: Row, fp: Addr) -> None:
    """Finish the steps that met a record of zeros: the final record, or the registers of an exception."""
    here = fp[meta]
    whole = cur.find_stack(at[meta], ctx.tasks, ctx.stacks, here, _METADATA_RECORD)
    kind, readable = ctx.stacks.read(whole, here + np.uint64(16))
    sub = Step.blank(meta.size)
    sub.fail(whole < 0, Reason.RECORD_OUTSIDE, here)
    sub.fail(~readable, Reason.UNREADABLE, here)
    sub.evidence[:] = Evidence.METADATA
    final = kind == _TYPE_FINAL
    at_end = here == ctx.tasks.final_record[cur.task[at[meta]]]
    sub.final = final & at_end & (sub.reason == 0)
    sub.fail(final & ~at_end, Reason.FINAL_ELSEWHERE, here)
    sub.fail(~final & (kind != _TYPE_PT_REGS), Reason.METADATA_TYPE, here)
    regs = here - np.uint64(ctx.layout.pt_regs_stackframe)
    boundary = (sub.reason == 0) & ~final
    stack = cur.find_stack(at[meta], ctx.tasks, ctx.stacks, regs, ctx.layout.pt_regs_size)
    sub.fail(boundary & (stack < 0), Reason.REGS_OUTSIDE, regs)
    stack = np.where(boundary, stack, whole)
    readable = np.ones(meta.size, dtype=np.bool_)
    for name, offset in (
        ("pc", ctx.layout.pt_regs_pc),
        ("fp", ctx.layout.pt_regs_fp),
        ("sp", ctx.layout.pt_regs_sp),
        ("lr", ctx.layout.pt_regs_lr),
    ):
        value, good = ctx.stacks.read(stack, regs + np.uint64(offset))
        setattr(sub, name, value)
        readable &= good
    sub.fail(boundary & ~readable, Reason.UNREADABLE, regs)
    sub.sp_known[:] = True
    sub.source = np.where(final, np.uint8(Source.FRAME), np.uint8(Source.REGS))
    sub.regs = regs
    sub.stack, sub.low = stack, regs + np.uint64(ctx.layout.pt_regs_size)
    step.put(meta, sub)


def recover_as_kernel(ctx: Context, cur: Cursor, at: Row, step: Step) -> None:
    """Replace trampoline addresses by the original ones, as the kernel does: function graph, then kretprobe.

    Moves the bookkeeping cursors of the walks whose address was replaced.
    """
    if ctx.has_return_to_handler:
        traced = (step.reason == 0) & ~step.final & (step.pc == np.uint64(ctx.return_to_handler))
        _replace(ctx, cur, at, step, traced, graph=True)
    if ctx.has_kretprobe_trampoline:
        probed = (step.reason == 0) & ~step.final & (step.pc == np.uint64(ctx.kretprobe_trampoline))
        _replace(ctx, cur, at, step, probed, graph=False)


def _replace(ctx: Context, cur: Cursor, at: Row, step: Step, mask: Mask, *, graph: bool) -> None:
    """Replace the addresses of `mask` out of one kind of bookkeeping."""
    idx = np.flatnonzero(mask)
    if not idx.size:
        return
    cursor = cur.fgraph if graph else cur.kretprobe
    book = ctx.tasks.fgraph if graph else ctx.tasks.kretprobe
    trampoline = ctx.return_to_handler if graph else ctx.kretprobe_trampoline
    task = cur.task[at[idx]]
    match = match_entries(book, task, cursor[at[idx]], step.fp[idx], trampoline, zero_ends=not graph)
    lost = np.zeros(step.reason.shape, dtype=np.bool_)
    lost[idx] = match.entry < 0
    step.fail(lost, Reason.FGRAPH_NO_MATCH if graph else Reason.KRETPROBE_NO_MATCH, step.fp)
    found = match.entry >= 0
    step.pc[idx[found]] = match.ret[found]  # as recorded: the kernel strips before it recovers, not after
    step.mark(idx[found], Evidence.FGRAPH if graph else Evidence.KRETPROBE)
    after = match.entry[found] + 1
    # To ftrace_graph_ret_addr index 0, that of the oldest entry, means "from the newest on" at its next call.
    again = (after == book.first[task[found] + 1]) & graph
    cursor[at[idx[found]]] = np.where(again, book.first[task[found]], after)


def follow_record(ctx: Context, cur: Cursor, at: Row) -> Step:
    """Take one whole step as the kernel's plain walk takes it, for the walks `at`."""
    step = read_record(ctx, cur, at, cur.fp[at])
    step.pc = ctx.layout.strip(step.pc)
    recover_as_kernel(ctx, cur, at, step)
    return step
