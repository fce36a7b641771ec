"""Layer 1: encodings written as text, and the decoder that finds the encoding of each word.

Invariant: the first line of the tables that fits a word is its form; a word that no line fits has form 0, which may
do anything.

A line is 32 characters 0, 1 or x (blanks are for the eye) and then what the encoding does:

* flow: `jump cond call callreg jumpreg ret eret exc undef`; the target is in bits 9:5, or x30 with `r30`;
* registers written: `wd` bits 4:0, `wn` bits 9:5, `wa` bits 14:10, `ws` bits 20:16; 31 is the zero register, for `wD`
  and the write-back of an address SP. `wdd wss` write that register and the next one, `wd8` eight of them,
  `w30` and the like a fixed one;
* registers read: `rd rn ra rm` likewise, `rD rN rM` where 31 is SP, `rdd rmm rd8`, `r30 rsp` fixed;
* memory: `ld` or `st` through the register in bits 9:5 (31 is SP), `size=` bytes, offset `u12` (scaled by size),
  `s9`, `s9t` (scaled by 16), `s7` (scaled by `size`; a pair) or `reg` (unknown); `pre` and `post` write back;
  `by=` gives the bytes of a write-back without an offset field. `any`: size or address unknown; `atd`: through the
  register in bits 4:0; `vec`: through a vector of addresses;
* `x1`, `x2`: the first one or two registers are general, 64 bits, and loaded from or stored to the address as a
  whole;
* exact effects: `addi`, `mov`, and the pointer authentications `sign auth strip`, `pc`, `ka kb`, `bti`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Insn

__all__ = ["Decoder", "Form", "parse"]

_KEY_HIGH: Final = 21
_KEY_LOW: Final = 10
_KEY_BITS: Final = 17
_KEY_MASK: Final = 0xFFE0_FC00
"""Bits 31:21 and 15:10 tell almost all encodings apart."""


@dataclass(frozen=True)
class Form:
    """One encoding: `word & mask == value`, and the notes on its line."""

    mask: int
    value: int
    notes: frozenset[str]
    numbers: tuple[tuple[str, int], ...] = ()

    def number(self, name: str, default: int = 0) -> int:
        """Give the value of a note `name=value`."""
        return dict(self.numbers).get(name, default)


def parse(*tables: str) -> list[Form]:
    """Give the forms of tables in the language above, in their order.

    Raises:
        ValueError: a line does not have 32 bits.
    """
    return [form for table in tables for form in _lines(table)]


def _lines(table: str) -> Iterable[Form]:
    for line in table.splitlines():
        text = line.partition("#")[0].split()
        if not text:
            continue
        bits, used = "", 0
        while used < len(text) and len(bits) < 32:
            bits += text[used]
            used += 1
        if len(bits) != 32 or set(bits) - set("01x"):
            raise ValueError(f"not 32 bits: {line}")
        notes = text[used:]
        pairs = tuple((name, int(value)) for name, mark, value in (n.partition("=") for n in notes) if mark)
        yield Form(
            mask=int(bits.replace("0", "1").replace("x", "0"), 2),
            value=int(bits.replace("x", "0"), 2),
            notes=frozenset(n for n in notes if "=" not in n),
            numbers=pairs,
        )


class Decoder:
    """Finds the first form that fits, for many words at once.

    Attributes:
        forms: form 0 fits everything and says that nothing is known.
    """

    def __init__(self, forms: list[Form]) -> None:
        self.forms: Final = [Form(0, 0, frozenset({"unknown"})), *forms]
        self._first: Final = np.zeros(1 << _KEY_BITS, dtype=np.uint16)
        self._rest: Final[dict[int, tuple[int, ...]]] = {}
        self._build()

    def _build(self) -> None:
        """Fill the table from key to form; keys that do not decide get a number of their own beyond the forms."""
        keys = np.arange(1 << _KEY_BITS, dtype=np.uint32)
        high, low = keys >> np.uint32(6), keys & np.uint32(63)
        words = (high << np.uint32(_KEY_HIGH)) | (low << np.uint32(_KEY_LOW))
        open_lists: dict[int, list[int]] = {}
        for number, form in enumerate(self.forms[1:], start=1):
            fixed = _leading(form.mask)
            first = (form.value >> (32 - fixed)) << (_KEY_BITS - fixed)
            span = slice(first, first + (1 << (_KEY_BITS - fixed)))
            part = words[span]
            hits = np.flatnonzero((part & np.uint32(form.mask)) == np.uint32(form.value & _KEY_MASK)) + first
            free = hits[self._first[hits] == 0]
            if form.mask & ~_KEY_MASK:
                for key in free.tolist():
                    open_lists.setdefault(key, []).append(number)
                continue
            self._first[free] = number
            for key in free.tolist():
                if key in open_lists:
                    open_lists[key].append(number)
        numbers: dict[tuple[int, ...], int] = {}
        for key, candidates in open_lists.items():
            number = numbers.setdefault(tuple(candidates), len(self.forms) + len(numbers))
            self._first[key] = number
        self._rest.update({number: candidates for candidates, number in numbers.items()})

    def decode(self, words: Insn) -> NDArray[np.uint16]:
        """Give the number of the form of each word: (n,) uint16 from (n,) uint32."""
        key = ((words >> np.uint32(_KEY_HIGH)) << np.uint32(6)) | ((words >> np.uint32(_KEY_LOW)) & np.uint32(63))
        found = self._first[key]
        undecided = np.flatnonzero(found >= len(self.forms))
        if not undecided.size:
            return found
        groups = found[undecided]
        order = np.argsort(groups, kind="stable")
        undecided, groups = undecided[order], groups[order]
        starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
        for start, end in zip(starts.tolist(), [*starts.tolist()[1:], groups.size], strict=True):
            places = undecided[start:end]
            found[places] = self._choose(words[places], self._rest[int(groups[start])])
        return found

    def _choose(self, words: Insn, candidates: tuple[int, ...]) -> NDArray[np.uint16]:
        """Give the first of the candidates that fits each word, else 0."""
        chosen = np.zeros(words.shape, dtype=np.uint16)
        for number in reversed(candidates):
            form = self.forms[number]
            chosen[(words & np.uint32(form.mask)) == np.uint32(form.value)] = number
        return chosen


def _leading(mask: int) -> int:
    """Count the leading ones of a mask, at most 11."""
    count = 0
    while count < 11 and mask >> (31 - count) & 1:
        count += 1
    return count
