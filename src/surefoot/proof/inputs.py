"""Layer 4: what the prover needs to know of an image, gathered from its tables."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Addr
from surefoot.image.binary import Image
from surefoot.image.tables import Alternatives, alternatives, bug_table, exception_table, jump_table
from surefoot.isa import branches
from surefoot.proof.domain import Code

__all__ = ["code_of"]

_EX_TYPE_BPF = 1
"""Its `fixup` field is no address (arch/arm64/include/asm/asm-extable.h)."""


def code_of(image: Image) -> Code:
    """Gather the exception table, the jump labels and the traps that control does not go past.

    Args:
        image: linked, or placed.

    Raises:
        Inconsistent, Truncated, Unsupported: a table is damaged.
    """
    faults, jumps, bugs = exception_table(image), jump_table(image), bug_table(image)
    branch_from, branch_to, falls = _patched_branches(image, alternatives(image))
    real = (faults.type != _EX_TYPE_BPF) & (faults.fixup != 0)
    known = jumps.target != 0
    return Code(
        faults=faults.insn[real],
        fixups=faults.fixup[real],
        jump_sites=np.concatenate([jumps.code[known], branch_from]),
        jump_targets=np.concatenate([jumps.target[known], branch_to]),
        falls=falls,
        stops=np.unique(bugs.addr[~bugs.warns]),
    )


def _patched_branches(image: Image, table: Alternatives) -> tuple[Addr, Addr, Addr]:
    """Find the branches that alternatives put in or take away.

    A replacement's branch keeps its absolute target when it is copied (arch/arm64/kernel/alternative.c:
    get_alt_insn). What a callback writes is not in the image; the kernel's only ones that concern branches turn
    them into NOPs (alt_cb_patch_nops).

    Returns:
        sites that may become a branch, its target, and branches that may go away; uint64 each.
    """
    origin, _ = _words(table.orig, table.orig_len, table.repl)
    before, known = image.text.words_at(origin)
    falls = origin[known & (branches.is_b(before) | branches.is_cond_branch(before))]
    plain = np.flatnonzero(~table.is_callback & (table.repl != 0))
    site, at = _words(table.orig[plain], table.repl_len[plain], table.repl[plain])
    word, known = image.text.words_at(at)
    jumps = known & (branches.is_b(word) | branches.is_cond_branch(word))
    return site[jumps], branches.branch_target(word[jumps], at[jumps]), np.unique(falls)


def _words(origin: Addr, length: NDArray[np.uint8], other: Addr) -> tuple[Addr, Addr]:
    """Give the address of every word of ranges, and of the word at the same place of other ranges."""
    count = (length >> np.uint8(2)).astype(np.int64)
    owner = np.repeat(np.arange(origin.size), count)
    step = np.arange(int(count.sum()), dtype=np.int64) - np.repeat(np.cumsum(count) - count, count)
    off = step.astype(np.uint64) << np.uint64(2)
    return origin[owner] + off, other[owner] + off
