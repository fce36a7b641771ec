"""Layer 0: names for the array types that travel between layers.

The alias says the unit: an ``Addr`` is a virtual address of the target, a ``Row`` an index into a table,
an ``Insn`` one A64 instruction word. Bytes and offsets are ``Off``.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Addr", "Bytes", "Code", "Insn", "Mask", "Off", "Off32", "Row", "Row32"]

Addr: TypeAlias = NDArray[np.uint64]
"""Virtual addresses, pointer authentication bits stripped unless said otherwise."""
Insn: TypeAlias = NDArray[np.uint32]
"""A64 instruction words, host byte order."""
Row: TypeAlias = NDArray[np.int64]
"""Indices into a table; -1 marks "none"."""
Row32: TypeAlias = NDArray[np.int32]
"""As Row, where tables are stored; -1 marks "none"."""
Off: TypeAlias = NDArray[np.int64]
"""Signed byte offsets."""
Off32: TypeAlias = NDArray[np.int32]
"""Signed byte offsets as stored in rule tables."""
Mask: TypeAlias = NDArray[np.bool_]
"""True where something holds."""
Code: TypeAlias = NDArray[np.uint8]
"""Values of a small closed enumeration."""
Bytes: TypeAlias = NDArray[np.uint8]
"""Raw bytes."""
