"""Layer 6: a transition as a pure state machine: which task is on which side, and what brings it over.

Nothing here knows a target. The same rules as in kernel/livepatch/transition.c: a task goes over when its stack is
clear, when it leaves the kernel, or when it idles; a new task is on its parent's side; a transition can be turned
round at any moment; and only an explicit word overrules a task that holds it up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from surefoot.errors import PatchError
from surefoot.patch.check import Finding, task_state
from surefoot.patch.events import Hold, TaskState
from surefoot.patch.model import PatchObject
from surefoot.patch.stack import Side

__all__ = ["CallbackLedger", "Cause", "Look", "TaskRow", "Transition"]


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task as a target has it.

    Attributes:
        key: tells it from all other tasks, also from later ones: the address of its task_struct may not do.
        pid: thread id; of idle tasks 0.
        comm: its name.
        side: its patch state.
        pending: the flag is set that makes it go over when it leaves the kernel.
        idle: it is the idle task of a CPU.
    """

    key: int
    pid: int
    comm: str
    side: Side
    pending: bool = False
    idle: bool = False


@dataclass(frozen=True, slots=True)
class Look:
    """What the stack of a task says.

    Attributes:
        finding: why it is not clear; None if it certainly is.
        trace: its functions, innermost first (`surefoot.patch.check.trace_of`).
    """

    finding: Finding | None
    trace: tuple[str, ...] = ()


class Cause(Enum):
    """What brought a task over; the values are names of `surefoot.patch.events.FIGURES`."""

    STACK = "by_stack"
    EXIT = "by_exit"
    IDLE = "by_idle"
    FORK = "by_fork"
    FORCE = "by_force"


_NOT_LOOKED: Final = Look(Finding(Hold.UNKNOWN, "", 0, 0, "it was not looked at yet"))


@dataclass(slots=True)
class _Member:
    """A task in the transition, and what was last seen of its stack."""

    row: TaskRow
    look: Look = _NOT_LOOKED


@dataclass(slots=True)
class Transition:
    """All tasks on their way to one side.

    Attributes:
        patch: name of the patch.
        goal: the side that all tasks are going to.
        forced: the tasks that were overruled, as they were then.
    """

    patch: str
    goal: Side
    forced: tuple[TaskState, ...] = ()
    _members: dict[int, _Member] = field(default_factory=dict)

    @classmethod
    def begin(cls, patch: str, goal: Side, tasks: Iterable[TaskRow]) -> Transition:
        """Start with every task, the idle ones included, on the side that it comes from, with the flag set.

        Args:
            patch: name of the patch.
            goal: PATCHED or UNPATCHED.
            tasks: all of the target's.

        Raises:
            ValueError: the goal is no side (a bug of the caller).
        """
        if goal is Side.IDLE:
            raise ValueError("a transition leads to one of two sides")
        members = {row.key: _Member(replace(row, side=goal.other, pending=True)) for row in tasks}
        return cls(patch, goal, _members=members)

    def __len__(self) -> int:
        return len(self._members)

    @property
    def left(self) -> tuple[int, ...]:
        """Keys of the tasks that have not gone over."""
        return tuple(key for key, member in self._members.items() if member.row.side is not self.goal)

    @property
    def is_complete(self) -> bool:
        """Whether every task has gone over."""
        return not self.left

    def side(self, key: int) -> Side:
        """Give the side that a task is on."""
        return self._members[key].row.side

    def is_pending(self, key: int) -> bool:
        """Say whether a task goes over when it next leaves the kernel."""
        return self._members[key].row.pending

    def states(self, keys: Iterable[int] | None = None) -> tuple[TaskState, ...]:
        """Give tasks as the view shows them, with what holds them.

        Args:
            keys: which, in this order; None for all.
        """
        members = self._members.values() if keys is None else [self._members[key] for key in keys]
        return tuple(self._state(member) for member in members)

    def _state(self, member: _Member) -> TaskState:
        row = member.row
        crossed = row.side is self.goal
        # A look that found nothing crosses at once; if the task is back on the other side, the look is outdated.
        look = _NOT_LOOKED if member.look.finding is None and not crossed else member.look
        return task_state(row.pid, row.comm, look.finding, look.trace, crossed=crossed)

    def blockers(self) -> tuple[TaskState, ...]:
        """Name every task that holds the transition up."""
        return self.states(self.left)

    # What happens to tasks.

    def fork(self, parent: int, child: TaskRow) -> None:
        """A task was made: side and flag are its parent's."""
        row = self._members[parent].row
        self._members[child.key] = _Member(replace(child, side=row.side, pending=row.pending))

    def exit(self, key: int) -> None:
        """A task has ended: it holds nothing up any more."""
        self._members.pop(key, None)

    def leave_kernel(self, key: int) -> bool:
        """A task goes to user mode, or idles with an empty stack; gives whether that brought it over."""
        member = self._members[key]
        if not member.row.pending:
            return False
        crossed = member.row.side is not self.goal
        member.row = replace(member.row, side=self.goal, pending=False)
        return crossed

    def attempt(self, key: int, look: Look) -> bool:
        """Judge a task by its stack; gives whether that brought it over."""
        member = self._members[key]
        member.look = look
        if member.row.side is self.goal or look.finding is not None:
            return False
        member.row = replace(member.row, side=self.goal, pending=False)
        return True

    # What an operator does.

    def reverse(self) -> None:
        """Turn round: those that have gone over have to come back, and those that have not are where they belong."""
        self.goal = self.goal.other
        for member in self._members.values():
            member.look = _NOT_LOOKED
            member.row = replace(member.row, pending=member.row.side is not self.goal)

    def force(self) -> tuple[TaskState, ...]:
        """Take every task for gone over, whatever its stack says: only ever by explicit word.

        Returns:
            the tasks that were overruled, with what held them.
        """
        overruled = self.blockers()
        self.forced += overruled
        for key in self.left:
            member = self._members[key]
            member.row = replace(member.row, side=self.goal, pending=False)
        return overruled

    # What is seen in a target.

    def observe(self, rows: Sequence[TaskRow]) -> dict[int, Cause]:
        """Take over what a target's tasks have done by themselves since the last time.

        Tasks that are gone have ended. New ones are on the side that they say they are on. Whoever has reached the
        goal went there when it left the kernel or idled. A task that is on neither side, or back on the other one,
        has not gone over, whatever was known of it before: what the handler in the target reads is what counts.

        Args:
            rows: all tasks, at one instant.

        Returns:
            the tasks that have gone over since, and how; those that were born over too.
        """
        crossed: dict[int, Cause] = {}
        for key in self._members.keys() - {row.key for row in rows}:
            self.exit(key)
        for row in rows:
            member = self._members.get(row.key)
            if member is None:
                self._members[row.key] = _Member(row)
                if row.side is self.goal:
                    crossed[row.key] = Cause.FORK
                continue
            if row.side is self.goal and member.row.side is not self.goal:
                crossed[row.key] = Cause.IDLE if row.idle else Cause.EXIT
            member.row = row
        return crossed

    def unflagged(self) -> tuple[int, ...]:
        """Keys of the tasks that have not gone over and do not have the flag: it has to be set."""
        return tuple(key for key in self.left if not self._members[key].row.pending)


