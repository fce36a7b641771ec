"""Layer 9: the emulated machine as what the patch engine asks for: machine and engine know nothing of each other.

Invariant: every decision is the engine's and the check's; this translates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import Final

from surefoot.errors import PatchError
from surefoot.machine.patching import Patching
from surefoot.machine.patchrun import PAIR, Passage
from surefoot.patch.check import Finding, Range, holds, ranges_of, trace_of
from surefoot.patch.engine import Engine, Settings
from surefoot.patch.events import Event, EventKind, Hold, PatchState
from surefoot.patch.model import VMLINUX, Patch, PatchFunction, PatchObject
from surefoot.patch.stack import Body, Place, Redirect, Side
from surefoot.patch.transition import Look, TaskRow

__all__ = ["PACE", "PAIR_PATCH", "EmulatedTarget", "EngineDriver"]

PACE: Final = 600
"""Instructions between two passes, unless somebody knows better."""
_NOBODY: Final = 1 << 40
PAIR_PATCH: Final = Patch("pair", (PatchObject(VMLINUX, tuple(PatchFunction(old, 0, new) for old, new in PAIR)),))
"""The patch of the functions that must not be mixed."""


class EmulatedTarget:
    """What `surefoot.patch.engine.PerTaskTarget` describes, on an emulated machine.

    Attributes:
        patching: the machine.
        pace: instructions between two passes.
        patience: passes left in which stacks are not looked at: tasks go over at the kernel's exit or idling only.
        between: runs the machine between two passes, instead of `pace`; False if it has ended.
        dry: nothing is written or run: an engine is being told what the machine has in force already.
        planned: the table that it came to meanwhile.
    """

    def __init__(self, patching: Patching, *, pace: int = PACE) -> None:
        """Take a machine.

        Args:
            patching: of the machine.
            pace: instructions between two passes.
        """
        self.patching = patching
        self.pace = pace
        self.patience = 0
        self.between: Callable[[], bool] | None = None
        self.dry = False
        self.planned: list[tuple[int, int, int]] = []
        self._replayed: list[TaskRow] | None = None

    def replay(self, *, held: bool) -> None:
        """Let an engine go through a transition that is over: it finds no task, or one that nothing brings over."""
        self.dry = True
        self._replayed = [TaskRow(_NOBODY, 0, "", Side.IDLE)] if held else []

    def join(self) -> None:
        """Let an engine begin the transition that is under way: it finds the tasks as they are."""
        self.dry, self._replayed = True, None

    def is_as_planned(self) -> bool:
        """Say whether the machine's table is what the engine came to."""
        said, found = (
            sorted(row for row in table if row != (row[0],) * 3) for table in (self.planned, self.patching.table())
        )
        return said == found

    def loaded(self) -> Collection[str]:
        """The kernel; there are no modules."""
        return (VMLINUX,)

    def resolve(self, owner: str, function: PatchFunction) -> Place:
        """Find a function with a patch site, and its new code, which is in the kernel too.

        Raises:
            PatchError: there is no such function, or it cannot be patched.
        """
        if owner != VMLINUX or function.module:
            raise PatchError(f"the emulated machine has no modules: {function.module or owner} cannot be there")
        old = self.patching.check_site(function.old, function.position)
        new = self.patching.find(function.new)
        code = self.patching.code
        return Place(
            Body(function.old, old, tuple(ranges_of(code, [old]))),
            Body(function.new, new, tuple(ranges_of(code, [new]))),
        )

    def tasks(self) -> Sequence[TaskRow]:
        """Give all tasks."""
        if self.dry and self._replayed is not None:
            return self._replayed
        return [
            TaskRow(task.key, task.key, task.comm, _side(task.side), pending=task.pending, idle=task.idle)
            for task in self.patching.tasks()
        ]

    def look(self, keys: Sequence[int], ranges: Sequence[Range], sites: Sequence[Range]) -> Sequence[Look]:
        """Walk some tasks, the running one too: the CPU stands between two instructions, so its state is exact."""
        if self.dry or self.patience > 0:
            self.patience -= not self.dry
            return [Look(Finding(Hold.UNKNOWN, "", 0, 0, "its stack was not looked at yet"))] * len(keys)
        traces = self.patching.walk(keys)
        code = self.patching.code
        choosing = [Range(*each) for each in self.patching.choosing()]
        findings = holds(traces, code, ranges, choosing=choosing, sites=sites)
        return [
            Look(finding, trace_of(traces, code, i) if finding is not None else ())
            for i, finding in enumerate(findings)
        ]

    def set_goal(self, goal: Side) -> None:
        """Say which side tasks with the flag take."""
        if not self.dry:
            self.patching.set_goal(int(goal))

    def set_side(self, keys: Sequence[int], side: Side) -> None:
        """Set the side of some tasks."""
        if not self.dry:
            self.patching.set_side(keys, int(side))
        elif self._replayed is not None:
            self._replayed = [replace(row, side=side) if row.key in keys else row for row in self._replayed]

    def set_pending(self, keys: Sequence[int], pending: bool) -> None:
        """Set or clear the flag of some tasks."""
        if not self.dry:
            self.patching.set_pending(keys, pending=pending)

    def redirect(self, table: Sequence[Redirect]) -> None:
        """Make this the handler's table."""
        rows = [(row.site, row.unpatched, row.patched) for row in table]
        if self.dry:
            self.planned = rows
        else:
            self.patching.redirect(rows)

    def callback(self, owner: str, symbol: str) -> None:
        """Refuse: nothing calls functions on the machine from outside.

        Raises:
            PatchError: always.
        """
        raise PatchError(f"the emulated machine cannot call {symbol} for {owner}: it has no callbacks")

    def barrier(self) -> None:
        """Run until nobody is in the handler, or about to take a side."""
        if not self.dry:
            self.patching.barrier()

    def run(self) -> bool:
        """Run on between two passes."""
        if self.dry:
            return True
        return self.between() if self.between else self.patching.run(self.pace)


