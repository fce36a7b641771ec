"""Layer 6: what the proof refuted or could not decide, sorted into classes that have an owner."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from surefoot.audit.findings import Finding
from surefoot.audit.subject import Subject
from surefoot.audit.words import instructions, is_linker_stub, row_words, state_words
from surefoot.dtypes import Addr, Code, Mask, Row
from surefoot.isa.branches import branch_target
from surefoot.isa.effects import Effects, Flow, FpEffect, LrEffect, SpEffect, effects
from surefoot.metadata.rules import CfaBase, FpRule, RaRule, RuleTable
from surefoot.proof.prove import Open, Proof
from surefoot.proof.verdicts import Verdict

__all__ = ["Runs", "proof_findings", "refuted_runs"]

_CODES: Final = ("row-wrong", "rules-at-calls-only", "restored-early", "lr-overwritten", "slot-below-sp")
_WRONG, _CALLS_ONLY, _EARLY, _LINK, _BELOW = range(5)
_OPEN: Final = {
    Open.INDIRECT_JUMP: "unproven-jump",
    Open.NOT_REACHED: "unproven-unreached",
    Open.NOT_KNOWN: "unproven-state",
    Open.UNUSABLE: "unproven-rows",
}
_OPEN_WORDS: Final = {
    "unproven-jump": "{n} unproven: an indirect jump has targets that are not known",
    "unproven-unreached": "{n} unproven: no path leads to them",
    "unproven-state": "{n} unproven: the frame there depends on the path",
    "unproven-rows": "{n} unproven: the rows could not be used",
}


@dataclass(frozen=True)
class Runs:
    """Refuted instructions, as maximal runs inside functions; k of them.

    Attributes:
        start: (k,) uint64, first instruction.
        end: (k,) uint64, address behind the last.
        func: (k,) int64, function of the rules.
        edge: (k,) uint64, a proved instruction from which a path runs into the run; 0 where none is known.
        hit: (k,) uint64, the instruction of the run that this path reaches; `start` where none is known.
        code: (k,) uint8, index into the codes: row-wrong, rules-at-calls-only, restored-early, lr-overwritten,
            slot-below-sp.
    """

    start: Addr
    end: Addr
    func: Row
    edge: Addr
    hit: Addr
    code: Code


def refuted_runs(subject: Subject, proof: Proof) -> Runs:
    """Find the runs of refuted instructions and what breaks each."""
    at = np.flatnonzero(proof.verdicts == Verdict.REFUTED)
    func = np.searchsorted(proof.first, at, side="right").astype(np.int64) - 1
    head = np.append(True, (at[1:] != at[:-1] + 1) | (func[1:] != func[:-1])) if at.size else at.astype(np.bool_)
    tail = np.append(head[1:], True) if at.size else head
    first, last = at[head], at[tail]
    func = func[head]
    start, end = _addr(proof, first, func), _addr(proof, last, func) + np.uint64(4)
    order = np.lexsort((proof.edge_from, proof.edge_to))
    source, target = proof.edge_from[order], proof.edge_to[order]
    place = np.searchsorted(target, start)
    safe = np.minimum(place, max(target.size - 1, 0))
    known = (place < target.size) & (target[safe] < end) if target.size else np.zeros(start.size, dtype=np.bool_)
    edge = np.where(known, source[safe], np.uint64(0)) if target.size else np.zeros(start.size, dtype=np.uint64)
    hit = np.where(known, target[safe], start) if target.size else start
    runs = Runs(start, end, func, edge, hit, np.zeros(start.size, dtype=np.uint8))
    runs.code[:] = _classify(subject, proof, runs, known)
    return runs


def _addr(proof: Proof, at: Row, func: Row) -> Addr:
    """Give the addresses of instruction indices."""
    begin = proof.rules.functions.start[func]
    return begin + ((at - proof.first[func]).astype(np.uint64) << np.uint64(2))


def _classify(subject: Subject, proof: Proof, runs: Runs, known: Mask) -> Code:
    """Say what kind of fault each run is, by the instruction that leads into it."""
    code = np.full(runs.start.size, _WRONG, dtype=np.uint8)
    k = np.flatnonzero(known)
    if not k.size:
        return code
    exact = np.zeros(k.size, dtype=np.bool_)
    before = proof.rules.lookup(runs.edge[k], exact)
    after = proof.rules.lookup(runs.hit[k], exact)
    words, _ = subject.map.word_at(runs.edge[k])
    does = effects(words)
    next_ = runs.hit[k] == runs.edge[k] + np.uint64(4)
    same = (before == after) & next_
    code[k[same & (does.fp == FpEffect.LOAD) & (proof.rules.cfa_base[after] == CfaBase.FP)]] = _EARLY
    link = (does.flow == Flow.CALL) & (branch_target(words, runs.edge[k]) == runs.edge[k] + np.uint64(4))
    code[k[link]] = _LINK
    code[k[_below_sp(proof.rules, after) & (code[k] == _WRONG)]] = _BELOW
    # A push that no row follows: the function's rows do not describe its prologue at all.
    loose = runs.func[k[same & _pushes(does) & _at_entry(proof, before)]]
    code[np.isin(runs.func, loose) & (code != _LINK) & (code != _BELOW)] = _CALLS_ONLY
    return code


def _pushes(does: Effects) -> Mask:
    """(k,) bool: the instruction makes a frame: moves SP down, or x30 away."""
    down: Mask = (does.sp == SpEffect.ADD) & (does.sp_imm < 0)
    moved: Mask = (does.lr == LrEffect.LOAD) | (does.lr == LrEffect.FROM_REG)
    return down | moved


def _at_entry(proof: Proof, row: Row) -> Mask:
    """(k,) bool: the row describes the state on entry of a function."""
    rules = proof.rules
    safe = np.maximum(row, 0)
    found: Mask = (rules.cfa_base[safe] == CfaBase.SP) & (rules.cfa_off[safe] == 0)
    found &= (rules.fp_rule[safe] == FpRule.UNCHANGED) & (rules.ra_rule[safe] == RaRule.IN_LR)
    return found


def proof_findings(subject: Subject) -> Iterator[Finding]:
    """Yield what the proof refuted, by run; what it left open, by function; exits; slots below SP."""
    proof = subject.proof
    if proof is None:
        return
    yield from _refuted(subject, proof)
    yield from _slots(subject, proof)
    yield from _exits(subject, proof)
    yield from _unproven(subject, proof)


def _refuted(subject: Subject, proof: Proof) -> Iterator[Finding]:
    """Yield one finding per refuted run; per function where the rules hold at calls only."""
    runs = refuted_runs(subject, proof)
    rows = proof.rules.lookup(runs.hit, np.zeros(runs.hit.size, dtype=np.bool_))
    size = (runs.end - runs.start).astype(np.int64)
    whole = np.zeros(len(proof.rules.functions) + 1, dtype=np.int64)
    np.add.at(whole, runs.func[runs.code == _CALLS_ONLY], size[runs.code == _CALLS_ONLY])
    seen: set[int] = set()
    columns = (runs.hit, runs.edge, runs.func, runs.code, rows, size)
    for hit, edge, func, code, row, length in zip(*(column.tolist() for column in columns), strict=True):
        if code == _BELOW:
            continue  # reported by row
        name, claim = subject.name_at(hit), row_words(proof.rules, row)
        if code == _CALLS_ONLY:
            if func in seen:
                continue
            seen.add(func)
            message = (
                f"The rows do not follow the prologue or epilogue: {instructions(int(whole[func]) // 4)} refuted, "
                f"the first where the row still says {claim} and in fact {_fact(proof, hit)}"
            )
            yield Finding(_CODES[code], hit, name, message, edge, int(whole[func]))
        else:
            message = _WORDS[code].format(claim=claim, n=instructions(length // 4), fact=_fact(proof, hit))
            yield Finding(_CODES[code], hit, name, message, edge, length)


_WORDS: Final = {
    _WRONG: "The row says {claim}, wrong for {n}; in fact {fact}",
    _EARLY: "x29 is the caller's again, and the row computes the CFA from it: {claim}, wrong for {n}; in fact {fact}",
    _LINK: "`bl .+4` has overwritten x30, and the row says {claim}: wrong for {n}",
}


def _fact(proof: Proof, addr: int) -> str:
    """Say what the analysis knows of the machine before an instruction that is not proved."""
    at = int(proof.index(np.array([addr], dtype=np.uint64))[0])
    k = int(np.searchsorted(proof.state_at, at))
    return (
        state_words(proof.states, k) if k < proof.state_at.size and int(proof.state_at[k]) == at else "no path known"
    )


def _exits(subject: Subject, proof: Proof) -> Iterator[Finding]:
    """Yield the ways out of a function that do not restore the state of its entry."""
    words, _ = subject.map.word_at(proof.exits)
    targets = branch_target(words, proof.exits)
    for addr, target in zip(proof.exits.tolist(), targets.tolist(), strict=True):
        name, goal = subject.name_at(addr), subject.name_at(target) if target else ""
        if is_linker_stub(goal):
            message = f"The linker moved the next instruction to {goal} and made this one a branch there"
            yield Finding("stub-detour", addr, name, message)
        else:
            message = (
                "Control leaves the function here while SP, x29 or x30 are not, or not surely, those of its entry"
            )
            yield Finding("exit-not-entry", addr, name, message)


def _below_sp(rules: RuleTable, row: Row) -> Mask:
    """(k,) bool: the row counts from SP and names a slot below it."""
    cfa_off = rules.cfa_off[row].astype(np.int64)
    fp = (rules.fp_rule[row] == FpRule.AT_CFA) & (cfa_off + rules.fp_off[row] < 0)
    ra = (rules.ra_rule[row] == RaRule.AT_CFA) & (cfa_off + rules.ra_off[row] < 0)
    found: Mask = (rules.cfa_base[row] == CfaBase.SP) & (fp | ra)
    return found


def _slots(subject: Subject, proof: Proof) -> Iterator[Finding]:
    """Yield the rows that name a slot below SP."""
    rules = proof.rules
    rows = np.flatnonzero(_below_sp(rules, np.arange(len(rules), dtype=np.int64)))
    ends = rules.end[rows]
    for row, end in zip(rows.tolist(), ends.tolist(), strict=True):
        start = int(rules.start[row])
        message = f"The row names a slot below SP, which the next exception overwrites: {row_words(rules, row)}"
        yield Finding("slot-below-sp", start, subject.name_at(start), message, max(start - 4, 0), end - start)


def _unproven(subject: Subject, proof: Proof) -> Iterator[Finding]:
    """Yield one finding per function and reason for what is unproven."""
    at = np.flatnonzero((proof.open != Open.NONE) & (proof.open != Open.CONTRADICTED))
    row = np.searchsorted(proof.row_first, at, side="right").astype(np.int64) - 1
    at = at[(proof.open[at] != Open.NOT_KNOWN) | ~_below_sp(proof.rules, row)]  # these are reported by row
    func = np.searchsorted(proof.first, at, side="right").astype(np.int64) - 1
    key = func * len(Open) + proof.open[at]
    keys, first, count = np.unique(key, return_index=True, return_counts=True)
    start = _addr(proof, at[first], func[first])
    for packed, addr, n in zip(keys.tolist(), start.tolist(), count.tolist(), strict=True):
        code = _OPEN[Open(packed % len(Open))]
        message = _OPEN_WORDS[code].format(n=instructions(n))
        reason = int(proof.rules.functions.reason[packed // len(Open)])
        if code == "unproven-rows" and reason >= 0:
            message += f" ({proof.rules.reasons[reason]})"
        yield Finding(code, addr, subject.name_at(addr), message, size=4 * n)
