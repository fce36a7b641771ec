"""Layer 9: `surefoot patch` through Linux's own livepatch: load, watch, say who holds it up, reverse, unload.

The kernel keeps its own state: whatever happens to this program, a transition that is under way goes on, and ends
with every task on one side.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from surefoot.cli.patch_backend import LIVE, Options, guest_name
from surefoot.cli.patch_klp_follow import Clock, Follower, state_of
from surefoot.cli.patch_klp_judge import before_loading, judge
from surefoot.errors import InputError, SurefootError, TargetError
from surefoot.patch.events import Event, EventKind, FunctionState, PatchState, Status, TaskState
from surefoot.targets.klp import LIVEPATCH, Survey, SysfsPatch, parse_survey, split_source
from surefoot.targets.klp_ports import GuestPort, LocalPort, module_name

if TYPE_CHECKING:
    from surefoot.targets.klp import KlpPort
    from surefoot.targets.klp_look import Looker
    from surefoot.targets.linux import LinuxTarget

__all__ = ["KlpBackend", "open_backend"]

_UNLOAD_TRIES: Final = 20
_UNLOAD_PAUSE_S: Final = 0.25

_Events = Generator[Event, None, None]


class KlpBackend:
    """Patches one kernel by its own livepatch.

    Args:
        port: to the machine.
        looker: opens the view of its memory, for the folders with files of modules that are given.
        options: what else the command line says.
        vmlinux: the kernel image, None if it is not at hand.
        modules: folders with files of the kernel's modules.
        clock: time.
    """

    def __init__(
        self,
        port: KlpPort,
        looker: Callable[[Sequence[Path]], Looker],
        options: Options,
        *,
        vmlinux: Path | None = None,
        modules: Sequence[Path] = (),
        clock: Clock | None = None,
    ) -> None:
        self._port = port
        self._looker = looker
        self._options = options
        self._vmlinux = vmlinux
        self._modules = tuple(modules)
        self._clock = clock or Clock(time.monotonic, time.sleep)

    def _follower(self, name: str, folders: Sequence[Path] = ()) -> Follower:
        extra = [folder for folder in (self._options.modules, *folders) if folder is not None]
        return Follower(self._port, lambda: self._looker(extra), self._options, name, self._clock)

    def _survey(self) -> Survey:
        return parse_survey(self._port.survey_text())

    def apply(self, source: str, *, force: bool) -> Iterator[Event]:
        """Load a live patch and follow its transition; interrupted or out of time, it is reversed.

        Args:
            source: path of a module, or the name of one that lies ready; parameters may follow, NAME=VALUE.
            force: overrule those that hold it up, if the walker certifies that no stack needs the old code.

        Raises:
            InputError: the source is not a module.
            TargetError: the target cannot be used.
        """
        word, parameters = split_source(source)
        if word.endswith(".toml"):
            raise InputError(
                "Linux's own livepatch takes a module, not a description", file=word, hint="or use --way stopped"
            )
        name, path = module_name(word), Path(word)
        follower = self._follower(name, [path.parent] if path.is_file() else [])
        try:
            yield from self._apply(follower, word, parameters, force=force)
        except KeyboardInterrupt:
            yield self._interrupted(follower)
            raise
        except GeneratorExit:
            self._interrupted(follower)
            raise

    def _apply(self, follower: Follower, word: str, parameters: Sequence[str], *, force: bool) -> _Events:
        name = follower.name
        survey = self._survey()
        have = survey.patches.get(name)
        busy = survey.transition
        if busy is not None and busy != name:
            yield follower.event(EventKind.FAILED, state_of(have), message=f"the transition of {busy} is not over")
            return
        if have is None:
            for text in self._before(word):
                yield follower.event(EventKind.WARNING, PatchState.ABSENT, message=text)
            yield follower.event(EventKind.STARTED, PatchState.APPLYING, message=f"loading {name}")
            self._remove(name)  # a module whose patch was taken back before, and nobody unloaded it
            try:
                self._port.load_module(word, parameters)
            except TargetError as error:
                yield follower.event(EventKind.FAILED, self._state(name), message=f"{error}; nothing has changed")
                return
        elif have.transition and not have.enabled:
            self._port.write_text(f"{LIVEPATCH}/{name}/enabled", "1")
            yield follower.event(EventKind.REVERSED, PatchState.APPLYING, message="it was being taken back")
        elif have.transition:
            yield follower.event(EventKind.STARTED, PatchState.APPLYING, message="it was under way already")
        state = yield from follower.follow(force=force, last=False)
        if state is None:
            yield from self._give_up(follower)
        elif follower.is_gone:
            yield from self._unload(follower, EventKind.FAILED, "it was taken back meanwhile")
        else:
            yield follower.event(EventKind.COMPLETED, state)

    def _before(self, word: str) -> list[str]:
        """Give the warnings that a module's file is good for."""
        path = Path(word)
        folders = [folder for folder in (self._options.modules, *self._modules) if folder is not None]
        if path.is_file():
            return before_loading(path, self._vmlinux, [path.parent, *folders])
        wanted = module_name(word)
        for folder in folders:
            for file in folder.rglob("*.ko"):
                if module_name(file.name) == wanted:
                    return before_loading(file, self._vmlinux, folders)
        return []

    def _give_up(self, follower: Follower) -> _Events:
        """Reverse a transition that does not end in time."""
        self._port.write_text(f"{LIVEPATCH}/{follower.name}/enabled", "0")
        yield follower.event(EventKind.REVERSED, PatchState.REVERTING, message="it does not end in time")
        follower.restart()
        yield from follower.follow(force=False, last=False)
        if follower.is_gone:
            yield from self._unload(follower, EventKind.FAILED, "it did not end in time and is taken back")
        else:
            text = "it did not end in time; the kernel is still taking it back, and will finish that by itself"
            yield follower.event(EventKind.FAILED, PatchState.REVERTING, message=text)

    def _interrupted(self, follower: Follower) -> Event:
        """Leave a consistent kernel behind an interrupted apply: wholly patched, or on its way back."""
        name = follower.name
        patch = self._survey().patches.get(name)
        state = state_of(patch)
        if state is PatchState.APPLYING:
            self._port.write_text(f"{LIVEPATCH}/{name}/enabled", "0")
            state = PatchState.REVERTING
        words = {
            PatchState.ABSENT: "nothing of it is in force",
            PatchState.APPLIED: "it is wholly in force",
            PatchState.REVERTING: "it is reversed; the kernel takes it back by itself, "
            f"and `surefoot patch revert {name}` waits for that and unloads it",
        }
        return follower.event(EventKind.FAILED, state, message=f"interrupted: {words.get(state, state)}")

    def revert(self, patch: str, *, force: bool) -> Iterator[Event]:
        """Take a live patch back and unload it; in mid-transition that reverses it.

        Args:
            patch: its name, or what `apply` was given.
            force: as for `apply`, for the new code.
        """
        word = split_source(patch)[0]
        path = Path(word)
        follower = self._follower(module_name(word), [path.parent] if path.is_file() else [])
        try:
            yield from self._revert(follower, force=force)
        except KeyboardInterrupt:
            state = self._state(follower.name)
            words = "nothing of it is in force" if state is PatchState.ABSENT else "it is still wholly in force"
            if state is PatchState.REVERTING:
                words = "the kernel goes on to take it back by itself; the same command waits for that and unloads it"
            yield follower.event(EventKind.FAILED, state, message=f"interrupted: {words}")
            raise

    def _revert(self, follower: Follower, *, force: bool) -> _Events:
        name = follower.name
        survey = self._survey()
        have = survey.patches.get(name)
        if have is None:
            yield from self._unload(follower, EventKind.COMPLETED, "it was not in force")
            return
        if survey.transition not in {None, name}:
            busy = survey.transition
            yield follower.event(EventKind.FAILED, state_of(have), message=f"the transition of {busy} is not over")
            return
        kind = EventKind.STARTED
        if have.enabled:
            # What is left behind can be told only while the patch is there.
            yield from follower.remember(PatchState.APPLIED)
            self._port.write_text(f"{LIVEPATCH}/{name}/enabled", "0")
            kind = EventKind.REVERSED if have.transition else EventKind.STARTED
        yield follower.event(kind, PatchState.REVERTING, message="taking it back")
        yield from follower.follow(force=force, last=False)
        if follower.is_gone:
            yield from self._unload(follower, EventKind.COMPLETED, "")
        else:
            text = "it does not end in time; the kernel goes on to take it back by itself"
            yield follower.event(EventKind.FAILED, self._state(name), message=text)

    def _unload(self, follower: Follower, kind: EventKind, text: str) -> _Events:
        """Unload the module of a patch that is out of force, unless a task is still in its code."""
        name, state = follower.name, PatchState.ABSENT
        if follower.stranded:
            names = ", ".join(f"{task.comm} ({task.pid})" for task in follower.stranded)
            said = f"its module stays loaded, because {names} is still in its code"
        else:
            said = self._remove(name)
        message = "; ".join(part for part in (text, said) if part)
        yield follower.event(kind, state, message=message)

    def _remove(self, name: str) -> str:
        """Unload a module; gives what was to say of it."""
        if not self._port.list_dir(f"/sys/module/{name}"):
            return ""
        problem = ""
        for _ in range(_UNLOAD_TRIES):  # the kernel lets go of it some time after the patch has gone from sysfs
            try:
                self._port.unload_module(name)
            except TargetError as error:
                problem = str(error)
                self._clock.sleep(_UNLOAD_PAUSE_S)
            else:
                return "its module is unloaded"
        return f"its module stays loaded: {problem}"

    def _state(self, name: str) -> PatchState:
        return state_of(self._survey().patches.get(name))

    def status(self) -> list[Status]:
        """Say how each live patch of the kernel stands, and who holds the one in transition up."""
        survey = self._survey()
        if not survey.patches:
            return []
        try:
            judged = judge(self._looker([folder for folder in (self._options.modules,) if folder]).look())
        except SurefootError as error:
            text = f"the stacks cannot be looked at: {error}"
            return [
                Status(name, state_of(patch), functions=_functions(patch), warnings=(text,))
                for name, patch in survey.patches.items()
            ]
        found = []
        for patch in judged.kernel.patches:
            warnings = judged.end_warnings(patch.name)
            if patch.forced:
                warnings.append("a transition of it was forced: its module can never be unloaded")
            tasks: tuple[TaskState, ...] = ()
            if patch.name == judged.kernel.transition:
                diagnosis = judged.diagnosis()
                tasks, warnings = diagnosis.tasks, [*warnings, *diagnosis.warnings]
            functions = judged.kernel.functions(patch.name)
            found.append(Status(patch.name, judged.kernel.state(patch.name), tasks, functions, tuple(warnings)))
        return found

    def watch(self, patch: str | None) -> Iterator[Event]:
        """Follow the transition that is under way, if it is of this patch; changes nothing."""
        wanted = None if patch is None else module_name(split_source(patch)[0])
        seen: set[str] = set()
        while True:
            busy = self._survey().transition
            if busy is None or (wanted is not None and busy != wanted):
                break
            seen.add(busy)
            follower = self._follower(busy)
            yield from follower.follow(force=False)
            if not follower.is_over:
                return
        for name, found in self._survey().patches.items():
            if name not in seen and wanted in {None, name}:
                yield self._follower(name).event(EventKind.COMPLETED, state_of(found), message="nothing is under way")


