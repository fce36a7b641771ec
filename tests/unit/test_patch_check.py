"""The stack check on stacks that a processor really made: who is held, by what, and who is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from surefoot.errors import Inconsistent
from surefoot.patch.check import Finding, Range, holds, ranges_of, task_state, trace_of
from surefoot.patch.events import Hold
from surefoot.unwind.context import Mode
from surefoot.unwind.reasons import SENTENCES, Reason
from surefoot.unwind.state import Start
from surefoot.unwind.trace import Traces
from world import Function, Op, Program, call, framed, leaf, nops, without_rules
from world_cases import run_blocked, run_interrupted, run_until, start
from world_cpu import Cpu
from world_kernel import Proved, Task, World, kernel

NOBODY = Range(0xFFFF_8000_7000_0000, 0xFFFF_8000_7000_1000, "nobody")
SLEEPS = framed("f1", call("schedule"))
CALLS = framed("f0", call("f1"))


def range_of(program: Program, name: str) -> Range:
    low = program.at(name)
    return Range(low, low + program.size_of(name), name)


def check(
    task: Task,
    program: Program,
    *names: str,
    choosing: tuple[str, ...] = (),
    mode: Mode = Mode.HYBRID,
    **options: bool,
) -> Finding | None:
    """Walk one task and check it against some functions; `sites` says whether the first named is redirected."""
    world = World(program, [task])
    assert world.code is not None
    ranges = [range_of(program, name) for name in names]
    sites = [NOBODY] if options.get("sites_known") else None
    tracer = [range_of(program, name) for name in choosing]
    [finding] = holds(world.walk(mode), world.code, ranges, choosing=tracer, sites=sites)
    return finding


def sleeping(*functions: Function) -> tuple[Cpu, Task]:
    cpu = start(list(functions))
    return cpu, run_blocked(cpu)


def test_a_task_that_will_return_into_a_function_is_held() -> None:
    """A sleeper: all of its callers hold it, and only they; the innermost one is named."""
    cpu, task = sleeping(CALLS, SLEEPS, leaf("f2"))
    assert check(task, cpu.program, "f2") is None
    finding = check(task, cpu.program, "f0")
    assert finding is not None
    assert (finding.hold, finding.name) == (Hold.ON_STACK, "f0")
    assert finding.address == cpu.program.find("f0", "bl") + 4
    # schedule, __schedule and __switch_to lie below f1.
    assert finding.frame == 4
    both = check(task, cpu.program, "f0", "f1")
    assert both is not None
    assert both.name == "f1"


def test_the_chain_above_is_clear_when_it_has_returned() -> None:
    """The same task in another function than before: nothing of the past counts."""
    cpu, task = sleeping(framed("f0", [*call("f2"), *call("schedule")]), leaf("f2"))
    assert check(task, cpu.program, "f2") is None
    assert check(task, cpu.program, "f0") is not None


def test_a_call_that_never_returns_counts_where_it_is() -> None:
    """Its return address is the first byte of the next function, which is not held; the caller is."""
    ends = framed("f0", [Op("bl", "f1")], noreturn=True)
    neighbour = leaf("zz_next")
    cpu = start([ends, neighbour, framed("f1", call("schedule"))])
    task = run_blocked(cpu)
    ra = cpu.program.find("f0", "bl") + 4
    end = cpu.program.at("f0") + cpu.program.size_of("f0")
    # Functions are aligned to 8 bytes: the case is only made if f0 has an even number of words.
    assert ra == end == cpu.program.at("zz_next")
    assert check(task, cpu.program, "zz_next") is None
    finding = check(task, cpu.program, "f0")
    assert finding is not None
    assert (finding.hold, finding.name, finding.address) == (Hold.ON_STACK, "f0", ra)
    assert "f0+" in finding.sentence


@pytest.mark.parametrize("index", [0, 1, 2])
def test_interrupted_code_counts_at_exactly_pc(index: int) -> None:
    """Preempted at the first instruction of a function: it is held by it, and not by the one before."""
    before, target = leaf("yy_before", 3), framed("f1", nops(3))
    cpu = start([CALLS, before, target])
    task = run_interrupted(cpu, cpu.program.at("f1", index))
    assert cpu.program.at("f1") == cpu.program.at("yy_before") + cpu.program.size_of("yy_before")
    finding = check(task, cpu.program, "f1")
    assert finding is not None
    assert (finding.hold, finding.name, finding.address) == (Hold.ON_STACK, "f1", cpu.program.at("f1", index))
    assert "interrupted" in finding.sentence
    assert check(task, cpu.program, "yy_before") is None


def test_an_unreliable_stack_holds_with_its_reason() -> None:
    """Preempted in assembly without rules: no function of it may be called absent."""
    cpu = start([CALLS, without_rules(leaf("f1", 4))])
    task = run_interrupted(cpu, cpu.program.at("f1", 2))
    finding = check(task, cpu.program, "f2")
    assert finding is not None
    assert (finding.hold, finding.name) == (Hold.UNRELIABLE, "")
    assert SENTENCES[Reason.NO_RULE_AT_BOUNDARY] in finding.sentence
    assert "f1+0x8" in finding.sentence


def test_a_certain_frame_is_named_although_the_rest_is_not() -> None:
    """What was seen before certainty was lost holds by name; what was guessed afterwards does not."""
    cpu = start([CALLS, without_rules(leaf("f1", 4))])
    task = run_interrupted(cpu, cpu.program.at("f1", 2))
    inside = check(task, cpu.program, "f1")
    assert inside is not None
    assert (inside.hold, inside.name) == (Hold.ON_STACK, "f1")
    above = check(task, cpu.program, "el0_svc")
    assert above is not None
    assert (above.hold, above.name) == (Hold.UNRELIABLE, "")


@pytest.mark.parametrize(
    ("begin", "hold"),
    [(Start.NO_REGS, Hold.RUNNING), (Start.SWITCHING, Hold.RUNNING), (Start.USER, None), (Start.NO_STACK, None)],
)
def test_tasks_without_a_kernel_frame(begin: Start, hold: Hold | None) -> None:
    """In user space or dead: clear. Running without registers: not."""
    cpu, task = sleeping(CALLS, SLEEPS)
    finding = check(replace(task, start=begin), cpu.program, "f0")
    assert (finding.hold if finding else None) == hold


def test_the_fp_walk_of_a_task_on_a_cpu_says_that_it_runs() -> None:
    """The kernel's own check does not look at it."""
    cpu, task = sleeping(CALLS, SLEEPS)
    finding = check(replace(task, start=Start.USER), cpu.program, "f0", mode=Mode.FP)
    assert finding is not None
    assert finding.hold is Hold.RUNNING


