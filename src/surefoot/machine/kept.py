"""Layer 7: a machine as bytes, to go on with in another process: memory, registers and devices at one instant.

Nothing of the emulator's own memory is kept: registers are read by name, and written by name into a fresh machine.
That is possible between two instructions in the kernel only; `freeze` lets the machine run there.

Invariant: what was kept is checked whole before a byte of it is used.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any, Final

from unicorn import arm64_const as reg

from surefoot.errors import Inconsistent, TargetError, UnknownVersion
from surefoot.machine.board import Board, Observer, Snapshot, Stop
from surefoot.machine.loader import KernelFile

__all__ = ["freeze", "thaw"]

_MAGIC: Final = b"surefoot-machine/"
_VERSION: Final = b"1\n"
_DIGEST: Final = 32
_SIZE: Final = struct.Struct("<Q")
_MOST: Final = 64 << 20
"""Bytes that a kept machine may unpack to; one has half a megabyte."""
_HINT: Final = "delete it to begin with a fresh machine"

_GENERAL: Final = {
    **{f"x{i}": reg.UC_ARM64_REG_X0 + i for i in range(29)},
    "x29": reg.UC_ARM64_REG_X29,
    "x30": reg.UC_ARM64_REG_X30,
    "sp": reg.UC_ARM64_REG_SP,
    "pc": reg.UC_ARM64_REG_PC,
    "pstate": reg.UC_ARM64_REG_PSTATE,
    "elr_el1": reg.UC_ARM64_REG_ELR_EL1,
}
# crn, crm, op0, op1, op2
_SYSTEM: Final = {
    "spsr_el1": (4, 0, 3, 0, 0),
    "esr_el1": (5, 2, 3, 0, 0),
    "far_el1": (6, 0, 3, 0, 0),
    "sp_el0": (4, 1, 3, 0, 0),
    "vbar_el1": (12, 0, 3, 0, 0),
    "tpidr_el0": (13, 0, 3, 3, 2),
    "tpidrro_el0": (13, 0, 3, 3, 3),
}


def freeze(board: Board, notes: Mapping[str, Any]) -> bytes:
    """Give a machine as bytes; lets it run first until it is in the kernel.

    Args:
        board: the machine.
        notes: what else has to be kept, as JSON has it.

    Raises:
        TargetError: the machine has ended.
    """
    while board.registers.user:
        if board.run(1) is Stop.EXIT:
            raise TargetError("the emulated machine has ended")
    found = board.snapshot()
    registers = {name: int(found.context.reg_read(which)) for name, which in _GENERAL.items()}
    registers |= {name: board.system(which) for name, which in _SYSTEM.items()}
    head = {
        "build_id": board.kernel.image.build_id,
        "variant": str(board.kernel.variant),
        "fields": found.fields,
        "registers": registers,
        "memory": [[low, len(data)] for low, data in found.memory.items()],
        "notes": dict(notes),
    }
    text = json.dumps(head).encode()
    body = zlib.compress(_SIZE.pack(len(text)) + text + b"".join(found.memory.values()), 1)
    return _MAGIC + _VERSION + hashlib.sha256(body).digest() + body


def thaw(kernel: KernelFile, data: bytes, *, name: str, observer: Observer | None = None) -> tuple[Board, Any]:
    """Give the machine that was kept, and the notes.

    Args:
        kernel: that it runs.
        data: from `freeze`.
        name: of the file, for errors.
        observer: told of every step from now on.

    Raises:
        UnknownVersion: of another version of Surefoot, or another kernel.
        Inconsistent: damaged.
    """
    start = len(_MAGIC) + len(_VERSION)
    if not data.startswith(_MAGIC):
        raise Inconsistent("this is no kept machine", file=name, hint=_HINT)
    if data[len(_MAGIC) : start] != _VERSION:
        raise UnknownVersion("the machine was kept by another version of Surefoot", file=name, hint=_HINT)
    digest, body = data[start : start + _DIGEST], data[start + _DIGEST :]
    if hashlib.sha256(body).digest() != digest:
        raise Inconsistent("the kept machine is damaged", file=name, hint=_HINT)
    try:
        plain = zlib.decompressobj().decompress(body, _MOST)
        (size,) = _SIZE.unpack_from(plain)
        head = json.loads(plain[_SIZE.size : _SIZE.size + size])
        if head["build_id"] != kernel.image.build_id or head["variant"] != kernel.variant:
            raise UnknownVersion("the kept machine runs another kernel", file=name, hint=_HINT)
        memory = _split(plain[_SIZE.size + size :], head["memory"])
        board = Board(kernel, seed=int(head["fields"]["seed"]), observer=observer)
        context = board.snapshot().context
        for each, which in _GENERAL.items():
            context.reg_write(which, head["registers"][each])
        board.restore(Snapshot(context, memory, head["fields"]))
        for each, place in _SYSTEM.items():
            board.set_system(place, head["registers"][each])
    except (ValueError, KeyError, TypeError, IndexError, struct.error, zlib.error) as error:
        raise Inconsistent(f"the kept machine is damaged: {error}", file=name, hint=_HINT) from error
    return board, head["notes"]


def _split(data: bytes, sizes: list[list[int]]) -> dict[int, bytes]:
    """Cut memory into its regions."""
    memory, at = {}, 0
    for low, size in sizes:
        memory[low] = data[at : at + size]
        if len(memory[low]) != size:
            raise ValueError("memory is missing")
        at += size
    return memory
