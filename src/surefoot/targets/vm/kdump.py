"""Layer 7: an ELF vmcore made into a compressed kdump file that drgn reads.

QEMU has kdump formats of its own, but for arm64 it writes them with blocks of 64 KiB and without the kernel's
name, whatever the guest's pages are: libkdumpfile then knows neither the architecture nor the page tables' shape.
Layout: makedumpfile's diskdump_mod.h, header version 6. Blocks are 4096 bytes, so the guest's pages have to be.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from surefoot.errors import InputError, Truncated, Unsupported

__all__ = ["Layout", "convert", "parse_elf"]

_PAGE_BYTES = 4096
_PT_LOAD, _PT_NOTE = 1, 4
_NT_PRSTATUS = 1
_ZLIB_FLAG = 1
_HEADER = struct.Struct("<8si390s6x16xIiiIIIIIIi")
_SUB_HEADER = struct.Struct("<Qii11Q")
_DESC = struct.Struct("<QIIQ")
_UTS_FIELD_BYTES = 65
_VMCOREINFO = b"VMCOREINFO"


@dataclass(frozen=True)
class Layout:
    """Where things are in an ELF vmcore, in bytes.

    Attributes:
        loads: physical address, file offset and size of every run of memory, by address.
        notes: file offset and size of all notes.
        vmcoreinfo: offset within the notes and size of the VMCOREINFO text; size 0 where there is none.
        cpus: number of notes with a CPU's registers.
    """

    loads: tuple[tuple[int, int, int], ...]
    notes: tuple[int, int]
    vmcoreinfo: tuple[int, int]
    cpus: int


def parse_elf(data: bytes | mmap.mmap) -> Layout:
    """Find memory and notes of an ELF64 vmcore.

    Raises:
        Unsupported: not a little-endian ELF64 file, or one with too many program headers.
        Truncated: headers or contents lie outside the file.
        InputError: memory that does not begin and end at pages.
    """
    if bytes(data[:6]) != b"\x7fELF\x02\x01":
        raise Unsupported("not a little-endian ELF64 file")
    try:
        (table,) = struct.unpack_from("<Q", data, 0x20)
        entry_size, count = struct.unpack_from("<HH", data, 0x36)
        if count == 0xFFFF:
            raise Unsupported("an ELF file with more than 65534 program headers")
        headers = [struct.unpack_from("<IIQQQQ", data, table + i * entry_size) for i in range(count)]
    except struct.error as error:
        raise Truncated("the program headers lie outside the file") from error
    loads, notes = [], (0, 0)
    for kind, _flags, offset, _vaddr, paddr, size in headers:
        if kind in {_PT_LOAD, _PT_NOTE} and offset + size > len(data):
            raise Truncated("a segment lies outside the file", offset=offset)
        if kind == _PT_NOTE:
            notes = (offset, size)
        elif kind == _PT_LOAD and size:
            if paddr % _PAGE_BYTES or size % _PAGE_BYTES:
                raise InputError("memory that does not begin and end at pages", offset=offset)
            loads.append((paddr, offset, size))
    found = list(_notes(bytes(data[notes[0] : notes[0] + notes[1]])))
    vmcoreinfo = next(((at, size) for name, _, at, size in found if name == _VMCOREINFO), (0, 0))
    cpus = sum((name, kind) == (b"CORE", _NT_PRSTATUS) for name, kind, _, _ in found)
    return Layout(tuple(sorted(loads)), notes, vmcoreinfo, cpus)


def _notes(data: bytes) -> Iterator[tuple[bytes, int, int, int]]:
    """Give name, type, and offset and size of the description, of every note."""
    at = 0
    while at + 12 <= len(data):
        name_size, desc_size, kind = struct.unpack_from("<III", data, at)
        name = data[at + 12 : at + 12 + name_size].rstrip(b"\0")
        desc = at + 12 + (name_size + 3) // 4 * 4
        if desc + desc_size > len(data):
            raise Truncated("a note ends outside the notes", offset=at)
        yield name, kind, desc, desc_size
        at = desc + (desc_size + 3) // 4 * 4


def convert(source: bytes | mmap.mmap, target: BinaryIO, release: str, *, level: int = 1) -> None:
    """Write the kdump form of an ELF vmcore.

    Args:
        source: the whole vmcore, mapped.
        target: an empty file that can be written anywhere.
        release: what ``uname -r`` prints; the ELF file does not have it in one place.
        level: of zlib.

    Raises:
        InputError: the vmcore is damaged, as for :func:`parse_elf`.
    """
    layout = parse_elf(source)
    pages = sum(size for _, _, size in layout.loads) // _PAGE_BYTES
    max_pfn = max((paddr + size for paddr, _, size in layout.loads), default=0) // _PAGE_BYTES
    bitmap = np.zeros(-(-max_pfn // (8 * _PAGE_BYTES)) * 8 * _PAGE_BYTES, dtype=np.bool_)
    for paddr, _, size in layout.loads:
        bitmap[paddr // _PAGE_BYTES : (paddr + size) // _PAGE_BYTES] = True
    packed = np.packbits(bitmap, bitorder="little").tobytes()

    notes = bytes(source[layout.notes[0] : layout.notes[0] + layout.notes[1]])
    notes_at = _PAGE_BYTES + _SUB_HEADER.size
    sub_blocks = -(-(_SUB_HEADER.size + len(notes)) // _PAGE_BYTES)
    bitmap_at = (1 + sub_blocks) * _PAGE_BYTES
    info_at, info_size = layout.vmcoreinfo
    names = ("Linux", "(unknown)", release, "(unknown)", "aarch64", "(unknown)")
    uts = b"".join(name.encode()[:64].ljust(_UTS_FIELD_BYTES, b"\0") for name in names)
    bitmap_blocks = 2 * len(packed) // _PAGE_BYTES
    header = (b"KDUMP   ", 6, uts, _ZLIB_FLAG, _PAGE_BYTES, sub_blocks, bitmap_blocks)
    target.write(_HEADER.pack(*header, min(max_pfn, 0xFFFF_FFFF), 0, 0, 0, 0, layout.cpus))
    target.seek(_PAGE_BYTES)
    places = (notes_at + info_at if info_size else 0, info_size, notes_at, len(notes), 0, 0)
    target.write(_SUB_HEADER.pack(0, 0, 0, 0, 0, *places, 0, 0, max_pfn) + notes)
    target.seek(bitmap_at)
    # First what memory there is, then what of it is in the file: everything.
    target.write(packed * 2)
    _write_pages(source, target, layout, bitmap_at + 2 * len(packed), pages, level)


def _write_pages(
    source: bytes | mmap.mmap, target: BinaryIO, layout: Layout, descs_at: int, pages: int, level: int
) -> None:
    """Write the descriptors and the data of all pages; equal pages of zeros are kept once."""
    zeros = bytes(_PAGE_BYTES)
    descs = bytearray()
    at = descs_at + pages * _DESC.size
    target.seek(at)
    zero_desc = b""
    for _, offset, size in layout.loads:
        for page_at in range(offset, offset + size, _PAGE_BYTES):
            page = source[page_at : page_at + _PAGE_BYTES]
            if page == zeros and zero_desc:
                descs += zero_desc
                continue
            data = zlib.compress(page, level)
            stored, flags = (data, _ZLIB_FLAG) if len(data) < _PAGE_BYTES else (bytes(page), 0)
            target.write(stored)
            desc = _DESC.pack(at, len(stored), flags, 0)
            if page == zeros:
                zero_desc = desc
            descs += desc
            at += len(stored)
    target.seek(descs_at)
    target.write(descs)
