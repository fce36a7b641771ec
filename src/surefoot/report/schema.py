"""Layer 8: what the JSON of all commands has in common.

Addresses are strings, "0x" and sixteen digits: JSON numbers are doubles in many readers, which lose the low bits
of kernel addresses without a word. Offsets, sizes and counts are integers.
"""

from __future__ import annotations

from typing import Final

__all__ = ["STACK", "address"]

STACK: Final = "surefoot.stack/1"
"""docs/schema/stack-1.json."""


def address(addr: int) -> str:
    """Give an address as it stands in JSON."""
    return f"0x{addr:016x}"
