"""Layer 2: where the rows of every function start, found for all functions at once.

Invariant: positions are a function of the bytes alone; nothing outside the region is ever read, and the work is
bounded by the number of rows asked for plus the size of the region.

A row's length follows from its info byte, so rows form chains. All chains advance in lockstep: one numpy operation
moves every function to its next row. Chains longer than `_LOCKSTEP` rows are cut into pieces of `_STRIDE` rows by
a table of jumps (pointer doubling over the bytes of the region), and the pieces then advance in lockstep again.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from surefoot.dtypes import Bytes, Row

__all__ = ["BAD_WORD_SIZE", "row_lengths", "row_positions"]

_LOCKSTEP: Final = 2048
_LOG_STRIDE: Final = 8
_STRIDE: Final = 1 << _LOG_STRIDE
BAD_WORD_SIZE: Final = 3


def _payload_lengths() -> Row:
    """(256,) int64: bytes of the data words behind each info byte; word size 3 does not exist and counts as 0."""
    info = np.arange(256)
    size = (info >> 5) & 3
    return np.where(size == BAD_WORD_SIZE, 0, ((info >> 1) & 15) << size).astype(np.int64)


_PAYLOAD: Final = _payload_lengths()


def row_lengths(addr_size: Row, info: Bytes) -> Row:
    """(r,) int64: bytes of rows with the given start width (1, 2 or 4) and info byte."""
    return addr_size + 1 + _PAYLOAD.take(info)


def row_positions(region: Bytes, first: Row, addr_size: Row, counts: Row) -> Row:
    """Give the position of every row.

    Args:
        region: (n,) uint8, the row sub-section.
        first: (f,) int64, position of each function's first row, 0 <= first.
        addr_size: (f,) int64, bytes of a start address: 1, 2 or 4.
        counts: (f,) int64, number of rows wanted.

    Returns:
        (sum(counts),) int64 positions in the region, function after function. A position whose row does not fit
        into the region is wrong and at least as large as some position that does not fit either: callers compare
        position + length with the region's size, and every row behind the first misfit of a function is a misfit.
    """
    out = np.empty(int(counts.sum()), dtype=np.int64)
    slots = np.cumsum(counts) - counts
    if not out.size:
        return out
    if not region.size:
        out[:] = 0
        return out
    order = np.argsort(-counts, kind="stable")
    order = order[: int(np.count_nonzero(counts))]
    at, width, slot = _lockstep(region, out, first[order], addr_size[order], counts[order], slots[order])
    if at.size:
        rest = counts[order][: at.size] - _LOCKSTEP
        _in_pieces(region, out, at, width, rest, slot)
    return out


def _lockstep(region: Bytes, out: Row, first: Row, addr_size: Row, counts: Row, slots: Row) -> tuple[Row, Row, Row]:
    """Advance functions, sorted by descending count, row by row, at most `_LOCKSTEP` rows.

    Returns:
        position, start width and output slot of the functions that have rows left.
    """
    steps = min(int(counts[0]), _LOCKSTEP)
    # alive[k] = how many functions have more than k rows.
    clipped = np.minimum(counts, steps)
    alive = (counts.size - np.cumsum(np.bincount(clipped, minlength=steps + 1))).tolist()
    at, width, slot = first.copy(), addr_size, slots.copy()
    ceiling = region.size
    for step in range(steps):
        live = counts.size if step == 0 else alive[step]
        at, width, slot = at[:live], width[:live], slot[:live]
        out[slot] = at
        info = region.take(at + width, mode="clip")
        at = np.minimum(at + width + 1 + _PAYLOAD.take(info), ceiling)
        slot += 1
    left = int(np.count_nonzero(counts > steps))
    return at[:left], width[:left], slot[:left]


def _in_pieces(region: Bytes, out: Row, at: Row, width: Row, counts: Row, slots: Row) -> None:
    """Advance long chains: find every `_STRIDE`-th row by jumps, then walk all pieces in lockstep."""
    starts: list[Row] = []
    widths: list[Row] = []
    lengths: list[Row] = []
    piece_slots: list[Row] = []
    for size in np.unique(width).tolist():
        mine = np.flatnonzero(width == size)
        jump = _jump_table(region, size)
        here, left, slot = at[mine], counts[mine], slots[mine]
        while here.size:
            starts.append(here)
            widths.append(np.full(here.size, size, dtype=np.int64))
            lengths.append(np.minimum(left, _STRIDE))
            piece_slots.append(slot)
            more = np.flatnonzero(left > _STRIDE)
            here, left, slot = jump.take(here[more]), left[more] - _STRIDE, slot[more] + _STRIDE
    lens = np.concatenate(lengths)
    order = np.argsort(-lens, kind="stable")
    columns = [np.concatenate(part)[order] for part in (starts, widths)]
    _lockstep(region, out, columns[0], columns[1], lens[order], np.concatenate(piece_slots)[order])


def _jump_table(region: Bytes, addr_size: int) -> Row:
    """(n + 1,) positions `_STRIDE` rows further on; n, the end, leads to itself."""
    size = region.size
    jump = np.full(size + 1, size, dtype=np.int64)
    if size > addr_size:
        step = np.arange(addr_size + 1, size + 1, dtype=np.int64) + _PAYLOAD.take(region[addr_size:])
        jump[: size - addr_size] = np.minimum(step, size)
    for _ in range(_LOG_STRIDE):
        jump = jump.take(jump)
    return jump