def _side(number: int) -> Side:
    """Give a patch state; one that there is not counts as none."""
    return Side(number) if number in {-1, 0, 1} else Side.IDLE


class EngineDriver:
    """Carries transitions of the pair through by the engine, for `surefoot.machine.patchrun`.

    Attributes:
        target: what the engine sees.
        engine: it.
    """

    def __init__(self, patching: Patching, *, timeout: int = 600_000) -> None:
        """Take a machine.

        Args:
            patching: of the machine.
            timeout: instructions after which a transition is turned round.
        """
        board = patching.machine.board
        self.target = EmulatedTarget(patching)
        self.engine = Engine(self.target, lambda: float(board.count), Settings(timeout_s=float(timeout)))

    def drive(self, *, forward: bool, between: Callable[[], bool], turn: Callable[[], bool]) -> Passage:
        """Apply the pair's patch, or take it back; see `surefoot.machine.patchrun.Driver`."""
        self.target.between = between
        told = list(self._events(forward=forward, turn=turn))
        holds = [task for event in told if event.kind is EventKind.BLOCKED for task in event.tasks]
        named = sum(bool(task.hold and task.reason and (task.comm or not task.pid)) for task in holds)
        causes: Counter[str] = Counter()
        for event in told:
            causes.update({name: int(count) for name, count in event.figures.items() if name.startswith("by_")})
        return Passage(
            applied=told[-1].state in {PatchState.APPLIED, PatchState.APPLYING},
            complete=told[-1].kind is EventKind.COMPLETED,
            passes=1 + sum(event.kind is EventKind.RETRIED for event in told),
            turned=sum(event.kind is EventKind.REVERSED for event in told),
            named=named,
            nameless=len(holds) - named,
            causes=causes,
        )

    def _events(self, *, forward: bool, turn: Callable[[], bool]) -> Iterator[Event]:
        """Give the engine's events, and turn the transition round where that is asked for."""
        if self.engine.moving is not None:
            yield from self.engine.resume()
            return
        for event in self.engine.apply(PAIR_PATCH) if forward else self.engine.revert(PAIR_PATCH.name):
            yield event
            if event.kind in {EventKind.BLOCKED, EventKind.RETRIED} and self.engine.moving and turn():
                self.engine.reverse()
