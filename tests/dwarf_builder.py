"""Assembles DWARF units with a few kinds of entries, byte by byte; shares no code with Surefoot's decoder.

Source:
    DWARF Debugging Information Format, Version 5, sections 7.5 and 7.6.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from elf_builder import Elf

__all__ = ["ABBREVIATIONS", "Dwarf", "Unit", "uleb"]

UNIT, SUBPROGRAM, VARIABLE, STRUCTURE, MEMBER = 0x11, 0x2E, 0x34, 0x13, 0x0D
EXTERNAL, NAME, LINE, NORETURN, LOW, HIGH, DECLARED = 0x3F, 0x03, 0x3B, 0x87, 0x11, 0x12, 0x3C
SIBLING, LOCATION, VALUE, ORIGIN, INLINE = 0x01, 0x02, 0x1C, 0x31, 0x20
ADDR, BLOCK1, DATA1, DATA8, STRING, SDATA, STRP, REF4 = 0x01, 0x0A, 0x0B, 0x07, 0x08, 0x0D, 0x0E, 0x13
EXPRLOC, PRESENT, CONST = 0x18, 0x19, 0x21


def uleb(value: int) -> bytes:
    """Unsigned LEB128."""
    out = bytearray()
    while True:
        byte, value = value & 0x7F, value >> 7
        out.append(byte | (0x80 if value else 0))
        if not value:
            return bytes(out)


ABBREVIATIONS = {
    "unit": (1, UNIT, True, ((NAME, STRING),)),
    "defined": (2, SUBPROGRAM, False, ((EXTERNAL, PRESENT), (NAME, STRP), (LINE, DATA1), (LOW, ADDR), (HIGH, DATA8))),
    "never": (
        0x85,
        SUBPROGRAM,
        True,
        ((EXTERNAL, PRESENT), (NAME, STRP), (LINE, CONST), (NORETURN, PRESENT), (LOW, ADDR), (SIBLING, REF4)),
    ),
    "declared": (
        0x185,
        SUBPROGRAM,
        False,
        ((EXTERNAL, PRESENT), (NAME, STRP), (LINE, DATA1), (NORETURN, PRESENT), (DECLARED, PRESENT)),
    ),
    "plain": (4, SUBPROGRAM, False, ((EXTERNAL, PRESENT), (NAME, STRP), (LINE, DATA1), (DECLARED, PRESENT))),
    "abstract": (6, SUBPROGRAM, False, ((NAME, STRP), (NORETURN, PRESENT), (INLINE, DATA1))),
    "concrete": (7, SUBPROGRAM, False, ((ORIGIN, REF4), (LOW, ADDR))),
    "variable": (8, VARIABLE, False, ((LOCATION, EXPRLOC), (VALUE, SDATA), (NAME, STRING))),
    "structure": (9, STRUCTURE, True, ((NAME, STRING), (SIBLING, REF4))),
    "member": (10, MEMBER, False, ((NAME, STRING), (VALUE, BLOCK1))),
}
"""Kind -> code, tag, children, attributes with forms."""


@dataclass
class Unit:
    """A unit; entries are appended in order."""

    dwarf: Dwarf
    version: int = 5
    body: bytearray = field(default_factory=bytearray)
    kinds: set[str] = field(default_factory=set)

    @property
    def head(self) -> int:
        """Size of the header."""
        return 12 if self.version == 5 else 11

    def put(self, kind: str, *values: bytes) -> int:
        """Append an entry of bytes; give its place in the unit."""
        place = self.head + len(self.body)
        self.kinds.add(kind)
        self.body += uleb(ABBREVIATIONS[kind][0]) + b"".join(values)
        return place

    def defined(self, name: str, addr: int) -> int:
        """Append a function that returns."""
        return self.put("defined", self.dwarf.text(name), b"\x07", addr.to_bytes(8, "little"), bytes(8))

    def never(self, name: str, addr: int) -> int:
        """Append a function that never returns, with a local variable."""
        start = self.head + len(self.body)
        local = uleb(8) + b"\x01\x91" + b"\x00" + b"x\0" + b"\0"
        after = start + 2 + 4 + 8 + 4 + len(local)
        addr_bytes, goal = addr.to_bytes(8, "little"), after.to_bytes(4, "little")
        self.kinds.add("variable")
        return self.put("never", self.dwarf.text(name), addr_bytes, goal, local)

    def declared(self, name: str) -> int:
        """Append a declaration of a function that never returns."""
        return self.put("declared", self.dwarf.text(name), b"\x07")

    def build(self, table: int) -> bytes:
        """Give the unit's bytes."""
        rest = struct.pack("<BBI", 1, 8, table) if self.version == 5 else struct.pack("<IB", table, 8)
        inner = struct.pack("<H", self.version) + rest + bytes(self.body) + b"\0"
        return struct.pack("<I", len(inner)) + inner


@dataclass
class Dwarf:
    """Debug information in the making."""

    units: list[Unit] = field(default_factory=list)
    strings: bytearray = field(default_factory=lambda: bytearray(b"\0"))

    def text(self, name: str) -> bytes:
        """Give the offset of a string, as stored."""
        at = len(self.strings)
        self.strings += name.encode() + b"\0"
        return at.to_bytes(4, "little")

    def unit(self, version: int = 5) -> Unit:
        """Begin a unit."""
        unit = Unit(self, version)
        unit.put("unit", b"file.c\0")
        self.units.append(unit)
        return unit

    def sections(self) -> dict[str, bytes]:
        """Give the sections; each unit has a table of its own, with the kinds it uses."""
        info, abbrev = b"", b""
        for unit in self.units:
            info += unit.build(len(abbrev))
            for kind, (code, tag, children, attributes) in ABBREVIATIONS.items():
                if kind in unit.kinds:
                    abbrev += uleb(code) + uleb(tag) + bytes([children])
                    abbrev += b"".join(uleb(a) + uleb(f) + (b"\0" if f == CONST else b"") for a, f in attributes)
                    abbrev += b"\0\0"
            abbrev += b"\0"
        return {".debug_info": info, ".debug_abbrev": abbrev, ".debug_str": bytes(self.strings)}

    def add_to(self, elf: Elf) -> None:
        """Add the sections to a file."""
        for name, data in self.sections().items():
            elf.section(name, data)
