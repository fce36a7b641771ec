"""Layer 2: what two rule tables say differently about the same addresses.

Invariant: the comparison is exhaustive: the address space is cut at every row boundary of either table, so that each
piece lies in one row of each, and every piece is compared. Encoding does not matter: repeated rows, NOT_STATED
against the ABI's default, and the order of functions make no difference. Where the return address is UNDEFINED the
frame is the outermost one, and the other rules of the row mean nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntFlag
from typing import Final

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Addr, Code, Mask, Row, Row32
from surefoot.errors import Inconsistent
from surefoot.metadata.rules import FunctionFlag, RaRule, RuleTable, SideKind

__all__ = ["Aspect", "Comparison", "compare", "describe_row"]

_SECTION_SHIFT: Final = 44
"""Relocatable objects: section n is compared at address (n + 1) << 44; offsets inside sections stay below."""


class Aspect(IntFlag):
    """What differs in a piece of address space."""

    ONLY_FIRST = 1
    """The second table has no rule there."""
    ONLY_SECOND = 2
    """The first table has no rule there."""
    CFA = 4
    FP = 8
    RA = 16
    SIGNED = 32
    """Whether the return address carries an authentication code, or with which key."""
    SIGNAL = 64
    """Whether the frame above was interrupted."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The pieces where two tables differ, adjacent pieces of the same rows joined.

    Attributes:
        start: (d,) uint64, first address (offset in `section` for relocatable objects).
        end: (d,) uint64.
        section: (d,) int32, section header index, -1 in linked images.
        aspects: (d,) uint8, `Aspect` bits.
        first_row: (d,) int64, row of `first`, -1 = none.
        second_row: (d,) int64, row of `second`, -1 = none.
        first: the first table as it was compared: sorted, without contradictions, ABI defaults applied.
        second: the second table.
        bytes_both: bytes of address space where both tables have a rule.
        bytes_equal: bytes where both say the same.
        disputed: functions of (first, second) with rows that were not compared because functions overlap, or
            because rows repeat (PLT).
    """

    start: Addr
    end: Addr
    section: Row32
    aspects: Code
    first_row: Row
    second_row: Row
    first: RuleTable
    second: RuleTable
    bytes_both: int
    bytes_equal: int
    disputed: tuple[int, int]

    def __len__(self) -> int:
        return int(self.start.size)

    @property
    def is_equal(self) -> bool:
        """Whether the tables say the same wherever at least one speaks."""
        return len(self) == 0

    def only(self, aspects: Aspect) -> Mask:
        """(d,) bool: the piece differs in one of the given aspects."""
        chosen: Mask = (self.aspects & int(aspects)) != 0
        return chosen


def compare(first: RuleTable, second: RuleTable) -> Comparison:
    """Compare two tables at every address.

    Raises:
        Inconsistent: the tables are of different register files.
    """
    if first.abi != second.abi:
        raise Inconsistent(f"{first.abi.name} and {second.abi.name} rules cannot be compared")
    is_rel = bool((first.functions.section >= 0).any() or (second.functions.section >= 0).any())
    one, two = _prepare(first, is_rel=is_rel), _prepare(second, is_rel=is_rel)
    cuts = np.unique(np.concatenate([one.start, one.end, two.start, two.end]))
    low, high = cuts[:-1], cuts[1:]
    exact = np.zeros(low.size, dtype=np.bool_)
    rows = one.lookup(low, exact), two.lookup(low, exact)
    aspects = _aspects(one, two, *rows)
    both = (rows[0] >= 0) & (rows[1] >= 0)
    length = (high - low).astype(np.uint64)
    bytes_both = int(length[both].sum())
    bytes_equal = int(length[both & (aspects == 0)].sum())
    keep = np.flatnonzero(aspects)
    low, high, aspects, a, b = low[keep], high[keep], aspects[keep], rows[0][keep], rows[1][keep]
    joined = np.zeros(low.size, dtype=np.bool_)
    joined[1:] = (low[1:] == high[:-1]) & (a[1:] == a[:-1]) & (b[1:] == b[:-1])
    heads = np.flatnonzero(~joined)
    tails = np.append(heads[1:], low.size) - 1 if heads.size else heads
    start, end = low[heads], high[tails] if heads.size else high[:0]
    section = np.full(heads.size, -1, dtype=np.int32)
    if is_rel:
        section = (start >> np.uint64(_SECTION_SHIFT)).astype(np.int32) - 1
        base = start >> np.uint64(_SECTION_SHIFT) << np.uint64(_SECTION_SHIFT)
        start, end = start - base, end - base
    disputed = (_speaking(first) - _speaking(one), _speaking(second) - _speaking(two))
    return Comparison(
        start, end, section, aspects[heads], a[heads], b[heads], one, two, bytes_both, bytes_equal, disputed
    )


def _speaking(table: RuleTable) -> int:
    """How many functions have rows and cover addresses, each extent counted once."""
    index = table.functions
    rows = np.flatnonzero((index.row_count > 0) & (index.size > 0))
    return len(set(zip(index.section[rows].tolist(), index.start[rows].tolist(), strict=True)))


def _prepare(table: RuleTable, *, is_rel: bool) -> RuleTable:
    """Give a table that `lookup` accepts, sections of relocatable objects apart from each other."""
    if is_rel:
        section = table.functions.section
        count = max(0, int(section.max(initial=-1))) + 1
        bases = (np.arange(count, dtype=np.uint64) + np.uint64(1)) << np.uint64(_SECTION_SHIFT)
        table = replace(table.placed(bases))
    return table.with_abi_defaults().for_lookup()


def _aspects(first: RuleTable, second: RuleTable, a: Row, b: Row) -> Code:
    """(n,) uint8: how row a[i] of the first table differs from row b[i] of the second; -1 = no row."""
    aspects = np.zeros(a.size, dtype=np.uint8)
    aspects[(a >= 0) & (b < 0)] = Aspect.ONLY_FIRST
    aspects[(a < 0) & (b >= 0)] = Aspect.ONLY_SECOND
    pieces = np.flatnonzero((a >= 0) & (b >= 0))
    if not pieces.size:
        return aspects
    a, b = a[pieces], b[pieces]
    sides = _side_numbers(first, second)
    different = np.zeros(pieces.size, dtype=np.uint8)
    outermost = (first.ra_rule[a] == RaRule.UNDEFINED) & (second.ra_rule[b] == RaRule.UNDEFINED)
    for aspect, name, columns in (
        (Aspect.CFA, "cfa", ("cfa_base", "cfa_off")),
        (Aspect.FP, "fp", ("fp_rule", "fp_off")),
        (Aspect.RA, "ra", ("ra_rule", "ra_off")),
    ):
        unlike = sides[name][0][a] != sides[name][1][b]
        for column in columns:
            unlike |= getattr(first, column)[a] != getattr(second, column)[b]
        different[unlike & ~outermost] |= np.uint8(aspect)
    signed = first.ra_signed[a], second.ra_signed[b]
    flags = first.functions.flags[first.func[a]], second.functions.flags[second.func[b]]
    key = ((flags[0] ^ flags[1]) & FunctionFlag.KEY_B) != 0
    different[((signed[0] != signed[1]) | (signed[0] & key)) & ~outermost] |= np.uint8(Aspect.SIGNED)
    different[((flags[0] ^ flags[1]) & FunctionFlag.SIGNAL) != 0] |= np.uint8(Aspect.SIGNAL)
    aspects[pieces] = different
    return aspects


def _side_numbers(first: RuleTable, second: RuleTable) -> dict[str, tuple[Row, Row]]:
    """Give, for each of cfa, fp and ra, a number per row; equal numbers mean equal side rules, 0 = none."""
    numbers: dict[str, tuple[Row, Row]] = {}
    for name in ("cfa", "fp", "ra"):
        known: dict[tuple[object, ...], int] = {}
        one, two = (_number_sides(table, name, known) for table in (first, second))
        numbers[name] = one, two
    return numbers


def _number_sides(table: RuleTable, name: str, known: dict[tuple[object, ...], int]) -> Row:
    """(r,) int64: number of each row's side rule; `known` grows by what is new."""
    rows = np.zeros(len(table), dtype=np.int64)
    with_side = np.flatnonzero(table.side >= 0)
    if not with_side.size:
        return rows
    entries, inverse = np.unique(table.side_rules[name][table.side[with_side]], return_inverse=True)
    ids = np.zeros(entries.size, dtype=np.int64)
    for i, entry in enumerate(entries.tolist()):
        kind, deref, reg, offset, expr, length = entry
        if kind == SideKind.NONE:
            continue
        text = table.expressions[expr : expr + length] if length else b""
        ids[i] = known.setdefault((kind, deref, reg, offset, text), len(known) + 1)
    rows[with_side] = ids[inverse]
    return rows


