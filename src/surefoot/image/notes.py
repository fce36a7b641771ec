"""Layer 3: ELF notes, of which only the GNU build-id is read.

Source: System V gABI, "Note Section"; binutils, include/elf/common.h (NT_GNU_BUILD_ID).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from surefoot.dtypes import Bytes
from surefoot.errors import Truncated
from surefoot.image.elf import ElfFile
from surefoot.image.model import SectionType

__all__ = ["build_id"]

_PT_NOTE: Final = 4
_BUILD_ID: Final = 3
_MAX_NOTES: Final = 4096
"""Bound on notes that are looked at; kernels have a handful."""


def build_id(elf: ElfFile) -> str:
    """Give the GNU build-id in hexadecimal, empty if the file has none.

    Note sections are searched first, then note segments.

    Raises:
        Truncated: a note section, or a note before the build-id, is cut off.
    """
    table = elf.sections
    for index in np.flatnonzero(table.kind == SectionType.NOTE).tolist():
        found = _search(elf.section_bytes(index), elf.name, table.names[index])
        if found:
            return found
    segments = elf.segments
    for i in np.flatnonzero(segments.kind == _PT_NOTE).tolist():
        offset, size = int(segments.offset[i]), int(segments.file_size[i])
        found = _search(elf.data[offset : offset + size], elf.name, "PT_NOTE")
        if found:
            return found
    return ""


def _search(data: Bytes, file: str, section: str) -> str:
    """Find the build-id among notes, each padded to four bytes."""
    at = 0
    for _ in range(_MAX_NOTES):
        if data.size - at < 12:
            break
        name_size, size, kind = (int(word) for word in data[at : at + 12].view("<u4"))
        content = at + 12 + -(-name_size // 4) * 4
        if content + size > data.size:
            raise Truncated("note is cut off", file=file, section=section, offset=at)
        if kind == _BUILD_ID and data[at + 12 : at + 12 + name_size].tobytes() == b"GNU\0":
            return data[content : content + size].tobytes().hex()
        at = content + -(-size // 4) * 4
    return ""
