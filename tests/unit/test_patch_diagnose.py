"""Diagnoses of stacks that a processor really made: the kernel's answer, the true one, and where they differ."""

from __future__ import annotations

import numpy as np

from surefoot.patch.advice import advice_for
from surefoot.patch.diagnose import Diagnosis, TaskLook, Walked, diagnose, stranded
from surefoot.patch.events import Hold
from surefoot.patch.klp import KlpFunction, KlpKernel, KlpPatch, Side, searched, true_ranges
from surefoot.patch.klpends import Span, end_warnings
from surefoot.unwind.context import Mode
from world import Op, Program, call, framed, leaf, nops
from world_cases import run_blocked, run_interrupted, start
from world_kernel import Task, World

CALLS = framed("f0", call("f1"))
SLEEPS = framed("f1", call("schedule"))
NEW = 0xFFFF_8000_7000_0000


def kernel_of(program: Program, name: str, side: Side = Side.PATCHED, size: int | None = None) -> KlpKernel:
    """A kernel in which one function is being patched; its size ends where the next symbol begins."""
    reckoned = program.size_of(name) if size is None else size
    func = KlpFunction("vmlinux", name, program.at(name), reckoned, NEW, 64, transition=True)
    return KlpKernel((KlpPatch("fix", False, True, False, (func,)),), "fix", side, {func.old: (NEW,)})


def look(*, on_cpu: bool = False, side: int | None = 0, settled: bool = True, state: str = "S") -> TaskLook:
    return TaskLook(7, "reader", False, state, 1, on_cpu, side, settled)


def walked(program: Program, task: Task) -> Walked:
    world = World(program, [task])
    hybrid, fp = world.walk(Mode.HYBRID), world.walk(Mode.FP)
    assert world.code is not None
    return Walked(world.code, hybrid, fp)


def one(
    program: Program, task: Task, name: str, seen: TaskLook | None = None, side: Side = Side.PATCHED
) -> Diagnosis:
    return diagnose(kernel_of(program, name, side), walked(program, task), [seen or look()])


def test_a_function_on_the_stack() -> None:
    cpu = start([CALLS, SLEEPS, leaf("f2")])
    task = run_blocked(cpu)
    found = one(cpu.program, task, "f0")
    [state] = found.tasks
    assert (state.hold, state.blocked_by, state.crossed) == (Hold.ON_STACK, "f0", False)
    assert any(frame.startswith("f0+") for frame in state.trace)
    assert "signal" in state.advice
    assert not found.warnings
    assert not found.certificate.holds


def test_preempted_the_kernel_cannot_tell_and_the_hybrid_walk_can() -> None:
    """Interrupted in f1: in truth clear of f2, and in truth in f1; for the kernel unreliable both times."""
    cpu = start([CALLS, framed("f1", nops(3)), leaf("f2")])
    task = run_interrupted(cpu, cpu.program.at("f1", 2))
    clear = one(cpu.program, task, "f2")
    assert clear.tasks[0].hold is Hold.UNRELIABLE
    assert "in truth safe" in clear.tasks[0].reason
    assert "interrupted" in clear.tasks[0].reason
    assert clear.certificate.holds
    held = one(cpu.program, task, "f1")
    assert (held.tasks[0].hold, held.tasks[0].blocked_by) == (Hold.ON_STACK, "f1")
    assert "unreliable for the kernel" in held.tasks[0].reason
    assert not held.certificate.holds


def test_a_running_task_is_not_looked_at() -> None:
    cpu = start([CALLS, framed("f1", nops(3)), leaf("f2")])
    task = run_interrupted(cpu, cpu.program.at("f1", 2))
    [state] = one(cpu.program, task, "f1", look(on_cpu=True)).tasks
    assert (state.hold, state.blocked_by) == (Hold.RUNNING, "f1")
    assert "CPU 1" in state.reason


def test_a_call_that_never_returns_fools_the_kernel_and_not_us() -> None:
    """The return address is the first byte of the neighbour: missed for its caller, held for the neighbour."""
    ends = framed("f0", [Op("bl", "f1")], noreturn=True)
    cpu = start([ends, leaf("zz_next"), SLEEPS])
    task = run_blocked(cpu)
    missed = one(cpu.program, task, "f0")
    assert missed.tasks[0].hold is Hold.ON_STACK
    assert [text for text in missed.warnings if "too early" in text and "never returns" in text]
    false_hit = one(cpu.program, task, "zz_next")
    assert [text for text in false_hit.warnings if "not on its stack" in text]
    assert false_hit.certificate.holds
    # Counted as gone over by the kernel, and still in there.
    crossed = one(cpu.program, task, "f0", look(side=1))
    assert crossed.tasks[0].crossed
    assert [text for text in crossed.warnings if "old and new code may meet" in text]


def test_calls_at_the_very_end_are_told_before() -> None:
    ends = framed("f0", [Op("bl", "f1")], noreturn=True)
    cpu = start([ends, leaf("zz_next"), SLEEPS])
    code = walked(cpu.program, run_blocked(cpu)).code

    def warn(name: str, more: int = 0) -> list[str]:
        span = Span(name, cpu.program.at(name), cpu.program.size_of(name) + more)
        return end_warnings([span], code.functions, code.text)

    [misses] = warn("f0")
    assert "will not see" in misses
    [held] = warn("zz_next")
    assert "f0 before zz_next" in held
    # With padding behind it the kernel's range reaches further than the return address.
    assert not warn("f0", 4)
    assert end_warnings([], code.functions, code.text) == []


def test_who_is_still_in_what_was_left() -> None:
    cpu = start([CALLS, SLEEPS, leaf("f2")])
    seen = walked(cpu.program, run_blocked(cpu))
    tasks = [look(side=None)]
    for name, expected in (("f0", ["f0"]), ("f2", [])):
        kernel = kernel_of(cpu.program, name)
        left = true_ranges(seen.code, searched(kernel))
        assert [state.blocked_by for state in stranded(kernel, seen, tasks, left)] == expected


def test_a_task_that_moved_gives_no_certificate() -> None:
    cpu = start([CALLS, SLEEPS, leaf("f2")])
    task = run_blocked(cpu)
    assert one(cpu.program, task, "f2").certificate.holds
    refused = one(cpu.program, task, "f2", look(settled=False)).certificate
    assert not refused.holds
    assert refused.refused[0].hold is Hold.UNKNOWN


def test_nobody_looked_at_is_no_certificate() -> None:
    cpu = start([CALLS, SLEEPS, leaf("f2")])
    seen = walked(cpu.program, run_blocked(cpu))
    empty = diagnose(KlpKernel(), seen, [])
    assert not empty.certificate.holds
    assert np.size(seen.hybrid.reason) == 1


def test_advice_tells_cases_apart() -> None:
    def advise(hold: Hold, *, kthread: bool = False, state: str = "S", idle: bool = False, main: bool = False) -> str:
        return advice_for(hold, kthread=kthread, state=state, idle=idle, is_main=main, is_safe=False)

    assert "in vain" in advise(Hold.ON_STACK, kthread=True, main=True)
    assert "15 seconds" in advise(Hold.ON_STACK, kthread=True)
    assert "signal" in advise(Hold.ON_STACK)
    assert "uninterruptibly" in advise(Hold.ON_STACK, state="D")
    assert "idle" in advise(Hold.RUNNING, idle=True)
    assert "never sleeps" in advise(Hold.UNRELIABLE, kthread=True)
