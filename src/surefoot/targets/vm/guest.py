"""Layer 7: running shell commands in a guest, over the UNIX socket of its virtio console.

``guest/agent.sh`` is the other end and describes the exchange.
"""

from __future__ import annotations

import os
import secrets
import shlex
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from surefoot.errors import TargetError, Unavailable
from surefoot.targets.vm.folders import locked

__all__ = ["Answer", "Console", "connect", "encode"]

_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ./-_=,:@+")
_CHUNK_BYTES = 1 << 16
_POLL_S = 0.1
_PIECE_BYTES = 16384


@dataclass(frozen=True)
class Answer:
    """What a command in the guest left.

    Attributes:
        output: standard output and error, as one stream.
        status: exit status.
    """

    output: bytes
    status: int

    @property
    def text(self) -> str:
        """The output as text."""
        return self.output.decode("utf-8", "replace")


def encode(command: str) -> str:
    """Give a command as one line of plain characters that ``printf %b`` turns back into it."""
    return "".join(chr(byte) if byte in _PLAIN else f"\\0{byte:03o}" for byte in command.encode())


def connect(path: Path) -> socket.socket:
    """Give a connection to a UNIX socket, however long its path is.

    Raises:
        Unavailable: nobody listens there.
    """
    connection = socket.socket(socket.AF_UNIX)
    folder = -1
    try:
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
        connection.connect(f"/proc/self/fd/{folder}/{path.name}")
    except OSError as error:
        connection.close()
        raise Unavailable(f"nothing answers at {path}: {error}") from error
    finally:
        if folder >= 0:
            os.close(folder)
    return connection


class Console:
    """Runs commands in a guest, one after the other; several processes may use the same guest in turn.

    Args:
        path: the UNIX socket of the guest's virtio console.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def run(self, command: str, *, timeout: float = 60.0) -> Answer:
        """Run a shell command to its end.

        Args:
            command: anything that ``sh -c`` takes.
            timeout: seconds.

        Raises:
            Unavailable: the guest is not there, or ended meanwhile.
            TargetError: it did not answer in time; the command may still be running in the guest.
        """
        return self._ask("RUN {mark} " + encode(command), b"", timeout)

    def check(self, command: str, *, timeout: float = 60.0) -> str:
        """Run a shell command that has to end with status 0, and give its output as text.

        Raises:
            TargetError: it did not, or as for :meth:`run`.
        """
        answer = self.run(command, timeout=timeout)
        if answer.status:
            lines = answer.text.strip().splitlines()
            said = lines[-1] if lines else "no output"
            raise TargetError(f"the guest could not run '{command[:60]}': {said} (status {answer.status})")
        return answer.text

    def wait_ready(self, timeout: float) -> None:
        """Wait until the guest runs commands.

        Raises:
            TargetError: not within this many seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                # What is sent before the guest listens is lost: ask again, quickly.
                self.run("true", timeout=min(2.0, max(_POLL_S, deadline - time.monotonic())))
            except TargetError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_POLL_S)
            else:
                return

    def push(self, data: bytes, name: str, *, mode: int = 0o644, timeout: float = 60.0) -> None:
        """Have a file with these bytes in the guest.

        Args:
            data: the content.
            name: absolute path in the guest.
            mode: permission bits.
            timeout: seconds.

        Raises:
            TargetError: the guest could not write it.
        """
        command = f"cat >{shlex.quote(name)} && chmod {mode:o} {shlex.quote(name)}"
        answer = self._ask(f"PUT {{mark}} {len(data)} " + encode(command), data, timeout)
        if answer.status:
            raise TargetError(f"the guest could not write {name}: {answer.text.strip()}")

    def pull(self, name: str, *, timeout: float = 60.0) -> bytes:
        """Give the content of a file in the guest.

        It comes in pieces, each asked for when the last one is here. A guest that writes more than the sockets
        between it and us hold, while this process gets no processor time, is throttled by QEMU, and QEMU's
        virtio console has been seen not to let it go on again.

        Args:
            name: absolute path in the guest.
            timeout: seconds for each piece.

        Raises:
            TargetError: the guest could not read it.
        """
        path = shlex.quote(name)
        size = int(self.check(f"wc -c <{path}", timeout=timeout))
        pieces = []
        for number in range(-(-size // _PIECE_BYTES)):
            command = f"dd if={path} bs={_PIECE_BYTES} skip={number} count=1 2>/dev/null"
            answer = self.run(command, timeout=timeout)
            if answer.status:
                raise TargetError(f"the guest could not read {name}: status {answer.status}")
            pieces.append(answer.output)
        data = b"".join(pieces)
        if len(data) != size:
            raise TargetError(f"the guest gave {len(data)} bytes of {name}, which has {size}")
        return data

    @contextmanager
    def _connection(self) -> Iterator[socket.socket]:
        """Hold the only connection that QEMU serves at a time."""
        with locked(self._path.with_suffix(".lock")), connect(self._path) as connection:
            yield connection

    def _ask(self, request: str, payload: bytes, timeout: float) -> Answer:
        """Send a request line, with ``{mark}`` where its mark belongs, and what follows it; wait for the answer."""
        mark = secrets.token_hex(6)
        deadline = time.monotonic() + timeout
        with self._connection() as connection:
            connection.settimeout(timeout)
            try:
                connection.sendall(request.replace("{mark}", mark, 1).encode() + b"\n" + payload)
            except OSError as error:
                raise Unavailable(f"the connection to the guest broke: {error}") from error
            output, status = self._collect(connection, mark.encode(), deadline, timeout)
        return Answer(output, status)

    def _collect(self, connection: socket.socket, mark: bytes, deadline: float, timeout: float) -> tuple[bytes, int]:
        """Read until the end mark of this command; what older commands left is passed over."""
        begin, end = b"\x02" + mark + b"\n", b"\n\x03" + mark + b" "
        buffer = bytearray()
        searched = 0
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TargetError(f"the guest did not answer within {timeout:.0f} s")
            connection.settimeout(left)
            try:
                data = connection.recv(_CHUNK_BYTES)
            except TimeoutError:
                continue
            except OSError as error:
                raise Unavailable(f"the connection to the guest broke: {error}") from error
            if not data:
                raise Unavailable("the guest ended while a command ran")
            buffer += data
            at = buffer.find(end, searched)
            searched = max(0, len(buffer) - len(end))
            if at < 0:
                continue
            newline = buffer.find(b"\n", at + len(end))
            if newline < 0:
                searched = at
                continue
            start = buffer.find(begin)
            if start < 0:
                raise TargetError("the guest's answer has no beginning")
            return bytes(buffer[start + len(begin) : at]), int(buffer[at + len(end) : newline])
