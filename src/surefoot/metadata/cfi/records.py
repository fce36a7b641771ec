"""Layer 2: the records of a frame section: where each CIE and FDE starts, found without walking from one to the next.

Every record begins with its length, so the records form a chain. Following it one by one is sequential; instead all
places that could be a record are found at once (a length that stays in the section, and an identifier that marks a
CIE or leads to one), each is linked to the place its length leads to, and the chain from offset 0 is collected by
doubling: if the first n records are known, one indexing with "n records further" gives the next n.

Invariant: the result is the chain that a sequential reader would see; a place where it breaks is an error with its
offset, never skipped.

Source: DWARF 5, sections 6.4.1, 7.2.2 and 7.4; Linux Standard Base Core 5.0, section 10.6 (.eh_frame, whose
identifiers have four bytes in both formats).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NoReturn

import numpy as np

from surefoot.dtypes import Insn, Mask, Off
from surefoot.errors import Inconsistent, Truncated, Unsupported
from surefoot.metadata.cfi.section import Section

__all__ = ["Records", "find_records"]

_ESCAPE: Final = 0xFFFFFFFF
_RESERVED: Final = 0xFFFFFFF0
_ALL_ONES: Final = np.uint64(2**64 - 1)


@dataclass(frozen=True, slots=True)
class Records:
    """Record headers; all arrays have one entry per record, in the order of the section.

    Attributes:
        start: (n,) int64, offset of the length field.
        body: (n,) int64, offset behind the identifier.
        end: (n,) int64, offset behind the record.
        is_cie: (n,) bool.
        cie: (n,) int64, offset of the CIE that an FDE names; the record's own start for a CIE.
    """

    start: Off
    body: Off
    end: Off
    is_cie: Mask
    cie: Off

    def take(self, which: Off) -> Records:
        """Give the chosen records."""
        return Records(self.start[which], self.body[which], self.end[which], self.is_cie[which], self.cie[which])


def find_records(section: Section, *, eh: bool) -> Records:
    """Find all records of a section; zero-length records (terminators) are left out.

    Args:
        section: the bytes, relocations applied.
        eh: .eh_frame instead of .debug_frame.

    Raises:
        Truncated: a record does not end in the section, or is too short for its header.
        Inconsistent: an FDE names a place that is no CIE.
        Unsupported: a length out of the reserved range.
    """
    tail = _tail(section)
    if not tail:
        nothing = np.zeros(0, dtype=np.int64)
        return Records(nothing, nothing, nothing, np.zeros(0, dtype=np.bool_), nothing)
    found = _chain(section, 4, tail, eh=eh)  # what compilers and linkers write: words, 32-bit format
    if isinstance(found, int):
        found = _chain(section, 1, tail, eh=eh)  # everything that is legal
    if isinstance(found, int):
        _explain(section, found, eh=eh)
    return found


def _tail(section: Section) -> int:
    """Offset from which on there are only zero bytes: terminators, or the padding of the last record."""
    for size in (min(64, section.size), section.size):  # the last bytes nearly always suffice
        used = np.flatnonzero(section.data[section.size - size : section.size])
        if used.size:
            return section.size - size + int(used[-1]) + 1
    return 0


def _headers(section: Section, pos: Off, *, eh: bool) -> tuple[Records, Mask]:
    """Read headers at `pos`; the mask says which of them have room for what a header holds."""
    length = section.fixed(pos, 4)
    long = length == _ESCAPE
    some = np.flatnonzero(long)
    length[some] = section.fixed(pos[some] + 4, 8)
    id_pos = pos + 4 + 8 * long
    id_size = np.where(long & (not eh), 8, 4)
    ident = section.fixed(id_pos, 4)
    if not eh:
        ident[some] = section.fixed(id_pos[some], 8)
    room = np.maximum(section.size - id_pos, 0).astype(np.uint64)
    good = (length <= room) & (length >= id_size.astype(np.uint64)) & (long | (section.fixed(pos, 4) < _RESERVED))
    end = id_pos + np.minimum(length, room).astype(np.int64)
    if eh:
        is_cie = ident == 0
        target = id_pos - ident.astype(np.int64)
    else:
        is_cie = ident == np.where(long, _ALL_ONES, np.uint64(_ESCAPE))
        target = np.minimum(ident, np.uint64(2**62)).astype(np.int64)
    return Records(pos, id_pos + id_size, end, is_cie, np.where(is_cie, pos, target)), good


def _candidates(section: Section, unit: int, *, eh: bool) -> tuple[Records, Mask]:
    """Find every place that could be a record: (records, which of them are terminators)."""
    word = section.words(4)[: max(section.size - 3, 0) : unit]
    first = word.astype(np.uint32)
    likely = (first - np.uint32(4)) < np.uint32(section.size)  # wraps: lengths below 4 are out as well
    if unit == 1:
        likely |= (first == 0) | (first == _ESCAPE)
    pos = np.flatnonzero(likely) * unit
    if unit == 4:
        pos = pos[_leads_to_cie(section, first, pos, eh=eh)]
    found, good = _headers(section, pos, eh=eh)
    empty = (first[pos] == 0) if unit == 1 else np.zeros(pos.size, dtype=np.bool_)
    is_cie = np.zeros(section.size + 1, dtype=np.bool_)
    is_cie[pos[good & found.is_cie]] = True
    inside = (found.cie >= 0) & (found.cie <= section.size)
    good &= inside & is_cie[np.where(inside, found.cie, 0)]
    keep = np.flatnonzero(good | empty)
    found = found.take(keep)
    empty = empty[keep]
    found.end[empty] = found.start[empty] + 4
    return found, empty


def _leads_to_cie(section: Section, words: Insn, pos: Off, *, eh: bool) -> Mask:
    """(k,) bool, whether the record at `pos` is a CIE or names one, as far as aligned words tell: a quick sieve."""
    mark = 0 if eh else _ESCAPE
    second = np.append(words[1:], np.uint32(1))
    ident = second[pos >> 2]
    target = pos + 4 - ident if eh else ident.astype(np.int64)
    inside = (target >= 0) & (target < section.size - 4) & (target & 3 == 0)
    leads: Mask = (ident == mark) | ((second[np.where(inside, target, 0) >> 2] == mark) & inside)
    return leads


def _chain(section: Section, unit: int, tail: int, *, eh: bool) -> Records | int:
    """Give the records of the chain that starts at 0, or the offset where it meets no possible record."""
    found, empty = _candidates(section, unit, eh=eh)
    count = found.start.size
    done, broken = count, count + 1  # two more nodes, which lead to themselves
    slot = np.full(section.size // unit + 1, broken, dtype=np.int32)
    slot[found.start // unit] = np.arange(count, dtype=np.int32)
    chain = slot[:1]
    jump = slot[found.end // unit]
    jump[found.end % unit != 0] = broken
    jump[found.end >= tail] = done
    jump = np.append(jump, np.array([done, broken], dtype=np.int32))
    while chain[-1] < count:
        chain = np.concatenate([chain, jump[chain]])
        jump = jump[jump]
    stop = int(np.argmax(chain >= count))
    if chain[stop] == broken:
        return int(found.end[chain[stop - 1]]) if stop else 0
    chain = chain[:stop]
    steps = chain.astype(np.int64)
    return found.take(steps[~empty[steps]])


def _explain(section: Section, pos: int, *, eh: bool) -> NoReturn:
    """Raise the error that says why no record can start at `pos`.

    Raises:
        Truncated: the record's length leads out of the section, or leaves no room for the identifier.
        Inconsistent: the identifier names no CIE.
        Unsupported: a reserved length.
    """
    if section.size - pos < 4:
        section.fail(Truncated, "the section ends inside a record's length", pos)
    at = np.array([pos], dtype=np.int64)
    length = int(section.fixed(at, 4)[0])
    if _RESERVED <= length < _ESCAPE:
        section.fail(Unsupported, f"record length {length:#x} is reserved", pos)
    found, good = _headers(section, at, eh=eh)
    if not good[0]:
        section.fail(Truncated, "a record does not fit between its start and the section's end", pos)
    section.fail(Inconsistent, f"an FDE names offset {int(found.cie[0]):#x}, where there is no CIE", pos)
