"""Layer 8: what stands under the traces: the legend, the notes and the table of verdicts by mode.

Invariant: pure, as `stack_text`. The counts are over all tasks that were walked, shown or not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from surefoot.report.stack_text import CALLS, call_arrow, place_text
from surefoot.report.stack_view import Difference, StackReport, TaskMeta
from surefoot.report.style import Style, printable, wrap
from surefoot.unwind.context import Mode
from surefoot.unwind.reasons import SENTENCES, Reason
from surefoot.unwind.state import Source
from surefoot.unwind.trace import Evidence

__all__ = ["legend_text", "summary_text"]

_NAMED: Final = 12
"""Tasks named in one line of the summary."""
_NUMBER: Final = 8
"""Columns of a count."""

_MEANINGS: Final = (
    (Evidence.RECORD, "record", "the frame record (x29, x30) on the stack"),
    (Evidence.TRACER, "tracer", "the record that ftrace_caller makes of the function that called it"),
    (Evidence.LR, "LR (rule)", "the rule at the exact pc says that the return address was still in LR"),
    (Evidence.FGRAPH, "fgraph, F", "original address from the task's function-graph return stack"),
    (Evidence.KRETPROBE, "kretprobe, K", "original address from a kretprobe instance of the task"),
)
_CALL_MEANINGS: Final = {
    Evidence.CALL_DIRECT: "the instruction before it calls the function of the next inner frame",
    Evidence.CALL_TAIL: "it calls a function that leads there: by tail branch, veneer or patch",
    Evidence.CALL_INDIRECT: "it calls through a register, which may lead anywhere",
}


def legend_text(report: StackReport, style: Style) -> str:
    """Explain the words and letters that occur in the traces, and no others; empty where there are none."""
    frames = [frame for task in report.tasks for frame in task.frames]
    if not frames:
        return ""
    seen = Evidence(0)
    for evidence in {frame.evidence for frame in frames}:
        seen |= evidence
    entries: list[tuple[str, str]] = []
    if seen & Evidence.RULE:
        entries.append(("rule", _rule_meaning({frame.evidence for frame in frames})))
    entries += [(word, meaning) for bit, word, meaning in _MEANINGS if seen & bit]
    arrow = call_arrow(style)
    entries += [(arrow + mark if arrow else word, _CALL_MEANINGS[bit]) for bit, word, mark in CALLS if seen & bit]
    sources = {frame.source for frame in frames}
    known = (
        (Source.TASK, "(T)", "switched out: saved by cpu_switch_to"),
        (Source.REGS, "(P)", "interrupted: pc exact"),
    )
    entries += [(letter, meaning) for source, letter, meaning in known if source in sources]
    if any(frame.doubtful for frame in frames):
        entries.append(("?", "frame records followed after certainty was lost: to be read, not relied on"))
    width = max(len(word) for word, _ in entries) + 2
    lines: list[str] = []
    for word, meaning in entries:
        hang = " " * (width + 2)
        wrapped = wrap(meaning, style.body, hang)
        lines += [f"  {word:<{width}}{next(wrapped).lstrip()}", *wrapped]
    return "".join(f"{style.dim}{line}{style.off}\n" for line in lines) + "\n"


def _rule_meaning(seen: set[Evidence]) -> str:
    """Say what a rule is, and whether the rules used here are proved."""
    proved = {bool(evidence & Evidence.PROVEN) for evidence in seen if evidence & Evidence.RULE}
    meaning = "the compiler's unwind metadata"
    if proved == {False}:
        return f"{meaning}, unproven: not checked against the code"
    if proved == {True}:
        return f"{meaning}, proven against the code"
    return f"{meaning}; unproven where it does not say 'proven'"


def summary_text(report: StackReport, style: Style) -> str:
    """Give the table of verdicts by mode, the differences between the modes, and the notes."""
    lines = [*_table(report, style), *_difference_lines(report, style), *_note_lines(report, style)]
    return "".join(f"{line}\n" for line in lines)


def _table(report: StackReport, style: Style) -> Iterator[str]:
    """Count tasks by mode, then reasons by mode."""
    names = [reason.name for tally in report.tallies for reason in tally.reasons]
    first = max([len("unreliable"), *(len(name) + 2 for name in names)])
    shown = f", {len(report.tasks)} shown" if len(report.tasks) != report.total else ""
    title = printable(f"{report.name}  {report.release}  {report.total} tasks{shown}")
    head = "".join(f"{tally.mode.value:>{_NUMBER}}" for tally in report.tallies)
    rule = style.glyphs.rule * max(style.body - len(title) - 1, 1)
    yield f"{style.strong}{title}{style.off} {style.dim}{rule}{style.off}"
    yield f"  {style.dim}{'':<{first}}{head}{style.off}"
    yield _row("reliable", first, [tally.reliable for tally in report.tallies], style, style.good)
    yield _row("unreliable", first, [report.total - tally.reliable for tally in report.tallies], style, style.bad)
    total: dict[Reason, int] = {}
    for tally in report.tallies:
        for reason, count in tally.reasons.items():
            total[reason] = total.get(reason, 0) + count
    room = style.body - 2 - first - _NUMBER * len(report.tallies) - 2
    for reason in sorted(total, key=lambda each: -total[each]):
        counts = [tally.reasons.get(reason, 0) for tally in report.tallies]
        sentence = SENTENCES[reason]
        fits = len(sentence) <= room
        yield _row(f"  {reason.name}", first, counts, style) + (f"  {style.dim}{sentence}{style.off}" if fits else "")
        if not fits:
            yield from (f"{style.dim}{line}{style.off}" for line in wrap(sentence, style.body, "      "))


def _row(label: str, first: int, counts: Sequence[int], style: Style, color: str = "") -> str:
    """Give one line of the table; zeros are dim."""
    cells = (
        f"{color}{count:>{_NUMBER}}{style.off if color else ''}" if count else f"{style.dim}{0:>{_NUMBER}}{style.off}"
        for count in counts
    )
    return f"  {label:<{first}}" + "".join(cells)


def _difference_lines(report: StackReport, style: Style) -> Iterator[str]:
    """Name the tasks on which fp and hybrid do not agree."""
    if not report.total:
        return
    yield ""
    fp, hybrid = Mode.FP.value, Mode.HYBRID.value
    yield from _named(f"{hybrid} reliable, {fp} not", report.hybrid_only, style)
    yield from _named(f"{fp} reliable, {hybrid} not", report.fp_only, style)
    yield _count_line("both reliable, traces differ", len(report.omissions), style)
    for omission in report.omissions:
        parts = [
            f"{word} {', '.join(place_text(place) for place in places)}"
            for word, places in ((f"{fp} omits", omission.missing), (f"only {fp} has", omission.extra))
            if places
        ]
        yield from wrap(f"{_who(omission.task)}: {'; '.join(parts)}", style.body, "    ", "      ")


def _count_line(label: str, count: int, style: Style) -> str:
    number = f"{style.mark}{count}{style.off}" if count else f"{style.dim}none{style.off}"
    return f"  {label}: {number}"


def _named(label: str, differences: Sequence[Difference], style: Style) -> Iterator[str]:
    """Give the tasks of one kind of difference, by the reason of the other mode."""
    yield _count_line(label, len(differences), style)
    by_reason: dict[Reason, list[TaskMeta]] = {}
    for difference in differences:
        by_reason.setdefault(difference.reason, []).append(difference.task)
    for reason, tasks in by_reason.items():
        names = ", ".join(_who(task) for task in tasks[:_NAMED])
        more = f" and {len(tasks) - _NAMED} more" if len(tasks) > _NAMED else ""
        yield from wrap(f"{reason.name}: {names}{more}", style.body, "    ", "      ")


def _who(task: TaskMeta) -> str:
    return f"{task.pid} {printable(task.comm)}"


def _note_lines(report: StackReport, style: Style) -> Iterator[str]:
    """Give what the capture has to say about itself."""
    if not report.notes:
        return
    yield ""
    for note in report.notes:
        lines = wrap(printable(note), style.body, "  note: ", "        ")
        yield next(lines).replace("note:", f"{style.mark}note:{style.off}", 1)
        yield from lines
