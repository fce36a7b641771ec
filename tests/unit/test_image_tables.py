"""Tables that rewrite text, in linked images and placed modules, and relocations of data."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elf_builder import NOTYPE, REL, RELA, A, Elf, Rel, X, words
from surefoot.errors import Inconsistent, Truncated, Unsupported
from surefoot.image import tables
from surefoot.image.binary import Image, decode_image
from surefoot.image.relocate import region_at, region_of, relr_places

TEXT = 0xFFFF_8000_8000_0000
DATA = TEXT + 0x10000
NOP, BTI_C, RET = 0xD503201F, 0xD503245F, 0xD65F03C0


def image_of(elf: Elf) -> Image:
    return decode_image(np.frombuffer(elf.build(), dtype=np.uint8), "vmlinux")


def kernel(section: str, data: bytes, marks: tuple[str, str] | None = None, text: bytes = bytes(0x100)) -> Elf:
    """An image whose table lies at DATA + 8, with or without the symbols around it."""
    elf = Elf().section(".text", text, flags=A | X, addr=TEXT)
    elf.section(section, bytes(8) + data + bytes(8) if marks else data, flags=A, addr=DATA if marks else DATA + 8)
    elf.symbol("anything", TEXT, 4)
    if marks:
        elf.symbol(marks[0], DATA + 8, kind=NOTYPE, section=section)
        elf.symbol(marks[1], DATA + 8 + len(data), kind=NOTYPE, section=section)
    return elf


def relative(target: int, place: int) -> int:
    return (target - place + 2**31) % 2**32 - 2**31


def extable(*entries: tuple[int, int, int, int]) -> bytes:
    data = b""
    for insn, fixup, kind, extra in entries:
        place = DATA + 8 + len(data)
        data += struct.pack("<iiHH", relative(insn, place), relative(fixup, place + 4), kind, extra)
    return data


MARKS = ("__start___ex_table", "__stop___ex_table")


@pytest.mark.parametrize("marks", [None, MARKS])
def test_exception_table(marks: tuple[str, str] | None) -> None:
    """Between its symbols, or the whole section where they are missing; the table names which."""
    data = extable((TEXT + 8, TEXT + 0x20, 2, 31), (TEXT + 0x40, TEXT + 4, 5, 0x41))
    name = ".rodata" if marks else "__ex_table"
    found = tables.exception_table(image_of(kernel(name, data, marks)))
    assert found.insn.tolist() == [TEXT + 8, TEXT + 0x40]
    assert found.fixup.tolist() == [TEXT + 0x20, TEXT + 4]
    assert found.type.tolist() == [2, 5]
    assert found.data.tolist() == [31, 0x41]
    assert found.source == ("..".join(MARKS) if marks else "__ex_table")


def test_a_kernel_without_the_tables_has_empty_ones() -> None:
    image = image_of(kernel(".data", bytes(8)))
    assert tables.exception_table(image).insn.size == 0
    assert tables.alternatives(image).orig.size == 0
    assert tables.jump_table(image).code.size == 0
    assert tables.patch_sites(image).entry.size == 0


def test_damaged_tables_are_named() -> None:
    with pytest.raises(Truncated, match=r"vmlinux: __ex_table\+0xc: last entry is incomplete"):
        tables.exception_table(image_of(kernel("__ex_table", bytes(17))))
    backwards = kernel(".rodata", bytes(12), MARKS[::-1])
    with pytest.raises(Inconsistent, match="before it starts"):
        tables.exception_table(image_of(backwards))
    outside = kernel(".rodata", bytes(12), MARKS)
    outside.symbols[-1].value += 0x100000
    with pytest.raises(Inconsistent, match="is in no section"):
        tables.exception_table(image_of(outside))


def test_alternatives() -> None:
    data = struct.pack("<iiHBB", relative(TEXT + 8, DATA + 8), relative(TEXT + 0x80, DATA + 12), 5, 8, 8)
    data += struct.pack("<iiHBB", relative(TEXT + 12, DATA + 20), relative(TEXT, DATA + 24), 0x8007, 4, 0)
    found = tables.alternatives(image_of(kernel(".altinstructions", data)))
    assert found.orig.tolist() == [TEXT + 8, TEXT + 12]
    assert found.repl.tolist() == [TEXT + 0x80, TEXT]
    assert found.cap.tolist() == [5, 7]
    assert found.is_callback.tolist() == [False, True]
    assert found.orig_len.tolist() == [8, 4]
    assert found.repl_len.tolist() == [8, 0]


def test_static_branches() -> None:
    key = (DATA + 0x1000 - (DATA + 16)) | 1
    data = struct.pack("<iiq", relative(TEXT + 8, DATA + 8), relative(TEXT + 0x44, DATA + 12), key)
    found = tables.jump_table(image_of(kernel("__jump_table", data)))
    assert found.code.tolist() == [TEXT + 8]
    assert found.target.tolist() == [TEXT + 0x44]
    assert found.key.tolist() == [DATA + 0x1000]
    assert found.flags.tolist() == [1]


@pytest.mark.parametrize(
    ("layout", "recorded", "func", "site", "literal"),
    [
        ([NOP, NOP, NOP, NOP, RET], 0, 8, 12, True),  # CALL_OPS: two NOPs before the function
        ([NOP, NOP, BTI_C, NOP, NOP, RET], 0, 8, 16, True),  # the same with BTI
        ([RET, RET, NOP, NOP, RET], 8, 8, 12, False),  # two NOPs at entry
        ([RET, RET, BTI_C, NOP, NOP, RET], 12, 8, 16, False),  # the same with BTI
    ],
)
def test_patch_sites(layout: list[int], recorded: int, func: int, site: int, literal: bool) -> None:
    """The word that becomes a BL, in the four ways in which kernels are built; zero entries are dropped."""
    data = struct.pack("<QQ", 0, TEXT + recorded)
    marks = ("__start_mcount_loc", "__stop_mcount_loc")
    elf = kernel(".init.data", data, marks, words(*layout)).symbol("f", TEXT + func, 4 * len(layout) - func)
    elf.symbols[0].kind = NOTYPE
    found = tables.patch_sites(image_of(elf))
    assert found.entry.tolist() == [TEXT + recorded]
    assert found.func.tolist() == [TEXT + func]
    assert found.site.tolist() == [TEXT + site]
    assert found.has_literal.tolist() == [literal]
    assert found.dropped == 1


def test_patch_sites_of_no_function_are_kept_without_site() -> None:
    elf = kernel("__patchable_function_entries", struct.pack("<Q", TEXT + 0x50))
    found = tables.patch_sites(image_of(elf))
    assert found.entry.tolist() == [TEXT + 0x50]
    assert found.func.tolist() == found.site.tolist() == [0]


def test_values_that_are_only_in_dynamic_relocations() -> None:
    """Some kernels keep pointers in .rela.dyn alone; the place itself holds zero."""
    elf = kernel("__patchable_function_entries", bytes(16), text=words(NOP, NOP, NOP, NOP, RET))
    rela = struct.pack("<QIIq", DATA + 8, 1027, 0, TEXT - 2**64) + struct.pack("<QIIq", DATA + 16, 0, 0, 5)
    elf.section(".rela.dyn", rela, kind=RELA, flags=A)
    elf.symbols[0].value = TEXT + 8
    found = tables.patch_sites(image_of(elf))
    assert found.entry.tolist() == [TEXT]
    assert found.site.tolist() == [TEXT + 12]
    assert found.dropped == 1


def module() -> Elf:
    elf = Elf(REL).section(".text", words(NOP, NOP, NOP, NOP, RET, RET), flags=A | X)
    elf.section(".init.text", words(RET, RET), flags=A | X)
    elf.section("__ex_table", bytes(24), flags=A).section("__patchable_function_entries", bytes(8), flags=A)
    elf.section("__jump_table", bytes(16), flags=A).section(".modinfo", b"name=m\0", flags=A)
    elf.symbol("f", 8, 16).symbol("setup", 0, 8, section=".init.text").symbol("key", section=0, kind=NOTYPE)
    elf.relocate("__ex_table", Rel(0, 261, "f", 4), Rel(4, 261, "f", 8), Rel(12, 261, "setup"), Rel(16, 261, "f"))
    elf.relocate("__patchable_function_entries", Rel(0, 257, "f", -8))
    elf.relocate("__jump_table", Rel(0, 261, "f"), Rel(4, 261, "f", 4), Rel(8, 260, "key", 1))
    return elf


def test_tables_of_a_module_speak_of_where_it_is_loaded() -> None:
    """Entries for init text that is freed are left out; a key in another image is 0."""
    image = image_of(module())
    with pytest.raises(Inconsistent, match="until it is placed"):
        tables.exception_table(image)
    text, data = 0xFFFF_8000_7000_0000, 0xFFFF_8000_7100_0000
    names = {".text": text, "__ex_table": data, "__patchable_function_entries": data + 64, "__jump_table": data + 128}
    placed = image.placed(image.sections.bases(names))
    assert tables.exception_table(placed).insn.tolist() == [text + 12]
    assert tables.exception_table(placed).fixup.tolist() == [text + 16]
    assert tables.patch_sites(placed).site.tolist() == [text + 12]
    jumps = tables.jump_table(placed)
    assert jumps.code.tolist() == [text + 8]
    assert jumps.target.tolist() == [text + 12]
    assert jumps.key.tolist() == [0]
    with_init = image.placed(image.sections.bases(names | {".init.text": text + 0x1000}))
    assert tables.exception_table(with_init).insn.tolist() == [text + 12, text + 0x1000]


def test_relocations_in_data_are_exact_or_refused() -> None:
    elf = module()
    elf.relocate(".modinfo", Rel(0, 282, "f"))
    with pytest.raises(Unsupported, match=r"\.modinfo\+0x0: relocation type 282 in data"):
        region_of(image_of(elf).laid_out(), 6)
    elf = module()
    elf.relocate(".modinfo", Rel(4, 258, "f"))
    with pytest.raises(Truncated, match="behind the end"):
        region_of(image_of(elf).laid_out(), 6)


def test_regions_of_a_linked_image() -> None:
    image = image_of(kernel(".data", b"abcdefgh"))
    assert region_at(image, DATA + 10, DATA + 12, "x").data.tobytes() == b"cd"
    assert np.shares_memory(region_at(image, DATA + 10, DATA + 12, "x").data, image.elf.data)


def relr_plain(entries: list[int]) -> list[int]:
    """RELR decoded entry by entry (gABI)."""
    places, base = [], 0
    for entry in entries:
        if entry & 1 == 0:
            places.append(entry)
            base = entry + 8
        else:
            places += [base + 8 * k for k in range(63) if entry >> (k + 1) & 1]
            base += 63 * 8
    return places


@given(
    st.lists(
        st.one_of(st.integers(0, 2**40).map(lambda n: n * 2), st.integers(0, 2**63 - 1).map(lambda n: 2 * n + 1))
    )
)
def test_relr_equals_the_plain_reading(entries: list[int]) -> None:
    entries = [0x1000, *entries]
    found = relr_places(np.array(entries, dtype=np.uint64))
    assert found.tolist() == relr_plain(entries)


def test_relr_that_cannot_be_is_refused() -> None:
    assert relr_places(np.zeros(0, dtype=np.uint64)).size == 0
    with pytest.raises(Inconsistent, match="before any address"):
        relr_places(np.array([1], dtype=np.uint64))
    with pytest.raises(Unsupported, match="more than 1 entries"):
        relr_places(np.array([8, 2**64 - 1], dtype=np.uint64), limit=1)
