"""Layer 8: the differences of two rule tables, by function."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from surefoot.dtypes import Addr, Row32
from surefoot.metadata.compare import Aspect, Comparison, describe_row
from surefoot.report.schema import address

__all__ = ["differences_json"]


def differences_json(result: Comparison, name_of: Callable[[Addr, Row32], list[str]]) -> list[dict[str, object]]:
    """Give one entry per piece of code that the tables treat differently, in address order.

    Args:
        result: the comparison.
        name_of: gives symbols of addresses (offsets in sections).
    """
    starts = np.zeros(len(result), dtype=np.uint64)
    for table, rows in ((result.second, result.second_row), (result.first, result.first_row)):
        have = np.flatnonzero(rows >= 0)
        if have.size:
            starts[have] = table.functions.start[table.func[rows[have]]]
    relative = starts.copy()
    is_rel = result.section >= 0
    relative[is_rel] -= (result.section[is_rel].astype(np.uint64) + np.uint64(1)) << np.uint64(44)
    names = name_of(relative, result.section)
    return [
        {
            "function": address(int(relative[i])),
            "symbol": names[i],
            "section": int(result.section[i]),
            "start": address(int(result.start[i])),
            "bytes": int(result.end[i] - result.start[i]),
            "aspects": [aspect.name.lower() for aspect in Aspect if int(result.aspects[i]) & aspect and aspect.name],
            "first": describe_row(result.first, int(result.first_row[i])),
            "second": describe_row(result.second, int(result.second_row[i])),
        }
        for i in range(len(result))
    ]
