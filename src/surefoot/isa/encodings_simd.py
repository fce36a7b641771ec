"""Layer 1: encodings of SIMD, floating-point and cryptographic data processing.

The language is that of `surefoot.isa.forms`; lines that differ in one bit and do the same
are written as one. Most touch no general register.

Source: Arm's machine-readable specification of the A-profile architecture (AARCHMRS, BSD-licensed edition of 2026),
with the reserved values of size, shift and immediate fields left out as in the Arm Architecture Reference Manual
(DDI 0487), C4.1 "Data Processing -- Scalar Floating-Point and Advanced SIMD".
"""

from __future__ import annotations

from typing import Final

__all__ = ["SIMD"]

SIMD: Final = """
0x001110 000 xxxxx 0x0000 xxxxx xxxxx                     # TBL
0x001110 000 xxxxx 0x01x0 xxxxx xxxxx                     # TBX, UZP1, UZP2
0x001110 000 xxxxx 0x1xx0 xxxxx xxxxx                     # TBL, TBX, TRN1, TRN2, ZIP1, ZIP2
0x001110 0x0 xxxxx 110001 xxxxx xxxxx                     # FMLALLBB, FMLALLBT, FMLALLTB, FMLALLTT
00001110 0x0 xxxxx 1111x1 xxxxx xxxxx                     # FCVTN, FDOT
00001110 000 xx001 000001 xxxxx xxxxx                     # DUP
00001110 000 xx001 000011 xxxxx xxxxx  rn                 # DUP
00001110 000 xxx01 001x11 xxxxx xxxxx  wd                 # SMOV, UMOV
00001110 000 xx01x 000001 xxxxx xxxxx                     # DUP
00001110 000 xx01x 000011 xxxxx xxxxx  rn                 # DUP
00001110 000 xxx1x 001x11 xxxxx xxxxx  wd                 # SMOV, UMOV
00001110 000 xx1xx 000001 xxxxx xxxxx                     # DUP
00001110 000 xx1xx 000011 xxxxx xxxxx  rn                 # DUP
00001110 000 xx100 001111 xxxxx xxxxx  wd                 # UMOV
0xx01110 0x1 xxxxx 0xxx0x xxxxx xxxxx                     # ADDHN, CMGT, CMHI, RADDHN, RSUBHN, SABAL, SABD, ...
0x001110 001 00000 0xxx10 xxxxx xxxxx                     # CLS, CNT, REV16, REV64, SADALP, SADDLP, SQABS, ...
0xx01110 0x1 xxxxx 0xxx11 xxxxx xxxxx                     # AND, BIC, BSL, CMGE, CMHS, EOR, SABA, SMIN, SQADD, ...
0x001110 001 xxxxx 1xx00x xxxxx xxxxx                     # ADD, FCMEQ, FMAXNM, PMULL, SMAXP, SMLAL, SMLSL, ...
0x001110 0x1 00000 10xx10 xxxxx xxxxx                     # ABS, CMEQ, CMGT, CMLT
0x001110 001 xxxxx 100011 xxxxx xxxxx                     # CMTST
0x001110 001 xxxxx 1001x1 xxxxx xxxxx                     # MLA, MUL
0x001110 001 xxxxx 101x11 xxxxx xxxxx                     # ADDP, SMINP
0x001110 001 xxxxx 11x011 xxxxx xxxxx                     # FMLA, FMLAL
0x001110 001 xxxxx 11x1x1 xxxxx xxxxx                     # FADD, FMAX, FMULX, FRECPS
0x001110 0x1 00001 001010 xxxxx xxxxx                     # XTN
00x01110 0x1 00001 010010 xxxxx xxxxx                     # SQXTN, UQXTN
0x001110 0x1 00001 011x10 xxxxx xxxxx                     # FCVTL, FCVTN
00x01110 001 00001 1xxx10 xxxxx xxxxx                     # FCVTAS, FCVTAU, FCVTMS, FCVTMU, FCVTNS, FCVTNU, ...
0xx01110 0x1 10000 001110 xxxxx xxxxx                     # SADDLV, UADDLV
0x001110 0x1 10000 101010 xxxxx xxxxx                     # SMAXV
00001110 x01 10000 110010 xxxxx xxxxx                     # FMAXNMV, FMINNMV
00001110 x01 10000 111110 xxxxx xxxxx                     # FMAXV, FMINV
0x001110 0x1 10001 101x10 xxxxx xxxxx                     # ADDV, SMINV
0x001110 010 xxxxx 0000x1 xxxxx xxxxx                     # FMAXNM, FMLA
00001110 010 xxxxx 000101 xxxxx xxxxx                     # FADD
00001110 010 xxxxx 00x11x xxxxx xxxxx                     # FMULX, FRECPS, UZP1, ZIP1
00001110 010 xxxxx 001x01 xxxxx xxxxx                     # FCMEQ, FMAX
0x001110 010 xxxxx 001010 xxxxx xxxxx                     # TRN1
00001110 010 xxxxx 010110 xxxxx xxxxx                     # UZP2
00001110 010 xxxxx 011x10 xxxxx xxxxx                     # TRN2, ZIP2
0x001110 011 00000 0x0010 xxxxx xxxxx                     # CLS, REV64
0x001110 011 00000 0x1x10 xxxxx xxxxx                     # SADALP, SADDLP, SQABS, SUQADD
0x001110 011 xxxxx 10xx0x xxxxx xxxxx                     # ADD, MLA, SMAXP, SMLAL, SMLSL, SQDMLAL, SQDMLSL, ...
0x001110 011 xxxxx 10xx11 xxxxx xxxxx                     # ADDP, CMTST, MUL, SMINP
00001110 011 xxxxx 110x00 xxxxx xxxxx                     # SMULL, SQDMULL
0x001110 x11 11001 10xx10 xxxxx xxxxx                     # FCVTMS, FCVTNS, FCVTPS, FCVTZS, FRINTM, FRINTN, ...
00x01110 011 11001 110x10 xxxxx xxxxx                     # FCVTAS, FCVTAU, SCVTF, UCVTF
00001110 100 xxxxx 0x0110 xxxxx xxxxx                     # UZP1, UZP2
00001110 100 xxxxx 0x1x10 xxxxx xxxxx                     # TRN1, TRN2, ZIP1, ZIP2
0x001110 100 xxxxx 1001x1 xxxxx xxxxx                     # SDOT, USDOT
00001110 1x0 xxxxx 111111 xxxxx xxxxx                     # FDOT, FMLALB
0xx01110 101 xxxxx 0xxx0x xxxxx xxxxx                     # ADDHN, CMGT, CMHI, RADDHN, RSUBHN, SABAL, SABD, ...
0x001110 101 00000 0x0010 xxxxx xxxxx                     # CLS, REV64
0xx01110 101 xxxxx 0xxx11 xxxxx xxxxx                     # BIT, CMGE, CMHS, ORR, SABA, SMIN, SQADD, SQRSHL, ...
0xx01110 101 00000 0x1x10 xxxxx xxxxx                     # SADALP, SADDLP, SQABS, SQNEG, SUQADD, UADALP, ...
0x001110 101 xxxxx 10xx0x xxxxx xxxxx                     # ADD, MLA, SMAXP, SMLAL, SMLSL, SQDMLAL, SQDMLSL, ...
00001110 101 00000 1xxx10 xxxxx xxxxx                     # ABS, CMEQ, CMGT, CMLT, FABS, FCMEQ, FCMGT, FCMLT
0x001110 101 xxxxx 10xx11 xxxxx xxxxx                     # ADDP, CMTST, MUL, SMINP
0x001110 101 xxxxx 110x0x xxxxx xxxxx                     # FMINNM, FSUB, SMULL, SQDMULL
0x001110 101 xxxxx 110x11 xxxxx xxxxx                     # FAMAX, FMLS
0x001110 101 xxxxx 111011 xxxxx xxxxx                     # FMLSL
00001110 101 xxxxx 1111x1 xxxxx xxxxx                     # FMIN, FRSQRTS
0x001110 101 00001 001010 xxxxx xxxxx                     # XTN
0x001110 101 00001 01x010 xxxxx xxxxx                     # BFCVTN, SQXTN
00001110 101 00001 10xx10 xxxxx xxxxx                     # FCVTPS, FCVTZS, FRINTP, FRINTZ
0xx01110 101 00001 110x10 xxxxx xxxxx                     # FRECPE, FRSQRTE, URECPE, URSQRTE
00001110 110 xxxxx 000xx1 xxxxx xxxxx                     # FAMAX, FMINNM, FMLS, FSUB
00001110 110 xxxxx 0011x1 xxxxx xxxxx                     # FMIN, FRSQRTS
00x01110 111 xxxxx 000111 xxxxx xxxxx                     # BIF, ORN
0x001110 111 xxxxx 111000 xxxxx xxxxx                     # PMULL
0x001110 111 11000 11xx10 xxxxx xxxxx                     # FABS, FCMEQ, FCMGT, FCMLT
0x001110 111 11001 110110 xxxxx xxxxx                     # FRECPE
0x001111 00x xxxxx 000xx0 xxxxx xxxxx                     # FDOT, FMLA
0x001111 000 00xxx 0xxx01 xxxxx xxxxx                     # MOVI, ORR, SHL, SQSHL, SRSHR, SRSRA, SSHR, SSRA
0x001111 00x xxxxx 0101x0 xxxxx xxxxx                     # FMLS
00x01111 000 00xxx 10xx01 xxxxx xxxxx                     # BIC, MOVI, MVNI, ORR, SHRN, SQSHRN, SQSHRUN, SSHLL, ...
00001111 00x xxxxx 1001x0 xxxxx xxxxx                     # FMUL
00x01111 000 00xxx 110x01 xxxxx xxxxx                     # MOVI, MVNI
00x01111 000 00xxx 111001 xxxxx xxxxx                     # MOVI, SCVTF, UCVTF
0x001111 0xx xxxxx 1111x0 xxxxx xxxxx                     # BFDOT, SUDOT
0x001111 000 00xxx 1111x1 xxxxx xxxxx                     # FCVTZS, FMOV
0x001111 000 01xxx 00xx01 xxxxx xxxxx                     # SRSHR, SRSRA, SSHR, SSRA
0x001111 000 01xxx 01x101 xxxxx xxxxx                     # SHL, SQSHL
00x01111 000 01xxx 100xx1 xxxxx xxxxx                     # RSHRN, SHRN, SQRSHRN, SQRSHRUN, SQSHRN, SQSHRUN, ...
0xx01111 000 01xxx 101001 xxxxx xxxxx                     # SSHLL, USHLL
0x001111 000 1xxxx 00xx01 xxxxx xxxxx                     # SRSHR, SRSRA, SSHR, SSRA
0x001111 000 1xxxx 01x101 xxxxx xxxxx                     # SHL, SQSHL
00x01111 000 1xxxx 100xx1 xxxxx xxxxx                     # RSHRN, SHRN, SQRSHRN, SQRSHRUN, SQSHRN, SQSHRUN, ...
0xx01111 000 1xxxx 1x1001 xxxxx xxxxx                     # SCVTF, SSHLL, UCVTF, USHLL
00x01111 000 1xxxx 111111 xxxxx xxxxx                     # FCVTZS, FCVTZU
0x001111 001 xxxxx 00xx01 xxxxx xxxxx                     # SRSHR, SRSRA, SSHR, SSRA
0x001111 001 xxxxx 01x101 xxxxx xxxxx                     # SHL, SQSHL
00x01111 001 xxxxx 100xx1 xxxxx xxxxx                     # RSHRN, SHRN, SQRSHRN, SQRSHRUN, SQSHRN, SQSHRUN, ...
0xx01111 001 xxxxx 1x1001 xxxxx xxxxx                     # SCVTF, SSHLL, UCVTF, USHLL
00x01111 001 xxxxx 111111 xxxxx xxxxx                     # FCVTZS, FCVTZU
00001111 x1x xxxxx 0000x0 xxxxx xxxxx                     # FDOT, FMLALB
0x001111 01x xxxxx 0x1xx0 xxxxx xxxxx                     # SMLAL, SMLSL, SQDMLAL, SQDMLSL
0x001111 01x xxxxx 10xxx0 xxxxx xxxxx                     # FDOT, MUL, SMULL, SQDMULL
00001111 01x xxxxx 110xx0 xxxxx xxxxx                     # SQDMULH, SQRDMULH
0x001111 10x xxxxx xxxxx0 xxxxx xxxxx                     # FMLA, FMLAL, FMLS, FMLSL, FMUL, MUL, SDOT, SMLAL, ...
0x001111 11x xxxxx 1111x0 xxxxx xxxxx                     # BFMLAL
00011110 0x0 0001x 1xxxxx xxxxx xxxxx  rn                 # SCVTF, UCVTF
00011110 0x0 1100x 1xxxxx xxxxx xxxxx  wd                 # FCVTZS, FCVTZU
x0011110 0x1 00x0x 000000 xxxxx xxxxx  wd                 # FCVTAS, FCVTAU, FCVTNS, FCVTNU
00011110 0x1 xxxxx 0xxx01 xxxxx xxxxx                     # FCCMP, FCCMPE
00011110 0x1 xxxxx 0xxx1x xxxxx xxxxx                     # FADD, FCSEL, FDIV, FMAX, FMAXNM, FMIN, FMINNM, FMUL, ...
00011110 0x1 xxxxx xxx100 00000 xxxxx                     # FMOV
00011110 0x1 xxxxx 001000 xxxxx x0000                     # FCMP, FCMPE
00011110 0x1 00000 001000 xxxxx x1000                     # FCMP, FCMPE
00011110 0x1 00x0x x10000 xxxxx xxxxx                     # FABS, FMOV, FNEG, FRINTM, FRINTN, FRINTP, FRINTZ, ...
00011110 0x1 xxxxx 100001 xxxxx xxxxx                     # FCCMP, FCCMPE
00011110 0x1 xxxxx 10001x xxxxx xxxxx                     # FCSEL, FNMUL
00011110 0x1 xxxxx 1001x1 xxxxx xxxxx                     # FCCMP, FCCMPE, FCSEL
00011110 0x1 xxxxx 101xx1 xxxxx xxxxx                     # FCCMP, FCCMPE, FCSEL
00011110 0x1 xxxxx 11xxx1 xxxxx xxxxx                     # FCCMP, FCCMPE, FCSEL
x0011110 0x1 0001x 000000 xxxxx xxxxx  rn                 # SCVTF, UCVTF
00011110 001 0001x 110000 xxxxx xxxxx                     # FCVT
00011110 001 00110 000000 xxxxx xxxxx  wd                 # FMOV
00011110 001 00110 010000 xxxxx xxxxx                     # FRINTA
00011110 001 00111 000000 xxxxx xxxxx  rn                 # FMOV
00011110 001 00111 x10000 xxxxx xxxxx                     # FRINTI, FRINTX
x0011110 0x1 0100x 000000 xxxxx xxxxx  wd                 # FCVTPS, FCVTPU
00011110 0x1 0100x x10000 xxxxx xxxxx                     # FRINT32X, FRINT32Z, FRINT64X, FRINT64Z
x0011110 0x1 1x00x 000000 xxxxx xxxxx  wd                 # FCVTMS, FCVTMU, FCVTZS, FCVTZU
00011110 011 00x10 010000 xxxxx xxxxx                     # FCVT, FRINTA
00011110 011 00x11 x10000 xxxxx xxxxx                     # BFCVT, FCVT, FRINTI, FRINTX
00011110 x11 0101x 000000 xxxxx xxxxx                     # FCVTNS, FCVTNU
00011110 x11 1x01x 000000 xxxxx xxxxx                     # FCVTAS, FCVTAU, FCVTPS, FCVTPU
00011110 x11 101xx 000000 xxxxx xxxxx                     # FCVTMS, FCVTMU, FCVTZS, FCVTZU
00011110 x11 1110x 000000 xxxxx xxxxx                     # SCVTF, UCVTF
00011110 011 11110 000000 xxxxx xxxxx  wd                 # FJCVTZS
00011110 110 0001x 1xxxxx xxxxx xxxxx  rn                 # SCVTF, UCVTF
00011110 110 1100x 1xxxxx xxxxx xxxxx  wd                 # FCVTZS, FCVTZU
x0011110 111 00x0x 000000 xxxxx xxxxx  wd                 # FCVTAS, FCVTAU, FCVTNS, FCVTNU
00011110 111 xxxxx 0xxx01 xxxxx xxxxx                     # FCCMP, FCCMPE
00011110 111 xxxxx 0xxx1x xxxxx xxxxx                     # FADD, FCSEL, FDIV, FMAX, FMAXNM, FMIN, FMINNM, FMUL, ...
00011110 111 xxxxx xxx100 00000 xxxxx                     # FMOV
00011110 111 xxxxx 001000 xxxxx x0000                     # FCMP, FCMPE
00011110 111 00000 001000 xxxxx x1000                     # FCMP, FCMPE
00011110 111 00x0x x10000 xxxxx xxxxx                     # FABS, FMOV, FNEG, FRINTM, FRINTN, FRINTP, FRINTZ, ...
00011110 111 xxxxx 100001 xxxxx xxxxx                     # FCCMP, FCCMPE
00011110 111 xxxxx 10001x xxxxx xxxxx                     # FCSEL, FNMUL
00011110 111 xxxxx 1001x1 xxxxx xxxxx                     # FCCMP, FCCMPE, FCSEL
00011110 111 xxxxx 101xx1 xxxxx xxxxx                     # FCCMP, FCCMPE, FCSEL
00011110 111 xxxxx 11xxx1 xxxxx xxxxx                     # FCCMP, FCCMPE, FCSEL
x0011110 111 0001x 000000 xxxxx xxxxx  rn                 # SCVTF, UCVTF
00011110 111 00010 x10000 xxxxx xxxxx                     # FCVT
00011110 111 00110 000000 xxxxx xxxxx  wd                 # FMOV
00011110 111 00110 010000 xxxxx xxxxx                     # FRINTA
00011110 111 00111 000000 xxxxx xxxxx  rn                 # FMOV
00011110 111 00111 x10000 xxxxx xxxxx                     # FRINTI, FRINTX
x0011110 111 0100x 000000 xxxxx xxxxx  wd                 # FCVTPS, FCVTPU
x0011110 111 1x00x 000000 xxxxx xxxxx  wd                 # FCVTMS, FCVTMU, FCVTZS, FCVTZU
00011111 0xx xxxxx xxxxxx xxxxx xxxxx                     # FMADD, FMSUB, FNMADD, FNMSUB
00011111 11x xxxxx xxxxxx xxxxx xxxxx                     # FMADD, FMSUB, FNMADD, FNMSUB
00101110 000 xxxxx 00xxx0 xxxxx xxxxx                     # EXT
0x101110 0x1 00000 000010 xxxxx xxxxx                     # REV32
0x101110 001 0000x 001x10 xxxxx xxxxx                     # SHLL, SQXTUN, UADDLP, USQADD
0x101110 0x1 00000 01xx10 xxxxx xxxxx                     # CLZ, NOT, RBIT, SQNEG, UADALP
0x101110 0x1 xxxxx 10x00x xxxxx xxxxx                     # SUB, UMAXP, UMLAL, UMLSL
0x101110 0x1 00000 100x10 xxxxx xxxxx                     # CMGE, CMLE
0x101110 0x1 xxxxx 10x011 xxxxx xxxxx                     # CMEQ, UMINP
0x101110 001 xxxxx 1x01x1 xxxxx xxxxx                     # FADDP, FMUL, MLS, PMUL
0x101110 0x1 00000 101110 xxxxx xxxxx                     # NEG
00101110 x01 xxxxx 11000x xxxxx xxxxx                     # FMAXNMP, FMINNMP, UMULL
0x101110 x01 xxxxx 110011 xxxxx xxxxx                     # FMLAL2, FMLSL2
00101110 x01 xxxxx 111xx1 xxxxx xxxxx                     # FACGE, FACGT, FCMGE, FCMGT, FDIV, FMAXP, FMINP, ...
0x101110 001 00001 011110 xxxxx xxxxx                     # F1CVTL
0x101110 0x1 1000x 101010 xxxxx xxxxx                     # UMAXV, UMINV
0x101110 x10 xxxxx 000001 xxxxx xxxxx                     # FMAXNMP, FMINNMP
0x101110 x10 xxxxx 0001x1 xxxxx xxxxx                     # FABD, FADDP, FAMIN, FMUL
0x101110 x10 xxxxx 001xx1 xxxxx xxxxx                     # FACGE, FACGT, FCMGE, FCMGT, FDIV, FMAXP, FMINP, ...
00101110 010 xxxxx 1000x1 xxxxx xxxxx                     # SQRDMLAH, SQRDMLSH
00101110 010 xxxxx 110xx1 xxxxx xxxxx                     # FCMLA
00101110 010 xxxxx 111001 xxxxx xxxxx                     # FCADD
00101110 010 xxxxx 1111x1 xxxxx xxxxx                     # BFDOT, FCADD
0x101110 011 00000 001x10 xxxxx xxxxx                     # UADDLP, USQADD
0x101110 011 xxxxx 10x101 xxxxx xxxxx                     # MLS, SQRDMULH
00101110 011 xxxxx 110000 xxxxx xxxxx                     # UMULL
0x101110 011 00001 0x1x10 xxxxx xxxxx                     # F2CVTL, FCVTXN, SHLL, SQXTUN
0x101110 011 11001 10xx10 xxxxx xxxxx                     # FCVTMU, FCVTNU, FRINTA, FRINTX
00101110 100 xxxxx 1000x1 xxxxx xxxxx                     # SQRDMLAH, SQRDMLSH
0x101110 100 xxxxx 100101 xxxxx xxxxx                     # UDOT
00101110 100 xxxxx 110xx1 xxxxx xxxxx                     # FCMLA
00101110 100 xxxxx 111x01 xxxxx xxxxx                     # FCADD
0x101110 101 0000x 010010 xxxxx xxxxx                     # CLZ, UQXTN
0x101110 101 xxxxx 10x00x xxxxx xxxxx                     # SUB, UMAXP, UMLAL, UMLSL
00101110 101 00000 1x0x10 xxxxx xxxxx                     # CMGE, CMLE, FCMGE, FCMLE
0x101110 101 xxxxx 10x011 xxxxx xxxxx                     # CMEQ, UMINP
0x101110 101 xxxxx 10x101 xxxxx xxxxx                     # MLS, SQRDMULH
0x101110 101 00000 1x1110 xxxxx xxxxx                     # FNEG, NEG
00101110 101 xxxxx 1101x1 xxxxx xxxxx                     # FABD, FAMIN
0x101110 101 00001 x01x10 xxxxx xxxxx                     # FCVTPU, FCVTZU, SHLL, SQXTUN
0x101110 101 00001 x11110 xxxxx xxxxx                     # BF1CVTL, FSQRT
00101110 101 00001 100110 xxxxx xxxxx                     # FRINTI
00101110 110 xxxxx 111111 xxxxx xxxxx                     # BFMLAL
0x101110 111 00001 011110 xxxxx xxxxx                     # BF2CVTL
00101110 111 11000 110x10 xxxxx xxxxx                     # FCMGE, FCMLE
0x101110 111 11000 111110 xxxxx xxxxx                     # FNEG
0x101110 111 11001 100110 xxxxx xxxxx                     # FRINTI
0x101110 111 11001 101x10 xxxxx xxxxx                     # FCVTPU, FCVTZU
0x101110 111 11001 11x110 xxxxx xxxxx                     # FRSQRTE, FSQRT
00101111 00x xxxxx 0xxx01 xxxxx xxxxx                     # BIC, MVNI, SLI, SQSHLU, SRI, UQSHL, URSHR, URSRA, ...
0x101111 x0x xxxxx 100xx0 xxxxx xxxxx                     # FMLAL2, FMLALLBB, FMLALLTB, FMULX
00101111 01x xxxxx 0xx0x0 xxxxx xxxxx                     # MLA, MLS, UMLAL, UMLSL
00101111 01x xxxxx 0xx100 xxxxx xxxxx                     # FCMLA
0x101111 01x xxxxx 10x0x0 xxxxx xxxxx                     # FMLALLBT, FMLALLTT, UMULL
00101111 01x xxxxx 11x1x0 xxxxx xxxxx                     # SQRDMLAH, SQRDMLSH
00101111 10x xxxxx 0xx0x0 xxxxx xxxxx                     # MLA, MLS, UMLAL, UMLSL
0x101111 10x xxxxx 1010x0 xxxxx xxxxx                     # UMULL
0x101111 10x xxxxx 11xxx0 xxxxx xxxxx                     # FMLSL2, SQRDMLAH, SQRDMLSH, UDOT
01001110 000 xxxxx 1111x1 xxxxx xxxxx                     # FCVTN, FDOT
010x1110 000 x0001 000001 xxxxx xxxxx                     # DUP
01001110 000 x0001 000x11 xxxxx xxxxx  rn                 # DUP, INS
01001110 000 xx001 001011 xxxxx xxxxx  wd                 # SMOV
010x1110 000 x001x 000001 xxxxx xxxxx                     # DUP
01001110 000 x001x 000x11 xxxxx xxxxx  rn                 # DUP, INS
01001110 000 xx01x 001011 xxxxx xxxxx  wd                 # SMOV
010x1110 000 x01xx 000001 xxxxx xxxxx                     # DUP
01001110 000 x01xx 000x11 xxxxx xxxxx  rn                 # DUP, INS
01001110 000 xx1xx 001011 xxxxx xxxxx  wd                 # SMOV
010x1110 000 x1xxx 000001 xxxxx xxxxx                     # DUP
01001110 000 x1xxx 000x11 xxxxx xxxxx  rn                 # DUP, INS
01001110 000 x1000 001111 xxxxx xxxxx  wd                 # UMOV
010x1110 0x1 00001 010010 xxxxx xxxxx                     # SQXTN
01x01110 0x1 00001 1xxx10 xxxxx xxxxx                     # FCVTAS, FCVTAU, FCVTMS, FCVTMU, FCVTNS, FCVTNU, ...
01001110 001 01000 01xx10 xxxxx xxxxx                     # AESD, AESE, AESIMC, AESMC
01x01110 x01 10000 110010 xxxxx xxxxx                     # FMAXNMV, FMINNMV
010x1110 x01 10000 111110 xxxxx xxxxx                     # FMAXP, FMAXV, FMINP, FMINV
01001110 x10 xxxxx 00x1xx xxxxx xxxxx                     # FADD, FAMAX, FMAX, FMIN, FMULX, FRECPS, FRSQRTS, ...
01001110 010 xxxxx 00100x xxxxx xxxxx                     # FCMEQ, LUTI4
01001110 x10 xxxxx 0101x0 xxxxx xxxxx                     # LUTI2, LUTI4, UZP2
01001110 x10 xxxxx 011xx0 xxxxx xxxxx                     # LUTI2, LUTI4, TRN2, ZIP2
01001110 010 xxxxx 111011 xxxxx xxxxx                     # FMMLA
01001110 01x xxxxx 1111x1 xxxxx xxxxx                     # FCVTN, FDOT, FMAX, FRECPS
01001110 011 xxxxx 110x0x xxxxx xxxxx                     # FADD, FMAXNM, SMULL, SQDMULL
01001110 011 xxxxx 110x11 xxxxx xxxxx                     # FMLA, FMULX
01001110 011 xxxxx 111001 xxxxx xxxxx                     # FCMEQ
01xx1110 011 11001 110x10 xxxxx xxxxx                     # FCVTAS, FCVTAU, SCVTF, UCVTF
01001110 100 xxxxx 0xx1x0 xxxxx xxxxx                     # LUTI2, UZP1, UZP2, ZIP1, ZIP2
01001110 100 xxxxx 0x1010 xxxxx xxxxx                     # TRN1, TRN2
01001110 100 xxxxx 1010x1 xxxxx xxxxx                     # SMMLA, USMMLA
01001110 100 xxxxx 111111 xxxxx xxxxx                     # FDOT
01001110 1x1 00000 1xxx10 xxxxx xxxxx                     # ABS, CMEQ, CMGT, CMLT, FABS, FCMEQ, FCMGT, FCMLT
01001110 1x1 xxxxx 1111x1 xxxxx xxxxx                     # FMIN, FRSQRTS
01001110 1x1 00001 10xx10 xxxxx xxxxx                     # FCVTPS, FCVTZS, FRINTP, FRINTZ
01x01110 101 10000 001110 xxxxx xxxxx                     # SADDLV, UADDLV
01001110 101 10000 101010 xxxxx xxxxx                     # SMAXV
01001110 101 10001 101x10 xxxxx xxxxx                     # ADDV, SMINV
01001110 110 xxxxx 00000x xxxxx xxxxx                     # FMINNM, LUTI2
01001110 110 xxxxx 000011 xxxxx xxxxx                     # FMLS
01001110 110 xxxxx 0010x0 xxxxx xxxxx                     # LUTI2, TRN1
01001110 110 xxxxx 010000 xxxxx xxxxx                     # LUTI2
01001110 110 xxxxx 111x11 xxxxx xxxxx                     # FMLALT, FMMLA
01x01110 111 xxxxx 000x11 xxxxx xxxxx                     # BIF, ORN, SQADD, UQADD
01x01110 111 xxxxx 001011 xxxxx xxxxx                     # SQSUB, UQSUB
01xx1110 111 xxxxx 0011x1 xxxxx xxxxx                     # CMGE, CMGT, CMHI, CMHS
01001110 111 00000 0x1110 xxxxx xxxxx                     # SQABS, SUQADD
01001110 111 xxxxx x10xx1 xxxxx xxxxx                     # FAMAX, FMINNM, FMLS, FSUB, SQRSHL, SQSHL, SRSHL, ...
01xx1110 111 xxxxx 1000x1 xxxxx xxxxx                     # ADD, CMEQ, CMTST, SUB
01001110 111 xxxxx 101111 xxxxx xxxxx                     # ADDP
01001110 111 00001 110110 xxxxx xxxxx                     # FRECPE
01001111 000 00xxx 10xx01 xxxxx xxxxx                     # MOVI, ORR, SHRN, SQSHRN, SSHLL
010x1111 00x xxxxx 1001x0 xxxxx xxxxx                     # FMUL
01001111 000 00xxx 110x01 xxxxx xxxxx                     # MOVI
01001111 000 00xxx 111001 xxxxx xxxxx                     # MOVI, SCVTF
01001111 000 01xxx 100xx1 xxxxx xxxxx                     # RSHRN, SHRN, SQRSHRN, SQSHRN
01001111 000 1xxxx 100xx1 xxxxx xxxxx                     # RSHRN, SHRN, SQRSHRN, SQSHRN
01xx1111 000 1xxxx 111111 xxxxx xxxxx                     # FCVTZS, FCVTZU
01001111 001 xxxxx 100xx1 xxxxx xxxxx                     # RSHRN, SHRN, SQRSHRN, SQSHRN
01xx1111 001 xxxxx 111111 xxxxx xxxxx                     # FCVTZS, FCVTZU
01001111 01x xxxxx 0000x0 xxxxx xxxxx                     # FDOT
010x1111 01x xxxxx 00xx01 xxxxx xxxxx                     # SRSHR, SRSRA, SSHR, SSRA
010x1111 01x xxxxx 01x101 xxxxx xxxxx                     # SHL, SQSHL
010x1111 01x xxxxx 110xx0 xxxxx xxxxx                     # SQDMULH, SQRDMULH
01xx1111 01x xxxxx 111001 xxxxx xxxxx                     # SCVTF, UCVTF
01xx1111 01x xxxxx 111111 xxxxx xxxxx                     # FCVTZS, FCVTZU
01001111 110 xxxxx 000xx0 xxxxx xxxxx                     # FMLA, FMLALT
01001111 110 xxxxx 0101x0 xxxxx xxxxx                     # FMLS
01xx1111 110 xxxxx 1001x0 xxxxx xxxxx                     # FMUL, FMULX
01001111 111 xxxxx 0000x0 xxxxx xxxxx                     # FMLALT
01011110 000 xxxxx 00xx00 xxxxx xxxxx                     # SHA1C, SHA1M, SHA1P, SHA1SU0
01011110 000 xxxxx 010x00 xxxxx xxxxx                     # SHA256H, SHA256H2
01011110 000 xxxxx 011000 xxxxx xxxxx                     # SHA256SU1
01x11110 xx1 xxxxx 00x011 xxxxx xxxxx                     # SQADD, SQSUB, UQADD, UQSUB
01x11110 xx1 00000 0x1110 xxxxx xxxxx                     # SQABS, SQNEG, SUQADD, USQADD
01x11110 0x1 xxxxx 010x11 xxxxx xxxxx                     # SQRSHL, SQSHL, UQRSHL, UQSHL
01011110 0x1 xxxxx 11x111 xxxxx xxxxx                     # FMULX, FRECPS
01011110 0x1 xxxxx 111001 xxxxx xxxxx                     # FCMEQ
01x11110 xx1 00001 101x10 xxxxx xxxxx                     # FCVTMS, FCVTMU, FCVTNS, FCVTNU, FCVTPS, FCVTPU, ...
01x11110 0x1 00001 110x10 xxxxx xxxxx                     # FCVTAS, FCVTAU, SCVTF, UCVTF
01011110 001 01000 000x10 xxxxx xxxxx                     # SHA1H, SHA1SU1
01011110 001 01000 001010 xxxxx xxxxx                     # SHA256SU0
01011110 001 10000 110x10 xxxxx xxxxx                     # FADDP, FMAXNMP
01011110 010 xxxxx 00x111 xxxxx xxxxx                     # FMULX, FRECPS
01011110 010 xxxxx 001001 xxxxx xxxxx                     # FCMEQ
01011110 011 xxxxx 1x0100 xxxxx xxxxx                     # SQDMLAL, SQDMULL
01011110 011 xxxxx 10110x xxxxx xxxxx                     # SQDMLSL, SQDMULH
01x11110 x11 11001 101x10 xxxxx xxxxx                     # FCVTMS, FCVTMU, FCVTNS, FCVTNU, FCVTPS, FCVTPU, ...
01x11110 101 xxxxx 010x11 xxxxx xxxxx                     # SQRSHL, SQSHL, UQRSHL, UQSHL
01011110 101 xxxxx 1x0100 xxxxx xxxxx                     # SQDMLAL, SQDMULL
01011110 101 xxxxx 10110x xxxxx xxxxx                     # SQDMLSL, SQDMULH
01011110 1x1 00000 110x10 xxxxx xxxxx                     # FCMEQ, FCMGT
01011110 1x1 00000 111010 xxxxx xxxxx                     # FCMLT
01011110 1x1 xxxxx 111111 xxxxx xxxxx                     # FRSQRTS
01011110 101 00001 010010 xxxxx xxxxx                     # SQXTN
01011110 1x1 00001 11x110 xxxxx xxxxx                     # FRECPE, FRECPX
01011110 101 10000 110010 xxxxx xxxxx                     # FMINNMP
01011110 110 xxxxx 001111 xxxxx xxxxx                     # FRSQRTS
01011110 111 xxxxx 010xx1 xxxxx xxxxx                     # SQRSHL, SQSHL, SRSHL, SSHL
01011110 111 00000 10xx10 xxxxx xxxxx                     # ABS, CMEQ, CMGT, CMLT
01011110 111 10001 101110 xxxxx xxxxx                     # ADDP
01011110 111 11000 110x10 xxxxx xxxxx                     # FCMEQ, FCMGT
01011110 111 11000 111010 xxxxx xxxxx                     # FCMLT
01011110 111 11001 11x110 xxxxx xxxxx                     # FRECPE, FRECPX
01011111 00x xxxxx 0x01x0 xxxxx xxxxx                     # FMLA, FMLS
01011111 000 01xxx 011101 xxxxx xxxxx                     # SQSHL
01011111 000 01xxx 1001x1 xxxxx xxxxx                     # SQRSHRN, SQSHRN
01011111 000 1xxxx 011101 xxxxx xxxxx                     # SQSHL
01011111 000 1xxxx 1001x1 xxxxx xxxxx                     # SQRSHRN, SQSHRN
01x11111 000 1xxxx 111001 xxxxx xxxxx                     # SCVTF, UCVTF
01011111 001 xxxxx 011101 xxxxx xxxxx                     # SQSHL
01011111 001 xxxxx 1001x1 xxxxx xxxxx                     # SQRSHRN, SQSHRN
01x11111 001 xxxxx 111001 xxxxx xxxxx                     # SCVTF, UCVTF
01011111 01x xxxxx 0x11x0 xxxxx xxxxx                     # SQDMLAL, SQDMLSL
01011111 01x xxxxx 1011x0 xxxxx xxxxx                     # SQDMULL
01011111 10x xxxxx 0xx1x0 xxxxx xxxxx                     # FMLA, FMLS, SQDMLAL, SQDMLSL
01011111 10x xxxxx 10x1x0 xxxxx xxxxx                     # FMUL, SQDMULL
01011111 10x xxxxx 110xx0 xxxxx xxxxx                     # SQDMULH, SQRDMULH
01011111 110 xxxxx 0x01x0 xxxxx xxxxx                     # FMLA, FMLS
01101110 000 xxxxx 0xxxx0 xxxxx xxxxx                     # EXT
01101110 000 xxxxx 111011 xxxxx xxxxx                     # FMMLA
01101110 000 x0001 0xxxx1 xxxxx xxxxx                     # INS
01101110 000 x001x 0xxxx1 xxxxx xxxxx                     # INS
01101110 000 x01xx 0xxxx1 xxxxx xxxxx                     # INS
01101110 000 x1xxx 0xxxx1 xxxxx xxxxx                     # INS
01101110 0x1 xxxxx 11000x xxxxx xxxxx                     # FMAXNMP, UMULL
01101110 xx1 xxxxx 111xx1 xxxxx xxxxx                     # FACGE, FACGT, FCMGE, FCMGT, FDIV, FMAXP, FMINP, ...
01101110 0x1 00001 010010 xxxxx xxxxx                     # UQXTN
01101110 x01 10000 111110 xxxxx xxxxx                     # FMAXV, FMINV
011x1110 010 xxxxx 1000x1 xxxxx xxxxx                     # SQRDMLAH, SQRDMLSH
01101110 010 xxxxx 11xxx1 xxxxx xxxxx                     # BFDOT, BFMMLA, FCADD, FCMLA
01101110 011 xxxxx 1101x1 xxxxx xxxxx                     # FADDP, FMUL
011x1110 100 xxxxx 1000x1 xxxxx xxxxx                     # SQRDMLAH, SQRDMLSH
01101110 100 xxxxx 101001 xxxxx xxxxx                     # UMMLA
01101110 1x0 xxxxx 110xx1 xxxxx xxxxx                     # FCMLA
01101110 100 xxxxx 1110x1 xxxxx xxxxx                     # FCADD, FMMLA
01101110 100 xxxxx 111101 xxxxx xxxxx                     # FCADD
01101110 1x1 00000 1x0x10 xxxxx xxxxx                     # CMGE, CMLE, FCMGE, FCMLE
01101110 101 xxxxx 11000x xxxxx xxxxx                     # FMINNMP, UMULL
01101110 1x1 xxxxx 1101x1 xxxxx xxxxx                     # FABD, FAMIN
01101110 1x1 00001 100110 xxxxx xxxxx                     # FRINTI
01101110 101 1000x 101010 xxxxx xxxxx                     # UMAXV, UMINV
01101110 110 xxxxx 111001 xxxxx xxxxx                     # FCADD
01101110 110 xxxxx 1111x1 xxxxx xxxxx                     # BFMLAL, FCADD
01101110 111 00000 xx1110 xxxxx xxxxx                     # FNEG, NEG, SQNEG, USQADD
011x1110 111 xxxxx 010xx1 xxxxx xxxxx                     # UQRSHL, UQSHL, URSHL, USHL
01101110 111 xxxxx 110001 xxxxx xxxxx                     # FMINNMP
01101110 111 00001 101x10 xxxxx xxxxx                     # FCVTPU, FCVTZU
01101110 111 00001 11x110 xxxxx xxxxx                     # FRSQRTE, FSQRT
011x1110 111 11000 110x10 xxxxx xxxxx                     # FCMGE, FCMLE
01101111 000 00xxx xxxx01 xxxxx xxxxx                     # BIC, FMOV, MOVI, MVNI, SLI, SQSHLU, SQSHRUN, SRI, ...
01101111 000 01xxx 0xxx01 xxxxx xxxxx                     # SLI, SQSHLU, SRI, UQSHL, URSHR, URSRA, USHR, USRA
011x1111 000 01xxx 100xx1 xxxxx xxxxx                     # SQRSHRUN, SQSHRUN, UQRSHRN, UQSHRN
01101111 000 1xxxx 0xxx01 xxxxx xxxxx                     # SLI, SQSHLU, SRI, UQSHL, URSHR, URSRA, USHR, USRA
011x1111 000 1xxxx 100xx1 xxxxx xxxxx                     # SQRSHRUN, SQSHRUN, UQRSHRN, UQSHRN
01101111 001 xxxxx 0xxx01 xxxxx xxxxx                     # SLI, SQSHLU, SRI, UQSHL, URSHR, URSRA, USHR, USRA
011x1111 001 xxxxx 100xx1 xxxxx xxxxx                     # SQRSHRUN, SQSHRUN, UQRSHRN, UQSHRN
01101111 01x xxxxx 0xxxx0 xxxxx xxxxx                     # FCMLA, MLA, MLS, UMLAL, UMLSL
011x1111 01x xxxxx 0xxx01 xxxxx xxxxx                     # SLI, SQSHLU, SRI, UQSHL, URSHR, URSRA, USHR, USRA
011x1111 01x xxxxx 11x1x0 xxxxx xxxxx                     # SQRDMLAH, SQRDMLSH
01101111 100 xxxxx 0xxxx0 xxxxx xxxxx                     # FCMLA, MLA, MLS, UMLAL, UMLSL
01101111 101 xxxxx 0xx0x0 xxxxx xxxxx                     # MLA, MLS, UMLAL, UMLSL
01111110 xx1 xxxxx 1110x1 xxxxx xxxxx                     # FACGE, FACGT, FCMGE, FCMGT
01111110 0x1 00001 001010 xxxxx xxxxx                     # SQXTUN
01111110 x01 00001 010010 xxxxx xxxxx                     # UQXTN
01111110 0x1 10000 110x10 xxxxx xxxxx                     # FADDP, FMAXNMP
01111110 xx1 10000 111110 xxxxx xxxxx                     # FMAXP, FMINP
01111110 x10 xxxxx 0010x1 xxxxx xxxxx                     # FACGE, FACGT, FCMGE, FCMGT
01111110 011 xxxxx 101101 xxxxx xxxxx                     # SQRDMULH
01111110 011 00001 01x010 xxxxx xxxxx                     # FCVTXN, UQXTN
01111110 101 xxxxx 101101 xxxxx xxxxx                     # SQRDMULH
01111110 101 00000 110x10 xxxxx xxxxx                     # FCMGE, FCMLE
01111110 1x1 xxxxx 110101 xxxxx xxxxx                     # FABD
01111110 101 00001 001010 xxxxx xxxxx                     # SQXTUN
01111110 1x1 00001 110110 xxxxx xxxxx                     # FRSQRTE
01111110 1x1 10000 110010 xxxxx xxxxx                     # FMINNMP
01111110 110 xxxxx 000101 xxxxx xxxxx                     # FABD
01111110 111 00000 1x0x10 xxxxx xxxxx                     # CMGE, CMLE, FCMGE, FCMLE
01111110 111 00000 101110 xxxxx xxxxx                     # NEG
01111110 111 11001 110110 xxxxx xxxxx                     # FRSQRTE
01111111 x0x xxxxx 1001x0 xxxxx xxxxx                     # FMULX
01111111 000 01xxx 011x01 xxxxx xxxxx                     # SQSHLU, UQSHL
01111111 000 1xxxx 011x01 xxxxx xxxxx                     # SQSHLU, UQSHL
01111111 001 xxxxx 011x01 xxxxx xxxxx                     # SQSHLU, UQSHL
01111111 10x xxxxx 11x1x0 xxxxx xxxxx                     # SQRDMLAH, SQRDMLSH
10011110 0x0 0001x xxxxxx xxxxx xxxxx  rn                 # SCVTF, UCVTF
10011110 0x0 1100x xxxxxx xxxxx xxxxx  wd                 # FCVTZS, FCVTZU
10011110 001 0101x 000000 xxxxx xxxxx                     # FCVTNS, FCVTNU
10011110 001 1x01x 000000 xxxxx xxxxx                     # FCVTAS, FCVTAU, FCVTPS, FCVTPU
10011110 001 101xx 000000 xxxxx xxxxx                     # FCVTMS, FCVTMU, FCVTZS, FCVTZU
10011110 001 1110x 000000 xxxxx xxxxx                     # SCVTF, UCVTF
10011110 x11 00110 000000 xxxxx xxxxx  wd                 # FMOV
10011110 x11 00111 000000 xxxxx xxxxx  rn                 # FMOV
10011110 101 01110 000000 xxxxx xxxxx  wd                 # FMOV
10011110 101 01111 000000 xxxxx xxxxx  rn                 # FMOV
10011110 110 0001x xxxxxx xxxxx xxxxx  rn                 # SCVTF, UCVTF
10011110 110 1100x xxxxxx xxxxx xxxxx  wd                 # FCVTZS, FCVTZU
10011110 111 0101x 000000 xxxxx xxxxx                     # FCVTNS, FCVTNU
10011110 111 1x01x 000000 xxxxx xxxxx                     # FCVTAS, FCVTAU, FCVTPS, FCVTPU
10011110 111 101xx 000000 xxxxx xxxxx                     # FCVTMS, FCVTMU, FCVTZS, FCVTZU
10011110 111 1110x 000000 xxxxx xxxxx                     # SCVTF, UCVTF
11001110 00x xxxxx 0xxxxx xxxxx xxxxx                     # BCAX, EOR3
11001110 010 xxxxx 0xxxxx xxxxx xxxxx                     # SM3SS1
11001110 010 xxxxx 10xxxx xxxxx xxxxx                     # SM3TT1A, SM3TT1B, SM3TT2A, SM3TT2B
11001110 011 xxxxx 1000xx xxxxx xxxxx                     # RAX1, SHA512H, SHA512H2, SHA512SU1
11001110 011 xxxxx 11000x xxxxx xxxxx                     # SM3PARTW1, SM3PARTW2
11001110 011 xxxxx 110010 xxxxx xxxxx                     # SM4EKEY
11001110 100 xxxxx xxxxxx xxxxx xxxxx                     # XAR
11001110 110 00000 10000x xxxxx xxxxx                     # SHA512SU0, SM4E
"""
