"""Registers go to the task on whose stack they run, and to nobody else."""

from __future__ import annotations

from surefoot.targets.dumpfile import CpuRegisters
from surefoot.targets.placing import CpuStacks, EfiStack, TaskStack, place_registers
from surefoot.unwind.state import Start

PREV, NEXT, OTHER = 0x1000, 0x2000, 0x3000
KERNEL, USER, USER32 = 0x3C5, 0x1000, 0x10


def task(addr: int, low: int, *, cpu: int = 0, on_cpu: bool = False, kthread: bool = False) -> TaskStack:
    return TaskStack(addr, low, low + 0x4000 if low else 0, cpu, on_cpu, kthread)


def regs(sp: int, pstate: int = KERNEL) -> CpuRegisters:
    return CpuRegisters((0,) * 31, sp, 0xFFFF_8000_8001_0000, pstate, 1)


def cpu(number: int, curr: int) -> CpuStacks:
    low = 0x900_0000 + number * 0x10000
    return CpuStacks(number, curr, [(low, low + 0x4000), (low + 0x8000, low + 0x9000)])


def test_the_stack_decides() -> None:
    placed = place_registers(
        [task(PREV, 0x10000, on_cpu=True), task(OTHER, 0x20000)], [cpu(0, PREV)], [regs(0x13F00)]
    )
    assert placed.start == {PREV: Start.REGS}
    assert placed.registers[PREV].sp == 0x13F00
    assert placed.cpu == {PREV: 0}


def test_a_stack_pointer_at_the_very_top_still_belongs_to_its_stack() -> None:
    placed = place_registers([task(PREV, 0x10000, on_cpu=True)], [cpu(0, PREV)], [regs(0x14000)])
    assert placed.start == {PREV: Start.REGS}


def test_while_switching_the_registers_are_those_of_the_task_whose_stack_is_in_use() -> None:
    """rq->curr already names the next task; on_cpu is set for both."""
    tasks = [task(PREV, 0x10000, on_cpu=True), task(NEXT, 0x20000, on_cpu=True)]
    before = place_registers(tasks, [cpu(0, NEXT)], [regs(0x13000)])
    assert before.start == {PREV: Start.REGS, NEXT: Start.SWITCHING}
    after = place_registers(tasks, [cpu(0, NEXT)], [regs(0x23000)])
    assert after.start == {PREV: Start.SWITCHING, NEXT: Start.REGS}


def test_an_irq_stack_belongs_to_what_its_cpu_runs() -> None:
    tasks = [task(PREV, 0x10000, on_cpu=True), task(NEXT, 0x20000, cpu=1, on_cpu=True)]
    placed = place_registers(tasks, [cpu(0, PREV), cpu(1, NEXT)], [regs(0x901_0800), regs(0x12000)])
    assert placed.start == {PREV: Start.REGS, NEXT: Start.REGS}
    assert placed.cpu == {PREV: 0, NEXT: 1}
    assert placed.registers[NEXT].sp == 0x901_0800


def test_the_efi_stack_belongs_to_the_task_that_called_firmware() -> None:
    tasks = [task(PREV, 0x10000, on_cpu=True), task(NEXT, 0x20000, cpu=1, on_cpu=True)]
    efi = EfiStack(0x5000_0000, 0x5000_4000, 0x22000)
    placed = place_registers(tasks, [cpu(0, PREV), cpu(1, NEXT)], [regs(0x12000), regs(0x5000_2000)], efi)
    assert placed.registers[NEXT].sp == 0x5000_2000


def test_user_mode_cpus_are_those_that_no_kernel_registers_account_for() -> None:
    tasks = [task(PREV, 0x10000, on_cpu=True), task(NEXT, 0x20000, cpu=1, on_cpu=True)]
    for pstate in (USER, USER32):
        placed = place_registers(tasks, [cpu(0, PREV), cpu(1, NEXT)], [regs(0x7FFF_0000, pstate), regs(0x22000)])
        assert placed.start == {NEXT: Start.REGS, PREV: Start.USER}


def test_a_kernel_thread_never_runs_in_user_mode() -> None:
    placed = place_registers(
        [task(PREV, 0x10000, on_cpu=True, kthread=True)], [cpu(0, PREV)], [regs(0x7FFF_0000, USER)]
    )
    assert placed.start == {PREV: Start.SWITCHING}


def test_without_a_cpus_registers_nothing_is_said_of_its_task() -> None:
    tasks = [task(PREV, 0x10000, on_cpu=True), task(NEXT, 0x20000, cpu=1, on_cpu=True), task(OTHER, 0x30000)]
    placed = place_registers(tasks, [cpu(0, PREV), cpu(1, NEXT)], [regs(0x13000)])
    assert placed.start == {PREV: Start.REGS, NEXT: Start.NO_REGS}
    nothing = place_registers(tasks, [], [])
    assert nothing.start == {PREV: Start.NO_REGS, NEXT: Start.NO_REGS}


def test_registers_on_no_known_stack_are_a_note_and_leave_their_task_without() -> None:
    placed = place_registers([task(PREV, 0x10000, on_cpu=True)], [cpu(0, PREV)], [regs(0x666_0000)])
    assert placed.start == {PREV: Start.NO_REGS}
    assert len(placed.notes) == 1


def test_two_cpus_on_one_stack_cannot_both_be_right() -> None:
    tasks = [task(PREV, 0x10000, on_cpu=True), task(NEXT, 0x20000, cpu=1, on_cpu=True)]
    placed = place_registers(tasks, [cpu(0, PREV), cpu(1, NEXT)], [regs(0x12000), regs(0x13000)])
    assert placed.start[NEXT] == Start.NO_REGS
    assert len(placed.notes) == 1
