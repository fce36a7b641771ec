"""Layer 5: where each walk of a batch stands, and the stacks it may still visit.

Invariant: a walk only moves upwards within a stack, and never returns to a stack that it has left; so every
walk ends, whatever the memory says.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Addr, Code, Mask, Row
from surefoot.unwind.state import STACK_KINDS, StackKind, Stacks, Tasks
from surefoot.unwind.trace import Evidence

__all__ = ["ALLOWED", "UNKNOWN_FUNCTION", "Cursor", "Step"]

UNKNOWN_FUNCTION: Final = -2
"""Nobody has asked yet; -1 is the answer that there is none."""

ALLOWED: Final[NDArray[np.bool_]] = np.zeros((STACK_KINDS, STACK_KINDS), dtype=np.bool_)
"""ALLOWED[a, b]: a walk may go from stack kind a outwards to kind b.

Source:
    arch/arm64/include/asm/stacktrace/common.h: unwind_consume_stack lists the nestings
    task -> irq -> overflow -> sdei_normal and task -> sdei_normal -> sdei_critical -> overflow.
"""
ALLOWED[StackKind.IRQ, StackKind.TASK] = True
ALLOWED[StackKind.OVERFLOW, [StackKind.TASK, StackKind.IRQ, StackKind.SDEI_NORMAL, StackKind.SDEI_CRITICAL]] = True
ALLOWED[StackKind.SDEI_NORMAL, [StackKind.TASK, StackKind.IRQ, StackKind.OVERFLOW]] = True
ALLOWED[StackKind.SDEI_CRITICAL, [StackKind.TASK, StackKind.IRQ, StackKind.OVERFLOW, StackKind.SDEI_NORMAL]] = True


@dataclass(slots=True)
class Step:
    """The outcome of one step for the walks of an index array; columns as in `Cursor`.

    `reason` is not 0 where the step failed; then only `reason_addr` and `other` mean something.
    `final` marks walks that reached their final record. `function` is the function of `pc` where it has been
    looked up already, else UNKNOWN_FUNCTION.
    """

    pc: Addr
    fp: Addr
    sp: Addr
    sp_known: Mask
    lr: Addr
    source: Code
    evidence: NDArray[np.uint16]
    regs: Addr
    stack: Row
    low: Addr
    reason: Code
    reason_addr: Addr
    other: Addr
    final: Mask
    function: Row

    @classmethod
    def blank(cls, size: int) -> Step:
        """Give a step of `size` walks that has not gone anywhere."""
        zero = np.zeros(size, dtype=np.uint64)
        return cls(
            pc=zero.copy(),
            fp=zero.copy(),
            sp=zero.copy(),
            sp_known=np.zeros(size, dtype=np.bool_),
            lr=zero.copy(),
            source=np.zeros(size, dtype=np.uint8),
            evidence=np.zeros(size, dtype=np.uint16),
            regs=zero.copy(),
            stack=np.full(size, -1, dtype=np.int64),
            low=zero.copy(),
            reason=np.zeros(size, dtype=np.uint8),
            reason_addr=zero.copy(),
            other=zero.copy(),
            final=np.zeros(size, dtype=np.bool_),
            function=np.full(size, UNKNOWN_FUNCTION, dtype=np.int64),
        )

    def fail(self, mask: Mask, reason: int, addr: Addr, other: Addr | None = None) -> None:
        """Give a reason to the walks of `mask` that have none yet.

        Args:
            mask: (k,) bool.
            reason: `Reason`.
            addr: (k,) uint64, the address it speaks of.
            other: (k,) uint64, the other answer, if there is one.
        """
        now = mask & (self.reason == 0)
        self.reason[now] = reason
        self.reason_addr[now] = addr[now]
        if other is not None:
            self.other[now] = other[now]

    def mark(self, where: Mask | Row, evidence: Evidence) -> None:
        """Add bits of evidence to the walks that a mask or an index array names."""
        self.evidence[where] |= np.uint16(evidence)

    def put(self, where: Row, part: Step) -> None:
        """Store the outcome of some walks: entry i of `part` goes to position where[i], which ascend."""
        whole = where.size == self.reason.size
        for item in fields(self):
            if whole:
                setattr(self, item.name, getattr(part, item.name))
            else:
                getattr(self, item.name)[where] = getattr(part, item.name)


@dataclass(slots=True)
class Cursor:
    """All walks of a batch that have not ended; w walks.

    Attributes:
        task: (w,) int64, index into the batch.
        pc: (w,) uint64, PAC stripped.
        fp: (w,) uint64, x29.
        sp: (w,) uint64, meaningful where sp_known.
        sp_known: (w,) bool.
        lr: (w,) uint64, meaningful where source is REGS.
        source: (w,) uint8, `Source`.
        evidence: (w,) uint16, evidence of the current pc.
        regs: (w,) uint64, address of the pt_regs of the current boundary, 0 for none.
        stack: (w,) int64, stack the walk is on, -1 before the first record is found.
        low: (w,) uint64, nothing below this address of the current stack may be used any more.
        left: (w,) uint8, bit per stack kind that the walk has been on.
        fgraph: (w,) int64, next function-graph entry that may be used.
        kretprobe: (w,) int64, next kretprobe entry that may be used.
        spare: (w,) int64, a function-graph entry that need not be used, -1 for none.
        suspect: (w,) int64, a function-graph entry that may be half-written, -1 for none.
        doubt: (w,) bool, certainty is lost; frames are followed for display only.
    """

    task: Row
    pc: Addr
    fp: Addr
    sp: Addr
    sp_known: Mask
    lr: Addr
    source: Code
    evidence: NDArray[np.uint16]
    regs: Addr
    stack: Row
    low: Addr
    left: Code
    fgraph: Row
    kretprobe: Row
    spare: Row
    suspect: Row
    doubt: Mask

    def __len__(self) -> int:
        return int(self.task.size)

    def where(self, keep: Mask) -> Cursor:
        """Give the walks of a mask only."""
        return Cursor(*(getattr(self, item.name)[keep] for item in fields(self)))

    def find_stack(self, at: Row, tasks: Tasks, stacks: Stacks, addr: Addr, size: int) -> Row:
        """Find the stack that holds an object, among those that a walk may still use.

        The current stack offers what lies at or above `low`; a stack not visited yet offers all of itself.

        Args:
            at: (k,) int64, walks.
            tasks: the batch.
            stacks: all stacks.
            addr: (k,) uint64, address of the object.
            size: bytes.

        Returns:
            (k,) int64, index of the stack or -1.

        Source:
            arch/arm64/include/asm/stacktrace/common.h: unwind_find_stack.
        """
        end = addr + np.uint64(size)
        sane = end > addr
        current = self.stack[at]
        safe = np.maximum(current, 0)
        here = sane & (current >= 0) & (addr >= self.low[at]) & (end <= stacks.high[safe])
        found = np.where(here, current, np.int64(-1))
        rest = np.flatnonzero(sane & ~here)
        if rest.size:
            found[rest] = self._find_other(at[rest], tasks, stacks, addr[rest], end[rest])
        return found

    def _find_other(self, at: Row, tasks: Tasks, stacks: Stacks, addr: Addr, end: Addr) -> Row:
        """Find the stack among those that the walks have not been on."""
        found = np.full(at.shape, -1, dtype=np.int64)
        for kind in range(STACK_KINDS):
            stack = tasks.stacks[self.task[at], kind].astype(np.int64)
            safe = np.maximum(stack, 0)
            fresh = (self.left[at] >> np.uint8(kind)) & np.uint8(1) == 0
            hit = (found < 0) & fresh & (stack >= 0) & (addr >= stacks.low[safe]) & (end <= stacks.high[safe])
            found[hit] = stack[hit]
        return found

    def locate_sp(self, at: Row, tasks: Tasks, stacks: Stacks) -> Row:
        """Find the stack that SP lies on; an empty stack (SP at its end) counts.

        Returns:
            (k,) int64, index of the stack or -1.
        """
        found = np.full(at.shape, -1, dtype=np.int64)
        for kind in range(STACK_KINDS):
            stack = tasks.stacks[self.task[at], kind].astype(np.int64)
            safe = np.maximum(stack, 0)
            sp = self.sp[at]
            hit = (found < 0) & (stack >= 0) & (sp > stacks.low[safe]) & (sp <= stacks.high[safe])
            found[hit] = stack[hit]
        return found

    def enter(self, at: Row, stacks: Stacks, stack: Row, low: Addr) -> None:
        """Move walks to a stack (or on within theirs), giving up everything below `low`."""
        self.stack[at] = stack
        self.low[at] = low
        self.left[at] |= (np.uint8(1) << stacks.kind[stack]).astype(np.uint8)

    def take(self, at: Row, step: Step, ok: Mask) -> None:
        """Advance walks by the outcomes of a step, where `ok`."""
        to = at[ok]
        for name in ("pc", "fp", "sp", "sp_known", "lr", "source", "evidence", "regs"):
            getattr(self, name)[to] = getattr(step, name)[ok]
