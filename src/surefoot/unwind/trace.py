"""Layer 5: what a walk gives: frames as columns, and a verdict per task."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Addr, Code, Mask, Row
from surefoot.unwind.state import Source

__all__ = ["Evidence", "Traces"]


class Evidence(IntFlag):
    """How the pc of a frame was obtained, and what vouches for it; bits."""

    RULE = 1
    """A rule of the unwind metadata gave it."""
    RECORD = 2
    """A frame record gave it; with RULE, both gave the same."""
    LR = 4
    """The rule said that the return address was still in LR at an exception boundary."""
    PROVEN = 8
    """The rule is proved to be an invariant of the code; without this bit a rule is unproven."""
    CALL_DIRECT = 16
    """The instruction before it calls the function of the frame below."""
    CALL_TAIL = 32
    """It calls a function that leads there by tail branches, a veneer or a redirected site."""
    CALL_INDIRECT = 64
    """It is an indirect call."""
    FGRAPH = 128
    """The original address comes from the function-graph return stack."""
    KRETPROBE = 256
    """The original address comes from a kretprobe instance."""
    METADATA = 512
    """Registers saved by an exception, found through a frame record with metadata."""
    SAVED = 1024
    """Registers of a blocked task (cpu_context) or of a CPU."""
    DOUBTFUL = 2048
    """Found by following frame records after the walk had lost certainty."""
    TRACER = 4096
    """A traced function at its patch site, found through the record that ftrace_caller makes of it."""


@dataclass(frozen=True, slots=True)
class Traces:
    """Frames of all tasks, innermost first, and the verdicts.

    Attributes:
        first: (n + 1,) int64, the frames of task i are first[i]:first[i + 1].
        pc: (m,) uint64, PAC stripped; exact where `source` is REGS, else a return address.
        source: (m,) uint8, `Source`.
        evidence: (m,) uint16, bits of `Evidence`.
        function: (m,) int64, index into CodeMap.functions, -1 for none.
        sp: (m,) uint64, stack pointer in this frame, 0 where it is not known.
        fp: (m,) uint64, x29 in this frame.
        ambiguous: (m,) uint64, at a boundary that no rule covers: LR, which may or may not be a caller; else 0.
        regs: (m,) uint64, address of the struct pt_regs of a boundary found on a stack, else 0.
        reason: (n,) uint8, `Reason`; NONE means RELIABLE.
        reason_frame: (n,) int64, depth of the frame (0 = innermost) at which certainty was lost.
        reason_addr: (n,) uint64, the address that the reason speaks of.
        reason_other: (n,) uint64, the other answer where two disagreed, else 0.
    """

    first: Row
    pc: Addr
    source: Code
    evidence: NDArray[np.uint16]
    function: Row
    sp: Addr
    fp: Addr
    ambiguous: Addr
    regs: Addr
    reason: Code
    reason_frame: Row
    reason_addr: Addr
    reason_other: Addr

    def __len__(self) -> int:
        return int(self.reason.size)

    @property
    def reliable(self) -> Mask:
        """(n,) bool: the trace is complete, and certainly so."""
        return np.equal(self.reason, 0)

    @property
    def is_ra(self) -> Mask:
        """(m,) bool: the frame's pc is a return address (symbols are looked up one byte earlier)."""
        return np.not_equal(self.source, Source.REGS)
