"""Layer 7: what a live patch's module says that it patches, read from its file before anything is loaded.

A patch made by hand or by the kernel's samples describes itself with static structures that relocations fill in:
klp_object {name, funcs, ...} points at an array of klp_func {old_name, new_func, old_sympos, ...}.

Source:
    include/linux/livepatch.h (Linux 7.3); the first members of both have had these places since v4.0.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from surefoot.errors import SurefootError
from surefoot.image.binary import Image
from surefoot.image.model import SectionFlag, SectionType
from surefoot.image.relocate import Region, region_of

__all__ = ["Named", "is_livepatch", "named_functions"]

_FUNC_SIZE: Final = 152
"""sizeof(struct klp_func) on a 64-bit kernel of 7.3, where the file's own debug information is not asked."""
_MAX_FUNCS: Final = 4096
_MAX_NAME: Final = 512


class Named(NamedTuple):
    """A function that a patch names.

    Attributes:
        object: "vmlinux" or the name of a module.
        name: of the old function.
        position: old_sympos: 0 = must be the only one.
        new: address of the new function in the file as `Image.laid_out` places it.
    """

    object: str
    name: str
    position: int
    new: int


def is_livepatch(image: Image) -> bool:
    """Say whether a module calls itself a live patch (`MODULE_INFO(livepatch, "Y")`)."""
    return image.modinfo.get("livepatch", "").startswith("Y")


def named_functions(image: Image, *, func_size: int = _FUNC_SIZE) -> list[Named]:
    """Give the functions that a live patch's module names statically.

    Args:
        image: the module, placed (`Image.laid_out`).
        func_size: sizeof(struct klp_func) of its kernel.

    Returns:
        the functions; empty where the module builds its description only when it is loaded.
    """
    regions = _regions(image)
    found: list[Named] = []
    for region in regions:
        words = np.frombuffer(region.data[: region.data.size & ~7].tobytes(), dtype="<u8")
        # An object: a pointer to functions, and before it the pointer to a name, or none for the kernel itself.
        for at in range(1, words.size):
            pointer, name_addr = int(words[at]), int(words[at - 1])
            name = _text(regions, name_addr) if name_addr else "vmlinux"
            if pointer and name:
                found += _functions(image, regions, pointer, name, func_size)
    return list(dict.fromkeys(found))


def _regions(image: Image) -> list[Region]:
    """Give the loaded data sections with relocations applied."""
    table = image.sections
    regions = []
    for index in np.flatnonzero(table.addr != 0).tolist():
        flags = int(table.flags[index])
        if flags & SectionFlag.EXECINSTR or table.kind[index] == SectionType.NOBITS or not table.size[index]:
            continue
        try:
            regions.append(region_of(image, index))
        except SurefootError:  # a section of another kind, with relocations that data do not have
            continue
    return regions


def _functions(image: Image, regions: list[Region], addr: int, name: str, func_size: int) -> list[Named]:
    """Give the functions of an array that may be one, up to the entry of zeroes."""
    found: list[Named] = []
    for number in range(_MAX_FUNCS):
        head = _bytes(regions, addr + number * func_size, 24)
        if head is None:
            return []
        old, new, position = (int.from_bytes(head[i : i + 8], "little") for i in (0, 8, 16))
        if not old and not new:
            return found
        text = _text(regions, old)
        is_function = bool(image.functions.starts_at(np.array([new], dtype=np.uint64))[0])
        if not text or not is_function or position > _MAX_FUNCS:
            return []
        found.append(Named(name, text, position, new))
    return []


def _bytes(regions: list[Region], addr: int, size: int) -> bytes | None:
    for region in regions:
        offset = addr - region.addr
        if offset >= 0 and offset + size <= region.data.size:
            return region.data[offset : offset + size].tobytes()
    return None


def _text(regions: list[Region], addr: int) -> str:
    """Give the name at an address, empty if there is none."""
    for region in regions:
        offset = addr - region.addr
        if 0 <= offset < region.data.size:
            data = region.data[offset : offset + _MAX_NAME].tobytes()
            raw, zero, _ = data.partition(b"\0")
            return raw.decode("ascii", "replace") if zero and raw.isascii() and raw.decode().isprintable() else ""
    return ""
