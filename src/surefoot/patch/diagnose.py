"""Layer 6: why a transition of Linux's own livepatch is stuck, task by task, and where the kernel's check is wrong.

Two answers are compared for every task: the kernel's own (its walk by frame records, its comparison of raw addresses)
and the true one (the hybrid walk, return addresses counted inside the call). Where they differ the operator has to
know: a task that the kernel lets go over too early may mix old and new code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from surefoot.dtypes import Addr
from surefoot.patch.advice import advice_for
from surefoot.patch.check import Finding, Range, holds, ranges_of, task_state, trace_of
from surefoot.patch.events import Hold, TaskState
from surefoot.patch.klp import KlpKernel, Searched, first_hit, searched, true_ranges
from surefoot.unwind.code import CodeMap
from surefoot.unwind.reasons import SENTENCES, Reason
from surefoot.unwind.state import Source
from surefoot.unwind.trace import Evidence, Traces

__all__ = ["Answer", "Certificate", "Diagnosis", "TaskLook", "Walked", "diagnose", "stranded"]

_HANDLER: Final = "klp_ftrace_handler"
_TRACER_LABELS: Final = ("ftrace_caller", "ftrace_common", "ftrace_stub", "ftrace_stub_graph")
_MAX_ENTRIES: Final = 100
"""MAX_STACK_ENTRIES of kernel/livepatch/transition.c: as many or more entries count as an unreliable stack."""

_TRACER_IS_ON: Final = (
    "the function-graph tracer is on: the kernel's walk misses the caller of a traced function while the task is "
    "preempted in ftrace_return_to_handler, and may let it go over too early"
)


class Answer(StrEnum):
    """What the kernel's own check says of a task."""

    CLEAR = "clear"
    """It goes over at the next look."""
    ON_STACK = "on_stack"
    """A raw address on its stack lies in what is searched for."""
    UNRELIABLE = "unreliable"
    """The kernel's walk fails."""
    RUNNING = "running"
    """It is on a CPU, so that the kernel does not look."""


@dataclass(frozen=True, slots=True)
class TaskLook:
    """One task, as it was when it was looked at.

    Attributes:
        pid: thread id; of idle tasks 0.
        comm: its name.
        kthread: a kernel thread.
        state: letter as `ps` shows it.
        cpu: that it runs on or ran on last.
        on_cpu: a CPU runs it.
        side: 0 old code, 1 new, None where that is not known or no transition is under way.
        settled: it stood still while it was looked at.
    """

    pid: int
    comm: str
    kthread: bool
    state: str
    cpu: int
    on_cpu: bool
    side: int | None
    settled: bool = True


@dataclass(frozen=True, slots=True)
class Walked:
    """The stacks of all tasks, walked in both ways.

    Attributes:
        code: what was walked, live patches' redirections included.
        hybrid: the true walk.
        fp: the kernel's own walk.
    """

    code: CodeMap
    hybrid: Traces
    fp: Traces


