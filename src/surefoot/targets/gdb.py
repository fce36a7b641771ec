"""Layer 7: a client of the gdb remote protocol, as much of it as reading and writing a paused guest takes.

Invariant: whatever the other end sends, a call ends in time with an answer that fits the question or with an
exception; nothing is written twice or left half sent without the caller being told.

What the protocol leaves to each stub and this client relies on, of QEMU 7.2 (gdbstub.c): a connection pauses the
guest; so does any byte that arrives while it runs; closing a connection changes nothing, whereas ``D`` lets the
guest go on, which is why it is sent only if asked for. A stop is told by a packet that nobody asked for.

Source:
    "GDB Remote Serial Protocol", appendix E of "Debugging with GDB".
"""

from __future__ import annotations

import re
import socket
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from surefoot.errors import TargetError, Unavailable
from surefoot.targets.dumpfile import CpuRegisters
from surefoot.targets.vm.guest import connect

__all__ = ["GdbClient", "GdbRefused", "parse_registers"]

_CHUNK: Final = 1 << 16
_MAX_PACKET: Final = 1 << 20
"""Longest reply that is believed; QEMU sends at most 4096 characters at a time."""
_TRIES: Final = 3
"""How often a packet is sent when the other end says that it arrived damaged."""
_STOP: Final = re.compile(rb"[TS][0-9a-f]{2}")
_DEFAULT_PACKET: Final = 1024
"""Characters that every stub takes, in fact less than any known one."""
_CORE: Final = struct.Struct("<33QI")
"""First registers of aarch64-core.xml: x0..x30, sp, pc, cpsr."""


class GdbRefused(TargetError):
    """The stub has understood the question and says no, with an error number.

    Attributes:
        number: of the error, as the stub gives it.
    """

    def __init__(self, question: str, number: int) -> None:
        super().__init__(f"QEMU's gdbstub refused {question}: error {number}")
        self.number = number


def parse_registers(data: bytes, cpu: int) -> CpuRegisters:
    """Give the registers out of the answer to ``g``.

    Args:
        data: the bytes that the hexadecimal digits stand for.
        cpu: number of the CPU, from 0.

    Raises:
        TargetError: too few bytes for an arm64 CPU.
    """
    if len(data) < _CORE.size:
        raise TargetError(f"QEMU's gdbstub gave {len(data)} bytes of registers, an arm64 CPU has {_CORE.size}")
    *regs, sp, pc, pstate = _CORE.unpack_from(data)
    return CpuRegisters(tuple(regs), sp, pc, pstate, cpu + 1)


