"""A little arm64 kernel memory, assembled by hand: tasks, CPUs, modules and tracing lists at made-up offsets.

The offsets differ from those of any real kernel on purpose: what passes here does not lean on remembered numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

import numpy as np

from surefoot.image.livetext import Mechanisms
from surefoot.targets.layouts import KernelLayout
from surefoot.targets.reading import DrgnMemory

NUMBERS: Final = {
    "sizeof.task": 512,
    "task.stack": 8,
    "task.state": 16,
    "task.exit_state": 20,
    "task.flags": 24,
    "task.on_cpu": 28,
    "task.cpu": 32,
    "task.pid": 40,
    "task.tgid": 44,
    "task.comm": 48,
    "task.comm_size": 16,
    "task.tasks": 72,
    "task.thread_node": 88,
    "task.signal": 104,
    "task.nvcsw": 112,
    "task.nivcsw": 120,
    "task.context_fp": 136,
    "task.context_sp": 144,
    "task.context_pc": 152,
    "task.curr_ret_stack": 160,
    "task.ret_stack": 168,
    "task.kretprobe_instances": 176,
    "signal.thread_head": 24,
    "sizeof.cpumask": 8,
    "rq.curr": 40,
    "rq.idle": 48,
    "sizeof.pt_regs": 320,
    "pt_regs.fp": 232,
    "pt_regs.lr": 240,
    "pt_regs.sp": 248,
    "pt_regs.pc": 256,
    "pt_regs.pstate": 264,
    "pt_regs.stackframe": 296,
    "frame_record_meta.type": 16,
    "sizeof.ret_stack": 32,
    "ret_stack.words": 1,
    "ret_stack.ret": 0,
    "ret_stack.func": 8,
    "ret_stack.fp": 16,
    "ret_stack.retp": 24,
    "kretprobe.llist": 16,
    "kretprobe.ret_addr": 32,
    "kretprobe.fp": 40,
    "sizeof.ftrace_regs": 112,
    "ftrace_regs.pc": 104,
    "sizeof.module": 256,
    "module.state": 0,
    "module.list": 8,
    "module.name": 24,
    "module.name_size": 32,
    "module.mem": 64,
    "module.mem_count": 3,
    "sizeof.module_memory": 16,
    "module_memory.base": 0,
    "module_memory.size": 8,
    "module.sect_attrs": 160,
    "module.notes_attrs": 168,
    "module.kallsyms": 176,
    "sect_attrs.bin_attrs": 0,
    "sect_attrs.attrs": 16,
    "notes_attrs.attrs": 16,
    "sizeof.bin_attribute": 32,
    "bin_attribute.name": 0,
    "bin_attribute.size": 16,
    "bin_attribute.private": 24,
    "mod_kallsyms.symtab": 0,
    "mod_kallsyms.num_symtab": 8,
    "mod_kallsyms.strtab": 16,
    "mod_mem_type.text": 0,
    "mod_mem_type.init_text": 2,
    "module_state.unformed": 3,
    "overflow_stack.size": 4096,
    "thread_size": 16384,
}

SYMBOLS: Final = {
    "init_task": 0xFFFF_8000_8200_0000,
    "runqueues": 0xFFFF_8000_8210_0000,
    "__per_cpu_offset": 0xFFFF_8000_8211_0000,
    "__cpu_online_mask": 0xFFFF_8000_8212_0000,
    "modules": 0xFFFF_8000_8213_0000,
    "irq_stack_ptr": 0xFFFF_8000_8214_0000,
    "overflow_stack": 0xFFFF_8000_8215_0000,
    "efi_rt_stack_top": 0xFFFF_8000_8216_0000,
}

HEAP: Final = 0xFFFF_0000_0100_0000
STACKS: Final = 0xFFFF_8000_9000_0000


def no_mechanisms() -> Mechanisms:
    """Give the mechanisms of a kernel that never changes its text."""
    empty: dict[str, Any] = {item.name: np.zeros(0, dtype=np.uint64) for item in fields(Mechanisms)}
    return Mechanisms(**(empty | {"repl_words": np.zeros(0, dtype=np.uint32)}))


class FaultError(Exception):
    """What drgn raises for an unreadable address."""


class FakeProgram:
    """Memory behind the one method of drgn's Program that is used: read."""

    def __init__(self) -> None:
        self.blocks: dict[int, bytearray] = {}
        self._next = HEAP

    def put(self, addr: int, data: bytes) -> int:
        """Place bytes; they may not touch other blocks."""
        self.blocks[addr] = bytearray(data)
        return addr

    def alloc(self, size: int) -> int:
        """Place zeros somewhere."""
        addr = self._next
        self._next += (size + 0xFFF) & ~0xFFF
        return self.put(addr, bytes(size))

    def poke(self, addr: int, value: int, size: int = 8) -> None:
        """Store a number."""
        self.write(addr, value.to_bytes(size, "little"))

    def write(self, addr: int, data: bytes) -> None:
        """Store bytes inside a block."""
        for base, block in self.blocks.items():
            if base <= addr and addr + len(data) <= base + len(block):
                block[addr - base : addr - base + len(data)] = data
                return
        raise FaultError(hex(addr))

    def read(self, addr: int, size: int, physical: bool = False) -> bytes:
        """Give bytes that lie in one block."""
        for base, block in self.blocks.items():
            if not physical and base <= addr and addr + size <= base + len(block):
                return bytes(block[addr - base : addr - base + size])
        raise FaultError(hex(addr))


