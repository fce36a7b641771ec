"""Layer 6: findings as values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from surefoot.audit.catalogue import CATALOGUE, CodeInfo, Severity

__all__ = ["Finding", "count_codes", "worst"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that somebody should repair.

    Attributes:
        code: stable name, a key of `CATALOGUE`.
        address: where, at the addresses of the image.
        symbol: function, empty where there is none.
        message: one sentence that its owner can act on.
        edge: address of the instruction that leads to `address` and breaks what holds there; 0 for none.
        size: bytes that the finding speaks of, from `address`; 0 where it is one instruction.
        count: how many of the same kind this one stands for.
        suggestion: lines that its owner could add, each with the offset in the function where it goes.
    """

    code: str
    address: int
    symbol: str
    message: str
    edge: int = 0
    size: int = 0
    count: int = 1
    suggestion: tuple[str, ...] = ()

    @property
    def info(self) -> CodeInfo:
        """What the code stands for."""
        return CATALOGUE[self.code]


def worst(findings: Iterable[Finding]) -> Severity | None:
    """Give the highest severity, None without findings."""
    return max((finding.info.severity for finding in findings), default=None)


def count_codes(findings: Sequence[Finding]) -> dict[str, int]:
    """Give how many findings each code has, in the order of the catalogue."""
    counts = dict.fromkeys(CATALOGUE, 0)
    for finding in findings:
        counts[finding.code] += 1
    return {code: count for code, count in counts.items() if count}
