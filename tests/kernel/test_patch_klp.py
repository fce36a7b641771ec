"""Linux's own livepatch for real: its samples and test modules, stuck transitions, and wrong verdicts."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import pytest

from built_kernel import NEEDS
from klp_modules import build_modules, built_kernel
from surefoot.cli.patch_backend import Options
from surefoot.cli.patch_klp import KlpBackend, open_backend
from surefoot.patch.events import Event, EventKind, Hold, PatchState, TaskState
from surefoot.targets.vm import kernels, machines

pytestmark = [pytest.mark.kernel, pytest.mark.needs("qemu-system-aarch64", *NEEDS)]

CYCLES = 100


@pytest.fixture(scope="module")
def kernel() -> kernels.Kernel:
    return built_kernel()


@pytest.fixture(scope="module")
def modules(kernel: kernels.Kernel) -> Path:
    return build_modules(kernel)


@pytest.fixture(scope="module")
def machine(kernel: kernels.Kernel, modules: Path) -> Iterator[machines.Machine]:
    """Give a guest with the modules whose functions are patched, gone when the tests are."""
    running = machines.boot(kernels.find(name=kernel.name), name=f"klp-{os.getpid()}", load=False)
    try:
        for name in ("klpt_target", "klpt_even"):
            running.console.push((modules / f"{name}.ko").read_bytes(), f"/run/{name}.ko")
            running.console.check(f"insmod /run/{name}.ko")
        yield running
    finally:
        log = running.serial_log.read_text("utf-8", "replace")
        running.stop()
        assert not re.search(r"Oops|BUG:|Kernel panic|Unable to handle", log), log[-4000:]


@pytest.fixture
def way(machine: machines.Machine, modules: Path) -> KlpBackend:
    options = Options(modules=modules, timeout_s=40.0, interval_s=0.05)
    return open_backend(f"guest:{machine.name}", options)


def last(events: Iterator[Event]) -> Event:
    *_, event = events
    return event


def loaded(machine: machines.Machine) -> set[str]:
    return {line.split()[0] for line in machine.console.check("cat /proc/modules").splitlines()}


def test_a_hundred_cycles_of_the_kernels_own_patches(machine: machines.Machine, way: KlpBackend) -> None:
    """Samples and test modules go in and out; what user space sees changes each time, and nothing stays behind."""
    clean = machine.console.check("cat /proc/cmdline")
    before = loaded(machine)
    seen: dict[str, Callable[[], bool]] = {
        "livepatch_sample": lambda: machine.console.check("cat /proc/cmdline") == "this has been live patched\n",
        "test_klp_livepatch": lambda: "this has been live patched" in machine.console.check("cat /proc/cmdline"),
        "test_klp_atomic_replace": lambda: "live patched" in machine.console.check("cat /proc/meminfo"),
        "livepatch_callbacks_demo": lambda: True,
        "test_klp_callbacks_demo": lambda: True,
        "test_klp_callbacks_demo2": lambda: True,
        "test_klp_state": lambda: True,
        "livepatch_shadow_fix1": lambda: True,
        "livepatch_shadow_fix2": lambda: True,
        "test_klp_mod_patch": lambda: True,
    }
    times: list[float] = []
    for number in range(CYCLES):
        name = list(seen)[number % len(seen)]
        event = last(way.apply(name, force=False))
        assert (event.kind, event.state) == (EventKind.COMPLETED, PatchState.APPLIED), event
        times.append(event.elapsed_s)
        assert seen[name](), name
        event = last(way.revert(name, force=False))
        assert (event.kind, event.state) == (EventKind.COMPLETED, PatchState.ABSENT), event
        assert machine.console.check("cat /proc/cmdline") == clean
    assert loaded(machine) == before
    assert median(times) < 10, f"seconds to apply: {sorted(times)}"


def test_stacked_patches_and_atomic_replace(machine: machines.Machine, way: KlpBackend) -> None:
    assert last(way.apply("test_klp_livepatch", force=False)).state is PatchState.APPLIED
    assert last(way.apply("test_klp_atomic_replace replace=1", force=False)).state is PatchState.APPLIED
    # The replaced patch has gone from the kernel, and its module is left to whoever wants it.
    assert [status.patch for status in way.status()] == ["test_klp_atomic_replace"]
    assert last(way.revert("test_klp_livepatch", force=False)).kind is EventKind.COMPLETED
    assert last(way.revert("test_klp_atomic_replace", force=False)).state is PatchState.ABSENT
    assert not {"test_klp_livepatch", "test_klp_atomic_replace"} & loaded(machine)


@contextmanager
def stuck(
    machine: machines.Machine, modules: Path, old: str, background: str = "", tasks: int = 1
) -> Iterator[Callable[[Callable[[TaskState], bool]], TaskState]]:
    """Patch a function of klpt_target with a task in the way; give a function that waits for a diagnosis.

    In the end the task is let go, and the transition has to be over by itself soon after.
    """
    for _ in range(tasks):
        if background:
            machine.console.check(f"{background} >/dev/null 2>&1 & sleep 0.3")
    way = open_backend(f"guest:{machine.name}", Options(modules=modules, timeout_s=None, interval_s=0.05))
    events = way.apply(f"{modules / 'klpt_patch.ko'} object=klpt_target old={old}", force=False)
    deadline = time.monotonic() + 60

    def wait_for(fits: Callable[[TaskState], bool]) -> TaskState:
        for event in events:
            assert time.monotonic() < deadline, "it was not diagnosed"
            assert event.kind not in {EventKind.COMPLETED, EventKind.FAILED}, event
            for task in event.tasks if event.kind is EventKind.BLOCKED else ():
                if fits(task):
                    return task
        raise AssertionError("the events ended")

    try:
        yield wait_for
    finally:
        machine.console.check("echo 1 >/proc/klpt_release")
        if background:
            assert last(events).kind is EventKind.COMPLETED
        else:
            events.close()  # type: ignore[attr-defined]
        assert last(way.revert("klpt_patch", force=False)).state is PatchState.ABSENT
        assert "klpt_patch" not in loaded(machine)


def test_stuck_by_a_function_on_a_stack(machine: machines.Machine, modules: Path) -> None:
    with stuck(machine, modules, "klpt_wait", "cat /proc/klpt_wait") as wait_for:
        task = wait_for(lambda task: task.hold is Hold.ON_STACK)
    assert (task.comm, task.blocked_by) == ("cat", "klpt_wait")
    assert any(frame.startswith("klpt_wait+") for frame in task.trace)


def test_stuck_by_preemption_the_hybrid_walk_tells_the_truth(machine: machines.Machine, modules: Path) -> None:
    """Two loops on one CPU: one of them is always preempted, and the kernel cannot tell where."""
    with stuck(machine, modules, "klpt_wait", "taskset 2 cat /proc/klpt_spin", tasks=2) as wait_for:
        clear = wait_for(lambda task: task.hold is Hold.UNRELIABLE and "in truth safe" in task.reason)
    assert clear.blocked_by is None
    assert any(frame.startswith("klpt_spin+") for frame in clear.trace)
    with stuck(machine, modules, "klpt_spin", "taskset 2 cat /proc/klpt_spin", tasks=2) as wait_for:
        held = wait_for(lambda task: task.hold is Hold.ON_STACK)
    assert held.blocked_by == "klpt_spin"
    assert "unreliable for the kernel" in held.reason


def test_stuck_by_a_task_that_runs(machine: machines.Machine, modules: Path) -> None:
    with stuck(machine, modules, "klpt_wait", "taskset 2 cat /proc/klpt_spin") as wait_for:
        task = wait_for(lambda task: task.hold is Hold.RUNNING and task.comm == "cat")
    assert "it runs on CPU 1" in task.reason


def test_stuck_by_a_kernel_thread_that_never_leaves(machine: machines.Machine, modules: Path) -> None:
    with stuck(machine, modules, "klpt_kthread") as wait_for:
        task = wait_for(lambda task: task.hold is Hold.ON_STACK)
    assert (task.comm, task.blocked_by) == ("klpt_kthread", "klpt_kthread")
    assert "in vain" in task.advice


def test_stuck_by_a_traced_function(machine: machines.Machine, modules: Path) -> None:
    machine.trace_on(graph="klpt_* seq_read* vfs_read proc_reg_read")
    try:
        with stuck(machine, modules, "klpt_wait", "cat /proc/klpt_wait") as wait_for:
            task = wait_for(lambda task: task.hold is Hold.ON_STACK)
        assert task.blocked_by == "klpt_wait"
        assert "the function-graph tracer holds the return address of klpt_wait" in task.reason
    finally:
        machine.trace_off()


def test_a_task_that_the_kernel_lets_go_too_early(machine: machines.Machine, way: KlpBackend, modules: Path) -> None:
    """klpt_last_a ends in a call that never returns, without padding: the kernel misses the task in there."""
    static = str(modules / "klpt_patch.ko")
    events = list(way.apply(f"{static} object=klpt_even old=klpt_last_a", force=False))
    assert events[-1].state is PatchState.APPLIED
    warnings = [event.message for event in events if event.kind is EventKind.WARNING]
    assert [text for text in warnings if "klpt_last_a ends in a call that never returns" in text]
    assert [text for text in warnings if re.search(r"klpt_last_a \(\d+\) is still in the code that was left", text)]
    assert last(way.revert("klpt_patch", force=False)).state is PatchState.ABSENT
    assert machine.is_running


def test_such_functions_are_told_before_loading(way: KlpBackend, modules: Path) -> None:
    """Out of the files alone: the one with padding behind its last call is not among them, its neighbour is."""
    events = way.apply(str(modules / "klpt_static.ko"), force=False)
    warnings = []
    for event in events:
        warnings.append(event.message)
        if event.kind is EventKind.STARTED:
            break
    events.close()  # type: ignore[attr-defined]
    assert [text for text in warnings if text.startswith("klpt_last_a ends in a call")]
    assert not [text for text in warnings if text.startswith("klpt_last_b ends in a call")]
    assert [text for text in warnings if text.startswith("klpt_last_a before klpt_after_a ends")]
    assert [text for text in warnings if text.startswith("klpt_after_a has no patch site")]


def test_reversed_in_mid_transition(machine: machines.Machine, modules: Path) -> None:
    machine.console.check("cat /proc/klpt_wait >/run/said 2>&1 & sleep 0.3")
    way = open_backend(f"guest:{machine.name}", Options(modules=modules, timeout_s=3.0, interval_s=0.05))
    events = list(way.apply(f"{modules / 'klpt_patch.ko'} object=klpt_target old=klpt_wait", force=False))
    assert EventKind.REVERSED in [event.kind for event in events]
    assert (events[-1].kind, events[-1].state) == (EventKind.FAILED, PatchState.ABSENT)
    machine.console.check("echo 1 >/proc/klpt_release; sleep 0.5")
    # The reader ran the old code to its end.
    assert machine.console.check("cat /run/said") == "1\n"
    assert "klpt_patch" not in loaded(machine)


def test_forced_only_with_a_certificate(machine: machines.Machine, modules: Path) -> None:
    """A loop that is clear may be overruled, a reader in the old function may not. The guest keeps the module."""
    options = Options(modules=modules, timeout_s=6.0, interval_s=0.05)
    way = open_backend(f"guest:{machine.name}", options)
    machine.console.check("cat /proc/klpt_wait >/dev/null 2>&1 & sleep 0.3")
    source = f"{modules / 'klpt_patch.ko'} object=klpt_target old=klpt_wait"
    events = list(way.apply(source, force=True))
    assert EventKind.FORCED not in [event.kind for event in events]
    assert [event for event in events if "not forced" in event.message and "klpt_wait" in event.message]
    machine.console.check("echo 1 >/proc/klpt_release; sleep 0.5")
    for _ in range(2):
        machine.console.check("taskset 2 cat /proc/klpt_spin >/dev/null 2>&1 & sleep 0.2")
    try:
        source = f"{modules / 'klpt_patch2.ko'} object=klpt_target old=klpt_wait"
        patient = open_backend(f"guest:{machine.name}", Options(modules=modules, timeout_s=40.0, interval_s=0.05))
        events = list(patient.apply(source, force=True))
    finally:
        machine.console.check("echo 1 >/proc/klpt_release")
    assert EventKind.FORCED in [event.kind for event in events]
    assert events[-1].state is PatchState.APPLIED
    assert [event for event in events if "have not run since the certificate" in event.message]
