"""The part of SARIF 2.1.0 that we write, as a schema that allows nothing else; made from the standard's text.

Source:
    Static Analysis Results Interchange Format (SARIF) Version 2.1.0, OASIS Standard, sections 3.13 to 3.58.
"""

from __future__ import annotations

from typing import Any, Final

import json_schema

_TEXT: Final = {"type": "object", "properties": {"text": {"type": "string", "minLength": 1}}, "required": ["text"]}
_LEVEL: Final = {"enum": ["none", "note", "warning", "error"]}
_URI: Final = {"type": "string", "minLength": 1, "pattern": r"^[A-Za-z0-9._~%/@+,;=!$&'()*-]+$"}
_INDEX: Final = {"type": "integer", "minimum": 0}
_BAG: Final = {"type": "object"}


def _object(required: tuple[str, ...], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


def _array(items: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, **more}


_ARTIFACT_LOCATION: Final = _object(("uri",), uri=_URI, index=_INDEX)
_ADDRESS: Final = _object(
    (),
    relativeAddress={"type": "integer"},
    fullyQualifiedName={"type": "string"},
    kind={
        "enum": [
            "data",
            "function",
            "header",
            "instruction",
            "module",
            "page",
            "section",
            "segment",
            "stack",
            "table",
        ]
    },
)
_PHYSICAL: Final = _object(
    ("artifactLocation",),
    artifactLocation=_ARTIFACT_LOCATION,
    address=_ADDRESS,
    region=_object(("startLine",), startLine={"type": "integer", "minimum": 1}),
)
_LOCATION: Final = _object(
    ("physicalLocation",),
    id=_INDEX,
    message=_TEXT,
    physicalLocation=_PHYSICAL,
    logicalLocations=_array(_object(("name",), name={"type": "string"}, kind={"type": "string"})),
)
_RULE: Final = _object(
    ("id",),
    id={"type": "string", "minLength": 1},
    name={"type": "string"},
    shortDescription=_TEXT,
    fullDescription=_TEXT,
    help=_TEXT,
    defaultConfiguration=_object((), level=_LEVEL),
    properties=_BAG,
)
_RESULT: Final = _object(
    ("message", "ruleId"),
    ruleId={"type": "string"},
    ruleIndex=_INDEX,
    level=_LEVEL,
    message=_TEXT,
    locations=_array(_LOCATION),
    relatedLocations=_array(_LOCATION),
    partialFingerprints={"type": "object", "additionalProperties": {"type": "string"}},
    occurrenceCount={"type": "integer", "minimum": 1},
    properties=_BAG,
)
_DRIVER: Final = _object(
    ("name",), name={"type": "string", "minLength": 1}, semanticVersion={"type": "string"}, rules=_array(_RULE)
)
_NOTICE: Final = _object(("message",), level=_LEVEL, message=_TEXT)
_INVOCATION: Final = _object(
    ("executionSuccessful",), executionSuccessful={"type": "boolean"}, toolExecutionNotifications=_array(_NOTICE)
)
_ARTIFACT: Final = _object(
    (), location=_ARTIFACT_LOCATION, roles=_array({"enum": ["analysisTarget"]}, uniqueItems=True), properties=_BAG
)
_RUN: Final = _object(
    ("tool",),
    tool=_object(("driver",), driver=_DRIVER),
    invocations=_array(_INVOCATION),
    artifacts=_array(_ARTIFACT),
    columnKind={"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
    results=_array(_RESULT),
)
SCHEMA: Final = _object(("version", "runs"), version={"const": "2.1.0"}, runs=_array(_RUN)) | {"$defs": {}}
SCHEMA["properties"]["$schema"] = {"type": "string"}


def findings(log: object) -> list[str]:
    """Give one line for each place where a log is not what the standard says, or says what we do not write."""
    return json_schema.findings(SCHEMA, log)
