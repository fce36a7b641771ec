"""Tracers called from patch sites, on the synthetic kernel: ftrace_caller as in arch/arm64/kernel/entry-ftrace.S.

Its moves are hooks of the scalar processor; only the addresses and the stack matter to a walk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from surefoot.unwind.code import FunctionKind
from world import Function, Op, call, framed, nops, without_rules
from world_cases import start
from world_cpu import Cpu, Entry

__all__ = ["GRAPH", "HOOKS", "hooked", "preempted", "start_tracer", "tracer"]

REGS: Final = 112
_FP, _LR, _PC = 80, 88, 104
"""struct __arch_ftrace_regs of Linux 7.3, in bytes."""


def hooked(function: Function, at: int = 1) -> Function:
    """Give a function made with a patch site, its second slot turned into a call of ftrace_caller."""
    ops = list(function.ops)
    assert (ops[at - 1].name, ops[at].name) == ("mov_x9_lr", "nop")
    ops[at] = Op("bl", "ftrace_caller", ops[at].rule)
    return replace(function, ops=ops)


def _enter(cpu: Cpu) -> None:
    cpu.sp -= REGS + 32
    for offset in range(0, REGS, 8):
        cpu.store(cpu.sp + offset, cpu.rng.getrandbits(48))
    for offset, value in ((_FP, cpu.fp), (_LR, cpu.x9), (_PC, cpu.lr)):
        cpu.store(cpu.sp + offset, value)


def _outer(cpu: Cpu) -> None:
    cpu.store(cpu.sp + REGS + 16, cpu.fp)
    cpu.store(cpu.sp + REGS + 24, cpu.x9)
    cpu.fp = cpu.sp + REGS + 16


def _inner(cpu: Cpu) -> None:
    cpu.store(cpu.sp + REGS, cpu.fp)
    cpu.store(cpu.sp + REGS + 8, cpu.lr)
    cpu.fp = cpu.sp + REGS


def _leave(cpu: Cpu) -> None:
    """The end of ftrace_caller: registers loaded, and a return through x9; the site's call is over."""
    cpu.fp, cpu.lr, target = (cpu.load(cpu.sp + offset) for offset in (_FP, _LR, _PC))
    cpu.sp += REGS + 32
    frame = cpu.shadow.pop()
    assert frame.kind == "call"
    cpu.pc = target - 4


def _saved(cpu: Cpu) -> int:
    """The registers that ftrace_caller has saved, seen from its callee's body: right above that one's frame of 32."""
    return cpu.sp + 32


def _grow(cpu: Cpu) -> None:
    """The list grows: the return address is there, the rest is what an older entry left in the slot."""
    cpu.fgraph.append(Entry(cpu.load(_saved(cpu) + _LR), *HOOKS.stale))


def _fill(cpu: Cpu) -> None:
    site = cpu.load(_saved(cpu) + REGS + 8) - 4
    cpu.fgraph[-1] = Entry(cpu.load(_saved(cpu) + _LR), cpu.load(_saved(cpu) + _FP), site)


def _rewrite(cpu: Cpu) -> None:
    cpu.store(_saved(cpu) + _LR, cpu.program.labels["return_to_handler"])


def _redirect(cpu: Cpu) -> None:
    cpu.store(_saved(cpu) + _PC, cpu.program.labels[HOOKS.target])


class _Hooks:
    """What the tracer does, and what a half-written entry shows."""

    def __init__(self) -> None:
        self.stale = (0, 0)
        self.target = ""
        self.by_name: dict[str, Callable[[Cpu], None]] = {
            "tracer_enter": _enter,
            "tracer_outer": _outer,
            "tracer_inner": _inner,
            "tracer_leave": _leave,
            "grow": _grow,
            "fill": _fill,
            "rewrite": _rewrite,
            "redirect": _redirect,
        }


HOOKS: Final = _Hooks()


def tracer(body: Sequence[Op]) -> list[Function]:
    """Give ftrace_caller and a tracer that it calls.

    Args:
        body: of the tracer.
    """
    moves = [Op("hook", name) for name in ("tracer_enter", "tracer_outer", "tracer_inner")]
    caller = [*nops(1), *moves, Op("blr", ("ftrace_graph_func",)), Op("nop"), Op("hook", "tracer_leave")]
    return [
        without_rules(Function("ftrace_caller", caller), kind=FunctionKind.CODE),
        framed("ftrace_graph_func", body, size=32),
    ]


GRAPH: Final = [*nops(1), Op("hook", "grow"), *nops(1), Op("hook", "fill"), *nops(1), Op("hook", "rewrite"), *nops(1)]
"""Function-graph tracing: the entry grows and is filled, then the return address is replaced."""


def start_tracer(
    functions: Sequence[Function], body: Sequence[Op] = (), *, stale: tuple[int, int] = (0, 0), target: str = ""
) -> Cpu:
    """Prepare a run with a tracer on.

    Args:
        functions: as in `start`; those that are traced are `hooked`.
        body: of the tracer; function-graph tracing by default.
        stale: frame and function of an entry that is being written.
        target: where the hook "redirect" sends the task.
    """
    HOOKS.stale, HOOKS.target = stale, target
    cpu = start([*functions, *tracer(body or GRAPH)])
    cpu.program.hooks |= HOOKS.by_name
    return cpu


def preempted() -> list[Op]:
    """A tracer whose end is a place where the task is switched out, but for interrupts."""
    return [*GRAPH, Op("cbz", (2, lambda cpu: cpu.on_irq_stack)), *call("preempt_schedule_notrace"), *nops(1)]
