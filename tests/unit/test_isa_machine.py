"""The claimed effects against a processor: what single words do to registers and memory under emulation."""

from __future__ import annotations

import numpy as np
import pytest

import isa_machine
from surefoot.dtypes import Insn
from surefoot.isa.effects import Effects, effects

EXACT = {
    "sp KEEP",
    "sp ADD",
    "sp FROM_FP",
    "fp KEEP",
    "fp ADD",
    "fp FROM_SP",
    "fp LOAD",
    "lr KEEP",
    "lr LOAD",
    "lr CALL",
    "lr FROM_REG",
    "store SP",
    "store FP",
    "fp_at",
    "lr_at",
    "next",
    "target",
}
"""Claims that a run must have confirmed at least once."""


def run(count: int, seed: int) -> isa_machine.Outcome:
    return isa_machine.Machine(seed).run(isa_machine.random_words(count, seed))


def test_random_words_do_what_is_claimed() -> None:
    """No contradiction, and every kind of exact claim was put to the test."""
    outcome = run(8_000, 1)
    assert outcome.wrong == []
    assert set(outcome.checked) >= EXACT
    assert outcome.ran > 3_000


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 10))
def test_many_random_words_do_what_is_claimed(seed: int) -> None:
    outcome = run(60_000, seed)
    assert outcome.wrong == []
    assert outcome.ran > 20_000


def test_a_wrong_claim_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Claims shifted by one word are contradicted: the check is able to fail."""

    def shifted(words: Insn) -> Effects:
        return effects(np.roll(words, 1))

    monkeypatch.setattr(isa_machine, "effects", shifted)
    assert len(run(500, 1).wrong) > 100
