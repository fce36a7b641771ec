"""Layer 7: a guest that runs, or stands still, as a Linux target: no dump is made, its memory is read in place.

QEMU keeps the guest's memory in a file without a name that it shares (`qemu.command_line`); mapping that file
reads a page of it as fast as our own. It is mapped read-only: text may be written through the gdbstub alone, since
QEMU runs translated code and would not notice a change made behind its back.

Only of a paused guest are memory and registers those of one instant.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from surefoot.errors import Denied, Inconsistent, TargetError, Unavailable
from surefoot.targets.cache import TableCache
from surefoot.targets.dumpfile import CpuRegisters
from surefoot.targets.kerneltables import load_kernel_tables
from surefoot.targets.linux import LinuxTarget
from surefoot.targets.vm.machines import Machine
from surefoot.targets.vmcore import layout_from_debug_info, open_kernel, require_same_build
from surefoot.targets.vmcoreinfo import VmcoreInfo, find_vmcoreinfo, parse_vmcoreinfo

if TYPE_CHECKING:
    from drgn import Program

__all__ = ["GuestMemory", "find_kernel_info", "guest_registers", "open_guest", "parse_monitor_registers"]

_RAM_BASE: Final = 1 << 30
"""Physical address of the memory of QEMU's board "virt" (hw/arm/virt.c: VIRT_MEM)."""
_PAGE: Final = 4096
_START: Final = np.frombuffer(b"OSRELEAS", dtype="<u8")[0]
"""How VMCOREINFO begins; the kernel keeps it in a page of its own (kernel/vmcore_info.c)."""
_BACKEND: Final = "memfd:memory-backend-memfd"
_CPU: Final = re.compile(r"^CPU#(\d+)\s*$", re.MULTILINE)
_REGISTER: Final = re.compile(r"\b(PC|SP|X\d\d|PSTATE)=([0-9a-f]+)")


class GuestMemory:
    """The physical memory of a guest, mapped read-only.

    Args:
        machine: a guest that `surefoot vm` has booted.

    Raises:
        Unavailable: the guest has ended, or keeps its memory to itself.
        Denied: the guest belongs to another user.
    """

    def __init__(self, machine: Machine) -> None:
        self.size = machine.memory_mib << 20
        path = _memory_file(machine)
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), self.size, access=mmap.ACCESS_READ)
        except PermissionError as error:
            raise Denied(f"the memory of guest '{machine.name}' may not be read: {error}") from error
        except (OSError, ValueError) as error:
            raise Unavailable(f"the memory of guest '{machine.name}' cannot be read: {error}") from error
        self.view = memoryview(self._map)

    def read(self, _addr: int, count: int, offset: int, _physical: bool) -> memoryview:
        """Give `count` bytes from `offset` bytes into the memory: a segment of a drgn program."""
        return self.view[offset : offset + count]


def _memory_file(machine: Machine) -> Path:
    """Find the file that QEMU keeps the guest's memory in, among those that it has open.

    Raises:
        Unavailable: there is none.
        Denied: they may not be looked at.
    """
    folder = Path(f"/proc/{machine.pid}/fd")
    if not machine.is_running:
        raise Unavailable(f"guest '{machine.name}' has ended")
    try:
        entries = list(folder.iterdir())
    except PermissionError as error:
        raise Denied(f"guest '{machine.name}' belongs to another user: {error}") from error
    except OSError as error:
        raise Unavailable(f"guest '{machine.name}' has ended") from error
    for entry in entries:
        try:
            if _BACKEND in os.readlink(entry) and entry.stat().st_size == machine.memory_mib << 20:  # noqa: PTH115
                return entry
        except OSError:  # closed meanwhile
            continue
    raise Unavailable(
        f"guest '{machine.name}' keeps its memory to itself", hint="stop it and boot it anew with: surefoot vm boot"
    )


