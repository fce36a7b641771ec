"""Layer 6: what hand-written code does to SP, x29 and x30, and the metadata that would describe it.

A suggestion, never a rule: what is said here is printed for the author of the assembly, and nothing unwinds by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from surefoot.audit.textmap import TextMap
from surefoot.dtypes import Code, Insn, Mask, Row
from surefoot.isa.effects import Effects, Flow, FpEffect, LrEffect, SpEffect, effects
from surefoot.isa.fields import matches, signed_field

__all__ = ["Shapes", "annotation", "shapes_of"]

_PUSH: Final = (0xFFC0_7FFF, 0xA980_7BFD)
"""stp x29, x30, [sp, #-n]!"""
_POP: Final = (0xFFC0_7FFF, 0xA8C0_7BFD)
"""ldp x29, x30, [sp], #n"""
_SET_FP: Final = 0x9100_03FD
"""mov x29, sp"""
_PLACES: Final = 6
"""Instructions named in a message before it says "and so on"."""


@dataclass(frozen=True)
class Shapes:
    """What b stretches of code do.

    Attributes:
        is_leaf: (b,) bool, SP, x29 and x30 are never written: the default rule holds throughout.
        is_framed: (b,) bool, one push of a frame record and pops of the same size, and no other write.
        frame: (b,) int64, bytes of that frame, 0 where there is none.
        push: (b,) int64, offset of the push in bytes, -1 for none.
        where: (w,) int64, stretch of each writing instruction, ascending.
        offset: (w,) int64, its offset in bytes.
        what: (w,) uint8, bits: 1 SP, 2 x29, 4 x30.
    """

    is_leaf: Mask
    is_framed: Mask
    frame: Row
    push: Row
    where: Row
    offset: Row
    what: Code


def shapes_of(text: TextMap, low: Row, high: Row) -> Shapes:
    """Look at stretches of code.

    Args:
        text: the words.
        low: (b,) int64, index of the first word of each.
        high: (b,) int64, index behind the last.
    """
    count = high - low
    which = np.repeat(np.arange(low.size, dtype=np.int64), count)
    step = np.arange(which.size, dtype=np.int64) - (np.cumsum(count) - count)[which]
    words = text.words[low[which] + step]
    does = effects(words)
    what = _writes(does)
    push, pop = matches(words, *_PUSH), matches(words, *_POP)
    size = np.where(push, -8, 8) * signed_field(words, 15, 7)
    set_fp = words == np.uint32(_SET_FP)
    writes = np.bincount(which[what != 0], minlength=low.size) > 0
    other = np.bincount(which[_is_odd(words, what, does, push, pop)], minlength=low.size) > 0
    pushes = np.bincount(which[push], minlength=low.size)
    frame, place = np.zeros(low.size, dtype=np.int64), np.full(low.size, -1, dtype=np.int64)
    frame[which[push]] = size[push]
    place[which[push]] = 4 * step[push]
    uneven = np.bincount(which[pop & (size != frame[which])], minlength=low.size) > 0
    sets = np.bincount(which[set_fp], minlength=low.size)
    framed = (pushes == 1) & (sets <= 1) & ~other & ~uneven & (frame > 0)
    at = np.flatnonzero(what)
    return Shapes(~writes, framed, frame, place, which[at], 4 * step[at], what[at])


def _writes(does: Effects) -> Code:
    """(w,) uint8 bits: which of SP, x29 and x30 each instruction writes; signing x30 does not count."""
    signs = (LrEffect.KEEP, LrEffect.SIGN, LrEffect.AUTH, LrEffect.STRIP)
    bits: Code = (does.sp != SpEffect.KEEP).astype(np.uint8)
    bits |= (does.fp != FpEffect.KEEP).astype(np.uint8) << np.uint8(1)
    bits |= (~np.isin(does.lr, signs)).astype(np.uint8) << np.uint8(2)
    return bits


def _is_odd(words: Insn, what: Code, does: Effects, push: Mask, pop: Mask) -> Mask:
    """(w,) bool: writes SP, x29 or x30 otherwise than an ordinary frame and its calls do."""
    call = (does.flow == Flow.CALL) | (does.flow == Flow.CALL_REG)
    odd: Mask = (what != 0) & ~push & ~pop & ~call & (words != np.uint32(_SET_FP))
    return odd


def annotation(shapes: Shapes, k: int, code: str) -> str:
    """Say what the author of stretch `k` could write; begins with ". " or is empty."""
    if code == "asm-leaf":
        return ". SP, x29 and x30 are never written: .cfi_startproc at its start and .cfi_endproc at its end say all"
    if code == "asm-frame":
        size, push = int(shapes.frame[k]), int(shapes.push[k])
        return (
            f". Behind the push at +{push:#x}: .cfi_def_cfa_offset {size}, .cfi_offset 29, {-size}, .cfi_offset 30, "
            f"{8 - size}; behind each pop: .cfi_restore 29, .cfi_restore 30, .cfi_def_cfa_offset 0"
        )
    if code != "asm-irregular":
        return ""
    low, high = np.searchsorted(shapes.where, [k, k + 1])
    if low == high:
        return ". It is marked as not following the procedure call standard, but writes neither SP nor x29 nor x30"
    places = [
        f"+{offset:#x} {_registers(int(bits))}"
        for offset, bits in zip(shapes.offset[low:high].tolist(), shapes.what[low:high].tolist(), strict=True)
    ]
    more = f" and {len(places) - _PLACES} more" if len(places) > _PLACES else ""
    return f". It writes {', '.join(places[:_PLACES])}{more}: each needs a .cfi directive behind it"


def _registers(bits: int) -> str:
    """Name the registers of a bit set."""
    return "/".join(name for bit, name in ((1, "SP"), (2, "x29"), (4, "x30")) if bits & bit)
