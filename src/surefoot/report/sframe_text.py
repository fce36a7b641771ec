"""Layer 8: findings, differences and statistics of SFrame sections as text.

Invariant: the text says what the JSON of the same command says, for people.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from surefoot.metadata.sframe import CATALOGUE, Finding, Severity
from surefoot.report.schema import address
from surefoot.report.style import Style, printable

__all__ = [
    "SCHEMA_CHECK",
    "SCHEMA_CONVERT",
    "SCHEMA_DIFF",
    "SCHEMA_STAT",
    "differences_text",
    "finding_json",
    "findings_text",
    "stat_text",
]

SCHEMA_CHECK = "surefoot.sframe-check/1"
SCHEMA_CONVERT = "surefoot.sframe-convert/1"
SCHEMA_DIFF = "surefoot.sframe-diff/1"
SCHEMA_STAT = "surefoot.sframe-stat/1"


def finding_json(finding: Finding) -> dict[str, object]:
    """Give a finding as JSON."""
    info = CATALOGUE[finding.code]
    return {
        "code": finding.code,
        "severity": info.severity.name.lower(),
        "owner": info.owner,
        "address": None if finding.address is None else address(finding.address),
        "section": finding.section,
        "symbol": finding.symbol,
        "message": finding.message,
        "offset": finding.offset,
        "fde": finding.fde,
        "row": finding.row,
        "count": finding.count,
    }


def _look(severity: Severity, style: Style) -> str:
    """Give the colour of a severity."""
    return {Severity.ERROR: style.bad, Severity.WARNING: style.mark}.get(severity, style.dim)


def findings_text(findings: list[Finding], counts: Mapping[str, int], style: Style) -> Iterator[str]:
    """Yield a line per finding, then what the codes mean."""
    for finding in findings:
        info = CATALOGUE[finding.code]
        place = [] if finding.address is None else [f"{finding.address:016x}"]
        place += [printable(finding.symbol)] if finding.symbol else []
        place += [f"function {finding.fde}"] if finding.fde is not None else []
        place += [f"row {finding.row}"] if finding.row is not None else []
        place += [f"offset {finding.offset:#x}"] if finding.offset is not None and not place else []
        look, name = _look(info.severity, style), info.severity.name.lower()
        where = f" {style.dim}{' '.join(place)}{style.off}" if place else ""
        yield f"{look}{name}{style.off} {style.strong}{finding.code}{style.off}{where}: {finding.message}\n"
    if counts:
        yield "\n"
    for code, count in counts.items():
        info = CATALOGUE[code]
        yield f"{_look(info.severity, style)}{count:7}{style.off} {style.strong}{code}{style.off}: {info.meaning}\n"
        yield f"        {style.dim}{info.fix}{style.off}\n"


def differences_text(differences: list[dict[str, object]], style: Style) -> Iterator[str]:
    """Yield the differences of two tables, function by function."""
    last = None
    for item in differences:
        head = (item["symbol"], item["function"])
        if head != last:
            yield f"\n{style.strong}{printable(str(item['symbol'])) or item['function']}{style.off}\n"
            last = head
        extent = f"{item['start']} {item['bytes']:>6} bytes"
        yield f"    {style.dim}{extent}{style.off}  - {item['first']}\n"
        yield f"    {' ' * len(extent)}  + {item['second']}\n"


def stat_text(stat: Mapping[str, object], style: Style) -> Iterator[str]:
    """Yield the statistics, a line per number."""
    for key, value in stat.items():
        if key == "schema":
            continue
        if isinstance(value, Mapping):
            yield f"{style.strong}{key}{style.off}\n"
            for name, inner in value.items():
                yield f"    {printable(str(name)):28} {_number(inner)}\n"
        elif isinstance(value, list):
            yield f"{style.strong}{key}{style.off}: {', '.join(str(item) for item in value) or 'none'}\n"
        else:
            yield f"{style.strong}{key}{style.off}: {_number(value)}\n"


def _number(value: object) -> str:
    """Give a value as text; a pair of covered and total bytes with its share."""
    if isinstance(value, Mapping) and {"covered", "size"} <= set(value):
        covered, size = int(value["covered"]), int(value["size"])
        return f"{covered} of {size} bytes ({100 * covered / max(1, size):.1f} %)"
    return str(value)
