"""Layer 2: the call frame instructions as tables over their first byte.

Invariant: an instruction that is not named here has the length UNKNOWN; it ends the decoding of its function.

Source: DWARF 5, section 6.4.2 and table 7.29; DWARF for the Arm 64-bit Architecture (AADWARF64), sections 4.1 and 4.4
for the registers and the vendor's instructions; GNU extensions as in binutils' include/dwarf2.def.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BLOCK",
    "FLAGS",
    "FP",
    "HEAD",
    "HEAD_FLAGS",
    "KIND",
    "LEBS",
    "LENGTH",
    "RA",
    "RA_SIGN_STATE",
    "SHAPE",
    "SHAPE_LEB",
    "SHAPE_LEBS",
    "SHAPE_LENGTH",
    "SHAPE_MATTERS",
    "SP",
    "UNKNOWN",
    "Flag",
    "Kind",
]

FP: Final = 29
RA: Final = 30
SP: Final = 31
RA_SIGN_STATE: Final = 34
"""Pseudo register that holds whether the return address is signed; AADWARF64, section 4.1."""

NOP: Final = 0x00
SET_LOC: Final = 0x01
ADVANCE_LOC1: Final = 0x02
ADVANCE_LOC2: Final = 0x03
ADVANCE_LOC4: Final = 0x04
OFFSET_EXTENDED: Final = 0x05
RESTORE_EXTENDED: Final = 0x06
UNDEFINED: Final = 0x07
SAME_VALUE: Final = 0x08
REGISTER: Final = 0x09
REMEMBER_STATE: Final = 0x0A
RESTORE_STATE: Final = 0x0B
DEF_CFA: Final = 0x0C
DEF_CFA_REGISTER: Final = 0x0D
DEF_CFA_OFFSET: Final = 0x0E
DEF_CFA_EXPRESSION: Final = 0x0F
EXPRESSION: Final = 0x10
OFFSET_EXTENDED_SF: Final = 0x11
DEF_CFA_SF: Final = 0x12
DEF_CFA_OFFSET_SF: Final = 0x13
VAL_OFFSET: Final = 0x14
VAL_OFFSET_SF: Final = 0x15
VAL_EXPRESSION: Final = 0x16
MIPS_ADVANCE_LOC8: Final = 0x1D
AARCH64_SET_RA_STATE: Final = 0x2B
AARCH64_NEGATE_RA_STATE_WITH_PC: Final = 0x2C
AARCH64_NEGATE_RA_STATE: Final = 0x2D
GNU_ARGS_SIZE: Final = 0x2E
GNU_NEGATIVE_OFFSET_EXTENDED: Final = 0x2F
ADVANCE_LOC: Final = 0x40
OFFSET: Final = 0x80
RESTORE: Final = 0xC0

HEAD: Final = RESTORE
"""What the state machine puts before the first instruction of a program: it acts as a restore of everything."""

UNKNOWN: Final = 1 << 30
"""Length of an instruction that is not known or whose operands cannot be read: longer than any section is left."""


class Flag:
    """What an instruction does, as bits."""

    HEAD = 1
    ROW = 2
    """Begins a row."""
    CFA_REG = 4
    """Sets what the CFA is computed from."""
    CFA_OFF = 8
    """Sets the offset of the CFA."""
    FP = 16
    """Sets the rule of x29."""
    RA = 32
    """Sets the rule of x30."""
    NEGATE = 64
    REMEMBER = 128
    RESTORE = 256
    EXTENDED = 512
    """Names its register in an operand."""
    SP = 1024
    """Sets the rule of SP or of RA_SIGN_STATE, for which tables have no column."""


class Kind:
    """How a register rule is written."""

    NONE = 0
    INITIAL = 1
    """As at the end of the CIE."""
    OFFSET = 2
    OFFSET_SF = 3
    OFFSET_NEGATIVE = 4
    UNDEFINED = 5
    SAME = 6
    REGISTER = 7
    VAL_OFFSET = 8
    VAL_OFFSET_SF = 9
    EXPRESSION = 10
    VAL_EXPRESSION = 11


_KINDS: Final = {
    OFFSET_EXTENDED: Kind.OFFSET,
    RESTORE_EXTENDED: Kind.INITIAL,
    UNDEFINED: Kind.UNDEFINED,
    SAME_VALUE: Kind.SAME,
    REGISTER: Kind.REGISTER,
    EXPRESSION: Kind.EXPRESSION,
    OFFSET_EXTENDED_SF: Kind.OFFSET_SF,
    VAL_OFFSET: Kind.VAL_OFFSET,
    VAL_OFFSET_SF: Kind.VAL_OFFSET_SF,
    VAL_EXPRESSION: Kind.VAL_EXPRESSION,
    GNU_NEGATIVE_OFFSET_EXTENDED: Kind.OFFSET_NEGATIVE,
}


def _lebs() -> NDArray[np.uint8]:
    """(256,) uint8, LEB128 operands that follow the first byte."""
    table = np.zeros(256, dtype=np.uint8)
    table[OFFSET : OFFSET + 64] = 1
    table[[RESTORE_EXTENDED, UNDEFINED, SAME_VALUE, DEF_CFA_REGISTER, DEF_CFA_OFFSET]] = 1
    table[[DEF_CFA_OFFSET_SF, GNU_ARGS_SIZE, DEF_CFA_EXPRESSION]] = 1
    table[[OFFSET_EXTENDED, REGISTER, DEF_CFA, OFFSET_EXTENDED_SF, DEF_CFA_SF, VAL_OFFSET, VAL_OFFSET_SF]] = 2
    table[[GNU_NEGATIVE_OFFSET_EXTENDED, EXPRESSION, VAL_EXPRESSION]] = 2
    return table


def _length() -> NDArray[np.int32]:
    """(256,) int32, bytes of an instruction whose LEB128 operands have one byte each and whose block is empty."""
    table = np.full(256, UNKNOWN, dtype=np.int32)
    known = [NOP, REMEMBER_STATE, RESTORE_STATE, AARCH64_NEGATE_RA_STATE]
    table[known] = 1
    table[LEBS > 0] = 1 + LEBS[LEBS > 0]
    table[ADVANCE_LOC : ADVANCE_LOC + 64] = 1
    table[RESTORE : RESTORE + 64] = 1
    table[ADVANCE_LOC1] = 2
    table[ADVANCE_LOC2] = 3
    table[ADVANCE_LOC4] = 5
    table[[SET_LOC, MIPS_ADVANCE_LOC8]] = 9
    return table


def _flags() -> NDArray[np.uint16]:
    """(256,) uint16, bits of Flag."""
    table = np.zeros(256, dtype=np.uint16)
    table[ADVANCE_LOC : ADVANCE_LOC + 64] = Flag.ROW
    table[[SET_LOC, ADVANCE_LOC1, ADVANCE_LOC2, ADVANCE_LOC4, MIPS_ADVANCE_LOC8]] = Flag.ROW
    for register, flag in ((FP, Flag.FP), (RA, Flag.RA), (SP, Flag.SP), (RA_SIGN_STATE, Flag.SP)):
        table[[OFFSET + register, RESTORE + register]] = flag
    table[list(_KINDS)] = Flag.EXTENDED
    table[[DEF_CFA, DEF_CFA_SF, DEF_CFA_EXPRESSION]] = Flag.CFA_REG | Flag.CFA_OFF
    table[DEF_CFA_REGISTER] = Flag.CFA_REG
    table[[DEF_CFA_OFFSET, DEF_CFA_OFFSET_SF]] = Flag.CFA_OFF
    table[AARCH64_NEGATE_RA_STATE] = Flag.NEGATE
    table[REMEMBER_STATE] = Flag.REMEMBER
    table[RESTORE_STATE] = Flag.RESTORE | Flag.CFA_REG | Flag.CFA_OFF | Flag.FP | Flag.RA
    return table


def _kind() -> NDArray[np.uint8]:
    """(256,) uint8, Kind of each register rule."""
    table = np.zeros(256, dtype=np.uint8)
    table[OFFSET : OFFSET + 64] = Kind.OFFSET
    table[RESTORE : RESTORE + 64] = Kind.INITIAL
    for code, kind in _KINDS.items():
        table[code] = kind
    return table


LEBS: Final = _lebs()
LENGTH: Final = _length()
BLOCK: Final = (DEF_CFA_EXPRESSION, EXPRESSION, VAL_EXPRESSION)
"""Instructions whose last LEB128 operand is the length of a block that follows."""
FLAGS: Final = _flags()
KIND: Final = _kind()
SHAPE_LENGTH: Final = 0x0F
"""Bits of SHAPE: LENGTH, 0 for blocks and UNKNOWN."""
SHAPE_MATTERS: Final = 0x10
"""Bit of SHAPE: has any Flag."""
SHAPE_LEBS: Final = 0x40
"""Bit of SHAPE: two LEB128 operands."""
SHAPE_LEB: Final = 0x80
"""Bit of SHAPE: at least one."""
HEAD_FLAGS: Final = Flag.HEAD | Flag.ROW | Flag.CFA_REG | Flag.CFA_OFF | Flag.FP | Flag.RA


def _shape() -> bytes:
    """256 bytes, all that is needed to cut programs, as bytes.translate takes it."""
    length = np.where(LENGTH == UNKNOWN, 0, LENGTH)
    length[list(BLOCK)] = 0
    table = length | np.where(FLAGS != 0, SHAPE_MATTERS, 0)
    table |= np.where(LEBS == 2, SHAPE_LEBS, 0) | np.where(LEBS >= 1, SHAPE_LEB, 0)
    return table.astype(np.uint8).tobytes()


SHAPE: Final = _shape()
