"""The gdb client against a stub that keeps to the protocol, and against stubs that do not."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surefoot.errors import TargetError, Unavailable
from surefoot.targets.gdb import GdbClient, GdbRefused, parse_registers

BASE = 0xFFFF_8000_0000_0000
NOWHERE = Path("nowhere")


def packet(content: bytes) -> bytes:
    return b"$" + content + b"#%02x" % (sum(content) % 256)


def registers_of(cpu: int) -> bytes:
    """x0..x30, sp, pc, cpsr, and behind them what QEMU sends of the floating point unit."""
    return struct.pack("<33QI", *(cpu * 1000 + i for i in range(33)), 0x60000005) + bytes(64)


class Stub:
    """A stub with 256 bytes of memory and two CPUs."""

    def __init__(self) -> None:
        self.memory = bytearray(range(256))
        self.cpu = 1
        self.listed = 0

    def answer(self, question: bytes) -> bytes:
        if question.startswith(b"qSupported"):
            return b"PacketSize=100;qXfer:features:read+"
        if question in {b"qfThreadInfo", b"qsThreadInfo"}:
            self.listed = 0 if question == b"qfThreadInfo" else self.listed + 1
            return (b"m01", b"m02", b"l")[self.listed]
        if question.startswith(b"Hg"):
            self.cpu = bytes.fromhex(question[2:].decode())[0]
            return b"OK" if self.cpu in {1, 2} else b"E22"
        if question == b"g":
            return registers_of(self.cpu).hex().encode()
        if question[:1] in b"mM":
            place, _, data = question[1:].partition(b":")
            addr, size = (int(part, 16) for part in place.split(b","))
            if not BASE <= addr <= addr + size <= BASE + 256:
                return b"E14"
            if question[:1] == b"m":
                return self.memory[addr - BASE : addr - BASE + size].hex().encode()
            self.memory[addr - BASE : addr - BASE + size] = bytes.fromhex(data.decode())
            return b"OK"
        return {b"Qqemu.PhyMemMode:1": b"OK", b"?": b"T05thread:01;", b"D": b"OK", b"c": b"T05thread:01;"}.get(
            question, b""
        )


Server = Callable[[socket.socket], None]


def questions(connection: socket.socket) -> Iterator[bytes]:
    """Take packets off a connection; acknowledgements are dropped."""
    data = b""
    while True:
        start = data.find(b"$")
        end = data.find(b"#", start)
        if start >= 0 and 0 <= end <= len(data) - 3:
            yield data[start + 1 : end]
            data = data[end + 3 :]
            continue
        more = connection.recv(4096)
        if not more:
            return
        data += more


def obey(stub: Stub, *, change: Callable[[bytes], bytes] = lambda raw: raw) -> Server:
    def serve(connection: socket.socket) -> None:
        for question in questions(connection):
            connection.sendall(change(b"+" + packet(stub.answer(question))))

    return serve


@contextmanager
def serving(server: Server, timeout: float = 5.0) -> Iterator[GdbClient]:
    ours, theirs = socket.socketpair()

    def run() -> None:
        with theirs:
            try:
                server(theirs)
            except OSError:
                return

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        with GdbClient(NOWHERE, timeout=timeout, connection=ours) as client:
            yield client
    finally:
        ours.close()
        thread.join(10)


class Greeting:
    """Answers the greeting as it should, and then does something else."""

    def __init__(self, then: Server) -> None:
        self.then = then

    def __call__(self, connection: socket.socket) -> None:
        next(questions(connection))
        connection.sendall(b"+" + packet(b"PacketSize=1000"))
        self.then(connection)


def test_registers_of_all_cpus_are_read() -> None:
    with serving(obey(Stub())) as client:
        first, second = client.registers()
    assert first.regs == tuple(range(1000, 1031))
    assert (first.sp, first.pc, first.pstate, first.pid) == (1031, 1032, 0x60000005, 1)
    assert (second.regs[0], second.sp, second.pid) == (2000, 2031, 2)
    assert not first.is_user


def test_memory_is_read_in_pieces_and_written_whole() -> None:
    stub = Stub()
    with serving(obey(stub)) as client:
        assert client.read(BASE, 256) == bytes(range(256))  # 512 digits, and packets of 256
        client.write(BASE + 8, b"\xde\xad\xbe\xef")
        assert client.read(BASE + 8, 4) == b"\xde\xad\xbe\xef"
        with pytest.raises(TargetError, match="at a time"):
            client.write(BASE, bytes(200))
    assert stub.memory[12:] == bytes(range(12, 256))


def test_a_refusal_is_told_apart_from_a_broken_connection() -> None:
    with serving(obey(Stub())) as client:
        with pytest.raises(GdbRefused) as caught:
            client.write(BASE + 255, b"ab")
        assert caught.value.number == 0x14
        with pytest.raises(GdbRefused):
            client.select("07")
        assert client.stop_reason() == "T05thread:01;"
        client.use_physical(on=True)
        with pytest.raises(TargetError, match="physical"):
            client.use_physical(on=False)  # an empty answer: the stub does not know the question
        client.detach()


def test_stops_that_nobody_asked_for_are_passed_over() -> None:
    """QEMU tells of every pause, also between a question and its answer."""
    stop = packet(b"T02thread:01;")
    with serving(obey(Stub(), change=lambda raw: stop + raw[:1] + stop + raw[1:])) as client:
        assert client.read(BASE, 4) == bytes(range(4))
        assert client.threads() == ["01", "02"]


def test_answers_that_come_byte_by_byte_are_put_together() -> None:
    def serve(connection: socket.socket) -> None:
        stub = Stub()
        for question in questions(connection):
            for byte in b"+" + packet(stub.answer(question)):
                connection.sendall(bytes([byte]))

    with serving(serve) as client:
        assert client.read(BASE, 16) == bytes(range(16))


def test_run_lengths_and_escapes_are_undone() -> None:
    def serve(connection: socket.socket) -> None:
        for content in (b"0* 1", b"}\x03*!"):  # "0", three more; then an escaped "#", four more
            next(questions(connection))
            connection.sendall(b"+" + packet(content))

    with serving(Greeting(serve)) as client:
        assert client.ask(b"m0,1", "x") == b"00001"
        assert client.ask(b"m0,1", "x") == b"#####"


def test_a_damaged_answer_is_asked_for_again() -> None:
    heard = []

    def serve(connection: socket.socket) -> None:
        next(questions(connection))
        connection.sendall(b"+$0102#00")
        heard.append(connection.recv(1))
        connection.sendall(packet(b"0102"))
        heard.append(connection.recv(1))

    with serving(Greeting(serve)) as client:
        assert client.read(BASE, 2) == b"\1\2"
    assert heard == [b"-", b"+"]


def test_a_damaged_question_is_sent_again_some_times() -> None:
    """QEMU may still be in the middle of a packet that a client before us did not finish."""

    def serve(connection: socket.socket) -> None:
        for reply in (b"-", b"+" + packet(b"OK"), b"-", b"-", b"-"):
            next(questions(connection))
            connection.sendall(reply)

    with serving(Greeting(serve)) as client:
        client.select("01")
        with pytest.raises(TargetError, match="damaged"):
            client.select("01")


@pytest.mark.parametrize("cut", range(len(packet(b"OK")) + 1))
def test_a_connection_that_drops_is_an_error_at_any_byte(cut: int) -> None:
    def serve(connection: socket.socket) -> None:
        next(questions(connection))
        connection.sendall((b"+" + packet(b"OK"))[:cut])

    with serving(Greeting(serve)) as client, pytest.raises(Unavailable):
        client.write(BASE, b"x")


def test_silence_ends_in_time() -> None:
    def serve(connection: socket.socket) -> None:
        next(questions(connection))
        time.sleep(1)

    with serving(Greeting(serve), timeout=0.2) as client:
        began = time.monotonic()
        with pytest.raises(Unavailable, match="within"):
            client.read(BASE, 4)
        assert time.monotonic() - began < 0.9


def test_a_stub_that_talks_without_end_does_not_hold_us() -> None:
    def serve(connection: socket.socket) -> None:
        while True:
            connection.sendall(b"$" + b"0" * 65536)

    began = time.monotonic()
    with serving(Greeting(serve), timeout=2.0) as client, pytest.raises(TargetError):
        client.read(BASE, 4)
    assert time.monotonic() - began < 4


def test_too_few_registers_are_refused() -> None:
    with pytest.raises(TargetError, match="registers"):
        parse_registers(registers_of(1)[:267], 0)
    assert parse_registers(registers_of(1)[:268], 0).pc == 1032


@settings(max_examples=60)
@given(st.lists(st.one_of(st.binary(max_size=40), st.builds(packet, st.binary(max_size=40))), max_size=6))
def test_garbage_never_makes_a_wrong_answer(parts: list[bytes]) -> None:
    """Whatever comes back, a call gives what the protocol says was sent, or an error, and in time."""

    def serve(connection: socket.socket) -> None:
        next(questions(connection))
        for part in parts:
            connection.sendall(part)

    with serving(Greeting(serve), timeout=1.0) as client:
        try:
            data = client.read(BASE, 2)
        except TargetError:
            return
        assert packet(data.hex().encode()).lower() in b"".join(parts).lower()


def test_a_client_that_was_closed_says_so() -> None:
    with serving(obey(Stub())) as client:
        client.close()
        with pytest.raises(Unavailable):
            client.read(BASE, 4)


def test_nobody_at_the_socket_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        GdbClient(tmp_path / "gdb.sock")
