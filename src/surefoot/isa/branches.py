"""Layer 1: which A64 words branch, how, and where to; array at a time.

Invariant: every form of the architecture is known, pointer authentication included, whether or not this
machine has the extension: a word that is missed here would be a call or a return that nobody sees.

Source: Arm Architecture Reference Manual for A-profile (DDI 0487), C4.1 "Branches, Exception Generating and
System instructions"; FEAT_CMPBR and FEAT_PAuth_LR from its 2024 additions.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from surefoot.dtypes import Addr, Insn, Mask
from surefoot.isa.fields import add_immediate, adrp_target, field, matches, pc_relative, rd, rn

__all__ = [
    "BRK_KPROBE",
    "BTI_C",
    "MOV_X9_X30",
    "NOP",
    "branch_target",
    "is_adr",
    "is_adrp",
    "is_b",
    "is_bl",
    "is_blr",
    "is_br",
    "is_bti",
    "is_call",
    "is_compare_branch",
    "is_cond_branch",
    "is_eret",
    "is_immediate_branch",
    "is_ldr_literal",
    "is_ret",
    "literal_veneers",
    "page_veneers",
]

NOP: Final = 0xD503201F
BTI_C: Final = 0xD503245F
MOV_X9_X30: Final = 0xAA1E03E9
"""What ftrace puts into the first slot of a patch site (arch/arm64/kernel/ftrace.c)."""
BRK_KPROBE: Final = 0xD4200080
"""BRK #4 (arch/arm64/include/asm/brk-imm.h, KPROBES_BRK_IMM)."""

_VENEER_REGISTERS: Final = (16, 17)
"""IP0 and IP1, the only registers a linker may clobber between a call and its target (AAPCS64, 6.1.1)."""


def is_b(words: Insn) -> Mask:
    """Tell which words are B (unconditional, immediate); bool, shape of `words`."""
    return matches(words, 0xFC00_0000, 0x1400_0000)


def is_bl(words: Insn) -> Mask:
    """Tell which words are BL; bool, shape of `words`."""
    return matches(words, 0xFC00_0000, 0x9400_0000)


def is_blr(words: Insn) -> Mask:
    """Tell which words call through a register: BLR, BLRAAZ, BLRABZ, BLRAA, BLRAB; bool, shape of `words`."""
    return (
        matches(words, 0xFFFF_FC1F, 0xD63F_0000)
        | matches(words, 0xFFFF_F81F, 0xD63F_081F)
        | matches(words, 0xFFFF_F800, 0xD73F_0800)
    )


def is_br(words: Insn) -> Mask:
    """Tell which words jump through a register: BR, BRAAZ, BRABZ, BRAA, BRAB; bool, shape of `words`."""
    return (
        matches(words, 0xFFFF_FC1F, 0xD61F_0000)
        | matches(words, 0xFFFF_F81F, 0xD61F_081F)
        | matches(words, 0xFFFF_F800, 0xD71F_0800)
    )


def is_ret(words: Insn) -> Mask:
    """Tell which words return: RET (any register), RETAA, RETAB, RETAASPPC and RETABSPPC in both forms.

    RETA*SPPCR shares its encoding with RETA* but for the register in bits 4:0, so one pattern holds both.
    """
    return (
        matches(words, 0xFFFF_FC1F, 0xD65F_0000)
        | matches(words, 0xFFFF_FBE0, 0xD65F_0BE0)
        | matches(words, 0xFFC0_001F, 0x5500_001F)
    )


def is_eret(words: Insn) -> Mask:
    """Tell which words return from an exception: ERET, ERETAA, ERETAB; bool, shape of `words`."""
    return matches(words, 0xFFFF_FFFF, 0xD69F_03E0) | matches(words, 0xFFFF_FBFF, 0xD69F_0BFF)


def is_call(words: Insn) -> Mask:
    """Tell which words write a return address to x30 and branch: BL and every BLR; bool, shape of `words`."""
    return is_bl(words) | is_blr(words)


def _is_b_cond(words: Insn) -> Mask:
    """B.cond and BC.cond, which differ in bit 4."""
    return matches(words, 0xFF00_0000, 0x5400_0000)


def _is_cbz(words: Insn) -> Mask:
    return matches(words, 0x7E00_0000, 0x3400_0000)


def _is_tbz(words: Insn) -> Mask:
    return matches(words, 0x7E00_0000, 0x3600_0000)


def is_compare_branch(words: Insn) -> Mask:
    """Tell which words are CB<cc>, CBB<cc>, CBH<cc> (FEAT_CMPBR); bool, shape of `words`.

    Register form: bits 30:24 = 1110100, 15:14 = 00, or 10 and 11 with bit 31 clear (bytes, halfwords);
    immediate form: 1110101, bit 14 clear. Conditions 4 and 5 are not allocated.
    """
    allocated = field(words, 22, 2) != 2
    register = matches(words, 0x7F00_C000, 0x7400_0000) | matches(words, 0xFF00_8000, 0x7400_8000)
    found: Mask = (register | matches(words, 0x7F00_4000, 0x7500_0000)) & allocated
    return found


