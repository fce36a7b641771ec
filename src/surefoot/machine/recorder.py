"""Layer 7: boundaries: what a walk that began before each instruction would start from, and what it should find.

The machine runs once; before an instruction is executed its registers, the used part of its stacks and the lists of
rewritten return addresses are copied. Tens of thousands of such boundaries are then walked together.

Invariant: a boundary holds exactly what `Machine.instant` gives for the running task at that instruction, less the
parts of stacks below the stack pointer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Addr, Mask, Row
from surefoot.machine.board import Board, Stop
from surefoot.machine.ground_truth import EMPTY, Chains, Shadow, Truth
from surefoot.machine.loader import KernelFile
from surefoot.machine.target import Entry, Machine, join_books, read_fgraph, read_kretprobes
from surefoot.unwind.code import CodeMap
from surefoot.unwind.state import STACK_KINDS, Layout, StackKind, Stacks, Start, Tasks

__all__ = ["Boundaries", "Recorder", "blocked_tasks", "record", "start_machine"]

_USER_END: Final = 1 << 63
_IRQ_SEARCH: Final = 4_000
"""Instructions within which an interrupt that is not masked reaches its handler."""
_NOTHING: Final[tuple[list[Entry], bool]] = ([], False)


@dataclass(frozen=True)
class Boundaries:
    """A batch of boundaries, ready to be walked; n of them.

    Attributes:
        tasks: one per boundary, caught in the kernel or switched out.
        stacks: the used parts of their stacks.
        layout: structure offsets.
        code: the kernel's code while they were recorded.
        chain: (n,) int64, the true chain of each; of one that was caught without its own pc.
        count: (n,) int64, instructions executed before each.
        chains: what the numbers in `chain` mean.
    """

    tasks: Tasks
    stacks: Stacks
    layout: Layout
    code: CodeMap
    chain: Row
    count: Row
    chains: Chains

    def __len__(self) -> int:
        return len(self.tasks)

    def expected(self) -> tuple[Row, Addr, Mask]:
        """Give what complete traces show.

        Returns:
            (n + 1,) first, (m,) addresses and (m,) whether each is exact: the frames of boundary i are
            first[i]:first[i + 1], innermost first.
        """
        distinct, inverse = np.unique(self.chain, return_inverse=True)
        entries = [self.chains.entries(chain) for chain in distinct.tolist()]
        size = np.array([len(found) for found in entries], dtype=np.int64)
        start = np.cumsum(size) - size
        addr = np.array([addr for found in entries for addr, _ in found], dtype=np.uint64)
        exact = np.array([exact for found in entries for _, exact in found], dtype=np.bool_)
        count = size[inverse]
        own = (self.tasks.start == Start.REGS).astype(np.int64)
        first = np.zeros(len(self) + 1, dtype=np.int64)
        np.cumsum(count + own, out=first[1:])
        pick = np.repeat(start[inverse] - np.cumsum(count) + count, count) + np.arange(int(count.sum()))
        rest = np.ones(int(first[-1]), dtype=np.bool_)
        rest[first[:-1][own == 1]] = False
        addrs = np.zeros(rest.size, dtype=np.uint64)
        flags = np.ones(rest.size, dtype=np.bool_)
        addrs[~rest], addrs[rest], flags[rest] = self.tasks.pc[own == 1], addr[pick], exact[pick]
        return first, addrs, flags


def _switch_to_irq_stack(kernel: KernelFile) -> int:
    """Give the address of the instruction of call_on_irq_stack that leaves the task's stack: MOV SP, Xn."""
    low, high = kernel.span("call_on_irq_stack")
    words = np.frombuffer(kernel.read(low, high - low), dtype="<u4")
    return low + 4 * int(np.flatnonzero(words & 0xFFFF_FC1F == 0x9100_001F)[0])


class _Columns:
    """A batch while it grows."""

    def __init__(self) -> None:
        self.registers: list[tuple[int, int, int, int]] = []
        self.chain: list[int] = []
        self.count: list[int] = []
        self.slot: list[int] = []
        self.task_words: list[bytes] = []
        self.irq_words: list[bytes] = []
        self.fgraph: list[tuple[list[Entry], bool]] = []
        self.kretprobe: list[tuple[list[Entry], bool]] = []


