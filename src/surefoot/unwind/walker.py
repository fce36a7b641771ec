"""Layer 5: the walk: one loop over frames, all tasks of a batch at once."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Addr, Mask, Row
from surefoot.unwind.code import CodeMap
from surefoot.unwind.context import Context, Mode
from surefoot.unwind.cursor import UNKNOWN_FUNCTION, Cursor, Step
from surefoot.unwind.reasons import Reason
from surefoot.unwind.records import follow_record, recover_as_kernel
from surefoot.unwind.rewritten import leftover
from surefoot.unwind.state import Layout, Source, Stacks, Start, Tasks
from surefoot.unwind.steps import boundary_refusal, certain_step
from surefoot.unwind.trace import Evidence, Traces
from surefoot.unwind.verify import verify_start

__all__ = ["walk"]

_STARTS: Final = {
    Start.NO_REGS: Reason.NO_REGISTERS,
    Start.SWITCHING: Reason.SWITCHING,
}


def walk(
    code: CodeMap, stacks: Stacks, tasks: Tasks, layout: Layout, *, mode: Mode = Mode.HYBRID, strict: bool = False
) -> Traces:
    """Walk the stacks of all tasks and give a verdict for each.

    A walk that loses certainty keeps its first reason; the rest of its trace is followed along frame records,
    for people, and marked DOUBTFUL. No content of memory, registers or bookkeeping makes this raise.

    Args:
        code: the running kernel's code.
        stacks: stack memory.
        tasks: n tasks.
        layout: structure offsets.
        mode: hybrid, fp or sframe.
        strict: accept proved rules only (hybrid and sframe).

    Returns:
        the traces of n tasks.

    Raises:
        Inconsistent: the columns of the inputs do not fit each other.
    """
    ctx = Context.make(code, stacks, tasks, layout, mode=mode, strict=strict)
    verdicts = _Verdicts(len(tasks))
    cur = _begin(ctx, verdicts)
    frames: list[_Frames] = []
    most = _most_frames(ctx)
    known = np.full(len(cur), UNKNOWN_FUNCTION, dtype=np.int64)
    for depth in range(most):
        if not len(cur):
            break
        function = ctx.function_of(cur.pc, cur.source, known)
        ambiguous = np.zeros(len(cur), dtype=np.uint64)
        if mode is Mode.FP:
            step, ended = _step_fp(ctx, cur, verdicts, depth)
        else:
            step, ended = _step_certain(ctx, cur, verdicts, depth, function, ambiguous)
        frames.append(_Frames(cur, function, ambiguous))
        cur, known = _advance(ctx, cur, step, ended), step.function[~ended]
    else:
        verdicts.lose(cur.task, np.full(len(cur), Reason.TOO_DEEP, dtype=np.uint8), most, cur.pc, cur.pc)
    return _collect(len(tasks), frames, verdicts)


def _most_frames(ctx: Context) -> int:
    """Give a number of frames that no walk can exceed, whatever the memory says.

    A step moves up by at least one word, or claims a function-graph entry, or leaves interrupted code, whose
    registers took several words: every stack is passed once, so there are fewer frames than words and entries.
    """
    if not len(ctx.tasks):
        return 0
    words = np.append((ctx.stacks.high - ctx.stacks.low) >> np.uint64(3), np.uint64(0)).astype(np.int64)
    held = words[ctx.tasks.stacks].sum(axis=1)  # index -1, no stack, is the zero at the end
    entries = np.diff(ctx.tasks.fgraph.first)
    return int((held + entries).max()) + 2


class _Verdicts:
    """Reasons per task; the first one stays."""

    def __init__(self, size: int) -> None:
        self.reason = np.zeros(size, dtype=np.uint8)
        self.frame = np.zeros(size, dtype=np.int64)
        self.addr = np.zeros(size, dtype=np.uint64)
        self.other = np.zeros(size, dtype=np.uint64)

    def lose(self, task: Row, reason: NDArray[np.uint8], depth: int, addr: Addr, other: Addr) -> None:
        """Record reasons for tasks that have none yet; reason 0 records nothing."""
        new = (reason != 0) & (self.reason[task] == 0)
        to = task[new]
        self.reason[to], self.frame[to] = reason[new], depth
        self.addr[to], self.other[to] = addr[new], other[new]


class _Frames:
    """The frames that one round of the loop has shown."""

    __slots__ = ("ambiguous", "evidence", "fp", "function", "pc", "regs", "source", "sp", "task")

    def __init__(self, cur: Cursor, function: Row, ambiguous: Addr) -> None:
        self.task, self.pc, self.source, self.evidence = cur.task, cur.pc, cur.source, cur.evidence
        self.function, self.fp, self.regs, self.ambiguous = function, cur.fp, cur.regs, ambiguous
        self.sp = np.where(cur.sp_known, cur.sp, np.uint64(0))


def _begin(ctx: Context, verdicts: _Verdicts) -> Cursor:
    """Place every walk at its first frame; tasks without a kernel frame end here."""
    tasks = ctx.tasks
    none = np.zeros(len(tasks), dtype=np.uint64)
    every = np.arange(len(tasks), dtype=np.int64)
    for start, reason in _STARTS.items():
        verdicts.lose(every, np.where(tasks.start == start, np.uint8(reason), np.uint8(0)), 0, tasks.pc, none)
    running = (tasks.start == Start.REGS) | (tasks.start == Start.USER)
    if ctx.mode is Mode.FP:
        user = tasks.start == Start.USER
        verdicts.lose(every, np.where(user, np.uint8(Reason.ON_CPU), np.uint8(0)), 0, tasks.pc, none)
    at = np.flatnonzero((tasks.start == Start.BLOCKED) | (tasks.start == Start.REGS) | (tasks.start == Start.CALLER))
    begun = tasks.start[at]
    source = np.full(at.size, Source.TASK, dtype=np.uint8)
    source[running[at]] = Source.REGS
    source[begun == Start.CALLER] = Source.CALLER
    cur = Cursor(
        task=at,
        pc=ctx.layout.strip(tasks.pc[at]),
        fp=tasks.fp[at].copy(),
        sp=tasks.sp[at].copy(),
        sp_known=np.not_equal(begun, Start.CALLER),
        lr=ctx.layout.strip(tasks.lr[at]),
        source=source,
        evidence=np.full(at.size, Evidence.SAVED, dtype=np.uint16),
        regs=np.zeros(at.size, dtype=np.uint64),
        stack=np.full(at.size, -1, dtype=np.int64),
        low=np.zeros(at.size, dtype=np.uint64),
        left=np.zeros(at.size, dtype=np.uint8),
        fgraph=tasks.fgraph.first[at].copy(),
        kretprobe=tasks.kretprobe.first[at].copy(),
        spare=np.full(at.size, -1, dtype=np.int64),
        suspect=np.full(at.size, -1, dtype=np.int64),
        doubt=np.zeros(at.size, dtype=np.bool_),
    )
    if ctx.mode is Mode.FP:
        _begin_fp(ctx, cur, verdicts)
    else:
        _begin_certain(ctx, cur, verdicts)
    return cur


def _begin_fp(ctx: Context, cur: Cursor, verdicts: _Verdicts) -> None:
    """Replace a trampoline address in the first frame, as kunwind_init_from_* and do_kunwind do."""
    at = np.arange(len(cur), dtype=np.int64)
    step = Step.blank(len(cur))
    step.pc, step.fp, step.evidence = cur.pc.copy(), cur.fp.copy(), cur.evidence.copy()
    recover_as_kernel(ctx, cur, at, step)
    cur.pc, cur.evidence = step.pc, step.evidence
    verdicts.lose(cur.task, step.reason, 0, step.reason_addr, step.other)
    cur.doubt = step.reason != 0


def _begin_certain(ctx: Context, cur: Cursor, verdicts: _Verdicts) -> None:
    """Find the stack of each first frame, and check that a blocked task is where tasks block."""
    at = np.arange(len(cur), dtype=np.int64)
    stack = cur.locate_sp(at, ctx.tasks, ctx.stacks)
    caller = cur.source == Source.CALLER
    reason = np.zeros(len(cur), dtype=np.uint8)
    blocked = cur.source == Source.TASK
    reason[blocked & ~verify_start(ctx, cur.pc)] = Reason.CALL_MISMATCH
    reason[~caller & (stack < 0)] = Reason.SP_OUTSIDE
    found = cur.find_stack(at, ctx.tasks, ctx.stacks, cur.fp, 16)
    stack = np.where(caller, found, stack)
    reason[caller & (stack < 0)] = Reason.RECORD_OUTSIDE
    inside = np.flatnonzero(stack >= 0)
    low = np.where(caller, cur.fp, cur.sp)
    cur.enter(inside, ctx.stacks, stack[inside], low[inside])
    # The vectors reckon with SP before they know that it is good, so it may lie anywhere there.
    lost = np.flatnonzero((reason == Reason.SP_OUTSIDE) & (cur.source == Source.REGS))
    named = boundary_refusal(ctx, cur.pc[lost])
    reason[lost[named != 0]] = named[named != 0]
    verdicts.lose(cur.task, reason, 0, np.where(reason == Reason.SP_OUTSIDE, cur.sp, cur.pc), cur.fp)
    cur.doubt = reason != 0


def _step_fp(ctx: Context, cur: Cursor, verdicts: _Verdicts, depth: int) -> tuple[Step, Mask]:
    """Show a frame and step, as arch_stack_walk_reliable does: saved registers end reliability, nothing else."""
    boundary = np.where(cur.source == Source.REGS, np.uint8(Reason.EXCEPTION_BOUNDARY), np.uint8(0))
    verdicts.lose(cur.task, boundary, depth, cur.pc, cur.lr)
    cur.doubt |= boundary != 0
    step = follow_record(ctx, cur, np.arange(len(cur), dtype=np.int64))
    verdicts.lose(cur.task, step.reason, depth, step.reason_addr, step.other)
    return step, step.final | (step.reason != 0)


def _step_certain(
    ctx: Context, cur: Cursor, verdicts: _Verdicts, depth: int, function: Row, ambiguous: Addr
) -> tuple[Step, Mask]:
    """Step with evidence where that is possible; follow frame records where certainty is lost already."""
    step = Step.blank(len(cur))
    sure = np.flatnonzero(~cur.doubt)
    if sure.size:
        part = certain_step(ctx, cur, sure, function[sure])
        if bool(np.any(part.final)):
            graph, probe = leftover(ctx, cur, sure)
            part.fail(part.final & graph, Reason.FGRAPH_MISMATCH, cur.fp[sure])
            part.fail(part.final & probe, Reason.KRETPROBE_NO_MATCH, cur.fp[sure])
        verdicts.lose(cur.task[sure], part.reason, depth, part.reason_addr, part.other)
        cur.doubt[sure[part.reason != 0]] = True
        no_rule = part.reason == Reason.NO_RULE_AT_BOUNDARY
        ambiguous[sure[no_rule]] = cur.lr[sure[no_rule]]
        step.put(sure, part)
    lost = np.flatnonzero(cur.doubt)
    if lost.size:
        part = follow_record(ctx, cur, lost)
        part.evidence |= np.uint16(Evidence.DOUBTFUL)
        part.sp_known[:] = False
        step.put(lost, part)
    return step, step.final | (step.reason != 0)


def _advance(ctx: Context, cur: Cursor, step: Step, ended: Mask) -> Cursor:
    """Give the walks that go on, moved to their next frame."""
    on = np.flatnonzero(~ended)
    rest = cur.where(~ended)
    every = np.arange(on.size, dtype=np.int64)
    for name in ("pc", "fp", "sp", "sp_known", "lr", "source", "evidence", "regs"):
        setattr(rest, name, getattr(step, name)[on])
    # A frame that was not found through a boundary has no saved registers.
    rest.regs = np.where(rest.source == Source.REGS, rest.regs, np.uint64(0))
    rest.lr = ctx.layout.strip(rest.lr)
    rest.enter(every, ctx.stacks, step.stack[on], step.low[on])
    return rest


def _collect(size: int, frames: list[_Frames], verdicts: _Verdicts) -> Traces:
    """Order the frames of all rounds by task."""

    def column(name: str, dtype: type[np.generic]) -> NDArray[Any]:
        parts = [getattr(part, name) for part in frames]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=dtype)

    task = np.concatenate([part.task for part in frames]) if frames else np.zeros(0, dtype=np.int64)
    order = np.argsort(task, kind="stable")
    first = np.zeros(size + 1, dtype=np.int64)
    np.cumsum(np.bincount(task, minlength=size), out=first[1:])
    return Traces(
        first=first,
        pc=column("pc", np.uint64)[order],
        source=column("source", np.uint8)[order],
        evidence=column("evidence", np.uint16)[order],
        function=column("function", np.int64)[order],
        sp=column("sp", np.uint64)[order],
        fp=column("fp", np.uint64)[order],
        ambiguous=column("ambiguous", np.uint64)[order],
        regs=column("regs", np.uint64)[order],
        reason=verdicts.reason,
        reason_frame=verdicts.frame,
        reason_addr=verdicts.addr,
        reason_other=verdicts.other,
    )
