"""Layer 1: encodings of SME data processing.

The language is that of `surefoot.isa.forms`; lines that differ in one bit and do the same
are written as one. Slices of the array are chosen by w8 to w15.

Source: Arm's machine-readable specification of the A-profile architecture (AARCHMRS, BSD-licensed edition of 2026),
with the reserved values of size, shift and immediate fields left out as in the Arm Architecture Reference Manual
(DDI 0487), C4.1 "SME encodings".
"""

from __future__ import annotations

from typing import Final

__all__ = ["SME"]

SME: Final = """
1000000x 000 xxxx0 000000 xxxx0 x00xx                     # BFMOP4A, BFMOP4S, FMOP4A, FMOP4S
1000000x 000 xxxx0 100000 xxxx0 xx0xx                     # SMOP4A, SMOP4S, UMOP4A, UMOP4S, USMOP4A, USMOP4S
10000000 001 xxxx0 000000 xxxx0 000xx                     # FMOP4A
10000000 001 xxxx0 000000 xxxx0 0100x                     # FMOP4A
10000000 001 xxxx0 100000 xxxx0 x00xx                     # SUMOP4A, SUMOP4S
1000000x 010 xxxxx 000xxx xxxxx x00xx                     # BFTMOPA, FTMOPA
1000000x 010 xxxxx 100xxx xxxxx xx0xx                     # STMOPA, USTMOPA, UTMOPA
1000000x 011 xxxxx x00xxx xxxxx x00xx                     # FTMOPA, SUTMOPA, UTMOPA
10000000 011 xxxxx 000xxx xxxxx x100x                     # FTMOPA
10000000 100 xxxxx xxxxxx xxxxx xx0xx                     # BMOPA, BMOPS, FMOPA, FMOPS
10000000 101 xxxxx xxxxxx xxxxx 000xx                     # FMOPA
10000000 101 xxxxx xxxxxx xxxxx 0100x                     # FMOPA
10000000 110 xxxxx xxxxxx xxxxx x0xxx                     # FMOPA, FMOPS
10000000 110 xxxx0 000000 xxxx0 x1xxx                     # FMOP4A, FMOP4S
10000001 00x xxxx0 000000 xxxx0 x100x                     # BFMOP4A, BFMOP4S, FMOP4A, FMOP4S
10000001 001 xxxx0 x00000 xxxx0 x00xx                     # FMOP4A, FMOP4S, UMOP4A, UMOP4S
10000001 01x xxxxx 000xxx xxxxx x100x                     # BFTMOPA, FTMOPA
10000001 10x xxxxx xxxxxx xxxxx x00xx                     # BFMOPA, BFMOPS, FMOPA, FMOPS
10000001 10x xxxxx xxxxxx xxxxx x100x                     # BFMOPA, BFMOPS, FMOPA, FMOPS
1010000x 100 xxxxx xxxxxx xxxxx xx0xx                     # SMOPA, SMOPS, UMOPA, UMOPS, USMOPA, USMOPS
1010000x 101 xxxxx xxxxxx xxxxx x00xx                     # SUMOPA, SUMOPS, UMOPA, UMOPS
1010000x 11x xxxxx xxxxxx xxxxx x0xxx                     # SMOPA, SMOPS, SUMOPA, SUMOPS, UMOPA, UMOPS, USMOPA, ...
1010000x 11x xxxx0 000000 xxxx0 x1xxx                     # SMOP4A, SMOP4S, SUMOP4A, SUMOP4S, UMOP4A, UMOP4S, ...
11000000 0x0 00000 xxxxxx xxxxx 0xxxx  r8-15              # MOVA
11000000 0x0 00010 xxxxxx 0xxxx xxxxx  r8-15              # MOVA
11000000 0x0 00010 xxx000 1xxxx xxxxx  r8-15              # MOVAZ
11000000 000 00100 0xx0x0 xxxx0 00xxx  r8-15              # MOVA
11000000 0x0 00100 xxx001 xxx00 000xx  r8-15              # MOVA
11000000 000 00100 0xx011 xxx00 00xxx  r8-15              # MOVA
11000000 000 00100 1xx000 xxxx0 00xxx  r8-15              # MOVA
11000000 000 00110 0xx0x0 x0xxx xxxx0  r8-15              # MOVA, MOVAZ
11000000 0x0 00110 xxx001 x00xx xxx00  r8-15              # MOVA, MOVAZ
11000000 000 00110 0xx011 x0xxx xxx00  r8-15              # MOVA, MOVAZ
11000000 000 00110 1xx000 x0xxx xxxx0  r8-15              # MOVA, MOVAZ
11000000 000 01000 000000 00xxx xxxxx                     # ZERO
11000000 000 01100 xxx000 00000 00xxx  r8-15              # ZERO
11000000 000 01101 xxx000 00000 000xx  r8-15              # ZERO
11000000 000 01110 0xx000 00000 00xxx  r8-15              # ZERO
11000000 000 01110 1xx000 00000 000xx  r8-15              # ZERO
11000000 000 01111 xxx000 00000 0000x  r8-15              # ZERO
11000000 010 00100 xxx000 xxxx0 00xxx  r8-15              # MOVA
11000000 010 00110 xxx000 x0xxx xxxx0  r8-15              # MOVA, MOVAZ
11000000 010 01000 000000 00000 00001                     # ZERO
11000000 010 01100 0xxx00 11111 xxxxx  wd                 # MOVT
11000000 010 01110 0xxx00 11111 xxxxx  rd                 # MOVT
11000000 010 01111 00xx00 11111 xxxxx  rd                 # MOVT
11000000 100 00000 xxxxxx xxxxx 0xxxx  r8-15              # MOVA
11000000 100 00010 xxxxxx 0xxxx xxxxx  r8-15              # MOVA
11000000 100 00010 xxx000 1xxxx xxxxx  r8-15              # MOVAZ
11000000 1x0 00100 xxx000 xxxx0 00xxx  r8-15              # MOVA
11000000 100 00100 xxx001 xxx00 000xx  r8-15              # MOVA
11000000 1x0 00110 xxx000 x0xxx xxxx0  r8-15              # MOVA, MOVAZ
11000000 100 00110 xxx001 x00xx xxx00  r8-15              # MOVA, MOVAZ
11000000 100 01010 000000 xxx00 xxx00                     # LUTI6
11000000 100 0101x x10x00 xxxxx xxxx0                     # LUTI4
11000000 100 0101x x11000 xxxxx xxxx0                     # LUTI4
11000000 100 0101x 100100 xxxxx xxx00                     # LUTI4
11000000 100 0101x 101000 xxxxx xxx00                     # LUTI4
11000000 100 01011 000000 xxxx0 xxx00                     # LUTI4
11000000 100 011xx x10x00 xxxxx xxxx0                     # LUTI2
11000000 100 011xx x11000 xxxxx xxxx0                     # LUTI2
11000000 100 011xx 100x00 xxxxx xxx00                     # LUTI2
11000000 100 011xx 101000 xxxxx xxx00                     # LUTI2
11000000 100 1000x xxxxxx xxxxx 000xx                     # ADDHA, ADDVA
11000000 100 11010 000000 xxx00 x00xx                     # LUTI6
11000000 100 1101x x10x00 xxxxx x0xxx                     # LUTI4
11000000 100 1101x 100100 xxxxx x00xx                     # LUTI4
11000000 100 11011 000000 xxxx0 x00xx                     # LUTI4
11000000 100 111xx x10x00 xxxxx x0xxx                     # LUTI2
11000000 100 111xx 100x00 xxxxx x00xx                     # LUTI2
11000000 110 0000x xxxxxx xxxxx 0xxxx  r8-15              # MOVA
11000000 110 0001x xxxxxx 0xxxx xxxxx  r8-15              # MOVA
11000000 110 0001x xxx000 1xxxx xxxxx  r8-15              # MOVAZ
11000000 110 00100 xxx001 xxx00 00xxx  r8-15              # MOVA
11000000 110 00110 xxx001 x0xxx xxx00  r8-15              # MOVA, MOVAZ
11000000 110 01000 010000 xxxxx xxxxx                     # LUTI6
11000000 110 0101x xx0x00 xxxxx xxxxx                     # LUTI4
11000000 110 0101x xx1000 xxxxx xxxxx                     # LUTI4
11000000 110 011xx xx0x00 xxxxx xxxxx                     # LUTI2
11000000 110 011xx xx1000 xxxxx xxxxx                     # LUTI2
11000000 110 1000x xxxxxx xxxxx 00xxx                     # ADDHA, ADDVA
11000001 000 0xxxx xxxxxx xxxxx x0xxx  r8-15              # SMLALL, SUMLALL, UMLALL, USMLALL
11000001 000 0xxxx xxxxxx xxxxx x10xx  r8-15              # SMLSLL, UMLSLL
11000001 0x0 1xxxx 0xx0xx xxxx0 xxxxx  r8-15              # BFVDOT, FMLA, FMLS, FVDOT, SMLALL, SMLSLL, UMLALL, ...
11000001 000 1xxxx 0xx0xx xxxx1 x0xxx  r8-15              # SUMLALL, USMLALL
11000001 0x0 1xxxx 0xx1xx xxxxx xxxxx  r8-15              # BFDOT, BFMLA, BFMLS, FDOT, FMLA, FMLS, SDOT, SUDOT, ...
11000001 000 1xxxx 1xx0xx xxx00 xxxxx  r8-15              # SMLALL, SMLSLL, UMLALL, UMLSLL
11000001 000 1xxxx 1xx0xx xxx01 x0xxx  r8-15              # SUMLALL, USMLALL
11000001 000 1xxxx 1xx0xx xxx10 00xxx  r8-15              # FMLALL
11000001 0x0 1xxxx 1xx1xx xxx0x xxxxx  r8-15              # BFDOT, BFMLA, BFMLS, FDOT, FMLA, FMLS, SDOT, SUDOT, ...
11000001 000 1xxxx 1xx1xx xxx10 0xxxx  r8-15              # FDOT
11000001 001 0xxxx 0xx000 xxxxx 000xx  r8-15              # FMLALL, SMLALL
11000001 001 xxxxx 0xx000 xxxxx 0010x  r8-15              # USMLALL
11000001 001 xxxxx 0xx000 xxxxx x100x  r8-15              # SMLSLL, UMLSLL
11000001 001 xxxxx 0xx000 xxxxx 10x0x  r8-15              # SUMLALL, UMLALL
11000001 001 0xxxx 0xx001 xxxxx 00xxx  r8-15              # SMLALL, USMLALL
11000001 001 0xxxx 0xx001 xxxxx 010xx  r8-15              # SMLSLL
11000001 001 0xxxx 0xx001 xxxxx 1x0xx  r8-15              # UMLALL, UMLSLL
11000001 001 0xxxx 0xx010 xxxxx 00xxx  r8-15              # FMLAL
11000001 001 xxxxx 0xx010 xxxxx 010xx  r8-15              # FMLSL
11000001 001 xxxxx 0xx010 xxxxx 1x0xx  r8-15              # BFMLAL, BFMLSL
11000001 0x1 0xxxx 0xx011 xxxxx xxxxx  r8-15              # BFMLAL, BFMLSL, FMLAL, FMLSL, SMLAL, SMLSL, UMLAL, ...
11000001 001 xxxxx 0xx10x xxxxx xxxxx  r8-15              # BFDOT, FDOT, SDOT, SUDOT, UDOT, USDOT
11000001 0x1 xxxxx 0xx110 xxxxx xxxxx  r8-15              # ADD, FMLA, FMLS, SUB
11000001 0x1 xxxxx 0xx111 xxxxx 0xxxx  r8-15              # BFMLA, BFMLS, FMLA, FMLS
11000001 xx1 xxxx0 100xxx xxxx0 xxxx0                     # SEL
11000001 xx1 0xxxx 101000 0x00x xxxxx                     # BFMAX, BFMAXNM, BFMIN, BFMINNM, FMAX, FMAXNM, FMIN, ...
11000001 xx1 0xxxx 101000 01100 xxxx0                     # BFSCALE, FSCALE
11000001 xx1 0xxxx 101000 10001 xxxxx                     # SRSHL, URSHL
11000001 xx1 0xxxx 101000 11000 xxxx0                     # ADD
11000001 xx1 0xxxx 101001 00000 xxxx0                     # SQDMULH
11000001 xx1 0xxxx 101010 0x00x xxx0x                     # BFMAX, BFMAXNM, BFMIN, BFMINNM, FMAX, FMAXNM, FMIN, ...
11000001 xx1 0xxxx 101010 01100 xxx00                     # BFSCALE, FSCALE
11000001 xx1 0xxxx 101010 10001 xxx0x                     # SRSHL, URSHL
11000001 xx1 0xxxx 101010 11000 xxx00                     # ADD
11000001 xx1 0xxxx 101011 00000 xxx00                     # SQDMULH
11000001 xx1 xxxx0 101100 0x00x xxxxx                     # BFMAX, BFMAXNM, BFMIN, BFMINNM, FMAX, FMAXNM, FMIN, ...
11000001 xx1 xxxx0 101100 01100 xxxx0                     # BFSCALE, FSCALE
11000001 xx1 xxxx0 101100 10001 xxxxx                     # SRSHL, URSHL
11000001 xx1 xxxx0 101101 00000 xxxx0                     # SQDMULH
11000001 xx1 xxx00 101110 0x00x xxx0x                     # BFMAX, BFMAXNM, BFMIN, BFMINNM, FMAX, FMAXNM, FMIN, ...
11000001 xx1 xxx00 101110 01100 xxx00                     # BFSCALE, FSCALE
11000001 xx1 xxx00 101110 10001 xxx0x                     # SRSHL, URSHL
11000001 xx1 xxx00 101111 00000 xxx00                     # SQDMULH
11000001 xx1 xxxxx 110000 xxxxx xxxx0                     # BFCLAMP, FCLAMP
11000001 xx1 xxxxx 110001 xxxxx xxxxx                     # SCLAMP, UCLAMP
11000001 xx1 xxxxx 110010 xxxxx xxx00                     # BFCLAMP, FCLAMP
11000001 xx1 xxxxx 110011 xxxxx xxx0x                     # SCLAMP, UCLAMP
11000001 001 xxxxx 11010x xxxxx xxxxx                     # UZP, ZIP
11000001 0x1 00000 111000 xxxxx xxxxx                     # BFCVT, BFCVTN, FCVT, FCVTN
11000001 xx1 xxxx0 111001 xxxx0 xxxx0                     # BFMUL, FMUL
11000001 xx1 xxxx0 111010 xxxx0 xxxx0                     # BFMUL, FMUL
11000001 0x1 xxxxx 111101 xxxxx xxx00                     # LUTI6
11000001 0x1 xxxxx 111111 xxxxx x00xx                     # LUTI6
11000001 xx1 xxx01 100xxx xxx00 xxx00                     # SEL
11000001 001 00001 111000 xxxxx xxxx0                     # FCVTZS, FCVTZU
11000001 xx1 xxx01 111001 xxx00 xxx00                     # BFMUL, FMUL
11000001 xx1 xxxx1 111010 xxx00 xxx00                     # BFMUL, FMUL
11000001 001 00010 111000 xxxxx xxxx0                     # SCVTF, UCVTF
11000001 001 x0011 111000 xxxxx xxxxx                     # SQCVT, SQCVTN, UQCVT, UQCVTN
11000001 0x1 00100 111000 xxxx0 xxxxx                     # BFCVT, FCVT
11000001 xx1 00110 111000 xxxxx xxxxx                     # BF1CVT, BF1CVTL, BF2CVT, BF2CVTL, F1CVT, F1CVTL, ...
11000001 001 1xxxx 0xx00x xxxxx 000xx  r8-15              # FMLALL, SMLALL
11000001 001 1xxxx 0xx01x xxxxx 00xxx  r8-15              # FMLAL
11000001 001 10001 111000 xxx0x xxx00                     # FCVTZS, FCVTZU
11000001 001 10010 111000 xxx0x xxx00                     # SCVTF, UCVTF
11000001 001 10100 111000 xxx0x xxxxx                     # FCVT, FCVTN
11000001 001 1011x 111000 xxx00 xxxx0                     # UZP, ZIP
11000001 010 0xxxx xxxxxx xxxxx 000xx  r8-15              # FMLALL
11000001 010 1xxxx 0xx0xx xxxx1 00xxx  r8-15              # SVDOT
11000001 010 1xxxx 0xx0xx xxxx1 1xxxx  r8-15              # FDOT, UVDOT
11000001 010 1xxxx 1xx0xx xxx00 0xxxx  r8-15              # FDOT, FMLA
11000001 010 1xxxx 1xx0xx xxx00 10xxx  r8-15              # FMLS
11000001 010 1xxxx 1xx0xx xxx01 xxxxx  r8-15              # SUVDOT, SVDOT, USVDOT, UVDOT
11000001 011 xxxxx 0xx000 xxxxx xx00x  r8-15              # SMLALL, SMLSLL, UMLALL, UMLSLL
11000001 011 0xxxx 0xx001 xxxxx xx0xx  r8-15              # SMLALL, SMLSLL, UMLALL, UMLSLL
11000001 011 xxxxx 0xx010 xxxxx xx0xx  r8-15              # SMLAL, SMLSL, UMLAL, UMLSL
11000001 011 xxxxx 0xx101 xxxxx xxxxx  r8-15              # SDOT, UDOT
11000001 011 xxxx0 101100 01010 xxxxx                     # FAMAX, FAMIN
11000001 011 xxx00 101110 01010 xxx0x                     # FAMAX, FAMIN
11000001 011 xxxxx 110100 xxxxx xxxxx                     # UZP, ZIP
11000001 011 xxxxx 11011x xxx0x xxxxx                     # SQRSHR, SQRSHRN, UQRSHR, UQRSHRN
11000001 011 xxxxx 11011x xxx10 xxxxx                     # SQRSHRU, SQRSHRUN
11000001 011 x0011 111000 xxxx0 xxxxx                     # SQCVTU, SQCVTUN
11000001 011 00101 111000 xxxxx xxxxx                     # SUNPK, UUNPK
11000001 011 10101 111000 xxxx0 xxx0x                     # SUNPK, UUNPK
11000001 011 10110 111000 xxx00 xxxx0                     # UZP, ZIP
11000001 100 0xxxx xxx0xx xxxxx xx0xx  r8-15              # SMLALL, SMLSLL, UMLALL, UMLSLL
11000001 1x0 0xxxx xxx1xx xxxxx xxxxx  r8-15              # BFMLAL, BFMLSL, FMLAL, FMLSL, SMLAL, SMLSL, UMLAL, ...
11000001 100 1xxxx 0xx00x xxxx0 xxxxx  r8-15              # SMLALL, SMLSLL, UMLALL, UMLSLL
11000001 100 1xxxx 0xx0xx xxxx1 00xxx  r8-15              # FMLALL
11000001 100 1xxxx 0xx1xx xxxx0 xxxxx  r8-15              # BFMLAL, BFMLSL, FMLAL, FMLSL
11000001 100 1xxxx 0xx1xx xxxx1 1xxxx  r8-15              # FMLAL
11000001 1x0 1xxxx 1xx00x xxx00 xxxxx  r8-15              # FMLA, FMLS, SDOT, SMLALL, SMLSLL, UDOT, UMLALL, ...
11000001 1x0 1xxxx 1xx1xx xxx00 xxxxx  r8-15              # BFMLAL, BFMLSL, FMLAL, FMLSL, SMLAL, SMLSL, UMLAL, ...
11000001 100 1xxxx 1xx1xx xxx01 0xxxx  r8-15              # FMLAL
11000001 101 xxxx0 0xx000 xxxx0 00x0x  r8-15              # SMLALL, USMLALL
11000001 101 xxxx0 0xx000 xxxx0 0100x  r8-15              # SMLSLL
11000001 101 xxxx0 0xx000 xxxx0 1x00x  r8-15              # UMLALL, UMLSLL
11000001 101 xxxx0 0xx000 xxxx1 0000x  r8-15              # FMLALL
11000001 1x1 xxxx0 0xx010 xxxx0 xx0xx  r8-15              # BFMLAL, BFMLSL, FMLAL, FMLSL, SMLAL, SMLSL, UMLAL, ...
11000001 101 xxxx0 0xx010 xxxx1 000xx  r8-15              # FMLAL
11000001 101 xxxx0 0xx1x0 xxxx0 xxxxx  r8-15              # ADD, BFDOT, FDOT, FMLA, FMLS, SUB
11000001 101 xxxx0 0xx100 xxxx1 x0xxx  r8-15              # FDOT
11000001 101 xxxx0 0xx101 xxxx0 0xxxx  r8-15              # SDOT, USDOT
11000001 101 xxxx0 0xx101 xxxx0 10xxx  r8-15              # UDOT
11000001 1x1 00000 0xx111 xxxx0 xxxxx  r8-15              # ADD, FADD, FSUB, SUB
11000001 1x1 xxxx0 101100 01010 xxxxx                     # FAMAX, FAMIN
11000001 1x1 xxx00 101110 01010 xxx0x                     # FAMAX, FAMIN
11000001 1x1 xxxxx 110100 xxxxx xxxxx                     # UZP, ZIP
11000001 1x1 xxxxx 11011x xxx0x xxxxx                     # SQRSHR, SQRSHRN, UQRSHR, UQRSHRN
11000001 1x1 xxxxx 11011x xxx10 xxxxx                     # SQRSHRU, SQRSHRUN
11000001 101 00000 111000 xxxxx xxxxx                     # FCVT, FCVTL
11000001 101 xxx01 0xx000 xxx00 00x0x  r8-15              # SMLALL, USMLALL
11000001 101 xxx01 0xx000 xxx00 0100x  r8-15              # SMLSLL
11000001 101 xxx01 0xx000 xxx00 1x00x  r8-15              # UMLALL, UMLSLL
11000001 101 xxx01 0xx000 xxx01 0000x  r8-15              # FMLALL
11000001 1x1 xxx01 0xx010 xxx00 xx0xx  r8-15              # BFMLAL, BFMLSL, FMLAL, FMLSL, SMLAL, SMLSL, UMLAL, ...
11000001 101 xxx01 0xx010 xxx01 000xx  r8-15              # FMLAL
11000001 101 xxx01 0xx1x0 xxx00 xxxxx  r8-15              # ADD, BFDOT, FDOT, FMLA, FMLS, SUB
11000001 101 xxx01 0xx100 xxx01 x0xxx  r8-15              # FDOT
11000001 101 xxx01 0xx101 xxx00 0xxxx  r8-15              # SDOT, USDOT
11000001 101 xxx01 0xx101 xxx00 10xxx  r8-15              # UDOT
11000001 1x1 00001 0xx111 xxx00 xxxxx  r8-15              # ADD, FADD, FSUB, SUB
11000001 1x1 00100 0xx111 xxxx0 0xxxx  r8-15              # BFADD, BFSUB, FADD, FSUB
11000001 1x1 00101 0xx111 xxx00 0xxxx  r8-15              # BFADD, BFSUB, FADD, FSUB
11000001 1x1 00101 111000 xxxxx xxxxx                     # SUNPK, UUNPK
11000001 101 0100x 111000 xxxx0 xxxx0                     # FRINTN, FRINTP
11000001 101 01010 111000 xxxx0 xxxx0                     # FRINTM
11000001 101 01100 111000 xxxx0 xxxx0                     # FRINTA
11000001 101 10011 111000 xxxxx xxxxx                     # SQCVT, SQCVTN, UQCVT, UQCVTN
11000001 1x1 10101 111000 xxxx0 xxx0x                     # SUNPK, UUNPK
11000001 1x1 10110 111000 xxx00 xxxx0                     # UZP, ZIP
11000001 101 1100x 111000 xxx00 xxx00                     # FRINTN, FRINTP
11000001 101 11010 111000 xxx00 xxx00                     # FRINTM
11000001 101 11100 111000 xxx00 xxx00                     # FRINTA
11000001 110 0xxxx xxx0xx xxxxx 0xxxx  r8-15              # FMLAL
11000001 110 1xxxx 0xxxxx xxxx0 xxxxx  r8-15              # FMLA, FMLS, FVDOTB, FVDOTT, SDOT, SMLAL, SMLSL, ...
11000001 110 1xxxx 0xxxxx xxxx1 0xxxx  r8-15              # FDOT, FVDOT
11000001 110 1xxxx 1xx01x xxx00 x1xxx  r8-15              # SVDOT, UVDOT
11000001 111 xxxx0 0xx000 xxxx0 xx00x  r8-15              # SMLALL, SMLSLL, UMLALL, UMLSLL
11000001 111 xxxx0 0xx100 xxxx0 x1xxx  r8-15              # BFMLA, BFMLS
11000001 111 xxxx0 0xx101 xxxx0 xxxxx  r8-15              # SDOT, UDOT
11000001 111 xxxx0 0xx110 xxxx0 xxxxx  r8-15              # ADD, FMLA, FMLS, SUB
11000001 111 0xxxx 110101 xxxxx xxxxx                     # SQRSHR, UQRSHR
11000001 111 xxx01 0xx000 xxx00 xx00x  r8-15              # SMLALL, SMLSLL, UMLALL, UMLSLL
11000001 111 xxx01 0xx100 xxx00 x1xxx  r8-15              # BFMLA, BFMLS
11000001 111 xxx01 0xx101 xxx00 xxxxx  r8-15              # SDOT, UDOT
11000001 111 xxx01 0xx110 xxx00 xxxxx  r8-15              # ADD, FMLA, FMLS, SUB
11000001 111 1xxxx 110101 xxxx0 xxxxx                     # SQRSHRU
11000001 111 10011 111000 xxxx0 xxxxx                     # SQCVTU, SQCVTUN
"""
