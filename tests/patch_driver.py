"""What operators, modules and bad luck do to the engine, and what must be true after each of it."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

from patch_world import MODULE, ORIGINAL, PATCHES, World, naive
from surefoot.errors import NotApplied, TargetError
from surefoot.patch.engine import Engine, Settings
from surefoot.patch.events import Event, EventKind, Hold, PatchState
from surefoot.patch.stack import Side

__all__ = ["Driver", "drive"]

_LETTERS: Final = {"pre_patch": "P", "post_patch": "p", "pre_unpatch": "U", "post_unpatch": "u"}
_LIVES: Final = re.compile(r"(P(p(Up)*U?)?u|Pp(Up)*(?=P|$)|P(?=$)|Pp(Up)*U(?=$))*")
"""Lives of a patched object, the last of them perhaps not over; one without an end was replaced by another patch."""
_BREAKS: Final = (KeyboardInterrupt, TargetError)
"""What breaks an operation off where it is."""
_MOST: Final = 800
"""Events that no operation takes, if everybody is let go."""


class Driver:
    """One engine on one world.

    Attributes:
        problems: what was not as it has to be.
        in_force: patches, oldest first, as far as events have told.
        tainted: a transition was forced: versions may be mixed from now on.
    """

    def __init__(self, seed: int, *, timeout: float | None = None, force_after: int = 3) -> None:
        self.rng = random.Random(seed)
        self.world = World(seed)
        settings = Settings(timeout_s=timeout, force_after=force_after, grace=30)
        self.engine = Engine(self.world, lambda: float(self.world.ticks), settings)
        self.world.engine = self.engine
        self.running: Iterator[Event] | None = None
        self.about = ""
        self.last: Event | None = None
        self.in_force: list[str] = []
        self.tainted = False
        self.problems: list[str] = []
        self.seen: set[str] = set()
        self.events: list[Event] = []
        self.outdated = False

    # What somebody does.

    def steps(self, count: int) -> None:
        """Let the world go on although the engine did not ask for it; the rest of the pass's events are outdated."""
        self.world.steps(count)
        self.outdated = True

    def begin(self, name: str, *, revert: bool, force: bool = False) -> None:
        """Apply or revert a patch; also in the middle of another operation, which then is left alone."""
        after = [item for item in self.in_force if item != name]
        if not revert:
            after = [name] if PATCHES[name].replace else [*after, name]
        moving = self.engine.moving
        new = self.engine.revert(name, force=force) if revert else self.engine.apply(PATCHES[name], force=force)
        if moving is None:
            self.world.configure(after)
        try:
            event = next(new)
        except (NotApplied, *_BREAKS) as error:
            broken = isinstance(error, _BREAKS)
            self._expect(broken or self._may_refuse(name, moving, revert=revert), f"{error}")
            self.seen.add(type(error).__name__)
            if broken:
                self.running = None  # what ran before no longer drives, or is dropped
            self.at_rest()
            return
        self.running, self.about = new, name
        self._take(event)

    def _may_refuse(self, name: str, moving: str | None, *, revert: bool) -> bool:
        """Whether there is a reason to refuse, by our own account."""
        return moving is not None or (name not in self.in_force) is revert

    def advance(self, count: int = 1) -> None:
        """Let the engine go on."""
        for _ in range(count):
            if self.running is None:
                return
            try:
                event = next(self.running)
            except StopIteration:
                self._ended()
                return
            except _BREAKS:  # a second interrupt, while the first was being dealt with, or an error
                self._got_out()
                return
            self._take(event)

    def throw(self) -> None:
        """Ctrl-C while an event is being looked at."""
        if self.running is not None:
            self.seen.add("thrown")
            try:
                event = self.running.throw(KeyboardInterrupt())  # type: ignore[attr-defined]
            except StopIteration:
                self._ended()
            except _BREAKS:
                self._got_out()
            else:
                self._take(event)

    def close(self) -> None:
        """The generator is dropped."""
        if self.running is not None:
            self.seen.add("closed")
            self.last = None
            with suppress(*_BREAKS):
                self.running.close()  # type: ignore[attr-defined]
            self._ended()

    def _got_out(self) -> None:
        self.seen.add("interrupt got out")
        self.last = None
        self._ended()

    def reverse(self) -> None:
        """Turn the transition round while its events are being looked at."""
        if self.engine.moving is not None and self.running is not None:
            self.seen.add("reversed")
            self.outdated = True
            try:
                self.engine.reverse()
            except (NotApplied, *_BREAKS):
                self.seen.add("not reversed")

    def resume(self) -> None:
        """Carry on what was left under way."""
        about = self.engine.moving or self.partial
        if self.running is None and about is not None:
            self.running, self.about = self.engine.resume(), about
            self.advance()

    @property
    def partial(self) -> str | None:
        """The patch whose start could not be taken back, if any."""
        return next((item.patch for item in self.engine.status() if item.state is PatchState.PARTIAL), None)

    def park(self) -> None:
        """Make a sleeper sleep on, inside a patched function where there is one."""
        sleepers = [task for task in self.world.tasks_by_pid.values() if task.step == "sleep"]
        inside = [task for task in sleepers if any(frame.code.name in {"pair", "f", "h"} for frame in task.frames)]
        for task in (inside or sleepers)[:1]:
            task.parked = True

    def release(self) -> None:
        """Let all sleepers go."""
        for task in self.world.tasks_by_pid.values():
            task.parked = False

    def module(self) -> None:
        """Load or unload the module."""
        try:
            self.seen.add(f"module {self.world.toggle_module()}")
        except _BREAKS:
            self.seen.add("module interrupted")
        self.at_rest()

    def drain(self) -> None:
        """Stop all trouble: every transition must come to its end, and everything be as the events said."""
        world = self.world
        self.release()
        world.fail_redirect, world.interrupt_in, world.broken = 0, None, False
        world.fail_callbacks.clear()
        self.advance(_MOST)
        self._expect(self.running is None, "an operation does not end")
        for _ in range(5):
            self.resume()
            self.advance(_MOST)
        self._expect(self.engine.moving is None, "a transition does not end although nobody holds it up")
        self._expect(self.partial is None, "a start that failed cannot be taken back")
        world.steps(200)
        self.at_rest()

    # What must be true.

    def _expect(self, good: bool, problem: str) -> None:
        if not good:
            self.problems.append(problem)

    def _take(self, event: Event) -> None:
        """Judge an event at the moment when it comes: the world stands still."""
        self.last = event
        self.events.append(event)
        self.seen.add(str(event.kind))
        world = self.world
        self.outdated &= event.kind not in {EventKind.STARTED, EventKind.RETRIED}
        sides = {task.pid: task.side for task in world.tasks_by_pid.values()}
        if event.kind is EventKind.FORCED:
            self.tainted = True
            self._expect(self.about in self.engine.pinned, "forced, but not pinned")
        # In its last steps, which may be interrupted too, nobody is on a side any more.
        judged = not self.outdated and not self.engine._steps.is_settled
        if judged and event.state in {PatchState.APPLYING, PatchState.REVERTING}:
            goal = Side.PATCHED if event.state is PatchState.APPLYING else Side.UNPATCHED
            left = {pid for pid, side in sides.items() if side is not goal}
            if event.kind is not EventKind.STARTED:
                self._expect(event.left == len(left), f"{event.left} tasks left, but {left} are")
            if event.kind in {EventKind.BLOCKED, EventKind.FAILED} and left:
                named = {task.pid for task in event.tasks}
                self._expect(named == left, f"{named} were named, but {left} hold it up")
                for task in event.tasks:
                    self._judge_hold(task.pid, task.hold, task.blocked_by)
            if event.kind is EventKind.CROSSED:
                for task in event.tasks:
                    self._expect(sides.get(task.pid) is goal, f"{task.pid} was said to have crossed")
        if event.kind in {EventKind.COMPLETED, EventKind.FAILED}:
            self._account(event.patch, event.state)

    def _judge_hold(self, pid: int, hold: Hold | None, name: str | None) -> None:
        task = self.world.tasks_by_pid[pid]
        self.seen.add(f"hold {hold}")
        if hold is Hold.ON_STACK:
            self._expect(name is not None and self.world.is_in(pid, name), f"{pid} is not in {name}")
        elif hold is Hold.CHOOSING:
            self._expect(task.step in {"tracer", "handler", "handled", "chosen"}, f"{pid} is not in the tracer")
        elif hold is Hold.UNRELIABLE:
            self._expect(any(frame.code.name == "asm" for frame in task.frames), f"{pid} is not in assembly")
        elif hold is None:
            self._expect(False, f"{pid} holds up without a reason")

    def _account(self, name: str, state: PatchState) -> None:
        """Believe what the last event of an operation says."""
        if state is PatchState.APPLIED and name not in self.in_force:
            self.in_force = [name] if PATCHES[name].replace else [*self.in_force, name]
        elif state is PatchState.ABSENT and name in self.in_force:
            self.in_force.remove(name)
        if state in {PatchState.APPLIED, PatchState.ABSENT}:
            self.at_rest()

    def _ended(self) -> None:
        self.running = None
        last = self.last
        if last is not None:
            ends = {EventKind.COMPLETED, EventKind.FAILED}
            self._expect(last.kind in ends or self.engine.moving is None, f"ended with {last.kind}")
        if last is None or last.kind not in {EventKind.COMPLETED, EventKind.FAILED}:
            # Nobody was told: take the status for what the last event would have said.
            states = {item.patch: item.state for item in self.engine.status()}
            self._account(self.about, states.get(self.about, PatchState.ABSENT))
        self.at_rest()

    def at_rest(self) -> None:
        """Check what must hold outside of transitions, and the mixes always."""
        world = self.world
        if not self.tainted:
            self.problems += world.mixes
        if self.engine.moving is not None or self.partial:
            return
        for task in world.tasks_by_pid.values():
            self._expect(task.side is Side.IDLE and not task.pending, f"{task.pid} is left on side {task.side!r}")
        self._expect(world.goal is Side.IDLE, "a goal is left")
        self._expect([item.patch for item in self.engine.status()] == self.in_force, "the status differs")
        versions = naive(self.in_force)
        wanted = {
            world.codes[name, ORIGINAL].start: world.codes[name, label].start
            for name, label in versions.items()
            if label != ORIGINAL and MODULE.get(name, "vmlinux") in world.modules
        }
        table = {site: {row.unpatched, row.patched} for site, row in world.table.items()}
        self._expect(
            table == {site: {entry} for site, entry in wanted.items()}, f"the table is {table}, not {wanted}"
        )
        if not self.tainted:
            self.problems += world.astray(self.in_force)
        self._callbacks()

    def _callbacks(self) -> None:
        """Every pre_patch is followed by the rest of a life, in order."""
        for name, patch in PATCHES.items():
            for item in patch.objects:
                calls = [
                    _LETTERS[symbol.partition(".")[2]]
                    for owner, symbol in self.world.called
                    if owner == item.name and symbol.startswith(f"{name}.")
                ]
                line = "".join(calls)
                self._expect(_LIVES.fullmatch(line) is not None, f"callbacks of {name} for {item.name}: {line}")
                if name in self.in_force and item.name in self.world.modules:
                    self._expect(line[-1:] == "p", f"{name} is in force for {item.name}, after {line}")
                elif name not in self.in_force:
                    self._expect(line[-1:] in {"", "u", "p"}, f"{name} is not in force for {item.name}, after {line}")


