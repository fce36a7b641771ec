"""Layer 6: patching a target that is stopped while it is done: pause, look at every task, write or not, resume.

Everything is consistent with one instant: the target does not move between the look at its stacks and the last byte.
So a transition has no middle: before it every task runs the old code, after it every task runs the new code, and it
happens only at an instant at which no task, on a CPU or not, is in any of the functions involved.

Invariant: whatever is raised, wherever, the target runs on (if it ran before) with all sites written or none; where
even that cannot be done it stays paused, and the last event names the sites. What state it is in is told by its own
bytes. Nothing is yielded while the target is paused: whoever listens may be slow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Final, Protocol

import numpy as np

from surefoot.errors import SurefootError
from surefoot.patch.check import Finding, Range, holds, ranges_of, task_state, trace_of
from surefoot.patch.events import Event, EventKind, Hold, PatchState, TaskState
from surefoot.patch.sites import redirects_of
from surefoot.patch.writes import Action, Journal, PartlyWritten, Stage, Write, perform, recover
from surefoot.unwind.code import CodeMap
from surefoot.unwind.state import Layout, Source, Stacks, Tasks
from surefoot.unwind.trace import Traces
from surefoot.unwind.walker import walk

__all__ = ["Change", "Guest", "Limits", "View", "transition"]

_TRACERS: Final = ("ftrace_caller", "ftrace_regs_caller")
_GROWTH: Final = 1.5
_LONGEST_WAIT_S: Final = 0.4
"""A task that lets go is noticed well within a second."""
_SHOWN: Final = 5


class _People(Protocol):
    """Who the tasks are."""

    @property
    def pid(self) -> np.ndarray[tuple[int], np.dtype[np.int32]]: ...
    @property
    def comm(self) -> tuple[str, ...]: ...


class View(Protocol):
    """Every task of a paused target; `surefoot.targets.capture.Capture` is one."""

    @property
    def info(self) -> _People:
        """Who they are."""
        ...

    @property
    def tasks(self) -> Tasks:
        """What the walk starts from."""
        ...

    @property
    def stacks(self) -> Stacks:
        """Stack memory."""
        ...

    @property
    def layout(self) -> Layout:
        """Structure offsets."""
        ...


class Guest(Protocol):
    """A target that can be stopped from outside."""

    @property
    def paused_s(self) -> float:
        """How long the last pause took, up to now if it lasts."""
        ...

    def prepare(self) -> CodeMap:
        """Read the code anew; live words, and proofs where there are some."""
        ...

    def pause(self) -> bool:
        """Stop all CPUs; False if somebody else had done so. If it raises, nothing has changed."""
        ...

    def look(self) -> View | None:
        """Copy every task, those on CPUs and the idle ones too; None if the code is not what `prepare` read."""
        ...

    def read(self, addr: int, size: int) -> bytes | None:
        """Give bytes of memory, None where they cannot be read."""
        ...

    def write(self, addr: int, data: bytes) -> None:
        """Write text while paused, so that no CPU runs the old words afterwards."""
        ...

    def resume(self) -> None:
        """Let the CPUs run; harmless if they do."""
        ...

    def release(self) -> None:
        """End a pause that lasts: the CPUs stay stopped, and others may use the target."""
        ...

    def is_alive(self) -> bool:
        """Whether there is a target still."""
        ...

    def shield(self) -> AbstractContextManager[object]:
        """Hold interruptions by the user back for a block; they arrive at its end."""
        ...


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be done.

    Attributes:
        journal: of the patch; says whether it is applied or reverted.
        writes: to be done now.
        before: state of the patch before.
        force: overrule tasks that are not clear.
    """

    journal: Journal
    writes: tuple[Write, ...]
    before: PatchState
    force: bool = False

    @property
    def under_way(self) -> PatchState:
        """State until it is done."""
        return PatchState.APPLYING if self.journal.action is Action.APPLY else PatchState.REVERTING

    @property
    def goal(self) -> PatchState:
        """State when it is done."""
        return PatchState.APPLIED if self.journal.action is Action.APPLY else PatchState.ABSENT


@dataclass(frozen=True, slots=True)
class Limits:
    """How long to try.

    Attributes:
        timeout_s: seconds until it is given up, None for never.
        interval_s: seconds between the first two attempts; it grows from there.
        pause_s: seconds that the target may be paused in one attempt before anything is written.
    """

    timeout_s: float | None = 60.0
    interval_s: float = 0.05
    pause_s: float = 5.0


