"""What is written about the code is compared with the code: lists kept by hand do not drift."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import click
import pytest

from surefoot.cli.exits import Exit
from surefoot.cli.main import COMMANDS, cli
from surefoot.unwind.consume import UnwindState
from surefoot.unwind.reasons import SENTENCES, Reason
from surefoot.unwind.trace import Evidence

ROOT: Final = Path(__file__).parent.parent
SOURCE: Final = ROOT / "src" / "surefoot"
DOCS: Final = ROOT / "docs"
PAGES: Final = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts),
]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _first_column(page: str, heading: str | None = None) -> list[str]:
    """Give the code-quoted first cells of the tables of a page, or of one section of it."""
    text = _text(DOCS / page)
    if heading is not None:
        text = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `([^`]+)` \|", text, flags=re.MULTILINE)


def _project() -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads(_text(ROOT / "pyproject.toml"))["project"]
    return project


def _names(requirements: list[str]) -> list[str]:
    return sorted(re.split(r"[\[<>=!~ ;]", requirement)[0] for requirement in requirements)


def test_dependencies_are_explained() -> None:
    """docs/dependencies.md has a line for each dependency of pyproject.toml, and for nothing else."""
    extras = [name for names in _project()["optional-dependencies"].values() for name in names]
    assert sorted(_first_column("dependencies.md", "At run time")) == _names(_project()["dependencies"])
    assert sorted(_first_column("dependencies.md", "For development")) == _names(extras)


def test_dependencies_say_all_three_things() -> None:
    """Each line says what for, who keeps it and what it replaces."""
    rows = [line for line in _text(DOCS / "dependencies.md").splitlines() if line.startswith("| `")]
    assert rows
    assert all(len(cells := row.strip("|").split("|")) == 4 and all(cell.strip() for cell in cells) for row in rows)


def test_reasons_are_explained() -> None:
    """docs/reasons.md explains every reason once, in the order of the closed list, and no other."""
    explained = re.findall(r"^`([A-Z_]+)`\n: \S", _text(DOCS / "reasons.md"), flags=re.MULTILINE)
    assert explained == [reason.name for reason in Reason if reason is not Reason.NONE]
    assert set(SENTENCES) == set(Reason)


def test_evidence_is_explained() -> None:
    """docs/notes/evidence.md has a line for each mark, in the order of the code, and no other."""
    assert _first_column("notes/evidence.md") == [mark.name for mark in Evidence]


def test_accessors_are_explained() -> None:
    """docs/consumers.md lists the accessors of UnwindState, all of them and no other."""
    accessors = [name for name, value in vars(UnwindState).items() if isinstance(value, property)]
    assert sorted(_first_column("consumers.md")) == sorted(name for name in accessors if not name.startswith("_"))


def _directives() -> ModuleType:
    """Load the Sphinx extension of the documentation."""
    spec = importlib.util.spec_from_file_location("surefoot_docs", DOCS / "_ext" / "surefoot_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up by name.
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "surefoot_docs", module)
        spec.loader.exec_module(module)
    return module


def test_reference_holds_every_command() -> None:
    """The directive describes each command with a text and each of its options with a help."""
    described = {command.name: command for command in _directives().describe(cli)}
    assert {f"surefoot {name}" for name in COMMANDS} <= set(described)
    for command in described.values():
        assert command.paragraphs[0], command.name
        for spelling, text in command.options:
            assert text or not spelling.startswith("-"), f"{command.name} {spelling} has no help"


def test_reference_holds_every_exit_status() -> None:
    """Each status has a meaning written below it."""
    statuses = list(_directives().exit_statuses())
    assert [number for number, _, _ in statuses] == [int(status) for status in Exit]
    assert all(text for _, _, text in statuses)


def _command_lines(page: Path) -> Iterator[str]:
    """Yield every `surefoot ...` of the shell examples and of the inline code of a page."""
    text = _text(page)
    for block in re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("surefoot "):
                yield line
    yield from (f"surefoot {words}" for words in re.findall(r"`surefoot ((?:[a-z]+ ?)+)`", text))


def _unknown_words(line: str) -> list[str]:
    """Give the subcommands and options of a command line that do not exist."""
    words = shlex.split(line, comments=True)[1:]
    command: click.Command = cli
    unknown = []
    for word in words:
        if word == "--":
            break
        if word.startswith("-"):
            params = command.get_params(click.Context(command))
            spellings = {text for param in params for text in (*param.opts, *param.secondary_opts)}
            unknown += [] if word.split("=")[0] in spellings else [word]
        elif isinstance(command, click.Group):
            sub = command.get_command(click.Context(command), word)
            if sub is None:
                return [*unknown, word]
            command = sub
    return unknown


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_written_command_lines_exist(page: Path) -> None:
    """Every subcommand and option that a page shows is one that `surefoot` has."""
    assert {line: unknown for line in _command_lines(page) if (unknown := _unknown_words(line))} == {}


def test_unknown_command_lines_are_found() -> None:
    """The check of command lines is able to fail."""
    assert _unknown_words("surefoot nosuch --x") == ["nosuch"]
    assert _unknown_words("surefoot --nosuch demo --quiet") == ["--nosuch"]
    assert _unknown_words("surefoot --json demo --never=1  # why") == ["--never=1"]


def _targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", _text(ROOT / "Makefile"), flags=re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_written_make_commands_exist(page: Path) -> None:
    """Every `make x` that a page shows is a target of the Makefile."""
    written = re.findall(r"(?:^|`)make ([a-z][a-z-]*)", _text(page), flags=re.MULTILINE)
    assert set(written) <= _targets()


def test_make_targets_are_written_down() -> None:
    """The README names every target that a person may want."""
    assert {name for name in _targets() if f"make {name}" not in _text(ROOT / "README.md")} <= {"help"}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file of the repository."""
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", _text(page))
    relative = [link for link in links if "://" not in link]
    assert [link for link in relative if not (page.parent / link).exists()] == []


