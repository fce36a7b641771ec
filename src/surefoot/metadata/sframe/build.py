"""Layer 2: unwind rules to an SFrame section in canonical form.

Canonical form, where the format leaves a choice:

* descriptors of linked images are sorted by start address and the SORTED flag is set; those of relocatable objects
  keep the order of the source, without the flag. Starts are relative to their own fields (PCREL) in versions 2
  and 3, to the section in version 1;
* row blocks stand in the order of the descriptors, without gaps;
* the width of row starts follows from the function's size (below 256 bytes one byte, below 64 KiB two, else four),
  the width of data words is the smallest that holds every word of the row;
* a row that repeats its predecessor, or covers no address, is not written;
* a descriptor is flexible only if one of its rows needs it; trailing padding words are not written.

Invariant: the rows of the result say exactly what the source says; a function that cannot be written so is left
out, by name.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Code, Row
from surefoot.errors import Inconsistent
from surefoot.metadata.rules import FunctionFlag, FunctionIndex, RuleTable
from surefoot.metadata.sframe import fitting, rowscan
from surefoot.metadata.sframe.constants import (
    ABI_INFO,
    ATTR_SIZE,
    BIG_ENDIAN_ABIS,
    HEADER_SIZE,
    INFO_KEY_B,
    INFO_PC_MASK,
    INFO_SIGNAL,
    MAX_ROWS_V3,
    HeaderFlag,
    Version,
)
from surefoot.metadata.sframe.model import (
    FdeColumns,
    FreColumns,
    Header,
    RelocationTable,
    SFrameSection,
    SFrameTable,
)
from surefoot.metadata.sframe.screen import screen

__all__ = ["Built", "LeftOut", "from_rules"]

_FDE_SIZE: Final = {Version.V1: 17, Version.V2: 20, Version.V3: 16}


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A function that was not written.

    Attributes:
        func: its index in the source table.
        start: its address, or offset in `section`.
        size: bytes.
        section: section header index in relocatable objects, else -1.
        reason: one of `fitting.LEFT_OUT`, or the reason with which the source refused it.
    """

    func: int
    start: int
    size: int
    section: int
    reason: str


@dataclass(frozen=True, slots=True)
class Built:
    """What `from_rules` made.

    Attributes:
        section: the section, ready for `encode`.
        relocations: one per descriptor for relocatable objects (against section symbols), None for linked images.
        left_out: functions of the source that are not in the section.
        source_func: (f,) int64, for each descriptor the function of the source it came from.
    """

    section: SFrameSection
    relocations: RelocationTable | None
    left_out: tuple[LeftOut, ...]
    source_func: Row


def from_rules(
    table: RuleTable, *, version: int = 3, section_addr: int = 0, relocatable: bool | None = None
) -> Built:
    """Write rules as an SFrame section.

    Args:
        table: rules of one image; NOT_STATED counts as the ABI's default.
        version: 1, 2 or 3; flexible descriptors exist in 3 only.
        section_addr: address where the section will be loaded (linked images).
        relocatable: whether starts are offsets in `FunctionIndex.section`; None looks whether any section is
            given.

    Returns:
        the section in canonical form, its relocations, and the functions left out with their reasons.

    Raises:
        Inconsistent: an unknown version, or a section that exceeds the format's 4 GiB.
    """
    if version not in _FDE_SIZE:
        raise Inconsistent(f"SFrame version {version} cannot be written")
    is_rel = bool((table.functions.section >= 0).any()) if relocatable is None else relocatable
    screened = screen(table, version, section_addr, is_rel=is_rel)
    rules, source = screened.rules, screened.source
    if version == Version.V3:
        rules, source = _split_long(rules, source)
    section, relocations = _assemble(rules, Version(version), section_addr=section_addr, is_rel=is_rel)
    return Built(section, relocations, _left_out(table, screened.why), source)


def _left_out(table: RuleTable, why: NDArray[np.int8]) -> tuple[LeftOut, ...]:
    """Name the functions that were left out."""
    index = table.functions
    out = []
    for func in np.flatnonzero(why >= 0).tolist():
        reason = fitting.LEFT_OUT[why[func]]
        if why[func] == fitting.REFUSED and index.reason[func] >= 0:
            reason = table.reasons[index.reason[func]]
        place = (int(index.start[func]), int(index.size[func]), int(index.section[func]))
        out.append(LeftOut(func, *place, reason))
    return tuple(out)


