"""Stacked versions: who sees which, what is searched, and what remains when patches go."""

from __future__ import annotations

import pytest

from surefoot.errors import Inconsistent, NotApplied
from surefoot.patch.check import Range
from surefoot.patch.model import Patch, PatchFunction, PatchObject, PatchStateVersion
from surefoot.patch.stack import Body, PatchStack, Place, Redirect, Side

ORIGINAL = {"f": 0x1000, "g": 0x2000, "m": 0x9000}
Places = dict[str, dict[PatchFunction, Place]]


def body(name: str, entry: int) -> Body:
    return Body(name, entry, (Range(entry, entry + 0x100, name),))


def patch(
    name: str,
    *functions: str,
    replace: bool = False,
    states: tuple[tuple[int, int], ...] = (),
    owner: str = "vmlinux",
) -> Patch:
    listed = tuple(PatchFunction(function, 0, f"{name}_{function}") for function in functions)
    versions = tuple(PatchStateVersion(*state) for state in states)
    return Patch(name, (PatchObject(owner, listed),), versions, replace)


def entry(name: str, function: str) -> int:
    """Where the version of a patch lies: "p1" puts f at 0x11000."""
    return ORIGINAL[function] + 0x10000 * int(name[1:])


def places(item: Patch) -> Places:
    return {
        part.name: {
            function: Place(
                body(function.old, ORIGINAL[function.old]), body(function.new, entry(item.name, function.old))
            )
            for function in part.functions
        }
        for part in item.objects
    }


def stacked(*patches: Patch) -> PatchStack:
    stack = PatchStack()
    for item in patches:
        stack.compatible(item)
        stack.add(item, places(item))
    return stack


def starts(ranges: list[Range]) -> list[int]:
    return [item.start for item in ranges]


P1, P2, P3 = patch("p1", "f", "g"), patch("p2", "f"), patch("p3", "f", replace=True)


def test_the_handler_sees_as_in_the_kernel() -> None:
    """Only the top version's transition counts; without one everybody sees the top."""
    stack = stacked(P1, P2)
    f1, f2, g1 = entry("p1", "f"), entry("p2", "f"), entry("p1", "g")
    assert stack.redirects(None) == [Redirect(0x1000, f2, f2), Redirect(0x2000, g1, g1)]
    assert stack.redirects("p2") == [Redirect(0x1000, f1, f2), Redirect(0x2000, g1, g1)]
    # p1 lies below p2 for f: its transition changes g only.
    assert stack.redirects("p1") == [Redirect(0x1000, f2, f2), Redirect(0x2000, 0x2000, g1)]
    assert stacked(P1).redirects("p1") == [Redirect(0x1000, 0x1000, f1), Redirect(0x2000, 0x2000, g1)]


def test_a_task_on_no_side_sees_what_was_before() -> None:
    """The kernel warns about it and must choose something."""
    [f, _] = stacked(P1)
    assert f.select(Side.IDLE, "p1").entry == 0x1000
    assert f.select(Side.IDLE, None).entry == entry("p1", "f")


def test_the_version_being_replaced_is_searched() -> None:
    """Going over: the next older one, or the original. Going back: the patch's own."""
    stack = stacked(P1, P2)
    assert starts(stack.searched("p2", Side.PATCHED)) == [entry("p1", "f")]
    assert starts(stack.searched("p2", Side.UNPATCHED)) == [entry("p2", "f")]
    assert starts(stack.searched("p1", Side.PATCHED)) == [0x1000, 0x2000]
    assert starts(stack.searched("p1", Side.UNPATCHED)) == [entry("p1", "f"), entry("p1", "g")]
    assert stack.searched("p9", Side.PATCHED) == []
    # The sites are where calls are redirected, whatever is searched.
    assert starts(stack.sites("p2")) == [0x1000]


def test_replacing_gives_back_what_it_does_not_name() -> None:
    """The other function is the original again for those who have gone over, and searched as that."""
    stack = stacked(P1, P3)
    f1, f3, g1 = entry("p1", "f"), entry("p3", "f"), entry("p1", "g")
    assert stack.redirects("p3") == [Redirect(0x1000, f1, f3), Redirect(0x2000, g1, 0x2000)]
    assert starts(stack.searched("p3", Side.PATCHED)) == [f1, g1]
    assert starts(stack.searched("p3", Side.UNPATCHED)) == [f3, 0x2000]
    assert stack.replace_older("p3") == ("p1",)
    assert list(stack.patches) == ["p3"]
    assert stack.redirects(None) == [Redirect(0x1000, f3, f3)]


def test_replacing_leaves_newer_patches_alone() -> None:
    """A transition back of the replacing patch that is turned round ends with replacing again: only older ones go."""
    stack = stacked(P1, P3)
    stack.replace_older("p3")
    stack.add(patch("p4", "f", "g"), places(patch("p4", "f", "g")))
    assert stack.replace_older("p3") == ()
    assert list(stack.patches) == ["p3", "p4"]
    assert [row.patched for row in stack.redirects(None)] == [entry("p4", "f"), entry("p4", "g")]


