"""Layer 1: encodings of SVE and SME loads and stores.

The language is that of `surefoot.isa.forms`; lines that differ in one bit and do the same
are written as one. Their offsets count vector lengths, so that the extent of a store is
never known.

Source: Arm's machine-readable specification of the A-profile architecture (AARCHMRS, BSD-licensed edition of 2026),
with the reserved values of size, shift and immediate fields left out as in the Arm Architecture Reference Manual
(DDI 0487), C4.1 "SVE encodings" and "SME encodings".
"""

from __future__ import annotations

from typing import Final

__all__ = ["SME_MEMORY", "SVE_MEMORY"]

SVE_MEMORY: Final = """
1000010x x00 11111 110xxx xxxxx 0xxxx  undef              # PRFB, PRFD, PRFH, PRFW
10100100 00x 11111 0x0xxx xxxxx xxxxx  undef              # LD1B, LD1ROB, LD1RQB
10100100 00x 11111 110xxx xxxxx xxxxx  undef              # LD2B, LDNT1B
1010010x x1x 11111 x10xxx xxxxx xxxxx  undef              # LD1B, LD1D, LD1H, LD1SB, LD1W, LD3B, LD3D, LD3H, ...
10100100 100 11111 0x0xxx xxxxx xxxxx  undef              # LD1RQH, LD1SW
10100100 100 11111 110xxx xxxxx xxxxx  undef              # LDNT1H
10100100 101 11111 xx0xxx xxxxx xxxxx  undef              # LD1H, LD1ROH, LD2H, LD2Q
10100101 x0x 11111 xx0xxx xxxxx xxxxx  undef              # LD1D, LD1ROD, LD1ROW, LD1RQD, LD1RQW, LD1SB, LD1SH, ...
11100100 0xx 11111 01xxxx xxxxx xxxxx  undef              # ST1B, ST2B, ST3B, ST4B, STNT1B
11100100 011 11111 000xxx xxxxx xxxxx  undef              # ST2Q
11100100 100 11111 011xxx xxxxx xxxxx  undef              # STNT1H
11100100 1x1 11111 000xxx xxxxx xxxxx  undef              # ST3Q, ST4Q
11100100 101 11111 01xxxx xxxxx xxxxx  undef              # ST1H, ST2H
11100100 11x 11111 01xxxx xxxxx xxxxx  undef              # ST1H, ST3H, ST4H
11100101 000 11111 01xxxx xxxxx xxxxx  undef              # ST1W, STNT1W
11100101 001 11111 011xxx xxxxx xxxxx  undef              # ST2W
11100101 x1x 11111 01xxxx xxxxx xxxxx  undef              # ST1D, ST1W, ST3D, ST3W, ST4D, ST4W
11100101 10x 11111 011xxx xxxxx xxxxx  undef              # ST2D, STNT1D
10000100 0x0 xxxxx 0xxxxx xxxxx xxxxx  rN                 # LD1B, LD1SB, LDFF1B, LDFF1SB
10000100 x00 xxxxx 10xxxx xxxxx xxxxx  rm                 # LDNT1B, LDNT1H, LDNT1SB, LDNT1SH
1000010x x00 xxxxx 110xxx xxxxx 0xxxx  rN rm              # PRFB, PRFD, PRFH, PRFW
1x00010x x00 xxxxx 111xxx xxxxx 0xxxx                     # PRFB, PRFD, PRFH, PRFW
10000100 0x1 xxxxx 0xxxxx xxxxx 0xxxx  rN                 # PRFB, PRFD, PRFH, PRFW
1x000100 x01 xxxxx 1xxxxx xxxxx xxxxx                     # LD1B, LD1H, LD1SB, LD1SH, LDFF1B, LDFF1H, LDFF1SB, ...
1000010x x1x xxxxx 1xxxxx xxxxx xxxxx  rN                 # LD1RB, LD1RD, LD1RH, LD1RSB, LD1RSH, LD1RSW, LD1RW
10000100 1xx xxxxx 0xxxxx xxxxx xxxxx  rN                 # LD1H, LD1SH, LDFF1H, LDFF1SH
10000101 0xx xxxxx 01xxxx xxxxx xxxxx  rN                 # LD1W, LDFF1W
10000101 000 xxxxx 101xxx xxxxx xxxxx  rm                 # LDNT1W
10000101 001 xxxxx 11xxxx xxxxx xxxxx                     # LD1W, LDFF1W
10000101 10x xxxxx 000xxx xxxxx 0xxxx  rN                 # LDR
10000101 10x xxxxx 010xxx xxxxx xxxxx  rN                 # LDR
10000101 11x xxxxx 0xxxxx xxxxx 0xxxx  rN                 # PRFB, PRFD, PRFH, PRFW
1010010x x0x xxxxx 000xxx xxxxx xxxxx  rN rm              # LD1ROB, LD1ROD, LD1ROH, LD1ROW, LD1RQB, LD1RQD, ...
10100100 x0x 0xxxx 001xxx xxxxx xxxxx  rN                 # LD1ROB, LD1ROH, LD1RQB, LD1RQH
1010010x xxx xxxxx 01xxxx xxxxx xxxxx  rN rm              # LD1B, LD1D, LD1H, LD1SB, LD1SH, LD1SW, LD1W, LDFF1B, ...
10100100 0xx 0xxxx 1x1xxx xxxxx xxxxx  rN                 # LD1B, LD2B, LD3B, LD4B, LDNT1B
10100100 0xx xxxxx 110xxx xxxxx xxxxx  rN rm              # LD2B, LD3B, LD4B, LDNT1B
10100100 0xx 1xxxx 101xxx xxxxx xxxxx  rN                 # LDNF1B
10100100 100 xxxxx 1x1xxx xxxxx xxxxx  rN                 # LD1SW, LD2Q, LDNF1SW, LDNT1H
10100100 100 xxxxx 110xxx xxxxx xxxxx  rN rm              # LDNT1H
10100100 101 xxxxx 1x0xxx xxxxx xxxxx  rN rm              # LD2H, LD2Q
10100100 101 0xxxx 1x1xxx xxxxx xxxxx  rN                 # LD1H, LD2H
10100100 101 1xxxx 101xxx xxxxx xxxxx  rN                 # LDNF1H
10100100 11x 0xxxx 1x1xxx xxxxx xxxxx  rN                 # LD1H, LD3H, LD4H
10100100 11x xxxxx 110xxx xxxxx xxxxx  rN rm              # LD3H, LD4H
10100100 11x 1xxxx 101xxx xxxxx xxxxx  rN                 # LDNF1H
10100101 x00 xxxxx 001xxx xxxxx xxxxx  rN                 # LD1D, LD1RQD, LD1RQW, LD1W
10100101 x0x xxxxx 1x0xxx xxxxx xxxxx  rN rm              # LD1D, LD1W, LD2D, LD2W, LD3Q, LD4Q, LDNT1D, LDNT1W
10100101 x00 xxxxx 1x1xxx xxxxx xxxxx  rN                 # LD1SB, LD1SH, LD3Q, LD4Q, LDNF1SB, LDNF1SH, LDNT1D, ...
10100101 x01 0xxxx 001xxx xxxxx xxxxx  rN                 # LD1ROD, LD1ROW
10100101 x01 0xxxx 1x1xxx xxxxx xxxxx  rN                 # LD1SB, LD1SH, LD2D, LD2W
10100101 x01 1xxxx 101xxx xxxxx xxxxx  rN                 # LDNF1SB, LDNF1SH
10100101 x1x 0xxxx 1x1xxx xxxxx xxxxx  rN                 # LD1D, LD1SB, LD1W, LD3D, LD3W, LD4D, LD4W
10100101 x1x xxxxx 110xxx xxxxx xxxxx  rN rm              # LD3D, LD3W, LD4D, LD4W
10100101 x1x 1xxxx 101xxx xxxxx xxxxx  rN                 # LDNF1D, LDNF1SB, LDNF1W
11000100 000 xxxxx 0xxxxx xxxxx xxxxx  rN                 # LD1B, LD1SB, LDFF1B, LDFF1SB
11000100 000 xxxxx 10xxxx xxxxx xxxxx  rm                 # LD1Q, LDNT1SB
11000100 000 xxxxx 110xxx xxxxx xxxxx  rm                 # LDNT1B
11000100 001 xxxxx 0xxxxx xxxxx 0xxxx  rN                 # PRFB, PRFD, PRFH, PRFW
11000100 010 xxxxx xxxxxx xxxxx xxxxx  rN                 # LD1B, LD1SB, LDFF1B, LDFF1SB
11000100 011 xxxxx xxxxxx xxxxx 0xxxx  rN                 # PRFB, PRFD, PRFH, PRFW
11000100 10x xxxxx 0xxxxx xxxxx xxxxx  rN                 # LD1H, LD1SH, LDFF1H, LDFF1SH
11000100 100 xxxxx 1x0xxx xxxxx xxxxx  rm                 # LDNT1H, LDNT1SH
11000100 11x xxxxx xxxxxx xxxxx xxxxx  rN                 # LD1H, LD1SH, LDFF1H, LDFF1SH
11000101 00x xxxxx 0xxxxx xxxxx xxxxx  rN                 # LD1SW, LD1W, LDFF1SW, LDFF1W
11000101 000 xxxxx 1x0xxx xxxxx xxxxx  rm                 # LDNT1SW, LDNT1W
11000101 001 xxxxx 1xxxxx xxxxx xxxxx                     # LD1SW, LD1W, LDFF1SW, LDFF1W
11000101 01x xxxxx xxxxxx xxxxx xxxxx  rN                 # LD1SW, LD1W, LDFF1SW, LDFF1W
11000101 10x xxxxx 01xxxx xxxxx xxxxx  rN                 # LD1D, LDFF1D
11000101 100 xxxxx 110xxx xxxxx xxxxx  rm                 # LDNT1D
11000101 101 xxxxx 11xxxx xxxxx xxxxx                     # LD1D, LDFF1D
11000101 11x xxxxx x1xxxx xxxxx xxxxx  rN                 # LD1D, LDFF1D
11100100 00x xxxxx 001xxx xxxxx xxxxx  rm st vec          # ST1Q, STNT1B
11100100 0xx xxxxx 01xxxx xxxxx xxxxx  rN rm st any       # ST1B, ST2B, ST3B, ST4B, STNT1B
11100100 000 xxxxx 10xxxx xxxxx xxxxx  rN st any          # ST1B
11100100 000 xxxxx 110xxx xxxxx xxxxx  rN st any          # ST1B
11100100 0xx xxxxx 111xxx xxxxx xxxxx  rN st any          # ST1B, ST2B, ST3B, ST4B, STNT1B
11100100 010 0xxxx 000xxx xxxxx xxxxx  rN st any          # ST2Q
11100100 010 xxxxx 001xxx xxxxx xxxxx  rm st vec          # STNT1B
11100100 010 xxxxx 1x0xxx xxxxx xxxxx  rN st any          # ST1B
11100100 x1x xxxxx 101xxx xxxxx xxxxx  st vec             # ST1B, ST1H
11100100 011 xxxxx 000xxx xxxxx xxxxx  rN rm st any       # ST2Q
11100100 1x0 0xxxx 000xxx xxxxx xxxxx  rN st any          # ST3Q, ST4Q
11100100 1x0 xxxxx 001xxx xxxxx xxxxx  rm st vec          # STNT1H
11100100 100 xxxxx 011xxx xxxxx xxxxx  rN rm st any       # STNT1H
11100100 10x xxxxx 10xxxx xxxxx xxxxx  rN st any          # ST1H
11100100 10x xxxxx 110xxx xxxxx xxxxx  rN st any          # ST1H
11100100 100 1xxxx 111xxx xxxxx xxxxx  rN st any          # STNT1H
11100100 1x1 xxxxx 000xxx xxxxx xxxxx  rN rm st any       # ST3Q, ST4Q
11100100 101 xxxxx 01xxxx xxxxx xxxxx  rN rm st any       # ST1H, ST2H
11100100 101 xxxxx 111xxx xxxxx xxxxx  rN st any          # ST1H, ST2H
11100100 11x xxxxx 01xxxx xxxxx xxxxx  rN rm st any       # ST1H, ST3H, ST4H
11100100 11x xxxxx 1x0xxx xxxxx xxxxx  rN st any          # ST1H
11100100 11x xxxxx 111xxx xxxxx xxxxx  rN st any          # ST1H, ST3H, ST4H
11100101 0x0 xxxxx 001xxx xxxxx xxxxx  rm st vec          # STNT1W
11100101 000 xxxxx 01xxxx xxxxx xxxxx  rN rm st any       # ST1W, STNT1W
11100101 x0x xxxxx 10xxxx xxxxx xxxxx  rN st any          # ST1D, ST1W
11100101 x0x xxxxx 110xxx xxxxx xxxxx  rN st any          # ST1D, ST1W
11100101 000 xxxxx 111xxx xxxxx xxxxx  rN st any          # ST1W, STNT1W
11100101 001 xxxxx 011xxx xxxxx xxxxx  rN rm st any       # ST2W
11100101 001 1xxxx 111xxx xxxxx xxxxx  rN st any          # ST2W
11100101 x1x xxxxx 01xxxx xxxxx xxxxx  rN rm st any       # ST1D, ST1W, ST3D, ST3W, ST4D, ST4W
11100101 01x xxxxx 1x0xxx xxxxx xxxxx  rN st any          # ST1W
11100101 01x xxxxx 101xxx xxxxx xxxxx  st vec             # ST1W
11100101 x1x xxxxx 111xxx xxxxx xxxxx  rN st any          # ST1D, ST1W, ST3D, ST3W, ST4D, ST4W
11100101 10x xxxxx 000xxx xxxxx 0xxxx  rN st any          # STR
11100101 100 xxxxx 001xxx xxxxx xxxxx  rm st vec          # STNT1D
11100101 10x xxxxx 010xxx xxxxx xxxxx  rN st any          # STR
11100101 10x xxxxx 011xxx xxxxx xxxxx  rN rm st any       # ST2D, STNT1D
11100101 10x 1xxxx 111xxx xxxxx xxxxx  rN st any          # ST2D, STNT1D
11100101 110 xxxxx 101xxx xxxxx xxxxx  st vec             # ST1D
"""

