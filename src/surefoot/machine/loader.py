"""Layer 7: the machine's kernel: its file, its layout and its code as the walker wants it.

Invariant: structure offsets come from absolute symbols that the kernel's own compilation has put into the file
(`layout.*`); nothing here repeats a number of the C sources.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from importlib import resources
from typing import Final

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Addr, Insn
from surefoot.errors import Inconsistent
from surefoot.image.binary import Image, decode_image
from surefoot.image.rules import load_rules
from surefoot.image.symbols import SymbolKind
from surefoot.metadata.rules import RuleTable
from surefoot.proof.inputs import code_of
from surefoot.proof.prove import Proof, prove
from surefoot.proof.verdicts import NO_PROOFS, Proofs
from surefoot.unwind.code import CodeMap, FunctionKind, Functions, TextWords
from surefoot.unwind.regions import LABELS
from surefoot.unwind.state import Layout

__all__ = ["KernelFile", "Variant", "load_kernel"]

_PREFIX: Final = "layout."
_PT_LOAD: Final = 1
PAC_MASK: Final = 0xFF7F_0000_0000_0000
"""Bits of a kernel address that hold an authentication code: addresses of 48 bits, no tags (DDI 0487, D8.8)."""


class Variant(StrEnum):
    """The builds of the kernel."""

    SFRAME = "sframe"
    """Unwind metadata in SFrame version 3 only."""
    CFI = "cfi"
    """Unwind metadata in .eh_frame only."""
    SCS = "scs"
    """With shadow call stacks; metadata in .eh_frame."""


@dataclass(frozen=True)
class KernelFile:
    """The kernel as it is on disk.

    Attributes:
        variant: which build.
        image: the file.
        numbers: the kernel's layout: offsets, sizes and addresses by name.
    """

    variant: Variant
    image: Image
    numbers: dict[str, int]

    def __getitem__(self, name: str) -> int:
        """Give a number of the layout.

        Raises:
            Inconsistent: the kernel does not export it.
        """
        try:
            return self.numbers[name]
        except KeyError:
            raise Inconsistent(f"the kernel exports no {_PREFIX}{name}", file=self.image.path) from None

    def symbol(self, name: str) -> int:
        """Give the address of a symbol.

        Raises:
            Inconsistent: there is none, or more than one.
        """
        addr = self._found.get(name)
        if addr is None:
            addr = self.image.symbols.address_of(name)
            if addr is None:
                raise Inconsistent(f"the kernel has no symbol {name}", file=self.image.path)
            self._found[name] = addr
        return addr

    @cached_property
    def _found(self) -> dict[str, int]:
        """Symbols that were asked for already."""
        return {}

    def span(self, name: str) -> tuple[int, int]:
        """Give the addresses [low, high) of a function or object.

        Raises:
            Inconsistent: there is none, or more than one.
        """
        low = self.symbol(name)
        row = int(self.image.symbols.find(name)[0])
        return low, low + int(self.image.symbols.size[row])

    @cached_property
    def segments(self) -> list[tuple[int, bytes, int]]:
        """What to load: (address, bytes, size in memory)."""
        elf = self.image.elf
        found = []
        for i in np.flatnonzero(elf.segments.kind == _PT_LOAD).tolist():
            low, size = int(elf.segments.offset[i]), int(elf.segments.file_size[i])
            data = elf.data[low : low + size].tobytes()
            found.append((int(elf.segments.addr[i]), data, int(elf.segments.size[i])))
        return found

    @cached_property
    def functions(self) -> Functions:
        """Code ranges, in address order."""
        functions = self.image.functions
        ranges = functions.ranges
        rows = np.flatnonzero((ranges.kind == SymbolKind.FUNC) | (ranges.kind == SymbolKind.NOTYPE))
        is_func = ranges.kind[rows] == SymbolKind.FUNC
        kinds = np.where(is_func, np.uint8(FunctionKind.FUNC), np.uint8(FunctionKind.CODE))
        names = tuple(functions.name(row) for row in ranges.function[rows].tolist())
        return Functions(ranges.start[rows], ranges.end[rows], kinds, names)

    @cached_property
    def rules(self) -> RuleTable:
        """Unwind rules, ready for look-ups."""
        return load_rules(self.image).with_abi_defaults().for_lookup()

    @cached_property
    def proof(self) -> Proof:
        """Verdicts on the rules, over the words of the file."""
        return prove(self.rules, self.text, code_of(self.image))

    @cached_property
    def labels(self) -> dict[str, int]:
        """Addresses of the symbols that the walker asks for."""
        symbols = self.image.symbols
        return {name: addr for name in LABELS if (addr := symbols.address_of(name)) is not None}

    @cached_property
    def text(self) -> list[tuple[int, Insn]]:
        """Executable ranges as in the file: (address, words)."""
        return [(addr, words) for addr, words in self.image.text.ranges]

    def layout(self) -> Layout:
        """Offsets for the walker."""
        names = (
            "pt_regs_size",
            "pt_regs_fp",
            "pt_regs_lr",
            "pt_regs_sp",
            "pt_regs_pc",
            "pt_regs_pstate",
            "pt_regs_stackframe",
            "ftrace_regs_size",
            "ftrace_regs_pc",
        )
        return Layout(**{name: self[name] for name in names}, pac_mask=PAC_MASK)

    def code(
        self, live: list[tuple[int, Insn]], *, proved: bool = True, redirects: NDArray[np.uint64] | None = None
    ) -> CodeMap:
        """Give the code with the words that the machine's memory holds.

        Args:
            live: the ranges of `text` with the words as they are now.
            proved: with the proofs of the rules.
            redirects: (k, 2) pairs (old function, new function) of live patches.
        """
        proofs: Proofs = self.proof if proved else NO_PROOFS
        text, changed = TextWords.from_ranges(live), self._changed(live)
        pairs = np.zeros((0, 2), dtype=np.uint64) if redirects is None else redirects
        return CodeMap(self.functions, text, self.rules, proofs, redirects=pairs, changed=changed, labels=self.labels)

    def _changed(self, live: list[tuple[int, Insn]]) -> Addr:
        """Give the addresses of words that differ from the file and are no patch site."""
        found: list[NDArray[np.uint64]] = [np.zeros(0, dtype=np.uint64)]
        for (addr, words), (_, now) in zip(self.text, live, strict=True):
            found.append(np.uint64(addr) + np.flatnonzero(words != now).astype(np.uint64) * np.uint64(4))
        changed = np.concatenate(found)
        return changed[~np.isin(changed, self._site_words)]

    @cached_property
    def sites(self) -> Addr:
        """(p,) uint64, the functions with a patch site."""
        low, high = self.symbol("__start_mcount_loc"), self.symbol("__stop_mcount_loc")
        data = self.read(low, high - low)
        return np.sort(np.frombuffer(data, dtype="<u8").astype(np.uint64) + np.uint64(8))

    @cached_property
    def _site_words(self) -> Addr:
        """Words that ftrace rewrites: the literal before each function, and the two words at its start."""
        return np.concatenate([self.sites + np.uint64(offset) for offset in (-8 % 2**64, -4 % 2**64, 0, 4)])

    def read(self, addr: int, size: int) -> bytes:
        """Read bytes of the file by address.

        Raises:
            Inconsistent: the address is not in the file.
        """
        for base, data, _ in self.segments:
            if base <= addr and addr + size <= base + len(data):
                return data[addr - base : addr - base + size]
        raise Inconsistent(f"{addr:#x} is not in the file", file=self.image.path)


def load_kernel(variant: Variant = Variant.SFRAME) -> KernelFile:
    """Read one of the kernels that ship with the package.

    Raises:
        InputError: the file is damaged.
    """
    name = f"kernel-{variant}.elf"
    data = resources.files("surefoot.machine").joinpath("kernel", name).read_bytes()
    image = decode_image(np.frombuffer(data, dtype=np.uint8), name)
    symbols = image.symbols
    numbers = {
        symbols.name(i).removeprefix(_PREFIX): int(symbols.addr[i])
        for i in np.flatnonzero(symbols.names.starts_with(_PREFIX.encode())).tolist()
    }
    return KernelFile(variant, image, numbers)
