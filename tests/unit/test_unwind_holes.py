"""Holes: places where a walk could omit a live function unseen. Each is named, and stays closed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from surefoot.unwind import callsites
from surefoot.unwind.code import FunctionKind
from surefoot.unwind.context import Mode
from surefoot.unwind.reasons import Reason
from surefoot.unwind.state import Stacks, Start
from world import Function, Op, Rule, call, dynamic, framed, lr_only, maybe, nops, without_rules
from world_cases import frame_names, run_blocked, run_interrupted, run_until, start
from world_cpu import Entry
from world_kernel import LAYOUT, Proved, Task, World, frames_of, reason_of


def omits(world: World) -> set[int]:
    """Live return addresses that mode fp leaves out although it calls the trace reliable."""
    traces = world.walk(Mode.FP)
    assert reason_of(traces) is Reason.NONE
    return {pc for pc, _ in world.tasks[0].truth} - {pc for pc, _ in frames_of(traces, 0)}


def assert_true(world: World) -> None:
    """The hybrid trace is reliable and complete."""
    traces = world.walk()
    assert reason_of(traces) is Reason.NONE
    assert frames_of(traces, 0) == world.tasks[0].truth


def preempted_in_handler() -> tuple[World, Task]:
    """F1, traced, has returned to f0 by way of return_to_handler, whose C part is preempted synchronously."""
    cpu = start([framed("f0", call("f1")), framed("f1", nops(1), site=True)], traced=["f1"])
    task = run_blocked(cpu)
    return World(cpu.program, [task]), task


def test_parent_under_return_to_handler() -> None:
    """The upstream hole: the kernel's reliable walk omits the traced function's caller; hybrid shows it."""
    world, _ = preempted_in_handler()
    assert omits(world) == {world.program.find("f0", "bl") + 4}
    assert_true(world)
    assert "f0" in frame_names(world)


def test_parent_under_return_to_handler_of_unknown_function() -> None:
    """An entry that names no known function vouches for nothing: any call would do."""
    world, task = preempted_in_handler()
    task.fgraph[0].func = 0
    assert reason_of(World(world.program, [task]).walk()) is Reason.FGRAPH_MISMATCH


def test_function_graph_entry_of_unknown_function() -> None:
    """So it is on the ordinary way through a traced function."""
    functions = [
        framed("f0", [*call("f1"), *call("f2")]),
        framed("f1", nops(1)),
        framed("f2", call("schedule"), site=True),
    ]
    cpu = start(functions, traced=["f2"])
    task = run_blocked(cpu)
    task.fgraph[0].func = 8
    assert reason_of(World(cpu.program, [task]).walk()) is Reason.FGRAPH_MISMATCH


@pytest.mark.parametrize("index", [0, 1, 2])
def test_unclaimed_function_graph_entries(index: int) -> None:
    """An entry that no frame claims, wherever on the list, means that a traced function was passed over."""
    functions = [framed("f0", call("f1"), site=True), framed("f1", call("schedule"), site=True)]
    cpu = start(functions, traced=["f0", "f1"])
    task = run_blocked(cpu)
    task.fgraph.insert(index, Entry(cpu.program.find("f0", "bl") + 4, task.sp + 8 * index, cpu.program.at("f0", 1)))
    assert reason_of(World(cpu.program, [task]).walk()) is Reason.FGRAPH_MISMATCH


def test_untraced_stack_with_function_graph_entries() -> None:
    """An entry is left over also where no frame claims any."""
    cpu = start([framed("f0", call("schedule"))])
    task = run_blocked(cpu)
    task.fgraph.append(Entry(cpu.program.find("f0", "bl") + 4, task.high - 64, cpu.program.at("f0", 1)))
    assert reason_of(World(cpu.program, [task]).walk()) is Reason.FGRAPH_MISMATCH


@pytest.mark.parametrize("index", [0, 1])
def test_unclaimed_kretprobe_instances(index: int) -> None:
    """A kretprobe instance that no frame claims is as telling."""
    cpu = start([framed("f0", call("f1")), framed("f1", call("schedule"))], probed=["f1"])
    task = run_blocked(cpu)
    task.kretprobe.insert(index, Entry(cpu.program.find("f0", "bl") + 4, task.sp))
    assert reason_of(World(cpu.program, [task]).walk()) is Reason.KRETPROBE_NO_MATCH


def test_traced_and_probed_functions_chained_by_a_tail_call() -> None:
    """Rewritten four times: the kernel recovers two of them and omits the caller; hybrid shows it."""
    functions = [
        framed("f0", call("f1")),
        framed("f1", nops(1), site=True, tail=Op("b", "f2")),
        framed("f2", call("schedule"), site=True),
    ]
    cpu = start(functions, traced=["f1", "f2"], probed=["f1", "f2"])
    world = World(cpu.program, [run_blocked(cpu)])
    assert omits(world) == {cpu.program.find("f0", "bl") + 4}
    assert_true(world)


def test_assembly_without_a_record() -> None:
    """A frame-pointer walk steps over its caller unseen; hybrid refuses."""
    cpu = start([framed("f0", call("f1")), without_rules(lr_only("f1", call("schedule")))])
    world = World(cpu.program, [run_blocked(cpu)])
    assert omits(world) == {cpu.program.find("f0", "bl") + 4}
    assert reason_of(world.walk()) is Reason.NO_METADATA


@pytest.mark.parametrize("shape", ["no record anywhere", "a record on another path"])
def test_assembly_without_a_record_behind_a_tail_branch(shape: str) -> None:
    """Where the caller also branches there, its own call site would vouch for the omission."""
    early = [Op("cbz", (2, None)), *call("f1"), *nops(1)]
    caller = framed("f0", early, tail=Op("b", "f1"))
    body = [
        *call("schedule"),
        *([Op("cbz", (3, lambda _: True)), Op("stp", 0), Op("add_fp", 0)] if shape.startswith("a") else []),
    ]
    cpu = start([caller, without_rules(lr_only("f1", body)), framed("f2", call("f0"))])
    cpu.pick = lambda _, op: "f2" if "f2" in op.arg else str(op.arg[0])
    world = World(cpu.program, [run_blocked(cpu)])
    assert omits(world) == {cpu.program.find("f0", "bl") + 4}
    assert reason_of(world.walk()) is Reason.NO_METADATA


def test_function_that_saves_lr_alone() -> None:
    """With rules, hybrid shows the caller that a frame-pointer walk omits."""
    cpu = start([framed("f0", call("f1")), lr_only("f1", call("schedule"))])
    world = World(cpu.program, [run_blocked(cpu)])
    assert omits(world) == {cpu.program.find("f0", "bl") + 4}
    assert_true(world)


@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("swsusp_arch_resume", FunctionKind.CODE, Reason.ASSEMBLY),
        ("__sdei_asm_handler", FunctionKind.CODE, Reason.SDEI_BOUNDARY),
        ("__efi_rt_asm_wrapper", FunctionKind.FUNC, Reason.FIRMWARE),
        ("ftrace_caller", FunctionKind.CODE, Reason.IN_FTRACE_CALLER),
    ],
)
def test_return_address_in_code_beyond_the_call_standard(name: str, kind: FunctionKind, reason: Reason) -> None:
    """Mode fp goes through it and calls the trace reliable; hybrid refuses by name."""
    odd = without_rules(framed(name, call("f1")), kind=kind)
    cpu = start([framed("f0", call(name)), odd, framed("f1", call("schedule"))])
    world = World(cpu.program, [run_blocked(cpu)])
    assert reason_of(world.walk(Mode.FP)) is Reason.NONE
    assert reason_of(world.walk()) is reason


def test_unknown_text() -> None:
    """So it is with a BPF program, which no symbol covers."""
    program = replace(framed("bpf_prog", call("f1")), sized=False)
    cpu = start([framed("f0", [Op("blr", ("bpf_prog",))]), program, framed("f1", call("schedule"))])
    world = World(cpu.program, [run_blocked(cpu)])
    assert reason_of(world.walk(Mode.FP)) is Reason.NONE
    assert reason_of(world.walk()) is Reason.NOT_TEXT


def test_stale_lr_at_a_boundary_is_no_caller() -> None:
    """Interrupted after a call returned: LR still holds an address in this function, and is not shown."""
    cpu = start([framed("f0", [*call("f1"), *nops(2)]), framed("f1", nops(1))])
    task = run_interrupted(cpu, cpu.program.find("f0", "bl") + 8)
    assert cpu.program.find("f0", "bl") + 4 in task.memory.values()
    assert_true(World(cpu.program, [task]))


def test_stale_records_below_sp_are_not_followed() -> None:
    """x29 made to point at the intact record of a function that has returned: refused."""
    cpu = start(
        [framed("f0", [*call("f1"), *call("schedule")]), framed("f1", call("f2"), size=1024), framed("f2", nops(2))]
    )
    run_until(cpu, cpu.program.find("f2", "nop"))
    stale = cpu.fp
    task = replace(run_blocked(cpu), fp=stale)
    assert stale < task.sp
    assert reason_of(World(cpu.program, [task]).walk()) is Reason.RECORD_OUTSIDE


def test_no_stack_memory_at_all() -> None:
    """A capture without one stack is walked to a verdict, not to an exception."""
    cpu = start([framed("f0", call("schedule"))])
    task = run_blocked(cpu)
    world = World(cpu.program, [task, replace(task, start=Start.REGS, pc=cpu.program.at("f0"))])
    empty = np.zeros(0, dtype=np.uint64)
    none = np.zeros(0, dtype=np.int64)
    world.stacks = Stacks(empty, empty, np.zeros(0, dtype=np.uint8), empty, none, empty)
    world.columns = replace(world.columns, stacks=np.full((2, 6), -1, dtype=np.int32))
    for mode in Mode:
        assert not world.walk(mode).reliable.any()


def test_kernel_without_cpu_switch_to() -> None:
    """Where the switch is unknown, no saved pc can be known to follow a call of it."""
    cpu = start([framed("f0", call("schedule"))])
    code = cpu.program.code()
    labels = {name: addr for name, addr in code.labels.items() if name != "cpu_switch_to"}
    world = World(cpu.program, [run_blocked(cpu)], code=replace(code, labels=labels))
    assert reason_of(world.walk()) is Reason.CALL_MISMATCH


def test_rule_that_makes_no_progress() -> None:
    """Metadata that puts the return address at SP and the CFA there too would be followed for ever."""
    still = Function("f0", [op.under(Rule("sp", 0, None, 0)) for op in [*maybe("f0"), *call("schedule")]])
    cpu = start([still])
    cpu.take = lambda _: True
    task = run_until(cpu, cpu.program.find("schedule", "nop"))
    task.memory |= {addr: cpu.program.find("f0", "bl") + 4 for addr in range(task.sp - 64, task.sp + 64, 8)}
    traces = World(cpu.program, [replace(task, lr=cpu.program.find("f0", "bl", 1) + 4)]).walk()
    assert reason_of(traces) is Reason.RECORD_BELOW_SP


def test_absent_trampoline_is_no_address() -> None:
    """In a kernel without tracers no pc is taken for a trampoline, all ones included."""
    cpu = start([framed("f0", call("schedule"))])
    code = cpu.program.code()
    absent = ("return_to_handler", "__kretprobe_trampoline")
    labels = {name: addr for name, addr in code.labels.items() if name not in absent}
    task = replace(run_blocked(cpu), pc=2**64 - 1)
    world = World(cpu.program, [task], code=replace(code, labels=labels))
    assert reason_of(world.walk(Mode.FP)) is Reason.NONE


def test_questions_about_tail_calls_do_not_compete(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer to each question is the same however many are asked together."""
    chain = [framed(f"f{i}", maybe(f"f{(i * 5 + 2) % 12}"), tail=Op("b", f"f{(i * 7 + 3) % 12}")) for i in range(12)]
    program = start(chain).program
    code = program.code()
    entry = np.repeat(np.array([program.at(f"f{i}") for i in range(12)], dtype=np.uint64), 12)
    goal = np.tile(code.functions.lookup(entry[::12], np.zeros(12, dtype=np.bool_)), 12)
    together = callsites.leads_to(code, entry, goal)
    assert len(set(together.tolist())) > 1
    monkeypatch.setattr(callsites, "_BATCH", 1)
    assert np.array_equal(together, callsites.leads_to(code, entry, goal))


