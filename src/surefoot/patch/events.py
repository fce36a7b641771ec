"""Layer 6: what all ways of patching tell: events of a transition, and the state of a target.

Every way of applying a patch (emulated machine, stopped guest, Linux's own livepatch) gives the same events, so that
one view, one summary and one JSON schema serve them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

__all__ = ["FIGURES", "Event", "EventKind", "FunctionState", "Hold", "PatchState", "Status", "TaskState"]

FIGURES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "tasks": "tasks that the transition is about, or whose stacks an attempt looked at",
        "clear": "tasks whose stacks this attempt found clear; where all go over at once, it takes all of them",
        "attempt": "number of this attempt or pass, from 1",
        "by_stack": "tasks that this event says went over because their stack is clear of the functions involved",
        "by_exit": "tasks that went over on their way between kernel and user mode",
        "by_idle": "idle tasks that went over",
        "by_fork": "tasks that were born over",
        "by_force": "tasks that were overruled by explicit word",
        "pause_ms": "milliseconds for which the target stood still in this attempt",
        "read_ms": "of which to read tasks, stacks and patch sites",
        "walk_ms": "of which to walk and check the stacks",
        "write_ms": "of which to write and verify",
        "next_s": "seconds until the next attempt",
        "words": "instruction words written, or taken back",
        "sites": "patch sites involved",
    }
)
"""Names of `Event.figures` that the view and its summary understand; others are passed on in JSON only. The figures
`by_*` are of the event alone, and `pause_ms` is of its attempt: the summary adds them up."""


class PatchState(StrEnum):
    """Where a patch stands."""

    ABSENT = "absent"
    """No function of it is in force."""
    APPLYING = "applying"
    """In transition to the new code."""
    APPLIED = "applied"
    """Every task runs the new code."""
    REVERTING = "reverting"
    """In transition back to the old code."""
    PARTIAL = "partial"
    """Some sites are written and some are not, or cannot be told: somebody has to recover it."""


class EventKind(StrEnum):
    """What an event says."""

    STARTED = "started"
    """A transition, or an attempt of a stopped one, begins."""
    CROSSED = "crossed"
    """The tasks named have gone over."""
    BLOCKED = "blocked"
    """The tasks named hold the transition up, each with its reason. Sent when that changes."""
    RETRIED = "retried"
    """Another attempt, or another pass over all tasks."""
    WRITTEN = "written"
    """Words of the target's text were written, or taken back."""
    REVERSED = "reversed"
    """The transition goes the other way now."""
    FORCED = "forced"
    """By explicit word: every task counts as gone over."""
    WARNING = "warning"
    """The kernel's own check may be wrong here, or something else that an operator has to know."""
    COMPLETED = "completed"
    """The transition is over."""
    FAILED = "failed"
    """It is given up; the target is as it was before, or the message says exactly what is not."""


class Hold(StrEnum):
    """How a task holds a transition up."""

    ON_STACK = "on_stack"
    """It may still return into a function that is involved."""
    CHOOSING = "choosing"
    """It is in the tracer's trampoline, where the choice between old and new may have been made already."""
    UNRELIABLE = "unreliable"
    """Its stack cannot be told with certainty."""
    RUNNING = "running"
    """It runs on a CPU, so that its stack cannot be looked at."""
    UNKNOWN = "unknown"
    """It was not looked at yet."""


@dataclass(frozen=True, slots=True)
class TaskState:
    """One task in a transition.

    Attributes:
        pid: thread id; of idle tasks 0.
        comm: its name.
        crossed: it has gone over.
        hold: how it holds the transition up, None if it does not.
        blocked_by: the function that holds it (ON_STACK, CHOOSING), else None.
        address: of the frame that the hold speaks of, 0 for none.
        reason: one sentence for people.
        trace: the functions of its stack, innermost first, as far as they were needed to explain the hold.
        advice: what an operator can do about it, empty for nothing.
    """

    pid: int
    comm: str
    crossed: bool
    hold: Hold | None = None
    blocked_by: str | None = None
    address: int = 0
    reason: str = ""
    trace: tuple[str, ...] = ()
    advice: str = ""


@dataclass(frozen=True, slots=True)
class FunctionState:
    """One function of a patch in a target.

    Attributes:
        name: of the old function.
        object: "vmlinux" or the name of a module.
        address: of the old function.
        new: address of the new code, 0 if it is not loaded.
        patched: the new code is in force, wholly or for some tasks.
    """

    name: str
    object: str
    address: int
    new: int
    patched: bool


@dataclass(frozen=True, slots=True)
class Status:
    """A patch in a target.

    Attributes:
        patch: its name.
        state: where it stands.
        tasks: all tasks in transition; outside of one those that would hold it up, or none.
        functions: of the patch.
        warnings: sentences on what an operator has to know.
    """

    patch: str
    state: PatchState
    tasks: tuple[TaskState, ...] = ()
    functions: tuple[FunctionState, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened.

    Attributes:
        kind: what.
        patch: name of the patch.
        state: where it stands after the event.
        elapsed_s: seconds since the command began.
        tasks: those that the event speaks of.
        left: number of tasks that have not gone over yet.
        message: one sentence for people, may be empty.
        figures: numbers that belong to it, by the names of `FIGURES`.
    """

    kind: EventKind
    patch: str
    state: PatchState
    elapsed_s: float
    tasks: tuple[TaskState, ...] = ()
    left: int = 0
    message: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
