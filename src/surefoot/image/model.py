"""Layer 3: what an ELF image consists of, as arrays.

Invariant: columns of one class have one length; numbers are as in the file, never repaired. Section data are
views of the mapped file and must not be written to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Addr, Insn, Mask, Off, Row, Row32
from surefoot.errors import Inconsistent

__all__ = [
    "ABSOLUTE",
    "OTHER",
    "UNDEFINED",
    "RelocType",
    "Relocations",
    "SectionFlag",
    "SectionType",
    "Sections",
    "Segments",
    "Text",
]

UNDEFINED: Final = -1
"""Symbol section: SHN_UNDEF."""
ABSOLUTE: Final = -2
"""Symbol section: SHN_ABS."""
OTHER: Final = -3
"""Symbol section: common or reserved (SHN_COMMON, SHN_LIVEPATCH, ...)."""


class SectionType(IntEnum):
    """Section types that matter here (ELF gABI, sh_type; include/uapi/linux/elf.h)."""

    NULL = 0
    PROGBITS = 1
    SYMTAB = 2
    STRTAB = 3
    RELA = 4
    NOTE = 7
    NOBITS = 8
    REL = 9
    SYMTAB_SHNDX = 18
    RELR = 19
    CREL = 0x4000_0014
    SFRAME = 0x6FFF_FFF4


class SectionFlag(IntFlag):
    """Section flags that matter here (ELF gABI, sh_flags)."""

    WRITE = 1
    ALLOC = 2
    EXECINSTR = 4
    COMPRESSED = 0x800


class RelocType(IntEnum):
    """Relocations that can occur in data of arm64 kernels and modules (ELF for the Arm 64-bit Architecture)."""

    NONE = 0
    NONE_OLD = 256
    ABS64 = 257
    ABS32 = 258
    PREL64 = 260
    PREL32 = 261
    JUMP26 = 282
    CALL26 = 283
    RELATIVE = 1027


@dataclass(frozen=True)
class Sections:
    """The section header table.

    Attributes:
        names: (n) names, in file order.
        kind: (n,) uint32, sh_type.
        flags: (n,) uint64, sh_flags.
        addr: (n,) uint64; in a relocatable object 0 until it is placed.
        offset: (n,) uint64, byte offset in the file.
        size: (n,) uint64, bytes.
        link: (n,) uint32, sh_link.
        info: (n,) uint32, sh_info.
        align: (n,) uint64, sh_addralign.
        entsize: (n,) uint64, bytes.
    """

    names: tuple[str, ...]
    kind: NDArray[np.uint32]
    flags: NDArray[np.uint64]
    addr: Addr
    offset: NDArray[np.uint64]
    size: NDArray[np.uint64]
    link: NDArray[np.uint32]
    info: NDArray[np.uint32]
    align: NDArray[np.uint64]
    entsize: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def _by_name(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for i, name in enumerate(self.names):
            found.setdefault(name, []).append(i)
        return found

    def find(self, name: str) -> list[int]:
        """Give the indices of all sections of that name, in file order."""
        return list(self._by_name.get(name, ()))

    @property
    def is_executable(self) -> Mask:
        """(n,) bool: allocated, executable, with bytes in the file."""
        wanted = np.uint64(SectionFlag.ALLOC | SectionFlag.EXECINSTR)
        found: Mask = ((self.flags & wanted) == wanted) & (self.kind != SectionType.NOBITS)
        return found

    def bases(self, addrs: Mapping[str, int]) -> Addr:
        """Turn run-time addresses by section name (as in /sys/module/*/sections) into the bases of `placed`.

        Args:
            addrs: section name -> address; names that the file lacks are ignored, and so are sections
                that the mapping lacks.

        Returns:
            (n,) uint64, 0 where a section is not loaded. Of several sections of one name only the first
            is given the address: the kernel's attributes cannot tell them apart.
        """
        bases = np.zeros(len(self), dtype=np.uint64)
        for name, addr in addrs.items():
            for index in self._by_name.get(name, ())[:1]:
                bases[index] = addr % 2**64
        return bases


@dataclass(frozen=True)
class Segments:
    """The program header table: (n,) columns kind (uint32), flags (uint32), offset, addr, file_size, size, align."""

    kind: NDArray[np.uint32]
    flags: NDArray[np.uint32]
    offset: NDArray[np.uint64]
    addr: Addr
    file_size: NDArray[np.uint64]
    size: NDArray[np.uint64]
    align: NDArray[np.uint64]

    def __len__(self) -> int:
        return int(self.kind.size)


@dataclass(frozen=True)
class Relocations:
    """Relocations with addend (RELA), symbols resolved.

    Attributes:
        offset: (r,) uint64, bytes into the section (relocatable objects) or virtual address (linked images).
        type: (r,) uint32, see `RelocType`; other numbers occur.
        symbol: (r,) uint32, index in the symbol table of the file.
        symbol_value: (r,) uint64, st_value; 0 without a symbol. Offset in its section in relocatable objects.
        symbol_section: (r,) int32, section header index of the symbol, or UNDEFINED, ABSOLUTE, OTHER.
        addend: (r,) int64.
    """

    offset: NDArray[np.uint64]
    type: NDArray[np.uint32]
    symbol: NDArray[np.uint32]
    symbol_value: NDArray[np.uint64]
    symbol_section: Row32
    addend: Off

    def __len__(self) -> int:
        return int(self.offset.size)

    def take(self, rows: Row) -> Relocations:
        """Give the chosen relocations in the given order; `rows` is (k,) int64."""
        return Relocations(
            self.offset[rows],
            self.type[rows],
            self.symbol[rows],
            self.symbol_value[rows],
            self.symbol_section[rows],
            self.addend[rows],
        )


@dataclass(frozen=True)
class Text:
    """Executable sections in address order, without overlap.

    Attributes:
        addr: (t,) uint64, address of the first word of each.
        words: (t) arrays of uint32, views of the file.
        section: (t,) int32, section header index.
    """

    addr: Addr
    words: tuple[Insn, ...]
    section: Row32

    @classmethod
    def from_ranges(cls, ranges: Sequence[tuple[int, Insn, int]]) -> Text:
        """Order (address, words, section index) triples by address; empty ones are left out.

        Raises:
            Inconsistent: two of them overlap, or one wraps around the end of the address space.
        """
        ordered = sorted((item for item in ranges if item[1].size), key=lambda item: item[0])
        reach = 0
        for addr, words, _ in ordered:
            if addr < reach or addr + 4 * words.size > 2**64:
                raise Inconsistent(f"executable sections overlap at {addr:#x}")
            reach = addr + 4 * words.size
        return cls(
            np.array([item[0] for item in ordered], dtype=np.uint64),
            tuple(item[1] for item in ordered),
            np.array([item[2] for item in ordered], dtype=np.int32),
        )

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def end(self) -> Addr:
        """(t,) uint64, first address behind each section's last whole word (2**64 wraps to 0)."""
        sizes = np.array([4 * words.size for words in self.words], dtype=np.uint64)
        return self.addr + sizes

    @property
    def ranges(self) -> list[tuple[int, Insn]]:
        """(address, words) of each section, in address order."""
        return list(zip(self.addr.tolist(), self.words, strict=True))

    def _place(self, addrs: Addr) -> tuple[Row, Mask]:
        """Which section each address lies in, and whether it does: (n,) int64, (n,) bool."""
        if not len(self):
            return np.zeros(addrs.shape, dtype=np.int64), np.zeros(addrs.shape, dtype=np.bool_)
        index = np.searchsorted(self.addr, addrs, side="right").astype(np.int64) - 1
        safe = np.maximum(index, 0)
        inside = (index >= 0) & (addrs - self.addr[safe] < self.end[safe] - self.addr[safe])
        return safe, inside

    def contains(self, addrs: Addr) -> Mask:
        """(n,) bool: the address lies in an executable section; `addrs` is (n,) uint64."""
        return self._place(addrs)[1]

    def section_at(self, addrs: Addr) -> Row32:
        """(n,) int32, section header index at each address, -1 where there is none; `addrs` is (n,) uint64."""
        index, inside = self._place(addrs)
        if not len(self):
            return np.full(addrs.shape, -1, dtype=np.int32)
        return np.where(inside, self.section[index], np.int32(-1))

    def words_at(self, addrs: Addr) -> tuple[Insn, Mask]:
        """Give the instruction word at each address.

        Args:
            addrs: (n,) uint64.

        Returns:
            (n,) uint32 and (n,) bool; where the mask is False (no executable section there, or not
            aligned to a word) the word is 0 and means nothing.
        """
        index, good = self._place(addrs)
        found = np.zeros(addrs.shape, dtype=np.uint32)
        if not len(self):
            return found, good
        delta = addrs - self.addr[index]
        good &= (delta & np.uint64(3)) == 0
        for i in np.unique(index[good]).tolist():
            here = np.flatnonzero(good & (index == i))
            found[here] = self.words[i][(delta[here] >> np.uint64(2)).astype(np.int64)]
        return found, good
