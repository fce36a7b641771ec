"""`surefoot stack` as a command: what it asks of the target, what it prints, and what it exits with."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import json_schema
import report_builder as make
from surefoot.cli import stack as cli_stack
from surefoot.cli.exits import Exit
from surefoot.cli.main import run
from surefoot.dtypes import Addr
from surefoot.errors import Inconsistent
from surefoot.targets import cache, snapshot, vmcore
from surefoot.targets.capture import Capture
from surefoot.targets.linux import SourceLine
from surefoot.targets.modules import LoadedModule
from surefoot.unwind import walker
from surefoot.unwind.context import Mode
from surefoot.unwind.trace import Traces

ZRAM = LoadedModule("zram", {}, "", ((make.at("zram_submit_bio", 0), make.SIZE),), ())
WORDS = ["stack", "--vmcore", "a.vmcore", "--vmlinux", "vmlinux"]


class FakeTarget:
    """Offers what the command uses of a `LinuxTarget`, and remembers what it was asked."""

    modules = (ZRAM,)

    def __init__(self) -> None:
        self.opened: tuple[Path, Path, Path | None] | None = None
        self.asked_lines = 0
        self.given = make.tasks()
        self.walks: list[tuple[Mode, bool]] = []
        self.proved = 0
        self.boundaries: list[tuple[Mode, ...]] = []

    def prove(self) -> None:
        """Remember that proofs of everything were asked for."""
        self.proved += 1

    def prove_boundaries(self, capture: Capture, modes: tuple[Mode, ...]) -> Capture:
        """Remember for which walks proofs were asked for."""
        self.boundaries.append(modes)
        return capture

    def capture(self, pids: tuple[int, ...] | None = None) -> Capture:
        """Give the tasks of `report_builder`."""
        whole = make.capture(self.given)
        if pids is None:
            return whole
        rows = whole.rows_of(list(pids))
        self.given = [self.given[row] for row in rows]
        return whole.take(rows)

    def source_lines(self, addrs: Addr) -> list[tuple[SourceLine, ...]]:
        """Give one line per address."""
        self.asked_lines += addrs.size
        return [(SourceLine("f", "a.c", 7),) for _ in range(addrs.size)]


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> FakeTarget:
    """Make the command open a fake target, and its walks give the traces of `report_builder`."""
    fake = FakeTarget()

    def open_vmcore(core: Path, image: Path, modules: Path | None, *, cache: object) -> FakeTarget:
        del cache
        fake.opened = (core, image, modules)
        return fake

    def walk(*_columns: object, mode: Mode, strict: bool) -> Traces:
        fake.walks.append((mode, strict))
        return make.traces(fake.given, fp=mode is Mode.FP)

    monkeypatch.setattr(vmcore, "open_vmcore", open_vmcore)
    monkeypatch.setattr(walker, "walk", walk)
    monkeypatch.setattr(cache, "TableCache", lambda: None)
    monkeypatch.delenv("COLUMNS", raising=False)
    return fake


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def surefoot(capsys: pytest.CaptureFixture[str]) -> Run:
    """Give a function that runs a command line and gives status, stdout and stderr."""

    def call(*words: str) -> tuple[int, str, str]:
        status = run(words)
        return (status, *capsys.readouterr())

    return call


def test_unreliable_stacks_are_status_1(target: FakeTarget, surefoot: Run) -> None:
    """The traces, the legend and the summary; nothing on stderr."""
    status, out, err = surefoot(*WORDS, "--modules", "mods")
    assert status == Exit.NO
    assert err == ""
    assert target.opened == (Path("a.vmcore"), Path("vmlinux"), Path("mods"))
    assert "1 init  sleeping, cpu 0" in out
    assert "unproven" in out
    assert "[zram]" in out
    assert "test.vmcore  7.3.4-test  8 tasks" in out
    assert "\x1b[" not in out


def test_reliable_stacks_are_status_0(target: FakeTarget, surefoot: Run) -> None:
    """The status is about the tasks shown, in the mode shown."""
    del target
    status, out, _ = surefoot(*WORDS, "--task", "46")
    assert status == Exit.WELL
    assert out.startswith("46 kworker/u8:2")
    assert surefoot(*WORDS, "--task", "46", "--mode", "fp")[0] == Exit.NO


def test_both_walks_are_always_made(target: FakeTarget, surefoot: Run) -> None:
    """The baseline (fp) is never strict."""
    surefoot(*WORDS, "--strict", "--mode", "sframe")
    assert target.walks == [(Mode.FP, False), (Mode.HYBRID, True), (Mode.SFRAME, True)]


def test_proofs_are_made_where_they_are_asked_for(target: FakeTarget, surefoot: Run) -> None:
    """At the boundaries always; a strict walk asks about every frame, so --strict implies --prove."""
    surefoot(*WORDS)
    surefoot(*WORDS, "--mode", "fp")
    surefoot(*WORDS, "--mode", "sframe")
    assert target.proved == 0
    assert target.boundaries == [(Mode.HYBRID,), (Mode.HYBRID,), (Mode.HYBRID, Mode.SFRAME)]
    surefoot(*WORDS, "--prove")
    surefoot(*WORDS, "--strict")
    assert target.proved == 2


def test_json(target: FakeTarget, surefoot: Run) -> None:
    """One object that is what the schema says."""
    del target
    status, out, err = surefoot("--json", *WORDS, "--unreliable")
    assert (status, err) == (Exit.NO, "")
    whole = json.loads(out)
    assert json_schema.findings(json_schema.load("stack-1.json"), whole) == []
    assert [task["pid"] for task in whole["tasks"]] == [50, 51, 61, 175]
    assert whole["summary"]["tasks"] == 8


def test_quiet_leaves_out_the_legend(target: FakeTarget, surefoot: Run) -> None:
    """The answer remains."""
    del target
    _, out, _ = surefoot(*WORDS, "--quiet")
    assert "unproven" not in out
    assert "hybrid reliable, fp not: 2" in out


@pytest.mark.parametrize(
    ("options", "environment", "colored"),
    [
        ([], {}, False),
        (["--color", "always"], {}, True),
        (["--color", "always"], {"NO_COLOR": "1"}, True),
        (["--color", "never"], {}, False),
    ],
)
def test_colour(
    target: FakeTarget,
    surefoot: Run,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    environment: dict[str, str],
    colored: bool,
) -> None:
    """An explicit word wins over everything; a pipe gets none."""
    del target
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert ("\x1b[" in surefoot(*WORDS, *options)[1]) is colored


@pytest.mark.parametrize(
    ("environment", "colored"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colour_on_a_terminal(
    target: FakeTarget, surefoot: Run, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], colored: bool
) -> None:
    """A terminal gets colours unless NO_COLOR or TERM say otherwise."""
    del target
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert ("\x1b[" in surefoot(*WORDS, "--quiet")[1]) is colored


def test_columns_decide_the_width(target: FakeTarget, surefoot: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the environment says it, also in a pipe."""
    del target
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, surefoot(*WORDS)[1].splitlines())) <= 80


