"""`surefoot patch --target machine`: one machine through many commands, whatever interrupts them."""

from __future__ import annotations

import errno
from collections.abc import Generator
from itertools import islice
from pathlib import Path
from typing import cast

import pytest

from surefoot.cli import main as cli_main
from surefoot.cli.exits import Exit
from surefoot.cli.patch_backend import Options, open_backend
from surefoot.cli.patch_emulated import EmulatedTarget
from surefoot.cli.patch_machine import PATCHES, MachineBackend, kept_file
from surefoot.errors import InputError, NotApplied, TargetError
from surefoot.machine.board import Board
from surefoot.machine.kept import freeze, thaw
from surefoot.machine.loader import Variant, load_kernel
from surefoot.machine.patching import Patching
from surefoot.machine.target import Machine
from surefoot.patch.description import parse_description
from surefoot.patch.events import Event, EventKind, PatchState

KERNEL = load_kernel()
OPTIONS = Options(seed=3)
VERBS = ("apply", "revert")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep machines in a folder of the test's own."""
    monkeypatch.setenv("SUREFOOT_CACHE", str(tmp_path))
    return tmp_path


def _backend(options: Options = OPTIONS) -> MachineBackend:
    return cast("MachineBackend", open_backend("machine", options))


def _events(verb: str, patch: str) -> Generator[Event]:
    backend = _backend()
    found = backend.apply(patch, force=False) if verb == "apply" else backend.revert(patch, force=False)
    return cast("Generator[Event]", found)


def _states() -> dict[str, PatchState]:
    return {status.patch: status.state for status in _backend().status()}


def _kept() -> Patching:
    """Read the machine that is kept, and hold its memory against what status says of it."""
    board, _ = thaw(KERNEL, kept_file(OPTIONS.seed, KERNEL).read_bytes(), name="kept")
    patching = Patching(Machine(board))
    new = {entry for _, _, entry in patching.table()}
    names = [
        name for name in PATCHES if patching.find(parse_description(PATCHES[name]).objects[0].functions[0].new) in new
    ]
    assert sorted(_states()) == sorted(names)
    return patching


def test_one_machine_goes_through_many_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """What one command applies the next one sees, on a machine whose time goes on."""
    counts = []
    for words, status in (
        (["apply"], {"vault": PatchState.APPLIED}),
        (["apply", "pair"], {"vault": PatchState.APPLIED, "pair": PatchState.APPLIED}),
        (["revert", "vault"], {"pair": PatchState.APPLIED}),
        (["revert"], {}),
    ):
        assert cli_main.run(["patch", words[0], "--target", "machine", "--seed", "3", *words[1:]]) == Exit.WELL
        assert _states() == status
        counts.append(_kept().machine.board.count)
    assert counts == sorted(set(counts))
    assert cli_main.run(["patch", "status", "--target", "machine", "--seed", "3"]) == Exit.WELL
    assert "no patch" in capsys.readouterr().out


def test_a_description_from_a_file(tmp_path: Path) -> None:
    """A file works as the machine's own patches do, and may be named to take it back."""
    file = tmp_path / "mine.toml"
    file.write_text(PATCHES["pair"].replace('"pair"', '"mine"'), encoding="utf-8")
    assert list(_events("apply", str(file)))[-1].kind is EventKind.COMPLETED
    assert _states() == {"mine": PatchState.APPLIED}
    assert list(_events("revert", str(file)))[-1].kind is EventKind.COMPLETED
    assert _states() == {}


