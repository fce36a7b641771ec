"""Claims of signing on a real kernel: every damaged one is found, and nothing else is.

The oracle is the damage: rows are right as the compiler wrote them, but for those that are turned round here.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from surefoot.image.files import open_image
from surefoot.image.rules import load_rules
from surefoot.proof.inputs import code_of
from surefoot.proof.prove import Outline, Proof, prove_all
from surefoot.proof.signing import check_signing
from surefoot.proof.verdicts import Verdict
from surefoot.targets.vm import kernels

FUNCTIONS = 4_000
pytestmark = [pytest.mark.kernel, pytest.mark.needs("apt-get", "dpkg")]


@pytest.fixture(scope="module")
def outline() -> Outline:
    image = open_image(kernels.fetch().vmlinux)
    rules = load_rules(image).for_lookup().with_abi_defaults()
    return Outline.of(rules, image.text.ranges, code_of(image))


@pytest.fixture(scope="module")
def proof(outline: Outline) -> Proof:
    return prove_all(outline)


def test_nothing_is_left_open(outline: Outline, proof: Proof) -> None:
    """Each wrong claim stands behind a PACIASP that its row denies: the compiler's fault, and not one of ours."""
    found = check_signing(outline, proof)
    assert found.claimed > 3_000_000
    assert found.open.size == 0
    assert not np.any(outline.domain.rules.ra_signed[outline.domain.row[found.wrong]])
    assert set(outline.domain.words[found.wrong - 1].tolist()) <= {0xD503_233F}


def test_every_claim_that_is_turned_round_is_found(outline: Outline, proof: Proof) -> None:
    """One row in each of many functions; its proved instructions are told, all of them, and no other ones."""
    domain = outline.domain
    before = check_signing(outline, proof)
    known = np.unique(domain.func(np.concatenate([before.wrong, before.open])))
    random = np.random.default_rng(5)
    whole = np.setdiff1d(np.flatnonzero(domain.usable & (proof.by_function() == Verdict.PROVEN)), known)
    funcs = np.sort(random.choice(whole, FUNCTIONS, replace=False))
    index = domain.rules.functions
    rows = index.first_row[funcs] + random.integers(0, index.row_count[funcs])
    signed = domain.rules.ra_signed.copy()
    signed[rows] ^= True
    damaged = replace(outline, domain=replace(domain, rules=replace(domain.rules, ra_signed=signed)))
    found = check_signing(damaged, proof)
    told = np.setdiff1d(np.concatenate([found.wrong, found.open]), np.concatenate([before.wrong, before.open]))
    struck = np.isin(domain.row, rows) & (proof.verdicts == Verdict.PROVEN)
    assert np.array_equal(told, np.flatnonzero(struck))
    assert np.isin(found.wrong, told).sum() >= 0.99 * told.size
