"""Layer 4: what one instruction makes of a machine state.

What it takes on trust is listed by `surefoot.proof.assumptions`: a callee keeps SP, x29 and the caller's frame; a
store whose address is computed (through another register, SP or x29 at an unknown distance from the CFA, or a
register offset) does not hit a saved slot; SP computed from another register does not rise above one.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from surefoot.dtypes import Code, Mask, Off
from surefoot.isa.effects import FP, SP, Effects, FpEffect, LrEffect, SpEffect, Store
from surefoot.proof.machine import Fp, Lr, Slot, State

__all__ = ["transfer"]

_SHADOW_SP: Final = 18
"""x18, the shadow call stack pointer (arch/arm64/Makefile: -ffixed-x18)."""
_SAME_LR: Final = (
    LrEffect.KEEP,
    LrEffect.SIGN,
    LrEffect.AUTH,
    LrEffect.SIGN_PC,
    LrEffect.AUTH_PC,
    LrEffect.STRIP,
)


def transfer(state: State, effects: Effects) -> State:
    """Give the state after each instruction, pair by pair.

    Args:
        state: n states before.
        effects: n instructions.

    Returns:
        n states after, as control reaches the next instruction or a branch target; for a call, as it returns.
    """
    after = state.copy()
    _move_sp(state, effects, after)
    _store(state, effects, after)
    _move_fp(state, effects, after)
    _move_lr(state, effects, after)
    _abandon(state, effects, after)
    return after


def _from_cfa(state: State, base: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], off: Off) -> tuple[Off, Mask]:
    """Turn base register + offset into an offset from the CFA: (n,) int64 and (n,) bool, False where unknown."""
    on_sp = (base == SP) & state.s_known
    on_fp = (base == FP) & (state.fp == Fp.FRAME)
    return np.where(on_sp, off - state.s, np.where(on_fp, off + state.k, 0)), on_sp | on_fp


def _store(state: State, effects: Effects, after: State) -> None:
    """Memory: overwritten slots are lost; x29 and x30 are saved if they hold the caller's values."""
    if not bool(np.any(effects.store != Store.NONE)):
        return
    frame = (effects.store == Store.SP) | (effects.store == Store.FP)
    low, known = _from_cfa(state, effects.store_base, effects.store_off)
    high = low + effects.store_size.astype(np.int64)
    known &= frame
    known &= ~effects.store_unknown
    wild = effects.store == Store.ANYWHERE
    pushed = (effects.store == Store.ELSEWHERE) & (effects.store_base == _SHADOW_SP)
    pushed &= (effects.lr_at == 0) & (effects.store_off == 0)
    # Nothing below SP survives the next exception: a store there saves nothing.
    below = known & after.s_known & (low < -after.s)
    for value, copied, slot, saved in (
        (state.fp == Fp.CALLER, effects.fp_at, "fp_slot", "fp_saved"),
        (state.lr == Lr.RETURN, effects.lr_at, "ra_slot", "ra_saved"),
    ):
        at, kind = getattr(state, slot), getattr(state, saved)
        hit = known & (low < at + 8) & (at < high)
        kind = _drop(kind, hit)
        kind = np.where(wild, np.uint8(Slot.MAYBE), kind)
        copy = value & (copied >= 0) & (effects.store != Store.NONE)
        new = copy & known & ~below & (kind != Slot.YES) & (kind != Slot.FIRST)
        place = low + copied
        # A second copy (the argument of a tracing call, say) does not replace the first, which rows name.
        second = copy & ~new & ~below & ~pushed
        kind = np.where(new, np.where(kind == Slot.NO, np.uint8(Slot.YES), np.uint8(Slot.FIRST)), _more(kind, second))
        setattr(after, slot, np.where(new, place, np.where((kind == Slot.NO) | (kind == Slot.MAYBE), 0, at)))
        setattr(after, saved, kind)
    touched = (effects.writes >> np.uint32(_SHADOW_SP)) & np.uint32(1) != 0
    after.shadow = np.where(pushed & touched & (state.lr == Lr.RETURN), True, after.shadow & ~(touched | wild))


