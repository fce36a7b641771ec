"""Layer 7: a QEMU process that runs an arm64 guest, and its QMP monitor."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from surefoot.errors import TargetError, Unavailable
from surefoot.targets.vm.folders import check_tools
from surefoot.targets.vm.guest import connect

__all__ = [
    "CONSOLE",
    "DEFAULT_CPU",
    "GDB",
    "QMP",
    "SERIAL",
    "SERIAL_LOG",
    "Monitor",
    "Spec",
    "command_line",
    "is_running",
    "kill",
    "process_name",
    "start",
]

PROGRAM = "qemu-system-aarch64"
QMP, SERIAL, CONSOLE, GDB = "qmp.sock", "serial.sock", "console.sock", "gdb.sock"
SERIAL_LOG, PID_FILE = "serial.log", "qemu.pid"
_START_TIMEOUT_S = 30
_QUIT_TIMEOUT_S = 5.0
_CONNECT_TIMEOUT_S = 30.0
DEFAULT_CPU = "max,pauth-impdef=on"
"""Everything that QEMU knows, pointer authentication among it, with a hash that is quick to emulate."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Spec:
    """What to run.

    Attributes:
        name: of the guest; part of the process's command line, by which it is known again.
        vmlinuz: kernel image.
        initrd: root file system.
        append: kernel command line after what the console needs.
        cpus: number of CPUs.
        memory_mib: memory in MiB.
        gdb: also listen for gdb, on a UNIX socket in the run folder.
        cpu: QEMU's model and its properties.
    """

    name: str
    vmlinuz: Path
    initrd: Path
    append: str = ""
    cpus: int = 2
    memory_mib: int = 512
    gdb: bool = False
    cpu: str = DEFAULT_CPU


def process_name(name: str) -> str:
    """Give the name under which QEMU runs a guest."""
    return f"surefoot-{name}"


def command_line(spec: Spec) -> list[str]:
    """Give QEMU's command line; pure. Sockets are relative to the folder in which QEMU is started."""
    words = [PROGRAM, "-name", process_name(spec.name)]
    # The memory is a file without a name: others of the same user can map it (targets/guestlive.py).
    words += ["-object", f"memory-backend-memfd,id=ram0,size={spec.memory_mib}M,share=on"]
    words += ["-M", "virt,gic-version=3,memory-backend=ram0", "-cpu", spec.cpu]
    words += ["-smp", str(spec.cpus), "-m", str(spec.memory_mib)]
    words += ["-nodefaults", "-display", "none", "-nic", "none", "-no-reboot", "-device", "vmcoreinfo"]
    words += ["-kernel", str(spec.vmlinuz), "-initrd", str(spec.initrd)]
    words += ["-append", f"console=ttyAMA0 panic=-1 {spec.append}".strip()]
    words += ["-chardev", f"socket,id=serial0,path={SERIAL},server=on,wait=off,logfile={SERIAL_LOG}"]
    words += ["-serial", "chardev:serial0"]
    words += ["-device", "virtio-serial-pci", "-device", "virtconsole,chardev=console0"]
    words += ["-chardev", f"socket,id=console0,path={CONSOLE},server=on,wait=off"]
    words += ["-qmp", f"unix:{QMP},server=on,wait=off", "-pidfile", PID_FILE, "-daemonize"]
    if spec.gdb:
        words += ["-chardev", f"socket,id=gdb0,path={GDB},server=on,wait=off", "-gdb", "chardev:gdb0"]
    return words


def start(spec: Spec, folder: Path) -> int:
    """Start QEMU in a folder, in the background, and give its process id.

    Raises:
        Unavailable: QEMU is not installed or did not start; its own words are in the hint.
    """
    check_tools(qemu_system_aarch64="qemu-system-arm")
    try:
        result = subprocess.run(
            command_line(spec),
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=_START_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"QEMU did not start within {_START_TIMEOUT_S} s") from error
    if result.returncode:
        words = result.stderr.strip().splitlines()
        raise Unavailable("QEMU did not start", hint=f"QEMU says: {words[-1] if words else 'nothing'}")
    return int((folder / PID_FILE).read_text())


def is_running(pid: int, name: str) -> bool:
    """Say whether this process is the QEMU of this guest, and not another that got its number later."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return process_name(name).encode() in words


def kill(pid: int, name: str) -> None:
    """End the QEMU of a guest; one that is gone already is fine."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + _QUIT_TIMEOUT_S
        with contextlib.suppress(ProcessLookupError):
            if is_running(pid, name):
                os.kill(pid, number)
        while is_running(pid, name) and time.monotonic() < deadline:
            time.sleep(0.02)


class Monitor:
    """A QMP connection that is opened for a block of commands; a context manager.

    Args:
        path: the monitor's UNIX socket.

    Raises:
        Unavailable: (on entering) nobody answers there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        from qemu.qmp import QMPClient, QMPError

        self._runner = asyncio.Runner()
        self._client = QMPClient("surefoot")
        try:
            connection = connect(self._path)
            connection.setblocking(False)
            # QEMU serves one monitor at a time: another one is greeted when this one has gone.
            self._run(lambda: asyncio.wait_for(self._client.connect(connection), timeout=_CONNECT_TIMEOUT_S))
        except (QMPError, OSError, TimeoutError) as error:
            self._runner.close()
            raise Unavailable(f"QEMU's monitor does not answer: {error}") from error
        except BaseException:
            self._runner.close()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        from qemu.qmp import QMPError

        with contextlib.suppress(QMPError, OSError, EOFError):
            self._run(self._client.disconnect)
        self._runner.close()

    def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:
        """Run a QMP command and give what it returned.

        Raises:
            TargetError: QEMU refused it; its own words are in the message.
            Unavailable: QEMU ended.
        """
        from qemu.qmp import ExecuteError, QMPError

        try:
            return self._run(lambda: self._client.execute(command, dict(arguments or {})))
        except ExecuteError as error:
            raise TargetError(f"QEMU refused {command}: {error}") from error
        except (QMPError, OSError, EOFError) as error:
            raise Unavailable(f"QEMU's monitor broke off during {command}: {error}") from error

    def status(self) -> str:
        """Give the guest's run state, such as ``running`` or ``paused``."""
        return str(self.execute("query-status")["status"])

    def dump(self, path: Path) -> None:
        """Write the guest's memory and registers as an ELF vmcore; only a stopped guest gives a consistent one.

        Args:
            path: absolute; must not exist.

        Raises:
            TargetError: QEMU could not write it, as on a full disk; a partial file may be left.
        """
        self.execute("dump-guest-memory", {"paging": False, "protocol": f"file:{path}"})

    def _run(self, action: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        async def perform() -> _T:
            return await action()

        return self._runner.run(perform())
