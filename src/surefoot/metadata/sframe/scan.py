"""Layer 2: bytes to columns; the one reader behind the strict decoder and the checker.

Invariant: every offset is checked before it is used, sizes named by the input never decide an allocation before they
are compared with the bytes at hand, and every violation goes to `Faults`. With `Strict` faults the first one is
raised; with a `Collector` reading goes on with what is left.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Bytes, Row, Row32
from surefoot.errors import Truncated, UnknownVersion, Unsupported
from surefoot.metadata.rules import Abi
from surefoot.metadata.sframe import rowscan
from surefoot.metadata.sframe.constants import (
    BIG_ENDIAN_ABIS,
    FDE_DTYPES,
    HEADER_DTYPE,
    HEADER_SIZE,
    INFO_FRE_TYPE,
    MAGIC,
    known_flags,
)
from surefoot.metadata.sframe.descriptors import Part, RawFdes, Source, scan_descriptors
from surefoot.metadata.sframe.faults import Place
from surefoot.metadata.sframe.model import FdeColumns, FreColumns, Header, SFrameTable

__all__ = ["scan_section"]

_ABIS: Final = frozenset(int(abi) for abi in Abi)
_MIN_ROW: Final = 2
_PAGE: Final = 4096
_MAX_TABLES: Final = 4096
"""Linkers that only concatenate leave one table an object; each costs the same, however small it is."""
_MAGIC_LE: Final = MAGIC.to_bytes(2, "little")
_MAGIC_BE: Final = MAGIC.to_bytes(2, "big")


def scan_section(source: Source) -> tuple[SFrameTable, ...]:
    """Read every table of a section.

    Returns:
        the tables; with collecting faults possibly fewer than there are, or none.
    """
    tables: list[SFrameTable] = []
    at, fdes = 0, 0
    while True:
        table = _scan_table(source, at, fdes)
        if table is None:
            return tuple(tables)
        tables.append(table)
        fdes += len(table.fdes)
        at = _next_byte(source.data, table.end)
        if at >= source.data.size:
            return tuple(tables)
        if source.data[at : at + 2].tobytes() not in {_MAGIC_LE, _MAGIC_BE}:
            source.faults.one("sframe-trailing-bytes", "bytes behind the last table are not zero", offset=at)
            return tuple(tables)
        if len(tables) == _MAX_TABLES:
            message = f"more than {_MAX_TABLES} tables stand back to back"
            source.faults.one("sframe-too-many-tables", message, offset=at, error=Unsupported)
            return tuple(tables)


def _next_byte(data: Bytes, at: int) -> int:
    """Give the position of the first byte that is not zero, the end if there is none."""
    while at < data.size:
        used = np.flatnonzero(data[at : at + _PAGE])
        if used.size:
            return at + int(used[0])
        at += _PAGE
    return int(data.size)


def _scan_table(source: Source, at: int, first_fde: int) -> SFrameTable | None:
    """Read the table whose header is at byte `at`; None if the header cannot be used."""
    header = _scan_header(source, at)
    if header is None:
        return None
    fdes_at = at + header.size + header.fdeoff
    fres_at = at + header.size + header.freoff
    total = int(source.data.size)
    count = header.num_fdes
    if fdes_at + count * header.fde_size > total:
        message = f"{count} descriptors of {header.fde_size} bytes do not fit into the section's {total} bytes"
        source.faults.one("sframe-fdes-outside", message, offset=min(fdes_at, total), error=Truncated)
        count = max(0, (total - fdes_at) // header.fde_size)
    fres_end = fres_at + header.fre_len
    if fres_end > total:
        message = f"the row sub-section ends at {fres_end:#x}, behind the section's {total:#x} bytes"
        source.faults.one("sframe-fres-outside", message, offset=min(fres_at, total), error=Truncated)
    if count and header.fre_len and fres_at < fdes_at + count * header.fde_size and fres_end > fdes_at:
        source.faults.one("sframe-parts-overlap", "descriptors and rows share bytes", offset=fres_at)
    part = Part(source, header, at, fdes_at, count, fres_at, min(fres_at, total), min(fres_end, total), first_fde)
    raw = scan_descriptors(part)
    fdes, fres = _scan_rows(part, raw)
    if len(fres) != header.num_fres:
        message = f"the header promises {header.num_fres} rows, the descriptors have {len(fres)}"
        source.faults.one("sframe-row-count", message, offset=at + 12)
    return SFrameTable(at, header, fdes, fres, is_relocatable=source.relocations is not None)


def _scan_header(source: Source, at: int) -> Header | None:
    """Read and judge the header at byte `at`."""
    faults = source.faults
    chunk = source.data[at : at + HEADER_SIZE].tobytes()
    if len(chunk) < HEADER_SIZE:
        message = f"a header takes {HEADER_SIZE} bytes, {len(chunk)} are left"
        faults.one("sframe-header-short", message, offset=at, error=Truncated)
        return None
    if chunk[:2] not in {_MAGIC_LE, _MAGIC_BE}:
        message = f"the magic number is {chunk[:2].hex()}, not e2de or dee2"
        faults.one("sframe-magic", message, offset=at, error=Unsupported)
        return None
    big = chunk[:2] == _MAGIC_BE
    record = np.frombuffer(chunk, dtype=HEADER_DTYPE.newbyteorder(">") if big else HEADER_DTYPE)[0]
    get = {name: int(record[name]) for name in HEADER_DTYPE.names or ()}
    if get["version"] not in FDE_DTYPES:
        faults.one("sframe-version", f"version {get['version']} is not known", offset=at + 2, error=UnknownVersion)
        return None
    if get["abi"] not in _ABIS:
        faults.one("sframe-abi", f"ABI {get['abi']} is not known", offset=at + 4, error=Unsupported)
        return None
    unknown = get["flags"] & ~known_flags(get["version"])
    if unknown:
        message = f"flag bits {unknown:#x} do not exist in version {get['version']}"
        faults.one("sframe-flags", message, offset=at + 3)
    if big != (get["abi"] in BIG_ENDIAN_ABIS):
        message = f"the byte order of the magic number contradicts ABI {Abi(get['abi']).name}"
        faults.one("sframe-byte-order", message, offset=at + 4)
    aux = source.data[at + HEADER_SIZE : at + HEADER_SIZE + get["aux_len"]].tobytes()
    if len(aux) < get["aux_len"]:
        message = f"the auxiliary header takes {get['aux_len']} bytes, {len(aux)} are left"
        faults.one("sframe-aux-short", message, offset=at + HEADER_SIZE, error=Truncated)
        return None
    kept = ("version", "flags", "fixed_fp", "fixed_ra", "num_fdes", "num_fres", "fre_len", "fdeoff", "freoff")
    return Header(**{name: get[name] for name in kept}, abi=Abi(get["abi"]), aux=aux, big_endian=big)


def _scan_rows(part: Part, raw: RawFdes) -> tuple[FdeColumns, FreColumns]:
    """Find and read the rows of every descriptor."""
    region = part.region
    width = np.int64(1) << (raw.info & INFO_FRE_TYPE & 3).astype(np.int64)
    counts = _believable_counts(part, raw, width)
    first = np.where(raw.usable, raw.rows_at, 0)
    func = np.repeat(np.arange(counts.size, dtype=np.int32), counts)
    at = rowscan.row_positions(region, first, width, counts)
    row_width = width.take(func)
    info = _take(region, at + row_width)
    good = at + rowscan.row_lengths(row_width, info) <= region.size
    good &= ((info >> 5) & 3) != rowscan.BAD_WORD_SIZE
    if not good.all():
        counts, kept = _cut_short(part, raw, counts, func, at, info, good)
        func, at, row_width, info = func[kept], at[kept], row_width[kept], info[kept]
    start = _take(region, at).astype(np.uint32)
    for size, kind in ((2, "u2"), (4, "u4")):
        wide = np.flatnonzero(row_width == size)
        if wide.size:
            start[wide] = part.view(kind)[at[wide]]
    first_word, words = _scan_words(part, at + row_width + 1, info)
    fres = FreColumns(func=func, start=start, info=info, first_word=first_word, words=words, offset=at + part.fres_at)
    first_row = np.cumsum(counts) - counts
    fdes = FdeColumns(
        start_raw=raw.start_raw,
        start=raw.start,
        section=raw.section,
        size=raw.size,
        fre_off=raw.fre_off,
        num_fres=raw.num_fres,
        info=raw.info,
        info2=raw.info2,
        rep_size=raw.rep_size,
        padding=raw.padding,
        first_row=first_row,
        row_count=counts,
    )
    return fdes, fres


def _believable_counts(part: Part, raw: RawFdes, width: Row) -> Row:
    """(f,) int64: rows to read per descriptor, bounded by the bytes that there are.

    Descriptors may share rows (readers accept it), but all together may not claim more rows than the sub-section
    could hold: that bounds memory by the input.
    """
    size = part.region.size
    claimed = np.where(raw.usable, raw.num_fres.astype(np.int64), 0)
    room = np.maximum(0, size - raw.rows_at) // (width + 1)
    short = np.flatnonzero(claimed > room)
    part.report(
        "sframe-rows-outside",
        short,
        raw.offset,
        lambda i: (
            f"{int(claimed[short[i]])} rows do not fit behind offset {int(raw.rows_at[short[i]]):#x} of the "
            f"row sub-section's {size:#x} bytes"
        ),
        Truncated,
    )
    counts = np.minimum(claimed, room)
    beyond = np.flatnonzero(np.cumsum(counts) > size // _MIN_ROW)
    part.report(
        "sframe-rows-shared",
        beyond[:1],
        raw.offset,
        lambda _: f"the descriptors claim {int(counts.sum())} rows, more than {size} bytes can hold",
    )
    counts[beyond] = 0
    return counts


def _cut_short(
    part: Part, raw: RawFdes, counts: Row, func: Row32, at: Row, info: Bytes, good: NDArray[np.bool_]
) -> tuple[Row, Row]:
    """Report the first unreadable row of each function; keep the rows before it.

    Returns:
        new row counts (f,) and the indices of the rows to keep.
    """
    bad = np.flatnonzero(~good)
    heads = bad[np.append(True, func[bad][1:] != func[bad][:-1])]
    first_row = np.cumsum(counts) - counts
    left = counts.copy()
    left[func[heads]] = heads - first_row[func[heads]]
    wrong_size = ((info[heads] >> 5) & 3) == rowscan.BAD_WORD_SIZE
    wrong_size &= at[heads] + 1 < part.region.size
    sized, out = heads[wrong_size], heads[~wrong_size]
    where = Place(offset=at[sized] + part.fres_at, fde=func[sized] + part.first_fde, row=left[func[sized]])
    part.source.faults.many("sframe-word-size", sized.size, where, lambda _: "word size code 3 does not exist")
    part.report(
        "sframe-rows-outside",
        func[out].astype(np.int64),
        raw.offset,
        lambda i: f"row {int(left[func[out[i]]])} of the descriptor ends behind the row sub-section",
        Truncated,
    )
    nth = np.arange(func.size, dtype=np.int64) - first_row.take(func)
    return left, np.flatnonzero(nth < left.take(func))


def _scan_words(part: Part, at: Row, info: Bytes) -> tuple[Row, NDArray[np.int32]]:
    """Read the data words of every row.

    Returns:
        (r,) int64 index of each row's first word, and the words (w,) int32.
    """
    count = ((info >> 1) & 15).astype(np.int64)
    ends = np.cumsum(count)
    first = ends - count
    words = np.zeros(int(ends[-1]) if ends.size else 0, dtype=np.int32)
    size_code = (info >> 5) & 3
    for code, kind in ((0, "i1"), (1, "i2"), (2, "i4")):
        rows = np.flatnonzero((size_code == code) & (count > 0))
        if not rows.size:
            continue
        view = part.view(kind)
        source, target, left = at.take(rows), first.take(rows), count.take(rows)
        nth = 0
        while True:
            words[target + nth] = view[source + (nth << code)]
            nth += 1
            more = np.flatnonzero(left > nth)
            if not more.size:
                break
            source, target, left = source.take(more), target.take(more), left.take(more)
    return first, words


def _take(region: Bytes, at: Row) -> Bytes:
    """Bytes at the given positions; positions behind the end give the last byte (their rows are dropped)."""
    if not region.size:
        return np.zeros(at.size, dtype=np.uint8)
    return region.take(at, mode="clip")
