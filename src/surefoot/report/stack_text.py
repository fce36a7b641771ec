"""Layer 8: traces as text for a terminal.

Invariant: pure: a report and a style in, lines out. Columns line up over the whole report; no symbol is cut off,
a line that needs more room takes it. One pass over the frames builds plain strings: a hundred tasks take
milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from surefoot.report.stack_view import FrameView, Place, StackReport, TaskView, letters
from surefoot.report.style import Style, printable, wrap
from surefoot.unwind.state import Source, Start
from surefoot.unwind.trace import Evidence

__all__ = ["CALLS", "call_arrow", "evidence_words", "place_text", "traces_text"]

_NARROW: Final = 100
"""Below this many columns calls are arrows, not words."""
_FOLD: Final = 48
"""Doubtful frames shown of one trace; a damaged stack may have a thousand."""
_GUTTER: Final = "   "
_NOWHERE: Final = "<no known function>"

_STATES: Final = {
    "R": "runnable",
    "S": "sleeping",
    "D": "uninterruptible",
    "T": "stopped",
    "t": "traced",
    "X": "dead",
    "Z": "zombie",
    "P": "parked",
    "I": "idle",
}
_NO_FRAMES: Final = {
    Start.USER: "runs in user mode: no kernel frames",
    Start.NO_STACK: "dead, its stack is freed: no kernel frames",
}
_WITNESSES: Final = (
    (Evidence.RULE, "rule"),
    (Evidence.RECORD, "record"),
    (Evidence.TRACER, "tracer"),
    (Evidence.FGRAPH, "fgraph"),
    (Evidence.KRETPROBE, "kretprobe"),
)
CALLS: Final = (
    (Evidence.CALL_DIRECT, "direct call", ""),
    (Evidence.CALL_TAIL, "tail call", "~"),
    (Evidence.CALL_INDIRECT, "indirect call", "*"),
)
"""Mark, words, and what follows the arrow where there is little room."""


@lru_cache(maxsize=1024)
def evidence_words(evidence: Evidence, source: Source, arrow: str = "") -> str:
    """Say what vouches for a frame, such as "rule+record, direct call".

    Args:
        evidence: the frame's marks.
        source: where its pc came from.
        arrow: stands for "call" where there is little room: "rule+record →"; "" writes words.
    """
    if evidence & Evidence.METADATA and source is Source.REGS:
        return "pt_regs"
    if evidence & Evidence.SAVED:
        return {Source.REGS: "CPU registers", Source.CALLER: "caller"}.get(source, "cpu_context")
    seen = [word for bit, word in _WITNESSES if evidence & bit]
    if evidence & Evidence.LR:
        seen = ["LR (rule)", *(word for word in seen if word != "rule")]
    if evidence & Evidence.PROVEN and evidence & Evidence.RULE:
        seen[0] = f"proven {seen[0]}"
    if arrow:
        return " ".join(["+".join(seen), *(arrow + mark for bit, _, mark in CALLS if evidence & bit)])
    return ", ".join(["+".join(seen), *(words for bit, words, _ in CALLS if evidence & bit)])


def place_text(place: Place, *, addr: bool = False) -> str:
    """Write a place without colour, as the kernel does: symbol+0xoffset/0xsize [module].

    Args:
        place: the place.
        addr: begin with the address; without a symbol it always does.
    """
    module = f" [{printable(place.module)}]" if place.module else ""
    if place.symbol is None:
        return f"{place.addr:016x}{module}"
    text = f"{printable(place.symbol)}+{place.offset:#x}/{place.size:#x}{module}"
    return f"{place.addr:016x} {text}" if addr else text


def call_arrow(style: Style) -> str:
    """Give what stands for "call": an arrow where there is little room, else nothing."""
    return style.glyphs.call if style.width < _NARROW else ""


class _Columns:
    """Where the columns of a report begin."""

    __slots__ = ("arrow", "depth", "evidence", "gap")

    def __init__(self, report: StackReport, style: Style) -> None:
        self.arrow = call_arrow(style)
        frames = [frame for task in report.tasks for frame in task.frames]
        self.depth = len(str(max((frame.depth for frame in frames), default=0)))
        self.depth = max(self.depth, 2)
        self.gap = " " if self.arrow else "  "
        place = 2 + self.depth + len(self.gap) + 16 + 1
        widest = max((_place_width(frame) for frame in frames), default=0)
        words = max((len(self.words(frame)) for frame in frames), default=0)
        self.evidence = min(place + widest + 2, max(style.body - words, place + 24))

    def words(self, frame: FrameView) -> str:
        """Give a frame's evidence as it is printed."""
        return evidence_words(frame.evidence, frame.source, self.arrow)


def _place_width(frame: FrameView) -> int:
    """Columns that the middle of a frame's line takes."""
    place, letter = frame.place, letters(frame)
    width = len(_NOWHERE)
    if place.symbol is not None:
        width = len(place.symbol) + len(f"+{place.offset:#x}/{place.size:#x}")
    return width + (len(letter) + 3 if letter else 0) + (len(place.module) + 3 if place.module else 0)


def traces_text(report: StackReport, style: Style) -> str:
    """Give the traces of a report, one block per task.

    Args:
        report: what to print.
        style: of the terminal.

    Returns:
        lines, each ended by a newline.
    """
    if not report.tasks and report.total:
        return f"No unreliable stack among {report.total} tasks.\n\n"
    columns = _Columns(report, style)
    blocks = ("\n".join(_task_lines(task, style, columns)) for task in report.tasks)
    return "".join(f"{block}\n\n" for block in blocks)


