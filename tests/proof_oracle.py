"""Judge proofs by what was seen: compare rule rows with recorded states, without a word of the prover's.

A claim is false where some run saw another CFA, caller's x29 or return address than the row gives, or where a row
names a slot below SP, which the next exception overwrites.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from emulate import Emulator, Trace, World
from surefoot.dtypes import Addr, Mask
from surefoot.image.binary import Image
from surefoot.image.tables import bug_table, exception_table, jump_table
from surefoot.metadata.rules import CfaBase, FpRule, RaRule, RuleTable
from surefoot.proof.prove import Proof
from surefoot.proof.verdicts import Verdict

__all__ = ["Judgement", "false_claims", "judge", "slots_of", "world_of"]

_WORD: Final = 8


def world_of(image: Image, noreturn: Addr) -> World:
    """Gather what runs of a linked image's functions need; .rodata is its read-only data."""
    faults, switches, bugs = exception_table(image), jump_table(image), bug_table(image)
    real = np.flatnonzero((faults.type != 1) & (faults.fixup != 0)).tolist()
    fixups = {}
    for row in real:
        data = int(faults.data[row])
        written = (1 << (data & 31) | 1 << (data >> 5 & 31)) if int(faults.type[row]) in {2, 3, 5} else 0
        fixups[int(faults.insn[row])] = (int(faults.fixup[row]), written & 0x7FFF_FFFF)
    parts = [
        (int(image.sections.addr[index]), image.elf.section_bytes(index).tobytes())
        for index in image.sections.find(".rodata")
    ]
    return World(
        ranges=image.text.ranges,
        data=parts,
        warns=set(bugs.addr[bugs.warns].tolist()),
        fixups=fixups,
        switches=dict(zip(switches.code.tolist(), switches.target.tolist(), strict=True)),
        noreturn=set(noreturn.tolist()),
    )


def slots_of(rules: RuleTable, func: int) -> tuple[int, ...]:
    """Give the offsets of all slots that a function's rows name."""
    rows = slice(
        int(rules.functions.first_row[func]), int(rules.functions.first_row[func] + rules.functions.row_count[func])
    )
    found = set(rules.fp_off[rows][rules.fp_rule[rows] == FpRule.AT_CFA].tolist())
    found |= set(rules.ra_off[rows][rules.ra_rule[rows] == RaRule.AT_CFA].tolist())
    return tuple(sorted(slot for slot in found if slot % _WORD == 0))


def false_claims(trace: Trace, rules: RuleTable) -> Mask:
    """Tell where the row at an executed instruction was false: (n,) bool.

    Rows that say nothing are not false, and of a slot that was not recorded nothing is known.
    """
    row = rules.lookup(trace.addr, np.zeros(trace.addr.shape, dtype=np.bool_))
    wrong = row < 0
    row = np.maximum(row, 0)
    base, off = rules.cfa_base[row], rules.cfa_off[row].astype(np.int64)
    from_fp = (trace.fp - trace.cfa).view(np.int64)
    wrong |= (base == CfaBase.SP) & (trace.sp + off != 0)
    wrong |= (base == CfaBase.FP) & (from_fp + off != 0)
    wrong |= (rules.fp_rule[row] == FpRule.UNCHANGED) & (trace.fp != np.uint64(Trace.caller_fp))
    wrong |= (rules.ra_rule[row] == RaRule.IN_LR) & (trace.lr != np.uint64(Trace.return_address))
    for stored, slot, value in (
        (rules.fp_rule[row] == FpRule.AT_CFA, rules.fp_off[row], Trace.caller_fp),
        (rules.ra_rule[row] == RaRule.AT_CFA, rules.ra_off[row], Trace.return_address),
    ):
        wrong |= stored & (slot.astype(np.int64) < trace.sp)
        for column, place in enumerate(trace.slots):
            wrong |= stored & (slot == place) & (trace.frame[:, column] != np.uint64(value))
    return wrong


@dataclass
class Judgement:
    """What runs of some functions showed.

    Attributes:
        functions: how many ran.
        executed: how many instructions, with repetition.
        reached: distinct addresses that were executed.
        contradicted: addresses that are PROVEN and whose row was false.
        confirmed: addresses that are REFUTED and whose row was false.
        left_wrong: addresses that are PROVEN and left the function in another state, though no exit is reported; what
            comes back from a call behind the function's end does not leave it, as the call's return address shows.
        came_back: addresses from which functions that count as never returning did, or went to one that may.
    """

    functions: int
    executed: int
    reached: set[int]
    contradicted: set[int]
    confirmed: set[int]
    left_wrong: set[int]
    came_back: set[int]


def _is_inside(rules: RuleTable, addr: int) -> bool:
    """Whether an address is inside a function, not at its start: a branch there is no exit of the state."""
    row = int(rules.lookup(np.array([addr], dtype=np.uint64), np.zeros(1, dtype=np.bool_))[0])
    return row >= 0 and int(rules.functions.start[rules.func[row]]) != addr


def judge(emulator: Emulator, proof: Proof, funcs: list[int], runs: int, steps: int) -> Judgement:
    """Run functions and hold their verdicts against what was seen."""
    rules, index = proof.rules, proof.rules.functions
    found = Judgement(0, 0, set(), set(), set(), set(), set())
    exits = set(proof.exits.tolist())
    for func in funcs:
        trace = emulator.run(int(index.start[func]), int(index.end[func]), slots_of(rules, func), runs, steps)
        wrong = false_claims(trace, rules)
        verdict = proof.verdict(trace.addr)
        found.functions += 1
        found.executed += trace.addr.size
        found.reached |= set(trace.addr.tolist())
        found.contradicted |= set(trace.addr[wrong & (verdict == Verdict.PROVEN)].tolist())
        found.confirmed |= set(trace.addr[wrong & (verdict == Verdict.REFUTED)].tolist())
        bad = [
            addr
            for addr, goal, good in trace.leaves
            if not good and addr not in exits and goal != addr + 4 and not _is_inside(rules, goal)
        ]
        proven = proof.verdict(np.array(bad, dtype=np.uint64)) == Verdict.PROVEN
        if proof.noreturn[func]:
            found.came_back |= {addr for addr, goal, _ in trace.leaves if goal not in emulator.world.noreturn}
        found.left_wrong |= {addr for addr, sure in zip(bad, proven.tolist(), strict=True) if sure}
    return found
