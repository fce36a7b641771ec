"""Layer 7: live patching on the machine: its handler's table, its tasks' sides, its patch sites, and their stacks.

What a kernel module does on Linux is done from outside here, while the CPU stands still between two instructions.
Nothing in here decides when a task may go over: that is the engine's business (`surefoot.patch.engine`), which the
command line joins with this.

Invariant: sites are written all or none, and only over words that a patch site can hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from surefoot.errors import PatchError, SiteMismatch, TargetError
from surefoot.machine.board import MachineFault, Stop
from surefoot.machine.target import Instant, Machine
from surefoot.unwind.code import CodeMap
from surefoot.unwind.trace import Traces
from surefoot.unwind.walker import walk

__all__ = ["PatchTask", "Patching"]

_MOV_X9_X30: Final = 0xAA1E_03E9
_NOP: Final = 0xD503_201F
_IDLE: Final = -1
_PATCHED: Final = 1
_FOR_ALL: Final = 3
_STEP: Final = 16
_PATIENCE: Final = 400_000
"""Instructions after which a barrier gives up; sections without preemption take hundreds."""
_CROSSING: Final = ("do_idle", "cpu_startup_entry", "rest_init", "start_kernel")
"""Functions on the stack where an idle task goes over: none of them may be patched."""


@dataclass(frozen=True, slots=True)
class PatchTask:
    """A task as live patching sees it.

    Attributes:
        key: tells it from all others, also from later ones: its pid, which is never used again.
        comm: its name.
        side: its patch state: -1, 0 or 1.
        pending: it goes over when it leaves the kernel.
        idle: it is the idle task.
        addr: of its task_struct.
    """

    key: int
    comm: str
    side: int
    pending: bool
    idle: bool
    addr: int


class Patching:
    """Live patching on one machine.

    Attributes:
        machine: which.
        code: its code as of the last walk.
    """

    def __init__(self, machine: Machine) -> None:
        """Take a machine; patches in force there are found in its memory.

        Args:
            machine: that has booted.
        """
        self.machine = machine
        self._board, self._kernel = machine.board, machine.kernel
        kernel = self._kernel
        self._table = kernel.symbol("klp_funcs")
        self._row, self._rows = kernel["klp_func_size"], kernel["klp_funcs"]
        self._pending = 1 << kernel["tif_patch_pending"]
        self._caller = kernel.symbol("ftrace_caller")
        plain = {kernel.symbol("ftrace_nop_ops"): kernel.symbol("klp_ops")}
        self._to_klp = plain | {kernel.symbol("graph_ops"): kernel.symbol("klp_graph_ops")}
        self._from_klp = {klp: other for other, klp in self._to_klp.items()}
        self._sites = frozenset(kernel.sites.tolist())
        self._text = b""
        self.code: CodeMap = machine.code()

    # --- tasks ---

    def tasks(self) -> list[PatchTask]:
        """Give all tasks, the idle one first."""
        kernel, idle = self._kernel, self._kernel.symbol("init_task")
        at = kernel["task_comm"]
        return [
            PatchTask(
                key=task.half(kernel["task_pid"]),
                comm=task.block[at : at + 16].split(b"\0")[0].decode("ascii", "backslashreplace"),
                side=task.half(kernel["task_patch_state"]),
                pending=bool(task.word(kernel["task_flags"]) & self._pending),
                idle=task.addr == idle,
                addr=task.addr,
            )
            for task in self.machine.read_tasks()
        ]

    def _of(self, keys: Sequence[int]) -> list[PatchTask]:
        wanted = set(keys)
        return [task for task in self.tasks() if task.key in wanted]

    def set_side(self, keys: Sequence[int], side: int) -> None:
        """Set the side of some tasks; those that have ended since are passed over."""
        for task in self._of(keys):
            at = task.addr + self._kernel["task_patch_state"]
            self._board.write(at, side.to_bytes(4, "little", signed=True))

    def set_pending(self, keys: Sequence[int], *, pending: bool) -> None:
        """Set or clear the flag that takes tasks over at the kernel's exit and in the idle loop.

        The running task may be about to write its flags: then this is lost, and has to be done again.
        """
        for task in self._of(keys):
            at = task.addr + self._kernel["task_flags"]
            flags = self._board.read_u64(at)
            self._board.write_u64(at, flags | self._pending if pending else flags & ~self._pending)

    def set_goal(self, side: int) -> None:
        """Say which side tasks with the flag take: 0 or 1, or -1 for the end of the transition."""
        if side != _IDLE:
            self.machine.control("patch", side)
        self.machine.control("transition", int(side != _IDLE))

    @property
    def goal(self) -> int:
        """The side that tasks with the flag take, -1 outside of a transition."""
        return self.machine.control("patch") if self.machine.control("transition") else _IDLE

    # --- running ---

    def run(self, insns: int) -> bool:
        """Run for so many instructions; False if the machine has ended."""
        return self._board.run(insns) is not Stop.EXIT

    @property
    def quiet(self) -> bool:
        """No task is in the handler, takes a side by its flag, makes another task or rewrites sites.

        The kernel does each of these with preemption off, so that only the running task can be in one. This is what
        klp_synchronize_transition() waits for.
        """
        running = self.machine.running()
        return not self._board.read_u64(running + self._kernel["task_preempt_count"])

    def barrier(self) -> None:
        """Run until `quiet`.

        Raises:
            TargetError: the machine ended, or the running task never became preemptible.
        """
        end = self._board.count + _PATIENCE
        while not self.quiet:
            if self._board.run(_STEP) is Stop.EXIT or self._board.count > end:
                raise TargetError("the emulated machine did not come out of a section without preemption")

    # --- stacks ---

    def walk(self, keys: Sequence[int]) -> Traces:
        """Walk the stacks of some tasks at this instant, in the order of the keys.

        Raises:
            TargetError: there is no such task.
        """
        instant = self._instant()
        row = {key: i for i, key in enumerate(instant.info.pid.tolist())}
        missing = [key for key in keys if key not in row]
        if missing:
            raise TargetError(f"the emulated machine has no task {missing[0]}")
        tasks = instant.tasks.take(np.array([row[key] for key in keys], dtype=np.int64))
        return walk(instant.code, instant.stacks, tasks, instant.layout)

    def _instant(self) -> Instant:
        """Copy what a walk needs; the code only if its words or redirections have changed."""
        live = self.machine.live_text()
        text = b"".join([words.tobytes() for _, words in live])
        text += self._board.read(self._table, self._row * self._rows)
        if text != self._text:
            self.code, self._text = self.machine.code(), text
        return self.machine.instant(self.code)

    def choosing(self) -> list[tuple[int, int, str]]:
        """Give the code (start, end, name) in which a task may have chosen already: of the tracer and the handler."""
        names = ("ftrace_caller", "klp_ftrace_handler", "both_func")
        return [(*self._kernel.span(name), name) for name in names]

    # --- functions and sites ---

    def find(self, name: str, position: int = 0) -> int:
        """Give the address of a function.

        Args:
            name: its symbol.
            position: 0: there must be only one; n: the nth in address order.

        Raises:
            PatchError: there is none, or not exactly one.
        """
        names, starts = self._kernel.functions.names, self._kernel.functions.start
        found = sorted(int(starts[i]) for i, each in enumerate(names) if each == name)
        if not found:
            raise PatchError(f"the emulated machine's kernel has no function {name}")
        if position == 0 and len(found) > 1:
            raise PatchError(f"the emulated machine's kernel has {len(found)} functions {name}")
        if position > len(found):
            raise PatchError(f"the emulated machine's kernel has no function {name} at position {position}")
        return found[max(position - 1, 0)]

    def check_site(self, name: str, position: int = 0) -> int:
        """Give the address of a function that can be patched.

        Raises:
            PatchError: there is none.
            SiteMismatch: it has no patch site, or tasks go over inside it.
        """
        addr = self.find(name, position)
        if addr not in self._sites:
            raise SiteMismatch(f"{name} has no patch site: it was compiled without one")
        if name in _CROSSING:
            raise SiteMismatch(f"{name} cannot be patched: the idle task goes over inside it")
        return addr

    def table(self) -> list[tuple[int, int, int]]:
        """Read the handler's table: (function, entry for tasks that have not gone over, for those that have)."""
        found: dict[int, list[int]] = {}
        for old, new, mode in self._read_rows():
            if old:
                entries = found.setdefault(old, [old, old])
                for side in (0, 1):
                    if mode >> side & 1:
                        entries[side] = new
        return [(old, entries[0], entries[1]) for old, entries in sorted(found.items())]

    def redirect(self, table: Sequence[tuple[int, int, int]]) -> None:
        """Make this the whole table of the handler, and its functions those whose sites call it.

        Runs the machine first if a task is in the handler, which would see half of each table.

        Args:
            table: (function, entry for tasks that have not gone over, entry for those that have).

        Raises:
            PatchError: there are too many functions, or a site holds something else, or a write failed; nothing has
                changed.
            TargetError: see `barrier`.
        """
        rows = [row for function in table for row in _modes(*function)]
        if len(rows) > self._rows:
            raise PatchError(f"the emulated machine's handler takes {self._rows} redirections, not {len(rows)}")
        self.barrier()
        before, after = {row[0] for row in self._read_rows() if row[0]}, {row[0] for row in table}
        writes = [write for site in sorted(after - before) for write in self._take(site)]
        writes += [write for site in sorted(before - after) for write in self._give_back(site)]
        writes.append((self._table, self._pack(rows)))
        self._write_all(writes)

    def _read_rows(self) -> list[list[int]]:
        kernel = self._kernel
        block = np.frombuffer(self._board.read(self._table, self._row * self._rows), dtype="<u8")
        words = block.reshape(self._rows, -1)
        at = [kernel[f"klp_func_{name}"] >> 3 for name in ("old", "new", "mode")]
        return [[int(row[i]) for i in at] for row in words]

    def _pack(self, rows: list[tuple[int, int, int]]) -> bytes:
        kernel = self._kernel
        words = np.zeros((self._rows, self._row >> 3), dtype="<u8")
        for i, row in enumerate(rows):
            for name, value in zip(("old", "new", "mode"), row, strict=True):
                words[i, kernel[f"klp_func_{name}"] >> 3] = value
        return words.tobytes()

    def _site(self, site: int) -> tuple[int, int, int]:
        """Read a site: the ftrace_ops that its literal names, and its two words."""
        word = int.from_bytes(self._board.read(site, 8), "little")
        return self._board.read_u64(site - 8), word & 0xFFFF_FFFF, word >> 32

    def _take(self, site: int) -> list[tuple[int, bytes]]:
        """Give the writes that make a site call the handler; a tracer that is on stays on."""
        ops, first, second = self._site(site)
        plain = second == _NOP and ops == self._kernel.symbol("ftrace_nop_ops")
        traced = second == self._call(site) and ops == self._kernel.symbol("graph_ops")
        if site not in self._sites or first != _MOV_X9_X30 or not (plain or traced):
            raise SiteMismatch(f"the patch site at {site:#x} holds {first:08x} {second:08x}, for ops {ops:#x}")
        return [
            (site - 8, self._to_klp[ops].to_bytes(8, "little")),
            (site + 4, self._call(site).to_bytes(4, "little")),
        ]

    def _give_back(self, site: int) -> list[tuple[int, bytes]]:
        """Give the writes that take the handler off a site."""
        ops, first, second = self._site(site)
        if first != _MOV_X9_X30 or second != self._call(site) or ops not in self._from_klp:
            raise SiteMismatch(f"the patch site at {site:#x} holds {first:08x} {second:08x}, for ops {ops:#x}")
        other = self._from_klp[ops]
        word = _NOP if other == self._kernel.symbol("ftrace_nop_ops") else second
        return [(site - 8, other.to_bytes(8, "little")), (site + 4, word.to_bytes(4, "little"))]

    def _call(self, site: int) -> int:
        """Give the call of ftrace_caller at a site."""
        return 0x9400_0000 | ((self._caller - site - 4) >> 2 & 0x3FF_FFFF)

    def _write_all(self, writes: list[tuple[int, bytes]]) -> None:
        """Write everything, or nothing."""
        done: list[tuple[int, bytes]] = []
        try:
            for addr, data in writes:
                before = self._board.read(addr, len(data))
                self._board.write(addr, data)
                done.append((addr, before))
        except BaseException as error:
            for addr, data in reversed(done):
                self._board.write(addr, data)
            if isinstance(error, MachineFault):
                raise PatchError(f"the patch sites could not be written, and are as before: {error}") from error
            raise


def _modes(site: int, unpatched: int, patched: int) -> list[tuple[int, int, int]]:
    """Give the rows of the kernel's table (function, new code, for whom) for one function; at least one.

    A row that leads to the function itself would call the handler for ever: it is for nobody.
    """
    if unpatched == patched:
        return [(site, patched, _FOR_ALL if patched != site else 0)]
    entries = ((unpatched, 1 << 0), (patched, 1 << _PATCHED))
    return [(site, entry, mode) for entry, mode in entries if entry != site]