class Recorder:
    """An observer of the board that keeps the truth and records boundaries.

    Attributes:
        truth: the shadow stacks.
        addresses: every kernel address at which a boundary was recorded.
        tracing: the tasks' lists of rewritten return addresses are read.
    """

    def __init__(self, kernel: KernelFile, *, distinct: bool = True, every: int = 1) -> None:
        """Prepare for a run; nothing is recorded before `start`.

        Args:
            kernel: what runs.
            distinct: record each (address, chain) once only.
            every: of these, record one in so many.
        """
        self.truth = Truth(kernel)
        self.addresses: set[int] = set()
        self._kernel = kernel
        self._distinct = distinct
        self._every = every
        self._turn = 0
        self._limit = 0
        self._seen: set[tuple[int, int]] = set()
        self._board: Board | None = None
        self._columns, self._aside = _Columns(), _Columns()
        self._pause = self._since = 0
        self._watched = 0
        self._task_sp = 0
        self._irq_switch = _switch_to_irq_stack(kernel)
        self.tracing = False
        self._area, self._size = kernel["stack_area"], kernel["thread_size"]
        self._stride, self._irq = kernel["stack_slot"], kernel["irq_stack"]
        self._irq_end = self._irq + kernel["irq_stack_size"]
        self._task_of_slot = {
            0: kernel.symbol("init_task"),
            **{i + 1: kernel.symbol("tasks") + i * kernel["task_size"] for i in range(kernel["nr_tasks"])},
        }

    def attach(self, board: Board) -> None:
        """Name the board that is observed."""
        self._board = board
        self.truth.attach(board)

    def start(self, *, limit: int, tracing: bool, pause: int = 0) -> None:
        """Record from here on; the run is stopped when a batch is full.

        Args:
            limit: boundaries in one batch.
            tracing: return addresses may be rewritten: read the tasks' lists.
            pause: stop the run at one boundary in so many, too; 0 for none.
        """
        self._limit, self.tracing, self._pause = limit, tracing, pause

    @property
    def full(self) -> bool:
        """A batch is complete."""
        return len(self._columns.chain) >= self._limit > 0

    def watch(self, addr: int) -> None:
        """Record the next boundary at an address aside and stop there; nothing else is recorded till then."""
        self._watched = addr

    def unwatch(self) -> None:
        """Give up watching."""
        self._watched = 0

    def step(self, addr: int) -> None:
        """Hear that the instruction at `addr` is next."""
        truth = self.truth
        truth.step(addr)
        if addr == self._irq_switch and self._board is not None:
            self._task_sp = self._board.sp()
        if self._watched:
            self._look_out(addr)
            return
        if not self._limit or addr < _USER_END:
            return
        truth.refresh()
        if self._distinct:
            key = (addr, truth.chain)
            if key in self._seen:
                return
            self._seen.add(key)
        self._turn += 1
        if self._turn >= self._every:
            self._turn = 0
            self._record(addr, self._columns)
            self._rest()

    def _look_out(self, addr: int) -> None:
        """Record aside if this is the watched address."""
        if addr == self._watched and self._board is not None:
            self._watched = 0
            self.truth.refresh()
            self._record(addr, self._aside)
            self._board.ask_stop()

    def _rest(self) -> None:
        """Stop the run where a batch is full or a pause is due."""
        self._since += 1
        due = self._pause > 0 and self._since >= self._pause
        if due:
            self._since = 0
        if (due or self.full) and self._board is not None:
            self._board.ask_stop()

    def exception(self, pc: int, *, user: bool, sync: bool) -> None:
        """Hear that an exception is being taken."""
        self.truth.exception(pc, user=user, sync=sync)

    def save(self) -> tuple[Shadow, int]:
        """Give the state that belongs to a snapshot of the board, for `load`."""
        return self.truth.save(), self._task_sp

    def load(self, state: tuple[Shadow, int]) -> None:
        """Go back to a saved state, as when the board is restored."""
        shadow, self._task_sp = state
        self.truth.load(shadow)

    def _record(self, addr: int, columns: _Columns) -> None:
        """Copy what a walk from here needs."""
        board, truth = self._board, self.truth
        if board is None:
            return
        state = board.walk_registers()
        sp, slot = state[0], truth.slot
        irq = b""
        if self._irq < sp <= self._irq_end:
            irq = board.read(sp & ~7, self._irq_end - (sp & ~7))
            sp = self._task_sp
        top = self._area + slot * self._stride + self._size
        inside = top - self._size < sp <= top
        columns.registers.append((addr, *state))
        columns.chain.append(truth.chain)
        columns.count.append(board.count)
        columns.slot.append(slot)
        columns.task_words.append(board.read(sp & ~7, top - (sp & ~7)) if inside and sp < top else b"")
        columns.irq_words.append(irq)
        self._record_books(board, slot, columns)
        self.addresses.add(addr)

    def _record_books(self, board: Board, slot: int, columns: _Columns) -> None:
        """Copy the running task's lists of rewritten return addresses."""
        kernel = self._kernel
        if not self.tracing:
            columns.fgraph.append(_NOTHING)
            columns.kretprobe.append(_NOTHING)
            return
        task = self._task_of_slot[slot]
        top = int.from_bytes(board.read(task + kernel["task_curr_ret_stack"], 4), "little", signed=True)
        stack = board.read_u64(task + kernel["task_ret_stack"])
        node = board.read_u64(task + kernel["task_kretprobe_instances"])
        columns.fgraph.append(read_fgraph(board.read, stack, top, kernel["frame_words"]))
        columns.kretprobe.append(read_kretprobes(board.read, node))

    def take(self, code: CodeMap) -> Boundaries:
        """Give what has been recorded since the last call, and forget it.

        Args:
            code: the kernel's code now.
        """
        columns, self._columns = self._columns, _Columns()
        return self._boundaries(columns, code)

    def take_aside(self, code: CodeMap) -> Boundaries:
        """Give what has been recorded aside since the last call, and forget it; see `watch`."""
        columns, self._aside = self._aside, _Columns()
        return self._boundaries(columns, code)

    def _boundaries(self, columns: _Columns, code: CodeMap) -> Boundaries:
        """Turn lists into columns."""
        registers = np.array(columns.registers, dtype=np.uint64).reshape(-1, 4)
        count = len(columns.chain)
        slot = np.array(columns.slot, dtype=np.int64)
        top = np.uint64(self._area + self._size) + slot.astype(np.uint64) * np.uint64(self._stride)
        stacks, which = self._stacks(columns, top)
        kernel = self._kernel
        final = kernel["pt_regs_size"] - kernel["pt_regs_stackframe"]
        tasks = Tasks(
            start=np.full(count, Start.REGS, dtype=np.uint8),
            pc=registers[:, 0].copy(),
            sp=registers[:, 1].copy(),
            fp=registers[:, 2].copy(),
            lr=registers[:, 3].copy(),
            stacks=which,
            final_record=top - np.uint64(final),
            fgraph=join_books(columns.fgraph),
            kretprobe=join_books(columns.kretprobe),
        )
        return Boundaries(
            tasks=tasks,
            stacks=stacks,
            layout=kernel.layout(),
            code=code,
            chain=np.array(columns.chain, dtype=np.int64),
            count=np.array(columns.count, dtype=np.int64),
            chains=self.truth.chains,
        )

    def _stacks(self, columns: _Columns, top: Addr) -> tuple[Stacks, NDArray[np.int32]]:
        """Give all stacks of a batch: a task stack and an interrupt stack per boundary, one overflow stack."""
        kernel, count = self._kernel, top.size
        overflow = kernel.symbol("overflow_stack")
        ends = [(self._irq, self._irq_end), (overflow, overflow + kernel["overflow_stack_size"])]
        used = [*columns.task_words, *columns.irq_words, b""]
        size = np.array([len(words) for words in used], dtype=np.int64)
        high = np.concatenate([top, np.repeat(np.array([end for _, end in ends], dtype=np.uint64), [count, 1])])
        low = np.concatenate(
            [top - np.uint64(self._size), np.repeat(np.array([low for low, _ in ends], dtype=np.uint64), [count, 1])]
        )
        kind = np.repeat(
            np.array([StackKind.TASK, StackKind.IRQ, StackKind.OVERFLOW], dtype=np.uint8), [count, count, 1]
        )
        words = np.frombuffer(b"".join(used), dtype="<u8").astype(np.uint64)
        offset = (np.cumsum(size) - size) >> 3
        which = np.full((count, STACK_KINDS), -1, dtype=np.int32)
        which[:, StackKind.TASK] = np.arange(count)
        which[:, StackKind.IRQ] = np.arange(count, 2 * count)
        which[:, StackKind.OVERFLOW] = 2 * count
        return Stacks(low, high, kind, high - size.astype(np.uint64), offset, words), which


