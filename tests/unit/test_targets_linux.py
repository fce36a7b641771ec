"""A whole capture of a hand-made kernel, and what becomes of it when its memory is damaged."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from linux_memory import SYMBOLS, Kernel, no_mechanisms
from surefoot.dtypes import Addr
from surefoot.errors import Inconsistent, Unavailable
from surefoot.image.model import Text
from surefoot.proof.compact import KeptProof, join_kept, nothing_kept
from surefoot.proof.verdicts import NO_PROOFS, Verdict
from surefoot.targets.dumpfile import CpuRegisters
from surefoot.targets.imagetables import FunctionColumns, empty_rules
from surefoot.targets.kerneltables import KernelTables
from surefoot.targets.linux import LinuxTarget
from surefoot.targets.names import NameColumn
from surefoot.targets.vmcoreinfo import parse_vmcoreinfo
from surefoot.unwind import walker
from surefoot.unwind.code import CodeMap
from surefoot.unwind.context import Mode
from surefoot.unwind.state import Source, StackKind, Start

TEXT = 0xFFFF_8000_8001_0000


def _tables(kernel: Kernel) -> KernelTables:
    words = np.full(64, 0xD503_201F, dtype=np.uint32)
    functions = FunctionColumns(
        np.array([TEXT], dtype=np.uint64),
        np.array([TEXT + 256], dtype=np.uint64),
        np.zeros(1, dtype=np.uint8),
        NameColumn.of(["only"]),
    )
    text = Text.from_ranges([(TEXT, words, 1)])
    return KernelTables(kernel.layout, {"only": TEXT}, functions, empty_rules(), no_mechanisms(), text)


def _target(kernel: Kernel, *registers: CpuRegisters) -> LinuxTarget:
    info = parse_vmcoreinfo("OSRELEASE=7\nBUILD-ID=ab\n")
    return LinuxTarget(
        kernel.prog,
        "test",
        info,
        _tables(kernel),
        lambda: registers,
        vmlinux=Path("vmlinux"),
    )


def _kernel() -> Kernel:
    kernel = Kernel(cpus=2)
    kernel.prog.put(TEXT, b"\x1f\x20\x03\xd5" * 63 + b"\0\0\0\0")
    return kernel


def _regs(sp: int, pstate: int = 0x3C5) -> CpuRegisters:
    return CpuRegisters(tuple(range(31)), sp, TEXT, pstate, 1)


def _stack_of(kernel: Kernel, task: int) -> int:
    return kernel.memory.u64(task + kernel.numbers["task.stack"]) or 0


def test_a_capture_holds_every_task_with_its_start() -> None:
    kernel = _kernel()
    blocked, running, user = kernel.task(10), kernel.task(20, on_cpu=1), kernel.task(30, cpu=1, on_cpu=1)
    kernel.set_curr(0, running)
    kernel.set_curr(1, user)
    for idle in kernel.idle:
        kernel.set(idle, "on_cpu", 0, 1)
    dead = kernel.task(40)
    kernel.set(dead, "stack", 0)
    sp = _stack_of(kernel, running) + 0x3000
    capture = _target(kernel, _regs(sp), _regs(0x7FFF_0000, 0x1000)).capture()
    starts = dict(zip(capture.info.pid.tolist(), capture.tasks.start.tolist(), strict=True))
    assert starts == {0: Start.BLOCKED, 10: Start.BLOCKED, 20: Start.REGS, 30: Start.USER, 40: Start.NO_STACK}
    row = capture.info.pid.tolist().index(20)
    assert capture.tasks.sp[row] == sp
    assert capture.tasks.lr[row] == 30
    assert capture.tasks.stacks[row, StackKind.IRQ] >= 0
    assert capture.tasks.stacks[row, StackKind.OVERFLOW] >= 0
    assert capture.tasks.stacks[row, StackKind.EFI] == -1
    blocked_row = capture.info.pid.tolist().index(10)
    assert (capture.tasks.stacks[blocked_row, 1:] == -1).all()
    stack = capture.tasks.stacks[blocked_row, StackKind.TASK]
    low = _stack_of(kernel, blocked)
    assert capture.stacks.low[stack] == low
    assert capture.stacks.captured[stack] == low + 0x4000 - 0x400
    assert capture.tasks.final_record[blocked_row] == low + 0x4000 - 320 + 296
    assert capture.info.on_cpu.tolist() == [pid in {20, 30} for pid in capture.info.pid.tolist()]
    assert capture.notes == ()


def test_a_task_on_the_irq_stack_keeps_its_whole_task_stack() -> None:
    kernel = _kernel()
    irq = kernel.memory.u64(SYMBOLS["irq_stack_ptr"] + kernel.cpu_offsets[0]) or 0
    kernel.set(kernel.idle[1], "on_cpu", 0, 1)
    capture = _target(kernel, _regs(irq + 0x2000)).capture([0])
    row = capture.tasks.start.tolist().index(Start.REGS)
    stack = capture.tasks.stacks[row, StackKind.TASK]
    assert capture.stacks.captured[stack] == capture.stacks.low[stack]


def test_the_efi_stack_is_the_callers_only() -> None:
    kernel = _kernel()
    efi = kernel.stack()
    kernel.prog.poke(SYMBOLS["efi_rt_stack_top"], efi + 0x4000)
    kernel.prog.poke(efi + 0x4000 - 8, _stack_of(kernel, kernel.idle[1]) + 0x3800)
    capture = _target(kernel, _regs(_stack_of(kernel, kernel.idle[0]) + 0x3000), _regs(efi + 0x100)).capture([0])
    on_efi = capture.tasks.stacks[:, StackKind.EFI] >= 0
    assert on_efi.tolist() == [False, True]
    assert capture.tasks.start.tolist() == [Start.REGS, Start.REGS]


def test_chosen_tasks_only() -> None:
    kernel = _kernel()
    kernel.task(10, threads=2)
    target = _target(kernel)
    assert target.capture([11]).info.pid.tolist() == [11]
    assert target.capture([0]).info.comm == ("swapper/0", "swapper/1")
    with pytest.raises(Unavailable, match="no task with pid 7, 8"):
        target.capture([8, 10, 7])


def test_a_stack_that_is_partly_unreadable_is_kept_from_the_gap_up() -> None:
    kernel = _kernel()
    task = kernel.task(10)
    low = _stack_of(kernel, task)
    words = kernel.prog.blocks.pop(low)
    kernel.prog.put(low + 0x2000, bytes(words[0x2000:]))
    kernel.set(task, "context_sp", low + 0x100)
    capture = _target(kernel).capture([10])
    assert capture.stacks.captured.tolist() == [low + 0x2000]
    assert capture.stacks.words.size == 0x400


def test_without_registers_a_running_task_is_marked() -> None:
    kernel = _kernel()
    assert _target(kernel).capture([0]).tasks.start.tolist() == [Start.NO_REGS, Start.NO_REGS]


def test_without_a_task_list_there_is_an_error() -> None:
    kernel = _kernel()
    kernel.prog.blocks.clear()
    with pytest.raises(Unavailable, match="task list"):
        _target(kernel).capture()


def test_a_word_of_text_that_nothing_explains_is_changed() -> None:
    code = _target(_kernel()).code
    assert code.changed.tolist() == [TEXT + 252]
    assert code.labels == {"only": TEXT}
    assert code.text.live


def test_a_kernel_without_record_metadata_is_named() -> None:
    kernel = Kernel(without=("frame_record_meta.type",))
    assert "mark neither exception boundaries" in _target(kernel).capture().notes[-1]


def test_rows_and_stacks_stay_together_when_tasks_are_taken() -> None:
    kernel = _kernel()
    for pid in (10, 20, 30):
        low = _stack_of(kernel, kernel.task(pid))
        kernel.prog.poke(low + 0x4000 - 8, pid)
    capture = _target(kernel).capture()
    taken = capture.take(capture.rows_of([30, 10]))
    assert taken.info.pid.tolist() == [10, 30]
    taken.tasks.check(taken.stacks)
    taken.stacks.check()
    taken.info.check()
    top = taken.stacks.high[taken.tasks.stacks[:, 0]] - np.uint64(8)
    values, good = taken.stacks.read(taken.tasks.stacks[:, 0].astype(np.int64), top)
    assert good.all()
    assert values.tolist() == [10, 30]
    with pytest.raises(Unavailable):
        capture.rows_of([99])


def test_a_task_list_of_unequal_columns_is_refused() -> None:
    info = _target(_kernel()).capture().info
    with pytest.raises(Inconsistent):
        replace(info, state=()).check()


def test_corrupt_memory_never_raises() -> None:
    """Whatever lies in the target's structures, a capture is made or refused by one of our errors."""
    rng = random.Random(3)
    for _ in range(150):
        kernel = _kernel()
        kernel.task(10, threads=1)
        kernel.set_curr(1, kernel.task(20, on_cpu=1))
        blocks = list(kernel.prog.blocks.items())
        for _ in range(rng.randint(1, 12)):
            base, block = rng.choice(blocks)
            at = rng.randrange(0, min(len(block), 256) - 7) & ~7
            value = rng.choice([0, 1, base, rng.getrandbits(64), rng.choice(blocks)[0] + 8 * rng.randrange(8)])
            kernel.prog.poke(base + at, value)
        try:
            capture = _target(kernel, _regs(rng.choice(blocks)[0] + 0x3000)).capture()
        except Unavailable:
            continue
        capture.tasks.check(capture.stacks)
        capture.stacks.check()
        capture.info.check()


