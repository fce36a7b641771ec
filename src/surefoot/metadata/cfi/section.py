"""Layer 2: one section's bytes, read at many places at once.

Invariant: a read never leaves the section: it is followed by zero bytes, and positions are clipped to them. Whether a
structure ends in time is decided by the callers, who know where it has to end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Bytes, Mask, Off
from surefoot.errors import InputError, Unsupported

__all__ = ["LEB_MAX", "Leb", "Section", "open_section"]

LEB_MAX: Final = 10
"""Bytes of the longest LEB128 number that is read: 64 bits need ten; longer ones are padded and refused by name."""
_PAD: Final = 32
_SIZE_MAX: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Leb:
    """LEB128 numbers read at many places.

    Attributes:
        value: (n,) int64.
        length: (n,) int64, bytes.
        ok: (n,) bool, False where the number is longer than LEB_MAX bytes or beyond int64 (`value` has no meaning).
    """

    value: Off
    length: Off
    ok: Mask


@dataclass(frozen=True, slots=True)
class Section:
    """The bytes of .debug_frame or .eh_frame.

    Attributes:
        data: (size + some,) uint8, the bytes, followed by zeros.
        size: bytes of the section proper.
        name: section name for messages.
        addr: address of the first byte; the place that pc-relative pointers count from.
        big_endian: byte order of fixed-width numbers.
    """

    data: Bytes
    size: int
    name: str
    addr: int
    big_endian: bool

    def fail(self, kind: type[InputError], message: str, offset: int) -> NoReturn:
        """Raise an error of the given kind that names this section and the offset in it."""
        raise kind(message, section=self.name, offset=offset)

    def words(self, width: int, *, signed: bool = False) -> NDArray[np.generic]:
        """(size + 1,) the `width`-byte number that starts at each byte: a view, nothing is copied."""
        kind = np.dtype(f"{'>' if self.big_endian else '<'}{'i' if signed else 'u'}{width}")
        return np.ndarray((self.size + 1,), dtype=kind, buffer=self.data.data, strides=(1,))

    def fixed(self, pos: Off, width: int, *, signed: bool = False) -> NDArray[np.uint64]:
        """Give the numbers of `width` bytes at `pos`.

        Args:
            pos: (n,) int64, offsets; those behind the section read as zero.
            width: 1, 2, 4 or 8.
            signed: extend the sign to 64 bits.

        Returns:
            (n,) uint64; negative numbers modulo 2**64.
        """
        found = self.words(width, signed=signed)[np.minimum(pos, self.size)]
        wide = found.astype(np.int64) if signed else found
        return wide.astype(np.uint64)

    def leb(self, pos: Off, *, signed: bool) -> Leb:
        """Give the LEB128 numbers at `pos`, all of them advancing byte by byte together.

        Args:
            pos: (n,) int64, offsets; those behind the section read as zero.
            signed: SLEB128 instead of ULEB128.

        Source:
            DWARF 5, section 7.6.
        """
        at = np.minimum(pos, self.size)
        byte = self.data[at]
        value = (byte & 0x7F).astype(np.int64)
        length = np.ones(at.size, dtype=np.int64)
        ok = np.ones(at.size, dtype=np.bool_)
        live = np.flatnonzero(byte >= 0x80)
        for k in range(1, LEB_MAX):
            if not live.size:
                break
            more = self.data[np.minimum(at[live] + k, self.size)]
            byte[live] = more
            value[live] |= (more & 0x7F).astype(np.int64) << (7 * k)
            length[live] += 1
            if k == LEB_MAX - 1:  # 63 bits are full: only copies of the sign may follow
                rest = more & 0x7F
                ok[live] = (more < 0x80) & ((rest == 0) | ((rest == 0x7F) & signed))
            live = live[more >= 0x80]
        if signed:
            minus = np.flatnonzero(((byte & 0x40) != 0) & (length < LEB_MAX))
            value[minus] |= np.int64(-1) << (7 * length[minus])
        return Leb(value, length, ok)

    def leb_length(self, pos: Off) -> Off:
        """(n,) int64, bytes of the LEB128 numbers at `pos`; LEB_MAX + 1 stands for everything longer.

        `pos` may be up to LEB_MAX + 2 bytes behind the section.
        """
        length = np.ones(pos.size, dtype=np.int64)
        live = np.arange(pos.size, dtype=np.int64)
        for k in range(LEB_MAX):
            live = live[self.data[pos[live] + k] >= 0x80]
            if not live.size:
                break
            length[live] += 1
        return length


def open_section(data: bytes | bytearray | memoryview | Bytes, name: str, addr: int, *, big_endian: bool) -> Section:
    """Copy the bytes of a section, so that what is decoded cannot change meanwhile.

    Args:
        data: the section, any object with the buffer interface.
        name: section name for messages.
        addr: address of the first byte.
        big_endian: byte order of fixed-width numbers.

    Raises:
        Unsupported: the section has 2 GiB or more.
    """
    raw = np.frombuffer(data, dtype=np.uint8)
    if raw.size > _SIZE_MAX - _PAD:
        raise Unsupported("2 GiB or more of call frame information", section=name, offset=0)
    padded = np.zeros(raw.size + _PAD, dtype=np.uint8)
    padded[: raw.size] = raw
    return Section(padded, int(raw.size), name, addr, big_endian)
