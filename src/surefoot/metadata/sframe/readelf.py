"""Layer 2: the text of `readelf --sframe`, byte for byte.

Invariant: the output equals that of GNU readelf 2.47 for every section of version 2 and 3 that GNU tools write, and
of readelf 2.40 for version 1.

Source:
    Output of binutils 2.47.50 and 2.40 on sections of our own (tests/golden/sframe); the golden files are the judge.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from surefoot.dtypes import Addr, Bytes, Row
from surefoot.metadata.rules import Abi
from surefoot.metadata.sframe.constants import (
    ABI_INFO,
    INFO_KEY_B,
    INFO_PC_MASK,
    INFO_SIGNAL,
    HeaderFlag,
    Version,
)
from surefoot.metadata.sframe.labels import Labels, combine, hex_digits, label
from surefoot.metadata.sframe.model import SFrameSection, SFrameTable
from surefoot.metadata.sframe.words import flex_words

__all__ = ["dump_readelf", "iter_readelf"]

_WIDE: Final = 10
_WIDE_RA: Final = 13
_FRONT: Final = 22
"""Columns before the rule: four blanks, sixteen digits, two blanks."""
_CHUNK: Final = 2048
"""Functions put together at a time: few enough to stay in the processor's cache."""
_FLAG_NAMES: Final = (
    (HeaderFlag.SORTED, "SFRAME_F_FDE_SORTED"),
    (HeaderFlag.FRAME_POINTER, "SFRAME_F_FRAME_POINTER"),
    (HeaderFlag.PCREL, "SFRAME_F_FDE_FUNC_START_PCREL"),
)


def dump_readelf(section: SFrameSection, name: str = ".sframe") -> bytes:
    """Give what `readelf --sframe=NAME` prints; see `iter_readelf`."""
    return b"".join(iter_readelf(section, name))


def iter_readelf(section: SFrameSection, name: str = ".sframe") -> Iterator[bytes]:
    """Yield what `readelf --sframe=NAME` prints, some thousand functions at a time.

    Only the first table is shown, as readelf does.
    """
    table = section.tables[0]
    yield _header(table, name)
    fdes = table.fdes
    begin = _starts(table)
    rules = _Columns(table).labels()
    text, lengths = rules.matrix()
    base = np.where(fdes.info & INFO_PC_MASK, np.uint64(0), begin)
    for low in range(0, len(fdes), _CHUNK):
        high = min(low + _CHUNK, len(fdes))
        first = int(fdes.first_row[low])
        last = int(fdes.first_row[high - 1] + fdes.row_count[high - 1])
        rows = slice(first, last)
        address = base.take(table.fres.func[rows]) + table.fres.start[rows].astype(np.uint64)
        kinds = rules.index[rows]
        body, offsets = _lines(address, text.take(kinds, axis=0), lengths.take(kinds))
        starts = offsets[fdes.first_row[low:high] - first].tolist()
        ends = offsets[fdes.first_row[low:high] + fdes.row_count[low:high] - first].tolist()
        out: list[bytes] = []
        for head, start, end in zip(_function_heads(table, begin, low, high), starts, ends, strict=True):
            out += (head, body[start:end])
        yield b"".join(out)


def _starts(table: SFrameTable) -> Addr:
    """(f,) uint64: start addresses as readelf prints them.

    In relocatable objects readelf relocates the fields as a linker would, relative to themselves, and where the
    flag for that is missing (gas before 2.45) forgets to add their places. Version 1 it does not relocate at all.
    """
    fdes, header = table.fdes, table.header
    if not table.is_relocatable or header.is_pcrel:
        return fdes.start
    if header.version == Version.V1:
        return fdes.start_raw.astype(np.uint64)
    place = table.fde_off + np.arange(len(fdes), dtype=np.int64) * header.fde_size
    return fdes.start - place.astype(np.uint64)


