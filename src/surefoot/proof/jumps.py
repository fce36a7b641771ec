"""Layer 4: where indirect jumps go: switches and computed gotos whose table is read-only and whose index is bounded.

Tables are resolved twice. First without the edges of any table, then with all that were found: only jumps that give
the same answer again count. A jump then goes elsewhere on no path, by induction over the jumps of the run.

Forms (any order of scheduling):

* GCC's switch: `cmp wK, #N; b.hi ...; ldrb|ldrh wI, [T, wK, uxtw (#1)]; adr A; add D, A, wI, sxtb|sxth #2; br D`
* LLVM's: `adr A; ldrb|ldrh wI, [T, xK (, lsl #1)]; add D, A, xI, lsl #2; br D`, and with words relative to the table
  `ldrsw xI, [T, xK, lsl #2]; add D, T, xI; br D`
* computed goto: `ldr D, [T, xK, lsl #3]; br D`
* a choice of addresses: `csel D, X, Y, cond; br D`
"""

from __future__ import annotations

from typing import Final

import numpy as np

from surefoot.dtypes import Mask, Row
from surefoot.isa.effects import Flow
from surefoot.metadata.rules import CfaBase, FpRule, RaRule
from surefoot.proof.domain import Code, ReadOnly
from surefoot.proof.entries import Entries
from surefoot.proof.graph import Graph, Tables, with_tables
from surefoot.proof.slices import Slices
from surefoot.proof.words import IndexedLoad, add_register, computes_address, extend, indexed_load, load_immediate

__all__ = ["resolve_jumps"]

_MAX_ENTRIES: Final = 4096
_ALL_64: Final = (1 << 64) - 1


def resolve_jumps(graph: Graph, entries: Entries, code: Code) -> tuple[Tables, Mask]:
    """Find the targets of indirect jumps.

    Args:
        graph: without edges for indirect jumps.
        entries: ways into functions.
        code: with the read-only data.

    Returns:
        the targets of those that are resolved, all jumps of a function or none; and (m,) bool, jumps that leave the
        function if they are taken in the state of its entry: their target was loaded from memory whose address no
        table computation made, or they may go anywhere (`_anywhere`).
    """
    sites = np.flatnonzero(graph.flow == Flow.JUMP_REG)
    first = Slices(graph, entries)
    tail = np.zeros(len(graph), dtype=np.bool_)
    tail[[site for site in sites.tolist() if _is_tail(first, site)]] = True
    sites = sites[~tail[sites]]
    guesses = _table_of(first, sites)
    found = {site: _targets(first, site, code.data, guesses) for site in sites.tolist()}
    proposed = _settled(graph, found)
    again = Slices(with_tables(graph, entries.fragment, _tables(graph, proposed)), entries)
    for site in proposed:
        if _targets(again, site, code.data, None) != proposed[site]:
            found[site] = None
    settled = _settled(graph, found)
    for site, targets in _anywhere(graph, [site for site in found if site not in settled]).items():
        settled[site], tail[site] = targets, True
    return _tables(graph, settled), tail


def _anywhere(graph: Graph, sites: list[int]) -> dict[int, tuple[int, ...]]:
    """Let jumps go to every instruction of their function, where each row is that of an entry.

    If that state holds at all of these jumps, it holds wherever they go; so rows can be proved without their targets.
    """
    rules = graph.domain.rules
    entry = (rules.cfa_base == CfaBase.SP) & (rules.cfa_off == 0)
    entry &= (rules.fp_rule == FpRule.UNCHANGED) & (rules.ra_rule == RaRule.IN_LR)
    other = np.unique(rules.func[~entry])
    found = {}
    for site in sites:
        func = graph.func[site]
        inside = graph.at[np.searchsorted(graph.func, func) : np.searchsorted(graph.func, func, side="right")]
        if func not in other and inside.size <= _MAX_ENTRIES:
            found[site] = tuple(graph.domain.addr(inside).tolist())
    return found


def _settled(graph: Graph, found: dict[int, tuple[int, ...] | None]) -> dict[int, tuple[int, ...]]:
    """Leave out the jumps of functions that have one without an answer, or with one that is no instruction."""
    bad = {int(graph.func[site]) for site, targets in found.items() if targets is None}
    return {site: targets for site, targets in found.items() if targets and int(graph.func[site]) not in bad}


def _tables(graph: Graph, found: dict[int, tuple[int, ...]]) -> Tables:
    """Give targets as arrays."""
    site = [place for place, targets in sorted(found.items()) for _ in targets]
    target = [addr for _, targets in sorted(found.items()) for addr in targets]
    at: Row = graph.at[np.array(site, dtype=np.int64)]
    return Tables(at, np.array(target, dtype=np.uint64))