def test_a_task_that_has_never_run_is_at_the_start_of_its_first_function() -> None:
    """cpu_context.pc is then an exact address: the function that ends before it does not hold the task."""
    cpu = start([], begin="ret_from_fork")
    task = replace(run_until(cpu, cpu.pc), start=Start.BLOCKED, with_irq=False)
    names = [function.name for function in cpu.program.functions]
    before = names[names.index("ret_from_fork") - 1]
    end = cpu.program.at(before) + cpu.program.size_of(before)
    neighbour = Range(cpu.program.at(before), cpu.program.at("ret_from_fork"), before)
    assert end <= cpu.program.at("ret_from_fork")
    world = World(cpu.program, [task])
    assert world.code is not None
    assert holds(world.walk(), world.code, [neighbour], choosing=[]) == [None]
    finding = check(task, cpu.program, "ret_from_fork")
    assert finding is not None
    assert finding.hold is Hold.ON_STACK


TRACER = [
    without_rules(Function("ftrace_caller", [*nops(2), Op("bl", "klp_handler"), *nops(2), Op("ret")])),
    framed("klp_handler", call("schedule")),
]


def in_handler() -> tuple[Program, Traces, World]:
    """A task that sleeps in the handler, with a caller that the stack does not show with certainty."""
    cpu = start([framed("f0", [Op("bl", "ftrace_caller"), *nops(2)]), *TRACER])
    # ftrace_caller makes no frame here: LR is kept on the stack by nobody, and the walker must not go on.
    return cpu.program, World(cpu.program, [run_blocked(cpu)]).walk(), World(cpu.program, [])


