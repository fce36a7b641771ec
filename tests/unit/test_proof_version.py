"""A prover that changes gets another version: kept proofs of the one before are no proofs of this one.

The digest is of what the sources say, without comments, docstrings and layout. A change that cannot change a verdict
(another name, a faster way to the same) may keep the version: then only the digest is replaced here.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from surefoot.proof.compact import VERSION

SOURCE: Final = Path(__file__).parents[2] / "src" / "surefoot"
STARTS: Final = ("proof/prove.py", "proof/chosen.py", "proof/inputs.py", "proof/compact.py", "image/provable.py")
MORE: Final = ("image/tables.py",)
"""Read by the prover for what runs differently from what the words say."""
KNOWN: Final = {1: "477d6c439e8b5f08"}
"""Version -> digest of the prover."""


def shape(node: object) -> Any:
    """Give a syntax tree as nested lists, the same in every version of Python that has all of its nodes."""
    if isinstance(node, list):
        return [shape(each) for each in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    body = getattr(node, "body", None)
    fields = dict(ast.iter_fields(node))
    if isinstance(body, list) and isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)):
        fields["body"] = [each for each in body if not is_text(each)]
    for name in ("kind", "type_comment", "type_ignores", "type_params"):
        fields.pop(name, None)
    return [type(node).__name__, *([name, shape(value)] for name, value in fields.items() if value not in (None, []))]


def is_text(node: ast.stmt) -> bool:
    """Whether a statement is a docstring."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the files of `proof` and `isa` that a file imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("surefoot."):
            parts = node.module.split(".")[1:]
            if parts[0] in {"proof", "isa"}:
                names = [parts] if len(parts) > 1 else [[parts[0], alias.name] for alias in node.names]
                yield from ("/".join(name) + ".py" for name in names)


def digest_of(root: Path) -> tuple[str, list[str]]:
    """Give the digest of the prover, and the files that it is of."""
    todo, trees = [*STARTS, *MORE], dict[str, ast.Module]()
    while todo:
        name = todo.pop()
        if name not in trees:
            trees[name] = ast.parse((root / name).read_text(encoding="utf-8"))
            todo += imported(trees[name])
    text = repr([(name, shape(trees[name])) for name in sorted(trees)])
    return hashlib.sha256(text.encode()).hexdigest()[:16], sorted(trees)


def test_a_changed_prover_has_another_version() -> None:
    """Raise VERSION in surefoot/proof/compact.py and name the digest of the new prover above."""
    digest, _ = digest_of(SOURCE)
    assert KNOWN.get(VERSION) == digest


def test_the_digest_is_of_all_that_judges() -> None:
    _, files = digest_of(SOURCE)
    wanted = {"proof/edges.py", "proof/exact.py", "proof/jumps.py", "proof/transfer.py", "proof/words.py"}
    assert wanted | {"isa/effects.py", "isa/tables.py", "proof/bare.py", "proof/noreturn.py"} <= set(files)


def test_words_for_people_do_not_count(tmp_path: Path) -> None:
    """Comments and docstrings may change; what is computed may not."""
    for name in digest_of(SOURCE)[1]:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text((SOURCE / name).read_text(encoding="utf-8"), encoding="utf-8")
    before = digest_of(tmp_path)[0]
    path = tmp_path / "proof" / "noreturn.py"
    text = path.read_text(encoding="utf-8")
    path.write_text("# a comment\n" + text.replace('"""Layer 4: ', '"""Layer four: '), encoding="utf-8")
    assert digest_of(tmp_path)[0] == before
    path.write_text(text.replace("return ~may", "return may"), encoding="utf-8")
    assert digest_of(tmp_path)[0] != before
