"""Layer 4: proving an image: the fast path over everything, the exact analysis where that is not enough."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Addr, Insn, Mask, Row
from surefoot.dtypes import Code as CodeArray
from surefoot.metadata.rules import RuleTable
from surefoot.proof.domain import Code, Domain, Part
from surefoot.proof.edges import Edges, check_edges
from surefoot.proof.exact import Exact, analyse
from surefoot.proof.machine import Fit
from surefoot.proof.noreturn import find_noreturn
from surefoot.proof.verdicts import Verdict

__all__ = ["Open", "Proof", "prove", "summarise"]

_CHUNK: Final = 1 << 17
"""Instructions per piece of the fast path: its arrays fit the caches."""


class Open(IntEnum):
    """Why an instruction is not proved; 0 where it is."""

    NONE = 0
    CONTRADICTED = 1
    """The row says something that is not so (REFUTED)."""
    NOT_KNOWN = 2
    """What the row says depends on something that the analysis does not know: paths that differ, an instruction it
    does not follow."""
    NOT_REACHED = 3
    """No path from the function's entry leads here."""
    INDIRECT_JUMP = 4
    """The function has an indirect jump whose targets are not known."""
    UNUSABLE = 5
    """The rows were not decoded to their end, or the code is not at hand."""


@dataclass(frozen=True, slots=True)
class Proof:
    """Verdicts on every instruction under rules; n instructions, f functions. Implements `Proofs`.

    Attributes:
        rules: the table that was proved.
        row_first: (r + 1,) int64, index of the first instruction of each row.
        first: (f + 1,) int64, index of the first instruction of each function.
        verdicts: (n,) uint8, `Verdict`.
        open: (n,) uint8, `Open`.
        noreturn: (f,) bool, functions that never return.
        slow: (f,) bool, functions that needed the exact analysis.
        exits: (x,) uint64, instructions that leave their function in a state that is not that of its entry.
        edge_from: (e,) uint64, proved instructions from which a path runs into a refuted row, and
        edge_to: (e,) uint64, the address of that row's instruction.
    """

    rules: RuleTable
    row_first: Row
    first: Row
    verdicts: CodeArray
    open: CodeArray
    noreturn: Mask
    slow: Mask
    exits: Addr
    edge_from: Addr
    edge_to: Addr

    def index(self, addr: Addr) -> Row:
        """Give the instruction index of each address, -1 where no rule speaks of it."""
        row = self.rules.lookup(addr, np.zeros(addr.shape, dtype=np.bool_))
        safe = np.maximum(row, 0)
        at = self.row_first[safe] + ((addr - self.rules.start[safe]) >> np.uint64(2)).astype(np.int64)
        return np.where(row >= 0, at, np.int64(-1))

    def verdict(self, addr: Addr) -> CodeArray:
        """Give the verdict at each instruction address: (n,) uint8, `Verdict`."""
        at = self.index(addr)
        return np.where(at >= 0, self.verdicts[np.maximum(at, 0)], np.uint8(Verdict.NO_METADATA)).astype(np.uint8)

    def by_function(self) -> CodeArray:
        """(f,) uint8: REFUTED if any instruction is, else UNPROVEN if any is, else PROVEN."""
        result = np.full(self.slow.size, Verdict.PROVEN, dtype=np.uint8)
        func = np.repeat(np.arange(self.slow.size), np.diff(self.first))
        result[func[self.verdicts == Verdict.UNPROVEN]] = Verdict.UNPROVEN
        result[func[self.verdicts == Verdict.REFUTED]] = Verdict.REFUTED
        return result


def prove(rules: RuleTable, ranges: list[tuple[int, Insn]], code: Code | None = None) -> Proof:
    """Prove or refute the rule row at every instruction.

    Args:
        rules: a table from `RuleTable.for_lookup`, ABI defaults applied.
        ranges: (address, words) of executable code.
        code: exception table, jump labels and stops of the image.

    Returns:
        the verdicts.
    """
    code = code or Code()
    domain = Domain.of(rules, ranges)
    noreturn = find_noreturn(domain, code.stops)
    count = domain.usable.size
    edges = Edges(~domain.usable)
    low = 0
    while low < count:
        high = int(np.searchsorted(domain.first, domain.first[low] + _CHUNK, side="right")) - 1
        high = min(max(low + 1, high), count)
        check_edges(domain, low, high, code, noreturn, edges)
        low = high
    verdicts = np.full(len(domain), Verdict.PROVEN, dtype=np.uint8)
    why = np.zeros(len(domain), dtype=np.uint8)
    _mark_unusable(domain, verdicts, why)
    slow = np.flatnonzero(edges.failed & domain.usable)
    nothing = np.zeros(0, dtype=np.uint64)
    exits = edge_from = edge_to = nothing
    if slow.size:
        part = domain.gather(slow)
        foreign = np.unique(np.concatenate(edges.foreign)) if edges.foreign else nothing
        exact = analyse(part, code, noreturn, foreign)
        _settle(part, exact, verdicts, why)
        exits = part.addr[exact.exits]
        edge_from, edge_to = _breaking(part, exact)
    return Proof(
        rules, domain.row_first, domain.first, verdicts, why, noreturn, edges.failed, exits, edge_from, edge_to
    )


def _mark_unusable(domain: Domain, verdicts: CodeArray, why: CodeArray) -> None:
    """Leave functions whose rows or words are not all there unproven."""
    func = np.repeat(np.arange(domain.usable.size), np.diff(domain.first))
    lost = ~domain.usable[func]
    verdicts[lost] = Verdict.UNPROVEN
    why[lost] = Open.UNUSABLE


def _settle(part: Part, exact: Exact, verdicts: CodeArray, why: CodeArray) -> None:
    """Turn exact states into verdicts."""
    at = part.at if part.at is not None else np.arange(part.base, part.base + len(part), dtype=np.int64)
    reason = np.zeros(len(part), dtype=np.uint8)
    reason[exact.fit == Fit.NO] = Open.CONTRADICTED
    reason[exact.fit == Fit.OPEN] = Open.NOT_KNOWN
    reason[~exact.reached] = Open.NOT_REACHED
    loose = np.unique(part.func[exact.unresolved])
    reason[np.isin(part.func, loose)] = Open.INDIRECT_JUMP
    verdict = np.full(len(part), Verdict.UNPROVEN, dtype=np.uint8)
    verdict[reason == Open.NONE] = Verdict.PROVEN
    verdict[reason == Open.CONTRADICTED] = Verdict.REFUTED
    verdicts[at] = verdict
    why[at] = reason


def _breaking(part: Part, exact: Exact) -> tuple[Addr, Addr]:
    """Give the edges that lead from a row that holds to one that does not."""
    good = exact.reached & (exact.fit == Fit.YES)
    bad = exact.reached & (exact.fit == Fit.NO)
    broken = good[exact.edge_from] & bad[exact.edge_to]
    return part.addr[exact.edge_from[broken]], part.addr[exact.edge_to[broken]]


def summarise(verdicts: CodeArray) -> NDArray[np.int64]:
    """(4,) int64, how many instructions have each `Verdict`."""
    return np.bincount(verdicts, minlength=len(Verdict)).astype(np.int64)
