"""Layer 3: code symbols in address order, with look-ups from address to name and back.

Two questions are kept apart. `lookup` asks which symbol *contains* an address (start <= addr < start + size):
evidence. `nearest` asks which symbol kallsyms would *print*: the last one at or before the address, whatever its
size. Among several symbols at one address both take the one that kallsyms prints:

* kernels: not weak before weak; not like a linker script's `__start_x`/`__x_end` before those; fewer leading
  underscores first; then by name (scripts/kallsyms.c:compare_symbols over `nm -n`, and
  kernel/kallsyms.c:get_symbol_pos, which takes the first; Linux 7.3);
* modules: the first in the file (kernel/module/kallsyms.c:find_kallsyms_symbol).

Names that scripts/mksysmap keeps out of kallsyms come after all others. For `lookup`, a function goes before sized
assembly and that before data; a symbol that starts later hides the one around it; labels without size hide none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, overload

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Addr, Code, Mask, Row, Row32
from surefoot.image.model import Text
from surefoot.image.names import NameTable
from surefoot.image.symbols import Binding, SymbolKind, Symbols

__all__ = ["Functions", "Names", "Ranges", "kallsyms_rank"]

_HIDDEN: Final = (b"__efistub_", b"__crc_", b"__kstrtab_", b"__kstrtabns_", b"__kcfi_typeid_", b"__pi___kcfi_typeid_")
"""Prefixes that kallsyms leaves out (scripts/mksysmap, Linux 7.3)."""
_PREFERENCE: Final = {SymbolKind.OBJECT: 0, SymbolKind.NOTYPE: 1, SymbolKind.IFUNC: 2, SymbolKind.FUNC: 2}


@dataclass(frozen=True)
class Names(Sequence[str]):
    """Names of the chosen rows, decoded when asked for."""

    table: NameTable
    rows: Row

    def __len__(self) -> int:
        return int(self.rows.size)

    @overload
    def __getitem__(self, key: int) -> str: ...
    @overload
    def __getitem__(self, key: slice) -> Names: ...
    def __getitem__(self, key: int | slice) -> str | Names:
        if isinstance(key, slice):
            return Names(self.table, self.rows[key])
        return self.table[int(self.rows[key])]

    def __iter__(self) -> Iterator[str]:
        return (self.table[row] for row in self.rows.tolist())


@dataclass(frozen=True)
class Ranges:
    """Code ranges in address order without overlap, each with the one function that speaks for it.

    Attributes:
        start: (m,) uint64, ascending.
        end: (m,) uint64, first address behind each.
        function: (m,) int64, row in `Functions`.
        kind: (m,) uint8, `SymbolKind` of that function.
        names: (m) its name.
    """

    start: Addr
    end: Addr
    function: Row
    kind: Code
    names: Names


def kallsyms_rank(symbols: Symbols) -> Row:
    """Order symbols as kallsyms lists them.

    Args:
        symbols: in file order; addresses must be comparable (linked or placed).

    Returns:
        (s,) int64, row numbers, by address and among aliases the one that kallsyms prints first.
    """
    if not symbols.by_address:
        return np.argsort(symbols.addr, kind="stable")
    order = np.argsort(symbols.addr, kind="stable")
    addrs = symbols.addr[order]
    same = addrs[1:] == addrs[:-1]
    shared = np.append(same, False) | np.append(False, same) if addrs.size else same
    at = np.flatnonzero(shared)
    if not at.size:
        return order
    rows = order[at]
    names = symbols.names.take(rows)
    hidden = np.zeros(rows.size, dtype=np.bool_)
    for prefix in _HIDDEN:
        hidden |= names.starts_with(prefix)
    weak = symbols.binding[rows] == Binding.WEAK
    group = np.cumsum(np.append(True, addrs[at][1:] != addrs[at][:-1]))
    keys = (names.leading(b"_"), _is_provided(names), weak, hidden, group)
    coarse = np.lexsort(keys)
    tied = np.ones(rows.size - 1, dtype=np.bool_)
    for key in keys:
        tied &= key[coarse][1:] == key[coarse][:-1]
    group[coarse] = np.cumsum(np.append(True, ~tied))
    order[at] = rows[names.order_within(group)]
    return order


def _is_provided(names: NameTable) -> Mask:
    """(n,) bool: looks like a linker script's symbol (may_be_linker_script_provide_symbol in scripts/kallsyms.c)."""
    found = names.starts_with(b"__") & (names.lengths >= 8)
    rest = NameTable(names.strings, np.minimum(names.off + 2, names.strings.size - 1))
    begins = rest.starts_with(b"start_") | rest.starts_with(b"stop_") | rest.starts_with(b"end_")
    return found & (begins | names.ends_with(b"_start") | names.ends_with(b"_end"))


