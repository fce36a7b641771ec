"""Layer 6: the stack check: which tasks may go over from one version of some functions to another.

The soundness core of every way of patching. A task is clear only if its trace is reliable and no frame of it lies in
a function involved. A return address counts where the call lies (one byte earlier): after a call that never returns
it equals the start of the next function, which has nothing to do with it. Interrupted code counts at exactly pc.
Beyond what the kernel checks, a task inside the tracer's trampoline is not clear either: the livepatch handler may
have stored its choice already, and the stack does not say which one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from surefoot.dtypes import Addr, Mask, Row
from surefoot.errors import Inconsistent
from surefoot.patch.events import Hold, TaskState
from surefoot.unwind.code import CodeMap
from surefoot.unwind.reasons import SENTENCES, Reason
from surefoot.unwind.state import Source
from surefoot.unwind.trace import Traces

__all__ = ["ADVICE", "Finding", "Range", "holds", "ranges_of", "task_state", "trace_of"]

_RUNS: Final = (Reason.ON_CPU, Reason.NO_REGISTERS, Reason.SWITCHING)
"""Reasons that say where a task is, not what is wrong with its stack."""

ADVICE: Final[dict[Hold, str]] = {
    Hold.ON_STACK: "Wait until it returns; a sleeping task may have to be woken, or sent a signal.",
    Hold.CHOOSING: "Wait: it leaves the tracer by itself as soon as it runs.",
    Hold.UNRELIABLE: "Wait: its stack becomes reliable, or it leaves the kernel, when it runs on.",
    Hold.RUNNING: "Wait: it goes over when it leaves the kernel, or is looked at when it is switched out.",
    Hold.UNKNOWN: "",
}
"""What an operator can do about each kind of hold."""


@dataclass(frozen=True, slots=True)
class Range:
    """Code of a function involved, old or new.

    Attributes:
        start: address of its first byte.
        end: first address behind it.
        name: of the function.
    """

    start: int
    end: int
    name: str


@dataclass(frozen=True, slots=True)
class Finding:
    """Why a task is not clear.

    Attributes:
        hold: of which kind.
        name: the function that holds it (ON_STACK, and CHOOSING where it is known), else empty.
        address: of the frame that the finding speaks of, 0 for none.
        frame: its depth, 0 = innermost.
        sentence: for people.
    """

    hold: Hold
    name: str
    address: int
    frame: int
    sentence: str


class _Cover:
    """Ranges, made ready to be asked which of them holds an address; they may overlap."""

    def __init__(self, ranges: Sequence[Range]) -> None:
        for item in ranges:
            if not 0 <= item.start < item.end <= 1 << 64:
                raise Inconsistent(f"the code range of {item.name} is empty: {item.start:#x} to {item.end:#x}")
        self._ranges = sorted(ranges, key=lambda item: item.start)
        self._start = np.array([item.start for item in self._ranges], dtype=np.uint64)
        # The last byte, because the end of the address space does not fit into 64 bits.
        last = np.array([item.end - 1 for item in self._ranges], dtype=np.uint64)
        self._reach = np.maximum.accumulate(last)
        fresh = np.append(np.ones(min(1, last.size), dtype=np.bool_), self._reach[1:] > self._reach[:-1])
        self._owner = np.maximum.accumulate(np.where(fresh, np.arange(last.size, dtype=np.int64), np.int64(0)))

    def find(self, addr: Addr) -> Row:
        """Give the range that holds each address, -1 for none: the one that reaches furthest of those before it."""
        if not self._start.size:
            return np.full(addr.shape, -1, dtype=np.int64)
        before = np.searchsorted(self._start, addr, side="right").astype(np.int64) - 1
        safe = np.maximum(before, 0)
        return np.where((before >= 0) & (addr <= self._reach[safe]), self._owner[safe], np.int64(-1))

    def name(self, index: int) -> str:
        """Give the name of a range."""
        return self._ranges[index].name


def holds(
    traces: Traces,
    code: CodeMap,
    ranges: Sequence[Range],
    *,
    choosing: Sequence[Range],
    sites: Sequence[Range] | None = None,
) -> list[Finding | None]:
    """Judge every task of a batch: None if it is certainly clear, else what holds it.

    Args:
        traces: what a walk gave. The verdict is as good as the walk: hybrid for every decision.
        code: the code that was walked, for names.
        ranges: code of the functions that a task to go over may not be in.
        choosing: the tracer's trampoline (ftrace_caller) and the livepatch handler: code in which a task may have
            chosen already.
        sites: functions whose calls are redirected. A reliable trace through the trampoline is clear if the next
            outer frame is known and neither in these nor in `ranges`. None if they are not known: then every task
            in the trampoline is held.

    Returns:
        one finding, or None, per task.

    Raises:
        Inconsistent: a range is empty.
    """
    owner, depth = _places(traces)
    probe = _probes(traces, code)
    reliable = traces.reliable
    # What was shown after certainty was lost names nobody: such a task is held for its stack anyway.
    sure = reliable[owner] | (depth <= traces.reason_frame[owner])
    cover, tracer = _Cover(ranges), _Cover(choosing)
    hit = cover.find(probe)
    chooses = _choosing(
        traces, tracer.find(probe) >= 0, hit, _Cover(sites).find(probe) if sites is not None else None
    )
    on_stack = _first_of(owner, (hit >= 0) & sure, len(traces))
    in_tracer = _first_of(owner, chooses & sure, len(traces))
    result: list[Finding | None] = [None] * len(traces)
    for task in np.flatnonzero((on_stack >= 0) | (in_tracer >= 0) | ~reliable).tolist():
        frame = int(on_stack[task])
        if frame >= 0:
            result[task] = _on_stack(traces, code, frame, depth, cover.name(int(hit[frame])))
        elif int(in_tracer[task]) >= 0:
            result[task] = _in_tracer(traces, code, int(in_tracer[task]), depth)
        else:
            result[task] = _unreliable(traces, code, task)
    return result


def _places(traces: Traces) -> tuple[Row, Row]:
    """Give (m,) the task and (m,) the depth of every frame."""
    count = np.diff(traces.first)
    owner = np.repeat(np.arange(len(traces), dtype=np.int64), count)
    return owner, np.arange(owner.size, dtype=np.int64) - traces.first[:-1][owner]


def _probes(traces: Traces, code: CodeMap) -> Addr:
    """Give (m,) the address at which each frame counts: pc itself if it is exact, else inside the call.

    The pc of a task that has never run is the first instruction of ret_from_fork, not a return address; the walker
    has found that out, and its `function` begins right there.
    """
    start = code.functions.start
    function = traces.function
    known = function >= 0
    first = start[np.where(known, function, 0)] if start.size else np.zeros(function.shape, dtype=np.uint64)
    exact = ~traces.is_ra | (known & (first == traces.pc))
    probe: Addr = traces.pc - (~exact).astype(np.uint64)
    return probe


def _choosing(traces: Traces, inside: Mask, hit: Row, site: Row | None) -> Mask:
    """Tell which frames in the tracer's trampoline may stand between a choice and what it leads to."""
    if site is None:
        return inside
    last = np.zeros(inside.shape, dtype=np.bool_)
    last[traces.first[1:][np.diff(traces.first) > 0] - 1] = True
    involved = (hit >= 0) | (site >= 0) | (traces.function < 0)
    # Two frames in the trampoline, one above the other, are more than can be told apart.
    outer = np.append((involved | inside)[1:], [True])[: inside.size] | last
    exact = np.equal(traces.source, Source.REGS)
    return inside & (exact | outer)


