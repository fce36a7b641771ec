"""The task list: complete, bounded, and never raising."""

from __future__ import annotations

import pytest

from linux_memory import SYMBOLS, Kernel
from surefoot.targets.reading import u32_at
from surefoot.targets.tasks import is_kthread, list_tasks, online_cpus, state_letter


def _pids(kernel: Kernel) -> tuple[list[int], list[str]]:
    cpus, _ = online_cpus(kernel.memory, kernel.layout, 0)
    tasks, notes = list_tasks(kernel.memory, kernel.layout, 0, cpus)
    return [u32_at(task.block, kernel.layout["task.pid"]) for task in tasks], notes


def test_every_thread_and_every_idle_task_is_listed_once() -> None:
    kernel = Kernel(cpus=2)
    kernel.task(1)
    kernel.task(10, threads=3)
    pids, notes = _pids(kernel)
    assert sorted(pids) == [0, 0, 1, 10, 11, 12, 13]
    assert notes == []


def test_offline_cpus_have_no_idle_task_in_the_list() -> None:
    kernel = Kernel(cpus=3)
    kernel.prog.poke(SYMBOLS["__cpu_online_mask"], 0b101)
    cpus, _ = online_cpus(kernel.memory, kernel.layout, 0)
    assert [cpu.number for cpu in cpus] == [0, 2]


def test_a_broken_task_list_gives_what_came_before_the_break() -> None:
    kernel = Kernel()
    first = kernel.task(1)
    kernel.task(2)
    kernel.set(first, "tasks", 0x1234)
    pids, notes = _pids(kernel)
    assert sorted(pids) == [0, 1]
    assert any("cannot be read" in note or "breaks off" in note for note in notes)


def test_a_task_list_that_runs_in_a_circle_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("surefoot.targets.tasks._MAX_TASKS", 50)
    kernel = Kernel()
    first = kernel.task(1)
    kernel.task(2)
    kernel.set(first, "tasks", first + kernel.numbers["task.tasks"])
    pids, notes = _pids(kernel)
    assert sorted(pids) == [0, 1]
    assert any("breaks off" in note for note in notes)


def test_unreadable_cpu_data_is_a_note() -> None:
    kernel = Kernel()
    del kernel.prog.blocks[SYMBOLS["__cpu_online_mask"]]
    cpus, notes = online_cpus(kernel.memory, kernel.layout, 0)
    assert cpus == []
    assert notes


def test_an_unreadable_idle_task_is_a_note() -> None:
    kernel = Kernel()
    kernel.prog.poke(SYMBOLS["runqueues"] + kernel.cpu_offsets[0] + kernel.numbers["rq.idle"], 0x10)
    _, notes = _pids(kernel)
    assert notes == ["the idle task of CPU 0 cannot be read"]


@pytest.mark.parametrize(
    ("state", "exit_state", "letter"),
    [
        (0, 0, "R"),
        (1, 0, "S"),
        (2, 0, "D"),
        (0x102, 0, "D"),
        (4, 0, "T"),
        (8, 0, "t"),
        (0x80, 0x10, "X"),
        (0x80, 0x20, "Z"),
        (0x40, 0, "P"),
        (0x402, 0, "I"),
        (0x1000, 0, "D"),
        (0x8000, 0, "D"),
    ],
)
def test_state_letters_are_those_of_ps(state: int, exit_state: int, letter: str) -> None:
    kernel = Kernel()
    task = kernel.task(1)
    kernel.set(task, "state", state, 4)
    kernel.set(task, "exit_state", exit_state, 4)
    block = kernel.memory.read(task, kernel.numbers["sizeof.task"])
    assert block is not None
    assert state_letter(block, kernel.layout) == letter


def test_kernel_threads_are_told_by_their_flag() -> None:
    kernel = Kernel()
    task = kernel.task(2)
    kernel.set(task, "flags", 0x0020_8040, 4)
    block = kernel.memory.read(task, kernel.numbers["sizeof.task"])
    assert block is not None
    assert is_kthread(block, kernel.layout)
