"""Layer 6: patch sites: where the entry of a function can be turned to other code, and what has to be written there.

A site is what the compiler left for ftrace (-fpatchable-function-entry=4,2 or =2): two words at the entry, behind a
BTI if there is one and before everything else, pointer authentication included; and with CALL_OPS eight aligned
bytes before the symbol, in which ftrace keeps the address of its ops.

|            | first slot            | second slot | eight bytes before |
|---|---|---|---|
| not traced | mov x9, x30 (or NOP)  | NOP         | anything           |
| traced     | mov x9, x30           | bl tracer   | the ftrace_ops     |
| direct     | b new                 | as it was   | as they were       |
| indirect   | ldr x16, <the bytes>  | br x16      | address of new     |

Every function is entered with x9, x16 and x17 free (AAPCS64, 6.1.1) and x30 still the way back, so new code that is
entered like this cannot tell the difference. A direct branch is taken wherever it reaches, 128 MiB to both sides: it
leaves ftrace's own word and bytes alone, so that tracing may come and go at the site meanwhile.

What makes a write visible to the CPUs is the target's business, since it differs:

- QEMU's own CPUs (TCG): written through the gdbstub, QEMU drops what it has translated from there; nothing else.
- the emulated machine: as its own ftrace does, through the kernel's text patching.
- KVM and hardware: data cache clean to the point of unification, instruction cache invalidate, then a context
  synchronisation on every CPU (DDI 0487, B2.4.4). Only a kernel does that on its own CPUs, so that nothing here
  writes to such a target.

Source:
    arch/arm64/kernel/ftrace.c of Linux 7.3: ftrace_call_adjust, ftrace_init_nop, ftrace_make_call.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Addr
from surefoot.image.symbols import SymbolKind, Symbols
from surefoot.image.tables import PatchSites
from surefoot.isa.branches import BRK_KPROBE, BTI_C, MOV_X9_X30, NOP, branch_target, is_b, is_bl
from surefoot.patch.writes import Read, Write
from surefoot.unwind.code import CodeMap

__all__ = [
    "LiveSite",
    "ObjectCode",
    "Place",
    "Refusal",
    "Refused",
    "Site",
    "SiteKind",
    "branch_word",
    "decode_site",
    "find_function",
    "find_place",
    "plan_site",
    "redirects_of",
]

_BR_X16: Final = 0xD61F_0200
_LDR_X16: Final = 0x5800_0010
"""LDR X16, literal: the offset in words goes to bits 5 to 23 (DDI 0487, C6.2)."""
_LDR_MASK: Final = 0xFF00_001F
_B: Final = 0x1400_0000
_REACH: Final = 1 << 27
"""Bytes that B reaches to each side."""


class Refusal(StrEnum):
    """Why a function is not patched."""

    NO_FUNCTION = "no_function"
    AMBIGUOUS = "ambiguous"
    POSITION = "position"
    NO_SITE = "no_site"
    NO_NEW = "no_new"
    SAME = "same"
    UNREADABLE = "unreadable"
    MISALIGNED = "misaligned"
    TRACED = "traced"
    PROBED = "probed"
    PATCHED = "patched"
    UNKNOWN_WORDS = "unknown_words"
    OUT_OF_REACH = "out_of_reach"

    @property
    def sentence(self) -> str:
        """What it means, for people."""
        return _SENTENCES[self]


_SENTENCES: Final = {
    Refusal.NO_FUNCTION: "there is no function of that name",
    Refusal.AMBIGUOUS: "there are several functions of that name, so that a position is needed",
    Refusal.POSITION: "there are not as many functions of that name",
    Refusal.NO_SITE: "the compiler has left no patch site in it",
    Refusal.NO_NEW: "the new function is not there",
    Refusal.SAME: "old and new function are the same",
    Refusal.UNREADABLE: "its patch site cannot be read",
    Refusal.MISALIGNED: "its patch site is not aligned, so that it cannot be written at once",
    Refusal.TRACED: "it is being traced, and its patch site is in use",
    Refusal.PROBED: "a kprobe is in its patch site",
    Refusal.PATCHED: "it is patched already",
    Refusal.UNKNOWN_WORDS: "the words at its patch site are none that are known",
    Refusal.OUT_OF_REACH: "the new code lies beyond a direct branch, and nothing before it can hold its address",
}


@dataclass(frozen=True, slots=True)
class Refused:
    """A function that is not patched.

    Attributes:
        refusal: why.
        function: its name.
        object: what it is in, "vmlinux" or a module.
        address: of the site, 0 where it is not known.
        detail: what was found, for people; may be empty.
    """

    refusal: Refusal
    function: str
    object: str
    address: int = 0
    detail: str = ""

    def __str__(self) -> str:
        where = f" at {self.address:#x}" if self.address else ""
        tail = f": {self.detail}" if self.detail else ""
        return f"{self.function} ({self.object}){where}: {self.refusal.sentence}{tail}"


@dataclass(frozen=True)
class ObjectCode:
    """The kernel or a module, as far as finding sites takes.

    Attributes:
        name: "vmlinux" or the module's.
        symbols: of the image as it is placed.
        sites: of the image as it is placed.
        bias: what the target's addresses are above the image's.
    """

    name: str
    symbols: Symbols
    sites: PatchSites
    bias: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a site's parts are, at run-time addresses.

    Attributes:
        func: first instruction of the function.
        first: first slot.
        literal: the eight bytes before the function, 0 where there are none.
    """

    func: int
    first: int
    literal: int

    @property
    def second(self) -> int:
        """Second slot: ftrace's own."""
        return self.first + 4


