"""Layer 3: ELF64 little-endian AArch64 files: bytes to headers, sections, symbols, relocations.

Invariant: any bytes end in a result or in one of our own errors, with the place named; no offset or count from
the file is used before it was compared with the number of bytes that there are.

Source: System V gABI (ELF-64), ELF for the Arm 64-bit Architecture (aaelf64).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Bytes, Insn, Row32
from surefoot.errors import Inconsistent, InputError, Truncated, Unsupported
from surefoot.image.compressed import inflate_section
from surefoot.image.model import (
    ABSOLUTE,
    OTHER,
    UNDEFINED,
    Relocations,
    SectionFlag,
    Sections,
    SectionType,
    Segments,
)
from surefoot.image.names import NameTable
from surefoot.image.symbols import SymbolKind, Symbols, is_label

__all__ = ["ElfFile", "FileType", "decode_elf"]

_EHDR: Final = np.dtype(
    [
        ("ident", "u1", 16),
        ("type", "<u2"),
        ("machine", "<u2"),
        ("version", "<u4"),
        ("entry", "<u8"),
        ("phoff", "<u8"),
        ("shoff", "<u8"),
        ("flags", "<u4"),
        ("ehsize", "<u2"),
        ("phentsize", "<u2"),
        ("phnum", "<u2"),
        ("shentsize", "<u2"),
        ("shnum", "<u2"),
        ("shstrndx", "<u2"),
    ]
)
_SHDR: Final = np.dtype(
    [
        ("name", "<u4"),
        ("type", "<u4"),
        ("flags", "<u8"),
        ("addr", "<u8"),
        ("offset", "<u8"),
        ("size", "<u8"),
        ("link", "<u4"),
        ("info", "<u4"),
        ("align", "<u8"),
        ("entsize", "<u8"),
    ]
)
_PHDR: Final = np.dtype(
    [
        ("type", "<u4"),
        ("flags", "<u4"),
        ("offset", "<u8"),
        ("vaddr", "<u8"),
        ("paddr", "<u8"),
        ("filesz", "<u8"),
        ("memsz", "<u8"),
        ("align", "<u8"),
    ]
)
_SYM: Final = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("shndx", "<u2"), ("value", "<u8"), ("size", "<u8")]
)
_RELA: Final = np.dtype([("offset", "<u8"), ("type", "<u4"), ("sym", "<u4"), ("addend", "<i8")])

_AARCH64: Final = 183
_MACHINES: Final = {3: "i386", 8: "MIPS", 21: "PowerPC64", 22: "s390", 40: "ARM", 62: "x86-64", 243: "RISC-V"}
_XINDEX: Final = 0xFFFF
_MAX_SECTIONS: Final = 1 << 20
"""Bound on section headers; -ffunction-sections kernels reach some 200,000."""
_MAGICS: Final = (
    (b"\x1f\x8b", "is compressed with gzip", "Decompress it first (gunzip)."),
    (b"\xfd7zXZ", "is compressed with xz", "Decompress it first (unxz)."),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd", "Decompress it first (unzstd)."),
    (b"MZ", "is a boot image, not ELF", "Give the vmlinux with debug symbols of the same build."),
    (b"!<arch>", "is an archive, not an ELF file", "Extract the object from it (ar x)."),
)


class FileType:
    """Values of e_type that are read."""

    REL: Final = 1
    EXEC: Final = 2
    DYN: Final = 3
    CORE: Final = 4


@dataclass(frozen=True)
class ElfFile:
    """An ELF file, headers decoded, the rest on demand.

    Attributes:
        data: (b,) uint8, the whole file, usually mapped.
        name: of the file, for error messages; may be empty.
        type: e_type.
        sections: section headers.
        segments: program headers.
    """

    data: Bytes
    name: str
    type: int
    sections: Sections
    segments: Segments

    def section_bytes(self, index: int) -> Bytes:
        """Give the content of a section: (b,) uint8, a view of the file unless the section is compressed.

        Raises:
            Truncated: the file ends before the section does.
            Inconsistent: no such section, or a compressed one is damaged.
            Unsupported: compressed in a way that Python's standard library cannot undo.
        """
        table = self.sections
        if not 0 <= index < len(table):
            raise Inconsistent(f"section {index} does not exist", file=self.name)
        if table.kind[index] == SectionType.NOBITS:
            return self.data[:0]
        where = table.names[index]
        data = _slice(self.data, int(table.offset[index]), int(table.size[index]), self.name, where)
        if int(table.flags[index]) & SectionFlag.COMPRESSED:
            try:
                return inflate_section(data)
            except InputError as error:
                raise error.at(file=self.name, section=where) from error.__cause__
        return data

    def words(self, index: int) -> Insn:
        """Give the whole 32-bit words of a section, a view of the file: (size // 4,) uint32."""
        data = self.section_bytes(index)
        return data[: data.size // 4 * 4].view("<u4")

    def table(self, index: int, dtype: np.dtype[np.void]) -> NDArray[np.void]:
        """Give a section as records of `dtype`; a rest too short for one is refused.

        Raises:
            Truncated: the section is no whole number of records.
        """
        data = self.section_bytes(index)
        if data.size % dtype.itemsize:
            place = data.size // dtype.itemsize * dtype.itemsize
            name = self.sections.names[index]
            raise Truncated("last entry is incomplete", file=self.name, section=name, offset=place)
        return data.view(dtype)

    def symbol_table(self) -> int:
        """Give the index of the section that holds the symbol table.

        Raises:
            Unsupported: the file has none.
        """
        found = np.flatnonzero(self.sections.kind == SectionType.SYMTAB)
        if not found.size:
            hint = "Give the file with debug symbols, not the stripped one."
            raise Unsupported("has no symbol table", file=self.name, hint=hint)
        return int(found[0])

    def _symbol_sections(self, table: int, records: NDArray[np.void]) -> Row32:
        """(s,) int32, section of each symbol, extended indices resolved, reserved ones named."""
        raw = records["shndx"].astype(np.int32)
        extended = np.flatnonzero(raw == _XINDEX)
        special = raw >= 0xFF00
        result = np.where(special, np.int32(OTHER), raw)
        result[raw == 0xFFF1] = ABSOLUTE
        result[raw == 0] = UNDEFINED
        if extended.size:
            wide = np.flatnonzero((self.sections.kind == SectionType.SYMTAB_SHNDX) & (self.sections.link == table))
            indices = self.section_bytes(int(wide[0])) if wide.size else self.data[:0]
            indices = indices[: indices.size // 4 * 4].view("<u4")
            if indices.size < records.size:
                raise Truncated("extended section indices are missing", file=self.name, section=".symtab_shndx")
            result[extended] = np.minimum(indices[extended], np.uint32(2**31 - 1)).astype(np.int32)
        wrong = np.flatnonzero(result >= len(self.sections))
        if wrong.size:
            place = int(wrong[0]) * _SYM.itemsize
            raise Inconsistent(
                f"symbol lies in section {result[wrong[0]]}, which does not exist",
                file=self.name,
                section=self.sections.names[table],
                offset=place,
            )
        return result

    def _records(self, table: int) -> tuple[NDArray[np.void], Row32]:
        records = self.table(table, _SYM)
        return records, self._symbol_sections(table, records)

    def symbols(self) -> Symbols:
        """Decode the symbol table.

        Raises:
            Unsupported: the file has none.
            Truncated, Inconsistent: it is damaged.
        """
        table = self.symbol_table()
        records, section = self._records(table)
        kind = records["info"] & np.uint8(15)
        kept = (section != UNDEFINED) & (kind != SymbolKind.SECTION) & (kind != SymbolKind.FILE)
        rows = np.flatnonzero(kept & (records["name"] != 0))
        link = int(self.sections.link[table])
        strings = self.section_bytes(link)
        try:
            names = NameTable.of(strings, records["name"][rows].astype(np.int64))
        except InputError as error:
            raise error.at(file=self.name, section=self.sections.names[link]) from None
        named = ~is_label(names)
        rows, names = rows[named], names.take(np.flatnonzero(named))
        return Symbols(
            records["value"][rows],
            records["size"][rows],
            kind[rows],
            records["info"][rows] >> np.uint8(4),
            section[rows],
            names,
            by_address=self.type != FileType.REL,
        )

    def relocations(self, index: int) -> Relocations:
        """Decode the relocations that apply to a section, in file order; none is an empty table.

        Raises:
            Unsupported: relocations without addend (REL) or compact ones (CREL).
            Truncated, Inconsistent: damaged.
        """
        table = self.sections
        applies = table.info == index
        if index == 0:
            applies[:] = False
        for kind, name in ((SectionType.REL, "REL"), (SectionType.CREL, "CREL")):
            if bool(np.any(applies & (table.kind == kind))):
                where = table.names[index]
                raise Unsupported(f"relocations of type {name} are not read", file=self.name, section=where)
        found = np.flatnonzero(applies & (table.kind == SectionType.RELA)).tolist()
        return _join([self.relocation_table(k) for k in found])

    def relocation_table(self, index: int) -> Relocations:
        """Decode one section of type RELA.

        Raises:
            Truncated, Inconsistent: damaged, or a symbol does not exist.
        """
        records = self.table(index, _RELA)
        value = np.zeros(records.size, dtype=np.uint64)
        section = np.full(records.size, ABSOLUTE, dtype=np.int32)
        link = int(self.sections.link[index])
        used = np.flatnonzero(records["sym"])
        if used.size and link == 0:  # vmlinux: the linker script discards the dynamic symbols
            section[used] = UNDEFINED
        elif used.size:
            symbols, sections = self._records(link)
            which = records["sym"][used].astype(np.int64)
            if int(which.max()) >= symbols.size:
                place = int(used[int(which.argmax())]) * _RELA.itemsize
                name = self.sections.names[index]
                raise Inconsistent("relocation names no symbol", file=self.name, section=name, offset=place)
            value[used] = symbols["value"][which]
            section[used] = sections[which]
        return Relocations(records["offset"], records["type"], records["sym"], value, section, records["addend"])


def _join(parts: list[Relocations]) -> Relocations:
    if not parts:
        empty = np.zeros(0, dtype=_RELA)
        nothing = np.zeros(0, dtype=np.uint64)
        none = np.zeros(0, dtype=np.int32)
        return Relocations(empty["offset"], empty["type"], empty["sym"], nothing, none, empty["addend"])
    if len(parts) == 1:
        return parts[0]
    return Relocations(
        np.concatenate([part.offset for part in parts]),
        np.concatenate([part.type for part in parts]),
        np.concatenate([part.symbol for part in parts]),
        np.concatenate([part.symbol_value for part in parts]),
        np.concatenate([part.symbol_section for part in parts]),
        np.concatenate([part.addend for part in parts]),
    )


def _slice(data: Bytes, offset: int, size: int, file: str, section: str) -> Bytes:
    """Give data[offset:offset + size], or refuse where the file ends before."""
    if offset + size > data.size:
        raise Truncated(
            f"needs {size} bytes at {offset:#x}, but the file ends at {data.size:#x}", file=file, section=section
        )
    return data[offset : offset + size]


def _header(data: Bytes, name: str) -> np.void:
    """Check that the bytes are an ELF file of the one kind that is read, and give its header."""
    start = data[:16].tobytes()
    if not data.size:
        raise Truncated("file is empty", file=name)
    if start[:4] != b"\x7fELF":
        for magic, what, hint in _MAGICS:
            if start.startswith(magic):
                raise Unsupported(what, file=name, hint=hint)
        raise Unsupported("is not an ELF file", file=name)
    if data.size < _EHDR.itemsize:
        raise Truncated(f"ELF header needs {_EHDR.itemsize} bytes, the file has {data.size}", file=name)
    if start[4] != 2:
        raise Unsupported("is not a 64-bit ELF file", file=name)
    if start[5] != 1:
        raise Unsupported("is big endian; only little-endian arm64 is read", file=name)
    header: np.void = data[: _EHDR.itemsize].view(_EHDR)[0]
    machine = int(header["machine"])
    if machine != _AARCH64:
        called = _MACHINES.get(machine, f"machine {machine}")
        raise Unsupported(f"is for {called}, not for arm64 (AArch64)", file=name)
    if int(header["type"]) == FileType.CORE:
        hint = "Give it as the dump (--vmcore), not as the image."
        raise Unsupported("is a memory dump, not a kernel or module", file=name, hint=hint)
    if int(header["type"]) not in {FileType.REL, FileType.EXEC, FileType.DYN}:
        raise Unsupported(f"is ELF of type {int(header['type'])}, not a kernel or module", file=name)
    return header


def _section_headers(data: Bytes, header: np.void, name: str) -> tuple[NDArray[np.void], int, int]:
    """Give the section headers, the index of their string table and the number of program headers."""
    offset, count = int(header["shoff"]), int(header["shnum"])
    if not offset:
        hint = "Give the file as the linker wrote it."
        raise Unsupported("has no section headers", file=name, hint=hint)
    if int(header["shentsize"]) != _SHDR.itemsize:
        raise Inconsistent(f"section headers have {int(header['shentsize'])} bytes instead of 64", file=name)
    first = _slice(data, offset, _SHDR.itemsize, name, "section headers").view(_SHDR)[0]
    count = count or int(first["size"])
    strings = int(header["shstrndx"])
    if strings == _XINDEX:
        strings = int(first["link"])
    if count > _MAX_SECTIONS:
        raise Unsupported(f"has {count} section headers; at most {_MAX_SECTIONS} are read", file=name)
    segments = int(header["phnum"])
    if segments == _XINDEX:
        segments = int(first["info"])
    table = _slice(data, offset, count * _SHDR.itemsize, name, "section headers").view(_SHDR)
    return table, strings, segments


def _section_names(data: Bytes, table: NDArray[np.void], strings: int, name: str) -> tuple[str, ...]:
    if not strings:
        return ("",) * table.size
    if strings >= table.size:
        raise Inconsistent(f"section names are in section {strings}, which does not exist", file=name)
    place = table[strings]
    blob = _slice(data, int(place["offset"]), int(place["size"]), name, "section names")
    try:
        names = NameTable.of(blob, table["name"].astype(np.int64))
    except InputError as error:
        raise error.at(file=name, section="section names") from None
    if int(names.lengths.sum()) > (1 << 26):
        raise Unsupported("section names are longer than 64 MiB together", file=name)
    return tuple(names[i] for i in range(len(names)))


def _segments(data: Bytes, header: np.void, count: int, name: str) -> Segments:
    if count and int(header["phentsize"]) != _PHDR.itemsize:
        raise Inconsistent(f"program headers have {int(header['phentsize'])} bytes instead of 56", file=name)
    table = _slice(data, int(header["phoff"]) if count else 0, count * _PHDR.itemsize, name, "program headers")
    records = table.view(_PHDR)
    columns = ("type", "flags", "offset", "vaddr", "filesz", "memsz", "align")
    return Segments(*(np.ascontiguousarray(records[column]) for column in columns))


def decode_elf(data: Bytes, name: str = "") -> ElfFile:
    """Decode the headers of an ELF64 little-endian AArch64 file.

    Args:
        data: (b,) uint8, the whole file; it is not copied.
        name: of the file, for error messages.

    Raises:
        Unsupported: not ELF, other machine, 32-bit, big endian, a dump, no section headers.
        Truncated, Inconsistent: damaged.
    """
    header = _header(data, name)
    table, strings, segments = _section_headers(data, header, name)
    columns = ("type", "flags", "addr", "offset", "size", "link", "info", "align", "entsize")
    sections = Sections(
        _section_names(data, table, strings, name), *(np.ascontiguousarray(table[column]) for column in columns)
    )
    return ElfFile(data, name, int(header["type"]), sections, _segments(data, header, segments, name))
