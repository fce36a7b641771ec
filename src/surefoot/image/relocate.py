"""Layer 3: data as they are at run time: relocations of modules and of position-independent kernels applied.

Invariant: a field is either exact or named as unresolved; a relocation type that is not known is refused.

Source: ELF for the Arm 64-bit Architecture (aaelf64), sections 5.7.4 and 5.7.15; arch/arm64/kernel/pi/relocate.c
(RELR and RELATIVE) and arch/arm64/kernel/module.c (Linux 7.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from surefoot.dtypes import Addr, Bytes, Mask, Off
from surefoot.errors import Inconsistent, Truncated, Unsupported
from surefoot.image.binary import Image
from surefoot.image.elf import FileType
from surefoot.image.model import ABSOLUTE, UNDEFINED, Relocations, RelocType, SectionFlag, SectionType

__all__ = ["Region", "dynamic_relocations", "region_at", "region_of", "relr_places"]

_IGNORED: Final = (RelocType.NONE, RelocType.NONE_OLD)
_RELATIVE: Final = (RelocType.PREL64, RelocType.PREL32)
_MAX_RELR: Final = 1 << 20
"""Bound on RELR entries, for memory; a kernel of 7.3 has some 15,000."""
_WIDTHS: Final = {
    RelocType.ABS64: 8,
    RelocType.ABS32: 4,
    RelocType.PREL64: 8,
    RelocType.PREL32: 4,
    RelocType.RELATIVE: 8,
}


@dataclass(frozen=True)
class Region:
    """Bytes at an address, relocations applied.

    Attributes:
        addr: of the first byte.
        data: (b,) uint8; a private copy where anything was relocated.
        unresolved: (u,) int64, sorted offsets of fields whose symbol is elsewhere (undefined, or not loaded).
        source: which part of the image this is, for messages and reports.
    """

    addr: int
    data: Bytes
    unresolved: Off
    source: str

    def is_resolved(self, offsets: Off) -> Mask:
        """(n,) bool: the field at each offset, (n,) int64, has its run-time value."""
        return ~np.isin(offsets, self.unresolved)


def region_of(image: Image, index: int) -> Region:
    """Give a whole section.

    Args:
        image: linked, or a relocatable object that is placed.
        index: section header index.

    Raises:
        Inconsistent: not placed, or a relocation lies outside the section.
        Unsupported: a relocation of a type that data of kernels do not have.
    """
    image.require_placed()
    name = image.sections.names[index]
    addr = int(image.sections.addr[index])
    data = image.elf.section_bytes(index)
    if image.elf.type != FileType.REL:
        return _with_dynamic(image, Region(addr, data, np.zeros(0, dtype=np.int64), name))
    found = image.elf.relocations(index)
    found = found.take(np.flatnonzero(~np.isin(found.type, _IGNORED)))
    if not len(found):
        return Region(addr, data, np.zeros(0, dtype=np.int64), name)
    bases = image.sections.addr
    inside = found.symbol_section >= 0
    base = np.where(inside, bases[np.where(inside, found.symbol_section, 0)], np.uint64(0))
    known = np.where(inside, base != 0, found.symbol_section == ABSOLUTE)
    value = base + found.symbol_value + found.addend.view(np.uint64)
    data = _apply(data, addr, found, value, image.path, name)
    return Region(addr, data, np.sort(found.offset[~known].astype(np.int64)), name)


def region_at(image: Image, start: int, stop: int, source: str) -> Region:
    """Give the bytes of a linked image from `start` up to `stop`.

    Raises:
        Inconsistent: the range is backwards or in no section of the file.
    """
    if stop < start:
        raise Inconsistent(f"{source} ends at {stop:#x} before it starts at {start:#x}", file=image.path)
    table = image.sections
    loaded = (table.flags & np.uint64(SectionFlag.ALLOC) != 0) & (table.kind != SectionType.NOBITS)
    for index in np.flatnonzero(loaded).tolist():
        addr, size = int(table.addr[index]), int(table.size[index])
        if addr <= start and stop <= addr + size and size:
            data = image.elf.section_bytes(index)[start - addr : stop - addr]
            return _with_dynamic(image, Region(start, data, np.zeros(0, dtype=np.int64), source))
    raise Inconsistent(f"{source} at {start:#x} to {stop:#x} is in no section of the file", file=image.path)


def _with_dynamic(image: Image, region: Region) -> Region:
    """Apply the dynamic relocations that fall into a region of a linked image.

    Kernels keep such values in place (RELR) or only as addends of .rela.dyn, depending on how they were linked.
    """
    found = dynamic_relocations(image)
    low = np.uint64(region.addr)
    inside = (found.offset >= low) & (found.offset - low < np.uint64(region.data.size))
    found = found.take(np.flatnonzero(inside & ~np.isin(found.type, _IGNORED)))
    if not len(found):
        return region
    local = Relocations(
        found.offset - low, found.type, found.symbol, found.symbol_value, found.symbol_section, found.addend
    )
    value = found.symbol_value + found.addend.view(np.uint64)
    data = _apply(region.data, region.addr, local, value, image.path, region.source)
    lost = np.sort(local.offset[local.symbol_section == UNDEFINED].astype(np.int64))
    return Region(region.addr, data, lost, region.source)


def dynamic_relocations(image: Image) -> Relocations:
    """Give the loaded RELA relocations of a linked image (.rela.dyn); offsets are addresses.

    Raises:
        Truncated, Inconsistent: damaged.
    """
    table = image.elf.sections
    loaded = (table.kind == SectionType.RELA) & (table.flags & np.uint64(SectionFlag.ALLOC) != 0)
    indices = np.flatnonzero(loaded).tolist() if image.elf.type != FileType.REL else []
    parts = [image.elf.relocation_table(index) for index in indices]
    return parts[0] if len(parts) == 1 else image.elf.relocations(0) if not parts else _concatenate(parts)


def _concatenate(parts: list[Relocations]) -> Relocations:
    return Relocations(
        np.concatenate([part.offset for part in parts]),
        np.concatenate([part.type for part in parts]),
        np.concatenate([part.symbol for part in parts]),
        np.concatenate([part.symbol_value for part in parts]),
        np.concatenate([part.symbol_section for part in parts]),
        np.concatenate([part.addend for part in parts]),
    )


def _apply(data: Bytes, addr: int, found: Relocations, value: Addr, file: str, section: str) -> Bytes:
    """Write values into a copy of `data` at `found.offset` as their types say.

    Values of 32-bit fields are cut to 32 bits, as the kernel's loader would refuse what does not fit: fields that
    are unresolved hold anything.
    """
    result = data.copy()
    size = np.uint64(data.size)
    for kind in np.unique(found.type).tolist():
        rows = np.flatnonzero(found.type == kind)
        at = found.offset[rows]
        if kind not in _WIDTHS:
            raise Unsupported(f"relocation type {kind} in data", file=file, section=section, offset=int(at[0]))
        width = _WIDTHS[RelocType(kind)]
        outside = np.flatnonzero((at > size) | (size - np.minimum(at, size) < np.uint64(width)))
        if outside.size:
            place = int(at[outside[0]])
            raise Truncated("relocation lies behind the end", file=file, section=section, offset=place)
        number = value[rows]
        if kind in _RELATIVE:
            number = number - (at + np.uint64(addr))
        raw = np.ascontiguousarray(number.astype("<u8")).view(np.uint8).reshape(-1, 8)[:, :width]
        result[at.astype(np.int64)[:, None] + np.arange(width)] = raw
    return result


def relr_places(words: Addr, limit: int = _MAX_RELR) -> Addr:
    """Decode a RELR section: the addresses whose 64-bit value is relative to the load address.

    An even entry is an address; an odd one a bitmap of the 63 words behind what was covered before.

    Args:
        words: (n,) uint64, the section.
        limit: most entries to read; each takes up to 63 places.

    Returns:
        (p,) uint64, in the order of the section.

    Raises:
        Inconsistent: a bitmap without an address before it.
        Unsupported: more entries than `limit`.

    Source:
        ELF gABI, "Relative Relocation Table"; arch/arm64/kernel/pi/relocate.c (Linux 7.3).
    """
    if not words.size:
        return words.astype(np.uint64)
    if words.size > limit:
        raise Unsupported(f"RELR table has more than {limit} entries")
    is_map = (words & np.uint64(1)) == 1
    if is_map[0]:
        raise Inconsistent("RELR bitmap comes before any address", offset=0)
    index = np.arange(words.size)
    head = np.maximum.accumulate(np.where(is_map, 0, index))
    bits = np.unpackbits(words.astype("<u8").view(np.uint8).reshape(-1, 8), axis=1, bitorder="little")
    bits[~is_map, 1:] = 0
    bits[:, 0] = ~is_map
    row, bit = np.nonzero(bits)
    base = words[head[row]] + np.uint64(8) * np.maximum(63 * (row - head[row] - 1), 0).astype(np.uint64)
    return np.where(bit == 0, words[row], base + np.uint64(8) * bit.astype(np.uint64))
