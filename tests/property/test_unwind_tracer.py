"""Tracers on random worlds: RELIABLE is the truth at every instant of their work, and damage is never believed."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from checker import Checker
from world import Program
from world_corrupt import corrupt
from world_kernel import Task, World, frames_of, kernel, random_functions, random_task, reason_of
from world_tracer import HOOKS, hooked, preempted, tracer

FEWER = settings(max_examples=max(10, settings().max_examples // 4))
"""For tests whose examples are big."""


def traced_world(seed: int, tasks: int, *, stale: bool) -> tuple[Program, list[Task]]:
    """Random functions, some of which call a tracer from their patch sites; the rest may be traced by magic.

    Args:
        seed: of everything.
        tasks: how many.
        stale: a half-written entry shows words of a live frame.
    """
    rng = random.Random(seed)
    functions = random_functions(rng)
    names = {f.name for f in functions if f.ops[0].name == "mov_x9_lr" and rng.random() < 0.7}
    functions = [hooked(f) if f.name in names else f for f in functions]
    program = kernel([*functions, *tracer(preempted())])
    program.hooks |= HOOKS.by_name
    HOOKS.stale = (0, 0)
    found = []
    for slot in range(tasks):
        task = random_task(program, rng, slot)
        if stale and task.fgraph:
            entry = rng.choice(task.fgraph)
            HOOKS.stale = (entry.key, entry.func)
        found.append(task)
    return program, found


def is_ordinary(program: Program, task: Task) -> bool:
    """Nothing was interrupted in assembly, or where a rule reckons from x29, which needs a proof."""
    rules = [program.ops[pc].rule for pc, exact in task.truth if exact]
    return all(rule is not None and rule.base == "sp" for rule in rules)


@given(seed=st.integers(0, 2**32))
def test_reliable_is_the_truth_and_ordinary_is_reliable(seed: int) -> None:
    """Blocked, preempted and running tasks, in tracers and out of them."""
    program, tasks = traced_world(seed, 8, stale=False)
    traces = World(program, tasks).walk()
    for i, task in enumerate(tasks):
        if traces.reliable[i]:
            assert frames_of(traces, i) == task.truth
        else:
            assert not is_ordinary(program, task), reason_of(traces, i)


@given(seed=st.integers(0, 2**32))
def test_half_written_entries_that_look_alive(seed: int) -> None:
    """Words of live frames in an entry that is being written never make a wrong trace reliable."""
    program, tasks = traced_world(seed, 8, stale=True)
    traces = World(program, tasks).walk()
    for i, task in enumerate(tasks):
        assert not traces.reliable[i] or frames_of(traces, i) == task.truth


@FEWER
@given(seed=st.integers(0, 2**32))
def test_damage_is_never_believed(seed: int) -> None:
    """A damaged stack that is reliable is a chain of calls of this code, by a judge of its own."""
    program, tasks = traced_world(seed, 4, stale=False)
    rng = random.Random(seed)
    damaged = [corrupt(task, rng, rng.choice((1, 1, 2, 4))) for task in tasks for _ in range(8)]
    traces, judge = World(program, damaged).walk(), Checker(program.code())
    for i, task in enumerate(damaged):
        frames = frames_of(traces, i)
        assert not traces.reliable[i] or frames == task.truth or judge.is_trace(frames)