@dataclass(frozen=True)
class Functions:
    """Symbols of executable sections, sorted by address and, at one address, as kallsyms does.

    Attributes:
        addr: (f,) uint64, ascending.
        size: (f,) uint64, bytes; 0 for labels.
        kind: (f,) uint8, `SymbolKind`: sized FUNC is C or SYM_FUNC assembly, sized NOTYPE SYM_CODE assembly.
        binding: (f,) uint8, `Binding`.
        section: (f,) int32, section header index.
        symbol: (f,) int64, row in the image's `Symbols`.
        names: (f) names.
        by_address: `find` answers by address (kernels), not in file order (modules).
        text: the executable sections; outside of them no look-up finds anything.
    """

    addr: Addr
    size: Addr
    kind: Code
    binding: Code
    section: Row32
    symbol: Row
    names: NameTable
    by_address: bool
    text: Text

    @classmethod
    def of(cls, symbols: Symbols, text: Text) -> Functions:
        """Choose and sort the code symbols of an image.

        Args:
            symbols: with comparable addresses.
            text: executable sections of the same image.
        """
        wanted = np.isin(symbols.section, text.section) & np.isin(symbols.kind, list(_PREFERENCE))
        code = np.flatnonzero(wanted)
        rows = code[kallsyms_rank(symbols.take(code))]
        return cls(
            symbols.addr[rows],
            symbols.size[rows],
            symbols.kind[rows],
            symbols.binding[rows],
            symbols.section[rows],
            rows,
            symbols.names.take(rows),
            symbols.by_address,
            text,
        )

    def __len__(self) -> int:
        return int(self.addr.size)

    @cached_property
    def end(self) -> Addr:
        """(f,) uint64, first address behind each; cut at the end of the address space."""
        end: Addr = self.addr + np.minimum(self.size, ~self.addr)
        return end

    def name(self, i: int) -> str:
        """Give the name of function `i`."""
        return self.names[i]

    def find(self, name: str) -> Row:
        """Give the functions of that name in kallsyms order, (k,) int64; empty if there is none.

        A live patch's `old_sympos` also counts data symbols of the name; use `Symbols.find` for that.
        """
        rows = self.names.find(name)
        return rows if self.by_address else rows[np.argsort(self.symbol[rows])]

    @cached_property
    def _preference(self) -> Row:
        """(f,) int64: rank in `lookup` among symbols with one start; the highest is taken."""
        worth = np.zeros(256, dtype=np.int64)
        for kind, value in _PREFERENCE.items():
            worth[kind] = value
        return worth[self.kind]

    @cached_property
    def ranges(self) -> Ranges:
        """Which function speaks for which addresses, as disjoint ranges."""
        rows = np.flatnonzero(self.end > self.addr)
        rows = rows[np.lexsort((-rows, self._preference[rows], self.addr[rows]))]
        points, owner = _stab(self.addr[rows], self.end[rows])
        joined = np.append(True, owner[1:] != owner[:-1]) if owner.size else owner.astype(np.bool_)
        first = np.flatnonzero(joined)
        last = np.append(first[1:], owner.size - 1)  # the last run is always without owner
        start, end, best = points[first], points[last[: first.size]], owner[first]
        kept = best >= 0
        function = rows[best[kept]]
        return Ranges(start[kept], end[kept], function, self.kind[function], Names(self.names, function))

    def lookup(self, addrs: Addr, is_ra: Mask | None = None) -> Row:
        """Give the function that contains each address.

        Args:
            addrs: (n,) uint64, pointer authentication bits stripped.
            is_ra: (n,) bool; True for return addresses, which are looked up one byte earlier, inside the
                call. None: all are exact.

        Returns:
            (n,) int64 rows; -1 where no sized symbol contains the address, never the nearest.
        """
        ranges = self.ranges
        at = addrs if is_ra is None else addrs - is_ra.astype(np.uint64)
        if not ranges.start.size:
            return np.full(addrs.shape, -1, dtype=np.int64)
        index = np.searchsorted(ranges.start, at, side="right").astype(np.int64) - 1
        safe = np.maximum(index, 0)
        return np.where((index >= 0) & (at < ranges.end[safe]), ranges.function[safe], np.int64(-1))

    def nearest(self, addrs: Addr) -> Row:
        """Give the symbol that kallsyms would print for each address, for display only.

        Args:
            addrs: (n,) uint64; for return addresses subtract 1 first, as the kernel's %pBb does.

        Returns:
            (n,) int64 rows; -1 outside the executable sections and before the first symbol.
        """
        if not len(self):
            return np.full(addrs.shape, -1, dtype=np.int64)
        index = np.searchsorted(self.addr, addrs, side="right").astype(np.int64) - 1
        known = (index >= 0) & self.text.contains(addrs)
        first = np.searchsorted(self.addr, self.addr[np.maximum(index, 0)], side="left").astype(np.int64)
        return np.where(known, first, np.int64(-1))

    def starts_at(self, addrs: Addr) -> Mask:
        """(n,) bool: a FUNC symbol starts at the address; `addrs` is (n,) uint64."""
        starts = self.addr[self.kind == SymbolKind.FUNC]
        if not starts.size:
            return np.zeros(addrs.shape, dtype=np.bool_)
        at = np.minimum(np.searchsorted(starts, addrs), starts.size - 1)
        return np.asarray(starts[at] == addrs)


