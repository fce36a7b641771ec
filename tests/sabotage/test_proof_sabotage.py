"""Damaged rules and damaged code: nothing stays PROVEN where a run saw that the row is false.

The truth is what an emulated processor did; the prover has no part in it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pytest

from a64 import Asm
from emulate import Emulator, Trace, World
from proof_mutations import mutate_rules, mutate_words
from proof_oracle import false_claims, slots_of
from proof_programs import program
from surefoot.metadata.rules import RuleTable
from surefoot.proof.prove import Proof, prove
from surefoot.proof.verdicts import Verdict

FUNCTIONS: Final = 60
SLOTS: Final = tuple(range(-256, 24, 8))


def traces(emulator: Emulator, rules: RuleTable, runs: int) -> list[Trace]:
    """Run every function; all words of its frame are recorded, whatever a damaged row may name."""
    index = rules.functions
    spans = zip(index.start.tolist(), index.end.tolist(), strict=True)
    return [emulator.run(start, end, SLOTS, runs, 60) for start, end in spans]


def missed(proof: Proof, seen: list[Trace]) -> tuple[int, int]:
    """Count functions with a row that was seen to be false, and addresses of these that are PROVEN."""
    changed = wrong_proofs = 0
    for trace in seen:
        wrong = trace.addr[false_claims(trace, proof.rules)]
        changed += wrong.size > 0
        wrong_proofs += int(np.count_nonzero(proof.verdict(np.unique(wrong)) == Verdict.PROVEN))
    return changed, wrong_proofs


@pytest.fixture(scope="module")
def asm() -> Asm:
    return program(1, FUNCTIONS)


def test_the_programs_are_proven_and_the_runs_agree(asm: Asm) -> None:
    rules = asm.rules()
    proof = prove(rules, [(asm.base, asm.code())])
    assert np.count_nonzero(proof.verdicts != Verdict.PROVEN) <= 0.03 * proof.verdicts.size  # behind a RET
    seen = traces(Emulator(World([(asm.base, asm.code())]), 1), rules, 12)
    assert missed(proof, seen) == (0, 0)
    reached = np.unique(np.concatenate([trace.addr for trace in seen]))
    assert reached.size >= 0.9 * proof.verdicts.size


def test_damaged_rules_are_not_proven(asm: Asm) -> None:
    """Each round damages one row of every function."""
    rules, code = asm.rules(), asm.code()
    seen = traces(Emulator(World([(asm.base, code)]), 2), rules, 12)
    rng = np.random.default_rng(3)
    total = 0
    for _ in range(20):
        damaged = mutate_rules(rules, range(len(rules.functions)), rng)
        changed, wrong = missed(prove(damaged, [(asm.base, code)]), seen)
        assert wrong == 0
        total += changed
    assert total >= 10 * FUNCTIONS


def test_damaged_code_is_not_proven(asm: Asm) -> None:
    """Each round damages one word of every function."""
    rules, code = asm.rules(), asm.code()
    index = rules.functions
    starts = ((index.start - np.uint64(asm.base)) >> np.uint64(2)).tolist()
    spans = list(zip(starts, [*starts[1:], code.size], strict=True))
    rng = np.random.default_rng(4)
    total = 0
    for number in range(5):
        damaged = mutate_words(code, spans, rng)
        proof = prove(rules, [(asm.base, damaged)])
        world = World([(asm.base, damaged)], noreturn=set(index.start[proof.noreturn].tolist()))
        changed, wrong = missed(proof, traces(Emulator(world, number), rules, 6))
        assert wrong == 0
        total += changed
    assert total >= FUNCTIONS


def test_the_oracle_sees_a_false_row(asm: Asm) -> None:
    """The check is able to fail: a proof over other rules than those that are judged."""
    rules, code = asm.rules(), asm.code()
    seen = traces(Emulator(World([(asm.base, code)]), 5), rules, 6)
    proof = prove(rules, [(asm.base, code)])
    object.__setattr__(proof, "rules", mutate_rules(rules, range(len(rules.functions)), np.random.default_rng(6)))
    changed, wrong = missed(proof, seen)
    assert changed > 0
    assert wrong > 0
    assert slots_of(rules, 0) == tuple(sorted(slots_of(rules, 0)))
