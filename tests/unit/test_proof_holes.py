"""Ways in which a proof could claim too much, each as a small program whose rule is false on some path."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from a64 import FP, LR, NOP, RET, SP, Asm, Row, add, ldp, ldr, mov, stp, str_, sub
from surefoot.metadata.rules import FunctionFlag
from surefoot.proof.domain import Code
from surefoot.proof.prove import Open, Proof, prove
from surefoot.proof.verdicts import Verdict

FRAME = Row(32, SP, -32, -24)
OPENED = stp(FP, LR, SP, -32, "pre")
CLOSED = ldp(FP, LR, SP, 32, "post")


def proved(asm: Asm, code: Code | None = None) -> Proof:
    return prove(asm.rules(), [(asm.base, asm.code())], code)


def verdict(proof: Proof, asm: Asm, label: str) -> Verdict:
    return Verdict(int(proof.verdict(np.array([asm.labels[label]], dtype=np.uint64))[0]))


def addrs(*values: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.array(values, dtype=np.uint64)


def framed(asm: Asm, name: str, *body: int) -> None:
    """Put a function with a frame that is right throughout; `name.in` is its first instruction behind the push."""
    asm.function(name)
    asm.put(OPENED)
    asm.row(FRAME)
    asm.label(f"{name}.in")
    asm.put(*body, NOP)
    asm.label(f"{name}.out")
    asm.put(CLOSED)
    asm.row(Row())
    asm.label(f"{name}.ret")
    asm.put(RET)


def test_a_right_function_is_proven() -> None:
    asm = Asm()
    framed(asm, "f")
    assert set(proved(asm).verdicts.tolist()) == {Verdict.PROVEN}


def test_a_row_that_comes_late_is_refuted_with_its_edge() -> None:
    asm = Asm()
    asm.function("f")
    asm.put(OPENED)
    asm.label("late")
    asm.put(NOP)
    asm.row(FRAME)
    asm.put(CLOSED)
    asm.row(Row())
    asm.put(RET)
    proof = proved(asm)
    assert proof.verdicts.tolist() == [Verdict.PROVEN, Verdict.REFUTED, Verdict.PROVEN, Verdict.PROVEN]
    assert (proof.edge_from.tolist(), proof.edge_to.tolist()) == ([asm.base], [asm.labels["late"]])
    assert proof.state_at.tolist() == [1]
    assert (proof.states.s.tolist(), proof.states.ra_slot.tolist()) == ([32], [-24])


def test_a_store_through_x29_that_hits_a_slot_is_seen_under_rows_based_on_sp() -> None:
    """The row does not say where x29 points; the fast path alone would let the store pass."""
    asm = Asm()
    framed(asm, "f", mov(FP, SP), str_(0, FP, 8))
    proof = proved(asm)
    assert verdict(proof, asm, "f.out") is Verdict.REFUTED


def test_a_store_through_sp_that_hits_a_slot_is_seen_under_rows_based_on_x29() -> None:
    asm = Asm()
    asm.function("f")
    asm.put(OPENED)
    asm.row(FRAME)
    asm.put(mov(FP, SP))
    asm.row(Row(32, FP, -32, -24))
    asm.put(str_(0, SP, 8))
    asm.label("hit")
    asm.put(CLOSED)
    asm.row(Row())
    asm.put(RET)
    assert verdict(proved(asm), asm, "hit") is Verdict.REFUTED


def test_a_store_below_sp_saves_nothing() -> None:
    """An exception overwrites what is below SP."""
    asm = Asm()
    asm.function("f")
    asm.put(str_(LR, SP, -16 & 0x1FF, "post") & ~0x400)  # STUR x30, [sp, #-16]
    asm.row(Row(0, SP, None, -16))
    asm.label("claim")
    asm.put(NOP, RET)
    proof = proved(asm)
    assert verdict(proof, asm, "claim") is Verdict.REFUTED


def test_a_row_that_names_a_slot_below_sp_is_refuted() -> None:
    """As in kernels with a shadow call stack: SP is back, x30 is still to be loaded, and the row names its slot."""
    asm = Asm()
    asm.function("f")
    asm.put(str_(LR, 18, 8, "post"), OPENED)
    asm.row(FRAME)
    asm.put(mov(LR, 0), add(SP, SP, 32))
    asm.row(Row(0, SP, None, -24))
    asm.label("below")
    asm.put(ldr(LR, 18, -8, "pre"))
    asm.row(Row())
    asm.label("popped")
    asm.put(RET)
    proof = proved(asm)
    assert verdict(proof, asm, "below") is Verdict.REFUTED
    assert verdict(proof, asm, "popped") is Verdict.PROVEN


def test_sp_that_rises_above_a_slot_is_seen_under_rows_based_on_x29() -> None:
    asm = Asm()
    asm.function("f")
    asm.put(OPENED)
    asm.row(FRAME)
    asm.put(mov(FP, SP))
    asm.row(Row(32, FP, -32, -24))
    asm.put(add(SP, SP, 32))
    asm.label("risen")
    asm.put(NOP)
    asm.label("still")
    asm.put(sub(SP, SP, 32))
    asm.put(CLOSED)
    asm.row(Row())
    asm.put(RET)
    proof = proved(asm)
    assert verdict(proof, asm, "risen") is Verdict.REFUTED
    assert verdict(proof, asm, "still") is Verdict.REFUTED


def test_a_jump_out_of_a_wrong_state_reaches_into_another_function() -> None:
    """The other function is right by itself; what enters its middle is not."""
    asm = Asm()
    framed(asm, "g")
    asm.function("f")
    asm.put(OPENED)  # no row follows: the claim at the branch is false
    asm.b("g.ret")
    proof = proved(asm)
    assert verdict(proof, asm, "g.ret") is not Verdict.PROVEN
    assert verdict(proof, asm, "g.in") is Verdict.PROVEN


def test_a_call_into_the_middle_of_a_function_enters_it_like_one() -> None:
    asm = Asm()
    framed(asm, "g")
    asm.function("f")
    asm.put(OPENED)
    asm.row(FRAME)
    asm.bl("g.out")
    asm.put(CLOSED)
    asm.row(Row())
    asm.put(RET)
    assert verdict(proved(asm), asm, "g.out") is not Verdict.PROVEN


def test_a_symbol_inside_a_function_is_an_entry() -> None:
    asm = Asm()
    framed(asm, "g")
    code = Code(entries=addrs(asm.labels["g"], asm.labels["g.in"]))
    proof = proved(asm, code)
    assert verdict(proof, asm, "g") is Verdict.PROVEN
    assert verdict(proof, asm, "g.in") is not Verdict.PROVEN


def test_code_without_rules_that_jumps_in_is_an_entry_of_unknown_state() -> None:
    asm = Asm()
    framed(asm, "g")
    asm.end()
    asm.label("bare")
    asm.put(NOP)
    asm.b("g.in")
    code = Code(entries=addrs(asm.labels["g"], asm.labels["bare"]))
    proof = proved(asm, code)
    assert verdict(proof, asm, "g.in") is Verdict.UNPROVEN
    assert proof.open.max() == Open.NOT_KNOWN


def test_data_among_code_without_rules_are_no_branches() -> None:
    asm = Asm()
    framed(asm, "g")
    asm.end()
    asm.label("bare")
    asm.put(RET)
    asm.b("g.in")  # nothing leads here
    proof = proved(asm, Code(entries=addrs(asm.labels["g"], asm.labels["bare"])))
    assert verdict(proof, asm, "g.in") is Verdict.PROVEN


def test_a_static_branch_falls_through_too() -> None:
    """Compiled as a branch, it may become a NOP."""
    asm = Asm()
    asm.function("f")
    asm.label("site")
    asm.b("out")
    asm.row(FRAME)
    asm.label("behind")
    asm.put(NOP)
    asm.put(CLOSED)
    asm.row(Row())
    asm.label("out")
    asm.put(RET)
    plain = proved(asm)
    assert verdict(plain, asm, "behind") is Verdict.UNPROVEN  # nothing leads there
    site, out = asm.labels["site"], asm.labels["out"]
    jump = int(asm.code()[0])
    code = Code(sites=addrs(site, site), words=np.array([NOP, jump], dtype=np.uint32), targets=addrs(0, out))
    assert verdict(proved(asm, code), asm, "behind") is Verdict.REFUTED


def test_an_alternative_that_moves_sp_is_an_edge() -> None:
    asm = Asm()
    asm.function("f")
    asm.label("site")
    asm.put(NOP)
    asm.label("behind")
    asm.put(NOP, RET)
    assert verdict(proved(asm), asm, "behind") is Verdict.PROVEN
    code = Code(sites=addrs(asm.base), words=np.array([sub(SP, SP, 16)], dtype=np.uint32), targets=addrs(0))
    assert verdict(proved(asm, code), asm, "behind") is not Verdict.PROVEN


def test_a_fixup_handler_that_writes_x30_loses_the_return_address() -> None:
    asm = Asm()
    asm.function("f")
    asm.label("load")
    asm.put(ldr(0, 1))
    asm.label("fixup")
    asm.put(RET)
    load, fixup = addrs(asm.labels["load"]), addrs(asm.labels["fixup"])
    assert verdict(proved(asm, Code(load, fixup)), asm, "fixup") is Verdict.PROVEN
    code = Code(load, fixup, fault_writes=np.array([1 << 30], dtype=np.uint32))
    assert verdict(proved(asm, code), asm, "fixup") is not Verdict.PROVEN


def test_an_indirect_jump_in_the_state_of_the_entry_is_no_tail_call_if_a_table_may_be_behind_it() -> None:
    """The target is the sum of two registers: it may be anywhere in the function."""
    asm = Asm()
    asm.function("f")
    asm.put(0x8B02_0021, 0xD61F_0020)  # add x1, x1, x2; br x1
    asm.row(Row(16))
    asm.put(add(SP, SP, 16))
    asm.row(Row())
    asm.put(RET)
    proof = proved(asm)
    assert set(proof.verdicts.tolist()) == {Verdict.UNPROVEN}
    assert set(proof.open.tolist()) == {Open.INDIRECT_JUMP}


def test_a_jump_to_anywhere_breaks_nothing_where_all_rows_are_that_of_the_entry() -> None:
    asm = Asm()
    asm.function("f")
    asm.put(0x8B02_0021, 0xD61F_0020, NOP, RET)
    assert set(proved(asm).verdicts.tolist()) == {Verdict.PROVEN}


def test_a_jump_to_anywhere_reaches_what_breaks_such_rows() -> None:
    asm = Asm()
    asm.function("f")
    asm.put(0x8B02_0021, 0xD61F_0020, sub(SP, SP, 16))
    asm.label("moved")
    asm.put(NOP, RET)
    assert verdict(proved(asm), asm, "moved") is not Verdict.PROVEN


def test_a_jump_through_a_pointer_from_memory_is_a_tail_call() -> None:
    asm = Asm()
    asm.function("f")
    asm.put(ldr(1, 0, 8), 0xD61F_0020)
    assert set(proved(asm).verdicts.tolist()) == {Verdict.PROVEN}


def test_functions_that_hang_together_with_an_unresolved_jump_are_unproven() -> None:
    asm = Asm()
    asm.function("f")
    asm.put(OPENED)
    asm.row(FRAME)
    asm.put(0x8B02_0021, 0xD61F_0020)
    asm.label("back")
    asm.b("part")
    asm.function("part", FRAME)
    asm.label("cold")
    asm.put(NOP)
    asm.b("back")
    proof = proved(asm)
    assert verdict(proof, asm, "cold") is Verdict.UNPROVEN


def test_a_part_that_the_compiler_moved_away_is_proven_by_the_branches_to_it() -> None:
    asm = Asm()
    asm.function("f")
    asm.put(OPENED)
    asm.row(FRAME)
    asm.cbz(0, "cold")
    asm.label("back")
    asm.put(CLOSED)
    asm.row(Row())
    asm.put(RET)
    asm.function("cold", FRAME)
    asm.put(NOP)
    asm.b("back")
    assert set(proved(asm).verdicts.tolist()) == {Verdict.PROVEN}


def test_what_nothing_reaches_is_not_proven() -> None:
    """A loop that leads only to itself: every claim would hold of every path to it."""
    asm = Asm()
    framed(asm, "f")
    asm.row(FRAME)
    asm.label("lost")
    asm.put(NOP)
    asm.b("lost")
    proof = proved(asm)
    assert verdict(proof, asm, "lost") is Verdict.UNPROVEN
    assert proof.open[-1] == Open.NOT_REACHED


def test_callers_of_a_function_that_returns_with_another_sp_are_unproven() -> None:
    asm = Asm()
    asm.function("g")
    asm.put(sub(SP, SP, 16))
    asm.row(Row(16))
    asm.label("g.ret")
    asm.put(RET)
    framed(asm, "f")
    asm.function("h")
    asm.put(OPENED)
    asm.row(FRAME)
    asm.bl("g")
    asm.label("after")
    asm.put(NOP, CLOSED)
    asm.row(Row())
    asm.put(RET)
    proof = proved(asm)
    assert asm.labels["g.ret"] in proof.exits.tolist()
    assert verdict(proof, asm, "after") is Verdict.UNPROVEN
    assert verdict(proof, asm, "f.out") is Verdict.PROVEN


@pytest.mark.parametrize("last", [RET, 0xD69F_03E0, 0xD61F_0000, NOP, 0xD63F_0000, 0x0000_0000])
def test_a_function_that_may_end_is_not_noreturn(last: int) -> None:
    """RET, ERET, BR, falling off the end, a call through a register at the end, an undefined word."""
    asm = Asm()
    asm.function("g")
    asm.put(NOP, last)
    asm.function("stop")
    asm.put(0xD420_0020)
    assert proved(asm).noreturn.tolist() == [False, True]


def test_a_fault_that_leaves_is_a_way_out() -> None:
    asm = Asm()
    asm.function("g")
    asm.label("load")
    asm.put(ldr(0, 1))
    asm.label("loop")
    asm.b("loop")
    asm.function("f")
    asm.put(RET)
    assert proved(asm).noreturn.tolist() == [True, False]
    code = Code(addrs(asm.labels["load"]), addrs(asm.labels["f"]))
    assert proved(asm, code).noreturn.tolist() == [False, False]


def test_a_call_that_the_kernel_may_replace_comes_back() -> None:
    asm = Asm()
    asm.function("stop")
    asm.put(0xD420_0020)
    asm.function("f")
    asm.put(OPENED)
    asm.row(FRAME)
    asm.label("call")
    asm.bl("stop")
    asm.row(Row())
    asm.label("behind")
    asm.put(NOP, RET)
    assert verdict(proved(asm), asm, "behind") is Verdict.UNPROVEN
    code = Code(sites=addrs(asm.labels["call"]), words=np.array([NOP], dtype=np.uint32), targets=addrs(0))
    assert verdict(proved(asm, code), asm, "behind") is Verdict.REFUTED


def test_only_a_push_by_eight_is_one_of_the_shadow_call_stack() -> None:
    """A pop takes what the eight bytes before x18 hold."""
    verdicts = []
    for amount in (8, 16):
        asm = Asm()
        asm.function("f")
        asm.put(str_(LR, 18, amount, "post"))
        asm.put(mov(LR, 0))
        asm.row(Row())
        asm.put(ldr(LR, 18, -8, "pre"))
        asm.label("popped")
        asm.put(RET)
        verdicts.append(verdict(proved(asm), asm, "popped"))
    assert verdicts == [Verdict.PROVEN, Verdict.UNPROVEN]


def test_a_stub_of_the_linker_counts_as_the_instruction_that_it_holds() -> None:
    asm = Asm()
    asm.function("f")
    asm.put(OPENED)
    asm.row(FRAME)
    asm.label("site")
    asm.b("stub")
    asm.label("back")
    asm.put(CLOSED)
    asm.row(Row())
    asm.put(RET)
    asm.end()
    asm.label("stub")
    asm.put(ldr(0, 1))
    asm.b("back")
    proof = proved(asm, Code(entries=addrs(asm.labels["f"], asm.labels["stub"])))
    assert set(proof.verdicts.tolist()) == {Verdict.PROVEN}
    assert proof.exits.tolist() == [asm.labels["site"]]


def test_a_stub_that_moves_sp_is_seen() -> None:
    asm = Asm()
    asm.function("f")
    asm.b("stub")
    asm.label("back")
    asm.put(RET)
    asm.end()
    asm.label("stub")
    asm.put(sub(SP, SP, 16))
    asm.b("back")
    assert verdict(proved(asm), asm, "back") is Verdict.REFUTED


def test_a_local_subroutine_is_no_function() -> None:
    """What BL into one's own body does before it comes back is not known."""
    asm = Asm()
    asm.function("f")
    asm.put(OPENED)
    asm.row(FRAME)
    asm.bl("sub")
    asm.label("after")
    asm.put(CLOSED)
    asm.row(Row())
    asm.put(RET)
    asm.row(FRAME)
    asm.label("sub")
    asm.put(sub(SP, SP, 16), RET)
    assert verdict(proved(asm), asm, "after") is Verdict.UNPROVEN


