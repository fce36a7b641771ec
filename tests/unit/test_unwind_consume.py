"""The consumer interface: what an UnwindState tells, and when consuming ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from surefoot.unwind.code import CodeMap
from surefoot.unwind.consume import Registers, UnwindState, Walkable, stack_walk
from surefoot.unwind.context import Mode
from surefoot.unwind.reasons import SENTENCES, Reason
from surefoot.unwind.state import Layout, Source, Stacks, Tasks
from surefoot.unwind.trace import Evidence
from world import call, framed, leaf, nops, without_rules
from world_cases import run_blocked, run_interrupted, run_until, start
from world_cpu import Cpu
from world_kernel import Task, World


@dataclass
class Captured:
    """A world under the names of a capture."""

    code: CodeMap
    stacks: Stacks
    tasks: Tasks
    layout: Layout


def source_of(cpu: Cpu, tasks: list[Task]) -> Walkable:
    """Give a world as a capture."""
    world = World(cpu.program, tasks)
    assert world.code is not None
    return Captured(world.code, world.stacks, world.columns, world.layout)


def preempted() -> tuple[Cpu, Task]:
    """A task preempted in f1, which f0 called."""
    cpu = start([framed("f0", call("f1")), leaf("f1")])
    return cpu, run_interrupted(cpu, cpu.program.at("f1", 1))


def collect(look: Callable[[UnwindState], Any], source: Walkable, **options: Any) -> tuple[list[Any], Any]:
    """Walk, and give what a look at every frame shows."""
    seen: list[Any] = []

    def consume(state: UnwindState) -> bool:
        seen.append(look(state))
        return True

    return seen, stack_walk(consume, source, 0, **options)


def test_frames_come_innermost_first_with_symbols() -> None:
    cpu, task = preempted()
    names, trace = collect(lambda state: state.symbol.name if state.symbol else None, source_of(cpu, [task]))
    assert names[:2] == ["__switch_to", "__schedule"]
    assert names[-1] == "el0t_64_sync"
    assert names[names.index("f1") + 1] == "f0"
    assert trace.reliable
    assert trace.reason is Reason.NONE
    assert trace.sentence == SENTENCES[Reason.NONE]


def test_boundary_shows_its_registers() -> None:
    """The interrupted registers are those at the boundary, and only there."""
    cpu, task = preempted()
    seen, _ = collect(lambda s: (s.is_exception_boundary, s.regs, s.pc, s.sp, s.fp, s.source), source_of(cpu, [task]))
    assert [regs is not None for _, regs, *_ in seen] == [boundary for boundary, *_ in seen]
    _, regs, pc, sp, fp, source = next(item for item in seen if item[0])
    assert source is Source.REGS
    assert (regs.pc, regs.sp, regs.fp) == (pc, sp, fp)
    assert pc == cpu.program.at("f1", 1)
    assert regs.lr == cpu.program.find("f0", "bl") + 4
    assert regs.sp == regs.addr + 320


def test_running_task_shows_the_registers_of_its_cpu() -> None:
    cpu = start([framed("f0", nops(3))])
    task = run_until(cpu, cpu.program.at("f0", 4))
    seen, trace = collect(lambda state: state.regs, source_of(cpu, [task]))
    assert seen[0] == Registers(task.pc, task.sp, task.fp, task.lr)
    assert trace.reliable


def test_consumer_ends_the_calls_but_not_the_verdict() -> None:
    cpu, task = preempted()
    seen: list[int] = []

    def consume(state: UnwindState) -> bool:
        seen.append(state.pc)
        return len(seen) < 2

    assert stack_walk(consume, source_of(cpu, [task]), 0).reliable
    assert len(seen) == 2


def test_explicit_registers_replace_the_task_s_own() -> None:
    """Start from registers that somebody else has: the walk begins at their pc, exactly."""
    cpu = start([framed("f0", [*call("f1"), *call("schedule")]), leaf("f1")])
    here = run_until(cpu, cpu.program.at("f1", 1))
    later = run_blocked(cpu)
    later.memory |= here.memory
    regs = Registers(here.pc, here.sp, here.fp, here.lr)
    pcs, trace = collect(lambda state: state.pc, source_of(cpu, [later]), regs=regs)
    assert trace.reliable
    assert pcs == [pc for pc, _ in here.truth]


def test_ambiguous_lr_and_reason() -> None:
    cpu = start([framed("f0", call("f1")), without_rules(leaf("f1"))])
    source = source_of(cpu, [run_interrupted(cpu, cpu.program.at("f1", 1))])
    seen, trace = collect(lambda state: (state.ambiguous_lr, state.evidence), source)
    lrs = [lr for lr, _ in seen if lr is not None]
    assert lrs == [cpu.program.find("f0", "bl") + 4]
    assert trace.reason is Reason.NO_RULE_AT_BOUNDARY
    assert (trace.address, trace.other) == (cpu.program.at("f1", 1), lrs[0])
    assert seen[trace.frame][0] == lrs[0]
    assert seen[-1][1] & Evidence.DOUBTFUL


@pytest.mark.parametrize("mode", list(Mode))
def test_one_of_many_is_walked_alone(mode: Mode) -> None:
    """The task asked for is walked, whatever else the source holds."""
    cpu, first = preempted()
    source = source_of(cpu, [first, first])
    seen: list[int] = []

    def consume(state: UnwindState) -> bool:
        seen.append(state.pc)
        return False

    stack_walk(consume, source, 1, mode=mode)
    assert seen == [first.pc]


def test_symbol_of_unknown_code_is_none() -> None:
    cpu = start([framed("f0", call("f1")), framed("f1", call("schedule"))])
    next(f for f in cpu.program.functions if f.name == "f0").sized = False
    names, trace = collect(lambda state: state.symbol, source_of(cpu, [run_blocked(cpu)]))
    assert trace.reason is Reason.NOT_TEXT
    assert None in names
