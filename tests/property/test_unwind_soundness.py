"""The law of the project on random worlds: RELIABLE means that the trace is the truth, and ordinary stacks are."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surefoot.unwind.code import FunctionKind
from surefoot.unwind.context import Mode
from surefoot.unwind.reasons import Reason
from surefoot.unwind.state import Start
from surefoot.unwind.trace import Traces
from surefoot.unwind.walker import walk
from world import Function, Op, Program, Rule, lr_only, maybe, without_rules
from world_cpu import Stop
from world_kernel import (
    LAYOUT,
    Proved,
    Task,
    World,
    frames_of,
    kernel,
    new_cpu,
    random_functions,
    random_task,
    reason_of,
    task_of,
)

FEWER = settings(max_examples=max(10, settings().max_examples // 4))
"""For tests whose examples are big."""


def is_ordinary(program: Program, task: Task, *, proved: bool) -> bool:
    """Whether nothing about a stack is in flux: no assembly was interrupted.

    A rule that reckons from x29 counts at an exception boundary only if it is proved.
    """
    for pc, exact in task.truth:
        rule = program.ops[pc].rule
        if exact and (rule is None or (rule.base == "fp" and not proved)):
            return False
    return True


def check(program: Program, tasks: list[Task]) -> None:
    """Hold traces against the truth, without and with proofs of the rules, which are all true."""
    judge(program, tasks, World(program, tasks).walk(), proved=False)
    judge(program, tasks, World(program, tasks, LAYOUT, program.code(proofs=Proved())).walk(), proved=True)


def judge(program: Program, tasks: list[Task], traces: Traces, *, proved: bool) -> None:
    """Hold traces against the truth: reliable ones equal it, and ordinary stacks are reliable."""
    for i, task in enumerate(tasks):
        if traces.reliable[i]:
            assert frames_of(traces, i) == task.truth
        else:
            assert not is_ordinary(program, task, proved=proved), reason_of(traces, i)


@given(seed=st.integers(0, 2**32), trace=st.booleans())
def test_reliable_is_the_truth_and_ordinary_is_reliable(seed: int, *, trace: bool) -> None:
    """Random call graphs, interruption points, preemption, nesting, IRQ stacks, tracers: no frame is missing."""
    rng = random.Random(seed)
    program = kernel(random_functions(rng))
    tasks = [random_task(program, rng, slot, trace=trace) for slot in range(8)]
    check(program, tasks)


def odd(function: Function, rng: random.Random) -> Function:
    """Give a function that compilers do not make, or one without metadata, or both."""
    names, saved = [f"f{i}" for i in range(14)], Rule("sp", 32, -32, -24)
    body = [op for _ in range(2) for op in maybe(rng.choice((rng.choice(names), rng.sample(names, 2), "schedule")))]
    body = [Op("cbz", (1 + len(body), lambda cpu: cpu.on_irq_stack)), *body]
    away = rng.choice((Op("ret"), Op("b", rng.choice(names)), Op("br", tuple(rng.sample(names, 2)))))
    pair = [Op("stp_pre", 32), *(op.under(saved) for op in body), Op("ldp_post", 32, saved), away]
    shape = rng.choice((function, Function(function.name, pair), lr_only(function.name, body), function))
    kind = rng.choice((FunctionKind.FUNC, FunctionKind.FUNC, FunctionKind.CODE))
    return without_rules(shape, kind=kind) if rng.random() < 0.6 else shape


@FEWER
@given(seed=st.integers(0, 2**32))
def test_missing_metadata_never_makes_a_wrong_trace(seed: int) -> None:
    """Odd code and code without rules may make the walk give up, but what it calls reliable is still the truth."""
    rng = random.Random(seed)
    functions = [odd(f, rng) if rng.random() < 0.5 else f for f in random_functions(rng)]
    program = kernel(functions)
    tasks = [random_task(program, rng, slot) for slot in range(8)]
    for mode in (Mode.HYBRID, Mode.SFRAME):
        traces = World(program, tasks).walk(mode)
        for i, task in enumerate(tasks):
            if traces.reliable[i]:
                assert frames_of(traces, i) == task.truth


@pytest.mark.parametrize("mode", list(Mode))
@FEWER
@given(seed=st.integers(0, 2**32))
def test_batch_equals_single(mode: Mode, seed: int) -> None:
    """Tasks walked together or one by one give the same columns."""
    rng = random.Random(seed)
    program = kernel(random_functions(rng))
    world = World(program, [random_task(program, rng, slot) for slot in range(5)])
    assert world.code is not None
    together = world.walk(mode)
    for i in range(len(world.tasks)):
        alone = walk(world.code, world.stacks, world.columns.take(np.array([i])), world.layout, mode=mode)
        part = slice(int(together.first[i]), int(together.first[i + 1]))
        for name in ("pc", "source", "evidence", "function", "sp", "fp", "ambiguous", "regs"):
            assert np.array_equal(getattr(together, name)[part], getattr(alone, name)), name
        for name in ("reason", "reason_frame", "reason_addr", "reason_other"):
            assert getattr(together, name)[i] == getattr(alone, name)[0], name


@FEWER
@given(seed=st.integers(0, 2**32), slide=st.integers(0, 2**20))
def test_every_instruction_of_a_run(seed: int, slide: int) -> None:
    """One run, stopped before each of its instructions in turn: reliable wherever the stack is ordinary."""
    rng = random.Random(seed)
    program = kernel(random_functions(rng))
    cpu = new_cpu(program, rng, slide % 64)
    cpu.enter_from_user()
    cpu.traced = frozenset(f"f{i}" for i in range(14) if program.ops[program.at(f"f{i}")].name == "mov_x9_lr")
    cpu.block_skips = 2
    tasks = []
    for _ in range(120):
        tasks.append(task_of(cpu, blocked=False))
        try:
            cpu.step()
        except Stop:
            break
    check(program, tasks)


def test_tasks_without_a_kernel_frame() -> None:
    """User space and the dead have no live kernel function; those without registers nobody can judge."""
    rng = random.Random(1)
    program = kernel(random_functions(rng))
    task = random_task(program, rng)
    starts = (Start.USER, Start.NO_STACK, Start.NO_REGS, Start.SWITCHING)
    traces = World(program, [replace(task, start=start) for start in starts]).walk()
    reasons = [reason_of(traces, i) for i in range(4)]
    assert reasons == [Reason.NONE, Reason.NONE, Reason.NO_REGISTERS, Reason.SWITCHING]
    assert traces.pc.size == 0
