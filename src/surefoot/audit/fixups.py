"""Layer 6: the exception table against the functions and the rules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from surefoot.audit.findings import Finding
from surefoot.audit.subject import Subject
from surefoot.audit.words import row_words
from surefoot.dtypes import Mask, Row
from surefoot.image.tables import ExceptionTable, exception_table
from surefoot.metadata.rules import RuleTable

__all__ = ["TYPES", "Fixups", "fixup_findings", "fixups"]

TYPES: Final = {
    1: "BPF",
    2: "UACCESS_ERR_ZERO",
    3: "KACCESS_ERR_ZERO",
    4: "UACCESS_CPY",
    5: "LOAD_UNALIGNED_ZEROPAD",
}
"""EX_TYPE_* without the prefix (arch/arm64/include/asm/asm-extable.h, Linux 7.3)."""
_BPF: Final = 1


@dataclass(frozen=True)
class Fixups:
    """The exception table judged; e entries.

    Attributes:
        table: the entries.
        is_real: (e,) bool, `fixup` is an address of this image.
        leaves: (e,) bool, fault and fixup lie in different functions.
        has_rows: (e,) bool, rules speak of both.
        differ: (e,) bool, they speak of both and do not say the same.
        row: (e,) int64 and fixup_row: (e,) int64, rows at both, -1 for none.
    """

    table: ExceptionTable
    is_real: Mask
    leaves: Mask
    has_rows: Mask
    differ: Mask
    row: Row
    fixup_row: Row


def fixups(subject: Subject) -> Fixups:
    """Judge every entry of the exception table."""
    table = exception_table(subject.image)
    real = (table.type != _BPF) & (table.fixup != 0)
    leaves = real & (subject.range_at(table.insn) != subject.range_at(table.fixup))
    none = np.full(table.insn.shape, -1, dtype=np.int64)
    if subject.proof is None:
        no = np.zeros(table.insn.shape, dtype=np.bool_)
        return Fixups(table, real, leaves, no, no, none, none)
    rules = subject.proof.rules
    exact = np.zeros(table.insn.shape, dtype=np.bool_)
    row, fixup_row = rules.lookup(table.insn, exact), rules.lookup(table.fixup, exact)
    has = real & (row >= 0) & (fixup_row >= 0)
    differ = has.copy()
    differ[has] = ~_same(rules, row[has], fixup_row[has])
    return Fixups(table, real, leaves, has, differ, row, fixup_row)


def _same(rules: RuleTable, a: Row, b: Row) -> Mask:
    """(n,) bool: two rows say the same of CFA, x29 and return address."""
    same: Mask = (rules.side[a] == rules.side[b]) & (rules.ra_signed[a] == rules.ra_signed[b])
    for column in (rules.cfa_base, rules.cfa_off, rules.fp_rule, rules.fp_off, rules.ra_rule, rules.ra_off):
        same &= column[a] == column[b]
    return same


def fixup_findings(subject: Subject) -> Iterator[Finding]:
    """Yield the entries that leave their function, and those whose rows disagree."""
    found = fixups(subject)
    table = found.table
    for k in np.flatnonzero(found.leaves).tolist():
        insn, fixup = int(table.insn[k]), int(table.fixup[k])
        kind = TYPES.get(int(table.type[k]), f"type {int(table.type[k])}")
        where = subject.name_at(fixup) or f"{fixup:#x}"
        yield Finding("fixup-leaves-function", insn, subject.name_at(insn), f"{kind}: the fixup lies in {where}")
    if subject.proof is None:
        return
    rules = subject.proof.rules
    for k in np.flatnonzero(found.differ).tolist():
        insn, fixup = int(table.insn[k]), int(table.fixup[k])
        kind = TYPES.get(int(table.type[k]), f"type {int(table.type[k])}")
        message = (
            f"{kind}: the row here says {row_words(rules, int(found.row[k]))}, at the fixup {fixup:#x} "
            f"{row_words(rules, int(found.fixup_row[k]))}"
        )
        yield Finding("fixup-rows-differ", insn, subject.name_at(insn), message)
