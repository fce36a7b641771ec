"""Damaged ELF files: every question about them ends in an answer or in one of our errors, soon."""

from __future__ import annotations

import contextlib
import functools
import struct
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from elf_builder import COMPRESSED, NOTE, NOTYPE, REL, RELA, RELR, A, Elf, Rel, X, note, words
from surefoot.errors import InputError
from surefoot.image import tables
from surefoot.image.binary import Image, decode_image
from surefoot.image.livetext import mechanisms
from surefoot.image.relocate import relr_places

TEXT = 0xFFFF_8000_8000_0000
DATA = TEXT + 0x10000
SECONDS = 2.0


@functools.cache
def kernel() -> bytes:
    """A small linked image with every table that is read."""
    elf = Elf().section(".text", words(*[0xD503201F] * 32), flags=A | X, addr=TEXT)
    elf.section(".notes", note(b"GNU\0", 3, bytes(20)), kind=NOTE, flags=A)
    elf.section("__ex_table", struct.pack("<iiHH", -0x10000, -0x10000, 2, 0), flags=A, addr=DATA)
    elf.section(".altinstructions", struct.pack("<iiHBB", -0x10000, -0x10000, 2, 4, 4), flags=A, addr=DATA)
    elf.section("__jump_table", struct.pack("<iiq", -0x10000, -0x10000, 64), flags=A, addr=DATA)
    elf.section("__patchable_function_entries", struct.pack("<Q", TEXT), flags=A, addr=DATA)
    elf.section(".rela.dyn", struct.pack("<QIIq", DATA, 1027, 0, TEXT - 2**64), kind=RELA, flags=A)
    elf.section(".relr.dyn", struct.pack("<QQ", DATA, 3), kind=RELR, flags=A)
    elf.section("runtime_ptr_x", struct.pack("<i", -0x10100), flags=A, addr=DATA + 0x100)
    elf.section(".debug_frame", struct.pack("<IIQQ", 1, 0, 64, 1) + b"junk", flags=COMPRESSED)
    elf.segments = [(4, 0, 0, 64)]
    for k in range(6):
        elf.symbol("_" * k + "f", TEXT + 8 * (k // 2), 12, kind=2 * (k % 2))
    return elf.build()


@functools.cache
def module() -> bytes:
    """A small relocatable object with every table that is read."""
    elf = Elf(REL).section(".text", words(*[0xD503201F] * 32), flags=A | X).section(".modinfo", b"name=m\0", flags=A)
    elf.section("__ex_table", bytes(12), flags=A).section("__patchable_function_entries", bytes(8), flags=A)
    elf.symbol("f", 8, 16).symbol("g", 24, 8, kind=NOTYPE)
    elf.relocate("__ex_table", Rel(0, 261, "f", 4), Rel(4, 261, "g"))
    elf.relocate("__patchable_function_entries", Rel(0, 257, "f", -8)).relocate(".text", Rel(4, 283, "g"))
    return elf.build()


def placed(image: Image) -> Image:
    return image if image.is_placed else image.laid_out()


def relr(image: Image) -> None:
    for index in image.sections.find(".relr.dyn"):
        data = image.elf.section_bytes(index)
        relr_places(data[: data.size // 8 * 8].view("<u8"))


def lookups(image: Image) -> None:
    functions = placed(image).functions
    addrs = np.arange(TEXT - 8, TEXT + 64, dtype=np.uint64)
    assert bool(np.all(functions.lookup(addrs) < len(functions)))
    assert bool(np.all(functions.nearest(addrs) < len(functions)))
    functions.find("f")
    list(functions.ranges.names)


QUESTIONS: dict[str, Callable[[Image], object]] = {
    "build-id": lambda image: image.build_id,
    "kind": lambda image: (image.kind, image.modinfo),
    "text": lambda image: placed(image).text.words_at(np.array([TEXT, 0], dtype=np.uint64)),
    "lookups": lookups,
    "sections": lambda image: [image.elf.section_bytes(k) for k in range(len(image.sections))],
    "relocations": lambda image: [image.elf.relocations(k) for k in range(len(image.sections))],
    "extable": lambda image: tables.exception_table(placed(image)),
    "alternatives": lambda image: tables.alternatives(placed(image)),
    "jumps": lambda image: tables.jump_table(placed(image)),
    "sites": lambda image: tables.patch_sites(placed(image)),
    "mechanisms": lambda image: mechanisms(placed(image)),
    "relr": relr,
}


def ask_everything(data: bytes) -> int:
    """Ask every question; give how many were answered. Anything but our own errors gets through to the test."""
    started = time.monotonic()
    answered, complaints = 0, list[str]()
    for question in QUESTIONS.values():
        try:
            question(decode_image(np.frombuffer(data, dtype=np.uint8), "damaged"))
            answered += 1
        except InputError as error:
            complaints.append(str(error))
    assert all(complaints)
    assert time.monotonic() - started < SECONDS
    return answered


@pytest.mark.parametrize("whole", [kernel, module])
def test_undamaged_files_are_read(whole: Callable[[], bytes]) -> None:
    """All questions but that for the section that is damaged on purpose are answered."""
    assert ask_everything(whole()) >= len(QUESTIONS) - 1


INTERESTING = st.sampled_from(
    [0, 1, 2, 0x7F, 0xFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1, TEXT, DATA]
)


@given(
    st.sampled_from([kernel, module]),
    st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_flipped_bytes(whole: Callable[[], bytes], changes: list[tuple[int, int]]) -> None:
    data = bytearray(whole())
    for place, value in changes:
        data[place % len(data)] = value
    ask_everything(bytes(data))


@given(
    st.sampled_from([kernel, module]),
    st.lists(st.tuples(st.integers(0), st.sampled_from([2, 4, 8]), INTERESTING), min_size=1, max_size=4),
)
def test_extreme_numbers(whole: Callable[[], bytes], changes: list[tuple[int, int, int]]) -> None:
    """Aligned fields become the numbers at which sizes and signs break."""
    data = bytearray(whole())
    for place, width, value in changes:
        at = place % (len(data) // width) * width
        data[at : at + width] = (value % 2 ** (8 * width)).to_bytes(width, "little")
    ask_everything(bytes(data))


@given(st.sampled_from([kernel, module]), st.integers(0), st.binary(max_size=64))
def test_cut_and_continued_otherwise(whole: Callable[[], bytes], cut: int, rest: bytes) -> None:
    data = whole()
    ask_everything(data[: cut % len(data)] + rest)


@given(st.binary(max_size=300))
@example(b"\x7fELF")
@example(b"\x7fELF\x02\x01\x01" + bytes(57))
def test_any_bytes(data: bytes) -> None:
    ask_everything(data)
    ask_everything(kernel()[:64] + data)


def test_every_header_field_with_every_extreme() -> None:
    """All 64-bit words of the section headers and the symbol table, one after the other, set to extremes."""
    whole = kernel()
    shoff = struct.unpack_from("<Q", whole, 40)[0]
    for at in range(shoff + 64, len(whole), 8):
        for value in (0xFFFF_FFFF_FFFF_FFFF, 0x7FFF_FFFF_FFFF_FFF0):
            data = bytearray(whole)
            struct.pack_into("<Q", data, at, value)
            image_questions(bytes(data))


def image_questions(data: bytes) -> None:
    """A cheaper round: only what looks at headers."""
    for name in ("build-id", "text", "lookups", "sections"):
        with contextlib.suppress(InputError):
            QUESTIONS[name](decode_image(np.frombuffer(data, dtype=np.uint8), "damaged"))
