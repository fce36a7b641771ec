"""Layer 7: which task a CPU's registers belong to (pure).

The registers of a CPU caught at an arbitrary instruction belong to the task on whose stack they run. That is
read from SP and nothing else: while the scheduler switches, rq->curr already names the next task although the
CPU still runs on the stack of the previous one (kernel/sched/core.c: __schedule), and on_cpu is set for both.

| SP of the CPU | registers belong to |
|---|---|
| on the task stack of T | T, whatever rq->curr says |
| on the IRQ, overflow or SDEI stack of CPU c | rq->curr of c: those stacks are entered by exceptions only |
| on the EFI stack, which all CPUs share | the task whose own SP the EFI wrapper has saved at the stack's top |
| CPU at exception level 0 | one of the CPUs that no other registers account for |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from surefoot.targets.dumpfile import CpuRegisters
from surefoot.unwind.state import Start

__all__ = ["CpuStacks", "EfiStack", "OnCpu", "TaskStack", "place_registers"]


@dataclass(frozen=True, slots=True)
class TaskStack:
    """What placing needs to know of a task.

    Attributes:
        task: address of the struct task_struct.
        low: lowest address of the task stack; 0 for a task without one.
        high: first address above it.
        cpu: the CPU that the task last ran on.
        on_cpu: task_struct.on_cpu.
        kthread: it never runs at exception level 0.
    """

    task: int
    low: int
    high: int
    cpu: int
    on_cpu: bool
    kthread: bool


@dataclass(frozen=True, slots=True)
class CpuStacks:
    """A CPU's task and its stacks.

    Attributes:
        number: logical number of the CPU.
        curr: rq->curr.
        stacks: (low, high) of the IRQ, overflow and SDEI stacks.
    """

    number: int
    curr: int
    stacks: Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class EfiStack:
    """The stack of EFI runtime services.

    Attributes:
        low: lowest address.
        high: first address above it.
        task_sp: SP of the task that last called firmware, as the wrapper saved it.
    """

    low: int
    high: int
    task_sp: int


@dataclass(slots=True)
class OnCpu:
    """The outcome.

    Attributes:
        start: task address -> REGS, USER, SWITCHING or NO_REGS, for every task that a CPU may be running.
        registers: task address -> its registers, where `start` is REGS or USER.
        cpu: task address -> CPU whose IRQ, overflow, SDEI and EFI stacks the task may be on.
        notes: registers that fit no task.
    """

    start: dict[int, Start] = field(default_factory=dict)
    registers: dict[int, CpuRegisters] = field(default_factory=dict)
    cpu: dict[int, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def place_registers(
    tasks: Sequence[TaskStack],
    cpus: Sequence[CpuStacks],
    registers: Sequence[CpuRegisters],
    efi: EfiStack | None = None,
) -> OnCpu:
    """Give every running task its registers, or say why it has none.

    Args:
        tasks: all tasks.
        cpus: the online CPUs.
        registers: as many CPUs' registers as there are, in any order.
        efi: the EFI stack, if the kernel has one.

    Returns:
        a start for each task that is some CPU's rq->curr, has on_cpu set, or owns a stack that a CPU runs on.
    """
    result = OnCpu()
    by_addr = {task.task: task for task in tasks}
    unplaced = {cpu.number: cpu for cpu in cpus}
    waiting = []
    for regs in registers:
        if regs.is_user:
            waiting.append(regs)
            continue
        task, number = _owner(tasks, cpus, regs.sp, efi)
        if task is None or task in result.registers or number not in unplaced:
            result.notes.append(f"a CPU at pc {regs.pc:#x} with sp {regs.sp:#x} runs on no known stack")
            continue
        del unplaced[number]
        result.registers[task] = regs
        result.start[task] = Start.REGS
        result.cpu[task] = number
    # The CPUs that remain run user code if the registers say so of as many CPUs; which is which does not
    # matter, no kernel function is live on any of them.
    all_user = len(waiting) == len(unplaced)
    for (number, cpu), regs in zip(unplaced.items(), waiting, strict=False) if all_user else ():
        current = by_addr.get(cpu.curr)
        if current is not None and not current.kthread and cpu.curr not in result.start:
            result.start[cpu.curr] = Start.USER
            result.registers[cpu.curr] = regs
            result.cpu[cpu.curr] = number
    _mark_rest(tasks, cpus, result, {} if all_user else unplaced)
    return result


def _mark_rest(
    tasks: Sequence[TaskStack], cpus: Sequence[CpuStacks], result: OnCpu, unplaced: Mapping[int, CpuStacks]
) -> None:
    """Mark the tasks that run, or are about to, but whose registers are not at hand."""
    current = {cpu.curr: cpu.number for cpu in cpus}
    for task in tasks:
        if task.task in result.start or not (task.on_cpu or task.task in current):
            continue
        number = current.get(task.task, task.cpu)
        result.start[task.task] = Start.NO_REGS if number in unplaced or not cpus else Start.SWITCHING


def _owner(
    tasks: Sequence[TaskStack], cpus: Sequence[CpuStacks], sp: int, efi: EfiStack | None
) -> tuple[int | None, int]:
    """Give the task that runs with this kernel stack pointer, and its CPU; (None, -1) for none."""
    for cpu in cpus:
        if any(low <= sp <= high for low, high in cpu.stacks):
            return cpu.curr or None, cpu.number
    if efi is not None and efi.low <= sp <= efi.high:
        sp = efi.task_sp
    for task in tasks:
        if task.low and task.low <= sp <= task.high:  # SP at the very top: nothing has been pushed yet
            number = next((cpu.number for cpu in cpus if cpu.curr == task.task), task.cpu)
            return task.task, number
    return None, -1
