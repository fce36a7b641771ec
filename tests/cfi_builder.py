"""Assemble .debug_frame and .eh_frame sections by hand; shares no code with the decoder.

A `Frames` collects records; positions are what its methods return, so FDEs name their CIE by that number. Programs
are bytes, made from the small functions below, one per call frame instruction (DWARF 5, section 6.4.2).
"""

from __future__ import annotations

from dataclasses import dataclass, field

FP, RA, SP = 29, 30, 31
PCREL = 0x10


def uleb(value: int, *, pad: int = 0) -> bytes:
    """Encode ULEB128, with `pad` bytes more than are needed."""
    out = bytearray()
    while True:
        byte, value = value & 0x7F, value >> 7
        if not value and not pad:
            return bytes([*out, byte])
        if not value:
            return bytes([*out, byte | 0x80]) + b"\x80" * (pad - 1) + b"\x00"
        out.append(byte | 0x80)


def sleb(value: int) -> bytes:
    """Encode SLEB128."""
    out = bytearray()
    while True:
        byte, value = value & 0x7F, value >> 7
        if value == (-1 if byte & 0x40 else 0):
            return bytes([*out, byte])
        out.append(byte | 0x80)


def nop(count: int = 1) -> bytes:
    """DW_CFA_nop."""
    return b"\x00" * count


def advance(delta: int, width: int = 0, order: str = "little") -> bytes:
    """DW_CFA_advance_loc in its short form, or with an operand of 1, 2, 4 or 8 (MIPS) bytes."""
    if not width:
        assert delta < 0x40
        return bytes([0x40 | delta])
    code = {1: 2, 2: 3, 4: 4, 8: 0x1D}[width]
    return bytes([code]) + delta.to_bytes(width, "big" if order == "big" else "little")


def set_loc(address: int, width: int = 8) -> bytes:
    """DW_CFA_set_loc with an address of `width` bytes."""
    return b"\x01" + (address % (1 << (8 * width))).to_bytes(width, "little")


def offset(reg: int, factored: int) -> bytes:
    """DW_CFA_offset."""
    return bytes([0x80 | reg]) + uleb(factored)


def restore(reg: int) -> bytes:
    """DW_CFA_restore."""
    return bytes([0xC0 | reg])


def op(code: int, *operands: bytes) -> bytes:
    """Any other instruction, from its encoded operands."""
    return bytes([code]) + b"".join(operands)


def def_cfa(reg: int, off: int) -> bytes:
    """DW_CFA_def_cfa."""
    return op(0x0C, uleb(reg), uleb(off))


def def_cfa_register(reg: int) -> bytes:
    """DW_CFA_def_cfa_register."""
    return op(0x0D, uleb(reg))


def def_cfa_offset(off: int) -> bytes:
    """DW_CFA_def_cfa_offset."""
    return op(0x0E, uleb(off))


def block(data: bytes) -> bytes:
    """Encode a block: its length and itself."""
    return uleb(len(data)) + data


REMEMBER, RESTORE_STATE, NEGATE = b"\x0a", b"\x0b", b"\x2d"
SP_PLUS_0 = def_cfa(SP, 0)


@dataclass
class Frames:
    """A section in the making.

    Attributes:
        eh: .eh_frame instead of .debug_frame.
        big: byte order.
        wide: 64-bit DWARF format.
        align: records are padded with nops to a multiple of this.
        data: the bytes so far.
    """

    eh: bool = False
    big: bool = False
    wide: bool = False
    align: int = 4
    data: bytearray = field(default_factory=bytearray)

    def number(self, value: int, width: int) -> bytes:
        """Encode a number in the section's byte order, negative ones modulo its width."""
        return (value % (1 << (8 * width))).to_bytes(width, "big" if self.big else "little")

    def record(self, ident: int, body: bytes) -> int:
        """Append a record and give its offset."""
        start = len(self.data)
        id_width = 8 if self.wide and not self.eh else 4
        body += nop(-(len(body) + 4 + 8 * self.wide + id_width) % self.align)
        length = self.number(id_width + len(body), 8 if self.wide else 4)
        self.data += (b"\xff\xff\xff\xff" if self.wide else b"") + length + self.number(ident, id_width) + body
        return start

    def cie(
        self,
        program: bytes = SP_PLUS_0,
        *,
        version: int = 1,
        augmentation: str = "",
        code: int = 4,
        data: int = -8,
        column: int = RA,
        extra: bytes | None = None,
        sizes: bytes = b"\x08\x00",
    ) -> int:
        """Append a CIE; `extra` is the augmentation data behind its length, `sizes` those of version 4."""
        body = bytes([version]) + augmentation.encode("latin-1") + b"\0"
        body += sizes if version == 4 else b""
        body += uleb(code) + sleb(data) + (bytes([column]) if version == 1 else uleb(column))
        body += block(extra) if extra is not None else b""
        return self.record(0 if self.eh else -1, body + program)

    def fde(
        self,
        cie: int,
        program: bytes = b"",
        *,
        start: int = 0x1000,
        size: int = 0x100,
        width: int = 8,
        extra: bytes | None = None,
        pcrel: int | None = None,
    ) -> int:
        """Append an FDE; `pcrel` is the section's address where the start is stored relative to its place."""
        here = len(self.data) + (12 if self.wide else 4)
        if pcrel is not None:
            start -= pcrel + here + (8 if self.wide and not self.eh else 4)
        body = self.number(start, width) + self.number(size, width)
        body += block(extra) if extra is not None else b""
        return self.record(here - cie if self.eh else cie, body + program)

    def bytes(self) -> bytes:
        """Give the section."""
        return bytes(self.data)


def one(program: bytes, **options: object) -> bytes:
    """Give a .debug_frame with one CIE (CFA = SP + 0, factors 4 and -8) and one FDE with this program."""
    frames = Frames()
    frames.fde(frames.cie(), program, **options)  # type: ignore[arg-type]
    return frames.bytes()
