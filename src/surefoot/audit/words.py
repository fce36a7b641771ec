"""Layer 6: rows and counts in words, as the reports print them."""

from __future__ import annotations

from typing import Final

from surefoot.metadata.rules import CfaBase, FpRule, RaRule, RuleTable
from surefoot.proof.machine import Fp, Lr, Slot, State

__all__ = ["STUB_ENDS", "STUB_MARKS", "instructions", "is_linker_stub", "row_words", "state_words"]

STUB_MARKS: Final = ("e843419@", "e835769@")
STUB_ENDS: Final = ("_veneer",)
"""How GNU ld names the code that it makes (bfd/elfnn-aarch64.c: STUB_ENTRY_NAME)."""


def instructions(count: int) -> str:
    """Say "1 instruction" or "7 instructions"."""
    return f"{count} instruction{'' if count == 1 else 's'}"


def is_linker_stub(name: str) -> bool:
    """Whether a symbol names code that the linker made."""
    return name.startswith(STUB_MARKS) or name.endswith(STUB_ENDS)


def row_words(rules: RuleTable, row: int) -> str:
    """Say what a row claims, such as "CFA=x29+80 x29=[CFA-80] RA=[CFA-72]".

    Args:
        rules: the table.
        row: its row; -1 gives "no row".
    """
    if row < 0:
        return "no row"
    base, off = int(rules.cfa_base[row]), int(rules.cfa_off[row])
    cfa = {CfaBase.SP: f"SP{off:+d}", CfaBase.FP: f"x29{off:+d}", CfaBase.UNDEFINED: "undefined"}.get(
        CfaBase(base), "an expression"
    )
    fp_rule, fp_off = int(rules.fp_rule[row]), int(rules.fp_off[row])
    fp = {FpRule.AT_CFA: f"[CFA{fp_off:+d}]", FpRule.UNCHANGED: "x29", FpRule.UNDEFINED: "lost"}.get(
        FpRule(fp_rule), "not stated"
    )
    ra_rule, ra_off = int(rules.ra_rule[row]), int(rules.ra_off[row])
    ra = {RaRule.AT_CFA: f"[CFA{ra_off:+d}]", RaRule.IN_LR: "x30", RaRule.UNDEFINED: "none"}.get(
        RaRule(ra_rule), "not stated"
    )
    return f"CFA={cfa} x29={fp} RA={ra}"


def state_words(state: State, row: int) -> str:
    """Say what is known of the machine, such as "SP=CFA-80, x29 is the caller's, return address at CFA-72".

    Args:
        state: machine states.
        row: which of them.
    """
    parts = [f"SP=CFA{-int(state.s[row]):+d}" if state.s_known[row] else "SP is not known"]
    if int(state.fp[row]) == Fp.FRAME:
        parts.append(f"x29=CFA{int(state.k[row]):+d}")
    else:
        known = {Fp.CALLER: "x29 is the caller's", Fp.CLOBBERED: "x29 is neither the caller's nor a frame's"}
        parts.append(known.get(Fp(int(state.fp[row])), "x29 is not known"))
    places = ["in x30"] if int(state.lr[row]) == Lr.RETURN else []
    if int(state.ra_saved[row]) in {Slot.YES, Slot.FIRST}:
        places.append(f"at CFA{int(state.ra_slot[row]):+d}")
    if bool(state.shadow[row]):
        places.append("on the shadow call stack")
    parts.append(f"return address {' and '.join(places)}" if places else "return address not known to be anywhere")
    return ", ".join(parts)
