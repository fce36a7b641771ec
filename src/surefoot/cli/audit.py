"""Layer 9: `surefoot audit`."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from surefoot.cli.console import PIPE_WIDTH, Globals, global_options, pass_globals, progress
from surefoot.cli.exits import Exit

if TYPE_CHECKING:
    from surefoot.audit.live import Live
    from surefoot.audit.subject import Subject
    from surefoot.image.binary import Image
    from surefoot.report.audit_view import AuditReport, ImageReport
    from surefoot.report.style import Style

__all__ = ["audit"]

_FILE = click.Path(path_type=Path)
_LEVELS = ("error", "warning", "note", "never")


@click.command()
@click.argument("image", type=_FILE)
@click.option(
    "--modules", type=_FILE, metavar="DIR", help="Also audit the modules in this folder, with debug symbols."
)
@click.option("--live", type=_FILE, metavar="VMCORE", help="Compare the text of this dump, and prove it again.")
@click.option(
    "--debug-info",
    is_flag=True,
    help="Also take the compiler's word for functions that never return (slower).",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "sarif", "html"]),
    default="text",
    show_default=True,
    help="What to write.",
)
@click.option("--output", "-o", type=_FILE, metavar="FILE", help="Write there, not to standard output.")
@click.option(
    "--fail-on",
    type=click.Choice(_LEVELS),
    default="error",
    show_default=True,
    help="Exit with status 1 if there is a finding of this severity or worse.",
)
@click.option(
    "--examples", type=click.IntRange(min=0), default=1, show_default=True, help="Findings shown of each code."
)
@click.option(
    "--lines",
    type=click.Choice(["some", "all", "none"]),
    default="some",
    show_default=True,
    help="Look source lines up for some findings of each code, for all (slower), or for none.",
)
@global_options
@pass_globals
def audit(
    held: Globals,
    *,
    image: Path,
    modules: Path | None,
    live: Path | None,
    debug_info: bool,
    form: str,
    output: Path | None,
    fail_on: str,
    examples: int,
    lines: str,
) -> Exit:
    """Prove the unwind metadata of an image against its code, and say what to repair.

    IMAGE is a vmlinux or a module, with debug symbols or .sframe. Every instruction's rule is proved or refuted;
    findings name the code, the owner (compiler, assembler, hand-written assembly, linker, kernel), the place and what
    would repair it.

    Exit status: 0 if no finding is as bad as --fail-on says, 1 if one is, 2 if there is no answer.
    """
    with progress(held, f"proving {image.name}"):
        report = _report(image, modules, live, lines=lines, debug_info=debug_info)
    form = "json" if held.json else form
    text = _render(report, form, _style(held, output), examples=examples, quiet=held.quiet)
    if output is None:
        encoding = sys.stdout.encoding or "ascii"
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    else:
        output.write_text(text, encoding="utf-8")
        held.note(f"written: {output}")
    return Exit.NO if _fails(report, fail_on) else Exit.WELL


def _fails(report: AuditReport, level: str) -> bool:
    """Whether a finding is as bad as the threshold."""
    from surefoot.audit.catalogue import Severity

    if level == "never":
        return False
    wanted = Severity[level.upper()]
    return any(count for severity, count in report.severities.items() if severity >= wanted)


def _render(report: AuditReport, form: str, style: Style, *, examples: int, quiet: bool) -> str:
    """Write the report in a format."""
    if form == "json":
        from surefoot.report.audit_json import audit_json

        return json.dumps(audit_json(report), allow_nan=False) + "\n"
    if form == "sarif":
        from surefoot.report.sarif import sarif

        return json.dumps(sarif(report), allow_nan=False) + "\n"
    if form == "html":
        from surefoot.report.audit_html import audit_html

        return audit_html(report)
    from surefoot.report.audit_text import audit_text

    return "".join(audit_text(report, style, examples=examples, quiet=quiet))


def _report(
    path: Path, modules: Path | None, live: Path | None, *, lines: str, debug_info: bool = False
) -> AuditReport:
    """Audit the image and whatever was named with it."""
    from surefoot.errors import InputError, Unavailable
    from surefoot.image.files import open_image
    from surefoot.report.audit_view import AuditReport

    main = open_image(path)
    report = _audited(main, path, lines=lines, live=live, modules=modules, debug_info=debug_info)
    images, notes = [report], []
    if modules is not None:
        if not modules.is_dir():
            raise Unavailable(f"{modules}: no such folder of modules")
        never = _noreturn(report)
        for file in _module_files(modules):
            try:
                module = open_image(file)
                images.append(_audited(module, file, lines=lines, noreturn=never))
            except InputError as error:
                notes.append(f"{file.name}: {error.message}")
    return AuditReport(images, tuple(notes))


def _module_files(folder: Path) -> list[Path]:
    """List the modules below a folder; of two files of one name the one with debug symbols."""
    found: dict[str, Path] = {}
    for path in sorted([*folder.rglob("*.ko"), *folder.rglob("*.ko.debug")]):
        found[path.name.removesuffix(".debug")] = path
    return [found[name] for name in sorted(found)]


def _noreturn(report: ImageReport) -> frozenset[str]:
    """Give the names of the kernel's functions that never return, as modules see them."""
    import numpy as np

    from surefoot.audit.moduletext import NORETURN
    from surefoot.image.symbols import Binding

    subject = report.audit.subject
    proof = subject.proof
    if proof is None:
        return frozenset(NORETURN)
    symbols = subject.image.symbols
    starts = proof.rules.functions.start[proof.noreturn]
    if subject.promised is not None:
        starts = np.concatenate([starts, subject.promised.believed])
    # A module's undefined symbol is a global one of the kernel: a static function of the same name is another.
    rows = np.flatnonzero((symbols.binding == Binding.GLOBAL) & np.isin(symbols.addr, starts))
    return frozenset(NORETURN) | {symbols.name(row) for row in rows.tolist()}


