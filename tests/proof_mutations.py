"""Damage to rules and to code, one per function at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np
from numpy.typing import NDArray

from surefoot.metadata.rules import CfaBase, FpRule, RaRule, RuleTable

__all__ = ["mutate_rules", "mutate_words"]

Rng = np.random.Generator
Columns = dict[str, NDArray[np.generic]]


def mutate_rules(rules: RuleTable, funcs: Sequence[int], rng: Rng) -> RuleTable:
    """Give the table with one row of each of some functions changed: an offset, a base, a place, a boundary."""
    columns: Columns = {item.name: getattr(rules, item.name).copy() for item in fields(rules)[:10]}
    ends = rules.end
    for func in funcs:
        first = int(rules.functions.first_row[func])
        row = first + int(rng.integers(rules.functions.row_count[func]))
        last = first + int(rules.functions.row_count[func]) - 1
        kind = int(rng.integers(6))
        if kind == 0:
            columns["cfa_off"][row] += rng.choice([-64, -32, -16, -8, 8, 16, 32, 48])
        elif kind == 1:
            columns["cfa_base"][row] = int(CfaBase.SP) + int(CfaBase.FP) - int(rules.cfa_base[row])
        elif kind == 2:
            _move_saved(columns, row, rng)
        elif kind == 3:
            _change_place(columns, row, rng)
        elif kind == 4 and row > first:
            _move_boundary(columns, row, int(ends[row - 1 : row + 1].max()), rng)
        else:
            other = first + int(rng.integers(last - first + 1))
            for name in ("cfa_base", "cfa_off", "fp_rule", "fp_off", "ra_rule", "ra_off"):
                columns[name][row] = columns[name][other]
    return replace(rules, **columns)  # type: ignore[arg-type]


def _move_saved(columns: Columns, row: int, rng: Rng) -> None:
    """Move the place of x29 or of the return address, or exchange the two."""
    by = int(rng.choice([-16, -8, 8, 16]))
    which = int(rng.integers(3))
    if which == 2:
        fp = columns["fp_off"][row]
        columns["fp_off"][row] = columns["ra_off"][row]
        columns["ra_off"][row] = fp
        return
    name, rule = (("fp_off", "fp_rule"), ("ra_off", "ra_rule"))[which]
    columns[name][row] = columns[name][row] + np.int32(by)
    columns[rule][row] = int(FpRule.AT_CFA if which == 0 else RaRule.AT_CFA)


def _change_place(columns: Columns, row: int, rng: Rng) -> None:
    """Let x29 or the return address be in the register, or in memory at a likely place."""
    name, rule, kept, saved = (
        ("fp_off", "fp_rule", int(FpRule.UNCHANGED), int(FpRule.AT_CFA)),
        ("ra_off", "ra_rule", int(RaRule.IN_LR), int(RaRule.AT_CFA)),
    )[int(rng.integers(2))]
    was_saved = int(columns[rule][row]) == saved
    columns[rule][row] = kept if was_saved else saved
    columns[name][row] = 0 if was_saved else -8 * int(rng.integers(1, 6))


def _move_boundary(columns: Columns, row: int, end: int, rng: Rng) -> None:
    """Let a row begin earlier or later, within its neighbours."""
    start = columns["start"]
    low, high = int(start[row - 1]), end
    places = [place for place in (-8, -4, 4, 8) if low < int(start[row]) + place < high]
    if places:
        start[row] = int(start[row]) + int(rng.choice(places))


def mutate_words(words: NDArray[np.uint32], spans: Sequence[tuple[int, int]], rng: Rng) -> NDArray[np.uint32]:
    """Give code with one word changed in each span of indices: a bit, an offset, a NOP, or a word from elsewhere."""
    changed = words.copy()
    for low, high in spans:
        at = int(rng.integers(low, high))
        stack = [place for place in range(low, high) if _near_frame(int(words[place]))]
        if stack and rng.random() < 0.7:
            at = int(rng.choice(stack))
        kind = int(rng.integers(5))
        if kind == 0:
            changed[at] ^= np.uint32(1 << int(rng.integers(32)))
        elif kind == 1:
            changed[at] ^= np.uint32(1 << int(rng.integers(10, 22)))
        elif kind == 2:
            changed[at] = 0xD503_201F
        elif kind == 3:
            changed[at] = words[int(rng.integers(words.size))]
        else:
            other = int(rng.integers(low, high))
            changed[at], changed[other] = words[other], words[at]
    return changed


def _near_frame(word: int) -> bool:
    """Whether a word names SP, x29 or x30 in a load, a store, or an addition."""
    memory = word & 0x3A00_0000 == 0x2800_0000 or word & 0x3B00_0000 in {0x3800_0000, 0x3900_0000}
    moved = word & 0x1F00_0000 == 0x1100_0000
    return (memory or moved) and not {29, 30, 31}.isdisjoint({word & 31, (word >> 5) & 31})
