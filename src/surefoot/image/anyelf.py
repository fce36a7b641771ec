"""Layer 3: ELF64 files of any machine and byte order, as far as the SFrame commands need them.

`elf` reads the arm64 kernels and modules that Surefoot walks; SFrame exists for other machines as well, and a
writer has to see raw headers. Invariant: as in `elf`, no number of the file is used before it was compared with
the bytes that there are.

Source: System V gABI, ELF-64 object file format.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Bytes, Row32
from surefoot.errors import Inconsistent, Truncated, Unsupported
from surefoot.image.model import ABSOLUTE, OTHER, UNDEFINED, Relocations, SectionFlag, SectionType

__all__ = ["EHDR", "PHDR", "RELA", "SHDR", "SYM", "AnyElf", "decode_any_elf"]


def _record(spec: str) -> np.dtype[np.void]:
    """Give a packed little-endian record from `name:code` words."""
    pairs = [word.split(":") for word in spec.split()]
    return np.dtype([(name, "<" + code) for name, code in pairs])


EHDR: Final = _record(
    "ident:u8 pad:u8 type:u2 machine:u2 version:u4 entry:u8 phoff:u8 shoff:u8 flags:u4 ehsize:u2 phentsize:u2 "
    "phnum:u2 shentsize:u2 shnum:u2 shstrndx:u2"
)
SHDR: Final = _record("name:u4 type:u4 flags:u8 addr:u8 offset:u8 size:u8 link:u4 info:u4 align:u8 entsize:u8")
PHDR: Final = _record("type:u4 flags:u4 offset:u8 vaddr:u8 paddr:u8 filesz:u8 memsz:u8 align:u8")
SYM: Final = _record("name:u4 info:u1 other:u1 shndx:u2 value:u8 size:u8")
RELA: Final = _record("offset:u8 info:u8 addend:i8")

_XINDEX: Final = 0xFFFF
_RESERVED: Final = 0xFF00
_MAX_SECTIONS: Final = 1 << 20
_FUNCTION: Final = 2
_REL: Final = 1


@dataclass(frozen=True)
class AnyElf:
    """An ELF64 file, headers decoded.

    Attributes:
        data: (b,) uint8, the whole file.
        name: of the file, for error messages.
        is_big: big endian.
        header: the file header, a record of `EHDR` in the file's byte order.
        sections: (n,) records of `SHDR`.
        names: (n) section names.
        segments: (p,) records of `PHDR`.
    """

    data: Bytes
    name: str
    is_big: bool
    header: np.void
    sections: NDArray[np.void]
    names: tuple[str, ...]
    segments: NDArray[np.void]

    @property
    def machine(self) -> int:
        """ELF machine number."""
        return int(self.header["machine"])

    @property
    def is_relocatable(self) -> bool:
        """Whether this is an object or module: sections without addresses."""
        return int(self.header["type"]) == _REL

    def dtype(self, record: np.dtype[np.void]) -> np.dtype[np.void]:
        """Give a record type in the byte order of the file."""
        return record.newbyteorder(">") if self.is_big else record

    def find(self, name: str) -> list[int]:
        """Give the indices of all sections of that name."""
        return [index for index, this in enumerate(self.names) if this == name]

    def addr(self, index: int) -> int:
        """Give the address of a section."""
        return int(self.sections["addr"][index])

    def section_bytes(self, index: int) -> Bytes:
        """Give the content of a section: (b,) uint8, a view of the file.

        Raises:
            Truncated: the file ends before the section does.
            Unsupported: a compressed section.
        """
        entry = self.sections[index]
        if int(entry["type"]) == SectionType.NOBITS:
            return self.data[:0]
        if int(entry["flags"]) & SectionFlag.COMPRESSED:
            raise Unsupported("is compressed", file=self.name, section=self.names[index])
        return _slice(self.data, int(entry["offset"]), int(entry["size"]), self.name, self.names[index])

    def table(self, index: int, record: np.dtype[np.void]) -> NDArray[np.void]:
        """Give a section as records; a rest that is no whole record is left out."""
        data = self.section_bytes(index)
        return data[: data.size // record.itemsize * record.itemsize].view(self.dtype(record))

    def symbol_sections(self, index: int) -> Row32:
        """(s,) int32: section of each symbol of a symbol table; reserved numbers as in `image.model`."""
        raw = self.table(index, SYM)["shndx"].astype(np.int32)
        out = np.where(raw >= _RESERVED, np.int32(OTHER), raw)
        out[raw == 0] = UNDEFINED
        out[raw == 0xFFF1] = ABSOLUTE
        wide = np.flatnonzero((self.sections["type"] == SectionType.SYMTAB_SHNDX) & (self.sections["link"] == index))
        extended = np.flatnonzero(raw == _XINDEX)
        if extended.size and wide.size:
            order = ">u4" if self.is_big else "<u4"
            data = self.section_bytes(int(wide[0]))
            numbers = data[: data.size // 4 * 4].view(order)
            inside = extended[extended < numbers.size]
            out[inside] = np.minimum(numbers[inside], 2**31 - 1).astype(np.int32)
        out[out >= len(self.names)] = OTHER
        return out

    @cached_property
    def symbol_table(self) -> int | None:
        """Section index of the symbol table, None if there is none."""
        found = np.flatnonzero(self.sections["type"] == SectionType.SYMTAB)
        return int(found[0]) if found.size else None

    def functions(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64], Row32, list[str]]:
        """Give start, size, section and name of every function symbol; empty without a symbol table."""
        if self.symbol_table is None:
            none = np.zeros(0, dtype=np.uint64)
            return none, none, np.zeros(0, dtype=np.int32), []
        records = self.table(self.symbol_table, SYM)
        section = self.symbol_sections(self.symbol_table)
        rows = np.flatnonzero(((records["info"] & 15) == _FUNCTION) & (section >= 0))
        strings = self.section_bytes(self._link(self.symbol_table)).tobytes()
        names = [_string(strings, int(at)) for at in records["name"][rows]]
        start, size = records["value"][rows].astype(np.uint64), records["size"][rows].astype(np.uint64)
        where = section[rows] if self.is_relocatable else np.full(rows.size, -1, dtype=np.int32)
        return start, size, where, names

    def _link(self, index: int) -> int:
        """Give the section that a section's sh_link names."""
        link = int(self.sections["link"][index])
        if link >= len(self.names):
            raise Inconsistent(f"refers to section {link}, which does not exist", file=self.name)
        return link

    def relocations(self, index: int) -> Relocations:
        """Give the relocations with addend that apply to a section, in file order.

        Raises:
            Truncated, Inconsistent: damaged.
        """
        applies = (self.sections["info"] == index) & (self.sections["type"] == SectionType.RELA)
        found = np.flatnonzero(applies).tolist() if index else []
        parts = [self.table(k, RELA) for k in found]
        records = np.concatenate(parts) if parts else np.zeros(0, dtype=RELA)
        symbol = (records["info"] >> np.uint64(32)).astype(np.int64)
        value = np.zeros(symbol.size, dtype=np.uint64)
        section = np.full(symbol.size, ABSOLUTE, dtype=np.int32)
        if found and symbol.any():
            link = self._link(found[0])
            symbols, sections = self.table(link, SYM), self.symbol_sections(link)
            if int(symbol.max()) >= symbols.size:
                raise Inconsistent("a relocation names no symbol", file=self.name, section=self.names[found[0]])
            value, section = symbols["value"][symbol].astype(np.uint64), sections[symbol]
        kind = (records["info"] & np.uint64(0xFFFFFFFF)).astype(np.uint32)
        return Relocations(
            records["offset"].astype(np.uint64),
            kind,
            symbol.astype(np.uint32),
            value,
            section,
            records["addend"].astype(np.int64),
        )


