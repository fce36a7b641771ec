"""The engine step by step on the little kernel: what it tells, and how it ends in each kind of trouble."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest

from patch_world import PATCHES, Task, World
from surefoot.errors import NotApplied, PatchError, TargetError
from surefoot.patch.engine import Engine, Settings
from surefoot.patch.events import FIGURES, Event, EventKind, Hold, PatchState
from surefoot.patch.model import Patch, PatchObject, PatchStateVersion
from surefoot.patch.stack import Side

A, B, R = PATCHES["A"], PATCHES["B"], PATCHES["R"]


def made(seed: int = 1, *, timeout: float | None = None, grace: int = 30) -> tuple[World, Engine]:
    world = World(seed)
    engine = Engine(world, lambda: float(world.ticks), Settings(timeout_s=timeout, grace=grace))
    world.engine, world.restless = engine, False
    for in_force in (["A"], ["A", "B"], ["R"], ["R", "A"], ["C"]):
        world.configure(in_force)
    return world, engine


def kinds(events: list[Event]) -> list[EventKind]:
    return [event.kind for event in events]


def parked_in(world: World, label: str = "") -> Task:
    """Run until a task sleeps inside pair, and keep it there."""
    for _ in range(20_000):
        world.steps(1)
        for task in world.tasks_by_pid.values():
            inside = any(frame.code.name == "pair" and frame.code.label == label for frame in task.frames)
            if task.step == "sleep" and inside and not task.parked:
                task.parked = True
                return task
    raise AssertionError("nobody came")


def until(events: Iterator[Event], kind: EventKind) -> Event:
    return next(event for event in events if event.kind is kind)


def quiet(world: World) -> None:
    """Check that nothing of a transition is left."""
    assert all(task.side is Side.IDLE and not task.pending for task in world.tasks_by_pid.values())
    assert world.goal is Side.IDLE
    assert world.mixes == []


def test_a_transition_tells_its_beginning_its_passes_and_its_end() -> None:
    """Every task is said to have crossed once, by causes that the view knows; the clock runs from the beginning."""
    world, engine = made()
    world.steps(100)
    events = list(engine.apply(A))
    assert kinds(events)[0] is EventKind.STARTED
    assert kinds(events)[-1] is EventKind.COMPLETED
    assert [event.state for event in events] == [PatchState.APPLYING] * (len(events) - 1) + [PatchState.APPLIED]
    assert {name for event in events for name in event.figures} <= set(FIGURES)
    assert events[0].figures == {"tasks": 6, "sites": 4}
    crossed = [task.pid for event in events if event.kind is EventKind.CROSSED for task in event.tasks]
    assert len(crossed) == len(set(crossed))
    assert set(world.tasks_by_pid) <= set(crossed)
    counted = sum(value for event in events for name, value in event.figures.items() if name.startswith("by_"))
    assert counted == len(crossed)
    assert events[-1].left == 0
    assert [event.elapsed_s for event in events] == sorted(event.elapsed_s for event in events)
    quiet(world)


def test_status_tells_functions_and_tasks() -> None:
    """In transition with tasks, afterwards without; patches oldest first."""
    world, engine = made()
    sleeper = parked_in(world)
    events = engine.apply(A)
    until(events, EventKind.BLOCKED)
    [status] = engine.status()
    assert (status.patch, status.state) == ("A", PatchState.APPLYING)
    assert {task.pid for task in status.tasks} == set(world.tasks_by_pid)
    assert next(task for task in status.tasks if task.pid == sleeper.pid).hold is Hold.ON_STACK
    assert {function.name for function in status.functions} == {f"{name}." for name in ("pair", "f", "g", "die")}
    assert all(function.patched and function.new != function.address for function in status.functions)
    sleeper.parked = False
    list(events)
    list(engine.apply(B))
    assert [(item.patch, item.state, item.tasks) for item in engine.status()] == [
        ("A", PatchState.APPLIED, ()),
        ("B", PatchState.APPLIED, ()),
    ]


def test_a_sleeper_is_named_until_time_is_up_and_then_all_is_as_before() -> None:
    """It is the only one named in the end; the last event says that the patch was given up."""
    world, engine = made(timeout=500.0)
    sleeper = parked_in(world)
    events = list(engine.apply(A))
    blocked = [event for event in events if event.kind is EventKind.BLOCKED and event.state is PatchState.APPLYING]
    assert [task.pid for task in blocked[-1].tasks] == [sleeper.pid]
    assert blocked[-1].tasks[0].blocked_by in {"pair", "f", "g"}
    # A hold that has not changed is not told again.
    assert all(first.tasks != second.tasks for first, second in pairwise(blocked))
    assert EventKind.REVERSED in kinds(events)
    assert (events[-1].kind, events[-1].state) == (EventKind.FAILED, PatchState.ABSENT)
    assert "time was up" in events[-1].message
    assert world.table == {}
    quiet(world)


def test_held_up_both_ways_it_stays_under_way_and_can_be_resumed() -> None:
    """One task sleeps in old code, one in new code: neither direction ends, and both are named in their turn."""
    world, engine = made(timeout=400.0)
    old = parked_in(world)
    events = engine.apply(A)
    until(events, EventKind.CROSSED)
    new = parked_in(world, "A")
    *_, last = events
    assert (last.kind, last.state) == (EventKind.FAILED, PatchState.REVERTING)
    assert [task.pid for task in last.tasks] == [new.pid]
    assert engine.moving == "A"
    with pytest.raises(NotApplied, match="under way already"):
        next(engine.revert("A"))
    old.parked = new.parked = False
    assert list(engine.resume())[-1].kind is EventKind.COMPLETED
    assert list(engine.resume()) == []
    quiet(world)


def test_there_is_one_transition_at_a_time() -> None:
    """The other one is named; nothing has changed."""
    world, engine = made()
    parked_in(world)
    events = engine.apply(A)
    next(events)
    for other in (engine.apply(B), engine.revert("B")):
        with pytest.raises(NotApplied, match="A is in transition"):
            next(other)
    with pytest.raises(NotApplied, match="under way already"):
        next(engine.apply(A))
    assert [item.patch for item in engine.status()] == ["A"]


def test_what_cannot_be_applied_is_refused_before_anything_happens() -> None:
    """Not there, there already, an older state, a function that nobody knows."""
    world, engine = made()
    with pytest.raises(NotApplied, match="not applied"):
        next(engine.revert("A"))
    with pytest.raises(NotApplied, match="no transition"):
        engine.reverse()
    list(engine.apply(replace(A, states=(PatchStateVersion(1, 5),))))
    with pytest.raises(NotApplied, match="already"):
        next(engine.apply(A))
    with pytest.raises(NotApplied, match="version 0 of state 1"):
        next(engine.apply(B))
    with pytest.raises(NotApplied, match="does not know its state 1"):
        next(engine.apply(replace(R, states=())))
    table, calls = dict(world.table), list(world.called)
    unknown = replace(B, states=A.states[:0], objects=(PatchObject("vmlinux", B.objects[0].functions[:1]),))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(World, "resolve", lambda *_: (_ for _ in ()).throw(PatchError("no such function")))
        with pytest.raises(PatchError, match="no such function"):
            next(engine.apply(unknown))
    assert (world.table, world.called) == (table, calls)
    quiet(world)


def test_a_veto_undoes_what_went_before() -> None:
    """Objects that had agreed are told in reverse order; the one that refused is not."""
    world, engine = made()
    world.toggle_module()
    world.fail_callbacks.add("C.pre_patch")
    true_callback = world.callback

    def second_refuses(owner: str, symbol: str) -> None:
        if symbol == "C.pre_patch" and not world.called:
            world.called.append((owner, symbol))
            return
        true_callback(owner, symbol)

    world.callback = second_refuses  # type: ignore[method-assign]
    [event] = engine.apply(PATCHES["C"])
    assert (event.kind, event.state) == (EventKind.FAILED, PatchState.ABSENT)
    assert "says no" in event.message
    assert world.called == [("mod", "C.pre_patch"), ("mod", "C.post_unpatch")]
    assert engine.status() == []
    quiet(world)


def test_a_target_that_cannot_be_written_is_as_before() -> None:
    """At the beginning nothing is left; at the end the transition waits for another attempt."""
    world, engine = made()
    world.fail_redirect = 1
    [event] = engine.apply(A)
    assert (event.kind, event.state) == (EventKind.FAILED, PatchState.ABSENT)
    quiet(world)
    events = engine.apply(A)
    next(events)
    world.fail_redirect = 1
    *_, last = events
    assert (last.kind, last.state, last.left) == (EventKind.FAILED, PatchState.APPLYING, 0)
    assert list(engine.resume())[-1].state is PatchState.APPLIED
    quiet(world)


def test_a_start_that_can_neither_be_made_nor_taken_back_is_partial() -> None:
    """It says so, shows in the status, runs no new code, and is repaired by the next attempt."""
    world, engine = made()
    true_tasks, asked = world.tasks, [0]

    def tasks() -> object:
        asked[0] += 1
        if asked[0] == 2:  # right after the table was written
            world.fail_redirect = 2
            raise KeyboardInterrupt
        return true_tasks()

    world.tasks = tasks  # type: ignore[method-assign, assignment]
    [event] = engine.apply(A)
    world.tasks = true_tasks  # type: ignore[method-assign]
    assert (event.kind, event.state) == (EventKind.FAILED, PatchState.PARTIAL)
    assert "nor could its redirections be taken back" in event.message
    assert [(item.patch, item.state) for item in engine.status()] == [("A", PatchState.PARTIAL)]
    world.steps(500)
    assert world.astray([]) == []
    [still] = engine.resume()
    assert still.state is PatchState.PARTIAL
    [repaired] = engine.resume()
    assert repaired.state is PatchState.ABSENT
    assert world.table == {}
    quiet(world)
    assert list(engine.apply(A))[-1].state is PatchState.APPLIED


@pytest.mark.parametrize("revert", [False, True])
def test_an_interrupt_turns_the_transition_round(revert: bool) -> None:
    """Thrown in at an event, or by closing the generator: in the end all is as before."""
    for close in (False, True):
        world, engine = made()
        if revert:
            list(engine.apply(A))
        before = PatchState.APPLIED if revert else PatchState.ABSENT
        events = engine.revert("A") if revert else engine.apply(A)
        next(events)
        if close:
            events.close()  # type: ignore[attr-defined]
        else:
            event = events.throw(KeyboardInterrupt())  # type: ignore[attr-defined]
            assert event.kind is EventKind.REVERSED
            *_, last = events
            assert (last.kind, last.state) == (EventKind.FAILED, before)
            assert "interrupted" in last.message
        assert [item.state for item in engine.status()] == ([PatchState.APPLIED] if revert else [])
        quiet(world)


def test_an_interrupt_that_cannot_turn_round_leaves_it_under_way() -> None:
    """A task in new code that sleeps on: the last event names it, and resuming ends the matter."""
    world, engine = made(grace=5)
    old = parked_in(world)
    events = engine.apply(A)
    until(events, EventKind.CROSSED)
    new = parked_in(world, "A")
    events.throw(KeyboardInterrupt())  # type: ignore[attr-defined]
    *_, last = events
    assert (last.kind, last.state) == (EventKind.FAILED, PatchState.REVERTING)
    assert new.pid in {task.pid for task in last.tasks}
    assert old.pid not in {task.pid for task in last.tasks}
    new.parked = False
    assert list(engine.resume())[-1].state is PatchState.ABSENT
    quiet(world)


def test_a_target_that_ends_is_an_error() -> None:
    """Nothing can be said of it any more."""
    world, engine = made()
    parked_in(world)
    events = engine.apply(A)
    next(events)
    world.run = lambda: False  # type: ignore[method-assign]
    with pytest.raises(TargetError, match="has ended"):
        list(events)


def test_turning_round_by_the_other_command() -> None:
    """Revert turns an apply round, and apply turns it round again; the first generator has nothing more to say."""
    world, engine = made()
    sleeper = parked_in(world)
    first = engine.apply(A)
    until(first, EventKind.BLOCKED)
    second = engine.revert("A")
    assert next(second).kind is EventKind.REVERSED
    assert list(first) == []
    third = engine.apply(A)
    event = next(third)
    assert (event.kind, event.state) == (EventKind.REVERSED, PatchState.APPLYING)
    sleeper.parked = False
    assert list(third)[-1].state is PatchState.APPLIED
    assert list(second) == []
    quiet(world)


def test_callbacks_that_fail_afterwards_are_warnings() -> None:
    """The transition is complete all the same, and the status remembers."""
    world, engine = made()
    world.fail_callbacks.add("A.post_patch")
    events = list(engine.apply(A))
    assert kinds(events)[-2:] == [EventKind.WARNING, EventKind.COMPLETED]
    assert "A.post_patch" in events[-2].message
    assert [len(item.warnings) for item in engine.status()] == [1]
    world.fail_callbacks.add("A.post_unpatch")
    events = list(engine.revert("A"))
    assert kinds(events)[-2:] == [EventKind.WARNING, EventKind.COMPLETED]


def test_a_replacing_patch_ends_the_older_ones_silently() -> None:
    """They are gone from the status, and their callbacks are not called."""
    world, engine = made()
    for patch in (A, B):
        list(engine.apply(patch))
    called = len(world.called)
    list(engine.apply(R))
    assert [item.patch for item in engine.status()] == ["R"]
    assert world.called[called:] == [("vmlinux", "R.pre_patch"), ("vmlinux", "R.post_patch")]
    assert world.codes["h", ""].start not in world.table
    with pytest.raises(NotApplied, match="not applied"):
        next(engine.revert("A"))
    assert list(engine.apply(A))[-1].state is PatchState.APPLIED


def test_a_module_that_cannot_be_patched_is_not_loaded() -> None:
    """And one that cannot be given back stays; both as if nobody had asked."""
    world, engine = made()
    list(engine.apply(PATCHES["C"]))
    world.fail_callbacks.add("C.pre_patch")
    assert not world.toggle_module()
    world.fail_redirect = 1
    assert not world.toggle_module()
    assert world.modules == {"vmlinux"}
    assert world.toggle_module()
    world.fail_redirect = 1
    for task in world.tasks_by_pid.values():
        task.frames = [frame for frame in task.frames if frame.code.name not in {"m", "mm"}]
    assert not world.toggle_module()
    assert world.modules == {"vmlinux", "mod"}
    assert world.codes["m", ""].start in world.table
    mod = [symbol.removeprefix("C.") for owner, symbol in world.called if owner == "mod"]
    life = ["pre_patch", "post_unpatch", "pre_patch", "post_patch", "pre_unpatch", "post_patch"]
    assert mod == life


def test_an_empty_patch_that_replaces_takes_everything_back() -> None:
    """It has no function of its own, and every task crosses to the original ones."""
    world, engine = made()
    list(engine.apply(A))
    empty = Patch("nothing", (PatchObject("vmlinux", ()),), A.states, replace=True)
    sleeper = parked_in(world, "A")
    events = engine.apply(empty)
    blocked = until(events, EventKind.BLOCKED)
    assert sleeper.pid in {task.pid for task in blocked.tasks}
    sleeper.parked = False
    assert list(events)[-1].state is PatchState.APPLIED
    assert world.table == {}
    assert world.astray([]) == []
    assert [(item.patch, item.functions) for item in engine.status()] == [("nothing", ())]
    assert list(engine.revert("nothing"))[-1].state is PatchState.ABSENT
    quiet(world)


def test_a_patch_of_a_module_that_is_not_there_is_complete_at_once() -> None:
    """Its functions are redirected when the module comes, for everybody; before that nothing is."""
    world, engine = made()
    mod = Patch("C", PATCHES["C"].objects[:1])
    assert list(engine.apply(mod))[-1].state is PatchState.APPLIED
    assert world.table == {}
    assert world.toggle_module()
    assert {(row.unpatched, row.patched) for row in world.table.values()} == {
        (world.codes[name, "C"].start,) * 2 for name in ("m", "mm")
    }
