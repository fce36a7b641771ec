"""Any text ends in a valid patch or in an InputError that names the file."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from surefoot.errors import InputError
from surefoot.patch.description import parse_description
from surefoot.patch.model import Patch, validate

KEYS = (
    "name",
    "replace",
    "object",
    "function",
    "callbacks",
    "state",
    "old",
    "new",
    "position",
    "module",
    "id",
    "version",
)
PARTS = (
    *(f"{key} = " for key in KEYS),
    "[[object]]\n",
    "[[object.function]]\n",
    "[object.callbacks]\n",
    "[[state]]\n",
    "[object]\n",
    '"f"\n',
    "'vmlinux'\n",
    "true\n",
    "0\n",
    "-1\n",
    "99999999999999999999999\n",
    "1.5\n",
    "nan\n",
    "[]\n",
    "[{}]\n",
    "{}\n",
    "{a = [",
    '"""',
    "\\u0000",
    "2001-01-01\n",
    "\n",
    "#",
    ".",
    ",",
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.integers(-3, 1 << 70), st.booleans(), st.sampled_from(("f", "g", "vmlinux", "", "a b", "é")), st.floats()
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from((*KEYS, "x")), inner, max_size=4)
    ),
    max_leaves=8,
)


def toml(value: Any) -> str:
    """Write a value as inline TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def judge(text: str) -> Patch | None:
    """Parse; give the patch, or None after an error of the right kind."""
    patch = None
    try:
        patch = parse_description(text, "any.toml")
    except InputError as error:
        assert str(error).startswith("any.toml: ")  # noqa: PT017
    if patch is not None:
        assert validate(patch) is patch
    return patch


@given(st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_text(text: str) -> None:
    """Characters of any kind."""
    judge(text)


@given(st.lists(st.sampled_from(PARTS), max_size=25))
@settings(max_examples=300, deadline=None)
@example(
    ['name = "p"\n', "[[object]]\n", "name = ", "'vmlinux'\n", "[[object.function]]\n", 'old = "f"\nnew = "g"\n']
)
def test_any_order_of_its_parts(parts: list[str]) -> None:
    """Text that nearly is a description."""
    judge("".join(parts))


@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=5))
@settings(max_examples=300, deadline=None)
def test_any_values_under_the_keys(table: dict[str, Any]) -> None:
    """Well-formed TOML with values of any type in any place."""
    judge("".join(f"{key} = {toml(value)}\n" for key, value in table.items()))


NAMES = st.sampled_from(("f", "g", "h"))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(("vmlinux", "ext4")), st.lists(st.tuples(NAMES, NAMES, st.integers(0, 2)), max_size=3)
        ),
        max_size=2,
    ),
    st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_a_patch_that_is_accepted_is_the_one_described(
    objects: list[tuple[str, list[tuple[str, str, int]]]], replace: bool
) -> None:
    """What was written comes back, function for function."""
    text = f'name = "p"\nreplace = {str(replace).lower()}\n'
    for name, functions in objects:
        text += f'[[object]]\nname = "{name}"\n'
        for old, new, position in functions:
            text += f'[[object.function]]\nold = "{old}"\nnew = "{new}"\nposition = {position}\nmodule = "m"\n'
    with suppress(InputError):
        patch = parse_description(text, "any.toml")
        assert patch.replace is replace
        assert [
            (item.name, [(f.old, f.new, f.position) for f in item.functions]) for item in patch.objects
        ] == objects
