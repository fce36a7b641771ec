"""Run functions of a kernel on an emulated processor, and record what SP, x29, x30 and the frame hold.

An oracle for proofs that shares nothing with the prover: branches are decided here, the rest is done by unicorn.
Calls are not followed; they clobber what the procedure call standard lets them (x0 to x18, x30). Registers and memory
hold noise, small numbers and pointers into a region of noise. Conditional branches go at random or as their condition
says. Words that the kernel patches (static branches) and faults with a fixup go either way.

A run that breaks what proofs take on trust is cut off there: a store through a computed address that hits a slot, SP
computed to lie above one. Jumps through registers are followed only in runs whose branches all went as their
conditions say, as only then the bounds of tables hold.
"""

from __future__ import annotations

import ctypes
import random
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import unicorn
from numpy.typing import NDArray
from unicorn import arm64_const

arm: Any = arm64_const
emulator: Any = unicorn

_LOW: Final = 0x10_0000_0000
"""Where the image's lowest address lies in the emulator: distances between sections are kept."""
_STACK: Final = 0x2000_0000
_STACK_SIZE: Final = 0x4_0000
_NOISE: Final = 0x4000_0000
_NOISE_SIZE: Final = 0x80_0000
_PAGE: Final = 0x1_0000
_FP: Final = 0x7EA1_0000_0BAD_0F50
_RA: Final = 0x7EA1_0000_0BAD_0A00
_X: Final = [arm.UC_ARM64_REG_X0 + n for n in range(29)] + [arm.UC_ARM64_REG_X29, arm.UC_ARM64_REG_X30]
_PC: Final = arm.UC_ARM64_REG_PC
_SP: Final = arm.UC_ARM64_REG_SP
_FLAGS: Final = arm.UC_ARM64_REG_NZCV
_WATCHED: Final = [_SP, _X[29], _X[30]]
_CALLER_SAVED: Final = [*_X[:19], _X[30]]
_POOL: Final = 512
_UNSAFE: Final = (0x9F60_C400, 0x0E40_0400)
"""Half-precision forms on which unicorn 2.1 ends the process."""

Words = NDArray[np.uint32]


@dataclass
class World:
    """What runs need to know of an image, all addresses its own.

    Attributes:
        ranges: (address, words) of code.
        data: (address, bytes) of read-only data that code reads at constant addresses.
        warns: BRK instructions behind which the code goes on.
        fixups: instruction that may fault -> (where it continues, mask of registers written then).
        switches: word that may be a NOP or a branch -> where it goes.
        noreturn: functions that do not come back from a call.
        keeps_x18: calls leave x18 alone, which points to a shadow call stack.
    """

    ranges: list[tuple[int, Words]]
    data: list[tuple[int, bytes]] = field(default_factory=list)
    warns: set[int] = field(default_factory=set)
    fixups: dict[int, tuple[int, int]] = field(default_factory=dict)
    switches: dict[int, int] = field(default_factory=dict)
    noreturn: set[int] = field(default_factory=set)
    keeps_x18: bool = False


@dataclass
class Trace:
    """What was seen before each executed instruction of a function, over many runs; n of them.

    Attributes:
        addr: (n,) uint64.
        sp: (n,) int64, bytes from the CFA.
        fp: (n,) uint64, x29.
        lr: (n,) uint64, x30.
        frame: (n, s) uint64, what the words at `slots` held.
        slots: (s,) bytes from the CFA.
        cfa: (n,) uint64.
        leaves: ways out: (address, where to or 0 for a return, whether SP, x29 and x30 were as on entry).
        ends: why runs ended, with counts.
    """

    addr: NDArray[np.uint64]
    sp: NDArray[np.int64]
    fp: NDArray[np.uint64]
    lr: NDArray[np.uint64]
    frame: NDArray[np.uint64]
    slots: tuple[int, ...]
    cfa: NDArray[np.uint64]
    leaves: set[tuple[int, int, bool]]
    ends: dict[str, int]

    caller_fp: Final = _FP
    return_address: Final = _RA


