"""Layer 1: encodings of the base set: arithmetic, branches, exceptions, system instructions.

The language is that of `surefoot.isa.forms`. Order matters where lines overlap: the special case stands first.

Source: Arm Architecture Reference Manual for A-profile (DDI 0487), C4.1; allocation as in Arm's machine-readable
specification (AARCHMRS, A-profile, 2026).
"""

from __future__ import annotations

from typing import Final

__all__ = ["BRANCHES", "IMMEDIATE", "REGISTER", "SYSTEM"]

IMMEDIATE: Final = """
xxx10000 xxxxxxxxxxxxxxxxxxx xxxxx            wd                # ADR, ADRP
1 x 0 100010 x xxxxxxxxxxxx xxxxx xxxxx       wD rN addi        # ADD, SUB (64)
0 x 0 100010 x xxxxxxxxxxxx xxxxx xxxxx       wD rN
x x 1 100010 x xxxxxxxxxxxx xxxxx xxxxx       wd rN             # ADDS, SUBS
1 x 0 100011 0 xxxxxx 00 xxxx xxxxx xxxxx     wD rN             # ADDG, SUBG
x 0 0 100011 1 00xx xxxxxxxx xxxxx xxxxx      wd rn             # SMAX, UMAX, SMIN, UMIN

x xx 100100 0 xxxxxx 11111x xxxxx xxxxx       undef             # logical, reserved immediates
x xx 100100 0 xxxxxx 011111 xxxxx xxxxx       undef
x xx 100100 0 xxxxxx 101111 xxxxx xxxxx       undef
x xx 100100 0 xxxxxx 110111 xxxxx xxxxx       undef
x xx 100100 0 xxxxxx 111011 xxxxx xxxxx       undef
x xx 100100 0 xxxxxx 111101 xxxxx xxxxx       undef
x xx 100100 1 xxxxxx 111111 xxxxx xxxxx       undef
x 11 100100 0 xxxxxx xxxxxx xxxxx xxxxx       wd rn             # ANDS
1 11 100100 1 xxxxxx xxxxxx xxxxx xxxxx       wd rn
x xx 100100 0 xxxxxx xxxxxx xxxxx xxxxx       wD rn             # AND, ORR, EOR
1 xx 100100 1 xxxxxx xxxxxx xxxxx xxxxx       wD rn

0 00 100101 0 x xxxxxxxxxxxxxxxx xxxxx        wd                # MOVN
1 00 100101 xx xxxxxxxxxxxxxxxx xxxxx         wd
0 10 100101 0 x xxxxxxxxxxxxxxxx xxxxx        wd                # MOVZ
1 10 100101 xx xxxxxxxxxxxxxxxx xxxxx         wd
0 11 100101 0 x xxxxxxxxxxxxxxxx xxxxx        wd rd             # MOVK
1 11 100101 xx xxxxxxxxxxxxxxxx xxxxx         wd rd

0 01 100110 0 0xxxxx 0xxxxx xxxxx xxxxx       wd rd rn          # BFM
1 01 100110 1 xxxxxx xxxxxx xxxxx xxxxx       wd rd rn
0 x0 100110 0 0xxxxx 0xxxxx xxxxx xxxxx       wd rn             # SBFM, UBFM
1 x0 100110 1 xxxxxx xxxxxx xxxxx xxxxx       wd rn
0 00 100111 0 0 xxxxx 0xxxxx xxxxx xxxxx      wd rn rm          # EXTR
1 00 100111 1 0 xxxxx xxxxxx xxxxx xxxxx      wd rn rm
1 11 10011 100 xxxxxxxxxxxxxxxx 11111       w30 r30 rsp auth pc ka    # AUTIASPPC
1 11 10011 101 xxxxxxxxxxxxxxxx 11111       w30 r30 rsp auth pc kb    # AUTIBSPPC
"""

