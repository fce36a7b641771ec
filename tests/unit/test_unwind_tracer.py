"""Walks through ftrace_caller: at every instruction of a tracer, whatever it has done to its lists by then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np
import pytest

from surefoot.unwind.context import Mode
from surefoot.unwind.reasons import Reason
from surefoot.unwind.trace import Evidence
from world import Function, Op, call, framed, leaf, lr_only, nops, without_rules
from world_cases import run_blocked, run_interrupted, run_until
from world_cpu import Cpu, Entry, Stop
from world_kernel import Task, World, frames_of, reason_of, task_of
from world_tracer import GRAPH, HOOKS, hooked, preempted, start_tracer

IN_TRAMPOLINES: Final = {Reason.TRAMPOLINE_WINDOW, Reason.ENTRY_CODE, Reason.SWITCHING}


def site(name: str, body: list[Op], **options: object) -> Function:
    """A traced function."""
    return hooked(framed(name, body, site=True, **options))  # type: ignore[arg-type]


def every_instant(cpu: Cpu) -> list[tuple[str | None, Reason, Task]]:
    """Walk before every instruction until the task blocks; a reliable trace must be the truth."""
    found: list[tuple[str | None, Reason, Task]] = []

    def look(running: Cpu) -> bool:
        task = task_of(running, blocked=False)
        traces = World(running.program, [task]).walk()
        reason = reason_of(traces)
        assert reason is not Reason.NONE or frames_of(traces, 0) == task.truth
        found.append((running.program.function_at(running.pc), reason, task))
        return False

    with pytest.raises(Stop, match=r"^blocked$"):
        cpu.run(5000, look)
    return found


def refused_in(found: list[tuple[str | None, Reason, Task]], name: str) -> set[Reason]:
    """Give the reasons at the instants inside a function."""
    return {reason for where, reason, _ in found if where == name} - {Reason.NONE}


SHAPES: Final = {
    "one traced function": [framed("f0", call("f1")), site("f1", call("schedule"))],
    "traced functions call each other": [
        site("f0", call("f1")),
        site("f1", call("f2")),
        site("f2", call("schedule")),
    ],
    "a tail branch between traced functions": [
        framed("f0", call("f1")),
        site("f1", nops(1), tail=Op("b", "f2")),
        site("f2", call("schedule")),
    ],
    "a traced leaf": [framed("f0", [*call("f1"), *call("schedule")]), hooked(leaf("f1", 2, site=True))],
    "called by a function without a record": [
        framed("f0", call("f1")),
        lr_only("f1", call("f2")),
        site("f2", call("schedule")),
    ],
}
STALE: Final = {"zeros": (0, 0), "of another function and frame": (0xFFFF_8000_8800_1F00, 0xFFFF_8000_8001_0000)}


@pytest.mark.parametrize("stale", STALE)
@pytest.mark.parametrize("name", SHAPES)
def test_every_instant_of_graph_tracing(name: str, stale: str) -> None:
    """Before, while and after the entry is written and the address replaced: refused inside ftrace_caller only."""
    found = every_instant(start_tracer(SHAPES[name], stale=STALE[stale]))
    assert refused_in(found, "ftrace_graph_func") == set()
    assert sum(where == "ftrace_graph_func" for where, _, _ in found) > 8
    assert {reason for _, reason, _ in found} <= IN_TRAMPOLINES | {Reason.NONE}
    assert refused_in(found, "ftrace_caller") == {Reason.TRAMPOLINE_WINDOW}


def test_recursion_through_one_call_site() -> None:
    """Entries of one function and one return address: each is claimed by its own activation."""
    body = [Op("cbz", (2, lambda cpu: len(cpu.fgraph) > 3)), Op("bl", "f1"), *call("schedule")]
    cpu = start_tracer([framed("f0", call("f1")), site("f1", body)])
    found = every_instant(cpu)
    assert refused_in(found, "ftrace_graph_func") == set()
    assert max(len(task.fgraph) for _, _, task in found) == 4


@pytest.mark.parametrize("which", [0, 1])
def test_stale_words_that_name_a_live_frame(which: int) -> None:
    """A half-written entry that shows the words of a live frame's is passed over where that frame has its own."""
    shape = [framed("f3", call("f0")), *SHAPES["traced functions call each other"]]
    live = [task.fgraph for _, _, task in every_instant(start_tracer(shape)) if len(task.fgraph) > which]
    outer = live[-1][-1 - which]
    found = every_instant(start_tracer(shape, stale=(outer.key, outer.func)))
    assert refused_in(found, "ftrace_graph_func") == set()


