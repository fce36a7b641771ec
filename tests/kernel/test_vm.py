"""`surefoot vm` for real: Debian's newest kernel is fetched, booted, loaded, traced and dumped.

The cache folder is the user's own (or $SUREFOOT_CACHE), so that the download happens once.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from surefoot.errors import InputError, TargetError
from surefoot.targets.vm import guest, hole, kernels, machines

pytestmark = [pytest.mark.kernel, pytest.mark.needs("qemu-system-aarch64", "apt-get", "dpkg")]

_LOADED = ("qemu_fw_cfg", "mousedev", "pktgen", "zram")


@pytest.fixture(scope="module")
def kernel() -> kernels.Kernel:
    """Give the newest kernel of the archive."""
    return kernels.fetch()


@pytest.fixture(scope="module")
def machine(kernel: kernels.Kernel) -> Iterator[machines.Machine]:
    """Give a guest with load, gone when the tests are."""
    running = machines.boot(kernel, name=f"test-{os.getpid()}", gdb=True)
    try:
        yield running
    finally:
        running.stop()


def test_fetching_again_changes_nothing(kernel: kernels.Kernel) -> None:
    before = kernel.vmlinux.stat()
    again = kernels.fetch()
    assert again == kernel
    assert kernel.vmlinux.stat().st_mtime_ns == before.st_mtime_ns
    assert kernels.read_build_id(kernel.vmlinux) == kernel.build_id
    assert all(len(package["sha256"]) == 64 for package in kernel.packages.values())
    assert not [path for path in kernel.folder.parent.iterdir() if path.name.startswith(".")]


def test_the_guest_runs_commands_and_its_modules(machine: machines.Machine) -> None:
    answer = machine.console.run('uname -r; echo "it\'s" >&2; exit 7')
    assert answer.text == f"{machine.kernel.release}\nit's\n"
    assert answer.status == 7
    loaded = machine.console.check("cat /proc/modules")
    assert all(f"{name} " in loaded for name in _LOADED)
    assert machine in machines.running()
    with pytest.raises(InputError, match="runs already"):
        machines.boot(machine.kernel, name=machine.name)


def test_a_file_arrives_whole(machine: machines.Machine) -> None:
    data = os.urandom(300_000)
    machine.console.push(data, "/run/data")
    assert machine.console.check("sha256sum /run/data").split()[0] == hashlib.sha256(data).hexdigest()


def test_gdb_answers_on_its_socket(machine: machines.Machine) -> None:
    assert machine.gdb_socket is not None
    connection: socket.socket = guest.connect(machine.gdb_socket)
    with connection:
        connection.settimeout(10)
        # QEMU stops the guest when gdb comes and tells of it; D lets it go on.
        told = b""
        while b"#" not in told:
            told += connection.recv(64)
        assert told.startswith(b"$T")
        connection.sendall(b"+$D#44")
        assert connection.recv(64)
    machine.resume()


def names_of(program: Any, task: Any) -> list[str]:
    """Give the functions of drgn's trace."""
    try:
        return [frame.name or "" for frame in program.stack_trace(task)]
    except ValueError:
        return []


def test_a_dump_opens_with_symbols_and_shows_module_code(machine: machines.Machine, tmp_path: Path) -> None:
    from drgn.helpers.linux.pid import find_task

    dump = machine.dump(tmp_path / "vmcore", stacks=True)
    program = hole.open_dump(dump.path, machine.kernel.vmlinux)
    assert dump.stacks is not None
    in_modules = {frame.module for thread in dump.stacks for frame in thread.frames if frame.module in _LOADED}
    assert {"mousedev", "pktgen"} <= in_modules
    equal = 0
    for thread in dump.stacks:
        task = find_task(program, thread.pid)
        if not task or task.on_cpu or not thread.frames:
            continue
        if (task.nvcsw.value_(), task.nivcsw.value_()) != (thread.nvcsw, thread.nivcsw):
            continue
        shown = names_of(program, task)
        assert thread.frames[-1].symbol in shown, thread
        equal += 1
    assert equal >= 60


