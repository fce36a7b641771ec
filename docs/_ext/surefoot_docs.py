# ruff: noqa: INP001  Sphinx finds this file by its folder; it is no package
"""Sphinx directives that take the reference from the code, so that the two cannot drift apart.

``surefoot-commands`` writes one section per command of the `surefoot` group, ``surefoot-exits`` the list of exit
statuses, ``surefoot-schema`` the objects of a JSON Schema in docs/schema. Everything is read from the click commands,
from the source of `surefoot.cli.exits` and from the schema that the tests validate the output with.
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

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


Schema = dict[str, Any]


def _type_of(schema: Schema) -> str:
    """Give the type of a value in words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(_type_of(each) for each in schema["anyOf"])
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return ", ".join(json.dumps(each) for each in schema["enum"])
    kind = schema.get("type", "")
    if kind == "array":
        return f"list of {_type_of(schema['items'])}"
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def schema_objects(
    schema: Schema, name: str = "", types: Schema | None = None
) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """Yield each object of a JSON Schema: its name, and key, type and meaning of its members.

    Args:
        schema: an object with properties; objects inside it and its definitions follow.
        name: of the object; empty for the outermost.
        types: the definitions that `$ref` names; taken from the outermost object if not given.
    """
    definitions: dict[str, Schema] = schema.get("$defs", {})
    types = definitions if types is None else types
    required = set(schema.get("required", ()))
    rows = []
    inner: list[tuple[str, Schema]] = []
    for key, member in schema.get("properties", {}).items():
        path = f"{name}.{key}" if name else key
        if "properties" in member:
            inner.append((path, member))
        named = types.get(str(member.get("$ref", "")).rpartition("/")[2], {})
        meaning = str(member.get("description") or named.get("description", ""))
        rows.append((key, _type_of(member), meaning if key in required else f"{meaning} (not always there)".strip()))
    if rows:
        yield name, rows
    for path, member in inner:
        yield from schema_objects(member, path, types)
    for key, definition in definitions.items():
        yield from schema_objects(definition, key, types)
    plain = {key: each for key, each in definitions.items() if "properties" not in each}
    if plain:
        yield "types", [(key, _type_of(each), str(each.get("description", ""))) for key, each in plain.items()]


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> nodes.table:
    """Give a table whose first column is code."""

    def row(cells: tuple[str, ...], *, is_head: bool = False) -> nodes.row:
        entries = []
        for number, cell in enumerate(cells):
            inline = nodes.literal("", cell) if number == 0 and not is_head else nodes.Text(cell)
            entries.append(nodes.entry("", nodes.paragraph("", "", inline)))
        return nodes.row("", *entries)

    group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in head), cols=len(head))
    group += nodes.thead("", row(head, is_head=True))
    group += nodes.tbody("", *(row(cells) for cells in rows))
    return nodes.table("", group, align="left")


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


class SchemaObjects(Directive):
    """The objects of a JSON Schema, a section each; the argument is its path in docs."""

    required_arguments: ClassVar[int] = 1

    def run(self) -> list[nodes.Node]:
        """Give the table of the outermost object, then the sections."""
        environment = self.state.document.settings.env
        path = Path(environment.srcdir) / self.arguments[0]
        environment.note_dependency(str(path))
        result: list[nodes.Node] = []
        for name, rows in schema_objects(json.loads(path.read_text(encoding="utf-8"))):
            table = _table(("key", "type", "meaning"), list(rows))
            if not name:
                result.append(table)
                continue
            anchor = f"{path.stem}-{name.replace('.', '-').replace('_', '-')}"
            section = nodes.section("", nodes.title("", "", nodes.literal("", name)), table, ids=[anchor])
            self.state.document.note_explicit_target(section)
            result.append(section)
        return result


def setup(app: Any) -> dict[str, bool]:
    """Register the directives with Sphinx."""
    app.add_directive("surefoot-commands", Commands)
    app.add_directive("surefoot-exits", Exits)
    app.add_directive("surefoot-schema", SchemaObjects)
    return {"parallel_read_safe": True}
