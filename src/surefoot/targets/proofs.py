"""Layer 7: proofs of the code that runs: over its live words, of the functions that are needed, kept for other days.

What a kernel may make of its own text (alternatives, jump labels, patch sites) is part of the proof. Everything else
that it wrote there is proved as it stands (`surefoot.image.provable`); where nobody announced it, so are the image's
words that were there before. Modules are proved as they were loaded.

Invariant: a kept proof is used for the very words, rules and prover that it was made with; the tables of an image
(exception table, alternatives, read-only data) are vouched for by its build-id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy as np

from surefoot.dtypes import Addr, Code, Insn, Mask, Row
from surefoot.errors import InputError
from surefoot.image.binary import Image
from surefoot.image.livetext import Change
from surefoot.image.provable import provable_words
from surefoot.isa.branches import branch_target, is_bl, page_veneers
from surefoot.metadata.rules import RuleTable
from surefoot.proof.chosen import prove_functions
from surefoot.proof.compact import VERSION, KeptProof, join_kept, keep, nothing_kept, pack, text_hash, unpack
from surefoot.proof.domain import Code as ProverCode
from surefoot.proof.inputs import code_of
from surefoot.proof.prove import Outline, prove
from surefoot.proof.verdicts import Verdict
from surefoot.targets.cache import TableCache
from surefoot.targets.code import Provable
from surefoot.unwind.code import TextWords

__all__ = ["AskedProofs", "CodeProofs", "ImageProofs", "Outside", "ProofStore", "no_answers"]

_FORMAT: Final = 2
"""Form of the kept arrays; the version of the prover's judgement is part of what is compared as well."""
_KIND: Final = "proof"
_TRAP: Final = np.uint32(0xD420_7D00)
"""BRK #1000, behind which nothing runs: stands for calls out of a module that do not come back."""


@dataclass(frozen=True, slots=True)
class AskedProofs:
    """Verdicts at the addresses that were asked for. Implements `Proofs`.

    Of other addresses nothing is said, although more may be known: what a walk makes of a stack shall depend neither
    on other stacks nor on what was proved another day.

    Attributes:
        kept: verdicts by run-time address.
        asked: (a,) uint64, ascending, exact instruction addresses.
    """

    kept: KeptProof
    asked: Addr

    def verdict(self, addr: Addr) -> Code:
        """Give the verdict at each instruction address: (n,) uint8, `Verdict`."""
        result = np.full(addr.shape, Verdict.UNPROVEN, dtype=np.uint8)
        if self.asked.size:
            at = np.minimum(np.searchsorted(self.asked, addr), self.asked.size - 1)
            known = np.flatnonzero(self.asked[at] == addr)
            result[known] = self.kept.verdict(addr[known])
        return result


def no_answers() -> AskedProofs:
    """Give proofs that nobody has asked for yet: every rule is unproven."""
    return AskedProofs(nothing_kept(), np.zeros(0, dtype=np.uint64))


@dataclass(frozen=True, slots=True)
class _Kept:
    """What is known of one image: `whole` if all of its functions were proved."""

    proof: KeptProof
    whole: bool


class ProofStore:
    """Proofs by build-id and by a hash of what was proved."""

    def __init__(self, cache: TableCache | None) -> None:
        """Use a cache; without one proofs live as long as the store."""
        self._cache = cache
        self._known: dict[tuple[str, bytes], _Kept] = {}

    def load(self, build_id: str, digest: bytes) -> tuple[KeptProof, bool]:
        """Give the proof of some words, and whether it speaks of all functions; an empty one if there is none."""
        key = (build_id, digest)
        if key not in self._known:
            self._known[key] = self._read(build_id, digest) or _Kept(nothing_kept(), whole=False)
        return self._known[key].proof, self._known[key].whole

    def store(self, build_id: str, digest: bytes, proof: KeptProof, *, whole: bool) -> None:
        """Keep a proof."""
        self._known[build_id, digest] = _Kept(proof, whole)
        if self._cache is not None:
            extra = {"of": np.frombuffer(digest, dtype=np.uint8), "whole": np.array([whole], dtype=np.uint8)}
            self._cache.store(build_id, _KIND, _short(digest), pack(proof) | extra)

    def _read(self, build_id: str, digest: bytes) -> _Kept | None:
        arrays = self._cache.load(build_id, _KIND, _short(digest)) if self._cache is not None else None
        if arrays is None or "of" not in arrays or arrays["of"].tobytes() != digest or "whole" not in arrays:
            return None
        try:
            return _Kept(unpack(arrays), bool(arrays["whole"].any()))
        except InputError:
            return None