class _End(Enum):
    """How an attempt ended."""

    DONE = auto()
    BLOCKED = auto()
    STALE = auto()
    SLOW = auto()


@dataclass(frozen=True, slots=True)
class _Ready:
    """What is worked out before the pause."""

    code: CodeMap
    ranges: Sequence[Range]
    sites: Sequence[Range]
    choosing: Sequence[Range]


@dataclass(slots=True)
class _Attempt:
    """One pause."""

    end: _End
    ran: bool
    tasks: tuple[TaskState, ...] = ()
    """Those that hold it up; of one that is done, all."""
    figures: dict[str, float] = field(default_factory=dict)
    overruled: bool = False


def transition(
    guest: Guest,
    change: Change,
    *,
    keep: Callable[[str], None],
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    limits: Limits = Limits(),
) -> Iterator[Event]:
    """Apply or revert a patch, trying again until every task is clear.

    Args:
        guest: the target.
        change: what to do.
        keep: stores the text of the journal, safely; called before the first byte is written.
        clock: gives seconds.
        sleep: waits for some seconds.
        limits: how long to try.

    Yields:
        events; the last one is COMPLETED or FAILED.

    Raises:
        KeyboardInterrupt: thrown in by the user, after a last event that says what state the target is in.
    """
    run = _Run(guest, change, keep, clock, sleep, limits)
    try:
        yield from run.events()
    except GeneratorExit:
        run.note(run.state())
        raise
    except KeyboardInterrupt:
        yield run.failed("interrupted")
        raise
    except SurefootError as error:
        yield run.failed(str(error), error.hint)


