"""Pausing and letting go of a guest: nothing is held that should be free, whatever fails; signals wait."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from surefoot.errors import TargetError, Unavailable
from surefoot.targets import gueststop
from surefoot.targets.dumpfile import CpuRegisters
from surefoot.targets.gueststop import StoppedGuest, before_entry


class FakeMonitor:
    """Knows whether the guest runs, and refuses what it is told to refuse."""

    def __init__(self) -> None:
        self.running = True
        self.refuse: set[str] = set()
        self.kvm = False
        self.said: list[str] = []

    def status(self) -> str:
        return "running" if self.running else "paused"

    def execute(self, command: str, _arguments: Mapping[str, object] | None = None) -> Any:
        self.said.append(command)
        if command in {"stop", "cont"}:
            self.running = command == "cont"
        if command in self.refuse:
            raise Unavailable(f"broke off during {command}")
        return {"enabled": self.kvm} if command == "query-kvm" else ""


class FakeMachine:
    """A guest whose monitor only one can hold, as the lock on its folder has it."""

    name = "n"
    memory_mib = 1

    def __init__(self, folder: Path, *, gdb: bool = True) -> None:
        self.folder = folder
        self.gdb_socket = folder / "gdb.sock" if gdb else None
        self.fake = FakeMonitor()
        self.held = 0

    @contextmanager
    def monitor(self) -> Iterator[FakeMonitor]:
        assert self.held == 0, "the lock is held: this would wait for ever"
        self.held += 1
        try:
            yield self.fake
        finally:
            self.held -= 1


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    """Give a guest with a gdbstub."""
    return FakeMachine(tmp_path)


@pytest.fixture
def guest(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> StoppedGuest:
    """Give it opened; its memory is not looked at."""
    monkeypatch.setattr(gueststop, "open_guest", lambda *_, **__: None)
    return StoppedGuest(machine)  # type: ignore[arg-type]


def test_a_guest_without_gdbstub_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        StoppedGuest(FakeMachine(tmp_path, gdb=False))  # type: ignore[arg-type]
    assert "--gdb" in caught.value.hint


def test_a_guest_on_the_hosts_own_cpus_is_refused(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody here could keep their instruction caches coherent."""
    monkeypatch.setattr(gueststop, "open_guest", lambda *_, **__: None)
    machine.fake.kvm = True
    with pytest.raises(TargetError, match="caches"):
        StoppedGuest(machine)  # type: ignore[arg-type]
    assert machine.held == 0


def test_pause_and_resume_hold_the_monitor_in_between(machine: FakeMachine, guest: StoppedGuest) -> None:
    assert guest.pause()
    assert (machine.held, machine.fake.running) == (1, False)
    assert guest.paused_s >= 0
    guest.resume()
    assert (machine.held, machine.fake.running) == (0, True)
    before = guest.paused_s
    guest.resume()  # harmless
    assert (machine.held, guest.paused_s) == (0, before)


def test_a_guest_that_was_paused_is_told_apart_and_can_be_let_go(machine: FakeMachine, guest: StoppedGuest) -> None:
    machine.fake.running = False
    assert not guest.pause()
    guest.release()
    assert (machine.held, machine.fake.running) == (0, False)
    guest.release()


def test_a_pause_that_fails_changes_nothing(machine: FakeMachine, guest: StoppedGuest) -> None:
    machine.fake.refuse = {"stop"}
    with pytest.raises(Unavailable):
        guest.pause()
    assert (machine.held, machine.fake.running) == (0, True)


def test_a_resume_that_fails_can_be_tried_again(machine: FakeMachine, guest: StoppedGuest) -> None:
    guest.pause()
    machine.fake.refuse = {"cont"}
    with pytest.raises(Unavailable):
        guest.resume()
    machine.fake.refuse = set()
    guest.resume()
    assert (machine.held, machine.fake.running) == (0, True)


def test_a_guest_that_runs_is_not_written_to(guest: StoppedGuest) -> None:
    with pytest.raises(TargetError, match="runs"):
        guest.write(0xFFFF_8000_0000_0000, b"\0" * 4)


@pytest.mark.parametrize(
    ("offset", "is_user"),
    [(0x400, True), (0x480, True), (0x780, True), (0x404, False), (0x200, False), (0x380, False), (0x800, False)],
)
def test_only_the_first_instruction_after_user_space_is_as_good_as_user_space(offset: int, *, is_user: bool) -> None:
    """One instruction later something is on the stack; and the lower vectors are taken within the kernel."""
    vectors = 0xFFFF_8000_0001_0800
    registers = CpuRegisters((0,) * 31, 0, vectors + offset, 0x6000_03C5, 1)
    assert not registers.is_user
    assert before_entry(registers, vectors).is_user == is_user
    assert before_entry(registers, 0) is registers


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_waits_for_the_end_of_the_block(number: signal.Signals, guest: StoppedGuest) -> None:
    class Struck(Exception):
        pass

    def strike(_number: int, _frame: object) -> None:
        raise Struck

    before = signal.signal(number, strike)
    done = False
    try:
        with pytest.raises(Struck), guest.shield():  # noqa: PT012 - that more follows is what is tested
            os.kill(os.getpid(), number)
            done = True
        assert done
        assert signal.getsignal(number) is strike
    finally:
        signal.signal(number, before)


def test_without_signals_and_in_other_threads_nothing_happens(guest: StoppedGuest) -> None:
    with guest.shield():
        pass
    seen = []

    def elsewhere() -> None:
        with guest.shield():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT)]
