"""Memory dumps by hand: ELF core files and kdump headers, byte by byte."""

from __future__ import annotations

import struct

INFO = (
    "OSRELEASE=7.3.4-test\nBUILD-ID=B114001d8228c02ea1c3170732da3a7b611ce811\nPAGESIZE=4096\n"
    "SYMBOL(swapper_pg_dir)=ffff9a322c86b000\nKERNELOFFSET=1a31aa800000\nNUMBER(KERNELPACMASK)=0xfff0000000000000\n"
)


def note(name: bytes, kind: int, data: bytes) -> bytes:
    """Make an ELF note."""
    padded = (name + b"\0").ljust((len(name) + 4) & ~3, b"\0")
    return struct.pack("<III", len(name) + 1, len(data), kind) + padded + data.ljust((len(data) + 3) & ~3, b"\0")


def prstatus(regs: list[int], pid: int = 1) -> bytes:
    """Make an NT_PRSTATUS note: 34 registers at byte 112, the process ID at 32."""
    data = bytes(32) + struct.pack("<i", pid) + bytes(76) + struct.pack("<34Q", *regs) + bytes(8)
    return note(b"CORE", 1, data)


def vmcoreinfo(text: str = INFO) -> bytes:
    """Make a VMCOREINFO note."""
    return note(b"VMCOREINFO", 0, text.encode())


def elf_core(
    notes: bytes, memory: bytes = b"", *, machine: int = 183, kind: int = 4, phnum: int | None = None
) -> bytes:
    """Make an ELF core file with one note segment and one load segment."""
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    count = 2 if phnum is None else phnum
    head = ident + struct.pack("<HHIQQQIHHHHHH", kind, machine, 1, 0, 64, 176, 0, 64, 56, count, 64, 1, 0)
    at = 240
    load_at = at + len(notes)
    table = struct.pack("<II6Q", 4, 0, at, 0, 0, len(notes), len(notes), 4)
    table += struct.pack("<II6Q", 1, 0, load_at, 0, 0x4000_0000, len(memory), len(memory), 0)
    section = struct.pack("<IIQQQQIIQQ", 0, 0, 0, 0, 0, 0, 0, 2, 0, 0)  # sh_info: the count for PN_XNUM
    return head + table + section + notes + memory


def kdump(
    notes: bytes,
    *,
    sysname: bytes = b"Linux",
    machine: bytes = b"aarch64",
    version: int = 6,
    block: int = 4096,
    info: bytes = INFO.encode(),
) -> bytes:
    """Make the headers of a kdump file."""
    uts = b"".join(field.ljust(65, b"\0") for field in (sysname, b"n", b"7.3.4", b"#1", machine, b""))
    head = struct.pack("<8si", b"KDUMP   ", version) + uts + bytes(22) + struct.pack("<Ii", 1, block) + bytes(32)
    sub = bytes(32) + struct.pack("<4Q", block + 256, len(info), block + 256 + len(info), len(notes))
    return head.ljust(block, b"\0") + sub.ljust(256, b"\0") + info + notes


def flattened(data: bytes, piece: int = 1000) -> bytes:
    """Make a flattened dump of it: pieces with their places, the last ones first."""
    out = b"makedumpfile".ljust(16, b"\0") + struct.pack(">qq", 1, 1)
    out = out.ljust(4096, b"\0")
    for at in reversed(range(0, len(data), piece)):
        part = data[at : at + piece]
        out += struct.pack(">qq", at, len(part)) + part
    return out + struct.pack(">qq", -1, -1)
