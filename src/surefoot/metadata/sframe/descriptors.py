"""Layer 2: function descriptors of all versions to columns; part of the reader in `scan`.

Invariant: as in `scan`. Start addresses are resolved modulo 2**64, the one place where SFrame wraps on purpose:
kernel text lies above its own `.sframe`, and section-relative dumps have negative addresses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Addr, Bytes, Code, Off, Row, Row32
from surefoot.errors import Inconsistent, InputError, Truncated
from surefoot.metadata.sframe.constants import ATTR_SIZE, FDE_DTYPES, INFO_FRE_TYPE, Version
from surefoot.metadata.sframe.faults import Faults, Place
from surefoot.metadata.sframe.model import Header, Relocations

__all__ = ["Part", "RawFdes", "Source", "scan_descriptors"]

_MAX_FRE_TYPE: Final = 2
_RELOC_NONE: Final = (0, 256)


@dataclass(frozen=True, slots=True)
class Source:
    """What is read, and where faults go.

    Attributes:
        data: (n,) uint8, the section.
        address: address of the section's first byte.
        relocations: those of the section, or None for linked images.
        faults: receiver.
    """

    data: Bytes
    address: int
    relocations: Relocations | None
    faults: Faults


@dataclass(frozen=True, slots=True)
class Part:
    """One table while it is read.

    Attributes:
        source: the section.
        header: the table's header.
        at: byte offset of the header.
        fdes_at: byte offset of the descriptors.
        count: descriptors that lie inside the section.
        fres_at: byte offset of the row sub-section, as the header says it.
        low: `fres_at`, not beyond the section.
        high: end of the row sub-section, not beyond the section.
        first_fde: descriptors of the tables before this one.
    """

    source: Source
    header: Header
    at: int
    fdes_at: int
    count: int
    fres_at: int
    low: int
    high: int
    first_fde: int

    @property
    def region(self) -> Bytes:
        """(n,) uint8, the row sub-section."""
        return self.source.data[self.low : self.high]

    def view(self, kind: str) -> NDArray[np.integer]:
        """Give the row sub-section as overlapping integers: item i is what stands at byte i."""
        dtype = np.dtype(kind).newbyteorder(">" if self.header.big_endian else "<")
        count = max(0, self.high - self.low - dtype.itemsize + 1)
        return np.ndarray((count,), dtype=dtype, buffer=self.source.data, offset=self.low, strides=(1,))

    def report(
        self, code: str, fdes: Row, offsets: Row, say: Callable[[int], str], error: type[InputError] = Inconsistent
    ) -> None:
        """Hand a batch of faults on; `fdes` are descriptor numbers in this table, `offsets` those of all."""
        place = Place(offset=offsets[fdes], fde=fdes + self.first_fde)
        self.source.faults.many(code, fdes.size, place, say, error)


@dataclass(frozen=True, slots=True)
class RawFdes:
    """Descriptors before their rows are read; columns as in `FdeColumns`.

    Attributes:
        offset: (f,) int64, byte offset of the record in the section.
        rows_at: (f,) int64, first row, from the start of the row sub-section.
        usable: (f,) bool, the rows can be looked for.
    """

    offset: Row
    start_raw: Off
    start: Addr
    section: Row32
    size: NDArray[np.uint32]
    fre_off: NDArray[np.uint32]
    num_fres: NDArray[np.uint32]
    info: Code
    info2: Code
    rep_size: Code
    padding: NDArray[np.uint16]
    rows_at: Row
    usable: NDArray[np.bool_]


def scan_descriptors(part: Part) -> RawFdes:
    """Read the descriptors of a table, and version 3's attribute records.

    Faults:
        sframe-attribute-outside, sframe-fre-type.
    """
    version = part.header.version
    dtype = FDE_DTYPES[Version(version)]
    if part.header.big_endian:
        dtype = dtype.newbyteorder(">")
    end = part.fdes_at + part.count * dtype.itemsize if part.count else part.fdes_at
    records = np.frombuffer(part.source.data[part.fdes_at : end].tobytes(), dtype=dtype)
    offset = part.fdes_at + np.arange(part.count, dtype=np.int64) * dtype.itemsize
    fre_off = records["fre_off"].astype(np.uint32)
    none = np.zeros(part.count, dtype=np.uint8)
    usable = np.ones(part.count, dtype=np.bool_)
    rows_at = fre_off.astype(np.int64)
    if version == Version.V3:
        usable = rows_at + ATTR_SIZE <= part.high - part.low
        num_fres, info, info2, rep_size = _attributes(part, rows_at, usable, offset)
        rows_at = rows_at + ATTR_SIZE
    else:
        num_fres, info, info2 = records["num_fres"].astype(np.uint32), records["info"].copy(), none
        rep_size = records["rep_size"].copy() if version == Version.V2 else none
    start_raw = records["start"].astype(np.int64)
    start, section = _resolve(part, start_raw, offset)
    usable &= _row_types_known(part, info, usable, offset)
    return RawFdes(
        offset=offset,
        start_raw=start_raw,
        start=start,
        section=section,
        size=records["size"].astype(np.uint32),
        fre_off=fre_off,
        num_fres=num_fres,
        info=info,
        info2=info2,
        rep_size=rep_size,
        padding=(records["padding"] if version == Version.V2 else none).astype(np.uint16),
        rows_at=rows_at,
        usable=usable,
    )


def _attributes(
    part: Part, at: Row, usable: NDArray[np.bool_], offset: Row
) -> tuple[NDArray[np.uint32], Code, Code, Code]:
    """Give version 3's num_fres, func_info, func_info2 and rep_size; zeros where the record lies outside."""
    bad = np.flatnonzero(~usable)
    part.report(
        "sframe-attribute-outside",
        bad,
        offset,
        lambda i: f"the attribute record at offset {int(at[bad[i]]):#x} lies outside the row sub-section",
        Truncated,
    )
    columns = np.zeros((ATTR_SIZE, at.size), dtype=np.uint8)
    good = np.flatnonzero(usable)
    for index in range(ATTR_SIZE):
        columns[index, good] = part.region.take(at[good] + index) if good.size else 0
    low, high = (columns[1], columns[0]) if part.header.big_endian else (columns[0], columns[1])
    num_fres = low.astype(np.uint32) | (high.astype(np.uint32) << np.uint32(8))
    return num_fres, columns[2], columns[3], columns[4]


