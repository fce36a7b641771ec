"""Layer 3: an ELF file with an `.sframe` section added or replaced. Pure: nothing is written here.

Invariant: no byte of the input moves but those of the file header; what is new stands behind its end. Section
indices, symbols and every other section stay as they were.

Linked images get a new loadable, read-only segment behind the last one, which holds the new program header table
and the section, and a PT_GNU_SFRAME entry. Relocatable objects get `.rela.sframe` against symbols that they have.

Source: System V gABI (ELF-64); SHT_GNU_SFRAME and PT_GNU_SFRAME as binutils 2.47 writes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from surefoot.errors import Inconsistent, Unsupported
from surefoot.image.anyelf import EHDR, PHDR, RELA, SHDR, SYM, AnyElf
from surefoot.metadata.sframe import RelocationTable
from surefoot.metadata.sframe.constants import PT_GNU_SFRAME, SHT_GNU_SFRAME

__all__ = ["Addition", "add_sframe", "sframe_address"]

_NAME: Final = ".sframe"
_PT_LOAD: Final = 1
_PT_PHDR: Final = 6
_PF_R: Final = 4
_SHT_RELA: Final = 4
_SHF_ALLOC: Final = 2
_SHF_INFO_LINK: Final = 0x40
_SEGMENT_ALIGN: Final = 0x10000
_ALIGN: Final = 8
_MAX_SECTIONS: Final = 0xFF00
_STT_SECTION: Final = 3
_STB_WEAK: Final = 2


@dataclass(frozen=True, slots=True)
class Addition:
    """What turns a file into the one with the section: its first bytes change, and something is appended.

    Attributes:
        header: the new file header, for offset 0.
        tail: what follows the old last byte.
    """

    header: bytes
    tail: bytes

    def apply(self, data: bytes) -> bytes:
        """Give the new file."""
        return self.header + data[len(self.header) :] + self.tail


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where new parts of a linked image go.

    Attributes:
        phoff: file offset of the new program header table, the start of the new segment.
        offset: file offset of the section.
        vaddr: address of the new segment.
        paddr: physical address of the new segment.
    """

    phoff: int
    offset: int
    vaddr: int
    paddr: int

    @property
    def addr(self) -> int:
        """Address of the section."""
        return self.vaddr + self.offset - self.phoff


