"""The table cache: what was stored or nothing, under damage, concurrency and a disk that says no."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from surefoot.metadata.rules import empty_side
from surefoot.targets.cache import TableCache

BUILD_ID = "b114001d8228c02ea1c3170732da3a7b611ce811"


def sample() -> dict[str, NDArray[Any]]:
    """Arrays of every kind that tables have, an empty and a structured one among them."""
    return {
        "start": np.arange(1000, dtype=np.uint64),
        "signed": np.array([True, False]),
        "empty": np.zeros(0, dtype=np.int32),
        "side": empty_side(3),
        "matrix": np.arange(6, dtype=np.int16).reshape(2, 3),
    }


def same(a: dict[str, NDArray[Any]], b: dict[str, NDArray[Any]]) -> bool:
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and np.array_equal(a[k], b[k]) for k in a)


def test_what_is_stored_is_loaded(tmp_path: Path) -> None:
    cache = TableCache(tmp_path)
    assert cache.load(BUILD_ID, "rules", 1) is None
    assert cache.store(BUILD_ID, "rules", 1, sample())
    found = cache.load(BUILD_ID, "rules", 1)
    assert found is not None
    assert same(found, sample())
    assert not found["start"].flags.writeable
    assert [path.suffix for path in cache.folder.iterdir()] == [".tables"]


def test_other_builds_kinds_and_versions_are_not_found(tmp_path: Path) -> None:
    cache = TableCache(tmp_path)
    cache.store(BUILD_ID, "rules", 1, sample())
    assert cache.load(BUILD_ID[::-1], "rules", 1) is None
    assert cache.load(BUILD_ID, "proofs", 1) is None
    assert cache.load(BUILD_ID, "rules", 2) is None


def test_a_file_under_the_wrong_name_is_not_believed(tmp_path: Path) -> None:
    """The identity is in the file, not only in its name."""
    cache = TableCache(tmp_path)
    cache.store(BUILD_ID, "rules", 1, sample())
    old, new = cache.path(BUILD_ID, "rules", 1), cache.path(BUILD_ID, "rules", 2)
    assert old
    assert new
    old.rename(new)
    assert cache.load(BUILD_ID, "rules", 2) is None


@pytest.mark.parametrize("build_id", ["", "../../etc/passwd", "xyz", "AB" * 20])
def test_no_build_id_no_cache(tmp_path: Path, build_id: str) -> None:
    cache = TableCache(tmp_path)
    assert not cache.store(build_id, "rules", 1, sample())
    assert cache.load(build_id, "rules", 1) is None
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_damage_is_noticed(tmp_path: Path, data: st.DataObject) -> None:
    """A flipped byte that matters, a cut, added bytes: nothing is loaded, and storing again repairs it.

    Bytes between arrays are padding; a change there is allowed to pass, if the arrays are still right.
    """
    cache = TableCache(tmp_path)
    assert cache.store(BUILD_ID, "rules", 1, sample())
    path = cache.path(BUILD_ID, "rules", 1)
    assert path
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    how = data.draw(st.sampled_from(["flip", "cut", "grow", "zero"]))
    if how == "flip":
        content[at] ^= data.draw(st.integers(1, 255))
    elif how == "cut":
        del content[at:]
    elif how == "zero":
        content[at:] = bytes(len(content) - at)
    else:
        content += b"x"
    path.write_bytes(content)
    found = cache.load(BUILD_ID, "rules", 1)
    assert found is None or (how in {"flip", "zero"} and same(found, sample()))
    assert cache.store(BUILD_ID, "rules", 1, sample())
    again = cache.load(BUILD_ID, "rules", 1)
    assert again is not None
    assert same(again, sample())


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "tables").write_text("a file where the folder should be")
    cache = TableCache(tmp_path)
    assert not cache.store(BUILD_ID, "rules", 1, sample())
    assert cache.load(BUILD_ID, "rules", 1) is None


def test_objects_are_refused_as_a_bug(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="objects"):
        TableCache(tmp_path).store(BUILD_ID, "rules", 1, {"bad": np.array([None])})
    with pytest.raises(ValueError, match="kind"):
        TableCache(tmp_path).load(BUILD_ID, "Rules/", 1)


def test_the_environment_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUREFOOT_CACHE", str(tmp_path))
    assert TableCache().folder == tmp_path / "tables"


def test_leftovers_of_dead_writers_go(tmp_path: Path) -> None:
    cache = TableCache(tmp_path)
    cache.store(BUILD_ID, "rules", 1, sample())
    old, new = cache.folder / ".new-old", cache.folder / ".new-young"
    old.write_bytes(b"x")
    new.write_bytes(b"x")
    os.utime(old, (0, 0))
    cache.store(BUILD_ID, "rules", 1, sample())
    assert not old.exists()
    assert new.exists()


def test_the_folder_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry that was used longest ago goes first, the one just stored never."""
    cache = TableCache(tmp_path)
    for version, used in ((1, 300), (2, 100), (3, 200)):
        cache.store(BUILD_ID, "rules", version, sample())
        path = cache.path(BUILD_ID, "rules", version)
        assert path
        os.utime(path, (used, used))
        size = path.stat().st_size
    monkeypatch.setattr("surefoot.targets.cache._MAX_BYTES", 2 * size)
    cache.store(BUILD_ID, "rules", 4, sample())
    assert [cache.load(BUILD_ID, "rules", version) is not None for version in (1, 2, 3, 4)] == [
        True,
        False,
        True,
        True,
    ]


def _hammer(root: str, seed: int) -> bool:
    """Store and load the same entry over and over; True if only whole entries were ever seen."""
    cache = TableCache(Path(root))
    for k in range(60):
        cache.store(BUILD_ID, "rules", 1, {"x": np.full(5000, seed * 1000 + k)})
        found = cache.load(BUILD_ID, "rules", 1)
        if found is None or found["x"].size != 5000 or np.unique(found["x"]).size != 1:
            return False
    return True


def test_concurrent_writers_and_readers_see_whole_entries(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.starmap(_hammer, [(str(tmp_path), 1), (str(tmp_path), 2)]) == [True, True]
    assert [path for path in (tmp_path / "tables").iterdir() if path.name.startswith(".new-")] == []
