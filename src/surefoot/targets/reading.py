"""Layer 7: reads of a target's memory through drgn that give what is there, and say what is not.

Invariant: nothing here raises because of what the target holds; an unreadable address is data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Addr, Bytes, Mask

if TYPE_CHECKING:
    from drgn import Program

__all__ = ["DrgnMemory", "u32_at", "u64_at"]

_PAGE: Final = 4096
"""Smallest page of arm64: a read that does not cross a multiple of it is answered whole or not at all."""


class DrgnMemory:
    """Kernel virtual memory of a drgn program; a `surefoot.memory.Memory`."""

    def __init__(self, prog: Program) -> None:
        self._read = prog.read

    def read(self, addr: int, size: int) -> bytes | None:
        """Give `size` bytes at `addr`, None where not all of them can be read."""
        if size < 0 or addr < 0 or addr + size > 2**64:
            return None
        try:
            data: bytes = self._read(addr, size)
        except Exception:  # noqa: BLE001 - drgn reports unreadable memory of kdump files as a bare Exception
            return None
        return data

    def u64(self, addr: int) -> int | None:
        """Give the 64-bit word at `addr`."""
        data = self.read(addr, 8)
        return None if data is None else int.from_bytes(data, "little")

    def text(self, addr: int, limit: int = 256) -> str | None:
        """Give the NUL-terminated string at `addr`, at most `limit` bytes of it."""
        data = b""
        while len(data) < limit:
            at = addr + len(data)
            piece = self.read(at, min(limit - len(data), _PAGE - at % _PAGE, 64))
            if piece is None:
                return None
            end = piece.find(b"\0")
            data += piece if end < 0 else piece[:end]
            if end >= 0:
                break
        return data.decode("utf-8", "replace")

    def words(self, addr: int, end: int) -> tuple[int, NDArray[np.uint64]]:
        """Read the 64-bit words of [addr, end), as far down from `end` as they can be read without a gap.

        Args:
            addr: 8-byte aligned.
            end: 8-byte aligned, above `addr`.

        Returns:
            the lowest address that was read (`end` if none) and the (w,) uint64 words from there to `end`.
        """
        data = self.read(addr, end - addr)
        if data is not None:
            return addr, np.frombuffer(data, dtype="<u8")
        pieces: list[bytes] = []
        low = end
        while low > addr:
            start = max((low - 1) // _PAGE * _PAGE, addr)
            piece = self.read(start, low - start)
            if piece is None:
                break
            pieces.append(piece)
            low = start
        return low, np.frombuffer(b"".join(reversed(pieces)), dtype="<u8")

    def read_many(self, addrs: Addr, size: int) -> tuple[Bytes, Mask]:
        """Read `size` bytes at each address; see `surefoot.memory.Memory`."""
        data = np.zeros((addrs.size, size), dtype=np.uint8)
        good = np.zeros(addrs.size, dtype=np.bool_)
        for i, addr in enumerate(addrs.tolist()):
            piece = self.read(addr, size)
            if piece is not None:
                data[i] = np.frombuffer(piece, dtype=np.uint8)
                good[i] = True
        return data, good


def u64_at(block: bytes, offset: int) -> int:
    """Give the 64-bit word at `offset` of a block of target memory."""
    return int.from_bytes(block[offset : offset + 8], "little")


def u32_at(block: bytes, offset: int) -> int:
    """Give the 32-bit word at `offset` of a block of target memory."""
    return int.from_bytes(block[offset : offset + 4], "little")
