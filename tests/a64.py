"""A small assembler for tests: A64 words and rule tables by label, sharing no code with the package's decoders.

Encodings from the Arm Architecture Reference Manual for A-profile (DDI 0487), C6.2.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from surefoot.metadata.rules import CfaBase, FpRule, FunctionIndex, Provenance, RaRule, RuleTable

__all__ = ["FP", "LR", "NOP", "RET", "SP", "Asm", "Row", "add", "ldp", "ldr", "mov", "stp", "str_", "sub"]

FP: Final = 29
LR: Final = 30
SP: Final = 31
NOP: Final = 0xD503_201F
RET: Final = 0xD65F_03C0
BASE: Final = 0x40_0000

_PAIR: Final = {"": 0xA900_0000, "pre": 0xA980_0000, "post": 0xA880_0000}
_SINGLE: Final = {"": 0xF900_0000, "pre": 0xF800_0C00, "post": 0xF800_0400}


def _pair(first: int, second: int, base: int, offset: int, mode: str, load: int) -> int:
    return _PAIR[mode] | load << 22 | (offset // 8 & 0x7F) << 15 | second << 10 | base << 5 | first


def _single(register: int, base: int, offset: int, mode: str, load: int) -> int:
    where = (offset // 8 & 0xFFF) << 10 if not mode else (offset & 0x1FF) << 12
    return _SINGLE[mode] | load << 22 | where | base << 5 | register


def stp(first: int, second: int, base: int = SP, offset: int = 0, mode: str = "") -> int:
    """STP of 64-bit registers."""
    return _pair(first, second, base, offset, mode, 0)


def ldp(first: int, second: int, base: int = SP, offset: int = 0, mode: str = "") -> int:
    """LDP of 64-bit registers."""
    return _pair(first, second, base, offset, mode, 1)


def str_(register: int, base: int = SP, offset: int = 0, mode: str = "") -> int:
    """STR of a 64-bit register."""
    return _single(register, base, offset, mode, 0)


def ldr(register: int, base: int = SP, offset: int = 0, mode: str = "") -> int:
    """LDR of a 64-bit register."""
    return _single(register, base, offset, mode, 1)


def add(to: int, of: int, amount: int) -> int:
    """ADD (immediate, 64 bits)."""
    return 0x9100_0000 | amount << 10 | of << 5 | to


def sub(to: int, of: int, amount: int) -> int:
    """SUB (immediate, 64 bits)."""
    return 0xD100_0000 | amount << 10 | of << 5 | to


def mov(to: int, of: int) -> int:
    """MOV (register, 64 bits), or from or to SP."""
    return add(to, of, 0) if SP in {to, of} else 0xAA00_03E0 | of << 16 | to


@dataclass(frozen=True)
class Row:
    """One rule: CFA = base + off, the caller's x29 and the return address at offsets from it, or in registers."""

    off: int = 0
    base: int = SP
    fp: int | None = None
    ra: int | None = None


@dataclass
class _Function:
    name: str
    start: int
    rows: list[tuple[int, Row]]
    end: int = 0


@dataclass
class Asm:
    """Code in the making, with its rules.

    Attributes:
        base: address of the first word.
        words: so far; branches to labels are filled in by `code`.
        labels: name -> address.
    """

    base: int = BASE
    words: list[int] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    _branches: list[tuple[int, str, int, int]] = field(default_factory=list)
    _functions: list[_Function] = field(default_factory=list)

    @property
    def here(self) -> int:
        """Address of the next word."""
        return self.base + 4 * len(self.words)

    def label(self, name: str) -> None:
        """Name the place."""
        self.labels[name] = self.here

    def function(self, name: str, row: Row | None = None) -> None:
        """Begin a function, with the row of its entry."""
        self.end()
        self.label(name)
        self._functions.append(_Function(name, self.here, [(self.here, row or Row())]))

    def end(self) -> None:
        """End the function: what follows has no rules."""
        if self._functions and not self._functions[-1].end:
            self._functions[-1].end = self.here

    def row(self, row: Row) -> None:
        """Begin a row."""
        self._functions[-1].rows.append((self.here, row))

    def put(self, *words: int) -> None:
        """Append words."""
        self.words += words

    def _branch(self, word: int, goal: str, lsb: int, width: int) -> None:
        self._branches.append((len(self.words), goal, lsb, width))
        self.words.append(word)

    def b(self, goal: str) -> None:
        """B."""
        self._branch(0x1400_0000, goal, 0, 26)

    def bl(self, goal: str) -> None:
        """BL."""
        self._branch(0x9400_0000, goal, 0, 26)

    def b_if(self, condition: int, goal: str) -> None:
        """B.cond."""
        self._branch(0x5400_0000 | condition, goal, 5, 19)

    def cbz(self, register: int, goal: str) -> None:
        """CBZ (64 bits)."""
        self._branch(0xB400_0000 | register, goal, 5, 19)

    def adr(self, register: int, goal: str) -> None:
        """ADR of a word."""
        self._branch(0x1000_0000 | register, goal, 5, 19)

    def code(self) -> NDArray[np.uint32]:
        """Give the words, branches filled in."""
        words = np.array(self.words, dtype=np.uint32)
        for at, goal, lsb, width in self._branches:
            far = (self.labels[goal] - self.base) // 4 - at
            words[at] |= np.uint32((far & ((1 << width) - 1)) << lsb)
        return words

    def rules(self) -> RuleTable:
        """Give the rules, for look-ups, as decoders give them."""
        self.end()
        rows = [(function, *pair) for function, one in enumerate(self._functions) for pair in one.rows]
        table = [row for _, _, row in rows]
        counts = np.array([len(one.rows) for one in self._functions], dtype=np.int64)
        starts = np.array([one.start for one in self._functions], dtype=np.uint64)
        none = np.zeros(starts.size, dtype=np.uint8)
        index = FunctionIndex(
            start=starts,
            size=np.array([one.end for one in self._functions], dtype=np.uint64) - starts,
            first_row=np.cumsum(counts) - counts,
            row_count=counts,
            provenance=none + np.uint8(Provenance.DEBUG_FRAME),
            flags=none.copy(),
            source_off=np.arange(starts.size, dtype=np.int64),
            section=np.full(starts.size, -1, dtype=np.int32),
            rep_size=none.copy(),
            reason=np.full(starts.size, -1, dtype=np.int16),
        )
        return RuleTable(
            start=np.array([addr for _, addr, _ in rows], dtype=np.uint64),
            cfa_base=_column([CfaBase.SP if row.base == SP else CfaBase.FP for row in table]),
            cfa_off=np.array([row.off for row in table], dtype=np.int32),
            fp_rule=_column([FpRule.UNCHANGED if row.fp is None else FpRule.AT_CFA for row in table]),
            fp_off=np.array([row.fp or 0 for row in table], dtype=np.int32),
            ra_rule=_column([RaRule.IN_LR if row.ra is None else RaRule.AT_CFA for row in table]),
            ra_off=np.array([row.ra or 0 for row in table], dtype=np.int32),
            ra_signed=np.zeros(len(rows), dtype=np.bool_),
            func=np.array([function for function, _, _ in rows], dtype=np.int32),
            side=np.full(len(rows), -1, dtype=np.int32),
            functions=index,
        ).for_lookup()


def _column(values: list[int]) -> NDArray[np.uint8]:
    return np.array(values, dtype=np.uint8)
