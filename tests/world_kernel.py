"""The skeleton of the synthetic kernel, random call graphs on it, and tasks as the walker's columns."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from surefoot.dtypes import Addr, Code
from surefoot.proof.verdicts import Verdict
from surefoot.unwind.code import CodeMap, FunctionKind
from surefoot.unwind.context import Mode
from surefoot.unwind.reasons import Reason
from surefoot.unwind.state import STACK_KINDS, Bookkeeping, Layout, StackKind, Stacks, Start, Tasks
from surefoot.unwind.trace import Traces
from surefoot.unwind.walker import walk
from world import Function, Op, Program, call, dynamic, framed, framed_low, leaf, lr_only, maybe, nops, without_rules
from world_cpu import PAC_MASK, PT_REGS, Cpu, Entry, Stop

__all__ = ["LAYOUT", "Proved", "Task", "World", "kernel", "new_cpu", "random_functions", "random_task", "task_of"]

LAYOUT: Final = Layout(pac_mask=PAC_MASK)
STACK_BASE: Final = 0xFFFF_8000_8800_0000
STACK_SIZE: Final = 8192
IRQ_SIZE: Final = 4096
SLOT: Final = 0x8000


def _on_irq_stack(cpu: Cpu) -> bool:
    return cpu.on_irq_stack


def _not_preempted(cpu: Cpu) -> bool:
    return cpu.on_irq_stack or not cpu.preempt


def _panic_on_irq_stack(cpu: Cpu) -> None:
    if cpu.on_irq_stack:
        raise Stop("panic")


def _pop_fgraph(cpu: Cpu) -> None:
    """Take the entry off, its address by then in the pc of the registers that return_to_handler has saved."""
    cpu.x0 = cpu.fgraph.pop().ret
    cpu.store(cpu.sp + 48 + LAYOUT.ftrace_regs_pc, cpu.x0)


def _assembly(name: str, ops: Sequence[Op], kind: FunctionKind = FunctionKind.CODE) -> Function:
    return without_rules(Function(name, list(ops)), kind=kind)


def skeleton() -> list[Function]:
    """Entry code, scheduler, interrupts and return trampolines, shaped as in arch/arm64/kernel of Linux 7.3."""
    to_irq_stack = [
        Op("cbz", (3, _on_irq_stack)),
        Op("bl", "call_on_irq_stack"),
        Op("cbz", (2, lambda _: True)),
        Op("blr", ("gic_handle_irq",)),
    ]
    preempt = [Op("cbz", (2, _not_preempted)), Op("bl", "preempt_schedule_irq")]
    irq_stack = [Op("stp_pre", 16), Op("add_fp", 0), Op("nop"), Op("mov_sp_x16"), Op("blr", ("gic_handle_irq",))]
    handler = [Op("sub_sp", 112), *nops(6), Op("bl", "ftrace_return_to_handler"), Op("mov_lr_x0"), *nops(4)]
    window = [
        Op("cbz", (3, _on_irq_stack)),
        Op("cbz", (2, None)),
        Op("bl", "preempt_schedule_notrace"),
        Op("nop"),
        Op("hook", "pop_fgraph"),
    ]
    forever = Op("cbz", (-2, lambda _: True))
    func = FunctionKind.FUNC
    return [
        _assembly("el0t_64_sync", [*nops(2), Op("bl", "el0t_64_sync_handler"), Op("brk", 1)]),
        _assembly("el1h_64_irq", [*nops(2), Op("bl", "el1h_64_irq_handler"), Op("nop"), Op("eret")]),
        _assembly("ret_from_fork", [Op("bl", "schedule_tail"), Op("nop"), Op("blr", ("kthread",)), Op("brk", 1)]),
        _assembly("__secondary_switched", [Op("nop"), Op("bl", "secondary_start_kernel"), Op("brk", 1)], func),
        _assembly("call_on_irq_stack", [*irq_stack, Op("mov_sp_fp"), Op("ldp_post", 16), Op("ret")], func),
        _assembly("cpu_switch_to", [*nops(2), Op("ret")], func),
        _assembly("return_to_handler", [*handler, Op("add_sp", 112), Op("ret")]),
        _assembly("__kretprobe_trampoline", [Op("brk", 7), Op("brk", 0x800)]),
        framed("ftrace_return_to_handler", [*nops(1), *window, *nops(1)], size=48),
        framed("el1h_64_irq_handler", call("el1_interrupt"), size=16),
        framed("el1_interrupt", [*to_irq_stack, *preempt, *nops(1)], size=32),
        framed("gic_handle_irq", [*nops(2), *maybe(["f0", "f1", "f2"]), *nops(1)], size=48),
        framed("preempt_schedule_irq", call("__schedule"), size=32),
        framed("preempt_schedule_notrace", call("__schedule"), size=32),
        framed("schedule", [*nops(1), *call("__schedule")], size=32, site=True),
        framed_low("__schedule", [*nops(1), *call("__switch_to")], size=96, at=80),
        framed("__switch_to", [*nops(1), *call("cpu_switch_to")], size=48),
        leaf("schedule_tail", 2),
        framed("el0t_64_sync_handler", call("el0_svc"), size=16),
        framed("el0_svc", [*nops(1), Op("blr", ("f0", "f1", "f2", "f3"))], size=32),
        framed("kthread", [Op("blr", ("f0", "f1", "f2", "f3")), *call("do_exit")], noreturn=True),
        framed("do_exit", [Op("hook", "panic_on_irq_stack"), *call("schedule"), forever], noreturn=True),
        framed("secondary_start_kernel", call("do_idle"), noreturn=True),
        framed("do_idle", [Op("nop"), *call("schedule"), forever], noreturn=True),
    ]


def random_functions(rng: random.Random, count: int = 14) -> list[Function]:
    """A random call graph: every shape of function, direct, indirect and tail calls, recursion."""
    names = [f"f{i}" for i in range(count)]
    result = []
    for name in names:
        shape = rng.choice(("framed", "framed", "framed", "low", "dynamic", "leaf", "lr", "noreturn"))
        body: list[Op] = nops(rng.randrange(2))
        for _ in range(rng.randrange(1, 4)):
            kind = rng.choice(("direct", "direct", "indirect", "block", "nop"))
            if kind == "direct":
                body += maybe(rng.choice(names))
            elif kind == "indirect":
                body += maybe(rng.sample(names, 3))
            elif kind == "block":
                body += [Op("cbz", (3, _on_irq_stack)), *maybe("schedule")]
            body += nops(rng.randrange(2))
        size = 16 * rng.randrange(1, 5)
        if shape == "framed":
            options = {"site": rng.random() < 0.6, "pac": rng.random() < 0.7, "shrink": rng.random() < 0.3}
            branch = rng.choice((None, None, Op("b", rng.choice(names)), Op("br", tuple(rng.sample(names, 2)))))
            result.append(framed(name, body, size=size, tail=branch, **options))
        elif shape == "low":
            result.append(framed_low(name, body, size=size + 32, at=16))
        elif shape == "dynamic":
            result.append(dynamic(name, body, size=size))
        elif shape == "lr":
            result.append(lr_only(name, body))
        elif shape == "noreturn":
            result.append(framed(name, [*body, Op("bl", "do_exit")], noreturn=True))
        else:
            result.append(leaf(name, rng.randrange(1, 4), site=rng.random() < 0.5))
        result[-1].gap = rng.choice((0, 0, 1, 3))
    return result


def kernel(functions: Sequence[Function], redirects: Sequence[tuple[str, str]] = ()) -> Program:
    """Put functions behind the skeleton; f0 to f3 must be among them."""
    given = {f.name for f in functions}
    missing = [leaf(f"f{i}") for i in range(4) if f"f{i}" not in given]
    entry, rest = skeleton()[:2], skeleton()[2:]
    program = Program([*entry, *rest, *functions, *missing], redirects=list(redirects))
    program.hooks |= {"pop_fgraph": _pop_fgraph, "panic_on_irq_stack": _panic_on_irq_stack}
    program.extra_labels["__entry_text_start"] = program.labels["el0t_64_sync"]
    program.extra_labels["__entry_text_end"] = program.labels["ret_from_fork"]
    return program


def new_cpu(program: Program, rng: random.Random, slot: int = 0) -> Cpu:
    """Give a processor with stacks of its own."""
    base = STACK_BASE + slot * SLOT
    return Cpu(program, base + STACK_SIZE, STACK_SIZE, base + SLOT - IRQ_SIZE, rng, IRQ_SIZE)


@dataclass
class Task:
    """What a scenario leaves behind: where the walk starts, memory, bookkeeping and the truth."""

    start: Start
    pc: int
    sp: int
    fp: int
    lr: int
    high: int
    irq_high: int
    memory: dict[int, int]
    fgraph: list[Entry]
    kretprobe: list[Entry]
    truth: list[tuple[int, bool]]
    with_irq: bool
    size: int = STACK_SIZE
    broken: tuple[bool, bool] = (False, False)
    final: int = 0

    def __post_init__(self) -> None:
        self.final = self.final or self.high - PT_REGS + 296


def task_of(cpu: Cpu, *, blocked: bool) -> Task:
    """Stop here: a blocked task, or one that is on a CPU."""
    return Task(
        start=Start.BLOCKED if blocked else Start.REGS,
        pc=cpu.lr if blocked else cpu.pc,
        sp=cpu.sp,
        fp=cpu.fp,
        lr=0 if blocked else cpu.lr,
        high=cpu.high,
        irq_high=cpu.irq_high,
        memory=dict(cpu.memory),
        fgraph=[replace(entry) for entry in reversed(cpu.fgraph)],
        kretprobe=[replace(entry) for entry in reversed(cpu.kretprobe)],
        truth=cpu.truth(blocked=blocked),
        with_irq=not blocked,
    )


def random_task(program: Program, rng: random.Random, slot: int = 0, *, trace: bool = True) -> Task:
    """Run a task to a random place: blocked, preempted or on a CPU, with nested interrupts, traced or not."""
    for _ in range(20):
        task = _try_task(program, rng, slot, trace=trace)
        if task is not None:
            break
    else:
        cpu = new_cpu(program, rng, slot)
        cpu.enter_from_user()
        task = task_of(cpu, blocked=False)
    return task


def _try_task(program: Program, rng: random.Random, slot: int, *, trace: bool) -> Task | None:
    """Run a task to a random place; None where it went back to user space before it came there."""
    cpu = new_cpu(program, rng, slot)
    names = [f.name for f in program.functions if f.name.startswith("f") and f.name[1:].isdigit()]
    if trace:
        sites = [n for n in names if program.ops[program.at(n)].name == "mov_x9_lr"]
        cpu.traced = frozenset(n for n in sites if rng.random() < 0.6)
        cpu.probed = frozenset(n for n in names if rng.random() < 0.2)
    begin = rng.choice(("user", "user", "user", "kthread", "idle"))
    if begin == "user":
        cpu.enter_from_user()
    else:
        cpu.start_kthread("ret_from_fork" if begin == "kthread" else "__secondary_switched")
    cpu.block_skips = rng.randrange(3)
    try:
        cpu.run(rng.randrange(1, 150))
        for _ in range(rng.randrange(3)):
            if not interruptible(cpu):
                cpu.run(200, interruptible)
            cpu.interrupt()
            cpu.preempt = rng.random() < 0.6
            cpu.run(rng.randrange(1, 60))
        if rng.random() < 0.6:
            cpu.block_skips = min(cpu.block_skips, 1)
            cpu.run(3000)
    except Stop as stop:
        return task_of(cpu, blocked=True) if str(stop) == "blocked" else None
    return task_of(cpu, blocked=False)


def interruptible(cpu: Cpu) -> bool:
    """Whether interrupts are let in at pc: ordinary compiled code with room left on the stack."""
    low = cpu.irq_high - cpu.irq_size if cpu.on_irq_stack else cpu.high - cpu.size
    return cpu.program.ops[cpu.pc].rule is not None and cpu.sp - low > 1600


class Proved:
    """Proofs of a program whose rules are all true, as the builder's are unless a test spoils them."""

    def verdict(self, addr: Addr) -> Code:
        """Give PROVEN for every address."""
        return np.full(addr.shape, Verdict.PROVEN, dtype=np.uint8)


