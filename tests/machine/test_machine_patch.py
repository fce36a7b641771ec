"""Live patching on the emulated machine: no call mixes old and new code, whoever is caught where."""

from __future__ import annotations

import os

import numpy as np
import pytest

from patch_campaign import campaign
from surefoot.cli.patch_emulated import PAIR_PATCH, EmulatedTarget, EngineDriver
from surefoot.errors import PatchError, SiteMismatch, TargetError
from surefoot.machine.board import Board, MachineFault, Stop
from surefoot.machine.loader import Variant, load_kernel
from surefoot.machine.patching import Patching
from surefoot.machine.patchrun import CallWatch, Naive, PatchJob, Tally, run_patching
from surefoot.machine.target import Machine
from surefoot.patch.engine import Engine, Settings
from surefoot.patch.events import EventKind, Hold, PatchState
from surefoot.patch.model import Patch, PatchFunction, PatchObject
from surefoot.patch.stack import Side

KERNEL = load_kernel()
VAULT = Patch("vault", (PatchObject("vmlinux", (PatchFunction("vault_read", 0, "vault_read_new"),)),))


def _booted(seed: int = 1, *, tracing: int = 0, light: bool = True, insns: int = 60_000) -> Patching:
    watch = CallWatch(KERNEL)
    board = Board(KERNEL, seed=seed, observer=watch)
    watch.attach(board)
    machine = Machine(board)
    machine.control("light", int(light))
    machine.control("tracing", tracing)
    board.run(insns)
    return Patching(machine)


def _engine(patching: Patching, *, pace: int = 600, timeout: float | None = None) -> Engine:
    board = patching.machine.board
    return Engine(EmulatedTarget(patching, pace=pace), lambda: float(board.count), Settings(timeout_s=timeout))


@pytest.mark.parametrize(
    ("tracing", "pace", "light"),
    [(0, 1_200, True), (1, 8_000, True), (2, 1_200, True), (3, 8_000, True), (-1, 4_000, True), (0, 2_500, False)],
)
def test_no_call_mixes_old_and_new(tracing: int, pace: int, *, light: bool) -> None:
    """Transitions at random instants, some turned round: every call is wholly old or new, and made once."""
    job = PatchJob(seed=50 + tracing, transitions=16, tracing=tracing, pace=pace, light=light)
    found = run_patching(KERNEL, EngineDriver, job)
    assert found.clean, found
    assert found.transitions == 16
    assert found.new > 0
    assert found.calls == found.old + found.new


@pytest.mark.parametrize("variant", [Variant.CFI, Variant.SCS])
def test_the_other_builds_are_patched_too(variant: Variant) -> None:
    """The same with metadata from .eh_frame, and with shadow call stacks."""
    found = run_patching(load_kernel(variant), EngineDriver, PatchJob(seed=8, transitions=12))
    assert found.clean, found


def test_patching_everybody_at_once_mixes() -> None:
    """Without a consistency model calls mix, and the kernel finds the same number as the observer, or fewer."""
    found = Tally()
    for seed in (1, 2):
        found.add(run_patching(KERNEL, Naive, PatchJob(seed=seed, transitions=40)))
    assert found.mixed > 5
    assert 0 < found.told_mixed <= found.mixed
    assert found.calls == found.told_calls


def test_the_vault_is_closed_and_opened_again() -> None:
    """Secrets leak before the patch and after its reversal, not while it is applied."""
    patching = _booted()
    engine, machine = _engine(patching), patching.machine
    leaked = []
    for step in ("", "apply", "revert"):
        if step:
            events = list(engine.apply(VAULT) if step == "apply" else engine.revert("vault"))
            assert events[-1].kind is EventKind.COMPLETED
        before = machine.control("leaks")
        machine.board.run(250_000)
        leaked.append(machine.control("leaks") - before)
    assert leaked[0] > 0
    assert leaked[1] == 0
    assert leaked[2] > 0


