"""Layer 8: from a capture and its walks to the views that are printed.

Invariant: nothing is left out: every frame of every chosen task has a view, whatever the verdict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final, Protocol

import numpy as np

from surefoot.dtypes import Addr
from surefoot.report.stack_view import (
    Difference,
    FrameView,
    Omission,
    Place,
    StackReport,
    Tally,
    TaskMeta,
    TaskView,
    Vector,
)
from surefoot.targets.capture import TaskList
from surefoot.targets.linux import SourceLine
from surefoot.unwind.consume import Symbol, Trace, UnwindState, Walkable
from surefoot.unwind.context import Mode
from surefoot.unwind.reasons import Reason
from surefoot.unwind.state import Source, Start
from surefoot.unwind.trace import Evidence, Traces

__all__ = ["Captured", "Lines", "ModuleOf", "build_report"]

Lines = Callable[[Addr], Sequence[Sequence[SourceLine]]]
"""Gives the source lines of instructions, innermost inlined function first; empty where nothing is known."""
ModuleOf = Callable[[int], str | None]
"""Gives the module that an address of code lies in, None for the kernel itself."""

_VECTORS: Final = {vector.value: vector for vector in Vector}


class Captured(Walkable, Protocol):
    """What a report is made of: stacks, code, and who the tasks are."""

    @property
    def name(self) -> str:
        """Name of the target."""
        ...

    @property
    def release(self) -> str:
        """`uname -r` of its kernel."""
        ...

    @property
    def build_id(self) -> str:
        """Build-id of its kernel."""
        ...

    @property
    def info(self) -> TaskList:
        """Who the tasks are, in the order of `tasks`."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What is missing or odd in the capture, a sentence each."""
        ...


def build_report(
    captured: Captured,
    walks: Mapping[Mode, Traces],
    mode: Mode,
    *,
    strict: bool = False,
    unreliable: bool = False,
    module_of: ModuleOf | None = None,
    lines: Lines | None = None,
) -> StackReport:
    """Give the report on all tasks of a capture.

    Args:
        captured: the tasks.
        walks: their traces by mode: FP, HYBRID and `mode`.
        mode: the mode whose traces are shown.
        strict: the walks accepted proved rules only.
        unreliable: show only the tasks that are not reliable in `mode`; the tallies are over all.
        module_of: names the modules.
        lines: names the source lines; it is asked once, for all places shown.
    """
    metas = _metas(captured.info)
    traces = walks[mode]
    shown = np.flatnonzero(~traces.reliable) if unreliable else np.arange(len(traces))
    places = _Places(captured, module_of)
    tasks = tuple(_task_view(captured, traces, places, metas[i], i) for i in shown.tolist())
    if lines is not None:
        tasks = _with_lines(tasks, lines)
    fp, hybrid = walks[Mode.FP], walks[Mode.HYBRID]
    return StackReport(
        name=captured.name,
        release=captured.release,
        build_id=captured.build_id,
        mode=mode,
        strict=strict,
        tasks=tasks,
        total=len(traces),
        tallies=tuple(_tally(each, walks[each]) for each in dict.fromkeys((Mode.FP, Mode.HYBRID, mode))),
        fp_only=_differences(metas, fp, hybrid),
        hybrid_only=_differences(metas, hybrid, fp),
        omissions=_omissions(metas, places, fp, hybrid),
        notes=tuple(captured.notes),
    )


def _metas(info: TaskList) -> list[TaskMeta]:
    """Give one object per task."""
    columns = (
        info.pid.tolist(),
        info.tgid.tolist(),
        info.comm,
        info.state,
        info.cpu.tolist(),
        info.on_cpu.tolist(),
        info.kthread.tolist(),
    )
    return [TaskMeta(*row) for row in zip(*columns, strict=True)]


class _Places:
    """Names addresses, and remembers the modules of functions."""

    def __init__(self, captured: Captured, module_of: ModuleOf | None) -> None:
        self._captured = captured
        self._module_of = module_of
        self._modules: dict[int, str | None] = {}

    def of(self, addr: int, symbol: Symbol | None) -> Place:
        """Give the place of an address whose function has been looked up."""
        if symbol is None:
            return Place(addr, module=self._module(addr))
        return Place(addr, symbol.name, symbol.offset, symbol.size, self._module(symbol.start))

    def _module(self, start: int) -> str | None:
        if self._module_of is None:
            return None
        if start not in self._modules:
            self._modules[start] = self._module_of(start)
        return self._modules[start]

    def find(self, addr: int, *, is_ra: bool) -> Place:
        """Give the place of an address, looked up one byte earlier if it is a return address."""
        functions = self._captured.code.functions
        at = np.array([addr], dtype=np.uint64)
        index = int(functions.lookup(at, np.array([is_ra], dtype=np.bool_))[0])
        if index < 0:
            return self.of(addr, None)
        start = int(functions.start[index])
        size = int(functions.end[index]) - start
        return self.of(addr, Symbol(functions.names[index], start, size, addr - start))


