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

__all__ = ["Labels", "hex_digits", "join_lines", "label"]

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
        text: (u, width) uint8, distinct labels, zero padded on the right.
        length: (u,) int64, bytes of each label.
        index: (r,) int64, label of each row.
    """

    text: Bytes
    length: Row
    index: Row

    @classmethod
    def of(cls, texts: list[bytes], index: Row) -> Labels:
        """Make a column of the given labels."""
        width = max((len(text) for text in texts), default=0)
        joined = b"".join(text.ljust(width, b"\0") for text in texts)
        lengths = np.array([len(text) for text in texts], dtype=np.int64)
        return cls(np.frombuffer(joined, dtype=np.uint8).reshape(len(texts), width), lengths, index)


def label(keys: Row, say: Callable[[int], str], width: int) -> tuple[list[bytes], Row]:
    """Format each distinct key once.

    Args:
        keys: (r,) int64.
        say: gives the text of a key.
        width: labels are padded with blanks to this many bytes; longer ones are kept whole.

    Returns:
        the labels, and (r,) int64 the label of each row.
    """
    if not keys.size:
        return [], np.zeros(0, dtype=np.int64)
    low, high = int(keys.min()), int(keys.max())
    if high - low < _DENSE:
        shifted = keys - low
        is_used = np.zeros(high - low + 1, dtype=np.bool_)
        is_used[shifted] = True
        used = np.flatnonzero(is_used)
        rank = np.cumsum(is_used) - 1
        distinct, index = (used + low).tolist(), rank.take(shifted)
    else:
        values, index = np.unique(keys, return_inverse=True)
        distinct = values.tolist()
    return [say(key).encode("ascii").ljust(width) for key in distinct], index


def join_lines(columns: list[Labels | Bytes]) -> tuple[Bytes, Row]:
    """Put columns side by side.

    Args:
        columns: labels, or (r, width) uint8 of fixed width.

    Returns:
        all lines as one (n,) uint8, and the (r + 1,) int64 offsets where they start and end.
    """
    rows = max(int(c.index.size) if isinstance(c, Labels) else c.shape[0] for c in columns)
    widths = [c.text.shape[1] if isinstance(c, Labels) else c.shape[1] for c in columns]
    lines = np.empty((rows, sum(widths)), dtype=np.uint8)
    lengths = np.zeros(rows, dtype=np.int64)
    at = 0
    is_ragged = False
    for column, width in zip(columns, widths, strict=True):
        if isinstance(column, Labels):
            lines[:, at : at + width] = column.text.take(column.index, axis=0)
            lengths += column.length.take(column.index)
            is_ragged |= bool((column.length != width).any())
        else:
            lines[:, at : at + width] = column
            lengths += width
        at += width
    offsets = np.append(np.int64(0), np.cumsum(lengths))
    flat = lines.reshape(-1)
    return (flat[flat != 0] if is_ragged else flat), offsets