SME_MEMORY: Final = """
1010000x 000 xxxxx 0xxxxx xxxxx xxxxx  rN rm              # LD1B, LD1D, LD1H, LD1W, LDNT1B, LDNT1D, LDNT1H, ...
10100000 000 xxxxx 1xxxxx xxxxx xxx0x  rN rm              # LD1B, LD1D, LD1H, LD1W, LDNT1B, LDNT1D, LDNT1H, ...
1010000x 001 xxxxx 0xxxxx xxxxx xxxxx  rN rm st any       # ST1B, ST1D, ST1H, ST1W, STNT1B, STNT1D, STNT1H, ...
10100000 001 xxxxx 1xxxxx xxxxx xxx0x  rN rm st any       # ST1B, ST1D, ST1H, ST1W, STNT1B, STNT1D, STNT1H, ...
1010000x 010 0xxxx 0xxxxx xxxxx xxxxx  rN                 # LD1B, LD1D, LD1H, LD1W, LDNT1B, LDNT1D, LDNT1H, ...
10100000 010 0xxxx 1xxxxx xxxxx xxx0x  rN                 # LD1B, LD1D, LD1H, LD1W, LDNT1B, LDNT1D, LDNT1H, ...
1010000x 011 0xxxx 0xxxxx xxxxx xxxxx  rN st any          # ST1B, ST1D, ST1H, ST1W, STNT1B, STNT1D, STNT1H, ...
10100000 011 0xxxx 1xxxxx xxxxx xxx0x  rN st any          # ST1B, ST1D, ST1H, ST1W, STNT1B, STNT1D, STNT1H, ...
10100001 000 xxxxx 1xxxxx xxxxx xx0xx  rN rm              # LD1B, LD1D, LD1H, LD1W, LDNT1B, LDNT1D, LDNT1H, ...
10100001 001 xxxxx 1xxxxx xxxxx xx0xx  rN rm st any       # ST1B, ST1D, ST1H, ST1W, STNT1B, STNT1D, STNT1H, ...
10100001 010 0xxxx 1xxxxx xxxxx xx0xx  rN                 # LD1B, LD1D, LD1H, LD1W, LDNT1B, LDNT1D, LDNT1H, ...
10100001 011 0xxxx 1xxxxx xxxxx xx0xx  rN st any          # ST1B, ST1D, ST1H, ST1W, STNT1B, STNT1D, STNT1H, ...
11100000 xx0 xxxxx xxxxxx xxxxx 0xxxx  rN rm r8-15        # LD1B, LD1D, LD1H, LD1W
11100000 xx1 xxxxx xxxxxx xxxxx 0xxxx  rN rm r8-15 st any  # ST1B, ST1D, ST1H, ST1W
11100001 000 00000 0xx000 xxxxx 0xxxx  rN r8-15           # LDR
11100001 000 11111 100000 xxxxx 00000  rN                 # LDR
11100001 001 00000 0xx000 xxxxx 0xxxx  rN r8-15 st any    # STR
11100001 001 11111 100000 xxxxx 00000  rN st any          # STR
11100001 110 xxxxx xxxxxx xxxxx 0xxxx  rN rm r8-15        # LD1Q
11100001 111 xxxxx xxxxxx xxxxx 0xxxx  rN rm r8-15 st any  # ST1Q
"""