def _first_of(owner: Row, mask: Mask, tasks: int) -> Row:
    """Give (n,) the first frame of each task for which the mask holds, -1 for none."""
    result = np.full(tasks, -1, dtype=np.int64)
    frames = np.flatnonzero(mask)[::-1]
    result[owner[frames]] = frames
    return result


def _place(code: CodeMap, traces: Traces, frame: int) -> str:
    """Give a frame as function+offset, or as a bare address."""
    index, pc = int(traces.function[frame]), int(traces.pc[frame])
    if index < 0:
        return f"{pc:#x}"
    return f"{code.functions.names[index]}+{pc - int(code.functions.start[index]):#x}"


def _on_stack(traces: Traces, code: CodeMap, frame: int, depth: Row, name: str) -> Finding:
    place = _place(code, traces, frame)
    exact = int(traces.source[frame]) == Source.REGS
    sentence = f"it was interrupted in {name}, at {place}" if exact else f"it will return into {name}, at {place}"
    return Finding(Hold.ON_STACK, name, int(traces.pc[frame]), int(depth[frame]), sentence)


def _in_tracer(traces: Traces, code: CodeMap, frame: int, depth: Row) -> Finding:
    """Name the function whose call is being traced: of all frames the next outer one, if it can be seen."""
    task = int(np.searchsorted(traces.first, frame, side="right")) - 1
    outer = int(traces.function[frame + 1]) if frame + 1 < int(traces.first[task + 1]) else -1
    is_call = int(traces.source[frame]) != Source.REGS
    name = code.functions.names[outer] if outer >= 0 and is_call else ""
    what = f", called for {name}" if name else ""
    sentence = f"it is in the tracer at {_place(code, traces, frame)}{what}, and may have chosen old or new already"
    return Finding(Hold.CHOOSING, name, int(traces.pc[frame]), int(depth[frame]), sentence)


