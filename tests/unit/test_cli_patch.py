"""`surefoot patch` as a command: what it asks of a way of patching, what it prints, and how it is interrupted."""

from __future__ import annotations

import errno
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import json_schema
import patch_fake
from surefoot.cli import patch_backend, patch_show
from surefoot.cli.exits import Exit
from surefoot.cli.main import run
from surefoot.cli.patch import FORCE_WORD
from surefoot.cli.patch_backend import Backend, Options, choose_way, guest_name, open_backend
from surefoot.cli.patch_drive import Interrupts, follow
from surefoot.errors import InputError, NotApplied, TargetError
from surefoot.machine import loader
from surefoot.patch.events import Event, PatchState, Status
from surefoot.report.patch_progress import Progress

Capture = pytest.CaptureFixture[str]
EVENT_SCHEMA = json_schema.load("patch-event-1.json")
EVENTS = len(list(patch_fake.FakeBackend().apply("x", force=False)))
ON = ["--target", "guest:demo"]


def iter_events(*events: Event) -> Iterator[Event]:
    """Give events as a way does: by a generator."""
    yield from events


class Opened:
    """What the command opened, and what it gets."""

    def __init__(self) -> None:
        self.fake = patch_fake.FakeBackend()
        self.calls: list[tuple[str, Options]] = []

    def open(self, target: str, options: Options) -> Backend:
        """Give the fake."""
        self.calls.append((target, options))
        return self.fake


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    """Let the command open a fake way of patching."""
    held = Opened()
    monkeypatch.setattr(patch_show, "open_backend", held.open)
    monkeypatch.setattr(patch_backend, "open_backend", held.open)
    return held


def _lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# What is asked of the way, and what is printed


def test_apply_prints_a_line_per_event_and_a_summary(opened: Opened, capsys: Capture) -> None:
    """Off a terminal; the answer is yes."""
    assert run(["patch", "apply", "fix.toml", *ON]) == Exit.WELL
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert [line.split()[2] for line in lines[:EVENTS]][:3] == ["started", "warning", "crossed"]
    assert re.fullmatch(
        "✔ cmdline is applied: every task runs the new code \\(guest:demo, [0-9]+ ms\\)", lines[EVENTS]
    )
    assert err == ""
    assert opened.fake.asked == ["fix.toml"]
    assert opened.fake.ended == ["done"]


def test_a_stuck_transition_is_status_one_and_names_its_blockers(opened: Opened, capsys: Capture) -> None:
    """Each of them, with what holds it."""
    opened.fake.stuck = True
    assert run(["patch", "apply", "fix.toml", *ON, "--quiet"]) == Exit.NO
    out = capsys.readouterr().out
    assert out.startswith("✘ cmdline is not in force")
    for task in (patch_fake.ON_STACK, patch_fake.UNRELIABLE, patch_fake.RUNNING):
        assert f"{task.pid} {task.comm}" in out


@pytest.mark.parametrize("verb", ["apply", "revert", "watch"])
def test_json_is_a_line_per_event(opened: Opened, capsys: Capture, verb: str) -> None:
    """Each is what the schema says; the contract's keys are there; nothing else is printed."""
    assert run(["patch", verb, "cmdline", *ON, "--json"]) == Exit.WELL
    out, err = capsys.readouterr()
    events = _lines(out)
    assert len(events) == EVENTS
    assert err == ""
    for event in events:
        assert json_schema.findings(EVENT_SCHEMA, event) == []
        assert {"patch", "state", "tasks"} <= set(event)
        for task in event["tasks"]:
            assert {"pid", "comm", "crossed", "blocked_by", "reason"} <= set(task)
    assert events[-1]["state"] == ("absent" if verb == "revert" else "applied")
    assert opened.fake.asked == ["cmdline"]


