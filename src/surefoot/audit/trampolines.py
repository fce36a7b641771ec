"""Layer 6: code that returns on behalf of others: where the return address is meanwhile, and what a walk makes of it.

Each trampoline is cut into windows by what its instructions do: before SP moves, while registers are saved, the
return addresses of its calls (the only ones that a blocked task can show), while they are reloaded, after SP is back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from surefoot.audit.findings import Finding
from surefoot.audit.subject import Subject
from surefoot.isa.branches import branch_target, is_bl, is_call
from surefoot.isa.effects import SpEffect, effects

__all__ = ["Window", "trampoline_findings", "windows"]

_HANDLERS: Final = (b"ftrace_return_to_handler", b"__ftrace_return_to_handler")
"""C code that runs while the return address is in the task's bookkeeping only (kernel/trace/fgraph.c); clones
of it too, such as .constprop.0."""
_SCHEDULER: Final = "preempt_schedule_notrace"
_PHASES: Final = ("entry", "saving", "called", "restoring", "leaving")
_NOT_CROSSED: Final = "an exception here is not crossed: the address is in flux"
_GRAPH: Final = "the task's return stack (ret_stack)"
_PROBE: Final = "the task's list of kretprobe instances"
_SITE: Final = "x9; x30 holds the place in the traced function that called"

_PLACES: Final[dict[str, tuple[str, str, str, str, str]]] = {
    "return_to_handler": (
        _GRAPH,
        _GRAPH,
        f"{_GRAPH}, or x0 once the handler has taken it off",
        "x0, then x30",
        "x30",
    ),
    "__kretprobe_trampoline": (_PROBE, _PROBE, _PROBE, _PROBE, _PROBE),
    "arch_rethook_trampoline": (_PROBE, _PROBE, _PROBE, "x0, then x30", "x30"),
    "ftrace_caller": (
        _SITE,
        f"{_SITE}; both are being written to struct ftrace_regs and two frame records",
        "the outer of the two frame records above struct ftrace_regs",
        "struct ftrace_regs, then x30; x9 becomes the place to go on at",
        "x30; x9 is the place to go on at",
    ),
    "ftrace_regs_caller": (_SITE,) * 5,
    "ftrace_stub": ("x30",) * 5,
    "ftrace_stub_graph": ("x30",) * 5,
    "ftrace_stub_direct_tramp": ("x9, then x30 when x10 has taken the place to go on at",) * 5,
}
"""Trampoline -> where the return address is in each phase (arch/arm64/kernel/entry-ftrace.S,
arch/arm64/kernel/probes/kprobes_trampoline.S, Linux 7.3)."""
_PREEMPTED: Final = "the task's return stack or what return_to_handler has saved, and on no stack"
_CALLED: Final = {
    "return_to_handler": "a walk goes on at the newest entry of the return stack whose frame is that of x29, else is "
    "unreliable; the kernel's own walk leaves that function out",
    "ftrace_caller": "a walk goes on through the two frame records, and is unreliable where they are missing",
}


@dataclass(frozen=True)
class Window:
    """A stretch of a trampoline.

    Attributes:
        name: symbol of the trampoline.
        start: its address.
        end: address behind it.
        phase: "entry", "saving", "called", "restoring", "leaving"; "preempted" where a handler calls the scheduler.
        low: first instruction of the window.
        high: address behind its last.
        place: where the return address is.
        walk: what a walk does here.
    """

    name: str
    start: int
    end: int
    phase: str
    low: int
    high: int
    place: str
    walk: str


def windows(subject: Subject) -> list[Window]:
    """Cut the trampolines into windows, in the order of their addresses within each."""
    found: list[Window] = []
    for name in _PLACES:
        addr = subject.address_of(name)
        row = -1 if addr is None else int(subject.range_at(np.array([addr], dtype=np.uint64))[0])
        if row < 0:
            continue
        start, end = int(subject.ranges.start[row]), int(subject.ranges.end[row])
        low, high = subject.map.span(subject.ranges.start[row : row + 1], subject.ranges.end[row : row + 1])
        words = subject.map.words[int(low[0]) : int(high[0])]
        moves = np.flatnonzero(effects(words).sp != SpEffect.KEEP)
        calls = np.flatnonzero(is_call(words))
        opened = int(moves[0]) + 1 if moves.size else words.size
        closed = int(moves[-1]) + 1 if moves.size else words.size
        last = int(calls[-1]) + 1 if calls.size else closed
        cuts = [0, opened, *(step for call in calls.tolist() for step in (call + 1, call + 2)), closed, words.size]
        for first, behind in pairwise(cuts):
            if first >= behind:
                continue
            phase = _phase(first, opened, closed, last, {int(call) + 1 for call in calls})
            place, walk = _PLACES[name][_PHASES.index(phase)], _NOT_CROSSED
            if phase == "called":
                walk = f"{_CALLED.get(name, 'a walk that returns here is unreliable')}; {_NOT_CROSSED}"
            found.append(Window(name, start, end, phase, start + 4 * first, start + 4 * behind, place, walk))
    return found + [
        Window(handler, start, end, "preempted", call + 4, call + 8, _PREEMPTED, _CALLED["return_to_handler"])
        for handler, start, end, call, _ in _preemptions(subject)
    ]


def _preemptions(subject: Subject) -> list[tuple[str, int, int, int, str]]:
    """Find calls into the scheduler from the handlers of trampolines: handler, start, end, call, callee."""
    found = []
    names = subject.ranges.names.table.take(subject.ranges.function)
    for row in np.flatnonzero(names.starts_with(_HANDLERS[0]) | names.starts_with(_HANDLERS[1])).tolist():
        start, end = int(subject.ranges.start[row]), int(subject.ranges.end[row])
        low, high = subject.map.span(subject.ranges.start[row : row + 1], subject.ranges.end[row : row + 1])
        index = np.arange(int(low[0]), int(high[0]), dtype=np.int64)
        words, addrs = subject.map.words[index], subject.map.addr(index)
        at = np.flatnonzero(is_bl(words))
        for call, target in zip(addrs[at].tolist(), branch_target(words[at], addrs[at]).tolist(), strict=True):
            callee = subject.name_at(target)
            if _SCHEDULER in callee:
                found.append((subject.ranges.names[row], start, end, call, callee))
    return found


def _phase(first: int, opened: int, closed: int, last: int, returns: set[int]) -> str:
    """Name the window that begins at an instruction."""
    if first in returns:
        return "called"
    if first < opened:
        return "entry"
    if first >= closed:
        return "leaving"
    return "saving" if first < last else "restoring"


def trampoline_findings(subject: Subject) -> Iterator[Finding]:
    """Yield the calls into the scheduler from the handler of a trampoline, and the windows."""
    for handler, _, _, call, callee in _preemptions(subject):
        message = (
            f"{callee} is called while the function that is being returned into is on no stack: a task that is "
            "switched out here has a trace that looks complete and lacks it"
        )
        yield Finding("preempt-in-return", call, handler, message)
    for window in windows(subject):
        where = f"{window.phase}, +{window.low - window.start:#x} to +{window.high - window.start:#x}"
        message = f"{where}: the return address is in {window.place}; {window.walk}"
        yield Finding("trampoline-window", window.low, window.name, message, size=window.high - window.low)
