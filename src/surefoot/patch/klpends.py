"""Layer 6: functions whose calls at the very end make the kernel's stack check wrong, told before it happens.

The kernel compares raw return addresses with what it takes for a function's range. The return address of a call that
never returns, where that is a function's last instruction and no padding follows, is the first address behind the
range: a task in there is missed, and held for the neighbour if that is patched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from surefoot.isa.branches import is_call
from surefoot.unwind.code import Functions, TextWords

__all__ = ["Span", "end_warnings"]


class Span(NamedTuple):
    """What the kernel takes for a function of a patch.

    Attributes:
        name: of the function.
        start: first address.
        size: bytes, the distance to the next symbol.
    """

    name: str
    start: int
    size: int


def end_warnings(spans: Sequence[Span], functions: Functions, text: TextWords) -> list[str]:
    """Give a sentence for each function of a patch that the kernel will take others for, or miss.

    Args:
        spans: functions of the patch, old or new ones.
        functions: of the kernel or module, for the names of neighbours.
        text: its words.
    """
    if not spans:
        return []
    start = np.array([span.start for span in spans], dtype=np.uint64)
    last = np.array([span.start + span.size - 4 for span in spans], dtype=np.uint64)
    own, has_own = text.words_at(last)
    before, has_before = text.words_at(start - np.uint64(4))
    misses = has_own & is_call(own)
    held = has_before & is_call(before)
    every = np.ones(len(spans), dtype=np.bool_)
    neighbours = functions.lookup(start, every).tolist()  # of the byte before the start
    found: list[str] = []
    for row, span in enumerate(spans):
        if misses[row]:
            found.append(
                f"{span.name} ends in a call that never returns: the kernel will not see a task in there, and let it "
                "go over too early"
            )
        if held[row]:
            name = functions.names[neighbours[row]] if neighbours[row] >= 0 else "the function"
            found.append(
                f"{name} before {span.name} ends in a call that never returns: the kernel will take a task in there "
                f"for one in {span.name}, and hold it"
            )
    return found
