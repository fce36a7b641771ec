"""Layer 6: a running kernel's text against its image: what changed, by whom, and whether the rules still hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from surefoot.audit.findings import Finding
from surefoot.audit.subject import Subject
from surefoot.audit.words import instructions
from surefoot.dtypes import Insn, Mask, Row
from surefoot.image.livetext import TRANSPARENT, Change, Differences, compare, join_differences
from surefoot.proof.domain import Code
from surefoot.proof.prove import Open, Proof, prove
from surefoot.proof.verdicts import Verdict

__all__ = ["Live", "audit_live", "live_findings"]


@dataclass(frozen=True)
class Live:
    """The text of a running kernel, compared and proved.

    Attributes:
        name: of the target.
        words: how many were compared.
        differences: the words that differ.
        proof: over the live words; None where the image has no metadata.
        touched: (t,) int64, functions of the rules with a word that differs.
        worse: (w,) int64, functions with an instruction that is proved in the image and not as it runs.
    """

    name: str
    words: int
    differences: Differences
    proof: Proof | None
    touched: Row
    worse: Row


def audit_live(subject: Subject, name: str, parts: list[tuple[int, Insn]], code: Code) -> Live:
    """Compare live text with the image and prove it again.

    Args:
        subject: the image.
        name: of the target.
        parts: (address, words) as read, moved to the addresses of the image.
        code: exception table, jump labels and stops of the image.
    """
    found, total = [], 0
    fresh = [(start, words.copy()) for start, words in subject.parts]
    for start, live in parts:
        for base, words in fresh:
            low, high = max(start, base), min(start + 4 * live.size, base + 4 * words.size)
            if low >= high:
                continue
            here = slice((low - base) // 4, (high - base) // 4)
            now = live[(low - start) // 4 : (high - start) // 4]
            differ = compare(low, words[here], now, subject.mechanisms)
            keep = ~np.isin(differ.cause, TRANSPARENT)
            at = ((differ.addr[keep] - np.uint64(base)) >> np.uint64(2)).astype(np.int64)
            words[at] = differ.live[keep]
            found.append(differ)
            total += now.size
    joined = join_differences(found)
    if subject.proof is None:
        nothing = np.zeros(0, dtype=np.int64)
        return Live(name, total, joined, None, nothing, nothing)
    rules = subject.proof.rules
    row = rules.lookup(joined.addr, np.zeros(len(joined), dtype=np.bool_))
    touched = np.unique(rules.func[row[row >= 0]]).astype(np.int64)
    proof = prove(rules, fresh, code)
    at = np.flatnonzero(_lost(subject.proof, proof, slice(None)))
    worse = np.unique(np.searchsorted(proof.first, at, side="right") - 1).astype(np.int64)
    return Live(name, total, joined, proof, touched, worse)


def _lost(before: Proof, now: Proof, span: slice) -> Mask:
    """(n,) bool: proved in the image and not as it runs; code that cannot be reached any more is no loss."""
    found: Mask = (before.verdicts[span] == Verdict.PROVEN) & (now.verdicts[span] != Verdict.PROVEN)
    found &= now.open[span] != Open.NOT_REACHED
    return found


def live_findings(subject: Subject, live: Live) -> Iterator[Finding]:
    """Yield words that nothing explains, and functions whose proof does not survive the live words."""
    differ = live.differences
    other = differ.cause == Change.OTHER
    columns = (differ.addr[other], differ.image[other], differ.live[other])
    for addr, image, now in zip(*(column.tolist() for column in columns), strict=True):
        message = f"The image has {image:08x} here, the running kernel {now:08x}"
        yield Finding("live-unexplained", addr, subject.name_at(addr), message)
    if live.proof is None or subject.proof is None:
        return
    first = subject.proof.first
    for func in live.worse.tolist():
        span = slice(int(first[func]), int(first[func + 1]))
        lost = _lost(subject.proof, live.proof, span)
        start = int(subject.proof.rules.functions.start[func])
        end = start + int(subject.proof.rules.functions.size[func])
        here = (differ.addr >= np.uint64(start)) & (differ.addr < np.uint64(end))
        causes = [Change(cause).name.lower() for cause in np.unique(differ.cause[here]).tolist()]
        where = start + 4 * int(np.flatnonzero(lost)[0])
        why = ", ".join(causes) or "a function it calls"
        message = (
            f"{instructions(int(np.count_nonzero(lost)))} proved in the image, not as it runs; changed by: {why}"
        )
        yield Finding("live-verdict", where, subject.name_at(where), message)
