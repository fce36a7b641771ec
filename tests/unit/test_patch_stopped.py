"""The engine of stopped patching against a guest that fails at every step in every way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest

from surefoot.errors import TargetError, Unavailable
from surefoot.patch.events import Event, EventKind, Hold, PatchState
from surefoot.patch.stopped import Change, Limits, transition
from surefoot.patch.writes import Action, Journal, PatchedFunction, Stage, Write, recover, undo_of
from surefoot.unwind.code import CodeMap
from surefoot.unwind.state import Layout, Stacks, Tasks
from world import call, framed, leaf
from world_cases import run_blocked, run_until, start
from world_kernel import World

CODE = [framed("f0", call("f1")), framed("f1", call("schedule")), leaf("f2"), leaf("new1"), leaf("new2")]


def asleep_in_f1() -> World:
    """A task that sleeps in schedule, called by f1, called by f0."""
    cpu = start(CODE)
    task = run_blocked(cpu)
    return World(cpu.program, [task])


LIMITS = Limits()
SLEEPS = asleep_in_f1()
PROGRAM = SLEEPS.program


def writes_of(name: str) -> tuple[Write, ...]:
    at = PROGRAM.at(name)
    return (
        Write(name, at - 8, b"\x01" * 8, b"\x02" * 8),
        Write(name, at, b"aaaa", b"AAAA"),
        Write(name, at + 4, b"bbbb", b"BBBB"),
    )


def journal_of(*names: tuple[str, str], action: Action = Action.APPLY) -> Journal:
    functions = tuple(PatchedFunction(old, "vmlinux", PROGRAM.at(old), PROGRAM.at(new)) for old, new in names)
    writes = tuple(write for old, _ in names for write in writes_of(old))
    return Journal("p", action, Stage.INTENDED, "00", "1", "p.toml", functions, writes)


@dataclass
class People:
    """Who the tasks are."""

    pid: np.ndarray[tuple[int], np.dtype[np.int32]]
    comm: tuple[str, ...]


@dataclass
class Snapshot:
    """What a look gives."""

    world: World

    @property
    def info(self) -> People:
        count = len(self.world.tasks)
        return People(np.arange(100, 100 + count, dtype=np.int32), ("sleeper",) * count)

    @property
    def tasks(self) -> Tasks:
        return self.world.columns

    @property
    def stacks(self) -> Stacks:
        return self.world.stacks

    @property
    def layout(self) -> Layout:
        return self.world.layout


class Fault(Exception):
    """Something that nobody foresees."""


@dataclass
class FakeGuest:
    """A guest whose every step may fail before it does something, or when it has done it.

    Attributes:
        journal: whose writes its memory has room for.
        views: what the looks give, the last one for ever; None: the code has changed.
        fault: raised at step `at`, and at all later ones if it is for good.
    """

    journal: Journal
    views: list[World | None]
    at: int = -1
    fault: BaseException = field(default_factory=Fault)
    after: bool = False
    for_good: bool = False
    running: bool = True
    alive: bool = True
    dies: bool = False
    steps: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    now: float = 0.0
    pauses: int = 0
    look_takes: float = 0.01
    released: bool = True

    def __post_init__(self) -> None:
        self.memory = {w.address + i: byte for w in self.journal.writes for i, byte in enumerate(w.old)}
        self.before = dict(self.memory)

    def _step(self, name: str, act: Callable[[], None] = lambda: None) -> None:
        number = len(self.steps)
        self.steps.append(name)
        strikes = number == self.at or (self.for_good and number > self.at >= 0)
        if strikes and self.dies:
            self.alive = False
        if strikes and not self.after:
            raise self.fault
        act()
        if strikes:
            raise self.fault

    @property
    def paused_s(self) -> float:
        return 0.03

    def prepare(self) -> CodeMap:
        self._step("prepare")
        assert SLEEPS.code is not None
        return SLEEPS.code

    def pause(self) -> bool:
        # "If it raises, nothing has changed": the target's own promise.
        ran = self.running
        number = len(self.steps)
        if number == self.at and self.after:
            self.steps.append("pause")
            raise self.fault
        self._step("pause")
        self.running, self.released = False, False
        self.pauses += 1
        return ran

    def look(self) -> Snapshot | None:
        assert not self.running
        self._step("look")
        self.now += self.look_takes
        world = self.views.pop(0) if len(self.views) > 1 else self.views[0]
        return None if world is None else Snapshot(world)

    def read(self, addr: int, size: int) -> bytes | None:
        found = [self.memory.get(addr + i) for i in range(size)]
        return None if None in found else bytes(byte for byte in found if byte is not None)

    def write(self, addr: int, data: bytes) -> None:
        assert not self.running, "text is written only while the guest stands still"
        self._step("write", lambda: self.memory.update({addr + i: byte for i, byte in enumerate(data)}))

    def resume(self) -> None:
        def act() -> None:
            self.running = self.released = True

        self._step("resume", act)

    def release(self) -> None:
        self.released = True

    def is_alive(self) -> bool:
        return self.alive

    @contextmanager
    def shield(self) -> Iterator[None]:
        yield

    def keep(self, text: str) -> None:
        self._step("keep", lambda: self.kept.append(text))

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert self.running, "nobody waits while the guest stands still"
        self._step("sleep")
        self.now += seconds

    def holds(self, *, new: bool) -> bool:
        return all(self.read(w.address, len(w.new)) == (w.new if new else w.old) for w in self.journal.writes)

    def run(self, *, force: bool = False, limits: Limits = LIMITS, revert: bool = False) -> list[Event]:
        writes = undo_of(self.journal.writes) if revert else self.journal.writes
        before = PatchState.APPLIED if revert else PatchState.ABSENT
        events = []
        try:
            for event in transition(
                self,
                Change(self.journal, writes, before, force),
                keep=self.keep,
                clock=self.clock,
                sleep=self.sleep,
                limits=limits,
            ):
                assert self.released, "nobody is told anything while the guest is held"
                events.append(event)
        except (KeyboardInterrupt, Fault):
            pass
        return events


CLEAR = journal_of(("f2", "new2"))
HELD = journal_of(("f1", "new1"))
BOTH = journal_of(("f2", "new2"), ("f1", "new1"))


def kinds(events: list[Event]) -> list[EventKind]:
    return [event.kind for event in events]


def test_a_clear_guest_is_patched_in_one_pause() -> None:
    guest = FakeGuest(CLEAR, [SLEEPS])
    events = guest.run()
    assert kinds(events) == [EventKind.STARTED, EventKind.WRITTEN, EventKind.CROSSED, EventKind.COMPLETED]
    assert events[-1].state is PatchState.APPLIED
    assert guest.holds(new=True)
    assert guest.running
    assert events[1].figures["pause_ms"] == pytest.approx(30)
    assert [task.pid for task in events[2].tasks] == [100]
    # The journal was there before the first byte, and says in the end what was done.
    assert guest.steps.index("keep") < guest.steps.index("pause") < guest.steps.index("write")
    assert [Journal.from_text(text).stage for text in guest.kept] == [Stage.INTENDED, Stage.WRITTEN]


def test_a_task_in_the_old_function_is_named_and_nothing_is_written() -> None:
    guest = FakeGuest(HELD, [SLEEPS])
    events = guest.run(limits=Limits(timeout_s=2.0))
    assert "write" not in guest.steps
    assert guest.running
    assert events[-1].kind is EventKind.FAILED
    assert events[-1].state is PatchState.ABSENT
    [task] = events[-1].tasks
    assert (task.pid, task.comm, task.hold, task.blocked_by) == (100, "sleeper", Hold.ON_STACK, "f1")
    assert "sleeper (100)" in events[-1].message
    # One BLOCKED, since nothing changed; a RETRIED for every pause.
    assert kinds(events).count(EventKind.BLOCKED) == 1
    assert kinds(events).count(EventKind.RETRIED) == guest.pauses >= 3
    assert Journal.from_text(guest.kept[-1]).stage is Stage.UNDONE


def test_all_functions_or_none() -> None:
    """f2 is free, f1 is not: neither is written."""
    guest = FakeGuest(BOTH, [SLEEPS])
    events = guest.run(limits=Limits(timeout_s=0.5))
    assert events[-1].kind is EventKind.FAILED
    assert guest.memory == guest.before


def test_a_task_in_the_new_function_holds_a_revert() -> None:
    guest = FakeGuest(journal_of(("f2", "f1"), action=Action.REVERT), [SLEEPS])
    for write in guest.journal.writes:
        guest.memory |= {write.address + i: byte for i, byte in enumerate(write.new)}
    events = guest.run(limits=Limits(timeout_s=0.5), revert=True)
    assert events[-1].kind is EventKind.FAILED
    assert events[-1].state is PatchState.APPLIED
    assert events[-1].tasks[0].blocked_by == "f1"
    assert guest.holds(new=True)


def test_a_revert_writes_the_old_bytes() -> None:
    guest = FakeGuest(journal_of(("f2", "new2"), action=Action.REVERT), [SLEEPS])
    for write in guest.journal.writes:
        guest.memory |= {write.address + i: byte for i, byte in enumerate(write.new)}
    events = guest.run(revert=True)
    assert events[-1].state is PatchState.ABSENT
    assert guest.memory == guest.before
    assert Journal.from_text(guest.kept[-1]).stage is Stage.UNDONE


def test_waits_grow_but_a_release_is_noticed_within_a_second() -> None:
    guest = FakeGuest(HELD, [SLEEPS])
    waits: list[float] = []
    real = guest.sleep

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        real(seconds)

    guest.sleep = sleep  # type: ignore[method-assign]
    guest.run(limits=Limits(timeout_s=10.0, interval_s=0.01))
    assert waits == sorted(waits)
    assert waits[0] == pytest.approx(0.03)  # as long as the guest stood still
    assert waits[-1] <= 0.5


def test_code_that_changed_is_read_anew_and_nothing_is_decided_on_the_old() -> None:
    guest = FakeGuest(CLEAR, [None, None, SLEEPS])
    events = guest.run()
    assert events[-1].kind is EventKind.COMPLETED
    assert guest.steps.count("prepare") == 3


def test_a_guest_that_somebody_else_has_paused_stays_paused() -> None:
    guest = FakeGuest(CLEAR, [SLEEPS], running=False)
    events = guest.run()
    assert events[-1].kind is EventKind.COMPLETED
    assert "paused by somebody else" in events[-1].message
    assert guest.holds(new=True)
    assert not guest.running
    held = FakeGuest(HELD, [SLEEPS], running=False)
    events = held.run()
    assert events[-1].kind is EventKind.FAILED
    assert "paused by somebody else" in events[-1].message
    assert held.pauses == 1
    assert not held.running
    assert held.memory == held.before


def test_a_look_that_takes_too_long_writes_nothing() -> None:
    guest = FakeGuest(CLEAR, [SLEEPS], look_takes=2.0)
    events = guest.run(limits=Limits(timeout_s=5.0, pause_s=1.0))
    assert events[-1].kind is EventKind.FAILED
    assert "longer" in events[-1].message
    assert guest.memory == guest.before


def test_force_overrules_by_name() -> None:
    guest = FakeGuest(HELD, [SLEEPS])
    events = guest.run(force=True)
    assert EventKind.FORCED in kinds(events)
    [forced] = [event for event in events if event.kind is EventKind.FORCED]
    assert [task.blocked_by for task in forced.tasks] == ["f1"]
    assert guest.holds(new=True)


def test_not_even_force_writes_under_a_task_that_stands_on_the_site() -> None:
    """Between the two words of a site x16 is not loaded yet: the branch would lead anywhere."""
    cpu = start(CODE)
    task = run_until(cpu, PROGRAM.at("f1") + 4)
    world = World(cpu.program, [task])
    guest = FakeGuest(HELD, [world])
    events = guest.run(force=True, limits=Limits(timeout_s=0.5))
    assert events[-1].kind is EventKind.FAILED
    assert guest.memory == guest.before


FAULTS = (KeyboardInterrupt(), Unavailable("the connection broke"), TargetError("no"))


def steps_of_a_clean_run() -> list[str]:
    guest = FakeGuest(CLEAR, [None, SLEEPS])
    guest.run()
    return guest.steps


STEPS = steps_of_a_clean_run()


def test_a_clean_run_takes_every_kind_of_step() -> None:
    assert set(STEPS) == {"prepare", "keep", "pause", "look", "write", "resume", "sleep"}


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
@pytest.mark.parametrize("at", range(len(STEPS)), ids=lambda at: f"{at}-{STEPS[at]}")
def test_one_fault_at_any_step_leaves_a_whole_state(at: int, fault: BaseException, *, after: bool) -> None:
    """Fully patched or fully not, running, and the last event says which."""
    guest = FakeGuest(CLEAR, [None, SLEEPS], at=at, fault=fault, after=after)
    events = guest.run()
    assert guest.running
    assert guest.memory == guest.before or guest.holds(new=True)
    last = events[-1]
    assert last.kind in {EventKind.FAILED, EventKind.COMPLETED}
    expected = PatchState.APPLIED if guest.holds(new=True) else PatchState.ABSENT
    assert last.state is expected
    if last.kind is EventKind.FAILED:
        assert ("nothing is written" in last.message) == (expected is PatchState.ABSENT)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", range(len(STEPS)), ids=lambda at: f"{at}-{STEPS[at]}")
def test_a_connection_lost_for_good_is_told_with_what_is_written(at: int, *, after: bool) -> None:
    """Fully patched or fully not; or the guest stays paused and the message names exactly the words written."""
    fault = Unavailable("the connection is gone")
    guest = FakeGuest(CLEAR, [None, SLEEPS], at=at, fault=fault, after=after, for_good=True)
    events = guest.run()
    last = events[-1]
    assert guest.running or "stays paused" in last.message
    if guest.memory == guest.before or guest.holds(new=True):
        return
    assert last.kind is EventKind.FAILED
    assert not guest.running
    for write in guest.journal.writes:
        is_written = guest.read(write.address, len(write.new)) == write.new
        assert (f"at {write.address:#x}" in last.message) == is_written
    if last.state is PatchState.PARTIAL:
        assert "surefoot patch revert" in last.message
    found = recover(Journal.from_text(guest.kept[-1]), guest.read)
    assert found.state is last.state


@pytest.mark.parametrize("at", range(len(STEPS)), ids=lambda at: f"{at}-{STEPS[at]}")
def test_a_guest_that_dies_takes_everything_with_it(at: int) -> None:
    guest = FakeGuest(CLEAR, [None, SLEEPS], at=at, fault=Unavailable("gone"), for_good=True, dies=True)
    last = guest.run()[-1]
    if last.kind is EventKind.FAILED:
        assert "the guest has ended" in last.message
        assert last.state is PatchState.ABSENT
    else:
        assert STEPS[at] == "keep"


def test_a_full_disk_stops_it_before_the_first_byte() -> None:
    guest = FakeGuest(CLEAR, [SLEEPS], at=STEPS.index("keep"), fault=TargetError("no space left"), for_good=True)
    last = guest.run()[-1]
    assert last.kind is EventKind.FAILED
    assert "pause" not in guest.steps
    assert "no space left" in last.message
    assert "nothing is written" in last.message


def test_a_disk_that_is_full_afterwards_is_a_warning() -> None:
    keeps = [i for i, step in enumerate(STEPS) if step == "keep"]
    guest = FakeGuest(CLEAR, [None, SLEEPS], at=keeps[-1], fault=TargetError("no space left"))
    events = guest.run()
    assert kinds(events)[-2:] == [EventKind.WARNING, EventKind.COMPLETED]
    assert guest.holds(new=True)


def test_who_stops_listening_leaves_a_whole_state() -> None:
    guest = FakeGuest(HELD, [SLEEPS])
    events = transition(
        guest,
        Change(HELD, HELD.writes, PatchState.ABSENT),
        keep=guest.keep,
        clock=guest.clock,
        sleep=guest.sleep,
    )
    for _ in range(3):
        next(events)
    events.close()  # type: ignore[attr-defined]
    assert guest.running
    assert guest.memory == guest.before
    assert Journal.from_text(guest.kept[-1]).stage is Stage.UNDONE
