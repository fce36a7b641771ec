"""Layer 6: the words of a relocatable object with its branches resolved, so that edges can be followed.

The kernel does this when it loads a module (arch/arm64/kernel/module.c: apply_relocate_add, Linux 7.3). Here only
branches are resolved: nothing else in an instruction says where control goes.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import numpy as np

from surefoot.dtypes import Addr, Insn, Row
from surefoot.image.binary import Image
from surefoot.image.elf import FileType
from surefoot.image.model import UNDEFINED, RelocType

__all__ = ["NORETURN", "Linked", "link_branches"]

_OUTSIDE: Final = 0x0C00_0000
"""Stands for code of other images: address of symbol s is this plus 16 s. Below every `Image.laid_out`."""
_TRAP: Final = 0xD420_7D00
"""BRK #1000, behind which nothing runs."""
NORETURN: Final = (
    "__stack_chk_fail",
    "panic",
    "__fortify_panic",
    "do_exit",
    "make_task_dead",
    "__ubsan_handle_builtin_unreachable",
)
"""Functions of the kernel that never return, for the audit of a module without its kernel (include/linux/panic.h)."""


@dataclass(frozen=True)
class Linked:
    """Executable sections with branches resolved.

    Attributes:
        parts: (address, words), ascending.
        proved: the same, with calls that never return written as traps: what the prover is given.
        names: names of the code outside, by the address that stands for it.
    """

    parts: list[tuple[int, Insn]]
    proved: list[tuple[int, Insn]]
    names: dict[int, str]


def link_branches(image: Image, noreturn: Collection[str] = NORETURN) -> Linked:
    """Resolve the branches of an image; a linked one is given as it is.

    Args:
        image: linked, or placed below 128 MiB.
        noreturn: names of functions outside that never return.
    """
    if image.elf.type != FileType.REL:
        return Linked(image.text.ranges, image.text.ranges, {})
    names: dict[int, str] = {}
    parts, proved = [], []
    table = _undefined_names(image)
    for (start, words), section in zip(image.text.ranges, image.text.section.tolist(), strict=True):
        found = image.elf.relocations(section)
        found = found.take(np.flatnonzero(np.isin(found.type, (RelocType.CALL26, RelocType.JUMP26))))
        at = (found.offset >> np.uint64(2)).astype(np.int64)
        inside = found.symbol_section > UNDEFINED
        base = image.sections.addr[np.where(inside, found.symbol_section, 0)]
        target = base + found.symbol_value + found.addend.view(np.uint64)
        outside = np.uint64(_OUTSIDE) + found.symbol.astype(np.uint64) * np.uint64(16)
        target = np.where(inside & (base != 0), target, outside)
        linked = words.copy()
        linked[at] = _encode(linked[at], np.uint64(start) + found.offset, target)
        for symbol in np.unique(found.symbol[~inside]).tolist():
            names[_OUTSIDE + 16 * symbol] = table.get(symbol, "")
        never = np.array([symbol for symbol, name in table.items() if name in noreturn], dtype=np.uint32)
        trapped = linked.copy()
        call = ~inside & np.isin(found.symbol, never) & (found.type == RelocType.CALL26)
        trapped[at[call]] = np.uint32(_TRAP)
        parts.append((start, linked))
        proved.append((start, trapped))
    return Linked(parts, proved, names)


def _encode(words: Insn, addr: Addr, target: Addr) -> Insn:
    """Give B and BL with their targets filled in."""
    distance: Row = (target - addr).view(np.int64) >> np.int64(2)
    field = (distance & np.int64(0x03FF_FFFF)).astype(np.uint32)
    filled: Insn = (words & np.uint32(0xFC00_0000)) | field
    return filled


def _undefined_names(image: Image) -> dict[int, str]:
    """Give the names of undefined symbols by their number in the file's symbol table."""
    elf = image.elf
    for index in np.flatnonzero(elf.sections.kind == 2).tolist():
        raw = np.ascontiguousarray(elf.section_bytes(index)).view(
            np.dtype(
                [
                    ("name", "<u4"),
                    ("info", "u1"),
                    ("other", "u1"),
                    ("shndx", "<u2"),
                    ("value", "<u8"),
                    ("size", "<u8"),
                ]
            )
        )
        strings = elf.section_bytes(int(elf.sections.link[index])).tobytes()
        found = {}
        for number in np.flatnonzero(raw["shndx"] == 0).tolist():
            start = int(raw["name"][number])
            if start:
                found[number] = strings[start : strings.index(b"\0", start)].decode("utf-8", "backslashreplace")
        return found
    return {}
