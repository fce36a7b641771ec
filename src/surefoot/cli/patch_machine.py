"""Layer 9: `surefoot patch --target machine`: the emulated machine, kept in the cache from one command to the next.

A command takes the machine up where the last one left it, and leaves it in turn. The engine is not kept: it is told
again what has been done, on a target that does nothing, and the table that it comes to has to be the machine's.

Invariant: the file in the cache is a whole machine, in one of the engine's consistent states, at every moment.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from surefoot.cli.patch_backend import Options
from surefoot.cli.patch_emulated import EmulatedTarget
from surefoot.errors import Inconsistent, InputError, NotApplied, SurefootError
from surefoot.machine.board import Board
from surefoot.machine.kept import freeze, thaw
from surefoot.machine.loader import KernelFile, load_kernel
from surefoot.machine.patching import Patching
from surefoot.machine.target import Machine
from surefoot.patch.description import parse_description
from surefoot.patch.engine import Engine, Settings
from surefoot.patch.events import Event, EventKind, PatchState, Status
from surefoot.patch.model import Patch
from surefoot.targets.vm.folders import cache_folder, locked, os_errors

__all__ = ["PATCHES", "MachineBackend", "kept_file", "open_backend"]

PATCHES: Final = {
    "vault": """
name = "vault"
[[object]]
name = "vmlinux"
[[object.function]]
old = "vault_read"
new = "vault_read_new"
""",
    "pair": """
name = "pair"
[[object]]
name = "vmlinux"
[[object.function]]
old = "pair_f"
new = "pair_f_new"
[[object.function]]
old = "pair_g"
new = "pair_g_new"
""",
}
"""The machine's own patches: a system call that gives secrets away, and two functions that must not be mixed."""

_SETTLE: Final = 60_000
_PACE: Final = 1_500
_LIFE: Final = 20_000
"""Instructions that the machine runs when it has booted, between two passes, and when a command takes it up."""


def open_backend(target: str, options: Options) -> MachineBackend:
    """Open the emulated machine.

    Args:
        target: "machine".
        options: seed and patience are used.
    """
    del target
    return MachineBackend(options)


def kept_file(seed: int, kernel: KernelFile) -> Path:
    """Give the file in which a machine is kept; another kernel has another."""
    return cache_folder() / "machine" / f"seed-{seed}-{kernel.image.build_id[:12]}.machine"


@dataclass
class _Session:
    """A machine that one command works with.

    Attributes:
        target: what the engine sees.
        engine: knows what has been done.
        done: the transitions that are over and still felt: (verb, description, overruled tasks).
        moving: description and verb of the transition under way, if any.
        held: the engine's own view of that transition, until somebody else drives it.
    """

    target: EmulatedTarget
    engine: Engine
    done: list[tuple[str, str, bool]] = field(default_factory=list)
    moving: tuple[str, str] | None = None
    held: Iterator[Event] = field(default_factory=lambda: iter(()))

    @property
    def board(self) -> Board:
        """The machine's."""
        return self.target.patching.machine.board

    def text_of(self, name: str) -> str:
        """Give the description of a patch that was applied or is in transition, empty if there is none."""
        texts = [text for _, text, _ in self.done] + ([self.moving[0]] if self.moving else [])
        return next((text for text in reversed(texts) if parse_description(text).name == name), "")

    def note(self, text: str, *, pinned: Collection[str]) -> None:
        """Note what a command has come to.

        Args:
            text: description of the patch that it was about.
            pinned: what was overruled before.
        """
        name = parse_description(text).name
        forced = name in self.engine.pinned and name not in pinned
        state = next((status.state for status in self.engine.status() if status.patch == name), PatchState.ABSENT)
        before = next((verb for verb, each, _ in reversed(self.done) if parse_description(each).name == name), "")
        self.moving = None
        if self.engine.moving == name:
            self.moving = text, "apply" if state is PatchState.APPLYING else "revert"
        elif state is PatchState.APPLIED and before != "apply":
            self.done.append(("apply", text, forced))
        elif state is PatchState.ABSENT and before == "apply":
            self.done.append(("revert", text, forced))
        if not self.engine.status() and not self.engine.pinned:
            self.done.clear()

    def close(self) -> None:
        """Let nothing that is dropped touch the machine any more."""
        self.target.dry = True
        with suppress(SurefootError):
            getattr(self.held, "close", lambda: None)()


