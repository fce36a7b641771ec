# ruff: noqa: INP001  Sphinx finds this file by its folder; it is no package
"""Sphinx directives that take the reference from the code, so that the two cannot drift apart.

``surefoot-commands`` writes one section per command of the `surefoot` group, ``surefoot-exits`` the table of exit
statuses. Everything is read from the click commands and from the source of `surefoot.cli.exits`.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import click
from docutils import nodes
from docutils.parsers.rst import Directive

from surefoot.cli import exits
from surefoot.cli.main import cli

GLOBAL = {"--json", "--quiet", "--color", "--help"}
"""Options that every command has; they are described once."""


@dataclass(frozen=True)
class Described:
    """What the reference says about one command.

    Attributes:
        name: with the names of its groups, such as "surefoot vm boot".
        usage: one line.
        paragraphs: of the help text.
        options: spelling and help of each option that is not global; arguments stand in the usage.
    """

    name: str
    usage: str
    paragraphs: tuple[str, ...]
    options: tuple[tuple[str, str], ...]


def describe(command: click.Command, parent: click.Context | None = None) -> Iterator[Described]:
    """Yield a command and, for a group, everything below it in the order of its own list."""
    name = "surefoot" if parent is None else str(command.name)
    ctx = click.Context(command, info_name=name, parent=parent, **command.context_settings)
    yield Described(
        name=ctx.command_path,
        usage=" ".join([ctx.command_path, *command.collect_usage_pieces(ctx)]),
        paragraphs=tuple(inspect.cleandoc(command.help or "").split("\n\n")),
        options=tuple(
            record
            for param in command.get_params(ctx)
            if (record := param.get_help_record(ctx)) and (parent is None or not GLOBAL.intersection(param.opts))
        ),
    )
    if isinstance(command, click.Group):
        for sub_name in command.list_commands(ctx):
            sub = command.get_command(ctx, sub_name)
            if sub is not None and not sub.hidden:
                yield from describe(sub, ctx)


def exit_statuses() -> Iterator[tuple[int, str, str]]:
    """Yield number, name and meaning of every exit status, the meaning from the string below its definition."""
    tree = ast.parse(inspect.getsource(exits.Exit))
    body = next(node for node in tree.body if isinstance(node, ast.ClassDef)).body
    for assignment, text in pairwise(body):
        if isinstance(assignment, ast.Assign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            name = ast.unparse(assignment.targets[0])
            yield int(exits.Exit[name]), name, " ".join(str(text.value.value).split())


def _definitions(rows: tuple[tuple[str, str], ...]) -> nodes.definition_list:
    items = []
    for spelling, text in rows:
        term = nodes.term("", "", nodes.literal("", spelling))
        items.append(nodes.definition_list_item("", term, nodes.definition("", nodes.paragraph("", text))))
    return nodes.definition_list("", *items)


def _paragraph(text: str) -> nodes.Node:
    # A paragraph that begins with \b is kept as it stands (click's own convention).
    if text.startswith("\b"):
        return nodes.literal_block("", text.removeprefix("\b\n"))
    return nodes.paragraph("", " ".join(text.split()))


class Commands(Directive):
    """One section per command."""

    def run(self) -> list[nodes.Node]:
        """Give the sections."""
        sections: list[nodes.Node] = []
        for command in describe(cli):
            anchor = command.name.replace(" ", "-")
            section = nodes.section("", nodes.title("", "", nodes.literal("", command.name)), ids=[anchor])
            section += nodes.literal_block("", command.usage, language="text")
            section += [_paragraph(text) for text in command.paragraphs]
            if command.options:
                section += _definitions(command.options)
            self.state.document.note_explicit_target(section)
            sections.append(section)
        return sections


class Exits(Directive):
    """The exit statuses."""

    def run(self) -> list[nodes.Node]:
        """Give the list."""
        return [_definitions(tuple((f"{number} {name}", text) for number, name, text in exit_statuses()))]


def setup(app: Any) -> dict[str, bool]:
    """Register the directives with Sphinx."""
    app.add_directive("surefoot-commands", Commands)
    app.add_directive("surefoot-exits", Exits)
    return {"parallel_read_safe": True}
