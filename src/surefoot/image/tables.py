"""Layer 3: the tables by which an arm64 kernel jumps over faults and rewrites its own text.

Invariant: every address is a run-time address of the image as it is placed; every table says which part of the
image it is from. An image without a table gives an empty one: a kernel may be built without the mechanism.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Addr, Code, Mask, Off
from surefoot.errors import Truncated
from surefoot.image.binary import Image
from surefoot.image.elf import FileType
from surefoot.image.relocate import Region, region_at, region_of
from surefoot.isa.branches import is_bti

__all__ = [
    "Alternatives",
    "BugTable",
    "ExceptionTable",
    "JumpTable",
    "PatchSites",
    "alternatives",
    "bug_table",
    "exception_table",
    "jump_table",
    "patch_sites",
]

_EXTABLE: Final = np.dtype([("insn", "<i4"), ("fixup", "<i4"), ("type", "<u2"), ("data", "<u2")])
_ALTERNATIVE: Final = np.dtype(
    [("orig", "<i4"), ("repl", "<i4"), ("cap", "<u2"), ("orig_len", "u1"), ("repl_len", "u1")]
)
_JUMP: Final = np.dtype([("code", "<i4"), ("target", "<i4"), ("key", "<i8")])
_BUGS: Final = (
    np.dtype([("addr", "<i4"), ("file", "<i4"), ("line", "<u2"), ("flags", "<u2")]),
    np.dtype([("addr", "<i4"), ("flags", "<u2"), ("pad", "<u2")]),
)
"""With and without CONFIG_DEBUG_BUGVERBOSE."""
_BUGFLAG_WARNING: Final = 1
_BRK_BUG: Final = 0xD4210000
"""BRK #0x800 (arch/arm64/include/asm/brk-imm.h: BUG_BRK_IMM)."""
_POINTER: Final = np.dtype([("value", "<u8")])
_CALLBACK: Final = 0x8000
"""ARM64_CB_BIT (arch/arm64/include/asm/alternative-macros.h)."""


@dataclass(frozen=True)
class ExceptionTable:
    """Where a fault at an instruction continues.

    Attributes:
        insn: (e,) uint64, address of the instruction that may fault.
        fixup: (e,) uint64, where it continues then; 0 where it lies in another image.
        type: (e,) uint16, EX_TYPE_* (2 UACCESS_ERR_ZERO, 3 KACCESS_ERR_ZERO, 4 UACCESS_CPY,
            5 LOAD_UNALIGNED_ZEROPAD).
        data: (e,) uint16, registers and flags, by type.
        source: part of the image.

    Source:
        arch/arm64/include/asm/extable.h, asm-extable.h (Linux 7.3).
    """

    insn: Addr
    fixup: Addr
    type: NDArray[np.uint16]
    data: NDArray[np.uint16]
    source: str


@dataclass(frozen=True)
class PatchSites:
    """Where ftrace patches calls into functions.

    Attributes:
        entry: (p,) uint64, as recorded: the first NOP that the compiler left.
        func: (p,) uint64, the function that it is for; 0 where no function starts there.
        site: (p,) uint64, the word that becomes a BL (ftrace's rec->ip); 0 where `func` is. The word
            before it becomes MOV X9, X30.
        has_literal: (p,) bool, two NOPs before the function hold the address of its ftrace_ops (CALL_OPS).
        source: part of the image.
        dropped: how many entries were zero: functions that the linker discarded.

    Source:
        arch/arm64/kernel/ftrace.c:ftrace_call_adjust (Linux 7.3).
    """

    entry: Addr
    func: Addr
    site: Addr
    has_literal: Mask
    source: str
    dropped: int


