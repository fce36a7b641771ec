"""Layer 2: numbers of the SFrame format, versions 1 to 3.

Invariant: every constant carries the name that the specification gives it, without its prefix. Nothing here computes.

Source:
    The SFrame specification (libsframe/doc/sframe-spec.texi), binutils 2.40 (version 1), 2.45 (version 2 and
    errata 1), 2.47 (errata 2 and version 3), chapters 2 to 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Final

import numpy as np

from surefoot.metadata.rules import Abi

__all__ = [
    "ABI_INFO",
    "ATTR_SIZE",
    "BIG_ENDIAN_ABIS",
    "FDE_DTYPES",
    "HEADER_DTYPE",
    "HEADER_SIZE",
    "INFO2_FDE_TYPE",
    "INFO2_UNUSED",
    "INFO_FRE_TYPE",
    "INFO_KEY_B",
    "INFO_PC_MASK",
    "INFO_SIGNAL",
    "INFO_UNUSED",
    "MAGIC",
    "MAX_ROWS_V3",
    "PT_GNU_SFRAME",
    "ROW_BASE_SP",
    "ROW_SIGNED",
    "SHT_GNU_SFRAME",
    "AbiInfo",
    "FdeType",
    "HeaderFlag",
    "Version",
    "known_flags",
]

MAGIC: Final = 0xDEE2
HEADER_SIZE: Final = 28
ATTR_SIZE: Final = 5
MAX_ROWS_V3: Final = 0xFFFF
SHT_GNU_SFRAME: Final = 0x6FFFFFF4
PT_GNU_SFRAME: Final = 0x6474E554


class Version(IntEnum):
    """The versions that exist; 3 is what binutils has written since 2.46."""

    V1 = 1
    V2 = 2
    V3 = 3


class HeaderFlag(IntFlag):
    """Bits of the preamble's flags byte."""

    SORTED = 1
    """Descriptors are in ascending order of their resolved start addresses."""
    FRAME_POINTER = 2
    """Every function keeps a frame pointer; versions 1 and 2 only."""
    PCREL = 4
    """A descriptor's start is relative to its own field, not to the section (version 2 errata 1, version 3)."""


def known_flags(version: int) -> int:
    """Give the flag bits that a version defines."""
    every = HeaderFlag.SORTED | HeaderFlag.PCREL
    return int(every if version == Version.V3 else every | HeaderFlag.FRAME_POINTER)


class FdeType(IntEnum):
    """Low bits of func_info2, version 3."""

    DEFAULT = 0
    FLEX = 1


# func_info: bits 0-3 FRE type, 4 PC type, 5 key, 6 unused, 7 signal frame (version 3).
INFO_FRE_TYPE: Final = 0x0F
INFO_PC_MASK: Final = 0x10
INFO_KEY_B: Final = 0x20
INFO_UNUSED: Final = 0x40
INFO_SIGNAL: Final = 0x80
# func_info2: bits 0-4 FDE type, 5-7 unused.
INFO2_FDE_TYPE: Final = 0x1F
INFO2_UNUSED: Final = 0xE0
# Row info: bit 0 CFA base (1 = SP), 1-4 number of words, 5-6 size of a word (log2), 7 RA signed.
ROW_BASE_SP: Final = 0x01
ROW_SIGNED: Final = 0x80

HEADER_DTYPE: Final = np.dtype(
    [
        ("magic", "<u2"),
        ("version", "u1"),
        ("flags", "u1"),
        ("abi", "u1"),
        ("fixed_fp", "i1"),
        ("fixed_ra", "i1"),
        ("aux_len", "u1"),
        ("num_fdes", "<u4"),
        ("num_fres", "<u4"),
        ("fre_len", "<u4"),
        ("fdeoff", "<u4"),
        ("freoff", "<u4"),
    ]
)

_V1_FIELDS: Final = [("start", "<i4"), ("size", "<u4"), ("fre_off", "<u4"), ("num_fres", "<u4"), ("info", "u1")]
FDE_DTYPES: Final = {
    Version.V1: np.dtype(_V1_FIELDS),
    Version.V2: np.dtype([*_V1_FIELDS, ("rep_size", "u1"), ("padding", "<u2")]),
    Version.V3: np.dtype([("start", "<i8"), ("size", "<u4"), ("fre_off", "<u4")]),
}
"""Packed little-endian records of the descriptor table; the spec calls them aligned, real files do not align them."""

BIG_ENDIAN_ABIS: Final = frozenset({Abi.AARCH64_BE, Abi.S390X_BE})


@dataclass(frozen=True, slots=True)
class AbiInfo:
    """What an ABI fixes: register numbers of its DWARF mapping, scaling of the CFA word.

    Attributes:
        sp: DWARF number of the stack pointer.
        fp: DWARF number of the frame pointer.
        ra: DWARF number of the return address register (or column).
        fixed_ra: the header's fixed RA offset that GNU tools write, 0 = tracked in the rows.
        entry_cfa: CFA minus SP at a function's entry, bytes.
        cfa_bias: bytes added to a CFA word after scaling.
        cfa_scale: factor of a CFA word.
        code_align: bytes; function starts and sizes are multiples of it.
        machine: ELF e_machine.
        reloc_types: ELF relocation types of a descriptor's start: 32 bits (versions 1, 2), 64 bits (version 3).
    """

    sp: int
    fp: int
    ra: int
    fixed_ra: int
    entry_cfa: int
    cfa_bias: int
    cfa_scale: int
    code_align: int
    machine: int
    reloc_types: tuple[int, int]


_ARM: Final = AbiInfo(31, 29, 30, 0, 0, 0, 1, 4, 183, (261, 260))
ABI_INFO: Final = {
    Abi.AARCH64_BE: _ARM,
    Abi.AARCH64_LE: _ARM,
    Abi.AMD64_LE: AbiInfo(7, 6, 16, -8, 8, 0, 1, 1, 62, (2, 24)),
    Abi.S390X_BE: AbiInfo(15, 11, 14, 0, 160, 160, 8, 2, 22, (5, 23)),
}
