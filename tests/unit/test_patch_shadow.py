"""Shadow variables: found by object and id, made once, destroyed once."""

from __future__ import annotations

from collections.abc import Hashable

import pytest

from surefoot.errors import PatchError
from surefoot.patch.shadow import ShadowVariables


def refuse() -> list[int]:
    raise PatchError("no memory")


def void(_: object) -> None:
    """Drop a result."""


def never() -> list[int]:
    raise AssertionError("the constructor was called")


def test_variables_are_found_by_object_and_id() -> None:
    """Neither alone is enough, and what was attached is the very same thing."""
    shadows = ShadowVariables[list[int]]()
    first = shadows.attach(0x1000, 1, lambda: [11])
    shadows.attach(0x1000, 2, lambda: [12])
    shadows.attach(0x2000, 1, lambda: [21])
    assert shadows.get(0x1000, 1) is first
    assert shadows.get(0x1000, 2) == [12]
    assert shadows.get(0x2000, 2) is None
    assert shadows.get(0x3000, 1) is None
    assert set(shadows) == {(0x1000, 1), (0x1000, 2), (0x2000, 1)}


def test_attaching_twice_is_refused_before_the_constructor() -> None:
    """The first one stays."""
    shadows = ShadowVariables[list[int]]()
    shadows.attach(1, 1, lambda: [1])
    with pytest.raises(PatchError, match="already"):
        shadows.attach(1, 1, never)
    assert shadows.get(1, 1) == [1]


def test_get_or_alloc_makes_once() -> None:
    """The second call gives what the first one made."""
    shadows = ShadowVariables[list[int]]()
    made = shadows.get_or_alloc(1, 1, lambda: [5])
    assert shadows.get_or_alloc(1, 1, never) is made


def test_a_refusing_constructor_attaches_nothing() -> None:
    """And the next attempt may succeed."""
    shadows = ShadowVariables[list[int]]()
    for method in (shadows.attach, shadows.get_or_alloc):
        with pytest.raises(PatchError, match="no memory"):
            method(1, 1, refuse)
        assert shadows.get(1, 1) is None
        assert len(shadows) == 0
    assert shadows.attach(1, 1, lambda: [2]) == [2]


def test_free_destroys_what_can_no_longer_be_found() -> None:
    """Once; freeing what is not there does nothing."""
    shadows = ShadowVariables[list[int]]()
    shadows.attach(1, 1, lambda: [3])
    seen: list[tuple[Hashable, list[int], list[int] | None]] = []
    assert shadows.free(1, 1, lambda obj, value: seen.append((obj, value, shadows.get(1, 1))))
    assert seen == [(1, [3], None)]
    assert not shadows.free(1, 1, lambda *_: seen.append((0, [], None)))
    assert len(seen) == 1


def test_free_all_takes_one_id_from_every_object() -> None:
    """Other ids stay."""
    shadows = ShadowVariables[list[int]]()
    for obj in range(4):
        shadows.attach(obj, 7, lambda: [0])
        shadows.attach(obj, 8, lambda: [0])
    gone: list[Hashable] = []
    assert shadows.free_all(7, lambda obj, _: gone.append(obj)) == 4
    assert sorted(map(str, gone)) == ["0", "1", "2", "3"]
    assert set(shadows) == {(obj, 8) for obj in range(4)}
    assert shadows.free_all(7) == 0
    assert shadows.free_all(8) == 4
    assert len(shadows) == 0


def test_a_constructor_may_not_use_shadow_variables() -> None:
    """In the kernel it runs under their spinlock: that would be a deadlock."""
    shadows = ShadowVariables[list[int]]()
    with pytest.raises(PatchError, match="itself"):
        shadows.attach(1, 1, lambda: shadows.attach(1, 2, lambda: [1]))
    assert len(shadows) == 0
    shadows.attach(1, 1, lambda: [1])
    with pytest.raises(PatchError, match="itself"):
        shadows.free(1, 1, lambda obj, _: void(shadows.free(obj, 1)))
    # Detached before it was destroyed; the lock is free again.
    assert shadows.get_or_alloc(1, 1, lambda: [2]) == [2]