def _task_view(captured: Captured, traces: Traces, places: _Places, meta: TaskMeta, task: int) -> TaskView:
    """Give one task with all its frames."""
    verdict = Trace.of(traces, task)
    certain = 1 << 62 if verdict.reliable else verdict.frame
    frames: list[FrameView] = []

    def consume(state: UnwindState) -> bool:
        frames.append(_frame_view(state, places, frames, certain))
        return True

    for row in range(int(traces.first[task]), int(traces.first[task + 1])):
        consume(UnwindState(captured, traces, row))
    start = Start(int(captured.tasks.start[task]))
    if verdict.reliable:
        return TaskView(meta, start, tuple(frames), verdict)
    return TaskView(
        meta,
        start,
        tuple(frames),
        verdict,
        reason_at=_reason_place(frames, places, verdict),
        other_at=places.find(verdict.other, is_ra=True) if verdict.reason is Reason.RULE_RECORD_MISMATCH else None,
    )


def _frame_view(state: UnwindState, places: _Places, below: Sequence[FrameView], certain: int) -> FrameView:
    """Give one frame; `below` are the frames that were shown before it, `certain` the last certain depth."""
    evidence, boundary = state.evidence, state.is_exception_boundary
    lr = state.ambiguous_lr
    return FrameView(
        depth=len(below),
        place=places.of(state.pc, state.symbol),
        source=state.source,
        evidence=evidence,
        doubtful=len(below) > certain or bool(evidence & Evidence.DOUBTFUL),
        vector=_vector(below[-1].place.symbol) if boundary and below else None,
        regs=state.regs if boundary else None,
        sp=state.sp,
        fp=state.fp,
        ambiguous=None if lr is None else places.find(lr, is_ra=True),
    )


def _vector(symbol: str | None) -> Vector | None:
    """Tell the kind of exception by the vector's function, such as el1h_64_irq."""
    if symbol is None or not symbol.startswith("el"):
        return None
    return _VECTORS.get(symbol.rpartition("_")[2])


def _reason_place(frames: Sequence[FrameView], places: _Places, verdict: Trace) -> Place | None:
    """Give the place that a reason speaks of; None where the walk never had an address."""
    for frame in frames[verdict.frame : verdict.frame + 2]:
        if frame.place.addr == verdict.address:
            return frame.place
    return places.find(verdict.address, is_ra=True) if verdict.address else None


def _with_lines(tasks: tuple[TaskView, ...], lines: Lines) -> tuple[TaskView, ...]:
    """Give the tasks with the source line of every frame's instruction; of a return address that of the call."""

    def insn(frame: FrameView) -> int:
        # A return address is never the first of its function; a task that has not run yet starts there.
        exact = frame.boundary or frame.place.offset == 0
        return frame.place.addr if exact else frame.place.addr - 4

    wanted = sorted({insn(frame) for task in tasks for frame in task.frames if frame.place.symbol})
    known = dict(zip(wanted, lines(np.array(wanted, dtype=np.uint64)), strict=True))

    def lined(frame: FrameView) -> FrameView:
        return replace(frame, place=replace(frame.place, lines=tuple(known.get(insn(frame), ()))))

    return tuple(replace(task, frames=tuple(map(lined, task.frames))) for task in tasks)


def _tally(mode: Mode, traces: Traces) -> Tally:
    """Count verdicts."""
    reasons = Counter(Reason(code) for code in traces.reason.tolist() if code)
    return Tally(mode, int(np.count_nonzero(traces.reliable)), dict(reasons.most_common()))


def _differences(metas: Sequence[TaskMeta], good: Traces, bad: Traces) -> tuple[Difference, ...]:
    """Give the tasks that are reliable in `good` and not in `bad`."""
    rows = np.flatnonzero(good.reliable & ~bad.reliable)
    return tuple(Difference(metas[i], Reason(int(bad.reason[i]))) for i in rows.tolist())


def _omissions(metas: Sequence[TaskMeta], places: _Places, fp: Traces, hybrid: Traces) -> tuple[Omission, ...]:
    """Give the tasks on which both modes claim certainty and do not say the same."""
    found = []
    for i in np.flatnonzero(fp.reliable & hybrid.reliable).tolist():
        by_fp, by_hybrid = (traces.pc[traces.first[i] : traces.first[i + 1]] for traces in (fp, hybrid))
        if not np.array_equal(by_fp, by_hybrid):
            missing, extra = _compare(by_fp.tolist(), by_hybrid.tolist())
            exact = set(hybrid.pc[hybrid.source == Source.REGS].tolist())
            found.append(
                Omission(
                    metas[i],
                    tuple(places.find(addr, is_ra=addr not in exact) for addr in missing),
                    tuple(places.find(addr, is_ra=True) for addr in extra),
                )
            )
    return tuple(found)


def _compare(fp: list[int], hybrid: list[int]) -> tuple[list[int], list[int]]:
    """Give the addresses that only the second and only the first trace has, in order."""
    from difflib import SequenceMatcher

    missing: list[int] = []
    extra: list[int] = []
    for tag, low, high, first, last in SequenceMatcher(None, fp, hybrid, autojunk=False).get_opcodes():
        if tag != "equal":
            extra += fp[low:high]
            missing += hybrid[first:last]
    return missing, extra
