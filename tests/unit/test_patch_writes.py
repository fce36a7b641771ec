"""Writing sites: all or none, whatever fails, and a journal that tells the truth after a crash at any point."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surefoot.errors import Inconsistent, SiteMismatch, Unavailable
from surefoot.patch.events import PatchState
from surefoot.patch.writes import (
    Action,
    Journal,
    PartlyWritten,
    PatchedFunction,
    Stage,
    Write,
    perform,
    recover,
    undo_of,
)

A, B = 0xFFFF_8000_0001_0008, 0xFFFF_8000_0002_0008
WRITES = (
    Write("f", A - 8, b"\x11" * 8, b"\x22" * 8),
    Write("f", A, b"aaaa", b"AAAA"),
    Write("f", A + 4, b"bbbb", b"BBBB"),
    Write("g", B, b"cccc", b"CCCC"),
)
FUNCTIONS = (PatchedFunction("f", "vmlinux", A, 0x1000), PatchedFunction("g", "m", B, 0x2000))
JOURNAL = Journal("p", Action.APPLY, Stage.INTENDED, "ab" * 20, "77", "/d/p.toml", FUNCTIONS, WRITES)


class Memory:
    """Bytes, and a fault that strikes at a certain write."""

    def __init__(self, fails_at: int = -1, *, after: bool = False, fault: type[BaseException] = Unavailable) -> None:
        self.bytes = {write.address + i: byte for write in WRITES for i, byte in enumerate(write.old)}
        self.before = dict(self.bytes)
        self.fails_at, self.after, self.fault = fails_at, after, fault
        self.broken_for_good = False
        self.count = 0
        self.order: list[int] = []

    def read(self, addr: int, size: int) -> bytes | None:
        found = [self.bytes.get(addr + i) for i in range(size)]
        return None if None in found else bytes(byte for byte in found if byte is not None)

    def put(self, addr: int, data: bytes) -> None:
        strikes = self.count == self.fails_at or (self.broken_for_good and self.count > self.fails_at >= 0)
        self.count += 1
        if strikes and not self.after:
            raise self.fault("broken")
        self.order.append(addr)
        self.bytes |= {addr + i: byte for i, byte in enumerate(data)}
        if strikes:
            raise self.fault("broken")

    def holds(self, *, new: bool) -> bool:
        return all(self.read(w.address, len(w.new)) == (w.new if new else w.old) for w in WRITES)


def test_everything_is_written_in_order() -> None:
    memory = Memory()
    perform(WRITES, memory.read, memory.put)
    assert memory.holds(new=True)
    assert memory.order == [write.address for write in WRITES]
    perform(undo_of(WRITES), memory.read, memory.put)
    assert memory.bytes == memory.before
    assert memory.order[4:] == [write.address for write in reversed(WRITES)]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("fault", [Unavailable, KeyboardInterrupt])
@pytest.mark.parametrize("at", range(len(WRITES)))
def test_one_fault_anywhere_leaves_nothing_written(at: int, fault: type[BaseException], *, after: bool) -> None:
    """The fault may strike before the bytes arrive, or when they have."""
    memory = Memory(at, after=after, fault=fault)
    with pytest.raises(fault):
        perform(WRITES, memory.read, memory.put)
    assert memory.bytes == memory.before


@pytest.mark.parametrize("at", range(len(WRITES)))
def test_what_cannot_be_taken_back_is_named_exactly(at: int) -> None:
    memory = Memory(at)
    memory.broken_for_good = True
    if at == 0:
        with pytest.raises(Unavailable):
            perform(WRITES, memory.read, memory.put)
        assert memory.bytes == memory.before
        return
    with pytest.raises(PartlyWritten) as caught:
        perform(WRITES, memory.read, memory.put)
    assert caught.value.left == WRITES[:at]
    for write in WRITES[:at]:
        assert f"{write.address:#x}" in str(caught.value)
    assert f"{WRITES[at].address:#x}" not in str(caught.value)


def test_a_write_that_does_not_stick_is_noticed() -> None:
    memory = Memory()
    put = memory.put

    def loses_one(addr: int, data: bytes) -> None:
        if data != b"BBBB":
            put(addr, data)

    with pytest.raises(Exception, match="does not hold what was written"):
        perform(WRITES, memory.read, loses_one)
    assert memory.bytes == memory.before


@pytest.mark.parametrize("at", range(len(WRITES)))
def test_foreign_bytes_stop_everything_before_the_first_write(at: int) -> None:
    memory = Memory()
    memory.bytes[WRITES[at].address] ^= 0xFF
    with pytest.raises(SiteMismatch, match=f"{WRITES[at].address:#x}"):
        perform(WRITES, memory.read, memory.put)
    assert memory.count == 0


@pytest.mark.parametrize("done", range(len(WRITES) + 1))
def test_a_journal_tells_what_a_killed_command_left(done: int) -> None:
    """Killed after any number of writes: the state is told by the bytes, and the undo leads back."""
    memory = Memory()
    for write in WRITES[:done]:
        memory.put(write.address, write.new)
    found = recover(Journal.from_text(JOURNAL.to_text()), memory.read)
    # Only the eight bytes before f are written: they are ftrace's, and no word leads there.
    states = [PatchState.ABSENT, PatchState.ABSENT, PatchState.PARTIAL, PatchState.PARTIAL, PatchState.APPLIED]
    assert found.state is states[done]
    assert found.unknown == ()
    assert found.redirected == ({A} if done >= 3 else set()) | ({B} if done == 4 else set())
    perform(found.undo, memory.read, memory.put)
    left = {addr: byte for addr, byte in memory.bytes.items() if byte != memory.before[addr]}
    assert set(left) <= set(range(A - 8, A)) if done == 1 else not left


def test_words_that_others_wrote_are_told_apart() -> None:
    memory = Memory()
    for write in WRITES:
        memory.put(write.address, write.new)
    memory.bytes[A + 4] ^= 0xFF
    found = recover(JOURNAL, memory.read)
    assert found.state is PatchState.PARTIAL
    assert [write.address for write in found.unknown] == [A + 4]
    assert A + 4 not in [write.address for write in found.undo]


def test_ftrace_may_change_its_own_bytes_at_a_site_that_is_free() -> None:
    memory = Memory()
    memory.bytes[A - 8] ^= 0xFF
    memory.bytes[A + 4] ^= 0xFF
    found = recover(JOURNAL, memory.read)
    assert (found.state, found.undo, found.unknown) == (PatchState.ABSENT, (), ())


def test_memory_that_cannot_be_read_is_not_called_untouched() -> None:
    memory = Memory()
    del memory.bytes[B]
    assert recover(JOURNAL, memory.read).state is PatchState.PARTIAL


def test_a_journal_survives_being_written_and_read() -> None:
    journal = replace(JOURNAL, action=Action.REVERT, stage=Stage.WRITTEN)
    assert Journal.from_text(journal.to_text()) == journal


@pytest.mark.parametrize(
    "damage",
    [
        {"schema": "surefoot.patch-journal/2"},
        {"writes": [{"function": "f", "address": "0x10", "old": "00", "new": "11"}]},
        {"writes": [{"function": "f", "address": "-0x10", "old": "00000000", "new": "11111111"}]},
        {"writes": [{"function": "f", "address": "0x10", "old": "0000000g", "new": "11111111"}]},
        {"writes": 7},
        {"stage": "perhaps"},
        {"action": None},
        {"patch": 3},
        {"functions": [{}]},
    ],
)
def test_a_damaged_journal_is_refused(damage: dict[str, object]) -> None:
    value = json.loads(JOURNAL.to_text()) | damage
    with pytest.raises(Inconsistent):
        Journal.from_text(json.dumps(value), "p.json")


@given(st.one_of(st.text(max_size=200), st.integers(0, 400).map(lambda n: JOURNAL.to_text()[:n])))
def test_no_text_makes_reading_a_journal_end_otherwise(text: str) -> None:
    with pytest.raises(Inconsistent):
        Journal.from_text(text)
