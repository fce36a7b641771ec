"""Encodings on whose existence capstone 5.0 and the tables disagree, each with its reason.

Capstone 5.0 decodes as LLVM of 2022 did: what the architecture got since (v9.3 to v9.6) it refuses. Where it accepts
more, it overlooks fields that should be one or zero, or registers that an encoding excludes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

Row = tuple[int, int, str]


def _rows(text: str) -> tuple[Row, ...]:
    """Read lines of 32 characters 0, 1 or x (blanks for the eye), a bar and a reason."""
    found = []
    for line in text.strip().splitlines():
        bits, _, reason = line.partition("|")
        bits = bits.replace(" ", "")
        assert len(bits) == 32, line
        found.append(
            (int(bits.replace("0", "1").replace("x", "0"), 2), int(bits.replace("x", "0"), 2), reason.strip())
        )
    return tuple(found)


CAPSTONE_REFUSES: Final = _rows("""
x111010 xxxxxxxxxxxxxxxxxxxxxxxxx | FEAT_CMPBR (v9.6)
01010101 00x xxxxxxxxxxxxxxxx 11111 | FEAT_PAuth_LR (v9.5): RETAASPPC, RETABSPPC
11110011 10x xxxxxxxxxxxxxxxx 11111 | FEAT_PAuth_LR (v9.5): AUTIASPPC, AUTIBSPPC
11011010 110 00001 1xxxxx xxxxx 11110 | FEAT_PAuth_LR (v9.5)
11010101 01x xxxxxxxxxxxxxxxxxxxxx | FEAT_SYSREG128, FEAT_SYSINSTR128 (v9.4)
11010101 100 xxxxxxxxxxxxxxxxxxxxx | FEAT_TEV (2026): TCHANGE
x0010001 11x xxxxxxxxxxxxxxxxxxxxx | FEAT_CSSC (v8.9): minimum and maximum with an immediate
x0011010 110 xxxxx 0110xx xxxxx xxxxx | FEAT_CSSC (v8.9): minimum and maximum
x1011010 110 00000 00xxxx xxxxx xxxxx | FEAT_CSSC (v8.9): CTZ, CNT, ABS
1x011010 000 xxxxx 001xxx xxxxx xxxxx | FEAT_CPA (v9.5): ADDPT, SUBPT
10011011 011 xxxxxxxxxxxxxxxxxxxxx | FEAT_CPA (v9.5): MADDPT, MSUBPT
xx011101 xx0 xxxxxxxxx 10 xxxxx xxxxx | FEAT_LRCPC3 (v8.9): LDAPUR, STLUR of SIMD registers
1x011001 xx0 xxxxxxxxx 10 xxxxx xxxxx | FEAT_LRCPC3 (v8.9)
0x001101 0x0 00001 100001 xxxxx xxxxx | FEAT_LRCPC3 (v8.9): LDAP1, STL1
11011001 000 11111 000x11 xxxxx xxxxx | FEAT_GCS (v9.4)
xx001001 xxx xxxxxxxxxxxxxxxxxxxxx | FEAT_LSUI (v9.6)
11101x0x xxx xxxxxxxxxxxxxxxxxxxxx | FEAT_LSUI (v9.6): pairs
0x011001 xx1 xxxxxxxxxxxxxxxxxxxxx | FEAT_LSE128, FEAT_THE, FEAT_LSUI (v9.4 to v9.6)
0x111000 xx1 xxxxx 1xxx00 xxxxx xxxxx | FEAT_THE (v8.9)
xx111100 xx1 xxxxxxxxx 00 xxxxx xxxxx | FEAT_LSFE (v9.6)
0110100x x0x xxxxxxxxxxxxxxxxxxxxx | STGP is not decoded
00011101 110 11111 xxxx00 xxxxx xxxxx | FEAT_MOPS_GO (v9.7)
0xx0111x xxx xxxxxxxxxxxxxxxxxxxxx | FEAT_FP8, FEAT_FAMINMAX, FEAT_LUT, FEAT_F8F32MM and others (v9.5, v9.6)
x0011110 xx1 xxxxx 000000 xxxxx xxxxx | FEAT_FPRCVT (v9.6)
xxx0010x xxx xxxxxxxxxxxxxxxxxxxxx | SVE2.1 to SVE2.3 (v9.4 to v9.7)
1xx0000x xxx xxxxxxxxxxxxxxxxxxxxx | SME2 to SME2.3 (v9.3 to v9.7)
""")
"""Rows for vectors are wide: those forms touch no general register, and the golden file checks their allocation."""

CAPSTONE_ACCEPTS: Final = _rows("""
xx001000 000 xxxxxxxxxxxxxxxxxxxxx | STXR: bits 14:10 should be one
1x001000 011 xxxxxxxxxxxxxxxxxxxxx | LDXP: bits 20:16 should be one
10011011 x10 xxxxxxxxxxxxxxxxxxxxx | SMULH, UMULH: bits 14:10 should be one
00011x01 xx0 xxxxxxxxx 01 xxxxx xxxxx | FEAT_MOPS: register 31 is excluded
11010101 000 00xxx xxxxxx xxxxx xxxxx | MSR (immediate), barriers and hints without a meaning
11010101 00x 0xxxx xxxxxx xxxxx xxxxx | MRS and MSR with op0 of 0 or 1 are no system registers
00000000 000 00000 xxxxxx xxxxx xxxxx | UDF is UNDEFINED by definition
11010100 xxx xxxxxxxxxxxxxxxxxxxxx | TCANCEL of the withdrawn FEAT_TME
""")


LLVM_ACCEPTS: Final = _rows("""
xx001000 010 xxxxxxxxxxxxxxxxxxxxx | LDXR: bits 20:16 and 14:10 should be one
xx001000 1x0 xxxxxxxxxxxxxxxxxxxxx | LDAR, STLR: bits 20:16 and 14:10 should be one
1x010001 10x xxxxxxxxxxxxxxxxxxxxx | ADDG, SUBG: bits 15:14 should be zero
1x001001 010 xxxxxxxxxxxxxxxxxxxxx | LDTXR: bits 20:16 and 14:10 should be one
1x001001 000 xxxxxxxxxxxxxxxxxxxxx | STTXR: bits 14:10 should be one
x1001001 1x0 xxxxxxxxxxxxxxxxxxxxx | CAST, CASPT: bits 14:10 should be one, the registers of CASPT are even
11010101 010 00xxx xxxxxx xxxxx xxxxx | MSRR with op0 of 0 or 1 names no system register
11010101 011 0xxxx xxxxxx xxxxx xxxxx | MRRS with op0 of 0 or 1 names no system register
""")
"""What LLVM 22 decodes beyond capstone's list."""


