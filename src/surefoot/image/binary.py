"""Layer 3: one kernel or module, each part decoded on first use.

Invariant: a placed image speaks of run-time addresses throughout; an unplaced relocatable object has no addresses,
and whatever needs them is refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import Final

import numpy as np

from surefoot.dtypes import Addr, Bytes, Mask
from surefoot.errors import Inconsistent
from surefoot.image.elf import ElfFile, FileType, decode_elf
from surefoot.image.functions import Functions
from surefoot.image.model import Sections, SectionType, Text
from surefoot.image.notes import build_id
from surefoot.image.symbols import Symbols

__all__ = ["Image", "ImageKind", "decode_image"]

_MAX_MODINFO: Final = 1 << 20


class ImageKind(StrEnum):
    """What an image is."""

    KERNEL = "kernel"
    """Linked: vmlinux."""
    MODULE = "module"
    """Relocatable, with .modinfo."""
    OBJECT = "object"
    """Relocatable, any other."""


@dataclass(frozen=True)
class Image:
    """A kernel or a module.

    Attributes:
        elf: the file.
        bases: (sections,) uint64, run-time address of each section of a relocatable object, 0 = not loaded;
            None while it is not placed, and for linked images.
    """

    elf: ElfFile
    bases: Addr | None = None

    @property
    def path(self) -> str:
        """Name of the file, or empty."""
        return self.elf.name

    @cached_property
    def kind(self) -> ImageKind:
        """Kernel, module or other object."""
        if self.elf.type != FileType.REL:
            return ImageKind.KERNEL
        return ImageKind.MODULE if self.elf.sections.find(".modinfo") else ImageKind.OBJECT

    @cached_property
    def build_id(self) -> str:
        """GNU build-id in hexadecimal, empty if the file has none."""
        return build_id(self.elf)

    @cached_property
    def modinfo(self) -> dict[str, str]:
        """The key=value pairs of .modinfo (first of each key), empty where there are none."""
        found: dict[str, str] = {}
        for index in self.elf.sections.find(".modinfo")[:1]:
            for item in self.elf.section_bytes(index)[:_MAX_MODINFO].tobytes().split(b"\0"):
                key, mark, value = item.decode("utf-8", "backslashreplace").partition("=")
                if mark:
                    found.setdefault(key, value)
        return found

    @property
    def is_placed(self) -> bool:
        """Whether addresses mean anything: linked images always, relocatable ones after `placed`."""
        return self.elf.type != FileType.REL or self.bases is not None

    @cached_property
    def sections(self) -> Sections:
        """Section headers, addresses as placed."""
        if self.bases is None:
            return self.elf.sections
        return replace(self.elf.sections, addr=self.bases)

    @property
    def executable(self) -> Mask:
        """(sections,) bool: executable sections that have an address."""
        found = self.sections.is_executable
        return found if self.bases is None else found & (self.bases != 0)

    @cached_property
    def text(self) -> Text:
        """Executable sections as instruction words.

        Raises:
            Inconsistent: the image is not placed, or sections overlap.
            Truncated: the file ends before a section does.
        """
        self.require_placed()
        indices = np.flatnonzero(self.executable & (self.sections.size >= 4)).tolist()
        ranges = [(int(self.sections.addr[i]), self.elf.words(i), i) for i in indices]
        try:
            return Text.from_ranges(ranges)
        except Inconsistent as error:
            raise error.at(file=self.path) from None

    @cached_property
    def symbols(self) -> Symbols:
        """The symbol table, at run-time addresses where the image is placed.

        Raises:
            Unsupported: the file has none.
            Truncated, Inconsistent: it is damaged.
        """
        symbols = self.elf.symbols()
        return symbols if self.bases is None else symbols.placed(self.bases)

    @cached_property
    def functions(self) -> Functions:
        """The code symbols in address order.

        Raises:
            Inconsistent: the image is not placed, or damaged.
            Unsupported: no symbol table.
        """
        return Functions.of(self.symbols, self.text)

    def require_placed(self) -> None:
        """Refuse where addresses have no meaning yet.

        Raises:
            Inconsistent: a relocatable object that was not placed.
        """
        if not self.is_placed:
            raise Inconsistent(
                "sections of a relocatable object have no addresses until it is placed", file=self.path
            )

    def placed(self, bases: Addr) -> Image:
        """Give a relocatable object at its run-time addresses.

        Args:
            bases: (sections,) uint64, address of each section by header index, 0 = not loaded; see
                `Sections.bases` for a mapping of names.

        Raises:
            Inconsistent: a linked image, which has its addresses, or a column of another length.
        """
        if self.elf.type != FileType.REL:
            raise Inconsistent("a linked image has its addresses already", file=self.path)
        if bases.shape != (len(self.elf.sections),):
            raise Inconsistent(
                f"{bases.size} section addresses for {len(self.elf.sections)} sections", file=self.path
            )
        return Image(self.elf, bases.astype(np.uint64))

    def laid_out(self, base: int = 0x1000_0000) -> Image:
        """Give a relocatable object with its allocated sections one behind the other from `base`.

        For work on a file alone (checking, disassembling): the addresses are arbitrary but unique.
        """
        table = self.elf.sections
        bases = np.zeros(len(table), dtype=np.uint64)
        at = base
        for i in np.flatnonzero((table.flags & np.uint64(2)) != 0).tolist():
            if table.kind[i] == SectionType.NULL:
                continue
            align = max(int(table.align[i]), 8)
            at = -(-at // align) * align
            bases[i] = at % 2**64
            at += max(int(table.size[i]), 1)
            if at > 2**64:
                raise Inconsistent("sections do not fit into the address space", file=self.path)
        return self.placed(bases)


def decode_image(data: Bytes, name: str = "") -> Image:
    """Give the image in a file's bytes; see `surefoot.image.elf.decode_elf` for arguments and errors."""
    return Image(decode_elf(data, name))