def blocked_tasks(machine: Machine, recorder: Recorder, code: CodeMap) -> Boundaries:
    """Give the tasks that are switched out now, each a boundary of its own.

    Args:
        machine: a stopped machine whose board the recorder observes.
        recorder: knows the truth.
        code: the kernel's code now.
    """
    instant, truth = machine.instant(code), recorder.truth
    rows = np.flatnonzero(instant.tasks.start == Start.BLOCKED)
    fork = machine.kernel.symbol("ret_from_fork")
    never_ran = truth.chains.push(EMPTY, fork)
    tasks = instant.tasks.take(rows)
    chain = [
        never_ran if pc == fork else truth.of_slot.get(slot, EMPTY)
        for pc, slot in zip(tasks.pc.tolist(), instant.info.slot[rows].tolist(), strict=True)
    ]
    count = np.full(rows.size, machine.board.count, dtype=np.int64)
    chains = np.array(chain, dtype=np.int64)
    return Boundaries(tasks, instant.stacks, instant.layout, code, chains, count, truth.chains)


def start_machine(
    kernel: KernelFile, recorder: Recorder, *, seed: int = 0, tracing: int = 0, settle: int = 40_000
) -> Machine:
    """Boot a machine, switch tracing on and let the load begin.

    Args:
        kernel: what to run.
        recorder: observes it.
        seed: of the run.
        tracing: 1 function graph, 2 kretprobes, 3 both.
        settle: instructions to run before anything is recorded.
    """
    board = Board(kernel, seed=seed, observer=recorder)
    recorder.attach(board)
    machine = Machine(board)
    machine.control("tracing", tracing)
    board.run(settle)
    return machine