def _stab(start: Addr, end: Addr) -> tuple[Addr, NDArray[np.int64]]:
    """Find for every point which is the last interval that covers it.

    Args:
        start: (k,) uint64, intervals in order of rising precedence.
        end: (k,) uint64, > start.

    Returns:
        (p,) uint64 points, ascending and unique, and (p,) int64: the last interval that covers
        [point, next point), -1 for none (always so at the last point).

    Each interval is the union of two overlapping power-of-two blocks of points (as in a sparse table for range
    maxima); blocks are then halved from the largest down, keeping the maximum. O((k + p) log p), no loop over
    intervals, whatever the nesting.
    """
    points = np.unique(np.concatenate([start, end]))
    best = np.full(points.size, -1, dtype=np.int64)
    if not start.size:
        return points, best
    low, high = np.searchsorted(points, start), np.searchsorted(points, end)
    level = np.frexp((high - low).astype(np.float64))[1] - 1
    number = np.arange(start.size)
    for k in range(int(level.max()), -1, -1):
        at = np.flatnonzero(level == k)
        fresh = np.full(points.size, -1, dtype=np.int64) if k else best
        np.maximum.at(fresh, low[at], number[at])
        np.maximum.at(fresh, high[at] - (1 << k), number[at])
        if k:
            best = _halve(best, fresh, 1 << k)
    return points, best


def _halve(best: Row, fresh: Row, width: int) -> Row:
    """Turn block maxima of `width` points (already halved `best` joined) into maxima of half the width."""
    joined = np.maximum(best, fresh)
    half = width // 2
    np.maximum(joined[half:], joined[:-half].copy(), out=joined[half:])
    return joined