class Emulator:
    """A processor with an image's code, a stack and noise."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.random = random.Random(seed)
        starts = [addr for addr, _ in world.ranges] + [addr for addr, _ in world.data]
        self.shift = _LOW - (min(starts) & -_PAGE)
        self.uc: Any = emulator.Uc(emulator.UC_ARCH_ARM64, emulator.UC_MODE_ARM)
        self.uc.reg_write(arm.UC_ARM64_REG_CPACR_EL1, 3 << 20)
        self._map([(addr, words.astype("<u4").tobytes()) for addr, words in world.ranges] + world.data)
        self._stack = (ctypes.c_uint64 * (_STACK_SIZE // 8))()
        noise = np.random.default_rng(seed)
        values = noise.integers(0, _NOISE_SIZE // 2, _NOISE_SIZE // 8, dtype=np.uint64)
        values = np.where(values & np.uint64(1), values % np.uint64(61), values + np.uint64(_NOISE))
        self._noise = (ctypes.c_uint64 * values.size).from_buffer_copy(values.tobytes())
        for place, size, buffer in ((_STACK, _STACK_SIZE, self._stack), (_NOISE, _NOISE_SIZE, self._noise)):
            self.uc.mem_map_ptr(place, size, emulator.UC_PROT_READ | emulator.UC_PROT_WRITE, ctypes.addressof(buffer))
        self._values: list[int] = values.tolist()
        self._clean = self._values[: _STACK_SIZE // 8]
        self._log: list[tuple[int, ...]] = []
        self._slots: tuple[int, ...] = ()
        self._places: tuple[int, ...] = ()
        self._spoiled = False
        self.uc.hook_add(emulator.UC_HOOK_CODE, self._see)
        self.uc.hook_add(emulator.UC_HOOK_MEM_WRITE, self._write, None, _STACK, _STACK + _STACK_SIZE - 1)

    def _map(self, parts: list[tuple[int, bytes]]) -> None:
        """Put code and data where they belong; pages may be shared."""
        pages: set[int] = set()
        for addr, data in parts:
            pages |= set(range((addr + self.shift) & -_PAGE, addr + self.shift + len(data), _PAGE))
        for page in sorted(pages):
            self.uc.mem_map(page, _PAGE)
        for addr, data in parts:
            self.uc.mem_write(addr + self.shift, data)

    def _see(self, _uc: object, addr: int, _size: int, _data: object) -> None:
        """Record the state before an instruction."""
        stack = self._stack
        self._log.append((addr, *self.uc.reg_read_batch(_WATCHED), *[stack[place] for place in self._places]))

    def _write(self, _uc: object, _kind: int, addr: int, size: int, _value: int, _data: object) -> None:
        """Notice stores through computed addresses that hit a slot."""
        first, last = (addr - _STACK) >> 3, (addr + size - 1 - _STACK) >> 3
        if any(first <= place <= last for place in self._places):
            word = self._word(self._log[-1][0] - self.shift)
            if (word >> 5) & 31 not in {29, 31} or word & 0x3B20_0000 == 0x3820_0000:
                self._spoiled = True
                self.uc.emu_stop()

    def _word(self, addr: int) -> int:
        for start, words in self.world.ranges:
            if start <= addr < start + 4 * words.size:
                return int(words[(addr - start) >> 2])
        return 0

    def run(self, start: int, end: int, slots: tuple[int, ...], runs: int, steps: int) -> Trace:
        """Run a function from its entry.

        Args:
            start: address of the function.
            end: address behind it.
            slots: offsets from the CFA of words to record; multiples of 8.
            runs: how often.
            steps: most segments between branches per run.
        """
        code = {addr: self._word(addr) for addr in range(start, end, 4)}
        self._slots = slots
        rows: list[tuple[int, ...]] = []
        leaves: set[tuple[int, int, bool]] = set()
        ends: dict[str, int] = {}
        for number in range(runs):
            cfa = _STACK + _STACK_SIZE // 2 + 16 * self.random.randrange(256)
            run = _Run(self, start, end, code, cfa, forced=(0.0, 0.5, 1.0)[number % 3])
            self._begin(cfa)
            why = run.go(steps)
            ends[why] = ends.get(why, 0) + 1
            leaves |= run.leaves
            rows += [(*row, cfa) for row in run.kept()]
        return self._trace(rows, slots, leaves, ends)

    def _begin(self, cfa: int) -> None:
        """Make a fresh stack and registers."""
        low = self.random.randrange(len(self._values) - _STACK_SIZE // 8)
        ctypes.memmove(self._stack, ctypes.addressof(self._noise) + 8 * low, _STACK_SIZE)
        self._places = tuple((cfa + slot - _STACK) >> 3 for slot in self._slots)
        self._spoiled = False
        self._log.clear()
        self.uc.reg_write_batch(list(zip(_X[:29], self.numbers(29), strict=True)))
        self.uc.reg_write_batch(
            [(_SP, cfa), (_X[29], _FP), (_X[30], _RA), (_FLAGS, self.random.getrandbits(4) << 28)]
        )

    def numbers(self, count: int) -> list[int]:
        """Give noise for registers."""
        low = self.random.randrange(len(self._values) - count)
        return self._values[low : low + count]

    def _trace(
        self,
        rows: list[tuple[int, ...]],
        slots: tuple[int, ...],
        leaves: set[tuple[int, int, bool]],
        ends: dict[str, int],
    ) -> Trace:
        table = np.array(rows, dtype=np.uint64).reshape(-1, 5 + len(slots))
        return Trace(
            addr=table[:, 0] - np.uint64(self.shift % 2**64),
            sp=(table[:, 1] - table[:, -1]).view(np.int64),
            fp=table[:, 2],
            lr=table[:, 3],
            frame=table[:, 4:-1],
            slots=slots,
            cfa=table[:, -1],
            leaves=leaves,
            ends=ends,
        )


class _Run:
    """One run of a function."""

    def __init__(
        self, machine: Emulator, start: int, end: int, code: dict[int, int], cfa: int, *, forced: float
    ) -> None:
        self.machine, self.uc, self.random = machine, machine.uc, machine.random
        self.start, self.end, self.code, self.cfa, self.forced = start, end, code, cfa, forced
        self.natural = True
        self.leaves: set[tuple[int, int, bool]] = set()
        self.limit: int | None = None

    def kept(self) -> list[tuple[int, ...]]:
        """Give what was recorded before the run was cut off."""
        return self.machine._log[: self.limit]

    def go(self, steps: int) -> str:
        """Run; give why it ended."""
        at = self.start
        for _ in range(steps):
            stop = at
            while self.start <= stop < self.end and not self._mine(stop):
                stop += 4
            if stop > at and (why := self._straight(at, stop)):
                return why
            if not self.start <= stop < self.end:
                return "fell"
            self._record(stop)
            following = self._control(stop)
            if isinstance(following, str):
                return following
            at = following
            if not self.start <= at < self.end:
                return self._leave(stop, at)
        return "steps"

    def _mine(self, addr: int) -> bool:
        """Whether an instruction is decided here: branches, exceptions, system; and what the kernel may change."""
        word = self.code[addr]
        world = self.machine.world
        return (word >> 25) & 15 in {10, 11} or addr in world.fixups or addr in world.switches

    def _record(self, addr: int) -> None:
        self.machine._see(None, addr + self.machine.shift, 4, None)

    def _straight(self, at: int, stop: int) -> str:
        """Execute instructions up to `stop`; give why the run ends, or nothing."""
        shift = self.machine.shift
        if any(self.code[addr] & _UNSAFE[0] == _UNSAFE[1] for addr in range(at, stop, 4)):
            return "unsafe"
        while at < stop:
            known = len(self.machine._log)
            try:
                self.uc.emu_start(at + shift, stop + shift)
                at = stop
            except emulator.UcError:
                if not self.machine._spoiled:
                    at = self.uc.reg_read(_PC) - shift
                    if not self._skips(at):
                        return "fault"
                    at += 4
            if self.machine._spoiled:
                self.limit = len(self.machine._log)
                return "spoiled"
            if why := self._computed(known):
                return why
        return ""

    def _skips(self, addr: int) -> bool:
        """Whether an access to nowhere can be left out: nothing of the frame depends on it."""
        word = self.code.get(addr, 0)
        loads = (word >> 25) & 5 == 4
        return loads and not {word & 31, (word >> 5) & 31, (word >> 10) & 31} & {29, 30, 31}

    def _computed(self, known: int) -> str:
        """Cut the run off where SP was computed to lie above a slot, or outside of the stack."""
        log = self.machine._log
        top = self.cfa + min(self.machine._slots, default=0)
        sp = self.uc.reg_read(_SP)
        if _STACK + 0x1000 <= sp <= top:
            return ""
        for number in range(known, len(log)):
            word = self.code[log[number][0] - self.machine.shift]
            after = log[number + 1][1] if number + 1 < len(log) else sp
            by_register = word & 0x1FE0_001F == 0x0B20_001F
            moved = word & 0x1F80_001F == 0x1100_001F and (word >> 5) & 31 not in {29, 31}
            if (by_register or moved) and not _STACK + 0x1000 <= after <= top:
                self.limit = number + 1
                return "computed"
        return "" if _STACK + 0x1000 <= sp <= _STACK + _STACK_SIZE - 0x1000 else "stack"

    def _leave(self, addr: int, goal: int) -> str:
        """Note a way out of the function, and whether the state is that of the entry."""
        sp, fp, lr = self.uc.reg_read_batch(_WATCHED)
        self.leaves.add((addr, goal % 2**64, (sp, fp, lr) == (self.cfa, _FP, _RA)))
        return "left"

    def _control(self, addr: int) -> int | str:
        """Decide an instruction; give where control goes, or why the run ends."""
        word, world = self.code[addr], self.machine.world
        if addr in world.switches:
            return world.switches[addr] if self.random.random() < 0.5 else addr + 4
        if addr in world.fixups and self.random.random() < 0.3:
            goal, written = world.fixups[addr]
            numbers = self.machine.numbers(31)
            self.uc.reg_write_batch([(_X[n], numbers[n]) for n in range(31) if written >> n & 1])
            return goal
        if (word >> 25) & 15 not in {10, 11}:
            return self._straight_one(addr)
        if word & 0x7C00_0000 == 0x1400_0000:
            return self._branch(addr, word)
        if word & 0xFF00_0000 == 0x5400_0000 or word & 0x7C00_0000 == 0x3400_0000:
            return self._conditional(addr, word)
        if word & 0xFE00_0000 == 0xD600_0000:
            return self._through(addr, word)
        if word >> 24 == 0xD4:
            return addr + 4 if word & 0x1F in {1, 2, 3} or addr in world.warns else "trap"
        return self._system(addr, word)

    def _straight_one(self, addr: int) -> int | str:
        self.machine._log.pop()
        return self._straight(addr, addr + 4) or addr + 4

    def _branch(self, addr: int, word: int) -> int | str:
        goal = addr + 4 * _signed(word, 0, 26)
        if not word >> 31:
            return goal
        if self.start < goal < self.end:
            self.uc.reg_write(_X[30], addr + 4 + self.machine.shift)
            return goal
        return "noreturn" if goal in self.machine.world.noreturn else self._call(addr)

    def _call(self, addr: int) -> int:
        """Come back from a call."""
        world = self.machine.world
        clobbered = [register for register in _CALLER_SAVED if register != _X[18] or not world.keeps_x18]
        self.uc.reg_write_batch(list(zip(clobbered, self.machine.numbers(len(clobbered)), strict=True)))
        self.uc.reg_write(_FLAGS, self.random.getrandbits(4) << 28)
        return addr + 4

    def _conditional(self, addr: int, word: int) -> int | str:
        bits = 14 if word & 0x7E00_0000 == 0x3600_0000 else 19
        goal = addr + 4 * _signed(word, 5, bits)
        if word & 0xFF00_0000 == 0x5400_0000:
            holds = _condition(word & 15, int(self.uc.reg_read(_FLAGS)) >> 28)
        else:
            register = word & 31
            value = int(self.uc.reg_read(_X[register])) if register < 31 else 0
            if bits == 14:
                bit = (word >> 31) << 5 | (word >> 19) & 31
                holds = bool(value >> bit & 1) == bool(word >> 24 & 1)
            else:
                value &= 2**64 - 1 if word >> 31 else 2**32 - 1
                holds = bool(value) == bool(word >> 24 & 1)
        if self.random.random() < self.forced:
            choice = self.random.random() < 0.5
            self.natural &= choice == holds
            holds = choice
        return goal if holds else addr + 4

    def _through(self, addr: int, word: int) -> int | str:
        """Branches through a register."""
        kind = (word >> 21) & 0xF
        if kind & 7 == 1:
            return self._call(addr)
        if kind & 7 == 2:
            self._leave(addr, 0)
            return "returned"
        if kind & 7 != 0:
            return "exception return"
        goal = int(self.uc.reg_read(_X[(word >> 5) & 31])) - self.machine.shift
        if not self.natural:
            return "indirect"
        return goal if self.start <= goal < self.end else self._leave(addr, goal)

    def _system(self, addr: int, word: int) -> int | str:
        if word & 0xFFC0_0000 != 0xD500_0000 or word & 0xFFF8_F0FF == 0xD500_40BF:
            return "system"
        if word >> 20 & 0xFFF == 0xD53 or word & 0xFFF8_0000 == 0xD528_0000:  # MRS, SYSL
            register = word & 31
            if register < 31:
                self.uc.reg_write(_X[register], self.machine.numbers(1)[0])
        return addr + 4


def _signed(word: int, lsb: int, width: int) -> int:
    value = word >> lsb & ((1 << width) - 1)
    return value - (1 << width) if value >> (width - 1) else value


def _condition(condition: int, flags: int) -> bool:
    """Whether a condition holds, by NZCV."""
    negative, zero, carry, over = (bool(flags >> n & 1) for n in (3, 2, 1, 0))
    holds = (
        zero,
        carry,
        negative,
        over,
        carry and not zero,
        negative == over,
        negative == over and not zero,
        True,
    )[condition >> 1]
    return holds if not condition & 1 or condition == 15 else not holds