def test_two_places_on_two_paths_are_neither() -> None:
    """Both paths save x30, at different places."""
    asm = Asm()
    asm.function("f")
    asm.put(sub(SP, SP, 32))
    asm.row(Row(32))
    asm.cbz(0, "other")
    asm.put(str_(LR, SP, 8))
    asm.b("join")
    asm.label("other")
    asm.put(str_(LR, SP, 16))
    asm.row(Row(32, SP, None, -24))
    asm.label("join")
    asm.put(mov(LR, 0), NOP)
    assert verdict(proved(asm), asm, "join") is Verdict.UNPROVEN


def test_an_address_in_mid_instruction_has_no_verdict() -> None:
    asm = Asm()
    framed(asm, "f")
    assert proved(asm).verdict(addrs(asm.base + 2, asm.base)).tolist() == [Verdict.NO_METADATA, Verdict.PROVEN]


def test_x29_that_is_restored_early_is_refuted() -> None:
    """The row still computes the CFA from it."""
    asm = Asm()
    asm.function("f")
    asm.put(OPENED)
    asm.row(FRAME)
    asm.put(mov(FP, SP))
    asm.row(Row(32, FP, -32, -24))
    asm.put(CLOSED)
    asm.label("early")
    asm.put(NOP)
    asm.row(Row())
    asm.put(RET)
    assert verdict(proved(asm), asm, "early") is Verdict.REFUTED


