"""Debian's own kernel, which was built without CONFIG_LIVEPATCH, is patched in a guest while it works.

The new code lies in ordinary modules (tests/kernel/modules). What is in force is seen from inside the guest: by what
/proc/cmdline shows, and by a pair of functions that count every call of one version by the other.
"""

from __future__ import annotations

import dataclasses
import os
import re
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from guest_modules import SOURCES, debian_modules
from surefoot.cli.patch_backend import Options
from surefoot.cli.patch_stopped import StoppedBackend
from surefoot.errors import Unavailable
from surefoot.patch.events import Event, EventKind, Hold, PatchState
from surefoot.targets.cache import TableCache
from surefoot.targets.gdb import GdbClient
from surefoot.targets.guestlive import guest_registers, open_guest
from surefoot.targets.gueststop import StoppedGuest
from surefoot.targets.vm import kernels, machines
from surefoot.targets.vmcore import open_vmcore
from surefoot.unwind.walker import walk

pytestmark = [pytest.mark.kernel, pytest.mark.needs("qemu-system-aarch64", "apt-get", "dpkg")]

_CYCLES = 200
_ALL = SOURCES / "patch-all.toml"
_NEW_LINE = "this has been live patched"
_TROUBLE = re.compile(r"Oops|BUG|WARNING|Unable to handle|Internal error|Call trace|Kernel panic", re.IGNORECASE)
_LOAD = "while :; do cat /proc/sfp_burst /proc/cmdline; done >/dev/null 2>&1 &"


@pytest.fixture(scope="module")
def kernel() -> kernels.Kernel:
    """Give Debian's kernel."""
    return kernels.fetch("7.3")


@pytest.fixture(scope="module")
def modules(kernel: kernels.Kernel) -> Path:
    """Give the folder of the test modules."""
    return debian_modules(kernel)


def boot(kernel: kernels.Kernel, modules: Path, name: str) -> machines.Machine:
    """Boot a guest with the test modules and load, some of it in the functions to be patched."""
    running = machines.boot(kernel, name=f"{name}-{os.getpid()}", gdb=True)
    try:
        for module in ("sfp_pair", "sfp_pair_new", "sfp_cmdline"):
            running.console.push((modules / f"{module}.ko").read_bytes(), f"/run/{module}.ko")
            running.console.check(f"insmod /run/{module}.ko")
        running.console.check(f"({_LOAD}) </dev/null; ({_LOAD}) </dev/null")
    except BaseException:
        running.stop()
        raise
    return running


@pytest.fixture(scope="module")
def machine(kernel: kernels.Kernel, modules: Path) -> Iterator[machines.Machine]:
    """Give a guest that works, gone when the tests are."""
    running = boot(kernel, modules, "stopped")
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def backend(machine: machines.Machine, modules: Path) -> StoppedBackend:
    """Give the backend of that guest."""
    return StoppedBackend(machine, Options(modules=modules))


def with_timeout(machine: machines.Machine, modules: Path, seconds: float) -> StoppedBackend:
    """Give a backend that gives up soon."""
    return StoppedBackend(machine, Options(modules=modules, timeout_s=seconds))


def seen(machine: machines.Machine) -> tuple[bool, int, int]:
    """Say what the guest sees: is /proc/cmdline the new one, which version is the pair, how often was it mixed?"""
    text = machine.console.check("cat /proc/cmdline /proc/sfp_pair")
    found = re.search(r"version (\d) mixes (\d+)", text)
    assert found
    return _NEW_LINE in text, int(found[1]), int(found[2])


OLD, NEW = (False, 1, 0), (True, 2, 0)


def last_of(events: Iterator[Event]) -> Event:
    *_, last = events
    return last


def apply(backend: StoppedBackend) -> Event:
    return last_of(backend.apply(str(_ALL), force=False))


def revert(backend: StoppedBackend) -> Event:
    return last_of(backend.revert("all", force=False))


@contextmanager
def applied(backend: StoppedBackend) -> Iterator[None]:
    """Have the patch in force for a block."""
    event = apply(backend)
    assert event.kind is EventKind.COMPLETED, event.message
    try:
        yield
    finally:
        event = revert(backend)
        assert event.kind is EventKind.COMPLETED, event.message