@pytest.mark.parametrize("gone", ["p1", "p2"])
def test_patches_go_in_any_order(gone: str) -> None:
    """What is left is what the other one alone would give, for the functions that it has."""
    stack = stacked(P1, P2)
    stack.drop(gone)
    assert stack.redirects(None) == stacked(P2 if gone == "p1" else P1).redirects(None)


def test_a_module_gets_its_patches_in_order_when_it_comes() -> None:
    """Also a replacing one that does not name it: its functions are given back."""
    m1, m2 = patch("p1", "m", owner="mod"), patch("p2", "m", owner="mod")
    stack = PatchStack()
    for item in (m1, m2):
        stack.add(item, {})
    assert stack.redirects("p2") == []
    stack.arrive("mod", {item.name: places(item)["mod"] for item in (m1, m2)})
    assert stack.redirects("p2") == [Redirect(0x9000, entry("p1", "m"), entry("p2", "m"))]
    stack.leave("mod")
    assert stack.redirects(None) == []
    assert list(stack.patches) == ["p1", "p2"]
    stack.add(P3, places(P3))
    stack.arrive("mod", {item.name: places(item)["mod"] for item in (m1, m2)})
    assert stack.redirects("p3")[-1] == Redirect(0x9000, entry("p2", "m"), 0x9000)


def test_two_functions_that_are_one_are_refused() -> None:
    """Aliases share an address; nothing is added."""
    stack = PatchStack()
    item = patch("p1", "f", "g")
    same = {"vmlinux": dict.fromkeys(item.objects[0].functions, Place(body("f", 0x1000), body("new", 0x11000)))}
    with pytest.raises(Inconsistent, match="twice"):
        stack.add(item, same)
    assert not stack.patches
    assert stack.redirects(None) == []
    stack.add(item, {})
    with pytest.raises(Inconsistent, match="twice"):
        stack.arrive("vmlinux", {"p1": same["vmlinux"]})
    assert stack.redirects(None) == []


def test_a_function_has_one_owner() -> None:
    """A module's function cannot lie where the kernel's is."""
    stack = stacked(P1)
    item = patch("p2", "m", owner="mod")
    [function] = item.objects[0].functions
    with pytest.raises(Inconsistent, match="lies where f of vmlinux does"):
        stack.add(item, {"mod": {function: Place(body("m", 0x1000), body("new", 0x11000))}})
    assert list(stack.patches) == ["p1"]


@pytest.mark.parametrize(
    ("old", "new", "replace", "words"),
    [
        (((1, 2),), ((1, 2),), False, ""),
        (((1, 2),), ((1, 3),), True, ""),
        (((1, 2),), (), False, ""),
        (((1, 2),), ((2, 0),), False, ""),
        (((1, 2),), ((1, 1),), False, "version 1 of state 1"),
        (((1, 2),), (), True, "does not know its state 1"),
        (((1, 2), (5, 0)), ((1, 2),), True, "does not know its state 5"),
    ],
)
def test_states_must_be_known_and_not_older(
    old: tuple[tuple[int, int], ...], new: tuple[tuple[int, int], ...], replace: bool, words: str
) -> None:
    """The same id needs at least the same version; a replacing patch must know every id."""
    stack = stacked(patch("p1", "f", states=old))
    item = patch("p2", "f", states=new, replace=replace)
    if not words:
        stack.compatible(item)
        return
    with pytest.raises(NotApplied, match=words):
        stack.compatible(item)


def test_a_patch_is_applied_once() -> None:
    """The name is what counts."""
    with pytest.raises(NotApplied, match="already"):
        stacked(P1).compatible(patch("p1", "g"))


def test_forced_over_code_is_searched_ever_after() -> None:
    """Of the functions concerned, by patches on top and after the forced one is gone; of others not."""
    stack = stacked(P1)
    stack.force("p1", Side.PATCHED)
    stack.add(P2, places(P2))
    assert starts(stack.searched("p2", Side.PATCHED)) == [entry("p1", "f"), 0x1000]
    stack.force("p1", Side.UNPATCHED)
    stack.drop("p1")
    assert starts(stack.searched("p2", Side.UNPATCHED)) == [entry("p2", "f"), 0x1000, entry("p1", "f")]
    other = patch("p4", "m")
    stack.add(other, places(other))
    assert starts(stack.searched("p4", Side.PATCHED)) == [0x9000]


def test_a_copy_is_independent() -> None:
    """Changes of one are not seen in the other."""
    stack = stacked(P1)
    copy = stack.copy()
    copy.add(P2, places(P2))
    copy.force("p1", Side.PATCHED)
    copy.drop("p1")
    assert list(stack.patches) == ["p1"]
    assert stack.redirects(None) == stacked(P1).redirects(None)
    assert stack.searched("p1", Side.UNPATCHED) == stacked(P1).searched("p1", Side.UNPATCHED)
    assert stack.objects() == {"vmlinux"}
    assert [item.original.name for item in stack.of("p1")] == ["f", "g"]


def test_sides() -> None:
    """The opposite of no side is none."""
    assert Side.PATCHED.other is Side.UNPATCHED
    assert Side.UNPATCHED.other is Side.PATCHED
    assert Side.IDLE.other is Side.IDLE
