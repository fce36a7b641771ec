"""Layer 8: live patching as text: a line per event, a summary at the end, and the state of a target.

Invariant: pure: events and a style in, lines out. Names that come from a target pass through `printable`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from surefoot.patch.events import Event, EventKind, FunctionState, Hold, PatchState, Status, TaskState
from surefoot.report.patch_progress import HOWS, MOVING, Blocker, Pauses, Progress
from surefoot.report.style import Style, printable, wrap

__all__ = [
    "HOLDS",
    "Group",
    "count",
    "event_line",
    "event_words",
    "groups",
    "held_by",
    "remark_text",
    "seconds",
    "state_words",
    "status_text",
    "summary_text",
    "task_name",
]

HOLDS: Final = {
    Hold.ON_STACK: "on its stack",
    Hold.CHOOSING: "being chosen",
    Hold.UNRELIABLE: "stack not certain",
    Hold.RUNNING: "runs on a CPU",
    Hold.UNKNOWN: "not looked at yet",
}
"""A few words for each way of holding a transition up."""

_NAMED: Final = 6
"""Tasks named in a line; a log line does not grow with the machine."""
_INDENT: Final = "   "
_DEEP: Final = "         "
_KIND: Final = max(len(kind.value) for kind in EventKind)


@dataclass(frozen=True, slots=True)
class Group:
    """Blockers that the same is to be said of.

    Attributes:
        blockers: at least one.
        task: stands for all of them.
    """

    blockers: tuple[Blocker, ...]
    task: TaskState


def groups(blockers: Sequence[Blocker]) -> list[Group]:
    """Put blockers together whose hold, function, reason, stack and advice are the same; order is kept."""
    found: dict[tuple[object, ...], list[Blocker]] = {}
    for blocker in blockers:
        task = blocker.task
        found.setdefault((task.hold, task.blocked_by, task.reason, task.trace, task.advice), []).append(blocker)
    return [Group(tuple(each), each[0].task) for each in found.values()]


def seconds(value: float) -> str:
    """Give a time as it stands in a sentence."""
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 100:
        return f"{value:.1f} s"
    return f"{value // 60:.0f} min {value % 60:.0f} s"


def count(number: int, noun: str) -> str:
    """Give "1 task", "2 tasks"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def task_name(task: TaskState) -> str:
    """Give "pid comm" without anything that a terminal would act upon."""
    return f"{task.pid} {printable(task.comm)}"


def held_by(task: TaskState) -> str:
    """Say in a few words what holds a task."""
    if task.hold is None:
        return "nothing"
    if task.blocked_by is None:
        return HOLDS[task.hold]
    return f"{printable(task.blocked_by)} {HOLDS[task.hold]}"


def state_words(patch: str, state: PatchState) -> str:
    """Say in one clause where a patch stands."""
    name = printable(patch) or "the patch"
    return {
        PatchState.ABSENT: f"{name} is not in force: every task runs the old code",
        PatchState.APPLIED: f"{name} is applied: every task runs the new code",
        PatchState.APPLYING: f"{name} is in transition to the new code",
        PatchState.REVERTING: f"{name} is in transition back to the old code",
        PatchState.PARTIAL: f"{name} is PARTLY WRITTEN: some sites call the new code and some the old",
    }[state]


def _names(tasks: Sequence[TaskState], *, holds: bool) -> str:
    """Name a few tasks."""
    named = [f"{task_name(task)} ({_why(task)})" if holds else task_name(task) for task in tasks[:_NAMED]]
    more = len(tasks) - len(named)
    return ", ".join(named) + (f" and {more} more" if more > 0 else "")


def _why(task: TaskState) -> str:
    """Say in a line why a task holds the transition up."""
    reason = printable(task.reason).rstrip(".")
    return f"{held_by(task)}: {reason}" if reason else held_by(task)


def event_words(event: Event) -> str:
    """Say in words what an event says, without its kind and time."""
    names = ""
    if event.tasks and event.kind is not EventKind.STARTED:
        names = _names(event.tasks, holds=event.kind in {EventKind.BLOCKED, EventKind.FAILED})
    # What a message says of blockers, their names and reasons say better.
    message = "" if names and event.kind is EventKind.BLOCKED else printable(event.message)
    figures = event.figures
    notes = []
    if event.kind is EventKind.STARTED and "tasks" in figures:
        notes.append(count(int(figures["tasks"]), "task"))
    elif event.left and event.kind not in {EventKind.WARNING, EventKind.WRITTEN}:
        notes.append(f"{event.left} left")
    if "attempt" in figures:
        notes.append(f"attempt {figures['attempt']:.0f}")
    notes += [f"{figures[how]:.0f} {words}" for how, words in HOWS.items() if figures.get(how)]
    if "pause_ms" in figures:
        notes.append(f"pause {figures['pause_ms']:.1f} ms")
    if figures.get("words"):
        notes.append(count(int(figures["words"]), "word"))
    text = " ".join(part for part in (message, names) if part)
    return f"{text} ({', '.join(notes)})" if notes and text else text or ", ".join(notes)


