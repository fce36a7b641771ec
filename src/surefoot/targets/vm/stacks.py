"""Layer 7: the kernel's own traces of all threads, as ``guest/stacks.sh`` prints them; pure."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Frame", "ThreadStack", "parse_stacks"]

_LINE = re.compile(r"^(?P<pid>\d+)/task/(?P<tid>\d+)/(?P<file>status|stack):(?P<text>.*)$")
_FRAME = re.compile(
    r"^\[<[0-9a-f]+>\] (?P<symbol>\S+?)\+0x(?P<offset>[0-9a-f]+)/0x(?P<size>[0-9a-f]+)(?: \[(?P<module>[^]]+)\])?$"
)


@dataclass(frozen=True)
class Frame:
    """One line of ``/proc/PID/stack``.

    Attributes:
        symbol: name of the function.
        offset: bytes from its start to the return address.
        size: of the function in bytes, as kallsyms sees it.
        module: name of the module, or empty for the kernel itself.
    """

    symbol: str
    offset: int
    size: int
    module: str = ""


@dataclass
class ThreadStack:
    """A thread and its trace, innermost function first.

    Attributes:
        pid: thread id, which is what the kernel's ``task_struct.pid`` holds.
        tgid: process id.
        comm: name, as /proc/PID/status prints it.
        state: letter of the state before the trace was taken.
        nvcsw: voluntary context switches before the trace was taken; -1 if the thread was gone by then.
        nivcsw: involuntary ones.
        frames: empty for a thread that ran, or of which the kernel tells nothing.
        unknown: lines of the trace that could not be read as a frame.
    """

    pid: int
    tgid: int
    comm: str = ""
    state: str = ""
    nvcsw: int = -1
    nivcsw: int = -1
    frames: list[Frame] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Give plain values."""
        return asdict(self)


def parse_stacks(text: str) -> list[ThreadStack]:
    """Give the threads in the order of the listing; lines of another form are passed over.

    A thread whose context switch counts in a later dump equal the ones given here has not been switched out
    in between; if it is not on a CPU either, its stack is the one given here.
    """
    threads: dict[int, ThreadStack] = {}
    for line in text.splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        tid = int(match["tid"])
        thread = threads.setdefault(tid, ThreadStack(pid=tid, tgid=int(match["pid"])))
        if match["file"] == "stack":
            _add_frame(thread, match["text"])
        else:
            _add_status(thread, match["text"])
    return list(threads.values())


def _add_frame(thread: ThreadStack, text: str) -> None:
    frame = _FRAME.match(text)
    if frame is None:
        thread.unknown.append(text)
        return
    thread.frames.append(
        Frame(frame["symbol"], int(frame["offset"], 16), int(frame["size"], 16), frame["module"] or "")
    )


def _add_status(thread: ThreadStack, text: str) -> None:
    key, _, value = text.partition(":")
    value = value.strip()
    if key == "Name":
        thread.comm = value
    elif key == "State":
        thread.state = value[:1]
    elif key == "voluntary_ctxt_switches":
        thread.nvcsw = int(value)
    elif key == "nonvoluntary_ctxt_switches":
        thread.nivcsw = int(value)
