"""Layer 6: the steps of a transition, done to a target and noted: begin, pass, turn round, force, end.

The order is that of kernel/livepatch/{core,transition}.c of Linux 7.3. Two barriers are set where a task in the
middle of the handler could otherwise combine a table and a side that do not belong together:

* sides are set, then a barrier, then the table changes;
* at the end the table changes, then a barrier, then sides are reset.

What is done to the target comes before what is noted of it, and every pass takes the target's word for who is where:
an interrupt between the two loses a note, never a task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from surefoot.errors import NotApplied, PatchError, SurefootError
from surefoot.patch.events import FunctionState, PatchState, Status, TaskState
from surefoot.patch.model import Patch, PatchFunction, PatchObject, validate
from surefoot.patch.pertask import PerTaskTarget
from surefoot.patch.stack import PatchStack, Place, Side
from surefoot.patch.transition import CallbackLedger, Cause, Transition

__all__ = ["PartialStart", "Steps"]

_UNDER_WAY: Final = {Side.PATCHED: PatchState.APPLYING, Side.UNPATCHED: PatchState.REVERTING}


class PartialStart(PatchError):
    """A transition could not be started, and its redirections could not be taken back."""


class Steps:
    """What is in force in one target, and each step that changes it.

    Attributes:
        transition: the one under way, if any: there is only one at a time.
        pinned: patches whose code may never go away, because a transition was forced over tasks that may be in it.
    """

    def __init__(self, target: PerTaskTarget) -> None:
        """Take a target that has no patch in force."""
        self._target = target
        self._stack = PatchStack()
        self._ledgers: dict[str, CallbackLedger] = {}
        self._partial: str | None = None
        self._repair: Callable[[], None] | None = None
        self._redirected = self._settled = self._starting = False
        self._owed: list[PatchObject] | None = None
        self.transition: Transition | None = None
        self.pinned: set[str] = set()

    # What there is.

    @property
    def moving(self) -> str | None:
        """The patch in transition, if any."""
        return self.transition.patch if self.transition else None

    @property
    def is_settled(self) -> bool:
        """Whether the transition under way is over but for its last steps, and cannot be turned round any more."""
        return self._settled

    @property
    def partial(self) -> str | None:
        """The patch of which a start failed and could not be taken back yet, if any."""
        return self._partial

    def has(self, name: str) -> bool:
        """Say whether a patch is in force, wholly or for some tasks."""
        return name in self._stack.patches

    def sites(self, name: str) -> int:
        """Give the number of functions that a patch redirects."""
        return len(self._stack.of(name))

    def state(self, name: str) -> PatchState:
        """Say where a patch stands."""
        if self.transition is not None and self.transition.patch == name:
            return _UNDER_WAY[self.transition.goal]
        if name == self._partial:
            return PatchState.PARTIAL
        return PatchState.APPLIED if self.has(name) else PatchState.ABSENT

    def warnings(self, name: str) -> tuple[str, ...]:
        """Give what callbacks of a patch have failed since it was applied."""
        return tuple(self._ledgers[name].warnings) if name in self._ledgers else ()

    def status(self) -> list[Status]:
        """Say how each patch stands, oldest first."""
        result = []
        unlisted = {name for name in (self._partial, self.moving) if name is not None and not self.has(name)}
        for name in (*self._stack.patches, *unlisted):
            moving = self.transition if self.moving == name else None
            functions = tuple(
                FunctionState(item.original.name, item.owner, item.original.entry, item.body_of(version).entry, True)
                for item in self._stack.of(name)
                for version in [item.versions[item.at(name)]]
            )
            warnings = list(self.warnings(name))
            if name in self.pinned:
                warnings.append("A transition of it was forced: its code must never be removed from memory.")
            tasks = moving.states() if moving else ()
            result.append(Status(name, self.state(name), tasks, functions, tuple(warnings)))
        return result

    # How a transition begins.

    def prepare(self, patch: Patch) -> PatchStack:
        """Find everything that a patch needs, and change nothing.

        Returns:
            what will be in force, for `start`.

        Raises:
            SurefootError: it cannot be applied.
        """
        validate(patch)
        self._stack.compatible(patch)
        stack, loaded = self._stack.copy(), self._target.loaded()
        stack.add(patch, {item.name: self._places(item) for item in patch.objects if item.name in loaded})
        return stack

    def _places(self, item: PatchObject) -> Mapping[PatchFunction, Place]:
        return {function: self._target.resolve(item.name, function) for function in item.functions}

    def start(self, name: str, goal: Side, stack: PatchStack | None = None) -> Transition:
        """Set everything up for a transition, or nothing.

        Args:
            name: of the patch.
            goal: PATCHED or UNPATCHED.
            stack: what `prepare` gave; None for what is in force.

        Raises:
            PatchError: a callback or the target refused; nothing has changed.
            PartialStart: the target refused, and refused also to be put back.
        """
        self.repair()
        self._starting = True
        try:
            return self._start(name, goal, stack or self._stack)
        finally:
            self._starting = False

    def _start(self, name: str, goal: Side, after: PatchStack) -> Transition:
        target, before = self._target, self._stack
        told: list[PatchObject] = []
        self._redirected = False
        if goal is Side.PATCHED:
            self._ledgers[name] = CallbackLedger(target.callback)
        try:
            target.set_side([row.key for row in target.tasks()], goal.other)
            self._call_before(name, goal, after, told)
            target.barrier()
            self._redirect_first(after, name)
            rows = target.tasks()
            target.set_goal(goal)
            target.set_pending([row.key for row in rows], pending=True)
            self._stack, self._settled, self._owed = after, False, None
            self.transition = Transition.begin(name, goal, rows)
        except BaseException:
            self._partial, self._repair = name, lambda: self._undo_start(name, goal, before, told)
            _surely(self.repair)
            raise
        return self.transition

    def repair(self) -> None:
        """Take back what is left of a start that failed, if anything.

        Raises:
            PartialStart: the target refuses still.
        """
        if self._repair is None:
            return
        starting, self._starting = self._starting, True
        try:
            self._repair()
            self._repair = self._partial = None
        finally:
            self._starting = starting

    def _call_before(self, name: str, goal: Side, stack: PatchStack, told: list[PatchObject]) -> None:
        ledger, loaded = self._ledgers[name], self._target.loaded()
        if goal is Side.PATCHED:
            for item in stack.patches[name].objects:
                if item.name in loaded:
                    ledger.pre_patch(item)
        else:
            for item in ledger.ready:
                ledger.pre_unpatch(item)
                told.append(item)

    def _redirect_first(self, stack: PatchStack, name: str) -> None:
        self._redirected = True  # an interrupt may come after it as well as before it
        try:
            self._target.redirect(stack.redirects(name))
        except PatchError:
            self._redirected = False
            raise

    def _undo_start(self, name: str, goal: Side, before: PatchStack, told: list[PatchObject]) -> None:
        """Go back to before a start that failed or was interrupted: nobody has gone over yet.

        All tasks are on the side that they came from, for which both tables say the same: the old one may be put
        back at any moment, but sides must not be reset before nobody is in the handler.
        """
        target = self._target
        self._stack, self.transition = before, None
        target.set_pending([row.key for row in target.tasks()], pending=False)
        target.set_goal(Side.IDLE)
        try:
            if self._redirected:
                target.redirect(before.redirects(None))
        except PatchError as error:
            raise PartialStart(
                f"{name} could not be started, nor could its redirections be taken back: {error}."
                " They lead every task to the code that it ran before; the same command may be tried again."
            ) from error
        target.barrier()
        target.set_side([row.key for row in target.tasks()], Side.IDLE)
        if goal is Side.PATCHED and name in self._ledgers:
            self._ledgers[name].undo()
            del self._ledgers[name]
        while told:
            self._ledgers[name].post_patch(told[-1])
            told.pop()

    # How it goes on.

    def go(self) -> dict[int, Cause]:
        """Look at every task that is left, and take over those that are clear.

        Returns:
            the tasks that have gone over since the last time, and how.
        """
        target, transition = self._target, self._under_way()
        causes = transition.observe(target.tasks())
        left = transition.left
        if left:
            ranges = self._stack.searched(transition.patch, transition.goal)
            looks = dict(zip(left, target.look(left, ranges, self._stack.sites(transition.patch)), strict=True))
            clear = [key for key, look in looks.items() if look.finding is None]
            target.set_side(clear, transition.goal)
            target.set_pending(clear, pending=False)
            causes |= {key: Cause.STACK for key, look in looks.items() if transition.attempt(key, look)}
        target.set_goal(transition.goal)
        target.set_pending(transition.unflagged(), pending=True)
        return causes

    def reverse(self) -> None:
        """Turn the transition round at once.

        Raises:
            NotApplied: no transition is under way, or it is all but over.
        """
        transition = self._under_way()
        if self._settled:
            raise NotApplied(f"the transition of {transition.patch} is over")
        target = self._target
        # Nobody may be between reading the flag and taking the goal for its side when the goal changes.
        target.set_pending([row.key for row in target.tasks()], pending=False)
        target.barrier()
        transition.observe(target.tasks())
        target.set_goal(transition.goal.other)
        transition.reverse()
        target.set_pending(transition.left, pending=True)

    def force(self) -> tuple[TaskState, ...]:
        """Overrule those that are left, and remember where they may be.

        Returns:
            the tasks overruled, with what held them.
        """
        target, transition = self._target, self._under_way()
        self._stack.force(transition.patch, transition.goal)
        self.pinned.add(transition.patch)
        target.set_side(transition.left, transition.goal)
        target.set_pending(transition.left, pending=False)
        return transition.force()

    def is_complete(self) -> bool:
        """Say whether every task has gone over, by what the target says now."""
        transition = self._under_way()
        transition.observe(self._target.tasks())
        return transition.is_complete

    def settle(self) -> tuple[str, ...]:
        """End a transition in which every task has gone over.

        The table becomes final, then nobody may read sides any more, then they are reset. May be interrupted and
        called again: it carries on where it was.

        Returns:
            what callbacks have failed in it.

        Raises:
            PatchError: the target refused the final table; the transition is still under way.
        """
        target, transition = self._target, self._under_way()
        name, applied = transition.patch, transition.goal is Side.PATCHED
        self._finalise(name, applied=applied)
        target.barrier()
        keys = [row.key for row in target.tasks()]
        target.set_side(keys, Side.IDLE)
        target.set_pending(keys, pending=False)
        target.set_goal(Side.IDLE)
        ledger = self._ledgers[name]
        warned = len(ledger.warnings)
        if applied:
            if self._owed is None:
                self._owed = list(ledger.ready)
            while self._owed:
                if self._owed[0] in ledger.ready:  # a module may have gone since
                    ledger.post_patch(self._owed[0])
                self._owed.pop(0)
        else:
            ledger.undo()
        # The callbacks of patches that were replaced are not called: the new patch has taken over.
        self._ledgers = {key: item for key, item in self._ledgers.items() if self.has(key)}
        self.transition, self._settled, self._owed = None, False, None
        return tuple(ledger.warnings[warned:])

    def _finalise(self, name: str, *, applied: bool) -> None:
        """Make the table final. An interrupt may leave it so or not: after the first attempt there is no way back."""
        fresh, before = not self._settled, self._stack
        if fresh:
            stack = before.copy()
            if not applied:
                stack.drop(name)
            elif stack.patches[name].replace:
                stack.replace_older(name)
            self._stack, self._settled = stack, True
        try:
            self._target.redirect(self._stack.redirects(None))
        except PatchError:
            if fresh:
                self._stack, self._settled = before, False
            raise

    def _under_way(self) -> Transition:
        if self.transition is None:
            raise NotApplied("no transition is under way")
        return self.transition

    # What happens in the target meanwhile: it holds interrupts back while it calls these.

    def object_coming(self, name: str) -> None:
        """Patch a module that has just been loaded and has not run yet.

        Args:
            name: of the module; `PerTaskTarget.resolve` finds its functions already.

        Raises:
            SurefootError: a patch in force cannot be applied to it: the module must not be loaded.
        """
        self._may_change()
        wanted = dict(self._speaking_of(name))
        stack = self._stack.copy()
        stack.arrive(name, {patch: self._places(item) for patch, item in wanted.items()})
        asked: list[str] = []
        try:
            for patch, item in wanted.items():
                self._ledgers[patch].pre_patch(item)
                asked.append(patch)
            self._redirect_or_not(stack)
        except SurefootError:
            for patch in reversed(asked):
                self._ledgers[patch].post_unpatch(wanted[patch])
            raise
        for patch, item in wanted.items():
            if patch != self.moving or (self._owed is not None and item not in self._owed):
                self._ledgers[patch].post_patch(item)

    def object_going(self, name: str) -> None:
        """Forget a module that is about to be unloaded; no task is in it.

        Raises:
            PatchError: the redirections could not be taken back: the module must stay, patched as before.
        """
        self._may_change()
        wanted = self._speaking_of(name)[::-1]
        told = [(patch, item) for patch, item in wanted if patch != self.moving]
        stack = self._stack.copy()
        stack.leave(name)
        for patch, item in told:
            self._ledgers[patch].pre_unpatch(item)
        try:
            self._redirect_or_not(stack)
        except SurefootError:
            for patch, item in reversed(told):
                self._ledgers[patch].post_patch(item)
            raise
        for patch, item in wanted:
            self._ledgers[patch].post_unpatch(item)

    def _may_change(self) -> None:
        """Refuse modules while a transition is set up or taken back, which may run the target: it counts them first.

        Raises:
            NotApplied: it is.
        """
        if self._starting:
            raise NotApplied("a transition is just being set up: modules may come and go in a moment")
        self.repair()

    def _redirect_or_not(self, stack: PatchStack) -> None:
        """Put another stack in force in the middle of whatever is under way, or leave the old one there."""
        self._target.redirect(stack.redirects(None if self._settled else self.moving))
        self._stack = stack

    def _speaking_of(self, name: str) -> Sequence[tuple[str, PatchObject]]:
        """Give the patches in force that name an object, oldest first."""
        patches = self._stack.patches.values()
        return [(patch.name, item) for patch in patches for item in patch.objects if item.name == name]


def _surely(undo: Callable[[], None]) -> None:
    """Undo something although one interrupt comes in the middle; what is undone already stays so."""
    try:
        undo()
    except KeyboardInterrupt:
        undo()
        raise
