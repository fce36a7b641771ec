"""Layer 6: what the engine of per-task consistency asks of a target."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from surefoot.patch.check import Range
from surefoot.patch.model import PatchFunction
from surefoot.patch.stack import Place, Redirect, Side
from surefoot.patch.transition import Look, TaskRow

__all__ = ["PerTaskTarget"]


class PerTaskTarget(Protocol):
    """A target with a livepatch handler that chooses between two entries by the calling task's side.

    The target stands still except inside `run` and `barrier`. What is read between two of these calls belongs to one
    instant, and nothing that is written is seen half. In the target:

    * the handler is entered at every redirected function; it takes `unpatched` or `patched` of the row by the
      side of the calling task (anything but PATCHED counts as UNPATCHED);
    * on its way from kernel to user mode, and in the idle loop, a task whose flag is pending takes the goal for
      its side and clears the flag;
    * a new task takes side and flag from its parent.
    """

    def loaded(self) -> Collection[str]:
        """Give the names of the objects that are there: "vmlinux" and modules."""
        ...

    def resolve(self, owner: str, function: PatchFunction) -> Place:
        """Find a function of an object that is there, and its new code.

        Raises:
            SurefootError: there is no such function, not exactly one, or it cannot be patched.
        """
        ...

    def tasks(self) -> Sequence[TaskRow]:
        """Give all tasks that can ever run kernel code again, the idle ones included."""
        ...

    def look(self, keys: Sequence[int], ranges: Sequence[Range], sites: Sequence[Range]) -> Sequence[Look]:
        """Walk the stacks of some tasks and check them (`surefoot.patch.check.holds`), one answer per key.

        Args:
            keys: of tasks.
            ranges: code that a task to go over may not be in.
            sites: functions whose calls are redirected by the patch in transition.
        """
        ...

    def set_goal(self, goal: Side) -> None:
        """Say which side tasks with the flag take; IDLE while there is no transition."""
        ...

    def set_side(self, keys: Sequence[int], side: Side) -> None:
        """Set the side of some tasks."""
        ...

    def set_pending(self, keys: Sequence[int], pending: bool) -> None:
        """Set or clear the flag of some tasks."""
        ...

    def redirect(self, table: Sequence[Redirect]) -> None:
        """Make this the whole table of the handler: functions that are not in it are not redirected.

        Raises:
            PatchError: it could not be done, and nothing has changed.
        """
        ...

    def callback(self, owner: str, symbol: str) -> None:
        """Call a function of a patch, in the target, for an object.

        An interrupt may come before the call, or is held back until it has returned: whether a pre_patch has
        succeeded must be known.

        Raises:
            PatchError: it failed, or the target cannot call functions.
        """
        ...

    def barrier(self) -> None:
        """Run until every task that is in the handler, or about to take a side by its flag, has done so.

        No task sleeps there, so this ends: as synchronize_rcu_tasks() and klp_synchronize_transition() do.

        Raises:
            TargetError: it did not end.
        """
        ...

    def run(self) -> bool:
        """Run for a while, as long as the target thinks right between two passes; False if it has ended."""
        ...