def test_a_compressed_dump_holds_the_same_stacks(machine: machines.Machine, tmp_path: Path) -> None:
    from drgn.helpers.linux.pid import find_task, for_each_task

    machine.pause()
    try:
        dumps = [
            machine.dump(tmp_path / dump_format, dump_format=dump_format) for dump_format in machines.DUMP_FORMATS
        ]
    finally:
        machine.resume()
    plain, packed = (hole.open_dump(dump.path, machine.kernel.vmlinux) for dump in dumps)
    assert dumps[1].size_bytes < dumps[0].size_bytes // 4
    compared = 0
    for task in for_each_task(packed):
        other = find_task(plain, task.pid)
        assert str(packed.stack_trace(task)) == str(plain.stack_trace(other))
        compared += 1
    assert compared >= 60


def test_tracing_leaves_rewritten_return_addresses(machine: machines.Machine, tmp_path: Path) -> None:
    from drgn.helpers.linux.pid import for_each_task

    machine.trace_on(kretprobes=["do_wait", "vfs_read"])
    machine.console.check("sleep 2")
    program = hole.open_dump(machine.dump(tmp_path / "vmcore").path, machine.kernel.vmlinux)
    tasks = list(for_each_task(program))
    assert sum(task.curr_ret_stack.value_() > 0 for task in tasks) >= 5
    assert sum(bool(task.kretprobe_instances.first) for task in tasks) >= 3
    machine.trace_off()
    assert machine.console.check("cat /sys/kernel/tracing/current_tracer").strip() == "nop"
    assert machine.console.check("cat /sys/kernel/tracing/kprobe_events") == ""


def test_a_refused_probe_leaves_no_tracing_behind(machine: machines.Machine) -> None:
    with pytest.raises(TargetError, match="refused to trace"):
        machine.trace_on(kretprobes=["no_such_function"])
    assert machine.console.check("cat /sys/kernel/tracing/current_tracer").strip() == "nop"


def test_the_function_graph_hole_is_caught(machine: machines.Machine, tmp_path: Path) -> None:
    """A task preempted in ftrace_return_to_handler has no exception boundary and lacks its caller."""
    from drgn.helpers.linux.pid import find_task

    caught = hole.catch(machine, tmp_path / "vmcore")
    machine.trace_off()
    program = hole.open_dump(caught.dump.path, machine.kernel.vmlinux)
    for one in caught.holes:
        names = names_of(program, find_task(program, one.pid))
        assert "ftrace_return_to_handler" in names
        assert "return_to_handler" in names
        assert "el1h_64_irq" not in names


def test_a_paused_guest_is_dumped_and_stays_paused(machine: machines.Machine, tmp_path: Path) -> None:
    machine.pause()
    try:
        machine.dump(tmp_path / "vmcore")
        with pytest.raises(InputError, match="paused"):
            machine.dump(tmp_path / "other", stacks=True)
        with machine.monitor() as monitor:
            assert monitor.status() == "paused"
    finally:
        machine.resume()
    assert machine.console.run("true").status == 0


def test_a_guest_that_does_not_come_up_is_ended(kernel: kernels.Kernel) -> None:
    name = f"broken-{os.getpid()}"
    with pytest.raises(TargetError, match="not ready") as caught:
        machines.boot(kernel, name=name, append="rdinit=/no/such/file", timeout=15)
    assert "it last said" in caught.value.hint
    assert name not in [machine.name for machine in machines.running()]


def test_the_command_lists_the_guest(machine: machines.Machine) -> None:
    program = "from surefoot.cli.vm import vm; vm()"
    done = subprocess.run([sys.executable, "-c", program, "list", "--json"], capture_output=True, check=True)
    assert machine.name in [guest["name"] for guest in json.loads(done.stdout)["guests"]]