def test_a_task_in_the_tracer_is_held_as_choosing() -> None:
    """The walk stops in ftrace_caller anyway: the finding says what that means."""
    program, traces, world = in_handler()
    assert world.code is not None
    assert Reason(int(traces.reason[0])) is Reason.IN_FTRACE_CALLER
    tracer = [range_of(program, "ftrace_caller")]
    [finding] = holds(traces, world.code, [NOBODY], choosing=tracer)
    assert finding is not None
    assert finding.hold is Hold.CHOOSING
    assert finding.address == program.find("ftrace_caller", "bl") + 4
    [unnamed] = holds(traces, world.code, [NOBODY], choosing=[])
    assert unnamed is not None
    assert unnamed.hold is Hold.UNRELIABLE


@pytest.mark.parametrize("index", [0, 1, 3, 4])
def test_a_task_interrupted_in_the_tracer_is_held_as_choosing(index: int) -> None:
    """At every instruction of the trampoline, before and after the choice."""
    cpu = start([framed("f0", [Op("bl", "ftrace_caller"), *nops(2)]), TRACER[0], leaf("klp_handler")])
    task = run_interrupted(cpu, cpu.program.at("ftrace_caller", index))
    finding = check(task, cpu.program, "f3", choosing=("ftrace_caller",))
    assert finding is not None
    assert (finding.hold, finding.address) == (Hold.CHOOSING, cpu.program.at("ftrace_caller", index))


def trusted() -> tuple[Traces, World]:
    """The same stack as a walk would give it that can pass the trampoline: reliable, and with the traced function."""
    cpu, task = sleeping(framed("f0", call("f1")), framed("f1", call("schedule")))
    world = World(cpu.program, [task])
    return world.walk(), world


@pytest.mark.parametrize(
    ("sites", "held"),
    [(None, True), ((), False), (("f0",), True), (("schedule",), False)],
)
def test_a_reliable_trace_through_the_tracer_is_judged_by_the_function_traced(
    sites: tuple[str, ...] | None, held: bool
) -> None:
    """Taking f1 for the trampoline: f0 is the function whose call it traces."""
    traces, world = trusted()
    assert world.code is not None
    program = world.program
    where = None if sites is None else [range_of(program, name) for name in sites]
    [finding] = holds(traces, world.code, [NOBODY], choosing=[range_of(program, "f1")], sites=where)
    assert (finding is not None) is held
    if finding is not None:
        assert (finding.hold, finding.name) == (Hold.CHOOSING, "f0")


def test_the_trampoline_at_the_outer_end_of_a_trace_holds() -> None:
    """Nothing above it: what it traces is unknown."""
    traces, world = trusted()
    assert world.code is not None
    outermost = [range_of(world.program, "el0t_64_sync")]
    [finding] = holds(traces, world.code, [], choosing=outermost, sites=[])
    assert finding is not None
    assert (finding.hold, finding.name) == (Hold.CHOOSING, "")


def test_an_unknown_frame_above_the_trampoline_holds() -> None:
    """The function traced cannot be told."""
    traces, world = trusted()
    assert world.code is not None
    function = traces.function.copy()
    at = [int(pc) - 4 for pc in traces.pc].index(world.program.find("f0", "bl"))
    function[at] = -1
    tracer = [range_of(world.program, "f1")]
    [finding] = holds(replace(traces, function=function), world.code, [], choosing=tracer, sites=[])
    assert finding is not None
    assert (finding.hold, finding.name) == (Hold.CHOOSING, "")


def test_many_tasks_at_once_as_one_by_one() -> None:
    """A batch gives each task the finding it has alone; tasks without frames stand between the others."""
    program = kernel([CALLS, SLEEPS])
    cpus = [start([CALLS, SLEEPS]) for _ in range(2)]
    tasks = [run_blocked(cpus[0]), run_interrupted(cpus[1], program.at("f1", 1))]
    dead = replace(tasks[0], start=Start.NO_STACK)
    batch = [dead, tasks[0], dead, tasks[1], dead]
    world = World(program, batch)
    assert world.code is not None
    ranges = [range_of(program, "f0")]
    together = holds(world.walk(), world.code, ranges, choosing=[])
    alone = [check(task, program, "f0") for task in batch]
    assert together == alone
    assert [finding is not None for finding in together] == [False, True, False, True, False]


def test_nothing_to_search_and_nobody_to_ask() -> None:
    """Without ranges reliable tasks are clear; without tasks the answer is empty."""
    cpu, task = sleeping(CALLS, SLEEPS)
    assert check(task, cpu.program) is None
    world = World(cpu.program, [])
    assert world.code is not None
    assert holds(world.walk(), world.code, [NOBODY], choosing=[]) == []