@dataclass(frozen=True, slots=True)
class Certificate:
    """Whether any stack needs the code that is being left, as of one instant.

    Attributes:
        tasks: number of tasks looked at.
        refused: those that are not certainly clear.
    """

    tasks: int
    refused: tuple[TaskState, ...]

    @property
    def holds(self) -> bool:
        """Every task's stack is certain, and clear."""
        return self.tasks > 0 and not self.refused


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What one look says about a transition.

    Attributes:
        tasks: every task; those that have not gone over say why.
        warnings: where the kernel's own check is wrong, or may be.
        certificate: whether to force it would be safe as of that instant.
    """

    tasks: tuple[TaskState, ...]
    warnings: tuple[str, ...]
    certificate: Certificate

    @property
    def blockers(self) -> tuple[TaskState, ...]:
        """Tasks that have not gone over."""
        return tuple(task for task in self.tasks if not task.crossed)


def diagnose(kernel: KlpKernel, walked: Walked, tasks: Sequence[TaskLook]) -> Diagnosis:
    """Say for every task whether it has gone over, and if not, why.

    Args:
        kernel: its live patches.
        walked: the stacks of the same tasks at the same instant.
        tasks: in the order of the traces.
    """
    wanted = searched(kernel)
    truth = _truth(kernel, walked, true_ranges(walked.code, wanted))
    found: list[TaskState] = []
    refused: list[TaskState] = []
    warnings = [*_astray(wanted), *_tracer_warning(walked)]
    for row, task in enumerate(tasks):
        finding = truth[row]
        crossed = task.side is not None and task.side == kernel.target
        if finding is not None or not task.settled:
            refused.append(_refusal(walked, task, row, finding))
        if crossed:
            found.append(TaskState(task.pid, task.comm, crossed=True))
            if finding is not None and finding.hold is Hold.ON_STACK:
                warnings.append(_crossed_wrongly(task, finding))
            continue
        answer, hit = _kernel_answer(walked.fp, row, task, wanted)
        state = _blocker(walked, task, row, finding, (answer, hit))
        found.append(state)
        warning = _disagreement(walked, task, row, finding, (answer, hit))
        if warning:
            warnings.append(warning)
    return Diagnosis(tuple(found), tuple(dict.fromkeys(warnings)), Certificate(len(tasks), tuple(refused)))


def stranded(
    kernel: KlpKernel, walked: Walked, tasks: Sequence[TaskLook], left: Sequence[Range]
) -> tuple[TaskState, ...]:
    """Give the tasks that certainly are in code which a finished transition has left behind.

    There should be none; there are some if the kernel's check was wrong, or was overruled.

    Args:
        kernel: its live patches.
        walked: the stacks.
        tasks: in the order of the traces.
        left: code of the versions that were left.
    """
    return tuple(
        _refusal(walked, tasks[row], row, finding)
        for row, finding in enumerate(_truth(kernel, walked, left))
        if finding is not None and finding.hold is Hold.ON_STACK
    )


def _truth(kernel: KlpKernel, walked: Walked, ranges: Sequence[Range]) -> list[Finding | None]:
    """Judge every task by the hybrid walk."""
    code = walked.code
    choosing = [Range(code.labels[name], _end(code, code.labels[name]), name) for name in _named(code)]
    choosing += [Range(start, _end(code, start), _HANDLER) for start in _starts(code, _HANDLER)]
    sites = [item for old in kernel.stacks for item in _function_at(code, old)]
    return holds(walked.hybrid, code, ranges, choosing=choosing, sites=sites)


def _function_at(code: CodeMap, start: int) -> list[Range]:
    """Give the code of the function that begins at an address, empty if none does."""
    functions = code.functions
    at = int(np.searchsorted(functions.start, np.uint64(start)))
    known = at < functions.start.size and int(functions.start[at]) == start
    return ranges_of(code, [start]) if known else []


def _named(code: CodeMap) -> list[str]:
    return [name for name in _TRACER_LABELS if name in code.labels and _end(code, code.labels[name])]


def _starts(code: CodeMap, name: str) -> list[int]:
    return [int(code.functions.start[i]) for i, known in enumerate(code.functions.names) if known == name]


def _end(code: CodeMap, start: int) -> int:
    """Give the end of the function that holds an address, 0 for none."""
    index = int(code.functions.lookup(np.array([start], dtype=np.uint64), np.zeros(1, dtype=np.bool_))[0])
    return int(code.functions.end[index]) if index >= 0 else 0


def _frames(traces: Traces, row: int) -> slice:
    return slice(int(traces.first[row]), int(traces.first[row + 1]))


def _kernel_answer(
    fp: Traces, row: int, task: TaskLook, wanted: Sequence[Searched]
) -> tuple[Answer, Searched | None]:
    """Do what klp_check_and_switch_task does."""
    if task.on_cpu:
        return Answer.RUNNING, None
    addresses: Addr = fp.pc[_frames(fp, row)]
    if fp.reason[row] != Reason.NONE or addresses.size >= _MAX_ENTRIES:
        return Answer.UNRELIABLE, None
    hit = first_hit(addresses, [item for item in wanted if not item.is_read_astray])
    return (Answer.CLEAR, None) if hit is None else (Answer.ON_STACK, hit)


def _hybrid_says(task: TaskLook, finding: Finding | None) -> str:
    """Give the true answer as the end of a sentence."""
    if not task.settled:
        return "it moved while it was looked at, so nothing can be said of its stack"
    if finding is None:
        return "the hybrid walk is certain and finds none of the functions on its stack: it is in truth safe"
    return f"the hybrid walk says: {finding.sentence}"


def _refusal(walked: Walked, task: TaskLook, row: int, finding: Finding | None) -> TaskState:
    """Say why a task keeps the certificate from being given."""
    if finding is None:
        sentence = "it moved while it was looked at, so that nothing can be said of its stack"
        finding = Finding(Hold.UNKNOWN, "", 0, 0, sentence)
    return task_state(task.pid, task.comm, finding, trace_of(walked.hybrid, walked.code, row))


def _blocker(
    walked: Walked, task: TaskLook, row: int, finding: Finding | None, kernel: tuple[Answer, Searched | None]
) -> TaskState:
    """Say why a task has not gone over."""
    answer, hit = kernel
    hold, name, reason = Hold.UNKNOWN, "", ""
    true_name = finding.name if finding is not None and finding.hold is Hold.ON_STACK else ""
    if answer is Answer.RUNNING:
        hold, name = Hold.RUNNING, true_name
        reason = f"it runs on CPU {task.cpu}, where the kernel does not look at stacks; {_hybrid_says(task, finding)}"
    elif answer is Answer.UNRELIABLE:
        hold, name = (Hold.ON_STACK, true_name) if true_name else (Hold.UNRELIABLE, "")
        why = SENTENCES[Reason(int(walked.fp.reason[row]))] if walked.fp.reason[row] else "too many frames"
        reason = f"its stack is unreliable for the kernel: {why}; {_hybrid_says(task, finding)}"
    elif answer is Answer.ON_STACK and hit is not None:
        hold, name = Hold.ON_STACK, true_name or hit.function.name
        graph = _traced(walked.hybrid, row, finding, outer=1)
        reason = finding.sentence if finding is not None else f"the kernel finds {name} on its stack"
        if graph:
            reason += f"; the function-graph tracer holds the return address of {name}"
    elif finding is not None:
        hold, name, reason = finding.hold, finding.name, finding.sentence
    else:
        reason = (
            "nothing holds it: the kernel had not looked at it again since it became clear, and does so each second"
        )
    address = finding.address if finding is not None else _boundary(walked, row)
    trace = trace_of(walked.hybrid, walked.code, row)
    deep = finding.frame + 2 if finding is not None and finding.hold is not Hold.UNRELIABLE else None
    return TaskState(
        pid=task.pid,
        comm=task.comm,
        crossed=False,
        hold=hold,
        blocked_by=name or None,
        address=address,
        reason=reason,
        trace=trace[:deep],
        advice=advice_for(
            hold,
            kthread=task.kthread,
            state=task.state,
            idle=task.pid == 0,
            is_main=_is_main(walked, row, finding),
            is_safe=finding is None and task.settled,
        ),
    )


def _boundary(walked: Walked, row: int) -> int:
    """Give where the kernel's walk gave up, 0 if it did not."""
    return int(walked.fp.reason_addr[row]) if walked.fp.reason[row] else 0


