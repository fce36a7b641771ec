"""ELF files: what is read, and one clear error for each way in which a file is not what it has to be."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from elf_builder import (
    ABS,
    COMPRESSED,
    CORE,
    FILE,
    NOBITS,
    NOTE,
    NOTYPE,
    OBJECT,
    REL,
    SECTION,
    A,
    Elf,
    Rel,
    X,
    note,
    words,
)
from surefoot.errors import Inconsistent, InputError, Truncated, Unsupported
from surefoot.image.binary import Image, ImageKind, decode_image
from surefoot.image.files import open_image
from surefoot.image.model import ABSOLUTE, UNDEFINED

BASE = 0xFFFF_8000_8000_0000
NOP, RET = 0xD503201F, 0xD65F03C0


def image_of(elf: Elf) -> Image:
    return decode_image(np.frombuffer(elf.build(), dtype=np.uint8), "vmlinux")


def kernel() -> Elf:
    """A linked image with two executable sections, notes and symbols."""
    elf = Elf()
    elf.section(".text", words(NOP, RET, NOP, NOP), flags=A | X, addr=BASE)
    elf.section(".init.text", words(RET, RET, 0x14000000), flags=A | X, addr=BASE + 0x1000)
    elf.section(".notes", note(b"Linux\0", 3, b"7.3") + note(b"GNU\0", 3, bytes(range(20))), kind=NOTE, flags=A)
    elf.section(".bss", kind=NOBITS, flags=A, addr=BASE + 0x2000, size=0x1000)
    elf.symbol("first", BASE, 8)
    elf.symbol("second", BASE + 8, 8)
    elf.symbol("setup", BASE + 0x1000, 12, section=".init.text")
    return elf


def test_a_kernel_is_read() -> None:
    image = image_of(kernel())
    assert image.kind == ImageKind.KERNEL
    assert image.build_id == bytes(range(20)).hex()
    assert image.path == "vmlinux"
    assert [hex(addr) for addr, _ in image.text.ranges] == [hex(BASE), hex(BASE + 0x1000)]
    assert image.text.words[1].tolist() == [RET, RET, 0x14000000]
    assert [image.functions.name(i) for i in range(3)] == ["first", "second", "setup"]
    assert image.elf.section_bytes(image.sections.find(".bss")[0]).size == 0


def test_words_at_addresses() -> None:
    """Words inside, in front, behind, between sections, misaligned, and at both ends of the address space."""
    text = image_of(kernel()).text
    asked = [BASE, BASE + 12, BASE + 16, BASE - 4, BASE + 0x1008, BASE + 0x100C, BASE + 2, 0, 2**64 - 4]
    found, good = text.words_at(np.array(asked, dtype=np.uint64))
    assert good.tolist() == [True, True, False, False, True, False, False, False, False]
    assert found.tolist() == [NOP, NOP, 0, 0, 0x14000000, 0, 0, 0, 0]
    assert text.section_at(np.array(asked[:2] + asked[4:5], dtype=np.uint64)).tolist() == [1, 1, 2]


def test_data_are_views_of_the_file() -> None:
    data = np.frombuffer(kernel().build(), dtype=np.uint8)
    image = decode_image(data)
    assert np.shares_memory(image.text.words[0], data)


def test_the_build_id_is_also_found_in_segments() -> None:
    content = note(b"GNU\0", 3, b"\xab\xcd\xef\x01")
    elf = Elf().section(".hidden", content)
    data = elf.build()
    elf.segments = [(4, data.index(content) + 56, 0, len(content))]
    assert image_of(elf).build_id == "abcdef01"


@pytest.mark.parametrize("content", [b"", b"\x04", note(b"GNU\0", 1, b"abcd"), note(b"Go\0\0", 3, b"abcd")])
def test_no_build_id_is_an_empty_one(content: bytes) -> None:
    assert not image_of(Elf().section(".notes", content, kind=NOTE)).build_id


def test_a_cut_note_is_refused() -> None:
    content = note(b"GNU\0", 3, bytes(20))[:-4]
    with pytest.raises(Truncated, match=r"vmlinux: \.notes\+0x0: note is cut off"):
        assert image_of(Elf().section(".notes", content, kind=NOTE)).build_id


def test_symbols_that_are_no_places_are_left_out() -> None:
    elf = Elf().section(".text", bytes(64), flags=A | X, addr=BASE)
    for name, kind in (("$x", NOTYPE), ("$d.5", NOTYPE), (".Lloop", NOTYPE), ("a.c", FILE), (".text", SECTION)):
        elf.symbol(name, BASE, 0, kind=kind)
    for name in ("__pi_$x", "__kvm_nvhe_$d", "__kvm_nvhe_.L4"):
        elf.symbol(name, BASE, 0, kind=NOTYPE)
    elf.symbol("undefined", 0, 0, section=0)
    elf.symbol("", BASE, 4)
    elf.symbol("constant", 5, 0, section=ABS, kind=NOTYPE)
    elf.symbol("__pi_memcpy", BASE, 4)
    symbols = image_of(elf).symbols
    assert [symbols.name(i) for i in range(len(symbols))] == ["constant", "__pi_memcpy"]
    assert symbols.section.tolist() == [ABSOLUTE, 1]


def test_relocations_are_resolved() -> None:
    elf = Elf(REL).section(".text", bytes(16), flags=A | X).section(".data", bytes(32), flags=A)
    elf.symbol("f", 8, 4).symbol("absolute", 77, section=ABS).symbol("elsewhere", section=0)
    elf.relocate(".data", Rel(0, 257, "f", -4), Rel(8, 257, "absolute"), Rel(16, 261, "elsewhere", 2), Rel(24, 0))
    image = image_of(elf)
    found = image.elf.relocations(2)
    assert found.offset.tolist() == [0, 8, 16, 24]
    assert found.type.tolist() == [257, 257, 261, 0]
    assert found.symbol_value.tolist() == [8, 77, 0, 0]
    assert found.symbol_section.tolist() == [1, ABSOLUTE, UNDEFINED, ABSOLUTE]
    assert found.addend.tolist() == [-4, 0, 2, 0]
    assert len(image.elf.relocations(1)) == 0


def test_modules_have_no_addresses_until_they_are_placed() -> None:
    elf = Elf(REL).section(".text", words(NOP, RET), flags=A | X).section(".init.text", words(RET), flags=A | X)
    elf.section(".modinfo", b"name=demo\0license=GPL\0livepatch=Y\0broken\0", flags=A)
    elf.symbol("f", 4, 4).symbol("init", 0, 4, section=".init.text")
    module = image_of(elf)
    assert module.kind == ImageKind.MODULE
    assert module.modinfo == {"name": "demo", "license": "GPL", "livepatch": "Y"}
    with pytest.raises(Inconsistent, match="no addresses until it is placed"):
        assert module.text
    placed = module.placed(module.sections.bases({".text": 0x5000, "nonsense": 1}))
    assert placed.text.ranges[0][0] == 0x5000
    assert [placed.functions.name(i) for i in range(len(placed.functions))] == ["f"]
    assert placed.functions.addr.tolist() == [0x5004]
    everything = module.laid_out()
    assert len(everything.text) == 2
    assert len(everything.functions) == 2
    with pytest.raises(Inconsistent, match="3 section addresses for"):
        module.placed(np.zeros(3, dtype=np.uint64))
    with pytest.raises(Inconsistent, match="has its addresses already"):
        image_of(kernel()).placed(np.zeros(3, dtype=np.uint64))


def test_plain_objects_are_no_modules() -> None:
    assert image_of(Elf(REL).section(".text", bytes(4), flags=A | X)).kind == ImageKind.OBJECT


def compressed(content: bytes, size: int | None = None, method: int = 1, payload: bytes | None = None) -> Image:
    head = struct.pack("<IIQQ", method, 0, len(content) if size is None else size, 1)
    data = head + (zlib.compress(content) if payload is None else payload)
    return image_of(Elf().section(".debug_frame", data, flags=COMPRESSED))


def test_compression_bombs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the data could really hold, but no memory should."""
    monkeypatch.setattr("surefoot.image.compressed._MAX_BYTES", 1000)
    with pytest.raises(Unsupported, match="holds 1000 bytes; less than"):
        compressed(bytes(1000)).elf.section_bytes(1)


