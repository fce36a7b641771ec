"""Layer 4: the few instructions that jump tables are made of, one word at a time.

Numbers are Python integers; registers are their numbers, 31 is the zero register or SP as the encoding has it.
Source: Arm Architecture Reference Manual for A-profile (DDI 0487), C4.1 and C6.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = [
    "Guard",
    "IndexedLoad",
    "add_register",
    "address_part",
    "computes_address",
    "condition_bound",
    "copied_word",
    "extend",
    "indexed_load",
    "keeps_flags",
    "largest",
    "load_immediate",
    "selected",
    "writes_word",
]

_64: Final = (1 << 64) - 1
_ALWAYS: Final = 14


def _bits(word: int, lsb: int, width: int) -> int:
    return (word >> lsb) & ((1 << width) - 1)


def _signed(value: int, width: int) -> int:
    return value - (1 << width) if value >> (width - 1) & 1 else value


@dataclass(frozen=True, slots=True)
class IndexedLoad:
    """LDR, LDRB, LDRH, LDRSB, LDRSH, LDRSW with a register offset that is scaled by the size of what is loaded."""

    base: int
    index: int
    size: int
    signed: bool
    to_word: bool
    """Only the low 32 bits are kept."""
    narrow_index: bool
    """Only the low 32 bits of the index count."""
    signed_index: bool


def indexed_load(word: int) -> IndexedLoad | None:
    """Decode a load from base + index * size, None for anything else."""
    if word & 0x3B200C00 != 0x38200800 or word >> 26 & 1:
        return None
    size, opc, option, scaled = word >> 30, _bits(word, 22, 2), _bits(word, 13, 3), _bits(word, 12, 1)
    if opc == 0 or (size == 3 and opc != 1) or (size == 2 and opc == 3):
        return None
    if (not scaled and size) or option not in {2, 3, 6, 7}:
        return None
    return IndexedLoad(
        base=_bits(word, 5, 5),
        index=_bits(word, 16, 5),
        size=1 << size,
        signed=opc > 1,
        to_word=opc == 3 or (opc == 1 and size < 3),
        narrow_index=option in {2, 6},
        signed_index=option in {6, 7},
    )


def load_immediate(word: int, register: int) -> int | None:
    """Give the base of a 64-bit load of a register at a constant offset (LDR, LDUR, LDP), None for anything else."""
    single = word & 0xFFC00000 == 0xF9400000 or (word & 0xFFE00000 == 0xF8400000 and word & 0xC00 != 0x800)
    pair = word & 0xFE400000 == 0xA8400000
    loaded = {_bits(word, 0, 5)} | ({_bits(word, 10, 5)} if pair else set())
    return _bits(word, 5, 5) if (single or pair) and register in loaded else None


def address_part(word: int, addr: int) -> tuple[int, int, int] | None:
    """Decode what constant addresses are made of.

    Returns:
        (kind, register, number): (0, -1, address) for ADR and ADRP, (1, source, amount) for ADD (immediate, 64
        bits), (2, source, 0) for MOV (register, 64 bits); None for anything else.
    """
    if word & 0x1F000000 == 0x10000000:
        imm = _signed(_bits(word, 5, 19) << 2 | _bits(word, 29, 2), 21)
        return (0, -1, ((addr & ~0xFFF) + (imm << 12) if word >> 31 else addr + imm) & _64)
    if word & 0xFF800000 == 0x91000000:
        return (1, _bits(word, 5, 5), _bits(word, 10, 12) << (12 if word >> 22 & 1 else 0))
    if word & 0xFFE0FFE0 == 0xAA0003E0:
        return (2, _bits(word, 16, 5), 0)
    return None


def selected(word: int) -> tuple[int, int] | None:
    """Give the two sources of CSEL (64 bits), None for anything else."""
    return (_bits(word, 5, 5), _bits(word, 16, 5)) if word & 0xFFE00C00 == 0x9A800000 else None


def add_register(word: int) -> tuple[int, int, int, int] | None:
    """Decode ADD (64 bits, extended register or LSL): (first source, second source, option, shift) or None."""
    if word & 0xFFE00000 == 0x8B200000:
        return (_bits(word, 5, 5), _bits(word, 16, 5), _bits(word, 13, 3), _bits(word, 10, 3))
    if word & 0xFFE00000 == 0x8B000000:
        return (_bits(word, 5, 5), _bits(word, 16, 5), 3, _bits(word, 10, 6))
    return None


def extend(value: int, option: int) -> int:
    """Extend a register as the operand of ADD (extended register) does; the result is modulo 2**64."""
    width = 8 << (option & 3)
    value &= (1 << width) - 1
    return (_signed(value, width) if option & 4 else value) & _64


def computes_address(word: int) -> bool:
    """Tell ADD and SUB of two registers: what they give may be the place of an entry in a table."""
    return word & 0x1F000000 == 0x0B000000


def writes_word(word: int, register: int) -> bool:
    """Tell whether an instruction that writes a register surely clears its upper half.

    Data processing with sf = 0, and loads of up to 32 bits that do not extend to 64.
    """
    if _bits(word, 0, 5) != register:  # the base of an address, written back
        return False
    op0 = _bits(word, 25, 4)
    if op0 & 0b1110 == 0b1000:  # immediate; ADR and ADRP have no sf
        return not word >> 31 and word & 0x1F000000 != 0x10000000
    if op0 & 0b0111 == 0b0101:
        return not word >> 31
    if word & 0x3B000000 in {0x38000000, 0x39000000} and not word >> 26 & 1:
        size, opc = word >> 30, _bits(word, 22, 2)
        plain = word & 0x01200C00 == 0x00200800 or word & 0x01000000 or not word & 0x00200000
        return bool(plain) and (opc == 3 or (opc == 1 and size < 3))
    return False


def copied_word(word: int, register: int) -> int | None:
    """Give the source of MOV (register, 32 bits) to a register, None for anything else."""
    return _bits(word, 16, 5) if word & 0xFFE0FFFF == 0x2A0003E0 | register else None


def largest(word: int, register: int) -> int | None:
    """Give the largest value that an instruction can leave in a register it writes; None if that is not known."""
    if _bits(word, 0, 5) != register:  # the base of an address, written back
        return None
    if word & 0x3B000000 in {0x38000000, 0x39000000} and not word >> 26 & 1 and word >> 22 & 3 == 1:
        plain = word & 0x01200C00 == 0x00200800 or word & 0x01000000 or not word & 0x00200000
        return (1 << (8 << (word >> 30))) - 1 if plain and word >> 30 < 2 else None
    if word & 0x7F800000 == 0x52800000 and not word >> 31:  # MOVZ, 32 bits
        return _bits(word, 5, 16) << (16 * _bits(word, 21, 2))
    if word & 0x7F800000 == 0x53000000 and not word >> 31 and not word >> 22 & 1:  # UBFM, 32 bits
        low, high = _bits(word, 16, 6), _bits(word, 10, 6)
        return (1 << (high - low + 1)) - 1 if high >= low else None
    if word & 0x7F800000 == 0x12000000 and not word >> 22 & 1 and not word >> 31:  # AND, 32 bits
        return _low_mask(word)
    return None


def _low_mask(word: int) -> int | None:
    """Give the immediate of AND if it is a run of ones from bit 0, over 32 bits."""
    turn, count = _bits(word, 16, 6), _bits(word, 10, 6)
    return (1 << (count + 1)) - 1 if not turn and count < 31 else None


def keeps_flags(word: int) -> bool:
    """Tell instructions that surely leave the condition flags alone; others may or may not."""
    op0 = _bits(word, 25, 4)
    if op0 & 0b0101 == 0b0100:  # loads and stores; memory copies and some atomics set flags
        return word & 0x3B200C00 != 0x38200000 and word & 0x3B000000 != 0x19000000
    if op0 & 0b1110 == 0b1000:  # immediate
        group = _bits(word, 23, 3)
        if group in {2, 3}:
            return not word >> 29 & 1
        return _bits(word, 29, 2) != 3 if group == 4 else True
    if op0 & 0b0111 == 0b0101:  # register
        if word & 0x1F000000 == 0x0A000000:
            return _bits(word, 29, 2) != 3
        if word & 0x1F000000 == 0x0B000000:
            return not word >> 29 & 1
        return word & 0x1F000000 == 0x1B000000 or word & 0x3FE00000 == 0x1A800000
    return word == 0xD503201F or word & 0xFF000010 == 0x54000000 or word & 0x7C000000 == 0x34000000


@dataclass(frozen=True, slots=True)
class Guard:
    """What a comparison and a branch say: register (low 32 bits if `narrow`) is at most `bound`."""

    register: int
    bound: int
    narrow: bool


def condition_bound(compare: int, branch: int, *, taken: bool) -> Guard | None:
    """Give what is known after CMP (immediate) and B.cond.

    Args:
        compare: the instruction that set the flags.
        branch: B.cond.
        taken: whether it was.
    """
    if compare & 0x7F80001F != 0x7100001F or branch & 0xFF000010 != 0x54000000:
        return None
    amount = _bits(compare, 10, 12) << (12 if compare >> 22 & 1 else 0)
    condition = branch & 15
    if condition >= _ALWAYS:
        return None
    condition ^= 0 if taken else 1
    bound = {9: amount, 3: amount - 1, 0: amount}.get(condition)  # LS, LO, EQ
    if bound is None or bound < 0:
        return None
    return Guard(_bits(compare, 5, 5), bound, not compare >> 31)