def test_misaligned_pc_is_no_place_in_code() -> None:
    """An exact pc between two instructions is corrupt, whatever function it lies in."""
    cpu = start([framed("f0", nops(3))])
    task = run_until(cpu, cpu.program.at("f0", 4))
    assert reason_of(World(cpu.program, [task]).walk()) is Reason.NONE
    for low_bits in (1, 2, 3):
        damaged = World(cpu.program, [replace(task, pc=task.pc + low_bits)])
        assert reason_of(damaged.walk()) is Reason.NOT_TEXT


def test_jump_table_is_no_tail_call() -> None:
    """A branch through a register in mid-function leads to no other function, so it vouches for no frame."""
    switch = framed("f2", [Op("br", ("f1",)), *nops(2)])
    cpu = start([framed("f0", [*maybe("f2"), *call("f1")]), framed("f1", call("schedule")), switch])
    cpu.take = lambda running: running.pc == running.program.find("f0", "cbz")
    task = run_blocked(cpu)
    right, wrong = (cpu.program.find("f0", "bl", nth) + 4 for nth in (1, 0))
    for addr, value in task.memory.items():
        if addr >= task.sp and cpu.strip(value) == right:
            task.memory[addr] = wrong
    assert reason_of(World(cpu.program, [task]).walk()) is Reason.CALL_MISMATCH


