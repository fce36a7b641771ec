"""Layer 8: a transition as a live view in a terminal: tasks crossing over, who holds it up and why, and the time.

Invariant: what is drawn fits into the terminal, in both directions; nothing from a target is taken for markup.
Drawing happens in a thread of its own: a lock keeps it apart from the events that come in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Lock
from typing import Final

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, OverflowMethod, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from surefoot.patch.events import Event, EventKind, Hold, PatchState, TaskState
from surefoot.report.patch_progress import HOWS, MOVING, Blocker, Progress
from surefoot.report.patch_text import Group as Alike
from surefoot.report.patch_text import count, groups, held_by, seconds, task_name
from surefoot.report.style import Glyphs, printable

__all__ = ["LiveView"]

_VERBS: Final = {
    PatchState.ABSENT: "not in force:",
    PatchState.APPLYING: "applying",
    PatchState.APPLIED: "applied",
    PatchState.REVERTING: "reverting",
    PatchState.PARTIAL: "partly written:",
}
_STARTING: Final = {"apply": "applying", "revert": "reverting", "watch": "watching"}
_COLORS: Final = {Hold.UNRELIABLE: "red", Hold.ON_STACK: "yellow", Hold.CHOOSING: "yellow"}
_WIDEST: Final = 140
"""Columns beyond which the view is not stretched."""
_FIXED_LINES: Final = 8
"""Lines that are not about blockers: heading, bar, figures, those that crossed, advice, the key, and air."""
_ADVICE: Final = 2
"""Pieces of advice shown at once."""
_EACH: Final = (100, 3, 1)
"""Blockers named of those that the same is to be said of: as many as leave room for the others."""
_LEAST: Final = 5
"""Lines that blockers get before advice gets any."""
_FRAMES: Final = 6
_WIDEST_NAME: Final = 24
_LONGEST_BAR: Final = 60


class LiveView:
    """Draws a transition; rich asks for it several times a second.

    Args:
        verb: "apply", "revert" or "watch".
        name: of the patch as the command line had it, until an event says better; may be empty.
        target: as on the command line.
        progress: where events are added.
        now: gives the seconds since the command began.
        timeout_s: when the command gives up; None for never.
        encoding: of the terminal.
    """

    def __init__(
        self,
        verb: str,
        name: str,
        target: str,
        *,
        progress: Progress,
        now: Callable[[], float],
        timeout_s: float | None = None,
        encoding: str | None = "utf-8",
    ) -> None:
        self.progress = progress
        self._verb, self._name, self._target = verb, name, target
        self._now, self._timeout_s = now, timeout_s
        self._glyphs = Glyphs.for_encoding(encoding)
        self._spinner = Spinner("dots" if self._glyphs == Glyphs() else "line", style="cyan")
        # rich's ellipsis is one character, which not every encoding has.
        self._overflow: OverflowMethod = "ellipsis" if self._unicode else "crop"
        self._words = ""
        self._lock = Lock()

    def take(self, event: Event) -> None:
        """Add an event to what is shown from now on."""
        with self._lock:
            self.progress.take(event)
            self._words = printable(event.message)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        """Draw the view as it is now."""
        narrow = options.update(width=min(options.max_width, _WIDEST))
        with self._lock:
            parts = list(self._parts(console, narrow))
        lines = [line for part in parts for line in console.render_lines(part, narrow, pad=False)]
        # A view that is higher than the terminal would leave its upper part behind at each picture.
        for line in lines[: max(console.size.height - 1, 1)]:
            yield from line
            yield Segment.line()

    def _parts(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Give the parts of the view from top to bottom."""
        width, height = options.max_width, console.size.height
        yield self._heading()
        yield from self._bar(width)
        figures = self._figures()
        if figures.plain:
            yield Padding(figures, (0, 0, 0, 2))
        blockers = self.progress.blockers
        if blockers:
            yield Text()
            yield from self._holding(blockers, console, options, max(height - _FIXED_LINES, 3))
        elif self._words:
            yield Padding(Text(self._words, style="dim", no_wrap=True, overflow=self._overflow), (0, 0, 0, 2))
        yield from self._recent()
        yield Text(self._key(), style="dim", no_wrap=True, overflow=self._overflow)

    def _heading(self) -> RenderableType:
        """Give what is being done to what, and the time."""
        state = self.progress.state
        last = self.progress.last
        over = last is not None and last.kind in {EventKind.COMPLETED, EventKind.FAILED}
        verb = _VERBS[state] if over or state in MOVING else _STARTING[self._verb]
        name = printable(self.progress.patch or self._name)
        what = Text.assemble(
            (f"{verb} ", ""),
            (name, "bold"),
            (f" on {printable(self._target)}" if name else printable(self._target), ""),
        )
        if self.progress.reversed:
            what.append("  turned round", style="yellow")
        if self.progress.forced:
            what.append("  FORCED", style="bold red")
        what.no_wrap, what.overflow = True, self._overflow
        now = max(self._now(), self.progress.elapsed_s)
        limit = f" of {self._timeout_s:g} s" if self._timeout_s else ""
        table = Table.grid(expand=True, padding=(0, 1, 0, 0))
        table.add_column(width=1)
        table.add_column(ratio=1, no_wrap=True, overflow=self._overflow)
        table.add_column(justify="right", no_wrap=True)
        table.add_row(self._spinner, what, Text(f"{now:.1f} s{limit}" if now < 100 else f"{seconds(now)}{limit}"))
        return table

    def _bar(self, width: int) -> Iterator[RenderableType]:
        """Give how many tasks have gone over."""
        progress = self.progress
        if not progress.total:
            return
        done, words = progress.crossed, f"{progress.crossed} of {count(progress.total, 'task')} over"
        if progress.clear is not None and progress.left:
            done, words = progress.clear, f"{progress.clear} of {count(progress.total, 'stack')} clear"
        table = Table.grid(padding=(0, 1, 0, 0))
        table.add_column(width=1)
        room = max(min(width - len(words) - 6, _LONGEST_BAR), 8)
        bar = ProgressBar(progress.total, done, width=room, style="bright_black", complete_style="cyan")
        bar.finished_style = "green"
        table.add_row("", bar, Text(words, no_wrap=True))
        yield table

    def _figures(self) -> Text:
        """Give the second line: attempts, pauses, ways of going over."""
        progress, parts = self.progress, []
        if progress.attempts:
            parts.append(f"attempt {progress.attempts}")
        if progress.next_at_s is not None and progress.next_at_s > self._now():
            parts.append(f"next in {progress.next_at_s - self._now():.1f} s")
        if progress.pauses_ms:
            parts.append("paused " + ", ".join(f"{pause:.0f}" for pause in progress.pauses_ms[-5:]) + " ms")
        parts += [f"{number} {HOWS[how]}" for how, number in progress.hows.items()]
        return Text(
            " · ".join(parts) if self._unicode else ", ".join(parts),
            style="dim",
            no_wrap=True,
            overflow=self._overflow,
        )

    @property
    def _unicode(self) -> bool:
        return self._glyphs == Glyphs()

    def _holding(
        self, blockers: list[Blocker], console: Console, options: ConsoleOptions, lines: int
    ) -> Iterator[RenderableType]:
        """Give those that hold the transition up, as many as there is room for, and what to do about them."""

        def height(part: RenderableType) -> int:
            return len(console.render_lines(part, options, pad=False))

        verb = "holds" if len(blockers) == 1 else "hold"
        yield Text(f"  {count(len(blockers), 'task')} {verb} it up", style="bold")
        pieces = dict.fromkeys(blocker.task.advice for blocker in blockers if blocker.task.advice)
        advice = [self._advice(piece) for piece in pieces][:_ADVICE]
        room = lines - sum(map(height, advice))
        if room < _LEAST:
            advice, room = [], lines
        alike = groups(blockers)
        who = max(cell_len(task_name(blocker.task)) for blocker in blockers)
        for each in _EACH:
            parts = [self._group(group, min(who, _WIDEST_NAME), each) for group in alike]
            heights = list(map(height, parts))
            if sum(heights) <= room:
                break
        shown = 1
        while shown < len(parts) and sum(heights[: shown + 1]) <= room:
            shown += 1
        yield from parts[:shown]
        hidden = sum(len(group.blockers) for group in alike[shown:])
        if hidden:
            yield Text(f"  and {hidden} more for other reasons", style="dim")
        yield from advice

    def _advice(self, piece: str) -> RenderableType:
        """Give a piece of advice."""
        arrow = self._glyphs.call
        table = Table.grid(padding=(0, 1, 0, 0))
        table.add_column(width=len(arrow))
        table.add_column()
        table.add_row(Text(arrow, style="cyan"), Text(printable(piece), style="cyan"))
        return Padding(table, (0, 0, 0, 2))

    def _group(self, group: Alike, who: int, most: int) -> RenderableType:
        """Give blockers that the same is to be said of: so many of them by name, the reason, the stack."""
        now = self._now()
        table = Table.grid(expand=True, padding=(0, 2, 0, 0))
        table.add_column(width=len(self._glyphs.lost) + 1 + who, no_wrap=True, overflow=self._overflow)
        table.add_column(ratio=1, no_wrap=True, overflow=self._overflow)
        table.add_column(justify="right", no_wrap=True)
        color = _COLORS.get(group.task.hold, "") if group.task.hold else ""
        for blocker in group.blockers[:most]:
            since = now - blocker.since_s
            table.add_row(
                Text.assemble((self._glyphs.lost, color), " ", (task_name(blocker.task), "bold")),
                Text(held_by(blocker.task), style=color),
                Text(f"{since:.0f} s" if since >= 1 else "", style="dim"),
            )
        parts: list[RenderableType] = [table]
        hidden = [str(blocker.task.pid) for blocker in group.blockers[most:]]
        if hidden:
            text = f"and {len(hidden)} more of the same: {', '.join(hidden)}"
            parts.append(Padding(Text(text, no_wrap=True, overflow=self._overflow), (0, 0, 0, 2)))
        parts += [Padding(Text(text, style="dim"), (0, 0, 0, 4)) for text in self._why(group.task)]
        return Padding(Group(*parts), (0, 0, 0, 2))

    def _why(self, task: TaskState) -> list[str]:
        """Give the lines below a blocker: its reason, its stack."""
        arrow = f" {'←' if self._unicode else '<-'} "
        more = arrow + ("…" if self._unicode else "...") if len(task.trace) > _FRAMES else ""
        stack = arrow.join(printable(name) for name in task.trace[:_FRAMES]) + more if len(task.trace) > 1 else ""
        return [text for text in (printable(task.reason), stack) if text]

    def _recent(self) -> Iterator[RenderableType]:
        """Give the tasks that went over last."""
        recent = self.progress.recent
        if recent:
            names = ", ".join(task_name(task) for task in recent[:12])
            yield Padding(
                Text.assemble(("just over  ", "green"), (names, ""), no_wrap=True, overflow=self._overflow),
                (0, 0, 0, 2),
            )

    def _key(self) -> str:
        """Say what Ctrl-C does."""
        if self._verb == "watch":
            return "  Ctrl-C stops watching; the transition goes on."
        return "  Ctrl-C interrupts and leaves the target consistent."
