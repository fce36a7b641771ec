"""Layer 1: the general registers that instruction words name, as bit masks.

Invariant: bit 31 is SP; the zero register has no bit.

Source: Arm Architecture Reference Manual for A-profile (DDI 0487), C1.2.5 "Register names".
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Code, Insn
from surefoot.isa.fields import field
from surefoot.isa.tables import Access

__all__ = ["FIELDS", "named_registers"]

FIELDS: Final = (0, 5, 10, 16)
"""Lowest bits of the four register fields, in the order of the tables."""


def _masks() -> NDArray[np.uint32]:
    """(5 * 32,) uint32: the registers that a field names, by Access * 32 + its value."""
    table = np.zeros((len(Access), 32), dtype=np.uint64)
    one = np.uint64(1) << np.arange(32, dtype=np.uint64)
    general = np.uint64(0x7FFF_FFFF)
    table[Access.ZR] = one & general
    table[Access.SP] = one
    table[Access.PAIR] = (one | (one << np.uint64(1))) & general
    table[Access.EIGHT] = (one * np.uint64(0xFF)) & general
    return table.astype(np.uint32).reshape(-1)


_MASKS: Final = _masks()


def named_registers(
    words: Insn, form: NDArray[np.uint16], access: tuple[Code, ...], fixed: NDArray[np.uint32]
) -> NDArray[np.uint32]:
    """Give the registers that the fields of each word name, as masks.

    Args:
        words: (n,) uint32.
        form: (n,) uint16, their forms.
        access: for each of the four fields (f,) uint8 of Access, by form.
        fixed: (f,) uint32, masks of the registers that a form names without a field.

    Returns:
        (n,) uint32, bit r for register r, bit 31 for SP.
    """
    found = fixed[form]
    low = (access[0][form].astype(np.uint32) << np.uint32(5)) | (words & np.uint32(31))
    found |= _MASKS[low]
    for column, lsb in zip(access[1:], FIELDS[1:], strict=True):
        at = np.flatnonzero(column[form])
        if at.size:
            kind = column[form[at]].astype(np.uint32) << np.uint32(5)
            found[at] |= _MASKS[kind | field(words[at], lsb, 5)]
    return found
