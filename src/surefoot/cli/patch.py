"""Layer 9: `surefoot patch`: apply, revert, status and watch, the same for every way of patching."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from surefoot.cli.console import Globals, global_options, pass_globals, print_json
from surefoot.cli.exits import Exit
from surefoot.errors import InputError

if TYPE_CHECKING:
    from surefoot.cli.patch_backend import Options
    from surefoot.patch.events import Status

__all__ = ["FORCE_WORD", "patch"]

FORCE_WORD: Final = "break-consistency"
"""What has to be written after --force: what is done to the tasks that are overruled."""

_Command = TypeVar("_Command", bound=Callable[..., Any])
_FILE: Final = click.Path(path_type=Path)
_TARGETS: Final = "machine, guest:NAME or live."


def _target_options(command: _Command) -> _Command:
    """Accept what says which target, and how it is read."""
    for option in (
        click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of the emulated machine."),
        click.option(
            "--way",
            type=click.Choice(["auto", "stopped", "livepatch"]),
            default="auto",
            show_default=True,
            help="How to patch a guest: stop it while its sites are written, or by Linux's own livepatch.",
        ),
        click.option("--modules", type=_FILE, metavar="DIR", help="Folder with the files of its modules."),
        click.option("--vmlinux", type=_FILE, metavar="FILE", help="The target's kernel, with debug information."),
        click.option("--target", required=True, metavar="TARGET", help=f"What to patch: {_TARGETS}"),
    ):
        command = option(command)
    return command


def _pace_options(command: _Command) -> _Command:
    """Accept how long to try, and how often."""
    for option in (
        click.option(
            "--pause",
            type=click.FloatRange(0, min_open=True),
            default=5.0,
            show_default=True,
            help="Seconds that a guest may stand still in one attempt.",
        ),
        click.option(
            "--interval",
            type=click.FloatRange(0.001),
            default=0.1,
            show_default=True,
            help="Seconds between two looks at the tasks, or two attempts.",
        ),
        click.option(
            "--timeout",
            type=click.FloatRange(0),
            default=60.0,
            show_default=True,
            help="Seconds until an unfinished transition is given up; 0 for never.",
        ),
    ):
        command = option(command)
    return command


def _force_word(ctx: click.Context, param: click.Parameter, value: str | None) -> bool:
    """Take --force only with the word that says what it does."""
    if value is None:
        return False
    if value != FORCE_WORD:
        raise click.BadParameter(
            f"tasks that are overruled may run old and new code mixed; if that is meant, write --force={FORCE_WORD}",
            ctx,
            param,
        )
    return True


_force = click.option(
    "--force",
    metavar="WORD",
    callback=_force_word,
    help=f"Overrule the tasks that hold it up. WORD has to be {FORCE_WORD}: they may mix old and new code.",
)


def _options(values: dict[str, Any]) -> Options:
    """Give what the command line says about how to patch."""
    from surefoot.cli.patch_backend import Options

    chosen = Options(**{key: values[key] for key in ("vmlinux", "modules", "way", "seed")})
    if "timeout" not in values:
        return chosen
    from dataclasses import replace

    return replace(
        chosen, timeout_s=values["timeout"] or None, interval_s=values["interval"], pause_s=values["pause"]
    )


@click.group()
@global_options
def patch() -> None:
    """Patch a running kernel: apply, revert, look at and watch a transition.

    A task goes over to the new code only when its stack proves that it runs none of the functions involved. Whoever
    holds the transition up is named, with the function or the reason. TARGET is machine (the emulated machine),
    guest:NAME (a guest of surefoot vm) or live (this host, by Linux's own livepatch).

    With --json apply, revert and watch print one object per event, a line each; status prints one object.

    Exit status: 0 the transition is complete; 1 it is not, or was refused: the tasks that hold it up are named; 2 bad
    input or environment; 130 interrupted, the target is consistent and stderr says how it was left.
    """


@patch.command()
@click.argument("source", metavar="PATCH", default="")
@_target_options
@_pace_options
@_force
@global_options
@pass_globals
def apply(held: Globals, /, source: str, target: str, *, force: bool, **values: Any) -> Exit:
    """Apply a patch.

    PATCH is a description (a TOML file), or a livepatch module: its file, or its name where modprobe finds it. The
    emulated machine has patches of its own; without PATCH it takes the first.
    """
    from surefoot.cli.patch_show import Job

    job = Job(held, "apply", target, _options(values), source)
    return job.run(lambda backend: backend.apply(source, force=force))


@patch.command()
@click.argument("name", metavar="[PATCH]", default="")
@_target_options
@_pace_options
@_force
@global_options
@pass_globals
def revert(held: Globals, /, name: str, target: str, *, force: bool, **values: Any) -> Exit:
    """Take a patch back, also one that is half applied.

    PATCH is its name, or what it was applied from; it may be left out where the target has only one.
    """
    from surefoot.cli.patch_show import Job

    job = Job(held, "revert", target, _options(values), name)
    return job.run(lambda backend: backend.revert(name or _only(backend.status(), target), force=force))


@patch.command()
@click.argument("name", metavar="[PATCH]", default="")
@_target_options
@_pace_options
@global_options
@pass_globals
def watch(held: Globals, /, name: str, target: str, **values: Any) -> Exit:
    """Watch until no transition is under way; nothing is changed.

    Exit status: 0 if none is under way in the end, 1 if the time is over before.
    """
    from surefoot.cli.patch_show import Job

    job = Job(held, "watch", target, _options(values), name)
    return job.run(lambda backend: backend.watch(name or None))


@patch.command()
@click.argument("name", metavar="[PATCH]", default="")
@_target_options
@global_options
@pass_globals
def status(held: Globals, /, name: str, target: str, **values: Any) -> Exit:
    """Say how each patch of a target stands, or this one.

    Exit status: 0 if each is applied or not in force, 1 if one is in transition or partly written.
    """
    from surefoot.cli.patch_backend import open_backend
    from surefoot.cli.stack import output_style, write_text
    from surefoot.patch.events import PatchState
    from surefoot.report.patch_json import status_json
    from surefoot.report.patch_text import status_text

    statuses = open_backend(target, _options(values)).status()
    if name:
        statuses = [each for each in statuses if each.patch == name]
        if not statuses:
            raise InputError(f"{target} has no patch '{name}'", hint="without a name, all are shown")
    if held.json:
        print_json(status_json(statuses, target))
    else:
        write_text(status_text(statuses, target, output_style(held)))
    settled = {PatchState.ABSENT, PatchState.APPLIED}
    return Exit.WELL if all(each.state in settled for each in statuses) else Exit.NO


def _only(statuses: list[Status], target: str) -> str:
    """Give the name of the only patch that could be taken back."""
    from surefoot.patch.events import PatchState

    there = [each.patch for each in statuses if each.state is not PatchState.ABSENT]
    if len(there) == 1:
        return there[0]
    if not there:
        raise InputError(f"{target} has no patch to take back")
    raise InputError(f"{target} has several patches, so a name is needed", hint=f"one of: {', '.join(there)}")
