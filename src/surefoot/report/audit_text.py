"""Layer 8: an audit as text for a terminal.

Invariant: pure: a report and a style in, lines out. The text counts everything and shows examples; JSON has all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from surefoot.audit.catalogue import Part, Severity
from surefoot.audit.findings import Finding
from surefoot.audit.fixups import TYPES
from surefoot.audit.patching import REASONS
from surefoot.audit.textmap import Cover
from surefoot.image.livetext import Change
from surefoot.report.audit_view import KEYS, AuditReport, ImageReport, Shown, is_local
from surefoot.report.style import Style, printable, wrap

__all__ = ["audit_text", "facts"]

_BAR: Final = 48
_SUGGESTED: Final = 8
"""Lines of a suggestion that are printed; the other formats have all."""
_NAMES: Final = {"proven": "proven", "refuted": "refuted", "unproven": "unproven", "no_metadata": "no metadata"}
_FILLS: Final = {"proven": "█", "refuted": "▓", "unproven": "▒", "no_metadata": "░"}
_PLAIN: Final = {"proven": "#", "refuted": "x", "unproven": "?", "no_metadata": "."}


def audit_text(report: AuditReport, style: Style, *, examples: int = 1, quiet: bool = False) -> Iterator[str]:
    """Yield the report, line by line, each ended by a newline.

    Args:
        report: what to print.
        style: of the terminal.
        examples: findings shown of each code.
        quiet: leave out what the codes mean and how to repair them.
    """
    main = report.main
    yield from _lines(_head(main, style))
    yield from _lines(_totals(report, style))
    yield from _lines(_regions(main, style))
    for part in Part:
        groups = main.part(part)
        said = list(facts(main, part))
        if not groups and not said:
            continue
        yield from _lines(_title(part.value, style))
        yield from _lines(f"  {style.dim}{line}{style.off}" for fact in said for line in wrap(fact, style.body - 2))
        for code, findings in groups.items():
            yield from _lines(_code(main, code, findings, style, examples=examples, quiet=quiet))
    yield from _lines(_modules(report, style))
    yield from _lines(_verdict(report, style))


def _lines(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        yield f"{line}\n"


def _head(image: ImageReport, style: Style) -> Iterator[str]:
    """Give the heading: the image and its build-id."""
    text = printable(image.name)
    fill = style.glyphs.rule * max(style.body - len(text) - len(image.build_id) - 12, 1)
    yield f"{style.strong}{text}{style.off} {style.dim}{fill} build-id {image.build_id or 'none'}{style.off}"
    yield ""


def _look(name: str, style: Style) -> str:
    return {"proven": style.good, "refuted": style.bad, "unproven": style.mark}.get(name, style.dim)


def _bar(counts: dict[str, int], style: Style) -> str:
    """Draw the shares as one bar; what is there at all gets at least one cell."""
    total = sum(counts.values())
    if not total:
        return ""
    cells = {name: max(round(_BAR * count / total), 1) if count else 0 for name, count in counts.items()}
    cells["proven"] = max(cells["proven"] - (sum(cells.values()) - _BAR), 0)
    fills = _PLAIN if style.glyphs.rule == "-" else _FILLS
    return "".join(f"{_look(name, style)}{fills[name] * count}{style.off}" for name, count in cells.items())


def _totals(report: AuditReport, style: Style) -> Iterator[str]:
    """Give instructions and functions by verdict."""
    for title, counts in (("instructions", report.addresses()), ("functions", report.functions())):
        total = sum(counts.values())
        yield f"  {style.strong}{total:>11,} {title:<13}{style.off} {_bar(counts, style)}"
        if not total:
            continue
        words = [f"{_look(n, style)}{c:,} {_NAMES[n]}{style.off} {_share(c, total)}" for n, c in counts.items()]
        yield f"  {'':25} {' · '.join(words) if style.glyphs.rule != '-' else ', '.join(words)}"
    yield ""


def _share(count: int, total: int) -> str:
    """Give a share in percent that does not round to 0 or 100 what is neither."""
    if count in {0, total}:
        return "0 %" if not count else "100 %"
    value = 100 * count / total
    return f"{min(max(value, 0.01), 99.99):.2f} %"


def _regions(image: ImageReport, style: Style) -> Iterator[str]:
    """Give a line for each region of the text that holds functions."""
    rows = [each for each in image.audit.coverage.sections if sum(each.words[cover] for cover in KEYS.values())]
    if not rows:
        return
    merged: dict[str, tuple[list[int], list[int]]] = {}
    for each in rows:
        words, functions = merged.setdefault(each.name, ([0] * len(Cover), [0] * len(Cover)))
        for cover in Cover:
            words[cover] += int(each.words[cover])
            functions[cover] += int(each.functions[cover])
    width = max(len(name) for name in merged)
    heads = "".join(f"{_NAMES[name]:>13}" for name in KEYS)
    yield f"  {style.dim}{'region':<{width}}{'functions':>11}{heads}{'padding':>11}  instructions{style.off}"
    for name, (words, functions) in merged.items():
        cells = "".join(_cell(key, words[cover], style) for key, cover in KEYS.items())
        count = sum(functions[cover] for cover in KEYS.values())
        yield f"  {name:<{width}}{count:>11,}{cells}{style.dim}{words[Cover.PADDING]:>11,}{style.off}"
    yield ""


def _cell(name: str, count: int, style: Style) -> str:
    """Give a right-aligned count, a dim dot for none."""
    if not count:
        return f"{style.dim}{'·' if style.glyphs.rule != '-' else '-':>13}{style.off}"
    return f"{_look(name, style)}{count:>13,}{style.off}"


def _title(text: str, style: Style) -> Iterator[str]:
    """Give the heading of a section."""
    fill = style.glyphs.rule * max(style.body - len(text) - 1, 1)
    yield f"{style.strong}{text}{style.off} {style.dim}{fill}{style.off}"


def facts(image: ImageReport, part: Part) -> Iterator[str]:
    """Yield what a section counted, faults or not."""
    audit = image.audit
    if part is Part.PROOFS and audit.subject.signing is not None and audit.subject.signing.claimed:
        signing = audit.subject.signing
        yield (
            f"Rows say of {signing.claimed:,} proved instructions that the return address is signed; of all proved "
            f"ones {signing.wrong.size:,} say wrongly whether it is, {signing.open.size:,} are not decided"
        )
    elif part is Part.CALLS and audit.end_calls.call.size:
        found = audit.end_calls
        yield from _never(image)
        yield (
            f"{found.call.size:,} functions end with a call; {int(found.crosses.sum()):,} of their return addresses "
            f"belong to the next symbol, {int((found.crosses & found.at_start).sum()):,} of them are its first byte"
        )
    elif part is Part.FIXUPS and audit.fixups.table.insn.size:
        table, fixups = audit.fixups.table, audit.fixups
        kinds = sorted({int(kind) for kind in table.type})
        listed = ", ".join(f"{int((table.type == kind).sum()):,} {TYPES.get(kind, kind)}" for kind in kinds)
        yield (
            f"{table.insn.size:,} entries ({listed}): {int(fixups.leaves.sum())} leave their function; rows at fault "
            f"and fixup agree for {int((fixups.has_rows & ~fixups.differ).sum()):,} of "
            f"{int(fixups.has_rows.sum()):,} that have both"
        )
    elif part is Part.PATCHED and (audit.patched.entries or audit.patched.sites):
        patched = audit.patched
        yield (
            f"{patched.entries:,} alternatives ({patched.callbacks:,} written by callbacks; {patched.words:,} words "
            f"with a given replacement, {patched.addr.size} of which change SP, x29 or x30), {patched.jumps:,} "
            f"static branches, {patched.sites:,} patch sites, {patched.constants:,} words with runtime constants"
        )
    elif part is Part.ENTRY and audit.vectors.addr:
        count = len(set(audit.vectors.family.tolist()))
        where = f"{audit.vectors.addr:016x}"
        yield f"16 vectors at {where}, {count} instances of one template (EL1, 64-bit EL0, 32-bit EL0)"
    elif part is Part.PATCHING and audit.patching.rows.size:
        counts = audit.patching.counts()
        total = sum(counts.values())
        without = ", ".join(f"{counts[name]:,} {name}" for name in list(REASONS)[1:] if counts[name])
        literal = " with room for their ftrace_ops" if audit.patching.call_ops else ""
        yield f"{counts['has a site']:,} of {total:,} functions have a patch site{literal}; without: {without}"
    elif part is Part.LIVE and image.live is not None:
        yield from _live_facts(image)


def _never(image: ImageReport) -> Iterator[str]:
    """Yield how many functions never return, by the code and by the compiler."""
    subject = image.audit.subject
    code = int(subject.proof.noreturn.sum()) if subject.proof is not None else 0
    said = f"{code:,} functions never return, as their code shows"
    told = subject.promised
    if told is None:
        yield said
        return
    broken = int(told.broken.sum())
    yield f"{said}; the compiler says so of {told.starts.size:,}, {broken:,} of which have a return all the same"


def _live_facts(image: ImageReport) -> Iterator[str]:
    """Yield what the comparison with a running kernel counted."""
    live = image.live
    if live is None:
        return
    causes = live.differences.cause
    listed = ", ".join(
        f"{count:,} {change.name.lower().replace('_', ' ')}"
        for change in Change
        if (count := int((causes == change).sum()))
    )
    yield (
        f"{live.words:,} words of {live.name} compared, {len(live.differences):,} differ ({listed or 'none'}); "
        f"{live.touched.size:,} functions were proved again over the live words, {live.worse.size:,} are worse"
    )


def _code(
    image: ImageReport, code: str, findings: Sequence[Finding], style: Style, *, examples: int, quiet: bool
) -> Iterator[str]:
    """Give one finding code: heading, meaning, examples."""
    info = findings[0].info
    look = {Severity.ERROR: style.bad, Severity.WARNING: style.mark}.get(info.severity, style.dim)
    yield ""
    name = info.severity.name.lower()
    yield (
        f"  {look}{name:<7}{style.off} {style.strong}{len(findings):>6,}  {code}{style.off}  {info.title}  "
        f"{style.dim}[{info.owner.value}]{style.off}"
    )
    indent = " " * 18
    if not quiet:
        yield from wrap(info.meaning, style.body, indent)
        yield from (f"{style.dim}{line}{style.off}" for line in wrap(f"Fix: {info.fix}", style.body, indent))
    shown = len(findings) if code in {"site-none", "trampoline-window"} else examples
    for finding in findings[:shown]:
        yield from _example(image.show(finding), style, indent)
    if len(findings) > shown > 0:
        more = dict.fromkeys(f.symbol for f in findings[shown:])
        names = ", ".join(printable(name) for name in list(more)[:4] if name)
        rest = f"and {len(findings) - shown:,} more" + (f": {names}" if names else "")
        yield from (
            f"{style.dim}{line}{style.off}"
            for line in wrap(rest + (", …" if len(more) > 4 else ""), style.body, indent)
        )


def _example(shown: Shown, style: Style, indent: str) -> Iterator[str]:
    """Give one finding: place, message, instructions."""
    if shown.finding.address:
        source = f"  {style.module}{printable(shown.source)}{style.off}" if shown.source else ""
        yield f"{indent}{style.strong}{printable(str(shown.place))}{style.off}{source}"
    if shown.finding.message != shown.info.meaning:
        yield from wrap(printable(shown.finding.message), style.body, indent + "  ")
    if is_local(shown.finding):
        yield from _listing(shown, style, indent + "  ")
    lines = shown.finding.suggestion
    for line in lines if len(lines) <= _SUGGESTED else (*lines[: _SUGGESTED - 2], "...", lines[-1]):
        yield f"{indent}    {style.dim}{line}{style.off}"


def _listing(shown: Shown, style: Style, indent: str) -> Iterator[str]:
    """Give the instructions around a finding, the claimed rows on the right where they change."""
    width = max((len(line.text) for line in shown.code), default=0)
    for line in shown.code:
        if not line.address:
            yield f"{indent}{style.dim}  …{style.off}" if style.glyphs.rule != "-" else f"{indent}  ..."
            continue
        mark = {">": style.glyphs.lost, "e": style.glyphs.call[0]}.get(line.mark, " ")
        look = {"refuted": style.bad, "unproven": style.mark}.get(line.verdict, "")
        row = f"  {style.dim}{line.row}{style.off}" if line.row else ""
        text = f"{line.text:<{width}}" if line.row else line.text
        yield f"{indent}{look}{mark} {line.offset:+#7x}  {printable(text)}{style.off if look else ''}{row}"


def _modules(report: AuditReport, style: Style) -> Iterator[str]:
    """Give the modules with faults, the worst first."""
    rows = []
    for image in report.images[1:]:
        worst = dict.fromkeys(Severity, 0)
        for finding in image.findings:
            worst[finding.info.severity] += 1
        rows.append((worst[Severity.ERROR], worst[Severity.WARNING], image.module, image.addresses()))
    if not rows:
        return
    yield ""
    yield from _title(f"{len(rows)} modules", style)
    rows.sort(key=lambda row: (-row[0], -row[1], row[2]))
    for errors, warnings, name, counts in rows[:20]:
        total = sum(counts.values())
        share = _share(counts["proven"], total) if total else "empty"
        yield (
            f"  {style.module}{name:<28}{style.off}{style.bad}{errors:>7,}{style.off} errors"
            f"{style.mark}{warnings:>7,}{style.off} warnings  {style.dim}{total:>9,} instructions, {share} "
            f"proven{style.off}"
        )
    if len(rows) > 20:
        yield f"  {style.dim}and {len(rows) - 20} more, in the JSON{style.off}"


def _verdict(report: AuditReport, style: Style) -> Iterator[str]:
    """Give the last lines: notes and the number of findings by severity."""
    yield ""
    for note in report.notes:
        yield from (f"{style.dim}{line}{style.off}" for line in wrap(note, style.body, "note: ", "      "))
    parts = []
    for severity, count in report.severities.items():
        look = {Severity.ERROR: style.bad, Severity.WARNING: style.mark}.get(severity, style.dim)
        name = severity.name.lower() + ("" if count == 1 else "s")
        parts.append(f"{look}{count:,} {name}{style.off}")
    good = not report.severities[Severity.ERROR]
    mark = f"{style.good}{style.glyphs.ok}{style.off}" if good else f"{style.bad}{style.glyphs.bad}{style.off}"
    yield f"{mark} {', '.join(parts)}"
