"""A way of patching that patches nothing: some thirty tasks that go over by a script, to try the command with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from surefoot.errors import NotApplied
from surefoot.patch.events import Event, EventKind, FunctionState, Hold, PatchState, Status, TaskState

NAMES = """
init kthreadd rcu_preempt migration/0 ksoftirqd/0 kworker/0:0 kworker/u4:2 kcompactd0 kswapd0 jbd2/vda-8
systemd-journal systemd-udevd dbus-daemon sshd sshd bash cat ls find pktgen_0 nc nc sh sleep tail make cc1
mousedev_cat pktgen_1 kworker/0:1
""".split()  # noqa: SIM905  a list would be three times as long

ON_STACK = TaskState(
    28,
    "mousedev_cat",
    crossed=False,
    hold=Hold.ON_STACK,
    blocked_by="mousedev_read",
    address=0xFFFF_8000_7AB0_1240,
    reason="It will return into mousedev_read+0x240/0x388 [mousedev].",
    trace=("__schedule", "schedule", "mousedev_read", "vfs_read", "ksys_read", "__arm64_sys_read"),
    advice="Wait until it returns; a sleeping task may have to be woken, or sent a signal.",
)
UNRELIABLE = TaskState(
    29,
    "pktgen_1",
    crossed=False,
    hold=Hold.UNRELIABLE,
    address=0xFFFF_8000_8012_3456,
    reason="NO_RULE at frame 3, ffff800080123456 el1h_64_irq+0x6c/0x70: no rule covers the interrupted instruction.",
    advice="Wait: its stack becomes reliable, or it leaves the kernel, when it runs on.",
)
RUNNING = TaskState(
    30,
    "kworker/0:1",
    crossed=False,
    hold=Hold.RUNNING,
    reason="It runs on CPU 1.",
    advice="Wait: it goes over when it leaves the kernel, or is looked at when it is switched out.",
)


def tasks() -> list[TaskState]:
    """Give thirty tasks that have not gone over."""
    return [TaskState(pid + 1, comm, crossed=False) for pid, comm in enumerate(NAMES)]


@dataclass
class FakeBackend:
    """Goes through a script; every generator notes how it ended.

    Attributes:
        wait: called between two events with seconds.
        stuck: apply never gets beyond its blockers.
        speaks: an interrupted generator says a last word.
        raises: what a generator raises after so many events.
        ended: how each generator ended: "done", "interrupted", "closed" or the name of an error.
        forced: the values of `force`.
    """

    wait: Callable[[float], None] = lambda _seconds: None
    stuck: bool = False
    speaks: bool = True
    raises: tuple[int, BaseException] | None = None
    statuses: list[Status] = field(default_factory=list)
    blockers: Sequence[TaskState] = (ON_STACK, UNRELIABLE, RUNNING)
    ended: list[str] = field(default_factory=list)
    forced: list[bool] = field(default_factory=list)
    asked: list[str | None] = field(default_factory=list)

    def apply(self, source: str, *, force: bool) -> Iterator[Event]:
        """Apply by the script."""
        self.forced.append(force)
        self.asked.append(source)
        yield from self._guard(self._script("cmdline", PatchState.APPLYING, PatchState.APPLIED, force=force))

    def revert(self, patch: str, *, force: bool) -> Iterator[Event]:
        """Revert by the script."""
        self.forced.append(force)
        self.asked.append(patch)
        yield from self._guard(self._script(patch, PatchState.REVERTING, PatchState.ABSENT, force=force))

    def watch(self, patch: str | None) -> Iterator[Event]:
        """Watch what somebody else applies."""
        self.asked.append(patch)
        yield from self._guard(self._script(patch or "cmdline", PatchState.APPLYING, PatchState.APPLIED, force=False))

    def status(self) -> list[Status]:
        """Give what the test put there."""
        return self.statuses

    def _guard(self, script: Iterator[Event]) -> Iterator[Event]:
        """Note how a generator ends, and say a last word where it may."""
        count = 0
        last: Event | None = None
        try:
            for event in script:
                if self.raises is not None and count == self.raises[0]:
                    raise self.raises[1]
                count += 1
                last = event
                yield event
                self.wait(event.figures.get("next_s", 0.3))
            self.ended.append("done")
        except GeneratorExit:
            self.ended.append("closed")
            raise
        except KeyboardInterrupt:
            self.ended.append("interrupted")
            if not self.speaks:
                raise
            elapsed = last.elapsed_s if last is not None else 0.0
            name = last.patch if last is not None else ""
            yield Event(
                EventKind.FAILED, name, PatchState.ABSENT, elapsed, message="Nothing is written; the guest runs on."
            )
            raise
        except NotApplied:
            self.ended.append("NotApplied")
            raise

    def _script(self, name: str, moving: PatchState, goal: PatchState, *, force: bool) -> Iterator[Event]:
        """Give the events of one transition."""
        everyone, left = tasks(), len(NAMES)

        def event(kind: EventKind, at: float, **more: object) -> Event:
            return Event(kind, name, moving, at, left=left, **more)  # type: ignore[arg-type]

        yield event(EventKind.STARTED, 0.1, figures={"tasks": len(NAMES), "attempt": 1.0})
        yield event(EventKind.WARNING, 0.2, message="cat is traced by the function-graph tracer: see the guide.")
        for step in range(9):
            over = [replace(task, crossed=True) for task in everyone[3 * step : 3 * step + 3]]
            left -= len(over)
            how = ("by_stack", "by_exit", "by_idle")[step % 3]
            at = 0.5 + 0.4 * step
            yield event(EventKind.CROSSED, at, tasks=tuple(over), figures={how: 3.0})
            if step == 1:
                yield event(EventKind.BLOCKED, at + 0.1, tasks=tuple(self.blockers))
            if step == 5:
                figures = {"attempt": 2.0, "pause_ms": 12.25, "next_s": 0.8}
                yield event(EventKind.RETRIED, at + 0.1, figures=figures)
        if self.stuck and not force:
            rest = tuple(self.blockers)
            message = "Given up after 60 s; the target is as it was before."
            state = PatchState.ABSENT if goal is PatchState.APPLIED else PatchState.APPLIED
            yield replace(event(EventKind.FAILED, 5.0, message=message, tasks=rest), state=state)
            return
        if force:
            yield event(EventKind.FORCED, 4.9, figures={"by_force": 3.0})
        left = 0
        yield replace(event(EventKind.COMPLETED, 5.0, figures={"words": 2.0, "pause_ms": 11.5}), state=goal)


def statuses() -> list[Status]:
    """Give two patches, one of them in transition."""
    over = [replace(task, crossed=True) for task in tasks()[:27]]
    functions = (
        FunctionState("cmdline_proc_show", "vmlinux", 0xFFFF_8000_8045_1230, 0xFFFF_8000_7AB0_1000, patched=True),
        FunctionState("mousedev_read", "mousedev", 0xFFFF_8000_7AB0_1000, 0, patched=False),
    )
    return [
        Status("pair", PatchState.APPLIED, (), functions[:1]),
        Status(
            "cmdline",
            PatchState.APPLYING,
            (*over, ON_STACK, UNRELIABLE, RUNNING),
            functions,
            ("The kernel's own check may take mousedev_read's neighbour for it.",),
        ),
    ]
