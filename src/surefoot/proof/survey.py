"""Layer 4: one pass over all instructions: where control goes, and which instructions rows can notice.

Invariant: what is left out changes neither SP, x29 nor x30, writes no memory through SP or x29, and goes on to the
next instruction.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

import numpy as np

from surefoot.dtypes import Addr, Insn, Mask, Row
from surefoot.dtypes import Code as Codes
from surefoot.isa.branches import branch_target
from surefoot.isa.effects import NO_REG, Effects, Flow, FpEffect, LrEffect, SpEffect, Store, effects
from surefoot.proof.domain import Code, Domain, member

__all__ = ["Survey", "classify", "goes_on", "is_neutral", "join_effects", "survey"]

_CHUNK: Final = 1 << 17
"""Instructions per piece: its arrays fit the caches."""
_TRAPS: Final = (0xD4207D00, 0xD4200020)
"""BRK #1000 and BRK #1: what GCC and LLVM emit for __builtin_trap(). The kernel has no handler that continues them
(arch/arm64/include/asm/brk-imm.h)."""
_PUSH: Final = 0xF800865E
"""STR X30, [X18], #8: the one form in which a shadow call stack is pushed."""
_SHADOW_SP: Final = 18
_GOES_ON: Final = np.isin(np.arange(256), (Flow.NEXT, Flow.COND, Flow.CALL, Flow.CALL_REG, Flow.EXCEPTION))


@dataclass(frozen=True)
class Survey:
    """Where control goes in a domain of n instructions.

    Attributes:
        flow: (n,) uint8, `Flow`.
        on: (n,) bool, control may reach the instruction behind (calls are taken to return).
        jumps: (j,) int64, instructions B and the conditional branches, ascending, and
        jump_to: (j,) uint64, where they go, and
        jump_at: (j,) int64, the instruction there, -1 for none under rules.
        calls: (c,) int64, instructions BL, and
        call_to: (c,) uint64, and
        call_at: (c,) int64, likewise.
        leaves: (x,) int64, returns and indirect jumps, and
        leave_by: (x,) uint8, the register with the target.
        acts: (a,) int64, instructions that are not neutral, ascending (if they were asked for), and
        effects: what they do.
        sites: (v,) int64, instructions with a variant: a word that the kernel may put there; and
        variants: what those do, and
        variant_on: (v,) bool, they continue, and
        variant_to: (v,) uint64, where they branch to.
    """

    flow: Codes
    on: Mask
    jumps: Row
    jump_to: Addr
    jump_at: Row
    calls: Row
    call_to: Addr
    call_at: Row
    leaves: Row
    leave_by: Codes
    acts: Row
    effects: Effects
    sites: Row
    variants: Effects
    variant_on: Mask
    variant_to: Addr


def survey(domain: Domain, code: Code, *, acts: bool = True) -> Survey:
    """Look at every instruction once.

    Args:
        domain: the instructions.
        code: what the kernel may put in their place.
        acts: whether the instructions that are not neutral are wanted; only the check of all edges asks for them.
    """
    flow = np.zeros(len(domain), dtype=np.uint8)
    acting, kept, leaves, leave_by = list[Row](), [effects(domain.words[:0])], list[Row](), list[Codes]()
    for low in range(0, max(len(domain), 1), _CHUNK):
        words = domain.words[low : low + _CHUNK]
        found = classify(words) if acts else effects(words)
        flow[low : low + len(found)] = found.flow
        if acts:
            which = np.flatnonzero(~is_neutral(found))
            acting.append(which + low)
            kept.append(found.take(which))
        out = np.flatnonzero((found.flow == Flow.RETURN) | (found.flow == Flow.JUMP_REG))
        leaves.append(out + low)
        leave_by.append(found.target_reg[out])
    on = goes_on(flow, domain.words)
    trap = np.flatnonzero(flow == Flow.EXCEPTION)
    on[trap[member(domain.addr(trap), code.stops)]] = False
    jumps = np.flatnonzero((flow == Flow.JUMP) | (flow == Flow.COND))
    calls = np.flatnonzero(flow == Flow.CALL)
    sites = domain.find(code.sites)
    ruled = np.flatnonzero(sites >= 0)
    variant: Insn = code.words[ruled]
    variants = classify(variant)
    jump_to = branch_target(domain.words[jumps], domain.addr(jumps))
    call_to = branch_target(domain.words[calls], domain.addr(calls))
    return Survey(
        flow,
        on,
        jumps,
        jump_to,
        domain.find(jump_to),
        calls,
        call_to,
        domain.find(call_to),
        np.concatenate(leaves),
        np.concatenate(leave_by),
        np.concatenate([calls[:0], *acting]),
        join_effects(kept),
        sites[ruled],
        variants,
        goes_on(variants.flow, variant),
        code.targets[ruled],
    )


def classify(words: Insn) -> Effects:
    """Give the effects of words; a store through x18 that is no push of a shadow call stack is one through any."""
    does = effects(words)
    other = (does.store == Store.ELSEWHERE) & (does.store_base == _SHADOW_SP) & (words != np.uint32(_PUSH))
    does.store_base[other] = NO_REG
    return does


def goes_on(flow: Codes, words: Insn) -> Mask:
    """(n,) bool: control may reach the instruction behind."""
    found: Mask = _GOES_ON[flow]
    trap = np.flatnonzero(flow == Flow.EXCEPTION)
    found[trap[np.isin(words[trap], _TRAPS)]] = False
    return found


def is_neutral(found: Effects) -> Mask:
    """(m,) bool: the instruction changes nothing that a row can speak of."""
    calm = (found.sp == SpEffect.KEEP) & (found.fp == FpEffect.KEEP) & (found.lr == LrEffect.KEEP)
    outside = (found.store == Store.NONE) | (found.store == Store.ELSEWHERE)
    # x29 or x30 stored elsewhere may be a second copy; a state has to know.
    outside &= (found.fp_at < 0) & (found.lr_at < 0)
    return np.asarray(calm & outside & (found.flow != Flow.UNDEFINED))


def join_effects(parts: list[Effects]) -> Effects:
    """Give the effects of several arrays of words as one."""
    columns = {item.name: np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(Effects)}
    return Effects(**columns)