def _split_long(rules: RuleTable, source: Row) -> tuple[RuleTable, Row]:
    """Cut functions with more rows than a version 3 descriptor can count into several descriptors."""
    index = rules.functions
    pieces = np.maximum(1, -(-index.row_count // MAX_ROWS_V3))
    if not (pieces > 1).any():
        return rules, source
    func = np.repeat(np.arange(len(index), dtype=np.int64), pieces)
    nth = np.arange(func.size, dtype=np.int64) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    first = index.first_row[func] + nth * MAX_ROWS_V3
    count = np.minimum(index.row_count[func] - nth * MAX_ROWS_V3, MAX_ROWS_V3)
    start = index.start[func]
    later = np.flatnonzero(nth > 0)
    start[later] = rules.start[first[later]]
    end = index.end[func]
    end[later - 1] = start[later]
    columns = {item.name: getattr(index, item.name)[func] for item in fields(index)}
    columns |= {"start": start, "size": end - start, "first_row": first, "row_count": count}
    owner = np.repeat(np.arange(func.size, dtype=np.int32), count)
    return replace(rules, functions=FunctionIndex(**columns), func=owner), source[func]


def _assemble(
    rules: RuleTable, version: Version, *, section_addr: int, is_rel: bool
) -> tuple[SFrameSection, RelocationTable | None]:
    """Lay the section out; every row is known to be writable."""
    index = rules.functions
    fit = fitting.fit_rows(rules, version)
    is_flex = np.zeros(len(index), dtype=np.bool_)
    is_flex[rules.func[fit.needs_flex]] = True
    info, words, first_word = fitting.pack_rows(rules, fit, is_flex[rules.func])
    kind = (index.size >= 0x100).astype(np.uint8) + (index.size >= 0x10000).astype(np.uint8)
    width = np.int64(1) << kind.astype(np.int64)
    lengths = rowscan.row_lengths(width[rules.func], info)
    attr = ATTR_SIZE if version == Version.V3 else 0
    block = np.full(len(index), attr, dtype=np.int64)
    before = np.append(np.int64(0), np.cumsum(lengths))
    block += before[index.first_row + index.row_count] - before[index.first_row]
    fre_off = np.cumsum(block) - block
    fre_len, freoff = int(block.sum()), _FDE_SIZE[version] * len(index)
    if HEADER_SIZE + freoff + fre_len >= 2**32:
        raise Inconsistent("the section would be larger than the 4 GiB that the format can count")
    fields_at = HEADER_SIZE + np.arange(len(index), dtype=np.uint64) * np.uint64(_FDE_SIZE[version])
    base = np.uint64(section_addr % 2**64) + (fields_at if version != Version.V1 else np.uint64(0))
    raw = np.zeros(len(index), dtype=np.int64) if is_rel else (index.start - base).astype(np.int64)
    fdes = FdeColumns(
        start_raw=raw,
        start=index.start,
        section=index.section,
        size=index.size.astype(np.uint32),
        fre_off=fre_off.astype(np.uint32),
        num_fres=index.row_count.astype(np.uint32),
        info=_func_info(index, kind, version),
        info2=is_flex.astype(np.uint8),
        rep_size=index.rep_size if version != Version.V1 else np.zeros_like(index.rep_size),
        padding=np.zeros(len(index), dtype=np.uint16),
        first_row=index.first_row,
        row_count=index.row_count,
    )
    inner = np.cumsum(lengths) - lengths + attr * (rules.func.astype(np.int64) + 1)
    fres = FreColumns(
        func=rules.func,
        start=(rules.start - index.start[rules.func]).astype(np.uint32),
        info=info,
        first_word=first_word,
        words=words,
        offset=inner + HEADER_SIZE + freoff,
    )
    header = _header(rules, version, is_rel=is_rel, fre_len=fre_len, freoff=freoff)
    made = SFrameTable(0, header, fdes, fres, is_relocatable=is_rel)
    section = SFrameSection((made,), HEADER_SIZE + freoff + fre_len, section_addr)
    return section, _relocations(made, fields_at) if is_rel else None


def _func_info(index: FunctionIndex, kind: Code, version: Version) -> Code:
    """(f,) uint8: func_info of each descriptor."""
    info = kind.copy()
    info |= np.where(index.flags & FunctionFlag.REPEATED, np.uint8(INFO_PC_MASK), np.uint8(0))
    info |= np.where(index.flags & FunctionFlag.KEY_B, np.uint8(INFO_KEY_B), np.uint8(0))
    if version == Version.V3:
        info |= np.where(index.flags & FunctionFlag.SIGNAL, np.uint8(INFO_SIGNAL), np.uint8(0))
    return info


def _header(rules: RuleTable, version: Version, *, is_rel: bool, fre_len: int, freoff: int) -> Header:
    """Give the header of a table in canonical form."""
    flags = 0 if is_rel else int(HeaderFlag.SORTED)
    if version != Version.V1:
        flags |= HeaderFlag.PCREL
    return Header(
        version=int(version),
        flags=flags,
        abi=rules.abi,
        fixed_fp=0,
        fixed_ra=ABI_INFO[rules.abi].fixed_ra,
        num_fdes=len(rules.functions),
        num_fres=len(rules),
        fre_len=fre_len,
        fdeoff=0,
        freoff=freoff,
        aux=b"",
        big_endian=rules.abi in BIG_ENDIAN_ABIS,
    )


def _relocations(table: SFrameTable, fields_at: NDArray[np.uint64]) -> RelocationTable:
    """Give one relocation per descriptor, against the symbol of the function's section."""
    kinds = ABI_INFO[table.abi].reloc_types
    kind = kinds[table.header.version == Version.V3]
    count = len(table.fdes)
    return RelocationTable(
        offset=fields_at,
        type=np.full(count, kind, dtype=np.uint32),
        symbol_value=np.zeros(count, dtype=np.uint64),
        symbol_section=table.fdes.section,
        addend=table.fdes.start.astype(np.int64),
    )