def _lines(address: Addr, text: Bytes, lengths: Row) -> tuple[bytes, Row]:
    """Give rows as text: address, rule; and the (r + 1,) offsets where each starts."""
    rows, width = text.shape
    lines = np.empty((rows, _FRONT + width), dtype=np.uint8)
    lines[:, :_FRONT] = ord(" ")
    lines[:, 4:20] = hex_digits(address)
    lines[:, _FRONT:] = text
    offsets = np.append(np.int64(0), np.cumsum(lengths + _FRONT))
    body = lines.tobytes()
    return body if bool((lengths == width).all()) else body.replace(b"\0", b""), offsets


def _header(table: SFrameTable, name: str) -> bytes:
    """Give everything above the first function."""
    header = table.header
    flags = [text for flag, text in _FLAG_NAMES if header.flags & flag] or ["NONE"]
    lines = [
        f"Contents of the SFrame section {name}:",
        "  Header :",
        "",
        f"    Version: SFRAME_VERSION_{header.version}",
        "    Flags: " + (",\n" + " " * 11).join(flags),
    ]
    if header.fixed_fp and header.version > Version.V1:
        lines.append(f"    CFA fixed FP offset: {header.fixed_fp}")
    if header.fixed_ra and header.version > Version.V1:
        lines.append(f"    CFA fixed RA offset: {header.fixed_ra}")
    lines += [f"    Num FDEs: {_signed(header.num_fdes)}", f"    Num FREs: {_signed(header.num_fres)}"]
    return "\n".join([*lines, "", "  Function Index :", ""]).encode()


def _signed(value: int) -> int:
    """Give an unsigned 32-bit number as readelf prints it."""
    return value - (value >> 31 << 32)


def _function_heads(table: SFrameTable, begin: Addr, low: int, high: int) -> list[bytes]:
    """Give the lines above the rows of functions low..high."""
    part = slice(low, high)
    fdes = table.fdes
    is_v3 = table.header.version == Version.V3
    is_arm = table.abi in {Abi.AARCH64_LE, Abi.AARCH64_BE}
    info = fdes.info[part]
    kinds = fdes.is_flex[part].astype(np.int64)
    kinds += ((info & INFO_SIGNAL) != 0) * np.int64(2 if is_v3 else 0)
    kinds += ((info & INFO_KEY_B) != 0) * np.int64(4 if is_arm else 0)
    kinds += ((info & INFO_PC_MASK) != 0) * np.int64(8)
    sizes = fdes.size[part].astype(np.int64)
    sizes -= sizes >> 31 << 32
    every = zip(range(low, high), begin[part].tolist(), sizes.tolist(), kinds.tolist(), strict=True)
    return [
        b"\n    func idx [%d]: pc = 0x%x, size = %d%b" % (index, start, size, _TAILS[kind])
        for index, start, size, kind in every
    ]


def _tail(kind: int) -> bytes:
    """Give what follows a function's size; bits: 1 flexible, 2 signal frame, 4 key B, 8 repeated block."""
    attr = ("S" if kind & 2 else "") + ("F" if kind & 1 else "")
    line = (f', attr = "{attr}"' if attr else "") + (", pauth = B key" if kind & 4 else "")
    start = "STARTPC" + ("[m]" if kind & 8 else "").ljust(8)
    return f" bytes{line}\n    {start} {'CFA':10}{'FP':10}{'RA':13}\n".encode()


_TAILS: Final = [_tail(kind) for kind in range(16)]


