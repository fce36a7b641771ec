"""Assembles ELF64 AArch64 files byte by byte; shares no code with Surefoot's decoder.

Every header field can be overridden, so that wrong files are as easy to make as right ones.

Source:
    System V gABI, ELF-64 object file format; ELF for the Arm 64-bit Architecture.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

REL, EXEC, DYN, CORE = 1, 2, 3, 4
PROGBITS, SYMTAB, STRTAB, RELA, NOTE, NOBITS, RELR = 1, 2, 3, 4, 7, 8, 19
W, A, X, COMPRESSED = 1, 2, 4, 0x800
LOCAL, GLOBAL, WEAK = 0, 1, 2
NOTYPE, OBJECT, FUNC, SECTION, FILE = 0, 1, 2, 3, 4
ABS = 0xFFF1


@dataclass
class Sec:
    """A section; `link` and `info` may name another section."""

    name: str
    data: bytes = b""
    kind: int = PROGBITS
    flags: int = 0
    addr: int = 0
    link: str | int = 0
    info: str | int = 0
    align: int = 8
    entsize: int = 0
    size: int | None = None
    offset: int | None = None


@dataclass
class Sym:
    """A symbol; `section` is a section's name or a number (0 undefined, ABS absolute)."""

    name: str
    value: int = 0
    size: int = 0
    kind: int = FUNC
    binding: int = GLOBAL
    section: str | int = ".text"


@dataclass
class Rel:
    """A relocation with addend against a symbol's name, or against none."""

    offset: int
    kind: int
    symbol: str = ""
    addend: int = 0


@dataclass
class Elf:
    """A file; `build` lays it out: header, program headers, sections, section headers."""

    type: int = DYN
    sections: list[Sec] = field(default_factory=list)
    symbols: list[Sym] = field(default_factory=list)
    segments: list[tuple[int, int, int, int]] = field(default_factory=list)
    header: dict[str, int] = field(default_factory=dict)

    def section(self, name: str, data: bytes = b"", **rest: int | str) -> Elf:
        """Add a section."""
        self.sections.append(Sec(name, data, **rest))  # type: ignore[arg-type]
        return self

    def symbol(self, name: str, value: int = 0, size: int = 0, **rest: int | str) -> Elf:
        """Add a symbol."""
        self.symbols.append(Sym(name, value, size, **rest))  # type: ignore[arg-type]
        return self

    def relocate(self, target: str, *entries: Rel) -> Elf:
        """Add relocations that apply to a section."""
        order = {symbol.name: k + 1 for k, symbol in enumerate(self.symbols)}
        data = b"".join(
            struct.pack("<QIIq", e.offset, e.kind, order[e.symbol] if e.symbol else 0, e.addend) for e in entries
        )
        self.sections.append(Sec(f".rela{target}", data, RELA, link=".symtab", info=target, entsize=24))
        return self

    def _symbol_table(self) -> tuple[bytes, bytes]:
        index = {section.name: k + 1 for k, section in enumerate(self.sections)}
        names, table = b"\0", bytes(24)
        for symbol in self.symbols:
            place = len(names) if symbol.name else 0
            names += symbol.name.encode() + b"\0" if symbol.name else b""
            where = index[symbol.section] if isinstance(symbol.section, str) else symbol.section
            info = symbol.binding << 4 | symbol.kind
            table += struct.pack("<IBBHQQ", place, info, 0, where, symbol.value % 2**64, symbol.size)
        return table, names

    def build(self) -> bytes:
        """Give the file's bytes."""
        sections = list(self.sections)
        if self.symbols:
            table, names = self._symbol_table()
            sections.append(Sec(".symtab", table, SYMTAB, link=".strtab", entsize=24))
            sections.append(Sec(".strtab", names, STRTAB, align=1))
        blob = b"\0"
        offsets = []
        sections.append(Sec(".shstrtab", b"", STRTAB, align=1))
        for section in sections:
            offsets.append(len(blob))
            blob += section.name.encode() + b"\0"
        sections[-1].data = blob
        index = {section.name: k + 1 for k, section in enumerate(sections)}
        out = bytearray(64 + 56 * len(self.segments))
        rows = [bytes(64)]
        for section, name in zip(sections, offsets, strict=True):
            out += bytes(-len(out) % max(section.align, 1))
            link = index[section.link] if isinstance(section.link, str) else section.link
            info = index[section.info] if isinstance(section.info, str) else section.info
            offset = len(out) if section.offset is None else section.offset
            size = len(section.data) if section.size is None else section.size
            row = (name, section.kind, section.flags, section.addr, offset, size, link, info)
            rows.append(struct.pack("<IIQQQQIIQQ", *row, section.align, section.entsize))
            out += section.data
        out += bytes(-len(out) % 8)
        place = len(out)
        out += b"".join(rows)
        for k, (kind, offset, addr, size) in enumerate(self.segments):
            struct.pack_into("<IIQQQQQQ", out, 64 + 56 * k, kind, 5, offset, addr, addr, size, size, 8)
        self._write_header(out, place, len(rows), index[".shstrtab"])
        return bytes(out)

    def _write_header(self, out: bytearray, place: int, count: int, names: int) -> None:
        """Fill in the ELF header, overrides last."""
        fields = {
            "magic": 0x464C457F,
            "class": 2,
            "data": 1,
            "type": self.type,
            "machine": 183,
            "phoff": 64 if self.segments else 0,
            "shoff": place,
            "phentsize": 56,
            "phnum": len(self.segments),
            "shentsize": 64,
            "shnum": count,
            "shstrndx": names,
        } | self.header
        struct.pack_into("<IBBBB8x", out, 0, fields["magic"], fields["class"], fields["data"], 1, 0)
        struct.pack_into(
            "<HHIQQQ", out, 16, fields["type"], fields["machine"], 1, 0, fields["phoff"], fields["shoff"]
        )
        tail = ("phentsize", "phnum", "shentsize", "shnum", "shstrndx")
        struct.pack_into("<IHHHHHH", out, 48, 0, 64, *(fields[name] for name in tail))


def note(name: bytes, kind: int, content: bytes) -> bytes:
    """Give an ELF note, padded to four bytes."""
    head = struct.pack("<III", len(name), len(content), kind)
    return head + name + bytes(-len(name) % 4) + content + bytes(-len(content) % 4)


def words(*values: int) -> bytes:
    """Give instruction words as bytes."""
    return struct.pack(f"<{len(values)}I", *values)