REGISTER: Final = """
1 01 01010 00 0 xxxxx 000000 11111 xxxxx      wd rm mov         # ORR: MOV (64)
0 xx 01010 xx x xxxxx 0xxxxx xxxxx xxxxx      wd rn rm          # AND, BIC, ORR, ORN, EOR, EON, ANDS, BICS
1 xx 01010 xx x xxxxx xxxxxx xxxxx xxxxx      wd rn rm
x xx 01011 11 0 xxxxx xxxxxx xxxxx xxxxx      undef
0 xx 01011 xx 0 xxxxx 0xxxxx xxxxx xxxxx      wd rn rm          # ADD, ADDS, SUB, SUBS (shifted)
1 xx 01011 xx 0 xxxxx xxxxxx xxxxx xxxxx      wd rn rm
x x0 01011 00 1 xxxxx xxx 0xx xxxxx xxxxx     wD rN rm          # ADD, SUB (extended)
x x0 01011 00 1 xxxxx xxx 100 xxxxx xxxxx     wD rN rm
x x1 01011 00 1 xxxxx xxx 0xx xxxxx xxxxx     wd rN rm          # ADDS, SUBS (extended)
x x1 01011 00 1 xxxxx xxx 100 xxxxx xxxxx     wd rN rm
x xx 11010000 xxxxx 000000 xxxxx xxxxx        wd rn rm          # ADC, ADCS, SBC, SBCS
1 x0 11010000 xxxxx 001 xxx xxxxx xxxxx       wD rN rm          # ADDPT, SUBPT
1 01 11010000 xxxxxx 00001 xxxxx 0 xxxx       rn                # RMIF
0 01 11010000 000000 x 0010 xxxxx 0 1101      rn                # SETF8, SETF16
x x1 11010010 xxxxx xxxx 00 xxxxx 0 xxxx      rn rm             # CCMN, CCMP (register)
x x1 11010010 xxxxx xxxx 10 xxxxx 0 xxxx      rn                # CCMN, CCMP (immediate)
x x0 11010100 xxxxx xxxx 0x xxxxx xxxxx       wd rn rm          # CSEL, CSINC, CSINV, CSNEG
x 00 11011 000 xxxxx x xxxxx xxxxx xxxxx      wd rn rm ra       # MADD, MSUB
1 00 11011 x01 xxxxx x xxxxx xxxxx xxxxx      wd rn rm ra       # SMADDL, SMSUBL, UMADDL, UMSUBL
1 00 11011 x10 xxxxx 0 11111 xxxxx xxxxx      wd rn rm          # SMULH, UMULH
1 00 11011 011 xxxxx x xxxxx xxxxx xxxxx      wd rn rm ra       # MADDPT, MSUBPT
x 00 11010110 xxxxx 00001 x xxxxx xxxxx       wd rn rm          # UDIV, SDIV
x 00 11010110 xxxxx 0010 xx xxxxx xxxxx       wd rn rm          # LSLV, LSRV, ASRV, RORV
x 00 11010110 xxxxx 0110 xx xxxxx xxxxx       wd rn rm          # SMAX, UMAX, SMIN, UMIN
0 00 11010110 xxxxx 010 x 00 xxxxx xxxxx      wd rn rm          # CRC32B, CRC32CB
0 00 11010110 xxxxx 010 x 01 xxxxx xxxxx      wd rn rm          # CRC32H, CRC32CH
0 00 11010110 xxxxx 010 x 10 xxxxx xxxxx      wd rn rm          # CRC32W, CRC32CW
1 00 11010110 xxxxx 010 x 11 xxxxx xxxxx      wd rn rm          # CRC32X, CRC32CX
1 00 11010110 xxxxx 000000 xxxxx xxxxx        wd rN rM          # SUBP
1 01 11010110 xxxxx 000000 xxxxx xxxxx        wd rN rM          # SUBPS
1 00 11010110 xxxxx 000100 xxxxx xxxxx        wD rN rm          # IRG
1 00 11010110 xxxxx 000101 xxxxx xxxxx        wd rN rm          # GMI
1 00 11010110 xxxxx 001100 xxxxx xxxxx        wd rn rM          # PACGA
x 10 11010110 00000 00000 x xxxxx xxxxx       wd rn             # RBIT, REV16
x 10 11010110 00000 000010 xxxxx xxxxx        wd rn             # REV (32), REV32
1 10 11010110 00000 000011 xxxxx xxxxx        wd rn             # REV (64)
x 10 11010110 00000 00010 x xxxxx xxxxx       wd rn             # CLZ, CLS
x 10 11010110 00000 00011 x xxxxx xxxxx       wd rn             # CTZ, CNT
x 10 11010110 00000 001000 xxxxx xxxxx        wd rn             # ABS
1 10 11010110 00001 000 000 xxxxx 11110       wd rd rN sign ka  # PACIA x30
1 10 11010110 00001 000 001 xxxxx 11110       wd rd rN sign kb  # PACIB x30
1 10 11010110 00001 000 100 xxxxx 11110       wd rd rN auth ka  # AUTIA x30
1 10 11010110 00001 000 101 xxxxx 11110       wd rd rN auth kb  # AUTIB x30
1 10 11010110 00001 000 xxx xxxxx xxxxx       wd rd rN          # PACIA, ..., AUTDB
1 10 11010110 00001 001 000 11111 11110       wd rd sign zero ka        # PACIZA x30
1 10 11010110 00001 001 001 11111 11110       wd rd sign zero kb        # PACIZB x30
1 10 11010110 00001 001 100 11111 11110       wd rd auth zero ka        # AUTIZA x30
1 10 11010110 00001 001 101 11111 11110       wd rd auth zero kb        # AUTIZB x30
1 10 11010110 00001 001 xxx 11111 xxxxx       wd rd             # PACIZA, ..., AUTDZB
1 10 11010110 00001 01000 x 11111 11110       wd rd strip       # XPACI x30, XPACD x30
1 10 11010110 00001 01000 x 11111 xxxxx       wd rd             # XPACI, XPACD
1 10 11010110 00001 101000 11111 11110        w30 r30 rsp sign pc ka    # PACIASPPC
1 10 11010110 00001 101001 11111 11110        w30 r30 rsp sign pc kb    # PACIBSPPC
1 10 11010110 00001 100000 11111 11110        w30 r30 rsp sign pc ka    # PACNBIASPPC
1 10 11010110 00001 100001 11111 11110        w30 r30 rsp sign pc kb    # PACNBIBSPPC
1 10 11010110 00001 100100 xxxxx 11110        w30 r30 rsp rn auth pc ka # AUTIASPPCR
1 10 11010110 00001 100101 xxxxx 11110        w30 r30 rsp rn auth pc kb # AUTIBSPPCR
1 10 11010110 00001 10001 x 11111 11110       w17 r15 r16 r17   # PACIA171615, PACIB171615
1 10 11010110 00001 10111 x 11111 11110       w17 r15 r16 r17   # AUTIA171615, AUTIB171615
"""

