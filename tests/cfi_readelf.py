"""Read the text of `readelf --debug-dump=frames-interp` for AArch64, row by row.

Only what rule tables hold is kept: address, CFA, x29 and the return address, each as readelf's own word. readelf
shows a column only in entries that name the register; a register without a column is "u", as before it is set.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from surefoot.metadata.rules import CfaBase, FpRule, RaRule, RuleTable, SideKind

__all__ = ["TextFde", "differences", "read_text", "table_rows"]

Row = tuple[int, str, str, str]
"""Address, CFA, x29, return address."""

_ENTRY = re.compile(r"^([0-9a-f]{8,}) [0-9a-f]+ [0-9a-f]+ (CIE|FDE)")
_RANGE = re.compile(r"cie=([0-9a-f]+) pc=([0-9a-f]+)\.\.([0-9a-f]+)")


@dataclass
class TextFde:
    """One FDE as printed: offset in the section, address range, and rows (none where all operations are nops)."""

    offset: int
    cie: int
    start: int
    end: int
    rows: list[Row] = field(default_factory=list)


def read_text(lines: Iterable[str]) -> tuple[dict[int, list[Row]], list[TextFde]]:
    """Give the rows of each CIE by its offset, and all FDEs in order."""
    cies: dict[int, list[Row]] = {}
    fdes: list[TextFde] = []
    rows: list[Row] = []
    columns: list[int] = []
    for line in lines:
        found = _ENTRY.match(line)
        if found:
            columns = []
            if found[2] == "CIE":
                rows = cies.setdefault(int(found[1], 16), [])
                continue
            span = _RANGE.search(line)
            assert span, line
            fdes.append(TextFde(int(found[1], 16), int(span[1], 16), int(span[2], 16), int(span[3], 16)))
            rows = fdes[-1].rows
        elif line.startswith("   LOC"):
            names = line.split()
            columns = [names.index(name) if name in names else 0 for name in ("x29", "ra")]
        elif columns and line.strip():
            words = [word for word in line.split() if not word.startswith("(")]  # r17 (x17)
            x29, ra = (words[k] if k else "u" for k in columns)
            rows.append((int(words[0], 16), words[1], x29, ra))
    return cies, fdes


def _side(rule: np.void) -> str:
    """Give readelf's word for a side rule of a register."""
    kind, off = SideKind(int(rule["kind"])), int(rule["offset"])
    words = {
        SideKind.REGISTER: f"r{int(rule['reg'])}",
        SideKind.CFA_VALUE: f"v{off:+d}",
        SideKind.EXPRESSION: "exp",
        SideKind.VAL_EXPRESSION: "vexp",
        SideKind.RANGE: f"c{off:+d}",
    }
    return words[kind]


def _saved(rule: int, off: int, side: np.void | None, name: str) -> str:
    """Give readelf's word for a rule of x29 or the return address; it has one word for not stated and undefined."""
    assert int(FpRule.AT_CFA) == int(RaRule.AT_CFA)
    if rule == FpRule.OTHER:
        assert side is not None
        return _side(side[name])
    words = {FpRule.NOT_STATED: "u", FpRule.UNDEFINED: "u", FpRule.UNCHANGED: "s", FpRule.AT_CFA: f"c{off:+d}"}
    return words[FpRule(rule)]


def _cfa(base: int, off: int, side: np.void | None) -> str:
    """Give readelf's word for the CFA."""
    if base == CfaBase.OTHER:
        assert side is not None
        rule = side["cfa"]
        return "exp" if rule["kind"] == SideKind.EXPRESSION else f"x{int(rule['reg'])}{int(rule['offset']):+d}"
    return f"{ {CfaBase.SP: 'sp', CfaBase.FP: 'x29'}[CfaBase(base)] }{off:+d}"


def table_rows(table: RuleTable) -> Iterator[Row]:
    """Give the rows of a table in readelf's words."""
    columns = zip(
        table.start.tolist(),
        table.cfa_base.tolist(),
        table.cfa_off.tolist(),
        table.fp_rule.tolist(),
        table.fp_off.tolist(),
        table.ra_rule.tolist(),
        table.ra_off.tolist(),
        table.side.tolist(),
        strict=True,
    )
    for start, base, off, fp_rule, fp_off, ra_rule, ra_off, number in columns:
        side = table.side_rules[number] if number >= 0 else None
        x29, ra = _saved(fp_rule, fp_off, side, "fp"), _saved(ra_rule, ra_off, side, "ra")
        yield start, _cfa(base, off, side), x29, ra


def differences(table: RuleTable, lines: Iterable[str]) -> tuple[list[str], int, int]:
    """Compare a table with readelf's text, function by function.

    Returns:
        what differs; FDEs that readelf prints no row for (all nops: the CIE's row is expected); rows that it prints.
    """
    cies, fdes = read_text(lines)
    index = table.functions
    rows = list(table_rows(table))
    found = [] if len(fdes) == len(index) else [f"{len(index)} functions, readelf has {len(fdes)}"]
    columns = (index.source_off, index.start, index.end, index.first_row, index.row_count, index.reason)
    silent = printed = 0
    for fde, mine in zip(fdes, zip(*(column.tolist() for column in columns), strict=True), strict=False):
        offset, start, end, first, count, reason = mine
        want = fde.rows
        printed += len(want)
        if not want:
            silent += 1
            want = [(fde.start, *cies[fde.cie][0][1:])]
        if (offset, start, end) != (fde.offset, fde.start, fde.end) or reason >= 0:
            found.append(f"FDE {fde.offset:#x}: {mine}")
        if rows[first : first + count] != want:
            found.append(f"FDE {fde.offset:#x}: {rows[first : first + count]} instead of {want}")
    return found, silent, printed
