"""Layer 1: encodings of SVE data processing, bit 30 set.

The language is that of `surefoot.isa.forms`; lines that differ in one bit and do the same
are written as one.

Source: Arm's machine-readable specification of the A-profile architecture (AARCHMRS, BSD-licensed edition of 2026),
with the reserved values of size, shift and immediate fields left out as in the Arm Architecture Reference Manual
(DDI 0487), C4.1 "SVE encodings".
"""

from __future__ import annotations

from typing import Final

__all__ = ["SVE_HIGH"]

SVE_HIGH: Final = """
01000100 0x0 xxxxx 001xxx xxxxx xxxxx                     # CMLA, SQRDCMLAH
01000100 xx0 xxxxx 01110x xxxxx xxxxx                     # SQRDMLAH, SQRDMLSH
01000100 000 xxxxx 11x0xx xxxxx xxxxx                     # SCLAMP, SDOT, UCLAMP, UDOT, UZPQ1, UZPQ2, ZIPQ1, ...
01000100 0xx xxxxx 111110 xxxxx xxxxx                     # MUL, TBLQ
01000100 0x0 00x1x 100xxx xxxxx xxxxx                     # SRSHL, SRSHLR, URSHL, URSHLR
01000100 xx0 010xx 10xxxx xxxxx xxxxx                     # SQABS, SQNEG, SQRSHL, SQSHL, UQRSHL, UQSHL
01000100 xx0 011xx 100xxx xxxxx xxxxx                     # SQRSHLR, SQSHLR, UQRSHLR, UQSHLR
01000100 xx0 1000x 10xxxx xxxxx xxxxx                     # ADDP, SHADD, SUBP, UHADD
01000100 xx0 1001x 100xxx xxxxx xxxxx                     # SHSUB, UHSUB
01000100 xx0 101xx 10xxxx xxxxx xxxxx                     # SHSUBR, SMAXP, SMINP, SRHADD, UHSUBR, UMAXP, UMINP, ...
01000100 xx0 11xxx 100xxx xxxxx xxxxx                     # SQADD, SQSUB, SQSUBR, SUQADD, UQADD, UQSUB, UQSUBR, ...
01000100 001 xxxxx 0000xx xxxxx xxxxx                     # MLA, MLS, SDOT, UDOT
01000100 0x1 xxxxx 00010x xxxxx xxxxx                     # SQRDMLAH, SQRDMLSH
01000100 xx1 xxxxx 11110x xxxxx xxxxx                     # SQDMULH, SQRDMULH
01000100 01x xxxxx 0000xx xxxxx xxxxx                     # MLA, MLS, SDOT, SQDMLALBT, SQDMLSLBT, UDOT
01000100 010 xxxxx 010xxx xxxxx xxxxx                     # SMLALB, SMLALT, SMLSLB, SMLSLT, UMLALB, UMLALT, ...
01000100 010 xxxxx x110xx xxxxx xxxxx                     # SQDMLALB, SQDMLALT, SQDMLSLB, SQDMLSLT, UZPQ1, ...
01000100 010 xxxxx 11000x xxxxx xxxxx                     # SCLAMP, UCLAMP
01000100 010 xxxxx 1101x1 xxxxx xxxxx                     # SABAL, UABAL
01000100 x10 0010x 101xxx xxxxx xxxxx                     # SADALP, UADALP
01000100 1x0 xxxxx 00xxxx xxxxx xxxxx                     # CDOT, CMLA, SDOT, SQDMLALBT, SQDMLSLBT, SQRDCMLAH, ...
01000100 1x0 xxxxx 010xxx xxxxx xxxxx                     # SMLALB, SMLALT, SMLSLB, SMLSLT, UMLALB, UMLALT, ...
01000100 1x0 xxxxx x110xx xxxxx xxxxx                     # SQDMLALB, SQDMLALT, SQDMLSLB, SQDMLSLT, UZPQ1, ...
01000100 100 xxxxx x11110 xxxxx xxxxx                     # TBLQ, USDOT
01000100 100 00x0x 101xxx xxxxx xxxxx                     # SADALP, UADALP, URECPE, URSQRTE
01000100 1x0 xxxxx 11000x xxxxx xxxxx                     # SCLAMP, UCLAMP
01000100 100 xxxxx 11001x xxxxx xxxxx                     # SDOT, UDOT
01000100 100 xxxxx 1101x1 xxxxx xxxxx                     # SABAL, UABAL
01000100 100 0001x 10xxxx xxxxx xxxxx                     # SRSHL, URECPE, URSHL, URSQRTE
01000100 100 0011x 100xxx xxxxx xxxxx                     # SRSHLR, URSHLR
01000100 101 xxxxx x0xxxx xxxxx xxxxx                     # MLA, MLS, SDOT, SMLALB, SMLALT, SMLSLB, SMLSLT, ...
01000100 101 xxxxx 0100xx xxxxx xxxxx                     # CDOT
01000100 101 xxxxx 011xxx xxxxx xxxxx                     # CMLA, SQRDCMLAH
0100010x 1x1 xxxxx 110xxx xxxxx xxxxx                     # HISTCNT, SMULLB, SMULLT, UMULLB, UMULLT
01000100 1x1 xxxxx 1110xx xxxxx xxxxx                     # SQDMULLB, SQDMULLT
01000100 101 xxxxx 111110 xxxxx xxxxx                     # MUL
01000100 110 xxxxx 1101xx xxxxx xxxxx                     # MADPT, MLAPT, SABAL, UABAL
01000100 11x xxxxx 111110 xxxxx xxxxx                     # MUL, TBLQ
01000100 110 00x1x 100xxx xxxxx xxxxx                     # SRSHL, SRSHLR, URSHL, URSHLR
01000100 111 xxxxx 0x00xx xxxxx xxxxx                     # CDOT, MLA, MLS, SDOT, UDOT
01000100 111 xxxxx 00010x xxxxx xxxxx                     # SQRDMLAH, SQRDMLSH
01000100 111 xxxxx 0x1xxx xxxxx xxxxx                     # CMLA, SQDMLALB, SQDMLALT, SQDMLSLB, SQDMLSLT, ...
01000100 111 xxxxx 10xxxx xxxxx xxxxx                     # SMLALB, SMLALT, SMLSLB, SMLSLT, UMLALB, UMLALT, ...
01000101 000 xxxxx 01101x xxxxx xxxxx                     # PMULLB, PMULLT
01000101 xx0 xxxxx 10x10x xxxxx xxxxx                     # BDEP, BEXT, EORBT, EORTB
01000101 000 xxxxx 10x110 xxxxx xxxxx                     # BGRP, SMMLA
01000101 xx0 xxxxx 11010x xxxxx xxxxx                     # ADCLB, ADCLT, SBCLB, SBCLT
01000101 xx0 0000x 11011x xxxxx xxxxx                     # CADD, SQCADD
01000101 xx0 xxxxx 11111x xxxxx xxxxx                     # SABA, UABA
01000101 000 01xxx 1x10xx xxxxx xxxxx                     # SRSRA, SSHLLB, SSHLLT, SSRA, URSRA, USHLLB, USHLLT, ...
01000101 000 01xxx 11110x xxxxx xxxxx                     # SLI, SRI
01000101 000 1xxxx 1x10xx xxxxx xxxxx                     # SRSRA, SSHLLB, SSHLLT, SSRA, URSRA, USHLLB, USHLLT, ...
01000101 000 1xxxx 11110x xxxxx xxxxx                     # SLI, SRI
01000101 0x1 xxxxx 100xxx xxxxx xxxxx                     # MATCH, NMATCH
01000101 001 xxxxx 101000 xxxxx xxxxx                     # HISTSEG
01000101 0x1 xxxxx 10101x xxxxx xxxxx                     # LUTI2, LUTI6
01000101 xx1 xxxxx 1011xx xxxxx xxxxx                     # LUTI2, LUTI4
01000101 001 00000 11100x 00000 xxxxx                     # AESIMC, AESMC
01000101 001 xxxxx 11110x xxxxx xxxxx                     # RAX1, SM4EKEY
01000101 001 xxxxx 11111x xxxxx xxxx0                     # PMLAL, PMULL
01000101 001 00010 11100x xxxxx xxxxx                     # AESD, AESE
01000101 001 xx01x 11101x xxxxx xxxx0                     # AESD, AESDIMC, AESE, AESEMC
01000101 001 00011 111000 xxxxx xxxxx                     # SM4E
01000101 001 xx11x 11101x xxxxx xxx00                     # AESD, AESDIMC, AESE, AESEMC
01000101 001 01xxx 00xxxx xxxxx xxxxx                     # RSHRNB, RSHRNT, SHRNB, SHRNT, SQRSHRNB, SQRSHRNT, ...
01000101 001 01000 0100xx xxxxx xxxxx                     # SQXTNB, SQXTNT, UQXTNB, UQXTNT
01000101 001 01000 01010x xxxxx xxxxx                     # SQXTUNB, SQXTUNT
01000101 001 1xxxx 00xxxx xxxxx xxxxx                     # RSHRNB, RSHRNT, SHRNB, SHRNT, SQRSHRNB, SQRSHRNT, ...
01000101 001 10000 0100xx xxxxx xxxxx                     # SQXTNB, SQXTNT, UQXTNB, UQXTNT
01000101 001 10000 01010x xxxxx xxxxx                     # SQXTUNB, SQXTUNT
01000101 001 10001 0100x0 xxxx0 xxxxx                     # SQCVTN, UQCVTN
01000101 001 10001 010100 xxxx0 xxxxx                     # SQCVTUN
01000101 x10 xxxxx 000xxx xxxxx xxxxx                     # SADDLB, SADDLT, SSUBLB, SSUBLT, UADDLB, UADDLT, ...
01000101 x10 xxxxx 0011xx xxxxx xxxxx                     # SABDLB, SABDLT, UABDLB, UABDLT
01000101 x10 xxxxx 01xxxx xxxxx xxxxx                     # PMULLB, PMULLT, SADDWB, SADDWT, SMULLB, SMULLT, ...
01000101 010 xxxxx 100000 xxxxx xxxxx                     # SADDLBT
01000101 010 xxxxx 10001x xxxxx xxxxx                     # SSUBLBT, SSUBLTB
01000101 010 xxxxx 1x10xx xxxxx xxxxx                     # SRSRA, SSHLLB, SSHLLT, SSRA, URSRA, USHLLB, USHLLT, ...
01000101 010 xxxxx 101110 xxxxx xxxxx                     # BGRP
01000101 010 xxxxx 1100xx xxxxx xxxxx                     # SABALB, SABALT, UABALB, UABALT
01000101 010 xxxxx 11110x xxxxx xxxxx                     # SLI, SRI
01000101 011 xxxxx 00xxxx xxxxx xxxxx                     # RSHRNB, RSHRNT, SHRNB, SHRNT, SQRSHRNB, SQRSHRNT, ...
01000101 011 00000 0100xx xxxxx xxxxx                     # SQXTNB, SQXTNT, UQXTNB, UQXTNT
01000101 011 00000 01010x xxxxx xxxxx                     # SQXTUNB, SQXTUNT
01000101 011 xxxxx 011xxx xxxxx xxxxx                     # ADDHNB, ADDHNT, RADDHNB, RADDHNT, RSUBHNB, RSUBHNT, ...
01000101 x11 xxxxx 101001 xxxxx xxxxx                     # LUTI4
01000101 100 xxxxx 0x0xxx xxxxx xxxxx                     # SADDLB, SADDLT, SADDWB, SADDWT, SSUBLB, SSUBLT, ...
01000101 100 xxxxx 0x11xx xxxxx xxxxx                     # SABDLB, SABDLT, SMULLB, SMULLT, UABDLB, UABDLT, ...
01000101 100 xxxxx 01100x xxxxx xxxxx                     # SQDMULLB, SQDMULLT
01000101 1x0 xxxxx 100000 xxxxx xxxxx                     # SADDLBT
01000101 1x0 xxxxx 10001x xxxxx xxxxx                     # SSUBLBT, SSUBLTB
01000101 1x0 xxxxx 10x110 xxxxx xxxxx                     # BGRP, UMMLA, USMMLA
01000101 1x0 xxxxx 11x0xx xxxxx xxxxx                     # SABALB, SABALT, SRSRA, SSRA, UABALB, UABALT, URSRA, ...
01000101 1x0 xxxxx 11110x xxxxx xxxxx                     # SLI, SRI
01000101 1x1 xxxxx 011xxx xxxxx xxxxx                     # ADDHNB, ADDHNT, RADDHNB, RADDHNT, RSUBHNB, RSUBHNT, ...
01000101 101 xxxxx 101010 xxxxx xxxxx                     # LUTI2
01000101 101 01xxx 00x0x0 xxxx0 xxxxx                     # SQRSHRN, SQRSHRUN, SQSHRN, SQSHRUN
01000101 101 01xxx 000100 xxxx0 xxxxx                     # UQSHRN
01000101 101 01xxx 001110 xxxx0 xxxxx                     # UQRSHRN
01000101 101 1xxxx 00x0x0 xxxx0 xxxxx                     # SQRSHRN, SQRSHRUN, SQSHRN, SQSHRUN
01000101 101 1xxxx 000100 xxxx0 xxxxx                     # UQSHRN
01000101 101 1xxxx 001110 xxxx0 xxxxx                     # UQRSHRN
01000101 111 xxxxx 10101x xxxxx xxxxx                     # LUTI2, LUTI6
01100100 x00 0x010 101xxx xxxxx xxxxx                     # BFCVTNT, FCVTXNT
01100100 x00 11010 110xxx xxxxx xxxxx                     # BFCVT, FCVTX
01100100 000 1110x 1xxxxx xxxxx xxxxx                     # FRINT32X, FRINT32Z, FRINT64X, FRINT64Z
01100100 000 11110 101xxx xxxxx xxxxx                     # FLOGB
01100100 000 11110 11xxxx xxxxx xxxxx                     # FLOGB
01100100 0x1 xxxxx 0000xx xxxxx xxxxx                     # BFMLA, BFMLS, FMLA, FMLS
01100100 0x1 xxxxx 0010x0 xxxxx xxxxx                     # BFMUL, FMUL
01100100 xx1 xxxxx 001001 xxxxx xxxxx                     # BFCLAMP, FCLAMP
01100100 0x1 xxxxx 01000x xxxxx xxxxx                     # BFDOT, FDOT
01100100 001 xxxxx 010011 xxxxx xxxxx                     # FDOT
01100100 001 xxxxx 0101xx xxxxx xxxxx                     # FMLALB
01100100 0x1 xxxxx 10000x xxxxx xxxxx                     # BFDOT, FDOT
01100100 001 xxxxx 10xx10 xxxxx xxxxx                     # FMLALLBB, FMLALLBT, FMLALLTB, FMLALLTT
01100100 xx1 xxxxx 1100xx xxxxx xxxxx                     # FMLALLBB, FMLALLBT, FMLALLTB, FMLALLTT
01100100 xx1 xxxxx 11100x xxxxx xxxxx                     # BFMMLA, FMMLA
01100100 010 xxxxx 0xxxxx xxxxx xxxxx                     # FCMLA
01100100 x10 0000x 100xxx xxxxx xxxxx                     # FCADD
01100100 010 10000 10xxxx xxxxx xxxxx                     # FADDP, FADDQV
01100100 010 101xx 10xxxx xxxxx xxxxx                     # FMAXNMP, FMAXNMQV, FMAXP, FMAXQV, FMINNMP, FMINNMQV, ...
01100100 010 11000 1xxxxx xxxxx xxxxx                     # FRINTM, FRINTN, FRINTP, FRINTZ
01100100 010 11001 100xxx xxxxx xxxxx                     # FRINTA
01100100 010 11001 11xxxx xxxxx xxxxx                     # FRINTI, FRINTX
01100100 x10 11011 10xxxx xxxxx xxxxx                     # FRECPX, FSQRT
01100100 010 111x0 11xxxx xxxxx xxxxx                     # FCVTZS, FCVTZU, SCVTF, UCVTF
01100100 x10 111x1 1xxxxx xxxxx xxxxx                     # FCVTZS, FCVTZU, SCVTF, UCVTF
01100100 1x0 xxxxx 0xxxxx xxxxx xxxxx                     # FCMLA
01100100 100 0000x 10xxxx xxxxx xxxxx                     # FCADD, FCVTLT, FCVTNT
01100100 100 0100x 101xxx xxxxx xxxxx                     # FCVTLT, FCVTNT
01100100 1x0 10000 10xxxx xxxxx xxxxx                     # FADDP, FADDQV
01100100 1x0 101xx 10xxxx xxxxx xxxxx                     # FMAXNMP, FMAXNMQV, FMAXP, FMAXQV, FMINNMP, FMINNMQV, ...
01100100 100 11000 1xxxxx xxxxx xxxxx                     # FRINTM, FRINTN, FRINTP, FRINTZ
01100100 1x0 11001 100xxx xxxxx xxxxx                     # FRINTA
01100100 1x0 11001 11xxxx xxxxx xxxxx                     # FRINTI, FRINTX
01100100 100 1101x 10xxxx xxxxx xxxxx                     # FCVT, FRECPX, FSQRT
01100100 100 111x1 10xxxx xxxxx xxxxx                     # FCVTZS, FCVTZU, SCVTF, UCVTF
01100100 1x1 xxxxx 00000x xxxxx xxxxx                     # FMLA, FMLS
01100100 1x1 xxxxx 0001xx xxxxx xxxxx                     # FCMLA
01100100 1x1 xxxxx 001000 xxxxx xxxxx                     # FMUL
01100100 101 xxxxx 010xxx xxxxx xxxxx                     # FMLALB, FMLALT
01100100 101 xxxxx 0110xx xxxxx xxxxx                     # FMLSLB, FMLSLT
01100100 1x1 xxxxx 10x00x xxxxx xxxxx                     # BFMLALB, BFMLALT, BFMLSLB, BFMLSLT, FMLALB, FMLALT, ...
01100100 101 xxxxx 100x10 xxxxx xxxxx                     # FMLALB, FMLALT
01100100 110 0x01x 101xxx xxxxx xxxxx                     # FCVTLT, FCVTNT
01100100 110 110x0 1xxxxx xxxxx xxxxx                     # FCVT, FRINTM, FRINTN, FRINTP, FRINTZ
01100100 110 111x0 10xxxx xxxxx xxxxx                     # FCVTZS, FCVTZU, SCVTF, UCVTF
01100100 111 xxxxx 01x0xx xxxxx xxxxx                     # BFMLALB, BFMLALT, BFMLSLB, BFMLSLT
01100101 000 xxxxx 00000x xxxxx xxxxx                     # BFADD, BFSUB, FADD, FSUB
01100101 000 xxxxx 000010 xxxxx xxxxx                     # BFMUL, FMUL
01100101 000 0000x 100xxx xxxxx xxxxx                     # BFADD, BFSUB, FADD, FSUB
01100101 000 00010 100xxx xxxxx xxxxx                     # BFMUL, FMUL
01100101 000 001xx 100xxx xxxxx xxxxx                     # BFMAX, BFMAXNM, BFMIN, BFMINNM, FMAX, FMAXNM, FMIN, ...
01100101 000 0100x 0011xx xxxxx xxxxx                     # BF1CVT, BF1CVTLT, BF2CVT, BF2CVTLT, F1CVT, F1CVTLT, ...
01100101 000 01001 100xxx xxxxx xxxxx                     # BFSCALE, FSCALE
01100101 000 01010 0011xx xxxx0 xxxxx                     # BFCVTN, FCVTN, FCVTNB, FCVTNT
01100101 000 x1010 101xxx xxxxx xxxxx                     # FCVTX, FLOGB
01100101 000 10xxx 101xxx xxxxx xxxxx                     # FRINT32X, FRINT32Z, FRINT64X, FRINT64Z
01100101 000 111x0 101xxx xxxxx xxxxx                     # FLOGB
01100101 001 xxxxx 00xxxx xxxxx xxxxx                     # BFMLA, BFMLS, FMLA, FMLS
01100101 010 xxxxx 0000xx xxxxx xxxxx                     # FADD, FMUL, FSUB, FTSMUL
01100101 010 xxxxx 00011x xxxxx xxxxx                     # FRECPS, FRSQRTS
01100101 010 00000 001xxx xxxxx xxxxx                     # FADDV
01100101 010 xxxxx 01xxxx xxxxx xxxxx                     # FCMEQ, FCMGE, FCMGT, FCMNE
01100101 010 000xx 10xxxx xxxxx xxxxx                     # FADD, FMUL, FRINTM, FRINTN, FRINTP, FRINTZ, FSUB, ...
01100101 010 xxxxx 110xxx xxxxx xxxxx                     # FACGE, FCMUO
01100101 010 xxxxx 111xxx xxxxx 1xxxx                     # FACGT
01100101 010 001xx 001xxx xxxxx xxxxx                     # FMAXNMV, FMAXV, FMINNMV, FMINV
01100101 010 00100 10xxxx xxxxx xxxxx                     # FMAXNM, FRINTA
01100101 010 00101 100xxx xxxxx xxxxx                     # FMINNM
01100101 010 0011x 10xxxx xxxxx xxxxx                     # FMAX, FMIN, FRINTI, FRINTX
01100101 010 0100x 100xxx xxxxx xxxxx                     # FABD, FSCALE
01100101 010 01010 100xxx xxxxx xxxxx                     # FMULX
01100101 010 01100 0011xx xxxxx xxxxx                     # SCVTF, SCVTFLT, UCVTF, UCVTFLT
01100101 010 0110x 10xxxx xxxxx xxxxx                     # FDIV, FDIVR, FRECPX, FSQRT
01100101 010 01101 00110x xxxx0 xxxxx                     # FCVTZSN, FCVTZUN
01100101 010 0111x 001100 xxxxx xxxxx                     # FRECPE, FRSQRTE
01100101 010 0111x 100xxx xxxxx xxxxx                     # FAMAX, FAMIN
01100101 010 1000x 001xxx xxxxx xxxxx                     # FCMGE, FCMGT, FCMLE, FCMLT
01100101 010 10xxx 100000 xxxxx xxxxx                     # FTMAD
01100101 010 1001x 001xxx xxxxx 0xxxx                     # FCMEQ, FCMNE
01100101 010 1x01x 101xxx xxxxx xxxxx                     # FCVTZS, FCVTZU, SCVTF, UCVTF
01100101 x10 1x1xx 101xxx xxxxx xxxxx                     # FCVTZS, FCVTZU, SCVTF, UCVTF
01100101 010 11000 001xxx xxxxx xxxxx                     # FADDA
01100101 010 11xxx 100xxx 0000x xxxxx                     # FADD, FMAX, FMAXNM, FMIN, FMINNM, FMUL, FSUB, FSUBR
01100101 011 xxxxx xxxxxx xxxxx xxxxx                     # FMAD, FMLA, FMLS, FMSB, FNMAD, FNMLA, FNMLS, FNMSB
01100101 1x0 xxxxx 0000xx xxxxx xxxxx                     # FADD, FMUL, FSUB, FTSMUL
01100101 1x0 xxxxx 00011x xxxxx xxxxx                     # FRECPS, FRSQRTS
01100101 1x0 00000 001xxx xxxxx xxxxx                     # FADDV
01100101 1x0 xxxxx 01xxxx xxxxx xxxxx                     # FCMEQ, FCMGE, FCMGT, FCMNE
01100101 1x0 000xx 10xxxx xxxxx xxxxx                     # FADD, FMUL, FRINTM, FRINTN, FRINTP, FRINTZ, FSUB, ...
01100101 1x0 xxxxx 110xxx xxxxx xxxxx                     # FACGE, FCMUO
01100101 1x0 xxxxx 111xxx xxxxx 1xxxx                     # FACGT
01100101 1x0 001xx 001xxx xxxxx xxxxx                     # FMAXNMV, FMAXV, FMINNMV, FMINV
01100101 1x0 00100 10xxxx xxxxx xxxxx                     # FMAXNM, FRINTA
01100101 1x0 00101 100xxx xxxxx xxxxx                     # FMINNM
01100101 1x0 0011x 10xxxx xxxxx xxxxx                     # FMAX, FMIN, FRINTI, FRINTX
01100101 1x0 01x0x 10xxxx xxxxx xxxxx                     # FABD, FCVT, FDIV, FDIVR, FRECPX, FSCALE, FSQRT
01100101 1x0 01010 10xxxx xxxxx xxxxx                     # BFCVT, FCVT, FMULX
01100101 1x0 01100 0011xx xxxxx xxxxx                     # SCVTF, SCVTFLT, UCVTF, UCVTFLT
01100101 1x0 01101 00110x xxxx0 xxxxx                     # FCVTZSN, FCVTZUN
01100101 1x0 0111x 001100 xxxxx xxxxx                     # FRECPE, FRSQRTE
01100101 1x0 0111x 100xxx xxxxx xxxxx                     # FAMAX, FAMIN
01100101 100 1000x 001xxx xxxxx xxxxx                     # FCMGE, FCMGT, FCMLE, FCMLT
01100101 1x0 10xxx 100000 xxxxx xxxxx                     # FTMAD
01100101 1x0 1001x 001xxx xxxxx 0xxxx                     # FCMEQ, FCMNE
01100101 100 1x10x 101xxx xxxxx xxxxx                     # FCVTZS, FCVTZU, SCVTF, UCVTF
01100101 100 11000 001xxx xxxxx xxxxx                     # FADDA
01100101 1x0 11xxx 100xxx 0000x xxxxx                     # FADD, FMAX, FMAXNM, FMIN, FMINNM, FMUL, FSUB, FSUBR
01100101 1x1 xxxxx xxxxxx xxxxx xxxxx                     # FMAD, FMLA, FMLS, FMSB, FNMAD, FNMLA, FNMLS, FNMSB
01100101 110 01011 101xxx xxxxx xxxxx                     # FCVT
01100101 110 1000x x01xxx xxxxx xxxxx                     # FCMGE, FCMGT, FCMLE, FCMLT, SCVTF, UCVTF
01100101 110 11000 x01xxx xxxxx xxxxx                     # FADDA, FCVTZS
01100101 110 11001 101xxx xxxxx xxxxx                     # FCVTZU
"""
