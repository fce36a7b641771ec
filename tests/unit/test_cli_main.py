"""The `surefoot` command itself: start-up cost, global options, and what each kind of trouble ends in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from types import ModuleType

import click
import numpy as np
import pytest

from surefoot.cli import main as cli_main
from surefoot.cli.console import Globals, global_options, pass_globals, print_json, progress
from surefoot.cli.exits import Exit
from surefoot.errors import MemoryFault, SurefootError, Truncated

HEAVY = ("drgn", "unicorn", "numpy", "capstone", "elftools", "qemu.qmp", "rich")


def test_help_imports_nothing_heavy() -> None:
    """`surefoot --help` loads neither drgn nor unicorn nor numpy, nor any subcommand."""
    script = (
        "import sys\n"
        "from surefoot.cli.main import run\n"
        "status = run(['--help'])\n"
        f"heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "ours = [name for name in sys.modules if name.startswith('surefoot.')]\n"
        "print(status, heavy, sorted(ours), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    allowed = ["surefoot.cli", "surefoot.cli.console", "surefoot.cli.exits", "surefoot.cli.main", "surefoot.errors"]
    assert done.stderr.strip() == f"0 [] {allowed}"
    assert "Commands:" in done.stdout


def test_help_answers_in_time() -> None:
    """The best of five runs of `surefoot --help` stays under 0.3 s of processor time."""

    def once() -> float:
        before = os.times()
        subprocess.run([sys.executable, "-m", "surefoot.cli.main", "--help"], capture_output=True, check=True)
        after = os.times()
        return (after.children_user - before.children_user) + (after.children_system - before.children_system)

    begin = time.monotonic()
    assert min(once() for _ in range(5)) < 0.3, f"five runs took {time.monotonic() - begin:.2f} s"


@pytest.mark.parametrize("name", list(cli_main.COMMANDS))
def test_every_listed_command_exists(name: str) -> None:
    """Each entry of the table names a click command, and its summary is the first sentence of the command's help."""
    command = cli_main.cli.get_command(click.Context(cli_main.cli), name)
    assert command is not None
    assert command.help is not None
    first = " ".join(command.help.split("\n\n")[0].split())
    assert first.startswith(cli_main.COMMANDS[name].summary)


@pytest.mark.parametrize("name", list(cli_main.COMMANDS))
def test_every_command_takes_the_global_options(name: str) -> None:
    """--json, --quiet and --color stand on every command and on every command of a group."""

    def leaves(command: click.Command) -> Iterator[click.Command]:
        if isinstance(command, click.Group):
            for sub in command.commands.values():
                yield from leaves(sub)
        else:
            yield command

    command = cli_main.cli.get_command(click.Context(cli_main.cli), name)
    assert command is not None
    for leaf in leaves(command):
        assert {"json", "quiet", "color"} <= {param.name for param in leaf.params}, leaf.name


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Globals], object]], None]:
    """Give a function that makes `surefoot probe` run a body."""

    def install(body: Callable[[Globals], object]) -> None:
        @click.command()
        @global_options
        @pass_globals
        def probe(held: Globals) -> object:
            """Run the body."""
            return body(held)

        module = ModuleType("surefoot_probe")
        module.probe = probe  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "surefoot_probe", module)
        monkeypatch.setattr(cli_main, "COMMANDS", {"probe": cli_main.Entry("surefoot_probe", "Run the body.")})

    return install


def _raise(error: BaseException) -> Callable[[Globals], object]:
    def body(held: Globals) -> object:
        del held
        raise error

    return body


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("probe", Globals()),
        ("--json probe", Globals(json=True)),
        ("probe --json", Globals(json=True)),
        ("--quiet probe --color never", Globals(quiet=True, color="never")),
        ("--color always probe --color never", Globals(color="never")),
        ("--color always probe", Globals(color="always")),
    ],
)
def test_global_options_hold_on_both_sides(
    probe: Callable[[Callable[[Globals], object]], None], words: str, expected: Globals
) -> None:
    """A global option means the same before and after the subcommand; the later one wins."""
    seen: list[Globals] = []
    probe(seen.append)
    assert cli_main.run(words.split()) == Exit.WELL
    assert seen == [expected]