def test_the_options_reach_the_way(opened: Opened) -> None:
    """Each of them; a timeout of 0 means never."""
    words = "--vmlinux v --modules m --way stopped --seed 7 --timeout 0 --interval 0.5 --pause 2"
    assert run(["--quiet", "patch", "apply", "p", *ON, *words.split()]) == Exit.WELL
    expected = Options(Path("v"), Path("m"), "stopped", None, 0.5, 2.0, 7)
    assert opened.calls == [("guest:demo", expected)]
    assert run(["--quiet", "patch", "apply", "p", *ON]) == Exit.WELL
    assert opened.calls[1] == ("guest:demo", Options())


@pytest.mark.parametrize("word", ["", "yes", "BREAK-CONSISTENCY", "1"])
def test_force_needs_the_word(opened: Opened, capsys: Capture, word: str) -> None:
    """Nothing else will do, and the complaint says what force does."""
    assert run(["patch", "apply", "p", *ON, f"--force={word}"]) == Exit.BAD
    assert opened.calls == []
    err = " ".join(capsys.readouterr().err.split())
    assert "may run old and new code mixed" in err
    assert f"--force={FORCE_WORD}" in err


@pytest.mark.parametrize("verb", ["apply", "revert"])
def test_force_is_passed_on(opened: Opened, verb: str) -> None:
    """Only where the word was said; a stuck transition then completes."""
    opened.fake.stuck = True
    assert run(["--quiet", "patch", verb, "p", *ON]) == Exit.NO
    assert run(["--quiet", "patch", verb, "p", *ON, f"--force={FORCE_WORD}"]) == Exit.WELL
    assert opened.fake.forced == [False, True]


def test_revert_knows_the_only_patch(opened: Opened, capsys: Capture) -> None:
    """Without a name it takes the only one in force; of several, or none, it asks."""
    opened.fake.statuses = [Status("old", PatchState.ABSENT), Status("fix", PatchState.APPLIED)]
    assert run(["--quiet", "patch", "revert", *ON]) == Exit.WELL
    assert opened.fake.asked == ["fix"]
    opened.fake.statuses = patch_fake.statuses()
    assert run(["--quiet", "patch", "revert", *ON]) == Exit.BAD
    assert "one of: pair, cmdline" in capsys.readouterr().err
    opened.fake.statuses = [Status("old", PatchState.ABSENT)]
    assert run(["--quiet", "patch", "revert", *ON]) == Exit.BAD
    assert "no patch to take back" in capsys.readouterr().err


def test_a_transition_that_turned_round_is_no_success(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """COMPLETED alone is not the answer: the patch has to be where the command wanted it."""
    last = list(opened.fake.apply("p", force=False))[-1]

    def turned(_source: str, *, force: bool) -> Iterator[Event]:
        del force
        yield replace(last, state=PatchState.ABSENT)

    monkeypatch.setattr(opened.fake, "apply", turned)
    assert run(["--quiet", "patch", "apply", "p", *ON]) == Exit.NO


def test_watch_without_a_transition(opened: Opened, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to wait for, and that is well."""
    monkeypatch.setattr(opened.fake, "watch", lambda _patch: iter_events())
    assert run(["patch", "watch", *ON]) == Exit.WELL
    assert capsys.readouterr().out == "guest:demo has no patch in transition.\n"


def test_watch_ends_with_no_where_time_is_over(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last event left the patch in transition."""
    events = list(opened.fake.watch(None))[:5]
    monkeypatch.setattr(opened.fake, "watch", lambda _patch: iter_events(*events))
    assert run(["--quiet", "patch", "watch", *ON]) == Exit.NO


# Status


def test_status_as_json(opened: Opened, capsys: Capture) -> None:
    """One object: on top the patch that matters most, and all of them in a list."""
    opened.fake.statuses = patch_fake.statuses()
    assert run(["patch", "status", *ON, "--json"]) == Exit.NO
    taken = json.loads(capsys.readouterr().out)
    assert json_schema.findings(json_schema.load("patch-1.json"), taken) == []
    assert (taken["patch"], taken["state"], len(taken["tasks"])) == ("cmdline", "applying", 30)
    assert [each["patch"] for each in taken["patches"]] == ["pair", "cmdline"]
    assert taken["tasks"][27]["blocked_by"] == "mousedev_read"


def test_status_of_one_patch(opened: Opened, capsys: Capture) -> None:
    """Its own state decides; a name that is not there is a mistake."""
    opened.fake.statuses = patch_fake.statuses()
    assert run(["patch", "status", "pair", *ON]) == Exit.WELL
    assert "cmdline " not in capsys.readouterr().out
    assert run(["patch", "status", "nosuch", *ON]) == Exit.BAD
    assert "guest:demo has no patch 'nosuch'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (PatchState.ABSENT, Exit.WELL),
        (PatchState.APPLIED, Exit.WELL),
        (PatchState.APPLYING, Exit.NO),
        (PatchState.REVERTING, Exit.NO),
        (PatchState.PARTIAL, Exit.NO),
    ],
)
def test_the_exit_status_of_status(opened: Opened, state: PatchState, expected: Exit) -> None:
    """1 for what is in between."""
    opened.fake.statuses = [Status("a", PatchState.APPLIED), Status("b", state)]
    assert run(["patch", "status", *ON]) == expected


