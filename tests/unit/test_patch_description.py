"""Patch descriptions: what is read, and that every error names the file and the key."""

from __future__ import annotations

import pytest

from surefoot.errors import InputError
from surefoot.patch.description import parse_description
from surefoot.patch.model import Callbacks, Patch, PatchFunction, PatchObject, PatchStateVersion

FULL = """
name = "cmdline"
replace = true
[[object]]
name = "vmlinux"
[[object.function]]
old = "cmdline_proc_show"
position = 0
new = "new_cmdline_proc_show"
module = "cmdline_patch"
[[object.function]]
old = "static_one"
position = 2
new = "new_static_one"
[object.callbacks]
pre_patch = "prepare"
post_unpatch = "tidy"
[[object]]
name = "ext4"
[[object.function]]
old = "ext4_f"
new = "new_ext4_f"
[[state]]
id = 1
version = 4
[[state]]
id = 2
"""


def test_a_description_is_read_whole() -> None:
    """Every key arrives where it belongs, and what may be left out has its default."""
    assert parse_description(FULL, "p.toml") == Patch(
        "cmdline",
        (
            PatchObject(
                "vmlinux",
                (
                    PatchFunction("cmdline_proc_show", 0, "new_cmdline_proc_show", "cmdline_patch"),
                    PatchFunction("static_one", 2, "new_static_one", ""),
                ),
                Callbacks("prepare", "", "", "tidy"),
            ),
            PatchObject("ext4", (PatchFunction("ext4_f", 0, "new_ext4_f", ""),)),
        ),
        (PatchStateVersion(1, 4), PatchStateVersion(2, 0)),
        replace=True,
    )


HEAD = 'name = "p"\n[[object]]\nname = "vmlinux"\n'
FUNCTION = '[[object.function]]\nold = "f"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "p.toml: name: the key 'name' is missing"),
        ("name = 3", "p.toml: name: must be a string, not a whole number"),
        ('name = "p"', "p.toml: object: the patch has no object"),
        ('name = "p"\nreplace = 1', "p.toml: replace: must be true or false, not a whole number"),
        ('name = "p"\nobject = {}', "p.toml: object: must be an array, not a table"),
        ('name = "p"\nobject = [1]', "p.toml: object[0]: must be a table, not a whole number"),
        ('name = "p"\n[[object]]', "p.toml: object[0].name: the key 'name' is missing"),
        ('name = "p"\nnam = 1\n', "p.toml: unknown key 'nam'"),
        (HEAD, "p.toml: object[0].function: the object vmlinux has neither functions nor callbacks"),
        (HEAD + "functions = []", "p.toml: object[0]: unknown key 'functions'"),
        (HEAD + FUNCTION, "p.toml: object[0].function[0].new: the key 'new' is missing"),
        (
            HEAD + FUNCTION + 'new = "g"\nposition = true',
            "p.toml: object[0].function[0].position: must be a whole number, not true or false",
        ),
        (
            HEAD + FUNCTION + 'new = "g"\nposition = 1.0',
            "p.toml: object[0].function[0].position: must be a whole number, not a float",
        ),
        (
            HEAD + FUNCTION + 'new = "g"\nposition = -1',
            "p.toml: object[0].function[0].position: -1 is not between 0 and 4294967295",
        ),
        (HEAD + FUNCTION + 'new = "f"', "p.toml: object[0].function[0].new: f would be replaced by itself"),
        (HEAD + "callbacks = 1", "p.toml: object[0].callbacks: must be a table, not a whole number"),
        (HEAD + "[object.callbacks]\nbefore = 'x'", "p.toml: object[0].callbacks: unknown key 'before'"),
        (HEAD + FUNCTION + 'new = "g"\n[[state]]', "p.toml: state[0].id: the key 'id' is missing"),
    ],
)
def test_every_error_names_file_and_key(text: str, message: str) -> None:
    """One wrong thing, one sentence."""
    with pytest.raises(InputError) as caught:
        parse_description(text, "p.toml")
    assert str(caught.value) == message


def test_a_misspelt_key_is_answered_with_the_right_ones() -> None:
    """The hint lists them."""
    with pytest.raises(InputError) as caught:
        parse_description('name = "p"\nobjects = []', "p.toml")
    assert "object" in caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "name = ",
        "= 1",
        "a = " + "[" * 20_000,
        "a = " + "9" * 5000,
        "a = 1979-99-99",
        "\x00",
        "\ud800",
        "a.b = 1\na = 2",
    ],
)
def test_what_is_not_toml_is_an_input_error(text: str) -> None:
    """Also where the parser itself gives up in other ways."""
    with pytest.raises(InputError) as caught:
        parse_description(text, "p.toml")
    assert str(caught.value).startswith("p.toml: ")
