"""Directives suggested for assembly: assembled and added to the code, they are proved everywhere."""

from __future__ import annotations

import pytest

from audit_kernel import (
    BLR_X1,
    BR_X1,
    CODE_KIND,
    MOV_FP,
    MOV_LR_X1,
    NOP,
    RET,
    add_sp,
    b,
    cbz_x0,
    plain,
    pop,
    push,
    sub_sp,
)
from cfi_assembler import assemble
from surefoot.audit.auditing import audit, prepare
from surefoot.audit.findings import Finding
from surefoot.audit.textmap import Cover

STR_LR_SP_8 = 0xF900_07FE
LDR_LR_SP_8 = 0xF940_07FE
MOV_SP_X1 = 0x9100_003F
MOV_SP_FP = 0x9100_03BF

SHAPES: dict[str, tuple[int, ...]] = {
    "leaf": (NOP, RET),
    "frame": (push(32), MOV_FP, BLR_X1, pop(32), RET),
    "two exits": (cbz_x0(12), push(32), b(8), RET, BLR_X1, pop(32), RET),
    "moves SP": (sub_sp(16), NOP, add_sp(16), RET),
    "saves x30 alone": (sub_sp(16), STR_LR_SP_8, BLR_X1, LDR_LR_SP_8, add_sp(16), RET),
    "SP from a register": (push(32), MOV_FP, MOV_SP_X1, NOP, MOV_SP_FP, pop(32), RET),
    "fill in the middle": (push(32), b(12), NOP, NOP, pop(32), RET),
}


def suggested(*code: int, kind: int = 2) -> Finding:
    kernel = plain()
    kernel.func("f", *code, cfi=None, kind=kind)
    (finding,) = [each for each in audit(prepare(kernel.image())).findings if each.code.startswith("asm-")]
    return finding


@pytest.mark.parametrize("name", SHAPES)
def test_what_is_suggested_is_proved(name: str) -> None:
    code = SHAPES[name]
    cfi, size = assemble(suggested(*code).suggestion)
    assert size == 4 * len(code)
    kernel = plain()
    kernel.func("f", *code, cfi=cfi)
    subject = prepare(kernel.image())
    fill = code.count(NOP) if name == "fill in the middle" else 0
    assert subject.map.totals()[Cover.PROVEN] == 3 + len(code) - fill
    assert subject.map.totals()[Cover.REFUTED] == 0


def test_the_lines_of_a_frame() -> None:
    assert suggested(*SHAPES["frame"]).suggestion == (
        "+0x0: .cfi_startproc",
        "+0x4: .cfi_def_cfa_offset 32; .cfi_offset 29, -32; .cfi_offset 30, -24",
        "+0x10: .cfi_def_cfa_offset 0; .cfi_restore 29; .cfi_restore 30",
        "+0x14: .cfi_endproc",
    )


def test_what_is_not_known_is_said() -> None:
    """A return address in a register that is not followed, a stack that is not, a jump that leads anywhere."""
    lost = suggested(push(32), MOV_FP, MOV_SP_X1, MOV_LR_X1, MOV_FP, RET)
    assert any("not known: where SP is" in line for line in lost.suggestion)
    lost = suggested(MOV_LR_X1, NOP, RET)
    assert lost.suggestion[1] == (
        "+0x4: not known: the return address is in no place that is followed (.cfi_register, if it is in a register)"
    )
    assert "from 1 place on it is not known" in lost.message
    lost = suggested(sub_sp(16), BR_X1)
    assert lost.suggestion[1] == "+0x0: not known: an indirect jump has targets that are not known"


def test_code_that_is_not_called_gets_no_suggestion() -> None:
    finding = suggested(sub_sp(16), add_sp(16), RET, kind=CODE_KIND)
    assert finding.suggestion == ()
    assert "SYM_CODE" in finding.message