def test_entry_half_written_over_with_another_address() -> None:
    """An interrupt in between has left its own address in the slot: nothing tells whose the entry is."""
    body = [op._replace(arg="scribble") if op.arg == "grow" else op for op in GRAPH]
    cpu = start_tracer(SHAPES["one traced function"], body)
    cpu.program.hooks["scribble"] = lambda running: running.fgraph.append(Entry(running.program.at("f0"), 0))
    assert refused_in(every_instant(cpu), "ftrace_graph_func") == {Reason.FGRAPH_MISMATCH}


def test_task_switched_out_in_a_tracer() -> None:
    """It is reliable, ftrace_caller and the site are in the trace, and the record is the evidence."""
    cpu = start_tracer(SHAPES["traced functions call each other"], preempted())
    task = run_blocked(cpu)
    world = World(cpu.program, [task])
    traces = world.walk()
    assert reason_of(traces) is Reason.NONE
    assert frames_of(traces, 0) == task.truth
    names = [cpu.program.function_at(pc - 1) for pc, _ in task.truth]
    at = names.index("ftrace_caller")
    assert names[at - 1 : at + 3] == ["ftrace_graph_func", "ftrace_caller", "f0", "el0_svc"]
    assert [bool(bits & Evidence.TRACER) for bits in traces.evidence.tolist()].index(True) == at + 1
    assert reason_of(world.walk(Mode.SFRAME)) is Reason.IN_FTRACE_CALLER


def test_task_preempted_in_a_tracer() -> None:
    """An exception boundary inside the tracer is crossed like any other."""
    shape = SHAPES["one traced function"]
    for nth in range(len(GRAPH)):
        cpu = start_tracer(shape)
        task = run_interrupted(cpu, cpu.program.at("ftrace_graph_func", 3 + nth))
        traces = World(cpu.program, [task]).walk()
        assert reason_of(traces) is Reason.NONE
        assert frames_of(traces, 0) == task.truth


def switched_out(body: list[Op] | None = None, target: str = "") -> tuple[Cpu, Task]:
    """F1 is traced; its tracer is switched out at its end."""
    cpu = start_tracer(SHAPES["one traced function"], body or preempted(), target=target)
    return cpu, run_blocked(cpu)


def test_redirected_by_the_tracer() -> None:
    """What the task will run next is on no stack: refused."""
    cpu, task = switched_out([Op("hook", "redirect"), *preempted()], "f2")
    assert reason_of(World(cpu.program, [task]).walk()) is Reason.IN_FTRACE_CALLER


def inner_record(cpu: Cpu, task: Task) -> int:
    """The address of the record that names the patch site."""
    ra = cpu.program.find("f1", "bl") + 4
    return max(addr for addr, word in task.memory.items() if word == ra) - 8


