"""Small kernels for the audit: functions of a few words, with or without metadata, and the tables of arm64."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np

from cfi_builder import FP, RA, SP, Frames, advance, def_cfa, def_cfa_offset, offset, restore
from dwarf_builder import Dwarf
from elf_builder import FUNC, NOTYPE, A, Elf, X, words
from surefoot.audit.auditing import Audit, audit, prepare
from surefoot.image.binary import Image, decode_image

TEXT = 0xFFFF_8000_8001_0000
DATA = TEXT + 0x10_0000
NOP, RET, UDF = 0xD503_201F, 0xD65F_03C0, 0
MOV_FP, MOV_X0_LR, MOV_LR_X0, MOV_LR_X1 = 0x9100_03FD, 0xAA1E_03E0, 0xAA00_03FE, 0xAA01_03FE
BR_X1, BLR_X1, BTI_C = 0xD61F_0020, 0xD63F_0020, 0xD503_245F
PACIASP, AUTIASP = 0xD503_233F, 0xD503_23BF
CODE_KIND = NOTYPE


def push(size: int) -> int:
    """Stp x29, x30, [sp, #-size]!."""
    return 0xA980_7BFD | (-size // 8 & 0x7F) << 15


def pop(size: int) -> int:
    """Ldp x29, x30, [sp], #size."""
    return 0xA8C0_7BFD | (size // 8) << 15


def reload(off: int = 0) -> int:
    """Ldp x29, x30, [sp, #off]."""
    return 0xA940_7BFD | (off // 8) << 15


def sub_sp(size: int) -> int:
    """Sub sp, sp, #size."""
    return 0xD100_03FF | size << 10


def add_sp(size: int) -> int:
    """Add sp, sp, #size."""
    return 0x9100_03FF | size << 10


def b(distance: int) -> int:
    """B, by bytes."""
    return 0x1400_0000 | (distance // 4 & 0x03FF_FFFF)


def bl(distance: int) -> int:
    """BL, by bytes."""
    return 0x9400_0000 | (distance // 4 & 0x03FF_FFFF)


def cbz_x0(distance: int) -> int:
    """Cbz x0, by bytes."""
    return 0xB400_0000 | (distance // 4 & 0x7FFFF) << 5


def opened(size: int) -> bytes:
    """CFI behind a push of a frame record."""
    return def_cfa_offset(size) + offset(FP, size // 8) + offset(RA, size // 8 - 1)


CLOSED = restore(FP) + restore(RA) + def_cfa(SP, 0)
FRAME = advance(1) + opened(16) + advance(1) + CLOSED
"""CFI of push, pop, ret."""


@dataclass
class Kernel:
    """An image in the making.

    Attributes:
        code: words of .text.
        elf: symbols and tables so far.
        frames: metadata so far; None for an image without any.
        debug: debug information, which the audit is asked to read; None for none.
    """

    code: list[int] = field(default_factory=list)
    elf: Elf = field(default_factory=Elf)
    frames: Frames | None = field(default_factory=Frames)
    tables: list[tuple[str, bytes]] = field(default_factory=list)
    cie: int = 0
    debug: Dwarf | None = None

    def __post_init__(self) -> None:
        """Begin the metadata."""
        if self.frames is not None:
            self.cie = self.frames.cie()

    @property
    def here(self) -> int:
        """Address of the next word."""
        return TEXT + 4 * len(self.code)

    def align(self, size: int = 8) -> None:
        """Fill with NOPs."""
        while self.here % size:
            self.code.append(NOP)

    def put(self, *code: int) -> int:
        """Append words outside of any function; give the address of the first."""
        start = self.here
        self.code += code
        return start

    def func(self, name: str, *code: int, cfi: bytes | None = b"", kind: int = FUNC) -> int:
        """Append a function; `cfi` None leaves it without metadata. Gives its address."""
        start = self.put(*code)
        self.elf.symbol(name, start, 4 * len(code), kind=kind)
        if cfi is not None and self.frames is not None:
            self.frames.fde(self.cie, cfi, start=start, size=4 * len(code))
        return start

    def label(self, name: str, addr: int | None = None) -> None:
        """Put a symbol without size."""
        self.elf.symbol(name, self.here if addr is None else addr, kind=NOTYPE)

    def table(self, name: str, *fields: tuple[str, int], relative: int = 0) -> None:
        """Add a table of one entry; the first `relative` fields are distances from their own place."""
        place, data = DATA + 0x1000 * len(self.tables), b""
        for number, (form, value) in enumerate(fields):
            stored = value - (place + len(data)) if number < relative else value
            data += struct.pack("<" + form, stored)
        self.tables.append((name, data))

    def site(self, entry: int) -> None:
        """Add a patch site."""
        self.table("__patchable_function_entries", ("Q", entry))

    def alternative(self, orig: int, repl: int, count: int = 1, cap: int = 1) -> None:
        """Add an alternative of `count` words."""
        size = 4 * count
        self.table(
            ".altinstructions",
            ("i", orig),
            ("i", repl),
            ("H", cap),
            ("B", size),
            ("B", size),
            relative=2,
        )

    def fixup(self, insn: int, target: int, kind: int = 2) -> None:
        """Add an entry of the exception table."""
        self.table("__ex_table", ("i", insn), ("i", target), ("H", kind), ("H", 0), relative=2)

    def file(self) -> bytes:
        """Give the file."""
        elf = Elf(symbols=list(self.elf.symbols))
        elf.section(".text", words(*self.code), flags=A | X, addr=TEXT)
        for number, (name, data) in enumerate(self.tables):
            elf.section(name, data, flags=A, addr=DATA + 0x1000 * number)
        if self.frames is not None:
            elf.section(".debug_frame", self.frames.bytes())
        if self.debug is not None:
            self.debug.add_to(elf)
        return elf.build()

    def image(self) -> Image:
        """Give the image."""
        return decode_image(np.frombuffer(self.file(), dtype=np.uint8), "vmlinux")

    def audit(self) -> Audit:
        """Audit the image."""
        return audit(prepare(self.image(), debug_info=self.debug is not None))


def plain() -> Kernel:
    """A kernel with one function whose metadata is right."""
    kernel = Kernel()
    kernel.func("good", push(16), pop(16), RET, cfi=FRAME)
    return kernel
