"""A scalar processor for the programs of `world`: it runs them and keeps the true chain of live functions.

The truth comes from the calls, returns and exceptions that really happened, never from the stack. Every return is
checked against it: if the machine itself went astray, the test would say so.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from world import Op, Program

__all__ = ["PAC_MASK", "PT_REGS", "Cpu", "Entry", "Stop"]

PAC_MASK: Final = 0xFFF0_0000_0000_0000
PT_REGS: Final = 320
RECORD: Final = 296
_EL1H: Final = 0x5
_U64: Final = (1 << 64) - 1


class Stop(Exception):
    """The processor has stopped: blocked in cpu_switch_to, or back in user space."""


@dataclass
class Entry:
    """A rewritten return address: of the function-graph tracer, or of a kretprobe (func 0)."""

    ret: int
    key: int
    func: int = 0


@dataclass
class Frame:
    """A live activation: where it will truly return to; an exception 'returns' to the exact interrupted pc."""

    ret: int
    kind: str = "call"


@dataclass
class Cpu:
    """One task being run.

    Attributes:
        program: what runs.
        high: end of the task stack.
        size: of the task stack.
        irq_high: end of the IRQ stack.
        rng: decides what the program leaves open.
        traced: names of functions that the graph tracer traces.
        probed: names of functions with a kretprobe.
    """

    program: Program
    high: int
    size: int
    irq_high: int
    rng: random.Random
    irq_size: int = 4096
    traced: frozenset[str] = frozenset()
    probed: frozenset[str] = frozenset()
    pac_key: int = 0x5A5A
    max_depth: int = 30
    pc: int = 0
    sp: int = 0
    fp: int = 0
    lr: int = 0
    x0: int = 0
    x9: int = 0
    memory: dict[int, int] = field(default_factory=dict)
    shadow: list[Frame] = field(default_factory=list)
    fgraph: list[Entry] = field(default_factory=list)
    kretprobe: list[Entry] = field(default_factory=list)
    steps: int = 0
    block_skips: int = 0
    preempt: bool = False
    pick: Callable[[Cpu, Op], str] | None = None
    take: Callable[[Cpu], bool] | None = None
    _saved: list[tuple[int, int, int, int, int, int]] = field(default_factory=list)

    def enter_from_user(self) -> None:
        """Start at an exception from user space: the final record at the top, in el0t_64_sync."""
        self._bottom("el0t_64_sync")

    def start_kthread(self, at: str = "ret_from_fork") -> None:
        """Start where a new task or CPU starts."""
        self._bottom(at)

    def _bottom(self, name: str) -> None:
        self.sp = self.high - PT_REGS
        for offset in range(0, PT_REGS, 8):
            self.store(self.sp + offset, self.rng.getrandbits(48))
        self._record(self.sp, 1)
        self.store(self.sp + 264, 0)
        self.fp = self.sp + RECORD
        self.pc = self.program.labels[name]
        self.shadow = [Frame(0, "end")]

    def _record(self, regs: int, kind: int) -> None:
        for offset, value in ((0, 0), (8, 0), (16, kind)):
            self.store(regs + RECORD + offset, value)

    def load(self, addr: int) -> int:
        """Read a word."""
        return self.memory[addr]

    def store(self, addr: int, value: int) -> None:
        """Write a word; the program must stay on its stacks."""
        on_task = self.high - self.size <= addr < self.high
        assert on_task or self.irq_high - self.irq_size <= addr < self.irq_high, "the synthetic program overflowed"
        self.memory[addr] = value & _U64

    @property
    def on_irq_stack(self) -> bool:
        """Whether SP is on the IRQ stack."""
        return self.irq_high - self.irq_size < self.sp <= self.irq_high

    def strip(self, addr: int) -> int:
        """Remove an authentication code."""
        return addr | PAC_MASK if addr >> 55 & 1 else addr

    def sign(self, addr: int) -> int:
        """Put an authentication code into a kernel address; bit 55 stays."""
        mask = PAC_MASK & ~(1 << 55)
        code = (self.sp * 0x9E37_79B9_7F4A_7C15 ^ addr * self.pac_key) & _U64
        return (addr & ~mask) | (code & mask)

    def interrupt(self) -> None:
        """Take an exception at pc, as the EL1 stub does."""
        self._saved.append((self.pc, self.sp, self.fp, self.lr, self.x0, self.x9))
        regs = self.sp - PT_REGS
        for offset in range(0, PT_REGS, 8):
            self.store(regs + offset, self.rng.getrandbits(64))
        for offset, value in ((232, self.fp), (240, self.lr), (248, self.sp), (256, self.pc), (264, _EL1H)):
            self.store(regs + offset, value)
        self._record(regs, 2)
        self.shadow.append(Frame(self.pc, "exception"))
        self.sp, self.fp = regs, regs + RECORD
        self.pc = self.program.labels["el1h_64_irq"]

    def run(self, limit: int, until: Callable[[Cpu], bool] | None = None) -> int:
        """Execute up to `limit` instructions, or until a condition holds; gives how many were executed.

        Raises:
            Stop: the task blocked, or returned to user space.
        """
        for done in range(limit):
            if until is not None and until(self):
                return done
            self.step()
        return limit

    def step(self) -> None:
        """Execute one instruction."""
        self.steps += 1
        program = self.program
        if self.pc == program.labels["cpu_switch_to"]:
            if self.block_skips <= 0:
                raise Stop("blocked")
            self.block_skips -= 1
        op = program.ops[self.pc]
        if self.probed and self._kretprobe_hit():
            self.kretprobe.append(Entry(self.lr, self.fp))
            self.lr = program.labels["__kretprobe_trampoline"]
        if op.name == "nop" and self.traced and self._trace_hit():
            self.fgraph.append(Entry(self.x9, self.fp, self.pc))
            self.lr = program.labels["return_to_handler"]
        getattr(self, "_" + op.name)(op)

    def _trace_hit(self) -> bool:
        """The second slot of a patch site: MOV X9, X30 stands before it."""
        before = self.program.ops.get(self.pc - 4)
        return before is not None and before.name == "mov_x9_lr" and self._starts(self.pc - 4, self.traced)

    def _kretprobe_hit(self) -> bool:
        return self._starts(self.pc, self.probed)

    def _starts(self, addr: int, names: frozenset[str]) -> bool:
        return any(self.program.labels[name] == addr for name in names)

    def _next(self) -> None:
        self.pc += 4

    def _nop(self, _: Op) -> None:
        self._next()

    _bti = _adrp = _add_low = _nop

    def _hook(self, op: Op) -> None:
        self.program.hooks[op.arg](self)
        self._next()

    def _paciasp(self, _: Op) -> None:
        self.lr = self.sign(self.lr)
        self._next()

    def _autiasp(self, _: Op) -> None:
        plain = self.strip(self.lr)
        assert self.sign(plain) == self.lr, "authentication failed"
        self.lr = plain
        self._next()

    def _mov_x9_lr(self, _: Op) -> None:
        self.x9 = self.lr
        self._next()

    def _mov_lr_x0(self, _: Op) -> None:
        self.lr = self.x0
        self._next()

    def _mov_sp_fp(self, _: Op) -> None:
        self.sp = self.fp
        self._next()

    def _mov_sp_x16(self, _: Op) -> None:
        self.sp = self.irq_high
        self._next()

    def _save_pair(self, at: int) -> None:
        self.store(at, self.fp)
        self.store(at + 8, self.lr)
        self._next()

    def _load_pair(self, at: int) -> None:
        self.fp, self.lr = self.load(at), self.load(at + 8)
        self._next()

    def _stp_pre(self, op: Op) -> None:
        self.sp -= op.arg
        self._save_pair(self.sp)

    def _stp(self, op: Op) -> None:
        self._save_pair(self.sp + op.arg)

    def _ldp(self, op: Op) -> None:
        self._load_pair(self.sp + op.arg)

    def _ldp_post(self, op: Op) -> None:
        self._load_pair(self.sp)
        self.sp += op.arg

    def _str_lr(self, _: Op) -> None:
        self.sp -= 16
        self.store(self.sp, self.lr)
        self._next()

    def _ldr_lr(self, _: Op) -> None:
        self.lr = self.load(self.sp)
        self.sp += 16
        self._next()

    def _sub_sp(self, op: Op) -> None:
        self.sp -= op.arg
        self._next()

    def _add_sp(self, op: Op) -> None:
        self.sp += op.arg
        self._next()

    def _add_fp(self, op: Op) -> None:
        self.fp = self.sp + op.arg
        self._next()

    def _cbz(self, op: Op) -> None:
        skip, when = op.arg
        if when is not None:
            taken = when(self)
        elif len(self.shadow) > self.max_depth:
            taken = True
        else:
            taken = self.take(self) if self.take else self.rng.random() < 0.5
        self.pc += 4 * skip if taken else 4

    def _b(self, op: Op) -> None:
        self.pc = self.program.labels[op.arg]

    def _b_cond(self, op: Op) -> None:
        self.pc = self.program.labels[op.arg] if self.rng.random() < 0.5 else self.pc + 4

    def _choose(self, op: Op) -> int:
        name = self.pick(self, op) if self.pick else self.rng.choice(op.arg)
        return self.program.labels[name]

    def _br(self, op: Op) -> None:
        self.pc = self._choose(op)

    def _enter(self, target: int) -> None:
        self.lr = self.pc + 4
        self.shadow.append(Frame(self.lr))
        self.pc = target

    def _bl(self, op: Op) -> None:
        target = self.program.labels[op.arg]
        redirected = [new for old, new in self.program.redirects if self.program.labels[old] == target]
        self._enter(self.program.labels[redirected[0]] if redirected else target)

    def _blr(self, op: Op) -> None:
        self._enter(self._choose(op))

    def _ret(self, _: Op) -> None:
        labels, top = self.program.labels, self.shadow[-1]
        self.pc = self.lr
        if self.pc == labels["__kretprobe_trampoline"]:
            self._leave_kretprobe()
        if self.pc == labels["return_to_handler"]:
            return  # the traced function has returned; its caller is still to be returned to
        assert (top.kind, top.ret) == ("call", self.pc), "the synthetic program returned to a wrong place"
        self.shadow.pop()

    def _leave_kretprobe(self) -> None:
        trampoline = self.pc
        while self.pc == trampoline:
            entry = self.kretprobe.pop()
            assert entry.key == self.fp
            self.pc = entry.ret

    def _eret(self, _: Op) -> None:
        assert self.shadow.pop().kind == "exception"
        self.pc, self.sp, self.fp, self.lr, self.x0, self.x9 = self._saved.pop()

    def _brk(self, op: Op) -> None:
        raise Stop(f"brk {op.arg}")

    def truth(self, *, blocked: bool) -> list[tuple[int, bool]]:
        """Give the true trace: (pc, exact) innermost first; a blocked task starts at the caller of cpu_switch_to."""
        chain = [] if blocked else [(self.pc, True)]
        live = (frame for frame in reversed(self.shadow) if frame.kind != "end")
        return chain + [(frame.ret, frame.kind == "exception") for frame in live]
