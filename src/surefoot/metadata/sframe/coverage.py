"""Layer 2: a section against what else is known of the same code: its functions, its extents, its CFI.

Invariant: as in `check`: findings, never exceptions; addresses and sections are those of the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from surefoot.dtypes import Addr, Mask, Row, Row32
from surefoot.metadata.compare import Aspect, Comparison, compare, describe_row
from surefoot.metadata.rules import FunctionFlag, RuleTable
from surefoot.metadata.sframe.faults import DEFAULT_LIMIT, Collector, Finding, Place

__all__ = ["Extents", "check_against", "check_coverage"]

_ASPECT_NAMES = (
    (Aspect.CFA, "CFA"),
    (Aspect.FP, "frame pointer"),
    (Aspect.RA, "return address"),
    (Aspect.SIGNED, "signing"),
    (Aspect.SIGNAL, "signal mark"),
)


@dataclass(frozen=True, slots=True)
class Extents:
    """Ranges of code: functions of a symbol table, or executable sections.

    Attributes:
        start: (n,) uint64, addresses, or offsets in `section`.
        size: (n,) uint64, bytes.
        section: (n,) int32, section header index in relocatable objects, -1 in linked images.
    """

    start: Addr
    size: Addr
    section: Row32


def check_coverage(
    rules: RuleTable, functions: Extents, code: Extents, *, limit: int = DEFAULT_LIMIT
) -> list[Finding]:
    """Hold the descriptors of a section against functions and executable sections.

    Args:
        rules: the section's rules.
        functions: functions of the symbol table, those without size left out.
        code: executable sections.
        limit: findings kept per code.
    """
    faults = Collector(limit)
    index = rules.functions
    live = np.flatnonzero((index.size > 0) & _placed(rules))
    mine = Extents(index.start[live], index.size[live], index.section[live])
    bare = np.flatnonzero((functions.size > 0) & ~_touched(functions, mine))
    place = Place(address=functions.start[bare], section=functions.section[bare])
    faults.many("sframe-uncovered", bare.size, place, lambda i: f"{int(functions.size[bare[i]])} bytes have no rules")
    lost = live[~_inside(mine, code)]
    where = Place(offset=index.source_off[lost], fde=lost, address=index.start[lost], section=index.section[lost])
    faults.many(
        "sframe-outside-code", lost.size, where, lambda i: f"{int(index.size[lost[i]])} bytes are not all code"
    )
    return faults.result()


def _placed(rules: RuleTable) -> Mask:
    """(f,) bool: the function's place is known; in relocatable objects discarded ones have none."""
    section = rules.functions.section
    return (section >= 0) | (not bool((section >= 0).any()))


def _touched(what: Extents, by: Extents) -> Mask:
    """(n,) bool: at least one byte of each range lies in some range of `by`."""
    out = np.zeros(what.start.size, dtype=np.bool_)
    for section in np.unique(what.section).tolist():
        rows, others = np.flatnonzero(what.section == section), np.flatnonzero(by.section == section)
        if not others.size:
            continue
        order = others[np.argsort(by.start[others], kind="stable")]
        start = by.start[order]
        reach = np.maximum.accumulate(start + by.size[order])
        last = np.searchsorted(start, what.start[rows] + what.size[rows], side="left").astype(np.int64) - 1
        out[rows] = (last >= 0) & (reach[np.maximum(last, 0)] > what.start[rows])
    return out


def _inside(what: Extents, by: Extents) -> Mask:
    """(n,) bool: each range lies in one range of `by`; those of one section do not overlap."""
    out = np.zeros(what.start.size, dtype=np.bool_)
    for section in np.unique(what.section).tolist():
        rows, others = np.flatnonzero(what.section == section), np.flatnonzero(by.section == section)
        if not others.size:
            continue
        order = others[np.argsort(by.start[others], kind="stable")]
        start, end = by.start[order], by.start[order] + by.size[order]
        at = np.searchsorted(start, what.start[rows], side="right").astype(np.int64) - 1
        safe = np.maximum(at, 0)
        out[rows] = (at >= 0) & (what.start[rows] + what.size[rows] <= end[safe])
    return out


def check_against(
    rules: RuleTable, reference: RuleTable, *, limit: int = DEFAULT_LIMIT
) -> tuple[list[Finding], Comparison]:
    """Compare a section's rules with the CFI of the same file at every address.

    Args:
        rules: the section's rules.
        reference: the CFI's.
        limit: findings kept per code.

    Returns:
        the findings, and the comparison (first = SFrame, second = CFI).

    Raises:
        Inconsistent: the tables are of different register files.
    """
    faults = Collector(limit)
    result = compare(rules, reference)

    def place(pieces: Row) -> Place:
        row = result.first_row[pieces]
        has_row = row >= 0
        func = result.first.func[np.maximum(row, 0)] if len(result.first) else np.zeros(pieces.size, dtype=np.int32)
        off = result.first.functions.source_off[func] if len(result.first.functions) else np.zeros_like(row)
        return Place(
            offset=off if bool(has_row.all()) else None, address=result.start[pieces], section=result.section[pieces]
        )

    differs = np.flatnonzero((result.aspects & (Aspect.ONLY_FIRST | Aspect.ONLY_SECOND)) == 0)
    faults.many("sframe-cfi-differs", differs.size, place(differs), lambda i: _difference(result, int(differs[i])))
    only = np.flatnonzero(result.only(Aspect.ONLY_SECOND))
    faults.many("sframe-cfi-only", only.size, place(only), lambda i: _extent(result, int(only[i]), "only the CFI"))
    alone = np.flatnonzero(result.only(Aspect.ONLY_FIRST))
    faults.many(
        "sframe-cfi-missing", alone.size, place(alone), lambda i: _extent(result, int(alone[i]), "only SFrame")
    )
    index = reference.functions
    lost = np.flatnonzero((index.flags & FunctionFlag.REFUSED) != 0)
    faults.many(
        "sframe-cfi-unusable",
        lost.size,
        Place(address=index.start[lost], section=index.section[lost]),
        lambda i: reference.reasons[int(index.reason[lost[i]])] if index.reason[lost[i]] >= 0 else "refused",
    )
    return faults.result(), result


def _difference(result: Comparison, piece: int) -> str:
    """Say what differs in a piece."""
    aspects = int(result.aspects[piece])
    names = ", ".join(name for aspect, name in _ASPECT_NAMES if aspects & aspect)
    one = describe_row(result.first, int(result.first_row[piece]))
    two = describe_row(result.second, int(result.second_row[piece]))
    size = int(result.end[piece] - result.start[piece])
    return f"{names} of {size} bytes: SFrame says {one}, CFI says {two}"


def _extent(result: Comparison, piece: int, who: str) -> str:
    """Say who speaks of a piece."""
    return f"{who} has rules for {int(result.end[piece] - result.start[piece])} bytes"
