"""Verdicts packed into a few arrays: the same answers, and damage is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from a64 import NOP, RET, SP, Asm, Row, sub
from proof_programs import program
from surefoot.errors import Inconsistent
from surefoot.proof.compact import join_kept, keep, pack, text_hash, unpack
from surefoot.proof.prove import Proof, prove
from surefoot.proof.verdicts import Verdict


def proofs() -> list[tuple[Asm, Proof]]:
    mixed = Asm()
    mixed.function("f")
    mixed.put(sub(SP, SP, 16), NOP)
    mixed.row(Row(16))
    mixed.put(NOP, 0x9100_43FF)
    mixed.row(Row())
    mixed.put(RET, NOP)
    mixed.end()
    mixed.put(NOP, NOP)
    mixed.function("g")
    mixed.put(RET)
    found = [mixed, program(3, 20), Asm()]
    return [(asm, prove(asm.rules(), [(asm.base, asm.code())])) for asm in found]


@pytest.mark.parametrize("which", range(3))
def test_the_answers_are_the_same(which: int) -> None:
    """At every address of the text and around it, in mid-instruction too, and moved by KASLR."""
    asm, proof = proofs()[which]
    kept = unpack(pack(proof))
    addrs = np.arange(asm.base - 16, asm.here + 16, 2, dtype=np.uint64)
    assert kept.verdict(addrs).tolist() == proof.verdict(addrs).tolist()
    for bias in (0x1_0000, -0x1000):
        moved = addrs + np.uint64(bias % 2**64)
        assert kept.shifted(bias).verdict(moved).tolist() == proof.verdict(addrs).tolist()


def test_runs_are_few() -> None:
    _, proof = proofs()[0]
    arrays = pack(proof)
    assert arrays["verdicts"].tolist() == [
        Verdict.PROVEN,
        Verdict.REFUTED,
        Verdict.PROVEN,
        Verdict.UNPROVEN,
        Verdict.PROVEN,
    ]


def _without(name: str) -> dict[str, NDArray[Any]]:
    arrays = pack(proofs()[0][1])
    del arrays[name]
    return arrays


def _changed(name: str, value: NDArray[Any]) -> dict[str, NDArray[Any]]:
    return pack(proofs()[0][1]) | {name: value}


@pytest.mark.parametrize(
    "arrays",
    [
        _without("start"),
        _without("open"),
        _changed("end", np.zeros(5, dtype=np.uint64)),
        _changed("end", np.zeros(4, dtype=np.uint64)),
        _changed("verdicts", np.full(5, 4, dtype=np.uint8)),
        _changed("open", np.full(5, 99, dtype=np.uint8)),
        _changed("verdicts", np.full(5, 3, dtype=np.int64)),
    ],
)
def test_damage_is_refused(arrays: dict[str, NDArray[Any]]) -> None:
    with pytest.raises((Inconsistent, KeyError)):
        unpack(arrays)


def test_the_hash_is_of_words_and_places() -> None:
    words = np.array([NOP, RET], dtype=np.uint32)
    hashes = {
        text_hash([(0x1000, words)]),
        text_hash([(0x1004, words)]),
        text_hash([(0x1000, words[::-1])]),
        text_hash([(0x1000, words[:1]), (0x1004, words[1:])]),
        text_hash([]),
    }
    assert len(hashes) == 5
    assert text_hash([(0x2000, words), (0x1000, words)]) == text_hash([(0x1000, words), (0x2000, words)])


def test_chosen_functions_only() -> None:
    """Adjacent ones share runs with each other and never with one that was not chosen; joined again they are all."""
    asm, proof = proofs()[1]
    addrs = np.arange(asm.base, asm.here, 4, dtype=np.uint64)
    count = len(proof.rules.functions)
    chosen = np.arange(count) % 3 != 1
    some, rest = keep(proof, chosen), keep(proof, ~chosen)
    index = proof.rules.functions
    mine = np.zeros(addrs.shape, dtype=np.bool_)
    for func in np.flatnonzero(chosen).tolist():
        mine |= (addrs >= index.start[func]) & (addrs < index.end[func])
    assert some.verdict(addrs).tolist() == np.where(mine, proof.verdict(addrs), Verdict.NO_METADATA).tolist()
    joined = join_kept([rest, some])
    assert joined.verdict(addrs).tolist() == proof.verdict(addrs).tolist()
    assert unpack(pack(joined)).verdict(addrs).tolist() == proof.verdict(addrs).tolist()
    assert keep(proof, np.zeros(count, dtype=np.bool_)).start.size == 0


def test_proofs_of_one_instruction_are_not_joined() -> None:
    """Nobody could say which of the two holds."""
    kept = keep(proofs()[0][1])
    with pytest.raises(ValueError, match="one instruction"):
        join_kept([kept, kept])
    assert join_kept([]).start.size == 0
