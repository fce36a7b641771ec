"""Proofs of an image, kept by build-id and placed where the kernel runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from surefoot.image.files import open_image
from surefoot.proof.inputs import code_of
from surefoot.proof.prove import prove
from surefoot.proof.verdicts import Verdict
from surefoot.targets import proofs
from surefoot.targets.cache import TableCache
from surefoot.targets.imagetables import image_rules
from surefoot.targets.proofs import load_proof

KERNEL = Path(__file__).parents[2] / "src" / "surefoot" / "machine" / "kernel"
BIAS = 0x1234_0000


@pytest.fixture(scope="module")
def elf() -> Path:
    """The emulated machine's kernel: a linked image with rules, patch sites and an exception table."""
    return min(KERNEL.glob("*.elf"))


def test_verdicts_are_those_of_the_proof_at_run_time_addresses(elf: Path) -> None:
    image = open_image(elf)
    rules = image_rules(image)
    assert rules is not None
    whole = prove(rules, image.text.ranges, code_of(image))
    placed = load_proof(image, rules, BIAS, None)
    addr = np.concatenate([base + 4 * np.arange(words.size, dtype=np.uint64) for base, words in image.text.ranges])
    linked = whole.verdict(addr)
    under = linked != Verdict.NO_METADATA
    assert np.array_equal(placed.verdict(addr + np.uint64(BIAS))[under], linked[under])
    assert (linked == Verdict.PROVEN).sum() > 1000


def test_what_the_image_does_not_speak_of_is_unproven(elf: Path) -> None:
    """Modules, addresses beside the image, and addresses in mid-instruction have no verdict."""
    image = open_image(elf)
    rules = image_rules(image)
    assert rules is not None
    placed = load_proof(image, rules, BIAS, None)
    start = int(rules.functions.start[0]) + BIAS
    odd = np.array([0, 0xFFFF_9000_0000_0000, start + 2], dtype=np.uint64)
    assert placed.verdict(odd).tolist() == [Verdict.UNPROVEN] * 3


def test_a_kept_proof_is_used_and_a_misfit_is_made_anew(
    elf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, cache = open_image(elf), TableCache(tmp_path)
    rules = image_rules(image)
    assert rules is not None
    first = load_proof(image, rules, 0, cache)
    with monkeypatch.context() as patch:
        patch.setattr(proofs, "prove", None)  # a second proof would fail
        again = load_proof(image, rules, 0, cache)
    assert np.array_equal(first.verdicts, again.verdicts)
    fewer = rules.take_rows(np.arange(len(rules) - 1, dtype=np.int64))
    other = load_proof(image, fewer.for_lookup(), 0, cache)
    assert other.row_first.size < first.row_first.size
