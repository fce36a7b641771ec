"""Layer 2: the verifier: everything that is wrong or odd about a section, each with its code.

Invariant: never raises on any bytes; time and memory are bounded by their number. What the scanner can still read
of a damaged section is judged as well.

Source:
    SFrame specification of binutils 2.47; the validator of the arm64 kernel reader proposed for Linux
    (kernel/unwind/sframe.c, series of 2026) for what it demands beyond the specification.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Bytes, Mask, Row
from surefoot.metadata.rules import Abi
from surefoot.metadata.sframe import rowscan
from surefoot.metadata.sframe.constants import (
    ABI_INFO,
    ATTR_SIZE,
    INFO2_FDE_TYPE,
    INFO2_UNUSED,
    INFO_FRE_TYPE,
    INFO_KEY_B,
    INFO_PC_MASK,
    INFO_SIGNAL,
    INFO_UNUSED,
    HeaderFlag,
    Version,
)
from surefoot.metadata.sframe.descriptors import Source
from surefoot.metadata.sframe.faults import DEFAULT_LIMIT, Collector, Finding, Place
from surefoot.metadata.sframe.model import Relocations, SFrameTable
from surefoot.metadata.sframe.rows import Judge, check_rows
from surefoot.metadata.sframe.scan import scan_section

__all__ = ["check"]


def check(
    data: bytes | bytearray | memoryview | Bytes,
    *,
    section_addr: int = 0,
    relocations: Relocations | None = None,
    machine: int | None = None,
    limit: int = DEFAULT_LIMIT,
) -> list[Finding]:
    """Verify a section.

    Args:
        data: the bytes of the section.
        section_addr: address of the first byte.
        relocations: those of the section in a relocatable object; None for linked images.
        machine: ELF e_machine of the file, or None if unknown.
        limit: findings kept per code; more are counted.

    Returns:
        the findings; codes are keys of `CATALOGUE`. Empty for a perfect section.

    Raises:
        Nothing.
    """
    faults = Collector(limit)
    view = np.frombuffer(data, dtype=np.uint8)
    tables = scan_section(Source(view, section_addr, relocations, faults))
    first_fde = 0
    for table in tables:
        judge = Judge(faults, table, first_fde)
        _check_header(judge, machine)
        _check_descriptors(judge)
        _check_blocks(judge)
        check_rows(judge)
        first_fde += len(table.fdes)
    if len(tables) > 1:
        faults.one("sframe-several-tables", f"{len(tables)} tables stand back to back", offset=tables[1].offset)
    if relocations is not None:
        _check_relocations(faults, tables, relocations)
    return faults.result()


def _check_header(judge: Judge, machine: int | None) -> None:
    """Judge header fields that the scanner accepts."""
    table, faults = judge.table, judge.faults
    header, at = table.header, table.offset
    info = ABI_INFO[table.abi]
    if machine is not None and machine != info.machine:
        message = f"ABI {table.abi.name} in an ELF file of machine {machine}, not {info.machine}"
        faults.one("sframe-machine", message, offset=at + 4)
    if header.aux:
        faults.one("sframe-aux-present", f"an auxiliary header of {len(header.aux)} bytes", offset=at + 7)
    if header.fixed_fp or header.fixed_ra != info.fixed_ra:
        message = (
            f"fixed FP offset {header.fixed_fp} and RA offset {header.fixed_ra}, usual are 0 and {info.fixed_ra}"
        )
        faults.one("sframe-fixed-offsets", message, offset=at + 5)
    if not header.num_fdes:
        faults.one("sframe-no-functions", "the table has no descriptors", offset=at + 8)
    if not table.is_relocatable and header.num_fdes:
        if not header.flags & HeaderFlag.SORTED:
            faults.one("sframe-flag-unsorted", "the table is not marked as sorted", offset=at + 3)
        if header.version != Version.V1 and not header.is_pcrel:
            faults.one("sframe-flag-not-pcrel", "starts are relative to the section", offset=at + 3)


def _check_descriptors(judge: Judge) -> None:
    """Judge descriptors one by one, then their order and overlaps."""
    table, report = judge.table, judge.fdes
    fdes, info, header = table.fdes, table.fdes.info, table.header
    size = fdes.size.astype(np.uint64)
    align = np.uint64(ABI_INFO[table.abi].code_align)
    is_mask = np.not_equal(info & INFO_PC_MASK, 0)
    is_v3 = header.version == Version.V3
    wraps = size > np.uint64(2**64 - 1) - fdes.start
    unused = info & (INFO_UNUSED | (0 if is_v3 else INFO_SIGNAL))
    is_arm = table.abi in {Abi.AARCH64_LE, Abi.AARCH64_BE}
    rep = fdes.rep_size
    start = fdes.start
    report("sframe-zero-size", size == 0, lambda _: "the function's size is 0")
    report("sframe-wraps", wraps, lambda i: f"{int(size[i])} bytes from {int(start[i]):#x} pass the end of memory")
    report("sframe-padding", fdes.padding != 0, lambda i: f"padding {int(fdes.padding[i]):#x}")
    report("sframe-info-bits", unused != 0, lambda i: f"func_info {int(info[i]):#x} has bits without meaning")
    odd = fdes.info2 & INFO2_UNUSED
    report("sframe-info2-bits", odd != 0, lambda i: f"func_info2 {int(fdes.info2[i]):#x} has bits without meaning")
    kind = fdes.info2 & INFO2_FDE_TYPE
    report("sframe-fde-type", kind > 1, lambda i: f"descriptor type {int(kind[i])}")
    has_key = (info & INFO_KEY_B) != 0
    report("sframe-key", has_key & (not is_arm), lambda _: f"key B on {table.abi.name}")
    if header.version != Version.V1:
        report("sframe-rep-size", is_mask & (rep == 0), lambda _: "a repeated block of 0 bytes")
        idle = ~is_mask & (rep != 0)
        report("sframe-rep-size-idle", idle, lambda i: f"a block of {int(rep[i])} bytes where nothing repeats")
    skewed = ((start % align) != 0) | ((size % align) != 0)
    report("sframe-code-align", skewed, lambda i: f"start {int(start[i]):#x}, size {int(size[i]):#x}")
    report("sframe-no-rows", fdes.num_fres == 0, lambda i: _no_rows(info[i], is_v3=is_v3))
    width = info & INFO_FRE_TYPE
    room = np.uint64(1) << (np.uint64(8) << np.minimum(width, 2).astype(np.uint64))
    extent = np.where(is_mask & (rep != 0), rep.astype(np.uint64), size)
    narrow = (extent > room) & (width <= 2)
    report(
        "sframe-narrow-rows", narrow, lambda i: f"row starts of type {int(width[i])}, {int(size[i])} bytes of code"
    )
    missing = (fdes.section < 0) & table.is_relocatable
    report("sframe-relocation-missing", missing, lambda _: "no relocation says where the function is")
    _check_order(judge, np.flatnonzero(~wraps & ~missing))


def _no_rows(info: np.uint8, *, is_v3: bool) -> str:
    """Say what a descriptor without rows means."""
    if not is_v3:
        return "no rows, which says nothing before version 3"
    return "no rows: a signal frame with rules of its own" if info & INFO_SIGNAL else "no rows: an outermost frame"


def _check_order(judge: Judge, live: Row) -> None:
    """Judge the order of descriptors, equal starts and overlaps."""
    table = judge.table
    fdes = table.fdes
    start, end = fdes.start[live], fdes.start[live] + fdes.size[live].astype(np.uint64)
    if live.size < 2:
        return
    if table.header.flags & HeaderFlag.SORTED and not table.is_relocatable:
        back = live[1:][start[1:] < start[:-1]]
        judge.some_fdes(
            "sframe-unsorted", back, lambda i: f"start {int(fdes.start[i]):#x} is below its predecessor's"
        )
    order = np.lexsort((end, start, fdes.section[live]))
    start, end, section, who = start[order], end[order], fdes.section[live][order], live[order]
    together = section[1:] == section[:-1]
    equal = together & (start[1:] == start[:-1])
    judge.some_fdes("sframe-equal-starts", who[1:][equal], lambda i: f"another one starts at {int(fdes.start[i]):#x}")
    # Highest end so far within the section: heads of sections start anew.
    reach = end.copy()
    heads = np.append(np.flatnonzero(np.append(np.True_, ~together)), who.size)
    for low, high in zip(heads[:-1].tolist(), heads[1:].tolist(), strict=True):
        np.maximum.accumulate(reach[low:high], out=reach[low:high])
    over = together & (start[1:] < reach[:-1]) & (end[1:] > start[1:])
    judge.some_fdes("sframe-overlap", who[1:][over], lambda i: f"{int(fdes.start[i]):#x} lies in an earlier function")


def _check_blocks(judge: Judge) -> None:
    """Judge how row blocks tile the row sub-section."""
    table = judge.table
    fdes, fres = table.fdes, table.fres
    attr = ATTR_SIZE if table.header.version == Version.V3 else 0
    width = np.int64(1) << (fdes.info & INFO_FRE_TYPE & 3).astype(np.int64)
    lengths = rowscan.row_lengths(width.take(fres.func), fres.info)
    sums = np.append(np.int64(0), np.cumsum(lengths))
    size = sums[fdes.first_row + fdes.row_count] - sums[fdes.first_row] + attr
    used = np.flatnonzero(size > 0)
    low = fdes.fre_off.astype(np.int64)[used]
    order = np.argsort(low, kind="stable")
    low, high, who = low[order], (low + size[used])[order], used[order]
    if not who.size:
        if table.header.fre_len:
            _unclaimed(judge, 0, table.header.fre_len)
        return
    reach = np.maximum.accumulate(high)
    shared = who[1:][low[1:] < reach[:-1]]
    judge.some_fdes(
        "sframe-row-blocks-overlap", shared, lambda i: f"rows at {int(fdes.fre_off[i]):#x} belong to two functions"
    )
    gap_low = np.append(np.int64(0), reach)
    gap_high = np.append(low, np.int64(table.header.fre_len))
    for gap in np.flatnonzero(gap_high > gap_low)[: judge.faults.limit].tolist():
        _unclaimed(judge, int(gap_low[gap]), int(gap_high[gap]))


def _unclaimed(judge: Judge, low: int, high: int) -> None:
    """Report bytes of the row sub-section that no descriptor points at."""
    message = f"{high - low} bytes at offset {low:#x} of the row sub-section belong to no function"
    judge.faults.one("sframe-unclaimed-bytes", message, offset=judge.table.fre_off + low)


@dataclass(frozen=True, slots=True)
class _Fields:
    """Fields that relocations may point at: offset in the section and whether 64 bits wide."""

    offset: Row
    kind: NDArray[np.uint32]


def _check_relocations(faults: Collector, tables: tuple[SFrameTable, ...], relocations: Relocations) -> None:
    """Judge the relocations of a relocatable object."""
    fields = _fields(tables)
    real = np.flatnonzero(~np.isin(relocations.type, (0, 256)))
    offset = relocations.offset[real].astype(np.int64)
    at = np.searchsorted(fields.offset, offset)
    safe = np.minimum(at, max(0, fields.offset.size - 1))
    hit: Mask = fields.offset[safe] == offset if fields.offset.size else np.zeros(real.size, dtype=np.bool_)

    def report(code: str, chosen: Mask, say: Callable[[int], str]) -> None:
        which = np.flatnonzero(chosen)
        faults.many(code, which.size, Place(offset=offset[which]), lambda i: say(int(which[i])))

    report(
        "sframe-relocation-stray", ~hit, lambda i: f"a relocation of offset {int(offset[i]):#x}, where no start is"
    )
    kind = relocations.type[real]
    if fields.offset.size:
        wrong = hit & (kind != fields.kind[safe])
        report("sframe-relocation-type", wrong, lambda i: f"relocation type {int(kind[i])}")
    back = np.append(np.False_, offset[1:] <= offset[:-1]) if offset.size else np.zeros(0, dtype=np.bool_)
    report("sframe-relocation-order", back, lambda _: "a relocation is at or before its predecessor")


def _fields(tables: tuple[SFrameTable, ...]) -> _Fields:
    """Give the start fields of every table, in ascending order."""
    offsets = [np.zeros(0, dtype=np.int64)]
    kinds = [np.zeros(0, dtype=np.uint32)]
    for table in tables:
        count = len(table.fdes)
        offsets.append(table.fde_off + np.arange(count, dtype=np.int64) * table.header.fde_size)
        kind = ABI_INFO[table.abi].reloc_types[table.header.version == Version.V3]
        kinds.append(np.full(count, kind, dtype=np.uint32))
    joined = np.concatenate(offsets)
    order = np.argsort(joined, kind="stable")
    return _Fields(joined[order], np.concatenate(kinds)[order])
