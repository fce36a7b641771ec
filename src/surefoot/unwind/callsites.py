"""Layer 5: can the call before a return address lead to the frame below it?

This is evidence that no frame record can fake: the word before a return address must be a call, and a direct
call must lead to the function of the frame below, by itself, through a veneer, by tail branches, or through a
site that a live patch redirects. All questions of one step are answered together, as arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np

from surefoot.dtypes import Addr, Code, Insn, Mask, Row
from surefoot.isa import branches
from surefoot.metadata.rules import CfaBase, RaRule
from surefoot.unwind.code import CodeMap

__all__ = ["Call", "check_calls", "leads_to", "makes_record"]

_MAX_TAIL: Final = 8
"""Longest chain of tail branches that is followed; the longest seen in Debian's 7.3 kernel is 3."""
_MAX_OPEN: Final = 4096
"""Most functions that one question may have open at a time, so that a hostile text cannot exhaust memory."""
_BATCH: Final = 256
"""Questions that are followed together."""
_ADD_X29_SP: Final = 0x9100_03FD
"""ADD X29, SP, #n, which MOV X29, SP is too; the number left out (DDI 0487, C6.2)."""
_STP_RECORD: Final = (0xA900_7BFD, 0xA980_7BFD)
"""STP X29, X30, [SP, #n] and STP X29, X30, [SP, #n]!, the offset left out (DDI 0487, C6.2)."""


class Call(IntEnum):
    """What the word before a return address is, seen from the function below."""

    UNKNOWN = 0
    """The word could not be read."""
    NOT_A_CALL = 1
    MISMATCH = 2
    """A direct call that cannot lead to the function below."""
    DIRECT = 3
    """A direct call to the function below."""
    TAIL = 4
    """A direct call that reaches it by tail branches."""
    INDIRECT = 5
    """A call through a register (or a tail branch through one): it may lead there."""
    VENEER = 6
    """A direct call that reaches it through a veneer or a site that a live patch redirects, and nothing else."""


@dataclass(slots=True)
class _Open:
    """Unanswered questions: pair k asks whether code at `func` can become function `goal` by tail branches."""

    k: Row
    func: Row
    goal: Row

    def where(self, mask: Mask) -> _Open:
        return _Open(self.k[mask], self.func[mask], self.goal[mask])


def check_calls(code: CodeMap, ra: Addr, callee: Row) -> Code:
    """Judge each return address against the function of the frame below it.

    Args:
        code: functions, text words, redirects.
        ra: (n,) uint64, return addresses, PAC stripped.
        callee: (n,) int64, index of the function below; -1 accepts any call.

    Returns:
        (n,) uint8, `Call`.
    """
    site = ra - np.uint64(4)
    words, known = code.text.words_at(site)
    result = np.full(ra.shape, Call.NOT_A_CALL, dtype=np.uint8)
    result[~known] = Call.UNKNOWN
    result[known & branches.is_blr(words)] = Call.INDIRECT
    direct = np.flatnonzero(known & branches.is_bl(words))
    if direct.size:
        target = branches.branch_target(words[direct], site[direct])
        result[direct] = leads_to(code, target, callee[direct])
    return result


def leads_to(code: CodeMap, entry: Addr, goal: Row) -> Code:
    """Judge whether a branch to `entry` can end up running function `goal`.

    Args:
        code: functions, text words, redirects.
        entry: (n,) uint64, branch targets.
        goal: (n,) int64, function indices; -1 accepts anything.

    Returns:
        (n,) uint8, `Call`: DIRECT, VENEER, TAIL, INDIRECT or MISMATCH.
    """
    result = np.full(entry.shape, Call.MISMATCH, dtype=np.uint8)
    result[goal < 0] = Call.DIRECT
    if code.functions.start.size:
        safe = np.maximum(goal, 0)
        result[(entry >= code.functions.start[safe]) & (entry < code.functions.end[safe])] = Call.DIRECT
    rest = np.flatnonzero(result == Call.MISMATCH)
    if not rest.size:
        return result
    pairs, inverse = np.unique(np.stack([entry[rest], goal[rest].astype(np.uint64)]), axis=1, return_inverse=True)
    entry, goal = pairs[0], pairs[1].astype(np.int64)
    batches = [slice(low, low + _BATCH) for low in range(0, entry.size, _BATCH)]
    answer = np.concatenate([_follow(code, entry[part], goal[part]) for part in batches])
    result[rest] = answer[inverse.reshape(-1)]
    return result


