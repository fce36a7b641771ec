"""Named situations of a kernel stack: in each the hybrid trace is reliable and is the truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from surefoot.unwind.context import Mode
from surefoot.unwind.reasons import Reason
from surefoot.unwind.state import STACK_KINDS, Source, StackKind, Start
from surefoot.unwind.trace import Evidence
from world import Function, Op, call, dynamic, framed, framed_low, leaf, nops, without_rules
from world_cases import frame_names, run_blocked, run_interrupted, run_until, start
from world_cpu import Cpu
from world_kernel import LAYOUT, Proved, Task, World, frames_of, reason_of
from world_tracer import hooked, preempted, start_tracer

SLEEPS = framed("f1", call("schedule"))


def interrupted(functions: list[Function], name: str, index: int, **options: Any) -> tuple[Cpu, Task]:
    """A task preempted at an instruction of a function."""
    cpu = start(functions, **options)
    return cpu, run_interrupted(cpu, cpu.program.at(name, index))


def sleeping(functions: list[Function], **options: Any) -> tuple[Cpu, Task]:
    """A blocked task."""
    cpu = start(functions, **options)
    return cpu, run_blocked(cpu)


def never_run() -> tuple[Cpu, Task]:
    """A task that has been made and not yet run."""
    cpu = start([], begin="ret_from_fork")
    task = replace(run_until(cpu, cpu.pc), start=Start.BLOCKED, with_irq=False)
    return cpu, replace(task, truth=[(task.pc, False)])


def nested() -> tuple[Cpu, Task]:
    """Interrupted, preempted, and interrupted again while being switched out."""
    cpu = start([framed("f0", nops(4))])
    run_until(cpu, cpu.program.at("f0", 4))
    cpu.interrupt()
    cpu.preempt = True
    return cpu, run_interrupted(cpu, cpu.program.find("__schedule", "nop"))


def on_irq_stack() -> tuple[Cpu, Task]:
    """On its CPU, in an interrupt handler on the IRQ stack."""
    cpu = start([framed("f0", nops(3))])
    run_until(cpu, cpu.program.at("f0", 4))
    cpu.interrupt()
    return cpu, run_until(cpu, cpu.program.find("gic_handle_irq", "nop"))


def veneer() -> list[Function]:
    """F0 calls f1 through a linker veneer."""
    words = [Op("adrp", "f1", None), Op("add_low", "f1", None), Op("br", ("f1",), None)]
    return [framed("f0", call("__f1_veneer")), Function("__f1_veneer", words), SLEEPS]


TAIL_CHAIN = [
    framed("f0", call("f1")),
    framed("f1", nops(1), site=True, tail=Op("b", "f2")),
    framed("f2", call("schedule"), site=True),
]

CASES: dict[str, Callable[[], tuple[Cpu, Task]]] = {
    "blocked user task": lambda: sleeping([framed("f0", call("f1")), SLEEPS]),
    "blocked kernel thread": lambda: sleeping([framed("f0", call("f1")), SLEEPS], begin="ret_from_fork"),
    "never-run task": never_run,
    "idle task": lambda: sleeping([], begin="__secondary_switched"),
    "record inside the frame": lambda: sleeping([framed_low("f0", call("f1")), SLEEPS]),
    "moving SP": lambda: sleeping([dynamic("f0", call("f1")), SLEEPS]),
    "interrupted with RA in LR": lambda: interrupted([framed("f0", call("f1")), leaf("f1")], "f1", 1),
    "interrupted with RA saved": lambda: interrupted([framed("f0", nops(2))], "f0", 3),
    "interrupted at the entry": lambda: interrupted([framed("f0", nops(2))], "f0", 0),
    "interrupted with LR signed": lambda: interrupted([framed("f0", nops(2))], "f0", 1),
    "interrupted mid-prologue": lambda: interrupted([framed("f0", nops(2))], "f0", 2),
    "interrupted mid-epilogue": lambda: interrupted([framed("f0", nops(2))], "f0", 6),
    "interrupted at the return": lambda: interrupted([framed("f0", nops(2))], "f0", 7),
    "interrupted before the frame of a low record": lambda: interrupted([framed_low("f0", nops(2))], "f0", 1),
    "interrupted while SP moves": lambda: interrupted([dynamic("f0", nops(2))], "f0", 3),
    "nested boundaries": nested,
    "on the IRQ stack": on_irq_stack,
    "call at the end of a function": lambda: sleeping([framed("f0", call("do_exit"), noreturn=True), leaf("f1")]),
    "veneer": lambda: sleeping(veneer()),
    "tail branch": lambda: sleeping([framed("f0", call("f2")), framed("f2", [], tail=Op("b", "f1")), SLEEPS]),
    "conditional tail branch": lambda: sleeping(
        [framed("f0", call("f2")), Function("f2", [Op("b_cond", "f1"), Op("b", "f1")]), SLEEPS]
    ),
    "indirect tail branch": lambda: sleeping(
        [framed("f0", call("f2")), framed("f2", [], tail=Op("br", ("f1",))), SLEEPS]
    ),
    "indirect call": lambda: sleeping([framed("f0", [Op("blr", ("f1",))]), SLEEPS]),
    "live-patched function": lambda: sleeping(
        [framed("f0", call("f2")), framed("f2", nops(1)), SLEEPS], redirects=[("f2", "f1")]
    ),
    "compiled code without rules": lambda: sleeping([framed("f0", call("f1")), without_rules(SLEEPS)]),
    "code without rules through a veneer": lambda: sleeping([*veneer()[:2], without_rules(SLEEPS)]),
    "traced": lambda: sleeping(
        [framed("f0", call("f1"), site=True), framed("f1", call("schedule"), site=True)], traced=["f0", "f1"]
    ),
    "traced and tail-called": lambda: sleeping(TAIL_CHAIN, traced=["f1", "f2"]),
    "kretprobe": lambda: sleeping([framed("f0", call("f1")), SLEEPS], probed=["f1"]),
    "kretprobe and tail-called": lambda: sleeping(TAIL_CHAIN, probed=["f1", "f2"]),
    "traced with a kretprobe": lambda: sleeping(
        [framed("f0", call("f1")), framed("f1", call("schedule"), site=True)], traced=["f1"], probed=["f1"]
    ),
    "interrupted with LR rewritten": lambda: interrupted(
        [framed("f0", call("f1")), leaf("f1", site=True)], "f1", 3, traced=["f1"]
    ),
    "under return_to_handler": lambda: sleeping(
        [framed("f0", call("f1")), framed("f1", nops(1), site=True)], traced=["f1"]
    ),
    "interrupted in ftrace_return_to_handler": lambda: interrupted(
        [framed("f0", call("f1")), framed("f1", nops(1), site=True)], "ftrace_return_to_handler", 0, traced=["f1"]
    ),
}


NEEDS_PROOF = {"interrupted while SP moves"}
"""Situations whose rule may be followed only if it is proved: see test_row_that_reckons_from_restored_x29."""


@pytest.mark.parametrize("name", CASES)
def test_trace_is_reliable_and_true(name: str) -> None:
    """Every frame of the truth is there, and nothing else."""
    cpu, task = CASES[name]()
    code = cpu.program.code(proofs=Proved()) if name in NEEDS_PROOF else cpu.program.code()
    world = World(cpu.program, [task], LAYOUT, code)
    traces = world.walk()
    assert reason_of(traces) is Reason.NONE
    assert frames_of(traces, 0) == task.truth


def test_every_source_occurs() -> None:
    """Frames of every source are shown, and the walk of the caller itself starts as CALLER."""
    cpu, task = CASES["nested boundaries"]()
    walks = [World(cpu.program, [task]), World(cpu.program, [replace(task, start=Start.CALLER)])]
    seen = {Source(int(value)) for world in walks for value in world.walk().source}
    assert seen == set(Source) - {Source.UNKNOWN}
    assert reason_of(walks[1].walk()) is Reason.NONE


def test_every_mark_of_evidence_occurs() -> None:
    """Over the named situations, and one damaged stack, every bit of evidence is given."""
    seen = 0
    for name, build in CASES.items():
        if name in NEEDS_PROOF:
            continue
        cpu, task = build()
        seen |= int(np.bitwise_or.reduce(World(cpu.program, [task]).walk().evidence))
    assert not seen & (Evidence.PROVEN | Evidence.DOUBTFUL)
    cpu, task = CASES["blocked user task"]()
    seen |= int(
        np.bitwise_or.reduce(World(cpu.program, [task], LAYOUT, cpu.program.code(proofs=Proved())).walk().evidence)
    )
    seen |= int(np.bitwise_or.reduce(World(cpu.program, [replace(task, final=8)]).walk().evidence))
    cpu, task = interrupted([without_rules(framed("f0", nops(3)))], "f0", 3)
    seen |= int(np.bitwise_or.reduce(World(cpu.program, [task]).walk().evidence))
    cpu = start_tracer([framed("f0", call("f1")), hooked(framed("f1", nops(1), site=True))], preempted())
    seen |= int(np.bitwise_or.reduce(World(cpu.program, [run_blocked(cpu)]).walk().evidence))
    assert seen == sum(Evidence)


def test_proved_rules_satisfy_strict() -> None:
    """With all rules proved the strict walk is reliable too; assembly without rules it does not accept less for."""
    cpu, task = CASES["nested boundaries"]()
    world = World(cpu.program, [task], LAYOUT, cpu.program.code(proofs=Proved()))
    assert reason_of(world.walk(strict=True)) is Reason.NONE


def test_caller_of_a_noreturn_function_is_named() -> None:
    """The return address equals the start of the next function, and the symbol is that of the caller."""
    cpu, task = CASES["call at the end of a function"]()
    world = World(cpu.program, [task])
    assert cpu.program.labels["f1"] in {pc for pc, _ in task.truth}
    assert "f0" in frame_names(world)
    assert "f1" not in frame_names(world)


def test_ambiguous_lr_is_shown() -> None:
    """At a boundary without a rule both candidates are given: the record's caller, and LR."""
    cpu, task = interrupted([framed("f0", call("f1")), without_rules(leaf("f1"))], "f1", 1)
    traces = World(cpu.program, [task]).walk()
    assert reason_of(traces) is Reason.NO_RULE_AT_BOUNDARY
    assert cpu.program.find("f0", "bl") + 4 in traces.ambiguous.tolist()


