"""Layer 4: what the prover needs to know of an image, gathered from its tables."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Addr, Bytes, Insn, Mask
from surefoot.image.binary import Image
from surefoot.image.elf import FileType
from surefoot.image.model import SectionFlag, SectionType, Text
from surefoot.image.relocate import Region, region_of
from surefoot.image.tables import (
    Alternatives,
    ExceptionTable,
    JumpTable,
    alternatives,
    bug_table,
    exception_table,
    jump_table,
)
from surefoot.isa import branches
from surefoot.proof.domain import Code

__all__ = ["ImageData", "code_of"]

_EX_TYPE_BPF: Final = 1
"""Its `fixup` field is no address (arch/arm64/include/asm/asm-extable.h)."""
_EX_TWO_REGISTERS: Final = (2, 3, 5)
"""UACCESS_ERR_ZERO, KACCESS_ERR_ZERO, LOAD_UNALIGNED_ZEROPAD: the handler may write the registers in bits 4:0 and
9:5 of `data` (arch/arm64/mm/extable.c)."""
_EX_UACCESS_CPY: Final = 4
_ANY_GENERAL: Final = 0x7FFF_FFFF
_B: Final = 0x1400_0000


def code_of(image: Image, parts: Sequence[tuple[int, Insn]] | None = None) -> Code:
    """Gather how the code of an image runs, from its tables and symbols.

    Args:
        image: linked, or placed.
        parts: (address, words) of its executable sections where the image's own words have unresolved branches
            (modules); by default the image's.

    Raises:
        Inconsistent, Truncated, Unsupported: a table is damaged.
    """
    faults, bugs, table = exception_table(image), bug_table(image), alternatives(image)
    real = (faults.type != _EX_TYPE_BPF) & (faults.fixup != 0)
    text = image.text if parts is None else Text.from_ranges([(addr, words, 0) for addr, words in parts])
    labels, replaced = _labels(jump_table(image)), _replacements(text, table)
    sites, words, targets = (np.concatenate([one, two]) for one, two in zip(labels, replaced, strict=True))
    plain = ~table.is_callback & (table.repl != 0) & (table.repl_len > 0)
    begin = table.repl[plain]
    return Code(
        faults=faults.insn[real],
        fixups=faults.fixup[real],
        fault_writes=_written(faults)[real],
        sites=sites,
        words=words,
        targets=targets,
        copies=np.stack([begin, begin + table.repl_len[plain]], axis=1),
        stops=np.unique(bugs.addr[~bugs.warns]),
        entries=np.unique(image.functions.addr),
        data=ImageData(image),
    )


def _written(faults: ExceptionTable) -> NDArray[np.uint32]:
    """Give the registers that the handler of each entry may write, as a mask."""
    data = faults.data.astype(np.uint32)
    one = np.uint32(1)
    pair = (one << (data & np.uint32(31))) | (one << ((data >> np.uint32(5)) & np.uint32(31)))
    known = np.isin(faults.type, _EX_TWO_REGISTERS)
    none = faults.type == _EX_UACCESS_CPY
    return np.where(known, pair & np.uint32(_ANY_GENERAL), np.where(none, np.uint32(0), np.uint32(_ANY_GENERAL)))


def _labels(table: JumpTable) -> tuple[Addr, Insn, Addr]:
    """Static branches: each is a NOP or a B, whichever it was compiled as (kernel/jump_label.c)."""
    known = table.target != 0
    site, target = table.code[known], table.target[known]
    off = (target - site).view(np.int64) >> np.int64(2)
    jump = (off & np.int64(0x3FF_FFFF)).astype(np.uint32) | np.uint32(_B)
    nops = np.full(table.code.shape, branches.NOP, dtype=np.uint32)
    targets = np.concatenate([np.zeros(table.code.shape, dtype=np.uint64), target])
    return np.concatenate([table.code, site]), np.concatenate([nops, jump]), targets


def _replacements(text: Text, table: Alternatives) -> tuple[Addr, Insn, Addr]:
    """Alternatives: the words that may replace others, and NOPs where a callback may leave them out.

    A replacement's branch keeps its absolute target when it is copied (arch/arm64/kernel/alternative.c:
    get_alt_insn). What a callback writes is not in the image; the kernel's only ones that concern branches turn
    them into NOPs (alt_cb_patch_nops).
    """
    callback = np.flatnonzero(table.is_callback)
    origin, _ = _words(table.orig[callback], table.orig_len[callback], table.repl[callback])
    before, known = text.words_at(origin)
    gone = origin[known & (branches.is_immediate_branch(before) | branches.is_blr(before))]
    plain = np.flatnonzero(~table.is_callback & (table.repl != 0))
    site, at = _words(table.orig[plain], table.repl_len[plain], table.repl[plain])
    word, known = text.words_at(at)
    word[~known] = 0  # an undefined instruction: nothing is known
    nops = np.full(gone.shape, branches.NOP, dtype=np.uint32)
    targets = np.concatenate([branches.branch_target(word, at), np.zeros(gone.shape, dtype=np.uint64)])
    return np.concatenate([site, gone]), np.concatenate([word, nops]), targets


def _words(origin: Addr, length: NDArray[np.uint8], other: Addr) -> tuple[Addr, Addr]:
    """Give the address of every word of ranges, and of the word at the same place of other ranges."""
    count = (length >> np.uint8(2)).astype(np.int64)
    owner = np.repeat(np.arange(origin.size), count)
    step = np.arange(int(count.sum()), dtype=np.int64) - np.repeat(np.cumsum(count) - count, count)
    off = step.astype(np.uint64) << np.uint64(2)
    return origin[owner] + off, other[owner] + off


class ImageData:
    """The data of an image that nobody writes once it runs. Implements `ReadOnly`.

    Sections without the flag WRITE, and a linked kernel's .rodata, which the linker script marks writable though the
    kernel maps it read-only, but for what is written until the end of booting (__ro_after_init).
    """

    def __init__(self, image: Image) -> None:
        self._image = image

    @cached_property
    def _holes(self) -> list[tuple[int, int]]:
        """Ranges that are written while the kernel boots."""
        find = self._image.symbols.address_of
        low, high = find("__start_ro_after_init"), find("__end_ro_after_init")
        return [] if low is None or high is None else [(low, high)]

    @cached_property
    def _sections(self) -> list[int]:
        """Header indices of read-only sections with bytes in the file."""
        table = self._image.sections
        loaded = (table.flags & np.uint64(SectionFlag.ALLOC) != 0) & (table.kind != SectionType.NOBITS)
        constant: Mask = table.flags & np.uint64(SectionFlag.WRITE) == 0
        linked = self._image.elf.type != FileType.REL
        if linked and self._holes:
            constant |= np.array([name == ".rodata" for name in table.names])
        has_place = table.addr != 0
        return np.flatnonzero(loaded & constant & has_place).tolist()

    @cached_property
    def _regions(self) -> dict[int, Region]:
        return {}

    def read(self, addr: int, size: int) -> Bytes | None:
        """Give `size` bytes at an address, relocations applied; None unless all are known and never written."""
        table = self._image.sections
        if any(addr < high and low < addr + size for low, high in self._holes):
            return None
        for index in self._sections:
            base = int(table.addr[index])
            if not base <= addr <= addr + size <= base + int(table.size[index]):
                continue
            if index not in self._regions:
                self._regions[index] = region_of(self._image, index)
            region = self._regions[index]
            low = np.searchsorted(region.unresolved, addr - base - 7)
            if low < region.unresolved.size and region.unresolved[low] < addr - base + size:
                return None
            return region.data[addr - base : addr - base + size]
        return None
