"""Layer 4: the machine state that a rule row speaks of, as columns: relative to the CFA, with unknown as a value.

Invariant: a column never claims more than is certain. UNKNOWN means that nothing is known; CLOBBERED that the
register holds something else than the caller's value.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Code, Mask, Off, Off32, Row, Row32
from surefoot.metadata.rules import CfaBase, FpRule, RaRule, RuleTable

__all__ = ["Fit", "Fp", "Lr", "Slot", "State", "claimed_state", "fits"]


class Fp(IntEnum):
    """What x29 holds."""

    UNKNOWN = 0
    CALLER = 1
    """The caller's frame pointer, as on entry."""
    FRAME = 2
    """CFA + k."""
    CLOBBERED = 3


class Lr(IntEnum):
    """What x30 holds."""

    UNKNOWN = 0
    RETURN = 1
    """The return address, signed or not."""
    CLOBBERED = 2


class Slot(IntEnum):
    """Which word of the frame holds a value of the caller."""

    NO = 0
    """None."""
    YES = 1
    """The one at the state's offset, and no other."""
    FIRST = 2
    """The one at the state's offset, perhaps others too."""
    MAYBE = 3
    """Perhaps some."""


class Fit(IntEnum):
    """How a row fits a state."""

    YES = 0
    """Everything that the row says is so."""
    NO = 1
    """Something that the row says is not so."""
    OPEN = 2
    """Something that the row says is not known to be so."""


@dataclass(slots=True)
class State:
    """Machine states; n of them.

    Attributes:
        s: (n,) int64, bytes from SP up to the CFA: SP = CFA - s.
        s_known: (n,) bool.
        fp: (n,) uint8, `Fp`.
        k: (n,) int64, bytes: x29 = CFA + k where fp is FRAME.
        lr: (n,) uint8, `Lr`.
        fp_slot: (n,) int64, bytes from the CFA of a word that holds the caller's frame pointer; else 0.
        fp_saved: (n,) uint8, `Slot`: whether there is such a word.
        ra_slot: (n,) int64, likewise for the return address.
        ra_saved: (n,) uint8.
        shadow: (n,) bool, the return address is the newest entry of the shadow call stack (x18).
    """

    s: Off
    s_known: Mask
    fp: Code
    k: Off
    lr: Code
    fp_slot: Off
    fp_saved: Code
    ra_slot: Off
    ra_saved: Code
    shadow: Mask

    def __len__(self) -> int:
        return int(self.s.size)

    @classmethod
    def entry(cls, count: int) -> State:
        """Give the state on entry of a function: CFA = SP, the caller's x29, the return address in x30."""
        zero = np.zeros(count, dtype=np.int64)
        no = np.zeros(count, dtype=np.bool_)
        return cls(
            s=zero,
            s_known=~no,
            fp=np.full(count, Fp.CALLER, dtype=np.uint8),
            k=zero.copy(),
            lr=np.full(count, Lr.RETURN, dtype=np.uint8),
            fp_slot=zero.copy(),
            fp_saved=np.zeros(count, dtype=np.uint8),
            ra_slot=zero.copy(),
            ra_saved=np.zeros(count, dtype=np.uint8),
            shadow=no.copy(),
        )

    @classmethod
    def unknown(cls, count: int) -> State:
        """Give states of which nothing is known."""
        state = cls.entry(count)
        state.lose(np.arange(count, dtype=np.int64))
        return state

    def lose(self, rows: Row) -> None:
        """Forget everything about some states."""
        self.s[rows] = self.k[rows] = self.fp_slot[rows] = self.ra_slot[rows] = 0
        self.s_known[rows] = self.shadow[rows] = False
        self.fp[rows], self.lr[rows] = Fp.UNKNOWN, Lr.UNKNOWN
        self.fp_saved[rows] = self.ra_saved[rows] = Slot.MAYBE

    def take(self, rows: Row) -> State:
        """Give the chosen states."""
        return State(*(getattr(self, item.name)[rows] for item in fields(self)))

    def put(self, rows: Row, other: State) -> None:
        """Store states: entry i of `other` goes to rows[i]."""
        for item in fields(self):
            getattr(self, item.name)[rows] = getattr(other, item.name)

    def copy(self) -> State:
        """Give a copy that shares no memory."""
        return State(*(getattr(self, item.name).copy() for item in fields(self)))

    def meet(self, other: State) -> tuple[State, Mask]:
        """Give what holds in both, pair by pair, and where that is less than what held in `self`."""
        same_s = self.s_known & other.s_known & (self.s == other.s)
        same_fp = (self.fp == other.fp) & ((self.fp != Fp.FRAME) | (self.k == other.k))
        fp_saved, fp_slot = _meet_slots(self.fp_saved, self.fp_slot, other.fp_saved, other.fp_slot)
        ra_saved, ra_slot = _meet_slots(self.ra_saved, self.ra_slot, other.ra_saved, other.ra_slot)
        met = State(
            s=np.where(same_s, self.s, 0),
            s_known=same_s,
            fp=np.where(same_fp, self.fp, np.uint8(Fp.UNKNOWN)),
            k=np.where(same_fp, self.k, 0),
            lr=np.where(self.lr == other.lr, self.lr, np.uint8(Lr.UNKNOWN)),
            fp_slot=fp_slot,
            fp_saved=fp_saved,
            ra_slot=ra_slot,
            ra_saved=ra_saved,
            shadow=self.shadow & other.shadow,
        )
        less = (met.s_known != self.s_known) | (met.fp != self.fp) | (met.lr != self.lr)
        less |= (met.fp_saved != self.fp_saved) | (met.ra_saved != self.ra_saved) | (met.shadow != self.shadow)
        return met, less


