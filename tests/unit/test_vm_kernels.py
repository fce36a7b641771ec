"""Taking the parts of a kernel out of unpacked packages."""

from __future__ import annotations

from pathlib import Path

import pytest

from surefoot.errors import Unavailable
from surefoot.targets.vm.kernels import _followed


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """An unpacked debug package whose kernel lies elsewhere than its modules, as in Debian's 6.12."""
    boot = tmp_path / "usr" / "lib" / "debug" / "boot"
    boot.mkdir(parents=True)
    (boot / "vmlinux-6.12").write_bytes(b"kernel")
    (tmp_path / "usr" / "lib" / "debug" / "modules").mkdir()
    return tmp_path


@pytest.mark.parametrize("goal", ["../boot/vmlinux-6.12", "/usr/lib/debug/boot/vmlinux-6.12"])
def test_a_link_is_followed_inside_the_tree(tree: Path, goal: str) -> None:
    link = tree / "usr" / "lib" / "debug" / "modules" / "vmlinux"
    link.symlink_to(goal)
    assert _followed(tree, link).read_bytes() == b"kernel"


def test_a_plain_file_is_itself(tree: Path) -> None:
    path = tree / "usr" / "lib" / "debug" / "boot" / "vmlinux-6.12"
    assert _followed(tree, path) == path.resolve()


@pytest.mark.parametrize("goal", ["../../../../../etc/passwd", "../boot/missing"])
def test_a_link_out_of_the_tree_is_refused(tree: Path, goal: str) -> None:
    link = tree / "usr" / "lib" / "debug" / "modules" / "vmlinux"
    link.symlink_to(goal)
    with pytest.raises(Unavailable, match="do not hold"):
        _followed(tree, link)