def _move_fp(state: State, effects: Effects, after: State) -> None:
    """x29."""
    how = effects.fp
    if not bool(np.any(how != FpEffect.KEEP)):
        return
    from_sp = (how == FpEffect.FROM_SP) & state.s_known
    add = (how == FpEffect.ADD) & (state.fp == Fp.FRAME)
    at, known = _from_cfa(state, effects.fp_reg, effects.fp_imm)
    load = how == FpEffect.LOAD
    held = (state.fp_saved == Slot.YES) | (state.fp_saved == Slot.FIRST)
    back = load & known & held & (at == state.fp_slot)
    blur = load & ((state.fp_saved == Slot.FIRST) | (state.fp_saved == Slot.MAYBE))
    frame = from_sp | add
    kind = np.full(how.shape, Fp.CLOBBERED, dtype=np.uint8)
    blind = ((how == FpEffect.FROM_SP) & ~state.s_known) | (load & ~known) | (how == FpEffect.FROM_REG)
    kind[blind | blur | ((how == FpEffect.ADD) & (state.fp == Fp.UNKNOWN))] = Fp.UNKNOWN
    kind[frame] = Fp.FRAME
    kind[back] = Fp.CALLER
    after.fp = np.where(how == FpEffect.KEEP, state.fp, kind)
    moved = np.where(from_sp, effects.fp_imm - state.s, state.k + effects.fp_imm)
    after.k = np.where(how == FpEffect.KEEP, state.k, np.where(frame, moved, 0))


def _move_lr(state: State, effects: Effects, after: State) -> None:
    """x30."""
    how = effects.lr
    if not bool(np.any(how != LrEffect.KEEP)):
        return
    at, known = _from_cfa(state, effects.lr_reg, effects.lr_imm)
    load = how == LrEffect.LOAD
    held = (state.ra_saved == Slot.YES) | (state.ra_saved == Slot.FIRST)
    back = load & known & held & (at == state.ra_slot)
    blur = load & ((state.ra_saved == Slot.FIRST) | (state.ra_saved == Slot.MAYBE))
    popped = load & (effects.lr_reg == _SHADOW_SP) & (effects.lr_imm == -8) & state.shadow
    kind = np.full(how.shape, Lr.CLOBBERED, dtype=np.uint8)
    kind[(load & ~known) | blur | (how == LrEffect.FROM_REG)] = Lr.UNKNOWN
    kind[back | popped] = Lr.RETURN
    same = np.isin(how, _SAME_LR)
    after.lr = np.where(same, state.lr, kind)
    after.shadow = after.shadow & ~popped


def _move_sp(state: State, effects: Effects, after: State) -> None:
    """SP."""
    how = effects.sp
    if not bool(np.any(how != SpEffect.KEEP)):
        return
    on_fp = (how == SpEffect.FROM_FP) & (state.fp == Fp.FRAME)
    moved = np.where(how == SpEffect.FROM_FP, -(state.k + effects.sp_imm), state.s - effects.sp_imm)
    keep = how == SpEffect.KEEP
    after.s_known = np.where(keep | (how == SpEffect.ADD), state.s_known, on_fp)
    after.s = np.where(after.s_known, np.where(keep, state.s, moved), 0)


def _abandon(state: State, effects: Effects, after: State) -> None:
    """Slots that SP has risen above belong to the next exception."""
    if not bool(np.any(effects.sp != SpEffect.KEEP)):
        return
    # SP rises by a constant from an unknown place: it may pass a slot.
    risen = (effects.sp == SpEffect.ADD) & ~state.s_known & (effects.sp_imm > 0)
    for slot, saved in (("fp_slot", "fp_saved"), ("ra_slot", "ra_saved")):
        kind, at = getattr(after, saved), getattr(after, slot)
        kind = _drop(kind, after.s_known & (at < -after.s))
        kind = np.where(risen & (kind != Slot.NO), np.uint8(Slot.MAYBE), kind)
        setattr(after, saved, kind)
        setattr(after, slot, np.where((kind == Slot.NO) | (kind == Slot.MAYBE), 0, at))


def _drop(kind: Code, hit: Mask) -> Code:
    """Give `Slot` after the word at the state's offset lost the value."""
    lost = np.where(kind == Slot.YES, np.uint8(Slot.NO), np.where(kind == Slot.FIRST, np.uint8(Slot.MAYBE), kind))
    return np.where(hit, lost, kind)


def _more(kind: Code, copied: Mask) -> Code:
    """Give `Slot` after the value was stored elsewhere too."""
    more = np.where(kind == Slot.YES, np.uint8(Slot.FIRST), np.where(kind == Slot.NO, np.uint8(Slot.MAYBE), kind))
    return np.where(copied, more, kind)
