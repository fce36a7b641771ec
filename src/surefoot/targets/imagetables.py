"""Layer 7: what a walk needs of one image, reduced to columns that can be kept by build-id."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np

from surefoot.dtypes import Addr, Code, Row
from surefoot.errors import Unsupported
from surefoot.image.binary import Image
from surefoot.image.symbols import Binding, SymbolKind, Symbols
from surefoot.metadata.rules import FunctionIndex, RuleTable
from surefoot.targets.names import NameColumn
from surefoot.unwind.code import FunctionKind

__all__ = ["FunctionColumns", "empty_rules", "find_symbol", "function_columns", "image_rules"]

_DTYPES: Final[dict[str, type[np.generic]]] = {
    "start": np.uint64,
    "size": np.uint64,
    "cfa_base": np.uint8,
    "cfa_off": np.int32,
    "fp_rule": np.uint8,
    "fp_off": np.int32,
    "ra_rule": np.uint8,
    "ra_off": np.int32,
    "ra_signed": np.bool_,
    "func": np.int32,
    "side": np.int32,
    "provenance": np.uint8,
    "flags": np.uint8,
    "section": np.int32,
    "rep_size": np.uint8,
    "reason": np.int16,
}
"""Types of the columns of RuleTable and FunctionIndex that are not int64."""


@dataclass(frozen=True)
class FunctionColumns:
    """Code ranges of one image, as `surefoot.unwind.code.Functions` wants them.

    Attributes:
        start: (f,) uint64, ascending.
        end: (f,) uint64, first address behind each.
        kind: (f,) uint8, `FunctionKind`.
        names: (f) names.
    """

    start: Addr
    end: Addr
    kind: Code
    names: NameColumn

    def shifted(self, bias: int) -> FunctionColumns:
        """Give the ranges moved by `bias` bytes."""
        delta = np.uint64(bias % 2**64)
        return replace(self, start=self.start + delta, end=self.end + delta)

    def take(self, rows: Row) -> FunctionColumns:
        """Give the chosen ranges, (k,) int64."""
        return FunctionColumns(self.start[rows], self.end[rows], self.kind[rows], self.names.take(rows))


def find_symbol(symbols: Symbols, name: str) -> int | None:
    """Give the address of a symbol; among several of the name the global one, None where that is no answer."""
    rows = symbols.find(name)
    addrs = set(symbols.addr[rows].tolist())
    if len(addrs) > 1:
        addrs = set(symbols.addr[rows[symbols.binding[rows] == Binding.GLOBAL]].tolist())
    return int(addrs.pop()) if len(addrs) == 1 else None


def function_columns(image: Image) -> FunctionColumns:
    """Give the code ranges of an image that is linked or placed.

    Data in executable sections (sized OBJECT symbols) is no function and left out.
    """
    functions = image.functions
    ranges = functions.ranges
    is_code = (ranges.kind == SymbolKind.FUNC) | (ranges.kind == SymbolKind.NOTYPE)
    rows = np.flatnonzero(is_code)
    kinds = np.where(ranges.kind[rows] == SymbolKind.FUNC, np.uint8(FunctionKind.FUNC), np.uint8(FunctionKind.CODE))
    names = functions.names.take(ranges.function[rows])
    column = NameColumn.cut(names.strings, names.off, names.lengths)
    return FunctionColumns(ranges.start[rows], ranges.end[rows], kinds, column)


def image_rules(image: Image) -> RuleTable | None:
    """Give an image's rules with the ABI's defaults applied, as in the file; None where it has no metadata.

    Those of a linked image are ready for look-ups; those of a module must be placed first.
    """
    from surefoot.image.rules import load_rules  # all decoders; a warm start needs none

    try:
        table = load_rules(image).with_abi_defaults()
    except Unsupported:
        return None
    return table.for_lookup() if image.is_placed else table


def empty_rules() -> RuleTable:
    """Give a table that covers nothing."""

    def blank(*names: str) -> dict[str, Any]:
        return {name: np.zeros(0, dtype=_DTYPES.get(name, np.int64)) for name in names}

    index = FunctionIndex(**blank(*(item.name for item in fields(FunctionIndex))))
    return RuleTable(**blank(*(item.name for item in fields(RuleTable)[:10])), functions=index)
