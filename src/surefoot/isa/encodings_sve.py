"""Layer 1: encodings of SVE data processing, bit 30 clear.

The language is that of `surefoot.isa.forms`; lines that differ in one bit and do the same
are written as one.

Source: Arm's machine-readable specification of the A-profile architecture (AARCHMRS, BSD-licensed edition of 2026),
with the reserved values of size, shift and immediate fields left out as in the Arm Architecture Reference Manual
(DDI 0487), C4.1 "SVE encodings".
"""

from __future__ import annotations

from typing import Final

__all__ = ["SVE_LOW"]

SVE_LOW: Final = """
00000100 000 0000x 00xxxx xxxxx xxxxx                     # ADD, SADDV, SUB, UADDV
00000100 xx0 xxxxx x1xxxx xxxxx xxxxx                     # MAD, MLA, MLS, MSB
00000100 000 0000x 100xxx 01xxx xxxxx                     # ASR, LSR
00000100 000 0000x 100xxx 1xxxx xxxxx                     # ASR, LSR
00000100 000 00011 000xxx xxxxx xxxxx                     # SUBR
00000100 000 00011 100xxx 01xxx xxxxx                     # LSL
00000100 000 00011 100xxx 1xxxx xxxxx                     # LSL
00000100 000 00100 100xxx 01xxx xxxxx                     # ASRD
00000100 000 00100 100xxx 1xxxx xxxxx                     # ASRD
00000100 0x0 00101 001xxx xxxxx xxxxx                     # ADDQV
00000100 000 0011x 100xxx 01xxx xxxxx                     # SQSHL, UQSHL
00000100 000 0011x 100xxx 1xxxx xxxxx                     # SQSHL, UQSHL
00000100 000 0011x 101xxx xxxxx xxxxx                     # ABS, NEG
00000100 xx0 010xx 00xxxx xxxxx xxxxx                     # SMAX, SMAXV, SMIN, SMINV, UMAX, UMAXV, UMIN, UMINV
00000100 0x0 010xx 101xxx xxxxx xxxxx                     # CLS, CLZ, CNOT, CNT
00000100 000 0110x 00xxxx xxxxx xxxxx                     # SABD, SMAXQV, UABD, UMAXQV
00000100 000 0110x 100xxx 01xxx xxxxx                     # SRSHR, URSHR
00000100 000 0110x 100xxx 1xxxx xxxxx                     # SRSHR, URSHR
00000100 xx0 x1110 x01xxx xxxxx xxxxx                     # ANDQV, NOT, SMINQV
00000100 xx0 01111 001xxx xxxxx xxxxx                     # UMINQV
00000100 000 01111 100xxx 01xxx xxxxx                     # SQSHLU
00000100 000 01111 100xxx 1xxxx xxxxx                     # SQSHLU
00000100 000 10000 00xxxx xxxxx xxxxx                     # MOVPRFX, MUL
00000100 000 10x0x 100xxx xxxxx xxxxx                     # ASR, ASRR, LSR, LSRR
00000100 xx0 10001 001xxx xxxxx xxxxx                     # MOVPRFX
00000100 0x0 10010 000xxx xxxxx xxxxx                     # SMULH
00000100 000 10011 x00xxx xxxxx xxxxx                     # LSL, UMULH
00000100 0x0 10110 101xxx xxxxx xxxxx                     # ABS
00000100 xx0 10111 10xxxx xxxxx xxxxx                     # LSLR, NEG
00000100 0x0 1100x x0xxxx xxxxx xxxxx                     # ASR, CLS, CLZ, EOR, EORV, LSR, ORR, ORV
00000100 xx0 11010 00xxxx xxxxx xxxxx                     # AND, ANDV
00000100 0x0 11010 101xxx xxxxx xxxxx                     # CNT
00000100 xx0 11011 000xxx xxxxx xxxxx                     # BIC
00000100 0x0 11011 10xxxx xxxxx xxxxx                     # CNOT, LSL
00000100 000 1110x 001xxx xxxxx xxxxx                     # EORQV, ORQV
00000100 0x1 xxxxx x0000x xxxxx xxxxx                     # ADD, ASR, LSR, SUB
00000100 0x1 xxxxx 0001xx xxxxx xxxxx                     # SQADD, SQSUB, UQADD, UQSUB
00000100 001 xxxxx 001100 xxxxx xxxxx                     # AND
00000100 0x1 xxxxx 00111x xxxxx xxxxx                     # BCAX, BSL, BSL1N, EOR3
00000100 xx1 xxxxx 010000 xxxxx xxxxx                     # INDEX
00000100 xx1 xxxxx 010001 xxxxx xxxxx  rn                 # INDEX
00000100 xx1 xxxxx 010010 xxxxx xxxxx  rm                 # INDEX
00000100 xx1 xxxxx 010011 xxxxx xxxxx  rn rm              # INDEX
00000100 0x1 xxxxx 0101xx xxxxx xxxxx  wD rM              # ADDPL, ADDSPL, ADDSVL, ADDVL
00000100 001 xxxxx 011xxx xxxxx xxxxx                     # ADDQP, ADDSUBP, MUL, PMUL, SMULH, SQDMULH, SQRDMULH, ...
00000100 0x1 xxxxx 100011 xxxxx xxxxx                     # LSL
00000100 xx1 xxxxx 1010xx xxxxx xxxxx                     # ADR
00000100 001 00000 101111 xxxxx xxxxx                     # MOVPRFX
00000100 xx1 0xxxx 111000 xxxxx xxxxx  wd                 # CNTB, CNTD, CNTH, CNTW
00000100 xx1 xxxxx 1111xx xxxxx xxxxx  wd rd              # SQDECB, SQDECD, SQDECH, SQDECW, SQINCB, SQINCD, ...
00000100 001 01xxx 001101 xxxxx xxxxx                     # XAR
00000100 001 01xxx 10010x xxxxx xxxxx                     # ASR, LSR
00000100 001 01xxx 100111 xxxxx xxxxx                     # LSL
00000100 001 1xxxx 001101 xxxxx xxxxx                     # XAR
00000100 001 1xxxx 10010x xxxxx xxxxx                     # ASR, LSR
00000100 001 1xxxx 100111 xxxxx xxxxx                     # LSL
00000100 xx1 1xxxx 11100x xxxxx xxxxx  wd rd              # DECB, DECD, DECH, DECW, INCB, INCD, INCH, INCW
00000100 010 0000x x0xxxx xxxxx xxxxx                     # ADD, ASR, LSR, SADDV, SUB, SXTB, UADDV, UXTB
00000100 010 x0011 x00xxx xxxxx xxxxx                     # LSL, SUBR, UMULH
00000100 010 00100 100xxx xxxxx xxxxx                     # ASRD
00000100 010 0011x 10xxxx xxxxx xxxxx                     # ABS, NEG, SQSHL, UQSHL
00000100 010 0110x x0xxxx xxxxx xxxxx                     # FABS, FNEG, SABD, SMAXQV, SRSHR, UABD, UMAXQV, ...
00000100 010 01111 100xxx xxxxx xxxxx                     # SQSHLU
00000100 010 10000 x0xxxx xxxxx xxxxx                     # ASR, MOVPRFX, MUL, SXTB
00000100 010 10001 10xxxx xxxxx xxxxx                     # LSR, UXTB
00000100 010 1010x 100xxx xxxxx xxxxx                     # ASRR, LSRR
00000100 010 1110x x01xxx xxxxx xxxxx                     # EORQV, FABS, FNEG, ORQV
00000100 011 xxxxx x01100 xxxxx xxxxx                     # FTSSEL, ORR
00000100 011 xxxxx 001101 xxxxx xxxxx                     # XAR
00000100 011 xxxxx 011000 xxxxx xxxxx                     # MUL
00000100 011 xxxxx 01101x xxxxx xxxxx                     # SMULH, UMULH
00000100 011 xxxxx 0111xx xxxxx xxxxx                     # ADDQP, ADDSUBP, SQDMULH, SQRDMULH
00000100 011 xxxxx 10010x xxxxx xxxxx                     # ASR, LSR
00000100 011 xxxxx 100111 xxxxx xxxxx                     # LSL
00000100 011 00000 101110 xxxxx xxxxx                     # FEXPA
00000100 011 0xxxx 1100xx xxxxx xxxxx                     # SQDECH, SQINCH, UQDECH, UQINCH
00000100 011 1xxxx 11000x xxxxx xxxxx                     # DECH, INCH
00000100 100 0000x x0xxxx xxxxx xxxxx                     # ADD, ASR, LSR, SADDV, SUB, SXTB, UADDV, UXTB
00000100 1x0 00010 101xxx xxxxx xxxxx                     # SXTH
00000100 1x0 00011 000xxx xxxxx xxxxx                     # SUBR
00000100 1x0 00011 10xxxx xxxxx xxxxx                     # LSL, UXTH
00000100 100 00100 100xxx xxxxx xxxxx                     # ASRD
00000100 100 00101 001xxx xxxxx xxxxx                     # ADDQV
00000100 1x0 0011x 10xxxx xxxxx xxxxx                     # ABS, NEG, SQSHL, UQSHL
00000100 100 010xx 101xxx xxxxx xxxxx                     # CLS, CLZ, CNOT, CNT
00000100 1x0 0110x x0xxxx xxxxx xxxxx                     # FABS, FNEG, SABD, SMAXQV, SRSHR, UABD, UMAXQV, ...
00000100 1x0 01111 100xxx xxxxx xxxxx                     # SQSHLU
00000100 1x0 10000 x0xxxx xxxxx xxxxx                     # ASR, MOVPRFX, MUL, SXTB
00000100 1x0 100x1 10xxxx xxxxx xxxxx                     # LSL, LSR, UXTB, UXTH
00000100 100 10x1x 000xxx xxxxx xxxxx                     # SDIVR, SMULH, UDIVR, UMULH
00000100 1x0 10x10 101xxx xxxxx xxxxx                     # ABS, SXTH
00000100 100 1010x x00xxx xxxxx xxxxx                     # ASRR, LSRR, SDIV, UDIV
00000100 100 1100x x0xxxx xxxxx xxxxx                     # ASR, CLS, CLZ, EOR, EORV, LSR, ORR, ORV
00000100 100 11010 101xxx xxxxx xxxxx                     # CNT
00000100 100 11011 10xxxx xxxxx xxxxx                     # CNOT, LSL
00000100 1x0 1110x x01xxx xxxxx xxxxx                     # EORQV, FABS, FNEG, ORQV
00000100 101 xxxxx x0000x xxxxx xxxxx                     # ADD, ASR, LSR, SUB
00000100 101 xxxxx 0001xx xxxxx xxxxx                     # SQADD, SQSUB, UQADD, UQSUB
00000100 1x1 xxxxx x01100 xxxxx xxxxx                     # BIC, EOR, FTSSEL
00000100 1x1 xxxxx 0011x1 xxxxx xxxxx                     # BSL2N, NBSL, XAR
00000100 1x1 xxxxx 011000 xxxxx xxxxx                     # MUL
00000100 1x1 xxxxx 01101x xxxxx xxxxx                     # SMULH, UMULH
00000100 1x1 xxxxx 0111xx xxxxx xxxxx                     # ADDQP, ADDSUBP, SQDMULH, SQRDMULH
00000100 101 xxxxx 100011 xxxxx xxxxx                     # LSL
00000100 1x1 xxxxx 10010x xxxxx xxxxx                     # ASR, LSR
00000100 1x1 xxxxx 100111 xxxxx xxxxx                     # LSL
00000100 1x1 00000 101110 xxxxx xxxxx                     # FEXPA
00000100 1x1 0xxxx 1100xx xxxxx xxxxx                     # SQDECD, SQDECW, SQINCD, SQINCW, UQDECD, UQDECW, ...
00000100 1x1 1xxxx 11000x xxxxx xxxxx                     # DECD, DECW, INCD, INCW
00000100 101 11111 0101xx xxxxx xxxxx  wd                 # RDSVL, RDVL
00000100 110 00x00 000xxx xxxxx xxxxx                     # ADD, ADDPT
00000100 110 00x00 10xxxx xxxxx xxxxx                     # ASR, ASRD, SXTB, SXTW
00000100 110 00001 x0xxxx xxxxx xxxxx                     # LSR, SUB, UADDV, UXTB
00000100 110 00101 00xxxx xxxxx xxxxx                     # ADDQV, SUBPT
00000100 110 00101 101xxx xxxxx xxxxx                     # UXTW
00000100 110 x10xx 101xxx xxxxx xxxxx                     # CLS, CLZ, CNOT, CNT
00000100 110 1001x 000xxx xxxxx xxxxx                     # SMULH, UMULH
00000100 110 101xx 000xxx xxxxx xxxxx                     # SDIV, SDIVR, UDIV, UDIVR
00000100 110 1010x 10xxxx xxxxx xxxxx                     # ASRR, LSRR, SXTW, UXTW
00000100 110 1100x 00xxxx xxxxx xxxxx                     # EOR, EORV, ORR, ORV
00000100 111 xxxxx 000xxx xxxxx xxxxx                     # ADD, ADDPT, SQADD, SQSUB, SUB, SUBPT, UQADD, UQSUB
00000101 xx0 0000x xxxxx0 0xxxx xxxxx                     # AND, DUPM, EOR, ORR
00000101 xx0 0000x xxxxx0 10xxx xxxxx                     # AND, DUPM, EOR, ORR
00000101 xx0 0000x xxxxx0 110xx xxxxx                     # AND, DUPM, EOR, ORR
00000101 xx0 0000x xxxxx0 1110x xxxxx                     # AND, DUPM, EOR, ORR
00000101 xx0 0000x xxxxx0 11110 xxxxx                     # AND, DUPM, EOR, ORR
00000101 xx0 0000x xxxxx1 00xxx xxxxx                     # AND, DUPM, EOR, ORR
00000101 xx0 0000x xxxxx1 010xx xxxxx                     # AND, DUPM, EOR, ORR
00000101 xx0 0000x xxxxx1 0110x xxxxx                     # AND, DUPM, EOR, ORR
00000101 xx0 0000x xxxxx1 01110 xxxxx                     # AND, DUPM, EOR, ORR
00000101 xx0 0000x xxxxx1 100xx xxxxx                     # AND, DUPM, EOR, ORR
00000101 xx0 0000x xxxxx1 1010x xxxxx                     # AND, DUPM, EOR, ORR
00000101 xx0 0000x xxxxx1 10110 xxxxx                     # AND, DUPM, EOR, ORR
00000101 xx0 0000x xxxxx1 1100x xxxxx                     # AND, DUPM, EOR, ORR
00000101 xx0 0000x xxxxx1 11010 xxxxx                     # AND, DUPM, EOR, ORR
00000101 xx0 0000x xxxxx1 11100 xxxxx                     # AND, DUPM, EOR, ORR
00000101 xx0 0001x xxxxx0 xxxxx xxxxx                     # AND, DUPM, EOR, ORR
00000101 xx0 0001x xxxxx1 0xxxx xxxxx                     # AND, DUPM, EOR, ORR
00000101 xx0 0001x xxxxx1 10xxx xxxxx                     # AND, DUPM, EOR, ORR
00000101 xx0 0001x xxxxx1 110xx xxxxx                     # AND, DUPM, EOR, ORR
00000101 xx0 0001x xxxxx1 1110x xxxxx                     # AND, DUPM, EOR, ORR
00000101 xx0 0001x xxxxx1 11110 xxxxx                     # AND, DUPM, EOR, ORR
00000101 000 1xxxx 0x0xxx xxxxx xxxxx                     # CPY
00000101 0x1 0x0xx x00xxx xxxxx xxxxx                     # CLASTA, CLASTB, COMPACT, CPY, EXT, LASTA, LASTB
00000101 xx1 xxxxx 00101x xxxxx xxxxx                     # TBL, TBX
00000101 xx1 xxxxx 0x110x xxxxx xxxxx                     # TBL, TBXQ, TRN1, TRN2
00000101 xx1 00000 001110 xxxxx xxxxx  rN                 # DUP
00000101 xx1 0xxxx 0100xx 0xxxx 0xxxx                     # UZP1, UZP2, ZIP1, ZIP2
00000101 xx1 0xxxx 01010x 0xxxx 0xxxx                     # TRN1, TRN2
00000101 xx1 xxxxx 0110xx xxxxx xxxxx                     # UZP1, UZP2, ZIP1, ZIP2
00000101 xx1 0000x 101xxx xxxxx xxxxx  wd                 # LASTA, LASTB
00000101 xx1 xxxxx 11xxxx xxxxx xxxxx                     # SEL
00000101 001 x0001 00100x xxxxx xxxxx                     # DUP, DUPQ
00000101 001 x001x 00100x xxxxx xxxxx                     # DUP, DUPQ
00000101 0x1 x01xx 000xxx xxxxx xxxxx                     # EXT
00000101 001 x01xx 00100x xxxxx xxxxx                     # DUP, DUPQ
00000101 xx1 00100 001110 xxxxx xxxxx  rn                 # INSR
00000101 0x1 00111 10xxxx xxxxx xxxxx                     # RBIT
00000101 001 x1xxx 00100x xxxxx xxxxx                     # DUP, DUPQ
00000101 xx1 01000 101xxx xxxxx xxxxx  rN                 # CPY
00000101 001 01010 001110 xxxxx 0xxxx                     # PMOV
00000101 001 01011 001110 0xxxx xxxxx                     # PMOV
00000101 0x1 0110x x00xxx xxxxx xxxxx                     # EXT, SPLICE
00000101 001 011x0 001110 xxxxx 0xxxx                     # PMOV
00000101 001 011x1 001110 0xxxx xxxxx                     # PMOV
00000101 0x1 0111x 000xxx xxxxx xxxxx                     # EXT
00000101 001 01110 10xxxx xxxxx xxxxx                     # REVD
00000101 0x1 10000 000xxx xxxxx xxxxx                     # EXT
00000101 001 10000 001000 xxxxx xxxxx                     # DUP
00000101 001 1000x 010000 0xxxx 0xxxx                     # PUNPKHI, PUNPKLO
00000101 xx1 1000x 101xxx xxxxx xxxxx  wd rd              # CLASTA, CLASTB
00000101 0x1 10001 x00xxx xxxxx xxxxx                     # EXPAND, EXT
00000101 0x1 1001x 000xxx xxxxx xxxxx                     # EXT
00000101 xx1 10100 001110 xxxxx xxxxx                     # INSR
00000101 xx1 10100 010000 0xxxx 0xxxx                     # REV
00000101 0x1 11xxx 000xxx xxxxx xxxxx                     # EXT
00000101 xx1 11000 001110 xxxxx xxxxx                     # REV
00000101 010 1xxxx 0xxxxx xxxxx xxxxx                     # CPY
00000101 010 1xxxx 110xxx xxxxx xxxxx                     # FCPY
00000101 011 00000 001001 xxxxx xxxxx                     # EXTQ
00000101 011 00001 00100x xxxxx xxxxx                     # DUP, EXTQ
00000101 011 0001x 00100x xxxxx xxxxx                     # DUP, EXTQ
00000101 011 001xx 00100x xxxxx xxxxx                     # DUP, EXTQ
00000101 011 00100 10xxxx xxxxx xxxxx                     # REVB
00000101 011 01xxx 00100x xxxxx xxxxx                     # DUP, EXTQ
00000101 011 01xx0 001110 xxxxx 0xxxx                     # PMOV
00000101 011 01xx1 001110 0xxxx xxxxx                     # PMOV
00000101 011 1xxxx 001000 xxxxx xxxxx                     # DUP
00000101 011 100xx 001110 xxxxx xxxxx                     # SUNPKHI, SUNPKLO, UUNPKHI, UUNPKLO
00000101 1x0 1xxxx 0xxxxx xxxxx xxxxx                     # CPY
00000101 1x0 1xxxx 110xxx xxxxx xxxxx                     # FCPY
00000101 101 xxxxx 0000xx xxxxx xxxxx                     # UZP1, UZP2, ZIP1, ZIP2
00000101 101 xxxxx 00011x xxxxx xxxxx                     # TRN1, TRN2
00000101 1x1 0x0xx 100xxx xxxxx xxxxx                     # CLASTA, CLASTB, COMPACT, CPY, LASTA, LASTB
00000101 1x1 00001 001000 xxxxx xxxxx                     # DUP
00000101 1x1 0001x 001000 xxxxx xxxxx                     # DUP
00000101 1x1 001xx 001000 xxxxx xxxxx                     # DUP
00000101 101 0010x 10xxxx xxxxx xxxxx                     # REVB, REVH
00000101 101 00111 10xxxx xxxxx xxxxx                     # RBIT
00000101 1x1 01xxx 001000 xxxxx xxxxx                     # DUP
00000101 1x1 01xx0 001110 xxxxx 0xxxx                     # PMOV
00000101 1x1 01xx1 001110 0xxxx xxxxx                     # PMOV
00000101 1x1 0110x 100xxx xxxxx xxxxx                     # SPLICE
00000101 1x1 1xxxx 001000 xxxxx xxxxx                     # DUP
00000101 1x1 100xx 001110 xxxxx xxxxx                     # SUNPKHI, SUNPKLO, UUNPKHI, UUNPKLO
00000101 1x1 10001 100xxx xxxxx xxxxx                     # EXPAND
00000101 111 001xx 10xxxx xxxxx xxxxx                     # RBIT, REVB, REVH, REVW
00100100 0xx xxxxx xxxxxx xxxxx xxxxx                     # CMPEQ, CMPGE, CMPGT, CMPHI, CMPHS, CMPLE, CMPLO, ...
00100100 10x xxxxx xxxxxx xxxxx xxxxx                     # CMPEQ, CMPGE, CMPGT, CMPHI, CMPHS, CMPLE, CMPLO, ...
00100100 110 xxxxx 000xxx xxxxx xxxxx                     # CMPHI, CMPHS
00100100 110 xxxxx 10xxxx xxxxx xxxxx                     # CMPEQ, CMPGE, CMPGT, CMPNE
00100100 111 xxxxx xxxxxx xxxxx xxxxx                     # CMPHI, CMPHS, CMPLO, CMPLS
00100101 xx0 xxxxx 00xxxx xxxxx xxxxx                     # CMPGE, CMPGT, CMPLE, CMPLT
00100101 000 0xxxx 01xxxx xxxxx xxxxx                     # AND, BIC, EOR, SEL
00100101 xx0 xxxxx 100xxx xxxxx xxxxx                     # CMPEQ, CMPNE
00100101 000 0xxxx 11xxxx 0xxxx xxxxx                     # BRKPA, BRKPB
00100101 x00 10000 01xxxx 0xxxx xxxxx                     # BRKA, BRKB
00100101 000 11000 01xxxx 0xxxx 0xxxx                     # BRKN
00100101 xx0 1100x 111000 xxxxx 0xxxx                     # PTRUE, PTRUES
00100101 000 11000 111001 00000 0xxxx                     # PFALSE
00100101 0x0 11000 111100 0xxxx 0xxxx                     # RDFFR, RDFFRS
00100101 xx0 11001 110001 0xxxx 0xxxx                     # PNEXT
00100101 000 11001 111100 00000 0xxxx                     # RDFFR
00100101 xx1 xxxxx 000xxx xxxxx xxxxx  rn rm              # WHILEGE, WHILEGT, WHILEHI, WHILEHS, WHILELE, ...
00100101 xx1 xxxxx 001100 xxxxx xxxxx  rn rm              # WHILERW, WHILEWR
00100101 xx1 xxxxx 010xxx xxxxx 1xxxx  rn rm              # WHILEGE, WHILEGT, WHILEHI, WHILEHS, WHILELE, ...
00100101 xx1 xxxxx 0110xx xxxxx 1xxxx  rn rm              # WHILEGE, WHILEGT, WHILEHI, WHILEHS, WHILELE, ...
00100101 xx1 00000 011100 xxxxx 1xxxx                     # PEXT
00100101 xx1 00000 011101 0xxxx 1xxxx                     # PEXT
00100101 xx1 00000 011110 00000 10xxx                     # PTRUE
00100101 xx1 0000x 10xxxx 0xxxx xxxxx  wd                 # CNTP, FIRSTP
00100101 xx1 00000 10000x 1xxxx xxxxx  wd                 # CNTP
00100101 001 0000x 110xxx xxxxx xxxxx                     # ADD, SUB
00100101 xx1 00010 10xxxx 0xxxx xxxxx  wd                 # LASTP
00100101 001 00011 110xxx xxxxx xxxxx                     # SUBR
00100101 x01 001xx 01xxxx 0xxxx 0xxxx  r8-15              # PSEL
00100101 001 001xx 110xxx xxxxx xxxxx                     # SQADD, SQSUB, UQADD, UQSUB
00100101 x01 01xxx 01xxxx 0xxxx 0xxxx  r8-15              # PSEL
00100101 xx1 010xx 10001x 0xxxx xxxxx  wd rd              # SQDECP, SQINCP, UQDECP, UQINCP
00100101 001 01000 100100 0xxxx 00000                     # WRFFR
00100101 xx1 010xx 110xxx xxxxx xxxxx                     # SMAX, SMIN, UMAX, UMIN
00100101 xx1 0110x 100010 0xxxx xxxxx  wd rd              # DECP, INCP
00100101 001 01100 100100 00000 00000                     # SETFFR
00100101 x01 1xxxx 01xxxx 0xxxx 0xxxx  r8-15              # PSEL
00100101 001 1x000 110xxx xxxxx xxxxx                     # DUP, MUL
00100101 010 0xxxx x1xxxx 0xxxx xxxxx                     # ANDS, BICS, BRKPAS, BRKPBS
00100101 010 0xxxx 01xxxx 1xxxx 0xxxx                     # EORS
00100101 010 1x000 01xxxx 0xxxx 0xxxx                     # BRKAS, BRKNS
00100101 010 10000 11xxxx 0xxxx 00000                     # PTEST
00100101 010 11000 110000 0xxxx 0xxxx                     # PFIRST
00100101 x11 xxxxx 01xxxx 0xxxx 0xxxx  r8-15              # PSEL
00100101 011 0000x 11xxxx xxxxx xxxxx                     # ADD, SUB
00100101 011 00011 11xxxx xxxxx xxxxx                     # SUBR
00100101 011 001xx 11xxxx xxxxx xxxxx                     # SQADD, SQSUB, UQADD, UQSUB
00100101 011 010xx 100000 0xxxx xxxxx                     # SQDECP, SQINCP, UQDECP, UQINCP
00100101 011 0110x 100000 0xxxx xxxxx                     # DECP, INCP
00100101 011 10000 110xxx xxxxx xxxxx                     # MUL
00100101 011 11000 11xxxx xxxxx xxxxx                     # DUP
00100101 011 11001 110xxx xxxxx xxxxx                     # FDUP
00100101 1x0 0xxxx 01xxxx xxxxx xxxxx                     # NAND, NANDS, NOR, NORS, ORN, ORNS, ORR, ORRS
00100101 1x1 xxxxx 001000 xxxxx x0000  rn rm              # CTERMEQ, CTERMNE
00100101 1x1 0000x 11xxxx xxxxx xxxxx                     # ADD, SUB
00100101 1x1 00011 11xxxx xxxxx xxxxx                     # SUBR
00100101 1x1 001xx 11xxxx xxxxx xxxxx                     # SQADD, SQSUB, UQADD, UQSUB
00100101 1x1 010xx 100000 0xxxx xxxxx                     # SQDECP, SQINCP, UQDECP, UQINCP
00100101 1x1 0110x 100000 0xxxx xxxxx                     # DECP, INCP
00100101 1x1 10000 110xxx xxxxx xxxxx                     # MUL
00100101 1x1 11000 11xxxx xxxxx xxxxx                     # DUP
00100101 1x1 11001 110xxx xxxxx xxxxx                     # FDUP
00100101 110 10000 01xxxx 0xxxx 0xxxx                     # BRKBS
"""
