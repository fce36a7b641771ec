"""Layer 5: what a walk starts from: tasks, stacks and return-address bookkeeping as columns.

Invariant: these are plain copies of the target's memory and registers at one instant. Nothing here has been
interpreted; everything may be corrupt, and a walk over it must still end in a verdict.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Addr, Code, Mask, Row, Row32
from surefoot.errors import Inconsistent

__all__ = ["STACK_KINDS", "Bookkeeping", "Layout", "Source", "StackKind", "Stacks", "Start", "Tasks"]


class StackKind(IntEnum):
    """The kinds of kernel stacks (arch/arm64/include/asm/stacktrace.h); columns of Tasks.stacks."""

    TASK = 0
    IRQ = 1
    OVERFLOW = 2
    SDEI_NORMAL = 3
    SDEI_CRITICAL = 4
    EFI = 5


STACK_KINDS: Final = len(StackKind)


class Start(IntEnum):
    """How a task's walk begins."""

    BLOCKED = 0
    """Switched out: pc, sp and fp come from thread.cpu_context; lr is not known."""
    REGS = 1
    """Caught at an arbitrary instruction in the kernel: all registers are exact."""
    USER = 2
    """Caught on a CPU at exception level 0: no kernel function is live."""
    NO_STACK = 3
    """A dead task whose stack has been freed: no kernel function is live."""
    NO_REGS = 4
    """Runs, but the registers of its CPU are not at hand: nothing can be said."""
    SWITCHING = 5
    """The CPU is between two tasks and its registers do not fit this one: nothing can be said."""
    CALLER = 6
    """A walk of the running code itself: pc and fp are those of the walk's caller, sp is not known."""


class Source(IntEnum):
    """Where a frame's pc came from (enum kunwind_source, arch/arm64/kernel/stacktrace.c)."""

    UNKNOWN = 0
    CALLER = 1
    """The walk's own caller."""
    TASK = 2
    """cpu_context.pc of a blocked task: a return address."""
    REGS = 3
    """The pc of interrupted registers: exact, an exception boundary."""
    FRAME = 4
    """A return address taken from a frame record or through a rule."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Offsets inside kernel structures, in bytes; always from the target's debug information.

    Attributes:
        pt_regs_size: sizeof(struct pt_regs).
        pt_regs_fp: offset of regs[29].
        pt_regs_lr: offset of regs[30].
        pt_regs_sp: offset of sp.
        pt_regs_pc: offset of pc.
        pt_regs_pstate: offset of pstate.
        pt_regs_stackframe: offset of stackframe, the frame record with metadata.
        ftrace_regs_size: sizeof(struct __arch_ftrace_regs), 0 where the kernel has none.
        ftrace_regs_pc: offset of its pc.
        pac_mask: bits of a kernel pointer that may hold an authentication code; stripping sets them.
    """

    pt_regs_size: int = 320
    pt_regs_fp: int = 232
    pt_regs_lr: int = 240
    pt_regs_sp: int = 248
    pt_regs_pc: int = 256
    pt_regs_pstate: int = 264
    pt_regs_stackframe: int = 296
    ftrace_regs_size: int = 112
    ftrace_regs_pc: int = 104
    pac_mask: int = 0

    def strip(self, addrs: Addr) -> Addr:
        """Remove pointer authentication codes from kernel addresses.

        Bit 55 tells which half of the address space a pointer belongs to; only kernel addresses (bit 55
        set) are changed, by setting every bit of the mask.

        Source:
            arch/arm64/include/asm/compiler.h: ptrauth_strip_kernel_insn_pac; Documentation/admin-guide/
            kdump/vmcoreinfo.rst: KERNELPACMASK.
        """
        kernel = (addrs >> np.uint64(55)) & np.uint64(1) == 1
        return np.where(kernel, addrs | np.uint64(self.pac_mask), addrs)


@dataclass(frozen=True, slots=True)
class Stacks:
    """Kernel stacks: their bounds, and the captured upper part of each.

    Attributes:
        low: (s,) uint64, lowest address of the stack (bounds are checked against these).
        high: (s,) uint64, first address above it.
        kind: (s,) uint8, `StackKind`.
        captured: (s,) uint64, lowest captured address, 8-byte aligned; from here to `high` all words are held.
        word_off: (s,) int64, index in `words` of the word at `captured`.
        words: (w,) uint64, stack contents.
    """

    low: Addr
    high: Addr
    kind: Code
    captured: Addr
    word_off: Row
    words: NDArray[np.uint64]

    def __len__(self) -> int:
        return int(self.low.size)

    def check(self) -> None:
        """Verify that bounds and contents fit together.

        Raises:
            Inconsistent: a stack without extent, or words that are not there.
        """
        if bool(np.any(self.low >= self.high)) or bool(np.any(self.captured > self.high)):
            raise Inconsistent("a kernel stack has no extent")
        if bool(np.any((self.captured | self.high) & np.uint64(7))):
            raise Inconsistent("a kernel stack is not aligned to 8 bytes")
        end = self.word_off + ((self.high - self.captured) >> np.uint64(3)).astype(np.int64)
        if len(self) and (int(self.word_off.min()) < 0 or int(end.max()) > self.words.size):
            raise Inconsistent("a kernel stack's words are not held")

    def with_nowhere(self) -> Stacks:
        """Give the same stacks and one more that holds nothing, so that there is always something to index."""
        return Stacks(
            low=np.append(self.low, np.uint64(0)),
            high=np.append(self.high, np.uint64(8)),
            kind=np.append(self.kind, np.uint8(StackKind.TASK)),
            captured=np.append(self.captured, np.uint64(8)),
            word_off=np.append(self.word_off, np.int64(0)),
            words=np.append(self.words, np.uint64(0)),
        )

    def read(self, stack: Row, addr: Addr) -> tuple[NDArray[np.uint64], Mask]:
        """Load the word at each address of the given stacks.

        Args:
            stack: (n,) int64, index of the stack, -1 for none.
            addr: (n,) uint64.

        Returns:
            (n,) uint64 words and (n,) bool; False (and 0) where the address is misaligned, outside the
            stack, or not captured.
        """
        safe = np.maximum(stack, 0)
        floor = self.captured[safe]
        good = (stack >= 0) & (addr >= floor) & (addr < self.high[safe]) & (addr & np.uint64(7) == 0)
        index = self.word_off[safe] + ((addr - floor) >> np.uint64(3)).astype(np.int64)
        return np.where(good, self.words[np.where(good, index, 0)], np.uint64(0)), good


