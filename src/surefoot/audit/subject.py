"""Layer 6: what an audit works on: an image, its rules, its proof, and its text as one map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from surefoot.audit.promised import Promised
from surefoot.audit.textmap import Cover, TextMap
from surefoot.dtypes import Addr, Code, Insn, Row
from surefoot.image.binary import Image
from surefoot.image.functions import Ranges
from surefoot.image.livetext import Mechanisms, mechanisms
from surefoot.proof.prove import Proof
from surefoot.proof.signing import Signing

__all__ = ["Subject"]


@dataclass(frozen=True)
class Subject:
    """One image under audit.

    Attributes:
        image: linked, or placed.
        parts: (address, words) of its executable sections, ascending; branches of modules resolved.
        proof: verdicts; None where the image has no metadata.
        outside: names of code of other images, by the address that stands for it (`Linked.names`).
        promised: functions that the compiler takes never to return; None where its debug information was not asked.
        signing: what is known of rows that say whether the return address is signed; None without metadata.
    """

    image: Image
    parts: list[tuple[int, Insn]]
    proof: Proof | None
    outside: Mapping[int, str] = field(default_factory=dict)
    promised: Promised | None = None
    signing: Signing | None = None

    @cached_property
    def ranges(self) -> Ranges:
        """Code ranges, each with the function that speaks for it."""
        return self.image.functions.ranges

    @cached_property
    def map(self) -> TextMap:
        """Every word with its verdict."""
        return TextMap.of(self.parts, self.ranges, self.proof)

    @cached_property
    def mechanisms(self) -> Mechanisms:
        """Where the kernel rewrites the image's text."""
        return mechanisms(self.image)

    @cached_property
    def verdicts(self) -> Code:
        """(m,) uint8, the verdict on each code range, `Cover`: the worst of its instructions.

        NO_METADATA only where no rule speaks of any instruction, DATA for data.
        """
        counts = self.map.tally(self.ranges.start.size)
        result = np.full(counts.shape[0], Cover.NO_METADATA, dtype=np.uint8)
        result[counts[:, Cover.DATA] > 0] = Cover.DATA
        for cover in (Cover.PROVEN, Cover.UNPROVEN, Cover.REFUTED):
            result[counts[:, cover] > 0] = cover
        return result

    def address_of(self, name: str) -> int | None:
        """Give the address of a symbol, None if there is none."""
        return self.image.symbols.address_of(name)

    def range_at(self, addr: Addr) -> Row:
        """Give the code range that contains each address, (n,) int64, -1 for none."""
        ranges = self.ranges
        if not ranges.start.size:
            return np.full(addr.shape, -1, dtype=np.int64)
        at = np.searchsorted(ranges.start, addr, side="right").astype(np.int64) - 1
        safe = np.maximum(at, 0)
        return np.where((at >= 0) & (addr < ranges.end[safe]), at, np.int64(-1))

    def bounds(self, pair: tuple[str, str]) -> tuple[int, int]:
        """Give the addresses of two symbols, (0, 0) if one is missing."""
        low, high = self.address_of(pair[0]), self.address_of(pair[1])
        return (0, 0) if low is None or high is None else (low, high)

    def name_at(self, addr: int) -> str:
        """Give the function that contains an address, or what kallsyms would print; empty if there is none."""
        if addr in self.outside:
            return self.outside[addr]
        addrs = np.array([addr], dtype=np.uint64)
        row = int(self.image.functions.lookup(addrs)[0])
        if row < 0:
            row = int(self.image.functions.nearest(addrs)[0])
        return self.image.functions.name(row) if row >= 0 else ""
