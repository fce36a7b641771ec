"""Layer 7: make QEMU's compressed dumps readable: from makedumpfile's flattened form to a seekable kdump file.

QEMU before 8.2 writes kdump formats only in the flattened form: a header of 4096 bytes, then records of a
big-endian offset and size, each with that many bytes, ended by an offset of -1 (makedumpfile.h: struct
makedumpfile_header, makedumpfile_data_header). It also leaves the kernel's name empty, so that
libkdumpfile cannot tell the architecture (QEMU dump/dump.c: create_header64).
"""

from __future__ import annotations

import struct
from typing import BinaryIO

from surefoot.errors import Inconsistent, Truncated, Unsupported

__all__ = ["complete_utsname", "unflatten"]

_SIGNATURE = b"makedumpfile\0\0\0\0"
_HEADER_BYTES = 4096
_RECORD = struct.Struct(">qq")
_CHUNK_BYTES = 1 << 20
_KDUMP = b"KDUMP   "
_UTS_OFF = 12
_UTS_BYTES = 65


def unflatten(source: BinaryIO, target: BinaryIO) -> None:
    """Write the seekable form of a flattened dump.

    Args:
        source: the flattened dump, at its start.
        target: an empty file that can be written anywhere.

    Raises:
        Unsupported: not a flattened dump.
        Truncated: it ends before its last record.
        Inconsistent: a record lies at a negative place or has a negative size.
    """
    header = source.read(_HEADER_BYTES)
    if not header.startswith(_SIGNATURE):
        raise Unsupported("not a dump in makedumpfile's flattened form")
    while True:
        record = source.read(_RECORD.size)
        if len(record) < _RECORD.size:
            raise Truncated("the flattened dump has no last record", offset=source.tell())
        offset, size = _RECORD.unpack(record)
        if offset == -1:
            return
        if offset < 0 or size < 0:
            raise Inconsistent("a record of the flattened dump is nowhere", offset=source.tell())
        target.seek(offset)
        while size:
            data = source.read(min(size, _CHUNK_BYTES))
            if not data:
                raise Truncated("the flattened dump ends inside a record", offset=source.tell())
            target.write(data)
            size -= len(data)


def complete_utsname(target: BinaryIO, release: str, machine: str = "aarch64") -> None:
    """Fill in what a kdump header does not know of the kernel; what it knows is left alone.

    libkdumpfile takes the architecture from the header only if no field of the name is empty.

    Args:
        target: a seekable kdump file.
        release: what ``uname -r`` prints.
        machine: what ``uname -m`` prints.

    Raises:
        Unsupported: not a kdump file.
    """
    target.seek(0)
    if target.read(len(_KDUMP)) != _KDUMP:
        raise Unsupported("not a kdump file")
    # struct new_utsname; what only the guest could tell is said to be unknown.
    fields = ("Linux", "(unknown)", release, "(unknown)", machine, "(unknown)")
    for index, value in enumerate(fields):
        at = _UTS_OFF + index * _UTS_BYTES
        target.seek(at)
        if target.read(_UTS_BYTES).rstrip(b"\0") in {b"", b"Unknown"}:
            target.seek(at)
            target.write(value.encode()[: _UTS_BYTES - 1].ljust(_UTS_BYTES, b"\0"))
