"""Layer 7: the part of a kernel's code that a few traces can touch.

Invariant: a walk over the captured stacks, whichever of their words it takes for a return address, finds the same
functions, rules, call sites, tail branches and stores of frame records as in the whole code. Of instruction words
only those are kept, with the words around return addresses: no body of any function.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from surefoot.dtypes import Addr, Insn, Mask, Row
from surefoot.isa import branches
from surefoot.targets.capture import Capture
from surefoot.unwind.code import CodeMap, Functions, TextWords

__all__ = ["reduce_capture", "reduce_code"]

_MAX_TAIL: Final = 8
"""Rounds of tail branches, as many as the walker follows (unwind/callsites.py)."""
_VENEER_WORDS: Final = 4
_FOUR: Final = np.uint64(4)
_STP_FP_LR: Final = (0xA900_781D, 0xA980_781D, 0xA880_781D)
"""stp x29, x30, [xN, #imm] with signed offset, pre- and post-index; imm and xN masked out."""
_STP_MASK: Final = 0xFFC0_7C1F


def reduce_capture(capture: Capture, rows: list[int]) -> Capture:
    """Give the chosen tasks with the part of the code that their traces can touch.

    Args:
        capture: any.
        rows: of the tasks.
    """
    chosen = capture.take(rows)
    tasks, strip = chosen.tasks, chosen.layout.strip
    books = [column for book in (tasks.fgraph, tasks.kretprobe) for column in (book.ret, book.func)]
    addrs = np.concatenate([chosen.stacks.words, tasks.pc, tasks.lr, *books])
    return replace(chosen, code=reduce_code(chosen.code, np.unique(strip(addrs))))


def reduce_code(code: CodeMap, addrs: Addr) -> CodeMap:
    """Give the part of the code that return addresses and program counters among `addrs` can touch.

    Args:
        code: the whole.
        addrs: (n,) uint64, any words, PAC bits stripped; those that do not point into code are ignored.
    """
    addrs = np.concatenate([addrs, np.array(list(code.labels.values()), dtype=np.uint64)])
    functions = code.functions
    exact, before = _function_at(functions, addrs), _function_at(functions, addrs - np.uint64(1))
    pointing = addrs[(exact >= 0) | (before >= 0)]
    kept_words = [pointing + np.uint64(offset) for offset in (0, 2**64 - 4)]
    first = pointing - np.uint64(8)  # of the two words of a patch site, before an address in the traced function
    kept_words.append(first[code.text.words_at(first)[0] == np.uint32(branches.MOV_X9_X30)])
    site = pointing - _FOUR
    words, known = code.text.words_at(site)
    calls = known & branches.is_bl(words)
    called, veneers = _through_veneers(code, branches.branch_target(words[calls], site[calls]))
    kept_words += veneers
    # Whatever can be asked about calls: the called functions and those that hold a pointed-to address, since a
    # function-graph entry names its function by an address inside it.
    reached, more_veneers = _tail_closure(code, np.concatenate([_function_at(functions, called), exact]))
    kept_words += more_veneers
    redirected = [_function_at(functions, column) for column in code.redirects.T]
    wanted = np.unique(np.concatenate([exact, before, reached, *redirected]))
    wanted = wanted[wanted >= 0]
    at, words, leaving, _ = _words_of(code, wanted)
    kept_words.append(at[leaving | branches.is_br(words) | np.isin(words & np.uint32(_STP_MASK), _STP_FP_LR)])
    text = _single_words(code.text, np.unique(np.concatenate(kept_words)))
    holders = np.unique(np.concatenate([exact, before]))
    kept = Functions(
        functions.start[wanted],
        functions.end[wanted],
        functions.kind[wanted],
        [functions.names[row] for row in wanted.tolist()],
    )
    changed = code.changed[np.isin(_function_at(functions, code.changed), wanted)]
    rules = code.rules.take_rows(_rule_rows(code, holders[holders >= 0])).for_lookup()
    return replace(code, functions=kept, text=text, rules=rules, changed=changed)


def _function_at(functions: Functions, addrs: Addr) -> Row:
    """(n,) int64, the function that holds each address, -1 for none."""
    return functions.lookup(addrs, np.zeros(addrs.shape, dtype=np.bool_))


def _rule_rows(code: CodeMap, holders: Row) -> Row:
    """Give the rule rows of whole descriptors that overlap the given functions, ascending."""
    index = code.rules.functions
    if not len(index) or not holders.size:
        return np.zeros(0, dtype=np.int64)
    start, end = code.functions.start[holders], code.functions.end[holders]
    # Descriptors are in order and do not overlap: those from `low` to `high` touch the function.
    low = np.searchsorted(index.end, start, side="right")
    high = np.searchsorted(index.start, end, side="left")
    descriptors = np.unique(_spans(low, high))
    return _spans(index.first_row[descriptors], index.first_row[descriptors] + index.row_count[descriptors])


def _spans(low: Row, high: Row) -> Row:
    """Give low[0]..high[0]-1, low[1]..high[1]-1, ... one behind the other."""
    count = np.maximum(high - low, 0)
    return np.repeat(low - np.cumsum(count) + count, count) + np.arange(int(count.sum()), dtype=np.int64)


def _through_veneers(code: CodeMap, addrs: Addr) -> tuple[Addr, list[Addr]]:
    """Give where branches to `addrs` end up, and the addresses of the veneers' words.

    Source:
        as unwind/callsites.py: `adrp x16; add x16; br x16`, with or without a leading BTI.
    """
    words = [code.text.words_at(addrs + np.uint64(4 * i))[0] for i in range(_VENEER_WORDS)]
    bti = words[0] == branches.BTI_C
    first, second, third = (np.where(bti, words[i + 1], words[i]) for i in range(3))
    target, found = branches.page_veneers(first, second, third, addrs + np.where(bti, _FOUR, np.uint64(0)))
    kept = [addrs[found] + np.uint64(4 * i) for i in range(_VENEER_WORDS)]
    return np.where(found, target, addrs), kept


def _tail_closure(code: CodeMap, seeds: Row) -> tuple[Row, list[Addr]]:
    """Follow tail branches from functions.

    Args:
        code: the whole.
        seeds: (n,) int64, function rows; -1 is ignored.

    Returns:
        the functions reached (seeds included), and the addresses of veneers' words on the way.
    """
    seen = np.zeros(0, dtype=np.int64)
    fresh = np.unique(seeds[seeds >= 0])
    veneers = list[Addr]()
    for _ in range(_MAX_TAIL):
        if not fresh.size:
            break
        seen = np.union1d(seen, fresh)
        _, _, leaving, target = _words_of(code, fresh)
        target, kept = _through_veneers(code, target[leaving])
        veneers += kept
        fresh = np.setdiff1d(_function_at(code.functions, target), np.append(seen, -1))
    return np.union1d(seen, fresh), veneers


def _words_of(code: CodeMap, rows: Row) -> tuple[Addr, Insn, Mask, Addr]:
    """Gather the words of functions.

    Args:
        code: the whole.
        rows: (m,) int64, function rows.

    Returns:
        (w,) addresses, (w,) words, (w,) bool: an immediate branch (no call) that leaves its function, and (w,)
        targets of immediate branches. Words that cannot be read are left out.
    """
    start, end = code.functions.start[rows], code.functions.end[rows]
    count = ((end - start) >> np.uint64(2)).astype(np.int64)
    owner = np.repeat(np.arange(rows.size, dtype=np.int64), count)
    at = start[owner] + _spans(np.zeros_like(count), count).astype(np.uint64) * _FOUR
    words, known = code.text.words_at(at)
    at, words, owner = at[known], words[known], owner[known]
    target = branches.branch_target(words, at)
    leaving = (branches.is_b(words) | branches.is_cond_branch(words)) & (
        (target < start[owner]) | (target >= end[owner])
    )
    return at, words, leaving, target


def _single_words(text: TextWords, addrs: Addr) -> TextWords:
    """Give only the words at the given addresses, neighbours joined into ranges."""
    addrs = np.unique(addrs & ~np.uint64(3))
    words, known = text.words_at(addrs)
    addrs, words = addrs[known], words[known]
    head = np.flatnonzero(np.append(True, np.diff(addrs) != 4)) if addrs.size else np.zeros(0, dtype=np.int64)
    return TextWords(addrs[head], np.append(head, addrs.size).astype(np.int64), words, text.live)
