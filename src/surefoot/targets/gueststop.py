"""Layer 7: a guest that is paused to be looked at as a whole and written to, through QEMU's monitor and gdbstub.

The monitor pauses, resumes and gives the registers; memory is read in place (`guestlive`); text is written through
the gdbstub, which is asked for only then, because a connection to it pauses the guest by itself.
"""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, Final

import numpy as np

from surefoot.errors import TargetError, Unavailable
from surefoot.targets.cache import TableCache
from surefoot.targets.capture import Capture
from surefoot.targets.dumpfile import CpuRegisters, ExceptionLevel
from surefoot.targets.gdb import GdbClient, GdbRefused
from surefoot.targets.guestlive import open_guest, parse_monitor_registers
from surefoot.targets.linux import LinuxTarget
from surefoot.targets.modules import list_modules
from surefoot.targets.reading import u64_at
from surefoot.targets.vm.folders import locked
from surefoot.targets.vm.machines import Machine
from surefoot.targets.vm.qemu import Monitor
from surefoot.unwind.code import CodeMap

__all__ = ["StoppedGuest", "before_entry"]

_GDB_LOCK: Final = "gdb.lock"
_VECTORS: Final = "vectors"
_FROM_USER, _VECTORS_END, _VECTOR = 0x400, 0x800, 0x80
_MAX_MODULES: Final = 65536
_KEPT: Final = 2
"""Code as it is with a patch, and without it."""


def before_entry(registers: CpuRegisters, vectors: int) -> CpuRegisters:
    """Take a CPU that has left user space but has not executed anything since for one in user space.

    QEMU likes to stop a CPU just there, when it has taken an exception. The vectors from 0x400 on are those of
    exceptions from a lower level (DDI 0487, D1.3.1): at their first instructions nothing of the kernel is live.

    Args:
        registers: of a CPU.
        vectors: address of the kernel's vectors, 0 if it is not known.
    """
    offset = registers.pc - vectors
    if not vectors or not _FROM_USER <= offset < _VECTORS_END or offset % _VECTOR:
        return registers
    return registers._replace(pstate=registers.pstate & ~ExceptionLevel.MASK)


def _vectors_of(code: CodeMap) -> int:
    """Give the address of the kernel's exception vectors, 0 where that is not certain.

    Source:
        arch/arm64/kernel/entry.S: vectors; VBAR_EL1 is aligned to 2 KiB (DDI 0487, D19.2.160).
    """
    functions = code.functions
    found = [at for at, name in enumerate(functions.names) if name == _VECTORS]
    if len(found) != 1:
        return 0
    start, end = int(functions.start[found[0]]), int(functions.end[found[0]])
    return start if end - start == _VECTORS_END and start % _VECTORS_END == 0 else 0


