"""Layer 6: alternatives and static branches: what the kernel's own rewriting does to SP, x29 and x30."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from surefoot.audit.findings import Finding
from surefoot.audit.subject import Subject
from surefoot.audit.words import instructions
from surefoot.dtypes import Addr, Code, Mask, Row
from surefoot.image.tables import alternatives, jump_table
from surefoot.isa.effects import Effects, effects

__all__ = ["Patched", "patched", "patched_findings"]


@dataclass(frozen=True)
class Patched:
    """Words that the kernel replaces, counted, and those whose replacement changes a frame.

    Attributes:
        entries: alternatives.
        callbacks: of these, written by a function of the kernel.
        words: words that alternatives with given replacements cover.
        addr: (a,) uint64, words whose replacement writes SP, x29 or x30 differently.
        changes: (a,) uint8, bits: 1 SP, 2 x29, 4 x30.
        jumps: static branches.
        sites: patch sites of ftrace.
        constants: words with runtime constants.
        leaving: (l,) int64, rows of the jump table whose target is in another function.
    """

    entries: int
    callbacks: int
    words: int
    addr: Addr
    changes: Code
    jumps: int
    sites: int
    constants: int
    leaving: Row


def patched(subject: Subject) -> Patched:
    """Compare every replacement word with the word that it replaces."""
    known = subject.mechanisms
    table, jumps = alternatives(subject.image), jump_table(subject.image)
    fixed = np.flatnonzero(known.alt_repl != 0)
    addr = known.alt_words[fixed]
    old, present = subject.map.word_at(addr)
    changes = _changes(effects(old), effects(known.repl_words[fixed]))
    changes[~present] = 0
    at = np.flatnonzero(changes)
    order = np.lexsort((changes[at], addr[at]))
    where = addr[at][order]
    fresh = np.append(True, where[1:] != where[:-1]) if where.size else where.astype(np.bool_)
    bits = changes[at][order]
    merged = np.bitwise_or.reduceat(bits, np.flatnonzero(fresh)) if where.size else bits
    leaving = _leaving(subject, jumps.code, jumps.target)
    return Patched(
        int(table.orig.size),
        int(np.count_nonzero(table.is_callback)),
        int(np.unique(addr).size),
        where[fresh],
        merged,
        int(jumps.code.size),
        int(known.sites.size),
        int(known.constants.size),
        leaving,
    )


def _leaving(subject: Subject, code: Addr, target: Addr) -> Row:
    """Give the static branches whose target is in another code range."""
    away: Mask = (target != 0) & (subject.range_at(code) != subject.range_at(target))
    return np.flatnonzero(away).astype(np.int64)


def _changes(old: Effects, new: Effects) -> Code:
    """(w,) uint8 bits: which of SP, x29 and x30 the two instructions leave with different values."""
    sp = (old.sp != new.sp) | (old.sp_imm != new.sp_imm)
    fp = (old.fp != new.fp) | (old.fp_imm != new.fp_imm) | (old.fp_reg != new.fp_reg)
    lr = (old.lr != new.lr) | (old.lr_imm != new.lr_imm) | (old.lr_reg != new.lr_reg)
    bits: Code = sp.astype(np.uint8)
    bits |= fp.astype(np.uint8) << np.uint8(1)
    bits |= lr.astype(np.uint8) << np.uint8(2)
    return bits


def patched_findings(subject: Subject) -> Iterator[Finding]:
    """Yield replacements that change a frame, and static branches that leave their function."""
    found = patched(subject)
    names = {1: "SP", 2: "x29", 4: "x30"}
    ruled = np.zeros(found.addr.size, dtype=np.bool_)
    if subject.proof is not None:
        ruled = subject.proof.index(found.addr) >= 0
    groups: dict[tuple[str, str], list[int]] = {}
    for k, addr in enumerate(found.addr.tolist()):
        code = "alternative-frame" if ruled[k] else "alternative-assembly"
        groups.setdefault((code, subject.name_at(addr)), []).append(k)
    for (code, symbol), rows in groups.items():
        bits = int(np.bitwise_or.reduce(found.changes[rows]))
        registers = " and ".join(name for bit, name in names.items() if bits & bit)
        first, count = int(found.addr[rows[0]]), len(rows)
        message = f"The replacement of {instructions(count)}, here first, leaves other values in {registers}"
        yield Finding(code, first, symbol, message, count=count)
    table = jump_table(subject.image)
    for k in found.leaving.tolist():
        code_addr, target = int(table.code[k]), int(table.target[k])
        message = f"The static branch goes to {subject.name_at(target) or hex(target)}"
        yield Finding("jump-label-leaves", code_addr, subject.name_at(code_addr), message)
