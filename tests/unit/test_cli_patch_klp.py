"""The way through Linux's own livepatch on a kernel that a dictionary plays: events, time limits, interruptions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from surefoot.cli.patch_backend import Options
from surefoot.cli.patch_klp import KlpBackend
from surefoot.cli.patch_klp_follow import Clock
from surefoot.errors import InputError, TargetError, Unavailable
from surefoot.patch.events import Event, EventKind, PatchState
from surefoot.targets.klp import LIVEPATCH
from surefoot.targets.klp_look import Looker


class FakeKernel:
    """A `KlpPort`: a patch whose transition needs `looks` looks, or for ever; going back needs `back` looks."""

    def __init__(self, looks: int | None = 2, back: int | None = 1, *, refuses: bool = False) -> None:
        self.enabled: bool | None = None
        self.busy: int | None = 0
        self.looks, self.back, self.refuses = looks, back, refuses
        self.loaded = False
        self.log: list[str] = []
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def read_text(self, path: str) -> str | None:
        return "" if path == "/" else None

    def list_dir(self, path: str) -> list[str]:
        return ["refcnt"] if path == "/sys/module/fix" and self.loaded else []

    def write_text(self, path: str, text: str) -> None:
        self.log.append(f"{path.removeprefix(LIVEPATCH)}={text}")
        self.enabled, self.busy = text == "1", self.looks if text == "1" else self.back

    def load_module(self, source: str, parameters: Iterable[str] = ()) -> str:
        self.log.append(" ".join(["load", source, *parameters]))
        if self.refuses:
            raise TargetError("Device or resource busy")
        self.loaded, self.enabled, self.busy = True, True, self.looks
        return "fix"

    def unload_module(self, name: str) -> None:
        self.log.append(f"unload {name}")
        self.loaded = False

    def survey_text(self) -> str:
        if self.enabled is None:
            return ""
        moving = self.busy is None or self.busy > 0
        if self.busy:
            self.busy -= 1
        if not moving and not self.enabled:
            self.enabled = None
            return ""
        side = int(self.enabled)
        tasks = f"1/task/1/patch_state:{side}\n5/task/5/patch_state:{1 - side if moving else side}\n"
        return f"./fix\n./fix/enabled:{side}\n./fix/transition:{int(moving)}\n" + (tasks if moving else "")


def blind(_folders: Sequence[Path]) -> Looker:
    raise Unavailable("no memory to look at")


def backend(kernel: FakeKernel, timeout: float | None = 5.0) -> KlpBackend:
    options = Options(timeout_s=timeout, interval_s=0.1)
    return KlpBackend(kernel, blind, options, clock=Clock(lambda: kernel.now, kernel.sleep))


def kinds(events: Iterable[Event]) -> list[EventKind]:
    return [event.kind for event in events if event.kind is not EventKind.WARNING]


def test_apply_and_revert() -> None:
    kernel = FakeKernel()
    way = backend(kernel)
    events = list(way.apply("fix", force=False))
    assert kinds(events) == [EventKind.STARTED, EventKind.CROSSED, EventKind.COMPLETED]
    assert (events[-1].state, events[-1].left) == (PatchState.APPLIED, 0)
    [status] = way.status()
    assert (status.patch, status.state) == ("fix", PatchState.APPLIED)
    events = list(way.revert("fix.ko", force=False))
    assert (events[-1].kind, events[-1].state) == (EventKind.COMPLETED, PatchState.ABSENT)
    assert kernel.log == ["load fix", "/fix/enabled=0", "unload fix"]
    assert way.status() == []


def test_that_nobody_can_look_is_said_once() -> None:
    kernel = FakeKernel(looks=50)
    events = list(backend(kernel, None).apply("fix", force=False))
    assert len([event for event in events if "cannot be looked at" in event.message]) == 1


def test_out_of_time_it_is_reversed_and_unloaded() -> None:
    kernel = FakeKernel(looks=None)
    events = list(backend(kernel).apply("fix", force=False))
    assert kinds(events)[-2:] == [EventKind.CROSSED, EventKind.FAILED]
    assert EventKind.REVERSED in kinds(events)
    assert (events[-1].state, kernel.loaded) == (PatchState.ABSENT, False)
    assert events[-1].elapsed_s >= 5.0


def test_what_does_not_go_back_is_left_to_the_kernel() -> None:
    kernel = FakeKernel(looks=None, back=None)
    events = list(backend(kernel).apply("fix", force=False))
    assert (events[-1].kind, events[-1].state) == (EventKind.FAILED, PatchState.REVERTING)
    assert kernel.loaded
    assert "by itself" in events[-1].message


def test_a_refusal_changes_nothing() -> None:
    kernel = FakeKernel(refuses=True)
    events = list(backend(kernel).apply("fix", force=False))
    assert (events[-1].kind, events[-1].state) == (EventKind.FAILED, PatchState.ABSENT)
    assert "busy" in events[-1].message


def test_an_interrupted_apply_is_reversed() -> None:
    kernel = FakeKernel(looks=None)
    events = backend(kernel).apply("fix", force=False)
    assert next(events).kind is EventKind.STARTED
    assert next(events).kind is EventKind.CROSSED
    last = events.throw(KeyboardInterrupt())  # type: ignore[attr-defined]
    assert (last.kind, last.state) == (EventKind.FAILED, PatchState.REVERTING)
    assert kernel.log[-1] == "/fix/enabled=0"
    with pytest.raises(KeyboardInterrupt):
        next(events)


def test_an_apply_that_nobody_listens_to_is_reversed() -> None:
    kernel = FakeKernel(looks=None)
    events = backend(kernel).apply("fix", force=False)
    assert [next(events).kind, next(events).kind] == [EventKind.STARTED, EventKind.CROSSED]
    events.close()  # type: ignore[attr-defined]
    assert kernel.log[-1] == "/fix/enabled=0"


def test_an_interrupted_revert_goes_on_in_the_kernel() -> None:
    kernel = FakeKernel(back=None)
    way = backend(kernel)
    list(way.apply("fix", force=False))
    events = way.revert("fix", force=False)
    while next(events).kind is not EventKind.CROSSED:
        pass
    last = events.throw(KeyboardInterrupt())  # type: ignore[attr-defined]
    assert (last.kind, last.state) == (EventKind.FAILED, PatchState.REVERTING)
    assert kernel.loaded


def test_a_description_is_not_for_the_kernel() -> None:
    with pytest.raises(InputError, match="takes a module"):
        next(iter(backend(FakeKernel()).apply("fix.toml", force=False)))


def test_watch_changes_nothing() -> None:
    kernel = FakeKernel(looks=3)
    kernel.load_module("fix")
    events = list(backend(kernel).watch(None))
    assert kinds(events) == [EventKind.CROSSED, EventKind.COMPLETED]
    assert kernel.log == ["load fix"]