class GdbClient:
    """A connection to a gdb stub; a context manager that closes it and leaves the guest as it is.

    Args:
        path: UNIX socket of the stub.
        timeout: seconds that each answer may take.
        connection: in place of a socket at `path`, for tests.

    Raises:
        Unavailable: nobody answers there.
    """

    def __init__(self, path: Path, *, timeout: float = 10.0, connection: socket.socket | None = None) -> None:
        self._path = path
        self._timeout = timeout
        self._socket = connect(path) if connection is None else connection
        self._buffer = bytearray()
        self._packet_size = _DEFAULT_PACKET
        try:
            self._greet()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; a paused guest stays paused."""
        with suppress(OSError):
            self._socket.close()

    def _greet(self) -> None:
        """Ask what the stub takes."""
        answer = self.ask(b"qSupported:multiprocess-;swbreak-;hwbreak-", "its features")
        for item in answer.split(b";"):
            name, _, value = item.partition(b"=")
            if name == b"PacketSize" and re.fullmatch(rb"[0-9a-fA-F]{1,8}", value):
                # `$`, `#` and the checksum count as well (gdb itself takes them off its own limit).
                self._packet_size = max(64, min(int(value, 16), _MAX_PACKET) - 5)

    def ask(self, question: bytes, what: str) -> bytes:
        """Send a packet and give the answer; stops that are told meanwhile are passed over.

        Args:
            question: the packet's content, of plain characters.
            what: is wanted, for messages.

        Raises:
            Unavailable: the connection is lost, or no answer came in time.
            TargetError: the answers are damaged again and again.
            GdbRefused: the stub says no.
        """
        deadline = time.monotonic() + self._timeout
        packet = b"$" + question + b"#" + f"{sum(question) % 256:02x}".encode()
        for _ in range(_TRIES):
            self._send(packet, deadline, what)
            if self._acknowledged(deadline, what):
                break
        else:
            raise TargetError(f"QEMU's gdbstub says {_TRIES} times that the question for {what} arrived damaged")
        answer = self._receive(deadline, what)
        while _STOP.match(answer) and not question.startswith((b"?", b"c", b"vCont")):
            answer = self._receive(deadline, what)
        if re.fullmatch(rb"E[0-9a-fA-F]{2}", answer):
            raise GdbRefused(what, int(answer[1:], 16))
        return answer

    def stop_reason(self) -> str:
        """Give why the guest stands still, as the stub words it, such as ``T02thread:01;``."""
        return self.ask(b"?", "why the guest stopped").decode("ascii", "replace")

    def threads(self) -> list[str]:
        """Give the stub's names of the CPUs, in its order.

        Raises:
            TargetError: the list is none.
        """
        found: list[str] = []
        answer = self.ask(b"qfThreadInfo", "the list of CPUs")
        while answer != b"l":
            names = answer[1:].split(b",")
            if not answer.startswith(b"m") or any(not re.fullmatch(rb"[p0-9a-fA-F.]{1,32}", name) for name in names):
                raise TargetError(f"QEMU's gdbstub gave a list of CPUs that is none: {answer[:40]!r}")
            found += [name.decode() for name in names]
            if len(found) > 4096:
                raise TargetError("QEMU's gdbstub gave a list of CPUs without end")
            answer = self.ask(b"qsThreadInfo", "the list of CPUs")
        return found

    def registers(self) -> tuple[CpuRegisters, ...]:
        """Give the registers of all CPUs; they mean something while the guest is paused.

        Raises:
            TargetError: an answer is not usable.
        """
        found = []
        for number, name in enumerate(self.threads()):
            self.select(name)
            found.append(parse_registers(self._hex(self.ask(b"g", "registers"), "registers"), number))
        return tuple(found)

    def select(self, thread: str) -> None:
        """Choose the CPU that the next questions speak of, by its name from `threads`.

        Raises:
            TargetError: the stub does not know it.
        """
        self._ok(self.ask(b"Hg" + thread.encode(), f"CPU {thread}"), f"CPU {thread}")

    def use_physical(self, *, on: bool) -> None:
        """Let addresses be physical ones, or virtual ones of the chosen CPU; QEMU's own extension.

        A CPU in user space cannot reach the kernel by virtual addresses. QEMU keeps the mode for later connections.

        Raises:
            TargetError: the stub does not know the mode.
        """
        self._ok(self.ask(f"Qqemu.PhyMemMode:{int(on)}".encode(), "physical addresses"), "physical addresses")

    def read(self, addr: int, size: int) -> bytes:
        """Read memory.

        Raises:
            TargetError: it cannot be read.
        """
        step = max(1, (self._packet_size - 8) // 2)
        data = b""
        while len(data) < size:
            length = min(step, size - len(data))
            what = f"{length} bytes at {addr + len(data):#x}"
            part = self._hex(self.ask(f"m{addr + len(data):x},{length:x}".encode(), what), what)
            if len(part) != length:
                raise TargetError(f"QEMU's gdbstub gave {len(part)} of {what}")
            data += part
        return data

    def write(self, addr: int, data: bytes) -> None:
        """Write memory, whatever page tables allow; in one packet.

        QEMU throws away the code that it has translated from there (softmmu/physmem.c: invalidate_and_set_dirty),
        which is all that an emulated CPU has in place of an instruction cache.

        Raises:
            GdbRefused: it cannot be written; nothing was.
            Unavailable: the connection is lost, so that it may be written or not.
            TargetError: as above, or the bytes do not fit into a packet.
        """
        what = f"to write {len(data)} bytes at {addr:#x}"
        packet = f"M{addr:x},{len(data):x}:{data.hex()}".encode()
        if len(packet) > self._packet_size:
            raise TargetError(f"QEMU's gdbstub takes {self._packet_size} characters at a time, not {len(packet)}")
        self._ok(self.ask(packet, what), what)

    def resume(self) -> None:
        """Let the guest run, without waiting for it to stop.

        Raises:
            Unavailable: the connection is lost.
        """
        deadline = time.monotonic() + self._timeout
        self._send(b"$c#63", deadline, "to go on")
        self._acknowledged(deadline, "to go on")

    def interrupt(self) -> str:
        """Stop the guest and give the stub's word for it.

        Raises:
            Unavailable: the connection is lost, or the guest did not stop in time.
        """
        deadline = time.monotonic() + self._timeout
        self._send(b"\x03", deadline, "to stop")
        return self._receive(deadline, "to stop").decode("ascii", "replace")

    def detach(self) -> None:
        """Let the guest go on and end the session (``D``).

        Raises:
            TargetError: the stub does not want to.
        """
        self._ok(self.ask(b"D", "to detach"), "to detach")

    @staticmethod
    def _ok(answer: bytes, what: str) -> None:
        if answer != b"OK":
            raise TargetError(f"QEMU's gdbstub answered {answer[:40]!r} to {what}")

    @staticmethod
    def _hex(answer: bytes, what: str) -> bytes:
        try:
            return bytes.fromhex(answer.decode("ascii"))
        except ValueError as error:
            raise TargetError(f"QEMU's gdbstub answered {answer[:40]!r} to {what}") from error

    def _send(self, data: bytes, deadline: float, what: str) -> None:
        left = self._left(deadline, what)
        try:
            self._socket.settimeout(left)
            self._socket.sendall(data)
        except OSError as error:
            raise Unavailable(
                f"the connection to QEMU's gdbstub broke at the question for {what}: {error}"
            ) from error

    def _left(self, deadline: float, what: str) -> float:
        left = deadline - time.monotonic()
        if left <= 0:
            raise Unavailable(f"QEMU's gdbstub did not answer within {self._timeout:.0f} s: {what}")
        return left

    def _fill(self, deadline: float, what: str) -> None:
        """Wait for more bytes."""
        left = self._left(deadline, what)
        try:
            self._socket.settimeout(left)
            data = self._socket.recv(_CHUNK)
        except TimeoutError:
            self._left(0.0, what)
            return
        except OSError as error:
            raise Unavailable(f"the connection to QEMU's gdbstub broke: {error}") from error
        if not data:
            raise Unavailable(f"QEMU's gdbstub closed the connection instead of answering: {what}")
        self._buffer += data
        if len(self._buffer) > 2 * _MAX_PACKET:
            raise TargetError(f"QEMU's gdbstub sends without end instead of answering: {what}")

    def _acknowledged(self, deadline: float, what: str) -> bool:
        """Wait for the sign that a packet has arrived: True for whole, False for damaged.

        Packets that come first speak of something else: a stop. They are taken off and acknowledged.
        """
        while True:
            while not self._buffer:
                self._fill(deadline, what)
            first = self._buffer[0]
            if first in b"+-":
                del self._buffer[0]
                return first == ord("+")
            if first == ord("$"):
                self._receive(deadline, what)
            else:
                del self._buffer[0]

    def _receive(self, deadline: float, what: str) -> bytes:
        """Give the content of the next packet and acknowledge it."""
        for _ in range(_TRIES):
            packet, good = self._packet(deadline, what)
            if good:
                with suppress(Unavailable):  # the answer is here; a lost connection is told by the next question
                    self._send(b"+", deadline, what)
                return packet
            self._send(b"-", deadline, what)
        raise TargetError(f"QEMU's gdbstub's answer arrived damaged {_TRIES} times: {what}")

    def _packet(self, deadline: float, what: str) -> tuple[bytes, bool]:
        """Take the next packet off the buffer: its content, and whether its checksum is right."""
        while True:
            start = self._buffer.find(b"$")
            if start < 0:
                self._buffer.clear()
            else:
                del self._buffer[:start]
                end = self._buffer.find(b"#")
                if 0 <= end <= len(self._buffer) - 3:
                    raw, told = bytes(self._buffer[1:end]), bytes(self._buffer[end + 1 : end + 3])
                    del self._buffer[: end + 3]
                    good = bool(re.fullmatch(rb"[0-9a-fA-F]{2}", told)) and int(told, 16) == sum(raw) % 256
                    return _expand(raw), good
            self._fill(deadline, what)


def _expand(raw: bytes) -> bytes:
    """Undo the escapes and the run-length encoding of a packet."""
    out = bytearray()
    at = 0
    while at < len(raw):
        byte = raw[at]
        if byte == ord("}") and at + 1 < len(raw):
            out.append(raw[at + 1] ^ 0x20)
            at += 2
        elif byte == ord("*") and at + 1 < len(raw) and out and raw[at + 1] >= 29:
            out += out[-1:] * (raw[at + 1] - 29)
            at += 2
        else:
            out.append(byte)
            at += 1
        if len(out) > _MAX_PACKET:
            break
    return bytes(out)
