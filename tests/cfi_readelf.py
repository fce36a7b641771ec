"""Read the text of `readelf --debug-dump=frames-interp` for AArch64, row by row and without numpy.

Only what rule tables hold is kept: address, CFA, x29 and the return address, each as readelf's own word. readelf
shows a column only in entries that name the register; a register without a column is "u", as before it is set.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from surefoot.metadata.rules import CfaBase, FpRule, RaRule, RuleTable

__all__ = ["TextFde", "read_text", "table_rows"]

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
            words = line.split()
            x29, ra = (words[k] if k else "u" for k in columns)
            rows.append((int(words[0], 16), words[1], x29, ra))
    return cies, fdes


def _saved(rule: int, off: int) -> str:
    """Give readelf's word for a rule of x29 or the return address; it has one word for not stated and undefined."""
    assert int(FpRule.AT_CFA) == int(RaRule.AT_CFA)
    words = {FpRule.NOT_STATED: "u", FpRule.UNDEFINED: "u", FpRule.UNCHANGED: "s", FpRule.AT_CFA: f"c{off:+d}"}
    return words.get(FpRule(rule), "?")


def table_rows(table: RuleTable) -> Iterator[Row]:
    """Give the rows of a table in readelf's words; "?" where the side table has to be asked."""
    bases = {int(CfaBase.SP): "sp", int(CfaBase.FP): "x29"}
    columns = zip(
        table.start.tolist(),
        table.cfa_base.tolist(),
        table.cfa_off.tolist(),
        table.fp_rule.tolist(),
        table.fp_off.tolist(),
        table.ra_rule.tolist(),
        table.ra_off.tolist(),
        strict=True,
    )
    for start, base, off, fp_rule, fp_off, ra_rule, ra_off in columns:
        cfa = f"{bases[base]}{off:+d}" if base in bases else "?"
        yield start, cfa, _saved(fp_rule, fp_off), _saved(ra_rule, ra_off)
