"""Layer 8: the instructions around a finding, with the row that holds at each.

capstone prints them; no decision rests on it.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from surefoot.audit.findings import Finding
from surefoot.audit.subject import Subject
from surefoot.audit.textmap import Cover
from surefoot.audit.words import row_words

if TYPE_CHECKING:
    from surefoot.metadata.rules import RuleTable

__all__ = ["CodeLine", "Disassembly", "branch_goal"]

_BEFORE: Final = 2
_BEHIND: Final = 3
_NEAR: Final = 12
"""Instructions between edge and target up to which they are shown as one piece."""
_VERDICTS: Final = tuple(cover.name.lower() if cover <= Cover.PROVEN else "" for cover in Cover)
_BRANCH: Final = ("b", "bl", "cbz", "cbnz", "tbz", "tbnz")


def branch_goal(addr: int, word: int) -> int:
    """Give where an immediate branch goes; 0 for other words, and for CB<cc>. As `branch_target`, one at a time."""
    if word & 0x7C00_0000 == 0x1400_0000:  # B, BL
        bits, value = 26, word
    elif word & 0xFF00_0000 == 0x5400_0000 or word & 0x7E00_0000 == 0x3400_0000:  # B.cond, BC.cond, CBZ, CBNZ
        bits, value = 19, word >> 5
    elif word & 0x7E00_0000 == 0x3600_0000:  # TBZ, TBNZ
        bits, value = 14, word >> 5
    else:
        return 0
    off = value & ((1 << bits) - 1)
    return (addr + 4 * (off - (off >> (bits - 1) << bits))) % 2**64


@dataclass(frozen=True, slots=True)
class CodeLine:
    """One instruction as it is printed.

    Attributes:
        address: of the instruction; 0 for a gap between two pieces.
        offset: bytes into its function.
        text: mnemonic and operands, branch targets by name.
        row: what the row in force claims, empty where none speaks of it or it says what the line above says.
        verdict: "proven", "refuted", "unproven", "no_metadata" or empty.
        mark: ">" the instruction of the finding, "e" the one that leads there, else empty.
    """

    address: int
    offset: int
    text: str
    row: str
    verdict: str
    mark: str


class Disassembly:
    """Prints code of one image."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject

    @cached_property
    def _engine(self) -> Any:
        import capstone

        return capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)

    @cached_property
    def _bounds(self) -> tuple[list[int], list[int]]:
        """Starts and ends of the code ranges."""
        return self._subject.ranges.start.tolist(), self._subject.ranges.end.tolist()

    def _range_at(self, addr: int) -> int:
        """Give the code range that contains an address, -1 for none; as `Subject.range_at`, one at a time."""
        row = bisect_right(self._bounds[0], addr) - 1
        return row if row >= 0 and addr < self._bounds[1][row] else -1

    def function_at(self, addr: int) -> int:
        """Give where the function begins that contains an address; the address itself outside of all."""
        row = self._range_at(addr)
        ranges = self._subject.ranges
        return addr if row < 0 else int(self._subject.image.functions.addr[ranges.function[row]])

    def around(self, finding: Finding) -> tuple[CodeLine, ...]:
        """Give the lines around a finding, and around the instruction that leads to it if that is elsewhere."""
        where, edge = finding.address, finding.edge
        if not where:
            return ()
        if not edge:
            return self._piece(where - 4 * _BEFORE, where + 4 * _BEHIND, where, 0)
        low, high = min(where, edge), max(where, edge)
        if high - low <= 4 * _NEAR:
            return self._piece(low - 4 * _BEFORE, high + 4 * _BEHIND, where, edge)
        first = self._piece(low - 4 * _BEFORE, low + 4, where, edge)
        gap = (CodeLine(0, 0, "", "", "", ""),)
        return first + gap + self._piece(high - 4, high + 4 * _BEHIND, where, edge)

    def _piece(self, low: int, high: int, where: int, edge: int) -> tuple[CodeLine, ...]:
        """Give the lines of [low, high), cut at the function's ends."""
        subject = self._subject
        row = self._range_at(where)
        start = where if row < 0 else self._bounds[0][row]
        if row >= 0:
            end = self._bounds[1][row]
            if start <= low < end or start <= high <= end:
                low, high = max(low, start), min(high, end)
        addrs = np.arange(max(low, 0), high, 4, dtype=np.uint64)
        index = subject.map.index(addrs)
        claims = self._claims(addrs)
        lines, above = [], ""
        for addr, at, claim in zip(addrs.tolist(), index.tolist(), claims, strict=True):
            if at < 0:
                continue
            word, cover = int(subject.map.words[at]), int(subject.map.cover[at])
            mark = ">" if addr == where else "e" if addr == edge else ""
            text = self._text(addr, word, branch_goal(addr, word))
            lines.append(CodeLine(addr, addr - start, text, "" if claim == above else claim, _VERDICTS[cover], mark))
            above = claim
        return tuple(lines)

    def _claims(self, addrs: np.ndarray[Any, np.dtype[np.uint64]]) -> list[str]:
        """Say what the row at each address claims."""
        if self._subject.proof is None or not len(self._subject.proof.rules):
            return [""] * addrs.size
        rules: RuleTable = self._subject.proof.rules
        # As RuleTable.lookup, which works the ends of all functions out: too much for a few addresses at a time.
        rows = np.maximum(np.searchsorted(rules.start, addrs, side="right") - 1, 0)
        func = rules.func[rows]
        ends = rules.functions.start[func] + rules.functions.size[func]
        rows = np.where((rules.start[rows] <= addrs) & (addrs < ends), rows, -1)
        return [row_words(rules, row) if row >= 0 else "" for row in rows.tolist()]

    def _text(self, addr: int, word: int, target: int) -> str:
        """Print one instruction; branches name where they go."""
        for _, _, mnemonic, operands in self._engine.disasm_lite(word.to_bytes(4, "little"), addr):
            if target and (mnemonic in _BRANCH or mnemonic.startswith("b.")):
                head, _, _ = operands.rpartition("#")
                return f"{mnemonic} {head}{self._goal(addr, target)}"
            return f"{mnemonic} {operands}".rstrip()
        return f".word {word:#010x}"

    def _goal(self, addr: int, target: int) -> str:
        """Name a branch target: +0x40 inside the function, else symbol or symbol+offset."""
        subject = self._subject
        if target in subject.outside:
            return subject.outside[target]
        row = self._range_at(target)
        if row < 0:
            return f"{target:#x}"
        start = self._bounds[0][row]
        if self._range_at(addr) == row:
            return f"+{target - start:#x}"
        name = subject.ranges.names[row]
        return name if target == start else f"{name}+{target - start:#x}"