def record(
    machine: Machine, recorder: Recorder, *, boundaries: int, batch: int, tracing: bool, inside: int = 0
) -> Iterator[Boundaries]:
    """Run the machine and give batches of boundaries until there are enough.

    Args:
        machine: a machine whose board the recorder observes.
        recorder: what records.
        boundaries: how many in all.
        batch: how many at a time.
        tracing: return addresses may be rewritten.
        inside: at one boundary in so many, interrupt the machine and record aside what the interrupt's handler would
            walk; 0 for none.
    """
    left = boundaries
    code = machine.code()
    while left > 0:
        recorder.start(limit=min(batch, left), tracing=tracing, pause=inside)
        while not recorder.full:
            if machine.board.run(1 << 40) is not Stop.ASKED:
                return
            if inside and not recorder.full:
                _interrupt(machine.board, recorder)
        found = recorder.take(code)
        left -= len(found)
        yield found


def _interrupt(board: Board, recorder: Recorder) -> None:
    """Inject an interrupt, go on to the first instruction of its handler, and put the machine back."""
    if board.irq_masked or board.registers.user:
        return
    state, shadow = board.snapshot(), recorder.save()
    recorder.watch(board.kernel.symbol("injected_interrupt"))
    board.inject()
    board.run(_IRQ_SEARCH)
    recorder.unwatch()
    board.restore(state)
    recorder.load(shadow)
