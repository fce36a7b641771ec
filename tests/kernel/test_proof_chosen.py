"""Proofs of single functions of a real kernel: what they say is what the proof of the whole image says."""

from __future__ import annotations

import random
from typing import Final

import numpy as np
import pytest

from surefoot.image.files import open_image
from surefoot.image.rules import load_rules
from surefoot.isa.effects import Flow
from surefoot.proof.chosen import prove_functions
from surefoot.proof.compact import keep
from surefoot.proof.entries import with_relatives
from surefoot.proof.graph import build_graph
from surefoot.proof.inputs import code_of
from surefoot.proof.jumps import resolve_jumps
from surefoot.proof.prove import Outline, Proof, prove
from surefoot.proof.verdicts import Verdict
from surefoot.targets.vm import kernels

FUNCTIONS: Final = 300
TOGETHER: Final = 6
pytestmark = [pytest.mark.kernel, pytest.mark.needs("apt-get", "dpkg")]


@pytest.fixture(scope="module")
def proved() -> tuple[Outline, Proof]:
    """What is known of a stock kernel, and the proof of all of it."""
    image = open_image(kernels.fetch().vmlinux)
    rules, code = load_rules(image).with_abi_defaults().for_lookup(), code_of(image)
    outline = Outline.of(rules, image.text.ranges, code, acts=False)
    return outline, prove(rules, image.text.ranges, code)


def differences(proved: tuple[Outline, Proof], funcs: list[int]) -> int:
    """Prove some functions by themselves; count the instructions that are judged otherwise than among all."""
    outline, whole = proved
    alone = prove_functions(outline, np.array(funcs, dtype=np.int64))
    chosen = np.zeros(len(whole.rules.functions), dtype=np.bool_)
    chosen[funcs] = True
    expected = keep(whole, chosen)
    assert int((expected.end - expected.start).sum()) == int((alone.end - alone.start).sum()) > 0
    addrs = np.concatenate(
        [np.arange(low, high, 4, dtype=np.uint64) for low, high in zip(expected.start, expected.end, strict=True)]
    )
    reasons = expected.open[expected.run(addrs)] != alone.open[alone.run(addrs)]
    return int(np.count_nonzero(reasons | (expected.verdict(addrs) != alone.verdict(addrs))))


def test_every_function_that_is_not_proven_is_judged_the_same(proved: tuple[Outline, Proof]) -> None:
    """All of them: refuted, unproven, with jumps, with parts that the compiler moved away."""
    bad = np.flatnonzero(proved[1].by_function() != Verdict.PROVEN).tolist()
    assert len(bad) > 100
    assert differences(proved, bad) == 0


def test_few_functions_at_a_time_are_judged_the_same(proved: tuple[Outline, Proof]) -> None:
    """As a walk asks for them: half of them good, half with something that is not proven."""
    rng = random.Random(11)
    bad = np.flatnonzero(proved[1].by_function() != Verdict.PROVEN).tolist()
    for _ in range(FUNCTIONS // TOGETHER):
        some = rng.sample(range(len(proved[1].rules.functions)), TOGETHER // 2)
        assert differences(proved, sorted({*some, *rng.sample(bad, TOGETHER // 2)})) == 0


def test_no_table_leads_into_the_middle_of_another_function(proved: tuple[Outline, Proof]) -> None:
    """What proofs of single functions take on trust: wherever such a jump goes, branches tie the two together."""
    outline, _ = proved
    domain, entries, found = outline.domain, outline.entries, outline.found
    jumping = np.zeros(domain.usable.size, dtype=np.bool_)
    jumping[domain.func(found.leaves[found.flow[found.leaves] == Flow.JUMP_REG])] = True
    funcs = np.flatnonzero(with_relatives(jumping, entries.ties) & domain.usable)
    faithful = np.zeros(jumping.shape, dtype=np.bool_)
    graph = build_graph(domain, found, entries, outline.code, outline.on, funcs, faithful)
    tables, _ = resolve_jumps(graph, entries, outline.code)
    goal = domain.find(tables.target)
    inside = (goal >= 0) & ~domain.is_start(goal)
    pairs = np.stack([domain.func(tables.site[inside]), domain.func(goal[inside])], axis=1)
    assert len(pairs) > 1000
    ties = {tuple(pair) for pair in np.sort(entries.ties, axis=1).tolist()}
    crossing = np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1).tolist()
    assert [pair for pair in crossing if tuple(pair) not in ties] == []
