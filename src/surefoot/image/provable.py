"""Layer 3: the words over which code that runs is proved: live ones, without what proofs know of anyway.

Invariant: a proof over these words, with the tables of the image, holds for the live words. Words that differ from
one boot of a kernel to the next without a meaning for proofs come out equal, so that a kept proof serves many dumps.

Source: DDI 0487, C4.1.92 "Data Processing -- Immediate" and C6.2 (MOVK, LSRV); as in `surefoot.image.livetext`.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from surefoot.dtypes import Addr, Insn, Mask
from surefoot.image.livetext import TRANSPARENT, Change, Differences
from surefoot.isa.fields import matches

__all__ = ["provable_words"]

_ANNOUNCED: Final = (Change.JUMP_LABEL, Change.ALTERNATIVE)
"""Either word may stand there, say the image's tables, from which the prover has both."""
_COMPUTED: Final = (Change.RUNTIME_CONST, Change.CALLBACK)
_WEAK: Final = np.uint32(0x9ADF_27E0)
"""LSRV xD, xzr, xzr: writes xD and nothing else. What it writes is of no use to a proof, which follows no such
instruction; so what holds with it holds with any other that writes xD alone."""
_SP: Final = 31


def provable_words(base: int, words: Insn, differ: Differences, relocated: Addr) -> tuple[Insn, Addr]:
    """Give the words of a range of an image as a proof of the running code needs them.

    Args:
        base: address of the first word.
        words: (n,) uint32, the image's.
        differ: the live words that differ; those elsewhere are left out.
        relocated: (r,) uint64, sorted, where the image has no final word (`Mechanisms.relocated`), if it is a module.
            A linked image has such words among data only.

    Returns:
        (n,) uint32; and (d,) uint64, addresses of words that are not known: a probe hides them.
    """
    fresh = words.copy()
    here = (differ.addr >= np.uint64(base)) & (differ.addr < np.uint64(base + 4 * words.size))
    addr, live, cause = differ.addr[here], differ.live[here], differ.cause[here]
    final = ~_among(addr, relocated)
    stays = np.isin(cause, TRANSPARENT) | np.isin(cause, _ANNOUNCED)
    if not relocated.size:
        stays |= cause == Change.RELOCATED
    else:  # the image's word is not the module's
        stays &= final
    at = ((addr - np.uint64(base)) >> np.uint64(2)).astype(np.int64)[~stays]
    fresh[at] = np.where(np.isin(cause[~stays], _COMPUTED), _weakened(live[~stays]), live[~stays])
    return fresh, addr[(cause == Change.KPROBE) & ~final]


def _weakened(live: Insn) -> Insn:
    """Give words of which only that they write a general register is kept, where that is all they do.

    Such immediates are fixed when a kernel boots: addresses of tables, masks of addresses.
    """
    register = live & np.uint32(31)
    move = matches(live, 0x1F80_0000, 0x1280_0000)
    shift = matches(live, 0x1F00_0000, 0x1300_0000)  # SBFM, BFM, UBFM, EXTR
    logic = matches(live, 0x1F80_0000, 0x1200_0000) & ~matches(live, 0x6000_0000, 0x6000_0000)
    plus = matches(live, 0x3F80_0000, 0x1100_0000) & (((live >> np.uint32(5)) & np.uint32(31)) != _SP)
    # The destination 31 of AND, ORR, EOR and ADD (immediate) is SP.
    plain: Mask = move | shift | ((logic | plus) & (register != _SP))
    return np.where(plain, _WEAK | register, live)


def _among(values: Addr, ordered: Addr) -> Mask:
    """(n,) bool: the value is in a sorted array."""
    if not ordered.size:
        return np.zeros(values.shape, dtype=np.bool_)
    at = np.minimum(np.searchsorted(ordered, values), ordered.size - 1)
    return np.asarray(ordered[at] == values)
