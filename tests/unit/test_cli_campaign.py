"""`surefoot campaign`: its answer, its exit status, and that it goes on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import json_schema
from surefoot.cli import main as cli_main
from surefoot.cli.exits import Exit
from surefoot.machine import campaign as campaign_module

WORDS = ["--quiet", "campaign", "--boundaries", "4000", "--tracing", "none", "--processes", "1"]


def test_the_answer_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Every walker has a line in every table, and the hybrid walk is never wrong."""
    assert cli_main.run(WORDS) == Exit.WELL
    out = capsys.readouterr().out
    assert out.startswith("4,000 boundaries at ")
    for name in ("fp-first", "lr-first", "fp-reliable", "sframe", "hybrid"):
        assert out.count(f"  {name} ") == 11


def test_the_answer_as_json_and_its_state(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The contract's keys are there; a finished job is not run again."""
    state = str(tmp_path / "state.json")
    assert cli_main.run([*WORDS, "--json", "--state", state]) == Exit.WELL
    first: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert json_schema.findings(json_schema.load("campaign-1.json"), first) == []
    assert first["boundaries"] == 4_000
    assert first["addresses"] > 500
    for counts in first["walkers"].values():
        assert counts["tried"] == counts["exact"] + counts["refused"] + counts["wrong_reliable"]
    monkeypatch.setattr(campaign_module, "run_job", lambda *_words: pytest.fail("run again"))
    assert cli_main.run([*WORDS, "--json", "--state", state]) == Exit.WELL
    assert json.loads(capsys.readouterr().out) == first


def test_a_wrong_verdict_is_status_one(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The command says no when the hybrid walk was wrong anywhere."""

    def run_job(*_words: object) -> campaign_module.Outcome:
        found = campaign_module.Outcome()
        found.tallies["outside/0/hybrid/leaf"] = campaign_module.Tally({"tried": 2, "exact": 1, "wrong_reliable": 1})
        return found

    monkeypatch.setattr(campaign_module, "run_job", run_job)
    assert cli_main.run([*WORDS, "--mode", "hybrid"]) == Exit.NO
    assert "hybrid" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text", ["{}", "nothing", '{"state": "surefoot-campaign/1", "modes": ["hybrid"], "jobs": {}}']
)
def test_a_foreign_state_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    """A file of something else, or of other walkers, is not overwritten."""
    state = tmp_path / "state.json"
    state.write_text(text, encoding="utf-8")
    assert cli_main.run([*WORDS, "--state", str(state)]) == Exit.BAD
    assert "campaign" in capsys.readouterr().err
    assert state.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("sites", ["0", "-1", "some"])
def test_sites_are_every_or_a_number(sites: str) -> None:
    """Anything else is a mistake on the command line."""
    assert cli_main.run([*WORDS, "--sites", sites]) == Exit.BAD
