"""The stack check on random stacks of a processor that keeps the truth: who is called clear is in no such function.

Worlds are those of `world_kernel`: every shape of function, calls that never return, tracing, kretprobes, nested
interrupts, preemption. The truth is the chain of calls that really happened.
"""

from __future__ import annotations

import random
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surefoot.patch import check
from surefoot.patch.check import Range, holds
from surefoot.patch.events import Hold
from surefoot.unwind.trace import Traces
from world import Program, without_rules
from world_kernel import Task, World, kernel, random_functions, random_task

NAMES = [f"f{i}" for i in range(14)]


def world_of(seed: int, count: int = 8) -> World:
    """A random program with some assembly, and tasks at random places on it."""
    rng = random.Random(seed)
    functions = random_functions(rng)
    functions[5] = without_rules(functions[5])
    program = kernel(functions)
    return World(program, [random_task(program, rng, slot) for slot in range(count)])


def range_of(program: Program, name: str) -> Range:
    return Range(program.at(name), program.at(name) + program.size_of(name), name)


def truly_in(program: Program, task: Task) -> set[str | None]:
    """The functions that a task really is in; the truth knows return addresses from exact ones."""
    return {program.function_at(pc if exact else pc - 4) for pc, exact in task.truth}


def judge(world: World, traces: Traces, names: list[str]) -> tuple[int, int, int]:
    """Count tasks called clear that are not, reliable ones held although they are clear, and those told rightly."""
    assert world.code is not None
    findings = holds(traces, world.code, [range_of(world.program, name) for name in names], choosing=[])
    unsafe = needless = right = 0
    for i, (task, finding) in enumerate(zip(world.tasks, findings, strict=True)):
        inside = truly_in(world.program, task) & set(names)
        if finding is None:
            unsafe += bool(inside)
        elif finding.hold is Hold.ON_STACK:
            needless += finding.name not in inside
        else:
            assert not traces.reliable[i]
        right += (finding is None) is (not inside)
    return unsafe, needless, right


@given(st.integers(0, 2**32), st.sets(st.sampled_from(NAMES), min_size=1, max_size=6))
@settings(max_examples=80, deadline=None)
def test_who_is_called_clear_is_clear(seed: int, names: set[str]) -> None:
    """And who is held by name is in that very function."""
    world = world_of(seed)
    unsafe, needless, _ = judge(world, world.walk(), sorted(names))
    assert (unsafe, needless) == (0, 0)


WORLDS = 12


@cache
def worlds() -> list[tuple[World, Traces]]:
    """A fixed set of worlds, walked."""
    made = [world_of(seed) for seed in range(WORLDS)]
    return [(world, world.walk()) for world in made]


def counts() -> tuple[int, int, int]:
    """Judge the fixed worlds, once for each function alone."""
    totals = [0, 0, 0]
    for world, traces in worlds():
        for name in NAMES:
            totals = [total + part for total, part in zip(totals, judge(world, traces, [name]), strict=True)]
    return totals[0], totals[1], totals[2]


def test_most_are_told_rightly_and_the_kernels_comparison_is_not_sound() -> None:
    """With raw return addresses some tasks are called clear that are not, and some are held needlessly."""
    unsafe, needless, right = counts()
    assert (unsafe, needless) == (0, 0)
    assert right > 0.85 * WORLDS * 8 * len(NAMES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check, "_probes", lambda traces, _: traces.pc)
        unsafe, needless, _ = counts()
    assert unsafe > 0
    assert needless > 0


def test_exact_addresses_taken_for_return_addresses_are_noticed() -> None:
    """Interrupted at its first instruction a task would count for the function before."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check, "_probes", lambda traces, _: traces.pc - 1)
        unsafe, needless, _ = counts()
    assert unsafe + needless > 0
