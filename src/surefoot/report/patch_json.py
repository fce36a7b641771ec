"""Layer 8: live patching as JSON: an object for each event of a transition, and one for the state of a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Final

from surefoot.patch.events import Event, FunctionState, PatchState, Status, TaskState
from surefoot.report.schema import address

__all__ = ["PATCH", "PATCH_EVENT", "event_json", "foremost", "status_json"]

PATCH: Final = "surefoot.patch/1"
"""docs/schema/patch-1.json."""
PATCH_EVENT: Final = "surefoot.patch-event/1"
"""docs/schema/patch-event-1.json."""

_RANK: Final = {
    PatchState.PARTIAL: 0,
    PatchState.APPLYING: 1,
    PatchState.REVERTING: 1,
    PatchState.APPLIED: 2,
    PatchState.ABSENT: 3,
}
"""What an operator has to know first."""

_Object = dict[str, object]


def event_json(event: Event, target: str) -> _Object:
    """Give the object that `--json` prints for an event, one line each.

    Args:
        event: what happened.
        target: as on the command line.
    """
    return {
        "schema": PATCH_EVENT,
        "event": event.kind.value,
        "target": target,
        "patch": event.patch,
        "state": event.state.value,
        "elapsed_s": round(event.elapsed_s, 6),
        "tasks": [_task(task) for task in event.tasks],
        "left": event.left,
        "message": event.message,
        # A number that is none has no JSON form; a transition must not end for the sake of a figure.
        "figures": {name: round(value, 6) for name, value in event.figures.items() if isfinite(value)},
    }


def foremost(statuses: Sequence[Status]) -> Status | None:
    """Give the patch that matters most: half written, in transition, applied; of equals the last. None for none."""
    return min(reversed(statuses), key=lambda status: _RANK[status.state], default=None)


def status_json(statuses: Sequence[Status], target: str) -> Mapping[str, object]:
    """Give the object that `surefoot patch status --json` prints.

    Args:
        statuses: of every patch of the target, in the order in which they were applied.
        target: as on the command line.
    """
    first = foremost(statuses)
    return {
        "schema": PATCH,
        "target": target,
        "patch": None if first is None else first.patch,
        "state": PatchState.ABSENT.value if first is None else first.state.value,
        "tasks": [] if first is None else [_task(task) for task in first.tasks],
        "patches": [_status(status) for status in statuses],
    }


def _status(status: Status) -> _Object:
    return {
        "patch": status.patch,
        "state": status.state.value,
        "tasks": [_task(task) for task in status.tasks],
        "functions": [_function(function) for function in status.functions],
        "warnings": list(status.warnings),
    }


def _task(task: TaskState) -> _Object:
    return {
        "pid": task.pid,
        "comm": task.comm,
        "crossed": task.crossed,
        "hold": None if task.hold is None else task.hold.value,
        "blocked_by": task.blocked_by,
        "address": address(task.address) if task.address else None,
        "reason": task.reason,
        "trace": list(task.trace),
        "advice": task.advice,
    }


def _function(function: FunctionState) -> _Object:
    return {
        "name": function.name,
        "object": function.object,
        "address": address(function.address) if function.address else None,
        "new": address(function.new) if function.new else None,
        "patched": function.patched,
    }
