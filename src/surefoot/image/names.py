"""Layer 3: names in an ELF string table, array at a time.

Invariant: a name is (start, the next zero byte); the table ends in a zero byte, which `NameTable` verifies, so
no name runs out of it. Nothing here decodes more names than asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Bytes, Mask, Off, Row
from surefoot.errors import Inconsistent

__all__ = ["KSYM_NAME_LEN", "NameTable"]

KSYM_NAME_LEN: Final = 512
"""Bytes of the longest symbol name in a kernel (include/linux/kallsyms.h, Linux 7.3)."""
_PRIME: Final = np.uint64(0x9E37_79B9_7F4A_7C15)
"""Odd multiplier of the hash: 2**64 divided by the golden ratio (Knuth, TAOCP volume 3, section 6.4)."""


@dataclass(frozen=True)
class NameTable:
    """A string table and names in it.

    Attributes:
        strings: (b,) uint8, the table; its last byte is 0.
        off: (n,) int64, where each name starts.
    """

    strings: Bytes
    off: Off

    @classmethod
    def of(cls, strings: Bytes, off: Off) -> NameTable:
        """Check a string table and the offsets into it.

        Raises:
            Inconsistent: the table does not end in a zero byte, or a name starts outside of it.
        """
        if not off.size:
            return cls(strings, off)
        if not strings.size or strings[-1]:
            raise Inconsistent("string table does not end in a zero byte")
        if int(off.max()) >= strings.size or int(off.min()) < 0:
            raise Inconsistent("name lies outside the string table", offset=int(off.max()))
        return cls(strings, off)

    def __len__(self) -> int:
        return int(self.off.size)

    def take(self, rows: Row) -> NameTable:
        """Give the names of the chosen rows, in the given order."""
        return NameTable(self.strings, self.off[rows])

    def __getitem__(self, i: int) -> str:
        """Give name `i`; bytes that are no UTF-8 appear as escapes."""
        return self.bytes_at(int(self.off[i])).decode("utf-8", "backslashreplace")

    def bytes_at(self, off: int) -> bytes:
        """Give the name that starts at byte `off` of the table."""
        width = 128
        while True:
            chunk = self.strings[off : off + width].tobytes()
            end = chunk.find(0)
            if end >= 0 or off + width >= self.strings.size:
                return chunk[:end] if end >= 0 else chunk
            width *= 8

    def byte(self, k: int) -> Bytes:
        """(n,) uint8, byte k of each name; what lies there is meaningless beyond the name's end."""
        return self.strings[np.minimum(self.off + k, self.strings.size - 1)]

    def starts_with(self, prefix: bytes) -> Mask:
        """(n,) bool: the name begins with `prefix`, which holds no zero byte."""
        found = np.ones(len(self), dtype=np.bool_)
        for k, char in enumerate(prefix):
            at = np.flatnonzero(found)
            if not at.size:
                break
            found[at] = self.strings[np.minimum(self.off[at] + k, self.strings.size - 1)] == char
        return found

    def leading(self, char: bytes, limit: int = KSYM_NAME_LEN) -> Row:
        """(n,) int64, how often `char` stands at the beginning of each name, at most `limit`."""
        count = np.zeros(len(self), dtype=np.int64)
        at = np.arange(len(self))
        for k in range(limit):
            at = at[self.strings[np.minimum(self.off[at] + k, self.strings.size - 1)] == char[0]]
            if not at.size:
                break
            count[at] = k + 1
        return count

    @cached_property
    def lengths(self) -> Row:
        """(n,) int64, bytes of each name."""
        ends = np.flatnonzero(self.strings == 0)
        return ends[np.searchsorted(ends, self.off)] - self.off if len(self) else self.off.copy()

    def ends_with(self, suffix: bytes) -> Mask:
        """(n,) bool: the name ends with `suffix`."""
        found: Mask = self.lengths >= len(suffix)
        for k, char in enumerate(suffix):
            at = np.flatnonzero(found)
            found[at] = self.strings[self.off[at] + self.lengths[at] - len(suffix) + k] == char
        return found

    def blocks(self, rows: Row, start: int, width: int) -> NDArray[np.bytes_]:
        """Give bytes start to start + width of the chosen names as an (k,) 'S' array, zero-filled."""
        reach = np.arange(start, start + width)
        at = np.minimum(self.off[rows][:, None] + reach, self.strings.size - 1)
        chunk = np.where(reach < self.lengths[rows][:, None], self.strings[at], np.uint8(0))
        return np.ascontiguousarray(chunk).view(f"S{width}").reshape(-1)

    def order_within(self, groups: Row) -> Row:
        """Order rows by (group, name bytes, row), as strcmp() does within each group.

        Args:
            groups: (n,) int64, group number of each row.

        Returns:
            (n,) int64, the rows in that order. Names are compared up to KSYM_NAME_LEN bytes.
        """
        rank = groups.astype(np.int64)
        for start in range(0, KSYM_NAME_LEN, 32):
            _, rank, sizes = np.unique(rank, return_inverse=True, return_counts=True)
            open_rows = np.flatnonzero((sizes[rank] > 1) & (self.lengths > start))
            if not open_rows.size:
                break
            keys = np.zeros(len(self), dtype="S32")
            tied = np.flatnonzero(sizes[rank] > 1)
            keys[tied] = self.blocks(tied, start, 32)
            order = np.lexsort((keys, rank))
            step = np.append(False, (rank[order][1:] != rank[order][:-1]) | (keys[order][1:] != keys[order][:-1]))
            fresh = np.empty_like(rank)
            fresh[order] = np.cumsum(step)
            rank = fresh
        return np.argsort(rank, kind="stable")

    @cached_property
    def _hashes(self) -> NDArray[np.uint64]:
        return self._hash(self.off, np.minimum(self.lengths, KSYM_NAME_LEN), self.strings)

    @staticmethod
    def _hash(off: Off, lengths: Row, strings: Bytes) -> NDArray[np.uint64]:
        """(n,) uint64, a hash of each name, eight bytes at a time."""
        padded = np.concatenate([strings, np.zeros(8, dtype=np.uint8)])
        words = np.ndarray((strings.size + 1,), dtype="<u8", buffer=padded.data, strides=(1,))
        total = lengths.astype(np.uint64) * _PRIME
        rows = np.arange(off.size)
        for start in range(0, KSYM_NAME_LEN, 8):
            rows = rows[lengths[rows] > start]
            if not rows.size:
                break
            word = words[off[rows] + start].astype(np.uint64)
            spare = np.maximum(8 - (lengths[rows] - start), 0).astype(np.uint64) * np.uint64(8)
            word = (word << spare) >> spare
            total[rows] = (total[rows] ^ word) * _PRIME
            total[rows] ^= total[rows] >> np.uint64(29)
        return total

    @cached_property
    def _sorted(self) -> tuple[Row, NDArray[np.uint64]]:
        order = np.argsort(self._hashes, kind="stable")
        return order, self._hashes[order]

    def find(self, name: str) -> Row:
        """Give the rows of that name in ascending order, (k,) int64; none if there is none."""
        return self.find_many([name])[0]

    def find_many(self, names: Iterable[str]) -> list[Row]:
        """Give for each name the rows that bear it, ascending; all names are searched together."""
        wanted = [name.encode("utf-8", "surrogateescape") for name in names]
        sizes = np.array([len(name) for name in wanted], dtype=np.int64)
        blob = np.frombuffer(b"\0".join(wanted) + b"\0", dtype=np.uint8)
        off = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes + 1)[:-1]]) if wanted else sizes
        hashes = self._hash(off, np.minimum(sizes, KSYM_NAME_LEN), blob)
        order, ordered = self._sorted
        first = np.searchsorted(ordered, hashes, side="left").tolist()
        last = np.searchsorted(ordered, hashes, side="right").tolist()
        found = []
        for name, low, high in zip(wanted, first, last, strict=True):
            rows = np.sort(order[low:high])
            good = [row for row in rows.tolist() if self.bytes_at(int(self.off[row])) == name]
            found.append(np.array(good, dtype=np.int64))
        return found
