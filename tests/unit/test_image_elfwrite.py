"""ELF files with a section added: what was there stays, what is new can be found, in both byte orders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from surefoot.errors import Inconsistent, InputError, Truncated, Unsupported
from surefoot.image.anyelf import PHDR, AnyElf, decode_any_elf
from surefoot.image.elfwrite import add_sframe, sframe_address
from surefoot.metadata.sframe import RelocationTable

GOLDEN = Path(__file__).parent.parent / "golden" / "sframe" / "v3"
LINKED = ["aarch64.elf", "amd64.so", "s390x.so"]
OBJECTS = ["aarch64.o", "aarch64-be.o", "s390x.o", "scs.o"]
CONTENT = b"sixteen bytes of" * 5
LOAD, PT_PHDR, GNU_SFRAME = 1, 6, 0x6474E554


def read(name: str) -> AnyElf:
    return from_bytes((GOLDEN / name).read_bytes())


def from_bytes(data: bytes) -> AnyElf:
    return decode_any_elf(np.frombuffer(data, dtype=np.uint8), "file")


def relocations(*sections: int) -> RelocationTable:
    """Give one relocation per section, to its 16th byte."""
    count = len(sections)
    return RelocationTable(
        offset=np.arange(count, dtype=np.uint64) * np.uint64(16) + np.uint64(28),
        type=np.full(count, 260, dtype=np.uint32),
        symbol_value=np.zeros(count, dtype=np.uint64),
        symbol_section=np.array(sections, dtype=np.int32),
        addend=np.full(count, 16, dtype=np.int64),
    )


def assert_rest_unchanged(old: AnyElf, new: AnyElf) -> None:
    """Every section but the replaced and the name table has its place, bytes and name."""
    assert new.names[: len(old.names)] == old.names
    touched = {".sframe", ".rela.sframe", ".shstrtab"}
    for index, name in enumerate(old.names):
        if name not in touched:
            assert new.sections[index].tolist()[1:] == old.sections[index].tolist()[1:]
            assert new.section_bytes(index).tobytes() == old.section_bytes(index).tobytes()
    assert new.data[64 : old.data.size].tobytes() == old.data[64:].tobytes()


@pytest.mark.parametrize("name", LINKED)
def test_linked_images_get_a_segment(name: str) -> None:
    old = read(name)
    address = sframe_address(old)
    new = from_bytes(add_sframe(old, CONTENT).apply(old.data.tobytes()))
    assert_rest_unchanged(old, new)
    index = new.find(".sframe")[0]
    assert (new.section_bytes(index).tobytes(), new.addr(index)) == (CONTENT, address)
    assert address % 8 == 0
    loads = new.segments[new.segments["type"] == LOAD]
    assert (np.diff(loads["vaddr"].astype(np.int64)) > 0).all()
    last = loads[-1]
    assert int(last["vaddr"]) <= address < int(last["vaddr"]) + int(last["memsz"])
    assert int(last["vaddr"]) % int(last["align"]) == int(last["offset"]) % int(last["align"])
    assert int(last["offset"]) == int(new.header["phoff"])
    mark = new.segments[new.segments["type"] == GNU_SFRAME]
    assert (mark["vaddr"].tolist(), mark["filesz"].tolist()) == ([address], [len(CONTENT)])
    assert int(mark["offset"][0]) == int(new.sections["offset"][index])


def test_a_segment_that_names_the_program_headers_follows_them() -> None:
    """Loaders find the table through PT_PHDR: make one of the first segment, and see it moved."""
    old = read("amd64.so")
    data = bytearray(old.data.tobytes())
    at = int(old.header["phoff"]) + (len(old.segments) - 1) * PHDR.itemsize
    data[at : at + 4] = PT_PHDR.to_bytes(4, "little")
    elf = from_bytes(bytes(data))
    new = from_bytes(add_sframe(elf, CONTENT).apply(bytes(data)))
    moved = new.segments[new.segments["type"] == PT_PHDR][0]
    assert int(moved["offset"]) == int(new.header["phoff"])
    assert int(moved["filesz"]) == len(new.segments) * PHDR.itemsize


@pytest.mark.parametrize("name", OBJECTS)
def test_objects_get_relocations(name: str) -> None:
    old = read(name)
    text = old.find(".text")[0]
    new = from_bytes(add_sframe(old, CONTENT, relocations(text, text)).apply(old.data.tobytes()))
    assert_rest_unchanged(old, new)
    index = new.find(".sframe")[0]
    assert new.section_bytes(index).tobytes() == CONTENT
    found = new.relocations(index)
    assert found.symbol_section.tolist() == [text, text]
    assert (found.symbol_value.astype(np.int64) + found.addend).tolist() == [16, 16]
    assert found.offset.tolist() == [28, 44]


def test_a_file_without_the_section_gets_one() -> None:
    """Replacing once more keeps one section of the name."""
    old = read("aarch64.o")
    data = bytearray(old.data.tobytes())
    names = old.section_bytes(int(old.header["shstrndx"])).tobytes()
    base = int(old.sections["offset"][int(old.header["shstrndx"])])
    at = names.index(b".rela.sframe\0")
    data[base + at : base + at + 12] = b".rela.nframe"
    elf = from_bytes(bytes(data))
    assert elf.find(".sframe") == []
    twice = bytes(data)
    for _ in range(2):
        elf = from_bytes(twice)
        twice = add_sframe(elf, CONTENT, relocations(elf.find(".text")[0])).apply(twice)
    new = from_bytes(twice)
    assert len(new.find(".sframe")) == 1
    assert len(new.names) == len(elf.names)
    assert new.relocations(new.find(".sframe")[0]).offset.tolist() == [28]


def test_relocations_belong_to_objects() -> None:
    with pytest.raises(Inconsistent):
        add_sframe(read("aarch64.elf"), CONTENT, relocations(1))
    with pytest.raises(Inconsistent):
        add_sframe(read("aarch64.o"), CONTENT)


def test_a_section_without_symbols_is_named() -> None:
    elf = read("aarch64.o")
    bare = elf.find(".rela.sframe")[0]
    with pytest.raises(Inconsistent, match="no symbol"):
        add_sframe(elf, CONTENT, relocations(bare))


@pytest.mark.parametrize(
    ("at", "value", "error"),
    [
        (0, b"\x7fELG", Unsupported),
        (4, b"\1", Unsupported),
        (5, b"\3", Unsupported),
        (40, b"\xff" * 8, Truncated),
        (40, bytes(8), Unsupported),
        (58, b"\1\0", Inconsistent),
        (62, b"\xfe\xff", Inconsistent),
    ],
)
def test_damaged_headers_are_errors_that_name_the_file(at: int, value: bytes, error: type[InputError]) -> None:
    data = bytearray((GOLDEN / "scs.o").read_bytes())
    data[at : at + len(value)] = value
    with pytest.raises(error) as caught:
        from_bytes(bytes(data))
    assert caught.value.file == "file"


def test_functions_are_read_with_their_sections() -> None:
    start, size, section, names = read("scs.o").functions()
    assert names == ["with_window", "below_sp"]
    assert (start.tolist(), size.tolist(), section.tolist()) == ([0, 28], [28, 28], [1, 1])
    assert set(read("s390x.so").functions()[2].tolist()) == {-1}
