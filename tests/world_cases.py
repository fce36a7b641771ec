"""Single stacks made to order: a straight run of a few functions on the skeleton kernel, stopped where asked."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from world import Function, Program
from world_cpu import Cpu, Stop
from world_kernel import Task, World, frames_of, kernel, new_cpu, task_of

__all__ = ["frame_names", "record_of", "run_blocked", "run_interrupted", "run_until", "start"]


def start(
    functions: Sequence[Function],
    *,
    traced: Sequence[str] = (),
    probed: Sequence[str] = (),
    redirects: Sequence[tuple[str, str]] = (),
    begin: str = "user",
) -> Cpu:
    """Prepare a run in which every optional call is made and every indirect call goes to the first candidate."""
    program = kernel(functions, redirects)
    cpu = new_cpu(program, random.Random(7))
    cpu.pick = lambda _, op: str(op.arg[0])
    cpu.take = lambda running: running.on_irq_stack
    cpu.traced, cpu.probed = frozenset(traced), frozenset(probed)
    if begin == "user":
        cpu.enter_from_user()
    else:
        cpu.start_kthread(begin)
    return cpu


def run_blocked(cpu: Cpu) -> Task:
    """Run until the task is switched out."""
    with pytest.raises(Stop, match=r"^blocked$"):
        cpu.run(5000)
    return task_of(cpu, blocked=True)


def run_until(cpu: Cpu, pc: int) -> Task:
    """Run until an instruction is about to be executed: a task on its CPU."""
    cpu.run(5000, lambda running: running.pc == pc)
    assert cpu.pc == pc
    return task_of(cpu, blocked=False)


def run_interrupted(cpu: Cpu, pc: int) -> Task:
    """Run until an instruction is about to be executed, interrupt it there, and preempt the task."""
    run_until(cpu, pc)
    cpu.interrupt()
    cpu.preempt = True
    return run_blocked(cpu)


def record_of(cpu: Cpu, program: Program, name: str) -> int:
    """Give the address of the newest frame record whose return address lies in a function."""
    for addr in sorted(cpu.memory):
        value = cpu.strip(cpu.memory[addr])
        if addr - 8 >= cpu.sp and addr - 8 in cpu.memory and program.function_at(value - 1) == name:
            return addr - 8
    raise AssertionError(name)


def frame_names(world: World, task: int = 0) -> list[str | None]:
    """Walk, and give the functions of a trace."""
    program = world.program
    return [program.function_at(pc if exact else pc - 1) for pc, exact in frames_of(world.walk(), task)]