def test_two_patches_are_stacked() -> None:
    """Each is applied and taken back on its own; the table of the handler says so."""
    patching = _booted(3)
    engine = _engine(patching)
    for events in (engine.apply(PAIR_PATCH), engine.apply(VAULT)):
        assert list(events)[-1].kind is EventKind.COMPLETED
    find = patching.find
    pair = [(find(name), find(f"{name}_new"), find(f"{name}_new")) for name in ("pair_f", "pair_g")]
    vault = (find("vault_read"), find("vault_read_new"), find("vault_read_new"))
    assert patching.table() == sorted([*pair, vault])
    assert [status.patch for status in engine.status()] == ["pair", "vault"]
    list(engine.revert("pair"))
    assert patching.table() == [vault]
    list(engine.revert("vault"))
    assert patching.table() == []


def _park(patching: Patching, name: str) -> int:
    """Let the machine run until a task sleeps in a function, and do not let it wake; gives its pid."""
    kernel, board = patching.machine.kernel, patching.machine.board
    low, high = kernel.span(name)
    for _ in range(3_000):
        board.run(200)
        tasks = [task for task in patching.tasks() if not task.idle and task.addr != patching.machine.running()]
        traces = patching.walk([task.key for task in tasks])
        for i, task in enumerate(tasks):
            pcs = traces.pc[traces.first[i] : traces.first[i + 1]]
            asleep = board.read(task.addr + kernel["task_state"], 4)[0] == 1
            if asleep and np.any((pcs >= low) & (pcs < high)):
                board.write_u64(task.addr + kernel["task_wake_at"], 1 << 50)
                return task.key
    raise AssertionError(f"nobody sleeps in {name}")


def test_a_task_in_the_old_function_is_named() -> None:
    """It holds the transition up, is named with function and trace, and the timeout turns everything round."""
    patching = _booted(2)
    pid = _park(patching, "pair_f")
    events = list(_engine(patching, timeout=30_000).apply(PAIR_PATCH))
    blocked = [event for event in events if event.kind is EventKind.BLOCKED][-1]
    (task,) = blocked.tasks
    assert (task.pid, task.hold, task.blocked_by) == (pid, Hold.ON_STACK, "pair_f")
    assert any(place.startswith("pair_f+") for place in task.trace)
    assert EventKind.REVERSED in {event.kind for event in events}
    assert events[-1].state is PatchState.ABSENT
    assert patching.table() == []


def test_a_released_task_lets_the_transition_end() -> None:
    """Once it has returned, it goes over, and so it is complete."""
    patching = _booted(2)
    pid = _park(patching, "pair_f")
    board, kernel = patching.machine.board, patching.machine.kernel
    addr = next(task.addr for task in patching.tasks() if task.key == pid)
    causes: dict[int, str] = {}
    for event in _engine(patching).apply(PAIR_PATCH):
        if event.kind is EventKind.CROSSED:
            causes |= {task.pid: next(iter(event.figures)) for task in event.tasks}
        if event.left == 1 and event.kind is EventKind.RETRIED:
            board.write_u64(addr + kernel["task_wake_at"], board.count + 1)
    assert causes[pid] in {"by_exit", "by_stack"}
    assert _engine_states(patching) == [-1] * len(patching.tasks())


def _engine_states(patching: Patching) -> list[int]:
    return [task.side for task in patching.tasks()]


def test_tasks_cross_in_every_way() -> None:
    """By their stacks, at the kernel's exit, in the idle loop, and by being born over."""
    patching = _booted(4)
    target = EmulatedTarget(patching, pace=9_000)
    engine = Engine(target, lambda: 0.0)
    causes: set[str] = set()
    for events in (engine.apply(PAIR_PATCH), engine.revert("pair")):
        target.patience = 4
        for event in events:
            causes |= {name for name in event.figures if name.startswith("by_")}
    assert causes == {"by_stack", "by_exit", "by_idle", "by_fork"}


def test_new_tasks_take_side_and_flag_from_their_parent() -> None:
    """All children of a kthread that has not gone over have not either, and are flagged."""
    patching = _booted(5)
    known = {task.key for task in patching.tasks()}
    patching.set_side(sorted(known), int(Side.UNPATCHED))
    patching.set_goal(int(Side.PATCHED))
    (reaper,) = [task.key for task in patching.tasks() if task.comm == "reaper"]
    patching.set_pending([reaper], pending=True)
    born: dict[Side, list[tuple[int, bool]]] = {}
    for side, pending in ((Side.UNPATCHED, True), (Side.PATCHED, False)):
        patching.set_side([reaper], int(side))
        patching.set_pending([reaper], pending=pending)
        for _ in range(2_000):
            patching.machine.board.run(20)
            patching.barrier()  # a task that is half made has neither yet
            fresh = [task for task in patching.tasks() if task.key not in known]
            known |= {task.key for task in fresh}
            for task in fresh:
                born.setdefault(side, []).append((task.side, task.pending))
            if len(born.get(side, [])) > 2:
                break
        assert set(born[side]) == {(int(side), pending)}