def _kind_style(kind: EventKind, style: Style) -> str:
    """Give the look of an event's kind."""
    if kind is EventKind.COMPLETED:
        return style.good
    if kind in {EventKind.FAILED, EventKind.FORCED}:
        return style.bad
    return style.mark if kind in {EventKind.WARNING, EventKind.BLOCKED, EventKind.REVERSED} else ""


def event_line(event: Event, style: Style) -> str:
    """Give an event as one line, ended by a newline."""
    off = style.off
    kind = f"{_kind_style(event.kind, style)}{event.kind.value:<{_KIND}}{off}"
    words = event_words(event)
    name = printable(event.patch)
    return (
        f"{style.dim}{event.elapsed_s:9.3f} s{off}  {kind}  {style.strong}{name}{off}{': ' if words else ''}{words}\n"
    )


def remark_text(event: Event, style: Style) -> str:
    """Give an event as it stays on a terminal while the view moves on below: wrapped, without the last newline."""
    look = _kind_style(event.kind, style)
    words = " ".join(part for part in (event.kind.value, printable(event.patch)) if part)
    return "\n".join(_wrapped(f"! {words}: {event_words(event)}", style, "", look, "  "))


def _wrapped(text: str, style: Style, indent: str, look: str = "", hang: str | None = None) -> Iterator[str]:
    """Break a sentence into lines of one look."""
    for line in wrap(printable(text), style.body, indent, hang):
        yield f"{look}{line}{style.off}"


def _group_lines(group: Group, style: Style, now_s: float | None) -> Iterator[str]:
    """Tell of blockers that the same is to be said of: a line each, then the reason and the stack."""
    task = group.task
    for blocker in group.blockers:
        who = task_name(blocker.task)
        since = "" if now_s is None or now_s - blocker.since_s < 1 else f"for {seconds(now_s - blocker.since_s)}"
        held = held_by(blocker.task)
        gap = " " * max(24 - len(who), 2)
        line = f"{_INDENT}{style.bad}{style.glyphs.lost}{style.off} {style.strong}{who}{style.off}{gap}{held}"
        yield f"{line}{style.dim}{', ' if since else ''}{since}{style.off}"
    if task.reason:
        yield from _wrapped(task.reason, style, _DEEP)
    if len(task.trace) > 1:
        yield from _wrapped("stack: " + ", ".join(task.trace), style, _DEEP, style.dim, _DEEP + "       ")


def _blocker_lines(blockers: Sequence[Blocker], style: Style, now_s: float | None) -> Iterator[str]:
    """Tell of all blockers, and then what to do about them, each piece of advice once."""
    for group in groups(blockers):
        yield from _group_lines(group, style, now_s)
    arrow = style.glyphs.call
    for advice in dict.fromkeys(blocker.task.advice for blocker in blockers if blocker.task.advice):
        yield from _wrapped(f"{arrow} {advice}", style, _INDENT, style.letter, _INDENT + " " * (len(arrow) + 1))


def _figure_rows(progress: Progress, *, good: bool) -> Iterator[tuple[str, str]]:
    """Yield the figures of a summary: a word, and what it was."""
    # What went over in a transition that was taken back says nothing about the end.
    if progress.total and (good or progress.state in MOVING):
        how = ", ".join(f"{number} {HOWS[name]}" for name, number in progress.hows.items())
        yield "gone over", f"{progress.crossed} of {progress.total} tasks" + (f": {how}" if how else "")
    if progress.attempts > 1 or progress.pauses_ms:
        yield "attempts", str(max(progress.attempts, 1))
    if progress.pauses_ms:
        pauses = Pauses.of(progress.pauses_ms)
        spread = f"median {pauses.median:.1f} ms, 95 of 100 up to {pauses.p95:.1f} ms, longest "
        many = pauses.count > 1
        yield (
            "pauses" if many else "pause",
            (f"{pauses.count}, {spread}" if many else "") + f"{pauses.longest:.1f} ms",
        )
    if progress.words:
        yield "written", count(progress.words, "word")
    if progress.warnings:
        yield "warnings", f"{len(progress.warnings)}, above"