class CallbackLedger:
    """Which objects' callbacks have run, so that each success of a pre_patch is undone exactly once.

    Only pre_patch can fail in the sense of a veto; what the others raise becomes a warning, as in the kernel, where
    they give no result.
    """

    def __init__(self, call: Callable[[str, str], None]) -> None:
        """Take what calls a symbol for an object and raises PatchError on failure."""
        self._call = call
        self._ready: list[PatchObject] = []
        self.warnings: list[str] = []

    @property
    def ready(self) -> tuple[PatchObject, ...]:
        """The objects whose pre_patch has succeeded, or which have none, in that order."""
        return tuple(self._ready)

    def pre_patch(self, item: PatchObject) -> None:
        """Ask an object whether it may be patched.

        Raises:
            PatchError: it may not; its post_unpatch will not be called.
        """
        if item.callbacks.pre_patch:
            self._call(item.name, item.callbacks.pre_patch)
        self._ready.append(item)

    def post_patch(self, item: PatchObject) -> None:
        """Tell an object that every task runs its new functions."""
        self._try(item, item.callbacks.post_patch)

    def pre_unpatch(self, item: PatchObject) -> None:
        """Tell an object that its functions are about to be taken back."""
        self._try(item, item.callbacks.pre_unpatch)

    def post_unpatch(self, item: PatchObject) -> None:
        """Tell an object that it is wholly unpatched, if its pre_patch has succeeded; once."""
        if item in self._ready:
            self._try(item, item.callbacks.post_unpatch)
            self._ready.remove(item)  # an interrupt comes before the call, which then is still to be made

    def undo(self) -> None:
        """Tell all objects that are ready, in reverse order, that they are wholly unpatched."""
        for item in self.ready[::-1]:
            self.post_unpatch(item)

    def _try(self, item: PatchObject, symbol: str) -> None:
        if symbol:
            try:
                self._call(item.name, symbol)
            except PatchError as error:
                self.warnings.append(f"the callback {symbol} of {item.name} failed: {error}")
