"""Proofs of single functions: what they say is what the proof of the whole image says of them."""

from __future__ import annotations

import numpy as np
import pytest

from a64 import FP, LR, NOP, RET, SP, Asm, Row, ldp, stp, sub
from proof_mutations import mutate_rules, mutate_words
from proof_programs import program
from surefoot.dtypes import Insn
from surefoot.metadata.rules import RuleTable
from surefoot.proof.chosen import prove_functions
from surefoot.proof.compact import keep
from surefoot.proof.domain import Code
from surefoot.proof.prove import Outline, Proof, prove
from surefoot.proof.verdicts import Verdict

FRAME = Row(32, SP, -32, -24)


def one(*funcs: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(funcs, dtype=np.int64)


def compare(rules: RuleTable, base: int, words: Insn, code: Code | None = None) -> Proof:
    """Prove every function by itself and all of them together; give the whole proof."""
    ranges = [(base, words)]
    whole, outline = prove(rules, ranges, code), Outline.of(rules, ranges, code, acts=False)
    addrs = base + 4 * np.arange(-2, words.size + 2).astype(np.uint64)
    index = whole.rules.functions
    for func in range(len(index)):
        kept = prove_functions(outline, one(func))
        inside = (addrs >= index.start[func]) & (addrs < index.end[func])
        assert kept.verdict(addrs[inside]).tolist() == whole.verdict(addrs[inside]).tolist(), func
        assert set(kept.verdict(addrs[~inside]).tolist()) <= {Verdict.NO_METADATA}
    every = prove_functions(outline, np.arange(len(index)))
    assert every.verdict(addrs).tolist() == keep(whole).verdict(addrs).tolist()
    return whole


@pytest.mark.parametrize("seed", range(4))
def test_every_function_alone_is_judged_as_among_all(seed: int) -> None:
    """Right programs, and programs with damaged rows and words: refuted, unproven, tied, never reached."""
    asm = program(seed, 12)
    words, rules, rng = asm.code(), asm.rules(), np.random.default_rng(seed)
    assert set(compare(rules, asm.base, words).verdicts.tolist()) == {Verdict.PROVEN}
    index = rules.functions
    spans = [
        (int(low - asm.base) // 4, int(high - asm.base) // 4)
        for low, high in zip(index.start.tolist(), index.end.tolist(), strict=True)
    ]
    seen: set[int] = set()
    for _ in range(5):
        damaged = mutate_rules(rules, rng.choice(len(index), 3, replace=False).tolist(), rng)
        seen |= set(
            compare(
                damaged,
                asm.base,
                mutate_words(words, [spans[at] for at in rng.choice(len(spans), 3, replace=False).tolist()], rng),
            ).verdicts.tolist()
        )
    assert {Verdict.PROVEN, Verdict.REFUTED} <= seen


def careless(*, through: bool) -> Asm:
    """Give a program in which `f` calls a function that comes back with another SP, at once or by way of `via`."""
    asm = Asm()
    asm.function("f")
    asm.put(stp(FP, LR, SP, -32, "pre"))
    asm.row(FRAME)
    asm.bl("via" if through else "bad")
    asm.label("behind")
    asm.put(NOP, ldp(FP, LR, SP, 32, "post"))
    asm.row(Row())
    asm.put(RET)
    asm.function("via")
    asm.put(NOP)
    asm.b("bad")
    asm.function("bad")
    asm.put(sub(SP, SP, 16))
    asm.row(Row(16))
    asm.put(RET)
    return asm


@pytest.mark.parametrize("through", [False, True])
def test_what_a_called_function_breaks_is_known(*, through: bool) -> None:
    """Also where the call ends in it by a tail branch: nothing is proved behind the call."""
    asm = careless(through=through)
    whole = compare(asm.rules(), asm.base, asm.code())
    outline = Outline.of(asm.rules(), [(asm.base, asm.code())], acts=False)
    where = np.array([asm.labels["behind"]], dtype=np.uint64)
    assert prove_functions(outline, one(0)).verdict(where).tolist() == [Verdict.UNPROVEN]
    assert whole.verdict(where).tolist() == [Verdict.UNPROVEN]


def test_other_functions_that_branch_into_one_are_seen() -> None:
    """A branch from another function into the body, where the frame is not what it is there."""
    asm = Asm()
    asm.function("f")
    asm.put(stp(FP, LR, SP, -32, "pre"))
    asm.row(FRAME)
    asm.label("inside")
    asm.put(NOP, ldp(FP, LR, SP, 32, "post"))
    asm.row(Row())
    asm.put(RET)
    asm.function("g")
    asm.put(NOP)
    asm.b("inside")
    compare(asm.rules(), asm.base, asm.code())
    outline = Outline.of(asm.rules(), [(asm.base, asm.code())], acts=False)
    where = np.array([asm.labels["inside"]], dtype=np.uint64)
    assert prove_functions(outline, one(0)).verdict(where).tolist() != [Verdict.PROVEN]


def test_no_function_is_an_answer() -> None:
    asm = program(1, 3)
    outline = Outline.of(asm.rules(), [(asm.base, asm.code())], acts=False)
    assert prove_functions(outline, one()).start.size == 0
