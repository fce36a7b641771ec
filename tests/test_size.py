"""Files and functions stay small enough to be read at once; each exception carries its reason."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).parent.parent / "src" / "surefoot"
MAX_FILE_LINES: Final = 500
MAX_FUNCTION_LINES: Final = 60

EXCEPTIONS: Final[dict[str, str]] = {}
"""file, or file::qualified.name -> why it may be longer. An entry that is no longer needed fails the test."""


def _functions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, int]]:
    """Yield qualified name and number of lines of every function, docstring included."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{prefix}{child.name}"
            yield name, (child.end_lineno or child.lineno) - child.lineno + 1
            yield from _functions(child, f"{name}.")
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{prefix}{child.name}.")
        else:
            yield from _functions(child, prefix)


def oversized(root: Path) -> dict[str, int]:
    """Give file or file::name -> lines, for everything above the limits under a folder."""
    found: dict[str, int] = {}
    for path in sorted(root.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        file = path.relative_to(root).as_posix()
        if text.count("\n") > MAX_FILE_LINES:
            found[file] = text.count("\n")
        found |= {f"{file}::{name}": n for name, n in _functions(ast.parse(text)) if n > MAX_FUNCTION_LINES}
    return found


def test_nothing_is_oversized_without_a_reason() -> None:
    """Every file and function above the limits is listed, and nothing else is."""
    assert {place: lines for place, lines in oversized(SOURCE).items() if place not in EXCEPTIONS} == {}
    assert set(EXCEPTIONS) <= set(oversized(SOURCE)), "an exception is no longer needed"
    assert all(reason.strip() for reason in EXCEPTIONS.values())


def test_planted_sizes_are_found(tmp_path: Path) -> None:
    """A long file, a long method and a long nested function are found; limits themselves are allowed."""
    body = "    x = 1\n"
    (tmp_path / "a.py").write_text("def at_limit():\n" + body * 59 + "def above():\n" + body * 60, encoding="utf-8")
    nested = "class C:\n    def m(self):\n        def inner():\n" + "            x = 1\n" * 60
    (tmp_path / "b.py").write_text(nested, encoding="utf-8")
    (tmp_path / "c.py").write_text("x = 1\n" * 501, encoding="utf-8")
    assert oversized(tmp_path) == {"a.py::above": 61, "b.py::C.m": 62, "b.py::C.m.inner": 61, "c.py": 501}
