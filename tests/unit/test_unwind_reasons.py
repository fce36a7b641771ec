"""Each reason of the closed list, produced by the situation that it is for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

import surefoot.unwind.walker as walker_module
from surefoot.dtypes import Addr, Code
from surefoot.proof.verdicts import Verdict
from surefoot.unwind.code import FunctionKind, TextWords
from surefoot.unwind.context import Mode
from surefoot.unwind.reasons import Reason
from surefoot.unwind.state import Start
from world import BASE, Function, Rule, call, dynamic, framed, lr_only, nops, without_rules
from world_cases import record_of, run_blocked, run_interrupted, run_until, start
from world_cpu import Cpu
from world_kernel import LAYOUT, Task, World, reason_of


@dataclass
class Case:
    """A world of one task, and how to walk it."""

    world: World
    mode: Mode = Mode.HYBRID
    strict: bool = False


CASES: dict[str, tuple[Reason, Callable[[], Case]]] = {}


def case(reason: Reason) -> Callable[[Callable[[], Case]], Callable[[], Case]]:
    """Register a situation that must give a reason."""

    def register(build: Callable[[], Case]) -> Callable[[], Case]:
        CASES[build.__name__] = (reason, build)
        return build

    return register


def calls_schedule() -> list[Function]:
    """f0 calls f1, which blocks."""
    return [framed("f0", call("f1")), framed("f1", [*nops(1), *call("schedule"), *nops(1)])]


def blocked(functions: list[Function] | None = None, **options: Any) -> tuple[Cpu, Task]:
    """A task that has blocked."""
    cpu = start(functions or calls_schedule(), **options)
    return cpu, run_blocked(cpu)


def world_of(cpu: Cpu, task: Task, **code: Any) -> World:
    """A world of one task."""
    return World(cpu.program, [task], LAYOUT, cpu.program.code(**code))


@case(Reason.ON_CPU)
def user_mode_in_mode_fp() -> Case:
    cpu, task = blocked()
    return Case(world_of(cpu, replace(task, start=Start.USER)), Mode.FP)


@case(Reason.NO_REGISTERS)
def registers_not_in_the_dump() -> Case:
    cpu, task = blocked()
    return Case(world_of(cpu, replace(task, start=Start.NO_REGS)))


@case(Reason.SWITCHING)
def caught_in_cpu_switch_to() -> Case:
    cpu = start(calls_schedule())
    return Case(world_of(cpu, run_until(cpu, cpu.program.at("cpu_switch_to"))))


@case(Reason.SP_OUTSIDE)
def stack_pointer_elsewhere() -> Case:
    cpu, task = blocked()
    return Case(world_of(cpu, replace(task, sp=task.high + 64)))


@case(Reason.FP_MISALIGNED)
def frame_pointer_misaligned() -> Case:
    cpu, task = blocked()
    return Case(world_of(cpu, replace(task, fp=task.fp + 4)))


@case(Reason.RECORD_OUTSIDE)
def frame_pointer_near_the_end_of_memory() -> Case:
    cpu, task = blocked()
    return Case(world_of(cpu, replace(task, fp=2**64 - 8)))


@case(Reason.STACK_ORDER)
def irq_stack_not_left_at_its_top() -> Case:
    cpu = start([framed("f0", nops(3))])
    run_until(cpu, cpu.program.at("f0", 4))
    cpu.interrupt()
    task = run_until(cpu, cpu.program.at("gic_handle_irq", 4))
    return Case(world_of(cpu, replace(task, irq_high=task.irq_high + 16)))


@case(Reason.UNREADABLE)
def lower_part_of_the_stack_not_captured() -> Case:
    cpu, task = blocked()
    world = world_of(cpu, task)
    cut = np.uint64(task.sp + 512 - task.sp % 8)
    captured = world.stacks.captured.copy()
    offsets = world.stacks.word_off.copy()
    offsets[0] += int(cut - captured[0]) // 8
    captured[0] = cut
    world.stacks = replace(world.stacks, captured=captured, word_off=offsets)
    return Case(world)


@case(Reason.RECORD_BELOW_SP)
def frame_pointer_of_a_moving_stack_points_below() -> Case:
    cpu = start([dynamic("f0", call("schedule"))])
    task = run_blocked(cpu)
    task.memory[record_of(cpu, cpu.program, "f0")] = task.sp - 64
    return Case(world_of(cpu, task))


@case(Reason.SP_UNKNOWN)
def walk_of_the_caller_by_rules_only() -> Case:
    cpu, task = blocked()
    return Case(world_of(cpu, replace(task, start=Start.CALLER)), Mode.SFRAME)


@case(Reason.METADATA_TYPE)
def record_with_unknown_metadata() -> Case:
    cpu, task = blocked()
    task.memory[task.final + 16] = 3
    return Case(world_of(cpu, task))


@case(Reason.FINAL_ELSEWHERE)
def final_record_not_at_the_end() -> Case:
    cpu, task = blocked()
    return Case(world_of(cpu, replace(task, final=task.final - 16)))


@case(Reason.END_UNEXPECTED)
def entry_code_without_registers_above() -> Case:
    cpu, task = blocked()
    task.memory[task.final] = task.final + 8
    return Case(world_of(cpu, task))


@case(Reason.REGS_OUTSIDE)
def registers_below_the_live_stack() -> Case:
    cpu, task = blocked()
    fake = task.final - 280
    task.memory |= {fake: 0, fake + 8: 0, fake + 16: 2}
    task.memory[record_of(cpu, cpu.program, "el0t_64_sync")] = fake
    return Case(world_of(cpu, task))


def preempted() -> tuple[Cpu, Task, int]:
    """A task preempted in f0, and the address of its struct pt_regs."""
    cpu = start([framed("f0", nops(3))])
    task = run_interrupted(cpu, cpu.program.at("f0", 4))
    regs = next(addr for addr, value in sorted(task.memory.items()) if value == cpu.program.at("f0", 4)) - 256
    return cpu, task, regs


@case(Reason.REGS_SP)
def saved_sp_not_above_the_registers() -> Case:
    cpu, task, regs = preempted()
    task.memory[regs + 248] += 16
    return Case(world_of(cpu, task))


@case(Reason.REGS_UNEXPECTED)
def user_pstate_in_a_kernel_exception() -> Case:
    cpu, task, regs = preempted()
    task.memory[regs + 264] = 0
    return Case(world_of(cpu, task))


@case(Reason.EXCEPTION_BOUNDARY)
def preempted_in_mode_fp() -> Case:
    cpu, task, _ = preempted()
    return Case(world_of(cpu, task), Mode.FP)


@case(Reason.NO_RULE_AT_BOUNDARY)
def interrupted_in_assembly_function() -> Case:
    cpu = start([without_rules(framed("f0", nops(3)))])
    return Case(world_of(cpu, run_interrupted(cpu, cpu.program.at("f0", 4))))


@case(Reason.ENTRY_CODE)
def interrupted_in_entry_code() -> Case:
    cpu = start(calls_schedule())
    return Case(world_of(cpu, run_until(cpu, cpu.program.at("el0t_64_sync", 1))))


@case(Reason.TRAMPOLINE_WINDOW)
def interrupted_in_return_to_handler() -> Case:
    cpu = start([framed("f0", call("f1")), framed("f1", nops(1), site=True)], traced=["f1"])
    return Case(world_of(cpu, run_until(cpu, cpu.program.at("return_to_handler", 2))))


@case(Reason.CALLS_ONLY_METADATA)
def interrupted_in_rust() -> Case:
    cpu = start([framed("f0", call("_RNvC6binder4work")), framed("_RNvC6binder4work", nops(3))])
    return Case(world_of(cpu, run_interrupted(cpu, cpu.program.at("_RNvC6binder4work", 4))))


def with_rule_at(name: str, index: int, rule: Rule, functions: list[Function]) -> list[Function]:
    """Give functions with the rule of one instruction replaced."""
    for function in functions:
        if function.name == name:
            function.ops[index] = function.ops[index].under(rule)
    return functions


@case(Reason.SLOT_BELOW_SP)
def rule_names_a_slot_below_sp() -> Case:
    cpu = start(with_rule_at("f0", 4, Rule("sp", 16, -32, -24), [framed("f0", nops(3))]))
    return Case(world_of(cpu, run_interrupted(cpu, cpu.program.at("f0", 4))))


def called_from(name: str, kind: FunctionKind) -> Case:
    """F0 calls a named piece of assembly with a frame record, which calls f1."""
    outer = without_rules(framed(name, call("f1")), kind=kind)
    cpu, task = blocked([framed("f0", call(name)), outer, framed("f1", call("schedule"))])
    return Case(world_of(cpu, task))


@case(Reason.SDEI_BOUNDARY)
def called_by_the_sdei_handler() -> Case:
    return called_from("__sdei_asm_handler", FunctionKind.CODE)


@case(Reason.FIRMWARE)
def called_by_firmware() -> Case:
    return called_from("__efi_rt_asm_wrapper", FunctionKind.FUNC)


@case(Reason.IN_FTRACE_CALLER)
def called_by_ftrace_caller() -> Case:
    return called_from("ftrace_caller", FunctionKind.CODE)


@case(Reason.ASSEMBLY)
def called_by_unknown_sym_code() -> Case:
    return called_from("swsusp_arch_suspend_exit", FunctionKind.CODE)


@case(Reason.NOT_TEXT)
def return_address_in_no_function() -> Case:
    functions = calls_schedule()
    functions[0] = replace(functions[0], sized=False)
    cpu, task = blocked(functions)
    return Case(world_of(cpu, task))


@case(Reason.NO_METADATA)
def assembly_without_a_record_makes_a_call() -> Case:
    cpu, task = blocked([framed("f0", call("f1")), without_rules(lr_only("f1", call("schedule")))])
    return Case(world_of(cpu, task))


@case(Reason.RULE_REFUSED)
def rule_of_another_kind() -> Case:
    cpu, task = blocked(with_rule_at("f1", 4, Rule("other", 0), calls_schedule()))
    return Case(world_of(cpu, task))


@case(Reason.RULE_UNDEFINED)
def rule_says_outermost() -> Case:
    cpu, task = blocked(with_rule_at("f1", 4, Rule("none", 0), calls_schedule()))
    return Case(world_of(cpu, task))


@case(Reason.RA_NOT_SAVED)
def call_with_the_return_address_in_lr() -> Case:
    cpu, task = blocked(with_rule_at("f1", 4, Rule("sp", 32), calls_schedule()))
    return Case(world_of(cpu, task))


@case(Reason.RULE_RECORD_MISMATCH)
def rule_off_by_a_pair() -> Case:
    cpu, task = blocked(with_rule_at("f1", 4, Rule("sp", 48, -32, -24), calls_schedule()))
    return Case(world_of(cpu, task))


@case(Reason.TEXT_CHANGED)
def call_site_rewritten() -> Case:
    cpu, task = blocked()
    return Case(world_of(cpu, task, changed=[cpu.program.find("f1", "bl")]))


class _Proofs:
    """The same verdict everywhere."""

    def __init__(self, verdict: Verdict) -> None:
        self._verdict = verdict

    def verdict(self, addr: Addr) -> Code:
        return np.full(addr.shape, self._verdict, dtype=np.uint8)


@case(Reason.RULE_REFUTED)
def rule_refuted() -> Case:
    cpu, task = blocked()
    return Case(world_of(cpu, task, proofs=_Proofs(Verdict.REFUTED)))


@case(Reason.RULE_UNPROVEN)
def rule_unproven_and_strict() -> Case:
    cpu, task = blocked()
    return Case(world_of(cpu, task), strict=True)


@case(Reason.RULE_UNPROVEN)
def interrupted_at_an_address_that_the_proof_leaves_open() -> Case:
    cpu, task, _ = preempted()
    return Case(world_of(cpu, task, proofs=_Proofs(Verdict.UNPROVEN)))


def with_return_address(index: int) -> Case:
    """The return address into f0 moved by some instructions."""
    cpu, task = blocked([framed("f0", [*call("f2"), *call("f1"), *nops(2)]), calls_schedule()[1]])
    record = record_of(cpu, cpu.program, "f0")
    task.memory[record + 8] = cpu.program.find("f0", "bl", 1) + 4 * index
    return Case(world_of(cpu, task))


@case(Reason.NOT_A_CALL)
def return_address_not_behind_a_call() -> Case:
    return with_return_address(2)


@case(Reason.CALL_MISMATCH)
def return_address_behind_another_call() -> Case:
    return with_return_address(0)


@case(Reason.CALL_UNKNOWN)
def text_not_in_the_dump() -> Case:
    cpu, task = blocked()
    words = np.array([cpu.program.words[a] for a in range(BASE, BASE + 64, 4) if a in cpu.program.words])
    switch = cpu.program.find("__switch_to", "bl")
    part = TextWords.from_ranges(
        [
            (BASE, words.astype(np.uint32)),
            (switch, np.array([cpu.program.words[switch]], dtype=np.uint32)),
        ]
    )
    return Case(world_of(cpu, task, text=part))


def traced_and_blocked() -> tuple[Cpu, Task]:
    """F1 is traced and has blocked."""
    return blocked([framed("f0", call("f1")), framed("f1", call("schedule"), site=True)], traced=["f1"])


@case(Reason.FGRAPH_NO_MATCH)
def function_graph_entry_missing() -> Case:
    cpu, task = traced_and_blocked()
    return Case(world_of(cpu, replace(task, fgraph=[])))


@case(Reason.FGRAPH_BROKEN)
def function_graph_stack_damaged() -> Case:
    cpu, task = traced_and_blocked()
    return Case(world_of(cpu, replace(task, broken=(True, False))))


@case(Reason.FGRAPH_MISMATCH)
def function_graph_entry_of_another_function() -> Case:
    cpu, task = traced_and_blocked()
    task.fgraph[0].func = cpu.program.at("schedule", 1)
    return Case(world_of(cpu, task))


def probed_and_blocked() -> tuple[Cpu, Task]:
    """F1 has a kretprobe and has blocked."""
    return blocked(probed=["f1"])


@case(Reason.KRETPROBE_NO_MATCH)
def kretprobe_instance_missing() -> Case:
    cpu, task = probed_and_blocked()
    return Case(world_of(cpu, replace(task, kretprobe=[])))


@case(Reason.KRETPROBE_BROKEN)
def kretprobe_list_damaged() -> Case:
    cpu, task = probed_and_blocked()
    return Case(world_of(cpu, replace(task, broken=(False, True))))


@pytest.mark.parametrize("name", CASES)
def test_situation_gives_reason(name: str) -> None:
    """The first reason is the one that the situation is for."""
    reason, build = CASES[name]
    made = build()
    assert reason_of(made.world.walk(made.mode, strict=made.strict)) is reason


def test_too_deep_is_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound is that of the stacks' words, so only a smaller bound shows what happens at it."""
    cpu, task = blocked()
    monkeypatch.setattr(walker_module, "_most_frames", lambda _: 3)
    traces = world_of(cpu, task).walk()
    assert reason_of(traces) is Reason.TOO_DEEP
    assert int(traces.first[1]) == 3


def test_every_reason_has_a_situation() -> None:
    """No reason without a test that produces it."""
    assert {reason for reason, _ in CASES.values()} | {Reason.NONE, Reason.TOO_DEEP} == set(Reason)


def test_the_base_of_all_situations_is_reliable() -> None:
    """Undamaged, the same stacks are reliable: each reason is due to its own damage."""
    for cpu, task in (blocked(), traced_and_blocked(), probed_and_blocked(), preempted()[:2]):
        assert reason_of(world_of(cpu, task).walk()) is Reason.NONE
