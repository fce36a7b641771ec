"""Faults in the engine, in the check and in the kernel's handler, one at a time: each makes calls mix old and new.

The run that finds no mix with everything in order is in test_machine_patch.py; here it is known that it could.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from surefoot.cli import patch_emulated
from surefoot.cli.patch_emulated import EmulatedTarget, EngineDriver
from surefoot.machine.loader import load_kernel
from surefoot.machine.patching import Patching
from surefoot.machine.patchrun import PatchJob, Tally, run_patching
from surefoot.patch import check
from surefoot.patch.check import Finding, Range
from surefoot.patch.engine import Engine
from surefoot.patch.events import Hold
from surefoot.patch.stack import PatchStack, Redirect, Side
from surefoot.patch.transition import Look, TaskRow, Transition
from surefoot.unwind.context import Mode
from surefoot.unwind.state import Source
from surefoot.unwind.trace import Traces
from surefoot.unwind.walker import walk

KERNEL = load_kernel()
NOP = (0xD503201F).to_bytes(4, "little")
Seed = Callable[[pytest.MonkeyPatch], None]

_LOOK = EmulatedTarget.look
_HOLDS = check.holds


def _looks(change: Callable[[EmulatedTarget, Sequence[int], Sequence[Look]], Sequence[Look]]) -> Seed:
    """Change what stacks are said to be."""

    def look(
        self: EmulatedTarget, keys: Sequence[int], ranges: Sequence[Range], sites: Sequence[Range]
    ) -> Sequence[Look]:
        return change(self, keys, _LOOK(self, keys, ranges, sites))

    return lambda patch: patch.setattr(EmulatedTarget, "look", look)


def _clear(wrong: Callable[[Finding, Traces, int], bool]) -> Seed:
    """Let the check pass over some findings."""

    def holds(traces: Traces, *rest: Any, **named: Any) -> list[Finding | None]:
        found = _HOLDS(traces, *rest, **named)
        return [None if each is not None and wrong(each, traces, i) else each for i, each in enumerate(found)]

    return lambda patch: patch.setattr(patch_emulated, "holds", holds)


def _ranges(change: Callable[[list[Range]], list[Range]]) -> Seed:
    """Change which code is searched for on stacks."""
    searched = PatchStack.searched

    def wrong(self: PatchStack, patch: str, goal: Side) -> list[Range]:
        return change(searched(self, patch, goal))

    return lambda patch: patch.setattr(PatchStack, "searched", wrong)


def _other_side(patch: pytest.MonkeyPatch) -> None:
    searched = PatchStack.searched
    patch.setattr(PatchStack, "searched", lambda self, name, goal: searched(self, name, goal.other))


def _exact(finding: Finding, traces: Traces, task: int) -> bool:
    return finding.hold is Hold.ON_STACK and bool(traces.source[traces.first[task] + finding.frame] == Source.REGS)


def _running(self: EmulatedTarget, keys: Sequence[int], looks: Sequence[Look]) -> Sequence[Look]:
    running = {task.key for task in self.patching.tasks() if task.addr == self.patching.machine.running()}
    return [Look(None) if key in running else look for key, look in zip(keys, looks, strict=True)]


def _from_before() -> Seed:
    """Keep what a task's stack said once."""
    kept: dict[int, Look] = {}

    def change(self: EmulatedTarget, keys: Sequence[int], looks: Sequence[Look]) -> Sequence[Look]:
        del self
        found = [kept.get(key, look) for key, look in zip(keys, looks, strict=True)]
        kept.update({key: look for key, look in zip(keys, looks, strict=True) if look.finding is None})
        return found

    return _looks(change)


def _along_records(patch: pytest.MonkeyPatch) -> None:
    """Believe the chain of frame records, interrupted functions or not."""

    def fp(code: Any, stacks: Any, tasks: Any, layout: Any) -> Traces:
        traces = walk(code, stacks, tasks, layout, mode=Mode.FP)
        return replace(traces, reason=np.zeros_like(traces.reason))

    patch.setattr("surefoot.machine.patching.walk", fp)


def _redirects(change: Callable[[list[Redirect]], list[Redirect]]) -> Seed:
    redirects = PatchStack.redirects
    return lambda patch: patch.setattr(PatchStack, "redirects", lambda self, moving: change(redirects(self, moving)))


def _for_all(table: list[Redirect], *, new: bool) -> list[Redirect]:
    return [replace(row, unpatched=row.patched) if new else row for row in table]


def _no_sides_at_the_start(patch: pytest.MonkeyPatch) -> None:
    """Leave all tasks on no side when a transition begins; who goes over still does."""
    set_side = EmulatedTarget.set_side
    began: list[bool] = []

    def wrong(self: EmulatedTarget, keys: Sequence[int], side: Side) -> None:
        begins = len(keys) == len(self.patching.tasks()) and side is not Side.IDLE and self.patching.goal == -1
        began.append(begins)
        if not begins:
            set_side(self, keys, side)

    patch.setattr(EmulatedTarget, "set_side", wrong)


def _one_task_too_many(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Transition, "is_complete", property(lambda self: len(self.left) <= 1))


