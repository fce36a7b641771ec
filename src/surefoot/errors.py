"""Layer 0: the exception hierarchy, and nothing else.

Three kinds of trouble are kept apart everywhere in Surefoot:

* an *error* means that the call failed: one of the exceptions below, exit status 2 on the command line;
* a *reason* means that an item (a stack, a function) is undecided: data, never an exception;
* a *finding* means that somebody should repair something: data with a stable code.
"""

from __future__ import annotations

__all__ = [
    "Denied",
    "Inconsistent",
    "InputError",
    "MemoryFault",
    "NotApplied",
    "PatchError",
    "SiteMismatch",
    "SurefootError",
    "TargetError",
    "Truncated",
    "Unavailable",
    "UnknownVersion",
    "Unsupported",
]


class SurefootError(Exception):
    """Root of every error that Surefoot raises on purpose.

    Attributes:
        hint: what the reader may try next; one sentence, or empty.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class InputError(SurefootError):
    """A file or byte string is not what it has to be.

    Attributes:
        message: what is wrong, without the place.
        file: name of the file, or empty where the bytes came from memory.
        section: ELF section (or other part), or empty.
        offset: byte offset inside the section (or the file where no section is given), or None.
    """

    def __init__(
        self, message: str, *, file: str = "", section: str = "", offset: int | None = None, hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.message = message
        self.file = file
        self.section = section
        self.offset = offset

    def __str__(self) -> str:
        place = ": ".join(part for part in (self.file, self.section) if part)
        if self.offset is not None:
            place += f"{'+' if place else 'offset '}{self.offset:#x}"
        return f"{place}: {self.message}" if place else self.message

    def at(self, *, file: str = "", section: str = "") -> InputError:
        """Give the same error with a place filled in where it was not known before."""
        self.file = self.file or file
        self.section = self.section or section
        return self


class Truncated(InputError):
    """The bytes end before the structure does."""


class UnknownVersion(InputError):
    """The structure names a version that does not exist (or not yet)."""


class Unsupported(InputError):
    """Well formed, but of a kind that Surefoot does not read: wrong machine, wrong class."""


class Inconsistent(InputError):
    """Two parts of the input contradict each other, or an input contradicts another one."""


class TargetError(SurefootError):
    """A machine, dump or guest could not be used."""


class Unavailable(TargetError):
    """The target, or a tool that it needs, is not there."""


class Denied(TargetError):
    """The target exists but may not be used by this user."""


class MemoryFault(TargetError):
    """An address of the target cannot be read or written.

    Attributes:
        addr: first address of the access.
        size: length of the access in bytes.
    """

    def __init__(self, addr: int, size: int) -> None:
        super().__init__(f"cannot access {size} bytes at {addr:#x}")
        self.addr = addr
        self.size = size


class PatchError(SurefootError):
    """A patch was not applied; the target is as it was before."""


class SiteMismatch(PatchError):
    """The bytes at a patch site are not the ones that a patch may replace."""


class NotApplied(PatchError):
    """The conditions for applying or reverting a patch were not met."""
