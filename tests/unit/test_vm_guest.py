"""The command channel, against an agent that is a thread of the test; and the kernel's traces as they are parsed."""

from __future__ import annotations

import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surefoot.errors import TargetError, Unavailable
from surefoot.targets.vm.guest import Console, connect, encode
from surefoot.targets.vm.stacks import Frame, parse_stacks

Reply = Callable[[bytes, bytes, bytes], list[bytes]]


def decode(text: str) -> bytes:
    """Do what printf %b does with the escapes that encode() uses."""
    return re.sub(rb"\\0([0-7]{3})", lambda match: bytes([int(match[1], 8)]), text.encode())


@contextmanager
def agent(path: Path, reply: Reply) -> Iterator[list[bytes]]:
    """Serve one connection: the first line's verb, mark and rest go to reply, whose pieces are sent one by one."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()
    seen: list[bytes] = []

    def serve() -> None:
        connection, _ = server.accept()
        with connection, connection.makefile("rb") as lines:
            line = lines.readline()
            verb, mark, rest = line.rstrip(b"\n").split(b" ", 2)
            if verb == b"PUT":
                seen.append(lines.read(int(rest.split(b" ")[0])))
            seen.append(rest)
            for piece in reply(verb, mark, rest):
                connection.sendall(piece)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield seen
    finally:
        thread.join(5)
        server.close()


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_a_command_travels_as_one_plain_line(command: str) -> None:
    line = encode(command)
    assert line.isascii()
    assert "\n" not in line
    assert decode(line) == command.encode()


def test_printf_undoes_the_encoding() -> None:
    command = "echo 'a b' \\ \"$x\" %s\n\té"
    done = subprocess.run(["/bin/sh", "-c", 'printf %b "$1"', "sh", encode(command)], capture_output=True, check=True)
    assert done.stdout == command.encode()


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_output_and_status_come_back_whatever_the_pieces(tmp_path: Path, size: int) -> None:
    def reply(_verb: bytes, mark: bytes, _rest: bytes) -> list[bytes]:
        text = b"left over\n\x03old 0\n\x02" + mark + b"\nline\n\x00\x03 bytes\n\x03" + mark + b" 42\n"
        return [text[i : i + size] for i in range(0, len(text), size)]

    with agent(tmp_path / "c.sock", reply) as seen:
        answer = Console(tmp_path / "c.sock").run("ls /")
    assert answer.output == b"line\n\x00\x03 bytes"
    assert answer.status == 42
    assert seen == [b"ls /"]


def test_a_file_is_sent_with_its_length(tmp_path: Path) -> None:
    data = bytes(range(256)) * 100
    with agent(tmp_path / "c.sock", lambda _v, m, _r: [b"\x02" + m + b"\n\n\x03" + m + b" 0\n"]) as seen:
        Console(tmp_path / "c.sock").push(data, "/tmp/a file", mode=0o755)  # noqa: S108  in the guest
    assert seen[0] == data
    length, _, command = seen[1].partition(b" ")
    assert int(length) == len(data)
    assert decode(command.decode()) == b"cat >'/tmp/a file' && chmod 755 '/tmp/a file'"


def test_a_failed_command_is_an_error_with_its_last_line(tmp_path: Path) -> None:
    with (
        agent(tmp_path / "c.sock", lambda _v, m, _r: [b"\x02" + m + b"\nwhy\nbecause\n\x03" + m + b" 1\n"]),
        pytest.raises(TargetError, match="because"),
    ):
        Console(tmp_path / "c.sock").check("x")


def test_a_guest_that_ends_or_keeps_silent_is_an_error(tmp_path: Path) -> None:
    with (
        agent(tmp_path / "a.sock", lambda _v, m, _r: [b"\x02" + m + b"\nhalf"]),
        pytest.raises(Unavailable, match="ended"),
    ):
        Console(tmp_path / "a.sock").run("x")
    release = threading.Event()

    def silent(_verb: bytes, _mark: bytes, _rest: bytes) -> list[bytes]:
        release.wait(5)
        return []

    with agent(tmp_path / "b.sock", silent):
        with pytest.raises(TargetError, match="did not answer"):
            Console(tmp_path / "b.sock").run("x", timeout=0.05)
        release.set()


def test_nobody_at_the_socket_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        Console(tmp_path / "no.sock").run("x")
    with pytest.raises(TargetError):
        Console(tmp_path / "no.sock").wait_ready(0.2)


def test_a_socket_deeper_than_the_address_allows_is_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("x" * 100) / ("y" * 100)
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    server = socket.socket(socket.AF_UNIX)
    server.bind("s.sock")
    server.listen()
    connect(deep / "s.sock").close()
    server.close()


LISTING = """\
7/task/8/status:Name:\tcat [x]: y
7/task/8/status:State:\tS (sleeping)
7/task/8/status:voluntary_ctxt_switches:\t12
7/task/8/status:nonvoluntary_ctxt_switches:\t3
7/task/8/stack:[<0>] mousedev_read+0x10c/0x2a0 [mousedev]
7/task/8/stack:[<0>] vfs_read+0x1/0x20
7/task/8/stack:[<0>] 0x420188
2/task/2/stack:[<0>] kthreadd+0x1f0/0x2b0
grep: 9/task/9/stack: No such file or directory
"""


def test_traces_are_read_thread_by_thread() -> None:
    first, second = parse_stacks(LISTING)
    assert (first.pid, first.tgid, first.comm, first.state) == (8, 7, "cat [x]: y", "S")
    assert (first.nvcsw, first.nivcsw) == (12, 3)
    assert first.frames == [Frame("mousedev_read", 0x10C, 0x2A0, "mousedev"), Frame("vfs_read", 1, 0x20)]
    assert first.unknown == ["[<0>] 0x420188"]
    assert (second.pid, second.nvcsw) == (2, -1)
    assert first.to_json()["frames"][0] == {
        "symbol": "mousedev_read",
        "offset": 0x10C,
        "size": 0x2A0,
        "module": "mousedev",
    }


@given(st.text())
def test_no_listing_breaks_the_parser(text: str) -> None:
    parse_stacks("1/task/1/stack:" + text)