def _audited(
    image: Image,
    path: Path,
    *,
    lines: str,
    live: Path | None = None,
    modules: Path | None = None,
    noreturn: frozenset[str] | None = None,
    debug_info: bool = False,
) -> ImageReport:
    """Prove and audit one image."""
    from surefoot.audit.auditing import audit as examine
    from surefoot.audit.auditing import prepare
    from surefoot.image.binary import ImageKind
    from surefoot.report.audit_view import LINED, build_image
    from surefoot.targets.lines import ImageLines

    subject = prepare(image, noreturn, debug_info=debug_info)
    done = examine(subject)
    running = None if live is None else _live(subject, path, live, modules)
    ask = None
    if lines != "none" and subject.parts:
        last, words = subject.parts[-1]
        ask = ImageLines(path, subject.parts[0][0], last + 4 * words.size, _sections(subject.image))
    name = image.modinfo.get("name", path.name.partition(".")[0]) if image.kind is ImageKind.MODULE else ""
    lined = len(done.findings) if lines == "all" else LINED
    return build_image(done, name=path.name, module=name, live=running, lines=ask, lined=lined)


def _sections(image: Image) -> dict[str, int] | None:
    """Give where the sections of a module were laid out; None for a linked image."""
    if image.bases is None:
        return None
    return {name: base for name, base in zip(image.sections.names, image.bases.tolist(), strict=True) if base}


def _live(subject: Subject, vmlinux: Path, vmcore: Path, modules: Path | None) -> Live:
    """Read the text of a dump, and compare it with the image."""
    from surefoot.audit.live import audit_live
    from surefoot.proof.inputs import code_of
    from surefoot.targets.cache import TableCache
    from surefoot.targets.code import live_words
    from surefoot.targets.vmcore import open_vmcore

    target = open_vmcore(vmcore, vmlinux, modules, cache=TableCache())
    names = subject.image.sections.names
    parts = []
    for (start, words), section in zip(subject.parts, subject.image.text.section.tolist(), strict=True):
        if names[section].startswith((".init", ".exit", ".head")):
            continue  # freed after boot (arch/arm64/mm/init.c: free_initmem; [_text, _stext) is not reserved)
        read = live_words(target.memory, start + target.bias, 4 * words.size)
        parts += [(addr - target.bias, live) for addr, live in read]
    return audit_live(subject, vmcore.name, parts, code_of(subject.image))


def _style(held: Globals, output: Path | None) -> Style:
    """Give the style of the output."""
    from surefoot.report.style import Style

    terminal = output is None and sys.stdout.isatty()
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    color = held.color == "always" or (held.color == "auto" and terminal and not plain)
    width = shutil.get_terminal_size((PIPE_WIDTH, 24)).columns if terminal or "COLUMNS" in os.environ else PIPE_WIDTH
    return Style.make(width=width, color=color, encoding="utf-8" if output else sys.stdout.encoding)
