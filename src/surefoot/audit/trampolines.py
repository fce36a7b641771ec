"""Layer 6: code that returns on behalf of others, and where the return address is meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from surefoot.audit.findings import Finding
from surefoot.audit.subject import Subject
from surefoot.isa.branches import branch_target, is_bl, is_call
from surefoot.isa.effects import SpEffect, effects

__all__ = ["Window", "trampoline_findings", "windows"]

_NAMES: Final = ("return_to_handler", "__kretprobe_trampoline", "ftrace_caller", "ftrace_regs_caller")
_HANDLERS: Final = (b"ftrace_return_to_handler", b"__ftrace_return_to_handler")
"""C code that runs while the return address is in the task's bookkeeping only (kernel/trace/fgraph.c); clones
of it too, such as .constprop.0."""
_SCHEDULER: Final = "preempt_schedule_notrace"


@dataclass(frozen=True)
class Window:
    """A trampoline.

    Attributes:
        name: symbol.
        start: its address.
        end: address behind it.
        low: first instruction at which SP is not what it was on entry; `start` where SP never moves.
        high: behind the last such instruction.
        returns: addresses that a call in it returns to: the only ones that a blocked task can show.
    """

    name: str
    start: int
    end: int
    low: int
    high: int
    returns: tuple[int, ...]


def windows(subject: Subject) -> list[Window]:
    """Find the trampolines and the stretch of each in which its frame is open."""
    found = []
    for name in _NAMES:
        addr = subject.address_of(name)
        row = -1 if addr is None else int(subject.range_at(np.array([addr], dtype=np.uint64))[0])
        if row < 0:
            continue
        start, end = int(subject.ranges.start[row]), int(subject.ranges.end[row])
        low, high = subject.map.span(subject.ranges.start[row : row + 1], subject.ranges.end[row : row + 1])
        words = subject.map.words[int(low[0]) : int(high[0])]
        moves = np.flatnonzero(effects(words).sp != SpEffect.KEEP)
        calls = [start + 4 + 4 * at for at in np.flatnonzero(is_call(words)).tolist()]
        opened = start + 4 * int(moves[0]) + 4 if moves.size else start
        closed = start + 4 * int(moves[-1]) + 4 if moves.size else start
        found.append(Window(name, start, end, opened, closed, tuple(calls)))
    return found


def trampoline_findings(subject: Subject) -> Iterator[Finding]:
    """Yield the windows, and calls into the scheduler from inside one."""
    names = subject.ranges.names.table.take(subject.ranges.function)
    for row in np.flatnonzero(names.starts_with(_HANDLERS[0]) | names.starts_with(_HANDLERS[1])).tolist():
        handler = subject.ranges.names[row]
        low, high = subject.map.span(subject.ranges.start[row : row + 1], subject.ranges.end[row : row + 1])
        index = np.arange(int(low[0]), int(high[0]), dtype=np.int64)
        words, addrs = subject.map.words[index], subject.map.addr(index)
        at = np.flatnonzero(is_bl(words))
        for call, target in zip(addrs[at].tolist(), branch_target(words[at], addrs[at]).tolist(), strict=True):
            callee = subject.name_at(target)
            if _SCHEDULER in callee:
                message = (
                    f"{callee} is called while the function that is being returned into is on no stack: a task that "
                    "is switched out here has a trace that looks complete and lacks it"
                )
                yield Finding("preempt-in-return", call, handler, message)
    for window in windows(subject):
        frame = f"SP is moved at +{window.low - window.start:#x} to +{window.high - window.start:#x}"
        frame = frame if window.high > window.low else "SP is never moved"
        calls = ", ".join(f"+{addr - window.start:#x}" for addr in window.returns) or "none"
        message = (
            f"{window.end - window.start} bytes; {frame}; return addresses that a blocked task can show: {calls}"
        )
        yield Finding("trampoline-window", window.start, window.name, message, size=window.end - window.start)
