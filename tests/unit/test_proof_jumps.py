"""Jump tables: each form that compilers emit, in any order; and each way in which one may not be what it seems."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from a64 import FP, LR, NOP, RET, SP, Asm, Row, ldp, mov, stp
from surefoot.dtypes import Bytes
from surefoot.proof.domain import Code
from surefoot.proof.prove import Open, Proof, prove
from surefoot.proof.verdicts import Verdict

TABLE = 0x48_0000
FRAME = Row(32, SP, -32, -24)
CASES = 4
HI, LS, CS, LO, GT = 8, 9, 2, 3, 12


@dataclass
class Data:
    """Read-only bytes at one place."""

    content: bytes
    addr: int = TABLE

    def read(self, addr: int, size: int) -> Bytes | None:
        """Give bytes of the one place."""
        if not self.addr <= addr <= addr + size <= self.addr + len(self.content):
            return None
        return np.frombuffer(self.content, dtype=np.uint8)[addr - self.addr : addr - self.addr + size]


def cmp_w(register: int, amount: int) -> int:
    return 0x7100_001F | amount << 10 | register << 5


def cmp_x(register: int, amount: int) -> int:
    return cmp_w(register, amount) | 1 << 31


def address(asm: Asm, register: int, goal: int = TABLE) -> list[int]:
    """ADRP and ADD of the table; the code lies in one page."""
    pages = (goal >> 12) - (asm.base >> 12)
    low = 0x9100_0000 | (goal & 0xFFF) << 10 | register << 5 | register
    return [0x9000_0000 | (pages & 3) << 29 | (pages >> 2) << 5 | register, low]


def load(kind: int, to: int, base: int, index: int, option: int) -> int:
    """LDR* (register): `kind` is bits 31:22, `option` 2 for UXTW, 3 for LSL, 6 for SXTW; scaled."""
    return kind << 22 | 1 << 21 | index << 16 | option << 13 | 1 << 12 | 2 << 10 | base << 5 | to


LDRB, LDRH, LDRSW, LDR = 0b0011100001, 0b0111100001, 0b1011100010, 0b1111100001


def br(register: int) -> int:
    return 0xD61F_0000 | register << 5


def add_ext(to: int, one: int, two: int, option: int, shift: int) -> int:
    return 0x8B20_0000 | two << 16 | option << 13 | shift << 10 | one << 5 | to


def add_lsl(to: int, one: int, two: int, shift: int) -> int:
    return 0x8B00_0000 | two << 16 | shift << 10 | one << 5 | to


def switch(dispatch: Callable[[Asm], None], body: int = NOP, back: str = "out") -> Asm:
    """A function with a frame, a dispatch and cases; the first does `body` and goes `back`, the others to the end."""
    asm = Asm()
    asm.function("f")
    asm.put(stp(FP, LR, SP, -32, "pre"))
    asm.row(FRAME)
    dispatch(asm)
    for number in range(CASES):
        asm.label(f"case{number}")
        asm.put(NOP if number else body)
        asm.b("out" if number else back)
    asm.label("out")
    asm.put(ldp(FP, LR, SP, 32, "post"))
    asm.row(Row())
    asm.put(RET)
    return asm


def entries(asm: Asm, kind: str, origin: str | int, shift: int) -> bytes:
    base = asm.labels[origin] if isinstance(origin, str) else origin
    values = [(asm.labels[f"case{number}"] - base) >> shift for number in range(CASES)]
    return np.array(values, dtype=kind).tobytes()


def result(asm: Asm, content: bytes) -> Proof:
    return prove(asm.rules(), [(asm.base, asm.code())], Code(data=Data(content)))


def is_proven(proof: Proof) -> bool:
    return set(proof.verdicts.tolist()) == {Verdict.PROVEN}


def gcc(asm: Asm, condition: int = HI, *, swapped: bool = False, compare: int = 0) -> None:
    """GCC's switch with bytes."""
    asm.put(compare or cmp_w(0, CASES - 1))
    asm.b_if(condition, "out")
    if swapped:
        asm.adr(3, "case0")
    asm.put(*address(asm, 1), load(LDRB, 2, 1, 0, 2))
    if not swapped:
        asm.adr(3, "case0")
    asm.put(add_ext(2, 3, 2, 4, 2), br(2))


@pytest.mark.parametrize("swapped", [False, True])
def test_gcc_bytes(swapped: bool) -> None:
    asm = switch(lambda asm: gcc(asm, swapped=swapped))
    assert is_proven(result(asm, entries(asm, "i1", "case0", 2)))