def _row_types_known(part: Part, info: Code, usable: NDArray[np.bool_], offset: Row) -> NDArray[np.bool_]:
    """(f,) bool: the width of a row's start is one that exists."""
    kind = info & INFO_FRE_TYPE
    known = kind <= _MAX_FRE_TYPE
    bad = np.flatnonzero(usable & ~known)
    part.report("sframe-fre-type", bad, offset, lambda i: f"row type {int(kind[bad[i]])} does not exist")
    return known


def _resolve(part: Part, start_raw: Off, offset: Row) -> tuple[Addr, Row32]:
    """Give each function's start address, and its section in relocatable objects.

    The flag is ignored where there are relocations: gas before 2.45 wrote field-relative values without it,
    and what counts is the relocation's target. A descriptor without one belongs to a discarded function (ld leaves
    R_*_NONE behind); its section is -1.
    """
    base = np.uint64(part.source.address % 2**64)
    if part.header.is_pcrel:
        start = base + offset.astype(np.uint64) + start_raw.astype(np.uint64)
    else:
        start = base + np.uint64(part.at) + start_raw.astype(np.uint64)
    section = np.full(start.size, -1, dtype=np.int32)
    relocations = part.source.relocations
    if relocations is None or not start.size:
        return start, section
    real = np.flatnonzero(~np.isin(relocations.type, _RELOC_NONE))
    fields = relocations.offset[real].astype(np.int64)
    order = np.argsort(fields, kind="stable")
    sorted_fields = fields[order]
    found = np.searchsorted(sorted_fields, offset)
    safe = np.minimum(found, max(0, sorted_fields.size - 1))
    hit = (sorted_fields[safe] == offset) if sorted_fields.size else np.zeros(offset.size, dtype=np.bool_)
    chosen = real[order[safe[hit]]]
    target = relocations.symbol_value[chosen].astype(np.uint64) + relocations.addend[chosen].astype(np.uint64)
    start[hit] = target
    section[hit] = relocations.symbol_section[chosen]
    return start, section
