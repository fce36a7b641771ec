"""Layer 7: from raw tasks and registers to the columns that a walk starts from.

Invariant: every task gets a row and a `Start`, whatever its memory holds; nothing here raises because of the
target's contents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from surefoot.targets.bookkeeping import read_fgraph, read_kretprobes
from surefoot.targets.capture import TaskList
from surefoot.targets.layouts import KernelLayout
from surefoot.targets.placing import CpuStacks, OnCpu, TaskStack
from surefoot.targets.reading import DrgnMemory, u32_at, u64_at
from surefoot.targets.tasks import Cpu, RawTask, is_kthread, state_letter
from surefoot.unwind.state import STACK_KINDS, StackKind, Stacks, Start, Tasks

__all__ = ["describe", "gather", "stacks_of_cpu", "task_stacks"]

_PER_CPU_POINTERS = (
    (StackKind.IRQ, "irq_stack_ptr"),
    (StackKind.SDEI_NORMAL, "sdei_stack_normal_ptr"),
    (StackKind.SDEI_CRITICAL, "sdei_stack_critical_ptr"),
)
"""Stacks of THREAD_SIZE whose lowest address a per-CPU variable holds (arch/arm64/kernel/irq.c, sdei.c)."""


def stacks_of_cpu(memory: DrgnMemory, layout: KernelLayout, bias: int, cpu: Cpu) -> dict[StackKind, tuple[int, int]]:
    """Give (low, high) of the IRQ, overflow, SDEI and EFI stacks of one CPU; those it lacks are left out.

    Source:
        arch/arm64/include/asm/stacktrace.h: stackinfo_get_irq, _overflow, _sdei_normal, _sdei_critical, _efi.
    """
    size, symbols = layout["thread_size"], layout.symbols
    found = {}
    for kind, name in _PER_CPU_POINTERS:
        addr = symbols.get(name)
        low = memory.u64((addr + bias + cpu.offset) % 2**64) if addr else None
        if low and _fits(low, size):
            found[kind] = (low, low + size)
    overflow, length = symbols.get("overflow_stack"), layout.numbers.get("overflow_stack.size", 0)
    if overflow and length:
        low = (overflow + bias + cpu.offset) % 2**64
        if _fits(low, length):
            found[StackKind.OVERFLOW] = (low, low + length)
    efi = symbols.get("efi_rt_stack_top")
    top = memory.u64(efi + bias) if efi else None
    if top and top > size and _fits(top - size, size):
        found[StackKind.EFI] = (top - size, top)
    return found


def _fits(low: int, size: int) -> bool:
    """Whether [low, low + size) can be a kernel stack."""
    return low >= 2**63 and low + size < 2**64 and (low | size) % 8 == 0


def task_stacks(layout: KernelLayout, tasks: Sequence[RawTask]) -> list[TaskStack]:
    """Give for each task what `place_registers` needs."""
    size = layout["thread_size"]
    result = []
    for task in tasks:
        low = u64_at(task.block, layout["task.stack"])
        good = bool(low) and _fits(low, size)
        result.append(
            TaskStack(
                task=task.addr,
                low=low if good else 0,
                high=low + size if good else 0,
                cpu=u32_at(task.block, layout["task.cpu"]),
                on_cpu=bool(task.block[layout["task.on_cpu"]]),
                kthread=is_kthread(task.block, layout),
            )
        )
    return result


def describe(layout: KernelLayout, tasks: Sequence[RawTask], on_cpu: OnCpu) -> TaskList:
    """Give what people want to know of the tasks."""

    def column(name: str) -> NDArray[np.int32]:
        values = [u32_at(task.block, layout[name]) for task in tasks]
        return np.array(values, dtype=np.uint32).astype(np.int32)

    comm_at, comm_size = layout["task.comm"], layout["task.comm_size"]
    comms = (task.block[comm_at : comm_at + comm_size].split(b"\0")[0] for task in tasks)
    switches = [
        u64_at(task.block, layout["task.nvcsw"]) + u64_at(task.block, layout["task.nivcsw"]) for task in tasks
    ]
    running = {addr for addr, start in on_cpu.start.items() if start in {Start.REGS, Start.USER}}
    flags = (bool(task.block[layout["task.on_cpu"]]) or task.addr in running for task in tasks)
    return TaskList(
        pid=column("task.pid"),
        tgid=column("task.tgid"),
        comm=tuple(comm.decode("utf-8", "backslashreplace") for comm in comms),
        state=tuple(state_letter(task.block, layout) for task in tasks),
        cpu=column("task.cpu"),
        on_cpu=np.fromiter(flags, dtype=np.bool_, count=len(tasks)),
        kthread=np.array([is_kthread(task.block, layout) for task in tasks], dtype=np.bool_),
        switches=np.array([value % 2**64 for value in switches], dtype=np.uint64),
    )


@dataclass(slots=True)
class _StackList:
    """The columns of `Stacks` while they grow."""

    memory: DrgnMemory
    rows: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    pieces: list[NDArray[np.uint64]] = field(default_factory=list)
    words: int = 0

    def add(self, kind: StackKind, low: int, high: int, since: int) -> int:
        """Copy a stack from `since` up; gives its index."""
        captured, words = self.memory.words(since, high) if since < high else (high, np.zeros(0, dtype=np.uint64))
        self.rows.append((low, high, kind, captured, self.words))
        self.pieces.append(words)
        self.words += words.size
        return len(self.rows) - 1

    def columns(self) -> Stacks:
        low, high, kind, captured, word_off = zip(*self.rows, strict=True) if self.rows else ((),) * 5
        return Stacks(
            np.array(low, dtype=np.uint64),
            np.array(high, dtype=np.uint64),
            np.array(kind, dtype=np.uint8),
            np.array(captured, dtype=np.uint64),
            np.array(word_off, dtype=np.int64),
            np.concatenate(self.pieces) if self.pieces else np.zeros(0, dtype=np.uint64),
        )


def gather(
    memory: DrgnMemory,
    layout: KernelLayout,
    tasks: Sequence[RawTask],
    on_cpu: OnCpu,
    cpus: Sequence[tuple[CpuStacks, dict[StackKind, tuple[int, int]]]],
) -> tuple[Tasks, Stacks]:
    """Copy the registers, stacks and bookkeeping of tasks.

    Args:
        memory: the target's memory.
        layout: of its kernel.
        tasks: n tasks.
        on_cpu: from `place_registers` over all tasks.
        cpus: for each online CPU its number and its stacks.

    Returns:
        the tasks and the stacks that they may be on. Of a task stack everything from the saved stack pointer up
        is copied; all of it if that does not point into it or the task runs on another stack.
    """
    count = len(tasks)
    start = np.zeros(count, dtype=np.uint8)
    registers = np.zeros((4, count), dtype=np.uint64)
    final = np.zeros(count, dtype=np.uint64)
    index = np.full((count, STACK_KINDS), -1, dtype=np.int32)
    stacks = _StackList(memory)
    by_cpu = {cpu.number: kinds for cpu, kinds in cpus}
    record = layout["pt_regs.stackframe"] - layout["sizeof.pt_regs"]
    for i, (task, stack) in enumerate(zip(tasks, task_stacks(layout, tasks), strict=True)):
        begin = on_cpu.start.get(task.addr, Start.BLOCKED if stack.low else Start.NO_STACK)
        start[i] = begin
        registers[:, i] = _registers(layout, task, on_cpu, begin)
        sp = int(registers[1, i])
        if stack.low:
            # task_pt_regs(task)->stackframe: arch/arm64/include/asm/processor.h: task_pt_regs.
            final[i] = stack.high + record
            if begin in {Start.BLOCKED, Start.REGS}:
                since = sp & ~7 if stack.low <= sp <= stack.high else stack.low
                index[i, StackKind.TASK] = stacks.add(StackKind.TASK, stack.low, stack.high, since)
            else:
                index[i, StackKind.TASK] = stacks.add(StackKind.TASK, stack.low, stack.high, stack.high)
        if begin == Start.REGS:
            for kind, (low, high) in by_cpu.get(on_cpu.cpu[task.addr], {}).items():
                if kind == StackKind.EFI and not stack.low <= (memory.u64(high - 8) or 0) <= stack.high:
                    continue  # last used by another task (stacktrace.h: stackinfo_get_efi)
                index[i, kind] = stacks.add(kind, low, high, low)
    fgraph, kretprobe = read_fgraph(memory, layout, tasks), read_kretprobes(memory, layout, tasks)
    pc, sp_column, fp, lr = registers
    return Tasks(start, pc, sp_column, fp, lr, index, final, fgraph, kretprobe), stacks.columns()


def _registers(layout: KernelLayout, task: RawTask, on_cpu: OnCpu, begin: Start) -> tuple[int, int, int, int]:
    """Give pc, sp, fp and lr of a task; zeros where its start says that nothing is known."""
    if begin == Start.BLOCKED:
        pc, sp, fp = (u64_at(task.block, layout[f"task.context_{name}"]) for name in ("pc", "sp", "fp"))
        return pc, sp, fp, 0
    regs = on_cpu.registers.get(task.addr)
    if begin in {Start.REGS, Start.USER} and regs is not None:
        return regs.pc, regs.sp, regs.regs[29], regs.regs[30]
    return 0, 0, 0, 0
