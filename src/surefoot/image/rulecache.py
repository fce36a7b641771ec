"""Layer 3: rule tables as plain arrays and back, for whoever keeps them on disk. Pure.

Invariant: unpack(pack(table)) equals the table, and arrays that no table gives are refused, so that what a cache
returns can be believed as far as its checksum.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from surefoot.errors import Inconsistent
from surefoot.metadata.rules import SIDE_DTYPE, Abi, FunctionIndex, RuleTable

__all__ = ["PACKED_VERSION", "pack", "unpack"]

PACKED_VERSION: Final = 1
"""Changes whenever the columns do, or what the decoders make of the same bytes."""
_COLUMNS: Final = {
    "start": "u8",
    "cfa_base": "u1",
    "cfa_off": "i4",
    "fp_rule": "u1",
    "fp_off": "i4",
    "ra_rule": "u1",
    "ra_off": "i4",
    "ra_signed": "?",
    "func": "i4",
    "side": "i4",
}
_INDEX: Final = {
    "start": "u8",
    "size": "u8",
    "first_row": "i8",
    "row_count": "i8",
    "provenance": "u1",
    "flags": "u1",
    "source_off": "i8",
    "section": "i4",
    "rep_size": "u1",
    "reason": "i2",
}


def pack(table: RuleTable) -> dict[str, NDArray[Any]]:
    """Give a table as named arrays without objects in them."""
    arrays: dict[str, NDArray[Any]] = {name: getattr(table, name) for name in _COLUMNS}
    arrays |= {f"functions.{name}": getattr(table.functions, name) for name in _INDEX}
    arrays["side_rules"] = table.side_rules
    arrays["expressions"] = np.frombuffer(table.expressions, dtype=np.uint8)
    text = "".join(reason + "\0" for reason in table.reasons)
    arrays["reasons"] = np.frombuffer(text.encode(), dtype=np.uint8)
    arrays["abi"] = np.array([table.abi], dtype=np.uint8)
    return arrays


def unpack(arrays: dict[str, NDArray[Any]]) -> RuleTable:
    """Give the table that `pack` was given.

    Raises:
        Inconsistent: arrays are missing, of another type, or do not fit each other.
    """
    wanted = dict(_COLUMNS) | {f"functions.{name}": kind for name, kind in _INDEX.items()}
    wanted |= {"expressions": "u1", "reasons": "u1", "abi": "u1"}
    types = {name: np.dtype(kind) for name, kind in wanted.items()} | {"side_rules": SIDE_DTYPE}
    for name, dtype in types.items():
        if name not in arrays or arrays[name].dtype != dtype or arrays[name].ndim != 1:
            raise Inconsistent(f"packed rule table: array {name} is missing or of another type")
    size = arrays["functions.start"].size
    index = FunctionIndex(**{name: arrays[f"functions.{name}"] for name in _INDEX})
    for item in fields(FunctionIndex):
        if getattr(index, item.name).size != size:
            raise Inconsistent(f"packed rule table: functions.{item.name} does not have {size} entries")
    try:
        abi = Abi(int(arrays["abi"][0]))
        reasons = tuple(arrays["reasons"].tobytes().decode().split("\0")[:-1])
    except (ValueError, IndexError) as error:
        raise Inconsistent("packed rule table: unknown ABI or damaged reasons") from error
    table = RuleTable(
        **{name: arrays[name] for name in _COLUMNS},
        functions=index,
        side_rules=arrays["side_rules"],
        expressions=arrays["expressions"].tobytes(),
        reasons=reasons,
        abi=abi,
    )
    table.check()
    return table
