"""Layer 4: backward searches through a graph: where a register's value comes from, and how large it can be.

Invariant: an answer holds on every path of the graph from its entries to the instruction that was asked about.
Unknown is None; code that no path reaches gives an empty answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from surefoot.isa.effects import Flow
from surefoot.proof.entries import Entries
from surefoot.proof.graph import Graph
from surefoot.proof.words import (
    address_part,
    condition_bound,
    copied_word,
    keeps_flags,
    largest,
    selected,
    writes_word,
)

__all__ = ["Slices"]

_MAX_VISITS: Final = 20_000
_MAX_DEPTH: Final = 8
_MAX_CONSTANTS: Final = 8
_CLOBBERED: Final = 0x4007_FFFF
"""x0 to x18 and x30: what a callee may change (AAPCS64, 6.1.1)."""
_CALLS: Final = (Flow.CALL, Flow.CALL_REG, Flow.EXCEPTION)
_ALL_64: Final = (1 << 64) - 1


@dataclass
class Slices:
    """Answers about one graph; instructions are indices in `Graph.at`."""

    graph: Graph
    entries: Entries
    _known: dict[tuple[int, int], frozenset[int] | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        graph = self.graph
        order = np.argsort(graph.target, kind="stable")
        first = np.searchsorted(graph.target[order], np.arange(len(graph) + 1))
        entered = np.zeros(len(graph), dtype=np.bool_)
        for at in (self.entries.called, self.entries.blind):
            place = graph.place(at)
            entered[place[place >= 0]] = True
        entered[graph.target[graph.lost]] = True
        edges = list(zip(graph.source[order].tolist(), graph.act[order].tolist(), strict=True))
        bounds = first.tolist()
        self._edges = [
            None if known else edges[low:high]
            for known, low, high in zip(entered.tolist(), bounds[:-1], bounds[1:], strict=True)
        ]
        self._flow = graph.effects.flow.tolist()
        calls = np.isin(graph.effects.flow, _CALLS)
        self._writes = (graph.effects.writes | np.where(calls, _CLOBBERED, 0).astype(np.uint32)).tolist()
        self._words = graph.words.tolist()

    def word(self, at: int) -> int:
        """Give the word of an instruction."""
        return int(self._words[at])

    def _before(self, at: int) -> list[tuple[int, int]] | None:
        """Give (instruction, act) of each edge that leads to an instruction; None where it is also entered."""
        return self._edges[at]

    def _changes(self, act: int, register: int) -> bool:
        """Whether an act may change a register."""
        return bool(self._writes[act] >> register & 1)

    def only_before(self, at: int) -> int | None:
        """Give the one instruction from which control comes here, by no fault or variant; None if there are more."""
        edges = self._before(at)
        if edges is None or len(edges) != 1 or edges[0][0] != edges[0][1]:
            return None
        return edges[0][0]

    def definition(self, at: int, register: int) -> int | None:
        """Give the one instruction that last wrote a register, on a path without joins; None if that is not known."""
        for _ in range(_MAX_VISITS):
            before = self.only_before(at)
            if before is None:
                return None
            if self._changes(before, register):
                return before if self._flow[before] == Flow.NEXT else None
            at = before
        return None

    def definitions(self, at: int, register: int) -> set[int] | None:
        """Give all instructions that may have written a register last; None if some are not known."""
        found, seen, work = set[int](), {at}, [at]
        while work:
            edges = self._before(work.pop())
            if edges is None or len(seen) > _MAX_VISITS:
                return None
            for source, act in edges:
                if self._changes(act, register):
                    if act != source or self._flow[act] != Flow.NEXT:
                        return None
                    found.add(source)
                elif source not in seen:
                    seen.add(source)
                    work.append(source)
        return found

    def constants(self, at: int, register: int, depth: int = 0) -> frozenset[int] | None:
        """Give all addresses that a register may hold before an instruction; None if some are not known."""
        if depth > _MAX_DEPTH or register >= 31:
            return None
        if (at, register) not in self._known:
            answer = self._constants(at, register, depth)
            if answer is not None or not depth:  # a search that was cut short by its depth is no answer
                self._known[at, register] = answer
            return answer
        return self._known[at, register]

    def _constants(self, at: int, register: int, depth: int) -> frozenset[int] | None:
        """Search for `constants`."""
        found, seen, work = set[int](), {at}, [at]
        while work:
            place = work.pop()
            if (place, register) in self._known:
                known = self._known[place, register]
                if known is None:
                    return None
                found |= known
                continue
            edges = self._before(place)
            if edges is None or len(seen) > _MAX_VISITS:
                return None
            for source, act in edges:
                if self._changes(act, register):
                    made = self._made(source, act, depth)
                    if made is None:
                        return None
                    found |= made
                elif source not in seen:
                    seen.add(source)
                    work.append(source)
        if len(found) > _MAX_CONSTANTS:
            return None
        answer = frozenset(found)
        if len(answer) == 1:  # every place on the way holds this, or nothing leads there
            self._known.update({(place, register): answer for place in seen})
        return answer

    def _made(self, source: int, act: int, depth: int) -> frozenset[int] | None:
        """Give the addresses that an instruction may leave in the register that it writes."""
        if act != source or self._flow[act] != Flow.NEXT:
            return None
        word = self.word(source)
        if pair := selected(word):
            one, two = (self.constants(source, register, depth + 1) for register in pair)
            return None if one is None or two is None else one | two
        part = address_part(word, int(self.graph.domain.addr(self.graph.at[source : source + 1])[0]))
        if part is None:
            return None
        kind, register, number = part
        if kind == 0:
            return frozenset({number})
        base = self.constants(source, register, depth + 1)
        return None if base is None else frozenset((value + number) & _ALL_64 for value in base)

    def bound(self, at: int, register: int, *, narrow: bool, depth: int = 0) -> int | None:
        """Give the largest unsigned value of a register before an instruction; None if that is not known.

        Args:
            at: the instruction.
            register: not 31.
            narrow: only the low 32 bits are asked for.
            depth: how many copies were followed.
        """
        if register >= 31 or depth > _MAX_DEPTH:
            return None
        most, seen, work = -1, {at}, [at]
        while work:
            place = work.pop()
            edges = self._before(place)
            if edges is None or len(seen) > _MAX_VISITS:
                return None
            for source, act in edges:
                if self._changes(act, register):
                    limit = self._made_bound(source, act, register, depth)
                    if limit is None:
                        return None
                else:
                    limit = self._guarded(source, act, place, register, narrow=narrow)
                if limit is not None:
                    most = max(most, limit)
                elif source not in seen:
                    seen.add(source)
                    work.append(source)
        return most if most >= 0 else None

    def _made_bound(self, source: int, act: int, register: int, depth: int) -> int | None:
        """Give the largest value that an instruction may leave in a register."""
        if act != source or self._flow[act] != Flow.NEXT:
            return None
        copied = copied_word(self.word(source), register)
        if copied is not None:
            return self.bound(source, copied, narrow=True, depth=depth + 1)
        return largest(self.word(source), register)

    def _guarded(self, source: int, act: int, place: int, register: int, *, narrow: bool) -> int | None:
        """Give the bound that a conditional branch puts on a register on its way to a place."""
        if act != source or self._flow[source] != Flow.COND:
            return None
        compare = self._compare(source)
        if compare is None:
            return None
        if [one for one, _ in self._before(place) or ()].count(source) != 1:
            return None  # both ways lead here
        guard = condition_bound(self.word(compare), self.word(source), taken=place != source + 1)
        if guard is None or guard.register != register:
            return None
        if guard.narrow and not narrow and not self._is_narrow(compare, register):
            return None
        return guard.bound if self._unchanged(compare, source, register) else None

    def _compare(self, branch: int) -> int | None:
        """Give the instruction that set the flags of a branch, on a path without joins."""
        at = branch
        for _ in range(_MAX_VISITS):
            before = self.only_before(at)
            if before is None:
                return None
            if not keeps_flags(self.word(before)):
                return before
            at = before
        return None

    def _unchanged(self, first: int, last: int, register: int) -> bool:
        """Whether no instruction from `first` up to `last`, a path without joins, changes a register."""
        at = last
        while at != first:
            before = self.only_before(at)
            if before is None or self._changes(before, register):
                return False
            at = before
        return True

    def _is_narrow(self, at: int, register: int) -> bool:
        """Whether the upper half of a register is surely zero before an instruction."""
        found = self.definitions(at, register)
        return bool(found) and all(writes_word(self.word(source), register) for source in found or ())