def makes_record(code: CodeMap, funcs: Row) -> Mask:
    """Tell which functions make a frame record: store x29 and x30 as a pair on the stack and point x29 there.

    Args:
        code: functions and text words.
        funcs: (m,) int64, function indices.

    Returns:
        (m,) bool; False is certain, True means that both instructions are there, on whatever path.
    """
    distinct, inverse = np.unique(funcs, return_inverse=True)
    owner, _, words = _words_of(code, code.functions.start[distinct], code.functions.end[distinct])
    stores = np.isin(words & np.uint32(0xFFC0_7FFF), np.array(_STP_RECORD, dtype=np.uint32))
    links = words & np.uint32(0xFFC0_03FF) == np.uint32(_ADD_X29_SP)
    found = (np.bincount(owner[stores], minlength=distinct.size) > 0) & (
        np.bincount(owner[links], minlength=distinct.size) > 0
    )
    return np.asarray(found[inverse.reshape(-1)])


def _follow(code: CodeMap, entry: Addr, goal: Row) -> Code:
    """Answer distinct (entry, goal) pairs by following veneers, redirects and tail branches breadth first."""
    answer = np.full(entry.shape, Call.MISMATCH, dtype=np.uint8)
    entry = _through_veneers(code, entry)
    none = np.zeros(entry.shape, dtype=np.bool_)
    func = code.functions.lookup(entry, none)
    plain = (func == goal) | _redirected(code, func, goal)
    answer[plain & (func >= 0)] = Call.VENEER
    ask = np.flatnonzero(answer == Call.MISMATCH)
    open_ = _Open(ask, func[ask], goal[ask])
    seen = np.zeros(0, dtype=np.int64)
    width = np.int64(max(code.functions.start.size, 1))
    for _ in range(_MAX_TAIL):
        open_ = open_.where(open_.func >= 0)
        found = open_.k[open_.func == open_.goal]
        answer[found] = Call.TAIL
        open_ = open_.where(answer[open_.k] != Call.TAIL)
        fresh, first = np.unique(open_.k * width + open_.func, return_index=True)
        first = first[~np.isin(fresh, seen)]
        open_ = _Open(open_.k[first], open_.func[first], open_.goal[first])
        open_ = open_.where(np.bincount(open_.k, minlength=entry.size)[open_.k] <= _MAX_OPEN)
        if not open_.k.size:
            break
        seen = np.union1d(seen, fresh)
        source, target, through_register = _tail_branches(code, np.unique(open_.func))
        maybe = open_.k[np.isin(open_.func, through_register)]
        answer[maybe] = np.maximum(answer[maybe], np.uint8(Call.INDIRECT))
        open_ = _advance(open_, source, target)
    return answer


def _redirected(code: CodeMap, func: Row, goal: Row) -> Mask:
    """Tell which calls of `func` a live patch may redirect to `goal`."""
    result = np.zeros(func.shape, dtype=np.bool_)
    exact = np.zeros(len(code.redirects), dtype=np.bool_)
    old, new = (code.functions.lookup(code.redirects[:, side], exact) for side in (0, 1))
    for source, target in zip(old.tolist(), new.tolist(), strict=True):
        result |= (func == source) & (goal == target)
    return result