def _meet_slots(one: Code, at_one: Off, two: Code, at_two: Off) -> tuple[Code, Off]:
    """Give what holds of both slots: `Slot` and offset."""
    held_one, held_two = _held(one), _held(two)
    both = held_one & held_two & (at_one == at_two)
    alone = both & (one == Slot.YES) & (two == Slot.YES)
    neither = (one == Slot.NO) & (two == Slot.NO)
    saved = np.where(alone, np.uint8(Slot.YES), np.where(both, np.uint8(Slot.FIRST), np.uint8(Slot.MAYBE)))
    return np.where(neither, np.uint8(Slot.NO), saved), np.where(both, at_one, 0)


def _held(saved: Code) -> Mask:
    """(n,) bool: the word at the state's offset holds the value."""
    found: Mask = (saved == Slot.YES) | (saved == Slot.FIRST)
    return found


def claimed_state(rules: RuleTable, row: Row | Row32) -> State:
    """Give the weakest state that makes each row true.

    Args:
        rules: ABI defaults applied.
        row: (n,) int64, row numbers, none negative.
    """
    base = rules.cfa_base[row]
    cfa_off = rules.cfa_off[row].astype(np.int64)
    on_fp = base == CfaBase.FP
    kept = rules.fp_rule[row] == FpRule.UNCHANGED
    fp = np.where(on_fp, np.uint8(Fp.FRAME), np.where(kept, np.uint8(Fp.CALLER), np.uint8(Fp.UNKNOWN)))
    on_sp = base == CfaBase.SP
    return State(
        s=np.where(on_sp, cfa_off, 0),
        s_known=on_sp,
        fp=fp.astype(np.uint8),
        k=np.where(on_fp, -cfa_off, 0),
        lr=np.where(rules.ra_rule[row] == RaRule.IN_LR, np.uint8(Lr.RETURN), np.uint8(Lr.UNKNOWN)),
        fp_slot=np.where(rules.fp_rule[row] == FpRule.AT_CFA, rules.fp_off[row], 0).astype(np.int64),
        fp_saved=np.where(rules.fp_rule[row] == FpRule.AT_CFA, np.uint8(Slot.FIRST), np.uint8(Slot.MAYBE)),
        ra_slot=np.where(rules.ra_rule[row] == RaRule.AT_CFA, rules.ra_off[row], 0).astype(np.int64),
        ra_saved=np.where(rules.ra_rule[row] == RaRule.AT_CFA, np.uint8(Slot.FIRST), np.uint8(Slot.MAYBE)),
        shadow=np.zeros(row.shape, dtype=np.bool_),
    )


def fits(state: State, rules: RuleTable, row: Row | Row32) -> NDArray[np.uint8]:
    """Judge rows by states, pair by pair.

    Args:
        state: n states.
        rules: ABI defaults applied.
        row: (n,) int64; -1 stands for a function without rules, which must be entered as functions are.

    Returns:
        (n,) uint8, `Fit`.
    """
    safe = np.maximum(row, 0)
    bare = row < 0
    base = np.where(bare, np.uint8(CfaBase.SP), rules.cfa_base[safe])
    cfa_off = np.where(bare, 0, rules.cfa_off[safe].astype(np.int64))
    fp_rule = np.where(bare, np.uint8(FpRule.UNCHANGED), rules.fp_rule[safe])
    ra_rule = np.where(bare, np.uint8(RaRule.IN_LR), rules.ra_rule[safe])
    on_sp, on_fp = base == CfaBase.SP, base == CfaBase.FP
    no = on_sp & state.s_known & (state.s != cfa_off)
    open_ = (on_sp & ~state.s_known) | ~(on_sp | on_fp)
    frame = state.fp == Fp.FRAME
    no |= on_fp & ((frame & (-state.k != cfa_off)) | (state.fp == Fp.CALLER) | (state.fp == Fp.CLOBBERED))
    open_ |= on_fp & (state.fp == Fp.UNKNOWN)
    kept = fp_rule == FpRule.UNCHANGED
    no |= kept & ((state.fp == Fp.CLOBBERED) | frame)
    open_ |= kept & (state.fp == Fp.UNKNOWN)
    stored = fp_rule == FpRule.AT_CFA
    wrong, unknown = _misses(state, state.fp_saved, state.fp_slot, rules.fp_off[safe])
    no |= stored & wrong
    open_ |= stored & unknown
    in_lr = ra_rule == RaRule.IN_LR
    no |= in_lr & (state.lr == Lr.CLOBBERED)
    open_ |= in_lr & (state.lr == Lr.UNKNOWN)
    stored_ra = ra_rule == RaRule.AT_CFA
    wrong, unknown = _misses(state, state.ra_saved, state.ra_slot, rules.ra_off[safe])
    no |= stored_ra & wrong
    open_ |= stored_ra & unknown
    open_ |= ~(kept | stored) | ~(in_lr | stored_ra)
    return np.where(no, np.uint8(Fit.NO), np.where(open_, np.uint8(Fit.OPEN), np.uint8(Fit.YES))).astype(np.uint8)


def _misses(state: State, saved: Code, slot: Off, claimed: Off32) -> tuple[Mask, Mask]:
    """Judge claims that a word holds a value: (n,) bool each, surely not so, not surely so.

    No word below SP holds anything: the next exception overwrites it.
    """
    there = _held(saved) & (slot == claimed)
    sole = (saved == Slot.NO) | (saved == Slot.YES) | (state.s_known & (claimed < -state.s))
    return ~there & sole, ~there & ~sole
