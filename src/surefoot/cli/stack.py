"""Layer 9: `surefoot stack`."""

from __future__ import annotations

import os
import shutil
import sys
from bisect import bisect_right
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from surefoot.cli.console import PIPE_WIDTH, Globals, global_options, pass_globals, print_json, progress
from surefoot.cli.exits import Exit

if TYPE_CHECKING:
    from surefoot.report.stack_build import Lines, ModuleOf
    from surefoot.report.stack_view import StackReport
    from surefoot.report.style import Style
    from surefoot.targets.capture import Capture
    from surefoot.targets.linux import LinuxTarget
    from surefoot.unwind.context import Mode

__all__ = ["output_style", "stack", "write_text"]

_FILE = click.Path(path_type=Path)


class _Wish(NamedTuple):
    """What the command line asks of the walk.

    Attributes:
        mode: "hybrid", "fp" or "sframe".
        pids: tasks, empty for all.
        unreliable: show unreliable tasks only.
        lines: name source lines.
        strict: accept proved rules only.
    """

    mode: str
    pids: tuple[int, ...]
    unreliable: bool
    lines: bool
    strict: bool


@click.command()
@click.option("--vmcore", type=_FILE, required=True, metavar="FILE", help="Memory dump: ELF core or kdump.")
@click.option("--vmlinux", type=_FILE, required=True, metavar="FILE", help="Its kernel, with debug information.")
@click.option("--modules", type=_FILE, metavar="DIR", help="Folder with the files of its modules.")
@click.option(
    "--mode",
    type=click.Choice(["hybrid", "fp", "sframe"]),
    default="hybrid",
    show_default=True,
    help="Rules and frame records together, the kernel's own walk, or rules only.",
)
@click.option(
    "--task", "pids", type=click.IntRange(min=0), multiple=True, metavar="PID", help="This thread only; repeatable."
)
@click.option("--unreliable", is_flag=True, help="Show only the tasks whose trace is not certain.")
@click.option("--lines", is_flag=True, help="Show source lines (loads the debug information: slower).")
@click.option(
    "--prove", is_flag=True, help="Prove the rules of all code, not only those that exceptions interrupted; keep it."
)
@click.option(
    "--strict", is_flag=True, help="Accept rules only where they are proved, at every frame (implies --prove)."
)
@click.option("--record", "snapshot", type=_FILE, metavar="FILE", help="Also write what was captured to FILE.")
@global_options
@pass_globals
def stack(
    held: Globals,
    *,
    vmcore: Path,
    vmlinux: Path,
    modules: Path | None,
    mode: str,
    pids: tuple[int, ...],
    unreliable: bool,
    lines: bool,
    prove: bool,
    strict: bool,
    snapshot: Path | None,
) -> Exit:
    """Trace every task of a dump and say which traces are certain.

    For each task the functions that it may still return into, innermost first, with the evidence for each, and
    a verdict: RELIABLE, or UNRELIABLE with the reason and the place. At the end a table compares the kernel's
    own walk (fp) with the hybrid walk.

    Where an exception interrupted a function, its unwind rules are proved against the code that runs, and the walk
    goes on only if the rule at that very instruction is proved. Proofs are kept in the cache folder.

    Exit status: 0 if all stacks shown are reliable in the chosen mode, 1 if one is not, 2 if there is no answer.
    """
    from surefoot.targets.cache import TableCache
    from surefoot.targets.vmcore import open_vmcore

    wish = _Wish(mode, pids, unreliable, lines, strict)
    with progress(held, f"reading {vmcore.name}"):
        target = open_vmcore(vmcore, vmlinux, modules, cache=TableCache())
        if prove or strict:
            target.prove()
        capture = target.capture(pids or None)
        if snapshot is not None:
            _record(capture, snapshot)
        capture = target.prove_boundaries(capture, modes=_proved_modes(mode))
        report = _report(target, capture, wish)
    if held.json:
        from surefoot.report.stack_json import stack_json

        print_json(stack_json(report))
    else:
        _write(report, output_style(held), quiet=held.quiet)
    return Exit.WELL if report.reliable else Exit.NO


def _proved_modes(mode: str) -> tuple[Mode, ...]:
    """Give the modes of a report in which walks ask for proofs."""
    from surefoot.unwind.context import Mode

    return (Mode.HYBRID, Mode.SFRAME) if mode == Mode.SFRAME.value else (Mode.HYBRID,)


def _report(target: LinuxTarget, capture: Capture, wish: _Wish) -> StackReport:
    """Walk the tasks in every mode that the report compares."""
    from surefoot.report.stack_build import build_report
    from surefoot.unwind.context import Mode
    from surefoot.unwind.walker import walk

    chosen = Mode(wish.mode)
    walks = {
        mode: walk(
            capture.code,
            capture.stacks,
            capture.tasks,
            capture.layout,
            mode=mode,
            strict=wish.strict and mode is not Mode.FP,
        )
        for mode in dict.fromkeys((Mode.FP, Mode.HYBRID, chosen))
    }
    ask: Lines | None = target.source_lines if wish.lines else None
    return build_report(
        capture,
        walks,
        chosen,
        strict=wish.strict,
        unreliable=wish.unreliable,
        module_of=_module_of(target),
        lines=ask,
    )


def _module_of(target: LinuxTarget) -> ModuleOf:
    """Give a function that names the module at an address."""
    ranges = sorted((base, base + size, module.name) for module in target.modules for base, size in module.ranges)
    starts = [base for base, _, _ in ranges]

    def module_of(addr: int) -> str | None:
        at = bisect_right(starts, addr) - 1
        return ranges[at][2] if at >= 0 and addr < ranges[at][1] else None

    return module_of


def _record(capture: Capture, path: Path) -> None:
    """Write what was captured, to be walked again elsewhere."""
    from surefoot.targets.snapshot import record

    record(capture, sorted(set(capture.info.pid.tolist())), path)


def output_style(held: Globals) -> Style:
    """Give the style of standard output."""
    from surefoot.report.style import Style

    terminal = sys.stdout.isatty()
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    color = held.color == "always" or (held.color == "auto" and terminal and not plain)
    width = shutil.get_terminal_size((PIPE_WIDTH, 24)).columns if terminal or "COLUMNS" in os.environ else PIPE_WIDTH
    return Style.make(width=width, color=color, encoding=sys.stdout.encoding)


def _write(report: StackReport, style: Style, *, quiet: bool) -> None:
    """Print the report."""
    from surefoot.report.stack_summary import legend_text, summary_text
    from surefoot.report.stack_text import traces_text

    parts = [traces_text(report, style), "" if quiet else legend_text(report, style), summary_text(report, style)]
    write_text("".join(parts))


def write_text(text: str) -> None:
    """Print text to standard output; a task's name may hold characters that the terminal's encoding lacks."""
    encoding = sys.stdout.encoding or "ascii"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