def _slice(data: Bytes, offset: int, size: int, name: str, section: str) -> Bytes:
    """Give data[offset:offset + size], or refuse where the file ends before."""
    if offset + size > data.size:
        message = f"needs {size} bytes at {offset:#x}, but the file ends at {data.size:#x}"
        raise Truncated(message, file=name, section=section)
    return data[offset : offset + size]


def _string(strings: bytes, at: int) -> str:
    """Give the zero-terminated string at an offset; empty behind the end."""
    end = strings.find(b"\0", at)
    return strings[at : end if end >= 0 else len(strings)].decode("utf-8", "backslashreplace")


def decode_any_elf(data: Bytes, name: str = "") -> AnyElf:
    """Decode the headers of an ELF64 file.

    Args:
        data: (b,) uint8, the whole file; it is not copied.
        name: of the file, for error messages.

    Raises:
        Unsupported: not ELF, 32-bit, or no section headers.
        Truncated, Inconsistent: damaged.
    """
    ident = data[:16].tobytes()
    if ident[:4] != b"\x7fELF":
        raise Unsupported("is neither an ELF file nor an SFrame section", file=name)
    if len(ident) < 16 or data.size < EHDR.itemsize:
        raise Truncated("the ELF header is cut off", file=name)
    if ident[4] != 2 or ident[5] not in {1, 2}:
        raise Unsupported("is not a 64-bit ELF file", file=name)
    is_big = ident[5] == 2

    def ordered(record: np.dtype[np.void]) -> np.dtype[np.void]:
        return record.newbyteorder(">") if is_big else record

    header: np.void = data[: EHDR.itemsize].view(ordered(EHDR))[0]
    offset, count = int(header["shoff"]), int(header["shnum"])
    if not offset:
        raise Unsupported("has no section headers", file=name)
    if int(header["shentsize"]) != SHDR.itemsize:
        raise Inconsistent(f"section headers have {int(header['shentsize'])} bytes instead of 64", file=name)
    first = _slice(data, offset, SHDR.itemsize, name, "section headers").view(ordered(SHDR))[0]
    count = count or int(first["size"])
    strings = int(header["shstrndx"])
    strings = int(first["link"]) if strings == _XINDEX else strings
    if count > _MAX_SECTIONS:
        raise Unsupported(f"has {count} section headers; at most {_MAX_SECTIONS} are read", file=name)
    table = _slice(data, offset, count * SHDR.itemsize, name, "section headers").view(ordered(SHDR))
    phnum = int(header["phnum"])
    segments = (
        _slice(data, int(header["phoff"]), phnum * PHDR.itemsize, name, "program headers") if phnum else data[:0]
    )
    if phnum and int(header["phentsize"]) != PHDR.itemsize:
        raise Inconsistent(f"program headers have {int(header['phentsize'])} bytes instead of 56", file=name)
    if strings >= count:
        raise Inconsistent(f"section names are in section {strings}, which does not exist", file=name)
    blob = _slice(data, int(table["offset"][strings]), int(table["size"][strings]), name, "section names").tobytes()
    names = tuple(_string(blob, int(at)) for at in table["name"])
    return AnyElf(data, name, is_big, header, table, names, segments.view(ordered(PHDR)))