def test_compressed_sections_are_decompressed() -> None:
    content = bytes(range(256)) * 40
    assert compressed(content).elf.section_bytes(1).tobytes() == content


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (compressed(b"abc" * 9, size=28), Truncated, "end after 27 of 28"),
        (compressed(b"abc" * 9, size=26), Inconsistent, "hold more than the 26"),
        (compressed(b"abc", method=2), Unsupported, "zstd"),
        (compressed(b"abc", method=77), Unsupported, "unknown method 77"),
        (compressed(b"abc", payload=b"nonsense"), Inconsistent, "damaged"),
        (compressed(b"abc", size=2**60), Inconsistent, "cannot hold"),
        (image_of(Elf().section(".debug_frame", b"x", flags=COMPRESSED)), Truncated, "header is incomplete"),
    ],
)
def test_damaged_compression_is_named(image: Image, error: type[InputError], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        image.elf.section_bytes(1)
    assert str(caught.value).startswith("vmlinux: .debug_frame")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"machine": 62}, Unsupported, "is for x86-64, not for arm64"),
        ({"machine": 4711}, Unsupported, "is for machine 4711"),
        ({"class": 1}, Unsupported, "not a 64-bit"),
        ({"data": 2}, Unsupported, "big endian"),
        ({"magic": 0x12345678}, Unsupported, "is not an ELF file"),
        ({"type": CORE}, Unsupported, "memory dump"),
        ({"type": 9}, Unsupported, "type 9"),
        ({"shoff": 0}, Unsupported, "no section headers"),
        ({"shoff": 2**40}, Truncated, "the file ends"),
        ({"shnum": 60000}, Truncated, "section headers: needs"),
        ({"shentsize": 40}, Inconsistent, "40 bytes instead of 64"),
        ({"shstrndx": 5000}, Inconsistent, "section 5000, which does not exist"),
        ({"phnum": 7, "phoff": 1 << 30}, Truncated, "program headers"),
        ({"phnum": 7, "phentsize": 1}, Inconsistent, "1 bytes instead of 56"),
    ],
)
def test_wrong_headers_are_named(change: dict[str, int], error: type[InputError], message: str) -> None:
    elf = kernel()
    elf.header = change
    with pytest.raises(error, match=message) as caught:
        image_of(elf)
    assert caught.value.file == "vmlinux"


