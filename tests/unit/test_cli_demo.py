"""`surefoot demo` without a guest: what it says when QEMU is missing, and that nothing is left running."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from surefoot.cli import demo as demo_module
from surefoot.cli import main as cli_main
from surefoot.cli import stack as stack_module
from surefoot.cli.console import Globals
from surefoot.cli.exits import Exit
from surefoot.errors import TargetError
from surefoot.targets.vm import kernels, machines


class Guest:
    """A guest that remembers what was asked of it."""

    def __init__(self, fault: str = "") -> None:
        self.asked: list[str] = []
        self.fault = fault
        self.kernel = SimpleNamespace(release="7.3.4", vmlinux=Path("vmlinux"), debug_modules=Path("modules"))

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if what == self.fault:
            raise TargetError(f"{what} failed")

    def trace_on(self, *, kretprobes: list[str]) -> list[str]:
        self._ask("trace")
        return [f"probing {name}" for name in kretprobes]

    def dump(self, path: Path) -> SimpleNamespace:
        self._ask("dump")
        return SimpleNamespace(path=path, kernel=self.kernel)

    def stop(self) -> None:
        self._ask("stop")


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """Replace everything outside, and give what `surefoot stack` was asked to read."""
    asked: dict[str, Any] = {}
    monkeypatch.setenv("SUREFOOT_CACHE", str(tmp_path))
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    monkeypatch.setattr(kernels, "fetch", lambda _version, report: report("fetched") or Guest().kernel)
    monkeypatch.setattr(stack_module.stack, "callback", lambda **files: asked.update(files) or Exit.NO)
    return asked


def test_the_flow_ends_in_the_traces(
    shown: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The guest is traced, dumped and ended, its dump is shown, and unreliable stacks are no failure of the demo."""
    guest = Guest()
    monkeypatch.setattr(machines, "boot", lambda *_words, **_options: guest)
    assert cli_main.run(["demo", "--real", "--seconds", "0"]) == Exit.WELL
    assert guest.asked == ["trace", "dump", "stop"]
    assert (shown["vmcore"], shown["vmlinux"]) == (tmp_path / "demo" / "vmcore", Path("vmlinux"))
    assert "surefoot stack --vmcore" in capsys.readouterr().err


@pytest.mark.parametrize("fault", ["trace", "dump"])
def test_the_guest_is_ended_whatever_fails(
    shown: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    """A step that fails is one sentence and status 2, and the guest is ended."""
    guest = Guest(fault)
    monkeypatch.setattr(machines, "boot", lambda *_words, **_options: guest)
    assert cli_main.run(["--quiet", "demo", "--real", "--seconds", "0"]) == Exit.BAD
    assert guest.asked[-1] == "stop"
    assert capsys.readouterr().err == f"surefoot: {fault} failed\n"
    assert shown == {}


def test_a_missing_qemu_is_asked_for(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the right to install, the demo says what is missing and how to get it."""
    monkeypatch.setattr("shutil.which", lambda _name: None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert cli_main.run(["demo", "--real"]) == Exit.BAD
    err = capsys.readouterr().err
    assert "needs qemu-system-aarch64, which is not installed" in err
    assert "apt install qemu-system-arm" in err


@pytest.mark.parametrize(("status", "end"), [(0, Exit.WELL), (100, Exit.BAD)])
def test_root_gets_qemu_installed(
    shown: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    status: int,
    end: Exit,
) -> None:
    """As root on a system with apt QEMU is installed; what apt complains of is passed on."""
    ran: list[list[str]] = []

    def run(words: list[str], **_options: object) -> subprocess.CompletedProcess[str]:
        ran.append(words)
        return subprocess.CompletedProcess(words, status, "", "E: no such luck\n")

    monkeypatch.setattr("shutil.which", lambda name: None if name.startswith("qemu") else f"/bin/{name}")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(machines, "boot", lambda *_words, **_options: Guest())
    assert cli_main.run(["demo", "--real"]) == end
    assert ran[0][-1] == "update"
    assert ("no such luck" in capsys.readouterr().err) == (end is Exit.BAD)
    assert bool(shown) == (end is Exit.WELL)
    if end is Exit.WELL:
        assert ran[1][-2:] == ["install", "qemu-system-arm"]


def test_a_growing_count_is_not_repeated(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the lines of a download only some are shown; every other line is."""
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    steps = demo_module._Steps(Globals())
    for line in ("downloading: 1", "downloading: 2", "unpacking a", "unpacking b"):
        steps.report(line)
    now[0] += 6
    steps.report("unpacking b")
    shown = [line.strip() for line in capsys.readouterr().err.splitlines()]
    assert shown == ["downloading: 1", "unpacking a", "unpacking b", "unpacking b"]
