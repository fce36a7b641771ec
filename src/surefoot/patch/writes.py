"""Layer 6: writing patch sites: all or none, and a journal from which a command that was killed can be recovered.

Invariant: after `perform` every write is done, or none is, or `PartlyWritten` names those that are. What is written
and what is not is always decided by the target's own bytes, never by what a program remembers to have sent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from surefoot.errors import Inconsistent, PatchError, SiteMismatch, TargetError
from surefoot.patch.events import PatchState

__all__ = [
    "Action",
    "Journal",
    "PartlyWritten",
    "PatchedFunction",
    "Put",
    "Read",
    "Recovery",
    "Stage",
    "Write",
    "perform",
    "recover",
    "undo_of",
]

Read = Callable[[int, int], bytes | None]
"""Gives bytes of the target's memory, None where they cannot be read."""
Put = Callable[[int, bytes], None]
"""Writes bytes to the target; raises if they may not have arrived."""

_SCHEMA: Final = "surefoot.patch-journal/1"
_LITERAL: Final = 8
"""Bytes of an address before a function; words of code have four."""


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes to be written, all at once.

    Attributes:
        function: whose site it belongs to.
        address: where, aligned to their number.
        old: what is there.
        new: what is to be there.
    """

    function: str
    address: int
    old: bytes
    new: bytes

    @property
    def reversed(self) -> Write:
        """The write that takes this one back."""
        return replace(self, old=self.new, new=self.old)

    def __str__(self) -> str:
        return f"{self.function} at {self.address:#x} ({self.old.hex()} -> {self.new.hex()})"


class PartlyWritten(PatchError):
    """Some writes are done and could not be taken back.

    Attributes:
        left: the writes that are done, or of which it cannot be told.
    """

    def __init__(self, left: Sequence[Write], cause: BaseException) -> None:
        listed = "; ".join(map(str, left))
        super().__init__(
            f"only a part could be written and not all of it taken back ({cause}). Written still: {listed}",
            hint="the target must not run on before `surefoot patch revert` has taken these back",
        )
        self.left = tuple(left)


def perform(writes: Sequence[Write], read: Read, put: Put) -> None:
    """Do all writes in their order, or none.

    Args:
        writes: none of which overlap.
        read: the target's bytes.
        put: writes them.

    Raises:
        SiteMismatch: the target holds other bytes than expected; nothing was written.
        PartlyWritten: a write failed, and taking back failed as well.
        BaseException: whatever `put` raised, after everything was taken back.
    """
    for write in writes:
        found = read(write.address, len(write.old))
        if found != write.old:
            shown = "unreadable" if found is None else found.hex()
            raise SiteMismatch(f"{write.function} at {write.address:#x} holds {shown}, not {write.old.hex()}")
    begun: list[Write] = []
    try:
        for write in writes:
            begun.append(write)
            _put(write, read, put)
    except BaseException as error:
        left = _take_back(begun, read, put)
        if left:
            raise PartlyWritten(left, error) from error
        raise


def _put(write: Write, read: Read, put: Put) -> None:
    put(write.address, write.new)
    if read(write.address, len(write.new)) != write.new:
        raise TargetError(f"{write.function} at {write.address:#x} does not hold what was written")


def _take_back(begun: Sequence[Write], read: Read, put: Put) -> list[Write]:
    """Undo writes in reverse order and give those that are done still."""
    left: list[Write] = []
    for write in reversed(begun):
        for _ in range(2):  # once more for an interruption, or a connection that has to be made anew
            if read(write.address, len(write.old)) == write.old:
                break
            try:
                put(write.address, write.old)
            except BaseException:  # noqa: BLE001, S112 - the bytes tell what became of it
                continue
        if read(write.address, len(write.old)) != write.old:
            left.append(write)
    return left[::-1]


class Action(StrEnum):
    """What is being done to a target."""

    APPLY = "apply"
    REVERT = "revert"


class Stage(StrEnum):
    """How far it has come, as noted by the command that does it."""

    INTENDED = "intended"
    """From before the first byte on."""
    WRITTEN = "written"
    """The new code is in force."""
    UNDONE = "undone"
    """The old code is in force."""


@dataclass(frozen=True, slots=True)
class PatchedFunction:
    """A function of a patch, in a target.

    Attributes:
        name: of the old function.
        object: "vmlinux" or a module.
        address: of the old function.
        new: address of the new one.
    """

    name: str
    object: str
    address: int
    new: int


@dataclass(frozen=True, slots=True)
class Journal:
    """What has been, or may have been, written to a target on behalf of one patch.

    Attributes:
        patch: its name.
        action: what is being done, or was done last.
        stage: how far it has come.
        build_id: of the target's kernel.
        boot: tells one run of the target from another, in which nothing is written yet.
        source: where the patch was described.
        functions: of the patch.
        writes: from the old bytes to the new ones, whatever the action; in the order of an apply.
    """

    patch: str
    action: Action
    stage: Stage
    build_id: str
    boot: str
    source: str
    functions: tuple[PatchedFunction, ...]
    writes: tuple[Write, ...]

    def to_text(self) -> str:
        """Give the journal as JSON text."""
        plain = {
            "schema": _SCHEMA,
            "patch": self.patch,
            "action": self.action.value,
            "stage": self.stage.value,
            "build_id": self.build_id,
            "boot": self.boot,
            "source": self.source,
            "functions": [
                {"name": one.name, "object": one.object, "address": hex(one.address), "new": hex(one.new)}
                for one in self.functions
            ],
            "writes": [
                {"function": one.function, "address": hex(one.address), "old": one.old.hex(), "new": one.new.hex()}
                for one in self.writes
            ],
        }
        return json.dumps(plain, indent=1) + "\n"

    @classmethod
    def from_text(cls, text: str, file: str = "") -> Journal:
        """Read a journal back.

        Raises:
            Inconsistent: it is damaged, or of another version.
        """
        try:
            value = json.loads(text)
            if value["schema"] != _SCHEMA:
                raise Inconsistent(f"a journal of version {value['schema']!r}, not {_SCHEMA}", file=file)
            return _journal(value)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise Inconsistent(f"the journal is damaged: {error}", file=file) from error


def _journal(value: dict[str, Any]) -> Journal:
    """Give the journal of a JSON object.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    texts = {name: value[name] for name in ("patch", "build_id", "boot", "source")}
    if any(not isinstance(text, str) for text in texts.values()):
        raise ValueError("a text is none")
    functions = tuple(
        PatchedFunction(str(one["name"]), str(one["object"]), _address(one["address"]), _address(one["new"]))
        for one in value["functions"]
    )
    writes = tuple(
        Write(str(one["function"]), _address(one["address"]), bytes.fromhex(one["old"]), bytes.fromhex(one["new"]))
        for one in value["writes"]
    )
    if any(len(one.old) != len(one.new) or len(one.old) not in {4, _LITERAL} for one in writes):
        raise ValueError("a write has neither four nor eight bytes")
    return Journal(
        action=Action(value["action"]), stage=Stage(value["stage"]), functions=functions, writes=writes, **texts
    )