@dataclass(frozen=True)
class Alternatives:
    """Code that is replaced at boot where the processor has, or lacks, a feature.

    Attributes:
        orig: (a,) uint64, address of the instructions that may be replaced.
        repl: (a,) uint64, of the replacement, or of the function that writes it; 0 in another image.
        cap: (a,) uint16, number of the feature.
        is_callback: (a,) bool, `repl` is a function.
        orig_len: (a,) uint8, bytes.
        repl_len: (a,) uint8, bytes.
        source: part of the image.

    Source:
        arch/arm64/include/asm/alternative.h: struct alt_instr (Linux 7.3).
    """

    orig: Addr
    repl: Addr
    cap: NDArray[np.uint16]
    is_callback: Mask
    orig_len: Code
    repl_len: Code
    source: str


@dataclass(frozen=True)
class JumpTable:
    """Static branches, each a NOP or a B.

    Attributes:
        code: (j,) uint64, address of the instruction.
        target: (j,) uint64, where it jumps when it is a B.
        key: (j,) uint64, address of the static key; 0 in another image.
        flags: (j,) uint8, bit 0: branches when the key is false; bit 1: in init text.
        source: part of the image.

    Source:
        include/linux/jump_label.h: struct jump_entry (Linux 7.3).
    """

    code: Addr
    target: Addr
    key: Addr
    flags: Code
    source: str


@dataclass(frozen=True)
class BugTable:
    """Where BUG() and WARN() trap.

    Attributes:
        addr: (b,) uint64, address of the BRK.
        warns: (b,) bool, WARN(): the code continues behind it. BUG() does not come back.
        source: part of the image.

    Source:
        include/asm-generic/bug.h: struct bug_entry; lib/bug.c: report_bug (Linux 7.3).
    """

    addr: Addr
    warns: Mask
    source: str


def _regions(image: Image, section: str, first: str, last: str) -> list[Region]:
    """Find a table: between its two symbols in a linked image, else in its sections; empty if it is missing."""
    image.require_placed()
    if image.elf.type != FileType.REL:
        start, stop = image.symbols.address_of(first), image.symbols.address_of(last)
        if start is not None and stop is not None:
            return [region_at(image, start, stop, f"{first}..{last}")]
    return [region_of(image, index) for index in image.sections.find(section) if int(image.sections.size[index])]


def _entries(image: Image, region: Region, dtype: np.dtype[np.void]) -> tuple[NDArray[np.void], Addr, Off]:
    """Cut a region into entries: the records, their addresses and their offsets."""
    if region.data.size % dtype.itemsize:
        place = region.data.size // dtype.itemsize * dtype.itemsize
        raise Truncated("last entry is incomplete", file=image.path, section=region.source, offset=place)
    records = np.ascontiguousarray(region.data).view(dtype)
    offsets = np.arange(records.size, dtype=np.int64) * dtype.itemsize
    return records, offsets.astype(np.uint64) + np.uint64(region.addr), offsets


def _table(image: Image, regions: list[Region], dtype: np.dtype[np.void], relative: tuple[str, ...]) -> _Table:
    """Decode all regions of one kind of table, PC-relative fields made absolute and unresolved ones 0.

    Entries whose first field is unresolved speak of code that is not loaded, and are left out.
    """
    parts, values = [], {name: list[Addr]() for name in relative}
    for region in regions:
        records, addrs, offsets = _entries(image, region, dtype)
        head = region.is_resolved(offsets)
        parts.append(records[head])
        for name in relative:
            at = int(np.dtype(dtype).fields[name][1])  # type: ignore[index]
            raw = records[name].astype(np.int64)
            raw = raw & ~np.int64(3) if name == "key" else raw
            number = addrs + np.uint64(at) + raw.view(np.uint64)
            known = region.is_resolved(offsets + at)
            values[name].append(np.where(known, number, np.uint64(0))[head])
    source = " + ".join(dict.fromkeys(region.source for region in regions))
    joined = np.concatenate(parts) if parts else np.zeros(0, dtype=dtype)
    nothing = np.zeros(0, dtype=np.uint64)
    return _Table(joined, {name: np.concatenate([nothing, *found]) for name, found in values.items()}, source)


@dataclass(frozen=True)
class _Table:
    records: NDArray[np.void]
    addrs: dict[str, Addr]
    source: str


