"""Layer 6: the exception vectors and the stubs behind them: all from one template?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from surefoot.audit.catalogue import CATALOGUE
from surefoot.audit.findings import Finding
from surefoot.audit.subject import Subject
from surefoot.dtypes import Insn
from surefoot.isa.branches import NOP, branch_target, is_adr, is_adrp, is_b, is_bl, is_call, is_cond_branch
from surefoot.isa.fields import matches

__all__ = ["Vectors", "entry_findings", "stub_addresses", "vectors"]

_SLOTS: Final = 16
_SLOT_WORDS: Final = 32
"""128 bytes (Arm ARM, D1.3.1.5)."""
KINDS: Final = tuple(
    f"{level}_{kind}"
    for level in ("el1t_64", "el1h_64", "el0t_64", "el0t_32")
    for kind in ("sync", "irq", "fiq", "error")
)
"""The entry stubs in the order of the vectors (arch/arm64/kernel/entry.S: SYM_CODE_START(vectors), Linux 7.3)."""


_LEVELS: Final = (("EL1", range(8)), ("64-bit EL0", range(8, 12)), ("32-bit EL0", range(12, 16)))
"""The template takes level, stack and register width as arguments, and differs by them: kernel_ventry in entry.S."""


@dataclass(frozen=True)
class Vectors:
    """The sixteen vectors.

    Attributes:
        addr: address of the table, 0 where there is none.
        target: (16) symbol that each vector branches to at its end, empty where there is none.
        used: (16,) int64, instructions before the fill.
        family: (16,) int64, number of the template instance: slots of one number have the same instructions but
            for branch distances and constants.
    """

    addr: int
    target: tuple[str, ...]
    used: NDArray[np.int64]
    family: NDArray[np.int64]


def _shape(words: Insn) -> Insn:
    """Give words without what differs between instances of one template: distances and 16-bit constants."""
    shape = words.copy()
    for mask, keep in (
        (is_b(words) | is_bl(words), 0xFC00_0000),
        (is_cond_branch(words), 0xFF00_001F),
        (is_adr(words) | is_adrp(words), 0x9F00_001F),
        (matches(words, 0x7F80_0000, 0x5280_0000), 0xFFE0_001F),
    ):
        shape[mask] &= np.uint32(keep)
    # add xN, xN, #low belongs to an ADRP: its immediate is a distance too.
    page = np.append(False, (is_adrp(words))[:-1])
    shape[page & matches(words, 0xFFC0_0000, 0x9100_0000)] &= np.uint32(0xFFC0_03FF)
    return shape


def _families(rows: list[Insn]) -> NDArray[np.int64]:
    """Number sequences of words by their shape, in the order of first appearance."""
    seen: dict[bytes, int] = {}
    return np.array([seen.setdefault(_shape(row).tobytes(), len(seen)) for row in rows], dtype=np.int64)


def vectors(subject: Subject) -> Vectors:
    """Read the vector table `vectors`."""
    addr = subject.address_of("vectors") or 0
    low = int(subject.map.index(np.array([addr], dtype=np.uint64))[0])
    nothing = np.zeros(0, dtype=np.int64)
    if not addr or low < 0 or low + _SLOTS * _SLOT_WORDS > len(subject.map):
        return Vectors(0, (), nothing, nothing)
    table = subject.map.words[low : low + _SLOTS * _SLOT_WORDS].reshape(_SLOTS, _SLOT_WORDS)
    rows, targets, used = [], [], []
    for slot in range(_SLOTS):
        words = table[slot]
        filled = np.flatnonzero((words != np.uint32(NOP)) & (words != 0))
        count = int(filled[-1]) + 1 if filled.size else 0
        used.append(count)
        rows.append(words[:count])
        targets.append(_target(subject, addr + slot * 4 * _SLOT_WORDS, words[:count]))
    return Vectors(addr, tuple(targets), np.array(used, dtype=np.int64), _families(rows))


def _target(subject: Subject, start: int, words: Insn) -> str:
    """Name the entry stub that a vector branches to."""
    at = np.flatnonzero(is_b(words))
    goals = branch_target(words[at], np.uint64(start) + at.astype(np.uint64) * np.uint64(4))
    names = [subject.name_at(goal) for goal in goals.tolist() if not start <= goal < start + 4 * _SLOT_WORDS]
    stubs = [name for name in names if name in KINDS]
    return (stubs or names or [""])[0]


def stub_addresses(subject: Subject) -> dict[str, tuple[int, Insn]]:
    """Give address and words of each entry stub that the image has."""
    found = {}
    ranges = subject.ranges
    for name in KINDS:
        addr = subject.address_of(name)
        if addr is None:
            continue
        row = int(subject.range_at(np.array([addr], dtype=np.uint64))[0])
        if row < 0:
            continue
        low, high = subject.map.span(ranges.start[row : row + 1], ranges.end[row : row + 1])
        found[name] = (addr, subject.map.words[int(low[0]) : int(high[0])])
    return found


def entry_findings(subject: Subject) -> Iterator[Finding]:
    """Yield vectors and stubs that do not come from the template of their exception level."""
    table = vectors(subject)
    if not table.addr:
        if subject.address_of("__entry_text_start") is not None or subject.address_of("_stext") is not None:
            yield Finding("vectors-missing", 0, "", CATALOGUE["vectors-missing"].meaning)
        return
    for level, slots in _LEVELS:
        family = table.family[list(slots)]
        usual = int(np.bincount(family).argmax())
        for slot in slots:
            addr = table.addr + slot * 4 * _SLOT_WORDS
            if int(table.family[slot]) != usual:
                message = f"Vector {slot} ({KINDS[slot]}) has other instructions than the other vectors of {level}"
                yield Finding("vector-shape", addr, "vectors", message, size=4 * _SLOT_WORDS)
            elif table.target[slot] and table.target[slot] != KINDS[slot] and table.target[slot] in KINDS:
                message = f"Vector {slot} leads to {table.target[slot]}, not to {KINDS[slot]}"
                yield Finding("vector-shape", addr, "vectors", message, size=4 * _SLOT_WORDS)
    yield from _stub_findings(subject)


def _stub_findings(subject: Subject) -> Iterator[Finding]:
    """Yield entry stubs that differ from their siblings or do not call exactly one C function."""
    stubs = stub_addresses(subject)
    for level in ("el1t", "el1h", "el0t_64", "el0t_32"):
        names = [name for name in stubs if name.startswith(level)]
        family = _families([stubs[name][1] for name in names])
        usual = int(np.bincount(family).argmax()) if names else 0
        for name, number in zip(names, family.tolist(), strict=True):
            addr, words = stubs[name]
            if number != usual:
                message = f"{name} has other instructions than the other stubs of {level}"
                yield Finding("stub-shape", addr, name, message, size=4 * words.size)
            calls = int(np.count_nonzero(is_call(words)))
            if calls != 1:
                yield Finding("stub-calls", addr, name, f"{name} makes {calls} calls", size=4 * words.size)
