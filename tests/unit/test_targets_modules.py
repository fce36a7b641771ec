"""Loaded modules: sections, build-ids, blocks, and the functions of those without a file."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from linux_memory import SYMBOLS, Kernel
from surefoot.targets.modulefiles import ModuleFiles
from surefoot.targets.modules import find_build_id, list_modules
from surefoot.targets.modulesymbols import kept_functions

TEXT, DATA = 0xFFFF_8000_7000_0000, 0xFFFF_8000_7001_0000
BUILD_ID = bytes(range(20))
NOTE = struct.pack("<III4s", 4, 20, 3, b"GNU\0") + BUILD_ID


def _string(kernel: Kernel, text: bytes) -> int:
    return kernel.prog.put(kernel.prog.alloc(64), text.ljust(64, b"\0"))


def _attributes(kernel: Kernel, entries: list[tuple[bytes, int, int]], *, counted: bool) -> int:
    """Make a group of binary attributes (name, size, private)."""
    size = kernel.numbers["sizeof.bin_attribute"]
    attrs = kernel.prog.alloc(16 + size * (len(entries) + 1))
    pointers = kernel.prog.alloc(8 * (len(entries) + 1))
    for i, (name, length, private) in enumerate(entries):
        at = attrs + 16 + i * size
        kernel.prog.poke(at, _string(kernel, name))
        kernel.prog.poke(at + kernel.numbers["bin_attribute.size"], length)
        kernel.prog.poke(at + kernel.numbers["bin_attribute.private"], private)
        kernel.prog.poke(pointers + 8 * i, at)
    if counted:
        kernel.prog.poke(attrs + kernel.numbers["sect_attrs.bin_attrs"], pointers)
    return attrs


def _module(kernel: Kernel, name: bytes = b"dummy_mod", state: int = 0) -> int:
    """Load a module with .text, a freed .init.text, and a build-id."""
    addr = kernel.prog.alloc(kernel.numbers["sizeof.module"])
    put = kernel.prog.poke
    put(addr + kernel.numbers["module.state"], state, 4)
    kernel.prog.write(addr + kernel.numbers["module.name"], name)
    for i, (base, size) in enumerate(((TEXT, 0x2000), (DATA, 0x1000), (0, 0))):
        put(addr + kernel.numbers["module.mem"] + 16 * i, base)
        put(addr + kernel.numbers["module.mem"] + 16 * i + 8, size, 4)
    sections = [(b".text", 0, TEXT + 0x40), (b".init.text", 0, 0xFFFF_8000_7005_0000), (b".data", 0, DATA)]
    put(addr + kernel.numbers["module.sect_attrs"], _attributes(kernel, sections, counted=True))
    note = kernel.prog.put(kernel.prog.alloc(64), NOTE)
    notes = [(b".note.gnu.build-id", len(NOTE), note)]
    if "module.notes_attrs" in kernel.numbers:
        put(addr + kernel.numbers["module.notes_attrs"], _attributes(kernel, notes, counted=False))
    kernel.link(SYMBOLS["modules"], [addr + kernel.numbers["module.list"]])
    return addr


def test_a_module_tells_sections_blocks_and_build_id() -> None:
    kernel = Kernel()
    _module(kernel)
    (module,), notes = list_modules(kernel.memory, kernel.layout, 0)
    assert notes == []
    assert module.name == "dummy_mod"
    assert module.build_id == BUILD_ID.hex()
    assert module.sections[".text"] == TEXT + 0x40
    assert module.text == ((TEXT, 0x2000),)
    assert module.holds(module.sections[".text"])
    assert not module.holds(module.sections[".init.text"])


def test_a_module_that_is_not_formed_is_none() -> None:
    kernel = Kernel()
    _module(kernel, state=3)
    assert list_modules(kernel.memory, kernel.layout, 0) == ([], [])


def test_sections_of_kernels_before_6_14_have_addresses_of_their_own() -> None:
    legacy = {"sizeof.sect_attr": 40, "sect_attr.name": 0, "sect_attr.address": 32, "sect_attrs.nsections": 8}
    kernel = Kernel(without=("module.notes_attrs",), numbers=legacy)
    addr = _module(kernel)
    attrs = kernel.prog.alloc(16 + 40)
    kernel.prog.poke(attrs + 8, 1, 4)
    kernel.prog.poke(attrs + 16, _string(kernel, b".text"))
    kernel.prog.poke(attrs + 16 + 32, TEXT)
    kernel.prog.poke(addr + kernel.numbers["module.sect_attrs"], attrs)
    (module,), _ = list_modules(kernel.memory, kernel.layout, 0)
    assert module.sections == {".text": TEXT}
    assert module.build_id == ""


def test_a_build_id_that_the_module_itself_keeps_is_taken() -> None:
    kernel = Kernel(numbers={"module.build_id": 200, "module.build_id_size": 20})
    addr = _module(kernel)
    kernel.prog.write(addr + 200, b"\xab" * 20)
    (module,), _ = list_modules(kernel.memory, kernel.layout, 0)
    assert module.build_id == "ab" * 20


def test_a_broken_module_list_is_a_note() -> None:
    kernel = Kernel()
    addr = _module(kernel)
    kernel.prog.poke(addr + kernel.numbers["module.list"], 0x1234)
    modules, notes = list_modules(kernel.memory, kernel.layout, 0)
    assert len(modules) == 1
    assert "breaks off" in notes[0]


def test_damaged_attributes_leave_a_module_without_sections() -> None:
    kernel = Kernel()
    addr = _module(kernel)
    kernel.prog.poke(addr + kernel.numbers["module.sect_attrs"], 0x1000)
    kernel.prog.poke(addr + kernel.numbers["module.notes_attrs"], 0x1000)
    (module,), _ = list_modules(kernel.memory, kernel.layout, 0)
    assert module.sections == {}
    assert module.build_id == ""


def test_a_kernel_without_modules_has_none() -> None:
    kernel = Kernel(without=("sizeof.module",))
    assert list_modules(kernel.memory, kernel.layout, 0) == ([], [])


@pytest.mark.parametrize("notes", [b"", NOTE[:-1], NOTE[:11], struct.pack("<III", 0xFFFF_FFFF, 1, 3) + bytes(8)])
def test_damaged_notes_hold_no_build_id(notes: bytes) -> None:
    assert find_build_id(notes) == ""
    assert find_build_id(struct.pack("<III", 0, 0, 9) + NOTE) == BUILD_ID.hex()


def _kallsyms(kernel: Kernel, addr: int, symbols: list[tuple[bytes, int, int, int]]) -> None:
    """Give a module its symbols (name, info, value, size)."""
    strtab, records = b"\0", b""
    for name, info, value, size in symbols:
        records += struct.pack("<IBBHQQ", len(strtab), info, 0, 1, value, size)
        strtab += name + b"\0"
    table = kernel.prog.alloc(32)
    kernel.prog.poke(table, kernel.prog.put(kernel.prog.alloc(len(records)), records))
    kernel.prog.poke(table + 8, len(symbols), 4)
    kernel.prog.poke(table + 16, kernel.prog.put(kernel.prog.alloc(4096), strtab.ljust(4096, b"\0")))
    kernel.prog.poke(addr + kernel.numbers["module.kallsyms"], table)


def test_functions_without_a_file_come_from_the_kernels_table() -> None:
    kernel = Kernel()
    addr = _module(kernel)
    _kallsyms(
        kernel,
        addr,
        [
            (b"second", 0x12, TEXT + 0x80, 0x40),
            (b"first", 0x02, TEXT, 0x40),
            (b"asm", 0x10, TEXT + 0x40, 0x20),
            (b"alias", 0x10, TEXT, 0x40),
            (b"inside", 0x02, TEXT + 0x90, 0x10),
            (b"data", 0x11, TEXT + 0x200, 8),
            (b"label", 0x00, TEXT + 0x300, 0),
            (b"elsewhere", 0x02, DATA, 8),
            (b"beyond", 0x02, TEXT + 0x1FF0, 0x100),
        ],
    )
    (module,), _ = list_modules(kernel.memory, kernel.layout, 0)
    found = kept_functions(kernel.memory, kernel.layout, module)
    assert list(found.names) == ["first", "asm", "second"]
    assert found.start.tolist() == [TEXT, TEXT + 0x40, TEXT + 0x80]
    assert found.end.tolist() == [TEXT + 0x40, TEXT + 0x60, TEXT + 0xC0]
    assert found.kind.tolist() == [0, 1, 0]


@pytest.mark.parametrize("damage", ["no table", "no symbols", "no names", "absurd count"])
def test_a_damaged_table_names_nothing(damage: str) -> None:
    kernel = Kernel()
    addr = _module(kernel)
    _kallsyms(kernel, addr, [(b"first", 0x02, TEXT, 0x40)])
    table = kernel.memory.u64(addr + kernel.numbers["module.kallsyms"]) or 0
    if damage == "no table":
        kernel.prog.poke(addr + kernel.numbers["module.kallsyms"], 0)
    elif damage == "absurd count":
        kernel.prog.poke(table + 8, 0xFFFF_FFFF, 4)
    else:
        kernel.prog.poke(table + (0 if damage == "no symbols" else 16), 0x1000)
    (module,), _ = list_modules(kernel.memory, kernel.layout, 0)
    assert len(kept_functions(kernel.memory, kernel.layout, module).names) == 0


def test_module_files_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "dummy-mod.ko").write_bytes(b"no ELF file at all" * 10)
    (tmp_path / "packed.ko.xz").write_bytes(b"\xfd7zXZ")
    files = ModuleFiles(tmp_path)
    for name, build_id, words in (
        ("dummy_mod", "ab", "dummy-mod.ko cannot be used"),
        ("dummy_mod", "", "no build-id in the target"),
        ("packed", "ab", "is compressed"),
        ("absent", "ab", "no file of that name"),
    ):
        image, note = files.open(name, build_id)
        assert image is None
        assert words in note
    assert "--modules" in ModuleFiles(None).open("dummy_mod", "ab")[1]
