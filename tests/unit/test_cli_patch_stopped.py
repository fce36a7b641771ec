"""What `surefoot patch` says of a guest without one: descriptions that it refuses, and its journal on the disk."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from surefoot.cli.patch_backend import Options
from surefoot.cli.patch_stopped import StoppedBackend, _cautions, _describe, _write_safely
from surefoot.errors import InputError, TargetError, Unsupported
from surefoot.patch.events import PatchState
from surefoot.patch.model import Patch
from surefoot.patch.sites import Place, Site, SiteKind
from surefoot.targets.vm.kernels import Kernel
from surefoot.targets.vm.machines import Machine

PLAIN = """
name = "p"
[[object]]
name = "vmlinux"
[[object.function]]
old = "f"
new = "g"
module = "m"
"""


def described(tmp_path: Path, text: str, name: str = "p.toml") -> object:
    path = tmp_path / name
    path.write_text(text)
    return _describe(path)


def test_a_plain_description_is_taken(tmp_path: Path) -> None:
    described(tmp_path, PLAIN)


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ("\n[object.callbacks]\npre_patch = 'x'\n", "callbacks"),
        ("\n[[state]]\nid = 1\nversion = 1\n", "states"),
    ],
)
def test_what_a_stopped_guest_cannot_do_is_refused(more: str, word: str, tmp_path: Path) -> None:
    """Rather than left out in silence: a patch without its callbacks is another patch."""
    with pytest.raises(Unsupported, match=word):
        described(tmp_path, PLAIN + more)
    with pytest.raises(Unsupported, match="replace"):
        described(tmp_path, "replace = true\n" + PLAIN)


def test_a_livepatch_module_is_no_description(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="description"):
        described(tmp_path, "\x7fELF", "livepatch-sample.ko")
    with pytest.raises(InputError):
        _describe(tmp_path / "none.toml")


def test_cautions_name_modules_and_the_sites_that_ftrace_must_not_touch(tmp_path: Path) -> None:
    patch = _describe_plain(tmp_path)
    place = Place(0x1000, 0x1000, 0xFF8)
    near = Site("f", "vmlinux", place, 0x2000, SiteKind.DIRECT, ())
    far = Site("h", "vmlinux", place, 1 << 40, SiteKind.INDIRECT, ())
    assert [("m" in text, "h" in text.split()) for text in _cautions(patch, [near])] == [(True, False)]
    assert "at h:" in _cautions(patch, [near, far])[1]


def _describe_plain(tmp_path: Path) -> Patch:
    (tmp_path / "p.toml").write_text(PLAIN)
    return _describe(tmp_path / "p.toml")


def test_a_journal_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "patches" / "p.json"
    _write_safely(path, "first")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2, limits[1]))
    try:
        with pytest.raises(TargetError, match="journal"):
            _write_safely(path, "second")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "first"
    assert [entry.name for entry in path.parent.iterdir()] == ["p.json"]


def backend(tmp_path: Path) -> StoppedBackend:
    nowhere = tmp_path / "k"
    kernel = Kernel("7.3", nowhere, nowhere, nowhere, nowhere, nowhere, nowhere, "00", {})
    return StoppedBackend(Machine("n", tmp_path, 4711, kernel, 1, 1, gdb=True), Options())


def test_without_journals_there_is_nothing_to_tell_or_revert(tmp_path: Path) -> None:
    assert backend(tmp_path).status() == []
    with pytest.raises(InputError, match="has no patch 'p'"):
        next(iter(backend(tmp_path).revert("p", force=False)))
    assert list(backend(tmp_path).watch(None)) == []


def test_a_damaged_journal_is_shown_and_not_passed_over(tmp_path: Path) -> None:
    _write_safely(tmp_path / "patches" / "p.json", "{")
    [status] = backend(tmp_path).status()
    assert (status.patch, status.state) == ("p", PatchState.PARTIAL)
    assert "damaged" in status.warnings[0]
