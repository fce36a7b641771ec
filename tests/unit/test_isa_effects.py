"""The effects of A64 words: forms newer than any disassembler in Python, unknown words, and the tables themselves."""

from __future__ import annotations

import enum

import numpy as np
import pytest

import isa_golden
import isa_unknown
from surefoot.dtypes import Insn
from surefoot.isa import branches, forms, tables
from surefoot.isa.effects import (
    ALL_REGISTERS,
    NO_REG,
    Effects,
    Flow,
    FpEffect,
    LrEffect,
    PauthKey,
    SpEffect,
    Store,
    effects,
    register_reads,
)

GOLDEN = isa_golden.recipe()
KINDS: dict[str, type[enum.IntEnum]] = {
    "flow": Flow,
    "sp": SpEffect,
    "fp": FpEffect,
    "lr": LrEffect,
    "store": Store,
    "pauth_key": PauthKey,
}


def one(*words: int) -> Effects:
    return effects(np.array(words, dtype=np.uint32))


def mask(text: str) -> int:
    """Read a list of registers such as `x29,sp`; 0 for none."""
    names = [] if text == "0" else text.split(",")
    return sum(1 << (31 if name == "sp" else int(name[1:])) for name in names)


@pytest.mark.parametrize(("word", "text", "claims"), GOLDEN.forms(), ids=lambda value: str(value)[:24])
def test_forms_do_what_the_manual_says(word: int, text: str, claims: str) -> None:
    """Each claim of the golden file is the column's value; without a claim about flow or a store there is none."""
    wanted = dict(pair.split("=") for pair in claims.split())
    got = one(word)
    for name, value in ({"flow": "NEXT", "store": "NONE", "store_off": "0"} | wanted).items():
        have = int(getattr(got, name)[0])
        want = mask(value) if name == "writes" else int(KINDS[name][value] if name in KINDS else value)
        if name == "store_off" and "store" not in wanted:
            continue
        assert have == want, f"{text}: {name}"


def test_allocation_is_that_of_llvm() -> None:
    """Four words for each upper half: known where LLVM 22 decodes them, but for the listed reasons."""
    words, theirs = GOLDEN.words(), GOLDEN.allocation()
    ours = effects(words).flow != Flow.UNDEFINED
    copies = np.array([isa_unknown.overlapping_copy(word) for word in words.tolist()])
    assert not (ours & ~theirs & ~copies).any()
    rest = theirs & ~ours
    for bits, value, _ in isa_unknown.CAPSTONE_ACCEPTS + isa_unknown.LLVM_ACCEPTS:
        rest &= (words & np.uint32(bits)) != np.uint32(value)
    assert [hex(word) for word in words[rest].tolist()] == []
    assert ours.sum() > 100_000


def test_an_unknown_word_may_do_anything() -> None:
    """UDF, a hole in every top-level group, and reserved immediates: every column says the worst."""
    got = one(0, 0xFFFF, 0x0200_0000, 0x1280_0000 | 1 << 22, 0x9240_FFFF, 0xD503_24FF | 1 << 8, 0x6E80_0000)
    assert (got.flow == Flow.UNDEFINED).all()
    assert (got.writes == ALL_REGISTERS).all()
    assert (got.store == Store.ANYWHERE).all()
    assert got.store_unknown.all()
    for column, other in ((got.sp, SpEffect.OTHER), (got.fp, FpEffect.OTHER), (got.lr, LrEffect.OTHER)):
        assert (column == other).all()
    assert (register_reads(np.zeros(1, dtype=np.uint32)) == ALL_REGISTERS).all()


def test_a_prologue_and_an_epilogue() -> None:
    """Paciasp; stp x29, x30, [sp, #-32]!; mov x29, sp; ldp x29, x30, [sp], #32; autiasp; ret."""
    got = one(0xD503_233F, 0xA9BE_7BFD, 0x9100_03FD, 0xA8C2_7BFD, 0xD503_23BF, 0xD65F_03C0)
    assert got.sp.tolist() == [SpEffect.KEEP, SpEffect.ADD, SpEffect.KEEP, SpEffect.ADD, SpEffect.KEEP, SpEffect.KEEP]
    assert got.sp_imm.tolist() == [0, -32, 0, 32, 0, 0]
    assert got.fp.tolist()[2:4] == [FpEffect.FROM_SP, FpEffect.LOAD]
    assert got.lr.tolist() == [LrEffect.SIGN, 0, 0, LrEffect.LOAD, LrEffect.AUTH, 0]
    assert (got.fp_reg[3], got.fp_imm[3], got.lr_reg[3], got.lr_imm[3]) == (31, 0, 31, 8)
    assert (got.store_off[1], got.store_size[1], got.fp_at[1], got.lr_at[1]) == (-32, 16, 0, 8)
    assert got.is_bti.tolist() == [True, False, False, False, False, False]
    assert got.flow[5] == Flow.RETURN
    assert got.target_reg.tolist() == [NO_REG] * 5 + [30]


