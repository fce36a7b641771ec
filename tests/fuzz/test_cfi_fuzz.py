"""Any bytes end in a table or in one of our errors, in bounded time and memory."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cfi_builder as b
from surefoot.errors import InputError
from surefoot.metadata.cfi import Bases, Relocations, decode_debug_frame, decode_eh_frame
from surefoot.metadata.rules import FunctionFlag, RuleTable

GOLDEN: Final = Path(__file__).parent.parent / "golden" / "cfi"
GOOD: Final = {name: (GOLDEN / f"{name}.bin").read_bytes() for name in ("debug_frame", "eh_frame")}
DECODERS: Final = {"debug_frame": decode_debug_frame, "eh_frame": decode_eh_frame}
names = st.sampled_from(sorted(GOOD))


def _sound(table: RuleTable) -> None:
    """Check everything that holds for any table, whatever it was decoded from."""
    table.check()
    index = table.functions
    assert int(index.row_count.sum()) == len(table)
    assert bool(np.all((index.reason >= 0) == ((index.flags & FunctionFlag.REFUSED) != 0)))
    assert bool(np.all(index.reason < len(table.reasons)))
    assert bool(np.all(table.start - index.start[table.func] <= index.size[table.func]))
    assert bool(np.all(table.side < len(table.side_rules)))
    for part in ("cfa", "fp", "ra"):
        rules = table.side_rules[part]
        assert bool(np.all(rules["expr"] + rules["expr_len"] <= len(table.expressions)))
    whole = np.flatnonzero((index.flags & FunctionFlag.REFUSED) == 0)
    assert bool(np.all(index.row_count[whole] >= 1))
    table.for_lookup()


def _place(error: InputError, name: str, size: int) -> None:
    """Check that an error names its place."""
    assert error.section == f".{name}"
    assert error.offset is not None
    assert 0 <= error.offset <= size


def _survives(name: str, data: bytes, *, big_endian: bool = False) -> bool:
    """Decode; anything but a sound table and an InputError with a place is a failure."""
    try:
        table = DECODERS[name](data, bases=Bases(text=1, data=2), big_endian=big_endian)
    except InputError as error:
        _place(error, name, len(data))
        return False
    _sound(table)
    return True


@given(names, st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6), st.integers(0, 400))
@settings(max_examples=400)
def test_damaged_sections(name: str, changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(GOOD[name])
    for place, value in changes:
        data[place % len(data)] = value
    _survives(name, bytes(data[: len(data) - max(cut - 300, 0)]))


@given(names, st.binary(max_size=200), st.booleans())
@settings(max_examples=200)
def test_arbitrary_bytes(name: str, data: bytes, big: bool) -> None:
    _survives(name, data, big_endian=big)


@given(names, st.lists(st.binary(max_size=60), min_size=1, max_size=5), st.binary(max_size=12), st.integers(0, 255))
@settings(max_examples=400)
def test_arbitrary_programs_in_sound_records(name: str, programs: list[bytes], initial: bytes, encoding: int) -> None:
    """Deeper than damage reaches: the records are right, what is in them is anything."""
    frames = b.Frames(eh=name == "eh_frame")
    cie = frames.cie(b.SP_PLUS_0 + initial, augmentation="zR", extra=bytes([encoding]))
    for program in programs:
        frames.fde(cie, program, extra=b"", width=8)
    _survives(name, frames.bytes())


def test_random_damage_by_the_thousand() -> None:
    """A thousand sections with a few bytes changed; damage must neither always nor never be survivable."""
    chance = np.random.default_rng(20)
    outcomes = {True: 0, False: 0}
    for name, good in GOOD.items():
        for _ in range(500):
            data = np.frombuffer(good, dtype=np.uint8).copy()
            where = chance.integers(0, data.size, chance.integers(1, 6))
            data[where] = chance.integers(0, 256, where.size)
            outcomes[_survives(name, data.tobytes())] += 1
    assert min(outcomes.values()) > 100


UNIT: Final = 200_000
HOSTILE: Final = {
    "zeros": b"\0" * UNIT,
    "ones": b"\xff" * UNIT,
    "empty records": b"\4\0\0\0\0\0\0\0" * (UNIT // 8),
    "cies": b"\x0c\0\0\0\xff\xff\xff\xff\1\0\4x\x1e\x0c\x1f\0" * (UNIT // 16),
    "advances": b.one(b.advance(0) * UNIT),
    "one-unit advances": b.one(b.advance(1) * UNIT, size=2**32 - 1),
    "nops": b.one(b.nop(UNIT)),
    "leb bytes": b.one(b"\x80" * UNIT),
    "blocks": b.one(b.op(0x10, b"\x1d", b"\0") * (UNIT // 3)),
    "far blocks": b.one(b.op(0x10, b"\x1d", b.uleb(UNIT // 2)) * (UNIT // 5)),
    "remember": b.one(b.REMEMBER * UNIT),
    "remember and restore": b.one((b.REMEMBER + b.RESTORE_STATE + b.NEGATE) * (UNIT // 3)),
    "deep": b.one(b.REMEMBER * (UNIT // 3) + (b.RESTORE_STATE + b.advance(0)) * (UNIT // 3)),
    "expressions": b.one((b.op(0x10, b"\x1d\1\x30") + b.advance(0)) * (UNIT // 5)),
    "set_loc": b.one((b.set_loc(0x1000)) * (UNIT // 9)),
}


@pytest.mark.parametrize("name", sorted(GOOD))
@pytest.mark.parametrize("case", sorted(HOSTILE))
def test_hostile_input_takes_bounded_time_and_memory(name: str, case: str) -> None:
    """200 kB in less than two seconds and 400 bytes of memory per byte, whatever they are made of."""
    data = HOSTILE[case]
    tracemalloc.start()
    started = time.process_time()
    try:
        _survives(name, data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.process_time() - started < 2
    assert peak < 400 * len(data) + 2**22


@given(st.lists(st.tuples(st.integers(0, 420), st.integers(255, 264), st.integers(-300, 2**40)), max_size=8))
def test_arbitrary_relocations(rows: list[tuple[int, int, int]]) -> None:
    columns = [np.array([row[k] for row in rows], dtype=np.int64) for k in range(3)]
    relocations = Relocations(
        columns[0].astype(np.uint64),
        columns[1].astype(np.uint32),
        np.zeros(len(rows), dtype=np.uint64),
        np.full(len(rows), 3, dtype=np.int32),
        columns[2],
    )
    try:
        table = decode_debug_frame(GOOD["debug_frame"], relocations=relocations)
    except InputError as error:
        _place(error, "debug_frame", 2**63)
        return
    _sound(table)