def summary_text(progress: Progress, target: str, style: Style, *, good: bool, elapsed_s: float) -> str:
    """Give the end of a command: where the patch stands, who holds it up, and the figures.

    Args:
        progress: what the events said.
        target: as on the command line.
        style: of the terminal.
        good: the command reached what it was asked for.
        elapsed_s: how long it took.

    Returns:
        lines, each ended by a newline.
    """
    if progress.last is None:
        return f"{target} has no patch in transition.\n"
    glyph, look = (style.glyphs.ok, style.good) if good else (style.glyphs.bad, style.bad)
    verdict = f"{state_words(progress.patch, progress.state)} ({target}, {seconds(elapsed_s)})"
    first, *more = wrap(verdict, style.body, f"{glyph} ", "  ")
    lines = [f"{look}{style.strong}{glyph}{style.off} {first[2:]}", *more]
    last = progress.last
    if last.kind is EventKind.FAILED and last.message:
        lines += _wrapped(last.message, style, _INDENT, style.mark)
    blockers = progress.blockers
    if blockers and not good:
        verb = "holds" if len(blockers) == 1 else "hold"
        lines.append(f"{_INDENT}{count(len(blockers), 'task')} {verb} it up:")
        lines += _blocker_lines(blockers, style, progress.elapsed_s)
    for name, text in _figure_rows(progress, good=good):
        first, *more = wrap(text, style.body - 13)
        lines.append(f"{_INDENT}{style.dim}{name:<10}{style.off}{first}")
        lines += [f"{'':13}{line}" for line in more]
    return "".join(f"{line}\n" for line in lines)


_LABELS: Final = {
    PatchState.ABSENT: "not in force",
    PatchState.APPLYING: "APPLYING",
    PatchState.APPLIED: "APPLIED",
    PatchState.REVERTING: "REVERTING",
    PatchState.PARTIAL: "PARTLY WRITTEN",
}


def status_text(statuses: Sequence[Status], target: str, style: Style) -> str:
    """Give the patches of a target: functions, tasks in transition, warnings.

    Args:
        statuses: what `Backend.status` gave.
        target: as on the command line.
        style: of the terminal.

    Returns:
        lines, each ended by a newline.
    """
    if not statuses:
        return f"{target} has no patch.\n"
    blocks = ["".join(f"{line}\n" for line in _status_lines(status, style)) for status in statuses]
    if len(statuses) > 1:
        tally = {state: sum(status.state is state for status in statuses) for state in PatchState}
        told = ", ".join(f"{number} {_LABELS[state].lower()}" for state, number in tally.items() if number)
        blocks.append(f"{len(statuses)} patches on {target}: {told}\n")
    return "\n".join(blocks)


def _status_lines(status: Status, style: Style) -> Iterator[str]:
    """Give the block of one patch."""
    label = _LABELS[status.state]
    look = {PatchState.APPLIED: style.good, PatchState.PARTIAL: style.bad, PatchState.ABSENT: style.dim}
    name = printable(status.patch)
    fill = style.glyphs.rule * max(style.body - len(name) - len(label) - 2, 1)
    yield (
        f"{style.strong}{name}{style.off} {style.dim}{fill}{style.off} "
        f"{look.get(status.state, style.mark)}{style.strong}{label}{style.off}"
    )
    if status.functions:
        yield from _function_lines(status.functions, style)
    if status.state in MOVING:
        over = sum(task.crossed for task in status.tasks)
        yield f"{_INDENT}{over} of {count(len(status.tasks), 'task')} went over"
    holding = [Blocker(task, 0.0) for task in status.tasks if not task.crossed and task.hold is not None]
    if holding and status.state not in MOVING:
        yield f"{_INDENT}a transition would be held up by {count(len(holding), 'task')} now:"
    yield from _blocker_lines(holding, style, None)
    for warning in status.warnings:
        yield from _wrapped(f"! {warning}", style, _INDENT, style.mark, _INDENT + "  ")


def _function_lines(functions: Sequence[FunctionState], style: Style) -> Iterator[str]:
    """Give the table of a patch's functions."""
    names = [printable(each.name) for each in functions]
    places = [printable(each.object) for each in functions]
    name_width = max(len("function"), *map(len, names))
    place_width = max(len("object"), *map(len, places))
    head = f"{'function':<{name_width}}  {'object':<{place_width}}  {'old code':<16}  new code"
    yield f"{_INDENT}{style.dim}  {head}{style.off}"
    for each, name, place in zip(functions, names, places, strict=True):
        glyph, look = (style.glyphs.ok, style.good) if each.patched else (style.glyphs.dash, style.dim)
        new = f"{each.new:016x}" if each.new else "not loaded"
        old = f"{each.address:016x}" if each.address else "not loaded"
        where = f"{style.module}{place:<{place_width}}{style.off}"
        rest = f"{style.dim}{old:<16}  {new}{style.off}"
        yield f"{_INDENT}{look}{glyph}{style.off} {name:<{name_width}}  {where}  {rest}"