def test_extended_counts_are_read_from_section_zero() -> None:
    """With shnum = 0 and shstrndx = 0xffff the numbers are in the first section header."""
    elf = kernel()
    data = bytearray(elf.build())
    shoff = struct.unpack_from("<Q", data, 40)[0]
    count, names = struct.unpack_from("<HH", data, 60)
    struct.pack_into("<HH", data, 60, 0, 0xFFFF)
    struct.pack_into("<Q", data, shoff + 32, count)
    struct.pack_into("<I", data, shoff + 40, names)
    assert decode_image(np.frombuffer(data, dtype=np.uint8)).sections.names[1] == ".text"
    struct.pack_into("<Q", data, shoff + 32, 2**50)
    with pytest.raises(Unsupported, match="section headers; at most"):
        decode_image(np.frombuffer(data, dtype=np.uint8))


def test_sections_outside_the_file_are_refused_when_asked_for() -> None:
    image = image_of(Elf().section(".text", bytes(8), flags=A | X, addr=BASE, size=1 << 20))
    with pytest.raises(Truncated, match=r"vmlinux: \.text: needs 1048576 bytes"):
        assert image.text
    with pytest.raises(Inconsistent, match="section 99 does not exist"):
        image.elf.section_bytes(99)


def test_overlapping_text_is_refused() -> None:
    elf = Elf().section(".text", bytes(8), flags=A | X, addr=BASE).section("x", bytes(8), flags=A | X, addr=BASE + 4)
    with pytest.raises(Inconsistent, match="executable sections overlap"):
        assert image_of(elf).text