def _address(text: object) -> int:
    value = int(str(text), 16)
    if not 0 <= value < 1 << 64:
        raise ValueError(f"{text!r} is no address")
    return value


@dataclass(frozen=True, slots=True)
class Recovery:
    """What a target's bytes say of a journal.

    Attributes:
        state: ABSENT, APPLIED or PARTIAL.
        undo: what takes the patch back from here, in order; empty for ABSENT.
        unknown: writes whose place holds neither old nor new bytes, and that cannot be taken back therefore.
        redirected: addresses of the old functions whose calls lead to new code.
    """

    state: PatchState
    undo: tuple[Write, ...]
    unknown: tuple[Write, ...]
    redirected: frozenset[int]


def recover(journal: Journal, read: Read) -> Recovery:
    """Decide from the target's bytes what is written.

    A function's site counts as written only if all its bytes are the new ones, and as untouched only if none of its
    words is: the eight bytes before a function, and the words of a site that is not in use, belong to ftrace, which
    may have changed them since.

    Args:
        journal: of the patch.
        read: the target's bytes.
    """
    undo: list[Write] = []
    unknown: list[Write] = []
    full = free = 0
    redirected = set[int]()
    sites = _by_site(journal.writes)
    for writes in sites:
        found = [read(write.address, len(write.new)) for write in writes]
        is_new = [live == write.new for live, write in zip(found, writes, strict=True)]
        words = [new for new, write in zip(is_new, writes, strict=True) if len(write.new) != _LITERAL]
        if all(is_new):
            full += 1
            redirected |= {one.address for one in journal.functions if _near(one.address, writes[0])}
        elif not any(words) and None not in found:
            free += 1
            continue
        undo += [write for write, new in zip(writes, is_new, strict=True) if new]
        unknown += [one for one, live in zip(writes, found, strict=True) if live not in {one.old, one.new}]
    state = PatchState.PARTIAL
    if full == len(sites):
        state = PatchState.APPLIED
    elif free == len(sites):
        state = PatchState.ABSENT
    return Recovery(state, undo_of(undo), tuple(unknown), frozenset(redirected))


def _near(address: int, write: Write) -> bool:
    """Whether a write may belong to the site at an address: one lies within 16 bytes, and functions have more."""
    return abs(address - write.address) <= 2 * _LITERAL


def _by_site(writes: Sequence[Write]) -> list[list[Write]]:
    """Group writes by their sites; functions of one name may lie in several objects."""
    sites: list[list[Write]] = []
    for write in writes:
        if sites and sites[-1][0].function == write.function and _near(sites[-1][0].address, write):
            sites[-1].append(write)
        else:
            sites.append([write])
    return sites


def undo_of(writes: Iterable[Write]) -> tuple[Write, ...]:
    """Give the writes that take others back, in order."""
    return tuple(write.reversed for write in reversed(tuple(writes)))