OUTWARD = {
    (StackKind.IRQ, StackKind.TASK),
    (StackKind.OVERFLOW, StackKind.TASK),
    (StackKind.OVERFLOW, StackKind.IRQ),
    (StackKind.OVERFLOW, StackKind.SDEI_NORMAL),
    (StackKind.OVERFLOW, StackKind.SDEI_CRITICAL),
    (StackKind.SDEI_NORMAL, StackKind.TASK),
    (StackKind.SDEI_NORMAL, StackKind.IRQ),
    (StackKind.SDEI_NORMAL, StackKind.OVERFLOW),
    (StackKind.SDEI_CRITICAL, StackKind.TASK),
    (StackKind.SDEI_CRITICAL, StackKind.IRQ),
    (StackKind.SDEI_CRITICAL, StackKind.OVERFLOW),
    (StackKind.SDEI_CRITICAL, StackKind.SDEI_NORMAL),
}
"""Ways in which exceptions nest (arch/arm64/include/asm/stacktrace/common.h), seen from inside."""


@pytest.mark.parametrize(("inner", "outer"), list(product(StackKind, StackKind)))
def test_stacks_nest_only_outwards(inner: StackKind, outer: StackKind) -> None:
    """Changing stacks is accepted in the directions in which exceptions nest; mode fp asks for no order."""
    cpu, task = on_irq_stack()
    world = World(cpu.program, [task])
    kinds = np.array([outer, inner], dtype=np.uint8)
    world.stacks = replace(world.stacks, kind=kinds)
    stacks = np.full((1, STACK_KINDS), -1, dtype=np.int32)
    stacks[0, outer], stacks[0, inner] = 0, 1
    world.columns = replace(world.columns, stacks=stacks)
    if inner == outer:  # one stack of a kind
        assert not world.walk().reliable[0]
        return
    traces = world.walk()
    # The exception registers of an overflow are not right above its SP (arch/arm64/kernel/entry.S: __bad_stack).
    good = (inner, outer) in OUTWARD and outer is not StackKind.OVERFLOW
    assert bool(traces.reliable[0]) == good
    if not good:
        assert reason_of(traces) in {Reason.STACK_ORDER, Reason.REGS_SP}
    assert len(frames_of(world.walk(Mode.FP), 0)) == len(task.truth)
