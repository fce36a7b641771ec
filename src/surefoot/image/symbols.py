"""Layer 3: the symbol table as columns.

Invariant: only symbols that name a place of this image are kept, in the order of the file: no undefined,
section or file symbols, no mapping symbols ($x, $d) and no local labels (.L).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

import numpy as np

from surefoot.dtypes import Addr, Code, Mask, Row, Row32
from surefoot.image.model import UNDEFINED
from surefoot.image.names import NameTable

__all__ = ["Binding", "SymbolKind", "Symbols", "is_label"]


class SymbolKind(IntEnum):
    """What a symbol names (ELF gABI, ELF64_ST_TYPE)."""

    NOTYPE = 0
    """With a size and in text: assembly between SYM_CODE_START and SYM_CODE_END. Without: a label."""
    OBJECT = 1
    FUNC = 2
    """Compiled code, or assembly between SYM_FUNC_START and SYM_FUNC_END."""
    SECTION = 3
    FILE = 4
    COMMON = 5
    TLS = 6
    IFUNC = 10


class Binding(IntEnum):
    """How a symbol binds (ELF gABI, ELF64_ST_BIND)."""

    LOCAL = 0
    GLOBAL = 1
    WEAK = 2
    UNIQUE = 10


_LABEL_SPACES: Final = (b"", b"__pi_", b"__kvm_nvhe_")
"""Prefixes that arm64 puts before every symbol of some objects, labels included (scripts/mksysmap, Linux 7.3)."""


def is_label(names: NameTable) -> Mask:
    """(n,) bool: mapping symbols ($x, $d) and local labels (.L), with or without the prefixes of arm64.

    Source:
        scripts/mksysmap (Linux 7.3), which keeps exactly these out of kallsyms.
    """
    found = np.zeros(len(names), dtype=np.bool_)
    for space in _LABEL_SPACES:
        rows = np.flatnonzero(names.starts_with(space)) if space else np.arange(len(names))
        rest = NameTable(names.strings, names.off[rows] + len(space))
        found[rows] |= rest.starts_with(b"$") | rest.starts_with(b".L")
    return found


@dataclass(frozen=True)
class Symbols:
    """Symbols of an image, in file order.

    Attributes:
        addr: (s,) uint64; in a relocatable object that is not placed, the offset in `section`.
        size: (s,) uint64, bytes; 0 for labels.
        kind: (s,) uint8, `SymbolKind`.
        binding: (s,) uint8, `Binding`.
        section: (s,) int32, section header index, or ABSOLUTE, OTHER (see `surefoot.image.model`).
        names: (s) names.
        by_address: name look-ups give ascending addresses (kernels), not file order (modules).
    """

    addr: Addr
    size: Addr
    kind: Code
    binding: Code
    section: Row32
    names: NameTable
    by_address: bool = True

    def __len__(self) -> int:
        return int(self.addr.size)

    def name(self, i: int) -> str:
        """Give the name of symbol `i`."""
        return self.names[i]

    def find(self, name: str) -> Row:
        """Give the symbols of that name in kallsyms order, which is what a live patch's `old_sympos` counts.

        Returns:
            (k,) int64: in a kernel by address, in a module in the order of the file; empty if there is none.

        Source:
            scripts/kallsyms.c:compare_names; kernel/module/kallsyms.c:module_kallsyms_on_each_symbol
            (Linux 7.3).
        """
        return self._in_order(self.names.find(name))

    def find_many(self, names: list[str]) -> list[Row]:
        """As `find`, for many names at once."""
        return [self._in_order(rows) for rows in self.names.find_many(names)]

    def _in_order(self, rows: Row) -> Row:
        if not self.by_address or rows.size < 2:
            return rows
        return rows[np.argsort(self.addr[rows], kind="stable")]

    def address_of(self, name: str) -> int | None:
        """Give the address of the only symbol of that name, None if there is none or more than one address."""
        found = {int(self.addr[row]) for row in self.find(name).tolist()}
        return found.pop() if len(found) == 1 else None

    def take(self, rows: Row) -> Symbols:
        """Give the chosen symbols in the given order; `rows` is (k,) int64."""
        return replace(
            self,
            addr=self.addr[rows],
            size=self.size[rows],
            kind=self.kind[rows],
            binding=self.binding[rows],
            section=self.section[rows],
            names=self.names.take(rows),
        )

    def placed(self, bases: Addr) -> Symbols:
        """Give the symbols of a relocatable object at their run-time addresses.

        Args:
            bases: (sections,) uint64, address of each section, 0 = not loaded.

        Returns:
            without the symbols of sections that are not loaded.
        """
        inside = (self.section > UNDEFINED) & (self.section < bases.size)
        base = np.where(inside, bases[np.where(inside, self.section, 0)], np.uint64(0))
        moved = replace(self, addr=self.addr + base)
        return moved.take(np.flatnonzero(~inside | (base != 0)))
