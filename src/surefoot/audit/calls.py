"""Layer 6: calls that never return: return addresses in the next function, and what compiler and code say of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from surefoot.audit.findings import Finding
from surefoot.audit.subject import Subject
from surefoot.dtypes import Addr, Mask, Row
from surefoot.image.symbols import SymbolKind
from surefoot.isa.branches import branch_target, is_bl, is_call, is_ret
from surefoot.proof.prove import Open

__all__ = ["EndCalls", "call_findings", "end_calls", "promise_findings"]


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


def promise_findings(subject: Subject) -> Iterator[Finding]:
    """Yield the functions on which compiler and code disagree; none where the compiler was not asked."""
    told, proof = subject.promised, subject.proof
    if told is None:
        return
    calls, targets = _calls(subject)
    for start in told.starts[told.broken].tolist():
        row = int(subject.range_at(np.array([start], dtype=np.uint64))[0])
        low, high = subject.map.span(subject.ranges.start[row : row + 1], subject.ranges.end[row : row + 1])
        back = np.flatnonzero(is_ret(subject.map.words[int(low[0]) : int(high[0])]))
        name, count = subject.name_at(start), int(np.count_nonzero(targets == np.uint64(start)))
        where = start + 4 * int(back[0]) if back.size else start
        message = (
            f"The compiler takes {name} never to return, but here is a return; it has {count} "
            f"call{'' if count == 1 else 's'}, behind which nothing is meant to run"
        )
        yield Finding("noreturn-returns", where, name, message)
    if proof is None:
        return
    starts = proof.rules.functions.start[proof.noreturn]
    starts = starts[subject.image.functions.starts_at(starts) & ~np.isin(starts, told.starts)]
    behind = proof.index(calls + np.uint64(4))
    vain = (behind >= 0) & (proof.open[np.maximum(behind, 0)] == Open.NOT_REACHED)
    for start in starts.tolist():
        mine = targets == np.uint64(start)
        count, total = int(np.count_nonzero(mine & vain)), int(np.count_nonzero(mine))
        if count:
            name = subject.name_at(start)
            where = ", ".join(dict.fromkeys(subject.name_at(call) for call in calls[mine & vain][:_SOME].tolist()))
            message = (
                f"{name} never returns, which is not declared: nothing reaches the code behind {count} of {total} "
                f"call{'' if total == 1 else 's'} of it, in {where}{' and others' if count > _SOME else ''}"
            )
            yield Finding("noreturn-undeclared", start, name, message, count=count)


_SOME: Final = 4
"""Callers named in a message."""


def _calls(subject: Subject) -> tuple[Addr, Addr]:
    """Give every BL of the text: address and target."""
    at = np.flatnonzero(is_bl(subject.map.words))
    addr = subject.map.addr(at)
    return addr, branch_target(subject.map.words[at], addr)
