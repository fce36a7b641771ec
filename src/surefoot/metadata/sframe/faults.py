"""Layer 2: what is wrong with a section, as values; the strict decoder raises the first, the checker keeps them all.

Invariant: a code stands in `catalogue.CATALOGUE`, and its meaning never changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from surefoot.dtypes import Addr, Row, Row32
from surefoot.errors import Inconsistent, InputError

__all__ = ["DEFAULT_LIMIT", "Collector", "Faults", "Finding", "Place", "Strict"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that somebody should repair.

    Attributes:
        code: stable name, a key of `catalogue.CATALOGUE`.
        message: one sentence.
        offset: byte offset in the section, or None.
        fde: number of the descriptor over the whole section, or None.
        row: number of the row inside that descriptor, or None.
        address: resolved address (or section offset in relocatable objects) that it speaks of, or None.
        section: section header index that the address is an offset in, -1 in linked images.
        symbol: function name where the caller knows it, else empty.
        count: how many of the same kind this one stands for (1, or more where the limit was reached).
    """

    code: str
    message: str
    offset: int | None = None
    fde: int | None = None
    row: int | None = None
    address: int | None = None
    section: int = -1
    symbol: str = ""
    count: int = 1


@dataclass(frozen=True, slots=True)
class Place:
    """Where the items of a batch are; every given array has one entry per item.

    Attributes:
        offset: (n,) int64 byte offsets in the section.
        fde: (n,) int64 descriptor numbers.
        row: (n,) int64 row numbers inside the descriptors.
        address: (n,) uint64.
        section: (n,) int32, section header indices; None in linked images.
    """

    offset: Row | None = None
    fde: Row | None = None
    row: Row | None = None
    address: Addr | None = None
    section: Row32 | None = None

    def at(self, index: int) -> tuple[int | None, int | None, int | None, int | None, int]:
        """Give offset, descriptor, row and address of one item, None where not known, and its section."""
        offset, fde, row, address = (
            None if column is None else int(column[index])
            for column in (self.offset, self.fde, self.row, self.address)
        )
        return offset, fde, row, address, -1 if self.section is None else int(self.section[index])


class Faults(Protocol):
    """Receives what is wrong, one item or a batch at a time."""

    def one(
        self, code: str, message: str, *, offset: int | None = None, error: type[InputError] = Inconsistent
    ) -> None:
        """Take one fault that makes the section, or a part of it, unreadable."""

    def many(
        self, code: str, count: int, place: Place, say: Callable[[int], str], error: type[InputError] = Inconsistent
    ) -> None:
        """Take `count` faults of one code; `say(i)` gives the sentence of the i-th."""


class Strict:
    """Raises the first fault."""

    def one(
        self, code: str, message: str, *, offset: int | None = None, error: type[InputError] = Inconsistent
    ) -> None:
        """Raise the fault as an error."""
        del code
        raise error(message, offset=offset)

    def many(
        self, code: str, count: int, place: Place, say: Callable[[int], str], error: type[InputError] = Inconsistent
    ) -> None:
        """Raise the first fault of the batch, if there is one."""
        del code
        if count:
            raise error(say(0), offset=place.at(0)[0])


DEFAULT_LIMIT: Final = 1000


class Collector:
    """Keeps every fault, up to a limit per code; what exceeds it is counted in one closing finding.

    Attributes:
        findings: what was kept, in the order of arrival.
        totals: how many of each code there were, kept or not.
    """

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self.limit = limit
        self.findings: list[Finding] = []
        self.totals: dict[str, int] = {}

    def one(
        self, code: str, message: str, *, offset: int | None = None, error: type[InputError] = Inconsistent
    ) -> None:
        """Keep one fault."""
        del error
        self.many(code, 1, Place(None if offset is None else np.array([offset])), lambda _: message)

    def many(
        self, code: str, count: int, place: Place, say: Callable[[int], str], error: type[InputError] = Inconsistent
    ) -> None:
        """Keep a batch of faults."""
        del error
        known = self.totals.get(code, 0)
        room = max(0, min(count, self.limit - known))
        self.findings.extend(Finding(code, say(i), *place.at(i)) for i in range(room))
        if count:
            self.totals[code] = known + count

    def result(self) -> list[Finding]:
        """Give the findings; a code that exceeded the limit ends with one that says how many were left out."""
        left = [
            Finding(code, f"{total - self.limit} more of this kind are not listed", count=total - self.limit)
            for code, total in self.totals.items()
            if total > self.limit
        ]
        return [*self.findings, *left]
