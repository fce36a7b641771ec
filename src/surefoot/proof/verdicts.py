"""Layer 4: the verdicts that proofs give, and the interface through which the walker asks for them."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, Protocol

import numpy as np

from surefoot.dtypes import Addr, Code

__all__ = ["NO_PROOFS", "NoProofs", "Proofs", "Verdict"]


class Verdict(IntEnum):
    """What is known about the rule in force at one instruction address."""

    NO_METADATA = 0
    UNPROVEN = 1
    REFUTED = 2
    PROVEN = 3


class Proofs(Protocol):
    """Verdicts by run-time address."""

    def verdict(self, addr: Addr) -> Code:
        """Give the verdict at each instruction address.

        Args:
            addr: (n,) uint64, exact instruction addresses; for a return address the caller passes that of the
                call before it.

        Returns:
            (n,) uint8, `Verdict`.
        """
        ...


class NoProofs:
    """The state of knowledge before anything has been proved: every rule is unproven."""

    def verdict(self, addr: Addr) -> Code:
        """Give UNPROVEN for every address."""
        return np.full(addr.shape, Verdict.UNPROVEN, dtype=np.uint8)


NO_PROOFS: Final[Proofs] = NoProofs()
