"""Layer 7: function names as one byte column, joined over images, decoded when somebody prints them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from surefoot.dtypes import Bytes, Row

__all__ = ["NameColumn"]


@dataclass(frozen=True)
class NameColumn(Sequence[str]):
    """Names in a byte column.

    Attributes:
        blob: (b,) uint8, the names without separators.
        off: (n + 1,) int64, name i is blob[off[i]:off[i + 1]].
    """

    blob: Bytes
    off: Row

    def __len__(self) -> int:
        return int(self.off.size) - 1

    @overload
    def __getitem__(self, key: int) -> str: ...
    @overload
    def __getitem__(self, key: slice) -> Sequence[str]: ...
    def __getitem__(self, key: int | slice) -> str | Sequence[str]:
        if isinstance(key, slice):
            return [self[i] for i in range(*key.indices(len(self)))]
        row = range(len(self))[key]  # IndexError and negative numbers as for every sequence
        return self.blob[int(self.off[row]) : int(self.off[row + 1])].tobytes().decode("utf-8", "backslashreplace")

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))

    @classmethod
    def of(cls, names: Sequence[str]) -> NameColumn:
        """Pack names."""
        encoded = [name.encode("utf-8", "surrogateescape") for name in names]
        off = np.cumsum(np.array([0, *(len(name) for name in encoded)], dtype=np.int64))
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), off)

    @classmethod
    def cut(cls, strings: Bytes, start: Row, size: Row) -> NameColumn:
        """Cut names out of a string table.

        Args:
            strings: (b,) uint8.
            start: (n,) int64, first byte of each name.
            size: (n,) int64, bytes of each name.
        """
        off = np.zeros(size.size + 1, dtype=np.int64)
        np.cumsum(size, out=off[1:])
        at = np.repeat(start - off[:-1], size) + np.arange(off[-1], dtype=np.int64)
        return cls(strings[at], off)

    def take(self, rows: Row) -> NameColumn:
        """Give the names of the chosen rows, (k,) int64."""
        return NameColumn.cut(self.blob, self.off[rows], self.off[rows + 1] - self.off[rows])

    @classmethod
    def join(cls, parts: Sequence[NameColumn]) -> NameColumn:
        """Put columns one behind the other."""
        if len(parts) == 1:
            return parts[0]
        sizes = [np.diff(part.off) for part in parts]
        off = np.cumsum(np.concatenate([np.zeros(1, dtype=np.int64), *sizes]))
        blob = np.concatenate([part.blob[: part.off[-1]] for part in parts] or [np.zeros(0, dtype=np.uint8)])
        return cls(blob, off)
