"""The layers of the architecture, held by walking the syntax tree of every source file.

docs/architecture.md tells the reasons. The rules are data at the top; the same checker runs over the real tree and
over small trees with planted violations, so that it is known to be able to fail.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

SOURCE: Final = Path(__file__).parent.parent / "src" / "surefoot"

LAYERS: Final = {
    "__init__": 0,
    "errors": 0,
    "dtypes": 0,
    "memory": 0,
    "isa": 1,
    "metadata": 2,
    "image": 3,
    "proof": 4,
    "unwind": 5,
    "audit": 6,
    "patch": 6,
    "targets": 7,
    "machine": 7,
    "report": 8,
    "cli": 9,
}
"""Every package and module directly under surefoot, and its layer."""

NEVER: Final = {("patch", "targets"), ("targets", "patch")}
"""Pairs that may not meet although the numbers would allow it: the command line joins them."""

PURE_UP_TO: Final = 6
OPENER: Final = "image/files.py"
"""The one file of the pure layers that touches the file system."""

IMPURE_MODULES: Final = {
    "files": {"fcntl", "glob", "mmap", "pathlib", "shutil", "sqlite3", "tempfile"},
    "processes": {"asyncio", "concurrent", "ctypes", "multiprocessing", "os", "resource", "signal", "subprocess"},
    "threads": {"select", "selectors", "threading"},
    "network": {"http", "socket", "socketserver", "ssl", "urllib"},
    "clock": {"datetime", "time"},
    "chance": {"random", "secrets", "uuid"},
    "environment": {"builtins", "getpass", "importlib", "platform", "platformdirs", "runpy", "site", "sys"},
    "output": {"click", "curses", "logging", "pty", "rich", "syslog", "termios", "warnings", "webbrowser"},
    "targets": {"drgn", "qemu", "unicorn"},
}
"""Top-level modules that pure layers may not import, by what they reach."""

PURE_NAMES: Final = {"pathlib": {"PurePath", "PurePosixPath"}, "io": {"BytesIO", "StringIO", "BufferedIOBase"}}
"""What may be imported by name from a module that is otherwise impure."""

IMPURE_CALLS: Final = {"__import__", "breakpoint", "eval", "exec", "input", "open", "print"}
IMPURE_PATH_METHODS: Final = {"open", "read_bytes", "read_text", "write_bytes", "write_text"}
IMPURE_NUMPY: Final = {"fromfile", "genfromtxt", "loadtxt", "memmap", "open_memmap", "savetxt", "tofile"}
IMPURE_ATTRIBUTES: Final = IMPURE_PATH_METHODS | IMPURE_NUMPY
"""Methods and numpy functions that read or write files, whatever object they are called on."""


def _unit(package: str) -> str:
    """Give what may import from itself: the package, or the whole of layer 0."""
    return "layer 0" if LAYERS.get(package) == 0 else package


def _imports(tree: ast.AST, parts: tuple[str, ...]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield line and dotted parts of every module or name that a file imports, wherever in the file it does so.

    Args:
        tree: the file.
        parts: the file's own package, such as ("surefoot", "image"), against which relative imports count.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, tuple(alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            base = parts[: len(parts) - node.level + 1] if node.level else ()
            module = (*base, *(node.module.split(".") if node.module else ()))
            for alias in node.names:
                yield node.lineno, (*module, alias.name)


def _layer_findings(package: str, line: int, target: tuple[str, ...]) -> Iterator[str]:
    if target[0] != "surefoot":
        return
    # `from surefoot import __version__` names no package: it is the root module itself.
    other = target[1] if len(target) > 1 and target[1] in LAYERS else "__init__"
    if len(target) > 2 and target[1] not in LAYERS:
        yield f"{line}: imports {'.'.join(target)}, which is in no layer"
        return
    if _unit(other) == _unit(package):
        return
    if LAYERS[other] >= LAYERS[package]:
        yield f"{line}: layer {LAYERS[package]} ({package}) imports layer {LAYERS[other]} ({other})"
    elif (package, other) in NEVER:
        yield f"{line}: {package} may not import {other}, nor the other way round"


def _purity_findings(tree: ast.AST, parts: tuple[str, ...]) -> Iterator[str]:
    for line, target in _imports(tree, parts):
        top, name = target[0], target[-1]
        if top in PURE_NAMES and name in PURE_NAMES[top]:
            continue
        if top in PURE_NAMES or any(top in names for names in IMPURE_MODULES.values()):
            yield f"{line}: a pure layer imports {'.'.join(target)}"
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in IMPURE_CALLS:
            yield f"{node.lineno}: a pure layer uses {node.id}"
        elif isinstance(node, ast.Attribute) and node.attr == "open" and id(node) not in called:
            continue  # a column of that name (Proof.open), not the method of a path
        elif isinstance(node, ast.Attribute) and node.attr in IMPURE_ATTRIBUTES:
            yield f"{node.lineno}: a pure layer uses .{node.attr}"
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in {"np", "numpy"}
            and node.attr in {"load", "save", "savez", "savez_compressed"}
        ):
            yield f"{node.lineno}: a pure layer uses {node.value.id}.{node.attr}"


def check(root: Path) -> list[str]:
    """Give one line per violation under a folder that is laid out like src/surefoot."""
    found: list[str] = []
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        package = relative.parts[0].removesuffix(".py")
        if package not in LAYERS:
            found.append(f"{relative}: in no layer; give it one in LAYERS and in docs/architecture.md")
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        own = ("surefoot", *relative.parts[:-1])
        for line, target in _imports(tree, own):
            found += [f"{relative}:{text}" for text in _layer_findings(package, line, target)]
        if LAYERS[package] <= PURE_UP_TO and relative.as_posix() != OPENER:
            found += [f"{relative}:{text}" for text in _purity_findings(tree, own)]
    return found


def test_source_obeys_the_layers() -> None:
    """No file imports upwards or sideways, and the pure layers are pure."""
    assert check(SOURCE) == []


def test_checker_sees_the_source() -> None:
    """The checker walks real files: the layers that part A needs are there."""
    packages = {path.relative_to(SOURCE).parts[0] for path in SOURCE.rglob("*.py")}
    assert {"errors.py", "metadata", "image", "unwind", "targets", "cli"} <= packages


def _plant(root: Path, file: str, text: str) -> list[str]:
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return check(root)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("metadata/a.py", "from surefoot.image.model import Text"),
        ("metadata/a.py", "import surefoot.unwind"),
        ("metadata/a.py", "from surefoot import image"),
        ("metadata/a.py", "from ..image import model"),
        ("metadata/cfi/a.py", "from ...unwind import walker"),
        ("metadata/a.py", "def f():\n    from surefoot.cli import main"),
        ("metadata/a.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import surefoot.report"),
        ("audit/a.py", "from surefoot.patch import model"),
        ("machine/a.py", "from surefoot.targets import vm"),
        ("targets/a.py", "from surefoot.patch import model"),
        ("patch/a.py", "from surefoot.targets import vm"),
        ("errors.py", "from surefoot.isa import fields"),
        ("unwind/a.py", "from surefoot.nowhere import thing"),
        ("helper/a.py", "x = 1"),
    ],
)
def test_planted_imports_are_found(tmp_path: Path, file: str, text: str) -> None:
    """Every way of importing what a file may not import is one finding."""
    assert len(_plant(tmp_path, file, text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "open('x')",
        "opener = open",
        "print(1)",
        "import os",
        "import os.path",
        "from os import environ",
        "import socket",
        "import subprocess",
        "from time import monotonic",
        "import datetime",
        "from pathlib import Path",
        "import pathlib",
        "import io",
        "def f(path):\n    return path.read_bytes()",
        "import numpy as np\nx = np.fromfile('x')",
        "import numpy as np\nx = np.load('x')",
        "import drgn",
        "from rich.console import Console",
        "import importlib",
        "exec('1')",
    ],
)
def test_planted_impurity_is_found(tmp_path: Path, text: str) -> None:
    """The outside world is out of reach of a pure layer, and within reach of the opener and of upper layers."""
    assert len(_plant(tmp_path, "unwind/a.py", text)) == 1
    (tmp_path / "unwind/a.py").unlink()
    assert _plant(tmp_path, OPENER, text) == []
    assert _plant(tmp_path, "targets/a.py", text) == []


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("unwind/a.py", "from surefoot.metadata.rules import RuleTable"),
        ("unwind/a.py", "from surefoot.unwind import steps\nfrom . import reasons"),
        ("memory.py", "from surefoot.dtypes import Addr\nfrom surefoot.errors import InputError"),
        (
            "cli/a.py",
            "from surefoot import __version__, errors\nfrom surefoot.patch import x\nimport surefoot.targets",
        ),
        ("image/a.py", "from pathlib import PurePosixPath\nfrom io import BytesIO\nimport numpy as np"),
    ],
)
def test_allowed_imports_pass(tmp_path: Path, file: str, text: str) -> None:
    """What the architecture allows is not complained about."""
    assert _plant(tmp_path, file, text) == []
