"""Layer 3: the words of a running kernel against those of its image.

Invariant: a difference has the cause of a known mechanism only if the live word is one that the mechanism writes
there; every other difference is OTHER, and code around it is not the code that the image's metadata describe.

Sources (Linux 7.3): arch/arm64/kernel/{ftrace,alternative,jump_label,module}.c, arch/arm64/kernel/probes/kprobes.c,
arch/arm64/kernel/pi/{patch-scs,relocate}.c, arch/arm64/include/asm/runtime-const.h.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np

from surefoot.dtypes import Addr, Code, Insn, Mask, Row
from surefoot.image.binary import Image
from surefoot.image.elf import FileType
from surefoot.image.model import RelocType, SectionType
from surefoot.image.relocate import dynamic_relocations, region_of, relr_places
from surefoot.image.tables import Alternatives, alternatives, jump_table, patch_sites
from surefoot.isa.branches import BRK_KPROBE, MOV_X9_X30, NOP, branch_target, is_adrp, is_b, is_bl
from surefoot.isa.fields import adrp_target, matches

__all__ = ["TRANSPARENT", "Change", "Differences", "Mechanisms", "compare", "join_differences", "mechanisms"]

_SCS_PAIRS: Final = ((0xD503_233F, 0xF800_865E), (0xD503_23BF, 0xF85F_8E5E))
"""PACIASP -> str x30, [x18], #8 and AUTIASP -> ldr x30, [x18, #-8]!."""
_WIDE: Final = (RelocType.ABS64, RelocType.PREL64)
_FORMS: Final = ((0x7C00_0000, 0x1400_0000, 0xFC00_0000), (0x7E00_0000, 0x3600_0000, 0xFFF8_001F))
"""(mask, value, bits that stay) of B and BL, and of TBZ and TBNZ; B.cond, CBZ and CBNZ keep bits 0xFF00001F."""


class Change(IntEnum):
    """Why a live word differs from the image."""

    OTHER = 0
    """No known mechanism writes this word here."""
    PATCH_SITE = 1
    """ftrace: NOP to MOV X9, X30 in the first slot, NOP to BL or back in the second."""
    OPS_LITERAL = 2
    """ftrace: the address of an ftrace_ops in the NOPs before a function."""
    JUMP_LABEL = 3
    """Static branch: NOP to B or back, to the target of its table entry."""
    ALTERNATIVE = 4
    """Replacement instructions for a feature of the processor, branches retargeted."""
    CALLBACK = 5
    """Alternative written by a function of the kernel; its content cannot be foretold."""
    KPROBE = 6
    """BRK #4; the original word runs elsewhere."""
    RUNTIME_CONST = 7
    """Immediate that is fixed once at boot."""
    SHADOW_STACK = 8
    """Pointer authentication turned into shadow call stack pushes and pops at boot."""
    RELOCATED = 9
    """The image has no final word here: a relocation of a module, or an address in position-independent text."""


TRANSPARENT: Final = (Change.PATCH_SITE, Change.OPS_LITERAL, Change.KPROBE)
"""Changes after which the function goes on as if the original word had run: the handlers of ftrace and kprobes
restore every register (arch/arm64/kernel/entry-ftrace.S, arch/arm64/kernel/probes)."""


@dataclass(frozen=True)
class Mechanisms:
    """Where the text of an image may legitimately change; addresses sorted.

    Attributes:
        first_slots: (p,) uint64, first NOP of each patch site.
        sites: (p,) uint64, second.
        literals: (l,) uint64, words before functions that hold an ftrace_ops address.
        jumps: (j,) uint64, static branches.
        jump_targets: (j,) uint64, in the order of `jumps`.
        alt_words: (a,) uint64, every word that an alternative may replace; a word can occur several times.
        alt_repl: (a,) uint64, where the replacement word is; 0 for those written by a function.
        constants: (c,) uint64, words with runtime constants.
        relocated: (r,) uint64, words without final value in the image.
        repl_words: (a,) uint32, the words at `alt_repl`.
    """

    first_slots: Addr
    sites: Addr
    literals: Addr
    jumps: Addr
    jump_targets: Addr
    alt_words: Addr
    alt_repl: Addr
    constants: Addr
    relocated: Addr
    repl_words: Insn


@dataclass(frozen=True)
class Differences:
    """Words that differ.

    Attributes:
        addr: (d,) uint64, ascending.
        image: (d,) uint32, the image's word.
        live: (d,) uint32, the target's.
        cause: (d,) uint8, `Change`.
    """

    addr: Addr
    image: Insn
    live: Insn
    cause: Code

    def __len__(self) -> int:
        return int(self.addr.size)

    @property
    def unexplained(self) -> Addr:
        """Addresses of the words that no known mechanism wrote, (u,) uint64, ascending."""
        found: Addr = self.addr[self.cause == Change.OTHER]
        return found