class _Columns:
    """The CFA, FP and RA columns of a table as labels."""

    def __init__(self, table: SFrameTable) -> None:
        """Take every row as one of a default descriptor."""
        fres, header, info = table.fres, table.header, ABI_INFO[table.abi]
        self.table = table
        self.has_registers = table.abi == Abi.S390X_BE and header.version == Version.V2
        count = fres.word_count
        self.is_outermost = np.flatnonzero(count == 0)
        # Keys of a place that a row does not name, and of padding: just above every offset that occurs.
        self.absent = max(int(fres.words.max(initial=0)), header.fixed_fp) + 1
        # Lowest bit of the CFA key: 1 = SP.
        self.cfa = (fres.word(0) * info.cfa_scale + info.cfa_bias) * 2 + (fres.info & 1)
        fp_index = 1 + (header.fixed_ra == 0)
        if header.fixed_fp:
            fp = np.full(len(fres), header.fixed_fp, dtype=np.int64)
        else:
            fp = np.where(count > fp_index, fres.word(fp_index), self.absent)
        if header.fixed_ra:
            ra = np.full(len(fres), self.absent, dtype=np.int64)
        else:
            ra = np.where(count > 1, fres.word(1), self.absent)
            ra[ra == 0] = self.absent + 1
        self.fp, self.ra = fp, ra
        self.extra: dict[str, tuple[list[bytes], Row, Row]] = {}

    def put_flex(self, rows: Row) -> None:
        """Describe the rows of flexible descriptors."""
        if not rows.size:
            return
        words = flex_words(self.table, rows)
        info, fixed_ra = ABI_INFO[self.table.abi], self.table.header.fixed_ra
        names = {info.sp: "sp", info.fp: "fp"}
        count = self.table.fres.word_count[rows]
        ra_word = np.where(count > 2, 1, 0)
        for name, pair, width in (("cfa", words.cfa, _WIDE), ("fp", words.fp, _WIDE), ("ra", words.ra, _WIDE_RA)):
            keys = np.stack([pair.control, pair.offset, pair.is_present, ra_word], axis=1)
            distinct, index = np.unique(keys, axis=0, return_inverse=True)
            texts = []
            for control, offset, present, is_padded in distinct.tolist():
                text = _flex_text(control, offset, names) if present else "u"
                if name == "ra" and not present:
                    text = "U" if is_padded else "f" if fixed_ra else "u"
                texts.append(text)
            if name == "ra":
                signed = (self.table.fres.info[rows] >> 7).astype(np.int64)
                texts = [text + mark for mark in ("   ", "[s]") for text in texts]
                index = index.reshape(-1) + signed * len(distinct)
            self.extra[name] = ([t.encode().ljust(width) for t in texts], index.reshape(-1), rows)

    def labels(self) -> Labels:
        """Give the three columns as one, the newline included."""
        flex = self.table.fdes.is_flex
        if flex.any():
            self.put_flex(np.flatnonzero(flex.take(self.table.fres.func)))
        signed = (self.table.fres.info >> 7).astype(np.int64)
        columns = {
            "cfa": label(self.cfa, lambda key: f"{'sp' if key & 1 else 'fp'}+{key >> 1}", _WIDE),
            "fp": label(self.fp, self._slot, _WIDE),
            "ra": label(self.ra * 2 + signed, self._return_address, _WIDE_RA),
        }
        for name, column in columns.items():
            if name in self.extra:
                more, more_index, rows = self.extra[name]
                column.index[rows] = more_index + len(column.texts)
                column.texts.extend(more)
            column.index[self.is_outermost] = len(column.texts)
            column.texts.append(b"RA undefined" if name == "cfa" else b"")
        columns["ra"].texts[:] = [text + b"\n" for text in columns["ra"].texts]
        return combine(list(columns.values()))

    def _slot(self, key: int) -> str:
        """Give the text of a saved register's place."""
        if key == self.absent:
            return "u"
        if self.has_registers and key & 1:
            return f"r{key >> 1}"
        return f"c{key:+d}"

    def _return_address(self, key: int) -> str:
        """Give the text of the return address's place, with its mark; lowest bit of the key: signed."""
        place = key >> 1
        is_fixed = self.table.header.fixed_ra and self.table.header.version > Version.V1
        text = "f" if is_fixed else "U" if place == self.absent + 1 else self._slot(place)
        return text + ("[s]" if key & 1 else "   ")


def _flex_text(control: int, offset: int, names: dict[int, str]) -> str:
    """Give the text of one flexible pair; readelf looks at the load bit only if the base is a register."""
    if not control & 1:
        return f"c{offset:+d}"
    register = control >> 3
    text = f"{names.get(register, f'r{register}')}{offset:+d}"
    return f"({text})" if control & 2 else text
