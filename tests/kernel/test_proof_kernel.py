"""Proofs of a real kernel held against an emulated processor: no PROVEN row is false, every REFUTED one that runs is.

Five thousand functions, chosen by seed, run along random branches; so do all functions with a refuted row, and all
that count as never returning. Then rules and words are damaged, one in each function at a time.
"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from emulate import Emulator, Trace
from proof_mutations import mutate_rules, mutate_words
from proof_oracle import false_claims, judge, slots_of, world_of
from surefoot.image.binary import Image
from surefoot.image.files import open_image
from surefoot.image.rules import load_rules
from surefoot.metadata.rules import RuleTable
from surefoot.proof.domain import Code
from surefoot.proof.inputs import code_of
from surefoot.proof.prove import Open, Proof, prove, summarise
from surefoot.proof.verdicts import Verdict
from surefoot.targets.vm import kernels

BENCH: Final = Path(__file__).parent.parent.parent / "benchmarks" / "bench_proof.py"
FUNCTIONS: Final = 5_000
RULE_MUTATIONS: Final = 20_000
NEAR: Final = (0, -16, -8, 8, 16)
LIKELY: Final = tuple(range(-40, 0, 8))
pytestmark = [pytest.mark.kernel, pytest.mark.needs("apt-get", "dpkg")]


@pytest.fixture(scope="module")
def image() -> Image:
    return open_image(kernels.fetch().vmlinux)


@pytest.fixture(scope="module")
def code(image: Image) -> Code:
    return code_of(image)


@pytest.fixture(scope="module")
def proof(image: Image, code: Code) -> Proof:
    rules = load_rules(image).with_abi_defaults().for_lookup()
    return prove(rules, image.text.ranges, code)


@pytest.fixture(scope="module")
def emulator(image: Image, proof: Proof) -> Emulator:
    return Emulator(world_of(image, proof.rules.functions.start[proof.noreturn]), 1)


def chosen(proof: Proof, seed: int, count: int) -> list[int]:
    """Choose functions."""
    return sorted(random.Random(seed).sample(range(len(proof.rules.functions)), count))


def test_nearly_all_is_decided(proof: Proof) -> None:
    """At most one instruction in two hundred is unproven, each for a reason."""
    counts = summarise(proof.verdicts)
    assert counts[Verdict.UNPROVEN] <= 0.005 * proof.verdicts.size
    assert np.array_equal(proof.verdicts == Verdict.PROVEN, proof.open == Open.NONE)
    assert counts[Verdict.PROVEN] >= 0.99 * proof.verdicts.size


def test_no_proven_row_is_false(proof: Proof, emulator: Emulator) -> None:
    found = judge(emulator, proof, chosen(proof, 7, FUNCTIONS), 24, 120)
    assert found.functions == FUNCTIONS
    assert len(found.reached) > 200_000
    assert sorted(map(hex, found.contradicted)) == []
    assert sorted(map(hex, found.left_wrong)) == []


def test_refuted_rows_are_false(proof: Proof, emulator: Emulator) -> None:
    """Every refuted address that runs is seen to be false in some run, and nearly all run."""
    at = np.flatnonzero(proof.verdicts == Verdict.REFUTED)
    funcs = np.unique(np.searchsorted(proof.first, at, side="right") - 1).tolist()
    found = judge(emulator, proof, funcs, 60, 200)
    reached = np.array(sorted(found.reached), dtype=np.uint64)
    refuted = set(reached[proof.verdict(reached) == Verdict.REFUTED].tolist())
    assert sorted(map(hex, refuted - found.confirmed)) == []
    assert len(refuted) >= 0.95 * at.size
    assert sorted(map(hex, found.contradicted)) == []


def test_functions_that_never_return_do_not(proof: Proof, emulator: Emulator) -> None:
    found = judge(emulator, proof, np.flatnonzero(proof.noreturn).tolist(), 60, 200)
    assert found.functions > 100
    assert sorted(map(hex, found.came_back)) == []


def recorded(emulator: Emulator, proof: Proof, funcs: list[int]) -> list[Trace]:
    """Run functions; words are recorded that damaged rows may name."""
    index, traces = proof.rules.functions, []
    for func in funcs:
        slots = {slot + near for slot in slots_of(proof.rules, func) for near in NEAR} | set(LIKELY)
        places = tuple(sorted(slot for slot in slots if slot % 8 == 0))
        traces.append(emulator.run(int(index.start[func]), int(index.end[func]), places, 9, 60))
    return traces


def missed(proof: Proof, rules: RuleTable, traces: list[Trace]) -> tuple[int, list[str]]:
    """Count functions with a row that was seen to be false; give such addresses that are PROVEN all the same."""
    changed, wrong = 0, list[str]()
    for trace in traces:
        addr = np.unique(trace.addr[false_claims(trace, rules)])
        changed += addr.size > 0
        wrong += map(hex, addr[proof.verdict(addr) == Verdict.PROVEN].tolist())
    return changed, wrong


def test_damaged_rules_are_not_proven(image: Image, code: Code, proof: Proof, emulator: Emulator) -> None:
    """Twenty thousand rows are damaged, and more than half of the damage shows."""
    funcs = chosen(proof, 8, FUNCTIONS)
    traces = recorded(emulator, proof, funcs)
    rng = np.random.default_rng(8)
    total = 0
    for _ in range(RULE_MUTATIONS // FUNCTIONS):
        damaged = mutate_rules(proof.rules, funcs, rng)
        changed, wrong = missed(prove(damaged, image.text.ranges, code), damaged, traces)
        assert wrong == []
        total += changed
    assert total >= RULE_MUTATIONS // 2


def test_damaged_code_is_not_proven(image: Image, code: Code, proof: Proof) -> None:
    """Five thousand words are damaged, in as many functions."""
    index, funcs = proof.rules.functions, np.array(chosen(proof, 9, FUNCTIONS))
    rng = np.random.default_rng(9)
    ranges = []
    for addr, words in image.text.ranges:
        inside = funcs[
            (index.start[funcs] >= np.uint64(addr)) & (index.end[funcs] <= np.uint64(addr + 4 * words.size))
        ]
        starts = ((index.start[inside] - np.uint64(addr)) >> np.uint64(2)).tolist()
        ends = ((index.end[inside] - np.uint64(addr)) >> np.uint64(2)).tolist()
        ranges.append((addr, mutate_words(words, list(zip(starts, ends, strict=True)), rng)))
    damaged = prove(proof.rules, ranges, code)
    world = world_of(image, index.start[damaged.noreturn])
    world.ranges = ranges
    found = judge(Emulator(world, 9), damaged, funcs.tolist(), 24, 60)
    assert sorted(map(hex, found.contradicted)) == []
    assert sorted(map(hex, found.left_wrong)) == []
    assert len(found.confirmed) > 1_000


@pytest.mark.needs("aarch64-linux-gnu-objdump")
def test_it_takes_less_processor_time_than_disassembling() -> None:
    """The goals of benchmarks/bench_proof.py."""
    words = [sys.executable, str(BENCH), str(kernels.fetch().vmlinux)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
