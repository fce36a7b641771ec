"""Layer 9: `surefoot patch` for a guest that stands still while it is patched: no help of its kernel is needed.

What was written is kept in a journal in the guest's run folder, from before the first byte on; what is in force is
always told by the guest's own memory.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from surefoot.cli.patch_backend import Options, guest_name
from surefoot.errors import InputError, Unavailable, Unsupported
from surefoot.image.tables import patch_sites
from surefoot.patch.description import parse_description
from surefoot.patch.events import Event, EventKind, FunctionState, PatchState, Status
from surefoot.patch.model import Patch
from surefoot.patch.sites import ObjectCode, Refusal, Refused, Site, SiteKind, find_function, plan_site
from surefoot.patch.stopped import Change, Limits, transition
from surefoot.patch.writes import Action, Journal, PatchedFunction, Recovery, Stage, recover
from surefoot.targets.cache import TableCache
from surefoot.targets.gueststop import StoppedGuest
from surefoot.targets.vm import machines
from surefoot.targets.vm.folders import locked, os_errors

__all__ = ["StoppedBackend", "open_backend"]

_FOLDER: Final = "patches"
_LOCK: Final = "patch.lock"
_FIRST_WAIT_S: Final = 0.01
"""Most tasks that hold a patch up are in code that takes microseconds; the wait grows from here."""
_STATES: Final = {
    PatchState.PARTIAL: "some sites are written and some are not: take it back with `surefoot patch revert`",
}


class StoppedBackend:
    """Patches one guest by stopped consistency.

    Args:
        machine: the guest.
        options: what else the command line says.
    """

    def __init__(self, machine: machines.Machine, options: Options) -> None:
        self._machine = machine
        self._options = options
        self._guests: dict[tuple[Path, ...], StoppedGuest] = {}
        self._objects: dict[str, tuple[object, ObjectCode]] = {}

    def apply(self, source: str, *, force: bool) -> Iterator[Event]:
        """Apply a patch that a file describes; the modules that carry its code are loaded in the guest.

        Raises:
            InputError: the description is not usable, or asks for what this way does not do.
            TargetError: the guest cannot be used.
        """
        path = Path(source)
        patch = _describe(path)
        with locked(self._machine.folder / _LOCK):
            old = self._journal(patch.name)
            guest = self._guest(path.parent)
            if old is not None and recover(old, guest.read).state is not PatchState.ABSENT:
                yield _refused(patch.name, recover(old, guest.read).state, "it is in force already, or in part")
                return
            sites, refused = self._plan(guest, patch)
            if refused:
                message = "; ".join(map(str, refused))
                yield _refused(patch.name, PatchState.ABSENT, f"nothing is written: {message}")
                return
            for text in _cautions(patch, sites):
                yield Event(EventKind.WARNING, patch.name, PatchState.ABSENT, 0.0, message=text)
            journal = self._new_journal(patch, path, sites)
            change = Change(journal, journal.writes, PatchState.ABSENT, force)
            yield from self._run(guest, change)

    def revert(self, patch: str, *, force: bool) -> Iterator[Event]:
        """Take a patch back, wholly or partly written.

        Args:
            patch: its name, or the path of its description.
            force: overrule tasks that are not clear.

        Raises:
            InputError: there is no such patch, or words at its sites are nobody's.
            TargetError: the guest cannot be used.
        """
        with locked(self._machine.folder / _LOCK):
            journal = self._find(patch)
            guest = self._guest(Path(journal.source).parent)
            found = recover(journal, guest.read)
            if found.state is PatchState.ABSENT:
                yield Event(EventKind.COMPLETED, journal.patch, found.state, 0.0, message="it is not in force")
                return
            if found.unknown:
                listed = "; ".join(map(str, found.unknown))
                yield _refused(journal.patch, found.state, f"others have written at its sites: {listed}")
                return
            yield from self._run(guest, Change(_as_revert(journal), found.undo, found.state, force))

    def status(self) -> list[Status]:
        """Say how each patch stands that was ever applied to this run of the guest.

        Raises:
            TargetError: the guest cannot be used.
        """
        result = []
        for path in self._journals():
            try:
                journal = self._read(path)
            except InputError as error:
                result.append(Status(path.stem, PatchState.PARTIAL, warnings=(str(error),)))
                continue
            if journal is None:
                continue
            found = recover(journal, self._guest(Path(journal.source).parent).read)
            functions = tuple(
                FunctionState(one.name, one.object, one.address, one.new, one.address in found.redirected)
                for one in journal.functions
            )
            result.append(
                Status(journal.patch, found.state, functions=functions, warnings=self._warnings(journal, found))
            )
        return result

    def watch(self, patch: str | None) -> Iterator[Event]:
        """Wait while another command patches this guest, then tell how each patch stands."""
        began = time.monotonic()
        limit = self._options.timeout_s
        while not self._is_free():
            elapsed = time.monotonic() - began
            if limit is not None and elapsed > limit:
                return
            yield Event(EventKind.RETRIED, patch or "", PatchState.APPLYING, elapsed, message="another command works")
            time.sleep(max(self._options.interval_s, 0.01))
        for status in self.status():
            if patch in {None, status.patch}:
                elapsed = time.monotonic() - began
                yield Event(
                    EventKind.COMPLETED, status.patch, status.state, elapsed, message=_STATES.get(status.state, "")
                )

    def _run(self, guest: StoppedGuest, change: Change) -> Iterator[Event]:
        options = self._options
        limits = Limits(options.timeout_s, min(options.interval_s, _FIRST_WAIT_S), options.pause_s)
        path = self._path(change.journal.patch)

        def keep(text: str) -> None:
            _write_safely(path, text)

        try:
            yield from transition(guest, change, keep=keep, clock=time.monotonic, sleep=time.sleep, limits=limits)
        finally:
            guest.release()

    def _guest(self, *folders: Path) -> StoppedGuest:
        """Open the guest, once for the folders in which the files of its modules may lie."""
        given = () if self._options.modules is None else (self._options.modules,)
        key = (*given, *(folder.absolute() for folder in folders if folder.is_dir()))
        if key not in self._guests:
            self._guests[key] = StoppedGuest(self._machine, modules=key, cache=TableCache())
        return self._guests[key]

    def _plan(self, guest: StoppedGuest, patch: Patch) -> tuple[list[Site], list[Refused]]:
        """Find the sites of all functions, or why there are none."""
        guest.target.refresh_code()
        sites: list[Site] = []
        refused: list[Refused] = []
        for owner, function in patch.functions():
            try:
                carrier = self._object(guest, function.module or "vmlinux")
                new = find_function(carrier, function.new)
                code = self._object(guest, owner)
            except Unavailable as error:
                refused.append(Refused(Refusal.NO_FUNCTION, function.old, owner, detail=str(error)))
                continue
            if isinstance(new, Refused):
                refused.append(Refused(Refusal.NO_NEW, function.old, owner, detail=str(new)))
                continue
            site = plan_site(code, function.old, function.position, new, guest.read)
            if isinstance(site, Refused):
                refused.append(site)
            else:
                sites.append(site)
        return sites, refused

    def _object(self, guest: StoppedGuest, name: str) -> ObjectCode:
        """Give symbols and sites of the kernel or a module; those of a module for as long as it lies where it is."""
        where: object = next((one.ranges for one in guest.target.modules if one.name == name), name)
        kept = self._objects.get(name)
        if kept is None or kept[0] != where:
            image, bias = guest.target.image_of(name)
            kept = where, ObjectCode(name, image.symbols, patch_sites(image), bias)
            self._objects[name] = kept
        return kept[1]

    def _new_journal(self, patch: Patch, path: Path, sites: list[Site]) -> Journal:
        functions = (PatchedFunction(one.function, one.object, one.place.func, one.new) for one in sites)
        return Journal(
            patch=patch.name,
            action=Action.APPLY,
            stage=Stage.INTENDED,
            build_id=self._machine.kernel.build_id,
            boot=str(self._machine.pid),
            source=str(path.absolute()),
            functions=tuple(functions),
            writes=tuple(write for site in sites for write in site.writes),
        )

    def _path(self, name: str) -> Path:
        return self._machine.folder / _FOLDER / f"{name}.json"

    def _journals(self) -> list[Path]:
        return sorted((self._machine.folder / _FOLDER).glob("*.json"))

    def _journal(self, name: str) -> Journal | None:
        path = self._path(name)
        return self._read(path) if path.exists() else None

    def _read(self, path: Path) -> Journal | None:
        """Read a journal; None for one of another run of the guest, whose memory is gone."""
        with os_errors(f"read {path}"):
            text = path.read_text("utf-8", "replace")
        journal = Journal.from_text(text, str(path))
        return journal if journal.boot == str(self._machine.pid) else None

    def _find(self, patch: str) -> Journal:
        """Find a journal by the patch's name or its source.

        Raises:
            InputError: there is none.
        """
        journals = [journal for path in self._journals() if (journal := self._read(path)) is not None]
        source = str(Path(patch).absolute())
        for journal in journals:
            if patch == journal.patch or source == journal.source:
                return journal
        have = ", ".join(journal.patch for journal in journals)
        hint = f"there is: {have}" if have else "no patch was applied to it"
        raise InputError(f"guest '{self._machine.name}' has no patch '{patch}'", hint=hint)

    def _warnings(self, journal: Journal, found: Recovery) -> tuple[str, ...]:
        said = []
        if found.state is PatchState.PARTIAL:
            said.append(_STATES[PatchState.PARTIAL])
        said += [f"others have written here: {write}" for write in found.unknown]
        if journal.stage is Stage.INTENDED and found.state is not PatchState.PARTIAL:
            said.append(f"a command that was to {journal.action} it was broken off; the patch is {found.state}")
        with self._machine.monitor() as monitor:
            if monitor.status() != "running":
                said.append(f"the guest is paused; let it go on with: surefoot vm resume {self._machine.name}")
        return tuple(said)

    def _is_free(self) -> bool:
        """Whether no command is patching the guest."""
        with (self._machine.folder / _LOCK).open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False
        return True


def open_backend(target: str, options: Options) -> StoppedBackend:
    """Open a guest to be patched by stopping it.

    Args:
        target: "guest:NAME", or "guest:" for the only one.
        options: what else the command line says.

    Raises:
        InputError: the target is no guest.
        Unavailable: it does not run.
    """
    return StoppedBackend(machines.find(guest_name(target)), options)


def _describe(path: Path) -> Patch:
    """Read a patch description.

    Raises:
        InputError: it is not usable, or asks for what this way does not do.
    """
    if ".ko" in path.suffixes:
        raise Unsupported(
            "a guest that is stopped is patched by a description (TOML), not by a livepatch module", file=str(path)
        )
    with _readable(path):
        text = path.read_text("utf-8")
    patch = parse_description(text, str(path))
    asks = [name for name, is_asked in (("states", bool(patch.states)), ("replace", patch.replace)) if is_asked]
    asks += ["callbacks"] if any(one.callbacks for one in patch.objects) else []
    if asks:
        raise Unsupported(f"a guest that is stopped knows no {' and no '.join(asks)}", file=str(path))
    return patch


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", file=str(path)) from error


def _as_revert(journal: Journal) -> Journal:
    from dataclasses import replace

    return replace(journal, action=Action.REVERT)


def _refused(patch: str, state: PatchState, message: str) -> Event:
    return Event(EventKind.FAILED, patch, state, 0.0, message=message)


def _cautions(patch: Patch, sites: list[Site]) -> list[str]:
    """Say what must not happen while the patch is in force: the guest's kernel does not know of it."""
    modules = sorted({function.module for _, function in patch.functions() if function.module})
    said = []
    if modules:
        said.append(f"the kernel does not know that it needs {', '.join(modules)}: do not unload while patched")
    whole = sorted(site.function for site in sites if site.kind is SiteKind.INDIRECT)
    if whole:
        said.append(f"ftrace's words are in use at {', '.join(whole)}: do not trace while patched")
    return said


def _write_safely(path: Path, text: str) -> None:
    """Have a text in a file that outlives a crash of this machine; the old one stays if that fails.

    Raises:
        TargetError: the disk is full, or not ours.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with os_errors(f"write the journal {path}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            partial.rename(path)
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    finally:
        partial.unlink(missing_ok=True)
