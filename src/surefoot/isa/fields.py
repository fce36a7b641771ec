"""Layer 1: bit fields of A64 instruction words and the addresses they form, array at a time.

Invariant: nothing here asks whether a word is of the right class; `surefoot.isa.branches` does. Address
arithmetic is exact modulo 2**64, as the hardware's.

Source of all encodings: Arm Architecture Reference Manual for A-profile (DDI 0487), chapter C4 and C6.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Addr, Insn, Mask, Off

__all__ = [
    "add_immediate",
    "adr_target",
    "adrp_target",
    "field",
    "load_offset",
    "matches",
    "pc_relative",
    "rd",
    "rn",
    "signed_field",
]


def matches(words: Insn, mask: int, value: int) -> Mask:
    """Tell which words have the bits of `value` under `mask`.

    Args:
        words: uint32, any shape.
        mask: bits that matter.
        value: what they must be.

    Returns:
        bool, shape of `words`.
    """
    result: Mask = (words & np.uint32(mask)) == np.uint32(value)
    return result


def field(words: Insn, lsb: int, width: int) -> Insn:
    """Extract an unsigned field.

    Args:
        words: uint32, any shape.
        lsb: number of its lowest bit.
        width: bits, 1 to 32.

    Returns:
        uint32, shape of `words`.
    """
    return (words >> np.uint32(lsb)) & np.uint32((1 << width) - 1)


def signed_field(words: Insn, lsb: int, width: int) -> Off:
    """Extract a two's complement field.

    Args:
        words: uint32, any shape.
        lsb: number of its lowest bit.
        width: bits, 1 to 32.

    Returns:
        int64, shape of `words`.
    """
    lifted = (words << np.uint32(32 - lsb - width)).view(np.int32) >> np.int32(32 - width)
    return lifted.astype(np.int64)


def rd(words: Insn) -> NDArray[np.uint8]:
    """Give the register number in bits 4:0 (Rd, Rt), uint8."""
    return (words & np.uint32(31)).astype(np.uint8)


def rn(words: Insn) -> NDArray[np.uint8]:
    """Give the register number in bits 9:5 (Rn), uint8."""
    return field(words, 5, 5).astype(np.uint8)


def pc_relative(words: Insn, addrs: Addr, lsb: int, width: int) -> Addr:
    """Add a signed word offset to the address of the instruction.

    Args:
        words: (n,) uint32.
        addrs: (n,) uint64, where the words are.
        lsb: lowest bit of the offset field, which counts instructions of 4 bytes.
        width: its bits.

    Returns:
        (n,) uint64, modulo 2**64.
    """
    return addrs + (signed_field(words, lsb, width) << np.int64(2)).view(np.uint64)


def _adr_offset(words: Insn) -> Off:
    """(n,) int64, the 21-bit offset immhi:immlo of ADR (bytes) and ADRP (pages)."""
    return (signed_field(words, 5, 19) << np.int64(2)) | field(words, 29, 2).astype(np.int64)


def adr_target(words: Insn, addrs: Addr) -> Addr:
    """Give the address that each ADR forms: (n,) uint64 from (n,) uint32 words at (n,) uint64 addresses."""
    return addrs + _adr_offset(words).view(np.uint64)


def adrp_target(words: Insn, addrs: Addr) -> Addr:
    """Give the page that each ADRP forms: (n,) uint64 from (n,) uint32 words at (n,) uint64 addresses."""
    return (addrs & ~np.uint64(0xFFF)) + (_adr_offset(words) << np.int64(12)).view(np.uint64)


def add_immediate(words: Insn) -> NDArray[np.uint64]:
    """Give the value that ADD or SUB (immediate) adds or subtracts: (n,) uint64, LSL #12 applied."""
    shift = np.where(field(words, 22, 1) == 1, np.uint64(12), np.uint64(0))
    return field(words, 10, 12).astype(np.uint64) << shift


def load_offset(words: Insn, size: int) -> NDArray[np.uint64]:
    """Give the byte offset of a load or store with unsigned scaled offset of `size` bytes: (n,) uint64."""
    return field(words, 10, 12).astype(np.uint64) * np.uint64(size)