def find_kernel_info(memory: memoryview) -> VmcoreInfo:
    """Find VMCOREINFO in the memory of a guest.

    Raises:
        Unavailable: there is none: the guest has not come far enough, or runs something else.
        Inconsistent: there are several, which differ.
    """
    pages = np.frombuffer(memory, dtype="<u8")[:: _PAGE // 8]
    found = {}
    for page in np.flatnonzero(pages == _START).tolist():
        text = find_vmcoreinfo(memory[page * _PAGE : (page + 1) * _PAGE])
        if text:
            found[text] = page
    if not found:
        raise Unavailable("the guest's memory holds no VMCOREINFO: no kernel that could be told runs in it")
    if len(found) > 1:
        raise Inconsistent(f"the guest's memory holds {len(found)} different texts of VMCOREINFO")
    return parse_vmcoreinfo(next(iter(found)))


def parse_monitor_registers(text: str) -> tuple[CpuRegisters, ...]:
    """Give the registers out of QEMU's ``info registers -a``.

    Source:
        target/arm/cpu.c: aarch64_cpu_dump_state (QEMU 7.2).

    Raises:
        TargetError: the text lacks registers of a CPU.
    """
    parts = _CPU.split(text)
    found = []
    for number, part in zip(parts[1::2], parts[2::2], strict=True):
        values: dict[str, int] = {}
        for name, digits in _REGISTER.findall(part):
            values.setdefault(name, int(digits, 16))
        names = [f"X{i:02}" for i in range(31)]
        missing = [name for name in (*names, "SP", "PC", "PSTATE") if name not in values]
        if missing:
            raise TargetError(f"QEMU does not tell {', '.join(missing)} of CPU {number}")
        regs = tuple(values[name] for name in names)
        found.append(CpuRegisters(regs, values["SP"], values["PC"], values["PSTATE"], int(number) + 1))
    return tuple(found)


def guest_registers(machine: Machine) -> tuple[CpuRegisters, ...]:
    """Give the registers of all CPUs, through QEMU's monitor, which does not disturb the guest.

    Those of a guest that runs belong to no instant; see `open_guest`.

    Raises:
        Unavailable: the guest has ended.
        TargetError: QEMU's answer is not usable.
    """
    with machine.monitor() as monitor:
        text = monitor.execute("human-monitor-command", {"command-line": "info registers -a"})
    return parse_monitor_registers(str(text))


def open_guest(
    machine: Machine,
    *,
    modules: Sequence[Path] = (),
    registers: Callable[[], Sequence[CpuRegisters]] | None = None,
    cache: TableCache | None = None,
) -> LinuxTarget:
    """Open a guest as a target.

    What `capture` gives is one instant only while the guest is paused (`Machine.stopped`); of a guest that runs,
    tasks that block are shown as they were when they were read, one after the other.

    Args:
        machine: a guest that `surefoot vm` has booted.
        modules: more folders with files of modules, besides the kernel's own.
        registers: gives the registers of all CPUs; by default QEMU's monitor is asked at each capture.
        cache: where decoded tables are kept; None keeps nothing.

    Raises:
        Unavailable: the guest has ended, keeps its memory to itself, or has not come far enough.
        Denied: it belongs to another user.
        Inconsistent: it runs another kernel than it was booted with.
        InputError: the kernel image is damaged.
    """
    memory = GuestMemory(machine)
    info = find_kernel_info(memory.view)
    kernel = machine.kernel
    image = open_kernel(kernel.vmlinux)
    require_same_build(f"guest '{machine.name}'", info, image)
    tables = load_kernel_tables(image, cache, layout_from_debug_info(kernel.vmlinux))
    return LinuxTarget(
        _program(memory, info),
        machine.name,
        info,
        tables,
        registers or (lambda: guest_registers(machine)),
        vmlinux=kernel.vmlinux,
        modules_dir=(*modules, kernel.debug_modules),
        cache=cache,
    )


def _program(memory: GuestMemory, info: VmcoreInfo) -> Program:
    """Give a drgn program over the guest's memory."""
    from drgn import Architecture, Platform, PlatformFlags, Program

    prog = Program(Platform(Architecture.AARCH64, PlatformFlags.IS_64_BIT | PlatformFlags.IS_LITTLE_ENDIAN))
    prog.set_linux_kernel_custom(info.text, is_live=False)
    prog.add_memory_segment(_RAM_BASE, memory.size, memory.read, physical=True)
    return prog
