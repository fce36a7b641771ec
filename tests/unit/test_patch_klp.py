"""What the kernel searches stacks for, version by version; expected from klp_check_stack_func of Linux 7.3."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from surefoot.patch.events import PatchState
from surefoot.patch.klp import KlpFunction, KlpKernel, KlpPatch, Searched, Side, first_hit, searched

OLD, FIRST, SECOND = 0x1000, 0x8000, 0x9000


def function(new: int, size: int) -> KlpFunction:
    return KlpFunction("vmlinux", "f", OLD, 0x40, new, size, transition=True)


def patched(*names: str, side: Side, moving: str) -> KlpKernel:
    """A kernel with up to two patches of one function, the second on top of the first."""
    have = {"first": function(FIRST, 0x50), "second": function(SECOND, 0x60)}
    patches = tuple(KlpPatch(name, False, True, False, (have[name],)) for name in names)
    stack = tuple(have[name].new for name in reversed(names))
    return KlpKernel(patches, moving, side, {OLD: stack})


@pytest.mark.parametrize(
    ("names", "side", "moving", "expected"),
    [
        (("first",), Side.PATCHED, "first", (OLD, 0x40)),
        (("first",), Side.UNPATCHED, "first", (FIRST, 0x50)),
        (("first", "second"), Side.PATCHED, "second", (FIRST, 0x50)),
        (("first", "second"), Side.UNPATCHED, "second", (SECOND, 0x60)),
        (("first", "second"), Side.UNPATCHED, "first", (FIRST, 0x50)),
    ],
)
def test_the_version_that_is_left_is_searched_for(
    names: tuple[str, ...], side: Side, moving: str, expected: tuple[int, int]
) -> None:
    [found] = searched(patched(*names, side=side, moving=moving))
    assert (found.start, found.size) == expected
    assert not found.is_read_astray


def test_reversing_the_removal_of_a_lower_patch_reads_astray() -> None:
    """list_next_entry of the lowest version is the list's head, which is no version."""
    [found] = searched(patched("first", "second", side=Side.PATCHED, moving="first"))
    assert found.is_read_astray


def test_what_is_not_loaded_or_under_way_is_not_searched_for() -> None:
    kernel = patched("first", side=Side.PATCHED, moving="first")
    assert searched(replace(kernel, transition=None)) == []
    asleep = KlpPatch("first", False, True, False, (replace(function(FIRST, 4), object_patched=False),))
    assert searched(replace(kernel, patches=(asleep,))) == []


def test_addresses_are_compared_raw() -> None:
    """A hit is start <= address < start + size, whatever kind of address it is."""
    wanted = [Searched(function(FIRST, 0x50), OLD, 0x40)]

    def hit(addr: int) -> bool:
        return first_hit(np.array([addr], dtype=np.uint64), wanted) is not None

    assert [hit(addr) for addr in (OLD - 1, OLD, OLD + 0x3F, OLD + 0x40)] == [False, True, True, False]


def test_states_and_redirections() -> None:
    kernel = patched("first", "second", side=Side.UNPATCHED, moving="second")
    assert kernel.state("second") is PatchState.REVERTING
    assert kernel.state("first") is PatchState.APPLIED
    assert kernel.state("third") is PatchState.ABSENT
    assert kernel.redirects().tolist() == [[OLD, SECOND], [OLD, FIRST]]
    assert KlpKernel().redirects().shape == (0, 2)