@pytest.mark.parametrize(("condition", "amount"), [(HI, CASES - 1), (CS, CASES)])
def test_conditions_that_bound(condition: int, amount: int) -> None:
    asm = switch(lambda asm: gcc(asm, condition, compare=cmp_w(0, amount)))
    assert is_proven(result(asm, entries(asm, "i1", "case0", 2)))


@pytest.mark.parametrize("condition", [LS, LO, GT, 14])
def test_conditions_that_do_not(condition: int) -> None:
    """The other way round; signed; always."""
    asm = switch(lambda asm: gcc(asm, condition))
    assert Open.INDIRECT_JUMP in result(asm, entries(asm, "i1", "case0", 2)).open


def test_gcc_halfwords_behind_a_taken_branch() -> None:
    def dispatch(asm: Asm) -> None:
        asm.put(cmp_w(0, CASES - 1))
        asm.b_if(LS, "inside")
        asm.b("out")
        asm.label("inside")
        asm.put(*address(asm, 1), load(LDRH, 2, 1, 0, 2))
        asm.adr(3, "case0")
        asm.put(add_ext(2, 3, 2, 5, 2), br(2))

    asm = switch(dispatch)
    assert is_proven(result(asm, entries(asm, "i2", "case0", 2)))


def test_llvm_bytes_and_shifted_sum() -> None:
    def dispatch(asm: Asm) -> None:
        asm.put(0x2A00_03E8, cmp_w(8, CASES - 1))  # mov w8, w0
        asm.b_if(HI, "out")
        asm.put(*address(asm, 9))
        asm.adr(10, "case0")
        asm.put(load(LDRB, 11, 9, 8, 3), add_lsl(10, 10, 11, 2), br(10))

    asm = switch(dispatch)
    assert is_proven(result(asm, entries(asm, "u1", "case0", 2)))


def test_llvm_words_relative_to_the_table() -> None:
    def dispatch(asm: Asm) -> None:
        asm.put(cmp_x(0, CASES - 1))
        asm.b_if(HI, "out")
        asm.put(*address(asm, 8), load(LDRSW, 9, 8, 0, 3), add_lsl(8, 8, 9, 0), br(8))

    asm = switch(dispatch)
    assert is_proven(result(asm, entries(asm, "i4", TABLE, 0)))


def goto(asm: Asm) -> None:
    """An interpreter: the table's address is made once, every handler goes on to the next."""
    asm.put(*address(asm, 19), 0x3940_0021, load(LDR, 2, 19, 1, 6), br(2))


def test_computed_goto_from_every_handler() -> None:
    """Only jumps lead to the handlers: that x19 holds the table there is an induction over them."""
    asm = Asm()
    asm.function("f")
    asm.put(stp(FP, LR, SP, -32, "pre"))
    asm.row(FRAME)
    goto(asm)
    asm.label("handler")
    asm.put(0x3940_0021, load(LDR, 2, 19, 1, 6), br(2))  # ldrb w1, [x1]
    asm.label("out")
    asm.put(ldp(FP, LR, SP, 32, "post"))
    asm.row(Row())
    asm.put(RET)
    handlers = np.full(256, asm.labels["handler"], dtype=np.uint64)
    handlers[7] = asm.labels["out"]
    assert is_proven(result(asm, handlers.tobytes()))
    handlers[8] = asm.base + 0x1000
    assert Open.INDIRECT_JUMP in result(asm, handlers.tobytes()).open


def test_computed_goto_whose_handler_changes_the_table() -> None:
    asm = Asm()
    asm.function("f")
    asm.put(stp(FP, LR, SP, -32, "pre"))
    asm.row(FRAME)
    goto(asm)
    asm.label("handler")
    asm.put(mov(19, 4), 0x3940_0021, load(LDR, 2, 19, 1, 6), br(2))
    asm.label("out")
    asm.put(ldp(FP, LR, SP, 32, "post"))
    asm.row(Row())
    asm.put(RET)
    handlers = np.full(256, asm.labels["handler"], dtype=np.uint64)
    assert Open.INDIRECT_JUMP in result(asm, handlers.tobytes()).open


def test_a_choice_of_two_addresses() -> None:
    def dispatch(asm: Asm) -> None:
        asm.adr(1, "case0")
        asm.adr(2, "case1")
        asm.put(0x9A82_0021, br(1))  # csel x1, x1, x2, eq

    asm = switch(dispatch)
    proof = result(asm, b"")
    assert Open.INDIRECT_JUMP not in proof.open
    cases = np.array([asm.labels["case0"], asm.labels["case1"], asm.labels["case2"]], dtype=np.uint64)
    assert proof.verdict(cases).tolist() == [Verdict.PROVEN, Verdict.PROVEN, Verdict.UNPROVEN]


