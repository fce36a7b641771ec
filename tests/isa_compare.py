"""Hold `effects` against capstone, word by word; every disagreement that no table explains is given back."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import numpy as np

import isa_capstone
import isa_expected
import isa_unknown
from surefoot.dtypes import Insn
from surefoot.isa.effects import Flow, effects, register_reads

RARE: Final = 40
"""How many disagreements are given back at most."""


@dataclass
class Comparison:
    """What came out of a comparison.

    Attributes:
        compared: words that both know.
        excused: how often each reason of a table was needed.
        wrong: disagreements without a reason, as text.
    """

    compared: int = 0
    excused: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def differ(self, what: str, insn: isa_capstone.Insn, theirs: object, ours: object) -> None:
        if len(self.wrong) < RARE:
            self.wrong.append(f"{what}: {insn.word:#010x} {insn.name} {insn.text}: capstone {theirs}, ours {ours}")


def compare(words: Insn) -> Comparison:
    """Compare allocation, flow, registers, frame and stores of every word."""
    result = Comparison()
    ours, reads = effects(words), register_reads(words)
    machine = isa_capstone.disassembler()
    columns = zip(
        words.tolist(),
        ours.flow.tolist(),
        ours.writes.tolist(),
        reads.tolist(),
        zip(ours.sp.tolist(), ours.sp_imm.tolist(), strict=True),
        zip(ours.fp.tolist(), ours.fp_reg.tolist(), ours.fp_imm.tolist(), strict=True),
        zip(ours.lr.tolist(), ours.lr_reg.tolist(), ours.lr_imm.tolist(), strict=True),
        zip(
            ours.store.tolist(),
            ours.store_base.tolist(),
            ours.store_off.tolist(),
            ours.store_size.tolist(),
            ours.store_unknown.tolist(),
            ours.fp_at.tolist(),
            ours.lr_at.tolist(),
            strict=True,
        ),
        strict=True,
    )
    for word, flow, writes, read, sp, fp, lr, store in columns:
        insn = isa_capstone.disassemble(machine, word)
        known = flow != Flow.UNDEFINED
        if insn is None or not known:
            _allocation(word, insn, known=known, result=result)
            continue
        result.compared += 1
        for what, theirs, here in (
            ("flow", isa_capstone.flow(insn), flow),
            ("writes", hex(insn.writes), hex(writes)),
            ("sp", isa_expected.stack_pointer(insn), sp),
            ("fp", isa_expected.frame_pointer(insn), fp),
            ("lr", isa_expected.link_register(insn), lr),
            ("store", isa_expected.store(insn), store),
        ):
            if theirs != here:
                result.differ(what, insn, theirs, here)
        _reads(insn, read, result)
        _groups(insn, flow, result)
    return result


def _allocation(word: int, insn: isa_capstone.Insn | None, *, known: bool, result: Comparison) -> None:
    """One of the two does not know a word: say why."""
    if insn is None and not known:
        return
    table = isa_unknown.CAPSTONE_REFUSES if insn is None else isa_unknown.CAPSTONE_ACCEPTS
    for mask, value, reason in table:
        if word & mask == value:
            result.excused[reason] += 1
            return
    for test, reason in isa_unknown.UNPREDICTABLE if insn is None else ():
        if test(word):
            result.excused[reason] += 1
            return
    text = f"{insn.name} {insn.text}" if insn else "refused by capstone"
    if len(result.wrong) < RARE:
        result.wrong.append(f"allocation: {word:#010x} {word:032b} {text}")


def _reads(insn: isa_capstone.Insn, ours: int, result: Comparison) -> None:
    for extra, table in (
        (ours & ~insn.reads, isa_capstone.READ_TOO_FEW),
        (insn.reads & ~ours, isa_capstone.READ_TOO_MANY),
    ):
        if not extra:
            continue
        reason = next((why for names, why in table if re.fullmatch(names, insn.name)), None)
        if reason is None:
            result.differ("reads", insn, hex(insn.reads), hex(ours))
        else:
            result.excused[f"reads of {insn.name}: {reason}"] += 1


def _groups(insn: isa_capstone.Insn, flow: int, result: Comparison) -> None:
    """Capstone's groups leave some branches out, but must not name what does not branch."""
    calls = {Flow.CALL, Flow.CALL_REG}
    jumps = calls | {Flow.JUMP, Flow.COND, Flow.JUMP_REG, Flow.RETURN, Flow.ERET}
    allowed = {"call": calls, "jump": jumps, "ret": {Flow.RETURN, Flow.ERET}, "int": {Flow.EXCEPTION}}
    for group, flows in allowed.items():
        if group in insn.groups and flow not in flows:
            result.differ("group", insn, group, Flow(flow).name)


LOWS: Final = tuple(
    (bits << 10) | (base << 5) | target
    for bits in range(64)
    for base, target in ((31, 29), (29, 30), (30, 31), (31, 30), (29, 29), (31, 31), (3, 29), (31, 4))
)
"""Lower halves: every value of bits 15:10 (opcodes, Rt2) with register fields of x29, x30, 31 and others."""
SPECIAL: Final = (0x03C0, 0x03A0, 0x03E0, 0x0BFF, 0x0FFF, 0x0BDF, 0x0FBE, 0x0001, 0x0002, 0x0003, 0x0000, 0x201F)
SYSTEM: Final = (0x233F, 0x23BF, 0x245F, 0x20FF, 0x231F, 0x237F, 0x23FF, 0x211F, 0x421D, 0x411D, 0x741D, 0x40BF)
"""Lower halves of branches to registers, of exceptions, hints and system registers."""


def sweep(step: int) -> Insn:
    """Give words over every value of the upper half, the lower halves taken in turn.

    Args:
        step: 1 for every pair of upper half and bits 15:10 (with registers in turn), n for every n-th.
    """
    upper = np.arange(1 << 16, dtype=np.uint32) << np.uint32(16)
    rows = np.arange(64, dtype=np.int64)[:, None]
    turn = (np.arange(1 << 16, dtype=np.int64) * 5 + rows * 3) % 8
    lows = np.array(LOWS, dtype=np.uint32)[rows * 8 + turn]
    main = (upper[None, :] | lows).reshape(-1)[:: max(1, step)]
    special = np.array(SPECIAL + SYSTEM, dtype=np.uint32)
    system = upper[(upper >> np.uint32(24)) >= np.uint32(0xD4)][: 1 << 10]
    return np.concatenate([main, (system[:, None] | special[None, :]).reshape(-1)])