def _functions(patch: SysfsPatch) -> tuple[FunctionState, ...]:
    """Give the functions of a patch as far as sysfs tells them."""
    return tuple(
        FunctionState(name, part.name, 0, 0, bool(part.patched))
        for part in patch.objects
        for name, _ in part.functions
    )


def open_backend(target: str, options: Options) -> KlpBackend:
    """Open a guest, or the machine that this runs on, for patching by Linux's own livepatch.

    Args:
        target: "guest:NAME" or "live".
        options: what else the command line says.

    Raises:
        TargetError: the target cannot be used.
    """
    if target == LIVE:
        return _open_live(options)
    from surefoot.targets.klp_look import GuestLooker
    from surefoot.targets.vm import machines

    machine = machines.find(guest_name(target))
    return KlpBackend(
        GuestPort(machine.console),
        lambda folders: GuestLooker(machine, folders),
        options,
        vmlinux=machine.kernel.vmlinux,
        modules=[machine.kernel.debug_modules],
    )


def _open_live(options: Options) -> KlpBackend:
    """Open the machine that this runs on.

    Raises:
        Unavailable: its kernel has no live patching.
    """
    from surefoot.targets.klp_live import find_vmlinux, open_live

    port = LocalPort()
    vmlinux = options.vmlinux or find_vmlinux(port)

    def looker(folders: Sequence[Path]) -> Looker:
        from surefoot.targets.klp_look import LiveLooker

        target: LinuxTarget = open_live(vmlinux, folders)
        return LiveLooker(target)

    return KlpBackend(port, looker, options, vmlinux=vmlinux)
