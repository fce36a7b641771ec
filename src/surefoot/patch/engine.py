"""Layer 6: the engine of per-task consistency: drives a transition, tells what happens, and knows when to give up."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from surefoot.errors import NotApplied, PatchError, TargetError
from surefoot.patch.events import Event, EventKind, PatchState, Status, TaskState
from surefoot.patch.model import Patch
from surefoot.patch.pertask import PerTaskTarget
from surefoot.patch.stack import Side
from surefoot.patch.steps import Steps
from surefoot.patch.transition import Cause, Transition

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


_OVER: Final = {Side.PATCHED: PatchState.APPLIED, Side.UNPATCHED: PatchState.ABSENT}


class Engine:
    """Patches one target; knows all patches in force there.

    `apply`, `revert` and `resume` are generators that do the work between their events; the one that was started
    last drives. An interrupt (Ctrl-C, or the generator being closed) turns the transition round and gives it
    `Settings.grace` passes to get back; if tasks hold that up too, or a second interrupt comes, it stays under way,
    which is a consistent state: every task is on one side, and `resume` carries on.
    """

    def __init__(self, target: PerTaskTarget, clock: Callable[[], float], settings: Settings | None = None) -> None:
        """Take a target that has no patch in force, and a clock in seconds."""
        self._target = target
        self._clock = clock
        self._settings = settings or Settings()
        self._steps = Steps(target)
        self._began = 0.0
        self._shown: tuple[TaskState, ...] = ()
        self._driver: object = None

    @property
    def moving(self) -> str | None:
        """The patch in transition, if any."""
        return self._steps.moving

    @property
    def pinned(self) -> frozenset[str]:
        """Patches whose code may never go away, because a transition was forced over tasks that may be in it."""
        return frozenset(self._steps.pinned)

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
        stack = None if self._may_turn(patch.name, Side.UNPATCHED) else self._steps.prepare(patch)

        def begin() -> Event:
            if stack is None:
                return self._turned()
            return self._started(self._steps.start(patch.name, Side.PATCHED, stack))

        yield from self._guarded(patch.name, Side.PATCHED, begin, force=force)

    def revert(self, name: str, *, force: bool = False) -> Iterator[Event]:
        """Take a patch back; one that is being applied is turned round.

        Args:
            name: of the patch.
            force: overrule tasks that hold it up.

        Yields:
            events, as `apply`.

        Raises:
            SurefootError: before the first event: it is not applied, or another transition is under way.
        """
        turn = self._may_turn(name, Side.PATCHED)
        if not turn and not self._steps.has(name):
            raise NotApplied(f"the patch {name} is not applied")

        def begin() -> Event:
            return self._turned() if turn else self._started(self._steps.start(name, Side.UNPATCHED))

        yield from self._guarded(name, Side.UNPATCHED, begin, force=force)

    def resume(self, *, force: bool = False) -> Iterator[Event]:
        """Carry on with the transition that is under way, or take back what is left of one that failed, if any.

        The rest is as for `apply`.
        """
        transition, partial = self._steps.transition, self._steps.partial
        if partial is not None:
            self._began = self._clock()
            yield from self._telling_failure(partial, self._repaired(partial))
        elif transition is not None:
            yield from self._guarded(transition.patch, transition.goal, None, force=force)

    def reverse(self) -> None:
        """Turn the transition round at once; whoever drives it carries on in the other direction.

        Raises:
            NotApplied: no transition is under way, or it is all but over.
        """
        self._steps.reverse()

    def status(self) -> list[Status]:
        """Say how each patch stands, oldest first."""
        return self._steps.status()

    def object_coming(self, name: str) -> None:
        """Patch a module that has just been loaded and has not run yet; see `Steps.object_coming`."""
        self._steps.object_coming(name)

    def object_going(self, name: str) -> None:
        """Forget a module that is about to be unloaded; see `Steps.object_going`."""
        self._steps.object_going(name)

    # How it begins.

    def _may_turn(self, name: str, goal: Side) -> bool:
        """Say whether a transition of this patch is under way to `goal`, and so can be turned round.

        Raises:
            NotApplied: another transition is under way: there is only one at a time.
        """
        transition = self._steps.transition
        if transition is None:
            return False
        if transition.patch != name:
            raise NotApplied(
                f"the patch {transition.patch} is in transition, and there is only one transition at a time"
            )
        if transition.goal is not goal or self._steps.is_settled:
            raise NotApplied(f"the transition of {name} is under way already", hint="Watch it until it is over.")
        return True

    def _started(self, transition: Transition) -> Event:
        figures = {"tasks": len(transition), "sites": self._steps.sites(transition.patch)}
        return self._event(EventKind.STARTED, transition.patch, figures=figures)

    def _turned(self) -> Event:
        self._steps.reverse()
        return self._reversed("by request")

    def _repaired(self, name: str) -> Iterator[Event]:
        self._steps.repair()
        yield self._event(EventKind.FAILED, name, "What was left of it has been taken back.")

    def _guarded(self, name: str, goal: Side, begin: Callable[[], Event] | None, *, force: bool) -> Iterator[Event]:
        """Begin and carry through, and keep the target consistent whatever interrupts that."""
        self._began = self._clock()
        self._shown = ()
        me = self._driver = object()
        try:
            yield from self._telling_failure(name, self._whole(me, begin, force=force))
        except KeyboardInterrupt:
            if self._driver is me:
                yield from self._telling_failure(name, self._after_interrupt(name, goal))
        except GeneratorExit:
            if self._driver is me:
                for _ in self._telling_failure(name, self._after_interrupt(name, goal)):
                    pass
            raise

    def _telling_failure(self, name: str, events: Iterator[Event]) -> Iterator[Event]:
        """Pass events on, and make a refusal of the target the last of them."""
        try:
            yield from events
        except PatchError as error:
            yield self._event(EventKind.FAILED, name, f"{error}")

    def _whole(self, me: object, begin: Callable[[], Event] | None, *, force: bool) -> Iterator[Event]:
        if begin is not None:
            yield begin()
        if self._driver is me:
            yield from self._passes(me, force=force)

    # How it goes on.

    @property
    def _transition(self) -> Transition:
        assert self._steps.transition is not None  # noqa: S101 - whoever drives has one
        return self._steps.transition

    def _passes(self, me: object, *, force: bool) -> Iterator[Event]:
        """Pass over all tasks until none is left, time is up, a word overrules them, or somebody else drives."""
        begun, attempt, why = self._clock(), 0, ""
        transition = self._transition
        goal = transition.goal
        while self._driver is me:
            if self._steps.is_settled:  # it was interrupted in its last steps: nobody is on a side any more
                yield from self._finish()
                return
            attempt += 1
            yield from self._pass(attempt)
            if self._driver is me and transition.goal is not goal:  # by `reverse`, while an event was looked at
                goal, begun, why = transition.goal, self._clock(), ""
                yield self._event(EventKind.REVERSED, transition.patch, "The transition was turned round.")
            if self._driver is not me:
                return
            if self._steps.is_complete():
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
                self._steps.reverse()
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
        """Let the steps look at every task, and tell what has changed."""
        transition = self._transition
        name = transition.patch
        causes = self._steps.go()
        blockers = transition.blockers()
        events = []
        if attempt > 1:
            figures = {"attempt": attempt, "tasks": len(transition)}
            events.append(self._event(EventKind.RETRIED, name, figures=figures))
        if causes:
            crossed = transition.states(causes)
            events.append(self._event(EventKind.CROSSED, name, shown=crossed, figures=_count(causes.values())))
        if blockers and blockers != self._shown:
            events.append(self._event(EventKind.BLOCKED, name, shown=blockers))
        self._shown = blockers
        yield from events

    def _force(self) -> Event:
        overruled = self._steps.force()
        name = self._transition.patch
        message = f"{len(overruled)} tasks were overruled and may mix old and new code. {name} must stay in memory."
        return self._event(EventKind.FORCED, name, message, shown=overruled, figures={"by_force": len(overruled)})

    # How it ends.

    def _finish(self, why: str = "") -> Iterator[Event]:
        """End a transition in which every task has gone over; `why` says why that is not what was asked for."""
        transition = self._transition
        name, state = transition.patch, _OVER[transition.goal]
        for warning in self._steps.settle():
            yield self._event(EventKind.WARNING, name, warning)
        kind = EventKind.FAILED if why else EventKind.COMPLETED
        message = f"Given up, because {why}: the patch is {state}, as before." if why else ""
        yield self._event(kind, name, message, state=state, figures={"tasks": len(transition)})

    def _after_interrupt(self, name: str, goal: Side) -> Iterator[Event]:
        """Turn round what was on its way to `goal`, and say where that has led."""
        transition = self._steps.transition
        if transition is None:
            yield self._event(EventKind.FAILED, name, f"Interrupted: the patch is {self._steps.state(name)}.")
            return
        if self._steps.is_settled or (transition.goal is goal and self._steps.is_complete()):
            yield from self._finish("" if transition.goal is goal else "it was interrupted")
            return
        if transition.goal is goal:
            self._steps.reverse()
            yield self._reversed("because of the interrupt")
        for attempt in range(1, self._settings.grace + 1):
            yield from self._pass(attempt)
            if self._steps.is_complete():
                yield from self._finish("it was interrupted")
                return
            if attempt < self._settings.grace:
                self._run()
        yield self._stuck("it was interrupted")

    # How it is told.

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
        transition = self._steps.transition
        left = len(transition.left) if transition is not None and not self._steps.is_settled else 0
        elapsed = self._clock() - self._began
        where = state or self._steps.state(name)
        return Event(kind, name, where, elapsed, tuple(shown), left, message, figures or {})

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