def spoilt(where: str) -> Asm:
    """GCC's switch with something in between."""

    def dispatch(asm: Asm) -> None:
        asm.put(cmp_w(0, CASES - 1))
        if where == "flags":
            asm.put(cmp_w(5, 1))
        if where == "index before":
            asm.put(mov(0, 6))
        if where == "call before":
            asm.bl("f")
        asm.b_if(HI, "out")
        if where == "index":
            asm.put(mov(0, 6))
        if where == "call":
            asm.bl("f")
        if where == "post-index":
            asm.put(0x3840_1405)  # ldrb w5, [x0], #1
        asm.put(*address(asm, 1), load(LDRB, 2, 1, 0, 2))
        asm.adr(3, "case0")
        asm.put(add_ext(2, 3, 2, 4, 2), br(2))

    return switch(dispatch)


@pytest.mark.parametrize("where", ["flags", "index before", "call before", "index", "call", "post-index"])
def test_a_bound_that_does_not_hold(where: str) -> None:
    asm = spoilt(where)
    assert Open.INDIRECT_JUMP in result(asm, entries(asm, "i1", "case0", 2)).open


@pytest.mark.parametrize(("body", "bounded"), [(NOP, True), (mov(0, 6), False)])
def test_a_case_that_jumps_back_behind_the_check(body: int, *, bounded: bool) -> None:
    """The bound still holds unless the case changes the index."""

    def dispatch(asm: Asm) -> None:
        asm.put(cmp_w(0, CASES - 1))
        asm.b_if(HI, "out")
        asm.label("again")
        asm.put(NOP, *address(asm, 1), load(LDRB, 2, 1, 0, 2))
        asm.adr(3, "case0")
        asm.put(add_ext(2, 3, 2, 4, 2), br(2))

    asm = switch(dispatch, body, "again")
    assert is_proven(result(asm, entries(asm, "i1", "case0", 2))) == bounded


def test_a_table_that_may_be_written() -> None:
    asm = switch(gcc)
    proof = prove(asm.rules(), [(asm.base, asm.code())])
    assert set(proof.open.tolist()) == {Open.INDIRECT_JUMP}


def test_a_table_that_is_longer_than_what_is_known() -> None:
    asm = switch(gcc)
    assert Open.INDIRECT_JUMP in result(asm, entries(asm, "i1", "case0", 2)[:-1]).open


def test_an_entry_that_leads_out_of_the_function() -> None:
    asm = switch(gcc)
    content = bytearray(entries(asm, "i1", "case0", 2))
    content[1] = 127
    assert Open.INDIRECT_JUMP in result(asm, bytes(content)).open


def test_an_entry_into_a_wrong_state_is_seen() -> None:
    """One case lands where the frame is gone."""
    asm = switch(gcc)
    content = bytearray(entries(asm, "i1", "case0", 2))
    content[1] = (asm.labels["out"] + 4 - asm.labels["case0"]) >> 2
    proof = result(asm, bytes(content))
    assert not is_proven(proof)
    assert proof.verdict(np.array([asm.labels["out"] + 4], dtype=np.uint64)).tolist() != [Verdict.PROVEN]


def test_an_index_whose_upper_half_is_not_known() -> None:
    """The comparison looks at 32 bits, the load at 64."""

    def dispatch(asm: Asm) -> None:
        asm.put(cmp_w(0, CASES - 1))
        asm.b_if(HI, "out")
        asm.put(*address(asm, 1), load(LDRB, 2, 1, 0, 3))
        asm.adr(3, "case0")
        asm.put(add_ext(2, 3, 2, 4, 2), br(2))

    asm = switch(dispatch)
    assert Open.INDIRECT_JUMP in result(asm, entries(asm, "i1", "case0", 2)).open


def test_a_variant_of_the_comparison_is_no_bound() -> None:
    """The kernel may put a NOP in its place."""
    asm = switch(gcc)
    site = np.array([asm.base + 4], dtype=np.uint64)
    code = Code(
        sites=site,
        words=np.array([NOP], dtype=np.uint32),
        targets=np.zeros(1, dtype=np.uint64),
        data=Data(entries(asm, "i1", "case0", 2)),
    )
    assert Open.INDIRECT_JUMP in prove(asm.rules(), [(asm.base, asm.code())], code).open
