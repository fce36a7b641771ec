"""Layer 2: relocations of .debug_frame and .eh_frame in object files and modules.

Invariant: every relocation is applied exactly, or the section is refused with the type's number and its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from surefoot.dtypes import Addr, Bytes, Off, Row32
from surefoot.errors import Inconsistent, Truncated, Unsupported
from surefoot.metadata.cfi.section import Section

__all__ = ["Relocations", "apply"]

_WIDTHS: Final = {257: 8, 258: 4, 259: 2, 260: 8, 261: 4, 262: 2}
"""R_AARCH64_ABS64/32/16 and PREL64/32/16 with their widths in bytes (ELF for the Arm 64-bit Architecture, 5.7.4)."""
_NONE: Final = (0, 256)
_RELATIVE: Final = 260
"""Types from here on are relative to the place that they patch."""


@dataclass(frozen=True, slots=True)
class Relocations:
    """The RELA entries of one section, as arrays in any order.

    Attributes:
        offset: (n,) uint64, byte offset in the section that is patched.
        type: (n,) uint32, ELF relocation type.
        symbol_value: (n,) uint64, value of the symbol: its offset in its section.
        symbol_section: (n,) int32, header index of the symbol's section; reserved indices as they stand.
        addend: (n,) int64.
    """

    offset: Addr
    type: Bytes | np.ndarray[tuple[int], np.dtype[np.uint32]]
    symbol_value: Addr
    symbol_section: Row32
    addend: Off

    def __len__(self) -> int:
        return int(self.offset.size)

    def sections_at(self, pos: Off) -> Row32:
        """(k,) int32, section of the symbol that is patched in at each offset; -1 where nothing is."""
        missing = np.full(pos.size, -1, dtype=np.int32)
        if not len(self) or not pos.size:
            return missing
        order = np.argsort(self.offset, kind="stable")
        places = self.offset[order]
        wanted = pos.astype(np.uint64)
        at = np.minimum(np.searchsorted(places, wanted), places.size - 1)
        return np.where(places[at] == wanted, self.symbol_section[order][at], missing).astype(np.int32)


def apply(section: Section, relocations: Relocations) -> None:
    """Write the relocated values into the section's own copy of its bytes.

    The target section is taken to start at address 0, so that patched addresses are offsets in it.

    Raises:
        Unsupported: a type that call frame information does not need.
        Truncated: a patch behind the end of the section.
        Inconsistent: two patches overlap, or a value does not fit its field.
    """
    order = np.argsort(relocations.offset, kind="stable")
    order = order[~np.isin(relocations.type[order], _NONE)]
    kinds = relocations.type[order]
    offset = relocations.offset[order]
    if not order.size:
        return
    width = np.zeros(order.size, dtype=np.uint64)
    for kind, count in _WIDTHS.items():
        width[kinds == kind] = count
    for bad in np.flatnonzero(width == 0)[:1].tolist():
        section.fail(Unsupported, f"relocation type {int(kinds[bad])}", int(offset[bad]))
    size = np.uint64(section.size)
    for bad in np.flatnonzero((offset > size) | (width > size - np.minimum(offset, size)))[:1].tolist():
        section.fail(Truncated, "a relocation patches bytes behind the section's end", int(offset[bad]))
    for bad in np.flatnonzero(offset[1:] - offset[:-1] < width[:-1])[:1].tolist():
        section.fail(Inconsistent, "two relocations patch the same bytes", int(offset[bad + 1]))
    value = relocations.symbol_value[order] + relocations.addend[order].astype(np.uint64)
    place = offset + np.uint64(section.addr)
    value = np.where(kinds >= _RELATIVE, value - place, value)
    for bytes_ in sorted(set(_WIDTHS.values())):
        _store(section, offset, value, np.flatnonzero(width == bytes_), bytes_)


def _store(section: Section, offset: Addr, value: Addr, which: Off, width: int) -> None:
    """Write `value` into fields of `width` bytes; both signed and unsigned readings of a field are legal."""
    if width < 8:
        half, full = np.uint64(1 << (8 * width - 1)), np.uint64(1 << (8 * width))
        wrong = (value[which] >= full) & (value[which] + half >= full)
        for bad in which[wrong][:1].tolist():
            section.fail(Inconsistent, f"a relocated value does not fit {width} bytes", int(offset[bad]))
    for k in range(width):
        shift = 8 * (width - 1 - k if section.big_endian else k)
        section.data[(offset[which] + np.uint64(k)).astype(np.int64)] = (
            value[which] >> np.uint64(shift)
        ) & np.uint64(0xFF)
