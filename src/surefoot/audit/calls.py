"""Layer 6: calls that are the last instruction of their function, whose return address is in the next one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from surefoot.audit.findings import Finding
from surefoot.audit.subject import Subject
from surefoot.dtypes import Addr, Mask, Row
from surefoot.image.symbols import SymbolKind
from surefoot.isa.branches import branch_target, is_bl, is_call

__all__ = ["EndCalls", "call_findings", "end_calls"]


@dataclass(frozen=True)
class EndCalls:
    """Calls at the end of functions; k of them.

    Attributes:
        call: (k,) uint64, address of the call.
        row: (k,) int64, its code range.
        target: (k,) uint64, where it goes; 0 for calls through a register.
        crosses: (k,) bool, kallsyms attributes the return address to another function.
        at_start: (k,) bool, it is the first byte of another function.
    """

    call: Addr
    row: Row
    target: Addr
    crosses: Mask
    at_start: Mask


def end_calls(subject: Subject) -> EndCalls:
    """Find the calls whose return address lies outside of their function."""
    ranges, functions = subject.ranges, subject.image.functions
    rows = np.flatnonzero(ranges.kind == SymbolKind.FUNC)
    last = ranges.end[rows] - np.uint64(4)
    words, known = subject.map.word_at(last)
    # A nested symbol cuts a range: the call is at the end of its function only if the symbol ends there too.
    ends = functions.end[ranges.function[rows]] == ranges.end[rows]
    calls = np.flatnonzero(known & is_call(words) & ends)
    rows, last, words = rows[calls], last[calls], words[calls]
    behind = last + np.uint64(4)
    target = np.where(is_bl(words), branch_target(words, last), np.uint64(0))
    nearest = functions.nearest(behind)
    safe = np.maximum(nearest, 0)
    crosses = (
        (nearest >= 0) & (functions.addr[safe] > last) if len(functions) else np.zeros(rows.size, dtype=np.bool_)
    )
    return EndCalls(last, rows, target, crosses, functions.starts_at(behind))


def call_findings(subject: Subject) -> Iterator[Finding]:
    """Yield one finding for each return address that kallsyms gives to the next function."""
    found = end_calls(subject)
    ranges = subject.ranges
    for k in np.flatnonzero(found.crosses).tolist():
        call = int(found.call[k])
        target = int(found.target[k])
        callee = (subject.name_at(target) or f"{target:#x}") if target else "a function pointer"
        following = subject.name_at(call + 4)
        message = (
            f"The call of {callee} is the last instruction: its return address is the first byte of {following}, "
            "which a check of raw return addresses takes for running, and not this function"
        )
        yield Finding("call-at-end", call, ranges.names[int(found.row[k])], message)
