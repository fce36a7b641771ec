"""Layer 8: unwind rules as text and JSON, one entry per distinct rule.

Invariant: rows that say the same are described once; a section with half a million rows has a few thousand
different ones.
"""

from __future__ import annotations

import numpy as np

from surefoot.dtypes import Row
from surefoot.metadata.compare import describe_row
from surefoot.metadata.rules import FunctionFlag, RuleTable

__all__ = ["FLAG_NAMES", "distinct_rules", "flag_names", "row_texts"]

FLAG_NAMES = (
    (FunctionFlag.SIGNAL, "signal frame"),
    (FunctionFlag.OUTERMOST, "outermost"),
    (FunctionFlag.KEY_B, "key B"),
    (FunctionFlag.REPEATED, "repeated block"),
    (FunctionFlag.REFUSED, "refused"),
)


def distinct_rules(rules: RuleTable) -> tuple[Row, Row]:
    """Give one row of each different rule, and (r,) int64 which of them each row is like."""
    if not len(rules):
        none = np.zeros(0, dtype=np.int64)
        return none, none
    names = ("cfa_base", "cfa_off", "fp_rule", "fp_off", "ra_rule", "ra_off", "ra_signed", "side")
    key = np.zeros(len(rules), dtype=np.int64)
    for name in names:
        column = getattr(rules, name).astype(np.int64)
        values, number = np.unique(column, return_inverse=True)
        key = key * values.size + number
        _, key = np.unique(key, return_inverse=True)
    _, first = np.unique(key, return_index=True)
    return first.astype(np.int64), key.astype(np.int64)


def row_texts(rules: RuleTable) -> tuple[list[str], Row]:
    """Give the text of each different rule, and (r,) int64 which one each row has."""
    first, which = distinct_rules(rules)
    return [describe_row(rules, row) for row in first.tolist()], which


def flag_names(flags: int) -> list[str]:
    """Give the names of a function's flags."""
    return [name for flag, name in FLAG_NAMES if flags & flag]
