"""Laws of the SFrame codec, over random sections assembled by the independent builder."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import sframe_builder as make
from sframe_builder import Fde, Fre
from surefoot.metadata import sframe
from surefoot.metadata.compare import compare, describe_row
from surefoot.metadata.rules import RuleTable

OFFSETS = st.one_of(
    st.integers(-16, 15).map(lambda n: 8 * n),
    st.integers(-(2**12), 2**12 - 1).map(lambda n: 8 * n),
    st.integers(-(2**31), 2**31 - 1),
)
REGISTERS = st.sampled_from((0, 9, 18, 29, 30, 31, 40))


def fits(words: tuple[int, ...], unsigned: tuple[int, ...] = ()) -> int:
    """Give the smallest word size, in bytes, that holds all words; those at `unsigned` have no sign."""
    for size in (1, 2, 4):
        half = 1 << (8 * size - 1)
        if all((0 <= w < 2 * half) if i in unsigned else (-half <= w < half) for i, w in enumerate(words)):
            return size
    raise AssertionError(words)


@st.composite
def default_row(draw: st.DrawFn, start: int) -> Fre:
    """Give a row of a default descriptor on AArch64; a return address at CFA+0 is ambiguous and left out."""
    ra = draw(OFFSETS.filter(bool))
    words = (draw(OFFSETS), ra, draw(OFFSETS))[: draw(st.sampled_from((0, 1, 1, 2, 3, 3)))]
    signed = draw(st.booleans()) and bool(words)
    return Fre(start, words, draw(st.sampled_from((make.SP, make.FP))), fits(words), signed)


@st.composite
def flex_row(draw: st.DrawFn, start: int) -> Fre:
    """Give a row of a flexible descriptor."""

    def pair(*, based: bool) -> tuple[int, int]:
        if not based and draw(st.booleans()):
            return 2, draw(OFFSETS)
        return draw(REGISTERS) << 3 | draw(st.booleans()) << 1 | 1, draw(OFFSETS)

    words: tuple[int, ...] = pair(based=True)
    unsigned = [0]
    shape = draw(st.sampled_from((2, 4, 5, 6)))
    for wanted in ((4, 6), (5, 6)):
        if shape in wanted:
            unsigned.append(len(words))
            words += pair(based=False)
        elif shape == 5:
            words += (0,)
    size = fits(words, tuple(unsigned))
    return Fre(start, words, make.FP, size, draw(st.booleans()))


@st.composite
def functions(draw: st.DrawFn) -> list[Fde]:
    """Give functions one behind the other, in ascending order."""
    out, at = [], draw(st.integers(0, 2**20).map(lambda n: 4 * n))
    for _ in range(draw(st.integers(0, 6))):
        size = draw(st.sampled_from((4, 64, 256, 0x400, 0x12000)))
        flex = draw(st.booleans())
        starts = sorted(draw(st.sets(st.integers(0, min(size, 4096) // 4 - 1), max_size=8)))
        rows = [draw((flex_row if flex else default_row)(4 * start)) for start in starts]
        kind = 0 if size < 256 else 1 if size < 65536 else 2
        key_b, signal = draw(st.booleans()), draw(st.booleans())
        out.append(Fde(at, size, rows, kind, flex=flex, key_b=key_b, signal=signal))
        at += size + draw(st.integers(0, 16).map(lambda n: 4 * n))
    return out


def scan(data: bytes) -> list[tuple[int, int, bool, list[tuple[int, int, list[int]]]]]:
    """Read a version 3 section byte by byte: start, size, flexible, rows (start, info, words)."""

    def number(at: int, size: int, *, signed: bool = False) -> int:
        return int.from_bytes(data[at : at + size], "little", signed=signed)

    count, base = number(8, 4), 28 + number(24, 4)
    out = []
    for i in range(count):
        record = 28 + 16 * i
        at = base + number(record + 12, 4)
        rows, width = [], 1 << (data[at + 2] & 15)
        place = at + 5
        for _ in range(number(at, 2)):
            info = data[place + width]
            size = 1 << (info >> 5 & 3)
            first = place + width + 1
            words = [number(first + k * size, size, signed=True) for k in range(info >> 1 & 15)]
            rows.append((number(place, width), info, words))
            place = first + size * len(words)
        out.append((record + number(record, 8, signed=True), number(record + 8, 4), data[at + 3] == 1, rows))
    return out


@given(functions())
def test_decoding_equals_reading_byte_by_byte(fdes: list[Fde]) -> None:
    data = make.section(fdes)
    table = sframe.decode(data).tables[0]
    fres = table.fres
    for func, (start, size, flex, rows) in enumerate(scan(data)):
        assert (int(table.fdes.start[func]), int(table.fdes.size[func])) == (start, size)
        assert bool(table.fdes.is_flex[func]) == flex
        first, count = int(table.fdes.first_row[func]), int(table.fdes.row_count[func])
        mine = [
            (
                int(fres.start[row]),
                int(fres.info[row]),
                fres.words[fres.first_word[row] : fres.first_word[row] + fres.word_count[row]].tolist(),
            )
            for row in range(first, first + count)
        ]
        assert mine == rows


@given(functions(), st.sampled_from((2, 3)), st.sampled_from((make.AARCH64, make.AARCH64_BE)))
def test_encoding_undoes_decoding(fdes: list[Fde], version: int, abi: int) -> None:
    data = make.section(fdes, version, abi=abi)
    assert sframe.encode(sframe.decode(data)) == data


@given(functions())
def test_rules_survive_a_way_round(fdes: list[Fde]) -> None:
    """Decode, interpret, write in canonical form, decode, interpret: the same rules at every address."""
    rules = sframe.decode(make.section(fdes)).to_rules()
    built = sframe.from_rules(rules)
    again = sframe.decode(sframe.encode(built.section)).to_rules()
    assert compare(_without(rules, {item.func for item in built.left_out}), again).is_equal
    canonical = sframe.from_rules(again)
    assert sframe.encode(canonical.section) == sframe.encode(built.section)
    assert len(sframe.encode(built.section)) <= len(make.section(fdes))


def _without(rules: RuleTable, funcs: set[int]) -> RuleTable:
    return rules.take_rows(np.flatnonzero(~np.isin(rules.func, list(funcs))))


@given(functions(), st.data())
def test_lookup_equals_a_linear_scan(fdes: list[Fde], data: st.DataObject) -> None:
    """The row in force at an address is the last one of its function that starts at or below it."""
    rules = sframe.decode(make.section(fdes)).to_rules()
    table = rules.for_lookup()
    for fde in fdes:
        if fde.rows:
            offset = data.draw(st.integers(0, fde.size - 1))
            row = int(table.lookup(np.array([fde.start + offset], dtype=np.uint64), np.zeros(1, dtype=np.bool_))[0])
            below = [k for k, fre in enumerate(fde.rows) if fre.start <= offset]
            if not below:
                assert row == -1
                continue
            func = next(f for f in range(len(rules.functions)) if int(rules.functions.start[f]) == fde.start)
            expected = int(rules.functions.first_row[func]) + below[-1]
            assert describe_row(table, row) == describe_row(rules, expected)


@given(functions(), st.sampled_from((make.AARCH64, make.AARCH64_BE)))
def test_what_the_builder_makes_has_no_structural_finding(fdes: list[Fde], abi: int) -> None:
    """Random rows are implausible, but the section around them is sound."""
    plausibility = {
        *(
            "sframe-below-sp",
            "sframe-cfa-below-sp",
            "sframe-slot-above-cfa",
            "sframe-same-slot",
            "sframe-entry-state",
        ),
        *("sframe-cfa-align", "sframe-slot-align", "sframe-first-row", "sframe-row-repeats", "sframe-no-rows"),
        *("sframe-flex-scratch", "sframe-no-functions"),
    }
    assert {item.code for item in sframe.check(make.section(fdes, abi=abi))} <= plausibility