class _Run:
    """A transition while it lasts."""

    def __init__(
        self,
        guest: Guest,
        change: Change,
        keep: Callable[[str], None],
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        limits: Limits,
    ) -> None:
        self._guest, self._change, self._keep = guest, change, keep
        self._clock, self._sleep, self._limits = clock, sleep, limits
        self._began = clock()
        self._attempts = 0
        self._tasks = 0
        self._noted = False
        self._stuck = False
        self._partly: PartlyWritten | None = None
        self._pauses: list[float] = []

    def events(self) -> Iterator[Event]:
        """Do it."""
        yield self._event(EventKind.STARTED, self._change.under_way, message=self._plan())
        ready = self._prepare()
        self._keep(replace(self._change.journal, stage=Stage.INTENDED).to_text())
        self._noted = True
        wait, held, before = self._limits.interval_s, frozenset[tuple[object, ...]](), set[int]()
        while True:
            attempt = self._try(ready)
            if attempt.end is _End.DONE:
                yield from self._done(attempt)
                return
            figures = attempt.figures
            yield self._event(EventKind.RETRIED, self._change.under_way, message=_why(attempt), figures=figures)
            blocked = frozenset((one.pid, one.hold, one.blocked_by) for one in attempt.tasks)
            if attempt.tasks and blocked != held:
                yield self._event(EventKind.BLOCKED, self._change.under_way, attempt.tasks, _why(attempt))
            if not attempt.ran and attempt.end is not _End.STALE:
                yield self.failed("the guest was paused by somebody else and stays so, and not every task is clear")
                return
            limit = self._limits.timeout_s
            if limit is not None and self._clock() - self._began >= limit:
                yield self._gave_up(attempt)
                return
            if blocked != held:  # others than before: they may be gone in a moment
                wait = self._limits.interval_s
            held = blocked
            # The target runs at least as long as it stood still.
            self._sleep(max(wait, 1e-3 * self._pauses[-1]))
            wait = min(wait * _GROWTH, max(_LONGEST_WAIT_S, self._limits.interval_s))
            doubtful = {one.pid for one in attempt.tasks if one.hold is Hold.UNRELIABLE}
            if attempt.end is _End.STALE or doubtful & before:
                ready = self._prepare()  # a stack stays uncertain where code has been loaded that nobody knows
            before = doubtful

    def _plan(self) -> str:
        verb = "apply" if self._change.journal.action is Action.APPLY else "take back"
        count = len(self._change.journal.functions)
        return f"to {verb} {count} function{'s' if count != 1 else ''} with {len(self._change.writes)} writes"

    def _prepare(self) -> _Ready:
        code = self._guest.prepare()
        code = replace(code, redirects=redirects_of(code))
        functions = self._change.journal.functions
        tracers = [code.labels[name] for name in _TRACERS if name in code.labels]
        starts = set(code.functions.start[np.isin(code.functions.start, np.array(tracers, np.uint64))].tolist())
        old, new = ({one.address for one in functions}, {one.new for one in functions})
        found = ranges_of(code, [*sorted(old | new), *sorted(starts)])
        choosing = [one for one in found if one.start in starts]
        ranges = [one for one in found if one.start not in starts]
        # Parts that the compiler cut off count as sites too, which only makes more tasks wait.
        return _Ready(code, ranges, [one for one in ranges if one.start not in new], choosing)

    def _try(self, ready: _Ready) -> _Attempt:
        """Make one attempt, without interruption by the user."""
        self._attempts += 1
        with self._guest.shield():
            attempt = self._attempt(ready)
        self._pauses.append(1e3 * self._guest.paused_s)
        self._tasks = int(attempt.figures.get("tasks", self._tasks))
        attempt.figures |= {"attempt": float(self._attempts), "pause_ms": self._pauses[-1]}
        return attempt

    def _attempt(self, ready: _Ready) -> _Attempt:
        """Pause, look, write if every task is clear, resume."""
        ran = self._guest.pause()
        stay = not ran
        try:
            return self._while_paused(ready, ran=ran)
        except PartlyWritten as error:
            self._partly = error
            # The eight bytes before a function alone are read by nobody, and the target may run on.
            stay = stay or self.state() is PatchState.PARTIAL
            raise
        finally:
            if stay:
                self._guest.release()
            else:
                self._resume()

    def _resume(self) -> None:
        """Let the target run; once more if that is broken off."""
        try:
            self._guest.resume()
        except BaseException:
            try:
                self._guest.resume()
            except BaseException:
                self._stuck = True
                self._guest.release()
                raise
            raise

    def _while_paused(self, ready: _Ready, *, ran: bool) -> _Attempt:
        times = [self._clock()]
        view = self._guest.look()
        times.append(self._clock())
        if view is None:
            return _Attempt(_End.STALE, ran)
        traces = walk(ready.code, view.stacks, view.tasks, view.layout)
        found = holds(traces, ready.code, ready.ranges, choosing=ready.choosing, sites=ready.sites)
        times.append(self._clock())
        figures = {"tasks": float(len(found)), "clear": float(sum(one is None for one in found))}
        figures |= {"read_ms": _ms(times[0], times[1]), "walk_ms": _ms(times[1], times[2])}
        overruled = self._change.force and not _stands_on(traces, self._change.writes)
        if any(one is not None for one in found) and not overruled:
            blockers = _states(view, traces, ready.code, found, only_held=True)
            return _Attempt(_End.BLOCKED, ran, blockers, figures)
        if times[2] - times[0] > self._limits.pause_s:
            return _Attempt(_End.SLOW, ran, (), figures)
        perform(self._change.writes, self._guest.read, self._guest.write)
        figures["write_ms"] = _ms(times[2], self._clock())
        held = any(one is not None for one in found)
        everybody = _states(view, traces, ready.code, found, only_held=held)
        return _Attempt(_End.DONE, ran, everybody, figures, overruled=held)

    def _done(self, attempt: _Attempt) -> Iterator[Event]:
        """Tell that it is done."""
        problem = self.note(self._change.goal)
        state, figures = self._change.goal, attempt.figures
        sites = sorted({write.function for write in self._change.writes})
        message = f"{len(self._change.writes)} writes at the sites of {', '.join(sites)}"
        yield self._event(EventKind.WRITTEN, state, message=message, figures=figures)
        if attempt.overruled:
            yield self._event(EventKind.FORCED, state, attempt.tasks, "by force: these tasks were not clear", figures)
        else:
            yield self._event(EventKind.CROSSED, state, attempt.tasks, figures=figures)
        if problem:
            yield self._event(EventKind.WARNING, state, message=problem)
        tail = "" if attempt.ran else "; the guest was paused by somebody else and stays so"
        word = "applied" if state is PatchState.APPLIED else "reverted"
        message = f"{word} in a pause of {attempt.figures['pause_ms']:.1f} ms, attempt {self._attempts}{tail}"
        yield self._event(EventKind.COMPLETED, state, message=message, figures=self._summary())

    def _summary(self) -> dict[str, float]:
        return {
            "attempts": float(self._attempts),
            "pauses_ms": float(sum(self._pauses)),
            "longest_pause_ms": max(self._pauses, default=0.0),
        }

    def _gave_up(self, attempt: _Attempt) -> Event:
        message = f"given up after {self._attempts} attempts: {_why(attempt)}"
        return self.failed(message, tasks=attempt.tasks)

    def state(self) -> PatchState:
        """Give the state of the patch by the target's own bytes."""
        return recover(self._change.journal, self._guest.read).state

    def note(self, state: PatchState) -> str:
        """Bring the journal up to date; gives a sentence if that fails, since the bytes tell the same."""
        stage = {PatchState.ABSENT: Stage.UNDONE, PatchState.APPLIED: Stage.WRITTEN}.get(state)
        if not self._noted or stage is None:
            return ""
        try:
            self._keep(replace(self._change.journal, stage=stage).to_text())
        except SurefootError as error:
            return f"the journal could not be brought up to date ({error}); the target's own words tell the state"
        return ""

    def failed(self, why: str, hint: str = "", tasks: tuple[TaskState, ...] = ()) -> Event:
        """Give the last event of a transition that did not come to its end."""
        parts = [why]
        if not self._guest.is_alive():
            parts.append("the guest has ended, and with it all that was written to it")
            return self._event(EventKind.FAILED, PatchState.ABSENT, message=". ".join(parts))
        state = self.state()
        problem = self.note(state)
        if self._partly is not None and str(self._partly) != why:
            parts.append(str(self._partly))
        if self._partly is not None and state is PatchState.PARTIAL:
            parts.append("the guest stays paused")
        elif self._partly is not None:
            parts.append(f"what is left is read by nobody: the patch is {state}")
            hint = ""
        elif state is self._change.goal:
            parts.append(f"the patch is {state} all the same")
        elif state is PatchState.PARTIAL:
            parts.append("the patch is in force in part, as it was before")
        else:
            parts.append(f"nothing is written: the patch is {state}")
        if self._stuck:
            parts.append("the guest stays paused, for it could not be resumed: try `surefoot vm resume`")
        parts += [text for text in (hint, problem) if text]
        figures = self._summary() if self._pauses else {}
        return self._event(EventKind.FAILED, state, tasks, ". ".join(parts), figures)

    def _event(
        self,
        kind: EventKind,
        state: PatchState,
        tasks: tuple[TaskState, ...] = (),
        message: str = "",
        figures: dict[str, float] | None = None,
    ) -> Event:
        left = 0 if state is self._change.goal else self._tasks  # nobody goes over before all do
        elapsed = self._clock() - self._began
        return Event(kind, self._change.journal.patch, state, elapsed, tasks, left, message, figures or {})