def test_branches_have_the_flow_that_the_predicates_see() -> None:
    """`effects` and `surefoot.isa.branches`, written apart, agree on every word of a sample."""
    words = GOLDEN.words()
    extra = np.array([0xD65F_03C0, 0xD63F_0200, 0xD61F_0220, 0xD71F_0A1F, 0xD69F_03E0, 0x5500_001F], dtype=np.uint32)
    words = np.concatenate([words, extra, extra ^ np.uint32(0x20)])
    flow = effects(words).flow
    for predicate, flows in (
        (branches.is_b, {Flow.JUMP}),
        (branches.is_bl, {Flow.CALL}),
        (branches.is_blr, {Flow.CALL_REG}),
        (branches.is_br, {Flow.JUMP_REG}),
        (branches.is_ret, {Flow.RETURN}),
        (branches.is_cond_branch, {Flow.COND}),
    ):
        assert np.array_equal(predicate(words), np.isin(flow, list(flows)))
    assert flow[branches.is_eret(words)].tolist() == [Flow.ERET] * int(branches.is_eret(words).sum())
    assert np.array_equal(branches.is_bti(words) & (flow == Flow.NEXT), branches.is_bti(words))


def linear(words: Insn) -> list[int]:
    """Give the first fitting form of each word by trying them all."""
    table = tables.decoder().forms
    mask_of = np.array([form.mask for form in table], dtype=np.uint32)
    value_of = np.array([form.value for form in table], dtype=np.uint32)
    found = []
    for word in words.tolist():
        hits = np.flatnonzero((np.uint32(word) & mask_of) == value_of)
        found.append(int(hits[1]) if hits.size > 1 else 0)
    return found


def test_the_decoder_finds_the_first_line_that_fits() -> None:
    """As does a linear search, over random words and words made from every form."""
    rng = np.random.default_rng(4)
    decoder = tables.decoder()
    values = np.array([form.value for form in decoder.forms], dtype=np.uint32)
    free = ~np.array([form.mask for form in decoder.forms], dtype=np.uint32)
    made = values | (rng.integers(0, 1 << 32, values.size, dtype=np.uint32) & free)
    words = np.concatenate([made, rng.integers(0, 1 << 32, 4000, dtype=np.uint32)])
    assert decoder.decode(words).tolist() == linear(words)


def test_every_line_of_the_tables_is_reached() -> None:
    """No form is hidden behind the lines before it."""
    rng = np.random.default_rng(5)
    decoder = tables.decoder()
    hidden = []
    for number, form in enumerate(decoder.forms[1:], start=1):
        free = rng.integers(0, 1 << 32, 64, dtype=np.uint32) & np.uint32(~form.mask & 0xFFFF_FFFF)
        if number not in decoder.decode(free | np.uint32(form.value)):
            hidden.append(f"{form.mask:#010x} {form.value:#010x}")
    assert hidden == []


@pytest.mark.parametrize("line", ["0101", "2" * 32, "x" * 33])
def test_a_malformed_line_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="not 32 bits"):
        forms.parse(line)


def test_no_words_have_no_effects() -> None:
    empty = effects(np.zeros(0, dtype=np.uint32))
    assert len(empty) == 0
    assert register_reads(np.zeros(0, dtype=np.uint32)).size == 0


def test_taking_some_words_takes_every_column() -> None:
    """A slice, an index array and a mask give the same effects as classifying the words alone."""
    words = np.array([0xA9BF_7BFD, 0x9100_03FD, 0xD65F_03C0], dtype=np.uint32)
    all_of_them, last = effects(words), effects(words[2:])
    for which in (slice(2, None), np.array([2]), np.array([False, False, True])):
        part = all_of_them.take(which)
        for name in Effects.__dataclass_fields__:
            assert np.array_equal(getattr(part, name), getattr(last, name)), name