def _field(word: int, lsb: int) -> int:
    return word >> lsb & 31


def _pair(word: int) -> bool:
    """LDP of one register twice, LDP and STP writing a transferred base back."""
    if word & 0x3A00_0000 != 0x2800_0000:
        return False
    vector, load, back = word >> 26 & 1, word >> 22 & 1, word >> 23 & 1
    same = load and _field(word, 0) == _field(word, 10)
    overlap = back and not vector and _field(word, 5) in {_field(word, 0), _field(word, 10)} and _field(word, 5) != 31
    return bool(same or overlap)


def _single(word: int) -> bool:
    """LDR and STR that write a transferred base back, LDXP of one register twice, STXR with a shared status."""
    if word & 0x3B20_0400 == 0x3800_0400 or word & 0x3F20_0C00 == 0x3800_0800 or word & 0xFF20_0C00 == 0xF820_0C00:
        return _field(word, 5) == _field(word, 0) != 31
    if word & 0x3F60_0000 == 0x0860_0000:
        return _field(word, 0) == _field(word, 10)
    if word & 0x3FC0_0000 == 0x0800_0000:
        return _field(word, 16) in {_field(word, 0), _field(word, 5), _field(word, 10)}
    return False


def overlapping_copy(word: int) -> bool:
    """Memory copies with two equal registers."""
    if word & 0xFB20_0C00 != 0x1900_0400:
        return False
    registers = (_field(word, 0), _field(word, 5), _field(word, 16))
    return len(set(registers)) < 3


UNPREDICTABLE: Final[tuple[tuple[Callable[[int], bool], str], ...]] = (
    (_pair, "CONSTRAINED UNPREDICTABLE pair, refused by capstone"),
    (_single, "CONSTRAINED UNPREDICTABLE overlap of base and data, refused by capstone"),
    (overlapping_copy, "CONSTRAINED UNPREDICTABLE copy, refused by capstone"),
)
"""Encodings that exist and whose registers overlap: our answer is OTHER for them."""