class SiteKind(StrEnum):
    """What a site holds."""

    FREE = "free"
    TRACED = "traced"
    PROBED = "probed"
    DIRECT = "direct"
    INDIRECT = "indirect"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class LiveSite:
    """What a site holds in the target.

    Attributes:
        kind: of its words.
        target: DIRECT, INDIRECT: the new function; TRACED: where the tracer is called; else 0.
        literal: the eight bytes, 0 where there are none.
        words: first and second slot.
    """

    kind: SiteKind
    target: int
    literal: int
    words: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Site:
    """A site that can be turned to new code.

    Attributes:
        function: name of the old function.
        object: what it is in.
        place: where it is.
        new: address of the new function.
        kind: DIRECT or INDIRECT.
        writes: in an order in which the function works after each of them, as the old one or the new one.
    """

    function: str
    object: str
    place: Place
    new: int
    kind: SiteKind
    writes: tuple[Write, ...]


def find_function(code: ObjectCode, name: str, position: int = 0) -> int | Refused:
    """Find a function as `old_sympos` of a livepatch does.

    Args:
        code: what it is in.
        name: of the function.
        position: 0 if the name must be unique, n for the nth in kallsyms order.

    Returns:
        its run-time address, or why there is none.
    """
    symbols = code.symbols
    rows = symbols.find(name)
    kind = symbols.kind[rows]
    rows = rows[(symbols.section[rows] > 0) & ((kind == SymbolKind.FUNC) | (kind == SymbolKind.NOTYPE))]
    found = [(int(addr) + code.bias) % 2**64 for addr in symbols.addr[rows].tolist()]
    if not found:
        return Refused(Refusal.NO_FUNCTION, name, code.name)
    if position == 0 and len(found) > 1:
        listed = ", ".join(f"{i} is at {addr:#x}" for i, addr in enumerate(found[:8], 1))
        return Refused(Refusal.AMBIGUOUS, name, code.name, detail=listed)
    if not 0 <= position <= len(found):
        return Refused(Refusal.POSITION, name, code.name, detail=f"there are {len(found)}, not {position}")
    return found[max(position, 1) - 1]


def find_place(code: ObjectCode, func: int) -> Place | None:
    """Find the patch site of the function that begins at a run-time address, None if it has none."""
    linked = np.uint64((func - code.bias) % 2**64)
    rows = np.flatnonzero((code.sites.func == linked) & (code.sites.site != 0))
    if not rows.size:
        return None
    second = (int(code.sites.site[rows[0]]) + code.bias) % 2**64
    return Place(func, second - 4, func - 8 if bool(code.sites.has_literal[rows[0]]) else 0)


def branch_word(at: int, to: int) -> int | None:
    """Give the word of a direct branch (B), None where it does not reach."""
    distance = to - at
    if not -_REACH <= distance < _REACH or distance % 4:
        return None
    return _B | (distance >> 2 & 0x03FF_FFFF)


def _literal_word(at: int, literal: int) -> int:
    """Give `ldr x16` of the eight bytes at `literal`; they are always near."""
    return _LDR_X16 | ((literal - at >> 2 & 0x7_FFFF) << 5)


def decode_site(place: Place, read: Read) -> LiveSite | None:
    """Tell what a site holds, None if it cannot be read."""
    data = read(place.first, 8)
    before = read(place.literal, 8) if place.literal else bytes(8)
    if data is None or before is None or len(data) != 8 or len(before) != 8:
        return None
    first, second = int.from_bytes(data[:4], "little"), int.from_bytes(data[4:], "little")
    literal = int.from_bytes(before, "little")
    words = np.array([first, second], dtype=np.uint32)
    targets = branch_target(words, np.array([place.first, place.second], dtype=np.uint64)).tolist()
    if BRK_KPROBE in {first, second}:
        kind, target = SiteKind.PROBED, 0
    elif bool(is_b(words)[0]) and (second == NOP or bool(is_bl(words)[1])):
        kind, target = SiteKind.DIRECT, int(targets[0])
    elif place.literal and first == _literal_word(place.first, place.literal) and second == _BR_X16:
        kind, target = SiteKind.INDIRECT, literal
    elif first in {NOP, MOV_X9_X30} and second == NOP:
        kind, target = SiteKind.FREE, 0
    elif first in {NOP, MOV_X9_X30} and bool(is_bl(words)[1]):
        kind, target = SiteKind.TRACED, int(targets[1])
    else:
        kind, target = SiteKind.UNKNOWN, 0
    return LiveSite(kind, target, literal, (first, second))