class StoppedGuest:
    """A guest of `surefoot vm` that can be paused, copied and written to.

    Attributes:
        machine: the guest.
        target: it, as a Linux target.
        paused_s: how long it was paused last.
    """

    def __init__(self, machine: Machine, *, modules: Sequence[Path] = (), cache: TableCache | None = None) -> None:
        """Open a guest; it runs on.

        Args:
            machine: booted with a gdbstub.
            modules: more folders with files of modules, besides the kernel's own.
            cache: where decoded tables and proofs are kept.

        Raises:
            Unavailable: it has no gdbstub, or has ended, or keeps its memory to itself.
            TargetError: it runs on hardware whose caches nobody here could keep coherent.
        """
        if machine.gdb_socket is None:
            raise Unavailable(
                f"guest '{machine.name}' has no gdbstub, through which its text is written",
                hint="stop it and boot it anew with: surefoot vm boot --gdb",
            )
        self.machine = machine
        self._gdb_socket = machine.gdb_socket
        self._monitor: Monitor | None = None
        self._gdb: GdbClient | None = None
        self._held = ExitStack()
        self._since = 0.0
        self._paused_s = 0.0
        self._vectors = 0
        self._prepared: tuple[bytes, CodeMap] | None = None
        self._kept: list[tuple[bytes, CodeMap]] = []
        with machine.monitor() as monitor:
            if monitor.execute("query-kvm")["enabled"]:
                raise TargetError(f"guest '{machine.name}' runs on the host's CPUs, whose caches would keep old code")
        self.target: LinuxTarget = open_guest(machine, modules=modules, registers=self._registers, cache=cache)

    @property
    def paused_s(self) -> float:
        """How long the last pause took, up to now if it lasts."""
        return time.monotonic() - self._since if self._monitor is not None else self._paused_s

    def is_alive(self) -> bool:
        """Whether its QEMU is there."""
        return self.machine.is_running

    def prepare(self) -> CodeMap:
        """Read the code anew, with its proofs; what was read before is taken again if no word differs."""
        self.target.refresh_code()
        modules = self._loaded()
        for at, (loaded, code) in enumerate(self._kept):
            if loaded == modules and self._same_code(code):
                self._kept.insert(0, self._kept.pop(at))
                break
        else:
            self.target.prove()
            code = self.target.code
            # Names are asked for by the ten thousand: decode them once.
            functions = replace(code.functions, names=tuple(code.functions.names))
            code = replace(code, functions=functions)
            self._kept = [(modules, code), *self._kept[: _KEPT - 1]]
            self._vectors = _vectors_of(code)  # of the kernel, whose place does not change
        self.target.use_code(code)
        self._prepared = modules, code
        return code

    def _loaded(self) -> bytes:
        """Give what tells the loaded modules apart: name, state and memory of each, as the kernel keeps them."""
        memory, layout = self.target.memory, self.target.tables.layout
        parts = ("module.name", "module.name_size", "module.mem", "module.mem_count", "sizeof.module_memory")
        if "modules" not in layout.symbols or not layout.has("module.list", "sizeof.module", *parts):
            return repr(list_modules(memory, layout, self.target.bias)).encode()  # slower, for kernels before v6.4
        name, length, blocks, count, size = (layout[part] for part in parts)
        marks: list[bytes] = []
        head = layout.symbols["modules"] + self.target.bias
        node = memory.u64(head)
        while node and node != head and len(marks) < _MAX_MODULES:
            block = memory.read(node - layout["module.list"], layout["sizeof.module"])
            if block is None:
                break
            marks.append(block[name : name + length] + block[blocks : blocks + count * size])
            node = u64_at(block, layout["module.list"])
        return b"".join(marks)

    def pause(self) -> bool:
        """Stop all CPUs; False if somebody else had done so.

        Raises:
            Unavailable: the guest has ended.
            TargetError: QEMU refused; nothing has changed.
        """
        held = ExitStack()
        monitor = held.enter_context(self.machine.monitor())
        try:
            ran = monitor.status() == "running"
            self._since = time.monotonic()
            try:
                monitor.execute("stop")
            except BaseException:
                if ran:
                    with suppress(TargetError):
                        monitor.execute("cont")
                raise
        except BaseException:
            held.close()
            raise
        self._held, self._monitor = held, monitor
        return ran

    def resume(self) -> None:
        """Let the CPUs run and let go of the guest.

        Raises:
            Unavailable: the guest has ended, or the monitor broke off.
        """
        monitor = self._monitor
        if monitor is None:
            with self.machine.monitor() as fresh:
                fresh.execute("cont")
            return
        self._drop_gdb()
        monitor.execute("cont")
        self.release()

    def release(self) -> None:
        """Let go of the guest, paused or not."""
        with self._held:
            if self._monitor is not None:
                self._paused_s = time.monotonic() - self._since
            self._monitor = None
            self._drop_gdb()

    def look(self) -> Capture | None:
        """Copy every task of the paused guest; None if its code is not what `prepare` read."""
        modules, code = self._prepared or (b"", None)
        if code is None or modules != self._loaded() or not self._same_code(code):
            return None
        return self.target.capture()

    def _same_code(self, code: CodeMap) -> bool:
        """Compare the words that were read with those of now: some milliseconds for all of the kernel.

        Code that the kernel has freed is not there to be compared, and cannot come back.
        """
        text, memory = code.text, self.target.memory
        for addr, low, high in zip(
            text.addr.tolist(), text.word_off[:-1].tolist(), text.word_off[1:].tolist(), strict=True
        ):
            data = memory.read(addr, 4 * (high - low))
            if data is None:
                if not self.target.is_freed(addr):
                    return False
            elif not np.array_equal(np.frombuffer(data, dtype="<u4"), text.words[low:high]):
                return False
        return True

    def read(self, addr: int, size: int) -> bytes | None:
        """Give bytes of the guest's memory, None where they cannot be read."""
        return self.target.memory.read(addr, size)

    def write(self, addr: int, data: bytes) -> None:
        """Write bytes of the paused guest, code among them.

        Raises:
            TargetError: the stub refused; nothing was written.
            Unavailable: the connection broke; the bytes may be written or not.
        """
        if self._monitor is None:
            raise TargetError("a guest that runs is not written to")
        physical = self._physical(addr)
        if self._read_physical(physical, len(data)) != self.read(addr, len(data)):
            raise TargetError(f"the page tables of guest '{self.machine.name}' lead elsewhere from {addr:#x}")
        try:
            self._open_gdb().write(physical, data)
        except GdbRefused:
            raise
        except TargetError:
            self._drop_gdb()  # the next attempt begins with a connection that nobody has spoilt
            raise

    def _physical(self, addr: int) -> int:
        """Translate an address by the kernel's own page tables: those of a CPU in user space may lack the kernel.

        Raises:
            TargetError: it is not mapped.
        """
        # What drgn's own follow_phys calls; that one needs debug information for the type of its answer.
        from _drgn import _linux_helper_follow_phys  # type: ignore[import-not-found]

        root = re.search(r"SYMBOL\(swapper_pg_dir\)=([0-9a-f]{1,16})\n", self.target.info.text)
        try:
            return int(_linux_helper_follow_phys(self.target.prog, int(root[1], 16) if root else 0, addr))
        except (LookupError, NotImplementedError, ValueError) as error:
            raise TargetError(f"{addr:#x} cannot be translated to a physical address: {error}") from error

    def _read_physical(self, addr: int, size: int) -> bytes:
        """Give bytes of physical memory.

        Raises:
            TargetError: there is none.
        """
        try:
            data: bytes = self.target.prog.read(addr, size, physical=True)
        except Exception as error:
            # drgn reports unreadable memory of some transports as a bare Exception.
            raise TargetError(f"the guest has no memory at physical address {addr:#x}: {error}") from error
        return data

    def _open_gdb(self) -> GdbClient:
        if self._gdb is None:
            with ExitStack() as opened:
                opened.enter_context(locked(self.machine.folder / _GDB_LOCK))
                client = opened.enter_context(GdbClient(self._gdb_socket))
                client.use_physical(on=True)
                self._gdb, self._gdb_held = client, opened.pop_all()
        return self._gdb

    def _drop_gdb(self) -> None:
        gdb, self._gdb = self._gdb, None
        if gdb is not None:
            with self._gdb_held, suppress(TargetError):
                gdb.use_physical(on=False)

    def _registers(self) -> Sequence[CpuRegisters]:
        """Give the registers of all CPUs."""
        command = {"command-line": "info registers -a"}
        if self._monitor is not None:
            text = self._monitor.execute("human-monitor-command", command)
        else:
            with self.machine.monitor() as monitor:
                text = monitor.execute("human-monitor-command", command)
        return [before_entry(each, self._vectors) for each in parse_monitor_registers(str(text))]

    @contextmanager
    def shield(self) -> Iterator[None]:
        """Hold SIGINT, SIGTERM and SIGHUP back for a block; they arrive at its end.

        Python runs signal handlers in the main thread only: elsewhere there is nothing to hold back.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        arrived: list[int] = []

        def note(number: int, _frame: FrameType | None) -> None:
            arrived.append(number)

        before: dict[int, Any] = {}
        try:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                before[number] = signal.signal(number, note)
            yield
        finally:
            for held, handler in before.items():
                signal.signal(held, handler if handler is not None else signal.SIG_DFL)
            for late in dict.fromkeys(arrived):
                signal.raise_signal(late)
