"""Layer 8: an audit as one self-contained HTML page, with a map of the text and tables that can be searched.

Invariant: everything is in the one file: no script, style, font or picture is loaded from anywhere. Text of the image
(symbols, file names) is escaped wherever it becomes HTML, here or in the script.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from typing import Final

import numpy as np

from surefoot import __version__
from surefoot.audit.catalogue import CATALOGUE, Part
from surefoot.audit.findings import Finding
from surefoot.audit.patching import REASONS
from surefoot.audit.regions import region_names
from surefoot.audit.textmap import Cover
from surefoot.report.audit_text import facts
from surefoot.report.audit_view import KEYS, LISTED, AuditReport, ImageReport, Shown, is_local
from surefoot.report.html_script import SCRIPT
from surefoot.report.html_style import STYLE
from surefoot.report.schema import address

__all__ = ["audit_html"]

_CELL_WORDS: Final = 512
"""Instructions of one cell of the map."""
_LABELS: Final = {"proven": "proven", "refuted": "refuted", "unproven": "unproven", "no_metadata": "no metadata"}
_Json = dict[str, object]


def audit_html(report: AuditReport) -> str:
    """Give the page."""
    findings, examples = _findings(report)
    data: _Json = {
        "cell": 4 * _CELL_WORDS,
        "regions": _regions(report.main),
        "codes": [_code(code) for code in CATALOGUE],
        "findings": findings,
        "reasons": [[name, why] for name, why in REASONS.items()],
        "unpatchable": _unpatchable(report.main),
    }
    # "<" only ever stands inside strings of the JSON, where its escape means the same and ends no element.
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    parts = [
        "<!doctype html><html lang=en><head><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width, initial-scale=1'>",
        f"<title>Surefoot audit: {escape(report.main.name)}</title><style>{STYLE}</style></head><body><main>",
        *_head(report),
        *_map(),
        *_parts(report.main, examples),
        *_trampolines(report.main),
        *_modules(report),
        *_explorer(),
        *_patching(report.main),
        *_foot(report),
        f"</main><div id=tip></div><script type=application/json id=data>{text}</script>",
        f"<script>{SCRIPT}</script></body></html>\n",
    ]
    return "\n".join(parts)


def _code(code: str) -> _Json:
    info = CATALOGUE[code]
    return {"code": code, "severity": info.severity.name.lower(), "owner": info.owner.value}


def _findings(report: AuditReport) -> tuple[list[object], dict[Finding, int]]:
    """Give all findings as rows for the script, and the row of each of the main image."""
    numbers = {code: i for i, code in enumerate(CATALOGUE)}
    rows: list[object] = []
    where: dict[Finding, int] = {}
    for image in report.images:
        seen: dict[str, int] = {}
        for finding in sorted(image.findings, key=lambda each: -each.info.severity):
            seen[finding.code] = seen.get(finding.code, 0) + 1
            shown = image.show(finding, code=seen[finding.code] <= LISTED and is_local(finding))
            where.setdefault(finding, len(rows))
            rows.append(_row(shown, image, numbers[finding.code]))
    return rows, where


def _row(shown: Shown, image: ImageReport, code: int) -> list[object]:
    """Give a finding as the script takes it."""
    symbol = f"{shown.place.symbol} [{image.module}]" if image.module and shown.place.symbol else shown.place.symbol
    lines = [
        [line.offset if line.address else None, line.text, line.row, line.verdict, line.mark] for line in shown.code
    ]
    where = address(shown.finding.address)
    finding = shown.finding
    return [code, where, symbol, shown.place.offset, shown.source, finding.message, lines, list(finding.suggestion)]


def _regions(image: ImageReport) -> list[_Json]:
    """Cut the text into cells, region by region."""
    subject = image.audit.subject
    names, starts, ends = region_names(subject)
    low, high = subject.map.span(starts, ends)
    found: list[_Json] = []
    for i, name in enumerate(names):
        words = subject.map.cover[low[i] : high[i]]
        if not bool(np.any(words < Cover.PADDING)):
            continue
        count = -(-words.size // _CELL_WORDS)
        cell = np.arange(words.size) // _CELL_WORDS * len(Cover) + words
        cells = np.bincount(cell, minlength=count * len(Cover)).reshape(count, len(Cover))
        first = starts[i] + np.arange(count, dtype=np.uint64) * np.uint64(4 * _CELL_WORDS)
        rows = subject.image.functions.nearest(first)
        labels = [subject.image.functions.name(row) if row >= 0 else "" for row in rows.tolist()]
        found.append({"name": name, "start": address(int(starts[i])), "cells": cells.tolist(), "names": labels})
    return found


def _unpatchable(image: ImageReport) -> list[list[object]]:
    """Give the functions without patch site, each with the number of its reason."""
    patching, ranges = image.audit.patching, image.audit.subject.ranges
    at = np.flatnonzero(patching.reason)
    rows = patching.rows[at].tolist()
    return [[ranges.names[row], why] for row, why in zip(rows, patching.reason[at].tolist(), strict=True)]


def _share(count: int, total: int) -> str:
    if count in {0, total}:
        return "" if not total else f"{100 * count // total} %"
    return f"{min(max(100 * count / total, 0.01), 99.99):.2f} %"


def _head(report: AuditReport) -> Iterator[str]:
    """Give the heading, the counts and the bar."""
    main = report.main
    yield f"<header><span class=kicker>Surefoot audit</span><h1>{escape(main.name)}</h1>"
    yield f"<span class=id>build-id {escape(main.build_id or 'none')}</span></header><div class=tiles>"
    addresses, functions = report.addresses(), report.functions()
    total = sum(addresses.values())
    for name, count in addresses.items():
        yield (
            f"<div class='tile {name}'><i>{_share(count, total)}</i><b>{count:,}</b>"
            f"<span>instructions {_LABELS[name]}<br>{functions[name]:,} functions</span></div>"
        )
    yield "</div><div class=bar>"
    yield "".join(
        f"<span class={name} style='flex:{count}' title='{count:,} {_LABELS[name]}'></span>"
        for name, count in addresses.items()
        if count
    )
    said = ", ".join(
        f"{count:,} {severity.name.lower()}{'' if count == 1 else 's'}"
        for severity, count in report.severities.items()
    )
    yield f"</div><p class=hint>{said}.</p>"


def _map() -> Iterator[str]:
    """Give the place of the map and its legend."""
    yield "<h2>The text</h2>"
    yield f"<p class=lead>Each cell is {_CELL_WORDS} instructions; rare kinds are drawn larger than they are. "
    yield "Click one to see its findings.</p><div class=card><div class=legend>"
    labels = (*_LABELS.items(), ("padding", "padding"))
    yield "".join(f"<span class='key {name}'>{label}</span>" for name, label in labels)
    yield "</div><canvas id=map></canvas></div>"


def _parts(image: ImageReport, examples: dict[Finding, int]) -> Iterator[str]:
    """Give the sections of the report: what they counted, and each code with an example."""
    yield "<h2>Regions</h2><div class='card scroll'><table><tr><th>region<th class=n>functions"
    yield "".join(f"<th class=n>{_LABELS[name]}" for name in KEYS) + "<th class=n>padding</tr>"
    for each in image.audit.coverage.sections:
        if not sum(int(each.words[cover]) for cover in KEYS.values()):
            continue
        count = sum(int(each.functions[cover]) for cover in KEYS.values())
        cells = "".join(_cell(int(each.words[cover])) for cover in (*KEYS.values(), Cover.PADDING))
        yield f"<tr><td>{escape(each.name)}<td class=n>{count:,}{cells}</tr>"
    yield "</table></div>"
    for part in Part:
        groups, said = image.part(part), list(facts(image, part))
        if not groups and not said:
            continue
        yield f"<h2>{escape(part.value)}</h2>"
        yield "".join(f"<p class=lead>{escape(line)}.</p>" for line in said)
        yield "<div class=codes>"
        for code, found in groups.items():
            yield from _code_card(image, code, found, examples[found[0]])
        yield "</div>"


def _cell(count: int) -> str:
    return f"<td class=n>{count:,}" if count else "<td class='n zero'>0"


def _code_card(image: ImageReport, code: str, found: list[Finding], example: int) -> Iterator[str]:
    """Give one code: heading, meaning, repair, example."""
    info = CATALOGUE[code]
    level = info.severity.name.lower()
    shown = image.show(found[0])
    yield f"<details class=card{' open' if level == 'error' else ''}><summary>"
    yield f"<span class=count>{len(found):,}</span><span class='pill {level}'>{level}</span>"
    yield f"<span class=what>{escape(info.title)}<small>{code}</small></span>"
    yield f"<span class=owner>{escape(info.owner.value)}</span></summary><div class=body>"
    yield f"<p>{escape(info.meaning)}</p><p class=fix>{escape(info.fix)}</p>"
    for finding in found if code in {"site-none", "trampoline-window"} else found[:1]:
        shown = image.show(finding)
        if not finding.address:
            continue
        yield f"<div class=example><div class=at>{escape(str(shown.place))}</div>"
        if shown.source:
            yield f"<div class=src>{escape(shown.source)}</div>"
        yield f"<div class=msg>{escape(finding.message)}</div>"
        if finding.suggestion:
            yield f"<pre class=asm>{''.join(f'<div>{escape(line)}</div>' for line in finding.suggestion)}</pre>"
        if finding is found[0] and shown.code:
            yield f"<div data-example={example}></div>"
        yield "</div>"
    yield "</div></details>"


def _modules(report: AuditReport) -> Iterator[str]:
    """Give a table of the modules."""
    if len(report.images) < 2:
        return
    yield f"<h2>{len(report.images) - 1:,} modules</h2><div class=card><div class=tools>"
    yield "<input type=search data-rows=module-rows placeholder=module aria-label='search modules'></div>"
    yield "<div class=scroll><table id=module-rows><tr><th>module<th class=n>findings"
    yield "".join(f"<th class=n>{_LABELS[name]}" for name in KEYS) + "</tr>"
    for image in sorted(report.images[1:], key=lambda each: -len(each.findings)):
        cells = "".join(_cell(count) for count in image.addresses().values())
        yield f"<tr><td class=mono>{escape(image.module)}<td class=n>{len(image.findings):,}{cells}</tr>"
    yield "</table></div></div>"


def _trampolines(image: ImageReport) -> Iterator[str]:
    """Give the table of the windows of return trampolines."""
    windows = image.audit.windows
    if not windows:
        return
    yield "<h2>Windows of the return trampolines</h2><div class=card><div class=tools>"
    yield "<input type=search data-rows=window-rows placeholder='name, place' aria-label='search windows'></div>"
    yield "<div class=scroll><table id=window-rows><tr><th>trampoline<th>window<th>return address<th>a walk</tr>"
    for each in windows:
        span = f"+{each.low - each.start:#x} to +{each.high - each.start:#x}"
        yield f"<tr><td class=mono>{escape(each.name)}<br><span class=id>{address(each.low)}</span>"
        yield f"<td>{each.phase}<br><span class=id>{span}</span><td>{escape(each.place)}<td>{escape(each.walk)}</tr>"
    yield "</table></div></div>"


def _explorer() -> Iterator[str]:
    """Give the searchable table of findings; the script fills it."""
    yield "<h2 id=findings>All findings</h2><div class=card><div class=tools>"
    yield "<input type=search id=search placeholder='symbol, address, file, words' aria-label='search findings'>"
    for name, label in (("code", "every code"), ("owner", "every owner"), ("level", "every severity")):
        yield f"<select id={name} aria-label={name}><option value=''>{label}</select>"
    yield "<button id=clear hidden>whole text</button></div><div class=scroll><table><thead><tr><th>severity"
    yield "<th>code, owner<th>place<th>what</tr></thead><tbody id=rows></tbody></table></div>"
    yield "<p class=hint><span id=found></span> <button id=next>show more</button></p></div>"


def _patching(image: ImageReport) -> Iterator[str]:
    """Give the searchable table of functions without patch site; the script fills it."""
    counts = image.audit.patching.counts()
    good, total = next(iter(counts.values()), 0), sum(counts.values())
    yield "<h2>Functions without a patch site</h2>"
    yield f"<p class=lead>{good:,} of {total:,} functions can be traced and live patched.</p><div class=card>"
    yield "<div class=tools><input type=search id=patch-search placeholder=function aria-label='search functions'>"
    yield "<select id=patch-why aria-label=reason><option value=''>every reason</select></div><div class=scroll>"
    yield "<table><thead><tr><th>function<th>reason<th>meaning</tr></thead><tbody id=patch-rows></tbody></table>"
    yield "</div>"
    yield "<p class=hint><span id=patch-found></span> <button id=patch-next>show more</button></p></div>"


def _foot(report: AuditReport) -> Iterator[str]:
    """Give notes and what the proofs take on trust."""
    yield "<footer>"
    yield "".join(f"<p>{escape(note)}</p>" for note in report.notes)
    yield (
        "<p>Proofs assume that callees keep SP and x29 as the procedure call standard says, and that nothing writes "
        f"another frame's saved slots. Made by Surefoot {__version__}.</p></footer>"
    )
