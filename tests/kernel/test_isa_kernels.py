"""Every instruction of two real kernels, its classification held against capstone, and the time that it takes."""

from __future__ import annotations

import time
from typing import Final

import numpy as np
import pytest

import isa_compare
from surefoot.dtypes import Insn
from surefoot.image.files import open_image
from surefoot.isa.effects import Flow, effects
from surefoot.targets.vm import kernels
from surefoot.targets.vm.apt import DEFAULT_SUITES

pytestmark = [pytest.mark.kernel, pytest.mark.needs("apt-get", "dpkg")]

OLDER: Final = "6.12"
LIMIT_S: Final = 0.6
"""CPU time for 4.6 million words on a machine of 2026."""


@pytest.fixture(scope="module", params=["", OLDER], ids=["newest", OLDER])
def text(request: pytest.FixtureRequest) -> Insn:
    """All words of the executable sections."""
    suites = ("trixie",) if request.param else DEFAULT_SUITES
    image = open_image(kernels.fetch(request.param, suites=suites).vmlinux)
    return np.concatenate([np.ascontiguousarray(words) for words in image.text.words])


def test_every_instruction_agrees_with_capstone(text: Insn) -> None:
    """Each distinct word of the text; words in it that are data are unknown to both, or excused."""
    result = isa_compare.compare(np.unique(text))
    assert result.wrong == []
    assert result.compared > 300_000


def test_hardly_a_word_is_unknown(text: Insn) -> None:
    """Padding and literals apart, the tables know what kernels are made of."""
    unknown = effects(text).flow == Flow.UNDEFINED
    assert (unknown & (text != 0)).mean() < 0.001


def test_classification_is_fast(text: Insn) -> None:
    """Best of three, scaled to 4.6 million words."""
    effects(text[:16])
    best = np.inf
    for _ in range(3):
        begin = time.process_time()
        effects(text)
        best = min(best, time.process_time() - begin)
    assert best * 4.6e6 / text.size < LIMIT_S