def test_descriptor_that_reaches_into_its_neighbour() -> None:
    """A descriptor that is too long would give assembly behind its function the rules of compiled code."""
    assembly = replace(without_rules(lr_only("f1", call("schedule"))), gap=0)
    cpu = start([framed("f0", [*call("f1"), *nops(1)], pac=False), assembly])
    code = cpu.program.code()
    task = run_blocked(cpu)
    index = code.rules.functions
    sizes = np.where(index.start == cpu.program.at("f0"), index.size + np.uint64(64), index.size)
    longer = replace(code.rules, functions=replace(index, size=sizes))
    for rules, reason in ((code.rules, Reason.NO_METADATA), (longer, Reason.RULE_REFUSED)):
        world = World(cpu.program, [task], code=replace(code, rules=rules))
        assert reason_of(world.walk()) is reason


def test_record_without_x29_under_assembly() -> None:
    """Above assembly SP is not known: where code leaves x29 as it is, the record there is its caller's."""
    saved = Rule("sp", 32, -32, -24)
    pair = Function("f1", [Op("stp_pre", 32), Op("bl", "f2", saved), Op("ldp_post", 32, saved), Op("ret")])
    cpu = start([framed("f0", call("f1")), pair, without_rules(framed("f2", call("schedule")))])
    world = World(cpu.program, [run_blocked(cpu)])
    assert omits(world) == {cpu.program.find("f0", "bl") + 4}
    assert reason_of(world.walk()) is Reason.NO_METADATA