def test_damaged_symbol_tables_are_named() -> None:
    with pytest.raises(Unsupported, match="vmlinux: has no symbol table"):
        assert image_of(Elf().section(".text", bytes(4))).symbols
    elf = kernel().symbol("lost", section=300)
    with pytest.raises(Inconsistent, match=r"\.symtab\+0x60: symbol lies in section 300"):
        assert image_of(elf).symbols
    data = bytearray(kernel().build())
    place = data.index(struct.pack("<QQ", BASE, 8)) - 8
    struct.pack_into("<I", data, place, 2**31)
    with pytest.raises(Inconsistent, match=r"\.strtab\+0x80000000: name lies outside"):
        assert decode_image(np.frombuffer(data, dtype=np.uint8)).symbols


def test_relocations_that_are_not_read_are_refused() -> None:
    elf = Elf(REL).section(".text", bytes(8)).section(".rel.text", bytes(16), kind=9, info=".text")
    with pytest.raises(Unsupported, match="type REL"):
        image_of(elf).elf.relocations(1)
    elf = Elf(REL).section(".text", bytes(8)).symbol("f").relocate(".text", Rel(0, 257, "f"))
    elf.sections[-1].data = struct.pack("<QIIq", 0, 257, 99, 0)
    with pytest.raises(Inconsistent, match=r"\.rela\.text\+0x0: relocation names no symbol"):
        image_of(elf).elf.relocations(1)
    elf.sections[-1].data = bytes(23)
    with pytest.raises(Truncated, match=r"\.rela\.text\+0x0: last entry is incomplete"):
        image_of(elf).elf.relocations(1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "file is empty"),
        (b"hello", "is not an ELF file"),
        (b"\x7fELF", "header needs 64 bytes, the file has 4"),
        (b"\x1f\x8b rest", "compressed with gzip"),
        (b"\xfd7zXZ\0", "compressed with xz"),
        (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
        (b"MZ\0\0", "boot image"),
        (b"!<arch>\n", "archive"),
    ],
)
def test_files_that_are_something_else(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        open_image(path)
    assert caught.value.file == str(path)


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        open_image(tmp_path / "missing")
    with pytest.raises(InputError, match="not a regular file"):
        open_image(tmp_path)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(InputError, match="not a regular file"):
        open_image(pipe)
    with pytest.raises(InputError, match="cannot be read"):
        open_image("nul\0byte")


def test_unreadable_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read everything, so the refusal is played."""
    path = tmp_path / "secret"
    path.write_bytes(kernel().build())

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match="secret: cannot be read: Permission denied"):
        open_image(path)


def test_kernel_symbols_of_a_data_section_are_no_functions() -> None:
    elf = kernel().section(".data", bytes(16), flags=A, addr=BASE + 0x4000)
    elf.symbol("variable", BASE + 0x4000, 8, kind=OBJECT, section=".data")
    image = image_of(elf)
    assert "variable" not in [image.functions.name(i) for i in range(len(image.functions))]
    assert image.symbols.address_of("variable") == BASE + 0x4000
    assert image.symbols.address_of("nothing") is None


def test_every_truncation_is_one_of_our_errors() -> None:
    """A file cut at any byte gives a result or an InputError."""
    data = kernel().build()
    for size in range(len(data)):
        with pytest.raises(InputError):
            decode_image(np.frombuffer(data[:size], dtype=np.uint8))