def test_changelog_has_an_unreleased_head() -> None:
    """The first section of the changelog is the one that changes go into."""
    assert re.findall(r"^## (.*)$", _text(ROOT / "CHANGELOG.md"), flags=re.MULTILINE)[0] == "[Unreleased]"


def _bound_names(node: ast.stmt) -> list[str]:
    """Give the names that a top-level statement defines; names that are only imported are not definitions."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    return []


def _listed(body: list[ast.stmt]) -> list[str] | None:
    """Give the `__all__` of a file, or None where it has none."""
    lists = [node.value for node in body if "__all__" in _bound_names(node) and isinstance(node, ast.Assign)]
    return list(ast.literal_eval(lists[0])) if lists else None


def _is_subcommand(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    """Say whether a definition is handed to a click group of its own file (@group.command()), which offers it."""
    callees = [each.func for each in node.decorator_list if isinstance(each, ast.Call)]
    attributes = [callee for callee in callees if isinstance(callee, ast.Attribute)]
    return any(each.attr == "command" and ast.unparse(each.value) != "click" for each in attributes)


def _all_findings(path: Path, text: str) -> Iterator[str]:
    """Yield what is wrong with the `__all__` of a file.

    Functions and classes without an underscore have to be listed. Constants and type aliases may be: whether they
    must is decided by who imports them.
    """
    body = ast.parse(text).body
    defined = {name for node in body for name in _bound_names(node)}
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    offered = {n.name for n in body if isinstance(n, kinds) and not n.name.startswith("_") and not _is_subcommand(n)}
    listed = _listed(body)
    if listed is None:
        if offered:
            yield f"{path}: no __all__, but it defines {sorted(offered)}"
        return
    if path.name == "__init__.py":  # a package may pass on what its modules define
        parts = [part for n in body for part in (n.body if isinstance(n, ast.If) else [n])]  # if TYPE_CHECKING
        defined |= {alias.asname or alias.name for n in parts if isinstance(n, ast.ImportFrom) for alias in n.names}
    if len(set(listed)) != len(listed):
        yield f"{path}: __all__ names something twice"
    if missing := set(listed) - defined:
        yield f"{path}: __all__ names {sorted(missing)}, which are not defined there"
    if unlisted := offered - set(listed):
        yield f"{path}: __all__ lacks {sorted(unlisted)}"


def _import_findings(root: Path) -> Iterator[str]:
    """Yield every import of a name that the module it comes from does not list."""
    trees = {path.relative_to(root): ast.parse(_text(path)) for path in sorted(root.rglob("*.py"))}
    lists = {".".join((root.name, *path.with_suffix("").parts)): _listed(tree.body) for path, tree in trees.items()}
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or node.module is None:
                continue
            listed = lists.get(node.module)
            names = {alias.name for alias in node.names}
            if node.module in lists and (unlisted := names - set(listed or ())):
                yield f"{path}:{node.lineno}: {node.module} does not offer {sorted(unlisted)}"


def test_all_lists_match_the_definitions() -> None:
    """Each module lists what it defines for others, and defines what it lists."""
    files = sorted(SOURCE.rglob("*.py"))
    found = [line for path in files for line in _all_findings(path.relative_to(SOURCE), _text(path))]
    assert "\n".join(found) == ""


def test_modules_import_only_what_others_list() -> None:
    """No module reaches for a name that the other does not offer."""
    assert "\n".join(_import_findings(SOURCE)) == ""


@pytest.mark.parametrize(
    "text",
    [
        "def f(): ...",
        "__all__ = []\nclass C: ...",
        "__all__ = ['f', 'g']\ndef f(): ...",
        "__all__ = ['f', 'f']\ndef f(): ...",
        "__all__ = ['join']\nfrom os.path import join",
    ],
)
def test_wrong_all_lists_are_found(text: str) -> None:
    """The check of `__all__` is able to fail."""
    assert len(list(_all_findings(Path("a.py"), text))) == 1


@pytest.mark.parametrize("name", ["_hidden", "LIMIT"])
def test_imports_of_unlisted_names_are_found(tmp_path: Path, name: str) -> None:
    """The check of imports is able to fail."""
    root = tmp_path / "surefoot"
    root.mkdir()
    (root / "a.py").write_text(f"__all__ = ['f']\n{name} = 1\ndef f(): ...", encoding="utf-8")
    (root / "b.py").write_text(f"from surefoot.a import f\nfrom surefoot.a import {name}", encoding="utf-8")
    assert list(_import_findings(root)) == [f"b.py:2: surefoot.a does not offer {[name]}"]


@pytest.mark.slow
def test_documentation_builds(tmp_path: Path) -> None:
    """Sphinx builds the documentation without a warning."""
    words = [sys.executable, "-m", "sphinx", "-W", "-q", "-E", "-b", "html", str(DOCS), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "surefoot stack" in (tmp_path / "commands.html").read_text(encoding="utf-8")
