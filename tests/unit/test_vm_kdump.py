"""Compressed dumps: a reader written from the format's description finds the memory that the ELF file had."""

from __future__ import annotations

import io
import struct
import zlib

import pytest

from surefoot.errors import InputError, Truncated, Unsupported
from surefoot.targets.vm.kdump import convert, parse_elf

PAGE = 4096


def note(name: bytes, kind: int, desc: bytes) -> bytes:
    """Make one ELF note."""
    raw = name + b"\0"
    header = struct.pack("<III", len(raw), len(desc), kind)
    return header + raw + bytes(-len(raw) % 4) + desc + bytes(-len(desc) % 4)


NOTES = note(b"CORE", 1, b"registers") + note(b"CORE", 2, b"floats") + note(b"VMCOREINFO", 0, b"OSRELEASE=7.3.4\n")


def vmcore(*loads: tuple[int, bytes], notes: bytes = NOTES) -> bytes:
    """Make an ELF vmcore with memory at physical addresses."""
    count = len(loads) + 1
    at = 64 + 56 * count
    headers = struct.pack("<IIQQQQQQ", 4, 0, at, 0, 0, len(notes), len(notes), 0)
    body = notes
    for paddr, data in loads:
        headers += struct.pack("<IIQQQQQQ", 1, 0, at + len(body), 0, paddr, len(data), len(data), 0)
        body += data
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    return ident + struct.pack("<HHIQQQIHHHHHH", 4, 183, 1, 0, 64, 0, 0, 64, 56, count, 0, 0, 0) + headers + body


def pages_of(data: bytes) -> dict[int, bytes]:
    """Read a kdump file: page frame number -> contents."""
    block, sub_blocks, bitmap_blocks = struct.unpack_from("<iii", data, 0x1AC)
    (max_pfn,) = struct.unpack_from("<Q", data, block + 96)
    bitmap_at = (1 + sub_blocks) * block
    second = data[bitmap_at + bitmap_blocks * block // 2 : bitmap_at + bitmap_blocks * block]
    present = [pfn for pfn in range(max_pfn) if second[pfn // 8] >> pfn % 8 & 1]
    found = {}
    for index, pfn in enumerate(present):
        desc_at = bitmap_at + bitmap_blocks * block + index * 24
        offset, size, flags, _ = struct.unpack_from("<QIIQ", data, desc_at)
        stored = data[offset : offset + size]
        found[pfn] = zlib.decompress(stored) if flags & 1 else stored
    return found


def test_every_page_of_memory_comes_back() -> None:
    noise = bytes((i * i * 2654435761 >> 13) & 255 for i in range(PAGE))
    memory = {5: b"a" * PAGE, 6: bytes(PAGE), 7: noise, 40000: bytes(PAGE)}
    source = vmcore((40000 * PAGE, memory[40000]), (5 * PAGE, memory[5] + memory[6] + memory[7]))
    target = io.BytesIO()
    convert(source, target, "7.3.4")
    data = target.getvalue()
    assert pages_of(data) == memory
    assert data.startswith(b"KDUMP   \6\0\0\0Linux\0")
    assert data[12 + 2 * 65 :].startswith(b"7.3.4\0")
    assert data[12 + 4 * 65 :].startswith(b"aarch64\0")
    assert struct.unpack_from("<i", data, 0x1CC) == (1,)


def test_the_notes_and_vmcoreinfo_come_along() -> None:
    target = io.BytesIO()
    convert(vmcore((0, bytes(PAGE))), target, "7.3.4")
    data = target.getvalue()
    info_at, info_size, notes_at, notes_size = struct.unpack_from("<QQQQ", data, PAGE + 32)
    assert data[info_at : info_at + info_size] == b"OSRELEASE=7.3.4\n"
    assert data[notes_at : notes_at + notes_size] == NOTES


def test_a_dump_without_vmcoreinfo_says_so() -> None:
    assert parse_elf(vmcore((0, bytes(PAGE)), notes=b"")).vmcoreinfo == (0, 0)


def test_damaged_dumps_are_refused() -> None:
    good = vmcore((0, bytes(PAGE)))
    for data, error in (
        (b"KDUMP   ", Unsupported),
        (good[:100], Truncated),
        (good[:-1], Truncated),
        (vmcore((1, bytes(PAGE))), InputError),
        (vmcore((0, bytes(PAGE)), notes=NOTES[:-1]), Truncated),
    ):
        with pytest.raises(error):
            parse_elf(data)
