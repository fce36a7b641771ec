"""Layer 6: the words of a relocatable object with branches and addresses resolved, so that edges can be followed.

The kernel does this when it loads a module (arch/arm64/kernel/module.c: apply_relocate_add, Linux 7.3). Here branches
are resolved, and the addresses that jump tables are reached by; nothing else that is relocated says where control
goes.

Source of the encodings: ELF for the Arm 64-bit Architecture (aaelf64), section 5.7.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Addr, Insn, Row
from surefoot.image.binary import Image
from surefoot.image.elf import FileType
from surefoot.image.model import UNDEFINED, RelocType

__all__ = ["NORETURN", "Linked", "link_text"]

_BRANCHES: Final = (RelocType.CALL26, RelocType.JUMP26)
_ADR: Final = 274
_PAGES: Final = (275, 276)
"""R_AARCH64_ADR_PREL_PG_HI21 and _NC."""
_LOW_BITS: Final = {277: 0, 278: 0, 284: 1, 285: 2, 286: 3, 299: 4}
"""R_AARCH64_ADD_ABS_LO12_NC and LDST8 to LDST128_ABS_LO12_NC: bits that the scaled immediate leaves out."""
_KINDS: Final = (*_BRANCHES, _ADR, *_PAGES, *_LOW_BITS)
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
    """Executable sections with branches and addresses resolved.

    Attributes:
        parts: (address, words), ascending.
        proved: the same, with calls that never return written as traps: what the prover is given.
        names: names of the code outside, by the address that stands for it.
    """

    parts: list[tuple[int, Insn]]
    proved: list[tuple[int, Insn]]
    names: dict[int, str]


def link_text(image: Image, noreturn: Collection[str] = NORETURN) -> Linked:
    """Resolve branches and addresses in the text of an image; a linked one is given as it is.

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
        found = found.take(np.flatnonzero(np.isin(found.type, _KINDS)))
        at = (found.offset >> np.uint64(2)).astype(np.int64)
        inside = found.symbol_section > UNDEFINED
        base = image.sections.addr[np.where(inside, found.symbol_section, 0)]
        target = base + found.symbol_value + found.addend.view(np.uint64)
        outside = np.uint64(_OUTSIDE) + found.symbol.astype(np.uint64) * np.uint64(16)
        target = np.where(inside & (base != 0), target, outside)
        linked = words.copy()
        linked[at] = _encode(linked[at], found.type, np.uint64(start) + found.offset, target)
        for symbol in np.unique(found.symbol[~inside]).tolist():
            names[_OUTSIDE + 16 * symbol] = table.get(symbol, "")
        never = np.array([symbol for symbol, name in table.items() if name in noreturn], dtype=np.uint32)
        trapped = linked.copy()
        call = ~inside & np.isin(found.symbol, never) & (found.type == RelocType.CALL26)
        trapped[at[call]] = np.uint32(_TRAP)
        parts.append((start, linked))
        proved.append((start, trapped))
    return Linked(parts, proved, names)


def _encode(words: Insn, kinds: NDArray[np.uint32], addr: Addr, target: Addr) -> Insn:
    """Fill targets in.

    Args:
        words: (n,) uint32.
        kinds: (n,) uint32, types of the relocations, all in `_KINDS`.
        addr: (n,) uint64, of the words.
        target: (n,) uint64, what they speak of.
    """
    filled = words.copy()
    distance: Row = (target - addr).view(np.int64)
    at = np.isin(kinds, _BRANCHES)
    filled[at] = (words[at] & np.uint32(0xFC00_0000)) | _low(distance[at] >> np.int64(2), 26)
    pages = ((target >> np.uint64(12)) - (addr >> np.uint64(12))).view(np.int64)
    for mask, value in ((np.isin(kinds, _PAGES), pages), (kinds == _ADR, distance)):
        bits = _low(value[mask], 21)
        split = ((bits & np.uint32(3)) << np.uint32(29)) | ((bits >> np.uint32(2)) << np.uint32(5))
        filled[mask] = (words[mask] & np.uint32(0x9F00_001F)) | split
    low = (target & np.uint64(0xFFF)).astype(np.uint32)
    for kind, shift in _LOW_BITS.items():
        at = kinds == kind
        filled[at] = (words[at] & np.uint32(0xFFC0_03FF)) | ((low[at] >> np.uint32(shift)) << np.uint32(10))
    return filled


def _low(value: Row, width: int) -> Insn:
    """Give the low bits of signed numbers."""
    bits: Insn = (value & np.int64((1 << width) - 1)).astype(np.uint32)
    return bits


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
