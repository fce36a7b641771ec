"""Layer 7: the loaded modules of a Linux target: names, section addresses and build-ids, by raw reads.

Invariant: a damaged module list ends with a note; a module is given only with what could be read of it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from surefoot.targets.layouts import KernelLayout
from surefoot.targets.reading import DrgnMemory, u32_at, u64_at

__all__ = ["LoadedModule", "find_build_id", "list_modules"]

_MAX_MODULES: Final = 65536
_MAX_SECTIONS: Final = 4096
_MAX_NOTE: Final = 65536
_NT_GNU_BUILD_ID: Final = 3


@dataclass(frozen=True, slots=True)
class LoadedModule:
    """A module in the target.

    Attributes:
        name: as in /proc/modules.
        sections: section name -> run-time address (those that the kernel remembers: allocated ones).
        build_id: lower-case hexadecimal, empty where the module has none or it cannot be read.
        ranges: (address, bytes) of the memory blocks that it occupies now; empty for kernels before v6.4.
            Addresses in `sections` that lie in none of them have been freed: those of its init code.
        text: those of the blocks that hold code.
        kallsyms: address of its struct mod_kallsyms, 0 for none.
    """

    name: str
    sections: Mapping[str, int]
    build_id: str
    ranges: tuple[tuple[int, int], ...]
    text: tuple[tuple[int, int], ...]
    kallsyms: int = 0

    def holds(self, addr: int) -> bool:
        """Whether an address lies in the module as it is now."""
        return not self.ranges or any(base <= addr < base + size for base, size in self.ranges)


def list_modules(memory: DrgnMemory, layout: KernelLayout, bias: int) -> tuple[list[LoadedModule], list[str]]:
    """List the modules that are loaded, in the order of the kernel's list.

    Args:
        memory: the target's memory.
        layout: of its kernel.
        bias: KASLR offset.

    Returns:
        the modules, and notes on what could not be read. A kernel without modules has none.
    """
    head = layout.symbols.get("modules")
    if head is None or not layout.has("module.list", "module.name", "module.name_size", "sizeof.module"):
        return [], []
    head += bias
    modules: list[LoadedModule] = []
    notes: list[str] = []
    seen = 0
    node = memory.u64(head)
    while node != head:
        block = memory.read(node - layout["module.list"], layout["sizeof.module"]) if node else None
        if block is None or seen > _MAX_MODULES:
            notes.append(f"the list of modules breaks off after {seen} entries")
            break
        seen += 1
        state = u32_at(block, layout["module.state"]) if layout.has("module.state") else 0
        if state != layout.numbers.get("module_state.unformed", 3):  # not a module yet, or no more
            modules.append(_read_module(memory, layout, block))
        node = u64_at(block, layout["module.list"])
    return modules, notes


def _read_module(memory: DrgnMemory, layout: KernelLayout, block: bytes) -> LoadedModule:
    """Give what can be read of one struct module."""
    at = layout["module.name"]
    name = block[at : at + layout["module.name_size"]].split(b"\0")[0].decode("utf-8", "backslashreplace")
    sections = _sections(memory, layout, block) if layout.has("module.sect_attrs") else {}
    blocks = _blocks(layout, block)
    code = {layout.numbers.get("mod_mem_type.text", 0), layout.numbers.get("mod_mem_type.init_text", 4)}
    text = tuple(bounds for i, bounds in blocks.items() if i in code)
    kallsyms = u64_at(block, layout["module.kallsyms"]) if layout.has("module.kallsyms") else 0
    build_id = _build_id(memory, layout, block)
    return LoadedModule(name, sections, build_id, tuple(blocks.values()), text, kallsyms)


def _blocks(layout: KernelLayout, block: bytes) -> dict[int, tuple[int, int]]:
    """Give the memory blocks of a module by their type (enum mod_mem_type)."""
    found: dict[int, tuple[int, int]] = {}
    if not layout.has("module.mem", "module_memory.base", "module_memory.size", "sizeof.module_memory"):
        return found
    for i in range(layout.numbers.get("module.mem_count", 0)):
        at = layout["module.mem"] + i * layout["sizeof.module_memory"]
        base = u64_at(block, at + layout["module_memory.base"])
        size = u32_at(block, at + layout["module_memory.size"])
        if base and size:
            found[i] = (base, size)
    return found


def _attributes(memory: DrgnMemory, layout: KernelLayout, attrs: int, *, legacy: bool) -> list[bytes]:
    """Give the array of section attributes as raw elements."""
    size = layout["sizeof.sect_attr"] if legacy else layout["sizeof.bin_attribute"]
    first = attrs + layout["sect_attrs.attrs"]
    if legacy:
        data = memory.read(attrs + layout["sect_attrs.nsections"], 4)
        count = min(int.from_bytes(data or b"", "little"), _MAX_SECTIONS)
    else:
        pointers = memory.u64(attrs + layout["sect_attrs.bin_attrs"]) or 0
        count = 0
        while pointers and count < _MAX_SECTIONS and memory.u64(pointers + 8 * count):
            count += 1
    data = memory.read(first, count * size)
    return [] if data is None else [data[i * size : (i + 1) * size] for i in range(count)]


def _sections(memory: DrgnMemory, layout: KernelLayout, block: bytes) -> dict[str, int]:
    """Give the section addresses that the kernel keeps for /sys/module/NAME/sections.

    Source:
        kernel/module/sysfs.c: add_sect_attrs (v7.3), and its form before v6.14.
    """
    attrs = u64_at(block, layout["module.sect_attrs"])
    legacy = layout.has("sizeof.sect_attr", "sect_attr.address", "sect_attr.name", "sect_attrs.nsections")
    if legacy:
        name_at, addr_at = layout["sect_attr.name"], layout["sect_attr.address"]
    elif layout.has("sizeof.bin_attribute", "bin_attribute.name", "bin_attribute.private", "sect_attrs.bin_attrs"):
        name_at, addr_at = layout["bin_attribute.name"], layout["bin_attribute.private"]
    else:
        return {}
    found: dict[str, int] = {}
    for element in _attributes(memory, layout, attrs, legacy=legacy) if attrs else ():
        name = memory.text(u64_at(element, name_at))
        if name:
            found.setdefault(name, u64_at(element, addr_at))
    return found


def _build_id(memory: DrgnMemory, layout: KernelLayout, block: bytes) -> str:
    """Give a module's build-id out of the notes that the kernel keeps for /sys/module/NAME/notes.

    Source:
        kernel/module/sysfs.c: add_notes_attrs; module.build_id where CONFIG_STACKTRACE_BUILD_ID keeps it.
    """
    if layout.has("module.build_id", "module.build_id_size"):
        at = layout["module.build_id"]
        kept = block[at : at + layout["module.build_id_size"]]
        if any(kept):
            return kept.hex()
    if not layout.has("module.notes_attrs", "notes_attrs.attrs", "bin_attribute.private", "bin_attribute.size"):
        return ""
    attrs = u64_at(block, layout["module.notes_attrs"])
    first = attrs + layout["notes_attrs.attrs"]
    # The array has no count that all releases keep in one place; its elements name their notes, and the
    # build-id is the first of them in practice. Stop at the first element that is none.
    for i in range(8 if attrs else 0):
        element = memory.read(first + i * layout["sizeof.bin_attribute"], layout["sizeof.bin_attribute"])
        if element is None:
            break
        name = memory.text(u64_at(element, layout["bin_attribute.name"]), 64)
        if not name or not name.startswith("."):
            break
        size = u64_at(element, layout["bin_attribute.size"])
        notes = memory.read(u64_at(element, layout["bin_attribute.private"]), min(size, _MAX_NOTE))
        found = find_build_id(notes or b"")
        if found:
            return found
    return ""


def find_build_id(notes: bytes) -> str:
    """Give the GNU build-id among ELF notes, empty if there is none."""
    at = 0
    while at + 12 <= len(notes):
        name_size, size, kind = struct.unpack_from("<III", notes, at)
        start = at + 12 + (name_size + 3 & ~3)
        if (
            kind == _NT_GNU_BUILD_ID
            and notes[at + 12 : at + 12 + name_size] == b"GNU\0"
            and start + size <= len(notes)
        ):
            return notes[start : start + size].hex()
        at = start + (size + 3 & ~3)
    return ""
