"""Run single A64 words on an emulated processor and hold what they did against their claimed effects.

Independent of any disassembler: random registers, SP and x29 in two windows of known bytes, every other pointer
elsewhere. A word that the processor refuses, or whose access fails, shows nothing and is counted apart.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import unicorn
from unicorn import arm64_const

from surefoot.dtypes import Insn
from surefoot.isa import tables
from surefoot.isa.effects import FP, LR, SP, Effects, Flow, FpEffect, LrEffect, SpEffect, Store, effects

emulator: Any = unicorn
arm: Any = arm64_const
"""The package, whose annotations are incomplete."""

CODE: Final = 0x100_0000
CODE_SIZE: Final = 0x40_0000
WINDOW: Final = 0x2_0000
"""Bytes of each window; SP and x29 point to its middle."""
SP_BASE: Final = 0x4000_0000
FP_BASE: Final = 0x5000_0000
OTHERS: Final = 0x6000_0000
OTHERS_SIZE: Final = 0x40_0000
"""Where all other pointers point."""
STAY: Final = 0x1400_0000
"""B to itself, which surrounds the word under test: the emulator translates ahead."""

UNSAFE: Final = ((0x9F60_C400, 0x0E40_0400, "unicorn 2.1 aborts on half-precision forms that it does not know"),)
"""Words that end the process instead of raising."""

_X: Final = [arm.UC_ARM64_REG_X0 + n for n in range(29)] + [arm.UC_ARM64_REG_X29, arm.UC_ARM64_REG_X30]
_WINDOWS: Final = ((Store.SP, SP, SP_BASE), (Store.FP, FP, FP_BASE))
_INDIRECT: Final = (Flow.RETURN, Flow.JUMP_REG, Flow.CALL_REG)
_SIGNATURES: Final = (LrEffect.SIGN, LrEffect.AUTH, LrEffect.SIGN_PC, LrEffect.AUTH_PC, LrEffect.STRIP)


@dataclass
class Outcome:
    """What the runs showed.

    Attributes:
        ran: words that were executed.
        refused: words that the processor did not execute.
        checked: how often each exact claim was confirmed.
        wrong: contradictions, as text.
    """

    ran: int = 0
    refused: int = 0
    checked: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def random_words(count: int, seed: int) -> Insn:
    """Give words of random forms, one of ten without general registers, half of their fields being 29, 30 or 31.

    System instructions other than hints are left out: they would change the machine itself.
    """
    rng = np.random.default_rng(seed)
    usable = [
        form
        for form in tables.decoder().forms[1:]
        if (form.value & form.mask) >> 24 != 0xD5 and not form.notes & {"exc", "undef", "eret"}
    ]
    plain = np.array([not form.notes for form in usable])
    exact = np.array([bool(form.notes & {"addi", "mov", "x1", "x2", "x2m"}) for form in usable])
    weights = np.where(plain, 0.1 / plain.sum(), np.where(exact, 0.3 / exact.sum(), 0.6 / (~plain & ~exact).sum()))
    picked = rng.choice(len(usable), count, p=weights)
    mask = np.array([usable[k].mask for k in picked], dtype=np.uint32)
    value = np.array([usable[k].value for k in picked], dtype=np.uint32)
    words = rng.integers(0, 1 << 32, count, dtype=np.uint32)
    for lsb in (0, 5, 10, 16):
        special = rng.integers(29, 32, count, dtype=np.uint32) << np.uint32(lsb)
        chosen = rng.random(count) < 0.5
        words = np.where(chosen, (words & ~np.uint32(31 << lsb)) | special, words)
    return (words & ~mask) | value


class Machine:
    """A processor with two windows, rewound before every word."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.cpu = emulator.Uc(emulator.UC_ARCH_ARM64, emulator.UC_MODE_ARM)
        self.cpu.ctl_set_cpu_model(arm.UC_CPU_ARM64_MAX)
        self.cpu.mem_map(CODE, CODE_SIZE)
        self.cpu.mem_write(CODE, STAY.to_bytes(4, "little") * (CODE_SIZE // 4))
        for base, size in ((SP_BASE, WINDOW), (FP_BASE, WINDOW), (OTHERS, OTHERS_SIZE)):
            self.cpu.mem_map(base, size)
        self.windows = {base: self.rng.bytes(WINDOW) for base in (SP_BASE, FP_BASE)}
        for base, content in self.windows.items():
            self.cpu.mem_write(base, content)
        self.cpu.reg_write(arm.UC_ARM64_REG_CPACR_EL1, 0x0333_0000)
        self.clean = self.cpu.context_save()

    def run(self, words: Insn) -> Outcome:
        """Execute each word once and compare."""
        outcome = Outcome()
        claims = effects(words)
        for place, word in enumerate(words.tolist()):
            if not any(word & mask == value for mask, value, _ in UNSAFE):
                self._one(word, place, claims, outcome)
        return outcome

    def _registers(self) -> list[int]:
        """Random values for x0 to x30 and SP: pointers elsewhere, small numbers, the two windows."""
        kind = self.rng.random(31)
        pointers = OTHERS + OTHERS_SIZE // 4 + self.rng.integers(0, OTHERS_SIZE // 32, 31) * 16
        small = self.rng.integers(0, 256, 31)
        values: list[int] = np.where(kind < 0.6, pointers, small).tolist()
        values[FP] = FP_BASE + WINDOW // 2
        return [*values, SP_BASE + WINDOW // 2]

    def _one(self, word: int, place: int, claims: Effects, outcome: Outcome) -> None:
        before = self._registers()
        self.cpu.context_restore(self.clean)
        for number, register in enumerate(_X):
            self.cpu.reg_write(register, before[number])
        self.cpu.reg_write(arm.UC_ARM64_REG_SP, before[SP])
        address = CODE + CODE_SIZE // 2
        self.cpu.mem_write(address, word.to_bytes(4, "little"))
        self.cpu.ctl_remove_cache(address, address + 4)
        try:
            self.cpu.emu_start(address, 0, count=1)
        except emulator.UcError:
            outcome.refused += 1
            self._rewind()
            return
        outcome.ran += 1
        after = [self.cpu.reg_read(register) for register in _X] + [self.cpu.reg_read(arm.UC_ARM64_REG_SP)]
        here = _Claims(word, place, claims, before, after, self.windows, outcome)
        here.flow(address, self.cpu.reg_read(arm.UC_ARM64_REG_PC))
        here.registers(address)
        here.memory({base: bytes(self.cpu.mem_read(base, WINDOW)) for base in self.windows})
        self._rewind()

    def _rewind(self) -> None:
        for base, content in self.windows.items():
            if bytes(self.cpu.mem_read(base, WINDOW)) != content:
                self.cpu.mem_write(base, content)


@dataclass
class _Claims:
    """One execution against the claims of its word."""

    word: int
    place: int
    claims: Effects
    before: list[int]
    after: list[int]
    windows: dict[int, bytes]
    outcome: Outcome

    def _value(self, column: str) -> int:
        return int(getattr(self.claims, column)[self.place])

    def _check(self, what: str, got: int, want: int) -> None:
        if got != want & 0xFFFF_FFFF_FFFF_FFFF:
            self.outcome.wrong.append(f"{self.word:#010x} {what}: {got:#x}, claimed {want:#x}")
        else:
            self.outcome.checked[what] += 1

    def flow(self, address: int, pc: int) -> None:
        """NEXT goes on; indirect branches go where the register said."""
        flow = self._value("flow")
        if flow == Flow.NEXT:
            self._check("next", pc, address + 4)
        elif flow in _INDIRECT and self._value("target_reg") <= LR and not self._value("pauth_key"):
            self._check("target", pc, self.before[self._value("target_reg")])
        elif flow == Flow.UNDEFINED:
            self.outcome.checked["undefined but executed"] += 1

    def registers(self, address: int) -> None:
        """What is not in `writes` stays; exact claims about SP, x29 and x30 hold."""
        before, after = self.before, self.after
        writes = self._value("writes")
        for number in range(32):
            if not writes >> number & 1 and before[number] != after[number]:
                self.outcome.wrong.append(f"{self.word:#010x} writes register {number}, not claimed")
        sp, fp, lr = self._value("sp"), self._value("fp"), self._value("lr")
        bases = {SpEffect.KEEP: before[SP], SpEffect.ADD: before[SP], SpEffect.FROM_FP: before[FP]}
        if sp in bases:
            self._check(f"sp {SpEffect(sp).name}", after[SP], bases[SpEffect(sp)] + self._value("sp_imm"))
        frames = {FpEffect.KEEP: before[FP], FpEffect.ADD: before[FP], FpEffect.FROM_SP: before[SP]}
        if fp in frames:
            self._check(f"fp {FpEffect(fp).name}", after[FP], frames[FpEffect(fp)] + self._value("fp_imm"))
        elif fp == FpEffect.FROM_REG:
            self._check("fp FROM_REG", after[FP], before[self._value("fp_reg")])
        elif fp == FpEffect.LOAD:
            self._loaded("fp", after[FP])
        if lr == LrEffect.KEEP:
            self._check("lr KEEP", after[LR], before[LR])
        elif lr == LrEffect.CALL:
            self._check("lr CALL", after[LR], address + 4)
        elif lr == LrEffect.FROM_REG:
            self._check("lr FROM_REG", after[LR], before[self._value("lr_reg")])
        elif lr == LrEffect.LOAD:
            self._loaded("lr", after[LR])
        elif lr in _SIGNATURES:
            self._check(f"lr {LrEffect(lr).name}", after[LR] & 0xFFFF_FFFF, before[LR] & 0xFFFF_FFFF)

    def _loaded(self, name: str, got: int) -> None:
        start = self.before[self._value(f"{name}_reg")] + self._value(f"{name}_imm")
        for base, content in self.windows.items():
            if base <= start <= base + WINDOW - 8:
                want = int.from_bytes(content[start - base : start - base + 8], "little")
                self._check(f"{name} LOAD", got, want)

    def memory(self, now: dict[int, bytes]) -> None:
        """Bytes around SP and x29 change only where claimed; x29 and x30 lie where claimed."""
        store, unknown = self._value("store"), self._value("store_unknown")
        for kind, register, base in _WINDOWS:
            old, new = self.windows[base], now[base]
            start = self.before[register] - base + self._value("store_off")
            end = start + self._value("store_size")
            if store == kind and not unknown:
                changed = old[:start] != new[:start] or old[end:] != new[end:]
                for column, number in (("fp_at", FP), ("lr_at", LR)):
                    at = self._value(column)
                    if at >= 0:
                        stored = int.from_bytes(new[start + at : start + at + 8], "little")
                        self._check(column, stored, self.before[number])
            else:
                changed = old != new and not (unknown and store in {kind, Store.ANYWHERE})
            if changed:
                self.outcome.wrong.append(f"{self.word:#010x} writes outside of its claim near register {register}")
            elif store == kind:
                self.outcome.checked[f"store {kind.name}"] += 1
