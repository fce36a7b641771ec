"""Layer 7: named guests that keep running between commands; each has a run folder with its state and sockets."""

from __future__ import annotations

import mmap
import re
import shlex
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surefoot.errors import InputError, SurefootError, TargetError, Unavailable
from surefoot.targets.vm import kdump, qemu
from surefoot.targets.vm.folders import (
    Report,
    cache_folder,
    check_tools,
    locked,
    os_errors,
    read_json,
    silent,
    write_json,
)
from surefoot.targets.vm.guest import Console
from surefoot.targets.vm.kernels import Kernel, open_kernel
from surefoot.targets.vm.stacks import ThreadStack, parse_stacks

__all__ = ["DUMP_FORMATS", "GRAPH_FILTER", "Dump", "Machine", "boot", "find", "running"]

DUMP_FORMATS = ("elf", "kdump-zlib")
"""ELF as QEMU writes it, or that compressed by us to some 5 % once the guest runs on."""
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,39}$")
_FUNCTION = re.compile(r"^[A-Za-z_][A-Za-z0-9_.]*$")
_STATE = "machine.json"
_STACKS_FILE = "/run/surefoot.stacks"
_TRACE_TIMEOUT_S = 240.0

GRAPH_FILTER = (
    "vfs_* seq_* anon_pipe_* do_wait kernel_wait4 kernel_clone do_nanosleep hrtimer_nanosleep path_* ksys_* "
    "__arm64_sys_* schedule_* inet_* tcp_recvmsg* show_* mousedev_* worker_thread pktgen_*"
)
"""What the function-graph tracer follows: some thousand functions on the way to every blocking call. All
functions would leave an emulated guest no time for anything else."""


@dataclass(frozen=True)
class Dump:
    """A dump and what goes with it.

    Attributes:
        path: the vmcore.
        dump_format: one of DUMP_FORMATS.
        size_bytes: of the vmcore.
        paused_s: seconds for which the guest stood still.
        kernel: what the guest runs.
        stacks: the kernel's own traces from just before, or None if they were not asked for.
    """

    path: Path
    dump_format: str
    size_bytes: int
    paused_s: float
    kernel: Kernel
    stacks: list[ThreadStack] | None = None


