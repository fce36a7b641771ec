"""`surefoot stack` on a dump of a real kernel, made on the spot with function-graph tracing and a kretprobe on."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import json_schema
from surefoot.cli.exits import Exit
from surefoot.targets.vm import kernels, machines

pytestmark = [pytest.mark.kernel, pytest.mark.needs("qemu-system-aarch64", "apt-get", "dpkg")]

_SCHEMA = json_schema.load("stack-1.json")


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Iterator[machines.Dump]:
    """Give a dump of a busy, traced guest, and the kernel's own traces from just before."""
    machine = machines.boot(kernels.fetch(), name=f"test-stack-{os.getpid()}")
    path = tmp_path_factory.mktemp("stack") / "guest.vmcore"
    try:
        machine.trace_on(kretprobes=["vfs_read"])
        time.sleep(5)
        yield machine.dump(path, stacks=True)
    finally:
        machine.stop()
        path.unlink(missing_ok=True)


def _surefoot(dump: machines.Dump, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    files = ("--vmcore", dump.path, "--vmlinux", dump.kernel.vmlinux, "--modules", dump.kernel.debug_modules)
    command = [sys.executable, "-m", "surefoot.cli.main", "stack", *map(str, files), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, encoding="utf-8")


@pytest.fixture(scope="module")
def answer(dump: machines.Dump) -> dict[str, Any]:
    """Give the JSON of all tasks."""
    done = _surefoot(dump, "--json")
    assert done.stderr == ""
    whole: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (Exit.WELL if all(task["reliable"] for task in whole["tasks"]) else Exit.NO)
    return whole


def test_the_json_is_what_the_schema_says(answer: dict[str, Any]) -> None:
    """Of every task of a real dump."""
    assert json_schema.findings(_SCHEMA, answer) == []
    assert answer["summary"]["tasks"] == len(answer["tasks"]) > 50


def test_most_stacks_are_certain(answer: dict[str, Any]) -> None:
    """Every task has a verdict, and hybrid is certain of at least nine in ten."""
    assert all(task["reliable"] == (task["reason"] is None) for task in answer["tasks"])
    assert answer["summary"]["reliable"]["hybrid"] >= 0.9 * answer["summary"]["tasks"]


def test_threads_are_the_kernels(dump: machines.Dump, answer: dict[str, Any]) -> None:
    """Traces end as the kernel's own do, for a task that slept in both; the dump has the threads that /proc had."""
    ours = {task["pid"]: task for task in answer["tasks"] if task["pid"]}
    theirs = {thread.pid: thread for thread in dump.stacks or [] if thread.frames and thread.state in "SDI"}
    same = 0
    for pid in ours.keys() & theirs.keys():
        frames = [(frame["symbol"], frame["offset"]) for frame in ours[pid]["frames"]]
        wanted = [(frame.symbol, frame.offset) for frame in theirs[pid].frames]
        same += frames[-len(wanted) :] == wanted
    assert len(ours.keys() & theirs.keys()) >= 40
    assert same >= 40


def test_recovered_addresses_are_marked(answer: dict[str, Any]) -> None:
    """Function-graph tracing was on: its letter is there, and never without its evidence."""
    frames = [frame for task in answer["tasks"] for frame in task["frames"]]
    assert any("F" in frame["letters"] for frame in frames)
    assert all(("F" in frame["letters"]) == ("fgraph" in frame["evidence"]) for frame in frames)


def test_modules_are_named(answer: dict[str, Any]) -> None:
    """The load keeps module code on stacks."""
    assert "pktgen" in {frame["module"] for task in answer["tasks"] for frame in task["frames"]}


def test_the_text_says_the_same(dump: machines.Dump, answer: dict[str, Any]) -> None:
    """A block for each task with the same verdict and as many frames, and the same counts below."""
    done = _surefoot(dump)
    assert done.stderr == ""
    headings = re.findall(r"^(\d+) .* (RELIABLE|UNRELIABLE)$", done.stdout, flags=re.MULTILINE)
    assert headings == [(str(t["pid"]), "RELIABLE" if t["reliable"] else "UNRELIABLE") for t in answer["tasks"]]
    frames = re.findall(r"^[ ▸?] +\d+ {1,2}[0-9a-f]{16} ", done.stdout, flags=re.MULTILINE)
    assert len(frames) == sum(len(task["frames"]) for task in answer["tasks"])
    counts = answer["summary"]["reliable"]
    assert re.search(rf"^  reliable +{counts['fp']} +{counts['hybrid']}$", done.stdout, flags=re.MULTILINE)


def test_source_lines(dump: machines.Dump) -> None:
    """Of the scheduler, at least, they are known."""
    done = _surefoot(dump, "--task", "2", "--lines")
    assert re.search(r"^ +kernel/sched/core\.c:\d+", done.stdout, flags=re.MULTILINE)


def test_no_such_task(dump: machines.Dump) -> None:
    """One sentence that names all of them, status 2."""
    done = _surefoot(dump, "--task", "4194301", "--task", "2", "--task", "4194302")
    assert (done.returncode, done.stdout) == (Exit.BAD, "")
    assert re.match(r"surefoot: .*4194301, 4194302", done.stderr)


def test_not_a_kernel(dump: machines.Dump, tmp_path: Path) -> None:
    """Every wrong file is one clear sentence and status 2."""
    text = tmp_path / "text"
    text.write_text("no dump, no kernel\n", encoding="utf-8")
    module = next(dump.kernel.debug_modules.rglob("pktgen.ko"))
    for vmcore, vmlinux in ((text, dump.kernel.vmlinux), (dump.path, text), (dump.path, module), (module, module)):
        done = _surefoot(dump, "--vmcore", str(vmcore), "--vmlinux", str(vmlinux))
        assert (done.returncode, done.stdout) == (Exit.BAD, ""), (vmcore, vmlinux)
        assert done.stderr.startswith("surefoot: ")
        assert "Traceback" not in done.stderr


def test_a_recorded_capture_can_be_loaded(dump: machines.Dump, tmp_path: Path) -> None:
    """`--record` writes what `load_snapshot` reads, with the same tasks."""
    from surefoot.targets.snapshot import load_snapshot

    path = tmp_path / "two.snapshot"
    _surefoot(dump, "--task", "1", "--task", "2", "--record", str(path))
    assert load_snapshot(path).info.pid.tolist() == [1, 2]
