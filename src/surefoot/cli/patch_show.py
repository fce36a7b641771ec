"""Layer 9: one transition from the command line to the exit status: how it is shown, and what is said at its end."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import click

from surefoot.cli.console import Globals
from surefoot.cli.exits import Exit
from surefoot.cli.patch_backend import Backend, Options, open_backend
from surefoot.cli.patch_drive import Interrupts, follow
from surefoot.cli.stack import output_style, write_text
from surefoot.errors import NotApplied, SurefootError
from surefoot.patch.events import Event, EventKind, PatchState
from surefoot.report.patch_json import event_json
from surefoot.report.patch_progress import MOVING, Progress
from surefoot.report.patch_text import event_line, remark_text, state_words, summary_text

__all__ = ["Job"]

_REFRESH: Final = 5
"""Pictures a second of the live view."""
_LASTING: Final = frozenset({EventKind.WARNING, EventKind.FORCED, EventKind.REVERSED})
"""Events that stay on the screen when the live view is gone."""
_GOAL: Final = {"apply": PatchState.APPLIED, "revert": PatchState.ABSENT}


def _complain(message: str, hint: str = "") -> None:
    """Print a sentence, and a hint if there is one, to stderr, as every command does."""
    click.echo(f"{click.style('surefoot:', fg='red', bold=True)} {' '.join(message.split())}", err=True)
    if hint:
        click.echo(f"{click.style('hint:', bold=True)} {' '.join(hint.split())}", err=True)


@dataclass(slots=True)
class Job:
    """One transition that a command starts or watches.

    Attributes:
        held: the global options.
        verb: "apply", "revert" or "watch".
        target: as on the command line.
        options: for the backend.
        name: of the patch as on the command line, perhaps empty.
        progress: what the events have said so far.
        began: when the command began, by the monotonic clock.
    """

    held: Globals
    verb: str
    target: str
    options: Options
    name: str
    progress: Progress = field(default_factory=Progress)
    began: float = field(default_factory=time.monotonic)

    def run(self, begin: Callable[[Backend], Iterator[Event]]) -> Exit:
        """Do it, show it, and give the exit status.

        Args:
            begin: gives the events of the backend.

        Raises:
            SurefootError: there is no answer.
        """
        with Interrupts(lambda text: click.echo(text, err=True)) as interrupts:
            backend: Backend | None = None
            begun = told = False
            try:
                backend = interrupts.run(lambda: open_backend(self.target, self.options))
                found = backend
                events = interrupts.run(lambda: begin(found))
                begun = True
                with self._shown() as show:
                    told = follow(events, show, interrupts, watching=self.verb == "watch")
            except NotApplied as error:
                _complain(str(error), error.hint)
                return Exit.NO
            except BrokenPipeError:
                raise
            except (SurefootError, OSError):
                self._say_broken_off(backend)
                raise
            except KeyboardInterrupt:
                pass
            good = self._is_good()
            if begun and not self.held.json and (told or not interrupts.count):
                self._summarize(good=good)
            if interrupts.count and not begun:
                _complain("interrupted: nothing had begun")
                return Exit.INTERRUPTED
            if interrupts.count:
                self._say_interrupted(None if interrupts.abandoned else backend, told=told)
                return Exit.INTERRUPTED
        return Exit.WELL if good else Exit.NO

    def _is_good(self) -> bool:
        """Say whether the command reached what it was asked for."""
        last = self.progress.last
        if self.verb == "watch":
            return self.progress.finished([self.name] if self.name else ())
        return last is not None and last.kind is EventKind.COMPLETED and last.state is _GOAL[self.verb]

    @contextmanager
    def _shown(self) -> Iterator[Callable[[Event], None]]:
        """Give a function that shows an event in the way that the output asks for."""
        if self.held.json:
            yield self._json
        elif self.held.quiet:
            yield self.progress.take
        elif sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
            with self._live() as show:
                yield show
        else:
            yield self._line

    def _json(self, event: Event) -> None:
        """Print an event as a line of JSON; whoever reads gets it at once."""
        self.progress.take(event)
        # ASCII only: a task's comm may hold bytes that no encoding of the terminal can print.
        sys.stdout.write(json.dumps(event_json(event, self.target), ensure_ascii=True, allow_nan=False) + "\n")
        sys.stdout.flush()

    def _line(self, event: Event) -> None:
        """Print an event as a line of text."""
        self.progress.take(event)
        write_text(event_line(event, output_style(self.held)))
        sys.stdout.flush()

    @contextmanager
    def _live(self) -> Iterator[Callable[[Event], None]]:
        """Draw the live view; when it goes, what has to be read stays."""
        from rich.live import Live
        from rich.text import Text

        from surefoot.report.patch_live import LiveView

        view = LiveView(
            self.verb,
            self.name,
            self.target,
            progress=self.progress,
            now=lambda: time.monotonic() - self.began,
            timeout_s=self.options.timeout_s,
            encoding=sys.stdout.encoding,
        )
        style = output_style(self.held)
        console = self.held.stdout()
        if isinstance(sys.stdout, io.TextIOWrapper):
            # A task's name may hold characters that the terminal's encoding lacks.
            sys.stdout.reconfigure(errors="backslashreplace")
        ended = False
        try:
            with Live(view, console=console, transient=True, refresh_per_second=_REFRESH) as live:

                def show(event: Event) -> None:
                    view.take(event)
                    if event.kind in _LASTING:
                        live.console.print(Text.from_ansi(remark_text(event, style)))

                yield show
            ended = True
        finally:
            if not ended and self.progress.last is not None:
                write_text(event_line(self.progress.last, style))

    def _summarize(self, *, good: bool) -> None:
        """Print how it ended."""
        elapsed = time.monotonic() - self.began
        write_text(summary_text(self.progress, self.target, output_style(self.held), good=good, elapsed_s=elapsed))

    def _say_interrupted(self, backend: Backend | None, *, told: bool) -> None:
        """Say on stderr in which state an interruption left the target.

        Args:
            backend: to be asked where the events do not tell; None if it must not be.
            told: the last event tells.
        """
        name = self.progress.patch or self.name
        if self.verb == "watch":
            _complain("interrupted: nothing was changed, and what was under way goes on")
            return
        state = self.progress.state if told and self.progress.last is not None else self._ask(backend, name)
        ask = f"surefoot patch status --target {self.target}"
        if state is None:
            _complain(
                f"interrupted: where {name or 'the patch'} stands on {self.target} could not be told", f"run: {ask}"
            )
            return
        said = self.progress.last.message if told and self.progress.last is not None else ""
        hint = ""
        if state in MOVING:
            hint = f"it goes on by itself: {ask.replace('status', 'watch')}"
        elif state is PatchState.PARTIAL:
            hint = f"look at it before anything else: {ask}"
        first = "" if said.lower().startswith("interrupted") else "interrupted: "
        _complain(f"{first}{state_words(name, state)}{'. ' if said else ''}{said}", hint)

    def _say_broken_off(self, backend: Backend | None) -> None:
        """Say on stderr in which state an error in the middle of a transition left the target."""
        last = self.progress.last
        if last is None or last.kind in {EventKind.COMPLETED, EventKind.FAILED} or self.verb == "watch":
            return
        name = self.progress.patch or self.name
        state = self._ask(backend, name)
        _complain(
            f"broken off: where {name} stands on {self.target} could not be told"
            if state is None
            else f"broken off: {state_words(name, state)}"
        )

    def _ask(self, backend: Backend | None, name: str) -> PatchState | None:
        """Ask the target where a patch stands; None if it cannot be told."""
        if backend is None:
            return None
        try:
            statuses = backend.status()
        except (SurefootError, OSError, KeyboardInterrupt):
            return None
        if not statuses:
            return PatchState.ABSENT
        return next((each.state for each in statuses if each.patch == name), None)
