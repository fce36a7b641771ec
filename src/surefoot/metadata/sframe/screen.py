"""Layer 2: which functions of a rule table an SFrame section of a given version can hold.

Invariant: what passes can be written exactly; what does not carries the first reason that applies.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Row
from surefoot.metadata.rules import FunctionFlag, FunctionIndex, RuleTable, overlap_runs
from surefoot.metadata.sframe import fitting
from surefoot.metadata.sframe.constants import HEADER_SIZE, Version

__all__ = ["Screened", "screen"]

_NEAR: Final = 2**31
_MAX_FDE_SIZE: Final = 20


@dataclass(frozen=True, slots=True)
class Screened:
    """Functions that can be written, in the order in which they will be.

    Attributes:
        rules: their rules, no row repeated or empty.
        source: (k,) int64, index of each in the source table.
        why: (f,) int8 over the source's functions, index into `fitting.LEFT_OUT`, -1 = kept.
    """

    rules: RuleTable
    source: Row
    why: NDArray[np.int8]


def screen(table: RuleTable, version: int, section_addr: int, *, is_rel: bool) -> Screened:
    """Choose, tidy and order the functions that can be written."""
    why = _by_function(table, version)
    rules = _tidy(table)
    _by_row(rules, version, why)
    index = rules.functions
    _by_overlap(rules, why)
    kept = np.flatnonzero(why < 0)
    if not is_rel:
        kept = kept[np.argsort(index.start[kept], kind="stable")]
        if version != Version.V3:
            span = HEADER_SIZE + _MAX_FDE_SIZE * kept.size
            far = _distance(index.start[kept], section_addr) > _NEAR - span
            why[kept[far]] = fitting.TOO_FAR
            kept = kept[~far]
    return Screened(_choose(rules, kept), kept, why)


def _distance(start: NDArray[np.uint64], section_addr: int) -> NDArray[np.uint64]:
    """(k,) uint64: bytes between a function's start and the section, whichever comes first."""
    base = np.uint64(section_addr % 2**64)
    near: NDArray[np.uint64] = np.minimum(start - base, base - start)
    return near


def _by_function(table: RuleTable, version: int) -> NDArray[np.int8]:
    """(f,) int8: reasons that the descriptor itself gives."""
    index = table.functions
    why = np.full(len(index), -1, dtype=np.int8)
    is_marked = np.not_equal(index.flags & (FunctionFlag.SIGNAL | FunctionFlag.OUTERMOST), 0)
    is_repeated = np.not_equal(index.flags & FunctionFlag.REPEATED, 0)
    for rows, code in (
        ((index.flags & FunctionFlag.REFUSED) != 0, fitting.REFUSED),
        (index.size == 0, fitting.EMPTY),
        ((index.row_count == 0) & ~(is_marked & (version == Version.V3)), fitting.NO_RULES),
        (index.size >= 2**32, fitting.TOO_LARGE),
        (((index.flags & FunctionFlag.SIGNAL) != 0) & (version != Version.V3), fitting.NO_SIGNAL),
        (is_repeated & (index.rep_size == 0) & (version != Version.V1), fitting.REPEAT),
    ):
        why[rows & (why < 0)] = code
    return why


def _tidy(table: RuleTable) -> RuleTable:
    """Drop rows that cover no address, and rows that repeat their predecessor."""
    if not len(table):
        return table
    ends = table.end
    is_repeated = (table.functions.flags & FunctionFlag.REPEATED) != 0
    live = np.flatnonzero((table.start < ends) | is_repeated[table.func])
    if live.size != len(table):
        table = table.take_rows(live)
    return table.compact()


def _by_row(rules: RuleTable, version: int, why: NDArray[np.int8]) -> None:
    """Name functions one of whose rows cannot be written; the first such row decides."""
    if not len(rules):
        return
    fit = fitting.fit_rows(rules, version)
    row_why = fit.why.copy()
    if version != Version.V3:
        row_why[(row_why < 0) & fit.needs_flex] = fitting.NEEDS_FLEX
    if version == Version.V1:
        row_why[fit.is_outermost] = fitting.NO_OUTERMOST
    bad = np.flatnonzero(row_why >= 0)[::-1]
    first = np.full(len(rules.functions), -1, dtype=np.int8)
    first[rules.func[bad]] = row_why[bad]
    fresh = (why < 0) & (first >= 0)
    why[fresh] = first[fresh]


def _by_overlap(rules: RuleTable, why: NDArray[np.int8]) -> None:
    """Of equal twins keep one; of functions that contradict each other keep none."""
    index = rules.functions
    kept = np.flatnonzero(why < 0)
    if kept.size < 2:
        return
    order = kept[np.lexsort((index.size[kept], index.start[kept], index.section[kept]))]
    section = index.section[order]
    cuts = np.flatnonzero(np.append(np.True_, section[1:] != section[:-1]))
    for low, high in zip(cuts.tolist(), [*cuts[1:].tolist(), order.size], strict=True):
        part = order[low:high]
        for run in overlap_runs(index.start[part], index.end[part]):
            members = part[run]
            is_same = rules.same_functions(members)
            why[members[1:] if is_same else members] = fitting.DUPLICATE if is_same else fitting.DISPUTED


def _choose(rules: RuleTable, kept: Row) -> RuleTable:
    """Give a table of the chosen functions, in the given order."""
    index = rules.functions
    counts = index.row_count[kept]
    firsts = np.cumsum(counts) - counts
    rows = np.repeat(index.first_row[kept] - firsts, counts) + np.arange(int(counts.sum()), dtype=np.int64)
    picked = {item.name: getattr(index, item.name)[kept] for item in fields(FunctionIndex)}
    picked |= {"first_row": firsts, "row_count": counts}
    columns = {item.name: getattr(rules, item.name)[rows] for item in fields(RuleTable)[:10]}
    columns["func"] = np.repeat(np.arange(kept.size, dtype=np.int32), counts)
    return replace(rules, functions=FunctionIndex(**picked), **columns)
