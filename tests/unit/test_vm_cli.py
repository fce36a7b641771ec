"""`surefoot vm` as a command, with the library behind it replaced."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from surefoot.cli.vm import vm
from surefoot.errors import Unavailable
from surefoot.targets.vm import kernels, machines
from surefoot.targets.vm.guest import Answer
from surefoot.targets.vm.stacks import ThreadStack

KERNEL = kernels.Kernel(
    "7.3.4", Path("/k"), Path("/k/i"), Path("/k/v"), Path("/k/m"), Path("/k/d"), Path("/k/b"), "ab", {}
)


class _Console:
    """Answers every command with its own text and status 3."""

    def run(self, command: str, *, timeout: float) -> Answer:
        assert timeout > 0
        return Answer(command.encode() + b"\xff\n", 3)


class _Machine:
    """A guest that does as it is told."""

    name = "g"
    console = _Console()

    def __init__(self) -> None:
        self.done: list[object] = []

    def trace_on(self, *, graph: str, kretprobes: tuple[str, ...]) -> list[str]:
        self.done.append(("on", graph, kretprobes))
        return ["not traceable: x"]

    def trace_off(self) -> None:
        self.done.append("off")

    def pause(self) -> None:
        self.done.append("pause")

    def stop(self) -> None:
        self.done.append("stop")

    def dump(self, path: Path, *, dump_format: str, stacks: bool) -> machines.Dump:
        return machines.Dump(path, dump_format, 1 << 20, 0.25, KERNEL, [ThreadStack(1, 1)] if stacks else None)


@pytest.fixture
def guest(monkeypatch: pytest.MonkeyPatch) -> _Machine:
    """Put one guest in place of all that may run."""
    machine = _Machine()
    monkeypatch.setattr(machines, "find", lambda _name="": machine)
    monkeypatch.setattr(machines, "running", lambda: [machine])
    return machine


def test_run_passes_output_and_status_on(guest: _Machine) -> None:
    result = CliRunner().invoke(vm, ["run", guest.name, "--", "ls", "-l", "--json"])
    assert result.stdout_bytes == b"ls -l --json\xff\n"
    assert result.exit_code == 3


def test_run_as_json_holds_the_status(guest: _Machine) -> None:
    result = CliRunner().invoke(vm, ["run", "--json", guest.name, "ls"])
    answer = json.loads(result.stdout)
    assert result.exit_code == 0
    assert (answer["schema"], answer["status"]) == ("surefoot.vm-run/1", 3)


def test_dump_says_which_files_go_with_it(guest: _Machine, tmp_path: Path) -> None:
    words = ["dump", guest.name, "-o", str(tmp_path / "v"), "--stacks", str(tmp_path / "s.json"), "--json"]
    result = CliRunner().invoke(vm, words, catch_exceptions=False)
    answer = json.loads(result.stdout)
    assert answer["schema"] == "surefoot.vm-dump/1"
    assert (answer["vmlinux"], answer["modules"], answer["build_id"]) == ("/k/v", "/k/d", "ab")
    assert json.loads((tmp_path / "s.json").read_text())["threads"][0]["pid"] == 1
    text = CliRunner().invoke(vm, words[:-1]).stdout
    assert "/k/v" in text
    assert "1 MiB" in text
    assert CliRunner().invoke(vm, [*words[:-1], "--quiet"]).stdout == ""


def test_trace_chooses_what_is_traced(guest: _Machine) -> None:
    result = CliRunner().invoke(vm, ["trace", "on", "--kretprobe", "do_wait", "--no-graph"], catch_exceptions=False)
    assert "not traceable: x" in result.stderr
    CliRunner().invoke(vm, ["trace", "on", "--filter", "vfs_*"], catch_exceptions=False)
    CliRunner().invoke(vm, ["trace", "off"], catch_exceptions=False)
    assert guest.done == [("on", "", ("do_wait",)), ("on", "vfs_*", ()), "off"]


def test_pause_and_stop(guest: _Machine) -> None:
    assert CliRunner().invoke(vm, ["pause"]).exit_code == 0
    assert json.loads(CliRunner().invoke(vm, ["stop", "--all", "--json"]).stdout)["names"] == ["g"]
    assert CliRunner().invoke(vm, ["stop", "--all", "g"]).exit_code == 2
    assert guest.done == ["pause", "stop"]


def test_without_a_guest_the_error_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUREFOOT_CACHE", str(tmp_path))
    for words in (["dump"], ["stop"], ["trace", "on"], ["run", "x", "ls"], ["boot"]):
        result = CliRunner().invoke(vm, words)
        assert isinstance(result.exception, Unavailable)
        assert "surefoot vm" in result.exception.hint
    assert CliRunner().invoke(vm, ["list"]).stdout == "no guest runs and no kernel is in the cache\n"
