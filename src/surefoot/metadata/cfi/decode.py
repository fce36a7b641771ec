"""Layer 2: .debug_frame and .eh_frame to rule tables.

Steps, each over all records, functions, instructions or rows at once: copy and relocate the bytes, find the records,
read the headers, cut the programs into instructions, work out the rules, lay out the columns.

Invariant: one row per location advance, as the interpreted output of readelf has them (an FDE without instructions
has one row, its CIE's). A function that cannot be decoded to its end is REFUSED with a reason and keeps the rows
that were finished (the last of them ends before the next location, which the table cannot say: whoever looks up rows
has to ask for the flag); a section whose records do not fit each other is an error.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from surefoot.dtypes import Addr, Bytes, Off, Row, Row32
from surefoot.metadata.cfi.entries import Cie, Fdes, Options, read_cies, read_fdes
from surefoot.metadata.cfi.layout import build_table
from surefoot.metadata.cfi.opcodes import KIND, Flag, Kind
from surefoot.metadata.cfi.pointers import Bases
from surefoot.metadata.cfi.program import Programs, Shapes, instruction_shapes, size_set_locs, split
from surefoot.metadata.cfi.reasons import Refusals
from surefoot.metadata.cfi.records import find_records
from surefoot.metadata.cfi.relocate import Relocations, apply
from surefoot.metadata.cfi.section import Section, open_section
from surefoot.metadata.cfi.state import Details, Initial, Rows, execute
from surefoot.metadata.rules import RuleTable

__all__ = ["decode_debug_frame", "decode_eh_frame"]

_RESERVED_SECTIONS: Final = 0xFF00
"""First of ELF's reserved section indices (SHN_LORESERVE)."""


def decode_debug_frame(
    data: bytes | bytearray | memoryview | Bytes,
    *,
    section_addr: int = 0,
    relocations: Relocations | None = None,
    big_endian: bool = False,
    address_size: int = 8,
    bases: Bases | None = None,
) -> RuleTable:
    """Decode an AArch64 .debug_frame section.

    Args:
        data: the bytes; copied.
        section_addr: address of the section (matters for pc-relative addresses only).
        relocations: for relocatable objects: what to patch in. Addresses are then offsets in the function's section,
            whose header index is in `RuleTable.functions.section`.
        big_endian: byte order.
        address_size: bytes of an address where the CIE does not say (before DWARF 4): 8 or 4.
        bases: bases of text- and data-relative addresses, where they are used.

    Returns:
        one function per FDE in the order of the section, one row per location, unmerged.

    Raises:
        Truncated: a record or header does not fit where it has to.
        Inconsistent: an FDE names no CIE, or relocations contradict each other.
        Unsupported: reserved record lengths, unknown relocation types, 2 GiB or more.

    Source:
        DWARF 5, section 6.4; DWARF for the Arm 64-bit Architecture (AADWARF64).
    """
    section = open_section(data, ".debug_frame", section_addr, big_endian=big_endian)
    options = Options(False, address_size, bases or Bases(), relocations is not None)
    return _decode(section, options, relocations)


def decode_eh_frame(
    data: bytes | bytearray | memoryview | Bytes,
    *,
    section_addr: int = 0,
    relocations: Relocations | None = None,
    big_endian: bool = False,
    address_size: int = 8,
    bases: Bases | None = None,
) -> RuleTable:
    """Decode an AArch64 .eh_frame section; everything as in `decode_debug_frame`.

    Source:
        Linux Standard Base Core 5.0, sections 10.5 and 10.6.
    """
    section = open_section(data, ".eh_frame", section_addr, big_endian=big_endian)
    options = Options(True, address_size, bases or Bases(), relocations is not None)
    return _decode(section, options, relocations)


def _decode(section: Section, options: Options, relocations: Relocations | None) -> RuleTable:
    """Decode a section of either kind."""
    if options.address_size not in {4, 8}:
        raise ValueError(f"address size {options.address_size}")
    if relocations is not None:
        apply(section, relocations)
    records = find_records(section, eh=options.eh)
    cies, which = read_cies(section, records.take(np.flatnonzero(records.is_cie)), options)
    details = Details()
    shapes = instruction_shapes(section)
    initial = _run_cies(section, shapes, cies, details, options)
    refused = Refusals()
    fdes = read_fdes(section, records, cies, which, refused, options)
    sections = _sections(fdes, relocations, refused)
    rows = _run_fdes(section, shapes, fdes, cies, initial, details, refused, options)
    return build_table(section, fdes, sections, rows, details, refused, eh=options.eh)


