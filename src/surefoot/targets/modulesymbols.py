"""Layer 7: the functions of a loaded module that has no file, from the symbols that the kernel keeps for kallsyms."""

from __future__ import annotations

from typing import Final

import numpy as np

from surefoot.targets.imagetables import FunctionColumns
from surefoot.targets.layouts import KernelLayout
from surefoot.targets.modules import LoadedModule
from surefoot.targets.names import NameColumn
from surefoot.targets.reading import DrgnMemory
from surefoot.unwind.code import FunctionKind

__all__ = ["kept_functions"]

_SYM: Final = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("shndx", "<u2"), ("value", "<u8"), ("size", "<u8")]
)
"""Elf64_Sym (ELF gABI)."""
_NOTYPE, _FUNC = 0, 2
_MAX_SYMBOLS: Final = 1 << 20
_MAX_NAMES: Final = 64 << 20
_LONGEST_NAME: Final = 512
"""KSYM_NAME_LEN (include/linux/kallsyms.h)."""


def kept_functions(memory: DrgnMemory, layout: KernelLayout, module: LoadedModule) -> FunctionColumns:
    """Give the functions that the kernel itself would name; none where its table cannot be read.

    Source:
        kernel/module/kallsyms.c: add_kallsyms; include/linux/module.h: struct mod_kallsyms.
    """
    nowhere = np.zeros(0, dtype=np.uint64)
    nothing = FunctionColumns(nowhere, nowhere, np.zeros(0, dtype=np.uint8), NameColumn.of([]))
    members = [f"mod_kallsyms.{name}" for name in ("symtab", "num_symtab", "strtab")]
    if not layout.has(*members) or not module.kallsyms or not module.text:
        return nothing
    symtab, count, strtab = (memory.u64(module.kallsyms + layout[name]) or 0 for name in members)
    count &= 0xFFFF_FFFF
    data = memory.read(symtab, count * _SYM.itemsize) if 0 < count <= _MAX_SYMBOLS else None
    if data is None:
        return nothing
    symbols = np.frombuffer(data, dtype=_SYM)
    kind = symbols["info"] & 0xF
    inside = np.zeros(symbols.size, dtype=np.bool_)
    for base, size in module.text:
        start = symbols["value"] - np.uint64(base)
        inside |= (start < size) & (symbols["size"] <= np.uint64(size) - np.minimum(start, np.uint64(size)))
    symbols = symbols[inside & (symbols["size"] > 0) & ((kind == _FUNC) | (kind == _NOTYPE))]
    # Functions before assembly at one address; whatever starts inside another is left out.
    symbols = symbols[np.lexsort((symbols["info"] & 0xF != _FUNC, symbols["value"]))]
    end = symbols["value"] + symbols["size"]
    reach = np.maximum.accumulate(end)
    symbols = symbols[np.append(True, symbols["value"][1:] >= reach[:-1])] if symbols.size else symbols
    names = _names(memory, strtab, symbols["name"])
    if names is None:
        return nothing
    is_func = symbols["info"] & 0xF == _FUNC
    kinds = np.where(is_func, np.uint8(FunctionKind.FUNC), np.uint8(FunctionKind.CODE))
    return FunctionColumns(symbols["value"].copy(), symbols["value"] + symbols["size"], kinds, names)


def _names(
    memory: DrgnMemory, strtab: int, offsets: np.ndarray[tuple[int], np.dtype[np.uint32]]
) -> NameColumn | None:
    """Read names of a string table whose size the kernel does not keep."""
    if not offsets.size:
        return NameColumn.of([])
    reach = int(offsets.max()) + 1
    data = memory.read(strtab, reach) if reach <= _MAX_NAMES else None
    if data is None:
        return None
    # Only the last name can reach beyond what was read.
    data += (memory.text(strtab + reach, _LONGEST_NAME) or "").encode() + b"\0"
    strings = np.frombuffer(data, dtype=np.uint8)
    start = offsets.astype(np.int64)
    ends = np.flatnonzero(strings == 0)
    return NameColumn.cut(strings, start, ends[np.searchsorted(ends, start)] - start)
