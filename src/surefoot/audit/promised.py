"""Layer 6: functions that never return, as the compiler says and as the code says.

The compiler is taken at its word where the code does not contradict it: a call of such a function is given to the
prover as a trap. A function that has a return is never believed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from surefoot.dtypes import Addr, Insn, Mask
from surefoot.image.binary import Image
from surefoot.image.promises import Promises
from surefoot.isa.branches import branch_target, is_bl, is_ret

__all__ = ["Promised", "believe", "promised", "trap_calls"]

_TRAP: Final = 0xD420_7D00
"""BRK #1000, behind which nothing runs."""


@dataclass(frozen=True)
class Promised:
    """Functions of an image that the compiler takes never to return.

    Attributes:
        starts: (p,) uint64, ascending.
        broken: (p,) bool, the function has a return.
    """

    starts: Addr
    broken: Mask

    @property
    def believed(self) -> Addr:
        """The functions whose calls are taken not to come back."""
        return self.starts[~self.broken]


def promised(image: Image, told: Promises) -> Promised:
    """Find the promised functions, and look for returns in them.

    Args:
        image: linked.
        told: what its debug information says.
    """
    symbols, functions = image.symbols, image.functions
    rows = [row for found in symbols.find_many(sorted(told.names)) for row in found.tolist()]
    starts = np.unique(np.concatenate([told.starts, symbols.addr[rows]]).astype(np.uint64))
    starts = starts[functions.starts_at(starts)]
    row = functions.lookup(starts)
    broken = np.zeros(starts.size, dtype=np.bool_)
    for k, (start, end) in enumerate(zip(starts.tolist(), functions.end[row].tolist(), strict=True)):
        words, known = image.text.words_at(np.arange(start, end, 4, dtype=np.uint64))
        broken[k] = bool(np.any(is_ret(words) & known))
    return Promised(starts, broken)


def trap_calls(parts: list[tuple[int, Insn]], never: Addr) -> list[tuple[int, Insn]]:
    """Give text with the calls of functions that never return written as traps.

    Args:
        parts: (address, words).
        never: (k,) uint64, the functions.
    """
    trapped = []
    for start, words in parts:
        calls = np.flatnonzero(is_bl(words))
        where = np.uint64(start) + calls.astype(np.uint64) * np.uint64(4)
        lost = calls[np.isin(branch_target(words[calls], where), never)]
        fresh = words.copy()
        fresh[lost] = np.uint32(_TRAP)
        trapped.append((start, fresh))
    return trapped


def believe(image: Image, parts: list[tuple[int, Insn]], told: Promises) -> tuple[list[tuple[int, Insn]], Promised]:
    """Give the text for the prover, calls of believed functions written as traps, and what was believed."""
    found = promised(image, told)
    return trap_calls(parts, found.believed), found
