"""Layer 4: verdicts as few arrays, to be kept by build-id and by a hash of the text that was proved.

Invariant: what `unpack` gives answers every question of `Proofs` as the proof did that was packed. Whether the rules,
the words and the tables are those of the proof is the caller's to know: `text_hash` is the part that a build-id does
not vouch for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Addr, Code, Insn, Mask, Row
from surefoot.errors import Inconsistent
from surefoot.proof.prove import Open, Proof
from surefoot.proof.verdicts import Verdict

__all__ = ["VERSION", "KeptProof", "join_kept", "keep", "nothing_kept", "pack", "text_hash", "unpack"]

VERSION: Final = 1
"""Of the meaning of the arrays, and of what the prover knows: a proof by another prover is no proof.

tests/unit/test_proof_version.py fails when the prover's code changes and this does not.
"""
_FOUR: Final = np.uint64(4)


@dataclass(frozen=True, slots=True)
class KeptProof:
    """Verdicts as runs of instructions. Implements `Proofs`.

    Attributes:
        start: (k,) uint64, first address of each run, ascending.
        end: (k,) uint64, address behind each run.
        verdicts: (k,) uint8, `Verdict`.
        open: (k,) uint8, `surefoot.proof.prove.Open`.
    """

    start: Addr
    end: Addr
    verdicts: Code
    open: Code

    def shifted(self, bias: int) -> KeptProof:
        """Give the verdicts with every address moved by `bias` bytes (KASLR), modulo 2**64."""
        delta = np.uint64(bias % 2**64)
        return KeptProof(self.start + delta, self.end + delta, self.verdicts, self.open)

    def run(self, addr: Addr) -> Row:
        """Give the run of each instruction address, (n,) int64, -1 for none."""
        if not self.start.size:
            return np.full(addr.shape, -1, dtype=np.int64)
        at = np.searchsorted(self.start, addr, side="right").astype(np.int64) - 1
        safe = np.maximum(at, 0)
        good = (at >= 0) & (addr < self.end[safe]) & ((addr - self.start[safe]) & np.uint64(3) == 0)
        return np.where(good, at, np.int64(-1))

    def verdict(self, addr: Addr) -> Code:
        """Give the verdict at each instruction address: (n,) uint8, `Verdict`."""
        at = self.run(addr)
        found = np.full(addr.shape, Verdict.NO_METADATA, dtype=np.uint8)
        found[at >= 0] = self.verdicts[at[at >= 0]]
        return found


def nothing_kept() -> KeptProof:
    """Give a proof that speaks of no address."""
    nothing, no_codes = np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.uint8)
    return KeptProof(nothing, nothing, no_codes, no_codes)


def keep(proof: Proof, chosen: Mask | None = None) -> KeptProof:
    """Give a proof's verdicts as runs.

    Args:
        proof: of any number of functions.
        chosen: (f,) bool, the functions of which to keep the verdicts; by default all.
    """
    count = np.diff(proof.first)
    mine = np.ones(proof.verdicts.size, dtype=np.bool_) if chosen is None else np.repeat(chosen, count)
    if not bool(np.any(mine)):
        return nothing_kept()
    cut = np.ones(proof.verdicts.size + 1, dtype=np.bool_)  # before each instruction, and behind the last
    cut[1:-1] = (proof.verdicts[1:] != proof.verdicts[:-1]) | (proof.open[1:] != proof.open[:-1])
    cut[1:-1] |= mine[1:] != mine[:-1]
    index = proof.rules.functions
    held = np.flatnonzero(count > 0)
    # A function that begins where the one before ends goes on with its run.
    odd = (index.start | index.size) & np.uint64(3) != 0
    gap = np.append(True, index.start[held][1:] != index.end[held][:-1]) | odd[held]
    cut[proof.first[:-1][held[gap]]] = True
    begin, last = np.flatnonzero(mine & cut[:-1]), np.flatnonzero(mine & cut[1:])
    start, end = _addr(proof, begin), _addr(proof, last) + _FOUR
    return KeptProof(start, end, proof.verdicts[begin], proof.open[begin])


def join_kept(parts: Sequence[KeptProof]) -> KeptProof:
    """Join proofs that speak of different functions into one.

    Raises:
        ValueError: two of them speak of one address (a bug of the caller).
    """
    columns = [(part.start, part.end, part.verdicts, part.open) for part in (nothing_kept(), *parts)]
    start, end, verdicts, why = (np.concatenate(column) for column in zip(*columns, strict=True))
    order = np.argsort(start, kind="stable")
    start, end = start[order], end[order]
    if bool(np.any(start[1:] < end[:-1])):
        raise ValueError("proofs of one instruction are joined")
    return KeptProof(start, end, verdicts[order], why[order])


def pack(proof: Proof | KeptProof) -> dict[str, NDArray[Any]]:
    """Give a proof's verdicts as arrays of plain types."""
    kept = proof if isinstance(proof, KeptProof) else keep(proof)
    return {"start": kept.start, "end": kept.end, "verdicts": kept.verdicts, "open": kept.open}


def _addr(proof: Proof, at: Row) -> Addr:
    """Give the address of each instruction."""
    row = np.searchsorted(proof.row_first, at, side="right") - 1
    return proof.rules.start[row] + ((at - proof.row_first[row]).astype(np.uint64) << np.uint64(2))


def unpack(arrays: Mapping[str, NDArray[Any]]) -> KeptProof:
    """Give the verdicts that were packed.

    Raises:
        Inconsistent: columns are missing, of different length or of another type, or runs overlap.
    """
    wanted = {"start": np.uint64, "end": np.uint64, "verdicts": np.uint8, "open": np.uint8}
    for name, kind in wanted.items():
        if name not in arrays or arrays[name].dtype != kind or arrays[name].shape != arrays["start"].shape:
            raise Inconsistent(f"kept proof: column {name} is missing or of another shape")
    start, end = arrays["start"], arrays["end"]
    if start.ndim != 1 or bool(np.any(end <= start)) or bool(np.any(start[1:] < end[:-1])):
        raise Inconsistent("kept proof: runs are empty, overlap or are not in order")
    if bool(np.any(arrays["verdicts"] > max(Verdict))) or bool(np.any(arrays["open"] > max(Open))):
        raise Inconsistent("kept proof: a verdict or a reason that does not exist")
    return KeptProof(start, end, arrays["verdicts"], arrays["open"])


def text_hash(ranges: Sequence[tuple[int, Insn]]) -> str:
    """Give a hash of code and where it lies, in hexadecimal."""
    digest = hashlib.blake2b(digest_size=16)
    for addr, words in sorted(ranges, key=lambda item: item[0]):
        digest.update(addr.to_bytes(8, "little") + words.size.to_bytes(8, "little"))
        digest.update(np.ascontiguousarray(words, dtype="<u4").data)
    return digest.hexdigest()
