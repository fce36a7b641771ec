"""`surefoot stack` on a dump of a real kernel, made on the spot with function-graph tracing and a kretprobe on."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import json_schema
from surefoot.cli.exits import Exit
from surefoot.image.files import open_image
from surefoot.proof.compact import KeptProof
from surefoot.proof.inputs import code_of
from surefoot.proof.prove import Open, prove
from surefoot.proof.verdicts import Verdict
from surefoot.targets import proofs
from surefoot.targets.cache import TableCache
from surefoot.targets.capture import Capture
from surefoot.targets.linux import LinuxTarget
from surefoot.targets.proofs import AskedProofs
from surefoot.targets.vm import kernels, machines
from surefoot.targets.vmcore import open_vmcore
from surefoot.unwind.reasons import Reason
from surefoot.unwind.state import Start
from surefoot.unwind.walker import walk

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


def test_exception_boundaries_are_crossed_on_proofs_only(answer: dict[str, Any]) -> None:
    """By default; where there is none, the reason says why, and at least one boundary of all tasks is crossed."""
    crossed = 0
    for task in answer["tasks"]:
        for frame, caller in itertools.pairwise(task["frames"]):
            if frame["boundary"] and not caller["doubtful"]:
                crossed += 1
                assert "proven" in caller["evidence"], (task["pid"], frame["symbol"])
    assert crossed >= 1


@pytest.fixture(scope="module")
def capture(dump: machines.Dump) -> tuple[LinuxTarget, Capture]:
    """Give the dump and what a walk needs of it."""
    target = open_vmcore(dump.path, dump.kernel.vmlinux, dump.kernel.debug_modules, cache=TableCache())
    return target, target.capture()


def _interrupted_at(whole: Capture, addr: int) -> Capture:
    """Give a capture in which every blocked task is on a CPU instead, and about to run one instruction."""
    tasks = whole.tasks
    blocked = tasks.start == Start.BLOCKED
    start = np.where(blocked, np.uint8(Start.REGS), tasks.start)
    pc = np.where(blocked, np.uint64(addr), tasks.pc)
    return replace(whole, tasks=replace(tasks, start=start, pc=pc))


@pytest.mark.parametrize(
    ("verdict", "reason"), [(Verdict.REFUTED, Reason.RULE_REFUTED), (Verdict.UNPROVEN, Reason.RULE_UNPROVEN)]
)
def test_a_boundary_whose_rule_does_not_hold_is_not_crossed(
    capture: tuple[LinuxTarget, Capture], verdict: Verdict, reason: Reason
) -> None:
    """Tasks are made to stand at such an instruction of the kernel: unreliable, for that reason, at frame 0."""
    target, whole = capture
    rules = target.tables.rules
    assert rules is not None
    image = open_image(target._vmlinux)
    proof = prove(rules, image.text.ranges, code_of(image))
    high = image.symbols.address_of("_etext") or 0
    bad = np.flatnonzero((proof.verdicts == verdict) & (proof.open != Open.NOT_REACHED))
    for at in bad[:: bad.size // 5].tolist():
        row = int(np.searchsorted(proof.row_first, at, side="right")) - 1
        linked = int(proof.rules.start[row]) + 4 * (at - int(proof.row_first[row]))
        if linked >= high:
            continue
        made = target.prove_boundaries(_interrupted_at(whole, linked + target.bias))
        traces = walk(made.code, made.stacks, made.tasks, made.layout)
        moved = np.flatnonzero(whole.tasks.start == Start.BLOCKED)
        assert moved.size > 40
        assert set(traces.reason[moved].tolist()) == {reason}, hex(linked)
        assert set(traces.reason_frame[moved].tolist()) == {0}


def test_proofs_are_kept(capture: tuple[LinuxTarget, Capture], monkeypatch: pytest.MonkeyPatch) -> None:
    """What one run proved, another one of the same kernel does not prove again."""
    target, whole = capture
    first = target.prove_boundaries(whole).code.proofs
    assert isinstance(first, AskedProofs)
    monkeypatch.setattr(proofs, "prove_functions", None)
    monkeypatch.setattr(target, "_proofs", None)
    again = target.prove_boundaries(whole).code.proofs
    assert isinstance(again, AskedProofs)
    assert first.verdict(first.asked).tolist() == again.verdict(again.asked).tolist()
    assert (first.verdict(first.asked) == Verdict.PROVEN).sum() >= 1


def test_modules_are_proved_as_they_run(capture: tuple[LinuxTarget, Capture]) -> None:
    """Most of the instructions of each, and what the prover makes of their files is not contradicted."""
    target, _ = capture
    target.prove()
    kept = target.code.proofs
    assert isinstance(kept, KeptProof)
    target.refresh_code()
    seen = 0
    for module in target.modules:
        for low, size in module.text:
            inside = (kept.start >= np.uint64(low)) & (kept.start < np.uint64(low + size))
            sizes = (kept.end[inside] - kept.start[inside]).astype(np.int64)
            good = kept.verdicts[inside] == Verdict.PROVEN
            seen += int(sizes.sum())
            assert sizes[good].sum() >= 0.9 * sizes.sum()
    assert seen > 4 * 5000


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
