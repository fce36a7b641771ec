"""Layer 7: one look at a kernel with live patches: tasks, stacks, where each task stands, what the kernel searches.

Of a guest it is one instant: the guest stands still while it is read. Of the machine that this runs on it is not:
what has changed between two readings is marked as not settled, and nothing may be concluded from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Protocol

import numpy as np

from surefoot.dtypes import Mask
from surefoot.errors import SurefootError, Unavailable
from surefoot.targets.cache import TableCache
from surefoot.targets.capture import Capture
from surefoot.targets.dumpfile import CpuRegisters
from surefoot.targets.guestlive import open_guest, parse_monitor_registers
from surefoot.targets.klp_memory import KlpLayout, KlpMemory, klp_layout, patch_state, read_klp
from surefoot.targets.linux import LinuxTarget
from surefoot.targets.reading import u32_at
from surefoot.targets.tasks import list_tasks, online_cpus

if TYPE_CHECKING:
    from surefoot.targets.vm.machines import Machine
    from surefoot.targets.vm.qemu import Monitor

__all__ = ["GuestLooker", "LiveLooker", "Look", "Looker"]


@dataclass(frozen=True)
class Look:
    """What one look shows; t tasks, in the order of the capture.

    Attributes:
        capture: tasks, stacks and code.
        memory: the live patches.
        states: (t) 0 old code, 1 new code, None outside of transitions or where it is not known.
        settled: (t,) bool, the task did not move while it was looked at.
        paused_s: seconds for which the target stood still.
    """

    capture: Capture
    memory: KlpMemory
    states: tuple[int | None, ...]
    settled: Mask
    paused_s: float


class Looker(Protocol):
    """Something that can be looked at."""

    def look(self) -> Look:
        """Look at all tasks.

        Raises:
            TargetError: the target cannot be read.
        """
        ...


def _states(target: LinuxTarget, layout: KlpLayout, capture: Capture) -> tuple[int | None, ...]:
    """Give where each task of a capture stands, by pid; idle tasks by their CPU."""
    kernel = target.tables.layout
    cpus, _ = online_cpus(target.memory, kernel, target.bias)
    tasks, _ = list_tasks(target.memory, kernel, target.bias, cpus)
    found: dict[tuple[int, int], int | None] = {}
    for task in tasks:
        pid = u32_at(task.block, kernel["task.pid"])
        cpu = u32_at(task.block, kernel["task.cpu"]) if not pid else 0
        found[pid, cpu] = patch_state(task.block, layout)
    pids, on = capture.info.pid.tolist(), capture.info.cpu.tolist()
    return tuple(found.get((pid, cpu if not pid else 0)) for pid, cpu in zip(pids, on, strict=True))


class GuestLooker:
    """Looks at a guest of `surefoot vm`, which stands still meanwhile: some hundredths of a second.

    Args:
        machine: the guest.
        modules: more folders with files of modules.

    Raises:
        TargetError: the guest cannot be read.
        Unsupported: its kernel has no live patching.
    """

    def __init__(self, machine: Machine, modules: Sequence[Path] = ()) -> None:
        self._machine = machine
        self._monitor: Monitor | None = None
        self._target = open_guest(machine, modules=modules, registers=self._registers, cache=TableCache())
        self._target.load_debug_info()
        self._layout = klp_layout(self._target.prog)

    def _registers(self) -> Sequence[CpuRegisters]:
        """Ask the monitor that is held anyway while the guest stands still."""
        if self._monitor is None:
            raise Unavailable("the guest is not stopped")
        text = self._monitor.execute("human-monitor-command", {"command-line": "info registers -a"})
        return parse_monitor_registers(str(text))

    def look(self) -> Look:
        """Look at all tasks of the guest at one instant; see `Looker`."""
        begin = monotonic()
        with self._machine.stopped() as monitor:
            self._monitor = monitor
            try:
                # Modules come and go with the patches.
                self._target.refresh_code()
                capture = self._target.capture()
                memory = read_klp(self._target, self._layout)
                states = _states(self._target, self._layout, capture)
            finally:
                self._monitor = None
        paused = monotonic() - begin
        return Look(capture, memory, states, np.ones(len(capture), dtype=np.bool_), paused)


class LiveLooker:
    """Looks at the kernel that this program runs on, through /proc/kcore.

    Args:
        target: the live kernel.

    Raises:
        Unsupported: it has no live patching.
    """

    def __init__(self, target: LinuxTarget) -> None:
        self._target = target
        self._target.load_debug_info()
        self._layout = klp_layout(self._target.prog)

    def look(self) -> Look:
        """Look twice, and mark what is the same both times; see `Looker`.

        A task that is on no CPU both times and was not switched in between has stood still: its counts of context
        switches are the same, and so are its saved registers.
        """
        self._target.refresh_code()
        before = self._target.capture()
        memory = read_klp(self._target, self._layout)
        states = _states(self._target, self._layout, before)
        after: Capture | None = None
        with suppress(SurefootError):
            after = self._target.capture()
        return Look(before, memory, states, _settled(before, after), 0.0)


def _settled(before: Capture, after: Capture | None) -> Mask:
    """(t,) bool: the tasks of the first capture that are in the second one as they were."""
    settled = np.zeros(len(before), dtype=np.bool_)
    if after is None:
        return settled
    rows = {pid: row for row, pid in enumerate(after.info.pid.tolist()) if pid}
    for row, pid in enumerate(before.info.pid.tolist()):
        other = rows.get(pid, -1)
        settled[row] = other >= 0 and _state(before, row) == _state(after, other) and not before.info.on_cpu[row]
    return settled


def _state(capture: Capture, row: int) -> tuple[int, ...]:
    """What changes whenever a task runs."""
    info, tasks = capture.info, capture.tasks
    columns = (info.switches, info.on_cpu, tasks.pc, tasks.sp, tasks.fp)
    return tuple(int(column[row]) for column in columns)