BRANCHES: Final = """
0 00101 xxxxxxxxxxxxxxxxxxxxxxxxxx            jump              # B
1 00101 xxxxxxxxxxxxxxxxxxxxxxxxxx            call w30          # BL
01010100 xxxxxxxxxxxxxxxxxxx x xxxx           cond              # B.cond, BC.cond
x 011010 x xxxxxxxxxxxxxxxxxxx xxxxx          cond rd           # CBZ, CBNZ
x 011011 x xxxxxxxxxxxxxxxxxxx xxxxx          cond rd           # TBZ, TBNZ
x 1110100 0xx xxxxx 00 xxxxxxxxx xxxxx        cond rd rm        # CBGT, CBGE, CBHI, CBHS
x 1110100 11x xxxxx 00 xxxxxxxxx xxxxx        cond rd rm        # CBEQ, CBNE
0 1110100 0xx xxxxx 1x xxxxxxxxx xxxxx        cond rd rm        # CBB<cc>, CBH<cc>
0 1110100 11x xxxxx 1x xxxxxxxxx xxxxx        cond rd rm
x 1110101 0xx xxxxxx 0 xxxxxxxxx xxxxx        cond rd           # CB<cc> (immediate)
x 1110101 11x xxxxxx 0 xxxxxxxxx xxxxx        cond rd
01010101 000 xxxxxxxxxxxxxxxx 11111           ret r30 rsp ka pc         # RETAASPPC
01010101 001 xxxxxxxxxxxxxxxx 11111           ret r30 rsp kb pc         # RETABSPPC
1101011 0000 11111 000000 xxxxx 00000         jumpreg rn        # BR
1101011 0000 11111 000010 xxxxx 11111         jumpreg rn ka     # BRAAZ
1101011 0000 11111 000011 xxxxx 11111         jumpreg rn kb     # BRABZ
1101011 1000 11111 000010 xxxxx xxxxx         jumpreg rn rD ka  # BRAA
1101011 1000 11111 000011 xxxxx xxxxx         jumpreg rn rD kb  # BRAB
1101011 0001 11111 000000 xxxxx 00000         callreg w30 rn    # BLR
1101011 0001 11111 000010 xxxxx 11111         callreg w30 rn ka # BLRAAZ
1101011 0001 11111 000011 xxxxx 11111         callreg w30 rn kb # BLRABZ
1101011 1001 11111 000010 xxxxx xxxxx         callreg w30 rn rD ka      # BLRAA
1101011 1001 11111 000011 xxxxx xxxxx         callreg w30 rn rD kb      # BLRAB
1101011 0010 11111 000000 xxxxx 00000         ret rn            # RET
1101011 0010 11111 000010 11111 11111         ret r30 rsp ka    # RETAA
1101011 0010 11111 000011 11111 11111         ret r30 rsp kb    # RETAB
1101011 0010 11111 000010 11111 xxxxx         ret r30 rsp rd ka pc      # RETAASPPCR
1101011 0010 11111 000011 11111 xxxxx         ret r30 rsp rd kb pc      # RETABSPPCR
1101011 0100 11111 000000 11111 00000         eret              # ERET
1101011 0100 11111 000010 11111 11111         eret ka rsp       # ERETAA
1101011 0100 11111 000011 11111 11111         eret kb rsp       # ERETAB
1101011 0101 11111 000000 11111 00000         eret              # DRPS
"""