def _short(digest: bytes) -> int:
    """Give the number in a file's name; the whole digest is compared when the file is read."""
    return int.from_bytes(digest[:6], "big")


@dataclass(frozen=True)
class Outside:
    """The code that modules call.

    Attributes:
        identity: of the kernel and where it lies.
        never_return: gives the run-time addresses of functions that never return.
    """

    identity: str
    never_return: Callable[[], Addr]


class ImageProofs:
    """Proofs of the kernel image, or of a module, as it runs."""

    def __init__(
        self, source: Provable, store: ProofStore, image: Callable[[], Image], outside: Outside | None = None
    ) -> None:
        """Describe what is to be proved; nothing is done yet.

        Args:
            source: the code.
            store: where proofs are kept.
            image: opens the image.
            outside: what a module calls; None for the kernel image.
        """
        self._source = source
        self._store = store
        self._image = image
        self._outside = outside
        self._outline: Outline | None = None
        self._is_asked = False

    @property
    def proof(self) -> KeptProof:
        """What is known of the image, by run-time addresses; nothing before something was asked."""
        if not self._is_asked:
            return nothing_kept()
        return self._store.load(self._source.build_id, self._digest)[0].shifted(self._source.bias)

    def ask(self, addr: Addr) -> None:
        """Prove the functions that hold some instructions, (n,) uint64; those of other images are left out.

        Raises:
            InputError: one of the image's own tables is damaged.
        """
        rules, build_id = self._source.rules, self._source.build_id
        row = rules.lookup(addr - np.uint64(self._source.bias % 2**64), np.zeros(addr.shape, dtype=np.bool_))
        funcs: Row = np.unique(rules.func[row[row >= 0]]).astype(np.int64)
        if not funcs.size:
            return
        self._is_asked = True
        kept, whole = self._store.load(build_id, self._digest)
        funcs = funcs[(kept.run(rules.functions.start[funcs]) < 0) & ~self._hidden[funcs]]
        if whole or not funcs.size:
            return
        if self._outline is None:
            self._outline = Outline.of(rules, self._words, self._code(), acts=False)
        more = prove_functions(self._outline, funcs)
        self._store.store(build_id, self._digest, join_kept([kept, more]), whole=False)

    def ask_all(self) -> None:
        """Prove all functions.

        Raises:
            InputError: one of the image's own tables is damaged.
        """
        build_id = self._source.build_id
        self._is_asked = True
        if not self._store.load(build_id, self._digest)[1]:
            proof = prove(self._source.rules, self._words, self._code())
            self._store.store(build_id, self._digest, keep(proof, ~self._hidden), whole=True)

    def forget(self) -> None:
        """Let go of what only further proofs would need."""
        self._outline = None

    @cached_property
    def _digest(self) -> bytes:
        """What a kept proof must have been made with."""
        outside = "" if self._outside is None else self._outside.identity
        known = f"{_FORMAT}.{VERSION}.{outside}.{text_hash(self._fresh[0])}"
        digest = hashlib.blake2b(known.encode(), digest_size=16)
        _feed(digest.update, self._source.rules)
        digest.update(np.flatnonzero(self._hidden).tobytes())
        for column in self._former:
            digest.update(column.tobytes())
        return digest.digest()

    @cached_property
    def _former(self) -> tuple[Addr, Insn]:
        """Where words have changed for a reason that nobody announced, and what the image has there.

        A task may have come by when the former word stood there, or may be in code that the live one no longer leads
        to (a function that was patched away): either word may have run.
        """
        differ = self._source.differ
        at = np.flatnonzero(differ.cause == Change.OTHER)
        return differ.addr[at], differ.image[at]

    def _code(self) -> ProverCode:
        """Give how the code runs differently from what its words say."""
        module = self._source.module is not None  # whose file has unresolved branches, also in alternatives
        code = code_of(self._image(), self._words if module else None)
        addr, word = self._former
        return replace(
            code,
            sites=np.concatenate([code.sites, addr]),
            words=np.concatenate([code.words, word]),
            targets=np.concatenate([code.targets, branch_target(word, addr)]),
        )

    @cached_property
    def _fresh(self) -> tuple[list[tuple[int, Insn]], list[tuple[int, int]]]:
        """(address, words) to be proved, and ranges [start, end) of words that are not known."""
        source = self._source
        parts, unknown = [], list[tuple[int, int]]()
        for base, words in source.ranges:
            fresh, hidden = provable_words(base, words, source.differ, source.relocated)
            parts.append((base, fresh))
            unknown += [(addr, addr + 4) for addr in hidden.tolist()]
            unknown += _gaps(base, base + 4 * words.size, source.live)
        if source.module is None:
            return [*parts, *source.gone], unknown
        return [(addr, _overlaid(addr, words, parts)) for addr, words in source.live], unknown

    @cached_property
    def _words(self) -> list[tuple[int, Insn]]:
        """(address, words) that proofs are over."""
        parts = self._fresh[0]
        return parts if self._outside is None else _with_traps(parts, self._outside.never_return())

    @cached_property
    def _hidden(self) -> Mask:
        """(f,) bool: functions with a word that is not known; where parts of a module are missing, all of them."""
        index, unknown = self._source.rules.functions, self._fresh[1]
        found = np.zeros(len(index), dtype=np.bool_)
        for low, high in unknown:
            found |= (index.start < np.uint64(high)) & (index.end > np.uint64(low))
        # Branches out of a function that cannot be read may lead into any other of a module. Those of the kernel
        # image are then the file's.
        return found if self._source.module is None else found | any(high - low > 4 for low, high in unknown)


