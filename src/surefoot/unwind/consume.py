"""Layer 5: the stable interface for everybody who wants to see a stack: a consumer and an opaque state.

`stack_walk` has the shape of the kernel's arch_stack_walk(): it hands one `UnwindState` per frame, innermost
first, to a consumer, which ends the walk by returning False. The printer, the patch engine and user code are all
consumers; none of them looks at the walker's columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from surefoot.unwind.code import CodeMap
from surefoot.unwind.context import Mode
from surefoot.unwind.reasons import SENTENCES, Reason
from surefoot.unwind.state import Layout, Source, Stacks, Start, Tasks
from surefoot.unwind.trace import Evidence, Traces
from surefoot.unwind.walker import walk

__all__ = ["Registers", "Symbol", "Trace", "UnwindState", "Walkable", "stack_walk"]


class Walkable(Protocol):
    """Anything that holds stacks and the code they belong to, such as a capture of a target."""

    @property
    def code(self) -> CodeMap:
        """The running kernel's code."""
        ...

    @property
    def stacks(self) -> Stacks:
        """Stack memory."""
        ...

    @property
    def tasks(self) -> Tasks:
        """Where walks start."""
        ...

    @property
    def layout(self) -> Layout:
        """Structure offsets."""
        ...


@dataclass(frozen=True, slots=True)
class Registers:
    """Interrupted registers.

    Attributes:
        pc: exact address of the interrupted instruction.
        sp: stack pointer.
        fp: x29.
        lr: x30.
        addr: address of the struct pt_regs that holds them, None where they are those of a CPU.
    """

    pc: int
    sp: int
    fp: int
    lr: int
    addr: int | None = None


@dataclass(frozen=True, slots=True)
class Symbol:
    """A function and a place in it.

    Attributes:
        name: as in the symbol table.
        start: address of its first instruction.
        size: bytes.
        offset: bytes from the start to the frame's pc (which may equal `size` after a call to a noreturn
            function).
    """

    name: str
    start: int
    size: int
    offset: int


@dataclass(frozen=True, slots=True)
class Trace:
    """The verdict on one stack.

    Attributes:
        reliable: the trace is complete, and certainly so.
        reason: why not, or NONE.
        frame: depth at which certainty was lost (0 = innermost).
        address: what the reason speaks of.
        other: the other answer where two disagreed, else 0.
    """

    reliable: bool
    reason: Reason
    frame: int
    address: int
    other: int

    @property
    def sentence(self) -> str:
        """The reason in words."""
        return SENTENCES[self.reason]

    @classmethod
    def of(cls, traces: Traces, task: int) -> Trace:
        """Give the verdict on one task of a batch."""
        reason = Reason(int(traces.reason[task]))
        return cls(
            reliable=reason is Reason.NONE,
            reason=reason,
            frame=int(traces.reason_frame[task]),
            address=int(traces.reason_addr[task]),
            other=int(traces.reason_other[task]),
        )


class UnwindState:
    """One frame as a consumer sees it. Only the accessors are an interface; do not keep it after consuming."""

    __slots__ = ("_frame", "_source", "_traces")

    def __init__(self, source: Walkable, traces: Traces, frame: int) -> None:
        self._source = source
        self._traces = traces
        self._frame = frame

    @property
    def pc(self) -> int:
        """Address, PAC stripped: exact at an exception boundary, else a return address."""
        return int(self._traces.pc[self._frame])

    @property
    def sp(self) -> int | None:
        """Stack pointer in this frame, or None where it is not known."""
        return int(self._traces.sp[self._frame]) or None

    @property
    def fp(self) -> int:
        """x29 in this frame."""
        return int(self._traces.fp[self._frame])

    @property
    def source(self) -> Source:
        """Where pc came from."""
        return Source(int(self._traces.source[self._frame]))

    @property
    def is_exception_boundary(self) -> bool:
        """The code of this frame was interrupted at an arbitrary instruction; it did not call."""
        return self.source is Source.REGS

    @property
    def regs(self) -> Registers | None:
        """The interrupted registers of an exception boundary, else None."""
        if not self.is_exception_boundary:
            return None
        addr = int(self._traces.regs[self._frame])
        if not addr:
            return self._cpu_registers()
        layout, stacks = self._source.layout, self._source.stacks
        holder = np.flatnonzero((stacks.low <= addr) & (stacks.high > addr))[:1].astype(np.int64)
        words = {}
        for name, offset in (
            ("pc", layout.pt_regs_pc),
            ("sp", layout.pt_regs_sp),
            ("fp", layout.pt_regs_fp),
            ("lr", layout.pt_regs_lr),
        ):
            words[name] = int(stacks.read(holder, np.array([addr + offset], dtype=np.uint64))[0][0])
        return Registers(**words, addr=addr)

    def _cpu_registers(self) -> Registers:
        """The registers of a CPU that the walk of a running task starts from."""
        task = int(np.searchsorted(self._traces.first, self._frame, side="right")) - 1
        tasks = self._source.tasks
        return Registers(
            pc=int(tasks.pc[task]), sp=int(tasks.sp[task]), fp=int(tasks.fp[task]), lr=int(tasks.lr[task])
        )

    @property
    def ambiguous_lr(self) -> int | None:
        """LR at a boundary that no rule covers: it may or may not be a live caller. Else None."""
        return int(self._traces.ambiguous[self._frame]) or None

    @property
    def evidence(self) -> Evidence:
        """What this frame's pc rests on."""
        return Evidence(int(self._traces.evidence[self._frame]))

    @property
    def symbol(self) -> Symbol | None:
        """The function that pc lies in; return addresses are looked up inside the call. None if unknown."""
        index = int(self._traces.function[self._frame])
        if index < 0:
            return None
        functions = self._source.code.functions
        start = int(functions.start[index])
        return Symbol(functions.names[index], start, int(functions.end[index]) - start, self.pc - start)


@dataclass(frozen=True, slots=True)
class _One:
    """A single task cut out of a batch."""

    code: CodeMap
    stacks: Stacks
    tasks: Tasks
    layout: Layout


def stack_walk(
    consume: Callable[[UnwindState], bool],
    source: Walkable,
    task: int,
    regs: Registers | None = None,
    *,
    mode: Mode = Mode.HYBRID,
    strict: bool = False,
) -> Trace:
    """Hand the frames of one task to a consumer, innermost first.

    Args:
        consume: called once per frame; returning False ends the calls (the verdict is still that of the whole
            stack).
        source: where the stacks are.
        task: index into source.tasks.
        regs: start from these registers instead of the task's own.
        mode: hybrid, fp or sframe.
        strict: accept proved rules only.

    Returns:
        the verdict.

    Raises:
        Inconsistent: the columns of the inputs do not fit each other.

    Source:
        the shape is that of arch_stack_walk() in arch/arm64/kernel/stacktrace.c.
    """
    tasks = source.tasks.take(np.array([task], dtype=np.int64))
    if regs is not None:
        pc, sp, fp, lr = (np.array([value], dtype=np.uint64) for value in (regs.pc, regs.sp, regs.fp, regs.lr))
        start = np.array([Start.REGS], dtype=np.uint8)
        tasks = replace(tasks, start=start, pc=pc, sp=sp, fp=fp, lr=lr)
    one = _One(source.code, source.stacks, tasks, source.layout)
    traces = walk(one.code, one.stacks, one.tasks, one.layout, mode=mode, strict=strict)
    for frame in range(int(traces.first[1])):
        if not consume(UnwindState(one, traces, frame)):
            break
    return Trace.of(traces, 0)