def _up(value: int, align: int) -> int:
    """Round up to a multiple."""
    return -(-value // align) * align


def _kept_segments(elf: AnyElf) -> NDArray[np.void]:
    """Give the program headers that stay: all but an old PT_GNU_SFRAME."""
    kept: NDArray[np.void] = elf.segments[elf.segments["type"] != PT_GNU_SFRAME]
    return kept


def _layout(elf: AnyElf) -> _Layout:
    """Choose the places in a linked image: behind its last byte and behind its last segment."""
    loads = elf.segments[elf.segments["type"] == _PT_LOAD]
    if not loads.size:
        raise Unsupported("is a linked image without loadable segments", file=elf.name)
    ends = [int(vaddr) + int(size) for vaddr, size in zip(loads["vaddr"], loads["memsz"], strict=True)]
    end = max(ends)
    last = ends.index(end)
    shift = int(loads["paddr"][last]) - int(loads["vaddr"][last])
    phoff = _up(elf.data.size, _ALIGN)
    vaddr = _up(end, _SEGMENT_ALIGN) + phoff % _SEGMENT_ALIGN
    table = (len(_kept_segments(elf)) + 2) * PHDR.itemsize
    if vaddr + table >= 2**64:
        raise Unsupported("has no room for a segment behind its last one", file=elf.name)
    return _Layout(phoff, _up(phoff + table, _ALIGN), vaddr, (vaddr + shift) % 2**64)


def sframe_address(elf: AnyElf) -> int:
    """Give the address that `add_sframe` will give the section: starts are resolved against it.

    Raises:
        Unsupported: a linked image without loadable segments, or without room behind them.
    """
    return 0 if elf.is_relocatable else _layout(elf).addr


def add_sframe(elf: AnyElf, content: bytes, relocations: RelocationTable | None = None) -> Addition:
    """Say what adds `.sframe` to a file; an existing section of that name is replaced.

    Args:
        elf: the file.
        content: the section, encoded for the address that `sframe_address` gives.
        relocations: for relocatable objects, one per descriptor against sections; else None.

    Returns:
        the changes; the file itself is not copied.

    Raises:
        Inconsistent: relocations for a linked image or none for an object; a section with functions that no
            symbol lies in.
        Unsupported: the file has too many sections, no section names, or no room.
    """
    if elf.is_relocatable != (relocations is not None):
        raise Inconsistent("relocations belong to relocatable objects, and only to them", file=elf.name)
    if len(elf.names) + 2 >= _MAX_SECTIONS:
        raise Unsupported(f"has {len(elf.names)} sections; a file with so many is not written", file=elf.name)
    if relocations is None:
        return _add_linked(elf, content)
    return _add_relocatable(elf, content, relocations)


class _Writer:
    """What is appended to a file, in the making."""

    def __init__(self, elf: AnyElf) -> None:
        self.elf = elf
        self.size = int(elf.data.size)
        self.tail = bytearray()
        self.sections = elf.sections.copy()
        self.strings = bytearray()
        self.string_index = self._string_section()
        self.strings += elf.section_bytes(self.string_index).tobytes()

    def _string_section(self) -> int:
        """Give the section that holds section names."""
        index = int(self.elf.header["shstrndx"])
        if not 0 < index < len(self.elf.names):
            raise Unsupported("has no section names", file=self.elf.name)
        return index

    def append(self, content: bytes, align: int = _ALIGN) -> int:
        """Put bytes behind the end; give their offset."""
        self.tail += bytes(-(self.size + len(self.tail)) % align)
        offset = self.size + len(self.tail)
        self.tail += content
        return offset

    def put_section(self, name: str, index: int | None, **values: int) -> int:
        """Write a section header, a new one or over an old one; give its index."""
        entry = np.zeros(1, dtype=self.sections.dtype)
        entry["name"] = len(self.strings)
        self.strings += name.encode() + b"\0"
        for key, value in values.items():
            entry[key] = value
        if index is None:
            self.sections = np.append(self.sections, entry)
            return int(self.sections.size) - 1
        self.sections[index] = entry[0]
        return index

    def finish(self, **header: int) -> Addition:
        """Append names and headers, and point the file header at them."""
        offset = self.append(bytes(self.strings), 1)
        self.sections["offset"][self.string_index] = offset
        self.sections["size"][self.string_index] = len(self.strings)
        shoff = self.append(self.sections.astype(self.elf.dtype(SHDR)).tobytes())  # np.append: native order
        record = self.elf.data[: EHDR.itemsize].view(self.elf.dtype(EHDR)).copy()
        record["shoff"], record["shnum"] = shoff, self.sections.size
        for key, value in header.items():
            record[key] = value
        return Addition(record.tobytes(), bytes(self.tail))


def _only(elf: AnyElf, name: str) -> int | None:
    """Give the index of the one section of a name, None without one."""
    found = elf.find(name)
    if len(found) > 1:
        raise Unsupported(f"has {len(found)} sections called {name}", file=elf.name)
    return found[0] if found else None


def _add_linked(elf: AnyElf, content: bytes) -> Addition:
    """Add the section to an executable, shared object or kernel."""
    layout = _layout(elf)
    writer = _Writer(elf)
    segments = _kept_segments(elf)
    table = np.append(segments, np.zeros(2, dtype=segments.dtype))
    size = layout.offset - layout.phoff + len(content)
    load, mark = table[-2:-1], table[-1:]
    load["type"], load["flags"], load["align"] = _PT_LOAD, _PF_R, _SEGMENT_ALIGN
    load["offset"], load["vaddr"], load["paddr"] = layout.phoff, layout.vaddr, layout.paddr
    load["filesz"] = load["memsz"] = size
    mark["type"], mark["flags"], mark["align"] = PT_GNU_SFRAME, _PF_R, _ALIGN
    mark["offset"], mark["vaddr"] = layout.offset, layout.addr
    mark["paddr"] = (layout.paddr + layout.offset - layout.phoff) % 2**64
    mark["filesz"] = mark["memsz"] = len(content)
    moved = table["type"] == _PT_PHDR
    for key, value in (("offset", layout.phoff), ("vaddr", layout.vaddr), ("paddr", layout.paddr)):
        table[key][moved] = value
    table["filesz"][moved] = table["memsz"][moved] = table.nbytes
    table = _loads_in_order(table)
    writer.append(table.astype(elf.dtype(PHDR)).tobytes())
    offset = writer.append(content)
    values = {"type": SHT_GNU_SFRAME, "flags": _SHF_ALLOC, "addr": layout.addr, "offset": offset}
    writer.put_section(_NAME, _only(elf, _NAME), **values, size=len(content), align=_ALIGN)
    return writer.finish(phoff=layout.phoff, phnum=table.size, phentsize=PHDR.itemsize)


def _loads_in_order(table: NDArray[np.void]) -> NDArray[np.void]:
    """Put the new PT_LOAD, the last but one, behind the other PT_LOADs: they must ascend by address."""
    last = int(np.flatnonzero(table["type"][:-2] == _PT_LOAD)[-1])
    count = table.size
    order = [*range(last + 1), count - 2, *range(last + 1, count - 2), count - 1]
    return table[order]


def _add_relocatable(elf: AnyElf, content: bytes, relocations: RelocationTable) -> Addition:
    """Add the section and its relocations to an object or module."""
    writer = _Writer(elf)
    records = _against_symbols(elf, relocations)
    offset = writer.append(content)
    values = {"type": SHT_GNU_SFRAME, "flags": _SHF_ALLOC, "offset": offset, "size": len(content), "align": _ALIGN}
    old = _only(elf, _NAME)
    index = writer.put_section(_NAME, old, **values)
    rela_at = writer.append(records.tobytes())
    writer.put_section(
        f".rela{_NAME}",
        _rela_of(elf, old),
        type=_SHT_RELA,
        flags=_SHF_INFO_LINK,
        offset=rela_at,
        size=records.nbytes,
        link=elf.symbol_table or 0,
        info=index,
        align=_ALIGN,
        entsize=RELA.itemsize,
    )
    return writer.finish()


def _rela_of(elf: AnyElf, index: int | None) -> int | None:
    """Give the section with the relocations of a section, None without one."""
    if index is None:
        return None
    found = np.flatnonzero((elf.sections["info"] == index) & (elf.sections["type"] == _SHT_RELA))
    return int(found[0]) if found.size else None


def _against_symbols(elf: AnyElf, relocations: RelocationTable) -> NDArray[np.void]:
    """Give the relocations as records, each against a symbol of its section."""
    wanted = np.unique(relocations.symbol_section)
    records = np.zeros(relocations.offset.size, dtype=elf.dtype(RELA))
    if not wanted.size:
        return records
    if elf.symbol_table is None:
        hint = "Give the file as the compiler or linker wrote it."
        raise Unsupported("has no symbol table to relocate against", file=elf.name, hint=hint)
    symbols, sections = elf.table(elf.symbol_table, SYM), elf.symbol_sections(elf.symbol_table)
    # Best symbol of each section: its section symbol, else a local, else a global one; weak ones may be replaced.
    bind, kind = symbols["info"] >> 4, symbols["info"] & 15
    rank = np.where(kind == _STT_SECTION, 0, 1 + bind.astype(np.int64))
    usable = np.flatnonzero((sections >= 0) & (bind != _STB_WEAK))
    order = usable[np.lexsort((usable, rank[usable], sections[usable]))]
    at = np.searchsorted(sections[order], wanted)
    safe = np.minimum(at, max(0, order.size - 1))
    found = (sections[order][safe] == wanted) if order.size else np.zeros(wanted.size, dtype=np.bool_)
    if not found.all():
        bare = int(wanted[~found][0])
        called = elf.names[bare] if 0 <= bare < len(elf.names) else str(bare)
        raise Inconsistent("holds functions but no symbol to relocate against", file=elf.name, section=called)
    symbol = order[safe][np.searchsorted(wanted, relocations.symbol_section)]
    records["offset"] = relocations.offset
    records["info"] = (symbol.astype(np.uint64) << np.uint64(32)) | relocations.type.astype(np.uint64)
    records["addend"] = relocations.addend - symbols["value"][symbol].astype(np.int64)
    return records
