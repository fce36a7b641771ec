"""Layer 9: what the `sframe` commands read: a section out of an ELF file of any machine, or a bare section.

Invariant: an error names the file; nothing is guessed from a file's name.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from surefoot.dtypes import Addr, Bytes, Mask, Row, Row32
from surefoot.errors import InputError, Unsupported
from surefoot.image.anyelf import AnyElf, decode_any_elf
from surefoot.image.model import SectionFlag
from surefoot.metadata import sframe

if TYPE_CHECKING:
    from surefoot.metadata.rules import FunctionIndex, RuleTable
    from surefoot.metadata.sframe import Extents, Relocations, SFrameSection

__all__ = ["CFI_SECTIONS", "Input", "Names", "open_input"]

CFI_SECTIONS: Final = (".debug_frame", ".eh_frame")
_MAGICS: Final = (b"\xe2\xde", b"\xde\xe2")
_AARCH64: Final = 183


@dataclass(frozen=True)
class Names:
    """Function symbols, to be asked for the name of a descriptor.

    Attributes:
        start: (n,) uint64, sorted within a section.
        size: (n,) uint64.
        section: (n,) int32, -1 in linked images; sorted.
        text: (n) names.
    """

    start: Addr
    size: Addr
    section: Row32
    text: list[str]

    @classmethod
    def of(cls, elf: AnyElf | None) -> Names:
        """Give the function symbols of a file, ordered for `of_functions`."""
        if elf is None:
            none = np.zeros(0, dtype=np.uint64)
            return cls(none, none, np.zeros(0, dtype=np.int32), [])
        start, size, section, text = elf.functions()
        order = np.lexsort((np.arange(start.size), start, section))
        return cls(start[order], size[order], section[order], [text[i] for i in order.tolist()])

    def of_functions(self, start: Addr, section: Row32) -> list[str]:
        """Give the name at each address: the symbol itself, symbol+offset inside one, or empty."""
        out = [""] * start.size
        for part in np.unique(section).tolist():
            rows, mine = np.flatnonzero(section == part), np.flatnonzero(self.section == part)
            if not mine.size:
                continue
            starts = self.start[mine]
            at = np.searchsorted(starts, start[rows], side="right").astype(np.int64) - 1
            at = np.where(at >= 0, np.searchsorted(starts, starts[np.maximum(at, 0)], side="left"), -1)
            for row, k in zip(rows.tolist(), at.tolist(), strict=True):
                if k < 0:
                    continue
                offset = int(start[row]) - int(starts[k])
                name = self.text[int(mine[k])]
                if not offset:
                    out[row] = name
                elif offset < int(self.size[mine[k]]):
                    out[row] = f"{name}+{offset:#x}"
        return out


@dataclass(frozen=True)
class Input:
    """A file that the `sframe` commands work on.

    Attributes:
        path: the file.
        data: (b,) uint8, the whole file, mapped.
        elf: the ELF file, None for a bare section.
        name: the section asked for.
    """

    path: Path
    data: Bytes
    elf: AnyElf | None
    name: str

    @property
    def is_relocatable(self) -> bool:
        """Whether starts are offsets in sections."""
        return self.elf is not None and self.elf.is_relocatable

    @cached_property
    def index(self) -> int | None:
        """Section header index of the section, None if there is none."""
        if self.elf is None:
            return None
        found = [i for i in self.elf.find(self.name) if int(self.elf.sections["size"][i])]
        return found[0] if found else None

    @property
    def has_section(self) -> bool:
        """Whether there is SFrame to read."""
        return self.elf is None or self.index is not None

    def require_section(self) -> None:
        """Refuse files without the section.

        Raises:
            Unsupported: there is none.
        """
        if not self.has_section:
            hint = "Make one with `surefoot sframe convert`, if the file has .debug_frame or .eh_frame."
            raise Unsupported(f"has no section {self.name}", file=str(self.path), hint=hint)

    @cached_property
    def content(self) -> Bytes:
        """(n,) uint8, the section.

        Raises:
            Unsupported: there is none.
            Truncated: the file ends before the section does.
        """
        self.require_section()
        if self.elf is None or self.index is None:
            return self.data
        return self.elf.section_bytes(self.index)

    @property
    def address(self) -> int:
        """Address of the section; 0 for bare ones and in relocatable objects."""
        return self.elf.addr(self.index) if self.elf is not None and self.index is not None else 0

    @cached_property
    def relocations(self) -> Relocations | None:
        """Relocations of the section in a relocatable object."""
        if self.elf is None or self.index is None or not self.is_relocatable:
            return None
        return self.elf.relocations(self.index)

    @property
    def machine(self) -> int | None:
        """ELF machine number, None for bare sections."""
        return None if self.elf is None else self.elf.machine

    @cached_property
    def section(self) -> SFrameSection:
        """The decoded section.

        Raises:
            InputError: damaged.
        """
        content, relocations = self.content, self.relocations
        try:
            return sframe.decode(content, section_addr=self.address, relocations=relocations)
        except InputError as error:
            hint = "`surefoot sframe check` says everything that is wrong with it."
            error.hint = error.hint or hint
            raise error.at(file=str(self.path), section=self.name if self.elf else "") from None

    @cached_property
    def names(self) -> Names:
        """Function symbols."""
        return Names.of(self.elf)

    def symbols_of(self, index: FunctionIndex) -> list[str]:
        """Give the name of each function of a table."""
        return self.names.of_functions(index.start, index.section)

    @cached_property
    def cfi_sizes(self) -> dict[str, int]:
        """Bytes of each section with call frame information."""
        if self.elf is None:
            return {}
        found = {name: self.elf.find(name) for name in CFI_SECTIONS}
        return {name: int(self.elf.sections["size"][i[0]]) for name, i in found.items() if i}

    @property
    def has_usable_cfi(self) -> bool:
        """Whether `cfi` can give rules: call frame information is read for little-endian arm64 only."""
        return self.elf is not None and self.machine == _AARCH64 and not self.elf.is_big and bool(self.cfi_sizes)

    def cfi(self) -> RuleTable:
        """Give the rules of the file's call frame information.

        Raises:
            Unsupported: there is none, or the file is not for arm64.
        """
        if self.elf is None or not self.cfi_sizes:
            raise Unsupported("has no call frame information", file=str(self.path))
        if not self.has_usable_cfi:
            raise Unsupported("call frame information is read for little-endian arm64 only", file=str(self.path))
        from surefoot.image.files import open_image
        from surefoot.image.rules import load_rules
        from surefoot.metadata.rules import Provenance

        return load_rules(open_image(self.path), (Provenance.DEBUG_FRAME, Provenance.EH_FRAME))

    @cached_property
    def _code_sections(self) -> Row:
        """Header indices of the executable sections that are not empty."""
        if self.elf is None:
            return np.zeros(0, dtype=np.int64)
        wanted = np.uint64(SectionFlag.ALLOC | SectionFlag.EXECINSTR)
        table = self.elf.sections
        is_code: Mask = (table["flags"].astype(np.uint64) & wanted) == wanted
        return np.flatnonzero(is_code & (table["size"] > 0))

    def code_names(self) -> list[str]:
        """Give the names of the executable sections, in the order of `code`."""
        return [] if self.elf is None else [self.elf.names[i] for i in self._code_sections.tolist()]

    def code(self) -> Extents:
        """Give the executable sections."""
        from surefoot.metadata.sframe import Extents

        if self.elf is None:
            none = np.zeros(0, dtype=np.uint64)
            return Extents(none, none, np.zeros(0, dtype=np.int32))
        table, rows = self.elf.sections, self._code_sections
        start, size = table["addr"][rows].astype(np.uint64), table["size"][rows].astype(np.uint64)
        if self.is_relocatable:
            return Extents(np.zeros(rows.size, dtype=np.uint64), size, rows.astype(np.int32))
        return Extents(start, size, np.full(rows.size, -1, dtype=np.int32))

    def functions(self) -> Extents:
        """Give the function symbols that have a size, one per extent."""
        from surefoot.metadata.sframe import Extents

        names = self.names
        keys = np.stack([names.section.astype(np.int64), names.start.view(np.int64), names.size.view(np.int64)])
        rows = np.sort(np.unique(keys, axis=1, return_index=True)[1]) if keys.size else np.zeros(0, dtype=np.int64)
        rows = rows[names.size[rows] > 0]
        return Extents(names.start[rows], names.size[rows], names.section[rows])


def open_input(path: Path, name: str = ".sframe") -> Input:
    """Open a file: ELF of any machine, or a bare SFrame section.

    Raises:
        InputError: not readable, or neither of both.
    """
    from surefoot.image.files import map_file

    data = map_file(path)
    if data[:2].tobytes() in _MAGICS:
        return Input(path, data, None, name)
    return Input(path, data, decode_any_elf(data, str(path)), name)