def join_differences(parts: Sequence[Differences]) -> Differences:
    """Give all differences in ascending order."""
    if not parts:
        nothing = np.zeros(0, dtype=np.uint32)
        return Differences(np.zeros(0, dtype=np.uint64), nothing, nothing, np.zeros(0, dtype=np.uint8))
    addr = np.concatenate([part.addr for part in parts])
    order = np.argsort(addr, kind="stable")
    columns = ("image", "live", "cause")
    return Differences(
        addr[order], *(np.concatenate([getattr(part, name) for part in parts])[order] for name in columns)
    )


def mechanisms(image: Image) -> Mechanisms:
    """Collect where the text of an image may change.

    Raises:
        Inconsistent, Truncated, Unsupported: a table is damaged, or the image is not placed.
    """
    sites = patch_sites(image)
    known = sites.func != 0
    slots = sites.site[known]
    literals = sites.func[known & sites.has_literal]
    jumps = jump_table(image)
    order = np.argsort(jumps.code, kind="stable")
    words, repl = _alternative_words(alternatives(image))
    return Mechanisms(
        np.sort(slots - np.uint64(4)),
        np.sort(slots),
        np.sort(np.concatenate([literals - np.uint64(8), literals - np.uint64(4)])),
        jumps.code[order],
        jumps.target[order],
        words,
        repl,
        _constants(image),
        _relocated(image),
        image.text.words_at(repl)[0],
    )


