"""Layer 4: proving an image: the fast path over everything, the exact analysis where that is not enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Addr, Insn, Mask, Row
from surefoot.dtypes import Code as CodeArray
from surefoot.isa.effects import Flow
from surefoot.metadata.rules import RuleTable
from surefoot.proof.domain import Code, Domain
from surefoot.proof.edges import check_edges
from surefoot.proof.entries import Entries, find_entries, with_relatives
from surefoot.proof.exact import Exact, analyse
from surefoot.proof.graph import Graph, Tables, build_graph, with_tables
from surefoot.proof.jumps import resolve_jumps
from surefoot.proof.machine import Fit, State
from surefoot.proof.noreturn import find_noreturn, without_return
from surefoot.proof.reach import unreached
from surefoot.proof.survey import Survey, survey
from surefoot.proof.verdicts import Verdict

__all__ = ["Open", "Outline", "Proof", "prove", "prove_all", "prove_chosen", "summarise"]


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
        rules: the table that was proved, without rows behind the ends of their functions.
        row_first: (r + 1,) int64, index of the first instruction of each row.
        first: (f + 1,) int64, index of the first instruction of each function.
        verdicts: (n,) uint8, `Verdict`.
        open: (n,) uint8, `Open`.
        noreturn: (f,) bool, functions that never return.
        slow: (f,) bool, functions that needed the exact analysis.
        exits: (x,) uint64, ascending, instructions that leave their function in a state that is not surely that of
            its entry, and those that the linker moved into stubs (which are proved as if they were still there).
        edge_from: (e,) uint64, proved instructions from which a path runs into a refuted row, and
        edge_to: (e,) uint64, the address of that row's instruction.
        state_at: (s,) int64, ascending, instructions that are reached and not proved, and
        states: (s) what is known before each.
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
    state_at: Row
    states: State

    def index(self, addr: Addr) -> Row:
        """Give the instruction index of each address, -1 where no rule speaks of it, or in mid-instruction."""
        row = self.rules.lookup(addr, np.zeros(addr.shape, dtype=np.bool_))
        if not self.verdicts.size:
            return np.full(addr.shape, -1, dtype=np.int64)
        safe = np.maximum(row, 0)
        off = addr - self.rules.start[safe]
        at = self.row_first[safe] + (off >> np.uint64(2)).astype(np.int64)
        good = (row >= 0) & (off & np.uint64(3) == 0) & (at < self.row_first[safe + 1])
        return np.where(good, at, np.int64(-1))

    def verdict(self, addr: Addr) -> CodeArray:
        """Give the verdict at each instruction address: (n,) uint8, `Verdict`."""
        at = self.index(addr)
        found = np.full(addr.shape, Verdict.NO_METADATA, dtype=np.uint8)
        found[at >= 0] = self.verdicts[at[at >= 0]]
        return found

    def by_function(self) -> CodeArray:
        """(f,) uint8: REFUTED if any instruction is, else UNPROVEN if any is, else PROVEN."""
        result = np.full(self.slow.size, Verdict.PROVEN, dtype=np.uint8)
        func = np.repeat(np.arange(self.slow.size), np.diff(self.first))
        result[func[self.verdicts == Verdict.UNPROVEN]] = Verdict.UNPROVEN
        result[func[self.verdicts == Verdict.REFUTED]] = Verdict.REFUTED
        return result


@dataclass(frozen=True)
class Outline:
    """What proofs of single functions need to know of the whole image.

    Attributes:
        domain: every instruction under rules.
        code: how the image's code runs differently from what its words say.
        found: of the domain.
        noreturn: (f,) bool, functions that never return.
        on: (n,) bool, control may reach the instruction behind.
        entries: ways into functions.
    """

    domain: Domain
    code: Code
    found: Survey
    noreturn: Mask
    on: Mask
    entries: Entries

    @classmethod
    def of(
        cls, rules: RuleTable, ranges: Sequence[tuple[int, Insn]], code: Code | None = None, *, acts: bool = True
    ) -> Outline:
        """Look at every instruction once; the arguments are those of `prove` and of `survey`."""
        code = code or Code()
        domain = Domain.of(rules, ranges)
        found = survey(domain, code, acts=acts)
        noreturn = find_noreturn(domain, found, code)
        on = without_return(domain, found, noreturn)
        return cls(domain, code, found, noreturn, on, find_entries(domain, found, code, ranges))


def prove(rules: RuleTable, ranges: Sequence[tuple[int, Insn]], code: Code | None = None) -> Proof:
    """Prove or refute the rule row at every instruction.

    Args:
        rules: a table from `RuleTable.for_lookup`, ABI defaults applied.
        ranges: (address, words) of all executable code, that without rules included.
        code: how the image's code runs differently from what its words say (`surefoot.proof.inputs.code_of`).

    Returns:
        the verdicts.
    """
    return prove_all(Outline.of(rules, ranges, code))


def prove_all(outline: Outline) -> Proof:
    """Prove or refute the rule row at every instruction of an image that was looked at before."""
    domain, found, entries, on = outline.domain, outline.found, outline.entries, outline.on
    failed = check_edges(domain, found, entries, outline.code, on)
    failed[domain.func(unreached(domain, found, entries, outline.code, on))] = True
    return prove_chosen(outline, with_relatives(failed, entries.ties))


def prove_chosen(outline: Outline, slow: Mask) -> Proof:
    """Analyse some functions exactly; all others count as proved.

    Args:
        outline: of the image.
        slow: (f,) bool, functions to analyse, with all that hang together with them.
    """
    domain = outline.domain
    verdicts = np.full(len(domain), Verdict.PROVEN, dtype=np.uint8)
    why = np.zeros(len(domain), dtype=np.uint8)
    lost = np.repeat(~domain.usable, np.diff(domain.first))
    verdicts[lost], why[lost] = Verdict.UNPROVEN, Open.UNUSABLE
    slow, graph, exact = _close(outline, slow)
    _settle(graph, exact, outline.entries, verdicts, why)
    good, bad = exact.reached & (exact.fit == Fit.YES), exact.reached & (exact.fit == Fit.NO)
    broken = good[graph.source] & bad[graph.target]
    known = np.flatnonzero(exact.reached & (verdicts[graph.at] != Verdict.PROVEN))
    return Proof(
        rules=domain.rules,
        row_first=domain.row_first,
        first=domain.first,
        verdicts=verdicts,
        open=why,
        noreturn=outline.noreturn,
        slow=slow,
        exits=domain.addr(np.unique(np.concatenate([graph.at[exact.exits], domain.moved]))),
        edge_from=domain.addr(graph.at[graph.source[broken]]),
        edge_to=domain.addr(graph.at[graph.target[broken]]),
        state_at=graph.at[known],
        states=exact.state.take(known),
    )


def _close(outline: Outline, slow: Mask) -> tuple[Mask, Graph, Exact]:
    """Analyse functions, with more of them as what is found about some concerns others, until nothing changes."""
    domain, found, entries, code, on = (
        outline.domain,
        outline.found,
        outline.entries,
        outline.code,
        outline.on,
    )
    unfaithful = np.zeros(slow.shape, dtype=np.bool_)
    while True:  # each round adds a function to `slow` or to `unfaithful`, so this ends
        tables, tail, more = _jumps(outline, unfaithful, slow)
        slow = with_relatives(slow | more, entries.ties)
        graph = build_graph(domain, found, entries, code, on, np.flatnonzero(slow & domain.usable), unfaithful)
        graph = with_tables(graph, entries.fragment, tables)
        exact = analyse(graph, entries, outline.noreturn, tail, tables)
        broken = unfaithful.copy()
        broken[graph.func[exact.breaks]] = True
        more = with_relatives(slow | _affected(domain, found, broken), entries.ties)
        if not bool(np.any(more != slow)) and not bool(np.any(broken != unfaithful)):
            return slow, graph, exact
        slow, unfaithful = more, broken


def _jumps(outline: Outline, unfaithful: Mask, slow: Mask) -> tuple[Tables, Row, Mask]:
    """Resolve the indirect jumps in `slow`: targets, those that may be tail calls, and the functions they concern."""
    domain, found, entries = outline.domain, outline.found, outline.entries
    chosen = np.zeros(domain.usable.size, dtype=np.bool_)
    chosen[domain.func(found.leaves[found.flow[found.leaves] == Flow.JUMP_REG])] = True
    chosen &= slow
    while True:  # each round adds a function
        chosen = with_relatives(chosen, entries.ties)
        which = np.flatnonzero(chosen & domain.usable)
        graph = build_graph(domain, found, entries, outline.code, outline.on, which, unfaithful)
        tables, tail = resolve_jumps(graph, entries, outline.code)
        goal = domain.find(tables.target)
        func = domain.func(np.maximum(goal, 0))
        more = chosen.copy()
        more[func[(goal >= 0) & (~domain.is_start(goal) | entries.fragment[func])]] = True
        if bool(np.all(more == chosen)):
            return tables, graph.at[tail], chosen
        chosen = more


def _affected(domain: Domain, found: Survey, broken: Mask) -> Mask:
    """Add to `broken` the functions that end in one of them, and give those that call one: (f,) bool."""
    if not bool(np.any(broken)):
        return broken.copy()
    goal = found.jump_at
    ends = domain.is_start(goal) & (domain.func(np.maximum(goal, 0)) != domain.func(found.jumps))
    source, target = domain.func(found.jumps[ends]), domain.func(goal[ends])
    while True:  # each round adds a function
        more = source[broken[target] & ~broken[source]]
        if not more.size:
            break
        broken[more] = True
    goal = found.call_at
    start = domain.is_start(goal)
    callers = np.zeros(broken.shape, dtype=np.bool_)
    called = start & broken[domain.func(np.maximum(goal, 0))]
    callers[domain.func(found.calls[called])] = True
    return callers


def _settle(graph: Graph, exact: Exact, entries: Entries, verdicts: CodeArray, why: CodeArray) -> None:
    """Turn exact states into verdicts."""
    reason = np.zeros(len(graph), dtype=np.uint8)
    reason[exact.fit == Fit.NO] = Open.CONTRADICTED
    reason[exact.fit == Fit.OPEN] = Open.NOT_KNOWN
    reason[~exact.reached] = Open.NOT_REACHED
    loose = np.zeros(graph.domain.usable.size, dtype=np.bool_)
    loose[graph.func[exact.loose]] = True
    reason[with_relatives(loose, entries.ties)[graph.func]] = Open.INDIRECT_JUMP
    verdict = np.full(len(graph), Verdict.UNPROVEN, dtype=np.uint8)
    verdict[reason == Open.NONE] = Verdict.PROVEN
    verdict[reason == Open.CONTRADICTED] = Verdict.REFUTED
    verdicts[graph.at] = verdict
    why[graph.at] = reason


def summarise(verdicts: CodeArray) -> NDArray[np.int64]:
    """(4,) int64, how many instructions have each `Verdict`."""
    return np.bincount(verdicts, minlength=len(Verdict)).astype(np.int64)