@dataclass(frozen=True, slots=True)
class Bookkeeping:
    """A list per task of rewritten return addresses, newest entry first.

    Attributes:
        first: (n + 1,) int64, the entries of task i are first[i]:first[i + 1].
        ret: (e,) uint64, the original return address (it may be another trampoline).
        key: (e,) uint64, the frame record address that identifies the frame: ftrace_ret_stack.retp, or
            kretprobe_instance.fp.
        func: (e,) uint64, function graph: the patch site of the traced function; kretprobe: 0.
        broken: (n,) bool, the list could not be followed to its end.
    """

    first: Row
    ret: Addr
    key: Addr
    func: Addr
    broken: Mask

    @classmethod
    def none(cls, tasks: int) -> Bookkeeping:
        """Give the bookkeeping of `tasks` tasks of which nobody rewrote anything."""
        empty = np.zeros(0, dtype=np.uint64)
        return cls(np.zeros(tasks + 1, dtype=np.int64), empty, empty, empty, np.zeros(tasks, dtype=np.bool_))

    def take(self, rows: Row) -> Bookkeeping:
        """Give the bookkeeping of the chosen tasks, in that order."""
        low = self.first[rows]
        count = self.first[rows + 1] - low
        first = np.zeros(rows.size + 1, dtype=np.int64)
        np.cumsum(count, out=first[1:])
        pick = np.repeat(low - first[:-1], count) + np.arange(int(first[-1]), dtype=np.int64)
        return Bookkeeping(first, self.ret[pick], self.key[pick], self.func[pick], self.broken[rows])


@dataclass(frozen=True, slots=True)
class Tasks:
    """A batch of tasks to walk; n is the number of tasks, one is as good as a hundred thousand.

    Attributes:
        start: (n,) uint8, `Start`.
        pc: (n,) uint64, PAC bits not stripped.
        sp: (n,) uint64, known for BLOCKED and REGS.
        fp: (n,) uint64, x29.
        lr: (n,) uint64, x30; known for REGS only.
        stacks: (n, STACK_KINDS) int32, index into `Stacks` of the stacks that the task may legally be on, -1
            where it has none of that kind. For a task that is not on a CPU only TASK may be given.
        final_record: (n,) uint64, address of task_pt_regs(task)->stackframe, where a complete walk ends.
        fgraph: function-graph return stacks.
        kretprobe: kretprobe instances.
    """

    start: Code
    pc: Addr
    sp: Addr
    fp: Addr
    lr: Addr
    stacks: Row32
    final_record: Addr
    fgraph: Bookkeeping
    kretprobe: Bookkeeping

    def __len__(self) -> int:
        return int(self.start.size)

    def take(self, rows: Row) -> Tasks:
        """Give the chosen tasks, in that order; a task may be chosen more than once."""
        return Tasks(
            start=self.start[rows],
            pc=self.pc[rows],
            sp=self.sp[rows],
            fp=self.fp[rows],
            lr=self.lr[rows],
            stacks=self.stacks[rows],
            final_record=self.final_record[rows],
            fgraph=self.fgraph.take(rows),
            kretprobe=self.kretprobe.take(rows),
        )

    def check(self, stacks: Stacks) -> None:
        """Verify that the columns fit each other and the stacks.

        Raises:
            Inconsistent: columns of different length, or a stack index that does not exist.
        """
        count = len(self)
        for name in ("pc", "sp", "fp", "lr", "final_record"):
            if getattr(self, name).shape != (count,):
                raise Inconsistent(f"task column {name} does not have {count} entries")
        if self.stacks.shape != (count, STACK_KINDS):
            raise Inconsistent(f"task column stacks is not {count} x {STACK_KINDS}")
        if self.stacks.size and (int(self.stacks.min()) < -1 or int(self.stacks.max()) >= len(stacks)):
            raise Inconsistent("a task names a stack that does not exist")
        for name in ("fgraph", "kretprobe"):
            book: Bookkeeping = getattr(self, name)
            ordered = book.first.size == count + 1 and bool(np.all(np.diff(book.first) >= 0))
            if not ordered or int(book.first[0]) < 0 or int(book.first[-1]) > book.ret.size:
                raise Inconsistent(f"task bookkeeping {name} does not fit {count} tasks")