def _alternative_words(table: Alternatives) -> tuple[Addr, Addr]:
    """Expand alternatives to one entry per word: where, and from where (0: a function writes it)."""
    counts = (table.orig_len // 4).astype(np.int64)
    entry = np.repeat(np.arange(counts.size), counts)
    firsts = np.cumsum(counts) - counts
    step = (np.arange(entry.size) - firsts[entry]).astype(np.uint64) * np.uint64(4)
    words = table.orig[entry] + step
    fixed = ~table.is_callback & (table.repl != 0)
    repl = np.where(fixed[entry], table.repl[entry] + step, np.uint64(0))
    order = np.argsort(words, kind="stable")
    return words[order], repl[order]


def _constants(image: Image) -> Addr:
    """Words that hold runtime constants: four for a pointer (movz and three movk), one for a shift or mask."""
    found = [np.zeros(0, dtype=np.uint64)]
    for index, name in enumerate(image.sections.names):
        if not name.startswith(("runtime_ptr_", "runtime_shift_", "runtime_mask_")):
            continue
        region = region_of(image, index)
        raw = np.ascontiguousarray(region.data[: region.data.size // 4 * 4]).view("<i4").astype(np.int64)
        place = np.uint64(region.addr) + np.arange(raw.size, dtype=np.uint64) * np.uint64(4)
        first = place + raw.view(np.uint64)
        count = 4 if name.startswith("runtime_ptr_") else 1
        found.append((first[:, None] + np.arange(count, dtype=np.uint64) * np.uint64(4)).reshape(-1))
    return np.unique(np.concatenate(found))


def _relocated(image: Image) -> Addr:
    """Words of text whose value is not final in the file."""
    found = [np.zeros(0, dtype=np.uint64)]
    four = np.uint64(4)
    if image.elf.type == FileType.REL:
        for index in image.text.section.tolist():
            table = image.elf.relocations(index)
            place = table.offset + image.sections.addr[index]
            found += [place, place[np.isin(table.type, _WIDE)] + four]
    else:
        table = dynamic_relocations(image)
        places = [table.offset[~np.isin(table.type, (RelocType.NONE, RelocType.NONE_OLD))]]
        for index in np.flatnonzero(image.sections.kind == SectionType.RELR).tolist():
            data = image.elf.section_bytes(index)
            places.append(relr_places(data[: data.size // 8 * 8].view("<u8")))
        for place in places:
            inside = place[image.text.contains(place)]
            found += [inside, inside + four]
    return np.unique(np.concatenate(found) & ~np.uint64(3))


def compare(addr: int, image: Insn, live: Insn, known: Mechanisms) -> Differences:
    """Compare a range of text.

    Args:
        addr: address of the first word, as the image is placed (for a kernel under KASLR: the link address;
            all that is compared is relative).
        image: (n,) uint32, the words of the image.
        live: (n,) uint32, the words of the target.
        known: from `mechanisms` of the same image.

    Returns:
        the words that differ, in ascending order.

    Raises:
        ValueError: the two ranges are not of one length (a bug of the caller).
    """
    if image.shape != live.shape:
        raise ValueError(f"{image.size} words of the image against {live.size} live ones")
    at = np.flatnonzero(image != live)
    addrs = np.uint64(addr) + at.astype(np.uint64) * np.uint64(4)
    old, new = image[at], live[at]
    cause = np.full(at.size, Change.OTHER, dtype=np.uint8)
    # From the least to the most specific: the last one that fits is the cause.
    for change, mask in (
        (Change.RELOCATED, _member(known.relocated, addrs)),
        (Change.KPROBE, new == BRK_KPROBE),
        (Change.SHADOW_STACK, _is_shadow_stack(old, new)),
        (Change.RUNTIME_CONST, _member(known.constants, addrs) & _same_but_immediate(old, new)),
        (Change.CALLBACK, _by_callback(addrs, known)),
        (Change.ALTERNATIVE, _is_alternative(addrs, new, known)),
        (Change.JUMP_LABEL, _is_jump(addrs, new, known)),
        (Change.OPS_LITERAL, _member(known.literals, addrs)),
        (Change.PATCH_SITE, _is_site(addrs, old, new, known)),
    ):
        cause[mask] = change
    return Differences(addrs, old, new, cause)


def _member(ordered: Addr, addrs: Addr) -> Mask:
    """(n,) bool: the address is one of the sorted ones."""
    if not ordered.size:
        return np.zeros(addrs.shape, dtype=np.bool_)
    at = np.minimum(np.searchsorted(ordered, addrs), ordered.size - 1)
    return np.asarray(ordered[at] == addrs)


def _is_site(addrs: Addr, old: Insn, new: Insn, known: Mechanisms) -> Mask:
    first: Mask = (
        _member(known.first_slots, addrs) & np.isin(old, (NOP, MOV_X9_X30)) & np.isin(new, (NOP, MOV_X9_X30))
    )
    second: Mask = _member(known.sites, addrs) & ((old == NOP) | is_bl(old)) & ((new == NOP) | is_bl(new))
    found: Mask = first | second
    return found


def _is_shadow_stack(old: Insn, new: Insn) -> Mask:
    found = np.zeros(old.shape, dtype=np.bool_)
    for before, after in _SCS_PAIRS:
        found |= (old == before) & (new == after)
    return found


def _is_jump(addrs: Addr, new: Insn, known: Mechanisms) -> Mask:
    if not known.jumps.size:
        return np.zeros(addrs.shape, dtype=np.bool_)
    at = np.minimum(np.searchsorted(known.jumps, addrs), known.jumps.size - 1)
    jumps = is_b(new) & (branch_target(new, addrs) == known.jump_targets[at])
    found: Mask = (known.jumps[at] == addrs) & (jumps | (new == NOP))
    return found


def _same_but_immediate(old: Insn, new: Insn) -> Mask:
    """Tell whether two words are MOVZ or MOVK, or UBFM, that differ only in what they move or how far they shift."""
    move = matches(old, 0x7F80_0000, 0x5280_0000) | matches(old, 0x7F80_0000, 0x7280_0000)
    shift = matches(old, 0x7F80_0000, 0x5300_0000)
    change = old ^ new
    found: Mask = (move & matches(change, 0xFFE0_001F, 0)) | (shift & matches(change, 0xFFC0_03FF, 0))
    return found


def _candidates(addrs: Addr, known: Mechanisms) -> tuple[Row, Row]:
    """Pair each address with every alternative of its word: (k,) rows of `addrs`, (k,) rows of `alt_words`."""
    low = np.searchsorted(known.alt_words, addrs, side="left")
    count = np.searchsorted(known.alt_words, addrs, side="right") - low
    row = np.repeat(np.arange(addrs.size), count)
    step = np.arange(row.size) - (np.cumsum(count) - count)[row]
    return row, low[row] + step


def _by_callback(addrs: Addr, known: Mechanisms) -> Mask:
    row, entry = _candidates(addrs, known)
    found = np.zeros(addrs.shape, dtype=np.bool_)
    found[row[known.alt_repl[entry] == 0]] = True
    return found


def _is_alternative(addrs: Addr, new: Insn, known: Mechanisms) -> Mask:
    """Tell whether the live word is the replacement's, copied or with its branch or ADRP retargeted.

    Source:
        arch/arm64/kernel/alternative.c:get_alt_insn (Linux 7.3).
    """
    row, entry = _candidates(addrs, known)
    at, live = addrs[row], new[row]
    source, word = known.alt_repl[entry], known.repl_words[entry]
    stays = np.full(word.shape, 0xFF00_001F, dtype=np.uint32)
    for mask, value, bits in _FORMS:
        stays[matches(word, mask, value)] = bits
    target = branch_target(word, source)
    moved = (target != 0) & ((word ^ live) & stays == 0) & (branch_target(live, at) == target)
    page = is_adrp(word) & matches(word ^ live, 0x9F00_001F, 0) & (adrp_target(word, source) == adrp_target(live, at))
    good = (source != 0) & ((word == live) | moved | page | _member(known.relocated, source))
    found = np.zeros(addrs.shape, dtype=np.bool_)
    found[row[good]] = True
    return found
