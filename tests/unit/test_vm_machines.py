"""Named guests without QEMU: command lines, names, state files, and what is refused before anything starts."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest

from surefoot.errors import InputError, TargetError, Unavailable
from surefoot.targets.vm import folders, kernels, machines, qemu


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> kernels.Kernel:
    """Give a kernel of empty files in a cache of its own."""
    monkeypatch.setenv("SUREFOOT_CACHE", str(tmp_path))
    folder = tmp_path / "kernels" / "7.3.4"
    folder.mkdir(parents=True)
    names = {name: name for name in ("vmlinuz", "vmlinux", "modules", "debug_modules", "busybox")}
    for name in names:
        (folder / name).touch()
    folders.write_json(folder / "manifest.json", {**names, "release": "7.3.4", "build_id": "ab", "packages": {}})
    return kernels.open_kernel(folder)


def save(kernel: kernels.Kernel, name: str, pid: int) -> machines.Machine:
    """Leave a run folder as boot() does."""
    folder = folders.cache_folder() / "run" / name
    folder.mkdir(parents=True)
    machine = machines.Machine(name, folder, pid, kernel, 2, 512)
    folders.write_json(folder / "machine.json", machine.to_json())
    return machine


def test_the_command_line_says_what_was_asked_for() -> None:
    words = qemu.command_line(qemu.Spec("n", Path("/k"), Path("/i"), "a=b", 3, 700, gdb=True))
    text = " ".join(words)
    for part in (
        "-M virt,gic-version=3",
        "-cpu max,pauth-impdef=on",
        "-nic none",
        "-device vmcoreinfo",
        "-smp 3 -m 700",
        "-object memory-backend-memfd,id=ram0,size=700M,share=on",
        "memory-backend=ram0",
        "-kernel /k -initrd /i",
        "-append console=ttyAMA0 panic=-1 a=b",
        "-gdb chardev:gdb0",
        "-daemonize",
    ):
        assert part in text
    assert "gdb" not in " ".join(qemu.command_line(qemu.Spec("n", Path("/k"), Path("/i"))))


def test_only_a_process_that_carries_the_name_is_the_guest() -> None:
    assert not qemu.is_running(os.getpid(), "n")
    assert not qemu.is_running(1 << 30, "n")


def test_guests_that_ended_are_not_found(kernel: kernels.Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = save(kernel, "one", 11), save(kernel, "two", 12)
    with pytest.raises(Unavailable, match="no guest runs"):
        machines.find()
    alive = {11}
    monkeypatch.setattr(qemu, "is_running", lambda pid, _name: pid in alive)
    assert machines.running() == [one]
    assert machines.find() == one
    alive.add(12)
    assert machines.find("two") == two
    with pytest.raises(Unavailable, match="a name is needed") as caught:
        machines.find()
    assert "one, two" in caught.value.hint
    (one.folder / "machine.json").write_text("{}")
    assert machines.running() == [two]


@pytest.mark.parametrize("name", ["", "a/b", "..", "-x", "a" * 41])
def test_a_name_that_could_leave_the_folder_is_refused(kernel: kernels.Kernel, name: str) -> None:
    with pytest.raises(InputError):
        machines.boot(kernel, name=name)


def test_a_second_guest_of_the_same_name_is_refused(kernel: kernels.Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    save(kernel, "one", 11)
    monkeypatch.setattr(qemu, "is_running", lambda *_: True)
    monkeypatch.setattr(machines, "check_tools", lambda **_: None)
    with pytest.raises(InputError, match="runs already"):
        machines.boot(kernel, name="one")


def test_a_dump_that_cannot_fit_is_refused_before_the_guest_is_stopped(
    kernel: kernels.Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = save(kernel, "one", 11)
    with pytest.raises(InputError, match="none of the formats"):
        machine.dump(tmp_path / "v", dump_format="zip")
    with pytest.raises(InputError, match="folder"):
        machine.dump(tmp_path)
    with pytest.raises(TargetError, match="nowhere"):
        machine.dump(tmp_path / "nowhere" / "v")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 20))
    with pytest.raises(TargetError, match="1 MiB left"):
        machine.dump(tmp_path / "v")
    assert not (tmp_path / "v").exists()


def test_a_dump_that_breaks_off_leaves_no_file_and_a_running_guest(
    kernel: kernels.Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    class Broken:
        def __init__(self, _path: Path) -> None: ...

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_exception: object) -> None: ...

        def status(self) -> str:
            return "running"

        def execute(self, command: str, _arguments: Any = None) -> None:
            said.append(command)

        def dump(self, path: Path) -> None:
            path.write_bytes(b"half")
            raise TargetError("QEMU refused dump-guest-memory: no space left")

    monkeypatch.setattr(qemu, "Monitor", Broken)
    machine = save(kernel, "one", 11)
    (tmp_path / "v").write_text("old")
    with pytest.raises(TargetError, match="no space"):
        machine.dump(tmp_path / "v")
    assert said == ["stop", "cont"]
    assert (tmp_path / "v").read_text() == "old"
    assert not [path for path in tmp_path.iterdir() if "partial" in path.name]


def test_a_function_to_probe_has_to_be_a_name(kernel: kernels.Kernel) -> None:
    with pytest.raises(InputError, match="name of a function"):
        save(kernel, "one", 11).trace_on(kretprobes=["vfs_read; reboot"])
