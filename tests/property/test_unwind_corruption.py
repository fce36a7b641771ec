"""Damage: a walk never raises, ends, reads nothing outside, and calls reliable only what is a stack of this code."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from checker import Checker
from surefoot.dtypes import Addr, Mask, Row
from surefoot.unwind import verify
from surefoot.unwind.callsites import Call
from surefoot.unwind.code import CodeMap
from surefoot.unwind.context import Mode
from surefoot.unwind.state import Stacks
from world_corrupt import corrupt
from world_kernel import Task, World, frames_of, kernel, random_functions, random_task

FEWER = settings(max_examples=max(10, settings().max_examples // 4))
"""For tests whose examples are big."""


class _Watch:
    """Takes the place of Stacks.read and holds every answer against the bounds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reads = 0
        true_read = Stacks.read

        def read(stacks: Stacks, stack: Row, addr: Addr) -> tuple[NDArray[np.uint64], Mask]:
            words, good = true_read(stacks, stack, addr)
            self.reads += int(good.sum())
            for i in np.flatnonzero(good).tolist():
                low, high = int(stacks.captured[stack[i]]), int(stacks.high[stack[i]])
                assert low <= int(addr[i]) <= high - 8
                assert int(words[i]) == int(stacks.words[int(stacks.word_off[stack[i]]) + (int(addr[i]) - low) // 8])
            assert not words[~good].any(), "what was not read is not passed on"
            return words, good

        monkeypatch.setattr(Stacks, "read", read)


def damaged_world(seed: int, tasks: int = 4, copies: int = 8) -> World:
    """A world in which every task has been damaged a few times over."""
    rng = random.Random(seed)
    program = kernel(random_functions(rng))
    intact = [random_task(program, rng, slot) for slot in range(tasks)]
    return World(program, [corrupt(task, rng, rng.choice((1, 1, 2, 4))) for task in intact for _ in range(copies)])


def changed_and_reliable(world: World) -> list[tuple[Task, list[tuple[int, bool]]]]:
    """Walk, and give the tasks that are called reliable although their trace is no longer the truth."""
    traces = world.walk()
    found = []
    for i, task in enumerate(world.tasks):
        frames = frames_of(traces, i)
        if traces.reliable[i] and frames != task.truth:
            found.append((task, frames))
    return found


@FEWER
@given(seed=st.integers(0, 2**32))
def test_damage_is_never_an_exception_and_never_read_outside(seed: int) -> None:
    """All modes end on any memory, and read only what was captured."""
    with pytest.MonkeyPatch.context() as patch:
        watch = _Watch(patch)
        world = damaged_world(seed, 2)
        for mode in Mode:
            traces = world.walk(mode)
            longest = int(np.diff(traces.first).max(initial=0))
            assert longest <= (8192 + 4096) // 8, "no more frames than words"
        assert watch.reads


@FEWER
@given(seed=st.integers(0, 2**32))
def test_damage_that_changes_a_reliable_trace_is_a_stack_of_this_code(seed: int) -> None:
    """An independent judge agrees that every return address follows a call that leads to the frame below."""
    world = damaged_world(seed)
    assert world.code is not None
    judge = Checker(world.code)
    for _, frames in changed_and_reliable(world):
        assert judge.is_trace(frames)


@FEWER
@given(seed=st.integers(0, 2**32))
def test_judge_accepts_the_truth(seed: int) -> None:
    """The judge itself is sound: it accepts every true stack."""
    rng = random.Random(seed)
    program = kernel(random_functions(rng))
    judge = Checker(program.code())
    for slot in range(4):
        assert judge.is_trace(random_task(program, rng, slot).truth)


def count_accepted(seeds: range) -> Counter[str]:
    """Count damaged stacks, and those accepted with a changed trace."""
    counts: Counter[str] = Counter()
    for seed in seeds:
        world = damaged_world(seed)
        counts["damaged"] += len(world.tasks)
        counts["accepted"] += len(changed_and_reliable(world))
    return counts


def test_call_sites_catch_what_records_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the call-site check several times as many damaged stacks are called reliable with a changed trace."""
    with_check = count_accepted(range(30))["accepted"]

    def accept(_: CodeMap, ra: Addr, __: Row) -> NDArray[np.uint8]:
        return np.full(ra.shape, Call.DIRECT, dtype=np.uint8)

    monkeypatch.setattr(verify, "check_calls", accept)
    without = count_accepted(range(30))["accepted"]
    assert without > 3 * with_check, (without, with_check)
