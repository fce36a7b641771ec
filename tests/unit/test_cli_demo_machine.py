"""`surefoot demo` on the emulated machine."""

from __future__ import annotations

import json
import time

import pytest

from surefoot.cli import main as cli_main
from surefoot.cli.exits import Exit

_SECONDS = 10


def test_the_demo_shows_all_parts(capsys: pytest.CaptureFixture[str]) -> None:
    """Boundaries, recovered addresses, an interrupted prologue, a patch, in seconds; every hybrid answer is right."""
    begin = time.monotonic()
    assert cli_main.run(["demo"]) == Exit.WELL
    assert time.monotonic() - begin < _SECONDS
    out, err = capsys.readouterr()
    assert "interrupted here (IRQ)" in out
    assert "return_to_handler" in out
    assert "(F)" in out
    answers = [line.split()[-1] for line in out.splitlines() if line.startswith("  hybrid ")]
    assert answers == ["right", "right"]
    assert any("MISSES" in line for line in out.splitlines() if line.startswith("  FP first"))
    assert any("INVENTS" in line for line in out.splitlines() if line.startswith("  LR first"))
    assert "surefoot demo --real" in err
    leaks = [int(line.split(": ")[1].split()[0]) for line in out.splitlines() if "secrets given away" in line]
    assert leaks[0] > 0
    assert leaks[1] == 0
    assert leaks[2] > 0
    for how in ("left the kernel", "its stack is clear", "idle", "in the middle of vault_read()"):
        assert how in out


def test_the_demo_repeats_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """The same seed prints the same text; --json gives the tasks as `surefoot stack` does."""
    texts = []
    for _ in range(2):
        assert cli_main.run(["--quiet", "demo", "--seed", "2"]) == Exit.WELL
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    assert cli_main.run(["--quiet", "--json", "demo"]) == Exit.WELL
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "surefoot.stack/1"
    assert found["summary"]["reliable"]["hybrid"] >= found["summary"]["reliable"]["fp"]