def test_source_lines_on_request(target: FakeTarget, surefoot: Run) -> None:
    """Nobody loads debug information for nothing."""
    assert "a.c:7" not in surefoot(*WORDS, "--task", "1")[1]
    assert target.asked_lines == 0
    assert "a.c:7" in surefoot(*WORDS, "--task", "1", "--lines")[1]
    assert target.asked_lines == 3


def test_record_writes_the_capture(
    target: FakeTarget, surefoot: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All tasks that were walked, once each."""
    del target
    taken: list[tuple[list[int], Path]] = []

    def record(capture: Capture, pids: list[int], path: Path) -> None:
        assert len(capture) == 2
        taken.append((pids, path))

    monkeypatch.setattr(snapshot, "record", record)
    surefoot(*WORDS, "--task", "46", "--task", "1", "--task", "1", "--record", str(tmp_path / "x.npz"))
    assert taken == [([1, 46], tmp_path / "x.npz")]


def test_missing_tasks_are_named_together(target: FakeTarget, surefoot: Run) -> None:
    """One sentence, status 2, nothing on stdout."""
    del target
    status, out, err = surefoot(*WORDS, "--task", "7", "--task", "1", "--task", "9")
    assert (status, out) == (Exit.BAD, "")
    assert "7, 9" in err.splitlines()[0]
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "words",
    [
        ["stack"],
        ["stack", "--vmcore", "a"],
        [*WORDS, "--task", "-1"],
        [*WORDS, "--task", "x"],
        [*WORDS, "--mode", "x"],
    ],
)
def test_usage_errors(surefoot: Run, words: list[str]) -> None:
    """Wrong words are status 2."""
    status, out, err = surefoot(*words)
    assert (status, out) == (Exit.BAD, "")
    assert "Error:" in err


def test_a_file_that_is_not_there(surefoot: Run, tmp_path: Path) -> None:
    """The real target says so in one sentence."""
    status, out, err = surefoot("stack", "--vmcore", str(tmp_path / "no"), "--vmlinux", str(tmp_path / "no"))
    assert (status, out) == (Exit.BAD, "")
    assert err.startswith("surefoot: ")
    assert len([line for line in err.splitlines() if line.startswith("surefoot:")]) == 1


def test_an_error_of_the_target_is_status_2(
    target: FakeTarget, surefoot: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a dump of another kernel."""

    def refuse(_pids: object) -> Capture:
        raise Inconsistent("is not the kernel of a.vmcore", file="vmlinux", hint="give the right one")

    monkeypatch.setattr(target, "capture", refuse)
    status, out, err = surefoot(*WORDS)
    assert (status, out) == (Exit.BAD, "")
    assert err == "surefoot: vmlinux: is not the kernel of a.vmcore\nhint: give the right one\n"


def test_a_terminal_that_cannot_print_a_name(
    target: FakeTarget, surefoot: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names of tasks are any bytes; the output goes on."""
    target.given[-1].comm = "naïve\N{SNOWMAN}"
    monkeypatch.setattr(cli_stack, "sys", type("Sys", (), {"stdout": _Latin1()}))
    surefoot(*WORDS)
    assert "\\u2603" in _Latin1.written
    assert "ï" in _Latin1.written


class _Latin1:
    """A stream that can print Latin-1 only."""

    encoding = "latin-1"
    written = ""

    @staticmethod
    def isatty() -> bool:
        """No terminal."""
        return False

    @classmethod
    def write(cls, text: str) -> None:
        """Take what can be encoded."""
        cls.written += text.encode("latin-1").decode("latin-1")


def test_modules_are_named_by_their_ranges() -> None:
    """Inside a range, and nowhere else."""
    fake: Any = FakeTarget()
    module_of = cli_stack._module_of(fake)
    low = make.at("zram_submit_bio", 0)
    assert [module_of(addr) for addr in (0, low - 1, low, low + make.SIZE - 1, low + make.SIZE)] == [
        None,
        None,
        "zram",
        "zram",
        None,
    ]
    fake.modules = ()
    assert cli_stack._module_of(fake)(low) is None


def test_a_whole_walk_through_the_command(surefoot: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the real walker over words that make no sense: an answer for each task, never a fault."""
    fake = FakeTarget()
    monkeypatch.setattr(vmcore, "open_vmcore", lambda *_args, **_kwargs: fake)
    monkeypatch.setattr(cache, "TableCache", lambda: None)
    status, out, err = surefoot(*WORDS, "--json")
    assert (status, err) == (Exit.NO, "")
    whole = json.loads(out)
    assert json_schema.findings(json_schema.load("stack-1.json"), whole) == []
    assert np.all([task["reliable"] or task["reason"] for task in whole["tasks"]])
