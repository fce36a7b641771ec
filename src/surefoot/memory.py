"""Layer 0: Protocols that let the upper layers meet without importing each other. No code.

`patch` (layer 6) and `targets` (layer 7) both speak these; the command line joins them.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Addr, Mask

__all__ = ["Memory"]


@runtime_checkable
class Memory(Protocol):
    """Bulk reads of a target's kernel virtual memory."""

    def read_many(self, addrs: Addr, size: int) -> tuple[NDArray[np.uint8], Mask]:
        """Read `size` bytes at each address.

        Args:
            addrs: (n,) uint64.
            size: bytes, the same for every address.

        Returns:
            (n, size) uint8 and (n,) bool; where the mask is False the address could not be read and
            the bytes mean nothing. An unreadable address is data, never an exception.
        """
        ...
