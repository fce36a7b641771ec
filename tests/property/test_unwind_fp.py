"""Mode fp is Linux 7.3's reliable walk: the same frames and the same verdict as a scalar reference, on any memory."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from reference_fp import kernel_walk
from surefoot.unwind.context import Mode
from surefoot.unwind.state import Source
from surefoot.unwind.trace import Traces
from world_corrupt import corrupt
from world_kernel import World, kernel, random_functions, random_task

NAMES = {Source.FRAME: "frame", Source.REGS: "regs", Source.TASK: "task", Source.CALLER: "caller"}


def shown(traces: Traces, task: int) -> list[tuple[int, str]]:
    """Give the frames of a task as the reference does."""
    frames = range(int(traces.first[task]), int(traces.first[task + 1]))
    return [(int(traces.pc[i]), NAMES[Source(int(traces.source[i]))]) for i in frames]


def assert_same(world: World) -> None:
    """Hold every task of a world against the reference."""
    traces = world.walk(Mode.FP)
    assert world.code is not None
    for task in range(len(world.tasks)):
        kernel_says = kernel_walk(world.stacks, world.columns, world.layout, world.code.labels, task)
        assert bool(traces.reliable[task]) == kernel_says.reliable
        # Where even the first address cannot be recovered the kernel shows nothing; people are shown the stack.
        if kernel_says.frames:
            assert shown(traces, task) == kernel_says.frames


@given(seed=st.integers(0, 2**32))
def test_fp_equals_kernel_on_intact_stacks(seed: int) -> None:
    """Frames and verdict are the kernel's, its omissions included."""
    rng = random.Random(seed)
    program = kernel(random_functions(rng))
    assert_same(World(program, [random_task(program, rng, slot) for slot in range(6)]))


@given(seed=st.integers(0, 2**32))
def test_fp_equals_kernel_on_damaged_stacks(seed: int) -> None:
    """So they are when stack words, registers and bookkeeping are damaged."""
    rng = random.Random(seed)
    program = kernel(random_functions(rng))
    tasks = [random_task(program, rng, slot) for slot in range(4)]
    damaged = [corrupt(task, rng, rng.randrange(1, 4)) for task in tasks for _ in range(6)]
    assert_same(World(program, damaged))
