"""Layer 2: many rows of text at once, from few different labels.

Invariant: rows are assembled by numpy from tables of distinct labels; Python only formats each distinct label once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Addr, Bytes, Row

__all__ = ["Labels", "combine", "hex_digits", "label"]

_DENSE: Final = 1 << 22
"""Keys within so narrow a range are told apart by a table instead of by sorting."""


def _hex_pairs() -> NDArray[np.uint16]:
    """(256,) uint16: two hexadecimal digits of each byte, in memory order."""
    return np.frombuffer(b"".join(b"%02x" % byte for byte in range(256)), dtype=np.uint16)


_HEX: Final = _hex_pairs()


def hex_digits(values: Addr) -> Bytes:
    """(n, 16) uint8: each value as sixteen hexadecimal digits."""
    raw = values.astype(">u8").view(np.uint8)
    return _HEX.take(raw).view(np.uint8).reshape(values.size, 16)


@dataclass(frozen=True, slots=True)
class Labels:
    """Text of one column.

    Attributes:
        texts: distinct labels.
        index: (r,) int64, label of each row.
    """

    texts: list[bytes]
    index: Row

    def matrix(self) -> tuple[Bytes, Row]:
        """Give the labels as (u, width) uint8, zero padded on the right, and their lengths (u,) int64."""
        width = max((len(text) for text in self.texts), default=0)
        joined = b"".join(text.ljust(width, b"\0") for text in self.texts)
        lengths = np.array([len(text) for text in self.texts], dtype=np.int64)
        return np.frombuffer(joined, dtype=np.uint8).reshape(len(self.texts), width), lengths


def _distinct(keys: Row) -> tuple[list[int], Row]:
    """Give the distinct keys, ascending, and (r,) int64 which one each row has."""
    if not keys.size:
        return [], np.zeros(0, dtype=np.int64)
    low, high = int(keys.min()), int(keys.max())
    if high - low < _DENSE:
        shifted = keys - low
        is_used = np.zeros(high - low + 1, dtype=np.bool_)
        is_used[shifted] = True
        rank = np.cumsum(is_used) - 1
        return (np.flatnonzero(is_used) + low).tolist(), rank.take(shifted)
    values, index = np.unique(keys, return_inverse=True)
    return values.tolist(), index


def label(keys: Row, say: Callable[[int], str], width: int) -> Labels:
    """Format each distinct key once.

    Args:
        keys: (r,) int64.
        say: gives the text of a key.
        width: labels are padded with blanks to this many bytes; longer ones are kept whole.
    """
    distinct, index = _distinct(keys)
    return Labels([say(key).encode("ascii").ljust(width) for key in distinct], index)


def combine(columns: list[Labels]) -> Labels:
    """Put columns side by side: one label per distinct combination."""
    key = columns[0].index
    for column in columns[1:]:
        key = key * max(1, len(column.texts)) + column.index
    distinct, index = _distinct(key)
    texts = []
    for number in distinct:
        parts, rest = [], number
        for column in reversed(columns[1:]):
            rest, part = divmod(rest, max(1, len(column.texts)))
            parts.append(column.texts[part])
        texts.append(columns[0].texts[rest] + b"".join(reversed(parts)))
    return Labels(texts, index)
