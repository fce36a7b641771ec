"""Layer 1: encodings of loads, stores, atomics and memory copies of general and SIMD registers.

The language is that of `surefoot.isa.forms`. Exact loads and stores (x1, x2) are those that surely transfer all 64
bits: a store-exclusive may fail and an unprivileged access may reach another mapping, so that they are not.

Source: Arm Architecture Reference Manual for A-profile (DDI 0487), C4.1 "Loads and Stores"; allocation as in Arm's
machine-readable specification (AARCHMRS, A-profile, 2026).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

__all__ = ["memory_tables"]

_SIZES: Final = (("00", 1), ("01", 2), ("10", 4), ("11", 8))
"""The size field of most loads and stores, and the bytes of one element."""

_EXCLUSIVE: Final = """
11 001000 010 11111 x 11111 xxxxx xxxxx       wd rN ld x1               # LDXR, LDAXR (64)
11 001000 110 11111 x 11111 xxxxx xxxxx       wd rN ld x1               # LDAR, LDLAR (64)
11 001000 100 11111 x 11111 xxxxx xxxxx       rd rN st x1 size=8        # STLR, STLLR (64)
10 001000 001 xxxxx x xxxxx xxxxx xxxxx       ws rd ra rN st size=8     # STXP, STLXP (32)
11 001000 001 xxxxx x xxxxx xxxxx xxxxx       ws rd ra rN st size=16    # STXP, STLXP (64)
10 001000 011 11111 x xxxxx xxxxx xxxxx       wd wa rN                  # LDXP, LDAXP (32)
11 001000 011 11111 x xxxxx xxxxx xxxxx       wd wa rN ld x2            # LDXP, LDAXP (64)
00 001000 0x1 xxxx0 x 11111 xxxxx xxxx0       wss rmm rdd rN st size=8  # CASP (32)
01 001000 0x1 xxxx0 x 11111 xxxxx xxxx0       wss rmm rdd rN st size=16 # CASP (64)
10 001001 000 xxxxx x 11111 xxxxx xxxxx       ws rd rN st size=4        # STTXR, STLTXR (32)
11 001001 000 xxxxx x 11111 xxxxx xxxxx       ws rd rN st size=8        # STTXR, STLTXR (64)
1x 001001 010 11111 x 11111 xxxxx xxxxx       wd rN                     # LDTXR, LDATXR
11 001001 1x0 xxxxx x 11111 xxxxx xxxxx       ws rm rd rN st size=8     # CAST
01 001001 1x0 xxxx0 x 11111 xxxxx xxxx0       wss rmm rdd rN st size=16 # CASPT
"""

_EXCLUSIVE_BY_SIZE: Final = """
SZ 001000 000 xxxxx x 11111 xxxxx xxxxx       ws rd rN st size=BYTES    # STXR, STLXR
SW 001000 010 11111 x 11111 xxxxx xxxxx       wd rN                     # LDXR, LDAXR
SW 001000 100 11111 x 11111 xxxxx xxxxx       rd rN st size=BYTES       # STLR, STLLR
SW 001000 110 11111 x 11111 xxxxx xxxxx       wd rN                     # LDAR, LDLAR
SZ 001000 1x1 xxxxx x 11111 xxxxx xxxxx       ws rm rd rN st size=BYTES # CAS
"""

_ORDERED: Final = """
11 011001 000 xxxxxxxxx 00 xxxxx xxxxx        rd rN st s9 x1 size=8     # STLUR (64)
11 011001 010 xxxxxxxxx 00 xxxxx xxxxx        wd rN ld s9 x1            # LDAPUR (64)
0x 011001 1x0 xxxxxxxxx 00 xxxxx xxxxx        wd rN                     # LDAPURSB, LDAPURSH
10 011001 100 xxxxxxxxx 00 xxxxx xxxxx        wd rN                     # LDAPURSW
00 011101 100 xxxxxxxxx 10 xxxxx xxxxx        rN st s9 size=16          # STLUR (Q)
00 011101 110 xxxxxxxxx 10 xxxxx xxxxx        rN                        # LDAPUR (Q)
10 011001 100 00000 000010 xxxxx xxxxx        rd rN wn st pre by=-4 size=4      # STLR (pre)
11 011001 100 00000 000010 xxxxx xxxxx        rd rN wn st x1 pre by=-8 size=8
10 011001 110 00000 000010 xxxxx xxxxx        wd rN wn post by=4        # LDAPR (post)
11 011001 110 00000 000010 xxxxx xxxxx        wd rN wn ld x1 post by=8
10 011001 000 xxxxx 000010 xxxxx xxxxx        rd rm rN wn st pre by=-8 size=8   # STILP (pre)
11 011001 000 xxxxx 000010 xxxxx xxxxx        rd rm rN wn st x2m pre by=-16 size=16
10 011001 000 xxxxx 000110 xxxxx xxxxx        rd rm rN st size=8        # STILP
11 011001 000 xxxxx 000110 xxxxx xxxxx        rd rm rN st x2m size=16
11 011001 000 xxxxx 010110 xxxxx xxxxx        rd rm rN st x2m size=16   # STLP
10 011001 010 xxxxx 000010 xxxxx xxxxx        wd ws rN wn post by=8     # LDIAPP (post)
11 011001 010 xxxxx 000010 xxxxx xxxxx        wd ws rN wn ld x2m post by=16
10 011001 010 xxxxx 000110 xxxxx xxxxx        wd ws rN                  # LDIAPP
11 011001 010 xxxxx 000110 xxxxx xxxxx        wd ws rN ld x2m
11 011001 010 xxxxx 01x110 xxxxx xxxxx        wd ws rN ld x2m           # LDAP, LDAPP
11 011001 000 11111 000011 xxxxx xxxxx        rd rN st x1 size=8        # GCSSTR
11 011001 000 11111 000111 xxxxx xxxxx        rd rN st size=8           # GCSSTTR
"""

_ORDERED_BY_SIZE: Final = """
SW 011001 000 xxxxxxxxx 00 xxxxx xxxxx        rd rN st s9 size=BYTES    # STLUR
SW 011001 010 xxxxxxxxx 00 xxxxx xxxxx        wd rN                     # LDAPUR
SZ 011101 000 xxxxxxxxx 10 xxxxx xxxxx        rN st s9 size=BYTES       # STLUR (SIMD)
SZ 011101 010 xxxxxxxxx 10 xxxxx xxxxx        rN                        # LDAPUR (SIMD)
"""

_COPY: Final = """
00 011x01 xx0 xxxxx xxxx 01 11111 xxxxx       undef                     # MOPS: no register is 31
00 011x01 xx0 xxxxx xxxx 01 xxxxx 11111       undef
00 011x01 0x0 11111 xxxx 01 xxxxx xxxxx       undef
00 011x01 100 11111 xxxx 01 xxxxx xxxxx       undef
00 011x01 0x0 xxxxx xxxx 01 xxxxx xxxxx       wd ws wz rd rm rn st any atd      # CPYFP, CPYFM, CPYP, CPYM
00 011x01 100 xxxxx xxxx 01 xxxxx xxxxx       wd ws wz rd rm rn st any atd      # CPYFE, CPYE
00 011x01 110 xxxxx 0xxx 01 xxxxx xxxxx       wd wz rd rm rn st any atd         # SETP, SETM, SETGP, SETGM
00 011x01 110 xxxxx 10xx 01 xxxxx xxxxx       wd wz rd rm rn st any atd         # SETE, SETGE
00 011101 110 11111 0xxx 00 xxxxx xxxxx       wd wz rd rn st any atd            # SETGOP, SETGOM
00 011101 110 11111 10xx 00 xxxxx xxxxx       wd wz rd rn st any atd            # SETGOE
"""

_TAG: Final = """
11 011001 x01 000000000 00 xxxxx xxxxx        rd rN st any              # STZGM, STGM
11 011001 111 000000000 00 xxxxx xxxxx        wd rN                     # LDGM
11 011001 011 xxxxxxxxx 00 xxxxx xxxxx        wd rd rN                  # LDG
11 011001 0x1 xxxxxxxxx 10 xxxxx xxxxx        rD rN st s9 unit=16 size=16       # STG, STZG
11 011001 0x1 xxxxxxxxx 01 xxxxx xxxxx        rD rN wn st s9 unit=16 post size=16
11 011001 0x1 xxxxxxxxx 11 xxxxx xxxxx        rD rN wn st s9 unit=16 pre size=16
11 011001 1x1 xxxxxxxxx 10 xxxxx xxxxx        rD rN st s9 unit=16 size=32       # ST2G, STZ2G
11 011001 1x1 xxxxxxxxx 01 xxxxx xxxxx        rD rN wn st s9 unit=16 post size=32
11 011001 1x1 xxxxxxxxx 11 xxxxx xxxxx        rD rN wn st s9 unit=16 pre size=32
01 101000 10 xxxxxxx xxxxx xxxxx xxxxx        rd ra rN wn st x2 s7 unit=16 post size=16  # STGP
01 101001 00 xxxxxxx xxxxx xxxxx xxxxx        rd ra rN st x2 s7 unit=16 size=16
01 101001 10 xxxxxxx xxxxx xxxxx xxxxx        rd ra rN wn st x2 s7 unit=16 pre size=16
"""

_LITERAL: Final = """
0x 011000 xxxxxxxxxxxxxxxxxxx xxxxx           wd                        # LDR (literal)
10 011000 xxxxxxxxxxxxxxxxxxx xxxxx           wd                        # LDRSW (literal)
11 011000 xxxxxxxxxxxxxxxxxxx xxxxx                                     # PRFM (literal)
0x 011100 xxxxxxxxxxxxxxxxxxx xxxxx                                     # LDR (literal, SIMD)
10 011100 xxxxxxxxxxxxxxxxxxx xxxxx
11 111000 100 xxxxxxxxx 00 xxxxx xxxxx        rN                        # PRFUM
11 111000 101 xxxxx x1x x 10 xxxxx xxxxx      rN rm                     # PRFM (register), RPRFM
11 111001 10 xxxxxxxxxxxx xxxxx xxxxx         rN                        # PRFM
11 111000 xx1 xxxxxxxxx 01 xxxxx xxxxx        wd rN                     # LDRAA, LDRAB
11 111000 xx1 xxxxxxxxx 11 xxxxx xxxxx        wd rN wn s10 unit=8 pre   # LDRAA, LDRAB (pre)
"""

_ATOMIC: Final = """
11 111000 101 11111 1 100 00 xxxxx xxxxx      wd rN ld x1               # LDAPR (64)
0x 111000 xx1 xxxxx 1 001 00 xxxxx xxxxx      wd rm rN st size=8        # RCWCLR, RCWSCLR
0x 111000 xx1 xxxxx 1 01x 00 xxxxx xxxxx      wd rm rN st size=8        # RCWSWP, RCWSET, RCWSSWP, RCWSSET
11 111000 001 11111 1 101 00 xxxxx 0xxx0      wd8 rN                    # LD64B
11 111000 001 11111 1 101 00 xxxxx 10xx0      wd8 rN
11 111000 001 11111 1 001 00 xxxxx 0xxx0      rd8 rN st size=64         # ST64B
11 111000 001 11111 1 001 00 xxxxx 10xx0      rd8 rN st size=64
11 111000 001 xxxxx 1 01x 00 xxxxx 0xxx0      ws rd8 rN st size=64      # ST64BV0, ST64BV
11 111000 001 xxxxx 1 01x 00 xxxxx 10xx0      ws rd8 rN st size=64
0x 011001 xx1 xxxxx 0000 10 xxxxx xxxxx       ws rm rd rN st size=8     # RCWCAS, RCWSCAS
0x 011001 xx1 xxxx0 0000 11 xxxxx xxxx0       wss rmm rdd rN st size=16 # RCWCASP, RCWSCASP
0x 011001 xx1 11111 xxxx 00 xxxxx xxxxx       undef                     # 128-bit atomics: no register is 31
0x 011001 xx1 xxxxx xxxx 00 xxxxx 11111       undef
00 011001 xx1 xxxxx 00x1 00 xxxxx xxxxx       wd ws rd rm rN st size=16 # LDCLRP, LDSETP
00 011001 xx1 xxxxx 1000 00 xxxxx xxxxx       wd ws rd rm rN st size=16 # SWPP
0x 011001 xx1 xxxxx 1001 00 xxxxx xxxxx       wd ws rd rm rN st size=16 # RCWCLRP, RCWSCLRP
0x 011001 xx1 xxxxx 101x 00 xxxxx xxxxx       wd ws rd rm rN st size=16 # RCWSWPP, RCWSETP, RCWSSWPP, RCWSSETP
00 011001 xx1 xxxxx 000x 01 xxxxx xxxxx       wd rm rN st size=4        # LDTADD, LDTCLR
00 011001 xx1 xxxxx 0011 01 xxxxx xxxxx       wd rm rN st size=4        # LDTSET
00 011001 xx1 xxxxx 1000 01 xxxxx xxxxx       wd rm rN st size=4        # SWPT
01 011001 xx1 xxxxx 000x 01 xxxxx xxxxx       wd rm rN st size=8
01 011001 xx1 xxxxx 0011 01 xxxxx xxxxx       wd rm rN st size=8
01 011001 xx1 xxxxx 1000 01 xxxxx xxxxx       wd rm rN st size=8
00 111100 xx1 xxxxx 0 000 00 xxxxx xxxxx      rN st size=2              # LDBFADD
00 111100 xx1 xxxxx 0 1xx 00 xxxxx xxxxx      rN st size=2              # LDBFMAX, LDBFMIN, LDBFMAXNM, LDBFMINNM
00 111100 0x1 xxxxx 1 000 00 xxxxx 11111      rN st size=2              # STBFADD
00 111100 0x1 xxxxx 1 1xx 00 xxxxx 11111      rN st size=2              # STBFMAX, ...
"""

_ATOMIC_BY_SIZE: Final = """
SZ 111000 xx1 xxxxx 0 xxx 00 xxxxx xxxxx      wd rm rN st size=BYTES    # LDADD, LDCLR, LDEOR, LDSET, LDSMAX, ...
SZ 111000 xx1 xxxxx 1 000 00 xxxxx xxxxx      wd rm rN st size=BYTES    # SWP
SW 111000 101 11111 1 100 00 xxxxx xxxxx      wd rN                     # LDAPR
SH 111100 xx1 xxxxx 0 000 00 xxxxx xxxxx      rN st size=BYTES          # LDFADD
SH 111100 xx1 xxxxx 0 1xx 00 xxxxx xxxxx      rN st size=BYTES          # LDFMAX, LDFMIN, LDFMAXNM, LDFMINNM
SH 111100 0x1 xxxxx 1 000 00 xxxxx 11111      rN st size=BYTES          # STFADD
SH 111100 0x1 xxxxx 1 1xx 00 xxxxx 11111      rN st size=BYTES          # STFMAX, ...
"""


def _by_size(table: str) -> str:
    """Write each line of a table once for each size: SZ for all, SW for those below 64 bits, SH for those above 8."""
    return "".join(
        line.replace(mark, bits).replace("BYTES", str(count)) + "\n"
        for line in table.splitlines()
        for mark, sizes in (("SZ", _SIZES), ("SW", _SIZES[:3]), ("SH", _SIZES[1:]))
        if line.startswith(mark)
        for bits, count in sizes
    )


def _single() -> Iterator[str]:
    """Yield LDR, STR, LDUR, STUR, LDTR, STTR in every addressing mode, integer and SIMD.

    Fields: size (31:30), V (26), opc (23:22); what is not yielded is not allocated.
    """
    kinds = [(bits, "0", "00", n, "rd st") for bits, n in _SIZES]
    kinds += [(bits, "0", "01", n, "wd ld") for bits, n in _SIZES]
    kinds += [("00", "0", "1x", 1, "wd ld"), ("01", "0", "1x", 2, "wd ld"), ("10", "0", "10", 4, "wd ld")]
    kinds += [(bits, "1", "00", n, "st") for bits, n in _SIZES]
    kinds += [(bits, "1", "01", n, "ld") for bits, n in _SIZES]
    kinds += [("00", "1", "10", 16, "st"), ("00", "1", "11", 16, "ld")]
    for size, simd, opc, count, what in kinds:
        head = f"{size} 111 {simd}"
        exact = " x1" if (simd, count) == ("0", 8) else ""
        does = f"rN {what} size={count}"
        yield f"{head} 00 {opc} 0 xxxxxxxxx 00 xxxxx xxxxx {does} s9{exact}"
        yield f"{head} 00 {opc} 0 xxxxxxxxx 01 xxxxx xxxxx {does} s9 post wn{exact}"
        yield f"{head} 00 {opc} 0 xxxxxxxxx 11 xxxxx xxxxx {does} s9 pre wn{exact}"
        yield f"{head} 00 {opc} 1 xxxxx x1x x 10 xxxxx xxxxx {does} reg rm{exact}"
        yield f"{head} 01 {opc} xxxxxxxxxxxx xxxxx xxxxx {does} u12 unit={count}{exact}"
        if simd == "0":
            yield f"{head} 00 {opc} 0 xxxxxxxxx 10 xxxxx xxxxx {does} s9"


def _pair() -> Iterator[str]:
    """Yield LDP, STP, LDNP, STNP, LDPSW and the unprivileged LDTP, STTP, LDTNP, STTNP, in every mode.

    Fields: opc (31:30), V (26), L (22). STGP, which shares opc 01 with LDPSW, is in the tag table.
    """
    kinds = [("00", "0", 4, ""), ("10", "0", 8, " x2"), ("11", "0", 8, "")]
    kinds += [("00", "1", 4, ""), ("01", "1", 8, ""), ("10", "1", 16, ""), ("11", "1", 16, "")]
    for opc, simd, count, exact in kinds:
        for load, what in (("0", "st" if simd == "1" else "rd ra st"), ("1", "ld" if simd == "1" else "wd wa ld")):
            does = f"rN {what} s7 unit={count} size={2 * count}{exact}"
            for mode, extra in (("000", ""), ("010", ""), ("001", " wn post"), ("011", " wn pre")):
                yield f"{opc} 101 {simd} {mode} {load} xxxxxxx xxxxx xxxxx xxxxx {does}{extra}"
    for mode, extra in (("010", ""), ("001", " wn post"), ("011", " wn pre")):
        yield f"01 101 0 {mode} 1 xxxxxxx xxxxx xxxxx xxxxx wd wa rN ld s7 unit=4 size=8{extra}"


def _structures() -> Iterator[str]:
    """Yield LD1 to LD4, ST1 to ST4, LD1R to LD4R, LDAP1 and STL1, in every mode.

    The post-indexed forms add the bytes transferred where Rm is 31, else a register.
    """
    found = []
    for opcode, count in (("0000", 4), ("0010", 4), ("0100", 3), ("0110", 3), ("0111", 1), ("1000", 2), ("1010", 2)):
        linear = opcode[2] == "1"
        for quad, size in (("1", "xx"), *((("0", "xx"),) if linear else (("0", "0x"), ("0", "10")))):
            found += [(quad, "0", load, "0", f"{opcode}{size}", count * (16 if quad == "1" else 8)) for load in "01"]
    for pairs in "01":
        for more in "01":
            count = 1 + int(pairs) + 2 * int(more)
            for low, size in ((f"00{more}xxx", 1), (f"01{more}xx0", 2), (f"10{more}x00", 4), (f"10{more}001", 8)):
                found += [("x", "1", load, pairs, low, count * size) for load in "01"]
            for bits, size in _SIZES:
                found.append(("x", "1", "1", pairs, f"11{more}0{bits}", count * size))
    for quad, single, load, pairs, low, size in found:
        does = f"rN {'ld' if load == '1' else 'st'} size={size}"
        head = f"0 {quad} 00110 {single}"
        yield f"{head} 0 {load} {pairs} 00000 {low} xxxxx xxxxx {does}"
        yield f"{head} 1 {load} {pairs} 11111 {low} xxxxx xxxxx {does} wn post by={size}"
        yield f"{head} 1 {load} {pairs} xxxxx {low} xxxxx xxxxx {does} wn rm post byreg"
    yield "0x 0011010 0 0 00001 100001 xxxxx xxxxx rN st size=8"
    yield "0x 0011010 1 0 00001 100001 xxxxx xxxxx rN"


def memory_tables() -> tuple[str, ...]:
    """Give every table of this file."""
    return (
        "\n".join(_single()),
        "\n".join(_pair()),
        _LITERAL,
        _EXCLUSIVE,
        _by_size(_EXCLUSIVE_BY_SIZE),
        _ATOMIC,
        _by_size(_ATOMIC_BY_SIZE),
        _ORDERED,
        _by_size(_ORDERED_BY_SIZE),
        _COPY,
        _TAG,
        "\n".join(_structures()),
    )
