"""Layer 7: the board: one AArch64 CPU in unicorn, memory, a timer, and exceptions that really happen.

Unicorn runs instructions; what a CPU does between two instructions is done here: a system call, a fault, a BRK or an
interrupt saves the state in ELR_EL1, SPSR_EL1 and ESR_EL1, masks interrupts and goes on at the vector. Time is the
number of instructions executed, so that the same seed gives the same run.

Invariant: nothing here knows what the kernel does; it sees addresses of its devices and instructions only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Protocol

import unicorn as _package
from unicorn import arm64_const as reg
from unicorn import unicorn_const as kind

from surefoot.errors import TargetError
from surefoot.machine.loader import KernelFile

__all__ = ["Board", "MachineFault", "Observer", "Registers", "Snapshot", "Stop"]

_unicorn: Final[Any] = _package
"""The package; most of it carries no types."""

_DAIF: Final = 0x3C0
_IRQ_MASKED: Final = 0x80
_EL1H: Final = 0x5
_MODE: Final = 0xF
_FLAGS: Final = 0xF000_0000

_EC_SVC: Final = 0x15
_EC_ABORT_LOWER: Final = 0x24
_EC_ABORT_SAME: Final = 0x25
_EC_BRK: Final = 0x3C
_IL: Final = 1 << 25
_WNR: Final = 1 << 6
_TRANSLATION_FAULT: Final = 0b000111
"""Exception classes and syndromes (DDI 0487, ESR_EL1)."""

_INTR_UNDEFINED: Final = 1
_INTR_SVC: Final = 2
_INTR_BRK: Final = 7
"""What unicorn's interrupt hook calls them."""

# crn, crm, op0, op1, op2
_SCTLR: Final = (1, 0, 3, 0, 0)
_TCR: Final = (2, 0, 3, 0, 2)
_HCR: Final = (1, 1, 3, 4, 0)
_SCR: Final = (1, 1, 3, 6, 0)
_APIA_LOW: Final = (2, 1, 3, 0, 0)
_APIA_HIGH: Final = (2, 1, 3, 0, 1)
_SPSR: Final = (4, 0, 3, 0, 0)
_ESR: Final = (5, 2, 3, 0, 0)
_FAR: Final = (6, 0, 3, 0, 0)
_SP_EL0: Final = (4, 1, 3, 0, 0)
_SP_EL1: Final = (4, 1, 3, 4, 0)
_VBAR: Final = (12, 0, 3, 0, 0)

_NEVER: Final = 1 << 62
_SIGN_RETURN_ADDRESSES: Final = 1 << 31
"""SCTLR_EL1.EnIA."""
_PAC_IN_HCR: Final = (3 << 40) | (1 << 31)
_PAC_IN_SCR: Final = (3 << 16) | (1 << 10) | 1
"""APK and API of the levels above EL1, or the instructions trap; RW and NS."""
_ADDRESS_BITS: Final = 48

_GENERAL: Final = (*range(reg.UC_ARM64_REG_X0, reg.UC_ARM64_REG_X0 + 29), reg.UC_ARM64_REG_X29, reg.UC_ARM64_REG_X30)

TIMER_LINE: Final = 1
INJECTED_LINE: Final = 2


class MachineFault(TargetError):
    """The emulated machine did something that its kernel never does; a fault of ours."""


class Stop(Enum):
    """Why a run ended."""

    LIMIT = "limit"
    """The number of instructions was reached."""
    ASKED = "asked"
    """An observer asked for it."""
    EXIT = "exit"
    """The kernel ended the machine."""


class Observer(Protocol):
    """Told of everything that happens on the board, in order."""

    def step(self, addr: int) -> None:
        """Hear that the instruction at `addr` is about to be executed."""
        ...

    def exception(self, pc: int, *, user: bool, sync: bool) -> None:
        """Hear that an exception is being taken.

        Args:
            pc: what a return would go on with.
            user: it comes from exception level 0.
            sync: the instruction itself caused it; False for interrupts.
        """
        ...


@dataclass(frozen=True, slots=True)
class Registers:
    """The registers that a walk starts from.

    Attributes:
        pc: address of the next instruction.
        sp: stack pointer.
        fp: x29.
        lr: x30.
        pstate: flags, masks and exception level.
    """

    pc: int
    sp: int
    fp: int
    lr: int
    pstate: int

    @property
    def user(self) -> bool:
        """The CPU is at exception level 0."""
        return self.pstate & _MODE == 0


@dataclass(frozen=True)
class Snapshot:
    """A machine at one instant; see `Board.snapshot`."""

    context: Any
    memory: dict[int, bytes]
    fields: dict[str, Any]