def _unlisted(patch: pytest.MonkeyPatch) -> None:
    tasks = EmulatedTarget.tasks

    def some(self: EmulatedTarget) -> Sequence[TaskRow]:
        return [row for row in tasks(self) if row.comm != "pair"]

    patch.setattr(EmulatedTarget, "tasks", some)


def _turned_in_a_moment(patch: pytest.MonkeyPatch) -> None:
    """Take a transition that is turned round for one in which everybody is back already."""
    turn = Transition.reverse
    turned: list[Transition] = []

    def reverse(self: Transition) -> None:
        turn(self)
        turned.append(self)

    patch.setattr(Transition, "reverse", reverse)
    done = property(lambda self: any(each is self for each in turned) or not self.left)
    patch.setattr(Transition, "is_complete", done)


def _always_forced(patch: pytest.MonkeyPatch) -> None:
    apply, revert = Engine.apply, Engine.revert
    patch.setattr(Engine, "apply", lambda self, what: apply(self, what, force=True))
    patch.setattr(Engine, "revert", lambda self, what: revert(self, what, force=True))


def _switched_out_goes_over(patch: pytest.MonkeyPatch) -> None:
    """Let tasks go over where they are switched out, as if that were the kernel's exit."""
    run = EmulatedTarget.run

    def wrong(self: EmulatedTarget) -> bool:
        goal = self.patching.goal
        if goal >= 0:
            waiting = [t.key for t in self.patching.tasks() if t.addr != self.patching.machine.running()]
            self.patching.set_side(waiting, goal)
        return run(self)

    patch.setattr(EmulatedTarget, "run", wrong)


def _in_the_handler(name: str, wanted: Callable[[int], bool], word: bytes) -> Seed:
    """Change an instruction of the machine's kernel before it is first patched."""
    low, high = KERNEL.span(name)
    words = np.frombuffer(KERNEL.read(low, high - low), dtype="<u4").tolist()
    place = next(low + 4 * i for i, each in enumerate(words) if wanted(each))
    init = EmulatedTarget.__init__

    def wrong(self: EmulatedTarget, patching: Patching, **named: Any) -> None:
        init(self, patching, **named)
        patching.machine.board.write(place, word)

    return lambda patch: patch.setattr(EmulatedTarget, "__init__", wrong)


FAULTS: dict[str, Seed] = {
    "stacks are not looked at": _looks(lambda _, __, looks: [Look(None)] * len(looks)),
    "looks are given to the next task": _looks(lambda _, __, looks: [*looks[1:], *looks[:1]]),
    "a look is kept for later transitions": _from_before(),
    "the running task counts as clear": _looks(_running),
    "only one of the functions is searched for": _ranges(lambda found: found[-1:]),
    "ranges end after the prologue": _ranges(lambda found: [replace(r, end=r.start + 24) for r in found]),
    "ranges begin behind the prologue and end at the last call": _ranges(
        lambda found: [replace(r, start=r.end - 40) for r in found]
    ),
    "the new code is searched for instead of the old": _other_side,
    "unreliable counts as clear": _clear(lambda f, _, __: f.hold in {Hold.UNRELIABLE, Hold.CHOOSING, Hold.RUNNING}),
    "the tracer is not looked at": _clear(lambda f, _, __: f.hold is Hold.CHOOSING),
    "the innermost frames only": _clear(lambda f, _, __: f.hold is Hold.ON_STACK and f.frame > 2),
    "interrupted code does not count": _clear(_exact),
    "return addresses do not count": _clear(lambda f, t, i: f.hold is Hold.ON_STACK and not _exact(f, t, i)),
    "interrupted functions' callers are missed": _along_records,
    "the table is for everybody": _redirects(lambda table: _for_all(table, new=True)),
    "one site is forgotten": _redirects(lambda table: table[:1]),
    "sides are not set when it begins": _no_sides_at_the_start,
    "the last task is not waited for": _one_task_too_many,
    "tasks are not listed": _unlisted,
    "turning round takes no time": _turned_in_a_moment,
    "tasks are overruled unasked": _always_forced,
    "tasks go over where they are switched out": _switched_out_goes_over,
    "the handler does not look at the side": _in_the_handler(
        "klp_ftrace_handler", lambda word: word & 0x7F00_0000 == 0x3600_0000, NOP
    ),
}


def _until_found(make: Callable[[Patching], EngineDriver]) -> Tally:
    """Run until a call has mixed, under one load after the other."""
    total = Tally()
    for seed, (tracing, pace) in enumerate([(0, 1_500), (0, 1_500), (1, 6_000), (2, 1_500), (3, 6_000)] * 2):
        job = PatchJob(seed=seed + 20, transitions=60, tracing=tracing, pace=pace)
        total.add(run_patching(KERNEL, make, job, to_first=True))
        if total.mixed or total.died:
            break
    return total


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_makes_calls_mix(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The observer sees the mix, whatever the engine believes."""
    FAULTS[name](monkeypatch)
    found = _until_found(EngineDriver)
    assert found.mixed > 0
