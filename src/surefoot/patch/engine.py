"""Layer 6: the engine of per-task consistency: moves every task of a target from old to new code, or back.

The order of steps is that of kernel/livepatch/{core,transition}.c of Linux 7.3. Two barriers are set where a task in
the middle of the handler could otherwise combine a table and a side that do not belong together:

* sides are set, then a barrier, then the table changes;
* at the end the table changes, then a barrier, then sides are reset.

What is done to the target comes before what is noted of it, and every pass takes the target's word for who is where:
an interrupt between the two loses a note, never a task.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from surefoot.errors import NotApplied, PatchError, TargetError
from surefoot.patch.events import Event, EventKind, FunctionState, PatchState, Status, TaskState
from surefoot.patch.model import Patch, PatchFunction, PatchObject, validate
from surefoot.patch.pertask import PerTaskTarget
from surefoot.patch.stack import PatchStack, Place, Side
from surefoot.patch.transition import CallbackLedger, Cause, Transition

__all__ = ["Engine", "Settings"]


@dataclass(frozen=True, slots=True)
class Settings:
    """How patient an engine is.

    Attributes:
        timeout_s: seconds after which a transition that is held up is turned round; None: never.
        force_after: passes over all tasks before an explicit word overrules those that are left.
        grace: passes that a transition gets to be turned round after an interrupt.
    """

    timeout_s: float | None = 60.0
    force_after: int = 3
    grace: int = 100


_UNDER_WAY: Final = {Side.PATCHED: PatchState.APPLYING, Side.UNPATCHED: PatchState.REVERTING}
_OVER: Final = {Side.PATCHED: PatchState.APPLIED, Side.UNPATCHED: PatchState.ABSENT}


class _Partial(PatchError):
    """A start failed, and so did taking it back."""


class Engine:
    """Patches one target; knows all patches in force there.

    `apply`, `revert` and `resume` are generators that do the work between their events. An interrupt (Ctrl-C, or the
    generator being closed) turns the transition round and gives it `Settings.grace` passes to get back; if tasks hold
    that up too, it stays under way, which is a consistent state: every task sees one side.
    """

    def __init__(self, target: PerTaskTarget, clock: Callable[[], float], settings: Settings | None = None) -> None:
        """Take a target that has no patch in force, and a clock in seconds."""
        self._target = target
        self._clock = clock
        self._settings = settings or Settings()
        self._stack = PatchStack()
        self._ledgers: dict[str, CallbackLedger] = {}
        self._moving: Transition | None = None
        self._settled = False
        self._owed: list[PatchObject] | None = None
        self._began = 0.0
        self._shown: tuple[TaskState, ...] = ()
        self.pinned: set[str] = set()
        """Patches whose code may never go away, because a transition was forced over tasks that may be in it."""

    @property
    def moving(self) -> str | None:
        """The patch in transition, if any."""
        return self._moving.patch if self._moving else None

    # What an operator asks for.

    def apply(self, patch: Patch, *, force: bool = False) -> Iterator[Event]:
        """Apply a patch; one that is being taken back is turned round.

        Args:
            patch: what to apply.
            force: overrule tasks that hold it up.

        Yields:
            events; the last one is COMPLETED, or FAILED with the state that the patch is in.

        Raises:
            SurefootError: before the first event: it cannot be applied, and nothing has changed.
        """
        if self._may_turn(patch.name, Side.UNPATCHED):
            yield from self._guarded(patch.name, Side.PATCHED, self._turn, force=force)
            return
        validate(patch)
        self._stack.compatible(patch)
        stack, loaded = self._stack.copy(), self._target.loaded()
        stack.add(patch, {item.name: self._places(item) for item in patch.objects if item.name in loaded})
        self._ledgers[patch.name] = CallbackLedger(self._target.callback)
        begin = lambda: self._start(patch.name, Side.PATCHED, stack)  # noqa: E731
        yield from self._guarded(patch.name, Side.PATCHED, begin, force=force)

    def revert(self, name: str, *, force: bool = False) -> Iterator[Event]:
        """Take a patch back; one that is being applied is turned round. The rest is as for `apply`."""
        if self._may_turn(name, Side.PATCHED):
            yield from self._guarded(name, Side.UNPATCHED, self._turn, force=force)
            return
        if name not in self._stack.patches:
            raise NotApplied(f"the patch {name} is not applied")
        begin = lambda: self._start(name, Side.UNPATCHED, self._stack)  # noqa: E731
        yield from self._guarded(name, Side.UNPATCHED, begin, force=force)

    def resume(self, *, force: bool = False) -> Iterator[Event]:
        """Carry on with the transition that is under way, if any."""
        if self._moving is not None:
            yield from self._guarded(self._moving.patch, self._moving.goal, lambda: iter(()), force=force)

    def reverse(self) -> None:
        """Turn the transition round at once; whoever drives it carries on in the other direction.

        Raises:
            NotApplied: no transition is under way.
        """
        if self._moving is None or self._settled:
            raise NotApplied("no transition is under way")
        target, transition = self._target, self._moving
        # Nobody may be between reading the flag and taking the goal for its side when the goal changes.
        target.set_pending([row.key for row in target.tasks()], pending=False)
        target.barrier()
        transition.observe(target.tasks())
        target.set_goal(transition.goal.other)
        transition.reverse()
        target.set_pending(transition.left, pending=True)

    def status(self) -> list[Status]:
        """Say how each patch stands, oldest first."""
        result = []
        for name in self._stack.patches:
            moving = self._moving if self.moving == name else None
            functions = tuple(
                FunctionState(item.original.name, item.owner, item.original.entry, item.body_of(version).entry, True)
                for item in self._stack.of(name)
                for version in [item.versions[item.at(name)]]
            )
            warnings = list(self._ledgers[name].warnings)
            if name in self.pinned:
                warnings.append("A transition of it was forced: its code must never be removed from memory.")
            tasks = moving.states() if moving else ()
            result.append(Status(name, self._state(name), tasks, functions, tuple(warnings)))
        return result

    # What happens in the target.

    def object_coming(self, name: str) -> None:
        """Patch a module that has just been loaded and has not run yet.

        Args:
            name: of the module; `PerTaskTarget.resolve` finds its functions already.

        Raises:
            SurefootError: a patch in force cannot be applied to it: the module must not be loaded.
        """
        wanted = dict(self._speaking_of(name))
        stack = self._stack.copy()
        stack.arrive(name, {patch: self._places(item) for patch, item in wanted.items()})
        asked: list[str] = []
        try:
            for patch, item in wanted.items():
                self._ledgers[patch].pre_patch(item)
                asked.append(patch)
            self._target.redirect(stack.redirects(None if self._settled else self.moving))
        except BaseException:
            for patch in reversed(asked):
                self._ledgers[patch].post_unpatch(wanted[patch])
            raise
        self._stack = stack
        for patch, item in wanted.items():
            if patch != self.moving or self._owed is not None:
                self._ledgers[patch].post_patch(item)

    def object_going(self, name: str) -> None:
        """Forget a module that is about to be unloaded; no task is in it.

        Raises:
            PatchError: the target could not take the redirections back.
        """
        wanted = self._speaking_of(name)[::-1]
        for patch, item in wanted:
            if patch != self.moving:
                self._ledgers[patch].pre_unpatch(item)
        self._stack.leave(name)
        self._target.redirect(self._stack.redirects(None if self._settled else self.moving))
        for patch, item in wanted:
            self._ledgers[patch].post_unpatch(item)

    def _speaking_of(self, name: str) -> list[tuple[str, PatchObject]]:
        """Give the patches in force that name an object, oldest first."""
        patches = self._stack.patches.values()
        return [(patch.name, item) for patch in patches for item in patch.objects if item.name == name]

    # How it begins.

    def _may_turn(self, name: str, goal: Side) -> bool:
        """Say whether a transition of this patch is under way to `goal`, and so can be turned round.

        Raises:
            NotApplied: another transition is under way: there is only one at a time.
        """
        if self._moving is None:
            return False
        if self._moving.patch != name:
            raise NotApplied(
                f"the patch {self._moving.patch} is in transition, and there is only one transition at a time"
            )
        if self._moving.goal is not goal or self._settled:
            raise NotApplied(f"the transition of {name} is under way already", hint="Watch it until it is over.")
        return True

    def _places(self, item: PatchObject) -> Mapping[PatchFunction, Place]:
        return {function: self._target.resolve(item.name, function) for function in item.functions}

    def _guarded(
        self, name: str, goal: Side, begin: Callable[[], Iterator[Event]], *, force: bool
    ) -> Iterator[Event]:
        """Begin and carry through, and keep the target consistent whatever interrupts that."""
        self._began = self._clock()
        self._shown = ()
        try:
            try:
                yield from begin()
                yield from self._passes(force=force)
            except PatchError as error:
                state = PatchState.PARTIAL if isinstance(error, _Partial) else self._state(name)
                yield self._event(EventKind.FAILED, name, f"{error}", state=state)
        except KeyboardInterrupt:
            yield from self._after_interrupt(name, goal)
        except GeneratorExit:
            for _ in self._after_interrupt(name, goal):
                pass
            raise

    def _start(self, name: str, goal: Side, stack: PatchStack) -> Iterator[Event]:
        """Set everything up for a transition, or nothing."""
        target, before = self._target, self._stack
        told: list[PatchObject] = []
        try:
            target.set_side([row.key for row in target.tasks()], goal.other)
            self._call_before(name, goal, stack, told)
            target.barrier()
            target.redirect(stack.redirects(name))
            rows = target.tasks()
            target.set_goal(goal)
            target.set_pending([row.key for row in rows], pending=True)
            self._stack, self._settled, self._owed = stack, False, None
            self._moving = Transition.begin(name, goal, rows)
        except BaseException:
            self._undo_start(name, goal, before, told)
            raise
        yield self._event(EventKind.STARTED, name, figures={"tasks": len(rows), "sites": len(stack.of(name))})

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

    def _undo_start(self, name: str, goal: Side, before: PatchStack, told: Sequence[PatchObject]) -> None:
        """Go back to before a start that failed or was interrupted: nobody has gone over yet.

        All tasks are on the side that they came from, for which both tables say the same: the old one may be put
        back at any moment, but sides must not be reset before nobody is in the handler.

        Raises:
            PatchError: the old table could not be put back.
        """
        target, ledger = self._target, self._ledgers[name]
        self._stack, self._moving = before, None
        target.set_pending([row.key for row in target.tasks()], pending=False)
        target.set_goal(Side.IDLE)
        try:
            target.redirect(before.redirects(None))
        except PatchError as error:
            raise _Partial(
                f"{name} could not be started, nor could its redirections be taken back: {error}."
                " They lead every task to the code that it ran before; the same command may be tried again."
            ) from error
        target.barrier()
        target.set_side([row.key for row in target.tasks()], Side.IDLE)
        if goal is Side.PATCHED:
            ledger.undo()
            del self._ledgers[name]
        else:
            for item in reversed(told):
                ledger.post_patch(item)

    def _turn(self) -> Iterator[Event]:
        self.reverse()
        yield self._reversed("by request")

    # How it goes on.

    @property
    def _transition(self) -> Transition:
        assert self._moving is not None  # noqa: S101 - the callers have looked
        return self._moving

    def _passes(self, *, force: bool) -> Iterator[Event]:
        """Pass over all tasks until none is left, time is up, or a word overrules them."""
        begun, attempt, why = self._clock(), 0, ""
        transition = self._transition
        goal = transition.goal
        while self._moving is transition:  # somebody else may drive it too, and finish it
            attempt += 1
            yield from self._pass(attempt)
            if transition.goal is not goal:  # by `reverse`, while an event was looked at
                goal, begun, why = transition.goal, self._clock(), ""
                yield self._event(EventKind.REVERSED, transition.patch, "The transition was turned round.")
            if self._moving is not transition:
                return
            transition.observe(self._target.tasks())
            if transition.is_complete:
                yield from self._finish(why)
                return
            if force and attempt >= self._settings.force_after:
                yield self._force()
                continue
            if self._is_late(begun):
                if why:
                    yield self._stuck("time was up twice")
                    return
                why, begun = "time was up", self._clock()
                self.reverse()
                goal = transition.goal
                yield self._reversed("because time is up")
            self._run()

    def _run(self) -> None:
        if not self._target.run():
            raise TargetError(f"the target has ended in the middle of the transition of {self._transition.patch}")

    def _is_late(self, begun: float) -> bool:
        timeout = self._settings.timeout_s
        return timeout is not None and self._clock() - begun >= timeout

    def _pass(self, attempt: int) -> Iterator[Event]:
        """Look at every task that is left, and take over those that are clear."""
        target, transition, name = self._target, self._transition, self._transition.patch
        causes = transition.observe(target.tasks())
        left = transition.left
        looks = (
            target.look(left, self._stack.searched(name, transition.goal), self._stack.sites(name)) if left else ()
        )
        answers = dict(zip(left, looks, strict=True))
        clear = [key for key, look in answers.items() if look.finding is None]
        target.set_side(clear, transition.goal)
        target.set_pending(clear, pending=False)
        causes |= {key: Cause.STACK for key, look in answers.items() if transition.attempt(key, look)}
        target.set_goal(transition.goal)
        target.set_pending(transition.unflagged(), pending=True)
        blockers = transition.blockers()
        events = []
        if attempt > 1:
            events.append(
                self._event(EventKind.RETRIED, name, figures={"attempt": attempt, "tasks": len(transition)})
            )
        if causes:
            crossed = transition.states(causes)
            events.append(self._event(EventKind.CROSSED, name, shown=crossed, figures=_count(causes.values())))
        if blockers and blockers != self._shown:
            events.append(self._event(EventKind.BLOCKED, name, shown=blockers))
        self._shown = blockers
        yield from events

    def _force(self) -> Event:
        """Overrule those that are left, and remember where they may be."""
        target, transition, name = self._target, self._transition, self._transition.patch
        self._stack.force(name, transition.goal)
        self.pinned.add(name)
        target.set_side(transition.left, transition.goal)
        target.set_pending(transition.left, pending=False)
        overruled = transition.force()
        message = f"{len(overruled)} tasks were overruled and may mix old and new code. {name} must stay in memory."
        return self._event(EventKind.FORCED, name, message, shown=overruled, figures={"by_force": len(overruled)})

    # How it ends.

    def _finish(self, why: str = "") -> Iterator[Event]:
        """End a transition in which every task has gone over; `why` says why that is not what was asked for."""
        transition = self._transition
        name, goal = transition.patch, transition.goal
        ledger = self._ledgers[name]
        warned = len(ledger.warnings)
        self._settle()
        for warning in ledger.warnings[warned:]:
            yield self._event(EventKind.WARNING, name, warning)
        kind = EventKind.FAILED if why else EventKind.COMPLETED
        message = f"Given up, because {why}: the patch is {_OVER[goal]}, as before." if why else ""
        yield self._event(kind, name, message, figures={"tasks": len(transition)})

    def _settle(self) -> None:
        """Make the table final, wait until nobody reads sides any more, and reset them.

        May be interrupted and called again: it carries on where it was.
        """
        target, transition, name = self._target, self._transition, self._transition.patch
        applied = transition.goal is Side.PATCHED
        if not self._settled:
            stack = self._stack.copy()
            if not applied:
                stack.drop(name)
            elif stack.patches[name].replace:
                stack.replace_older(name)
            target.redirect(stack.redirects(None))
            self._stack, self._settled = stack, True
        target.barrier()
        keys = [row.key for row in target.tasks()]
        target.set_side(keys, Side.IDLE)
        target.set_pending(keys, pending=False)
        target.set_goal(Side.IDLE)
        ledger = self._ledgers[name]
        if applied:
            if self._owed is None:
                self._owed = list(ledger.ready)
            while self._owed:
                ledger.post_patch(self._owed.pop(0))
        else:
            ledger.undo()
        # The callbacks of patches that were replaced are not called: the new patch has taken over.
        self._ledgers = {key: item for key, item in self._ledgers.items() if key in self._stack.patches}
        self._moving, self._settled, self._owed = None, False, None

    def _after_interrupt(self, name: str, goal: Side) -> Iterator[Event]:
        """Turn round what was on its way to `goal`, and say where that has led."""
        transition = self._moving
        if transition is None:
            yield self._event(EventKind.FAILED, name, f"Interrupted: the patch is {self._state(name)}.")
            return
        transition.observe(self._target.tasks())
        if self._settled or (transition.is_complete and transition.goal is goal):
            yield from self._finish("" if transition.goal is goal else "it was interrupted")
            return
        if transition.goal is goal:
            self.reverse()
            yield self._reversed("because of the interrupt")
        for attempt in range(1, self._settings.grace + 1):
            yield from self._pass(attempt)
            if transition.is_complete:
                yield from self._finish("it was interrupted")
                return
            self._run()
        yield self._stuck("it was interrupted")

    # How it is told.

    def _state(self, name: str) -> PatchState:
        if self._moving is not None and self._moving.patch == name:
            return _UNDER_WAY[self._moving.goal]
        return PatchState.APPLIED if name in self._stack.patches else PatchState.ABSENT

    def _event(
        self,
        kind: EventKind,
        name: str,
        message: str = "",
        *,
        state: PatchState | None = None,
        shown: Sequence[TaskState] = (),
        figures: Mapping[str, float] | None = None,
    ) -> Event:
        left = len(self._moving.left) if self._moving else 0
        elapsed = self._clock() - self._began
        return Event(kind, name, state or self._state(name), elapsed, tuple(shown), left, message, figures or {})

    def _reversed(self, why: str) -> Event:
        return self._event(EventKind.REVERSED, self._transition.patch, f"The transition is turned round {why}.")

    def _stuck(self, why: str) -> Event:
        message = (
            f"Given up, because {why}, but tasks hold the way back up too: the transition is still under way. Every"
            " task is wholly on one side; it can be carried on or turned round at any time."
        )
        return self._event(EventKind.FAILED, self._transition.patch, message, shown=self._transition.blockers())


def _count(causes: Collection[Cause]) -> dict[str, float]:
    """Count what brought tasks over, by the names of the figures."""
    return {cause.value: sum(item is cause for item in causes) for cause in Cause if cause in causes}