class Kernel:
    """Builds tasks and lists at the offsets of `NUMBERS`."""

    def __init__(
        self, cpus: int = 1, without: tuple[str, ...] = (), numbers: Mapping[str, int] | None = None
    ) -> None:
        """Start with idle tasks only, with some numbers changed and some left out."""
        self.numbers = {name: value for name, value in (NUMBERS | dict(numbers or {})).items() if name not in without}
        self.layout = KernelLayout(self.numbers, SYMBOLS)
        self.prog = FakeProgram()
        self.memory = DrgnMemory(self.prog)
        self.stacks = 0
        self.cpu_offsets = [0x100_0000 * (i + 1) for i in range(cpus)]
        self.prog.put(SYMBOLS["init_task"], bytes(self.numbers["sizeof.task"]))
        self.prog.put(SYMBOLS["modules"], bytes(16))
        self.link(SYMBOLS["modules"], [])
        self.prog.put(SYMBOLS["__cpu_online_mask"], ((1 << cpus) - 1).to_bytes(8, "little"))
        offsets = b"".join(offset.to_bytes(8, "little") for offset in self.cpu_offsets)
        self.prog.put(SYMBOLS["__per_cpu_offset"], offsets)
        self.prog.put(SYMBOLS["efi_rt_stack_top"], bytes(8))
        self.leaders: list[int] = []
        self.idle = []
        for number, offset in enumerate(self.cpu_offsets):
            addr = SYMBOLS["init_task"] if number == 0 else self.prog.alloc(self.numbers["sizeof.task"])
            self.fill(addr, pid=0, comm=f"swapper/{number}", cpu=number, on_cpu=1)
            self.idle.append(addr)
            self.prog.put(SYMBOLS["runqueues"] + offset, bytes(64))
            self.prog.put(SYMBOLS["irq_stack_ptr"] + offset, self.stack().to_bytes(8, "little"))
            self.prog.put(SYMBOLS["overflow_stack"] + offset, bytes(4096))
            self.set_curr(number, addr)
            self.prog.poke(SYMBOLS["runqueues"] + offset + self.numbers["rq.idle"], addr)
        self.link(SYMBOLS["init_task"] + self.numbers["task.tasks"], [])

    def stack(self) -> int:
        """Make a stack; gives its lowest address."""
        addr = STACKS + 0x8000 * self.stacks
        self.stacks += 1
        return self.prog.put(addr, bytes(self.numbers["thread_size"]))

    def set_curr(self, cpu: int, task: int) -> None:
        """Let the scheduler have chosen a task."""
        self.prog.poke(SYMBOLS["runqueues"] + self.cpu_offsets[cpu] + self.numbers["rq.curr"], task)

    def set(self, task: int, name: str, value: int, size: int = 8) -> None:
        """Set a member of a task."""
        self.prog.poke(task + self.numbers[f"task.{name}"], value, size)

    def fill(self, addr: int, *, pid: int, comm: str = "task", cpu: int = 0, on_cpu: int = 0) -> None:
        """Give a task its members, a stack, and a context that points into it."""
        low = self.stack()
        sp = low + self.numbers["thread_size"] - 0x400
        self.set(addr, "stack", low)
        for name, value in (("pid", pid), ("tgid", pid), ("cpu", cpu), ("state", 1), ("flags", 0)):
            self.set(addr, name, value, 4)
        self.set(addr, "on_cpu", on_cpu, 1)
        self.prog.write(addr + self.numbers["task.comm"], comm.encode().ljust(16, b"\0"))
        for name, value in (("context_sp", sp), ("context_fp", sp), ("context_pc", 0xFFFF_8000_8001_0010)):
            self.set(addr, name, value)

    def task(self, pid: int, *, comm: str = "task", cpu: int = 0, on_cpu: int = 0, threads: int = 0) -> int:
        """Add a process with further threads (pid + 1, ...); gives its leader."""
        signal = self.prog.alloc(64)
        members = []
        for number in range(threads + 1):
            addr = self.prog.alloc(self.numbers["sizeof.task"])
            self.fill(addr, pid=pid + number, comm=comm, cpu=cpu, on_cpu=on_cpu)
            self.set(addr, "tgid", pid, 4)
            self.set(addr, "signal", signal)
            members.append(addr)
        nodes = [addr + self.numbers["task.thread_node"] for addr in members]
        self.link(signal + self.numbers["signal.thread_head"], nodes)
        self.leaders.append(members[0])
        head = SYMBOLS["init_task"] + self.numbers["task.tasks"]
        self.link(head, [addr + self.numbers["task.tasks"] for addr in self.leaders])
        return members[0]

    def link(self, head: int, nodes: list[int]) -> None:
        """Join list nodes into a ring behind a head."""
        ring = [head, *nodes]
        for node, after in zip(ring, [*ring[1:], head], strict=True):
            self.prog.poke(node, after)
