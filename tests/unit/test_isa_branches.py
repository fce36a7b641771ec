"""Branches against capstone, over random words biased towards the branch encodings."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import capstone
import numpy as np
import pytest
from numpy.typing import NDArray

from surefoot.dtypes import Addr, Insn, Mask
from surefoot.isa import branches, fields

Predicate = Callable[[Insn], Mask]

ADDRESS = 0xFFFF_8000_8012_3000

# Bits that are fixed and the bits that stay random, one pair for each encoding group of DDI 0487 C4.1.
GROUPS = (
    (0x1400_0000, 0xFC00_0000),
    (0x9400_0000, 0xFC00_0000),
    (0x5400_0000, 0xFF00_0010),
    (0x3400_0000, 0x7E00_0000),
    (0x3600_0000, 0x7E00_0000),
    (0xD600_0000, 0xFE00_0000),
    (0xD61F_0000, 0xFF9F_F000),
    (0xD61F_0000, 0xFE1F_F000),
    (0xD600_03E0, 0xFE00_03FF),
    (0xD65F_0BFF, 0xFFFF_FBFF),
    (0xD61F_081F, 0xFF9F_F81F),
    (0xD69F_0BFF, 0xFFFF_FBFF),
    (0x1000_0000, 0x1F00_0000),
    (0x5800_0000, 0xFF00_0000),
    (0xD503_201F, 0xFFFF_F01F),
    (0x0000_0000, 0x0000_0000),
)

CALLS = {"blr", "blraa", "blrab", "blraaz", "blrabz"}
JUMPS = {"br", "braa", "brab", "braaz", "brabz"}
CONDITIONAL = {"cbz", "cbnz", "tbz", "tbnz"}


def random_words(count: int) -> Insn:
    """(count * groups,) words, every group equally often."""
    rng = np.random.default_rng(20)
    free = rng.integers(0, 2**32, size=(len(GROUPS), count), dtype=np.uint32)
    value = np.array([g[0] for g in GROUPS], dtype=np.uint32)[:, None]
    mask = np.array([g[1] for g in GROUPS], dtype=np.uint32)[:, None]
    return ((free & ~mask) | (value & mask)).reshape(-1)


@cache
def sample() -> tuple[Insn, list[str], list[str]]:
    """Words with the mnemonic and operands that capstone gives them, empty where it refuses."""
    machine = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)
    words = random_words(700)
    names, operands = [], []
    for word in words.tolist():
        found = next(machine.disasm_lite(word.to_bytes(4, "little"), ADDRESS), (0, 4, "", ""))
        names.append(found[2])
        operands.append(found[3])
    return words, names, operands


def where(names: list[str], wanted: set[str]) -> NDArray[np.bool_]:
    return np.array([name in wanted for name in names])


@pytest.mark.parametrize(
    ("predicate", "wanted"),
    [
        (branches.is_b, {"b"}),
        (branches.is_bl, {"bl"}),
        (branches.is_blr, CALLS),
        (branches.is_br, JUMPS),
        (branches.is_ret, {"ret", "retaa", "retab"}),
        (branches.is_eret, {"eret", "eretaa", "eretab"}),
        (branches.is_adr, {"adr"}),
        (branches.is_adrp, {"adrp"}),
        (branches.is_bti, {"bti"}),
    ],
)
def test_classes_agree_with_capstone(predicate: Predicate, wanted: set[str]) -> None:
    """Wherever capstone knows the word, both say the same, in both directions."""
    words, names, _ = sample()
    expected = where(names, wanted)
    assert expected.sum() > 10
    known = np.array([bool(name) for name in names])
    got = predicate(words)
    assert np.array_equal(got[known], expected[known])


def test_conditional_branches_agree_with_capstone() -> None:
    words, names, _ = sample()
    known = np.array([bool(name) for name in names])
    expected = where(names, CONDITIONAL) | np.array([name.startswith(("b.", "bc.")) for name in names])
    assert np.array_equal(branches.is_cond_branch(words)[known], expected[known])


def test_targets_agree_with_capstone() -> None:
    """Every immediate branch goes where capstone says; every other word has target 0."""
    words, names, operands = sample()
    addrs = np.full(words.shape, ADDRESS, dtype=np.uint64)
    got = branches.branch_target(words, addrs)
    is_branch = branches.is_immediate_branch(words)
    checked = 0
    for k in np.flatnonzero(is_branch).tolist():
        if names[k]:
            assert int(got[k]) == int(operands[k].rpartition("#")[2], 16), f"{words[k]:#x}"
            checked += 1
    assert checked > 2000
    assert not got[~is_branch].any()


def test_formed_addresses_agree_with_capstone() -> None:
    words, names, operands = sample()
    addrs = np.full(words.shape, ADDRESS, dtype=np.uint64)
    for name, form in (("adr", fields.adr_target), ("adrp", fields.adrp_target)):
        got = form(words, addrs)
        hits = [k for k, found in enumerate(names) if found == name]
        assert len(hits) > 10
        for k in hits:
            assert int(got[k]) == int(operands[k].rpartition("#")[2], 16)


def test_targets_wrap_modulo_two_to_the_64() -> None:
    """Jump 8 back at address 4 and 8 ahead below the top of the address space."""
    words = np.array([0x17FF_FFFE, 0x1400_0002], dtype=np.uint32)
    addrs = np.array([4, 2**64 - 4], dtype=np.uint64)
    assert branches.branch_target(words, addrs).tolist() == [2**64 - 4, 4]


@pytest.mark.parametrize(
    ("word", "predicate"),
    [
        (0x5500_001F, branches.is_ret),  # retaasppc .
        (0x5520_001F, branches.is_ret),  # retabsppc .
        (0xD65F_0BE2, branches.is_ret),  # retaasppcr x2
        (0xD65F_0FE2, branches.is_ret),  # retabsppcr x2
        (0x5400_0050, branches.is_cond_branch),  # bc.eq .+8
        (0x7400_0000, branches.is_cond_branch),  # cbgt w0, w0, .
        (0x7400_8000, branches.is_cond_branch),  # cbbgt w0, w0, .
        (0xF5C0_0000, branches.is_cond_branch),  # cbeq x0, #0, .
    ],
)
def test_forms_that_capstone_does_not_know(word: int, predicate: Predicate) -> None:
    """Encodings of the 2021 to 2024 extensions, from the architecture manual."""
    words = np.array([word], dtype=np.uint32)
    assert predicate(words).tolist() == [True]


@pytest.mark.parametrize("word", [0x7480_0000, 0xF400_8000, 0x7500_4000, 0xD503_201F, 0xD69F_03E0, 0xD4200080])
def test_words_that_only_look_like_branches(word: int) -> None:
    """Unallocated compare branches, NOP, ERET and BRK are neither calls, jumps, returns nor conditional."""
    words = np.array([word], dtype=np.uint32)
    for predicate in (branches.is_call, branches.is_br, branches.is_ret, branches.is_immediate_branch):
        assert not predicate(words).any()


def veneer(*words: int) -> tuple[Insn, Addr]:
    return np.array(words, dtype=np.uint32), np.array([0x1000], dtype=np.uint64)


def test_page_veneer_is_followed() -> None:
    """Adrp x16, 0x3000; add x16, x16, #0x18; br x16 at 0x1000 leads to 0x3018."""
    words, addrs = veneer(0xD000_0010, 0x9100_6210, 0xD61F_0200)
    targets, good = branches.page_veneers(words[0:1], words[1:2], words[2:3], addrs)
    assert good.tolist() == [True]
    assert targets.tolist() == [0x3018]


