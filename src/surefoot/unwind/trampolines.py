"""Layer 5: return addresses that tracing has replaced, recovered from the task's own bookkeeping.

Function-graph tracing puts return_to_handler, and a kretprobe __kretprobe_trampoline, into a frame's return
address and keeps the original on a list of the task. Entries are matched by stack position, newest first, and
never backwards.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from surefoot.dtypes import Addr, Mask, Row
from surefoot.unwind.state import Bookkeeping

__all__ = ["Match", "match_entries", "owner_in_chain"]


@dataclass(frozen=True, slots=True)
class Match:
    """The entry found for each frame.

    Attributes:
        entry: (n,) int64, index into the bookkeeping, -1 where none fits.
        ret: (n,) uint64, the original return address, 0 where none fits.
        skipped: (n,) bool, an entry of another frame was passed over on the way.
    """

    entry: Row
    ret: Addr
    skipped: Mask


def match_entries(
    book: Bookkeeping,
    task: Row,
    cursor: Row,
    key: Addr,
    trampoline: int,
    *,
    zero_ends: bool = False,
    spare: Row | None = None,
) -> Match:
    """Find the newest entry, from the cursor on, that belongs to each frame.

    Entries whose own return address is the trampoline again belong to functions that were entered by a tail
    branch; the original address is in an older entry of the same frame.

    Args:
        book: entries, newest first.
        task: (n,) int64, task of each frame.
        cursor: (n,) int64, first entry (index into the bookkeeping) that may be used.
        key: (n,) uint64, frame pointer after the step, which is what the entry recorded.
        trampoline: address that cannot be an answer.
        zero_ends: an entry without an original address ends the search, as kretprobe_find_ret_addr has it.
        spare: (n,) int64, an entry that may be passed over, -1 for none; and is where it seems to belong to the frame
            but the one behind it does, too: a frame has one call under way, so the spare one is not what it says.

    Returns:
        the matches; the caller moves its cursor to or behind `entry`.

    Source:
        kernel/trace/fgraph.c: ftrace_graph_ret_addr; kernel/kprobes.c: kretprobe_find_ret_addr.
    """
    entry = np.full(task.shape, -1, dtype=np.int64)
    skipped = np.zeros(task.shape, dtype=np.bool_)
    may_pass = entry if spare is None else spare
    at = cursor.copy()
    stop = book.first[task + 1]
    todo = np.flatnonzero(at < stop)
    while todo.size:  # one round per list position, all frames at once
        here = at[todo]
        same, ret = book.key[here] == key[todo], book.ret[here]
        ends = ret == 0 if zero_ends else np.zeros(todo.shape, dtype=np.bool_)
        behind = np.minimum(here + 1, book.key.size - 1)
        doubled = (here == may_pass[todo]) & (here + 1 < stop[todo]) & (book.key[behind] == key[todo])
        hit = same & (ret != np.uint64(trampoline)) & ~ends & ~doubled
        entry[todo[hit]] = here[hit]
        skipped[todo] |= ~same & (here != may_pass[todo])
        at[todo] += 1
        todo = todo[~hit & ~ends & (at[todo] < stop[todo])]
    found = entry >= 0
    ret = np.zeros(task.shape, dtype=np.uint64)
    ret[found] = book.ret[entry[found]]
    return Match(entry, ret, skipped)


def owner_in_chain(book: Bookkeeping, cursor: Row, entry: Row, key: Addr, start: Addr, end: Addr) -> Mask:
    """Tell whether an entry of the frame's chain was made for the function in [start, end).

    Args:
        book: entries, newest first.
        cursor: (n,) int64, first entry of the chain.
        entry: (n,) int64, last entry (the match).
        key: (n,) uint64, frame position that the entries must share.
        start: (n,) uint64, first address of the function below.
        end: (n,) uint64, first address behind it.

    Returns:
        (n,) bool.
    """
    good = np.zeros(entry.shape, dtype=np.bool_)
    at = cursor.copy()
    todo = np.flatnonzero((entry >= 0) & (at <= entry))
    while todo.size:
        here = at[todo]
        func = book.func[here]
        good[todo] |= (book.key[here] == key[todo]) & (func >= start[todo]) & (func < end[todo])
        at[todo] += 1
        todo = todo[~good[todo] & (at[todo] <= entry[todo])]
    return good