@pytest.mark.parametrize("ending", [KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("verb", VERBS)
def test_an_interruption_at_any_event_leaves_all_or_nothing(verb: str, ending: type[BaseException]) -> None:
    """Ctrl-C and a closed view: the kept machine has the patch in force or not, and no call was mixed."""
    list(_events("apply", "pair"))
    at = 0
    while True:
        if (verb == "revert") != (_states() == {"pair": PatchState.APPLIED}):
            list(_events("apply" if verb == "revert" else "revert", "pair"))
        events = _events(verb, "pair")
        told = list(islice(events, at + 1))
        if told[-1].kind is EventKind.COMPLETED:
            break
        if ending is GeneratorExit:
            events.close()
        else:
            rest = [events.throw(KeyboardInterrupt()), *events]
            assert rest[-1].kind in {EventKind.FAILED, EventKind.COMPLETED}
            assert rest[-1].state in {PatchState.APPLIED, PatchState.ABSENT}
        assert _states() in ({}, {"pair": PatchState.APPLIED})
        patching = _kept()
        patching.machine.board.run(60_000)
        assert patching.machine.control("pair_errors") == 0
        at += 1
    assert at > 1


def _left_under_way(verb: str) -> None:
    """Keep a machine in the middle of a transition, as a command does whose time was up twice."""
    backend = _backend()
    if verb == "revert":
        list(backend.apply("pair", force=False))
    with backend._opened(fresh=True) as session:
        assert session is not None
        patch = parse_description(PATCHES["pair"])
        events = session.engine.apply(patch) if verb == "apply" else session.engine.revert("pair")
        session.target.patience = 2
        session.target.pace = 10
        for event in events:
            if event.kind is EventKind.RETRIED:
                break
        session.note(PATCHES["pair"], pinned=())
        backend._keep(session)
        session.close()


@pytest.mark.parametrize("then", ["watch", "turn"])
@pytest.mark.parametrize("verb", VERBS)
def test_a_transition_goes_on_in_the_next_command(verb: str, then: str) -> None:
    """It is seen by status, ended by watch, or turned round by the opposite command."""
    _left_under_way(verb)
    assert _states() == {"pair": PatchState.APPLYING if verb == "apply" else PatchState.REVERTING}
    assert any(not task.crossed for task in _backend().status()[0].tasks)
    if then == "watch":
        events = list(_backend().watch(None))
    else:
        events = list(_events("revert" if verb == "apply" else "apply", "pair"))
        assert events[0].kind is EventKind.REVERSED
    applied = (verb == "apply") == (then == "watch")
    assert events[-1].kind is EventKind.COMPLETED
    assert _states() == ({"pair": PatchState.APPLIED} if applied else {})
    patching = _kept()
    patching.machine.board.run(60_000)
    assert patching.machine.control("pair_errors") == 0


def test_what_was_forced_is_remembered(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Later commands know that tasks were overruled."""
    monkeypatch.setattr(EmulatedTarget, "look", _held)
    told = list(_backend().apply("pair", force=True))
    monkeypatch.undo()
    monkeypatch.setenv("SUREFOOT_CACHE", str(cache))
    assert EventKind.FORCED in {event.kind for event in told}
    (status,) = _backend().status()
    assert status.state is PatchState.APPLIED
    assert any("never" in warning for warning in status.warnings)


def _held(self: EmulatedTarget, keys: list[int], *_: object) -> object:
    was, self.dry = self.dry, True
    looks = EMULATED_LOOK(self, keys, (), ())
    self.dry = was
    return looks


EMULATED_LOOK = EmulatedTarget.look


def test_watching_and_taking_back_nothing() -> None:
    """Without a machine there is nothing to see, and nothing to take back."""
    assert list(_backend().watch(None)) == []
    assert _backend().status() == []
    with pytest.raises(NotApplied):
        list(_events("revert", "pair"))
    list(_events("apply", "pair"))
    assert list(_backend().watch(None)) == []
    with pytest.raises(NotApplied):
        list(_events("apply", "pair"))
    with pytest.raises(InputError, match="nosuch"):
        list(_events("apply", "nosuch"))


def test_a_damaged_file_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Cut off, changed anywhere, of another version or another kernel: a sentence, and what to do."""
    list(_events("apply", "pair"))
    file = kept_file(OPTIONS.seed, KERNEL)
    good = file.read_bytes()
    other = Board(load_kernel(Variant.CFI), seed=3)
    other.run(30_000)
    damaged = [good[:cut] for cut in (0, 10, 30, 60, len(good) - 1)]
    damaged += [good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :] for at in range(0, len(good), len(good) // 40)]
    damaged += [freeze(other, {"done": [], "moving": None}), good + b"x"]
    board, notes = thaw(KERNEL, good, name="kept")
    wrong: list[dict[str, object]] = [{"done": [], "moving": None}, {}, {**notes, "done": [["apply", "x = ", False]]}]
    damaged += [freeze(board, each) for each in wrong]
    for data in damaged:
        file.write_bytes(data)
        assert cli_main.run(["patch", "status", "--target", "machine", "--seed", "3"]) == Exit.BAD
        said = capsys.readouterr().err
        assert "delete it to begin with a fresh machine" in said
        assert file.name in "".join(said.split())
    file.write_bytes(good)
    assert _states() == {"pair": PatchState.APPLIED}


def test_a_full_disk_leaves_the_machine_as_it_was(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """The command fails, and the next one finds what was kept before."""
    list(_events("apply", "pair"))
    write = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        write(self, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(TargetError, match="No space left"):
        list(_events("revert", "pair"))
    monkeypatch.undo()
    monkeypatch.setenv("SUREFOOT_CACHE", str(cache))
    assert _states() == {"pair": PatchState.APPLIED}
    assert not list(cache.rglob("*.partial"))


@pytest.mark.parametrize("tracing", [0, 3])
def test_a_kept_machine_goes_on_as_if_nothing_had_happened(tracing: int) -> None:
    """To the last byte, wherever it was stopped."""
    for insns in (40_000, 51_111, 63_333):
        board = Board(KERNEL, seed=5)
        Machine(board).control("tracing", tracing)
        board.run(insns)
        again, notes = thaw(KERNEL, freeze(board, {"a": [1]}), name="kept")
        assert notes == {"a": [1]}
        assert (again.registers, again.count) == (board.registers, board.count)
        for each in (board, again):
            each.run(20_000)
        assert (again.registers, again.console) == (board.registers, board.console)
        assert again.snapshot().memory == board.snapshot().memory