def _programs(cies: list[Cie], first: Off, end: Off, cie: Row, start: Addr, size: Addr) -> Programs:
    """Give programs with the factors of their CIEs; a CIE that is refused has none that matter."""
    sound = [not (item.reason or item.blind) for item in cies]
    shapes = list(zip(cies, sound, strict=True))
    return Programs(
        first,
        end,
        cie,
        start,
        size,
        encoding=np.array([item.encoding if good else 0 for item, good in shapes], dtype=np.int64),
        address_size=np.array([item.address_size if good else 8 for item, good in shapes], dtype=np.int64),
        code_factor=np.array([item.code_factor if good else 1 for item, good in shapes], dtype=np.uint64),
        data_factor=np.array([item.data_factor if good else 1 for item, good in shapes], dtype=np.int64),
    )


def _run_cies(section: Section, shapes: Shapes, cies: list[Cie], details: Details, options: Options) -> Initial:
    """Run the programs of the CIEs; one that cannot be run gets a reason."""
    if not cies:
        return Initial.nothing(0)
    first = np.array([item.end if item.reason or item.blind else item.first for item in cies], dtype=np.int64)
    end = np.array([item.end for item in cies], dtype=np.int64)
    none = np.zeros(len(cies), dtype=np.uint64)
    programs = _programs(cies, first, end, np.arange(len(cies), dtype=np.int64), none, none)
    refused = Refusals()
    ops = split(section, shapes, programs, refused)
    head = np.uint16(Flag.HEAD)
    moves = ops.having(Flag.ROW)
    ops.refuse(refused, moves[(ops.flags[moves] & head) == 0], "a location advance")
    restores = np.flatnonzero((KIND[ops.code] == Kind.INITIAL) & ((ops.flags & head) == 0))
    ops.refuse(refused, restores, "DW_CFA_restore, where there is nothing to restore")
    rows = execute(section, ops, programs, Initial.nothing(len(cies)), details, refused, options.bases)
    found = refused.first(len(cies))
    if found is not None:
        for number in np.flatnonzero(found[1] >= 0).tolist():
            cies[number].reason = cies[number].reason or f"in the CIE: {refused.sentences[found[1][number]]}"
    # A CIE that moves on has more rows than its first; it is refused, so its state does not matter.
    last = rows.heads
    return Initial(
        rows.cfa_reg[last],
        rows.cfa_off[last],
        rows.fp_rule[last],
        rows.fp_off[last],
        rows.ra_rule[last],
        rows.ra_off[last],
        rows.signed[last],
    )


def _sections(fdes: Fdes, relocations: Relocations | None, refused: Refusals) -> Row32:
    """(f,) int32, section of each function's code in a relocatable object, -1 elsewhere."""
    if relocations is None:
        return np.full(len(fdes), -1, dtype=np.int32)
    found = relocations.sections_at(fdes.place)
    lost = np.flatnonzero((found <= 0) | (found >= _RESERVED_SECTIONS))
    refused.add(lost, np.full(lost.size, -1), "the function's address is not relocated against a section")
    found[lost] = -1
    return found


def _run_fdes(
    section: Section,
    shapes: Shapes,
    fdes: Fdes,
    cies: list[Cie],
    initial: Initial,
    details: Details,
    refused: Refusals,
    options: Options,
) -> Rows | None:
    """Run the programs of all FDEs that are not refused already."""
    if not len(fdes):
        return None
    found = refused.first(len(fdes))
    first = fdes.first if found is None else np.where(found[0] < 0, fdes.end, fdes.first)
    programs = _programs(cies, first, fdes.end, fdes.cie, fdes.start, fdes.size)
    size_set_locs(section, shapes, programs)
    ops = split(section, shapes, programs, refused)
    return execute(section, ops, programs, initial, details, refused, options.bases)
