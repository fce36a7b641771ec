"""The engine on the little kernel of `patch_world`, in any order: nothing is mixed, and everything comes to its end.

The invariants are those of `patch_driver`: no task enters a version that never stood beside one below it on its
stack; outside of transitions every task is in the versions in force, on no side, and the table says the same; every
task that holds a transition up is named with a true reason; callbacks are balanced; once nobody holds it up, every
transition ends.
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from patch_driver import Driver, drive
from patch_machine import Machine
from surefoot.patch.events import EventKind, Hold, PatchState


def test_any_order_of_events() -> None:
    """Hypothesis looks for an order that breaks an invariant."""
    run_state_machine_as_test(Machine, settings=settings(max_examples=150, stateful_step_count=40, deadline=None))


def test_runs_reach_everything_that_can_happen() -> None:
    """Random runs of the driver see every kind of event and of hold: the invariants were asked about all of them."""
    seen: set[str] = set()
    for seed in range(120):
        driver = drive(seed, trouble=seed % 3 != 0)
        assert driver.problems == [], seed
        seen |= driver.seen
    kinds = set(EventKind) - {EventKind.WRITTEN, EventKind.FORCED, EventKind.WARNING}
    assert {str(kind) for kind in kinds} <= seen
    assert {f"hold {hold}" for hold in set(Hold) - {Hold.UNKNOWN}} <= seen
    assert {"thrown", "closed", "reversed", "module True", "module False", "NotApplied"} <= seen


@pytest.mark.parametrize("seed", [645, 1977, 206_019, 207_927, 308_387, 601_751])
def test_runs_that_once_found_something(seed: int) -> None:
    """Interrupts in the last steps, and modules that come and go between a broken start and its repair."""
    assert drive(seed, 60).problems == []


@pytest.mark.slow
def test_ten_thousand_transitions_without_a_mix() -> None:
    """Begun, turned round and ended at random instants, every second run with interrupts and failures."""
    transitions = seed = 0
    while transitions < 10_000:
        seed += 1
        driver = drive(seed, 60, trouble=seed % 2 == 1)
        assert driver.problems == [], seed
        told = [event.kind for event in driver.events]
        transitions += told.count(EventKind.STARTED) + told.count(EventKind.REVERSED)


@pytest.mark.parametrize("seed", range(12))
def test_force_completes_over_a_sleeper_and_pins(seed: int) -> None:
    """Overruled tasks are named with what held them, the patch is pinned, and later transitions search for them."""
    driver = Driver(seed)
    world = driver.world
    for _ in range(400):
        world.step(world.rng.choice(list(world.tasks_by_pid.values())))
        sleepers = [
            t
            for t in world.tasks_by_pid.values()
            if t.step == "sleep" and any(f.code.name == "pair" for f in t.frames)
        ]
        if sleepers:
            break
    sleepers[0].parked = True
    driver.begin("A", revert=False, force=True)
    driver.advance(2000)
    assert driver.problems == []
    assert driver.running is None
    [forced] = [event for event in driver.events if event.kind is EventKind.FORCED]
    assert sleepers[0].pid in {task.pid for task in forced.tasks}
    assert all(task.hold is not None for task in forced.tasks)
    assert driver.engine.pinned == {"A"}
    assert driver.events[-1].state is PatchState.APPLIED
    assert any("forced" in text for item in driver.engine.status() for text in item.warnings)
    # The sleeper is in old code still: a patch on top must wait for it although it replaces A's code only.
    driver.tainted = False
    world.mixes.clear()
    driver.begin("B", revert=False)
    driver.advance(200)
    assert driver.running is not None
    assert {task.pid for task in driver.engine.status()[-1].tasks if not task.crossed} >= {sleepers[0].pid}
    driver.release()
    driver.tainted = True
    driver.advance(2000)
    assert driver.events[-1].state is PatchState.APPLIED
