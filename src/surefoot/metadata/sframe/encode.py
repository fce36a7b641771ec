"""Layer 2: columns to bytes; the twin of `scan`.

Invariant: `encode(decode(data)) == data` for every section whose row blocks do not overlap and whose unclaimed
bytes are zero, which is all that GNU tools write. Values that do not fit their field are an error, never cut off.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Bytes, Row
from surefoot.errors import Inconsistent
from surefoot.metadata.sframe import rowscan
from surefoot.metadata.sframe.constants import (
    ATTR_SIZE,
    FDE_DTYPES,
    HEADER_DTYPE,
    HEADER_SIZE,
    INFO_FRE_TYPE,
    MAGIC,
    MAX_ROWS_V3,
    Version,
)
from surefoot.metadata.sframe.model import SFrameSection, SFrameTable

__all__ = ["encode", "row_positions"]

_MAX_FRE_TYPE: Final = 2


def encode(section: SFrameSection) -> bytes:
    """Give the bytes of a section.

    Row blocks stand where the descriptors say (`fre_off`); `FreColumns.offset` is not looked at. Gaps are zero.

    Raises:
        Inconsistent: a value does not fit its field, or parts lie outside the section.
    """
    out = np.zeros(section.size, dtype=np.uint8)
    for table in section.tables:
        _encode_table(out, table)
    return out.tobytes()


def _encode_table(out: Bytes, table: SFrameTable) -> None:
    """Write one table at its place."""
    header = table.header
    if table.end > out.size:
        raise Inconsistent(f"a table that ends at {table.end:#x} does not fit into a section of {out.size:#x} bytes")
    if header.num_fdes != len(table.fdes):
        raise Inconsistent(f"the header names {header.num_fdes} descriptors, the table has {len(table.fdes)}")
    record = np.zeros(1, dtype=_ordered(HEADER_DTYPE, table))
    record["magic"] = MAGIC
    record["aux_len"] = len(header.aux)
    for name in HEADER_DTYPE.names or ():
        if name not in {"magic", "aux_len"}:
            record[name] = getattr(header, name)
    head = record.tobytes() + header.aux
    out[table.offset : table.offset + HEADER_SIZE + len(header.aux)] = np.frombuffer(head, dtype=np.uint8)
    _encode_fdes(out, table)
    region = out[table.fre_off : table.fre_off + header.fre_len]
    if header.version == Version.V3:
        _encode_attributes(region, table)
    _encode_rows(region, table)


def _ordered(dtype: np.dtype[np.void], table: SFrameTable) -> np.dtype[np.void]:
    """Give a record type in the byte order of the table."""
    return dtype.newbyteorder(">") if table.header.big_endian else dtype


def _fits(values: NDArray[np.integer], low: int, high: int, what: str) -> None:
    """Refuse values outside a field's range."""
    if values.size and (int(values.min()) < low or int(values.max()) > high):
        raise Inconsistent(f"{what} outside {low}..{high} cannot be encoded")


def _encode_fdes(out: Bytes, table: SFrameTable) -> None:
    """Write the descriptor records."""
    fdes, version = table.fdes, Version(table.header.version)
    records = np.zeros(len(fdes), dtype=_ordered(FDE_DTYPES[version], table))
    if version != Version.V3:
        _fits(fdes.start_raw, -(2**31), 2**31 - 1, "a function start")
        records["num_fres"], records["info"] = fdes.num_fres, fdes.info
    if version == Version.V2:
        records["rep_size"], records["padding"] = fdes.rep_size, fdes.padding
    records["start"], records["size"], records["fre_off"] = fdes.start_raw, fdes.size, fdes.fre_off
    out[table.fde_off : table.fde_off + records.nbytes] = np.frombuffer(records.tobytes(), dtype=np.uint8)


def _encode_attributes(region: Bytes, table: SFrameTable) -> None:
    """Write version 3's attribute records into the row sub-section."""
    fdes = table.fdes
    _fits(fdes.num_fres, 0, MAX_ROWS_V3, "a number of rows")
    at = fdes.fre_off.astype(np.int64)
    _fits(at, 0, region.size - ATTR_SIZE, "an attribute record's offset")
    low, high = (1, 0) if table.header.big_endian else (0, 1)
    region[at + low] = fdes.num_fres & 0xFF
    region[at + high] = fdes.num_fres >> 8
    region[at + 2], region[at + 3], region[at + 4] = fdes.info, fdes.info2, fdes.rep_size


def row_positions(table: SFrameTable) -> Row:
    """(r,) int64: offset of each row in the row sub-section, from the descriptors' `fre_off` and the lengths."""
    fdes, fres = table.fdes, table.fres
    if not len(fres):
        return np.zeros(0, dtype=np.int64)
    width = np.int64(1) << (fdes.info & INFO_FRE_TYPE & 3).astype(np.int64)
    lengths = rowscan.row_lengths(width.take(fres.func), fres.info)
    before = np.cumsum(lengths) - lengths
    attr = ATTR_SIZE if table.header.version == Version.V3 else 0
    first = np.minimum(fdes.first_row, len(fres) - 1)
    base = fdes.fre_off.astype(np.int64) + attr - before.take(first)
    return before + base.take(fres.func)


def _encode_rows(region: Bytes, table: SFrameTable) -> None:
    """Write starts, info bytes and data words."""
    fdes, fres = table.fdes, table.fres
    if not len(fres):
        return
    kind = fdes.info & INFO_FRE_TYPE
    _fits(kind[fdes.row_count > 0], 0, _MAX_FRE_TYPE, "a row type")
    width_code = kind.take(fres.func)
    width = np.int64(1) << width_code.astype(np.int64)
    at = row_positions(table)
    end = at + rowscan.row_lengths(width, fres.info)
    _fits(end, 0, region.size, "a row's end")
    order = ">" if table.header.big_endian else "<"
    for code, name in ((0, "u1"), (1, "u2"), (2, "u4")):
        rows = np.flatnonzero(width_code == code)
        if rows.size:
            _fits(fres.start[rows], 0, (1 << (8 << code)) - 1, "a row's start")
            _view(region, order + name)[at[rows]] = fres.start[rows]
    region[at + width] = fres.info
    count, size_code = (fres.info >> 1) & 15, (fres.info >> 5) & 3
    for code, name in ((0, "i1"), (1, "i2"), (2, "i4")):
        rows = np.flatnonzero((size_code == code) & (count > 0))
        if not rows.size:
            continue
        view, limit = _view(region, order + name), 1 << ((8 << code) - 1)
        target, source, left = (at + width + 1)[rows], fres.first_word[rows], count[rows]
        nth = 0
        while rows.size:
            words = fres.words.take(source + nth)
            _fits(words, -limit, limit - 1, f"a data word of {1 << code} bytes")
            view[target + (nth << code)] = words
            nth += 1
            rows = np.flatnonzero(left > nth)
            target, source, left = target.take(rows), source.take(rows), left.take(rows)


def _view(region: Bytes, name: str) -> NDArray[np.integer]:
    """Give the region as overlapping integers: item i is what stands at byte i."""
    dtype = np.dtype(name)
    count = max(0, region.size - dtype.itemsize + 1)
    return np.ndarray((count,), dtype=dtype, buffer=region.data, strides=(1,))
