"""Layer 7: the emulated machine as a target: its tasks, stacks and bookkeeping at one instant.

Invariant: everything is read from the machine's memory and registers, as from any target; the ground truth is
never asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from surefoot.dtypes import Insn, Mask, Row32
from surefoot.machine.board import Board, Registers
from surefoot.machine.loader import KernelFile
from surefoot.unwind.code import CodeMap
from surefoot.unwind.state import STACK_KINDS, Bookkeeping, Layout, StackKind, Stacks, Start, Tasks

__all__ = ["Entry", "Instant", "Machine", "TaskBlock", "TaskColumns", "join_books", "read_fgraph", "read_kretprobes"]

_STATES: Final = {0: "R", 1: "S", 2: "D", 16: "X"}
_FREE: Final = 64
_KTHREAD: Final = 1
_DISTANCE: Final = 0x3FF
_BITMAP: Final = 1 << 10
_MAX_INSTANCES: Final = 64
_INSTANCE_RET: Final = 16
_INSTANCE_FP: Final = 24
"""Offsets from the list node inside struct kretprobe_instance (kernel/kprobes.c asserts them)."""

Entry = tuple[int, int, int]
"""ret, key, func of a rewritten return address."""


@dataclass(frozen=True, slots=True)
class TaskColumns:
    """What people want to know of the tasks; n entries, in the order of `Tasks`.

    Attributes:
        pid: (n,) int32.
        comm: (n) names.
        state: (n) letters as `ps` shows them.
        on_cpu: (n,) bool, the CPU runs it.
        kthread: (n,) bool.
        switches: (n,) uint64, context switches so far.
        slot: (n,) int32, which stack the task has.
        patch_state: (n,) int32, -1 outside transitions.
    """

    pid: Row32
    comm: tuple[str, ...]
    state: tuple[str, ...]
    on_cpu: Mask
    kthread: Mask
    switches: np.ndarray[tuple[int], np.dtype[np.uint64]]
    slot: Row32
    patch_state: Row32


@dataclass(frozen=True)
class Instant:
    """The machine at one instant, for the walker and for people.

    Attributes:
        name: of the target, for headings.
        release: of its kernel.
        build_id: of its kernel, lower-case hexadecimal.
        info: what people want to know of the tasks.
        tasks: what the walk starts from.
        stacks: stack memory.
        layout: structure offsets.
        code: functions, words, rules.
        notes: empty; nothing is ever missing here.
    """

    name: str
    release: str
    build_id: str
    info: TaskColumns
    tasks: Tasks
    stacks: Stacks
    layout: Layout
    code: CodeMap
    notes: tuple[str, ...] = ()


def read_fgraph(read: Callable[[int, int], bytes], stack: int, top: int, words: int) -> tuple[list[Entry], bool]:
    """Read a function-graph return stack, newest entry first.

    Args:
        read: reads memory.
        stack: address of the task's return stack.
        top: curr_ret_stack.
        words: words of one frame.

    Returns:
        the entries, and whether the stack is broken.
    """
    if not top:
        return [], False
    if not stack or not 0 < top <= 512:
        return [], True
    block = np.frombuffer(read(stack, 8 * top), dtype="<u8").tolist()
    found: list[Entry] = []
    while top > 0:
        control = block[top - 1]
        base = top - 1 - (control & _DISTANCE)
        if control & _DISTANCE != words or base < 0:
            return found, True
        if control & _BITMAP:
            found.append((block[base], block[base + 3], block[base + 1]))
        top = base
    return found, False


def read_kretprobes(read: Callable[[int, int], bytes], node: int) -> tuple[list[Entry], bool]:
    """Read a list of kretprobe instances, newest first; see `read_fgraph`."""
    found: list[Entry] = []
    while node:
        if len(found) >= _MAX_INSTANCES:
            return found, True
        words = np.frombuffer(read(node, _INSTANCE_FP + 8), dtype="<u8").tolist()
        found.append((words[_INSTANCE_RET // 8], words[_INSTANCE_FP // 8], 0))
        node = words[0]
    return found, False


def join_books(books: list[tuple[list[Entry], bool]]) -> Bookkeeping:
    """Join the lists of n tasks into columns."""
    entries = [entry for found, _ in books for entry in found]
    columns = np.array(entries, dtype=np.uint64).reshape(-1, 3)
    first = np.cumsum(np.array([0, *(len(found) for found, _ in books)], dtype=np.int64))
    broken = np.array([bad for _, bad in books], dtype=np.bool_)
    return Bookkeeping(first, columns[:, 0].copy(), columns[:, 1].copy(), columns[:, 2].copy(), broken)


@dataclass(frozen=True, slots=True)
class TaskBlock:
    """One task_struct.

    Attributes:
        addr: where it is.
        block: its bytes.
        slot: which stack the task has.
    """

    addr: int
    block: bytes
    slot: int

    def word(self, offset: int) -> int:
        """Give eight bytes as an unsigned number."""
        return int.from_bytes(self.block[offset : offset + 8], "little")

    def half(self, offset: int) -> int:
        """Give four bytes as a signed number."""
        return int.from_bytes(self.block[offset : offset + 4], "little", signed=True)


class Machine:
    """The emulated machine as the walker's target.

    Attributes:
        board: the machine itself.
        kernel: what it runs.
    """

    def __init__(self, board: Board) -> None:
        self.board = board
        self.kernel: KernelFile = board.kernel

    @property
    def name(self) -> str:
        """Name for headings."""
        return f"emulated machine ({self.kernel.variant}, seed {self.board.seed})"

    def live_text(self) -> list[tuple[int, Insn]]:
        """Read the executable ranges."""
        read = self.board.read
        return [(addr, np.frombuffer(read(addr, 4 * words.size), dtype="<u4")) for addr, words in self.kernel.text]

    def code(self, *, proved: bool = True) -> CodeMap:
        """Give the code as it is in memory now, with or without the proofs of its rules."""
        return self.kernel.code(self.live_text(), proved=proved, redirects=self._redirects())

    def _redirects(self) -> np.ndarray[tuple[int, int], np.dtype[np.uint64]]:
        """Read which functions live patches redirect, and to where."""
        kernel = self.kernel
        base, size = kernel.symbol("klp_funcs"), kernel["klp_func_size"]
        words = np.frombuffer(self.board.read(base, size * kernel["klp_funcs"]), dtype="<u8")
        at = np.array([kernel["klp_func_old"], kernel["klp_func_new"]]) >> 3
        pairs = words.reshape(-1, size >> 3)[:, at].astype(np.uint64)
        return np.asarray(pairs[pairs[:, 0] != 0], dtype=np.uint64)

    def control(self, name: str, value: int | None = None) -> int:
        """Read, and set if a value is given, one of the words by which the kernel is told what to do."""
        addr = self.kernel.symbol("machine_control") + self.kernel[f"control_{name}"]
        if value is not None:
            self.board.write_u64(addr, value)
        return self.board.read_u64(addr)

    def read_tasks(self) -> list[TaskBlock]:
        """Give the tasks that exist; the idle task first."""
        kernel, read = self.kernel, self.board.read
        size, base = kernel["task_size"], kernel.symbol("tasks")
        addrs = [kernel.symbol("init_task"), *(base + i * size for i in range(kernel["nr_tasks"]))]
        found = []
        for addr in addrs:
            task = TaskBlock(addr, read(addr, size), 0)
            slot = (task.word(kernel["task_stack"]) - kernel["stack_area"]) // kernel["stack_slot"]
            exists = task.half(kernel["task_pid"]) and task.half(kernel["task_state"]) != _FREE
            if addr == addrs[0] or (exists and slot > 0):
                found.append(TaskBlock(addr, task.block, slot))
        return found

    def _current(self, registers: Registers) -> tuple[int, bool]:
        """Give the address of the task that the CPU runs, and whether the CPU is between two tasks."""
        kernel = self.kernel
        if registers.user:
            return self.board.read_u64(kernel.symbol("entry_task")), False
        current = self.board.current
        size, first = kernel["task_size"], kernel.symbol("tasks")
        is_task = current == kernel.symbol("init_task") or 0 <= current - first < size * kernel["nr_tasks"]
        if not is_task:  # entry code that has not loaded it yet
            return self.board.read_u64(kernel.symbol("entry_task")), False
        stack = self.board.read_u64(current + kernel["task_stack"])
        on_task = stack < registers.sp <= stack + kernel["thread_size"]
        area, span = kernel["stack_area"], kernel["stack_slot"] * (kernel["nr_tasks"] + 1)
        return current, area <= registers.sp < area + span and not on_task

    def running(self) -> int:
        """Give the address of the task that the CPU runs."""
        return self._current(self.board.registers)[0]

    def instant(self, code: CodeMap | None = None) -> Instant:
        """Copy everything a walk needs.

        Args:
            code: the code, if it is at hand; else it is read.
        """
        registers, kernel = self.board.registers, self.kernel
        tasks = self.read_tasks()
        current, between = self._current(registers)
        running = [task.addr == current for task in tasks]
        size = kernel["thread_size"]
        bounds = [(task.word(kernel["task_stack"]), size, StackKind.TASK) for task in tasks]
        bounds.append((kernel["irq_stack"], kernel["irq_stack_size"], StackKind.IRQ))
        bounds.append((kernel.symbol("overflow_stack"), kernel["overflow_stack_size"], StackKind.OVERFLOW))
        columns = np.full((len(tasks), STACK_KINDS), -1, dtype=np.int32)
        columns[:, StackKind.TASK] = np.arange(len(tasks))
        columns[running, StackKind.IRQ] = len(tasks)
        columns[running, StackKind.OVERFLOW] = len(tasks) + 1
        start = [self._start(task, registers, current, between=between) for task in tasks]
        return Instant(
            name=self.name,
            release="surefoot-1",
            build_id=kernel.image.build_id,
            info=self._describe(tasks, running),
            tasks=self._columns(tasks, start, registers, columns),
            stacks=self._stacks(bounds),
            layout=kernel.layout(),
            code=code or self.code(),
        )

    def _start(self, task: TaskBlock, registers: Registers, current: int, *, between: bool) -> Start:
        """Tell how a task's walk begins."""
        stack = task.word(self.kernel["task_stack"])
        holds_sp = stack < registers.sp <= stack + self.kernel["thread_size"]
        if between and (task.addr == current or holds_sp):
            return Start.SWITCHING
        if task.addr != current:
            return Start.BLOCKED
        return Start.USER if registers.user else Start.REGS

    def _columns(self, tasks: list[TaskBlock], start: list[Start], registers: Registers, stacks: Row32) -> Tasks:
        kernel = self.kernel
        live = [each is Start.REGS for each in start]

        def column(name: str, of_cpu: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
            saved = [task.word(kernel[f"task_cpu_context_{name}"]) for task in tasks]
            return np.array([of_cpu if on else word for on, word in zip(live, saved, strict=True)], dtype=np.uint64)

        final = kernel["thread_size"] - kernel["pt_regs_size"] + kernel["pt_regs_stackframe"]
        lr = np.array([registers.lr if on else 0 for on in live], dtype=np.uint64)
        return Tasks(
            start=np.array(start, dtype=np.uint8),
            pc=column("pc", registers.pc),
            sp=column("sp", registers.sp),
            fp=column("fp", registers.fp),
            lr=lr,
            stacks=stacks,
            final_record=np.array([task.word(kernel["task_stack"]) + final for task in tasks], dtype=np.uint64),
            fgraph=join_books([self._fgraph(task) for task in tasks]),
            kretprobe=join_books([self._kretprobes(task) for task in tasks]),
        )

    def _fgraph(self, task: TaskBlock) -> tuple[list[Entry], bool]:
        kernel = self.kernel
        stack, top = task.word(kernel["task_ret_stack"]), task.half(kernel["task_curr_ret_stack"])
        return read_fgraph(self.board.read, stack, top, kernel["frame_words"])

    def _kretprobes(self, task: TaskBlock) -> tuple[list[Entry], bool]:
        return read_kretprobes(self.board.read, task.word(self.kernel["task_kretprobe_instances"]))

    def _stacks(self, bounds: list[tuple[int, int, StackKind]]) -> Stacks:
        low = np.array([base for base, _, _ in bounds], dtype=np.uint64)
        sizes = np.array([size for _, size, _ in bounds], dtype=np.uint64)
        words = np.concatenate([np.frombuffer(self.board.read(base, size), dtype="<u8") for base, size, _ in bounds])
        ends = np.cumsum(sizes >> np.uint64(3)).astype(np.int64)
        offsets = ends - (sizes >> np.uint64(3)).astype(np.int64)
        kind = np.array([kind for _, _, kind in bounds], dtype=np.uint8)
        return Stacks(low, low + sizes, kind, low.copy(), offsets, words.astype(np.uint64))

    def _describe(self, tasks: list[TaskBlock], running: list[bool]) -> TaskColumns:
        kernel = self.kernel

        def comm(task: TaskBlock) -> str:
            at = kernel["task_comm"]
            return task.block[at : at + 16].split(b"\0")[0].decode("ascii", "backslashreplace")

        states = [task.half(kernel["task_state"]) for task in tasks]
        switches = [task.word(kernel["task_nvcsw"]) + task.word(kernel["task_nivcsw"]) for task in tasks]
        return TaskColumns(
            pid=np.array([task.half(kernel["task_pid"]) for task in tasks], dtype=np.int32),
            comm=tuple(comm(task) for task in tasks),
            state=tuple(_STATES.get(state, "?") for state in states),
            on_cpu=np.array(running, dtype=np.bool_),
            kthread=np.array([task.half(kernel["task_pf"]) & _KTHREAD != 0 for task in tasks], dtype=np.bool_),
            switches=np.array(switches, dtype=np.uint64),
            slot=np.array([task.slot for task in tasks], dtype=np.int32),
            patch_state=np.array([task.half(kernel["task_patch_state"]) for task in tasks], dtype=np.int32),
        )