@dataclass
class World:
    """A program and tasks on it, as the walker's columns."""

    program: Program
    tasks: list[Task]
    layout: Layout = LAYOUT
    code: CodeMap | None = None
    stacks: Stacks = field(init=False)
    columns: Tasks = field(init=False)

    def __post_init__(self) -> None:
        if self.code is None:
            self.code = self.program.code()
        parts = []
        for task in self.tasks:
            parts.append((task.high - task.size, task.high, StackKind.TASK))
            parts.append((task.irq_high - IRQ_SIZE, task.irq_high, StackKind.IRQ))
        self.stacks = stacks_of(parts, [t.memory for t in self.tasks for _ in range(2)])
        self.columns = columns_of(self.tasks)

    def walk(self, mode: Mode = Mode.HYBRID, *, strict: bool = False) -> Traces:
        """Walk all tasks."""
        assert self.code is not None
        return walk(self.code, self.stacks, self.columns, self.layout, mode=mode, strict=strict)


def stacks_of(parts: Sequence[tuple[int, int, StackKind]], memories: Sequence[dict[int, int]]) -> Stacks:
    """Capture stacks whole; words never written are zero."""
    low = np.array([part[0] for part in parts], dtype=np.uint64)
    high = np.array([part[1] for part in parts], dtype=np.uint64)
    sizes = [(part[1] - part[0]) // 8 for part in parts]
    words = np.zeros(sum(sizes), dtype=np.uint64)
    offsets = np.cumsum([0, *sizes])[:-1].astype(np.int64)
    for (bottom, top, _), offset, memory in zip(parts, offsets.tolist(), memories, strict=True):
        for addr, value in memory.items():
            if bottom <= addr < top:
                words[offset + (addr - bottom) // 8] = value
    kinds = np.array([part[2] for part in parts], dtype=np.uint8)
    return Stacks(low, high, kinds, low.copy(), offsets, words)


def columns_of(tasks: Sequence[Task]) -> Tasks:
    """Write tasks down as columns; stack 2i is the task stack of task i, 2i + 1 its CPU's IRQ stack."""
    stacks = np.full((len(tasks), STACK_KINDS), -1, dtype=np.int32)
    for i, task in enumerate(tasks):
        stacks[i, StackKind.TASK] = 2 * i
        if task.with_irq:
            stacks[i, StackKind.IRQ] = 2 * i + 1
    columns = {
        name: np.array([getattr(task, name) for task in tasks], dtype=np.uint64) for name in ("pc", "sp", "fp", "lr")
    }
    return Tasks(
        start=np.array([task.start for task in tasks], dtype=np.uint8),
        stacks=stacks,
        final_record=np.array([task.final for task in tasks], dtype=np.uint64),
        fgraph=_book([t.fgraph for t in tasks], [t.broken[0] for t in tasks]),
        kretprobe=_book([t.kretprobe for t in tasks], [t.broken[1] for t in tasks]),
        **columns,
    )


def _book(lists: Sequence[Sequence[Entry]], broken: Sequence[bool]) -> Bookkeeping:
    flat = [entry for entries in lists for entry in entries]
    first = np.cumsum([0, *(len(entries) for entries in lists)]).astype(np.int64)
    ret, key, func = (np.array([getattr(e, n) for e in flat], dtype=np.uint64) for n in ("ret", "key", "func"))
    return Bookkeeping(first, ret, key, func, np.array(broken, dtype=np.bool_))


def frames_of(traces: Traces, task: int) -> list[tuple[int, bool]]:
    """Give a trace in the form of the truth."""
    part = slice(int(traces.first[task]), int(traces.first[task + 1]))
    return [(int(pc), not is_ra) for pc, is_ra in zip(traces.pc[part], traces.is_ra[part], strict=True)]


def reason_of(traces: Traces, task: int = 0) -> Reason:
    """Give the reason of a task."""
    return Reason(int(traces.reason[task]))
