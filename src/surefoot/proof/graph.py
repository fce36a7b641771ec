"""Layer 4: the functions under exact analysis as one graph: what may happen at each instruction, and what follows.

An act is something that may happen at an instruction: the instruction itself, a variant that the kernel puts in its
place, a fault. An edge leads from an instruction, by an act, to another instruction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from surefoot.dtypes import Addr, Insn, Mask, Row
from surefoot.dtypes import Code as Codes
from surefoot.isa.branches import branch_target
from surefoot.isa.effects import Effects, Flow
from surefoot.proof.domain import Code, Domain
from surefoot.proof.entries import Entries
from surefoot.proof.faults import fault_effects
from surefoot.proof.survey import Survey, classify, join_effects

__all__ = ["Graph", "Tables", "build_graph", "with_tables"]


@dataclass(frozen=True)
class Tables:
    """Indirect jumps whose targets are known: (t,) int64 instructions of the domain and (t,) uint64 a target each.

    Attributes:
        site: ascending; a jump with several targets is there several times.
        target: addresses.
    """

    site: Row
    target: Addr


@dataclass(frozen=True)
class Graph:
    """Some functions; m instructions, c acts, e edges.

    Attributes:
        domain: where they come from.
        at: (m,) int64, index in the domain, ascending.
        words: (m,) uint32.
        func: (m,) int64.
        effects: of the acts; the first m are those of the instructions.
        source: (e,) int64, instruction (index in `at`), ascending.
        act: (e,) int64.
        target: (e,) int64, index in `at`.
        lost: (e,) bool, after the act nothing is known.
        out_source: (o,) int64, ways out of the functions other than returns and indirect jumps, and
        out_act: (o,) int64, and
        out_to: (o,) int64, the function that starts there, -1 for none.
        stray: (y,) int64, instructions from which control may go where no instruction is.
    """

    domain: Domain
    at: Row
    words: Insn
    func: Row
    effects: Effects
    source: Row
    act: Row
    target: Row
    lost: Mask
    out_source: Row
    out_act: Row
    out_to: Row
    stray: Row

    def __len__(self) -> int:
        return int(self.at.size)

    @property
    def flow(self) -> Codes:
        """(m,) uint8, `Flow` of the instructions."""
        return self.effects.flow[: self.at.size]

    @property
    def row(self) -> Row:
        """(m,) int64, rule row of each instruction."""
        return self.domain.row[self.at].astype(np.int64)

    def place(self, at: Row) -> Row:
        """Give the index in `at` of instructions of the domain, -1 for those of other functions."""
        if not self.at.size:
            return np.full(at.shape, -1, dtype=np.int64)
        found = np.minimum(np.searchsorted(self.at, at), self.at.size - 1).astype(np.int64)
        return np.where(self.at[found] == at, found, np.int64(-1))


@dataclass
class _Build:
    """Edges while they are collected."""

    source: list[Row]
    act: list[Row]
    target: list[Row]
    lost: list[Mask]
    out_source: list[Row]
    out_act: list[Row]
    out_to: list[Row]
    stray: list[Row]

    def leave(self, source: Row, act: Row, to: Row) -> None:
        """Add ways out of a function."""
        self.out_source.append(source)
        self.out_act.append(act)
        self.out_to.append(to)

    def through(self, source: Row, act: Row, lost: Mask | None = None) -> None:
        """Add edges to the instructions behind."""
        self.source.append(source)
        self.act.append(act)
        self.target.append(source + 1)
        self.lost.append(np.zeros(source.size, dtype=np.bool_) if lost is None else lost)

    def jump(self, graph: Graph, fragment: Mask, source: Row, act: Row, target: Addr, *, link: bool = False) -> None:
        """Add edges to addresses: inside the graph, or out of it; a call (`link`) of a start is neither."""
        domain = graph.domain
        goal = domain.find(target)
        safe = np.maximum(goal, 0)
        func = domain.func(safe)
        own = func == graph.func[source]
        start = domain.is_start(goal)
        inner = (goal >= 0) & own if link else (goal >= 0) & (own | ~start | fragment[func])
        inner &= ~(start & link)
        to = graph.place(safe)
        here = inner & (to >= 0)
        self.source.append(source[here])
        self.act.append(act[here])
        self.target.append(to[here])
        self.lost.append(np.zeros(int(here.sum()), dtype=np.bool_))
        if not link:
            self.leave(source[~inner], act[~inner], np.where(start, func, np.int64(-1))[~inner])
            row = domain.rules.lookup(target, np.zeros(target.shape, dtype=np.bool_))
            self.stray.append(source[((goal < 0) & (row >= 0)) | (inner & (to < 0))])


def build_graph(
    domain: Domain, found: Survey, entries: Entries, code: Code, on: Mask, funcs: Row, unfaithful: Mask
) -> Graph:
    """Collect what may happen in some functions.

    Args:
        domain: the instructions.
        found: of the domain.
        entries: of the domain.
        code: exception table.
        on: (n,) bool, control may reach the instruction behind.
        funcs: functions, ascending, with all that hang together with them (`with_relatives`).
        unfaithful: (f,) bool, functions that return in another state than they were called in.
    """
    counts = np.diff(domain.first)[funcs]
    run = np.cumsum(counts) - counts
    at = np.repeat(domain.first[funcs] - run, counts) + np.arange(int(counts.sum()), dtype=np.int64)
    words, func = domain.words[at], np.repeat(funcs, counts)
    none = np.zeros(0, dtype=np.int64)
    graph = Graph(
        domain, at, words, func, classify(words), none, none, none, none.astype(np.bool_), none, none, none, none
    )
    build = _Build([], [], [], [], [], [], [], [])
    last = np.append(func[1:] != func[:-1], True) if func.size else func.astype(np.bool_)
    _own_edges(graph, build, entries.fragment, on[at], last, unfaithful)
    acts = [graph.effects]
    acts.append(_variant_edges(graph, build, entries.fragment, found, last, sum(map(len, acts))))
    acts.append(_fault_edges(graph, build, entries.fragment, code, sum(map(len, acts))))
    source = np.concatenate(build.source)
    order = np.argsort(source, kind="stable")
    return replace(
        graph,
        effects=join_effects(acts),
        source=source[order],
        act=np.concatenate(build.act)[order],
        target=np.concatenate(build.target)[order],
        lost=np.concatenate(build.lost)[order],
        out_source=np.concatenate(build.out_source),
        out_act=np.concatenate(build.out_act),
        out_to=np.concatenate(build.out_to),
        stray=np.unique(np.concatenate(build.stray)),
    )


def _own_edges(graph: Graph, build: _Build, fragment: Mask, on: Mask, last: Mask, unfaithful: Mask) -> None:
    """Edges of the instructions themselves."""
    flow = graph.flow
    addr = graph.domain.addr(graph.at)
    calls = np.flatnonzero(flow == Flow.CALL)
    target = branch_target(graph.words[calls], addr[calls])
    goal = graph.domain.find(target)
    func = graph.domain.func(np.maximum(goal, 0))
    start = graph.domain.is_start(goal)
    lost = np.zeros(len(graph), dtype=np.bool_)
    lost[calls[start & unfaithful[func]]] = True
    # A BL into the function's own body: the code there is none that was called, so nothing is known of its return.
    local = (goal >= 0) & ~start & (func == graph.func[calls])
    lost[calls[local]] = True
    skipped = np.zeros(len(graph), dtype=np.bool_)
    skipped[calls[local & (target == addr[calls] + np.uint64(4))]] = True
    through = np.flatnonzero(on & ~last & ~skipped)
    build.through(through, through, lost[through])
    jumps = np.flatnonzero((flow == Flow.JUMP) | (flow == Flow.COND))
    build.jump(graph, fragment, jumps, jumps, branch_target(graph.words[jumps], addr[jumps]))
    build.jump(graph, fragment, calls[local], calls[local], target[local], link=True)
    call = (flow == Flow.CALL) | (flow == Flow.CALL_REG)
    falls = np.flatnonzero(on & last & ~call)
    build.leave(falls, falls, np.full(falls.size, -1, dtype=np.int64))


def _variant_edges(graph: Graph, build: _Build, fragment: Mask, found: Survey, last: Mask, base: int) -> Effects:
    """Edges of the words that the kernel may put in the place of others."""
    place = graph.place(found.sites)
    which = np.flatnonzero(place >= 0)
    source, does = place[which], found.variants.take(which)
    act = base + np.arange(which.size, dtype=np.int64)
    on = found.variant_on[which]
    through = on & ~last[source]
    build.through(source[through], act[through])
    jump = (does.flow == Flow.JUMP) | (does.flow == Flow.COND)
    build.jump(graph, fragment, source[jump], act[jump], found.variant_to[which][jump])
    falls = on & last[source]
    build.leave(source[falls], act[falls], np.full(int(falls.sum()), -1, dtype=np.int64))
    inner = graph.domain.find(found.variant_to[which])
    strange = np.isin(does.flow, (Flow.RETURN, Flow.JUMP_REG, Flow.UNDEFINED, Flow.ERET))
    strange |= (does.flow == Flow.CALL) & (inner >= 0) & ~graph.domain.is_start(inner)
    build.stray.append(source[strange])
    return does


def _fault_edges(graph: Graph, build: _Build, fragment: Mask, code: Code, base: int) -> Effects:
    """Edges of faults."""
    at = graph.domain.find(code.faults)
    place = np.where(at >= 0, graph.place(np.maximum(at, 0)), np.int64(-1))
    which = np.flatnonzero(place >= 0)
    act = base + np.arange(which.size, dtype=np.int64)
    build.jump(graph, fragment, place[which], act, code.fixups[which])
    return fault_effects(code, which)


def with_tables(graph: Graph, fragment: Mask, tables: Tables) -> Graph:
    """Give the graph with the edges of indirect jumps whose targets are known."""
    build = _Build([graph.source], [graph.act], [graph.target], [graph.lost], [], [], [], [graph.stray])
    build.leave(graph.out_source, graph.out_act, graph.out_to)
    source = graph.place(tables.site)
    good = source >= 0
    build.jump(graph, fragment, source[good], source[good], tables.target[good])
    joined = np.concatenate(build.source)
    order = np.argsort(joined, kind="stable")
    return replace(
        graph,
        source=joined[order],
        act=np.concatenate(build.act)[order],
        target=np.concatenate(build.target)[order],
        lost=np.concatenate(build.lost)[order],
        out_source=np.concatenate(build.out_source),
        out_act=np.concatenate(build.out_act),
        out_to=np.concatenate(build.out_to),
        stray=np.unique(np.concatenate(build.stray)),
    )
