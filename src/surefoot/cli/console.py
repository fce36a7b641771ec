"""Layer 9: what every command shares: global options, terminals, progress and JSON.

Invariant: stdout carries the answer and nothing else; progress and complaints go to stderr. rich is imported
when something is drawn, never for `--help` or `--json`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO, TypeVar, cast

import click

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["PIPE_WIDTH", "Color", "Globals", "global_options", "pass_globals", "print_json", "progress"]

Color = Literal["auto", "always", "never"]
_Command = TypeVar("_Command", bound=Callable[..., Any])

PIPE_WIDTH: Final = 160
"""Columns assumed where the output is not a terminal and COLUMNS is not set: rows of a table stay on one line."""


@dataclass
class Globals:
    """The options that hold for every command, wherever on the command line they stood.

    Attributes:
        json: the answer is one JSON object on stdout.
        quiet: only the answer; no progress, no remarks.
        color: auto colours a terminal only and honours NO_COLOR.
    """

    json: bool = False
    quiet: bool = False
    color: Color = "auto"

    def stdout(self) -> Console:
        """Give a console for the answer."""
        return _console(sys.stdout, self.color)

    def stderr(self) -> Console:
        """Give a console for remarks and progress."""
        return _console(sys.stderr, self.color)

    def note(self, text: str) -> None:
        """Print a remark to stderr unless quiet."""
        if not self.quiet:
            click.echo(text, err=True)


def _console(stream: TextIO, color: Color) -> Console:
    from rich.console import Console

    width = None if stream.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
    return Console(
        file=stream,
        width=width,
        force_terminal=True if color == "always" else None,
        color_system=None if color == "never" else "auto",
        # Traces hold names such as "[ext4]": text is text unless a caller builds rich objects.
        markup=False,
        emoji=False,
        highlight=False,
    )


pass_globals = click.make_pass_decorator(Globals, ensure=True)
"""Decorator: the command function gets the `Globals` in force as its first argument."""


def _store(ctx: click.Context, param: click.Parameter, value: object) -> None:
    """Keep a global option in ctx.obj: the one nearest to the subcommand wins, an absent one changes nothing."""
    held = ctx.ensure_object(Globals)
    if value and param.name is not None:
        setattr(held, param.name, value)


def global_options(command: _Command) -> _Command:
    """Accept --json, --quiet and --color; they end in the `Globals` at ctx.obj.

    To be put on the group and on each command, so that `surefoot --json stack` and `surefoot stack --json` are the
    same. The command function does not get the values as parameters: see `pass_globals`.

    Args:
        command: the function under a click decorator.

    Returns:
        The same function with three more options.
    """
    color = click.option(
        "--color",
        type=click.Choice(["auto", "always", "never"]),
        expose_value=False,
        callback=_store,
        help="Colours: auto (a terminal only), always, never.",
    )
    quiet = click.option(
        "--quiet", "-q", is_flag=True, expose_value=False, callback=_store, help="No progress and no remarks."
    )
    as_json = click.option(
        "--json", is_flag=True, expose_value=False, callback=_store, help="Print the answer as one JSON object."
    )
    return as_json(quiet(color(command)))


def _plain(value: object) -> object:
    """Turn numpy scalars and arrays into Python numbers and lists without importing numpy."""
    tolist = getattr(value, "tolist", None)
    if callable(tolist):
        return cast("object", tolist())
    raise TypeError(f"{type(value).__name__} has no JSON form")


def print_json(obj: Mapping[str, object]) -> None:
    """Print one JSON object to stdout, keys in the order given, addresses as plain numbers.

    Args:
        obj: what `surefoot.<command>/<n>` describes; numpy scalars and arrays are turned into numbers and lists.

    Raises:
        TypeError: a value has no JSON form.
        ValueError: a value is NaN or infinite, which JSON cannot say.
    """
    # ASCII only: a task's comm may hold bytes that no encoding of the terminal can print.
    text = json.dumps(obj, indent=2, default=_plain, allow_nan=False, ensure_ascii=True)
    sys.stdout.write(text + "\n")


@contextmanager
def progress(held: Globals, what: str, total: float | None = None) -> Iterator[Callable[[float], None]]:
    """Show progress on stderr while the block runs, on a terminal only; leave nothing behind.

    Args:
        held: the global options; quiet shows nothing.
        what: a few words on the left of the bar.
        total: the amount that makes it complete, or None where it is not known.

    Yields:
        A function that adds an amount to what has been done.
    """
    if held.quiet or not sys.stderr.isatty():
        yield lambda _amount: None
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=held.stderr(), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda amount: bar.advance(task, amount)