def plan_site(code: ObjectCode, name: str, position: int, new: int, read: Read) -> Site | Refused:
    """Say what has to be written so that a function's calls lead to new code.

    Args:
        code: what the function is in.
        name: of the function.
        position: see `find_function`.
        new: run-time address of the new function.
        read: the target's memory, as it is now.

    Returns:
        the site, or why the function is not patched.
    """
    func = find_function(code, name, position)
    if isinstance(func, Refused):
        return func
    place = find_place(code, func)
    if place is None:
        return Refused(Refusal.NO_SITE, name, code.name, func)
    if new == func:
        return Refused(Refusal.SAME, name, code.name, func)
    if new % 4 or place.first % 4 or place.literal % 8:
        return Refused(Refusal.MISALIGNED, name, code.name, place.first)
    live = decode_site(place, read)
    if live is None:
        return Refused(Refusal.UNREADABLE, name, code.name, place.first)
    refused = _in_use(code, name, place, live)
    if refused is not None:
        return refused
    if place.first != func and not _is_bti(func, read):
        return Refused(Refusal.UNKNOWN_WORDS, name, code.name, func, "no BTI before the slots")
    return _writes(code, name, place, live, new)


def _in_use(code: ObjectCode, name: str, place: Place, live: LiveSite) -> Refused | None:
    """Refuse a site that is not free, with what it holds."""
    if live.kind is SiteKind.FREE:
        return None
    words = "{:#010x} {:#010x}".format(*live.words)
    ops = f", its ftrace_ops are at {live.literal:#x}" if place.literal else ""
    refusal, detail = {
        SiteKind.TRACED: (Refusal.TRACED, f"it calls {live.target:#x}{ops}"),
        SiteKind.PROBED: (Refusal.PROBED, words),
        SiteKind.DIRECT: (Refusal.PATCHED, f"it leads to {live.target:#x}"),
        SiteKind.INDIRECT: (Refusal.PATCHED, f"it leads to {live.target:#x}"),
        SiteKind.UNKNOWN: (Refusal.UNKNOWN_WORDS, words),
    }[live.kind]
    return Refused(refusal, name, code.name, place.first, detail)


def _is_bti(addr: int, read: Read) -> bool:
    """Whether a BTI C is at an address."""
    data = read(addr, 4)
    return data is not None and int.from_bytes(data, "little") == BTI_C


def _writes(code: ObjectCode, name: str, place: Place, live: LiveSite, new: int) -> Site | Refused:
    """Choose the form and give its writes."""
    first, second = live.words
    direct = branch_word(place.first, new)
    if direct is not None:
        one = Write(name, place.first, _bytes(first), _bytes(direct))
        return Site(name, code.name, place, new, SiteKind.DIRECT, (one,))
    if not place.literal:
        detail = f"{new:#x} is {abs(new - place.first) >> 20} MiB away"
        return Refused(Refusal.OUT_OF_REACH, name, code.name, place.first, detail)
    load = _literal_word(place.first, place.literal)
    # After the first, and after the second, the old code runs as before: x16 is free at an entry.
    writes = (
        Write(name, place.literal, live.literal.to_bytes(8, "little"), new.to_bytes(8, "little")),
        Write(name, place.first, _bytes(first), _bytes(load)),
        Write(name, place.second, _bytes(second), _bytes(_BR_X16)),
    )
    return Site(name, code.name, place, new, SiteKind.INDIRECT, writes)


def _bytes(word: int) -> bytes:
    return word.to_bytes(4, "little")


def redirects_of(code: CodeMap) -> NDArray[np.uint64]:
    """Find the functions whose entries lead to other code, by their words in the target.

    The walker takes a call of such a function for a possible call of the other one (`CodeMap.redirects`). It does
    not matter who has written them: a function's first words do what they say.

    Args:
        code: the running kernel's, with live words.

    Returns:
        (k, 2) uint64, (old function, new function).
    """
    functions, changed = code.functions, code.changed
    if not changed.size or not functions.start.size:
        return np.zeros((0, 2), dtype=np.uint64)
    at = functions.lookup(changed, np.zeros(changed.shape, dtype=np.bool_))
    start = functions.start[np.maximum(at, 0)]
    bti = code.text.words_at(start)[0] == np.uint32(BTI_C)
    entry = start + np.where(bti, np.uint64(4), np.uint64(0))
    here = (at >= 0) & (changed == entry)
    first, start = changed[here], start[here]
    word = code.text.words_at(first)[0]
    after = code.text.words_at(first + np.uint64(4))[0]
    target: Addr = np.where(is_b(word), branch_target(word, first), np.uint64(0))
    loads = (word & np.uint32(_LDR_MASK) == np.uint32(_LDR_X16)) & (after == np.uint32(_BR_X16))
    offset = (word.astype(np.int64) << np.int64(40) >> np.int64(45)) * 4
    literal = first + offset.astype(np.uint64)
    low, high = (code.text.words_at(literal + np.uint64(step))[0].astype(np.uint64) for step in (0, 4))
    target = np.where(loads, low | high << np.uint64(32), target)
    outside = (target != 0) & (functions.lookup(target, np.zeros(target.shape, dtype=np.bool_)) >= 0)
    return np.stack([start[outside], target[outside]], axis=1)