def _feed(update: Callable[[Any], object], table: RuleTable) -> None:
    """Hash the columns of a table."""
    for item in fields(table):
        value = getattr(table, item.name)
        if is_dataclass(value):
            _feed(update, value)  # type: ignore[arg-type]
        elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
            update(item.name.encode())
            update(np.ascontiguousarray(value).view(np.uint8).data if value.size else b"")


def _gaps(low: int, high: int, parts: Sequence[tuple[int, Insn]]) -> list[tuple[int, int]]:
    """Give the parts of [low, high) that some ranges of words do not cover."""
    found = []
    at = low
    for addr, words in sorted(parts, key=lambda part: part[0]):
        end = addr + 4 * words.size
        if end <= at or addr >= high:
            continue
        if addr > at:
            found.append((at, addr))
        at = end
    return [*found, (at, high)] if at < high else found


def _overlaid(addr: int, words: Insn, parts: Sequence[tuple[int, Insn]]) -> Insn:
    """Give words with those of other ranges in their places."""
    result = words.copy()
    for base, fresh in parts:
        low, high = max(addr, base), min(addr + 4 * words.size, base + 4 * fresh.size)
        if low < high:
            result[(low - addr) // 4 : (high - addr) // 4] = fresh[(low - base) // 4 : (high - base) // 4]
    return result


def _with_traps(parts: Sequence[tuple[int, Insn]], never: Addr) -> list[tuple[int, Insn]]:
    """Give code with traps in the place of its calls of functions that never return, by way of veneers too."""
    text = TextWords.from_ranges(parts)
    found = []
    for addr, words in parts:
        at = np.flatnonzero(is_bl(words))
        target = branch_target(words[at], np.uint64(addr) + (at.astype(np.uint64) << np.uint64(2)))
        three = [text.words_at(target + np.uint64(4 * i))[0] for i in range(3)]
        beyond, veneer = page_veneers(three[0], three[1], three[2], target)
        fresh = words.copy()
        fresh[at[np.isin(np.where(veneer, beyond, target), never)]] = _TRAP
        found.append((addr, fresh))
    return found


class CodeProofs:
    """Proofs of all the code of a target.

    Attributes:
        notes: what could not be proved at all.
    """

    def __init__(self, images: Sequence[tuple[str, ImageProofs]]) -> None:
        """Join the proofs of named images."""
        self._images = list(images)
        self.notes: list[str] = []

    def ask(self, addr: Addr) -> None:
        """Prove the functions that hold some instructions, (n,) uint64."""
        self._each(lambda image: image.ask(addr))

    def ask_all(self) -> None:
        """Prove all functions."""
        self._each(ImageProofs.ask_all)

    @property
    def proof(self) -> KeptProof:
        """What is known so far, by run-time addresses."""
        return join_kept([image.proof for _, image in self._images])

    def forget(self) -> None:
        """Let go of what only further proofs would need."""
        for _, image in self._images:
            image.forget()

    def _each(self, act: Callable[[ImageProofs], None]) -> None:
        """Do something with every image; one that is damaged is named, and has no proofs from then on."""
        for pair in list(self._images):
            try:
                act(pair[1])
            except InputError as error:
                self.notes.append(f"{pair[0]}: its rules cannot be proved: {error.message}")
                self._images.remove(pair)