@dataclass(frozen=True)
class Machine:
    """A guest that was booted.

    Attributes:
        name: chosen at boot.
        folder: run folder: state, sockets, serial log.
        pid: process id of QEMU.
        kernel: what it runs.
        cpus: number of CPUs.
        memory_mib: memory in MiB.
        gdb: whether it listens for gdb.
    """

    name: str
    folder: Path
    pid: int
    kernel: Kernel
    cpus: int
    memory_mib: int
    gdb: bool = False

    @property
    def console(self) -> Console:
        """The way to run commands in the guest."""
        return Console(self.folder / qemu.CONSOLE)

    @property
    def serial_log(self) -> Path:
        """What the guest's kernel said."""
        return self.folder / qemu.SERIAL_LOG

    @property
    def gdb_socket(self) -> Path | None:
        """Where QEMU's gdbstub listens, or None."""
        return self.folder / qemu.GDB if self.gdb else None

    @property
    def is_running(self) -> bool:
        """Whether its QEMU is there."""
        return qemu.is_running(self.pid, self.name)

    def to_json(self) -> dict[str, Any]:
        """Give plain values."""
        return {
            "name": self.name,
            "pid": self.pid,
            "release": self.kernel.release,
            "build_id": self.kernel.build_id,
            "vmlinux": str(self.kernel.vmlinux),
            "modules": str(self.kernel.debug_modules),
            "kernel": str(self.kernel.folder),
            "cpus": self.cpus,
            "memory_mib": self.memory_mib,
            "gdb": self.gdb,
            "serial_log": str(self.serial_log),
        }

    @contextmanager
    def monitor(self) -> Iterator[qemu.Monitor]:
        """Hold the guest's QMP monitor; other processes wait.

        Raises:
            Unavailable: the guest has ended.
        """
        with locked(self.folder / "qmp.lock"), qemu.Monitor(self.folder / qemu.QMP) as monitor:
            yield monitor

    @contextmanager
    def stopped(self) -> Iterator[qemu.Monitor]:
        """Hold the guest's CPUs still for a block; a guest that was paused before stays so."""
        with self.monitor() as monitor:
            was_running = monitor.status() == "running"
            monitor.execute("stop")
            try:
                yield monitor
            finally:
                if was_running:
                    monitor.execute("cont")

    def pause(self) -> None:
        """Stop the guest's CPUs until :meth:`resume`."""
        with self.monitor() as monitor:
            monitor.execute("stop")

    def resume(self) -> None:
        """Let the guest's CPUs run."""
        with self.monitor() as monitor:
            monitor.execute("cont")

    def trace_on(self, *, graph: str = GRAPH_FILTER, kretprobes: Sequence[str] = ()) -> list[str]:
        """Turn on tracing that rewrites return addresses, in place of what was on before.

        Args:
            graph: functions for the function-graph tracer, as names and globs with spaces; empty for none.
            kretprobes: functions that get a kretprobe each.

        Returns:
            what the guest had to say: filters that fit nothing.

        Raises:
            InputError: the name of a function is none.
            TargetError: the guest's kernel refused; nothing is traced then.
        """
        for function in kretprobes:
            if not _FUNCTION.match(function):
                raise InputError(f"'{function}' is not the name of a function")
        self.trace_off()
        words = shlex.join(["sh", "/surefoot/trace.sh", "on", graph or "-", *kretprobes])
        answer = self.console.run(words, timeout=_TRACE_TIMEOUT_S)
        lines = [line for line in answer.text.splitlines() if line.strip()]
        if answer.status:
            self.trace_off()
            raise TargetError(f"the guest's kernel refused to trace: {lines[-1] if lines else 'no message'}")
        return lines

    def trace_off(self) -> None:
        """Turn all of that off."""
        self.console.check("sh /surefoot/trace.sh off", timeout=_TRACE_TIMEOUT_S)

    def dump(self, path: Path, *, dump_format: str = "elf", stacks: bool = False) -> Dump:
        """Stop the guest, write its memory and registers to a file, let it go on.

        Args:
            path: the vmcore; appears whole or not at all.
            dump_format: one of DUMP_FORMATS.
            stacks: take the kernel's own trace of every thread just before the stop.

        Raises:
            InputError: an unknown format.
            Unavailable: the guest has ended.
            TargetError: the file cannot be written.
        """
        if dump_format not in DUMP_FORMATS:
            raise InputError(f"'{dump_format}' is none of the formats: {', '.join(DUMP_FORMATS)}")
        path = path.absolute()
        partial = path.with_name(f".{path.name}.{time.monotonic_ns()}.partial")
        self._check_space(path)
        if stacks:
            with self.monitor() as monitor:
                if monitor.status() != "running":
                    raise InputError(
                        "a paused guest cannot give its own traces", hint="resume it, or leave out --stacks"
                    )
            self.console.check(
                f"sh /surefoot/stacks.sh >{_STACKS_FILE}; test -s {_STACKS_FILE}", timeout=_TRACE_TIMEOUT_S
            )
        try:
            with self.stopped() as monitor:
                before = time.monotonic()
                monitor.dump(partial)
                paused_s = time.monotonic() - before
            with os_errors(f"write {path}"):
                if dump_format != "elf":
                    _compress(partial, self.kernel.release)
                partial.chmod(0o644)
                size_bytes = partial.stat().st_size
                partial.rename(path)
        finally:
            partial.unlink(missing_ok=True)
        traces = None
        if stacks:
            traces = parse_stacks(
                self.console.pull(_STACKS_FILE, timeout=_TRACE_TIMEOUT_S).decode("utf-8", "replace")
            )
        return Dump(path, dump_format, size_bytes, paused_s, self.kernel, traces)

    def stop(self) -> None:
        """End the guest and remove its run folder; its serial log goes with it."""
        qemu.kill(self.pid, self.name)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _check_space(self, path: Path) -> None:
        """Refuse early what cannot end well: QEMU would fill the disk to the last byte first."""
        with os_errors(f"write {path}"):
            if path.is_dir():
                raise InputError("is a folder, a dump is a file", file=str(path))
            free_mib = shutil.disk_usage(path.parent).free >> 20
        if free_mib < self.memory_mib + 16:
            raise TargetError(
                f"{path.parent} has {free_mib} MiB left, a dump needs up to {self.memory_mib + 16} MiB",
                hint="choose another place with --output",
            )


