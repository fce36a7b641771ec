"""Layer 8: what is known of a transition after the events so far; the live view and the summary are made from it.

Invariant: nothing is known that no event said. Only CROSSED, COMPLETED and FORCED let a task count as gone over, and
only a later BLOCKED, or the end, takes a blocker off the list.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from surefoot.patch.events import Event, EventKind, PatchState, TaskState

__all__ = ["HOWS", "MOVING", "Blocker", "Pauses", "Progress"]

HOWS: Final = {
    "by_stack": "by their stacks",
    "by_exit": "between kernel and user mode",
    "by_idle": "idle",
    "by_fork": "born over",
    "by_force": "by force",
}
"""Figures that say how tasks went over, and the words for it."""

MOVING: Final = frozenset({PatchState.APPLYING, PatchState.REVERTING})
"""States of a patch in transition."""

_COUNTS_LEFT: Final = frozenset(set(EventKind) - {EventKind.WARNING, EventKind.WRITTEN})
_Key = tuple[int, str]


def _key(task: TaskState) -> _Key:
    """Give what a task is known by: idle tasks have the pid 0, and a name for each CPU."""
    return task.pid, task.comm


@dataclass(frozen=True, slots=True)
class Blocker:
    """A task that holds the transition up.

    Attributes:
        task: as the last event had it.
        since_s: when an event first named it, without a break.
    """

    task: TaskState
    since_s: float


@dataclass(frozen=True, slots=True)
class Pauses:
    """For how long the target stood still, in milliseconds.

    Attributes:
        count: number of pauses.
        median: of them.
        p95: 95 of 100 are not longer.
        longest: of them.
    """

    count: int
    median: float
    p95: float
    longest: float

    @classmethod
    def of(cls, pauses: Sequence[float]) -> Pauses:
        """Sum up pauses, at least one."""
        ordered = sorted(pauses)
        # Nearest rank: a pause that was measured, not one between two.
        rank = -(-95 * len(ordered) // 100)
        return cls(len(ordered), median(ordered), ordered[rank - 1], ordered[-1])


@dataclass(slots=True)
class Progress:
    """The state of one command, event by event.

    Attributes:
        patch: name of the patch that the last event was about.
        state: where it stood.
        last: the last event.
        elapsed_s: of it.
        left: tasks that have not gone over.
        total: tasks that the transition is about; 0 where nobody said.
        attempts: attempts or passes.
        hows: figure of `HOWS` -> tasks.
        pauses_ms: each time that the target stood still.
        words: instruction words written and taken back.
        warnings: sentences, each once.
        states: every patch -> where it stands.
        forced: it was forced.
        reversed: it turned round.
        clear: tasks whose stacks the last attempt found clear; None where tasks go over one by one.
    """

    patch: str = ""
    state: PatchState = PatchState.ABSENT
    last: Event | None = None
    elapsed_s: float = 0.0
    left: int = 0
    total: int = 0
    attempts: int = 0
    hows: dict[str, int] = field(default_factory=dict)
    pauses_ms: list[float] = field(default_factory=list)
    words: int = 0
    warnings: list[str] = field(default_factory=list)
    states: dict[str, PatchState] = field(default_factory=dict)
    forced: bool = False
    reversed: bool = False
    _blockers: dict[_Key, Blocker] = field(default_factory=dict)
    _crossed: dict[_Key, TaskState] = field(default_factory=dict)
    clear: int | None = None
    _paused_in: float | None = None
    _next_at_s: float | None = None

    @property
    def crossed(self) -> int:
        """Number of tasks that went over."""
        return max(self.total - self.left, 0)

    @property
    def blockers(self) -> list[Blocker]:
        """Those that hold the transition up, the longest first."""
        return sorted(self._blockers.values(), key=lambda blocker: (blocker.since_s, *_key(blocker.task)))

    @property
    def recent(self) -> list[TaskState]:
        """Tasks that went over and were named, the last first."""
        return list(reversed(self._crossed.values()))

    @property
    def next_at_s(self) -> float | None:
        """When the next attempt begins, if the last event announced one."""
        return self._next_at_s

    def take(self, event: Event) -> None:
        """Add an event."""
        figures = event.figures
        if event.patch == self.patch and {event.state, self.state} == MOVING:
            self._turn()
        self.last, self.elapsed_s, self.state = event, event.elapsed_s, event.state
        self.patch = event.patch or self.patch
        if event.patch:
            self.states.pop("", None)  # something was under way whose name was not known yet
        self.states[event.patch] = event.state
        self.attempts = max(self.attempts, int(figures.get("attempt", 0)))
        self.words += int(figures.get("words", 0))
        self._next_at_s = event.elapsed_s + figures["next_s"] if "next_s" in figures else None
        self._take_pause(event)
        if event.kind not in {EventKind.WARNING, EventKind.WRITTEN}:
            self.clear = int(figures["clear"]) if "clear" in figures else self.clear
        for how in HOWS:
            if figures.get(how):
                self.hows[how] = self.hows.get(how, 0) + int(figures[how])
        if event.kind is EventKind.WARNING and event.message and event.message not in self.warnings:
            self.warnings.append(event.message)
        if event.kind in {EventKind.STARTED, EventKind.REVERSED}:
            self._crossed.clear()
            self._blockers.clear()
        self.forced |= event.kind is EventKind.FORCED
        self.reversed |= event.kind is EventKind.REVERSED
        self._take_tasks(event)
        self._count(event)

    def _turn(self) -> None:
        """The transition goes the other way: who held it up has gone over already, and the others have not."""
        self._crossed.clear()
        self._blockers.clear()
        self.hows.clear()
        self.total, self.left, self.reversed = 0, 0, True

    def _take_pause(self, event: Event) -> None:
        """Count a pause once, although several events of an attempt may tell of it."""
        pause, attempt = event.figures.get("pause_ms"), event.figures.get("attempt")
        if pause is None or (attempt is not None and attempt == self._paused_in):
            return
        self.pauses_ms.append(pause)
        self._paused_in = attempt

    def _take_tasks(self, event: Event) -> None:
        """Learn from the tasks that the event names."""
        named = {_key(task): task for task in event.tasks}
        if event.kind is EventKind.BLOCKED:
            self._keep(named, event)
        elif event.kind is EventKind.FAILED:
            held = {key: task for key, task in named.items() if task.hold is not None}
            if held:
                self._keep(held, event)
        elif event.kind in {EventKind.COMPLETED, EventKind.FORCED}:
            self._blockers.clear()
        for key, task in named.items():
            if task.crossed:
                self._crossed.pop(key, None)  # the last one stands last
                self._crossed[key] = task
                self._blockers.pop(key, None)

    def _keep(self, named: dict[_Key, TaskState], event: Event) -> None:
        """Let exactly the tasks named be the blockers."""
        before = self._blockers
        self._blockers = {
            key: Blocker(task, before[key].since_s if key in before else event.elapsed_s)
            for key, task in named.items()
            if not task.crossed
        }

    def _count(self, event: Event) -> None:
        """Keep the numbers of tasks."""
        # In transition nobody left is worth a word only of those who have just gone over; else it was not counted.
        if event.kind in _COUNTS_LEFT and (
            event.left or event.kind is EventKind.CROSSED or event.state not in MOVING
        ):
            self.left = event.left
        self.total = max(int(event.figures.get("tasks", 0)) or self.total, self.left)

    def finished(self, patches: Iterable[str] = ()) -> bool:
        """Say whether no patch is in transition or half written; of these patches only, if any are given."""
        wanted = set(patches)
        bad = MOVING | {PatchState.PARTIAL}
        return not any(state in bad for patch, state in self.states.items() if not wanted or patch in wanted)