def drive(seed: int, operations: int = 25, *, trouble: bool = True) -> Driver:
    """Do random things, as often as asked, and then let everything come to its end; stops at the first problem."""
    rng = random.Random(seed)
    driver = Driver(seed, timeout=rng.choice((None, 400.0)) if trouble else None)
    world = driver.world
    world.steps(rng.randrange(80))

    def begin() -> None:
        if driver.running is None or rng.random() < 0.1:
            name = rng.choice(list(PATCHES))
            driver.begin(name, revert=name in driver.in_force)

    def fail() -> None:
        world.fail_redirect = 1

    def veto() -> None:
        world.fail_callbacks.add(f"{rng.choice(list(PATCHES))}.pre_patch")

    def interrupt() -> None:
        world.interrupt_in, world.broken = rng.randrange(1, 25), rng.random() < 0.3

    usual: list[Callable[[], None]] = [
        begin,
        begin,
        lambda: driver.steps(rng.randrange(20)),
        lambda: driver.advance(rng.randrange(1, 12)),
        lambda: driver.advance(rng.randrange(1, 40)),
        driver.park,
        driver.release,
        driver.reverse,
        driver.module,
    ]
    bad = [fail, veto, interrupt, driver.throw, driver.close, driver.resume]
    for _ in range(operations):
        rng.choice(usual + (bad if trouble else []))()
        if driver.problems:
            return driver
    driver.drain()
    return driver
