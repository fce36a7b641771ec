"""drgn's own traces of a dump, frame by frame, to hold ours against.

drgn unwinds by CFI and else by frame pointer. It is a best-effort peer: at a trampoline of function-graph tracing it
stops or shows the trampoline, and where it has neither CFI nor a frame record it skips a caller without a word.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from surefoot.targets.capture import Capture
from surefoot.unwind.state import Start
from surefoot.unwind.trace import Traces

__all__ = ["Difference", "differences", "drgn_program", "drgn_traces"]


@dataclass(frozen=True)
class Difference:
    """A task whose trace is not drgn's.

    Attributes:
        pid: of the task.
        comm: its name.
        ours: (name, address) of our frames, innermost first.
        theirs: drgn's, inline frames left out.
    """

    pid: int
    comm: str
    ours: list[tuple[str, int]]
    theirs: list[tuple[str, int]]


def drgn_program(vmcore: Path, vmlinux: Path) -> Any:
    """Open a dump with drgn, debug information loaded."""
    import drgn

    prog = drgn.Program()
    prog.set_core_dump(str(vmcore))
    prog.load_debug_info([str(vmlinux)])
    return prog


def drgn_traces(prog: Any) -> dict[tuple[int, str], list[tuple[str, int]]]:
    """Give drgn's frames by (pid, comm): inline frames left out, the address of each as it is in the registers."""
    from drgn.helpers.linux.pid import for_each_task

    found = {}
    for task in for_each_task(prog, idle=True):
        try:
            trace = prog.stack_trace(task)
        except ValueError:  # running in user mode, or no stack
            continue
        frames = [(frame.name or "", frame.pc) for frame in trace if not frame.is_inline]
        found[task.pid.value_(), task.comm.string_().decode()] = frames
    return found


def our_frames(capture: Capture, traces: Traces, row: int) -> list[tuple[str, int]]:
    """Give our frames of one task."""
    names = capture.code.functions.names
    span = slice(int(traces.first[row]), int(traces.first[row + 1]))
    functions = traces.function[span].tolist()
    return [
        (names[index] if index >= 0 else "", addr)
        for index, addr in zip(functions, traces.pc[span].tolist(), strict=True)
    ]


def differences(capture: Capture, traces: Traces, prog: Any) -> tuple[int, list[Difference]]:
    """Compare addresses, PAC bits stripped, of all tasks that both have a trace of.

    Returns:
        how many were compared, and those that differ.
    """
    theirs = drgn_traces(prog)
    compared, found = 0, []
    for row, key in enumerate(zip(capture.info.pid.tolist(), capture.info.comm, strict=True)):
        if key not in theirs or capture.tasks.start[row] not in {Start.BLOCKED, Start.REGS}:
            continue
        compared += 1
        addrs = capture.layout.strip(np.array([addr for _, addr in theirs[key]], dtype=np.uint64)).tolist()
        frames = [(name, addr) for (name, _), addr in zip(theirs[key], addrs, strict=True)]
        ours = our_frames(capture, traces, row)
        if [addr for _, addr in ours] != addrs:
            found.append(Difference(*key, ours, frames))
    return compared, found