class _Proofs:
    """Offers what `prove_boundaries` uses of a `CodeProofs`."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.notes = ["one.ko: its rules cannot be proved"]
        self.proof = nothing_kept()

    def ask(self, addr: Addr) -> None:
        """Prove one instruction at each address."""
        self.asked.append(addr.tolist())
        codes = np.full(addr.size, Verdict.PROVEN, dtype=np.uint8)
        self.proof = join_kept([self.proof, KeptProof(addr, addr + np.uint64(4), codes, codes)])

    def forget(self) -> None:
        """Do nothing."""


def _walked(*boundaries: int) -> Any:
    """Give traces with these exception boundaries, and a frame that is none."""
    pc = np.array([*boundaries, 4], dtype=np.uint64)
    return SimpleNamespace(pc=pc, source=np.array([Source.REGS] * len(boundaries) + [Source.FRAME]))


def test_walks_and_proofs_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A boundary that is crossed reveals the next one; what was asked before is not asked again."""
    target, made = _target(_kernel()), _Proofs()
    monkeypatch.setattr(target, "_code_proofs", lambda: made)

    def walk(code: CodeMap, *_columns: object, mode: Mode) -> Any:
        crossed = code.proofs.verdict(np.array([0x100, 0x200], dtype=np.uint64)) == Verdict.PROVEN
        if mode is Mode.SFRAME:
            return _walked(0x300)
        return _walked(0x100, *([0x200] if crossed[0] else []))

    monkeypatch.setattr(walker, "walk", walk)
    capture = target.capture()
    assert capture.code.proofs is NO_PROOFS
    proved = target.prove_boundaries(capture, (Mode.HYBRID, Mode.SFRAME))
    assert made.asked == [[0x100, 0x300], [0x200]]
    where = np.array([0x100, 0x104, 0x200, 0x300], dtype=np.uint64)
    answers = [Verdict.PROVEN, Verdict.UNPROVEN, Verdict.PROVEN, Verdict.PROVEN]
    assert proved.code.proofs.verdict(where).tolist() == answers
    assert proved.notes[-1:] == ("one.ko: its rules cannot be proved",)
    assert target.prove_boundaries(proved) is proved


def test_walks_without_boundaries_ask_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Yet the walk is told that proofs are at hand: none is crossed unproved."""
    target, made = _target(_kernel()), _Proofs()
    monkeypatch.setattr(target, "_code_proofs", lambda: made)
    capture = target.capture()
    assert target.prove_boundaries(capture).code.proofs is not NO_PROOFS
    assert made.asked == []