@pytest.fixture(autouse=True)
def tidy(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave the guest running and unpatched for the next test, also after a failed one."""
    if "machine" not in request.fixturenames:
        yield
        return
    machine: machines.Machine = request.getfixturevalue("machine")
    backend: StoppedBackend = request.getfixturevalue("backend")
    yield
    machine.resume()
    release(machine)
    for status in backend.status():
        if status.state is not PatchState.ABSENT:
            revert(backend)


def log_is_clean(machine: machines.Machine) -> None:
    log = machine.console.check("dmesg")
    assert [line for line in log.splitlines() if _TROUBLE.search(line)] == []


def test_a_paused_guest_is_what_its_dump_is(machine: machines.Machine, modules: Path, tmp_path: Path) -> None:
    """Memory read in place and registers from QEMU against a dump of the same instant: every word, every verdict."""
    target = open_guest(machine, modules=(modules,), cache=TableCache())
    machine.pause()
    try:
        live = target.capture()
        dump = machine.dump(tmp_path / "vmcore")
        assert machine.gdb_socket is not None
        with GdbClient(machine.gdb_socket) as gdb:
            assert gdb.registers() == guest_registers(machine)
    finally:
        machine.resume()
    folders = tmp_path / "modules"
    folders.mkdir()
    for name, folder in (("own", modules), ("kernel", machine.kernel.debug_modules)):
        subprocess.run(["cp", "-a", str(folder), str(folders / name)], check=True)
    dumped = open_vmcore(dump.path, machine.kernel.vmlinux, folders, cache=TableCache()).capture()
    assert live.notes == dumped.notes
    assert len(live) >= 60
    for one, other in ((live.stacks, dumped.stacks), (live.tasks, dumped.tasks), (live.info, dumped.info)):
        for item in dataclasses.fields(one):
            if item.name not in {"fgraph", "kretprobe"}:
                assert np.array_equal(getattr(one, item.name), getattr(other, item.name)), item.name
    walks = [walk(each.code, each.stacks, each.tasks, each.layout) for each in (live, dumped)]
    for item in dataclasses.fields(walks[0]):
        assert np.array_equal(getattr(walks[0], item.name), getattr(walks[1], item.name)), item.name


def test_two_hundred_cycles_under_load(machine: machines.Machine, backend: StoppedBackend) -> None:
    """Every apply and every revert is seen from inside; the pair is never mixed; nobody complains."""
    assert seen(machine) == OLD
    pauses, reads = [], []
    for _ in range(_CYCLES):
        for events, expected in (
            (backend.apply(str(_ALL), force=False), NEW),
            (backend.revert("all", force=False), OLD),
        ):
            last = None
            for last in events:
                if "pause_ms" in last.figures:
                    pauses.append(last.figures["pause_ms"])
                    reads.append(last.figures.get("read_ms", 0.0))
            assert last is not None
            assert last.kind is EventKind.COMPLETED, last.message
            assert seen(machine) == expected
    log_is_clean(machine)
    assert machine.console.check("cat /proc/sfp_burst") == "version 1 mixes 0\n"
    # Waiting for a processor that others use is no part of the bound: with more to do than processors it is scaled.
    busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    assert statistics.median(pauses) < busy * (50 + 2 * statistics.median(reads))


def parked(machine: machines.Machine) -> int:
    """Have a task sleep in the pair, and give its pid."""
    pid = machine.console.check("cat /proc/sfp_park >/run/parked 2>&1 </dev/null & echo $!")
    machine.console.check("sleep 0.3")
    return int(pid)


def release(machine: machines.Machine) -> None:
    machine.console.check("echo 1 >/proc/sfp_park")


@pytest.mark.parametrize("way", ["apply", "revert"])
def test_a_parked_task_is_named_and_its_release_is_noticed(
    way: str, machine: machines.Machine, backend: StoppedBackend, modules: Path
) -> None:
    """In the old functions it holds an apply, in the new ones a revert."""
    if way == "revert":
        assert apply(backend).kind is EventKind.COMPLETED
    pid = parked(machine)
    inner = "sfp_inner" if way == "apply" else "new_sfp_inner"

    def events_of(which: StoppedBackend) -> Iterator[Event]:
        return which.apply(str(_ALL), force=False) if way == "apply" else which.revert("all", force=False)

    refused = last_of(events_of(with_timeout(machine, modules, 1.5)))
    assert refused.kind is EventKind.FAILED
    assert seen(machine) == (OLD if way == "apply" else NEW)
    [task] = [one for one in refused.tasks if one.pid == pid]
    assert (task.comm, task.hold, task.blocked_by) == ("cat", Hold.ON_STACK, inner)
    released = 0.0
    for event in events_of(backend):
        if event.kind is EventKind.BLOCKED and not released and any(one.pid == pid for one in event.tasks):
            release(machine)
            released = time.monotonic()
    assert event.kind is EventKind.COMPLETED
    busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    assert time.monotonic() - released < busy
    # The parked call went through in the version that it began in.
    version = 1 if way == "apply" else 2
    assert machine.console.check("sleep 0.2; cat /run/parked") == f"version {version} mixes 0\n"
    if way == "apply":
        assert revert(backend).kind is EventKind.COMPLETED


def test_a_guest_that_somebody_else_paused_stays_paused(machine: machines.Machine, backend: StoppedBackend) -> None:
    """A paused guest may happen to have every task clear: then it is patched, and stays paused; or it is not."""
    for _ in range(40):
        machine.pause()
        try:
            event = apply(backend)
            with machine.monitor() as monitor:
                assert monitor.status() == "paused"
        finally:
            machine.resume()
        assert "paused by somebody else" in event.message
        assert seen(machine) == (NEW if event.kind is EventKind.COMPLETED else OLD)
        if event.kind is EventKind.COMPLETED:
            break
    assert event.kind is EventKind.COMPLETED
    assert revert(backend).kind is EventKind.COMPLETED


@pytest.mark.parametrize("at", [1, 2, 5])
def test_a_connection_that_drops_in_mid_packet_leaves_nothing(
    at: int, machine: machines.Machine, backend: StoppedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QEMU is left with half a packet; the next connection has to get along with that."""
    count = 0
    real = GdbClient.write

    def write(self: GdbClient, addr: int, data: bytes) -> None:
        nonlocal count
        count += 1
        if count == at:
            self._socket.sendall(f"$M{addr:x},{len(data):x}:{data.hex()[:2]}".encode())
            self.close()
            raise Unavailable("the connection broke")
        real(self, addr, data)

    monkeypatch.setattr(GdbClient, "write", write)
    event = apply(backend)
    assert event.kind is EventKind.FAILED
    assert "nothing is written" in event.message
    assert event.state is PatchState.ABSENT
    assert seen(machine) == OLD
    monkeypatch.undo()
    with applied(backend):
        assert seen(machine) == NEW
    log_is_clean(machine)


def test_a_journal_that_cannot_be_written_stops_it(machine: machines.Machine, backend: StoppedBackend) -> None:
    """No file of this process may grow: as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        event = apply(backend)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert event.kind is EventKind.FAILED
    assert "journal" in event.message
    assert "nothing is written" in event.message
    assert seen(machine) == OLD


def command(machine: machines.Machine, modules: Path, *words: str) -> list[str]:
    program = "from surefoot.cli.main import main; main()"
    target = ("--target", f"guest:{machine.name}", "--modules", str(modules))
    return [sys.executable, "-c", program, "patch", *words, *target]


def test_ctrl_c_while_it_waits_leaves_nothing(machine: machines.Machine, modules: Path) -> None:
    parked(machine)
    with subprocess.Popen(
        command(machine, modules, "apply", str(_ALL), "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if '"blocked"' in line:
                break
        process.send_signal(signal.SIGINT)
        rest, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "nothing is written" in rest
    release(machine)
    assert seen(machine) == OLD
    with machine.monitor() as monitor:
        assert monitor.status() == "running"


def test_what_a_killed_command_left_is_told_and_taken_back(
    machine: machines.Machine, backend: StoppedBackend, modules: Path
) -> None:
    """The first two writes of the kernel's site are done, as if the command had been killed then."""
    assert apply(backend).kind is EventKind.COMPLETED
    [path] = backend._journals()
    journal = backend._read(path)
    assert journal is not None
    assert revert(backend).kind is EventKind.COMPLETED
    path.write_text(dataclasses.replace(journal, stage=type(journal.stage)("intended")).to_text())
    guest = StoppedGuest(machine, modules=(modules,), cache=TableCache())
    guest.pause()
    try:
        for write in journal.writes[:2]:
            assert write.function == "cmdline_proc_show"
            guest.write(write.address, write.new)
    finally:
        guest.resume()
    [status] = backend.status()
    assert status.state is PatchState.PARTIAL
    assert not any(function.patched for function in status.functions)
    refused = apply(backend)
    assert (refused.kind, refused.state) == (EventKind.FAILED, PatchState.PARTIAL)
    assert revert(backend).state is PatchState.ABSENT
    assert seen(machine) == OLD
    [status] = backend.status()
    assert status.state is PatchState.ABSENT
    with applied(backend):
        assert seen(machine) == NEW


def test_a_traced_function_is_refused_and_tracing_may_come_later(
    machine: machines.Machine, backend: StoppedBackend
) -> None:
    tracing = "cd /sys/kernel/tracing"
    machine.console.check(f"{tracing}; echo cmdline_proc_show >set_ftrace_filter; echo function >current_tracer")
    try:
        event = apply(backend)
    finally:
        machine.console.check(f"{tracing}; echo nop >current_tracer; echo >set_ftrace_filter")
    assert event.kind is EventKind.FAILED
    assert "cmdline_proc_show" in event.message
    assert "being traced" in event.message
    assert "ftrace_ops are at 0xffff" in event.message
    assert seen(machine) == OLD
    # Modules lie near each other: the pair's sites keep ftrace's own word and may be traced while they are patched.
    with applied(backend):
        machine.console.check(f"{tracing}; echo sfp_inner >set_ftrace_filter; echo function >current_tracer")
        assert seen(machine) == NEW
        machine.console.check(f"{tracing}; echo nop >current_tracer; echo >set_ftrace_filter")
        assert seen(machine) == NEW
    assert seen(machine) == OLD
    log_is_clean(machine)


@pytest.fixture(scope="module")
def doomed(kernel: kernels.Kernel, modules: Path) -> Iterator[machines.Machine]:
    """Give another guest, for what no guest recovers from."""
    running = boot(kernel, modules, "doomed")
    try:
        yield running
    finally:
        running.stop()


def test_by_force_the_pair_is_mixed(doomed: machines.Machine, modules: Path) -> None:
    """So the pair's count of mixes can be other than zero: a parked task goes on in the old function."""
    parked(doomed)
    backend = StoppedBackend(doomed, Options(modules=modules))
    events = list(backend.apply(str(_ALL), force=True))
    assert events[-1].kind is EventKind.COMPLETED
    [forced] = [event for event in events if event.kind is EventKind.FORCED]
    assert "sfp_inner" in {task.blocked_by for task in forced.tasks}
    release(doomed)
    doomed.console.check("sleep 0.3")
    is_new, version, mixes = seen(doomed)
    assert (is_new, version) == (True, 2)
    assert mixes > 0
    assert revert(backend).kind is EventKind.COMPLETED


def test_a_guest_that_is_killed_in_mid_write_is_told_to_have_ended(
    doomed: machines.Machine, modules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 0
    real = GdbClient.write

    def write(self: GdbClient, addr: int, data: bytes) -> None:
        nonlocal count
        count += 1
        if count == 3:
            os.kill(doomed.pid, signal.SIGKILL)
            while doomed.is_running:
                time.sleep(0.01)
        real(self, addr, data)

    monkeypatch.setattr(GdbClient, "write", write)
    event = apply(StoppedBackend(doomed, Options(modules=modules)))
    assert event.kind is EventKind.FAILED
    assert event.state is PatchState.ABSENT
    assert "the guest has ended" in event.message
