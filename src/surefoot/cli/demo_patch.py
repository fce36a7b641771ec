"""Layer 9: the last part of `surefoot demo`: a system call with a hole is patched under load, and taken back.

Invariant: everything that is printed is counted in instructions, so that the same seed prints the same text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from surefoot.cli.patch_emulated import EmulatedTarget
from surefoot.cli.patch_machine import PATCHES
from surefoot.machine.board import Board
from surefoot.machine.loader import KernelFile
from surefoot.machine.patching import Patching
from surefoot.machine.target import Machine
from surefoot.patch.description import parse_description
from surefoot.patch.engine import Engine, Settings
from surefoot.patch.events import Event, EventKind, Hold, TaskState
from surefoot.patch.stack import Side

if TYPE_CHECKING:
    from surefoot.report.style import Style

__all__ = ["patch_show"]

_PATCH: Final = parse_description(PATCHES["vault"])
_OLD: Final = "vault_read"
_SETTLE: Final = 60_000
_WATCHED: Final = 250_000
"""Instructions in which secrets are counted."""
_PACE: Final = 2_500
_PATIENCE: Final = 3
"""Passes in which tasks may go over by themselves, before their stacks are looked at."""
_STEP: Final = 250
_TRIES: Final = 400
_COMM: Final = 10


class _Told(EmulatedTarget):
    """Remembers whom the engine took over: the others went by themselves."""

    def __init__(self, patching: Patching) -> None:
        super().__init__(patching, pace=_PACE)
        self.taken: set[int] = set()

    def set_side(self, keys: Sequence[int], side: Side) -> None:
        """Set the side of some tasks."""
        if self.patching.goal == int(side):
            self.taken |= set(keys)
        super().set_side(keys, side)


def patch_show(kernel: KernelFile, seed: int, style: Style) -> Iterator[str]:
    """Give the text of the part, line by line.

    Args:
        kernel: what runs.
        seed: of the machine's run.
        style: how to print.
    """
    board = Board(kernel, seed=seed)
    machine = Machine(board)
    machine.control("light", 1)
    board.run(_SETTLE)
    target = _Told(Patching(machine))
    engine = Engine(target, lambda: float(board.count), Settings(timeout_s=None))
    yield _leaks(machine, f"{_OLD}() holds no index against the size of its table", style)
    caught = _until_caught(target.patching)
    yield f"\n  apply{', with ' + caught + ' in the middle of ' + _OLD + '()' if caught else ''}\n"
    yield from _transition(engine.apply(_PATCH), target, style)
    yield _leaks(machine, f"{_OLD}_new() is in force", style)
    yield "\n  revert\n"
    yield from _transition(engine.revert(_PATCH.name), target, style)
    yield _leaks(machine, f"{_OLD}() is back", style)


def _leaks(machine: Machine, what: str, style: Style) -> str:
    """Let the load run, and say how many secrets it was given."""
    before = machine.control("leaks")
    machine.board.run(_WATCHED)
    found = machine.control("leaks") - before
    color = style.bad if found else style.good
    return f"  {what}: {color}{found} secrets given away{style.off} in {_WATCHED:,} instructions\n"


def _until_caught(patching: Patching) -> str:
    """Run until a task is in the old function, so that it has to leave first; gives pid and name."""
    low, high = patching.machine.kernel.span(_OLD)
    for _ in range(_TRIES):
        tasks = patching.tasks()
        traces = patching.walk([task.key for task in tasks])
        inside = np.flatnonzero((traces.pc > low) & (traces.pc < high))
        if inside.size:
            task = tasks[int(np.searchsorted(traces.first, inside[0], side="right")) - 1]
            return f"{task.key} {task.comm}"
        patching.run(_STEP)
    return ""


def _transition(events: Iterator[Event], target: _Told, style: Style) -> Iterator[str]:
    """Print who goes over when and how, and what held them up before."""
    target.taken, target.patience = set(), _PATIENCE
    known = {task.key for task in target.patching.tasks()}
    held: dict[int, str] = {}
    for event in events:
        if event.kind is EventKind.BLOCKED:
            held |= {task.pid: task.reason for task in event.tasks if task.hold is not Hold.UNKNOWN}
        elif event.kind is EventKind.CROSSED:
            yield from (_crossed(event, task, _how(task, known, target.taken), held, style) for task in event.tasks)
        elif event.kind is EventKind.COMPLETED:
            yield f"    {style.good}✔ every task has gone over{style.off} after {event.elapsed_s:,.0f} instructions\n"


def _how(task: TaskState, known: set[int], taken: set[int]) -> str:
    """Say what brought a task over."""
    if task.pid not in known:
        return "born over"
    if task.pid in taken:
        return "its stack is clear"
    return "idle" if task.pid == 0 else "left the kernel"


def _crossed(event: Event, task: TaskState, how: str, held: dict[int, str], style: Style) -> str:
    """Give the line of a task that has gone over."""
    was = f"  {style.mark}before: {held[task.pid]}{style.off}" if task.pid in held else ""
    return f"    {event.elapsed_s:>7,.0f}  {task.pid:>3} {task.comm:<{_COMM}}  {how:<18}{was}".rstrip() + "\n"
