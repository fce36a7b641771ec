"""Layer 6: rows that say wrongly whether the return address carries a pointer authentication code."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from surefoot.audit.findings import Finding
from surefoot.audit.subject import Subject
from surefoot.audit.words import instructions
from surefoot.dtypes import Row

__all__ = ["signing_findings"]


def signing_findings(subject: Subject) -> Iterator[Finding]:
    """Yield one finding for each function with rows whose claim of signing is wrong, or is not known to be right."""
    if subject.signing is None:
        return
    yield from _group(subject, "signing-wrong", subject.signing.wrong)
    yield from _group(subject, "signing-open", subject.signing.open)


def _group(subject: Subject, code: str, at: Row) -> Iterator[Finding]:
    """Yield a finding per function.

    Args:
        subject: under audit.
        code: of the findings.
        at: (k,) int64, ascending, instructions of the proof.
    """
    proof = subject.proof
    if proof is None or not at.size:
        return
    func = np.searchsorted(proof.first, at, side="right") - 1
    heads = np.flatnonzero(np.append(True, func[1:] != func[:-1]))
    counts = np.diff(np.append(heads, at.size))
    columns = (at[heads], func[heads], counts)
    for first, owner, count in zip(*(column.tolist() for column in columns), strict=True):
        addr = int(proof.rules.functions.start[owner]) + 4 * (first - int(proof.first[owner]))
        row = int(np.searchsorted(proof.row_first, first, side="right")) - 1
        signed = bool(proof.rules.ra_signed[row])
        said, fact = ("signed", "not signed") if signed else ("not signed", "signed")
        if code == "signing-wrong":
            message = f"The row says that the return address is {said}, and it is {fact}: {instructions(count)}"
            edge = addr - 4 if first > int(proof.first[owner]) else 0
        else:
            message = f"That the return address is {said} is not so on every path: {instructions(count)}"
            edge = 0
        yield Finding(code, addr, subject.name_at(addr), message, edge, 4 * count)
