"""Assembles SFrame sections byte by byte, field by field; shares no code with Surefoot's encoder.

Every number of the format can be overridden, so that wrong sections are as easy to make as right ones.

Source:
    SFrame specification (libsframe/doc/sframe-spec.texi), versions 1 to 3.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MAGIC = 0xDEE2
AARCH64_BE, AARCH64, AMD64, S390X = 1, 2, 3, 4
SORTED, FRAME_POINTER, PCREL = 1, 2, 4
SP, FP = 1, 0


@dataclass
class Fre:
    """A row: start offset, CFA base (1 = SP), data words of `size` bytes each."""

    start: int
    words: tuple[int, ...] = (0,)
    base: int = SP
    size: int = 1
    signed: bool = False
    info: int | None = None

    def encode(self, width: int, order: str) -> bytes:
        """Give the row's bytes; `width` is that of the start."""
        code = {1: 0, 2: 1, 4: 2}[self.size]
        base = self.base if self.words else 0  # as gas writes outermost rows
        info = base | len(self.words) << 1 | code << 5 | self.signed << 7 if self.info is None else self.info
        out = number(self.start, width, order) + bytes([info])
        return out + b"".join(number(word, self.size, order) for word in self.words)


@dataclass
class Fde:
    """A function descriptor; `kind` is the row type (0, 1, 2 for starts of 1, 2, 4 bytes)."""

    start: int
    size: int
    rows: list[Fre] = field(default_factory=lambda: [Fre(0)])
    kind: int = 0
    mask: bool = False
    key_b: bool = False
    signal: bool = False
    flex: bool = False
    rep_size: int = 0
    info: int | None = None
    info2: int | None = None
    num_fres: int | None = None
    fre_off: int | None = None
    padding: int = 0
    raw: int | None = None

    def info_byte(self) -> int:
        """Give func_info."""
        made = self.kind | self.mask << 4 | self.key_b << 5 | self.signal << 7
        return made if self.info is None else self.info

    def count(self) -> int:
        """Give the number of rows that the descriptor claims."""
        return len(self.rows) if self.num_fres is None else self.num_fres

    def blob(self, version: int, order: str) -> bytes:
        """Give what stands in the row sub-section for this function."""
        width = 1 << min(self.kind, 2)
        rows = b"".join(row.encode(width, order) for row in self.rows)
        if version < 3:
            return rows
        info2 = int(self.flex) if self.info2 is None else self.info2
        return number(self.count(), 2, order) + bytes([self.info_byte(), info2, self.rep_size]) + rows


def number(value: int, size: int, order: str) -> bytes:
    """Give an integer, signed or not, as `size` bytes."""
    return (value % (1 << 8 * size)).to_bytes(size, "little" if order == "<" else "big")


def section(
    fdes: list[Fde],
    version: int = 3,
    *,
    abi: int = AARCH64,
    flags: int = SORTED | PCREL,
    addr: int = 0,
    fixed: tuple[int, int] | None = None,
    big: bool | None = None,
    tail: bytes = b"",
    aux: bytes = b"",
    **header: int,
) -> bytes:
    """Give a section at address `addr`; `header` overrides header fields (magic, num_fdes, freoff, ...)."""
    order = ">" if (abi in {AARCH64_BE, S390X} if big is None else big) else "<"
    entry = {1: 17, 2: 20, 3: 16}[version]
    rows, index = b"", b""
    base = 28 + len(aux) + header.get("fdeoff", 0)
    for i, fde in enumerate(fdes):
        place = addr + base + entry * i if flags & PCREL else addr
        raw = fde.start - place if fde.raw is None else fde.raw
        at = len(rows) if fde.fre_off is None else fde.fre_off
        index += number(raw, 8 if version == 3 else 4, order) + number(fde.size, 4, order) + number(at, 4, order)
        if version < 3:
            index += number(fde.count(), 4, order) + bytes([fde.info_byte()])
        if version == 2:
            index += bytes([fde.rep_size]) + number(fde.padding, 2, order)
        rows += fde.blob(version, order)
    fixed_fp, fixed_ra = fixed or (0, -8 if abi == AMD64 else 0)
    fields = {
        "num_fdes": len(fdes),
        "num_fres": sum(fde.count() for fde in fdes),
        "fre_len": len(rows),
        "fdeoff": 0,
        "freoff": header.get("fdeoff", 0) + len(index),
    } | header
    out = number(header.get("magic", MAGIC), 2, order) + bytes([header.get("version", version), flags, abi])
    out += number(fixed_fp, 1, order) + number(fixed_ra, 1, order) + bytes([header.get("aux_len", len(aux))])
    for name in ("num_fdes", "num_fres", "fre_len", "fdeoff", "freoff"):
        out += number(fields[name], 4, order)
    gap = bytes(max(0, fields["fdeoff"])) if fields["fdeoff"] < 64 else b""
    return out + aux + gap + index + rows + tail


def typical() -> list[Fde]:
    """Give functions as a compiler writes them: a leaf, a frame with signed RA, a large one, an outermost one."""
    frame = [Fre(0), Fre(4, (0,), signed=True), Fre(8, (32, -24, -32), signed=True), Fre(20, (0,))]
    large = [Fre(0), Fre(8, (0x1230, -0x1228, -0x1230), size=2), Fre(0x1F0, (32, -24, -32), FP)]
    return [
        Fde(0x1000, 8),
        Fde(0x1008, 24, frame, key_b=True),
        Fde(0x1020, 0x200, large, kind=1),
        Fde(0x1220, 16, [Fre(0, ())]),
    ]
