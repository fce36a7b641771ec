"""A validator for the part of JSON Schema (draft 2020-12) that docs/schema/ uses.

A keyword that it does not know is an error, so that nothing in a schema goes unchecked. In addition to the
standard it can refuse keys that a schema does not describe: consumers ignore them, our own tests must not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SCHEMAS = Path(__file__).parent.parent / "docs" / "schema"
_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
}
_WITHOUT_EFFECT = {
    "$schema",
    "$id",
    "$defs",
    "title",
    "description",
    "then",
    "else",
    "required",
    "additionalProperties",
}


def load(name: str) -> dict[str, Any]:
    """Read docs/schema/NAME."""
    schema: dict[str, Any] = json.loads((SCHEMAS / name).read_text(encoding="utf-8"))
    return schema


def findings(schema: dict[str, Any], value: object) -> list[str]:
    """Give one line for each place where a value is not what the schema says, or says nothing about a key."""
    return list(_check(schema, schema, value, "$"))


def _check(root: dict[str, Any], schema: dict[str, Any], value: Any, where: str) -> Iterator[str]:
    for keyword, wanted in schema.items():
        if keyword in _WITHOUT_EFFECT:
            continue
        if keyword == "$ref":
            yield from _check(root, root["$defs"][wanted.removeprefix("#/$defs/")], value, where)
        elif keyword == "if":
            branch = "else" if any(_check(root, wanted, value, where)) else "then"
            for name, rule in schema[branch]["properties"].items():
                yield from _check(root, rule, value[name], f"{where}.{name}")
        elif keyword == "anyOf":
            if all(any(_check(root, each, value, where)) for each in wanted):
                yield f"{where}: {value!r} fits none of the alternatives"
        elif keyword in {"properties", "propertyNames"}:
            continue
        elif not _KEYWORDS[keyword](wanted, value):
            yield f"{where}: {value!r} against {keyword} {wanted!r}"
    if isinstance(value, dict):
        yield from _check_object(root, schema, value, where)
    if isinstance(value, list) and "items" in schema:
        for i, each in enumerate(value):
            yield from _check(root, schema["items"], each, f"{where}[{i}]")


def _check_object(root: dict[str, Any], schema: dict[str, Any], value: dict[str, Any], where: str) -> Iterator[str]:
    properties, more = schema.get("properties", {}), schema.get("additionalProperties")
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{where}: no {name}"
    for name, each in value.items():
        if "propertyNames" in schema:
            yield from _check(root, schema["propertyNames"], name, f"{where}.{name}")
        if name in properties:
            yield from _check(root, properties[name], each, f"{where}.{name}")
        elif more is not None:
            yield from _check(root, more, each, f"{where}.{name}")
        elif properties and "required" in schema:
            yield f"{where}: {name} is not described"


def _has_type(wanted: str | list[str], value: object) -> bool:
    return any(_TYPES[name](value) for name in ([wanted] if isinstance(wanted, str) else wanted))


_KEYWORDS: dict[str, Callable[[Any, Any], bool]] = {
    "type": _has_type,
    "const": lambda wanted, value: wanted == value and type(wanted) is type(value),
    "enum": lambda wanted, value: value in wanted,
    "pattern": lambda wanted, value: not isinstance(value, str) or re.search(wanted, value) is not None,
    "minLength": lambda wanted, value: len(value) >= wanted,
    "maxLength": lambda wanted, value: len(value) <= wanted,
    "minimum": lambda wanted, value: value is None or value >= wanted,
    "uniqueItems": lambda wanted, value: not wanted or len(set(value)) == len(value),
    "items": lambda _wanted, value: isinstance(value, list),
}
