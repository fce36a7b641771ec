"""Generates the corpus of invalid and odd SFrame sections: for every finding code at least one input.

GNU binutils has no such corpus, and its reader crashes on several of these; never judge them by readelf alone.
`CORPUS` maps a code to cases; each says what it is, and is as small as can be: a good section with one thing wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

import sframe_builder as make
from sframe_builder import Fde, Fre
from surefoot.metadata.sframe import RelocationTable

At: TypeAlias = tuple[int | None, int | None, int | None]
ANYWHERE: At = (None, None, None)
HUGE = 2**32 - 1
EM_X86_64 = 62


@dataclass(frozen=True)
class Case:
    """One input of the corpus.

    Attributes:
        what: what is wrong, in a few words.
        data: the section.
        machine: ELF machine to hold it against, or None.
        relocations: those of a relocatable object, or None.
        at: expected offset, descriptor and row of the finding; None = not looked at.
    """

    what: str
    data: bytes
    machine: int | None = None
    relocations: RelocationTable | None = None
    at: At = ANYWHERE


def relocations(offsets: list[int], kind: int = 260) -> RelocationTable:
    """Give relocations of the given fields, each to offset 0 of its own section."""
    count = len(offsets)
    return RelocationTable(
        offset=np.array(offsets, dtype=np.uint64),
        type=np.full(count, kind, dtype=np.uint32),
        symbol_value=np.zeros(count, dtype=np.uint64),
        symbol_section=np.arange(1, count + 1, dtype=np.int32),
        addend=np.zeros(count, dtype=np.int64),
    )


def one(
    what: str, *rows: Fre, at: tuple[int | None, int | None, int | None] = (None, None, None), **fde: int
) -> Case:
    """Give a case of one function with the given rows and descriptor fields; version and ABI may be given too."""
    version, abi = fde.pop("version", 3), fde.pop("abi", make.AARCH64)
    start, size = fde.pop("start", 0x1000), fde.pop("size", 64)
    made = Fde(start, size, list(rows) or [Fre(0)], **fde)  # type: ignore[arg-type]
    return Case(what, make.section([made], version, abi=abi), at=at)


def raw(
    what: str, *fdes: Fde, at: tuple[int | None, int | None, int | None] = (None, None, None), **more: int
) -> Case:
    """Give a case of a whole section; `more` overrides header fields."""
    return Case(what, make.section(list(fdes), **more), at=at)  # type: ignore[arg-type]


def flex(what: str, *words: int) -> Case:
    """Give a case of one flexible row."""
    return one(what, Fre(0, words), flex=True)


GOOD = Fde(0x1000, 8)
SAVED = Fde(0x1000, 8, [Fre(0, (32, -24, -32))])
FIELD = 28
ROW = 49
"""Offset of the first row of a version 3 section with one function."""

CORPUS: dict[str, list[Case]] = {
    "sframe-header-short": [
        Case("no bytes at all", b"", at=(0, None, None)),
        Case("one byte short of a header", make.section([])[:27], at=(0, None, None)),
        Case("a second header breaks off", make.section([]) + make.section([])[:5], at=(28, None, None)),
    ],
    "sframe-magic": [
        raw("another magic number", magic=0xDEE3, at=(0, None, None)),
        Case("zeros", bytes(64), at=(0, None, None)),
    ],
    "sframe-version": [
        Case("version 0", make.section([])[:2] + b"\0" + make.section([])[3:], at=(2, None, None)),
        Case("version 4", make.section([])[:2] + b"\4" + make.section([])[3:], at=(2, None, None)),
    ],
    "sframe-abi": [raw("ABI 0", abi=0), raw("ABI 5", abi=5, at=(4, None, None))],
    "sframe-flags": [
        raw("an unknown flag", flags=0x85, at=(3, None, None)),
        raw("the frame pointer flag in version 3", flags=0x07),
    ],
    "sframe-byte-order": [
        Case("little-endian ABI, big-endian bytes", make.section([GOOD], big=True), at=(4, None, None)),
        Case("big-endian ABI, little-endian bytes", make.section([GOOD], abi=make.S390X, big=False)),
    ],
    "sframe-aux-short": [raw("an auxiliary header without bytes", aux_len=255, at=(28, None, None))],
    "sframe-fdes-outside": [
        raw("2**32 - 1 descriptors", num_fdes=HUGE, at=(28, None, None)),
        raw("one more than there is", GOOD, num_fdes=3),
        raw("descriptors start behind the section", GOOD, fdeoff=HUGE),
    ],
    "sframe-fres-outside": [
        raw("rows of 4 GiB", GOOD, fre_len=HUGE),
        raw("rows start behind the section", GOOD, freoff=HUGE),
        Case("the last byte is missing", make.section(make.typical())[:-1]),
    ],
    "sframe-parts-overlap": [raw("rows start inside the descriptors", GOOD, freoff=8)],
    "sframe-row-count": [
        raw("one row too many", GOOD, num_fres=2, at=(12, None, None)),
        raw("none", GOOD, num_fres=0),
    ],
    "sframe-trailing-bytes": [
        Case("garbage behind the table", make.section([GOOD], tail=b"\0\0\0\1"), at=(55, None, None)),
        Case("half a magic number", make.section([GOOD], tail=b"\xe2")),
    ],
    "sframe-attribute-outside": [
        one("an attribute record behind the rows", fre_off=HUGE, at=(FIELD, 0, None)),
        one("its last byte lies outside", fre_off=4),
    ],
    "sframe-fre-type": [
        one("row type 3", kind=3, at=(FIELD, 0, None)),
        one("row type 15", kind=15, version=2),
    ],
    "sframe-rows-outside": [
        one("65535 rows", num_fres=0xFFFF, at=(FIELD, 0, None)),
        one("2**32 - 1 rows", num_fres=HUGE, version=2),
        one("one row more than there is", num_fres=2),
        one("fifteen words of four bytes", Fre(0, info=0x5F)),
        one("rows start behind the end", version=2, fre_off=HUGE),
    ],
    "sframe-rows-shared": [
        raw(
            "nine functions claim the same rows",
            *(Fde(8 * i, 8, [], fre_off=0, num_fres=2) for i in range(1, 9)),
            Fde(72, 8, [Fre(0), Fre(4)]),
            version=2,
        ),
    ],
    "sframe-word-size": [one("word size code 3", Fre(0, info=0x63), at=(ROW, 0, 0))],
    "sframe-too-many-tables": [Case("4097 tables", make.section([]) * 4097)],
    "sframe-machine": [Case("AArch64 in an x86-64 file", make.section([GOOD]), machine=EM_X86_64)],
    "sframe-aux-present": [Case("five bytes of auxiliary header", make.section([GOOD], aux=b"12345"))],
    "sframe-fixed-offsets": [
        Case("a fixed RA on AArch64", make.section([GOOD], fixed=(0, -8))),
        Case("a fixed FP", make.section([GOOD], fixed=(-16, 0))),
        Case("none on AMD64", make.section([GOOD], abi=make.AMD64, fixed=(0, 0))),
    ],
    "sframe-no-functions": [raw("a header alone", at=(8, None, None))],
    "sframe-flag-unsorted": [raw("SORTED clear in a linked table", GOOD, flags=4)],
    "sframe-flag-not-pcrel": [raw("PCREL clear in a linked table", GOOD, flags=1)],
    "sframe-several-tables": [Case("two tables", make.section([GOOD]) * 2)],
    "sframe-unclaimed-bytes": [
        Case("a hole behind the rows", make.section([GOOD], fre_len=12, tail=bytes(4))),
        Case("rows without a function", make.section([], fre_len=4, tail=bytes(4))),
    ],
    "sframe-unsorted": [raw("descending starts", Fde(0x2000, 8), GOOD, at=(FIELD + 16, 1, None))],
    "sframe-equal-starts": [raw("twins", GOOD, Fde(0x1000, 8)), raw("an empty twin", Fde(0x1000, 0), GOOD)],
    "sframe-overlap": [
        raw("the first reaches into the second", Fde(0x1000, 12), Fde(0x1008, 8), at=(FIELD + 16, 1, None)),
        raw("one lies in another", Fde(0x1000, 64), Fde(0x1008, 4), Fde(0x1010, 4)),
    ],
    "sframe-zero-size": [one("size 0", size=0)],
    "sframe-wraps": [one("beyond the last address", start=-4, size=8)],
    "sframe-row-blocks-overlap": [
        raw("two functions share their rows", SAVED, Fde(0x1008, 8, [], fre_off=0, num_fres=1), version=2),
        raw(
            "rows start inside another's",
            Fde(0, 8, [Fre(0), Fre(4)]),
            Fde(8, 8, [], fre_off=3, num_fres=1),
            version=2,
        ),
    ],
    "sframe-narrow-rows": [
        one("one byte for 257 bytes of code", size=260),
        one("two bytes for 65540", size=65540, kind=1),
    ],
    "sframe-padding": [one("padding 1", version=2, padding=1)],
    "sframe-info-bits": [one("bit 6", info=0x40), one("the signal bit in version 2", info=0x80, version=2)],
    "sframe-info2-bits": [one("bit 5", info2=0x20)],
    "sframe-fde-type": [one("type 2", info2=2)],
    "sframe-key": [one("key B on AMD64", Fre(0, (8,)), key_b=True, abi=make.AMD64)],
    "sframe-rep-size": [one("MASK without a size", mask=True)],
    "sframe-rep-size-idle": [one("a size without MASK", rep_size=16)],
    "sframe-code-align": [one("an odd start", start=0x1001), one("an odd size", size=7)],
    "sframe-no-rows": [
        raw("an outermost frame", Fde(0x1000, 8, [])),
        raw("a signal frame", Fde(0x1000, 8, [], signal=True)),
        raw("no meaning in version 2", Fde(0x1000, 8, []), version=2),
    ],
    "sframe-relocation-missing": [
        Case("the second function has none", make.section([GOOD, GOOD], flags=4), relocations=relocations([28])),
    ],
    "sframe-relocation-stray": [
        Case("into the header", make.section([GOOD], flags=4), relocations=relocations([8, 28])),
    ],
    "sframe-relocation-type": [
        Case("a 32-bit one", make.section([GOOD], flags=4), relocations=relocations([28], 261)),
        Case("a 64-bit one in version 2", make.section([GOOD], 2, flags=4), relocations=relocations([28], 260)),
    ],
    "sframe-relocation-order": [
        Case("the second comes first", make.section([GOOD, GOOD], flags=4), relocations=relocations([44, 28])),
    ],
    "sframe-row-order": [
        one("equal starts", Fre(4), Fre(4)),
        one("descending starts", Fre(0), Fre(8), Fre(4), at=(ROW + 6, 0, 2)),
    ],
    "sframe-row-outside": [
        one("behind the function", Fre(0), Fre(68), at=(ROW + 3, 0, 1)),
        one("behind the block", Fre(0), Fre(16), mask=True, rep_size=16),
    ],
    "sframe-row-at-end": [one("at the function's end", Fre(0), Fre(64))],
    "sframe-row-repeats": [one("twice the same", Fre(0), Fre(4)), one("outermost twice", Fre(0, ()), Fre(4, ()))],
    "sframe-first-row": [one("four bytes without a rule", Fre(4))],
    "sframe-word-count": [
        one("four words on AArch64", Fre(0, (0, 1, 2, 3))),
        one("three words on AMD64", Fre(0, (8, -16, -24)), abi=make.AMD64),
        one("four words on s390x", Fre(0, (0, 8, 16, 24)), abi=make.S390X),
        one("fifteen words", Fre(0, tuple(range(15)))),
    ],
    "sframe-flex-words": [
        flex("a control word without offset", 0xF9),
        flex("the RA pair breaks off", 0xF9, 0, 2),
        flex("the FP pair breaks off", 0xF9, 0, 0, 2),
        flex("left over behind two paddings", 0xF9, 0, 0, 0, 8),
        flex("left over behind three pairs", 0xF9, 32, 2, -24, 2, -32, 0),
    ],
    "sframe-flex-cfa": [flex("the CFA is CFA + 8", 0, 8), flex("the CFA is loaded from the CFA", 2, 8)],
    "sframe-flex-bits": [
        flex("bit 2 of a control word", 0xFD, 0),
        flex("a register number without its bit", 0xF9, 32, 0xF2, -24),
        one("the base bit of a flexible row", Fre(0, (0xF9, 0), make.SP), flex=True),
    ],
    "sframe-flex-padding": [
        flex("padding instead of an RA", 0xF9, 0, 0),
        flex("padding twice", 0xF9, 0, 0, 0),
        flex("padding instead of an FP", 0xF9, 32, 2, -24, 0),
    ],
    "sframe-flex-register": [one("register 0x1fffffff", Fre(0, (0x1FFFFFFF << 3 | 1, 0), size=4), flex=True)],
    "sframe-flex-scratch": [flex("the CFA in x9", 9 << 3 | 1, 0), flex("RA on the shadow stack", 0xF9, 0, 0x93, -8)],
    "sframe-outermost-early": [one("no words in version 1", Fre(0, ()), version=1)],
    "sframe-outermost-bits": [one("the base bit", Fre(0, (), info=1))],
    "sframe-signed": [one("signed on AMD64", Fre(0, (8,), signed=True), abi=make.AMD64)],
    "sframe-below-sp": [
        one("the frame is popped, RA said to be in it", Fre(0), Fre(8, (0, -72))),
        one("only the FP", Fre(0), Fre(8, (16, -8, -24))),
        flex("in a flexible row", 0xF9, 0, 2, -8),
    ],
    "sframe-cfa-below-sp": [one("CFA = SP - 16", Fre(0), Fre(4, (-16,)))],
    "sframe-slot-above-cfa": [one("RA in the caller's frame", Fre(0), Fre(4, (32, 8)))],
    "sframe-ra-above-cfa": [one("AMD64, RA at CFA+0", Fre(0, (7 << 3 | 1, 8, 2, 0)), flex=True, abi=make.AMD64)],
    "sframe-same-slot": [one("both at CFA - 16", Fre(0), Fre(4, (32, -16, -16)))],
    "sframe-ra-zero": [one("0 as padding", Fre(0), Fre(4, (32, 0, -16)))],
    "sframe-cfa-align": [one("CFA = SP + 4", Fre(0), Fre(4, (4,)))],
    "sframe-slot-align": [
        one("RA at CFA - 12", Fre(0), Fre(4, (32, -12))),
        one("an odd slot on s390x", Fre(0), Fre(6, (1, -47)), abi=make.S390X),
    ],
    "sframe-entry-state": [
        one("a frame at the first address", Fre(0, (32, -24, -32))),
        one("RA in memory at entry", Fre(0, (0, 8))),
        one("based on FP", Fre(0, (0,), make.FP)),
    ],
}
