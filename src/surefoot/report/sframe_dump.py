"""Layer 8: `surefoot sframe dump`: a section for people, and as JSON.

Invariant: one line a row; what is shown is what `to_rules` says, not the encoding (for that there is the readelf
format).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from surefoot.dtypes import Row
from surefoot.metadata.rules import Abi, RuleTable
from surefoot.metadata.sframe import HeaderFlag, SFrameSection
from surefoot.report.schema import address
from surefoot.report.sframe_rows import flag_names, row_texts
from surefoot.report.style import Style, printable

__all__ = ["SCHEMA_DUMP", "choose", "dump_json", "dump_text", "header_json", "section_flags"]

SCHEMA_DUMP = "surefoot.sframe-dump/1"
_ABI_NAMES = {
    Abi.AARCH64_BE: "aarch64-be",
    Abi.AARCH64_LE: "aarch64",
    Abi.AMD64_LE: "amd64",
    Abi.S390X_BE: "s390x",
}


def header_json(section: SFrameSection) -> dict[str, object]:
    """Give what the header says, the same keys in every command."""
    header = section.tables[0].header
    return {
        "version": header.version,
        "abi": _ABI_NAMES[section.abi],
        "flags": section_flags(section),
        "fixed_fp": header.fixed_fp,
        "fixed_ra": header.fixed_ra,
        "tables": len(section.tables),
        "fdes": section.num_fdes,
        "rows": section.num_fres,
        "bytes": section.size,
    }


def dump_json(section: SFrameSection, rules: RuleTable, names: list[str], chosen: Row) -> dict[str, object]:
    """Give the chosen functions as the object of `SCHEMA_DUMP`."""
    texts, which = row_texts(rules)
    split = [_parts(text) for text in texts]
    index = rules.functions
    functions = []
    for func in chosen.tolist():
        first, count = int(index.first_row[func]), int(index.row_count[func])
        rows = [
            {"start": address(start)} | split[kind]
            for start, kind in zip(
                rules.start[first : first + count].tolist(), which[first : first + count].tolist(), strict=True
            )
        ]
        reason = int(index.reason[func])
        functions.append(
            {
                "symbol": names[func],
                "start": address(int(index.start[func])),
                "size": int(index.size[func]),
                "section": int(index.section[func]),
                "flags": flag_names(int(index.flags[func])),
                "refused": rules.reasons[reason] if reason >= 0 else None,
                "rows": rows,
            }
        )
    return {"schema": SCHEMA_DUMP} | header_json(section) | {"functions": functions}


def _parts(text: str) -> dict[str, object]:
    """Split the text of a rule into its members."""
    if "=" not in text:
        return {"cfa": None, "fp": None, "ra": "undefined", "signed": False}
    words = dict(word.split("=", 1) for word in text.split() if "=" in word)
    return {"cfa": words["cfa"], "fp": words["fp"], "ra": words["ra"], "signed": text.endswith(" signed")}


def dump_text(section: SFrameSection, rules: RuleTable, names: list[str], chosen: Row, style: Style) -> Iterator[str]:
    """Yield the lines for people, pieces of many lines at a time, each ending in a newline."""
    header = header_json(section)
    flags = ", ".join(section_flags(section)) or "none"
    yield (
        f"{style.strong}SFrame version {header['version']}{style.off} for {header['abi']}, flags {flags}: "
        f"{header['fdes']} functions, {header['rows']} rows, {header['bytes']} bytes\n"
    )
    texts, which = row_texts(rules)
    lines = [_colored(text, style) for text in texts]
    index = rules.functions
    starts = (rules.start - index.start[rules.func]).tolist() if len(rules) else []
    kinds = which.tolist()
    columns = (index.start, index.size, index.section, index.flags, index.first_row, index.row_count, index.reason)
    picked = [column[chosen].tolist() for column in columns]
    for func, start, size, where, flag, first, count, reason in zip(chosen.tolist(), *picked, strict=True):
        name = printable(names[func]) or "(no symbol)"
        place = f"{style.dim}{start:016x}{style.off}" + (f" section {where}" if where >= 0 else "")
        marks = "".join(f" [{mark}]" for mark in flag_names(flag))
        marks = f"{style.mark}{marks}{style.off}" if marks else ""
        out = [f"\n{place} {style.strong}{name}{style.off} {size} bytes{marks}\n"]
        if reason >= 0:
            out.append(f"    {style.bad}{rules.reasons[reason]}{style.off}\n")
        out += [f"    +{starts[row]:<#7x} {lines[kinds[row]]}\n" for row in range(first, first + count)]
        yield "".join(out)


def section_flags(section: SFrameSection) -> list[str]:
    """Give the names of the header's flags."""
    flags = section.tables[0].header.flags
    return [flag.name.lower() for flag in HeaderFlag if flags & flag and flag.name]


def _colored(text: str, style: Style) -> str:
    """Align the members of a rule, and mark what is in memory."""
    if "=" not in text:
        return f"{style.mark}{text}{style.off}"
    parts = _parts(text)
    cells = []
    for name in ("cfa", "fp", "ra"):
        value = str(parts[name])
        look = style.letter if value.startswith("[") else ""
        cells.append(
            f"{style.dim}{name}={style.off}{look}{value}{style.off if look else ''}{' ' * (12 - len(value))}"
        )
    return " ".join(cells).rstrip() + (f" {style.mark}signed{style.off}" if parts["signed"] else "")


def choose(rules: RuleTable, names: list[str], symbols: tuple[str, ...], addresses: tuple[int, ...]) -> Row:
    """Give the functions that match: a symbol (shell patterns allowed) or an address inside; all without a filter."""
    from fnmatch import fnmatchcase

    index = rules.functions
    if not symbols and not addresses:
        return np.arange(len(index), dtype=np.int64)
    hit = np.zeros(len(index), dtype=np.bool_)
    for pattern in symbols:
        hit |= np.array([fnmatchcase(name, pattern) for name in names], dtype=np.bool_)
    for addr in addresses:
        at = np.uint64(addr)
        hit |= (index.start <= at) & (at - index.start < index.size)
    return np.flatnonzero(hit)