def _is_main(walked: Walked, row: int, finding: Finding | None) -> bool:
    """Say whether a function on the stack is a kernel thread's own main function: it is left when the thread ends."""
    if finding is None or finding.hold is not Hold.ON_STACK:
        return False
    at = _frames(walked.hybrid, row).start + finding.frame
    outer = walked.hybrid.function[at + 1 : _frames(walked.hybrid, row).stop].tolist()
    return bool(outer) and outer[0] >= 0 and walked.code.functions.names[outer[0]] == "kthread"


def _traced(hybrid: Traces, row: int, finding: Finding | None, *, outer: int = 0) -> bool:
    """Say whether the frame that holds a task, or that many further out, comes from the function-graph tracer."""
    if finding is None or finding.hold is not Hold.ON_STACK:
        return False
    frames = hybrid.evidence[_frames(hybrid, row)]
    at = finding.frame + outer
    return at < frames.size and bool(frames[at] & Evidence.FGRAPH)


def _crossed_wrongly(task: TaskLook, finding: Finding) -> str:
    return (
        f"the kernel counts {task.comm} ({task.pid}) as gone over, but {finding.sentence}: "
        "old and new code may meet in this task"
    )


def _disagreement(
    walked: Walked, task: TaskLook, row: int, finding: Finding | None, kernel: tuple[Answer, Searched | None]
) -> str:
    """Say where the kernel's answer is not the true one, empty if it is, or errs on the safe side knowingly."""
    answer, hit = kernel
    who = f"{task.comm} ({task.pid})"
    if not task.settled:
        return ""
    if answer is Answer.CLEAR and finding is not None and finding.hold in (Hold.ON_STACK, Hold.CHOOSING):
        return f"the kernel will let {who} go over too early: {finding.sentence}{_cause(walked, row, finding)}"
    if answer is Answer.ON_STACK and hit is not None and finding is None:
        return (
            f"the kernel holds {who} for {hit.function.name}, which is not on its stack: the address that it finds "
            "is the one behind a call that never returns, at the end of the function before"
        )
    return ""


def _cause(walked: Walked, row: int, finding: Finding) -> str:
    """Name the gap in the kernel's check by which it misses a function."""
    hybrid = walked.hybrid
    at = _frames(hybrid, row).start + finding.frame
    if finding.hold is Hold.CHOOSING:
        return "; the kernel does not know of that choice"
    if _traced(hybrid, row, finding) and not _shown(walked.fp, row, int(hybrid.pc[at])):
        return "; the kernel's walk skips it while the function-graph tracer gives back its return address"
    index = int(hybrid.function[at])
    is_call = int(hybrid.source[at]) != Source.REGS
    if is_call and index >= 0 and int(hybrid.pc[at]) >= int(walked.code.functions.end[index]):
        return "; it ends in a call that never returns, whose return address the kernel counts to what follows"
    return ""


def _shown(fp: Traces, row: int, pc: int) -> bool:
    return bool(np.any(fp.pc[_frames(fp, row)] == np.uint64(pc)))


def _astray(wanted: Sequence[Searched]) -> list[str]:
    """Warn of functions for which the kernel searches at an address that is none."""
    return [
        f"for {item.function.name} the kernel reads the address to search for from where no version is described: "
        "this patch lies below others, and its removal was reversed"
        for item in wanted
        if item.is_read_astray
    ]


def _tracer_warning(walked: Walked) -> list[str]:
    """Warn that the function-graph tracer rewrites return addresses, which opens its hole."""
    if not bool(np.any(walked.hybrid.evidence & np.uint16(Evidence.FGRAPH))):
        return []
    return [_TRACER_IS_ON]
