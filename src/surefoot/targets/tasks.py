"""Layer 7: the task list of a Linux target, walked with raw reads at offsets from debug information.

Invariant: a corrupt list ends the walk with a note; it never raises and never runs for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from surefoot.targets.layouts import KernelLayout
from surefoot.targets.reading import DrgnMemory, u32_at, u64_at

__all__ = ["Cpu", "RawTask", "is_kthread", "list_tasks", "online_cpus", "state_letter"]

_MAX_TASKS: Final = 4 << 20
"""PID_MAX_LIMIT (include/linux/threads.h): a list that is longer runs in a circle."""

# include/linux/sched.h of Linux 7.3. Macros leave no trace in debug information; the reported states have had
# these values since v4.14 ("sched/debug: Add explicit TASK_IDLE printing").
_TASK_REPORT: Final = 0x7F
_TASK_IDLE: Final = 0x402
_TASK_RTLOCK_WAIT: Final = 0x1000
_TASK_FROZEN: Final = 0x8000
_STATES: Final = "RSDTtXZPI"
_PF_KTHREAD: Final = 0x00200000


class Cpu(NamedTuple):
    """An online CPU.

    Attributes:
        number: its logical number.
        offset: what is added to the address of a per-CPU variable to get this CPU's copy.
        curr: struct task_struct * of the task that the scheduler last chose; 0 if unreadable.
        idle: struct task_struct * of its idle task; 0 if unreadable.
    """

    number: int
    offset: int
    curr: int
    idle: int


@dataclass(frozen=True, slots=True)
class RawTask:
    """One struct task_struct, as it lies in memory.

    Attributes:
        addr: its address.
        block: its bytes.
        idle: it is the idle task of a CPU.
    """

    addr: int
    block: bytes
    idle: bool


def online_cpus(memory: DrgnMemory, layout: KernelLayout, bias: int) -> tuple[list[Cpu], list[str]]:
    """List the online CPUs.

    Args:
        memory: the target's memory.
        layout: of its kernel.
        bias: KASLR offset.

    Returns:
        the CPUs in ascending order, and notes on what could not be read.
    """
    symbols = layout.symbols
    where = [symbols.get(name) for name in ("__cpu_online_mask", "__per_cpu_offset", "runqueues")]
    mask_addr, offsets_addr, rq_addr = (0 if addr is None else addr + bias for addr in where)
    if not (mask_addr and offsets_addr and rq_addr):
        return [], ["the kernel image names no per-CPU data: nothing is known about running tasks"]
    size = layout.numbers.get("sizeof.cpumask", 8)
    mask = int.from_bytes(memory.read(mask_addr, size) or b"", "little")
    offsets = memory.read(offsets_addr, 8 * mask.bit_length()) or b""
    cpus: list[Cpu] = []
    for number in range(mask.bit_length()):
        offset = u64_at(offsets, 8 * number)
        if mask >> number & 1 and offset:
            rq = (rq_addr + offset) % 2**64
            curr, idle = memory.u64(rq + layout["rq.curr"]), memory.u64(rq + layout["rq.idle"])
            cpus.append(Cpu(number, offset, curr or 0, idle or 0))
    return cpus, [] if cpus else ["no CPU is marked online: nothing is known about running tasks"]


def list_tasks(
    memory: DrgnMemory, layout: KernelLayout, bias: int, cpus: Iterable[Cpu]
) -> tuple[list[RawTask], list[str]]:
    """Give all tasks: every thread of every process, kernel threads, and the idle tasks of the online CPUs.

    Args:
        memory: the target's memory.
        layout: of its kernel.
        bias: KASLR offset.
        cpus: from `online_cpus`.

    Returns:
        the tasks, idle tasks first, and notes on lists that could not be followed to their end.
    """
    notes: list[str] = []
    found: dict[int, RawTask] = {}
    for cpu in cpus:
        block = memory.read(cpu.idle, layout["sizeof.task"]) if cpu.idle else None
        if block is None:
            notes.append(f"the idle task of CPU {cpu.number} cannot be read")
        else:
            found[cpu.idle] = RawTask(cpu.idle, block, idle=True)
    init = layout.symbols["init_task"] + bias
    # tasks: include/linux/sched/signal.h for_each_process; thread_node: for_each_thread.
    for leader in _follow(memory, init + layout["task.tasks"], layout["task.tasks"], notes, "task list"):
        if leader == init or not _add(memory, layout, found, leader, notes):
            continue
        signal = u64_at(found[leader].block, layout["task.signal"])
        if not signal:  # a dead process that is about to leave the list has no threads any more
            continue
        head = signal + layout["signal.thread_head"]
        for thread in _follow(memory, head, layout["task.thread_node"], notes, "thread list"):
            if thread not in found:
                _add(memory, layout, found, thread, notes)
    return list(found.values()), notes


def _follow(memory: DrgnMemory, head: int, offset: int, notes: list[str], what: str) -> Iterator[int]:
    """Walk a struct list_head and give the structs that its nodes lie in, the head left out."""
    seen = 0
    node = memory.u64(head)
    while node != head:
        if not node or seen > _MAX_TASKS:
            notes.append(f"the {what} at {head:#x} breaks off after {seen} entries")
            return
        yield (node - offset) % 2**64
        seen += 1
        node = memory.u64(node)


def _add(memory: DrgnMemory, layout: KernelLayout, found: dict[int, RawTask], addr: int, notes: list[str]) -> bool:
    """Read a task; False if it cannot be read."""
    if addr in found:
        return True
    block = memory.read(addr, layout["sizeof.task"])
    if block is None:
        notes.append(f"the task at {addr:#x} cannot be read")
        return False
    found[addr] = RawTask(addr, block, idle=False)
    return True


def state_letter(block: bytes, layout: KernelLayout) -> str:
    """Give the state as `ps` shows it.

    Source:
        include/linux/sched.h: __task_state_index, task_index_to_char (v7.3).
    """
    state, exit_state = u32_at(block, layout["task.state"]), u32_at(block, layout["task.exit_state"])
    report = (state | exit_state) & _TASK_REPORT
    if state & _TASK_IDLE == _TASK_IDLE:
        return "I"
    if state & (_TASK_RTLOCK_WAIT | _TASK_FROZEN):
        return "D"
    return _STATES[report.bit_length()]


def is_kthread(block: bytes, layout: KernelLayout) -> bool:
    """Whether a task is a kernel thread (PF_KTHREAD, include/linux/sched.h)."""
    return bool(u32_at(block, layout["task.flags"]) & _PF_KTHREAD)