DAMAGE: Final[dict[str, tuple[int, Callable[[int], int], Reason]]] = {
    "the inner record names another site": (8, lambda word: word + 4, Reason.IN_FTRACE_CALLER),
    "the inner record is linked elsewhere": (0, lambda word: word + 16, Reason.IN_FTRACE_CALLER),
    "the outer record names another address": (24, lambda word: word + 4, Reason.NOT_A_CALL),
    "the outer record names the frame below": (16, lambda word: word - 4096, Reason.RECORD_OUTSIDE),
    "the saved pc leads elsewhere": (-8, lambda word: word + 4, Reason.IN_FTRACE_CALLER),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_records(name: str) -> None:
    """Records that are not those of ftrace_caller are not followed."""
    offset, change, reason = DAMAGE[name]
    cpu, task = switched_out()
    addr = inner_record(cpu, task) + offset
    damaged = replace(task, memory=task.memory | {addr: change(task.memory[addr])})
    assert reason_of(World(cpu.program, [task]).walk()) is Reason.NONE
    assert reason_of(World(cpu.program, [damaged]).walk()) is reason


def test_unknown_layout_of_the_saved_registers() -> None:
    """A kernel without struct ftrace_regs: nothing is known of its ftrace_caller."""
    cpu, task = switched_out()
    layout = replace(World(cpu.program, [task]).layout, ftrace_regs_size=0)
    assert reason_of(World(cpu.program, [task], layout).walk()) is Reason.IN_FTRACE_CALLER
    layout = replace(layout, ftrace_regs_size=96)
    assert reason_of(World(cpu.program, [task], layout).walk()) is Reason.RECORD_BELOW_SP


def test_site_without_the_word_that_keeps_the_address() -> None:
    """A call of ftrace_caller that is no patch site: x9 need not be the return address."""
    functions = [framed("f0", call("f1")), site("f1", call("schedule"))]
    cpu = start_tracer(functions, preempted())
    task = run_blocked(cpu)
    cpu.program.words[cpu.program.at("f1")] = 0xD503_201F
    assert reason_of(World(cpu.program, [task]).walk()) is Reason.IN_FTRACE_CALLER


def test_tracing_switched_off_meanwhile() -> None:
    """The site is a NOP again: nothing vouches for the record."""
    cpu, task = switched_out()
    cpu.program.words[cpu.program.at("f1", 1)] = 0xD503_201F
    assert reason_of(World(cpu.program, [task]).walk()) is Reason.NOT_A_CALL


def test_rule_that_says_otherwise() -> None:
    """A frame at the site, by its metadata: the outer record cannot be its caller's."""
    cpu, task = switched_out()
    code = cpu.program.code()
    where = np.array([cpu.program.at("f1", 1)], dtype=np.uint64)
    code.rules.cfa_off[code.rules.lookup(where, np.zeros(1, dtype=np.bool_))] = 16
    assert reason_of(World(cpu.program, [task], code=code).walk()) is Reason.RULE_RECORD_MISMATCH


def test_traced_function_without_metadata() -> None:
    """No rule says that it has done nothing yet."""
    functions = [framed("f0", call("f1")), without_rules(site("f1", call("schedule")))]
    cpu = start_tracer(functions, preempted())
    assert reason_of(World(cpu.program, [run_blocked(cpu)]).walk()) is Reason.NO_METADATA


def test_entry_that_is_nobody_s() -> None:
    """An entry of another function and address is left over, newest or not."""
    cpu, task = switched_out()
    for index in (0, 1):
        entries = [replace(entry) for entry in task.fgraph]
        entries.insert(index, replace(entries[0], ret=cpu.program.find("el0_svc", "blr") + 4, key=task.sp))
        assert reason_of(World(cpu.program, [replace(task, fgraph=entries)]).walk()) is Reason.FGRAPH_MISMATCH


def test_running_task_at_the_first_word_of_the_tracer() -> None:
    """The same from a CPU's registers."""
    cpu = start_tracer(SHAPES["one traced function"])
    task = run_until(cpu, cpu.program.at("ftrace_graph_func"))
    traces = World(cpu.program, [task]).walk()
    assert reason_of(traces) is Reason.NONE
    assert frames_of(traces, 0) == task.truth


def in_a_window(*, stale: bool) -> list[tuple[str | None, Reason, Task]]:
    """F1 has returned and its entry is off the list; an interrupt comes, and f2, which it calls, is traced."""
    functions = [framed("f0", [*call("f1"), *nops(2)]), framed("f1", nops(2), site=True), site("f2", nops(1))]
    cpu = start_tracer(functions)
    cpu.traced, cpu.take = frozenset({"f1"}), lambda _: True
    run_until(cpu, cpu.program.find("ftrace_return_to_handler", "hook") + 4)
    assert cpu.fgraph == []
    HOOKS.stale = (cpu.load(cpu.fp), cpu.program.at("f1", 1)) if stale else (0, 0)
    cpu.interrupt()
    cpu.pick = lambda _, op: "f2" if op.arg == ("gic_handle_irq",) else str(op.arg[0])
    cpu.preempt = True
    return every_instant(cpu)


def test_half_written_entry_over_one_that_was_taken_off() -> None:
    """Words of the entry that is gone look as if it were there still, with another address: refused."""
    assert refused_in(in_a_window(stale=False), "ftrace_graph_func") == set()
    found = in_a_window(stale=True)
    assert refused_in(found, "ftrace_graph_func") == {Reason.TRAMPOLINE_WINDOW}
    refused = [len(task.fgraph) for where, reason, task in found if where == "ftrace_graph_func" and reason]
    assert refused == [1, 1]