def _ms(start: float, end: float) -> float:
    return 1e3 * (end - start)


def _why(attempt: _Attempt) -> str:
    """Say in a sentence why an attempt wrote nothing."""
    if attempt.end is _End.STALE:
        return "the kernel's code has changed since it was read"
    if attempt.end is _End.SLOW:
        return "looking at the tasks took longer than the guest may be paused"
    shown = [f"{one.comm} ({one.pid}): {one.reason}" for one in attempt.tasks[:_SHOWN]]
    more = f"; and {len(attempt.tasks) - _SHOWN} more" if len(attempt.tasks) > _SHOWN else ""
    return f"{len(attempt.tasks)} of the tasks are not clear: {'; '.join(shown)}{more}"


def _stands_on(traces: Traces, writes: Sequence[Write]) -> bool:
    """Whether a task was interrupted at a word that is to be written: between the words of a site nobody may be."""
    words = np.array([write.address for write in writes if len(write.new) == 4], dtype=np.uint64)
    return bool(np.any(np.isin(traces.pc[traces.source == Source.REGS], words)))


def _states(
    view: View, traces: Traces, code: CodeMap, found: Sequence[Finding | None], *, only_held: bool
) -> tuple[TaskState, ...]:
    """Give the tasks in the form that every way of patching tells."""
    rows = [row for row, finding in enumerate(found) if finding is not None or not only_held]
    return tuple(
        task_state(
            int(view.info.pid[row]),
            view.info.comm[row],
            found[row],
            trace_of(traces, code, row) if found[row] is not None else (),
            crossed=None if only_held else True,
        )
        for row in rows
    )
