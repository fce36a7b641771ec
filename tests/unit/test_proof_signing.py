"""Whether the return address is signed where rows say so: right claims hold, wrong ones are found, no other is."""

from __future__ import annotations

import pytest

from audit_kernel import (
    AUTIASP,
    BLR_X1,
    MOV_FP,
    NOP,
    PACIASP,
    RET,
    TEXT,
    Kernel,
    add_sp,
    b,
    bl,
    cbz_x0,
    pop,
    push,
    reload,
    sub_sp,
)
from cfi_builder import FP, NEGATE, RA, SP, advance, def_cfa, def_cfa_offset, offset, restore
from surefoot.audit.auditing import prepare

RETAA, XPACLRI, STR_LR_SP_8 = 0xD65F_0BFF, 0xD503_20FF, 0xF900_07FE
STP_FP_LR, STR_LR_X1, MOV_X2_LR = 0xA900_7BFD, 0xF900_003E, 0xAA1E_03E2
STR_LR_X18, LDR_LR_X18 = 0xF800_865E, 0xF85F_8E5E

OPEN16 = def_cfa_offset(16) + offset(FP, 2) + offset(RA, 1)
CLOSE = restore(FP) + restore(RA) + def_cfa(SP, 0)


def signing(*code: int, cfi: bytes, before: tuple[int, ...] = ()) -> tuple[list[int], list[int]]:
    """Offsets of instructions whose claim is wrong, and of those whose claim is open."""
    kernel = Kernel()
    if before:
        kernel.func("before", *before)
    start = kernel.func("f", *code, cfi=cfi)
    subject = prepare(kernel.image())
    assert subject.proof is not None
    assert subject.signing is not None
    base = (start - TEXT) // 4
    return ([at - base for at in subject.signing.wrong.tolist()], [at - base for at in subject.signing.open.tolist()])


SIGNED_FRAME = (PACIASP, push(16), BLR_X1, pop(16), AUTIASP, RET)
SIGNED_CFI = advance(1) + NEGATE + advance(1) + OPEN16 + advance(2) + CLOSE + advance(1) + NEGATE


RIGHT: dict[str, tuple[tuple[int, ...], bytes]] = {
    "plain": ((push(16), BLR_X1, pop(16), RET), advance(1) + OPEN16 + advance(2) + CLOSE),
    "signed frame": (SIGNED_FRAME, SIGNED_CFI),
    "RETAA": ((*SIGNED_FRAME[:4], RETAA), advance(1) + NEGATE + advance(1) + OPEN16 + advance(2) + CLOSE),
    "a copy elsewhere": ((PACIASP, STR_LR_X1, AUTIASP, RET), advance(1) + NEGATE + advance(2) + NEGATE),
    "x30 as a scratch register": (
        (PACIASP, sub_sp(32), STP_FP_LR, BLR_X1, STR_LR_SP_8 | 2 << 10, reload(), add_sp(32), AUTIASP, RET),
        advance(1)
        + NEGATE
        + advance(1)
        + def_cfa_offset(32)
        + advance(1)
        + offset(FP, 4)
        + offset(RA, 3)
        + advance(4)
        + CLOSE
        + advance(1)
        + NEGATE,
    ),
    "rows late by one": (
        (PACIASP, push(16), BLR_X1, reload(), add_sp(16), AUTIASP, RET),
        advance(1) + NEGATE + advance(1) + OPEN16 + advance(3) + CLOSE + advance(1) + NEGATE,
    ),
    "a branch around": (
        (PACIASP, push(16), cbz_x0(8), BLR_X1, pop(16), AUTIASP, RET),
        advance(1) + NEGATE + advance(1) + OPEN16 + advance(3) + CLOSE + advance(1) + NEGATE,
    ),
    "a shadow stack": (
        (STR_LR_X18, PACIASP, push(16), BLR_X1, pop(16), LDR_LR_X18, RET),
        advance(2)
        + NEGATE
        + advance(1)
        + OPEN16
        + advance(2)
        + restore(FP)
        + def_cfa(SP, 0)
        + restore(RA)
        + advance(1)
        + NEGATE,
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_claims_hold(name: str) -> None:
    code, cfi = RIGHT[name]
    assert signing(*code, cfi=cfi) == ([], [])


def test_a_missing_switch_is_wrong_up_to_the_next_one() -> None:
    """Without the first one the rows say the opposite until the second: from behind PACIASP to behind AUTIASP."""
    cfi = advance(2) + OPEN16 + advance(2) + CLOSE
    assert signing(*SIGNED_FRAME, cfi=cfi) == ([1, 2, 3, 4], [])
    late = advance(2) + NEGATE + OPEN16 + advance(2) + CLOSE + advance(1) + NEGATE
    assert signing(*SIGNED_FRAME, cfi=late) == ([1], [])


def test_a_claim_without_a_signature_is_wrong() -> None:
    cfi = advance(1) + NEGATE + OPEN16 + advance(2) + CLOSE + NEGATE
    assert signing(push(16), BLR_X1, pop(16), RET, cfi=cfi) == ([1, 2], [])


def test_an_entry_is_plain() -> None:
    assert signing(NOP, RET, cfi=NEGATE) == ([0, 1], [])


def test_stripping_makes_it_plain() -> None:
    assert signing(PACIASP, MOV_X2_LR, XPACLRI, NOP, RET, cfi=advance(1) + NEGATE) == ([3, 4], [])


def test_paths_that_disagree_are_open() -> None:
    """Where one path signed and the other did not, neither claim is believed."""
    assert signing(cbz_x0(8), PACIASP, NOP, RET, cfi=b"") == ([], [2, 3])
    assert signing(cbz_x0(8), PACIASP, NOP, RET, cfi=advance(2) + NEGATE) == ([], [2, 3])


def test_twice_signed_is_not_signed() -> None:
    wrong, unknown = signing(PACIASP, PACIASP, NOP, RET, cfi=advance(1) + NEGATE)
    assert (wrong, unknown) == ([], [2, 3])


def test_a_tail_branch_with_a_signed_address_needs_a_look() -> None:
    """The function is analysed exactly; its own claims are right all the same."""
    code = (PACIASP, b(-8))
    assert signing(*code, cfi=advance(1) + NEGATE, before=(RET,)) == ([], [])


def test_unproved_instructions_are_not_judged() -> None:
    """Where it is not proved where the return address is, nothing is said of its signature."""
    found = signing(push(16), MOV_FP, RET, cfi=b"")
    assert found == ([], [])
    assert signing(bl(4), NOP, RET, cfi=b"")[0] == []