@pytest.mark.parametrize(
    "words",
    [
        (0xD000_0010, 0x9100_6210, 0xD61F_0220),  # br x17
        (0xD000_0010, 0x9100_6211, 0xD61F_0220),  # add x17, x16
        (0xD000_0001, 0x9100_6021, 0xD61F_0020),  # through x1
        (0xD000_0010, 0xD100_6210, 0xD61F_0200),  # sub
        (0x5000_0010, 0x9100_6210, 0xD61F_0200),  # adr
        (0xD000_0010, 0x9100_6210, 0xD63F_0200),  # blr
    ],
)
def test_near_misses_are_no_veneer(words: tuple[int, int, int]) -> None:
    array, addrs = veneer(*words)
    targets, good = branches.page_veneers(array[0:1], array[1:2], array[2:3], addrs)
    assert not good.any()
    assert not targets.any()


def test_literal_veneer_names_its_literal() -> None:
    """Ldr x16, .+8; br x16: the target lies at 0x1008."""
    words, addrs = veneer(0x5800_0050, 0xD61F_0200)
    literal, good = branches.literal_veneers(words[0:1], words[1:2], addrs)
    assert good.tolist() == [True]
    assert literal.tolist() == [0x1008]
    other, bad = branches.literal_veneers(words[0:1], np.array([0xD61F_0220], dtype=np.uint32), addrs)
    assert not bad.any()
    assert not other.any()
