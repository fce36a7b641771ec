"""The emulated machine: it boots, serves its programs, takes interrupts, and the same seed gives the same run."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from surefoot.machine.board import Board, Stop
from surefoot.machine.ground_truth import Truth
from surefoot.machine.loader import Variant, load_kernel
from surefoot.machine.target import Machine


class Log:
    """An observer that keeps a digest of every address executed, and what happened."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.addresses: set[int] = set()
        self.exceptions: list[tuple[bool, bool]] = []

    def step(self, addr: int) -> None:
        self.digest.update(addr.to_bytes(8, "little"))
        self.addresses.add(addr)

    def exception(self, pc: int, *, user: bool, sync: bool) -> None:
        del pc
        self.exceptions.append((user, sync))


def _run(variant: Variant, seed: int, insns: int) -> tuple[Board, Log]:
    log = Log()
    board = Board(load_kernel(variant), seed=seed, observer=log)
    assert board.run(insns) is Stop.LIMIT
    return board, log


@pytest.mark.parametrize("variant", list(Variant))
def test_every_variant_boots_and_serves_its_programs(variant: Variant) -> None:
    """Each build prints its greeting, serves system calls and takes interrupts and faults at both levels."""
    board, log = _run(variant, 0, 150_000)
    machine = Machine(board)
    assert board.status is None
    assert board.console.startswith("surefoot's kernel, seed 0\n")
    assert machine.control("syscalls") > 20
    assert machine.control("pair_errors") == 0
    assert set(log.exceptions) == {(True, True), (True, False), (False, True), (False, False)}
    kernel = {addr for addr in log.addresses if addr >> 63}
    assert len(kernel) > 1_900
    assert len(log.addresses) > len(kernel)


def test_the_same_seed_gives_the_same_run() -> None:
    """Two runs agree in every instruction; another seed gives another run."""
    first, again, other = (_run(Variant.SFRAME, seed, 60_000)[1].digest.hexdigest() for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_snapshots_bring_everything_back() -> None:
    """A restored machine does what it did before, to the last byte."""
    board, _ = _run(Variant.SFRAME, 3, 50_000)
    snapshot = board.snapshot()
    board.run(20_000)
    after = (board.registers, board.count, board.console, board.snapshot().memory)
    board.restore(snapshot)
    assert board.count == 50_000
    board.run(20_000)
    assert (board.registers, board.count, board.console, board.snapshot().memory) == after


def test_an_injected_interrupt_is_taken_at_once() -> None:
    """It enters at the very instruction, unless interrupts are masked there."""
    board, log = _run(Variant.SFRAME, 0, 50_000)
    while board.irq_masked or board.registers.user:
        board.run(1)
    pc, count = board.registers.pc, board.count
    board.inject()
    board.run(1)
    vectors = board.kernel.span("vectors")
    assert vectors[0] <= board.registers.pc < vectors[1]
    assert log.exceptions[-1] == (False, False)
    assert board.count == count + 1
    assert board.injected
    board.run(1_000)
    assert not board.injected
    assert pc in log.addresses


def test_a_stack_overflow_is_caught_by_the_vectors() -> None:
    """A kthread that recurses for ever ends on the overflow stack, and the machine with a panic."""
    board, _ = _run(Variant.SFRAME, 0, 30_000)
    Machine(board).control("overflow", 1)
    assert board.run(500_000) is Stop.EXIT
    assert board.status == 1
    assert "stack overflow at" in board.console
    assert "panic: kernel stack overflow" in board.console


def test_return_addresses_are_signed() -> None:
    """Pointer authentication is on: words on the stacks carry codes, and stripping them gives code addresses."""
    board, _ = _run(Variant.SFRAME, 0, 60_000)
    instant = Machine(board).instant()
    words = instant.stacks.words
    text = instant.code.text
    low, high = text.addr[0], text.addr[-1] + np.uint64(4 * np.diff(text.word_off)[-1])
    stripped = instant.layout.strip(words)
    signed = (stripped != words) & (stripped >= low) & (stripped < high)
    assert np.count_nonzero(signed) > 20


def test_the_truth_knows_every_task() -> None:
    """A task that is switched out is truly inside __schedule, below what it was doing."""
    kernel = load_kernel()
    truth = Truth(kernel)
    board = Board(kernel, observer=truth)
    truth.attach(board)
    board.run(100_000)
    instant = Machine(board).instant()
    names = kernel.functions.names
    seen = 0
    for row, slot in enumerate(instant.info.slot.tolist()):
        chain = truth.blocked(slot)
        if instant.info.on_cpu[row] or not chain:
            continue
        pcs = np.array([addr for addr, _ in chain], dtype=np.uint64)
        exact = np.array([exact for _, exact in chain], dtype=np.bool_)
        found = [names[i] for i in kernel.functions.lookup(pcs, ~exact).tolist()]
        assert found[:2] == ["__switch_to", "__schedule"]
        assert found[-1].startswith(("el0t_64_", "ret_from_fork", "__primary_switched"))
        seen += 1
    assert seen >= 4
