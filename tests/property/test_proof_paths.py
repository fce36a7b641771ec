"""Laws of proofs: the fast path claims no more than the exact analysis, and order and company do not matter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proof_mutations import mutate_rules, mutate_words
from proof_programs import program
from surefoot.dtypes import Insn
from surefoot.metadata.rules import RuleTable
from surefoot.proof import prove as module
from surefoot.proof.domain import Code, Domain
from surefoot.proof.edges import check_edges
from surefoot.proof.entries import find_entries
from surefoot.proof.exact import analyse
from surefoot.proof.graph import Tables, build_graph
from surefoot.proof.machine import Fit
from surefoot.proof.noreturn import find_noreturn, without_return
from surefoot.proof.prove import prove
from surefoot.proof.survey import survey
from surefoot.proof.verdicts import Verdict

Case = tuple[RuleTable, list[tuple[int, Insn]]]


def damaged(seed: int) -> Case:
    """A program with damaged rows and words in some functions."""
    asm = program(seed, 8)
    rules, code = asm.rules(), asm.code()
    rng = np.random.default_rng(seed)
    some = rng.choice(8, int(rng.integers(5)), replace=False).tolist()
    spans = [
        ((int(rules.functions.start[func]) - asm.base) // 4, (int(rules.functions.end[func]) - asm.base) // 4)
        for func in rng.choice(8, int(rng.integers(3)), replace=False).tolist()
    ]
    return mutate_rules(rules, some, rng), [(asm.base, mutate_words(code, spans, rng))]


@given(st.integers(0, 10_000))
def test_the_fast_path_claims_no_more_than_the_exact_analysis(seed: int) -> None:
    """Every function that the fast path would let pass is analysed exactly: its rows hold wherever control gets."""
    rules, ranges = damaged(seed)
    code = Code()
    domain = Domain.of(rules, ranges)
    found = survey(domain, code)
    noreturn = find_noreturn(domain, found, code)
    on = without_return(domain, found, noreturn)
    entries = find_entries(domain, found, code, ranges)
    failed = check_edges(domain, found, entries, code, on)
    proof = prove(rules, ranges)
    faithless = np.zeros(failed.shape, dtype=np.bool_)
    graph = build_graph(domain, found, entries, code, on, np.arange(failed.size), faithless)
    nothing = np.zeros(0, dtype=np.int64)
    exact = analyse(graph, entries, noreturn, nothing, Tables(nothing, nothing.astype(np.uint64)))
    fast = ~proof.slow[graph.func]
    assert bool(np.all(exact.fit[fast & exact.reached] == Fit.YES))
    assert bool(np.all(exact.reached[fast]))
    assert not bool(np.any(exact.exits[fast]))
    assert bool(np.all(proof.slow[failed]))


@given(st.integers(0, 10_000))
def test_proving_everything_slowly_changes_no_verdict(seed: int) -> None:
    """With the fast path switched off, the same is proven, refuted and left open."""
    rules, ranges = damaged(seed)
    quick = prove(rules, ranges)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "check_edges", lambda domain, *_: np.ones(domain.usable.size, dtype=np.bool_))
        slow = prove(rules, ranges)
    assert quick.verdicts.tolist() == slow.verdicts.tolist()
    assert quick.open.tolist() == slow.open.tolist()


@given(st.integers(0, 10_000), st.integers(1, 60))
def test_cutting_the_text_into_ranges_changes_nothing(seed: int, at: int) -> None:
    """Ranges may come in any number and order, as long as no function is cut."""
    rules, ranges = damaged(seed)
    ((base, words),) = ranges
    cut = (int(rules.functions.start[at % len(rules.functions)]) - base) // 4
    parts = [(base + 4 * cut, words[cut:]), (base, words[:cut])]
    assert prove(rules, parts).verdicts.tolist() == prove(rules, ranges).verdicts.tolist()


@given(st.integers(0, 10_000))
def test_the_same_code_elsewhere_has_the_same_verdicts(seed: int) -> None:
    rules, ranges = damaged(seed)
    bias = 0x7_0000_0000
    moved = [(addr + bias, words) for addr, words in ranges]
    assert prove(rules.shifted(bias), moved).verdicts.tolist() == prove(rules, ranges).verdicts.tolist()


@given(st.integers(0, 10_000))
def test_a_verdict_has_a_reason(seed: int) -> None:
    rules, ranges = damaged(seed)
    proof = prove(rules, ranges)
    assert np.array_equal(proof.verdicts == Verdict.PROVEN, proof.open == module.Open.NONE)
    assert np.array_equal(proof.verdicts == Verdict.REFUTED, proof.open == module.Open.CONTRADICTED)
