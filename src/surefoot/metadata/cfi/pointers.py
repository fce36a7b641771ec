"""Layer 2: pointer encodings of .eh_frame, read at many places at once.

Source: Linux Standard Base Core 5.0, section 10.5 (DW_EH_PE_*); GCC unwind-pe.h for `aligned` and `indirect`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from surefoot.dtypes import Addr, Mask, Off
from surefoot.metadata.cfi.section import Section

__all__ = ["ABSOLUTE", "OMIT", "Bases", "read_pointers", "refuse_encoding", "width_of"]

ABSOLUTE: Final = 0x00
OMIT: Final = 0xFF
_ULEB: Final = 0x01
_SLEB: Final = 0x09
_FIXED: Final = {
    0x02: (2, False),
    0x03: (4, False),
    0x04: (8, False),
    0x0A: (2, True),
    0x0B: (4, True),
    0x0C: (8, True),
}
_SIGNED_NATIVE: Final = 0x08
_PCREL: Final = 0x10
_APPLICATIONS: Final = {0x20: "textrel", 0x30: "datarel", 0x40: "funcrel", 0x50: "aligned"}
_INDIRECT: Final = 0x80


@dataclass(frozen=True, slots=True)
class Bases:
    """What relative pointers count from.

    Attributes:
        text: base of `textrel`, or None where it is not known.
        data: base of `datarel` (for .eh_frame_hdr its own address), or None where it is not known.
    """

    text: int | None = None
    data: int | None = None

    def of(self, application: int) -> int | None:
        """Give the base of an application, None where there is none."""
        return {0x00: 0, _PCREL: 0, 0x20: self.text, 0x30: self.data}.get(application)


def width_of(encoding: int, address_size: int) -> int:
    """Give the bytes of a pointer; 0 for LEB128 and for what does not exist."""
    form = encoding & 0x0F
    if form in {ABSOLUTE, _SIGNED_NATIVE}:
        return address_size
    return _FIXED.get(form, (0, False))[0]


def refuse_encoding(encoding: int, bases: Bases) -> str:
    """Say why pointers of this encoding cannot be read, or nothing."""
    form, application = encoding & 0x0F, encoding & 0x70
    if encoding == OMIT:
        return "pointer encoding 'omit' for an address that is needed"
    if encoding & _INDIRECT:
        return f"pointer encoding {encoding:#04x} is indirect"
    if form not in {ABSOLUTE, _ULEB, _SIGNED_NATIVE, _SLEB, *_FIXED}:
        return f"pointer encoding {encoding:#04x} has an unknown form"
    if bases.of(application) is None:
        name = _APPLICATIONS.get(application, "relative to something unknown")
        return f"pointer encoding {encoding:#04x} is {name}, and its base is not known"
    return ""


def read_pointers(
    section: Section, pos: Off, encoding: int, address_size: int, bases: Bases
) -> tuple[Addr, Off, Mask, Mask]:
    """Read pointers of one encoding that `refuse_encoding` accepts.

    Args:
        section: the bytes.
        pos: (n,) int64, offsets.
        encoding: DW_EH_PE_* byte.
        address_size: bytes of an address.
        bases: what relative pointers count from.

    Returns:
        (n,) uint64 addresses; (n,) int64 bytes read; (n,) bool exact (see Leb); (n,) bool the stored number is
        negative.
    """
    form, application = encoding & 0x0F, encoding & 0x70
    exact = np.ones(pos.size, dtype=np.bool_)
    if form in {_ULEB, _SLEB}:
        leb = section.leb(pos, signed=form == _SLEB)
        value, length, exact = leb.value.astype(np.uint64), leb.length, leb.ok
    else:
        width = width_of(encoding, address_size)
        signed = form == _SIGNED_NATIVE or _FIXED.get(form, (0, False))[1]
        value = section.fixed(pos, width, signed=signed)
        length = np.full(pos.size, width, dtype=np.int64)
    negative = (value >> np.uint64(63)).astype(np.bool_) & (form >= _SIGNED_NATIVE)
    base = np.uint64((bases.of(application) or 0) % 2**64)
    if application == _PCREL:
        value = value + pos.astype(np.uint64) + np.uint64(section.addr % 2**64)
    value += base
    if address_size == 4:
        value &= np.uint64(0xFFFFFFFF)
    return value, length, exact, negative