def _compress(path: Path, release: str) -> None:
    """Put the kdump form of an ELF vmcore in its place."""
    compressed = path.with_name(f"{path.name}2")
    try:
        with (
            path.open("rb") as source,
            compressed.open("w+b") as target,
            mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            kdump.convert(data, target, release)
        compressed.rename(path)
    finally:
        compressed.unlink(missing_ok=True)


def _runs_folder() -> Path:
    return cache_folder() / "run"


def _open(folder: Path) -> Machine:
    value = read_json(folder / _STATE)
    try:
        return Machine(
            name=str(value["name"]),
            folder=folder,
            pid=int(value["pid"]),
            kernel=open_kernel(Path(value["kernel"])),
            cpus=int(value["cpus"]),
            memory_mib=int(value["memory_mib"]),
            gdb=bool(value["gdb"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SurefootError(f"the state of guest {folder.name} is damaged: {error}") from error


def running() -> list[Machine]:
    """Give the guests that run, by name; run folders of guests that ended by themselves are left alone."""
    found = []
    for state in sorted(_runs_folder().glob(f"*/{_STATE}")):
        try:
            machine = _open(state.parent)
        except SurefootError:
            continue
        if machine.is_running:
            found.append(machine)
    return found


def find(name: str = "") -> Machine:
    """Give a guest that runs.

    Args:
        name: may be empty where only one runs.

    Raises:
        Unavailable: it does not run, or the name is needed.
    """
    machines = running()
    if not name and len(machines) == 1:
        return machines[0]
    have = ", ".join(machine.name for machine in machines)
    if not name and machines:
        raise Unavailable("several guests run, so a name is needed", hint=f"one of: {have}")
    for machine in machines:
        if machine.name == name:
            return machine
    message = f"no guest '{name}' runs" if name else "no guest runs"
    raise Unavailable(message, hint=f"there is: {have}" if have else "run: surefoot vm boot")


def boot(
    kernel: Kernel,
    *,
    name: str = "default",
    cpus: int = 2,
    memory_mib: int = 512,
    load: bool = True,
    append: str = "",
    gdb: bool = False,
    cpu: str = qemu.DEFAULT_CPU,
    timeout: float = 120.0,
    report: Report = silent,
) -> Machine:
    """Boot a kernel in QEMU and wait until the guest runs commands.

    Args:
        kernel: what to boot.
        name: of the guest, for later commands.
        cpus: number of CPUs.
        memory_mib: memory in MiB.
        load: start the load of ``guest/load.sh``.
        append: more words for the kernel command line.
        gdb: let QEMU listen for gdb on a UNIX socket.
        cpu: QEMU's model and its properties; ``lpa2=off`` among them gives 48-bit addresses.
        timeout: seconds until the guest has to be ready.
        report: told about each step.

    Raises:
        InputError: the name is not usable, or a guest of this name runs.
        Unavailable: QEMU is missing or did not start.
        TargetError: the guest was not ready in time; it is ended, and the last line it said is in the hint.
    """
    if not _NAME.match(name):
        raise InputError(f"'{name}' cannot name a guest: letters, digits, dot, dash, underscore; 40 at most")
    check_tools(qemu_system_aarch64="qemu-system-arm")
    from surefoot.targets.vm.image import build_initrd

    folder = _runs_folder() / name
    with locked(_runs_folder() / f".{name}.lock"):
        if any(machine.name == name for machine in running()):
            raise InputError(f"a guest '{name}' runs already", hint=f"run: surefoot vm stop {name}")
        report("building the root file system")
        with os_errors(f"prepare {folder}"):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            initrd = folder / "initrd.gz"
            initrd.write_bytes(build_initrd(kernel))
        words = f"surefoot.load={int(load)} {append}".strip()
        spec = qemu.Spec(name, kernel.vmlinuz, initrd, words, cpus, memory_mib, gdb, cpu)
        report(f"booting {kernel.release}")
        machine = Machine(name, folder, qemu.start(spec, folder), kernel, cpus, memory_mib, gdb)
        try:
            write_json(folder / _STATE, machine.to_json())
            _wait_ready(machine, timeout)
        except BaseException:
            qemu.kill(machine.pid, name)
            raise
    return machine


def _wait_ready(machine: Machine, timeout: float) -> None:
    try:
        machine.console.wait_ready(timeout)
    except TargetError as error:
        text = machine.serial_log.read_text("utf-8", "replace") if machine.serial_log.exists() else ""
        said = [line for line in text.splitlines() if line.strip()]
        raise TargetError(
            f"the guest '{machine.name}' was not ready within {timeout:.0f} s: {error}",
            hint=f"it last said: {said[-1].strip()}" if said else "it said nothing on its serial line",
        ) from error
