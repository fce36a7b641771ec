"""The classification of A64 words against capstone: allocation, flow, registers, frame, stores."""

from __future__ import annotations

import numpy as np
import pytest

import isa_compare
import isa_unknown
from surefoot.isa.effects import Flow, FpEffect, effects


def test_a_sample_of_the_encoding_space_agrees() -> None:
    """Every 61st pair of upper half and opcode bits; what differs is in a table with its reason."""
    result = isa_compare.compare(isa_compare.sweep(61))
    assert result.wrong == []
    assert result.compared > 25_000


@pytest.mark.slow
def test_the_encoding_space_agrees() -> None:
    """Every value of the upper half with every value of bits 15:10, register fields of 29, 30 and 31 in turn."""
    result = isa_compare.compare(isa_compare.sweep(1))
    assert result.wrong == []
    assert result.compared > 1_000_000
    reasons = {reason for _, _, reason in isa_unknown.CAPSTONE_REFUSES + isa_unknown.CAPSTONE_ACCEPTS}
    reasons |= {reason for _, reason in isa_unknown.UNPREDICTABLE}
    assert reasons <= set(result.excused), "a reason is no longer needed"


def test_a_wrong_claim_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison is able to fail: claims about the next word are found to be wrong."""
    words = np.array([0x9100_43FF, 0xA9BF_7BFD, 0xAA01_03E2, 0xD65F_03C0], dtype=np.uint32)
    monkeypatch.setattr(isa_compare, "effects", lambda words: effects(np.roll(words, 1)))
    kinds = {line.split(":")[0] for line in isa_compare.compare(words).wrong}
    assert kinds >= {"sp", "flow", "writes", "store"}


def test_overlapping_registers_are_unknown() -> None:
    """What capstone refuses as CONSTRAINED UNPREDICTABLE is OTHER, never a claim."""
    words = np.array([0xA8C1_7BBD, 0xA9BF_77BD, 0xF840_87BD, 0xF81F_0FBD, 0xA940_77FD], dtype=np.uint32)
    got = effects(words)
    assert got.fp.tolist() == [FpEffect.OTHER] * 5
    assert got.fp_at[[1, 3]].tolist() == [-1, -1]
    assert (got.flow == Flow.NEXT).all()
