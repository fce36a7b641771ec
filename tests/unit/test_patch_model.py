"""What a patch may look like, and what is said where it may not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from surefoot.errors import Inconsistent
from surefoot.patch.model import Callbacks, Patch, PatchFunction, PatchObject, PatchStateVersion, validate

F = PatchFunction("old_f", 0, "new_f", "carrier")
GOOD = Patch(
    "fix-1.2",
    (
        PatchObject("vmlinux", (F, PatchFunction("twice", 1, "a"), PatchFunction("twice", 2, "b"))),
        PatchObject("ext4", (F,), Callbacks(pre_patch="prepare")),
        PatchObject("only_callbacks", (), Callbacks(post_unpatch="tidy")),
    ),
    (PatchStateVersion(0), PatchStateVersion(7, 3)),
)


def test_a_good_patch_is_itself() -> None:
    """All kinds of objects, positions and states; functions come in order."""
    assert validate(GOOD) is GOOD
    assert [(name, f.old, f.position) for name, f in GOOD.functions()] == [
        ("vmlinux", "old_f", 0),
        ("vmlinux", "twice", 1),
        ("vmlinux", "twice", 2),
        ("ext4", "old_f", 0),
    ]


def with_function(**changed: object) -> Patch:
    return Patch("p", (PatchObject("vmlinux", (replace(F, **changed),)),))  # type: ignore[arg-type]


def with_functions(*functions: PatchFunction, name: str = "vmlinux") -> Patch:
    return Patch("p", (PatchObject(name, functions),))


@pytest.mark.parametrize(
    ("patch", "place", "words"),
    [
        (replace(GOOD, name=""), "name", "empty"),
        (replace(GOOD, name="a/b"), "name", "not a name of a patch"),
        (replace(GOOD, name=".."), "name", "not a name"),
        (replace(GOOD, name="x" * 56), "name", "not a name"),
        (replace(GOOD, objects=()), "object", "no object"),
        (with_functions(F, name="a.b"), "object[0].name", "not a name of an object"),
        (with_functions(F, name="m" * 56), "object[0].name", "55"),
        (with_functions(), "object[0].function", "neither functions nor callbacks"),
        (with_functions(F, F), "object[0].function", "old_f, position 0, is replaced twice"),
        (with_functions(F, replace(F, position=2)), "object[0].function[1].position", "cannot be unique"),
        (with_functions(replace(F, position=2), F), "object[0].function[0].position", "cannot be unique"),
        (with_function(old=""), "object[0].function[0].old", "empty"),
        (with_function(old="a,b"), "object[0].function[0].old", "symbol"),
        (with_function(old="a b"), "object[0].function[0].old", "symbol"),
        (with_function(new="\n"), "object[0].function[0].new", "symbol"),
        (with_function(new="n" * 512), "object[0].function[0].new", "symbol"),
        (with_function(module="a.ko"), "object[0].function[0].module", "module"),
        (with_function(position=-1), "object[0].function[0].position", "between 0"),
        (with_function(position=1 << 32), "object[0].function[0].position", "between 0"),
        (with_function(new="old_f", module=""), "object[0].function[0].new", "by itself"),
        (with_functions(replace(F, new="old_f", module="m"), name="m"), "object[0].function[0].new", "by itself"),
        (replace(GOOD, objects=GOOD.objects[:1] * 2), "object", "vmlinux is named twice"),
        (replace(GOOD, states=(PatchStateVersion(7), PatchStateVersion(7, 1))), "state", "7 is named twice"),
        (replace(GOOD, states=(PatchStateVersion(-1),)), "state[0].id", "between 0"),
        (replace(GOOD, states=(PatchStateVersion(1, 1 << 32),)), "state[0].version", "between 0"),
        (
            Patch("p", (PatchObject("m", (F,), Callbacks(post_patch="a b")),)),
            "object[0].callbacks.post_patch",
            "symbol",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_by_place(patch: Patch, place: str, words: str) -> None:
    """The error says where, and what."""
    with pytest.raises(Inconsistent) as caught:
        validate(patch)
    assert caught.value.section == place
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "patch",
    [
        with_function(old="_RNvCs1_6kernel", new="$new.f"),
        with_function(old="n" * 511),
        with_function(new="old_f", module="other"),
        with_function(position=(1 << 32) - 1),
        Patch("take_all_back", (PatchObject("vmlinux", ()),), replace=True),
        replace(GOOD, states=(PatchStateVersion((1 << 64) - 1, (1 << 32) - 1),)),
        replace(GOOD, name="p" * 55),
    ],
)
def test_limits_themselves_are_allowed(patch: Patch) -> None:
    """An empty patch that replaces is one too: it takes all others back."""
    assert validate(patch) is patch