class Board:
    """One CPU, memory and devices.

    Attributes:
        kernel: what it runs.
        count: instructions executed so far.
        console: what the kernel has printed.
        status: what the kernel ended the machine with, None while it runs.
    """

    def __init__(self, kernel: KernelFile, *, seed: int = 0, observer: Observer | None = None) -> None:
        """Load a kernel; nothing runs yet.

        Args:
            kernel: what to run.
            seed: of everything that chance decides.
            observer: told of every step.
        """
        self.kernel = kernel
        self.seed = seed
        self.count = 0
        self.console = ""
        self.status: int | None = None
        self._observer = observer
        self._timer = _NEVER
        self._pending: list[int] = []
        self._attention = _NEVER
        self._limit = _NEVER
        self._why = ""
        self._fault: tuple[int, bool] = (0, False)
        self._uc = _unicorn.Uc(kind.UC_ARCH_ARM64, kind.UC_MODE_ARM)
        self._uc.ctl_set_cpu_model(reg.UC_CPU_ARM64_MAX)
        self._uc.ctl_set_tlb_mode(kind.UC_TLB_VIRTUAL)
        self._regions: dict[int, int] = {}
        self._map_all()
        self._reset()
        self._template = self._uc.context_save()
        self._hook()

    # --- memory ---

    def _map(self, addr: int, size: int) -> None:
        page = self.kernel["page_size"]
        low, high = addr // page * page, -(-(addr + size) // page) * page
        self._uc.mem_map(low, high - low)
        self._regions[low] = high - low

    def _map_all(self) -> None:
        """Lay out memory; see kernel/layout.h."""
        kernel = self.kernel
        low = min(addr for addr, _, _ in kernel.segments)
        self._map(low, max(addr + size for addr, _, size in kernel.segments) - low)
        for addr, data, _ in kernel.segments:
            self._uc.mem_write(addr, data)
        for slot in range(kernel["nr_tasks"] + 1):
            self._map(kernel["stack_area"] + slot * kernel["stack_slot"], kernel["thread_size"])
        self._map(kernel["irq_stack"], kernel["irq_stack_size"])
        self._map(kernel["slot_area"], kernel["page_size"])
        low, high = kernel.symbol("user_image"), kernel.symbol("user_image_end")
        self._map(kernel["user_text"], high - low)
        self._uc.mem_write(kernel["user_text"], kernel.read(low, high - low))
        self._map(kernel["user_data"], kernel["page_size"])
        self._uc.mmio_map(kernel["devices"], kernel["page_size"], self._device_read, None, self._device_write, None)

    def read(self, addr: int, size: int) -> bytes:
        """Read memory.

        Raises:
            MachineFault: it is not there.
        """
        try:
            return bytes(self._uc.mem_read(addr, size))
        except _unicorn.UcError as error:
            raise MachineFault(f"no memory at {addr:#x} ({error})") from error

    def read_u64(self, addr: int) -> int:
        """Read one word of memory; see `read`."""
        return int.from_bytes(self.read(addr, 8), "little")

    def write(self, addr: int, data: bytes) -> None:
        """Write memory; of instructions, what was translated of them is forgotten.

        Raises:
            MachineFault: it is not there.
        """
        try:
            self._uc.mem_write(addr, data)
            self._uc.ctl_remove_cache(addr, addr + len(data))
        except _unicorn.UcError as error:
            raise MachineFault(f"no memory at {addr:#x} ({error})") from error

    def write_u64(self, addr: int, value: int) -> None:
        """Write one word of memory; see `write`."""
        self.write(addr, value.to_bytes(8, "little"))

    # --- registers ---

    def system(self, which: tuple[int, ...]) -> int:
        """Read a system register, named by (crn, crm, op0, op1, op2)."""
        return int(self._uc.reg_read(reg.UC_ARM64_REG_CP_REG, which))

    def set_system(self, which: tuple[int, ...], value: int) -> None:
        """Write a system register; see `system`."""
        self._uc.reg_write(reg.UC_ARM64_REG_CP_REG, (*which, value))

    def _reset(self) -> None:
        """Power up: EL1, interrupts masked, pointer authentication on."""
        self.set_system(_SCR, _PAC_IN_SCR)
        self.set_system(_HCR, _PAC_IN_HCR)
        self.set_system(_SCTLR, self.system(_SCTLR) | _SIGN_RETURN_ADDRESSES)
        size = 64 - _ADDRESS_BITS
        self.set_system(_TCR, size << 16 | size)
        self.set_system(_APIA_LOW, (self.seed * 0x9E3779B97F4A7C15 + 0x243F6A8885A308D3) % 2**64)
        self.set_system(_APIA_HIGH, (self.seed * 0xBF58476D1CE4E5B9 + 0x13198A2E03707344) % 2**64)
        self._uc.reg_write(reg.UC_ARM64_REG_PSTATE, _DAIF | _EL1H)
        self._uc.reg_write(reg.UC_ARM64_REG_PC, self.kernel.symbol("_start"))

    @property
    def registers(self) -> Registers:
        """The CPU's registers, between two instructions."""
        read = self._uc.reg_read
        return Registers(
            pc=read(reg.UC_ARM64_REG_PC),
            sp=read(reg.UC_ARM64_REG_SP),
            fp=read(reg.UC_ARM64_REG_X29),
            lr=read(reg.UC_ARM64_REG_X30),
            pstate=read(reg.UC_ARM64_REG_PSTATE),
        )

    @property
    def current(self) -> int:
        """The address of the current task as SP_EL0 has it; meaningless at exception level 0."""
        return self.system(_SP_EL0)

    def sp(self) -> int:
        """Give the stack pointer; may be called by an observer."""
        return int(self._uc.reg_read(reg.UC_ARM64_REG_SP))

    def walk_registers(self) -> tuple[int, int, int]:
        """Give sp, x29 and x30; may be called by an observer."""
        read = self._uc.reg_read
        return read(reg.UC_ARM64_REG_SP), read(reg.UC_ARM64_REG_X29), read(reg.UC_ARM64_REG_X30)

    # --- running ---

    def _hook(self) -> None:
        """Install the hooks that stop at every event."""
        observer = self._observer
        step = observer.step if observer is not None else None

        def on_code(_uc: Any, addr: int, _size: int, _data: object) -> None:
            if self.count >= self._attention and self._attend():
                return
            self.count += 1
            if step is not None:
                step(addr)

        def on_interrupt(uc: Any, number: int, _data: object) -> None:
            self._why = f"intr{number}"
            uc.emu_stop()

        def on_unmapped(_uc: Any, access: int, addr: int, _size: int, _value: int, _data: object) -> bool:
            self._why = "abort"
            self._fault = (addr, access == kind.UC_MEM_WRITE_UNMAPPED)
            return False

        self._uc.hook_add(kind.UC_HOOK_CODE, on_code)
        self._uc.hook_add(kind.UC_HOOK_INTR, on_interrupt)
        self._uc.hook_add(kind.UC_HOOK_MEM_UNMAPPED, on_unmapped)

    def _attend(self) -> bool:
        """Look up from running: whether to stop before this instruction."""
        if self.count >= self._limit:
            self._why = "limit"
        elif self.status is not None:
            self._why = "exit"
        elif self._interrupt_is_due():
            if int(self._uc.reg_read(reg.UC_ARM64_REG_PSTATE)) & _IRQ_MASKED:
                return False
            self._why = "irq"
        else:
            self._plan()
            return False
        self._uc.emu_stop()
        return True

    def _interrupt_is_due(self) -> bool:
        """Whether the timer or an injected interrupt waits for the CPU."""
        if self.count >= self._timer:
            self._timer = _NEVER
            self._pending.append(TIMER_LINE)
        return bool(self._pending)

    def _plan(self) -> None:
        """Work out when to look up from running next."""
        now = self.count if self._pending or self.status is not None else _NEVER
        self._attention = min(self._limit, self._timer, now)

    def inject(self) -> None:
        """Make an interrupt pending: it is taken before the next instruction that is not masked."""
        self._pending.append(INJECTED_LINE)
        self._plan()

    @property
    def injected(self) -> bool:
        """An injected interrupt has not been acknowledged yet."""
        return INJECTED_LINE in self._pending

    @property
    def irq_masked(self) -> bool:
        """The CPU would not take an interrupt now."""
        return bool(int(self._uc.reg_read(reg.UC_ARM64_REG_PSTATE)) & _IRQ_MASKED)

    def ask_stop(self) -> None:
        """End the run behind the instruction that the observer is being told of."""
        self._limit = self.count
        self._plan()

    def run(self, insns: int, *, until: Callable[[], bool] | None = None) -> Stop:
        """Run.

        Args:
            insns: how many instructions at most.
            until: asked after every exception; True ends the run.

        Raises:
            MachineFault: the kernel did something it never does.
        """
        self._limit = end = self.count + insns
        self._plan()
        while True:
            self._why = "wfi"
            try:
                self._uc.emu_start(self._uc.reg_read(reg.UC_ARM64_REG_PC), 0)
            except _unicorn.UcError as error:
                if self._why != "abort":
                    raise MachineFault(f"{error} at {self.registers.pc:#x}") from error
            if self._why == "limit":
                return Stop.LIMIT if self.count >= end else Stop.ASKED
            if self._why == "exit":
                return Stop.EXIT
            self._handle()
            if until is not None and until():
                return Stop.ASKED

    def _handle(self) -> None:
        """Do what the CPU does at an event."""
        why = self._why
        if why == "irq":
            self._enter(0x80, None)
        elif why == "abort":
            addr, write = self._fault
            user = self.registers.user
            self.set_system(_FAR, addr)
            ec = _EC_ABORT_LOWER if user else _EC_ABORT_SAME
            self._enter(0, ec << 26 | _IL | (_WNR if write else 0) | _TRANSLATION_FAULT)
        elif why == f"intr{_INTR_SVC}":
            self._enter(0, _EC_SVC << 26 | _IL)
        elif why == f"intr{_INTR_BRK}":
            word = int.from_bytes(self.read(self.registers.pc, 4), "little")
            self._enter(0, _EC_BRK << 26 | _IL | (word >> 5 & 0xFFFF))
        elif why == "wfi":
            self._wait()
        else:
            raise MachineFault(f"unexpected event {why} at {self.registers.pc:#x}")

    def _wait(self) -> None:
        """Pass the time until the timer fires: the CPU waits for an interrupt."""
        if not self._pending and self.status is None:
            if self._timer == _NEVER:
                raise MachineFault(f"the CPU waits for ever at {self.registers.pc:#x}")
            self.count = max(self.count, self._timer)
            self._limit = max(self._limit, self.count)
        self._plan()

    def _enter(self, offset: int, esr: int | None) -> None:
        """Take an exception to EL1.

        From EL0 unicorn must be given a state saved in EL1: writing PSTATE does not switch the exception level.
        """
        uc, state = self._uc, self.registers
        if self._observer is not None:
            self._observer.exception(state.pc, user=state.user, sync=esr is not None)
        if state.user:
            general = [uc.reg_read(name) for name in _GENERAL]
            kept = {which: self.system(which) for which in (_VBAR, _FAR)}
            kernel_sp = self.system(_SP_EL1)
            uc.context_restore(self._template)
            for name, value in zip(_GENERAL, general, strict=True):
                uc.reg_write(name, value)
            for which, value in kept.items():
                self.set_system(which, value)
            self.set_system(_SP_EL0, state.sp)
            uc.reg_write(reg.UC_ARM64_REG_SP, kernel_sp)
        uc.reg_write(reg.UC_ARM64_REG_ELR_EL1, state.pc)
        self.set_system(_SPSR, state.pstate)
        if esr is not None:
            self.set_system(_ESR, esr)
        uc.reg_write(reg.UC_ARM64_REG_PSTATE, _DAIF | _EL1H | (state.pstate & _FLAGS))
        uc.reg_write(reg.UC_ARM64_REG_PC, self.system(_VBAR) + (0x400 if state.user else 0x200) + offset)
        self._plan()

    # --- devices ---

    def _device_read(self, _uc: Any, offset: int, _size: int, _data: object) -> int:
        if offset == 0x28:
            line = self._pending.pop(0) if self._pending else 0
            self._plan()
            return line
        if offset == 0x30:
            return self.count
        return self.seed if offset == 0x38 else 0

    def _device_write(self, _uc: Any, offset: int, _size: int, value: int, _data: object) -> None:
        if offset == 0x00:
            self.console += chr(value & 0x7F)
        elif offset == 0x08:
            self._timer = self.count + value if value else _NEVER
        elif offset == 0x10 and value not in self._regions:
            self._map(value, self.kernel["page_size"])
        elif offset == 0x18 and value in self._regions:
            self._uc.mem_unmap(value, self._regions.pop(value))
        elif offset == 0x20:
            self.status = value
        self._plan()

    # --- snapshots ---

    def snapshot(self) -> Snapshot:
        """Save the whole machine; the observer's state is not part of it."""
        memory = {low: bytes(self._uc.mem_read(low, size)) for low, size in self._regions.items()}
        names = ("count", "console", "status", "_timer", "seed")
        fields = {name: getattr(self, name) for name in names}
        return Snapshot(self._uc.context_save(), memory, {**fields, "_pending": list(self._pending)})

    def restore(self, snapshot: Snapshot) -> None:
        """Bring the machine back to a snapshot; only pages that differ are written."""
        page = self.kernel["page_size"]
        for low in [low for low in self._regions if low not in snapshot.memory]:
            self._uc.mem_unmap(low, self._regions.pop(low))
        for low, data in snapshot.memory.items():
            if low not in self._regions:
                self._map(low, len(data))
            now = bytes(self._uc.mem_read(low, len(data)))
            if now == data:
                continue
            for at in range(0, len(data), page):
                if now[at : at + page] != data[at : at + page]:
                    self.write(low + at, data[at : at + page])
        self._uc.context_restore(snapshot.context)
        for name, value in snapshot.fields.items():
            setattr(self, name, list(value) if isinstance(value, list) else value)
        self._plan()
