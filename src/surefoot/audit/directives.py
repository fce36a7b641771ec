"""Layer 6: the call frame directives that would describe hand-written code, as its author could write them.

The code is analysed as the prover analyses compiled code, from the state of a call on entry. Where the state before
an instruction is known exactly, the directives are finished; where it is not, that is said. A suggestion, never a
rule: nothing unwinds by it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from surefoot.audit.textmap import TextMap
from surefoot.dtypes import Addr
from surefoot.metadata.rules import CfaBase, FpRule, FunctionIndex, Provenance, RaRule, RuleTable
from surefoot.proof.domain import Code
from surefoot.proof.machine import Fp, Lr, Slot, State
from surefoot.proof.prove import Open, Proof, prove

__all__ = ["Suggestion", "default_suggestion", "suggestions"]

_FP, _RA, _SP = 29, 30, 31
"""DWARF numbers of the registers (AADWARF64, section 4.1)."""
_HELD: Final = (Slot.YES, Slot.FIRST)
_LOST: Final = {
    Open.INDIRECT_JUMP: "an indirect jump has targets that are not known",
    Open.UNUSABLE: "the code is not in the file",
}


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What the author of one function could write.

    Attributes:
        lines: "+0x8: .cfi_def_cfa_offset 16" and the like, in order: what to put before the instruction at that
            offset; or "+0x8: not known: ..." where the state is not known.
        known: places with directives, the start and the end left out.
        open: places at which the state begins to be unknown.
    """

    lines: tuple[str, ...]
    known: int
    open: int

    def __str__(self) -> str:
        if not self.known and not self.open:
            return "neither SP nor x29 nor x30 is ever written, so that its start and its end say all"
        if not self.open:
            return f"what holds is known throughout, and is stated at {_places(self.known)} between start and end"
        return f"what holds is stated at {_places(self.known)}; from {_places(self.open)} on it is not known"


class _Frame(NamedTuple):
    """What directives say: the CFA is `base` + `off`, x29 and x30 are at the CFA + `fp`, `ra`; None: unchanged."""

    base: int
    off: int
    fp: int | None
    ra: int | None


_ENTRY: Final = _Frame(_SP, 0, None, None)


def suggestions(text: TextMap, start: Addr, end: Addr, code: Code) -> list[Suggestion]:
    """Suggest directives for functions.

    Args:
        text: the words.
        start: (b,) uint64, ascending addresses of functions that are called as functions are.
        end: (b,) uint64, the addresses behind them.
        code: how the image's code runs.
    """
    if not start.size:
        return []
    low, high = text.span(start, end)
    spans = zip(start.tolist(), low.tolist(), high.tolist(), strict=True)
    ranges = [(addr, text.words[first:last]) for addr, first, last in spans]
    proof = prove(_entry_rules(start, end), ranges, code)
    return [_suggestion(proof, func, int(high[func] - low[func])) for func in range(start.size)]


def default_suggestion(size: int) -> Suggestion:
    """Suggest directives for a function of `size` bytes that writes neither SP nor x29 nor x30."""
    return Suggestion(("+0x0: .cfi_startproc", f"+{size:#x}: .cfi_endproc"), 0, 0)


def _places(count: int) -> str:
    return f"{count} place{'' if count == 1 else 's'}"


def _entry_rules(start: Addr, end: Addr) -> RuleTable:
    """Give the rules that would hold if nothing were ever moved: one row for each function."""
    count = start.size
    zero, none = np.zeros(count, dtype=np.int32), np.full(count, -1, dtype=np.int32)
    rows = np.arange(count, dtype=np.int64)
    bytes_ = np.zeros(count, dtype=np.uint8)
    index = FunctionIndex(
        start=start,
        size=end - start,
        first_row=rows,
        row_count=np.ones(count, dtype=np.int64),
        provenance=np.full(count, Provenance.DEBUG_FRAME, dtype=np.uint8),
        flags=bytes_,
        source_off=rows,
        section=none,
        rep_size=bytes_,
        reason=none.astype(np.int16),
    )
    return RuleTable(
        start=start,
        cfa_base=np.full(count, CfaBase.SP, dtype=np.uint8),
        cfa_off=zero,
        fp_rule=np.full(count, FpRule.UNCHANGED, dtype=np.uint8),
        fp_off=zero,
        ra_rule=np.full(count, RaRule.IN_LR, dtype=np.uint8),
        ra_off=zero,
        ra_signed=np.zeros(count, dtype=np.bool_),
        func=rows.astype(np.int32),
        side=none,
        functions=index,
    )


def _suggestion(proof: Proof, func: int, size: int) -> Suggestion:
    """Write the directives of one function of `size` instructions."""
    lines, known, lost = ["+0x0: .cfi_startproc"], 0, 0
    before: _Frame | str = _ENTRY
    for step in range(size):
        now = _frame(proof, int(proof.first[func]) + step)
        if now == before or now is None:
            continue
        if isinstance(now, str):
            lost += 1
            lines.append(f"+{4 * step:#x}: not known: {now}")
        else:
            known += 1
            lines.append(f"+{4 * step:#x}: {'; '.join(_directives(before, now))}")
        before = now
    return Suggestion((*lines, f"+{4 * size:#x}: .cfi_endproc"), known, lost)


def _frame(proof: Proof, at: int) -> _Frame | str | None:
    """Say what holds before an instruction, or why that is not known; None where nothing leads (fill, data)."""
    why = Open(int(proof.open[at]))
    if why is Open.NONE:
        return _ENTRY
    if why in _LOST:
        return _LOST[why]
    row = int(np.searchsorted(proof.state_at, at))
    if row >= proof.state_at.size or int(proof.state_at[row]) != at:
        return None
    return _of_state(proof.states, row)


def _of_state(state: State, row: int) -> _Frame | str:
    """Turn a machine state into what directives can say."""
    if state.s_known[row]:
        base, off = _SP, int(state.s[row])
    elif int(state.fp[row]) == Fp.FRAME:
        base, off = _FP, -int(state.k[row])
    else:
        return "where SP is depends on the path or on a register"
    # A value that is in its slot and still in its register is stated to be in the slot, as compilers do.
    fp = int(state.fp_slot[row]) if int(state.fp_saved[row]) in _HELD else None
    if fp is None and int(state.fp[row]) != Fp.CALLER:
        return "the caller's x29 is in no place that is followed (.cfi_register, if it is in a register)"
    ra = int(state.ra_slot[row]) if int(state.ra_saved[row]) in _HELD else None
    if ra is None and int(state.lr[row]) != Lr.RETURN:
        return "the return address is in no place that is followed (.cfi_register, if it is in a register)"
    return _Frame(base, off, fp, ra)


def _directives(before: _Frame | str, now: _Frame) -> Iterator[str]:
    """Write what changes; all, where what was before is not known."""
    whole = isinstance(before, str)
    old = _ENTRY if isinstance(before, str) else before
    if whole or now.base != old.base:
        yield f".cfi_def_cfa {now.base}, {now.off}"
    elif now.off != old.off:
        yield f".cfi_def_cfa_offset {now.off}"
    for register, slot, was in ((_FP, now.fp, old.fp), (_RA, now.ra, old.ra)):
        if whole or slot != was:
            yield f".cfi_restore {register}" if slot is None else f".cfi_offset {register}, {slot}"
