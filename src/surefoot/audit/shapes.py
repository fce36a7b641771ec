"""Layer 6: what hand-written code does to SP, x29 and x30: nothing, an ordinary frame, or something of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from surefoot.audit.textmap import TextMap
from surefoot.dtypes import Insn, Mask, Row
from surefoot.isa.effects import Effects, Flow, FpEffect, LrEffect, SpEffect, effects
from surefoot.isa.fields import matches, signed_field

__all__ = ["Shapes", "shapes_of"]

_PUSH: Final = (0xFFC0_7FFF, 0xA980_7BFD)
"""stp x29, x30, [sp, #-n]!"""
_POP: Final = (0xFFC0_7FFF, 0xA8C0_7BFD)
"""ldp x29, x30, [sp], #n"""
_SET_FP: Final = 0x9100_03FD
"""mov x29, sp"""


@dataclass(frozen=True)
class Shapes:
    """What b stretches of code do.

    Attributes:
        is_leaf: (b,) bool, SP, x29 and x30 are never written: the default rule holds throughout.
        is_framed: (b,) bool, one push of a frame record and pops of the same size, and no other write.
    """

    is_leaf: Mask
    is_framed: Mask


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
    writing = _writes(does)
    push, pop = matches(words, *_PUSH), matches(words, *_POP)
    size = np.where(push, -8, 8) * signed_field(words, 15, 7)
    set_fp = words == np.uint32(_SET_FP)
    writes = np.bincount(which[writing], minlength=low.size) > 0
    other = np.bincount(which[writing & _is_odd(words, does, push, pop)], minlength=low.size) > 0
    pushes = np.bincount(which[push], minlength=low.size)
    frame = np.zeros(low.size, dtype=np.int64)
    frame[which[push]] = size[push]
    uneven = np.bincount(which[pop & (size != frame[which])], minlength=low.size) > 0
    sets = np.bincount(which[set_fp], minlength=low.size)
    framed = (pushes == 1) & (sets <= 1) & ~other & ~uneven & (frame > 0)
    return Shapes(~writes, framed)


def _writes(does: Effects) -> Mask:
    """(w,) bool: the instruction writes SP, x29 or x30; signing x30 does not count."""
    signs = (LrEffect.KEEP, LrEffect.SIGN, LrEffect.AUTH, LrEffect.STRIP)
    found: Mask = (does.sp != SpEffect.KEEP) | (does.fp != FpEffect.KEEP) | ~np.isin(does.lr, signs)
    return found


def _is_odd(words: Insn, does: Effects, push: Mask, pop: Mask) -> Mask:
    """(w,) bool: what the instruction does belongs neither to an ordinary frame nor to its calls."""
    call = (does.flow == Flow.CALL) | (does.flow == Flow.CALL_REG)
    odd: Mask = ~push & ~pop & ~call & (words != np.uint32(_SET_FP))
    return odd