def is_cond_branch(words: Insn) -> Mask:
    """Tell which words branch or fall through: B.cond, BC.cond, CBZ, CBNZ, TBZ, TBNZ and compare branches."""
    return _is_b_cond(words) | _is_cbz(words) | _is_tbz(words) | is_compare_branch(words)


def is_immediate_branch(words: Insn) -> Mask:
    """Tell for which words `branch_target` has an answer; bool, shape of `words`."""
    return is_b(words) | is_bl(words) | is_cond_branch(words)


def is_adr(words: Insn) -> Mask:
    """Tell which words are ADR; bool, shape of `words`."""
    return matches(words, 0x9F00_0000, 0x1000_0000)


def is_adrp(words: Insn) -> Mask:
    """Tell which words are ADRP; bool, shape of `words`."""
    return matches(words, 0x9F00_0000, 0x9000_0000)


def is_ldr_literal(words: Insn) -> Mask:
    """Tell which words are LDR (literal) of a 64-bit general register; bool, shape of `words`."""
    return matches(words, 0xFF00_0000, 0x5800_0000)


def is_bti(words: Insn) -> Mask:
    """Tell which words are a branch target identification: BTI, BTI c, BTI j, BTI jc; bool, shape of `words`."""
    return matches(words, 0xFFFF_FF3F, 0xD503_241F)


def branch_target(words: Insn, addrs: Addr) -> Addr:
    """Give where each immediate branch goes.

    Args:
        words: (n,) uint32.
        addrs: (n,) uint64, the address of each word.

    Returns:
        (n,) uint64, exact modulo 2**64; 0 for every word that is no immediate branch, so ask
        `is_immediate_branch` (or `is_bl`, ...) where 0 could be a target.

    Raises:
        Nothing.
    """
    targets = np.zeros(words.shape, dtype=np.uint64)
    imm19 = _is_b_cond(words) | _is_cbz(words)
    for mask, lsb, width in (
        (matches(words, 0x7C00_0000, 0x1400_0000), 0, 26),
        (imm19, 5, 19),
        (_is_tbz(words), 5, 14),
        (is_compare_branch(words), 5, 9),
    ):
        at = np.flatnonzero(mask)
        if at.size:
            targets[at] = pc_relative(words[at], addrs[at], lsb, width)
    return targets


def page_veneers(first: Insn, second: Insn, third: Insn, addrs: Addr) -> tuple[Addr, Mask]:
    """Recognise `adrp xN, page; add xN, xN, #low; br xN` with xN = x16 or x17.

    These are the linker's long-branch stubs and the arm64 module PLT entries.

    Args:
        first: (n,) uint32, the words at `addrs`.
        second: (n,) uint32, the words at `addrs` + 4.
        third: (n,) uint32, the words at `addrs` + 8.
        addrs: (n,) uint64.

    Returns:
        (n,) uint64 targets and (n,) bool; where the mask is False there is no such veneer and the target
        is 0.

    Source:
        arch/arm64/include/asm/module.h: struct plt_entry; arch/arm64/kernel/module-plts.c (Linux 7.3).
    """
    register = rd(first)
    same = (rd(second) == register) & (rn(second) == register) & (rn(third) == register)
    ip = np.isin(register, _VENEER_REGISTERS)
    add = matches(second, 0xFF80_0000, 0x9100_0000)
    plain_br = matches(third, 0xFFFF_FC1F, 0xD61F_0000)
    good = is_adrp(first) & add & plain_br & same & ip
    return np.where(good, adrp_target(first, addrs) + add_immediate(second), np.uint64(0)), good


def literal_veneers(first: Insn, second: Insn, addrs: Addr) -> tuple[Addr, Mask]:
    """Recognise `ldr xN, literal; br xN` with xN = x16 or x17.

    Args:
        first: (n,) uint32, the words at `addrs`.
        second: (n,) uint32, the words at `addrs` + 4.
        addrs: (n,) uint64.

    Returns:
        (n,) uint64, the address of the literal that holds the target, and (n,) bool; where the mask is
        False there is no such veneer and the address is 0. The caller reads the literal: it may be live
        data.
    """
    register = rd(first)
    plain_br = matches(second, 0xFFFF_FC1F, 0xD61F_0000)
    ip = np.isin(register, _VENEER_REGISTERS)
    good = is_ldr_literal(first) & plain_br & (rn(second) == register) & ip
    return np.where(good, pc_relative(first, addrs, 5, 19), np.uint64(0)), good
