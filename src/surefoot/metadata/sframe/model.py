"""Layer 2: an SFrame section in memory, lossless.

Invariant: whatever the bytes of a well-formed section say is in these columns, so that `encode` gives the same
bytes again; nothing is interpreted yet. `rules.to_rules` interprets.

An ELF section holds one *table* (header, descriptors, rows); linkers that only concatenate, and the kernel's
`.init.sframe`, leave several back to back. `SFrameSection` is the section, `SFrameTable` one header's worth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Addr, Code, Mask, Off, Row, Row32
from surefoot.metadata.rules import Abi
from surefoot.metadata.sframe.constants import FDE_DTYPES, HEADER_SIZE, INFO2_FDE_TYPE, FdeType, HeaderFlag, Version

if TYPE_CHECKING:
    from surefoot.metadata.rules import RuleTable

__all__ = ["FdeColumns", "FreColumns", "Header", "RelocationTable", "Relocations", "SFrameSection", "SFrameTable"]


class Relocations(Protocol):
    """The relocations of a `.sframe` section, as columns; any object with these attributes will do."""

    @property
    def offset(self) -> Addr:
        """(n,) uint64, byte offset in the section of the field that the linker would fill in."""

    @property
    def type(self) -> NDArray[np.uint32]:
        """(n,) uint32, ELF relocation type."""

    @property
    def symbol_value(self) -> Addr:
        """(n,) uint64, st_value of the symbol: an offset inside its section."""

    @property
    def symbol_section(self) -> Row32:
        """(n,) int32, section header index of the symbol, -1 where it has none."""

    @property
    def addend(self) -> Off:
        """(n,) int64."""


@dataclass(frozen=True, slots=True)
class RelocationTable:
    """Relocations that Surefoot makes itself; the attributes are those of `Relocations`."""

    offset: Addr
    type: NDArray[np.uint32]
    symbol_value: Addr
    symbol_section: Row32
    addend: Off


@dataclass(frozen=True, slots=True)
class Header:
    """The 28 bytes at the start of a table, and the auxiliary header behind them.

    Attributes:
        version: 1, 2 or 3.
        flags: `HeaderFlag` bits.
        abi: register file and byte order.
        fixed_fp: offset of the saved FP from the CFA if it is the same everywhere, else 0.
        fixed_ra: the same for the return address.
        num_fdes: number of descriptors, as stored.
        num_fres: number of rows, as stored.
        fre_len: bytes of the row sub-section.
        fdeoff: bytes from the end of the (auxiliary) header to the descriptors.
        freoff: bytes from there to the rows.
        aux: the auxiliary header; empty in every file known today.
        big_endian: byte order of the magic number.
    """

    version: int
    flags: int
    abi: Abi
    fixed_fp: int
    fixed_ra: int
    num_fdes: int
    num_fres: int
    fre_len: int
    fdeoff: int
    freoff: int
    aux: bytes
    big_endian: bool

    @property
    def size(self) -> int:
        """Bytes of the header with its auxiliary part."""
        return HEADER_SIZE + len(self.aux)

    @property
    def is_pcrel(self) -> bool:
        """Whether descriptor starts are relative to their own fields."""
        return bool(self.flags & HeaderFlag.PCREL)

    @property
    def fde_size(self) -> int:
        """Bytes of one descriptor record."""
        return FDE_DTYPES[Version(self.version)].itemsize


@dataclass(frozen=True, slots=True)
class FdeColumns:
    """Function descriptors in stored order; version 3's attribute records are joined to them.

    Attributes:
        start_raw: (f,) int64, the start field as stored.
        start: (f,) uint64, resolved address, modulo 2**64 (offset in `section` for relocatable objects).
        section: (f,) int32, section header index in relocatable objects, -1 in linked images or where no
            relocation was found.
        size: (f,) uint32, bytes of code.
        fre_off: (f,) uint32, from the start of the row sub-section to the first row (version 3: to the
            attribute record).
        num_fres: (f,) uint32, number of rows, as stored.
        info: (f,) uint8, func_info.
        info2: (f,) uint8, func_info2 (0 before version 3).
        rep_size: (f,) uint8 (0 in version 1).
        padding: (f,) uint16, version 2's padding; 0 elsewhere.
        first_row: (f,) int64, index of the first decoded row.
        row_count: (f,) int64, rows decoded; equal to num_fres in every section that decodes.
    """

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
    first_row: Row
    row_count: Row

    def __len__(self) -> int:
        return int(self.start.size)

    @property
    def is_flex(self) -> Mask:
        """(f,) bool: flexible descriptor (version 3)."""
        is_flex: Mask = (self.info2 & INFO2_FDE_TYPE) == FdeType.FLEX
        return is_flex


@dataclass(frozen=True, slots=True)
class FreColumns:
    """Rows, adjacent per descriptor, in the order of the descriptors.

    Attributes:
        func: (r,) int32, index of the descriptor.
        start: (r,) uint32, offset from the function's start, as stored.
        info: (r,) uint8.
        first_word: (r,) int64, index into `words`; row i has (info[i] >> 1) & 15 of them.
        words: (w,) int32, the data words of all rows, sign extended from their stored size.
        offset: (r,) int64, byte offset of the row in the section.
    """

    func: Row32
    start: NDArray[np.uint32]
    info: Code
    first_word: Row
    words: NDArray[np.int32]
    offset: Row

    def __len__(self) -> int:
        return int(self.start.size)

    @property
    def word_count(self) -> Row:
        """(r,) int64, number of data words of each row."""
        return ((self.info >> 1) & 15).astype(np.int64)

    @property
    def word_size(self) -> Row:
        """(r,) int64, bytes of each data word of the row."""
        return np.int64(1) << ((self.info >> 5) & 3).astype(np.int64)

    def word(self, index: int) -> Off:
        """(r,) int64: data word `index` of each row, 0 where the row has none."""
        if not self.words.size:
            return np.zeros(len(self), dtype=np.int64)
        at = np.minimum(self.first_word + index, self.words.size - 1)
        return np.where(self.word_count > index, self.words.take(at), 0).astype(np.int64)


@dataclass(frozen=True, slots=True)
class SFrameTable:
    """One header with its descriptors and rows.

    Attributes:
        offset: byte offset of the header in the section.
        header: the header.
        fdes: descriptors.
        fres: rows.
        is_relocatable: starts were taken from relocations; `fdes.section` says which section they are in.
    """

    offset: int
    header: Header
    fdes: FdeColumns
    fres: FreColumns
    is_relocatable: bool = False

    @property
    def abi(self) -> Abi:
        """Register file and byte order."""
        return self.header.abi

    @property
    def fde_off(self) -> int:
        """Byte offset of the descriptors in the section."""
        return self.offset + self.header.size + self.header.fdeoff

    @property
    def fre_off(self) -> int:
        """Byte offset of the row sub-section in the section."""
        return self.offset + self.header.size + self.header.freoff

    @property
    def end(self) -> int:
        """Byte offset in the section behind the last row or descriptor."""
        fde_end = self.fde_off + self.header.num_fdes * self.header.fde_size
        return max(self.fre_off + self.header.fre_len, fde_end, self.offset + self.header.size)

    def to_rules(self) -> RuleTable:
        """Give the rules of this table; see `surefoot.metadata.sframe.to_rules`."""
        from surefoot.metadata.sframe.rules import to_rules

        return to_rules(self)


@dataclass(frozen=True, slots=True)
class SFrameSection:
    """An ELF section of SFrame data.

    Attributes:
        tables: one or more tables, in the order of the bytes.
        size: bytes of the whole section, padding included.
        address: address that PC-relative starts were resolved against.
    """

    tables: tuple[SFrameTable, ...]
    size: int
    address: int = 0

    @property
    def abi(self) -> Abi:
        """Register file and byte order."""
        return self.tables[0].abi

    @property
    def version(self) -> int:
        """Version of the first table."""
        return self.tables[0].header.version

    @property
    def num_fdes(self) -> int:
        """Descriptors of all tables."""
        return sum(len(table.fdes) for table in self.tables)

    @property
    def num_fres(self) -> int:
        """Rows of all tables."""
        return sum(len(table.fres) for table in self.tables)

    def to_rules(self) -> RuleTable:
        """Give the rules of every table as one; see `surefoot.metadata.sframe.to_rules`.

        Raises:
            Inconsistent: the tables speak of different register files.
        """
        from surefoot.metadata.rules import concatenate

        parts = [table.to_rules() for table in self.tables]
        # All tables point into the same list of reasons, which must not grow with their number.
        joined = concatenate([replace(part, reasons=()) for part in parts])
        return replace(joined, reasons=parts[0].reasons)

    def with_tables(self, *tables: SFrameTable) -> SFrameSection:
        """Give the section with other tables."""
        return replace(self, tables=tables)
