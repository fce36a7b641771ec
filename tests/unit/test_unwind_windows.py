"""Instants at which trampolines, their C parts and the vectors leave a walk little to go by."""

from __future__ import annotations

from dataclasses import replace

import pytest

from surefoot.unwind.reasons import Reason
from world import Function, call, framed, lr_only, nops
from world_cases import run_blocked, run_interrupted, run_until, start
from world_cpu import Cpu, Entry
from world_kernel import Task, World, frames_of, reason_of

TRACED = [framed("f0", [*call("f1"), *nops(2)]), framed("f1", nops(2), site=True)]


def assert_true(world: World) -> None:
    """The walk is reliable, and the truth."""
    traces = world.walk()
    assert reason_of(traces) is Reason.NONE
    assert frames_of(traces, 0) == world.tasks[0].truth


def world_of(cpu: Cpu, task: Task) -> World:
    """One task."""
    return World(cpu.program, [task])


def popped(functions: list[Function]) -> tuple[Cpu, Task]:
    """The C part of return_to_handler has taken the entry off and not returned yet."""
    cpu = start(functions, traced=["f1"])
    cpu.take = lambda _: True
    return cpu, run_until(cpu, cpu.program.find("ftrace_return_to_handler", "hook") + 4)


def test_entry_taken_off_the_list() -> None:
    """The parent is in the saved registers by then."""
    cpu, task = popped(TRACED)
    assert task.fgraph == []
    assert_true(World(cpu.program, [task]))


def test_entry_taken_off_below_another() -> None:
    """The newest entry is another frame's, and stays that one's."""
    functions = [framed("f0", call("f2")), framed("f2", [*call("f1"), *nops(1)], site=True), TRACED[1]]
    cpu = start(functions, traced=["f1", "f2"])
    cpu.take = lambda _: True
    task = run_until(cpu, cpu.program.find("ftrace_return_to_handler", "hook") + 4)
    assert len(task.fgraph) == 1
    assert_true(World(cpu.program, [task]))


def test_preempted_after_the_entry_was_taken_off() -> None:
    """So it is behind an exception boundary."""
    cpu = start(TRACED, traced=["f1"])
    cpu.take = lambda _: True
    task = run_interrupted(cpu, cpu.program.find("ftrace_return_to_handler", "hook") + 4)
    assert task.fgraph == []
    assert_true(World(cpu.program, [task]))


def test_return_to_handler_of_an_older_kernel() -> None:
    """It keeps a smaller block of registers, and the C part does not know of it: refused, whatever lies there."""
    cpu, task = popped(TRACED)
    first = cpu.program.labels["return_to_handler"]
    cpu.program.words[first] = 0xD101_43FF  # SUB SP, SP, #80
    assert reason_of(World(cpu.program, [task]).walk()) is Reason.TRAMPOLINE_WINDOW


def test_saved_pc_that_is_no_return_address() -> None:
    """Words that no call vouches for are not followed."""
    cpu, task = popped(TRACED)
    (slot,) = [addr for addr, word in task.memory.items() if word == cpu.x0 and addr == cpu.sp + 48 + 104]
    damaged = replace(task, memory=task.memory | {slot: cpu.program.at("f0")})
    assert reason_of(World(cpu.program, [damaged]).walk()) is Reason.NOT_A_CALL


@pytest.mark.parametrize("nth", [0, 1, 2, 3, 4, 7, 8, 9])
def test_traced_function_called_by_call_on_irq_stack(nth: int) -> None:
    """Its caller's record lies on the stack that call_on_irq_stack came from."""
    cpu = start(TRACED, traced=["f1"])
    run_until(cpu, cpu.program.at("f0"))
    cpu.interrupt()
    cpu.pick = lambda _, op: "f1" if op.arg == ("gic_handle_irq",) else str(op.arg[0])
    task = run_until(cpu, cpu.program.at("ftrace_return_to_handler", nth))
    assert cpu.on_irq_stack
    assert_true(World(cpu.program, [task]))


def test_parent_on_another_stack_that_does_not_change_stacks() -> None:
    """A record elsewhere is call_on_irq_stack's or a mistake."""
    cpu = start(TRACED, traced=["f1"])
    task = run_until(cpu, cpu.program.at("ftrace_return_to_handler"))
    elsewhere = task.irq_high - 64
    entries = [replace(entry, key=elsewhere) for entry in task.fgraph]
    damaged = replace(task, fp=elsewhere, fgraph=entries)
    assert reason_of(World(cpu.program, [task]).walk()) is Reason.NONE
    assert reason_of(World(cpu.program, [damaged]).walk()) is Reason.STACK_ORDER


@pytest.mark.parametrize("name", ["el1h_64_irq", "el0t_64_sync"])
def test_stack_pointer_anywhere_in_the_vectors(name: str) -> None:
    """SP is a sum there; what is wrong is where the task was caught."""
    cpu = start(TRACED)
    task = run_until(cpu, cpu.program.at("f0"))
    caught = replace(task, pc=cpu.program.at(name), sp=8)
    traces = World(cpu.program, [caught]).walk()
    assert reason_of(traces) is Reason.ENTRY_CODE
    assert traces.reason_addr.tolist() == [caught.pc]
    assert reason_of(World(cpu.program, [replace(task, sp=8)]).walk()) is Reason.SP_OUTSIDE


def returned(functions: list[Function], name: str, *, count: int = 0) -> tuple[Cpu, Task]:
    """F1 has a kretprobe and has returned to `name`, by the trampoline's trap, in which the task is switched out.

    Args:
        functions: to run.
        name: the caller.
        count: instances of the probe that are still on the list.
    """
    cpu = start(functions, probed=["f1"])
    ret = cpu.program.find(name, "bl") + 4
    run_until(cpu, ret)
    left = [Entry(ret, cpu.fp)] * count
    cpu.interrupt()
    cpu.preempt = True
    return cpu, replace(run_blocked(cpu), kretprobe=left)


@pytest.mark.parametrize("count", [1, 2])
def test_probe_instance_of_a_function_that_has_returned(count: int) -> None:
    """It belongs to nobody who is live: passed over."""
    cpu, task = returned([framed("f0", [*call("f1"), *nops(2)]), framed("f1", nops(1))], "f0", count=count)
    assert len(task.kretprobe) == count
    assert_true(World(cpu.program, [task]))


def test_probe_instance_beside_a_frame_without_a_record() -> None:
    """x29 is another function's there, which may have a call under way: left over."""
    functions = [framed("f0", call("f2")), lr_only("f2", [*call("f1"), *nops(2)]), framed("f1", nops(1))]
    assert_true(world_of(*returned(functions, "f2")))
    assert reason_of(world_of(*returned(functions, "f2", count=1)).walk()) is Reason.KRETPROBE_NO_MATCH