def _table_of(slices: Slices, sites: Row) -> dict[tuple[int, int], int]:
    """Guess what registers hold that a function sets once, to the address of a table: by (function, register).

    A guess is tried where no path is known yet that leads to a jump: behind other jumps.
    """
    graph = slices.graph
    guesses: dict[tuple[int, int], set[int]] = {}
    for site in sites.tolist():
        load = _load_at(slices, site)
        if load is None:
            continue
        place, form = load
        values = slices.constants(place, form.base)
        if values:
            guesses.setdefault((int(graph.func[site]), form.base), set()).update(values)
    return {key: values.pop() for key, values in guesses.items() if len(values) == 1}


def _load_at(slices: Slices, site: int) -> tuple[int, IndexedLoad] | None:
    """Give the load from a table that makes the target of a jump, directly or as a summand."""
    place = slices.definition(site, int(slices.graph.effects.target_reg[site]))
    if place is None:
        return None
    if form := indexed_load(slices.word(place)):
        return place, form
    add = add_register(slices.word(place))
    if add is None:
        return None
    place = slices.definition(place, add[1])
    form = indexed_load(slices.word(place)) if place is not None else None
    return (place, form) if place is not None and form else None


def _targets(
    slices: Slices, site: int, data: ReadOnly, guesses: dict[tuple[int, int], int] | None
) -> tuple[int, ...] | None:
    """Give the addresses that a jump may go to, ascending; None if they are not known."""
    register = int(slices.graph.effects.target_reg[site])
    chosen = slices.constants(site, register)
    if chosen:
        return _checked(slices, site, sorted(chosen))
    made = slices.definition(site, register)
    found = _load_at(slices, site)
    if made is None or found is None:
        return None
    place, form = found
    values = _read(slices, site, place, form, data, guesses)
    if values is None:
        return None
    if place == made:
        return _checked(slices, site, sorted(set(values))) if form.size == 8 else None
    add = add_register(slices.word(made))
    if add is None:
        return None
    base = slices.constants(made, add[0])
    if base is not None and not base and guesses is not None:
        guess = guesses.get((int(slices.graph.func[site]), add[0]))
        base = None if guess is None else frozenset({guess})
    if base is None or len(base) != 1:
        return None
    (origin,) = base
    made_of = {(origin + (extend(value, add[2]) << add[3])) & _ALL_64 for value in values}
    return _checked(slices, site, sorted(made_of))


def _read(
    slices: Slices,
    site: int,
    place: int,
    form: IndexedLoad,
    data: ReadOnly,
    guesses: dict[tuple[int, int], int] | None,
) -> list[int] | None:
    """Give what the load from a table may leave in its register."""
    tables = slices.constants(place, form.base)
    if tables is not None and not tables and guesses is not None:
        guess = guesses.get((int(slices.graph.func[site]), form.base))
        tables = None if guess is None else frozenset({guess})
    most = slices.bound(place, form.index, narrow=form.narrow_index)
    if tables is None or len(tables) != 1 or most is None or most >= _MAX_ENTRIES:
        return None
    (table,) = tables
    raw = data.read(table, (most + 1) * form.size)
    if raw is None:
        return None
    kind = np.dtype(f"<{'i' if form.signed else 'u'}{form.size}")
    mask = (1 << 32) - 1 if form.to_word else _ALL_64
    return [int(value) & mask for value in np.ascontiguousarray(raw).view(kind).tolist()]


def _checked(slices: Slices, site: int, targets: list[int]) -> tuple[int, ...] | None:
    """Give targets if each is an instruction of the function, of a part split off it, or another's first one."""
    domain = slices.graph.domain
    goal = domain.find(np.array(targets, dtype=np.uint64))
    func = domain.func(np.maximum(goal, 0))
    good = (goal >= 0) & ((func == slices.graph.func[site]) | domain.is_start(goal) | slices.entries.fragment[func])
    return tuple(targets) if bool(np.all(good)) else None


def _is_tail(slices: Slices, site: int) -> bool:
    """Whether a jump's target was loaded from memory, at an address that is not computed as a table's entry is."""
    register = int(slices.graph.effects.target_reg[site])
    loads = slices.definitions(site, register)
    if not loads:
        return False
    for load in loads:
        base = load_immediate(slices.word(load), register)
        if base is None:
            return False
        if base == 31:
            continue
        made = _makers(slices, load, base)
        if any(computes_address(slices.word(maker)) for maker in made):
            return False
    return True


def _makers(slices: Slices, at: int, register: int) -> set[int]:
    """Give the instructions that may have written a register last, as far as they are known."""
    found = slices.definitions(at, register)
    if found is not None:
        return found
    one = slices.definition(at, register)
    return set() if one is None else {one}