def _task_lines(task: TaskView, style: Style, columns: _Columns) -> Iterator[str]:
    """Give the lines of one task: heading, verdict, frames."""
    yield _heading(task, style)
    if not task.verdict.reliable:
        yield from _reason_lines(task, style)
    if not task.frames:
        why = _NO_FRAMES.get(task.start)
        if why:
            yield f"{_GUTTER}{style.dim}{why}{style.off}"
        return
    folded = 0
    doubtful = 0
    for frame in task.frames:
        doubtful += frame.doubtful
        if doubtful > _FOLD:
            folded += 1
            continue
        yield from _frame_lines(task, frame, style, columns)
    if folded:
        yield f"{style.dim}?{_GUTTER}{folded} more doubtful frames, in the JSON{style.off}"


def _heading(task: TaskView, style: Style) -> str:
    """Give "pid comm  state, cpu ──── verdict"."""
    meta, glyphs = task.meta, style.glyphs
    good = task.verdict.reliable
    verdict = f"{glyphs.ok} RELIABLE" if good else f"{glyphs.bad} UNRELIABLE"
    comm = printable(meta.comm)
    who = f"{meta.pid} {comm}"
    state = "running" if meta.on_cpu and meta.state == "R" else _STATES.get(meta.state, meta.state)
    where = f"on cpu {meta.cpu}" if meta.on_cpu else f"cpu {meta.cpu}"
    about = f"{state}, {where}"
    if meta.tgid != meta.pid:
        about += f", thread of {meta.tgid}"
    fill = max(style.body - len(who) - len(about) - len(verdict) - 4, 1)
    color = style.good if good else style.bad
    return (
        f"{style.strong}{who}{style.off}  {style.dim}{about} {glyphs.rule * fill}{style.off} "
        f"{color}{style.strong}{verdict}{style.off}"
    )


def _reason_lines(task: TaskView, style: Style) -> Iterator[str]:
    """Give the reason: its name, where, and the sentence."""
    verdict = task.verdict
    where = ""
    if task.frames:
        where = f" at frame {verdict.frame}"
    if task.reason_at is not None:
        where += f", {place_text(task.reason_at, addr=True)}"
    name = verdict.reason.name
    text = f"{name}{where}: {verdict.sentence}"
    lines = list(wrap(text, style.body, _GUTTER))
    lines[0] = lines[0].replace(name, f"{style.bad}{name}{style.off}", 1)
    yield from lines


def _frame_lines(task: TaskView, frame: FrameView, style: Style, columns: _Columns) -> Iterator[str]:
    """Give the line of a frame and what belongs around it."""
    if frame.boundary and frame.depth:
        yield _boundary(frame, style)
    lost = not task.verdict.reliable and frame.depth == task.verdict.frame
    yield from _frame_line(frame, style, columns, lost=lost)
    indent = " " * (columns.depth + len(columns.gap) + 19)
    for line in frame.place.lines:
        inlined = "" if line is frame.place.lines[-1] else f"  {printable(line.function)} (inlined)"
        yield f"{indent}{style.dim}{printable(line.file)}:{line.line}{inlined}{style.off}"
    if frame.ambiguous is not None:
        yield _answer("LR?", frame.ambiguous, "perhaps a caller", style, columns)
    if lost and task.other_at is not None and task.reason_at is not None:
        yield _answer("", task.reason_at, "says the rule", style, columns)
        yield _answer("", task.other_at, "says the record", style, columns)


def _boundary(frame: FrameView, style: Style) -> str:
    """Give the line that separates interrupted code from the code that handles the exception."""
    dash = style.glyphs.dash
    kind = f" ({frame.vector.words})" if frame.vector else ""
    where = f": pt_regs at {frame.regs.addr:016x}, pc exact" if frame.regs and frame.regs.addr else ""
    text = f" interrupted here{kind}{where} "
    fill = max(style.body - len(text) - 6, 3)
    return f"{style.mark}{_GUTTER}{dash * 3}{text}{dash * fill}{style.off}"


def _frame_line(frame: FrameView, style: Style, columns: _Columns, *, lost: bool) -> Iterator[str]:
    """Give the line of a frame; two where the evidence does not fit behind a long name."""
    place = frame.place
    off = style.off
    words, letter = columns.words(frame), letters(frame)
    head = f"{frame.depth:>{columns.depth}}{columns.gap}{place.addr:016x} "
    letter = f" ({letter})" if letter else ""
    if place.symbol is None:
        name, tail = _NOWHERE, ""
    else:
        name, tail = printable(place.symbol), f"+{place.offset:#x}/{place.size:#x}"
    module = f" [{printable(place.module)}]" if place.module else ""
    used = 2 + len(head) + len(name) + len(tail) + len(module) + len(letter)
    if used < columns.evidence or used + 1 + len(words) <= style.width:
        gap = " " * max(columns.evidence - used, 1)
    else:
        gap = "\n" + " " * columns.evidence
    if frame.doubtful:
        yield f"{style.dim}? {head}{name}{tail}{module}{letter}{gap}{words}{off}"
        return
    gutter = f"{style.bad}{style.glyphs.lost}{off} " if lost else "  "
    yield (
        f"{gutter}{style.dim}{head}{off}{name}{style.dim}{tail}{off}{style.module}{module}{off}"
        f"{style.letter}{letter}{off}{gap}{style.dim}{words}{off}"
    )


def _answer(label: str, place: Place, remark: str, style: Style, columns: _Columns) -> str:
    """Give one of several answers that cannot all be right."""
    start = columns.depth + 1 + len(columns.gap)
    text = place_text(place, addr=True)
    column = min(columns.evidence, style.body - len(remark))
    gap = " " * max(column - start - 1 - len(text), 1)
    return f"{style.mark}{label:>{start}} {text}{gap}{remark}{style.off}"
