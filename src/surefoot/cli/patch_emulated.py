"""Layer 9: the emulated machine as what the patch engine asks for: machine and engine know nothing of each other.

Invariant: every decision is the engine's and the check's; this translates.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from surefoot.errors import PatchError, Unavailable
from surefoot.machine.patching import Patching
from surefoot.patch.check import Range, holds, ranges_of, trace_of
from surefoot.patch.model import VMLINUX, PatchFunction
from surefoot.patch.stack import Body, Place, Redirect, Side
from surefoot.patch.transition import Look, TaskRow

__all__ = ["PACE", "EmulatedTarget"]

PACE: Final = 600
"""Instructions between two passes, unless somebody knows better."""


class EmulatedTarget:
    """What `surefoot.patch.engine.PerTaskTarget` describes, on an emulated machine.

    Attributes:
        patching: the machine.
        pace: instructions between two passes.
        dry: nothing is written or run: an engine is being told what the machine has in force already.
    """

    def __init__(self, patching: Patching, *, pace: int = PACE) -> None:
        """Take a machine.

        Args:
            patching: of the machine.
            pace: instructions between two passes.
        """
        self.patching = patching
        self.pace = pace
        self.dry = False

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
        return [
            TaskRow(task.key, task.key, task.comm, _side(task.side), pending=task.pending, idle=task.idle)
            for task in self.patching.tasks()
        ]

    def look(self, keys: Sequence[int], ranges: Sequence[Range], sites: Sequence[Range]) -> Sequence[Look]:
        """Walk some tasks, the running one too: the CPU stands between two instructions, so its state is exact."""
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

    def set_pending(self, keys: Sequence[int], pending: bool) -> None:
        """Set or clear the flag of some tasks."""
        if not self.dry:
            self.patching.set_pending(keys, pending=pending)

    def redirect(self, table: Sequence[Redirect]) -> None:
        """Make this the handler's table."""
        if not self.dry:
            self.patching.redirect([(row.site, row.unpatched, row.patched) for row in table])

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
        """Run on between two passes.

        Raises:
            Unavailable: nothing may run while an engine is told what is in force.
        """
        if self.dry:
            raise Unavailable("the emulated machine does not run now")
        return self.patching.run(self.pace)


def _side(number: int) -> Side:
    """Give a patch state; one that there is not counts as none."""
    return Side(number) if number in {-1, 0, 1} else Side.IDLE