@pytest.mark.parametrize(
    ("error", "status", "stderr"),
    [
        (SurefootError("not there"), Exit.BAD, "surefoot: not there\n"),
        (
            SurefootError("not there", hint="try another"),
            Exit.BAD,
            "surefoot: not there\nhint: try another\n",
        ),
        (SurefootError("two\nlines"), Exit.BAD, "surefoot: two lines\n"),
        (
            Truncated("ends early", file="a.vmcore", section=".notes", offset=16),
            Exit.BAD,
            "surefoot: a.vmcore: .notes+0x10: ends early\n",
        ),
        (MemoryFault(0x1000, 8), Exit.BAD, "surefoot: cannot access 8 bytes at 0x1000\n"),
        (
            FileNotFoundError(2, "No such file or directory", "x"),
            Exit.BAD,
            "surefoot: x: No such file or directory\n",
        ),
        (click.BadParameter("wrong"), Exit.BAD, "wrong"),
        (KeyboardInterrupt(), Exit.INTERRUPTED, ""),
        (click.exceptions.Exit(1), Exit.NO, ""),
        (ZeroDivisionError("ours"), Exit.FAULT, "ZeroDivisionError: ours"),
    ],
)
def test_errors_become_statuses(
    probe: Callable[[Callable[[Globals], object]], None],
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: Exit,
    stderr: str,
) -> None:
    """Each kind of trouble has its status, stdout stays empty, and only a fault of ours shows a traceback."""
    probe(_raise(error))
    assert cli_main.run(["probe"]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert stderr in err
    assert ("Traceback" in err) == (status is Exit.FAULT)


def test_a_returned_status_is_the_exit_status(probe: Callable[[Callable[[Globals], object]], None]) -> None:
    """A command may return its status instead of calling ctx.exit()."""
    probe(lambda _held: Exit.NO)
    assert cli_main.run(["probe"]) == Exit.NO


@pytest.mark.parametrize("words", [["--nothing"], ["nosuch"], ["--color", "pink"]])
def test_usage_errors_are_status_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong words on the command line are status 2 and are explained on stderr."""
    assert cli_main.run(words) == Exit.BAD
    assert "Error:" in capsys.readouterr().err


def test_no_words_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    """`surefoot` alone shows the list of commands and is a usage error."""
    assert cli_main.run([]) == Exit.BAD
    assert "Commands:" in capsys.readouterr().err


def test_a_closed_pipe_is_quiet() -> None:
    """`surefoot --help | true` prints nothing on stderr, whenever the reader goes away."""
    script = (
        "import os, sys\n"
        "from surefoot.cli import main\n"
        "reader, writer = os.pipe()\n"
        "os.dup2(writer, 1)\n"
        "os.close(reader), os.close(writer)\n"
        "sys.argv = ['surefoot', '--help']\n"
        "main.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (Exit.PIPE_CLOSED, "")


def test_json_keeps_numbers_exact(capsys: pytest.CaptureFixture[str]) -> None:
    """Numpy numbers and arrays become JSON numbers, 64-bit addresses without loss, and odd bytes stay printable."""
    print_json({"pc": np.uint64(0xFFFF800080010000), "rows": np.arange(3), "ok": np.True_, "comm": "\udcff"})
    text = capsys.readouterr().out
    assert text.isascii()
    assert json.loads(text) == {"pc": 0xFFFF800080010000, "rows": [0, 1, 2], "ok": True, "comm": "\udcff"}


@pytest.mark.parametrize(("value", "error"), [(float("nan"), ValueError), (object(), TypeError)])
def test_json_refuses_what_json_cannot_say(value: object, error: type[Exception]) -> None:
    """NaN and arbitrary objects are refused, never printed as something else."""
    with pytest.raises(error):
        print_json({"value": value})


def test_progress_is_silent_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is drawn where stderr is not a terminal."""
    with progress(Globals(), "reading", total=2) as advance:
        advance(1)
    assert capsys.readouterr() == ("", "")


def test_consoles_obey_color(capsys: pytest.CaptureFixture[str]) -> None:
    """Never prints no escape sequence, always does, and brackets are text and not markup."""
    Globals(color="never").stdout().print("[ext4]", style="bold red")
    assert capsys.readouterr().out == "[ext4]\n"
    Globals(color="always").stdout().print("[ext4]", style="bold red")
    out = capsys.readouterr().out
    assert out.startswith("\x1b[")
    assert "[ext4]" in out


def test_notes_are_quiet_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    """A remark goes to stderr, and nowhere under --quiet."""
    Globals(quiet=True).note("hidden")
    Globals().note("shown")
    assert capsys.readouterr() == ("", "shown\n")