def test_a_row_behind_its_functions_end_does_not_hide_the_next_function() -> None:
    """A look-up takes the last row that begins at or before an address."""
    asm = Asm()
    asm.function("f")
    asm.put(NOP, RET)
    framed(asm, "g")
    rules = asm.rules()
    rows = rules.take_rows(np.array([0, 0, *range(1, len(rules))]))
    start = rows.start.copy()
    start[1] = asm.labels["g.in"]
    proof = prove(dataclasses.replace(rows, start=start), [(asm.base, asm.code())])
    assert verdict(proof, asm, "f") is Verdict.UNPROVEN
    assert verdict(proof, asm, "g.in") is Verdict.PROVEN
    assert verdict(proof, asm, "g.ret") is Verdict.PROVEN


def test_rows_that_were_not_decoded_to_their_end_prove_nothing_of_what_they_enter() -> None:
    """A function that is refused jumps into the middle of another."""
    asm = Asm()
    framed(asm, "g")
    asm.function("f")
    asm.b("g.in")
    rules = asm.rules()
    flags = rules.functions.flags.copy()
    flags[1] = FunctionFlag.REFUSED
    rules = dataclasses.replace(rules, functions=dataclasses.replace(rules.functions, flags=flags))
    proof = prove(rules, [(asm.base, asm.code())])
    assert verdict(proof, asm, "f") is Verdict.UNPROVEN
    assert verdict(proof, asm, "g.in") is Verdict.UNPROVEN
    assert verdict(proof, asm, "g") is Verdict.PROVEN


def test_a_signal_frame_is_no_function() -> None:
    """Nobody calls it: its rows speak of what was interrupted."""
    asm = Asm()
    asm.function("f")
    asm.put(RET)
    rules = asm.rules()
    flags = np.array([FunctionFlag.SIGNAL], dtype=np.uint8)
    rules = dataclasses.replace(rules, functions=dataclasses.replace(rules.functions, flags=flags))
    proof = prove(rules, [(asm.base, asm.code())])
    assert proof.open.tolist() == [Open.UNUSABLE]
