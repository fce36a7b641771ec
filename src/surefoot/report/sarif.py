"""Layer 8: findings as SARIF 2.1.0, the format that code scanning services read.

Addresses of kernels do not fit a JSON number without loss, so `absoluteAddress` is not used: an address object has
the offset from the image's first section, and its full name is "symbol+0xoffset".

Source: Static Analysis Results Interchange Format (SARIF) Version 2.1.0, OASIS Standard.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

from surefoot import __version__
from surefoot.audit.catalogue import CATALOGUE, Severity
from surefoot.report.audit_code import CodeLine
from surefoot.report.audit_view import LISTED, AuditReport, ImageReport, Shown, is_local

__all__ = ["SCHEMA_URI", "sarif"]

SCHEMA_URI: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEVELS: Final = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "note"}
_Object = dict[str, object]


def sarif(report: AuditReport) -> Mapping[str, object]:
    """Give the SARIF log of an audit."""
    used = [code for code in CATALOGUE if any(code in image.by_code for image in report.images)]
    number = {code: i for i, code in enumerate(used)}
    results = []
    for index, image in enumerate(report.images):
        seen = dict.fromkeys(used, 0)
        for finding in image.findings:
            seen[finding.code] += 1
            shown = image.show(finding, code=seen[finding.code] <= LISTED and is_local(finding))
            results.append(_result(shown, image, index, number[finding.code]))
    notes = [{"level": "note", "message": {"text": note}} for note in report.notes]
    return {
        "$schema": SCHEMA_URI,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "surefoot",
                        "semanticVersion": __version__,
                        "rules": [_rule(code) for code in used],
                    }
                },
                "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": notes}],
                "artifacts": [_artifact(image) for image in report.images],
                "columnKind": "unicodeCodePoints",
                "results": results,
            }
        ],
    }


def _rule(code: str) -> _Object:
    """Give a code's line of the catalogue as a rule."""
    info = CATALOGUE[code]
    return {
        "id": code,
        "name": "".join(word.capitalize() for word in code.split("-")),
        "shortDescription": {"text": info.title},
        "fullDescription": {"text": info.meaning},
        "help": {"text": info.fix},
        "defaultConfiguration": {"level": _LEVELS[info.severity]},
        "properties": {"owner": info.owner.value, "part": info.part.value},
    }


def _artifact(image: ImageReport) -> _Object:
    """Describe an image file."""
    return {
        "location": {"uri": _uri(image.name)},
        "roles": ["analysisTarget"],
        "properties": {"buildId": image.build_id},
    }


def _uri(name: str) -> str:
    """Give a file name as a relative URI."""
    from urllib.parse import quote

    return quote(name)


def _result(shown: Shown, image: ImageReport, artifact: int, rule: int) -> _Object:
    """Give one finding."""
    finding = shown.finding
    properties: _Object = {
        "owner": shown.info.owner.value,
        "address": f"{finding.address:#018x}",
        "size": finding.size,
    }
    result: _Object = {
        "ruleId": finding.code,
        "ruleIndex": rule,
        "level": _LEVELS[shown.info.severity],
        "message": {"text": finding.message},
        "locations": [_location(shown, image, artifact)],
        "partialFingerprints": {"surefoot/v1": _fingerprint(shown, image)},
        "properties": properties,
    }
    if shown.code:
        properties["disassembly"] = [_line(line) for line in shown.code]
    if finding.suggestion:
        properties["suggestion"] = list(finding.suggestion)
    if finding.count > 1:
        result["occurrenceCount"] = finding.count
    if shown.source:
        file, _, line = shown.source.rpartition(":")
        where = {"artifactLocation": {"uri": _uri(file)}, "region": {"startLine": max(int(line), 1)}}
        result["relatedLocations"] = [{"id": 1, "physicalLocation": where, "message": {"text": "source line"}}]
    return result


def _line(line: CodeLine) -> str:
    """Write an instruction: mark, offset, text and the row that holds where that changes."""
    if not line.address:
        return "..."
    mark = {">": ">", "e": "-"}.get(line.mark, " ")
    return f"{mark} +{line.offset:#x}  {line.text}{'  | ' + line.row if line.row else ''}"


def _location(shown: Shown, image: ImageReport, artifact: int) -> _Object:
    """Say where a finding is: file, offset from the start of the image, function."""
    finding = shown.finding
    physical: _Object = {"artifactLocation": {"uri": _uri(image.name), "index": artifact}}
    location: _Object = {"physicalLocation": physical}
    base = image.audit.subject.parts[0][0] if image.audit.subject.parts else 0
    if finding.address >= base > 0:
        name = str(shown.place)
        physical["address"] = {
            "relativeAddress": finding.address - base,
            "fullyQualifiedName": name,
            "kind": "function",
        }
    if finding.symbol:
        location["logicalLocations"] = [{"name": finding.symbol, "kind": "function"}]
    return location


def _fingerprint(shown: Shown, image: ImageReport) -> str:
    """Identify a finding over builds: by code, image, function and place in it, not by address."""
    text = f"{shown.finding.code}\0{image.module or 'kernel'}\0{shown.place.symbol}\0{shown.place.offset}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]