# Errors


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (InputError("no such function", hint="look at it"), Exit.BAD),
        (TargetError("the guest has ended"), Exit.BAD),
        (NotApplied("cat is in f", hint="wake it"), Exit.NO),
        (ValueError("ours"), Exit.FAULT),
    ],
)
@pytest.mark.parametrize("at", [0, 4])
def test_errors_of_the_way(opened: Opened, capsys: Capture, error: Exception, expected: Exit, at: int) -> None:
    """An error ends the command with its sentence; a refusal is an answer."""
    opened.fake.raises = (at, error)
    assert run(["patch", "apply", "p", *ON]) == expected
    out, err = capsys.readouterr()
    assert str(error) in err
    assert getattr(error, "hint", "") in err
    assert len(out.splitlines()) == at


def test_a_closed_pipe_closes_the_generator(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever read goes away: the way puts its target in order."""

    def broken(_job: object, _event: Event) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(patch_show.Job, "_line", broken)
    monkeypatch.setattr("surefoot.cli.main._close_stdout", lambda: None)
    assert run(["patch", "apply", "p", *ON]) == Exit.PIPE_CLOSED
    assert opened.fake.ended == ["closed"]


@pytest.mark.parametrize("at", [1, 4])
def test_an_error_on_the_way_tells_the_state(
    opened: Opened, capsys: Capture, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Of the disk for the output, or of the way: the target is asked where it stands."""
    opened.fake.statuses = [Status("cmdline", PatchState.APPLYING)]
    opened.fake.raises = (at, TargetError("no answer"))
    assert run(["patch", "apply", "p", *ON]) == Exit.BAD
    err = capsys.readouterr().err
    assert err.startswith("surefoot: broken off: cmdline is in transition to the new code\nsurefoot: no answer\n")

    shown: list[Event] = []

    def full(job: patch_show.Job, event: Event) -> None:
        shown.append(event)
        if len(shown) > at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        job.progress.take(event)

    opened.fake.raises = None
    monkeypatch.setattr(patch_show.Job, "_line", full)
    assert run(["patch", "apply", "p", *ON]) == Exit.BAD
    err = capsys.readouterr().err
    assert "broken off: cmdline is in transition" in err
    assert "No space left" in err
    assert opened.fake.ended[-1] == "closed"


# Interruptions


def _interrupt_after(count: int, number: signal.Signals = signal.SIGINT) -> Callable[[float], None]:
    """Give a `wait` that is struck at its call of that number."""
    calls = [0]

    def wait(_seconds: float) -> None:
        calls[0] += 1
        if calls[0] == count:
            signal.raise_signal(number)

    return wait


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("at", range(1, EVENTS))
def test_an_interruption_inside_the_way(opened: Opened, capsys: Capture, at: int, number: signal.Signals) -> None:
    """At every event: the way hears of it, its last word is told, and nothing is left as it was handled before."""
    before = signal.getsignal(number)
    opened.fake.wait = _interrupt_after(at, number)
    assert run(["patch", "apply", "p", *ON]) == Exit.INTERRUPTED
    out, err = capsys.readouterr()
    assert opened.fake.ended == ["interrupted"]
    assert "interrupted: cmdline is not in force: every task runs the old code. Nothing is written" in err
    assert sum(" s  " in line for line in out.splitlines()) == at + 1
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("at", range(1, EVENTS))
def test_an_interruption_while_an_event_is_shown(
    opened: Opened, capsys: Capture, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """The event is shown to its end; then the way is told."""
    take, count = Progress.take, [0]

    def struck(progress: Progress, event: Event) -> None:
        count[0] += 1
        if count[0] == at:
            signal.raise_signal(signal.SIGINT)
        take(progress, event)

    monkeypatch.setattr(Progress, "take", struck)
    assert run(["patch", "apply", "p", *ON, "--json"]) == Exit.INTERRUPTED
    out, err = capsys.readouterr()
    events = _lines(out)
    assert len(events) == at + 1
    assert (events[-1]["event"], events[-1]["state"]) == ("failed", "absent")
    assert opened.fake.ended == ["interrupted"]
    assert "cmdline is not in force" in err


def test_an_ignored_signal_stays_ignored(opened: Opened) -> None:
    """Under nohup a lost terminal is nobody's business."""
    opened.fake.wait = _interrupt_after(3, signal.SIGHUP)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run(["--quiet", "patch", "apply", "p", *ON]) == Exit.WELL
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_ctrl_z_is_refused(opened: Opened, capsys: Capture) -> None:
    """Stopped in the middle of an attempt, the command would leave its guest paused."""
    opened.fake.wait = _interrupt_after(3, signal.SIGTSTP)
    assert run(["--quiet", "patch", "apply", "p", *ON]) == Exit.WELL
    assert "cannot be suspended" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL


def test_an_interruption_after_the_last_word_comes_too_late(
    opened: Opened, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is complete stays complete; the status still says that somebody wished to stop."""
    take = Progress.take

    def struck(progress: Progress, event: Event) -> None:
        take(progress, event)
        if event.kind.value == "completed":
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Progress, "take", struck)
    assert run(["patch", "apply", "p", *ON]) == Exit.INTERRUPTED
    assert opened.fake.ended == ["done"]
    assert "interrupted: cmdline is applied: every task runs the new code" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("statuses", "sentence"),
    [
        ([Status("cmdline", PatchState.APPLIED)], "cmdline is applied: every task runs the new code"),
        ([Status("cmdline", PatchState.REVERTING)], "it goes on by itself: surefoot patch watch --target guest:demo"),
        ([Status("cmdline", PatchState.PARTIAL)], "cmdline is PARTLY WRITTEN"),
        ([Status("other", PatchState.APPLIED)], "where cmdline stands on guest:demo could not be told"),
        ([], "cmdline is not in force"),
        (None, "where cmdline stands on guest:demo could not be told"),
    ],
)
def test_a_way_that_says_nothing_is_asked(
    opened: Opened,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    statuses: list[Status] | None,
    sentence: str,
) -> None:
    """The state is that of the target, never that of the last event before the interruption."""
    opened.fake.speaks = False
    opened.fake.wait = _interrupt_after(3)

    def status() -> list[Status]:
        if statuses is None:
            raise TargetError("it has ended")
        return statuses

    monkeypatch.setattr(opened.fake, "status", status)
    assert run(["patch", "apply", "p", *ON]) == Exit.INTERRUPTED
    out, err = capsys.readouterr()
    assert sentence in err
    assert "✔" not in out
    assert "✘" not in out


def test_watching_changes_nothing_when_interrupted(opened: Opened, capsys: Capture) -> None:
    """And says so."""
    opened.fake.speaks = False
    opened.fake.wait = _interrupt_after(3)
    assert run(["patch", "watch", *ON]) == Exit.INTERRUPTED
    assert "nothing was changed, and what was under way goes on" in capsys.readouterr().err


def test_an_interruption_before_the_first_event(
    opened: Opened, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the target is opened: nothing has begun."""

    def slow(_target: str, _options: Options) -> Backend:
        signal.raise_signal(signal.SIGINT)
        return opened.fake

    monkeypatch.setattr(patch_show, "open_backend", slow)
    assert run(["patch", "apply", "fix", *ON]) == Exit.INTERRUPTED
    assert opened.fake.ended == []
    assert "nothing had begun" in capsys.readouterr().err


@pytest.mark.parametrize(("more", "said"), [(1, "cmdline is applied"), (2, "could not be told")])
def test_a_second_interruption_waits_and_a_third_one_abandons(
    opened: Opened, capsys: Capture, monkeypatch: pytest.MonkeyPatch, more: int, said: str
) -> None:
    """The way gets the time that it needs; who insists is obeyed, and told that the state is not known."""
    reached = []

    def stubborn(source: str, *, force: bool) -> Iterator[Event]:
        yield next(patch_fake.FakeBackend().apply(source, force=force))
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            for _ in range(more):
                signal.raise_signal(signal.SIGINT)
            reached.append("in order")

    monkeypatch.setattr(opened.fake, "apply", stubborn)
    opened.fake.statuses = [Status("cmdline", PatchState.APPLIED)]
    assert run(["patch", "apply", "p", *ON]) == Exit.INTERRUPTED
    assert reached == (["in order"] if more == 1 else [])
    err = capsys.readouterr().err
    assert "press Ctrl-C once more to abandon it" in err
    assert said in err


def test_a_strike_between_command_and_way_is_handed_on() -> None:
    """In the instant before the generator runs on it has not heard of the interruption: it is told."""

    class Struck(Interrupts):
        """Struck once, outside the generator."""

        def run(self, step: Callable[[], Any]) -> Any:
            """Raise at the third step."""
            self.steps = getattr(self, "steps", 0) + 1
            if self.steps == 3:
                self.count += 1
                raise KeyboardInterrupt
            return super().run(step)

    fake = patch_fake.FakeBackend()
    shown: list[Event] = []
    assert follow(fake.apply("p", force=False), shown.append, Struck(lambda _text: None), watching=False)
    assert fake.ended == ["interrupted"]
    assert [event.kind.value for event in shown] == ["started", "warning", "failed"]


# Terminals


def _on_a_terminal(*words: str, strike_at: str = "") -> tuple[int, str]:
    """Run the command with the fake on a terminal of 80 columns, and give its exit status and what it drew."""
    script = (
        "import sys, time\n"
        "import patch_fake\n"
        "from surefoot.cli import patch_show\n"
        "from surefoot.cli.main import run\n"
        "fake = patch_fake.FakeBackend(wait=lambda _seconds: time.sleep(0.15))\n"
        "patch_show.open_backend = lambda target, options: fake\n"
        "sys.exit(run(sys.argv[1:]))\n"
    )
    master, slave = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "TERM": "xterm-256color"}
    environment |= {"COLUMNS": "80", "LINES": "24", "PYTHONUTF8": "1"}
    command = [sys.executable, "-c", script, "patch", *words, "--target", "guest:demo"]
    drawn = b""
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment) as child:
        os.close(slave)
        while True:
            try:
                part = os.read(master, 65536)
            except OSError:
                break
            if not part:
                break
            drawn += part
            if strike_at and strike_at in drawn.decode(errors="replace"):
                strike_at = ""
                child.send_signal(signal.SIGINT)
    os.close(master)
    return child.returncode, drawn.decode(errors="replace")


def test_on_a_terminal_the_view_moves() -> None:
    """The bar and the blockers are drawn, the cursor comes back, the summary stays."""
    status, drawn = _on_a_terminal("apply", "p")
    assert status == Exit.WELL
    assert "tasks over" in drawn
    assert "tasks hold it up" in drawn
    assert drawn.rindex("\x1b[?25h") > drawn.rindex("\x1b[?25l")
    tail = drawn[drawn.rindex("\x1b[?25h") :]
    assert "cmdline is applied: every task runs the new code" in tail
    assert "tasks over" not in tail


def test_ctrl_c_on_a_terminal() -> None:
    """The view goes, the cursor comes back, and the state is said."""
    status, drawn = _on_a_terminal("apply", "p", strike_at="tasks hold it up")
    assert status == Exit.INTERRUPTED
    tail = drawn[drawn.rindex("\x1b[?25h") :]
    assert "interrupted: cmdline is not in force" in " ".join(tail.split())


# The way for a target


@pytest.mark.parametrize(
    ("target", "way", "can", "expected"),
    [
        ("machine", "auto", False, "machine"),
        ("live", "auto", False, "livepatch"),
        ("live", "livepatch", False, "livepatch"),
        ("guest:a", "auto", True, "livepatch"),
        ("guest:a", "auto", False, "stopped"),
        ("guest:a", "stopped", True, "stopped"),
        ("guest:", "livepatch", True, "livepatch"),
    ],
)
def test_the_way_for_a_target(
    monkeypatch: pytest.MonkeyPatch, target: str, way: Any, can: bool, expected: str
) -> None:
    """By the target, by what its kernel can do, and by what the user asks for."""
    monkeypatch.setattr(patch_backend, "_guest_can_livepatch", lambda _target, _options: can)
    assert choose_way(target, Options(way=way)) == expected


@pytest.mark.parametrize(
    ("target", "way"),
    [
        ("guest:a", "livepatch"),
        ("machine", "livepatch"),
        ("machine", "stopped"),
        ("live", "stopped"),
        ("", "auto"),
        ("guest", "auto"),
        ("Machine", "auto"),
    ],
)
def test_ways_that_do_not_exist(monkeypatch: pytest.MonkeyPatch, target: str, way: Any) -> None:
    """Each is a mistake, with a hint."""
    monkeypatch.setattr(patch_backend, "_guest_can_livepatch", lambda _target, _options: False)
    with pytest.raises(InputError) as error:
        choose_way(target, Options(way=way))
    assert error.value.hint


def test_what_a_kernel_can_do_is_read_from_its_symbols(monkeypatch: pytest.MonkeyPatch) -> None:
    """The emulated machine's kernel has no klp_enable_patch; with a symbol that it has, the answer is yes."""
    path = Path(loader.__file__).parent / "kernel" / "kernel-sframe.elf"
    assert choose_way("guest:a", Options(vmlinux=path)) == "stopped"
    monkeypatch.setattr(patch_backend, "_SYMBOL", "schedule")
    assert choose_way("guest:a", Options(vmlinux=path)) == "livepatch"


def test_a_way_is_imported_when_it_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets the target and the options as they are."""
    module = ModuleType("surefoot_way")
    fake = patch_fake.FakeBackend()
    asked: list[tuple[str, Options]] = []

    def make(target: str, options: Options) -> Backend:
        asked.append((target, options))
        return fake

    module.open_backend = make  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "surefoot_way", module)
    monkeypatch.setattr(patch_backend, "_MODULES", {"machine": "surefoot_way"})
    options = Options(seed=3)
    assert open_backend("machine", options) is fake
    assert asked == [("machine", options)]


def test_a_guest_has_a_name() -> None:
    """Or none, for the only one that runs."""
    assert guest_name("guest:a") == "a"
    assert guest_name("guest:") == ""
    with pytest.raises(InputError):
        guest_name("live")


def test_help_is_quick() -> None:
    """The help of the commands loads nothing that only a transition needs."""
    script = (
        "import sys\n"
        "from surefoot.cli.main import run\n"
        "status = run(['patch', '--help']) + run(['patch', 'apply', '--help'])\n"
        "heavy = [name for name in ('numpy', 'drgn', 'rich', 'unicorn', 'elftools') if name in sys.modules]\n"
        "ours = [name for name in sys.modules if name.startswith('surefoot.') and 'patch' in name]\n"
        "print(status, heavy, sorted(ours), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "0 [] ['surefoot.cli.patch']"
