"""Layer 9: `surefoot sframe`: read, check, convert and compare SFrame sections.

Everything heavy is imported inside the commands.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from surefoot.cli.console import PIPE_WIDTH, Globals, global_options, pass_globals, print_json
from surefoot.cli.exits import Exit

if TYPE_CHECKING:
    from surefoot.cli.sframe_input import Input
    from surefoot.metadata.rules import RuleTable
    from surefoot.metadata.sframe import Finding
    from surefoot.report.style import Style

__all__ = ["sframe"]

_FILE = click.Path(path_type=Path)
_SECTION = click.option(
    "--section", "name", default=".sframe", show_default=True, help="Name of the section to read."
)
_SOURCE: Final = click.Choice(["auto", "sframe", "cfi"])


class _Address(click.ParamType[int]):
    """An address in decimal, or in hexadecimal with 0x."""

    name = "ADDR"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            number = int(str(value), 0)
        except ValueError:
            self.fail(f"{value!r} is not an address; write it like 0xffff800080010000", param, ctx)
        if not 0 <= number < 2**64:
            self.fail(f"{value} does not fit into 64 bits", param, ctx)
        return number


@click.group()
@global_options
def sframe() -> None:
    """Read, check, convert and compare SFrame unwind metadata.

    FILE is an ELF file of any machine that has SFrame (AArch64, x86-64, s390x), linked or relocatable, or a bare
    section. Versions 1, 2 and 3 are read and written.
    """
    # numpy comes with a linear algebra library that starts threads when it is loaded; nothing here uses it.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


@sframe.command()
@click.argument("file", type=_FILE)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "readelf"]),
    default="text",
    show_default=True,
    help="For people, or the text of GNU readelf --sframe.",
)
@click.option("--symbol", "symbols", multiple=True, metavar="NAME", help="This function only; patterns; repeatable.")
@click.option("--address", "addresses", multiple=True, type=_Address(), help="The function there only; repeatable.")
@_SECTION
@global_options
@pass_globals
def dump(
    held: Globals, *, file: Path, form: str, symbols: tuple[str, ...], addresses: tuple[int, ...], name: str
) -> Exit:
    """Print the rules of a section, function by function.

    Exit status: 0, or 2 if there is no section or it is damaged.
    """
    from surefoot.cli.sframe_input import open_input

    given = open_input(file, name)
    section = given.section
    if form == "readelf":
        if symbols or addresses or held.json:
            raise click.UsageError("--format readelf prints the whole section, as text")
        from surefoot.metadata.sframe import iter_readelf

        sys.stdout.flush()
        sys.stdout.buffer.writelines(iter_readelf(section, name))
        return Exit.WELL
    from surefoot.report.sframe_dump import choose, dump_json, dump_text

    rules = section.to_rules()
    names = given.symbols_of(rules.functions)
    chosen = choose(rules, names, symbols, addresses)
    if held.json:
        print_json(dump_json(section, rules, names, chosen))
    else:
        _write(dump_text(section, rules, names, chosen, _style(held)))
    return Exit.WELL if chosen.size or not (symbols or addresses) else Exit.NO


@sframe.command()
@click.argument("file", type=_FILE)
@click.option("--against-cfi", is_flag=True, help="Compare with .debug_frame or .eh_frame at every address.")
@click.option(
    "--level",
    type=click.Choice(["note", "warning", "error"]),
    default="warning",
    show_default=True,
    help="Leave out what is less grave.",
)
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Findings shown per code.")
@_SECTION
@global_options
@pass_globals
def check(held: Globals, *, file: Path, against_cfi: bool, level: str, limit: int, name: str) -> Exit:
    """Verify a section: structure, meaning, coverage, and on request the CFI of the same file.

    Exit status: 0 without errors, 1 with errors, 2 if there is nothing to check.
    """
    from surefoot.cli.sframe_input import open_input
    from surefoot.metadata.sframe import CATALOGUE, Severity
    from surefoot.report.sframe_text import SCHEMA_CHECK, finding_json, findings_text

    given = open_input(file, name)
    found = _findings(given, limit, against_cfi=against_cfi)
    shown = [item for item in found if CATALOGUE[item.code].severity >= Severity[level.upper()]]
    counts: dict[str, int] = {}
    for item in shown:
        counts[item.code] = counts.get(item.code, 0) + item.count
    errors = any(CATALOGUE[item.code].severity == Severity.ERROR for item in found)
    if held.json:
        body = [finding_json(item) for item in shown]
        print_json({"schema": SCHEMA_CHECK, "file": str(file), "errors": errors, "counts": counts, "findings": body})
    else:
        _write(findings_text(shown, counts, _style(held)))
        if not shown and not held.quiet:
            click.echo(f"{file}: no findings")
    return Exit.NO if errors else Exit.WELL


def _findings(given: Input, limit: int, *, against_cfi: bool) -> list[Finding]:
    """Collect every finding about a section, with symbols."""
    from dataclasses import replace

    import numpy as np

    from surefoot.errors import InputError
    from surefoot.metadata import sframe as codec

    found = codec.check(
        given.content,
        section_addr=given.address,
        relocations=given.relocations,
        machine=given.machine,
        limit=limit,
    )
    rules: RuleTable | None
    try:
        rules = given.section.to_rules()
    except InputError:
        rules = None  # the findings above say why
    if rules is not None and given.elf is not None:
        found += codec.check_coverage(rules, given.functions(), given.code(), limit=limit)
    if against_cfi:
        reference = given.cfi()
        if rules is not None:
            found += codec.check_against(rules, reference, limit=limit)[0]
    where = [item for item in found if item.address is not None]
    start = np.array([item.address for item in where], dtype=np.uint64)
    section = np.array([item.section for item in where], dtype=np.int32)
    names = given.names.of_functions(start, section)
    named = {id(item): replace(item, symbol=name) for item, name in zip(where, names, strict=True)}
    return [named.get(id(item), item) for item in found]


@sframe.command()
@click.argument("file", type=_FILE)
@click.option("--output", "-o", type=_FILE, required=True, metavar="OUT", help="File to write.")
@click.option("--version", type=click.IntRange(1, 3), default=3, show_default=True, help="SFrame version to write.")
@click.option(
    "--from", "source", type=_SOURCE, default="auto", show_default=True, help="CFI if there is any, or one."
)
@click.option("--raw", is_flag=True, help="Write the bare section, not an ELF file with it.")
@click.option("--address", type=_Address(), help="Address of a bare section; that of the ELF file if not given.")
@_SECTION
@global_options
@pass_globals
def convert(
    held: Globals, *, file: Path, output: Path, version: int, source: str, raw: bool, address: int | None, name: str
) -> Exit:
    """Write an SFrame section from the file's CFI, or from its SFrame section of another version.

    An ELF file is copied and gets the section added (or replaced): with a program header in linked images, with
    relocations in objects and modules. Functions that SFrame cannot express are left out, each with its reason.

    Exit status: 0 if every function with rules was written, 1 if some were left out, 2 if nothing was written.
    """
    from surefoot.cli.sframe_convert import convert_file
    from surefoot.cli.sframe_input import open_input

    given = open_input(file, name)
    summary = convert_file(given, output, version=version, source=source, raw=raw, address=address)
    if held.json:
        print_json(summary.json())
    elif not held.quiet:
        _write(summary.text())
    return Exit.WELL if summary.is_complete else Exit.NO


@sframe.command()
@click.argument("first", type=_FILE)
@click.argument("second", type=_FILE)
@click.option("--first-from", type=_SOURCE, default="auto", show_default=True, help="What to read of the first file.")
@click.option("--second-from", type=_SOURCE, default="auto", show_default=True, help="And of the second.")
@click.option("--limit", type=click.IntRange(min=1), help="Differences shown; all if not given.")
@_SECTION
@global_options
@pass_globals
def diff(
    held: Globals, *, first: Path, second: Path, first_from: str, second_from: str, limit: int | None, name: str
) -> Exit:
    """Say what two tables say differently about the same addresses, ignoring how they are encoded.

    `auto` reads SFrame if the file has it, else its CFI; the same file may be given twice.

    Exit status: 0 if they agree everywhere, 1 if not, 2 if one cannot be read.
    """
    from surefoot.cli.sframe_input import open_input
    from surefoot.metadata.compare import compare
    from surefoot.report.sframe_diff import differences_json
    from surefoot.report.sframe_text import SCHEMA_DIFF, differences_text

    one, two = open_input(first, name), open_input(second, name)
    result = compare(_rules(one, first_from), _rules(two, second_from))
    named = one if one.elf is not None else two
    items = differences_json(result, named.names.of_functions)
    body: dict[str, object] = {
        "schema": SCHEMA_DIFF,
        "bytes_compared": result.bytes_both,
        "bytes_equal": result.bytes_equal,
        "not_compared": list(result.disputed),
        "differences": items[:limit],
    }
    if held.json:
        print_json(body)
    else:
        _write(differences_text(items[:limit], _style(held)))
        if not held.quiet:
            click.echo(
                f"{result.bytes_both} bytes of code in both, {result.bytes_equal} equal, {len(items)} differences"
            )
    return Exit.WELL if result.is_equal else Exit.NO


def _rules(given: Input, source: str) -> RuleTable:
    """Give the rules that an option asks for."""
    if source == "cfi" or (source == "auto" and not given.has_section):
        return given.cfi()
    return given.section.to_rules()


@sframe.command()
@click.argument("file", type=_FILE)
@_SECTION
@global_options
@pass_globals
def stat(held: Globals, *, file: Path, name: str) -> Exit:
    """Count a section: sizes, rows, coverage of the code, size of the CFI beside it.

    Exit status: 0, or 2 if there is no section or it is damaged.
    """
    from surefoot.cli.sframe_input import open_input
    from surefoot.report.sframe_stat import stat_json
    from surefoot.report.sframe_text import stat_text

    given = open_input(file, name)
    body = stat_json(given.section, given.code(), given.code_names(), given.cfi_sizes)
    if held.json:
        print_json(body)
    else:
        _write(stat_text(body, _style(held)))
    return Exit.WELL


def _style(held: Globals) -> Style:
    """Give the style of standard output."""
    from surefoot.report.style import Style

    terminal = sys.stdout.isatty()
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    color = held.color == "always" or (held.color == "auto" and terminal and not plain)
    width = shutil.get_terminal_size((PIPE_WIDTH, 24)).columns if terminal or "COLUMNS" in os.environ else PIPE_WIDTH
    return Style.make(width=width, color=color, encoding=sys.stdout.encoding)


def _write(pieces: Iterable[str]) -> None:
    """Print text; characters that the terminal lacks become escapes."""
    encoding = sys.stdout.encoding or "ascii"
    for piece in pieces:
        sys.stdout.write(piece.encode(encoding, "backslashreplace").decode(encoding))
