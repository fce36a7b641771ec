"""Layer 7: catch the function-graph hole of Linux 7.3's reliable stack walk in a guest.

``return_to_handler`` calls ``ftrace_return_to_handler`` without a frame record of its own. That function ends
with preempt_enable_notrace(), which on a preemptible kernel may switch to another task there and then. Such a
task has the address after the call inside ``return_to_handler`` on its stack and no exception boundary above
it: a walk by frame records reaches the final record, so arch_stack_walk_reliable() succeeds, but the caller of
the traced function is missing (arch/arm64/kernel/entry-ftrace.S, kernel/trace/fgraph.c).

Load plus the function-graph tracer bring that about by themselves: dumps are taken until one shows it.
"""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from surefoot.errors import TargetError
from surefoot.targets.vm.folders import Report, silent

if TYPE_CHECKING:
    from drgn import Object, Program

    from surefoot.targets.vm.machines import Dump, Machine

__all__ = ["Catch", "Hole", "catch", "holes_in", "open_dump"]

_MAX_FRAMES = 100
_VA_TOP = 0xFFFF_0000_0000_0000
_META_BYTES = 24


@dataclass(frozen=True)
class Hole:
    """A task that a walk by frame records gets wrong without noticing.

    Attributes:
        pid: of the task.
        comm: its name.
        record_addr: address of the frame record whose return address lies inside return_to_handler.
        depth: number of return addresses before that one, the saved pc included.
    """

    pid: int
    comm: str
    record_addr: int
    depth: int


@dataclass(frozen=True)
class Catch:
    """A dump with at least one hole.

    Attributes:
        dump: the dump that was kept.
        holes: tasks in it.
        tries: dumps that were taken.
    """

    dump: Dump
    holes: list[Hole]
    tries: int


def open_dump(vmcore: Path, vmlinux: Path) -> Program:
    """Open a dump with drgn and the kernel's debug information (not the modules').

    Raises:
        TargetError: drgn cannot.
    """
    import drgn

    program = drgn.Program()
    try:
        program.set_core_dump(vmcore)
        program.load_debug_info([vmlinux])
    except (OSError, ValueError, LookupError, drgn.MissingDebugInfoError) as error:
        raise TargetError(f"{vmcore} cannot be opened: {error}") from error
    return program


def holes_in(program: Program) -> list[Hole]:
    """Give the tasks of a dump that are caught in the hole.

    A task counts if it is on no CPU, its chain of frame records ends in a final record, no exception boundary
    lies on it, and one return address is strictly inside return_to_handler.
    """
    from drgn.helpers.linux.pid import for_each_task

    symbol = program.symbol("return_to_handler")
    inside = range(symbol.address + 4, symbol.address + symbol.size)
    found = []
    for task in for_each_task(program):
        if task.on_cpu:
            continue
        hole = _walk(program, task, inside)
        if hole is not None:
            found.append(hole)
    return found


def _walk(program: Program, task: Object, inside: range) -> Hole | None:
    """Follow the frame records of one blocked task, as the kernel's own walk does."""
    import drgn

    if not task.stack_vm_area:
        return None  # the boot CPU's idle task: its stack is part of the image, and it is not preempted
    low = task.stack.value_()
    high = low + task.stack_vm_area.size.value_()
    record_addr = task.thread.cpu_context.fp.value_()
    caught: tuple[int, int] | None = None
    for depth in range(1, _MAX_FRAMES):
        if record_addr % 8 or not low <= record_addr <= high - _META_BYTES:
            return None
        try:
            fp, lr, kind = struct.unpack("<QQQ", program.read(record_addr, _META_BYTES))
        except drgn.FaultError:
            return None
        if not fp and not lr:
            final = kind == 1 and caught is not None
            return Hole(task.pid.value_(), task.comm.string_().decode(), *caught) if final and caught else None
        if (lr | _VA_TOP) in inside:
            caught = caught or (record_addr, depth)
        low, record_addr = record_addr + 16, fp
    return None


def catch(
    machine: Machine,
    path: Path,
    *,
    tries: int = 60,
    pause_s: float = 0.2,
    walkers: int = 16,
    stacks: bool = False,
    report: Report = silent,
) -> Catch:
    """Turn on the function-graph tracer and take dumps until one shows the hole; that one is kept.

    Tracing stays on. The guest has to run with its load, on a preemptible kernel.

    Args:
        machine: a running guest.
        path: the vmcore; what stood there is replaced.
        tries: dumps to take at most.
        pause_s: seconds between two dumps.
        walkers: tasks that walk file systems on top of the load, meanwhile; the more are waiting for a CPU in
            the kernel, the likelier one of them waits in the hole.
        stacks: take the kernel's own traces before each dump.
        report: told about each step.

    Raises:
        TargetError: no dump showed it; nothing is left at ``path``.
    """
    report("turning on the function-graph tracer")
    machine.trace_on()
    machine.console.check(f"sh /surefoot/walkers.sh start {walkers}")
    try:
        for number in range(1, tries + 1):
            time.sleep(pause_s)
            report(f"dump {number} of at most {tries}")
            dump = machine.dump(path, stacks=stacks)
            holes = holes_in(open_dump(path, machine.kernel.vmlinux))
            if holes:
                return Catch(dump, holes, number)
    finally:
        machine.console.check("sh /surefoot/walkers.sh stop")
    path.unlink(missing_ok=True)
    raise TargetError(
        f"none of {tries} dumps shows a task preempted in ftrace_return_to_handler",
        hint="boot the guest with its load, and two CPUs or fewer",
    )
