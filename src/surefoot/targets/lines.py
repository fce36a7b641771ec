"""Layer 7: source lines of an image that does not run, through drgn; nothing is loaded before the first question."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drgn import Module, Program

__all__ = ["ImageLines"]


class ImageLines:
    """Source lines of one image: linked, or a module at the addresses it was laid out at.

    Only the units that are asked for are decoded, so that a few questions cost milliseconds.
    """

    def __init__(self, path: Path, low: int, high: int, sections: Mapping[str, int] | None = None) -> None:
        """Remember the file.

        Args:
            path: image with debug information.
            low: its first address.
            high: the address behind its last.
            sections: address of each section that is loaded, for a module; None for a linked image.
        """
        self._path = path
        self._bounds = (low, high)
        self._sections = sections
        self._prog: Program | None = None
        self._known: dict[int, str] = {}

    def __call__(self, addr: int) -> str:
        """Give "file:line" of an instruction, of the innermost inlined function; empty where it is not known."""
        found = self._known.get(addr)
        if found is None:
            found = self._known[addr] = self._look(addr)
        return found

    def _look(self, addr: int) -> str:
        try:
            places = self._open().source_location(addr)
        except LookupError:
            return ""
        return f"{places[0].filename}:{places[0].line}" if len(places) and places[0].filename else ""

    def _open(self) -> Program:
        """Give a program that knows the image at its own addresses and nothing else."""
        if self._prog is None:
            from drgn import Architecture, Platform, PlatformFlags, Program

            prog = Program(Platform(Architecture.AARCH64, PlatformFlags.IS_64_BIT | PlatformFlags.IS_LITTLE_ENDIAN))
            module = self._module(prog)
            module.address_range = self._bounds
            try:
                module.try_file(str(self._path), force=True)
            except Exception as error:
                # Damaged DWARF: drgn raises whatever its decoder met.
                raise LookupError(str(error)) from error
            self._prog = prog
        return self._prog

    def _module(self, prog: Program) -> Module:
        """Create what drgn calls a module, its file not loaded yet."""
        if self._sections is None:
            return prog.extra_module(self._path.name, 0, create=True)
        found = prog.relocatable_module(self._path.name, self._bounds[0], create=True)
        for name, addr in self._sections.items():
            found.section_addresses[name] = addr
        return found