def test_sites_are_written_all_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A site that holds something else, or a write that fails, leaves every byte as it was."""
    patching = _booted()
    patching.barrier()
    board, find = patching.machine.board, patching.find
    table = [(find(name), find(f"{name}_new"), find(f"{name}_new")) for name in ("pair_f", "pair_g")]
    before = board.snapshot().memory
    sound = board.read(table[1][0] + 4, 4)
    board.write(table[1][0] + 4, bytes(4))
    with pytest.raises(SiteMismatch, match="holds"):
        patching.redirect(table)
    board.write(table[1][0] + 4, sound)
    assert board.snapshot().memory == before
    write, left = Board.write, [3]

    def failing(self: Board, addr: int, data: bytes) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise MachineFault("no memory")
        write(self, addr, data)

    monkeypatch.setattr(Board, "write", failing)
    with pytest.raises(PatchError, match="as before"):
        patching.redirect(table)
    monkeypatch.undo()
    assert board.snapshot().memory == before
    patching.redirect(table)
    patching.redirect([])
    assert board.snapshot().memory == before


@pytest.mark.parametrize("tracing", [0, 1])
def test_tracing_survives_patching(tracing: int) -> None:
    """Function-graph tracing may be switched while a patch is in force; sites are given back as they were."""
    patching = _booted(tracing=tracing)
    machine = patching.machine
    engine = _engine(patching, pace=4_000)
    list(engine.apply(PAIR_PATCH))
    for wanted in (1 - tracing, tracing):
        machine.control("tracing", wanted)
        machine.board.run(200_000)
        assert machine.control("tracing_now") == wanted
    list(engine.revert("pair"))
    ops = "graph_ops" if tracing else "ftrace_nop_ops"
    for name in ("pair_f", "pair_g"):
        assert machine.board.read_u64(patching.find(name) - 8) == KERNEL.symbol(ops)
    machine.board.run(100_000)
    assert machine.control("pair_errors") == 0


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (PatchFunction("nosuch", 0, "pair_f_new"), "no function nosuch"),
        (PatchFunction("pair_f", 2, "pair_f_new"), "position 2"),
        (PatchFunction("pair_f", 0, "nosuch"), "no function nosuch"),
        (PatchFunction("asm_sum", 0, "pair_f_new"), "no patch site"),
        (PatchFunction("do_idle", 0, "pair_f_new"), "goes over inside it"),
        (PatchFunction("pair_f", 0, "pair_f_new", "extra"), "no modules: extra"),
    ],
)
def test_what_cannot_be_patched_is_refused(function: PatchFunction, message: str) -> None:
    """By name, before anything is written."""
    patching = _booted(insns=20_000)
    before = patching.machine.board.snapshot().memory
    with pytest.raises(PatchError, match=message):
        list(_engine(patching).apply(Patch("wrong", (PatchObject("vmlinux", (function,)),))))
    assert patching.machine.board.snapshot().memory == before


def test_a_machine_that_ends_is_told() -> None:
    """A panic in the middle of a transition is an error, not an endless wait."""
    patching = _booted(2)
    _park(patching, "pair_f")
    patching.machine.control("overflow", 1)
    with pytest.raises(TargetError, match="has ended"):
        list(_engine(patching).apply(PAIR_PATCH))
    assert patching.machine.board.run(1) is Stop.EXIT


@pytest.mark.slow
def test_ten_thousand_transitions() -> None:
    """The whole campaign; see tests/patch_campaign.py, which prints its figures."""
    good, naive = campaign(10_000, 1_000, processes=os.cpu_count() or 1)
    for name, tally in good.items():
        assert tally.clean, (name, tally)
    assert sum(tally.transitions for tally in good.values()) >= 10_000
    assert sum(tally.mixed for tally in naive.values()) > 0