def _unreliable(traces: Traces, code: CodeMap, task: int) -> Finding:
    reason = Reason(int(traces.reason[task]))
    depth, address = int(traces.reason_frame[task]), int(traces.reason_addr[task])
    frame = int(traces.first[task]) + depth
    place = f", at {_place(code, traces, frame)}" if frame < int(traces.first[task + 1]) else ""
    hold = Hold.RUNNING if reason in _RUNS else Hold.UNRELIABLE
    return Finding(hold, "", address, depth, f"{SENTENCES[reason]}{place}")


def trace_of(traces: Traces, code: CodeMap, task: int, *, frames: int | None = None) -> tuple[str, ...]:
    """Name the functions of a task's stack, innermost first.

    Args:
        traces: what a walk gave.
        code: the code that was walked.
        task: index.
        frames: how many at most, None for all.

    Returns:
        function+offset per frame.
    """
    first, end = int(traces.first[task]), int(traces.first[task + 1])
    stop = end if frames is None else min(end, first + frames)
    return tuple(_place(code, traces, frame) for frame in range(first, stop))


def task_state(
    pid: int, comm: str, finding: Finding | None, trace: tuple[str, ...] = (), *, crossed: bool | None = None
) -> TaskState:
    """Put a finding into the form that every way of patching tells.

    Args:
        pid: of the task.
        comm: its name.
        finding: what holds it, None for nothing.
        trace: its stack (`trace_of`); shown as far as the finding needs it.
        crossed: it has gone over; None: exactly if nothing holds it.

    Returns:
        the state of the task.
    """
    gone = finding is None if crossed is None else crossed
    if finding is None or gone:
        return TaskState(pid, comm, gone)
    return TaskState(
        pid=pid,
        comm=comm,
        crossed=False,
        hold=finding.hold,
        blocked_by=finding.name or None,
        address=finding.address,
        reason=finding.sentence,
        trace=trace[: finding.frame + 2],
        advice=ADVICE[finding.hold],
    )


def ranges_of(code: CodeMap, addresses: Iterable[int]) -> list[Range]:
    """Give the code of the functions that begin at some addresses, with the parts that the compiler cut off.

    A function's unlikely code may lie elsewhere as `NAME.cold`, and a piece of it as `NAME.part.N`, entered by a
    branch: a task in there is in the function, although no frame lies between its first and last byte. Parts of
    another function of the same name only make more tasks wait.

    Args:
        code: the running kernel's code.
        addresses: of first instructions.

    Returns:
        the ranges, those of the first function first.

    Raises:
        Inconsistent: no function begins at one of the addresses.
    """
    functions = code.functions
    by_base: dict[str, list[int]] = {}
    for index, name in enumerate(functions.names):
        base, dot, rest = name.partition(".")
        if dot and ("cold" in rest.split(".") or "part" in rest.split(".")):
            by_base.setdefault(base, []).append(index)
    result: list[Range] = []
    for address in addresses:
        at = int(np.searchsorted(functions.start, np.uint64(address), side="right")) - 1
        if at < 0 or int(functions.start[at]) != address:
            raise Inconsistent(f"no function begins at {address:#x}")
        base = functions.names[at].partition(".")[0]
        indices = [at, *(index for index in by_base.get(base, ()) if index != at)]
        result += [Range(int(functions.start[i]), int(functions.end[i]), functions.names[i]) for i in indices]
    return result