def exception_table(image: Image) -> ExceptionTable:
    """Decode the exception table, in the order of the image.

    Raises:
        Inconsistent, Truncated, Unsupported: damaged, or the image is not placed.
    """
    found = _table(
        image,
        _regions(image, "__ex_table", "__start___ex_table", "__stop___ex_table"),
        _EXTABLE,
        ("insn", "fixup"),
    )
    records = found.records
    return ExceptionTable(found.addrs["insn"], found.addrs["fixup"], records["type"], records["data"], found.source)


def bug_table(image: Image) -> BugTable:
    """Decode the table of BUG() and WARN() traps, in the order of the image.

    The size of an entry depends on the kernel's configuration: the layout is the one by which every entry names
    a BRK #0x800. If there is none, the table is given as empty: nothing is then known of these traps.

    Raises:
        Inconsistent, Unsupported: damaged, or the image is not placed.
    """
    regions = _regions(image, "__bug_table", "__start___bug_table", "__stop___bug_table")
    for layout in _BUGS:
        if any(region.data.size % layout.itemsize for region in regions):
            continue
        found = _table(image, regions, layout, ("addr",))
        words, known = image.text.words_at(found.addrs["addr"])
        if bool(np.all(known & (words == np.uint32(_BRK_BUG)))):
            warns = (found.records["flags"] & np.uint16(_BUGFLAG_WARNING)) != 0
            return BugTable(found.addrs["addr"], warns, found.source)
    return BugTable(np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.bool_), "")


def alternatives(image: Image) -> Alternatives:
    """Decode the table of alternatives, in the order of the image.

    Raises:
        Inconsistent, Truncated, Unsupported: damaged, or the image is not placed.
    """
    found = _table(
        image,
        _regions(image, ".altinstructions", "__alt_instructions", "__alt_instructions_end"),
        _ALTERNATIVE,
        ("orig", "repl"),
    )
    records = found.records
    return Alternatives(
        found.addrs["orig"],
        found.addrs["repl"],
        records["cap"] & np.uint16(_CALLBACK - 1),
        (records["cap"] & np.uint16(_CALLBACK)) != 0,
        records["orig_len"],
        records["repl_len"],
        found.source,
    )


def jump_table(image: Image) -> JumpTable:
    """Decode the table of static branches, in the order of the image.

    Raises:
        Inconsistent, Truncated, Unsupported: damaged, or the image is not placed.
    """
    found = _table(
        image,
        _regions(image, "__jump_table", "__start___jump_table", "__stop___jump_table"),
        _JUMP,
        ("code", "target", "key"),
    )
    flags = (found.records["key"] & np.int64(3)).astype(np.uint8)
    return JumpTable(found.addrs["code"], found.addrs["target"], found.addrs["key"], flags, found.source)


def patch_sites(image: Image) -> PatchSites:
    """Decode the patchable function entries, in the order of the image, discarded ones (zero) left out.

    Raises:
        Inconsistent, Truncated, Unsupported: damaged, or the image is not placed.
    """
    name = "__patchable_function_entries"
    regions = _regions(image, name, "__start_mcount_loc", "__stop_mcount_loc")
    found = _table(image, regions, _POINTER, ())
    pointers = found.records["value"]
    entry = pointers[pointers != 0]
    functions, text = image.functions, image.text
    eight, four = np.uint64(8), np.uint64(4)

    plain = functions.starts_at(entry)
    behind_bti = functions.starts_at(entry - four) & is_bti(text.words_at(entry - four)[0])
    literal = functions.starts_at(entry + eight) & ~plain & ~behind_bti
    func = np.where(literal, entry + eight, np.where(plain, entry, np.where(behind_bti, entry - four, np.uint64(0))))
    bti = is_bti(text.words_at(func)[0])
    with_literal = func + np.where(bti, eight, four)
    site = np.where(literal, with_literal, np.where(func != 0, entry + four, np.uint64(0)))
    return PatchSites(entry, func, site, literal, found.source, int(pointers.size - entry.size))