def restores_fp_early() -> Function:
    """What GCC makes of a function whose SP moves: x29 is restored while the rows still reckon the CFA from it."""
    whole = dynamic("f1", nops(1))
    by_fp = whole.ops[-2].rule
    assert by_fp is not None
    return Function(
        "f1", [*whole.ops[:-2], Op("ldp", 0, by_fp), Op("nop", None, by_fp), Op("add_sp", 32, by_fp), Op("ret")]
    )


def test_row_that_reckons_from_restored_x29() -> None:
    """The row names the caller's record: the caller would be omitted, and an indirect call cannot contradict that."""
    cpu = start([framed("f0", [Op("blr", ("f2",))]), framed("f2", call("f1")), restores_fp_early()])
    task = run_interrupted(cpu, cpu.program.at("f1", 6))
    world = World(cpu.program, [task])
    assert world.program.find("f2", "bl") + 4 in {pc for pc, _ in task.truth}
    assert reason_of(world.walk()) is Reason.RULE_UNPROVEN


def test_row_that_reckons_from_x29_is_followed_where_it_is_proved() -> None:
    """In the body of such a function a proof makes the step certain."""
    cpu = start([framed("f0", [Op("blr", ("f2",))]), framed("f2", call("f1")), dynamic("f1", nops(2))])
    task = run_interrupted(cpu, cpu.program.at("f1", 3))
    assert reason_of(World(cpu.program, [task]).walk()) is Reason.RULE_UNPROVEN
    proved = World(cpu.program, [task], LAYOUT, cpu.program.code(proofs=Proved()))
    assert_true(proved)


@pytest.mark.parametrize("name", ["_RNvC6binder4work", "_ZN6binder4work17h0123456789abcdefE", "rust_begin_unwind"])
def test_rust_functions_by_any_name(name: str) -> None:
    """Seven refuted addresses of Debian's 7.3 lie in Rust functions that are exported without mangling."""
    cpu = start([framed("f0", call(name)), framed(name, nops(3))])
    world = World(cpu.program, [run_interrupted(cpu, cpu.program.at(name, 4))])
    assert reason_of(world.walk()) is Reason.CALLS_ONLY_METADATA
