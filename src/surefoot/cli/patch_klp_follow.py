"""Layer 9: follows one transition of Linux's own livepatch to its end, and says who holds it up meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from surefoot.cli.patch_backend import Options
from surefoot.cli.patch_klp_judge import Judged, judge
from surefoot.errors import SurefootError
from surefoot.patch.check import Range
from surefoot.patch.diagnose import Diagnosis
from surefoot.patch.events import Event, EventKind, Hold, PatchState, TaskState
from surefoot.patch.klp import Side
from surefoot.targets.klp import LIVEPATCH, Survey, SysfsPatch, parse_survey

if TYPE_CHECKING:
    from surefoot.targets.klp import KlpPort
    from surefoot.targets.klp_look import Looker

__all__ = ["Clock", "Follower", "state_of"]

_LOOK_AFTER_S: Final = 0.5
"""Most transitions are over by then, and nobody is asked to stand still for them."""
_LOOK_EVERY_S: Final = 1.0
"""The kernel itself looks at all tasks as often."""

_FINISHING: Final = (
    "every task has gone over, but the kernel has not finished: it waits until each task has slept or left the "
    "kernel once (synchronize_rcu_tasks), and holds its lock meanwhile"
)


class Clock(NamedTuple):
    """Time.

    Attributes:
        now: seconds since some instant.
        sleep: waits for so many seconds.
    """

    now: Callable[[], float]
    sleep: Callable[[float], None]


def state_of(patch: SysfsPatch | None) -> PatchState:
    """Say where a patch stands by what sysfs tells."""
    if patch is None:
        return PatchState.ABSENT
    if patch.transition:
        return PatchState.APPLYING if patch.enabled else PatchState.REVERTING
    return PatchState.APPLIED if patch.enabled else PatchState.ABSENT


class Follower:
    """Follows the transition of one patch.

    Args:
        port: to the machine.
        looker: opens the view of its memory; asked once, when it is needed.
        options: timeout and interval.
        name: of the patch.
        clock: time.

    Attributes:
        is_over: the transition has ended.
        is_gone: the kernel has the patch no more.
        stranded: tasks that are in code that the transition has left behind.
    """

    def __init__(
        self, port: KlpPort, looker: Callable[[], Looker], options: Options, name: str, clock: Clock
    ) -> None:
        self.name = name
        self.is_over = False
        self.is_gone = False
        self.stranded: tuple[TaskState, ...] = ()
        self._port = port
        self._open = looker
        self._looker: Looker | None = None
        self._options = options
        self._clock = clock
        self._began = clock.now()
        self._since = self._began
        self._left: dict[Side, list[Range]] = {}
        self._waiting: set[int] | None = None
        self._held: object = None
        self._warned: set[str] = set()
        self._certified: dict[int, tuple[int, bool]] | None = None

    def event(self, kind: EventKind, state: PatchState, **more: object) -> Event:
        """Make an event of this patch, now."""
        return Event(kind, self.name, state, self._clock.now() - self._began, **more)  # type: ignore[arg-type]

    def restart(self) -> None:
        """Count the time limit anew: the transition goes the other way."""
        self._since = self._clock.now()
        self._waiting = None
        self._held = None

    def look(self) -> Judged | Event:
        """Look at all tasks; an event says why that cannot be done."""
        try:
            if self._looker is None:
                self._looker = self._open()
            return judge(self._looker.look())
        except SurefootError as error:
            text = f"the stacks cannot be looked at: {error}"
            return self.event(EventKind.WARNING, PatchState.APPLYING, message=text)

    def remember(self, state: PatchState) -> Generator[Event, None, None]:
        """Look before a patch is taken back, so that it can be told later who is still in its code."""
        judged = self.look()
        if isinstance(judged, Event):
            yield self._once(judged.message, state) or judged
        else:
            self._left[Side.UNPATCHED] = judged.left_by(self.name, Side.UNPATCHED)
            yield from self._warn(judged.end_warnings(self.name), state)

    def follow(self, *, force: bool, last: bool = True) -> Generator[Event, None, PatchState | None]:
        """Follow the transition until it is over, or the time limit is reached.

        Args:
            force: overrule those that hold it up, if the certificate can be given.
            last: end with COMPLETED; else that is the caller's.

        Returns:
            where the patch stands, None if it is not over.
        """
        looked = self._clock.now() - _LOOK_EVERY_S + _LOOK_AFTER_S
        side = Side.PATCHED
        while True:
            survey = parse_survey(self._port.survey_text())
            patch = survey.patches.get(self.name)
            if patch is None or not patch.transition:
                break
            side = Side.PATCHED if patch.enabled else Side.UNPATCHED
            yield from self._progress(survey, side, state_of(patch))
            now = self._clock.now()
            if now - looked >= _LOOK_EVERY_S:
                yield from self._diagnose(state_of(patch), force=force)
                looked = self._clock.now()
            limit = self._options.timeout_s
            if limit is not None and now - self._since >= limit:
                return None
            self._clock.sleep(self._options.interval_s)
        self.is_over = True
        state = state_of(patch)
        self.is_gone = patch is None or state is PatchState.ABSENT
        yield from self._verify(Side.UNPATCHED if self.is_gone else Side.PATCHED, state)
        if last:
            yield self.event(EventKind.COMPLETED, state)
        return state

    def _progress(self, survey: Survey, side: Side, state: PatchState) -> Generator[Event, None, None]:
        """Tell who has gone over since the last time."""
        over, left = survey.states(side)
        # Threads that are born over, such as those that this very look takes, are nobody's news.
        fresh = [thread for thread in over if self._waiting is None or thread.pid in self._waiting]
        self._waiting = {thread.pid for thread in left}
        if fresh:
            tasks = tuple(TaskState(thread.pid, thread.comm, crossed=True) for thread in fresh)
            figures = {"tasks": float(len(over) + len(left))}
            yield self.event(EventKind.CROSSED, state, tasks=tasks, left=len(left), figures=figures)

    def _diagnose(self, state: PatchState, *, force: bool) -> Generator[Event, None, None]:
        """Tell who holds the transition up, if that has changed; overrule them if that was asked for."""
        judged = self.look()
        if isinstance(judged, Event):
            if judged.message not in self._warned:
                self._warned.add(judged.message)
                yield judged
            return
        if judged.kernel.transition != self.name:
            return
        side = judged.kernel.target
        self._left.setdefault(side, judged.left_by(self.name, side))
        diagnosis = judged.diagnosis()
        yield from self._warn([*judged.end_warnings(self.name), *diagnosis.warnings], state)
        # Whom nothing holds goes over at the kernel's next look: no news.
        blockers = tuple(task for task in diagnosis.blockers if task.hold is not Hold.UNKNOWN)
        held = {(task.pid, task.hold, task.blocked_by) for task in blockers}
        if held and held != self._held:
            figures = {"tasks": float(len(judged.tasks)), "pause_ms": 1000 * judged.look.paused_s}
            left = len(diagnosis.blockers)
            yield self.event(EventKind.BLOCKED, state, tasks=blockers, left=left, figures=figures)
        self._held = held
        if not diagnosis.blockers:
            yield from self._warn([_FINISHING], state)
        if held and force and self._certified is None:
            yield from self._force(judged, diagnosis, state)

    def _force(self, judged: Judged, diagnosis: Diagnosis, state: PatchState) -> Generator[Event, None, None]:
        """Overrule those that hold it up, if no stack at all needs the code that is left."""
        certificate = diagnosis.certificate
        if not certificate.holds:
            some = ", ".join(f"{task.comm} ({task.pid}): {task.reason}" for task in certificate.refused[:3])
            count = f"{len(certificate.refused)} of {certificate.tasks} stacks"
            text = f"not forced: {count} are not certainly clear: {some}"
            yield from self._warn([text], state)
            return
        self._port.write_text(f"{LIVEPATCH}/{self.name}/force", "1")
        self._certified = {pid: ran for pid, ran in judged.runs().items() if pid in _pids(diagnosis.blockers)}
        text = (
            f"forced by certificate: all {certificate.tasks} stacks were certain and clear of the code that is left; "
            "the module can never be unloaded from now on"
        )
        figures = {"by_force": float(len(diagnosis.blockers)), "pause_ms": 1000 * judged.look.paused_s}
        yield self.event(EventKind.FORCED, state, tasks=diagnosis.blockers, message=text, figures=figures)

    def _verify(self, side: Side, state: PatchState) -> Generator[Event, None, None]:
        """Look once more when it is over: nobody should be in the code that was left."""
        judged = self.look()
        if isinstance(judged, Event):
            yield from self._warn([judged.message], state)
            return
        left = self._left.get(side) or judged.left_by(self.name, side)
        self.stranded = judged.stranded(left)
        yield from self._warn(judged.end_warnings(self.name), state)
        warnings = [
            f"the transition is over, but {task.comm} ({task.pid}) is still in the code that was left: {task.reason}"
            for task in self.stranded
        ]
        yield from self._warn(warnings, state, self.stranded)
        if self._certified is not None:
            yield from self._warn([self._since_certificate(judged)], state)

    def _since_certificate(self, judged: Judged) -> str:
        """Say which of the tasks that were overruled the certificate covers to the end."""
        certified = self._certified or {}
        runs = judged.runs()
        stood = [pid for pid, ran in certified.items() if not ran[1] and runs.get(pid) == ran]
        rest = len(certified) - len(stood)
        return (
            f"of {len(certified)} tasks that were overruled, {len(stood)} have not run since the certificate, which "
            f"holds for them; {rest} may have run between it and the word to force, and nothing proves what they did"
        )

    def _warn(
        self, texts: Iterable[str], state: PatchState, tasks: tuple[TaskState, ...] = ()
    ) -> Generator[Event, None, None]:
        """Give each warning once."""
        for text in texts:
            if text not in self._warned:
                self._warned.add(text)
                yield self.event(EventKind.WARNING, state, tasks=tasks, message=text)

    def _once(self, text: str, state: PatchState) -> Event | None:
        return next(self._warn([text], state), None)


def _pids(tasks: Iterable[TaskState]) -> set[int]:
    return {task.pid for task in tasks}
