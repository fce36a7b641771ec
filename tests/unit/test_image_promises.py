"""Functions that never return as debug information says: found where they are, never guessed."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest

from dwarf_builder import Dwarf, Unit
from elf_builder import REL, A, Elf, X, words
from surefoot.errors import InputError, Unsupported
from surefoot.image.binary import Image, decode_image
from surefoot.image.promises import Promises, promises

TEXT = 0xFFFF_8000_8001_0000
RET = 0xD65F_03C0


def image_of(dwarf: Dwarf | None, *names: str, damage: tuple[str, bytes] | None = None, kind: int = 2) -> Image:
    """An image with functions of one word each, in order, and debug information."""
    elf = Elf(type=kind)
    elf.section(".text", words(*[RET] * max(len(names), 1)), flags=A | X, addr=0 if kind == REL else TEXT)
    for number, name in enumerate(names):
        elf.symbol(name, 4 * number + (0 if kind == REL else TEXT), 4)
    if dwarf is not None:
        for name, data in dwarf.sections().items():
            elf.section(name, damage[1] if damage and damage[0] == name else data)
    return decode_image(np.frombuffer(elf.build(), dtype=np.uint8), "vmlinux")


def told(dwarf: Dwarf, *names: str) -> Promises:
    found = promises(image_of(dwarf, *names))
    assert found is not None
    return found


def noise(unit: Unit) -> None:
    """Entries of every length that says nothing."""
    unit.put("variable", b"\x09\x03", (TEXT).to_bytes(8, "little"), b"\xff\x7e", b"v\0")
    start = unit.head + len(unit.body)
    inner = bytes([10]) + b"m\0" + b"\x03\x85\x03\x01" + b"\0"
    goal = start + 1 + 2 + 4 + len(inner)
    unit.put("structure", b"s\0", goal.to_bytes(4, "little"), inner)
    unit.kinds.add("member")


def test_definitions_are_found_by_address() -> None:
    for version in (4, 5):
        dwarf = Dwarf()
        unit = dwarf.unit(version)
        noise(unit)
        unit.defined("back", TEXT)
        unit.never("stop", TEXT + 4)
        noise(unit)
        unit.never("also", TEXT + 8)
        found = told(dwarf, "back", "stop", "also")
        assert found.starts.tolist() == [TEXT + 4, TEXT + 8]
        assert found.names == {"stop", "also"}


def test_a_concrete_instance_has_what_its_abstract_one_says() -> None:
    dwarf = Dwarf()
    unit = dwarf.unit()
    origin = unit.put("abstract", dwarf.text("stop"), b"\x01")
    unit.put("concrete", origin.to_bytes(4, "little"), (TEXT + 4).to_bytes(8, "little"))
    other = unit.defined("back", TEXT)
    unit.put("concrete", other.to_bytes(4, "little"), (TEXT + 8).to_bytes(8, "little"))
    found = told(dwarf, "back", "stop", "copy")
    assert found.starts.tolist() == [TEXT + 4]
    assert not found.names


def test_declarations_are_found_by_name() -> None:
    """A unit that only declares is looked through; a name that no symbol has is left out."""
    dwarf = Dwarf()
    unit = dwarf.unit()
    noise(unit)
    unit.defined("user", TEXT)
    unit.declared("panic")
    unit.declared("__compiletime_assert_1")
    unit.put("plain", dwarf.text("printk"), b"\x02")
    found = told(dwarf, "user", "panic", "printk")
    assert not found.starts.size
    assert found.names == {"panic"}


def test_bytes_that_look_like_a_declaration_are_not_one() -> None:
    """The code and a symbol's name stand in a constant: a walk never arrives there."""
    dwarf = Dwarf()
    unit = dwarf.unit()
    unit.defined("user", TEXT)
    unit.declared("panic")
    fake = b"\x85\x03" + dwarf.text("printk") + b"\x07"
    unit.put("variable", bytes([len(fake)]) + fake, b"\x00", b"v\0")
    assert told(dwarf, "user", "panic", "printk").names == {"panic"}


def test_a_longer_code_is_another_one() -> None:
    """85 03 is the end of 85 85 03 as well: that entry is of another kind, and is not believed."""
    dwarf = Dwarf()
    unit = dwarf.unit()
    unit.defined("user", TEXT)
    unit.declared("panic")
    unit.put("plain", dwarf.text("printk"), b"\x85")  # its line is 0x85: the next entry may be read from there
    unit.put("plain", dwarf.text("printk"), b"\x03")
    assert told(dwarf, "user", "panic", "printk").names == {"panic"}


def test_prefixes_of_the_build_are_those_of_the_units_functions() -> None:
    """The same declaration in two units names two symbols, by what stands before the units' own functions."""
    dwarf = Dwarf()
    for number, name in enumerate(("user", "hyp_user")):
        unit = dwarf.unit()
        unit.defined(name, TEXT + 4 * number)
        unit.declared("panic")
    names = ("user", "__kvm_nvhe_hyp_user", "panic", "__kvm_nvhe_panic")
    assert told(dwarf, *names).names == {"panic", "__kvm_nvhe_panic"}
    dwarf.units.pop()
    assert told(dwarf, *names).names == {"panic"}


def test_a_unit_without_functions_names_nothing() -> None:
    dwarf = Dwarf()
    dwarf.unit().declared("panic")
    assert told(dwarf, "panic").names == set()


def test_without_debug_information_nothing_is_said() -> None:
    dwarf = Dwarf()
    dwarf.unit()
    assert promises(image_of(None, "f")) is None
    assert promises(image_of(dwarf, "f", kind=REL)) is None


def test_other_versions_are_refused() -> None:
    dwarf = Dwarf()
    dwarf.unit()
    info = bytearray(dwarf.sections()[".debug_info"])
    info[4] = 3
    with pytest.raises(Unsupported, match="DWARF version 3"):
        promises(image_of(dwarf, "f", damage=(".debug_info", bytes(info))))


def test_damage_is_an_input_error_or_nothing() -> None:
    """Every cut and every changed byte gives an answer or an error of ours."""
    dwarf = Dwarf()
    unit = dwarf.unit()
    noise(unit)
    unit.defined("back", TEXT)
    unit.never("stop", TEXT + 4)
    unit = dwarf.unit()
    unit.defined("user", TEXT + 8)
    unit.declared("stop")
    for name, data in dwarf.sections().items():
        for at in range(len(data)):
            for bad in (data[:at], data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]):
                with suppress(InputError):
                    promises(image_of(dwarf, "back", "stop", "user", damage=(name, bad)))
