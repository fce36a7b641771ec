"""Layer 9: the `surefoot` command: its list of subcommands, and how errors become exit statuses.

Invariant: a subcommand's module is imported when it is invoked or asked for its own help, never for
`surefoot --help`, which therefore loads neither drgn nor unicorn nor numpy.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import Final, NamedTuple, cast

import click

from surefoot import __version__
from surefoot.cli.console import global_options
from surefoot.cli.exits import Exit
from surefoot.errors import SurefootError

__all__ = ["COMMANDS", "Entry", "cli", "main", "run"]


class Entry(NamedTuple):
    """Where a subcommand is and what the list says of it.

    Attributes:
        module: holds the click command as an attribute with the subcommand's own name.
        summary: the first sentence of the command's help; a test compares the two.
    """

    module: str
    summary: str


COMMANDS: Final[Mapping[str, Entry]] = MappingProxyType(
    {
        "stack": Entry("surefoot.cli.stack", "Trace every task of a dump and say which traces are certain."),
        "audit": Entry(
            "surefoot.cli.audit", "Prove the unwind metadata of an image against its code, and say what to repair."
        ),
        "sframe": Entry("surefoot.cli.sframe", "Read, check, convert and compare SFrame unwind metadata."),
        "vm": Entry("surefoot.cli.vm", "Run real arm64 kernels in QEMU: fetch or build, boot, trace, dump."),
        "campaign": Entry(
            "surefoot.cli.campaign",
            "Try every walker at every instruction of the emulated machine's load, against the truth.",
        ),
        "patch": Entry(
            "surefoot.cli.patch", "Patch a running kernel: apply, revert, look at and watch a transition."
        ),
        "demo": Entry("surefoot.cli.demo", "Show the whole system on an emulated arm64 machine, in seconds."),
    }
)
"""Every subcommand of `surefoot`."""


class _LazyGroup(click.Group):
    """A group whose commands come from `COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = getattr(import_module(entry.module), cmd_name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{entry.module}.{cmd_name} is not a click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="surefoot")
@global_options
def cli() -> None:
    """Reliable stack traces and live patching for arm64 Linux kernels.

    Exit status: 0 all well; 1 the answer is no (some stack unreliable, findings, transition incomplete);
    2 bad input or environment; 130 interrupted.
    """


def _complain(message: str, hint: str = "") -> None:
    """Print one sentence, and a hint if there is one, to stderr."""
    click.echo(f"{click.style('surefoot:', fg='red', bold=True)} {' '.join(message.split())}", err=True)
    if hint:
        click.echo(f"{click.style('hint:', bold=True)} {' '.join(hint.split())}", err=True)


def _close_stdout() -> None:
    """Point stdout at nothing, so that the flush at exit does not complain about the closed pipe."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)


def _invoke(args: list[str]) -> object:
    """Parse the words and run the command; every error comes out as it was raised."""
    if "_SUREFOOT_COMPLETE" in os.environ:
        cli.main(prog_name="surefoot")
    # Not cli.main() otherwise: it turns a closed pipe into status 1, which is an answer here.
    with cli.make_context("surefoot", args) as ctx:
        return cast("object", cli.invoke(ctx))


def run(args: Sequence[str] | None = None) -> int:
    """Run one command line and give its exit status; nothing is raised.

    Args:
        args: the words after `surefoot`; None takes them from sys.argv.

    Returns:
        One of `Exit`, or what a command set by ctx.exit().
    """
    try:
        outcome = _invoke(list(sys.argv[1:] if args is None else args))
        sys.stdout.flush()
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except (click.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    except click.ClickException as error:
        error.show()
        return Exit.BAD
    except SurefootError as error:
        _complain(str(error), error.hint)
        return Exit.BAD
    except BrokenPipeError:
        _close_stdout()
        return Exit.PIPE_CLOSED
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        _complain(f"{place}{error.strerror or error}")
        return Exit.BAD
    except Exception:  # noqa: BLE001  a fault of ours must not leave with status 1, which is an answer
        traceback.print_exc()
        _complain("this is a fault in Surefoot itself", "please report it with the lines above")
        return Exit.FAULT
    return outcome if isinstance(outcome, int) else Exit.WELL


def main() -> None:
    """Run `surefoot` with the words of the command line, and exit with its status."""
    sys.exit(run())


if __name__ == "__main__":
    main()
