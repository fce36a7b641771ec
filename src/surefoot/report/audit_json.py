"""Layer 8: the JSON of `surefoot audit`: surefoot.audit/1, described by docs/schema/audit-1.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from surefoot.audit.catalogue import CATALOGUE
from surefoot.audit.fixups import TYPES
from surefoot.audit.live import Live
from surefoot.audit.patching import REASONS
from surefoot.audit.subject import Subject
from surefoot.audit.textmap import Cover
from surefoot.image.livetext import Change
from surefoot.report.audit_code import CodeLine
from surefoot.report.audit_view import KEYS, AuditReport, ImageReport, Shown
from surefoot.report.schema import address

__all__ = ["SCHEMA", "audit_json", "finding_json"]

SCHEMA: Final = "surefoot.audit/1"
"""docs/schema/audit-1.json."""
_Object = dict[str, object]


def audit_json(report: AuditReport) -> Mapping[str, object]:
    """Give the object that `surefoot audit --json` prints."""
    main = report.main
    return {
        "schema": SCHEMA,
        "image": main.name,
        "build_id": main.build_id,
        "addresses": report.addresses(),
        "functions": report.functions(),
        "severities": {severity.name.lower(): count for severity, count in report.severities.items()},
        "codes": _codes(report),
        "images": [_image(image) for image in report.images],
        "findings": [
            finding_json(image.show(finding), image) for image in report.images for finding in image.findings
        ],
        "notes": list(report.notes),
    }


def _codes(report: AuditReport) -> list[_Object]:
    """Give the codes that were found, with what they mean."""
    counts = dict.fromkeys(CATALOGUE, 0)
    for image in report.images:
        for finding in image.findings:
            counts[finding.code] += 1
    return [
        {
            "code": code,
            "count": count,
            "severity": CATALOGUE[code].severity.name.lower(),
            "owner": CATALOGUE[code].owner.value,
            "part": CATALOGUE[code].part.value,
            "title": CATALOGUE[code].title,
            "meaning": CATALOGUE[code].meaning,
            "fix": CATALOGUE[code].fix,
        }
        for code, count in counts.items()
        if count
    ]


def finding_json(shown: Shown, image: ImageReport) -> _Object:
    """Give a finding as JSON."""
    finding = shown.finding
    return {
        "code": finding.code,
        "severity": shown.info.severity.name.lower(),
        "owner": shown.info.owner.value,
        "address": address(finding.address),
        "symbol": finding.symbol,
        "offset": shown.place.offset,
        "module": image.module or None,
        "size": finding.size,
        "count": finding.count,
        "edge": address(finding.edge) if finding.edge else None,
        "source": shown.source or None,
        "message": finding.message,
        "suggestion": list(finding.suggestion),
        "disassembly": [_line(line) for line in shown.code],
    }


def _line(line: CodeLine) -> _Object:
    return {
        "address": address(line.address) if line.address else None,
        "offset": line.offset,
        "text": line.text,
        "row": line.row or None,
        "verdict": line.verdict or None,
        "mark": {">": "finding", "e": "edge"}.get(line.mark),
    }


def _image(image: ImageReport) -> _Object:
    """Give the counts of one image."""
    audit = image.audit
    fixups, patched, patching = audit.fixups, audit.patched, audit.patching
    kinds = {int(kind) for kind in fixups.table.type}
    return {
        "name": image.name,
        "module": image.module or None,
        "build_id": image.build_id,
        "addresses": image.addresses(),
        "functions": image.functions(),
        "regions": [
            {
                "name": each.name,
                "start": address(each.start),
                "end": address(each.end),
                "addresses": {name: int(each.words[cover]) for name, cover in KEYS.items()},
                "functions": {name: int(each.functions[cover]) for name, cover in KEYS.items()},
                "padding": int(each.words[Cover.PADDING]),
            }
            for each in audit.coverage.sections
        ],
        "calls_at_end": {
            "all": int(audit.end_calls.call.size),
            "in_next_symbol": int(audit.end_calls.crosses.sum()),
            "at_its_start": int((audit.end_calls.crosses & audit.end_calls.at_start).sum()),
        },
        "signing": _signing(audit.subject),
        "never_return": _never_return(audit.subject),
        "exception_table": {
            "entries": int(fixups.table.insn.size),
            "types": {TYPES.get(kind, str(kind)): int((fixups.table.type == kind).sum()) for kind in sorted(kinds)},
            "leave_function": int(fixups.leaves.sum()),
            "with_rows": int(fixups.has_rows.sum()),
            "rows_differ": int(fixups.differ.sum()),
        },
        "rewritten": {
            "alternatives": patched.entries,
            "callbacks": patched.callbacks,
            "words": patched.words,
            "frame_changes": int(patched.addr.size),
            "static_branches": patched.jumps,
            "patch_sites": patched.sites,
            "runtime_constants": patched.constants,
        },
        "vectors": {
            "address": address(audit.vectors.addr) if audit.vectors.addr else None,
            "targets": list(audit.vectors.target),
            "templates": audit.vectors.family.tolist(),
        },
        "trampolines": _trampolines(image),
        "live_patching": {
            "configured": patching.livepatch,
            "call_ops": patching.call_ops,
            "functions": dict(
                zip((name.replace(" ", "_") for name in REASONS), patching.counts().values(), strict=True)
            ),
        },
        "live": None if image.live is None else _live(image.live),
    }


def _trampolines(image: ImageReport) -> list[_Object]:
    """Give the windows of return trampolines."""
    return [
        {
            "name": each.name,
            "phase": each.phase,
            "start": address(each.low),
            "end": address(each.high),
            "return_address": each.place,
            "walk": each.walk,
        }
        for each in image.audit.windows
    ]


def _signing(subject: Subject) -> _Object | None:
    """Give what is known of rows that say whether the return address is signed."""
    found = subject.signing
    if found is None:
        return None
    return {"claimed": found.claimed, "wrong": int(found.wrong.size), "open": int(found.open.size)}


def _never_return(subject: Subject) -> _Object:
    """Give how many functions never return, by the code and by the compiler."""
    told = subject.promised
    return {
        "by_code": 0 if subject.proof is None else int(subject.proof.noreturn.sum()),
        "by_compiler": None if told is None else int(told.starts.size),
        "with_return": None if told is None else int(told.broken.sum()),
    }


def _live(live: Live) -> _Object:
    """Give what the comparison with a running kernel counted."""
    causes = live.differences.cause
    return {
        "name": live.name,
        "compared": live.words,
        "differences": {change.name.lower(): count for change in Change if (count := int((causes == change).sum()))},
        "touched": int(live.touched.size),
        "worse": int(live.worse.size),
    }