SYSTEM: Final = """
11010100 000 xxxxxxxxxxxxxxxx 000 01          exc w0-17 r0-17   # SVC
11010100 000 xxxxxxxxxxxxxxxx 000 10          exc w0-17 r0-17   # HVC
11010100 000 xxxxxxxxxxxxxxxx 000 11          exc w0-17 r0-17   # SMC
11010100 001 xxxxxxxxxxxxxxxx 000 00          exc               # BRK
11010100 010 xxxxxxxxxxxxxxxx 000 00          exc               # HLT
11010100 101 xxxxxxxxxxxxxxxx 000 01          exc               # DCPS1
11010100 101 xxxxxxxxxxxxxxxx 000 1x          exc               # DCPS2, DCPS3

11010101000000110001 0000 00x xxxxx           rd                # WFET, WFIT
11010101000000110010 0000 111 11111           w30 r30 strip     # XPACLRI
11010101000000110010 0000 xxx 11111                             # NOP, YIELD, WFE, WFI, SEV, SEVL, DGH
11010101000000110010 0001 0x0 11111           w17 r17 r16       # PACIA1716, PACIB1716
11010101000000110010 0001 1x0 11111           w17 r17 r16       # AUTIA1716, AUTIB1716
11010101000000110010 0010 0xx 11111                             # ESB, PSB, TSB, GCSB
11010101000000110010 0010 1x0 11111                             # CSDB, CLRBHB
11010101000000110010 0110 00x 11111                             # STSHH
11010101000000110010 0110 01x 11111                             # SHUH
11010101000000110010 0110 100 11111                             # STCPH
11010101000000110010 0011 000 11111           w30 r30 sign zero ka      # PACIAZ
11010101000000110010 0011 001 11111           w30 r30 rsp sign ka bti   # PACIASP
11010101000000110010 0011 010 11111           w30 r30 sign zero kb      # PACIBZ
11010101000000110010 0011 011 11111           w30 r30 rsp sign kb bti   # PACIBSP
11010101000000110010 0011 100 11111           w30 r30 auth zero ka      # AUTIAZ
11010101000000110010 0011 101 11111           w30 r30 rsp auth ka       # AUTIASP
11010101000000110010 0011 110 11111           w30 r30 auth zero kb      # AUTIBZ
11010101000000110010 0011 111 11111           w30 r30 rsp auth kb       # AUTIBSP
11010101000000110010 0100 xx0 11111           bti               # BTI
11010101000000110010 0100 111 11111                             # PACM
11010101000000110010 0101 000 11111           w16 r16           # CHKFEAT

11010101000000110011 xxxx 010 11111                             # CLREX
11010101000000110011 xxxx 10x 11111                             # DSB, DMB
11010101000000110011 xx10 001 11111                             # DSB nXS
11010101000000110011 xxxx 110 11111                             # ISB
11010101000000110011 0000 111 11111                             # SB
11010101000000000100 0000 000 11111                             # CFINV
11010101000000000100 0000 001 11111                             # XAFLAG
11010101000000000100 0000 010 11111                             # AXFLAG
11010101000000000100 xxxx 011 11111                             # MSR UAO
11010101000000000100 xxxx 100 11111                             # MSR PAN
11010101000000000100 xxxx 101 11111           wsp               # MSR SPSel
11010101000000010100 00xx 000 11111                             # MSR ALLINT, PM
11010101000000110100 xxxx 001 11111                             # MSR SSBS
11010101000000110100 xxxx 010 11111                             # MSR DIT
11010101000000110100 0xxx 011 11111                             # SMSTART, SMSTOP
11010101000000110100 xxxx 100 11111                             # MSR TCO
11010101000000110100 xxxx 11x 11111                             # MSR DAIFSet, DAIFClr
1101010100001 011 0111 0100 xxx xxxxx         rd st any atd     # DC ZVA, GVA, GZVA
1101010100001 xxx xxxx xxxx xxx xxxxx         rd                # SYS
1101010100101 xxx xxxx xxxx xxx xxxxx         wd                # SYSL
1101010100011 000 0100 0010 000 xxxxx         rd wsp            # MSR SPSel
110101010001 x xxx xxxx xxxx xxx xxxxx        rd                # MSR
110101010011 x xxx xxxx xxxx xxx xxxxx        wd                # MRS
11010101 1000 0 x x0000000 xxxxx xxxxx        wd rn             # TCHANGEF, TCHANGEB (register)
11010101 1001 0 x x000 00 xxxxxxx xxxxx       wd                # TCHANGEF, TCHANGEB (immediate)
110101010010001100110001011 xxxxx             wd                # TTEST
1101010101001 xxx xxxx xxxx xxx 11111                           # SYSP
1101010101001 xxx xxxx xxxx xxx xxxx0         rdd               # SYSP
110101010101 x xxx xxxx xxxx xxx xxxx0        rdd               # MSRR
110101010111 x xxx xxxx xxxx xxx xxxx0        wdd               # MRRS
"""