def _advance(open_: _Open, source: Row, target: Row) -> _Open:
    """Replace each question by one per outgoing edge; edges are (source, target) sorted by source."""
    low = np.searchsorted(source, open_.func, side="left")
    count = np.searchsorted(source, open_.func, side="right") - low
    pick = np.repeat(low - np.cumsum(count) + count, count) + np.arange(int(count.sum()), dtype=np.int64)
    return _Open(np.repeat(open_.k, count), target[pick], np.repeat(open_.goal, count))


def _tail_branches(code: CodeMap, funcs: Row) -> tuple[Row, Row, Row]:
    """Find where control can leave functions other than by a call or a return.

    Args:
        code: functions, text words, redirects.
        funcs: (m,) int64, distinct function indices, ascending.

    Returns:
        edges (source function, target function) sorted by source, and the functions that may end in a branch
        through a register.
    """
    start, end = code.functions.start[funcs], code.functions.end[funcs]
    owner, addr, words = _words_of(code, start, end)
    leaves = branches.is_b(words) | branches.is_cond_branch(words)
    target = branches.branch_target(words[leaves], addr[leaves])
    source = owner[leaves]
    outside = (target < start[source]) | (target >= end[source])
    target, source = _through_veneers(code, target[outside]), source[outside]
    none = np.zeros(target.shape, dtype=np.bool_)
    edges = [np.stack([funcs[source], code.functions.lookup(target, none)])]
    if code.redirects.size:
        exact = np.zeros(len(code.redirects), dtype=np.bool_)
        pair = [code.functions.lookup(code.redirects[:, side], exact) for side in (0, 1)]
        edges.append(np.stack(pair)[:, np.isin(pair[0], funcs)])
    joined = np.unique(np.concatenate(edges, axis=1), axis=1)
    at = np.flatnonzero(branches.is_br(words))
    at = at[_may_be_tail(code, addr[at])]
    return joined[0], joined[1], funcs[np.unique(owner[at])]


def _may_be_tail(code: CodeMap, addr: Addr) -> Mask:
    """Tell which branches through a register can be tail calls: not those for which a rule still has a frame.

    A branch in mid-function belongs to a jump table. It leads to no other function, and there are many.
    """
    rules = code.rules
    row = rules.lookup(addr, np.zeros(addr.shape, dtype=np.bool_))
    result = row < 0
    at = np.flatnonzero(~result)
    base, off, ra = (column[row[at]] for column in (rules.cfa_base, rules.cfa_off, rules.ra_rule))
    result[at] = (base == CfaBase.SP) & (off == 0) & (ra == RaRule.IN_LR)
    return np.asarray(result)


def _words_of(code: CodeMap, start: Addr, end: Addr) -> tuple[Row, Addr, Insn]:
    """Gather all words of address ranges: (w,) range index, (w,) address, (w,) word; unreadable ones left out."""
    count = ((end - start) >> np.uint64(2)).astype(np.int64)
    owner = np.repeat(np.arange(start.size, dtype=np.int64), count)
    within = np.arange(int(count.sum()), dtype=np.int64) - np.repeat(np.cumsum(count) - count, count)
    addr = start[owner] + (within.astype(np.uint64) << np.uint64(2))
    words, known = code.text.words_at(addr)
    return owner[known], addr[known], words[known]


def _through_veneers(code: CodeMap, addr: Addr) -> Addr:
    """Replace the address of a veneer by where it leads; other addresses stay.

    Module PLT entries and linker veneers are `adrp x16; add x16; br x16`, with or without a leading BTI.

    Source:
        arch/arm64/kernel/module-plts.c: __get_adrp_add_pair, struct plt_entry.
    """
    words = [code.text.words_at(addr + np.uint64(offset))[0] for offset in (0, 4, 8, 12)]
    bti = words[0] == branches.BTI_C
    first, second, third = (np.where(bti, words[i + 1], words[i]) for i in range(3))
    at = addr + np.where(bti, np.uint64(4), np.uint64(0))
    target, is_veneer = branches.page_veneers(first, second, third, at)
    return np.where(is_veneer, target, addr)