@pytest.mark.parametrize(("low", "high"), [(8, 8), (16, 8), (-1, 4), (0, (1 << 64) + 1)])
def test_a_range_without_extent_is_refused(low: int, high: int) -> None:
    """A function of unknown size would let everybody pass."""
    cpu, task = sleeping(CALLS, SLEEPS)
    world = World(cpu.program, [task])
    assert world.code is not None
    with pytest.raises(Inconsistent, match="empty"):
        holds(world.walk(), world.code, [Range(low, high, "f")], choosing=[])


def test_ranges_may_overlap_and_lie_within_each_other() -> None:
    """Every address is found by some range that holds it, against a plain loop over all ranges."""
    rng = np.random.default_rng(5)
    cpu, task = sleeping(CALLS, SLEEPS)
    world = World(cpu.program, [task])
    assert world.code is not None
    traces = world.walk()
    base, size = cpu.program.at("el0t_64_sync"), cpu.program.end - cpu.program.at("el0t_64_sync")
    probes = [int(pc) - 1 for pc in traces.pc]
    hits = 0
    for _ in range(300):
        lows = rng.integers(0, size, 4)
        ranges = [
            Range(base + int(low), base + int(low) + int(rng.integers(1, 200)), f"r{i}") for i, low in enumerate(lows)
        ]
        [finding] = holds(traces, world.code, ranges, choosing=[])
        inside = [[r.name for r in ranges if r.start <= probe < r.end] for probe in probes]
        first = next((i for i, names in enumerate(inside) if names), None)
        assert (finding is None) == (first is None)
        if finding is not None and first is not None:
            hits += 1
            assert finding.frame == first
            assert finding.name in inside[first]
    assert 30 < hits < 300


def test_a_task_state_says_what_the_finding_says() -> None:
    """With as much of the trace as explains it."""
    cpu, task = sleeping(CALLS, SLEEPS)
    world = World(cpu.program, [task])
    assert world.code is not None
    traces = world.walk()
    [finding] = holds(traces, world.code, [range_of(cpu.program, "f1")], choosing=[])
    assert finding is not None
    trace = trace_of(traces, world.code, 0)
    assert len(trace) == int(traces.first[1])
    assert trace_of(traces, world.code, 0, frames=2) == trace[:2]
    state = task_state(7, "cat", finding, trace)
    assert (state.pid, state.comm, state.crossed, state.hold) == (7, "cat", False, Hold.ON_STACK)
    assert (state.blocked_by, state.address, state.reason) == ("f1", finding.address, finding.sentence)
    assert [name.partition("+")[0] for name in state.trace] == ["__switch_to", "__schedule", "schedule", "f1", "f0"]
    assert state.advice
    assert task_state(7, "cat", None).crossed
    assert not task_state(7, "cat", None, crossed=False).crossed
    assert task_state(7, "cat", finding, crossed=True).hold is None


def test_parts_cut_off_a_function_belong_to_it() -> None:
    """Cold code and parts are searched with it; clones and strangers are not."""
    parts = ("f1.cold", "f1.part.0", "f1.part.0.cold", "f1.isra.0", "f11.cold", "zf1")
    program = kernel([SLEEPS, *(leaf(name) for name in parts)])
    names = [item.name for item in ranges_of(program.code(), [program.at("f1")])]
    assert names == ["f1", "f1.cold", "f1.part.0", "f1.part.0.cold"]
    [first, *_] = ranges_of(program.code(), [program.at("f1")])
    assert (first.start, first.end) == (program.at("f1"), program.at("f1") + program.size_of("f1"))
    with pytest.raises(Inconsistent, match="no function begins"):
        ranges_of(program.code(), [program.at("f1", 1)])


def test_a_proved_walk_gives_the_same_findings() -> None:
    """Proofs change what is crossed, not what is held."""
    cpu, task = sleeping(CALLS, SLEEPS)
    code = cpu.program.code(proofs=Proved())
    world = World(cpu.program, [task], code=code)
    [finding] = holds(world.walk(), code, [range_of(cpu.program, "f0")], choosing=[])
    assert finding == check(task, cpu.program, "f0")
