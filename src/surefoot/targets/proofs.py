"""Layer 7: proofs of kernel images, made once and kept by build-id, placed where the running kernel lies.

What a kernel may make of its own text (alternatives, jump labels, patch sites) is part of the proof; a word that
none of these mechanisms explains is refused by the walker itself (Reason.TEXT_CHANGED).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Final

import numpy as np

from surefoot.dtypes import Addr, Code, Row
from surefoot.image.binary import Image
from surefoot.metadata.rules import RuleTable
from surefoot.proof.compact import VERSION
from surefoot.proof.inputs import code_of
from surefoot.proof.prove import prove
from surefoot.proof.verdicts import Verdict
from surefoot.targets.cache import TableCache

__all__ = ["PlacedProof", "load_proof"]

_FORMAT: Final = 1
"""Form of the kept arrays; the version of the prover's judgement is part of the key as well."""
_KIND: Final = "proof"


@dataclass(frozen=True, slots=True)
class PlacedProof:
    """Verdicts on the rules of the kernel image by run-time address. Implements `Proofs`.

    Code of which the image does not speak, such as modules, has no verdict: UNPROVEN.

    Attributes:
        rules: the table that was proved, link-time addresses.
        row_first: (r + 1,) int64, index of the first instruction of each row.
        verdicts: (n,) uint8, `Verdict` of every instruction under a row.
        bias: KASLR offset, bytes.
    """

    rules: RuleTable
    row_first: Row
    verdicts: Code
    bias: int

    def verdict(self, addr: Addr) -> Code:
        """Give the verdict at each instruction address: (n,) uint8, `Verdict`."""
        linked = addr - np.uint64(self.bias % 2**64)
        row = self.rules.lookup(linked, np.zeros(addr.shape, dtype=np.bool_))
        result = np.full(addr.shape, Verdict.UNPROVEN, dtype=np.uint8)
        known = np.flatnonzero((row >= 0) & (linked & np.uint64(3) == 0))
        off = linked[known] - self.rules.start[row[known]]
        result[known] = self.verdicts[self.row_first[row[known]] + (off >> np.uint64(2)).astype(np.int64)]
        return result


def load_proof(image: Image, rules: RuleTable, bias: int, cache: TableCache | None) -> PlacedProof:
    """Give the proof of a kernel image, from the cache if it is there.

    Args:
        image: the kernel, linked.
        rules: its table from `RuleTable.for_lookup`, ABI defaults applied, link-time addresses.
        bias: KASLR offset, bytes.
        cache: where proofs are kept; None keeps nothing.

    Raises:
        InputError: one of the image's own tables is damaged.
    """
    ranges = image.text.ranges
    version = zlib.crc32(f"{_FORMAT}.{VERSION}".encode())
    for _, words in ranges:  # a copy with other code under the same build-id is another image
        version = zlib.crc32(np.ascontiguousarray(words).data, version)
    if cache is not None:
        arrays = cache.load(image.build_id, _KIND, version)
        if arrays is not None and _fits(arrays.get("row_first"), arrays.get("verdicts"), rules):
            return PlacedProof(rules, arrays["row_first"], arrays["verdicts"], bias)
    proof = prove(rules, ranges, code_of(image))
    if cache is not None:
        cache.store(image.build_id, _KIND, version, {"row_first": proof.row_first, "verdicts": proof.verdicts})
    return PlacedProof(rules, proof.row_first, proof.verdicts, bias)


def _fits(row_first: object, verdicts: object, rules: RuleTable) -> bool:
    """Whether kept arrays speak of the instructions of this very table."""
    if not isinstance(row_first, np.ndarray) or not isinstance(verdicts, np.ndarray):
        return False
    count = np.diff(row_first) if row_first.size else row_first
    length = ((rules.end - rules.start) >> np.uint64(2)).astype(np.int64)
    return (
        row_first.size == len(rules) + 1
        and bool(np.array_equal(count, length))
        and int(row_first[-1]) == verdicts.size
        and verdicts.dtype == np.uint8
    )