class MachineBackend:
    """What `surefoot.cli.patch_backend.Backend` describes, on the emulated machine."""

    def __init__(self, options: Options) -> None:
        """Take the options; nothing is opened yet."""
        self._options = options
        self._kernel = load_kernel()
        self._file = kept_file(options.seed, self._kernel)

    def apply(self, source: str, *, force: bool) -> Iterator[Event]:
        """Apply a patch: one of the machine's own by name, the first if none is named, or a description."""
        text, name = _description(source)
        patch = parse_description(text, name)
        with self._opened(fresh=True) as session:
            if session is not None:
                yield from self._drive(session, text, session.engine.apply(patch, force=force))

    def revert(self, patch: str, *, force: bool) -> Iterator[Event]:
        """Take a patch back, named or as it was applied."""
        name = patch
        if patch not in PATCHES and Path(patch).is_file():
            name = parse_description(_description(patch)[0], patch).name
        with self._opened(fresh=False) as session:
            if session is None:
                raise NotApplied(f"the patch {name} is not applied: no emulated machine is kept")
            yield from self._drive(session, session.text_of(name), session.engine.revert(name, force=force))

    def status(self) -> list[Status]:
        """Say how each patch stands."""
        with self._opened(fresh=False) as session:
            return session.engine.status() if session is not None else []

    def watch(self, patch: str | None) -> Iterator[Event]:
        """Let the machine run on until its transition is over, and tell what happens; nothing if there is none."""
        with self._opened(fresh=False) as session:
            if session is not None and session.moving is not None and patch in {None, session.engine.moving}:
                yield from self._drive(session, session.moving[0], session.engine.resume())

    def _drive(self, session: _Session, text: str, events: Iterator[Event]) -> Iterator[Event]:
        """Carry a transition on, and keep the machine as the engine leaves it, also after an interruption.

        An error, or an interruption that the engine could not handle any more, leaves what is kept as it was.
        """
        pinned = session.engine.pinned
        session.target.patching.run(_LIFE)
        try:
            yield from events
        except GeneratorExit:
            session.note(text, pinned=pinned)
            self._keep(session)
            raise
        session.note(text, pinned=pinned)
        self._keep(session)

    def _keep(self, session: _Session) -> None:
        """Write the machine, whole or not at all."""
        data = freeze(session.board, {"done": session.done, "moving": session.moving})
        partial = self._file.with_name(f".{self._file.name}.{os.getpid()}.partial")
        try:
            with os_errors(f"keep the emulated machine in {self._file}"):
                partial.write_bytes(data)
                partial.replace(self._file)
        finally:
            partial.unlink(missing_ok=True)

    @contextmanager
    def _opened(self, *, fresh: bool) -> Iterator[_Session | None]:
        """Give the machine that is kept, or a fresh one, or None; other commands wait meanwhile."""
        with locked(self._file.with_suffix(".lock")):
            session = self._taken_up() if self._file.exists() else self._boot() if fresh else None
            try:
                yield session
            finally:
                if session is not None:
                    session.close()

    def _session(self, board: Board) -> _Session:
        target = EmulatedTarget(Patching(Machine(board)), pace=_PACE)
        return _Session(target, Engine(target, time.monotonic, Settings(timeout_s=self._options.timeout_s)))

    def _boot(self) -> _Session:
        board = Board(self._kernel, seed=self._options.seed)
        Machine(board).control("light", 1)
        board.run(_SETTLE)
        return self._session(board)

    def _taken_up(self) -> _Session:
        """Read the machine that is kept, and tell an engine what has been done.

        Raises:
            InputError: the file is damaged, or says something else than the machine's memory.
        """
        with os_errors(f"read {self._file}"):
            data = self._file.read_bytes()
        board, notes = thaw(self._kernel, data, name=str(self._file))
        session = self._session(board)
        try:
            session.done = [(str(verb), str(text), bool(forced)) for verb, text, forced in notes["done"]]
            session.moving = (str(notes["moving"][0]), str(notes["moving"][1])) if notes["moving"] else None
            for verb, text, forced in session.done:
                _replay(session, verb, parse_description(text), forced=forced)
            if session.moving is not None:
                _join(session, parse_description(session.moving[0]), session.moving[1])
        except (KeyError, TypeError, ValueError, SurefootError) as error:
            raise self._damaged(f"{error}") from error
        target = session.target
        if not target.is_as_planned():
            raise self._damaged("the handler's table is not what its patches make of it")
        target.dry = False
        return session

    def _damaged(self, what: str) -> Inconsistent:
        return Inconsistent(
            f"the kept machine is damaged: {what}",
            file=str(self._file),
            hint="delete it to begin with a fresh machine",
        )


def _description(source: str) -> tuple[str, str]:
    """Give the text of a patch and its name for errors.

    Raises:
        InputError: there is no such patch, or no such file.
    """
    if not source:
        source = next(iter(PATCHES))
    if source in PATCHES:
        return PATCHES[source], source
    path = Path(source)
    if not path.is_file():
        raise InputError(
            f"the emulated machine has no patch '{source}', and there is no such file",
            hint=f"its own are {', '.join(PATCHES)}",
        )
    with os_errors(f"read {path}"):
        data = path.read_bytes()
    try:
        return data.decode(), source
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8: {error}", file=source) from error


def _replay(session: _Session, verb: str, patch: Patch, *, forced: bool) -> None:
    """Tell an engine of a transition that is over: it finds no task, or one that had to be overruled.

    Raises:
        Inconsistent: it does not come to its end.
    """
    session.target.replay(held=forced)
    engine = session.engine
    events = engine.apply(patch, force=forced) if verb == "apply" else engine.revert(patch.name, force=forced)
    if [event.kind for event in events][-1:] != [EventKind.COMPLETED]:
        raise Inconsistent(f"the patch {patch.name} cannot be what it is said to be")


def _join(session: _Session, patch: Patch, verb: str) -> None:
    """Tell an engine of the transition that is under way: it begins, with the tasks as they are."""
    engine = session.engine
    if verb == "revert" and patch.name not in {status.patch for status in engine.status()}:
        _replay(session, "apply", patch, forced=False)
    session.target.join()
    session.held = engine.apply(patch) if verb == "apply" else engine.revert(patch.name)
    next(session.held)
