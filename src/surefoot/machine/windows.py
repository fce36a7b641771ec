"""Layer 7: kinds of places in the machine's kernel, to tell where a walker is right and where it is not.

Invariant: a property of addresses alone, worked out once from the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np

from surefoot.dtypes import Addr, Code, Insn, Mask
from surefoot.machine.loader import KernelFile
from surefoot.metadata.rules import RaRule
from surefoot.unwind.regions import FunctionClass, classify

__all__ = ["EXCUSED", "Window", "Windows"]

_BTI_C: Final = 0xD503_245F
_SET_FP: Final = 0x9100_03FD
"""ADD X29, SP, #n (MOV X29, SP among them), the immediate left out."""


class Window(IntEnum):
    """A kind of place."""

    BODY = 0
    """The frame record is made and x29 points at it."""
    PROLOGUE = 1
    """Before that, in a function that makes one."""
    EPILOGUE = 2
    """After it has been taken down."""
    LEAF = 3
    """A function without a frame record."""
    ASSEMBLY = 4
    """Hand-written, annotated."""
    BARE = 5
    """Hand-written, deliberately without metadata."""
    ENTRY = 6
    """Vectors, stubs, task switches, changes of stack."""
    TRAMPOLINE = 7
    """Code that tracing puts in between, and what is stepped out of line."""


EXCUSED: Final = (Window.BARE, Window.ENTRY, Window.TRAMPOLINE)
"""Where a refusal is the right answer."""

_OF_CLASS: Final = {
    FunctionClass.ENTRY: Window.ENTRY,
    FunctionClass.FORK: Window.ENTRY,
    FunctionClass.START: Window.ENTRY,
    FunctionClass.IRQ_STACK: Window.ENTRY,
    FunctionClass.SWITCH: Window.ENTRY,
    FunctionClass.RETURN_TO_HANDLER: Window.TRAMPOLINE,
    FunctionClass.KRETPROBE: Window.TRAMPOLINE,
    FunctionClass.FTRACE_CALLER: Window.TRAMPOLINE,
    FunctionClass.ASSEMBLY: Window.BARE,
}


@dataclass(frozen=True)
class Windows:
    """The window of every instruction.

    Attributes:
        base: address of the first word.
        codes: (w,) uint8, `Window` of each word from there on.
        probes: (p,) uint64, instructions that kretprobes put a BRK upon.
    """

    base: int
    codes: Code
    probes: Addr

    @classmethod
    def of(cls, kernel: KernelFile) -> Windows:
        """Classify the whole kernel."""
        functions = kernel.functions
        kinds = classify(kernel.code(kernel.text, proved=False))
        base, end = int(functions.start[0]), int(functions.end[-1])
        codes = np.full((end - base) // 4, Window.ENTRY, dtype=np.uint8)
        for row in range(functions.start.size):
            low, high = int(functions.start[row]), int(functions.end[row])
            if functions.names[row] == "_start":
                continue
            part = codes[(low - base) // 4 : (high - base) // 4]
            kind = FunctionClass(int(kinds[row]))
            if kind is not FunctionClass.NORMAL:
                part[:] = _OF_CLASS[kind]
            else:
                part[:] = _normal(kernel, low, high)
        targets, end = kernel.span("kretprobe_targets")
        words = np.frombuffer(kernel.read(targets, end - targets), dtype="<u8").astype(np.uint64)
        return cls(base, codes, words[words != 0] + np.uint64(8))

    def lookup(self, addr: Addr, is_ra: Mask) -> Code:
        """Give the window of each address: (n,) uint8; what lies outside the kernel's text is stepped code."""
        at = (addr - is_ra.astype(np.uint64) - np.uint64(self.base)) >> np.uint64(2)
        known = at < self.codes.size
        found = self.codes[np.where(known, at, 0).astype(np.int64)]
        return np.where(known, found, np.uint8(Window.TRAMPOLINE))


def _normal(kernel: KernelFile, low: int, high: int) -> Code:
    """Classify the words of a function that keeps the procedure call standard."""
    addrs = np.arange(low, high, 4, dtype=np.uint64)
    words: Insn = np.frombuffer(kernel.read(low, high - low), dtype="<u4")
    row = kernel.rules.lookup(addrs, np.zeros(addrs.shape, dtype=np.bool_))
    if int(words[0]) == _BTI_C:
        return np.full(addrs.size, Window.BARE if row[0] < 0 else Window.ASSEMBLY, dtype=np.uint8)
    saved = (row >= 0) & (kernel.rules.ra_rule[np.maximum(row, 0)] == RaRule.AT_CFA)
    if not bool(np.any(saved)):
        return np.full(addrs.size, Window.LEAF, dtype=np.uint8)
    sets_fp = np.flatnonzero(words & np.uint32(0xFFC0_03FF) == _SET_FP)
    ready = int(sets_fp[0]) + 1 if sets_fp.size else int(np.flatnonzero(saved)[0]) + 1
    codes = np.where(saved, np.uint8(Window.BODY), np.uint8(Window.EPILOGUE))
    codes[:ready] = Window.PROLOGUE
    return codes
