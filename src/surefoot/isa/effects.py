"""Layer 1: what each A64 word does to SP, x29, x30, to memory near SP and x29, and to the flow of control.

Invariant: a word that the tables do not know may do anything. It gets flow UNDEFINED, OTHER for SP, x29 and x30, a
store ANYWHERE and every bit of `writes`. KEEP, ADD and the other exact answers are given only for encodings that
the tables allocate.

What the kernel does on behalf of an instruction (the handler of BRK, SVC, an abort) is not its effect. SVC, HVC and
SMC keep what the SMC calling convention keeps (DEN 0028: x18 to x30 and SP).

Source of all encodings and effects: Arm Architecture Reference Manual for A-profile (DDI 0487), C4 and C6 to C9.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Code, Insn, Mask, Off, Row
from surefoot.isa.fields import add_immediate, field, rd, rn, signed_field
from surefoot.isa.registers import FIELDS, named_registers
from surefoot.isa.tables import Exact, Offset, decoder, properties

__all__ = [
    "ALL_REGISTERS",
    "FP",
    "LR",
    "NO_REG",
    "SP",
    "Effects",
    "Flow",
    "FpEffect",
    "LrEffect",
    "PauthKey",
    "SpEffect",
    "Store",
    "effects",
    "register_reads",
]

FP: Final = 29
LR: Final = 30
SP: Final = 31
"""Register 31 in every column: SP, never the zero register."""
NO_REG: Final = 255
"""No register: the field has no meaning here, or it names the zero register."""
ALL_REGISTERS: Final = 0xFFFF_FFFF
"""`writes` of a word that may do anything."""
_TRACKED: Final = 0xE000_0000
_CHUNK: Final = 1 << 18
"""Words classified at a time, so that intermediate arrays stay in the cache."""


class Flow(IntEnum):
    """Where execution goes after the instruction."""

    NEXT = 0
    JUMP = 1
    """B."""
    COND = 2
    """A target or the next instruction: B.cond, BC.cond, CBZ, CBNZ, TBZ, TBNZ, CB<cc>."""
    CALL = 3
    """BL."""
    CALL_REG = 4
    """BLR and its authenticating forms, to `target_reg`."""
    JUMP_REG = 5
    """BR and its authenticating forms, to `target_reg`."""
    RETURN = 6
    """RET, RETAA, RETAB, RETAASPPC, RETABSPPC and their register forms, to `target_reg`."""
    ERET = 7
    """ERET, ERETAA, ERETAB, DRPS."""
    EXCEPTION = 8
    """SVC, HVC, SMC, BRK, HLT, DCPS: what they raise may come back to the next instruction."""
    UNDEFINED = 9
    """UDF and every encoding that the tables do not know: it traps, or does anything."""


class SpEffect(IntEnum):
    """What SP holds afterwards."""

    KEEP = 0
    ADD = 1
    """SP + `sp_imm`."""
    FROM_FP = 2
    """x29 + `sp_imm`."""
    OTHER = 3


class FpEffect(IntEnum):
    """What x29 holds afterwards."""

    KEEP = 0
    FROM_SP = 1
    """SP before the instruction + `fp_imm`."""
    ADD = 2
    """x29 + `fp_imm`."""
    LOAD = 3
    """All 64 bits from memory at register `fp_reg` (before the instruction) + `fp_imm`."""
    FROM_REG = 4
    """The 64 bits of register `fp_reg`."""
    OTHER = 5


class LrEffect(IntEnum):
    """What x30 holds afterwards."""

    KEEP = 0
    LOAD = 1
    """All 64 bits from memory at register `lr_reg` (before the instruction) + `lr_imm`."""
    CALL = 2
    """The address of the next instruction; after the callee returns, anything."""
    FROM_REG = 3
    """The 64 bits of register `lr_reg`."""
    SIGN = 4
    """x30 signed with an instruction key (`pauth_key`); `lr_reg` is the modifier, NO_REG for zero."""
    AUTH = 5
    """x30 authenticated; columns as for SIGN."""
    SIGN_PC = 6
    """As SIGN, the address of the instruction mixed into the modifier (FEAT_PAuth_LR)."""
    AUTH_PC = 7
    """As AUTH, with the address of the signing instruction (FEAT_PAuth_LR)."""
    STRIP = 8
    """The authentication code removed without a check."""
    OTHER = 9


class Store(IntEnum):
    """Through which register the instruction writes memory."""

    NONE = 0
    SP = 1
    FP = 2
    ELSEWHERE = 3
    """Through another register, `store_base`, or through addresses in vector registers (NO_REG)."""
    ANYWHERE = 4
    """Unknown encoding: any address."""


class PauthKey(IntEnum):
    """Key of a pointer authentication that concerns x30 or the target of a branch."""

    NONE = 0
    IA = 1
    IB = 2


@dataclass(frozen=True)
class Effects:
    """Effects of n words, column by column; every column has shape (n,).

    Attributes:
        flow: uint8, Flow.
        target_reg: uint8, register of RETURN, JUMP_REG and CALL_REG; else, and for the zero register, NO_REG.
        sp: uint8, SpEffect.
        sp_imm: int64 bytes, for ADD and FROM_FP; else 0.
        fp: uint8, FpEffect.
        fp_reg: uint8, base of LOAD (31 is SP) or source of FROM_REG; else NO_REG.
        fp_imm: int64 bytes, for FROM_SP, ADD and LOAD; else 0.
        lr: uint8, LrEffect.
        lr_reg: uint8, base of LOAD, source of FROM_REG, modifier of SIGN and AUTH; else NO_REG.
        lr_imm: int64 bytes, for LOAD; else 0.
        store: uint8, Store.
        store_base: uint8, register that the address comes from (31 is SP); NO_REG where there is none.
        store_off: int64 bytes, first byte written, from the base before the instruction.
        store_size: uint8 bytes written from there; 0 where there is no store or its extent is unknown.
        store_unknown: bool, the store's offset or size is not known.
        fp_at: int16, where inside the range [0, store_size) all 64 bits of x29 surely lie afterwards; -1 nowhere.
        lr_at: int16, likewise for x30.
        writes: uint32, bit r set if general register r may change; bit 31 is SP.
        is_bti: bool, a BTI of any kind, or a PACIASP, PACIBSP that counts as one.
        pauth_key: uint8, PauthKey, of SIGN, AUTH and of authenticating branches and returns.
    """

    flow: Code
    target_reg: Code
    sp: Code
    sp_imm: Off
    fp: Code
    fp_reg: Code
    fp_imm: Off
    lr: Code
    lr_reg: Code
    lr_imm: Off
    store: Code
    store_base: Code
    store_off: Off
    store_size: Code
    store_unknown: Mask
    fp_at: NDArray[np.int16]
    lr_at: NDArray[np.int16]
    writes: NDArray[np.uint32]
    is_bti: Mask
    pauth_key: Code

    def __len__(self) -> int:
        return int(self.flow.size)

    def take(self, which: NDArray[np.int64] | Mask | slice) -> Effects:
        """Give the effects of some of the words, as views where `which` is a slice."""
        return Effects(**{column.name: getattr(self, column.name)[which] for column in fields(self)})


def effects(words: Insn) -> Effects:
    """Classify instruction words.

    Args:
        words: (n,) uint32, host byte order.

    Returns:
        Effects of each word.

    Raises:
        Nothing. A word that is not known is data: see `Flow.UNDEFINED`.
    """
    result = _blank(words.size)
    for start in range(0, words.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        _classify(words[part], result.take(part))
    return result


def _blank(count: int) -> Effects:
    """Give columns of `count` words that do nothing."""

    def column(kind: type[np.generic], fill: int = 0) -> NDArray[Any]:
        return np.full(count, fill, dtype=kind) if fill else np.zeros(count, dtype=kind)

    return Effects(
        flow=column(np.uint8),
        target_reg=column(np.uint8, NO_REG),
        sp=column(np.uint8),
        sp_imm=column(np.int64),
        fp=column(np.uint8),
        fp_reg=column(np.uint8, NO_REG),
        fp_imm=column(np.int64),
        lr=column(np.uint8),
        lr_reg=column(np.uint8, NO_REG),
        lr_imm=column(np.int64),
        store=column(np.uint8),
        store_base=column(np.uint8, NO_REG),
        store_off=column(np.int64),
        store_size=column(np.uint8),
        store_unknown=column(np.bool_),
        fp_at=column(np.int16, -1),
        lr_at=column(np.int16, -1),
        writes=column(np.uint32),
        is_bti=column(np.bool_),
        pauth_key=column(np.uint8),
    )


def register_reads(words: Insn) -> NDArray[np.uint32]:
    """Give the general registers that each word may read.

    Args:
        words: (n,) uint32.

    Returns:
        (n,) uint32, bit r for register r, bit 31 for SP; all ones for words that are not known. The base of an
        address counts, the old value of a register that is only partly written too. SVC, HVC and SMC read x0 to
        x17; what their handlers read beyond that is not counted.
    """
    table = properties()
    form = decoder().decode(words)
    found = named_registers(words, form, table.read, table.read_fixed)
    found[table.flow[form] == Flow.UNDEFINED] = ALL_REGISTERS
    return found


def _classify(words: Insn, out: Effects) -> None:
    """Fill the columns of some words, which hold KEEP and NONE so far."""
    table = properties()
    form = decoder().decode(words)
    out.flow[:] = table.flow[form]
    out.writes[:] = named_registers(words, form, table.write, table.write_fixed)
    out.is_bti[:] = table.bti[form]
    out.pauth_key[:] = table.key[form]
    touched = np.flatnonzero(out.writes & np.uint32(_TRACKED))
    if touched.size:
        _frame(words, form, touched, out)
    stores = np.flatnonzero(table.store[form])
    if stores.size:
        _stores(words, form, stores, out)
    indirect = np.flatnonzero(_INDIRECT[out.flow])
    if indirect.size:
        number = form[indirect]
        named = rn(words[indirect])
        named[named == 31] = NO_REG
        out.target_reg[indirect] = np.where(table.target_x30[number], np.uint8(LR), named)
    unknown = np.flatnonzero(out.flow == Flow.UNDEFINED)
    if unknown.size:
        _anything(unknown, out)


def _anything(at: Row, out: Effects) -> None:
    """Let words do anything."""
    out.sp[at], out.fp[at], out.lr[at] = SpEffect.OTHER, FpEffect.OTHER, LrEffect.OTHER
    out.sp_imm[at], out.fp_imm[at], out.lr_imm[at] = 0, 0, 0
    out.fp_reg[at], out.lr_reg[at] = NO_REG, NO_REG
    out.store[at], out.store_unknown[at] = Store.ANYWHERE, True
    out.writes[at] = ALL_REGISTERS
    out.pauth_key[at] = PauthKey.NONE


def _offsets(words: Insn, form: NDArray[np.uint16]) -> Off:
    """Give the immediate of an address, scaled to bytes: (n,) int64; 0 where it has none or it is not known."""
    table = properties()
    kind = table.offset[form]
    found = np.zeros(words.shape, dtype=np.int64)
    for which, lsb, width in ((Offset.S9, 12, 9), (Offset.S7, 15, 7)):
        at = np.flatnonzero(kind == which)
        found[at] = signed_field(words[at], lsb, width)
    at = np.flatnonzero(kind == Offset.U12)
    found[at] = field(words[at], 10, 12)
    at = np.flatnonzero(kind == Offset.S10)
    found[at] = field(words[at], 12, 9).astype(np.int64) - (field(words[at], 22, 1).astype(np.int64) << np.int64(9))
    found *= table.unit[form]
    at = np.flatnonzero(kind == Offset.FIXED)
    found[at] = table.by[form[at]]
    return found


def _frame(words: Insn, form: NDArray[np.uint16], at: Row, out: Effects) -> None:
    """Refine SP, x29 and x30 for the words at `at`, which write one of them."""
    table = properties()
    mask = out.writes[at]
    out.sp[at] = np.where(mask >> np.uint32(SP), SpEffect.OTHER, SpEffect.KEEP)
    out.fp[at] = np.where(mask & np.uint32(1 << FP), FpEffect.OTHER, FpEffect.KEEP)
    out.lr[at] = np.where(mask & np.uint32(1 << LR), LrEffect.OTHER, LrEffect.KEEP)
    exact = table.exact[form[at]]
    _add(words, at[exact == Exact.ADD], out)
    _move(words, at[exact == Exact.MOV], out)
    out.lr[at[exact == Exact.CALL]] = LrEffect.CALL
    _pauth(words, form, at[exact >= Exact.SIGN], out)
    memory = at[(table.write_back[form[at]] > 0) | (table.load[form[at]] > 0)]
    if memory.size:
        offset = _offsets(words[memory], form[memory])
        _write_back(words, form, memory, offset, out)
        _loads(words, form, memory, offset, out)


def _add(words: Insn, at: Row, out: Effects) -> None:
    """ADD and SUB (immediate, 64 bits), one of whose operands is SP, x29 or x30."""
    some = words[at]
    amount = add_immediate(some).astype(np.int64)
    amount = np.where(field(some, 30, 1) == 1, -amount, amount)
    to, of = rd(some), rn(some)
    for base, code in ((SP, SpEffect.ADD), (FP, SpEffect.FROM_FP)):
        hit = (to == SP) & (of == base)
        out.sp[at[hit]], out.sp_imm[at[hit]] = code, amount[hit]
    for base, kind in ((SP, FpEffect.FROM_SP), (FP, FpEffect.ADD)):
        hit = (to == FP) & (of == base)
        out.fp[at[hit]], out.fp_imm[at[hit]] = kind, amount[hit]
    hit = (to == FP) & (of != FP) & (of != SP) & (amount == 0)
    out.fp[at[hit]], out.fp_reg[at[hit]] = FpEffect.FROM_REG, of[hit]
    hit = (to == LR) & (of != SP) & (amount == 0)
    out.lr[at[hit]], out.lr_reg[at[hit]] = LrEffect.FROM_REG, of[hit]


def _move(words: Insn, at: Row, out: Effects) -> None:
    """MOV (register, 64 bits) to x29 or x30; from the zero register it is OTHER."""
    to, of = rd(words[at]), field(words[at], 16, 5).astype(np.uint8)
    hit = (to == FP) & (of == FP)
    out.fp[at[hit]] = FpEffect.ADD
    hit = (to == FP) & (of != FP) & (of != 31)
    out.fp[at[hit]], out.fp_reg[at[hit]] = FpEffect.FROM_REG, of[hit]
    hit = (to == LR) & (of != 31)
    out.lr[at[hit]], out.lr_reg[at[hit]] = LrEffect.FROM_REG, of[hit]


def _pauth(words: Insn, form: NDArray[np.uint16], at: Row, out: Effects) -> None:
    """Signing, authenticating and stripping of x30."""
    table = properties()
    exact = table.exact[form[at]]
    at = at[exact < Exact.CALL]
    exact = exact[exact < Exact.CALL]
    out.lr[at] = _PAUTH[exact]
    modifier = table.modifier[form[at]]
    register = np.where(modifier == 1, np.uint8(SP), rn(words[at]))
    has = (modifier > 0) & (exact != Exact.STRIP)
    out.lr_reg[at[has]] = register[has]


def _write_back(words: Insn, form: NDArray[np.uint16], at: Row, offset: Off, out: Effects) -> None:
    """Addresses written back to SP or x29 by a constant."""
    table = properties()
    kind = table.write_back[form[at]]
    constant = (kind == 1) | (kind == 2)
    base = rn(words[at])
    hit = constant & (base == SP)
    out.sp[at[hit]], out.sp_imm[at[hit]] = SpEffect.ADD, offset[hit]
    # Transferring the base register as well is CONSTRAINED UNPREDICTABLE: it may even do nothing.
    number = form[at]
    moved = np.zeros(at.shape, dtype=np.bool_)
    for place in (0, 2, 3):
        general = (table.write[place][number] > 0) | (table.read[place][number] > 0)
        moved |= general & (field(words[at], FIELDS[place], 5) == FP)
    hit = constant & (base == FP) & ~moved
    out.fp[at[hit]], out.fp_imm[at[hit]] = FpEffect.ADD, offset[hit]


def _loads(words: Insn, form: NDArray[np.uint16], at: Row, offset: Off, out: Effects) -> None:
    """All 64 bits of x29 or x30 from memory at a base and a constant."""
    table = properties()
    keep = (table.load[form[at]] > 0) & (table.offset[form[at]] != Offset.UNKNOWN)
    at, offset = at[keep], offset[keep]
    some, number = words[at], form[at]
    back = table.write_back[number]
    offset = np.where(back >= 2, 0, offset)
    base, first, second = rn(some), rd(some), _second(some, table.load[number])
    clean = (first != second) & ~((back > 0) & ((base == first) | (base == second)) & (base != SP))
    for register, code, column, reg, imm in (
        (FP, FpEffect.LOAD, out.fp, out.fp_reg, out.fp_imm),
        (LR, LrEffect.LOAD, out.lr, out.lr_reg, out.lr_imm),
    ):
        for which, ahead in ((first, 0), (second, 8)):
            hit = clean & (which == register)
            column[at[hit]], reg[at[hit]], imm[at[hit]] = code, base[hit], offset[hit] + ahead


def _second(words: Insn, whole: Code) -> Code:
    """Give the second register of a pair, (n,) uint8; NO_REG where there is none."""
    result: Code = np.full(words.shape, NO_REG, dtype=np.uint8)
    for code, lsb in ((2, 10), (3, 16)):
        at = whole == code
        result[at] = field(words[at], lsb, 5)
    return result


def _stores(words: Insn, form: NDArray[np.uint16], at: Row, out: Effects) -> None:
    """Where memory is written, and where x29 and x30 lie in it afterwards."""
    table = properties()
    some, number = words[at], form[at]
    base = np.where(table.base[number] == 0, rd(some), rn(some))
    # An address may also be built with x29 as its index: that is a store near x29, unless the base is SP.
    index = (table.offset[number] == Offset.UNKNOWN) & (table.base[number] != 0) & (table.read[3][number] > 0)
    index &= (field(some, 16, 5) == FP) & (table.write_back[number] == 0)
    vector = (table.base[number] == NO_REG) & ~index
    base = np.where(index & ((base != SP) | (table.base[number] == NO_REG)), np.uint8(FP), base)
    out.store_base[at] = np.where(vector, np.uint8(NO_REG), base)
    out.store[at] = np.where(vector, np.uint8(Store.ELSEWHERE), _STORE[base])
    unknown = (table.offset[number] == Offset.UNKNOWN) | (table.size[number] == 0)
    back = table.write_back[number]
    offset = _offsets(some, number)
    out.store_unknown[at] = unknown
    out.store_off[at] = np.where(unknown | (back >= 2), 0, offset)
    out.store_size[at] = np.where(unknown, np.uint8(0), table.size[number])
    whole = table.keep[number]
    first, second = rd(some), _second(some, whole)
    clean = ~unknown & (whole > 0) & ~((back > 0) & ((base == first) | (base == second)) & (base != SP))
    for register, column in ((FP, out.fp_at), (LR, out.lr_at)):
        for which, ahead in ((second, 8), (first, 0)):
            hit = clean & (which == register)
            column[at[hit]] = ahead


_STORE: Final = np.full(256, Store.ELSEWHERE, dtype=np.uint8)
_STORE[SP] = Store.SP
_STORE[FP] = Store.FP
_INDIRECT: Final = np.isin(np.arange(256), (Flow.RETURN, Flow.JUMP_REG, Flow.CALL_REG))
_PAUTH: Final = np.zeros(len(Exact), dtype=np.uint8)
for _exact, _effect in (
    (Exact.SIGN, LrEffect.SIGN),
    (Exact.AUTH, LrEffect.AUTH),
    (Exact.SIGN_PC, LrEffect.SIGN_PC),
    (Exact.AUTH_PC, LrEffect.AUTH_PC),
    (Exact.STRIP, LrEffect.STRIP),
):
    _PAUTH[_exact] = _effect