_BASES: Final = {0: "undefined", 1: "sp", 2: "fp", 3: "?"}
_KEPT: Final = {"fp": {0: "fp", 1: "fp", 3: "lost"}, "ra": {0: "lr", 1: "lr", 3: "undefined"}}


def describe_row(table: RuleTable, row: int) -> str:
    """Give a row as text: where CFA, the caller's FP and the return address are.

    For example `cfa=sp+32 fp=[cfa-32] ra=lr`; brackets mean memory.
    """
    if row < 0:
        return "no rule"
    if table.ra_rule[row] == RaRule.UNDEFINED:
        return "outermost frame"
    side = table.side_rules[table.side[row]] if table.side[row] >= 0 else None
    base = int(table.cfa_base[row])
    cfa = _BASES[base] + (f"{int(table.cfa_off[row]):+d}" if base in {1, 2} else "")
    if base == 3 and side is not None:
        cfa = _describe_side(side["cfa"])
    parts = [f"cfa={cfa}"]
    for name, rules, offsets in (("fp", table.fp_rule, table.fp_off), ("ra", table.ra_rule, table.ra_off)):
        rule = int(rules[row])
        text = _KEPT[name].get(rule, "?")
        if rule == 2:
            text = f"[cfa{int(offsets[row]):+d}]"
        elif side is not None and rule == 4:
            text = _describe_side(side[name])
        parts.append(f"{name}={text}")
    return " ".join(parts) + (" signed" if table.ra_signed[row] else "")


def _describe_side(entry: NDArray[np.void] | np.void) -> str:
    """Give one side rule as text."""
    kind, offset = int(entry["kind"]), int(entry["offset"])
    if kind == SideKind.REGISTER:
        inner = f"r{int(entry['reg'])}" + (f"{offset:+d}" if offset else "")
        return f"[{inner}]" if entry["deref"] else inner
    if kind == SideKind.CFA_VALUE:
        return f"cfa{offset:+d}"
    return {SideKind.RANGE: f"offset {offset}"}.get(SideKind(kind), "expression")
