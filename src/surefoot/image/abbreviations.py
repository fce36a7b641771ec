"""Layer 3: abbreviations of DWARF: how long an entry is, and where its attributes are.

Source:
    DWARF Debugging Information Format, Version 5, sections 7.5.3, 7.5.6 and 7.6. 32-bit format, addresses of eight
    bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from surefoot.errors import Unsupported

__all__ = ["Abbreviation", "Attribute", "Form", "abbreviation_at", "read_values", "table_at", "uleb"]


class Attribute(IntEnum):
    """Attributes that are read (DW_AT_*)."""

    SIBLING = 0x01
    NAME = 0x03
    LOW_PC = 0x11
    ORIGIN = 0x31
    DECLARATION = 0x3C
    EXTERNAL = 0x3F
    SPECIFICATION = 0x47
    LINKAGE = 0x6E
    NORETURN = 0x87


class Form(IntEnum):
    """Forms that are told apart (DW_FORM_*)."""

    ADDR = 0x01
    BLOCK2 = 0x03
    BLOCK4 = 0x04
    STRING = 0x08
    BLOCK = 0x09
    BLOCK1 = 0x0A
    SDATA = 0x0D
    STRP = 0x0E
    UDATA = 0x0F
    REF4 = 0x13
    REF_UDATA = 0x15
    EXPRLOC = 0x18
    FLAG_PRESENT = 0x19
    STRX = 0x1A
    ADDRX = 0x1B
    IMPLICIT_CONST = 0x21
    LOCLISTX = 0x22
    RNGLISTX = 0x23


_SIZES: Final = {
    Form.ADDR: 8,
    0x05: 2,  # data2
    0x06: 4,  # data4
    0x07: 8,  # data8
    0x0B: 1,  # data1
    0x0C: 1,  # flag
    Form.STRP: 4,
    0x10: 4,  # ref_addr
    0x11: 1,  # ref1
    0x12: 2,  # ref2
    Form.REF4: 4,
    0x14: 8,  # ref8
    0x17: 4,  # sec_offset
    Form.FLAG_PRESENT: 0,
    0x1D: 4,  # strp_sup
    0x1E: 16,  # data16
    0x1F: 4,  # line_strp
    0x20: 8,  # ref_sig8
    Form.IMPLICIT_CONST: 0,
    0x25: 1,  # strx1
    0x26: 2,  # strx2
    0x27: 3,  # strx3
    0x28: 4,  # strx4
    0x29: 1,  # addrx1
    0x2A: 2,  # addrx2
    0x2B: 3,  # addrx3
    0x2C: 4,  # addrx4
}
"""Bytes of the forms whose size does not depend on the value."""
_NUMBERS: Final = (
    Form.SDATA,
    Form.UDATA,
    Form.REF_UDATA,
    Form.STRX,
    Form.ADDRX,
    Form.LOCLISTX,
    Form.RNGLISTX,
)
_BLOCKS: Final = {Form.BLOCK1: 1, Form.BLOCK2: 2, Form.BLOCK4: 4}


@dataclass(frozen=True, slots=True)
class Abbreviation:
    """How one kind of entry is laid out.

    Attributes:
        code_bytes: its code as entries begin with it.
        tag: DW_TAG_*.
        attributes: (attribute, form) in order.
        jump: attributes up to the one that says where the entry's sibling is, -1 without such a one.
        steps: how to get past the attributes that `jump` counts, or all: bytes, or -form where that depends on the
            value.
    """

    code_bytes: bytes
    tag: int
    attributes: tuple[tuple[int, int], ...]
    jump: int
    steps: tuple[int, ...]

    def has(self, attribute: Attribute) -> bool:
        """Whether entries have an attribute."""
        return any(name == attribute for name, _ in self.attributes)

    def form(self, attribute: Attribute) -> int:
        """Give the form of an attribute, 0 for one that entries do not have."""
        return next((form for name, form in self.attributes if name == attribute), 0)

    def place(self, attribute: Attribute) -> int:
        """Give the bytes from behind the code to an attribute, -1 if that depends on the values or there is none."""
        at = 0
        for name, form in self.attributes:
            if name == attribute:
                return at
            if form not in _SIZES:
                break
            at += _SIZES[form]
        return -1

    def skip(self, data: bytes, at: int) -> int:
        """Give the place of the next entry to look at: the sibling's if the entry names it, else the next one's."""
        for step in self.steps:
            at = at + step if step >= 0 else _behind(data, at, -step)
        return int.from_bytes(data[at : at + 4], "little") if self.jump >= 0 else at


def uleb(data: bytes, at: int) -> tuple[int, int]:
    """Decode an unsigned LEB128: value and the place behind it."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def abbreviation_at(data: bytes, at: int) -> tuple[Abbreviation, int]:
    """Decode one declaration of .debug_abbrev.

    Args:
        data: the section.
        at: where the declaration begins.

    Returns:
        it, and the place behind it.
    """
    start = at
    _, at = uleb(data, at)
    code = data[start:at]
    tag, at = uleb(data, at)
    at += 1  # whether it has children: the entries themselves end where they end
    attributes = []
    while True:
        name, at = uleb(data, at)
        form, at = uleb(data, at)
        if not name and not form:
            break
        if form == Form.IMPLICIT_CONST:
            _, at = uleb(data, at)
        attributes.append((name, form))
    jump = next((i for i, pair in enumerate(attributes) if pair == (Attribute.SIBLING, Form.REF4)), -1)
    return Abbreviation(code, tag, tuple(attributes), jump, _steps(attributes[: jump if jump >= 0 else None])), at


def _steps(attributes: list[tuple[int, int]]) -> tuple[int, ...]:
    """Say how to get past attributes, what has a size joined."""
    steps: list[int] = []
    for _, form in attributes:
        size = _SIZES.get(form, -form)
        if size >= 0 and steps and steps[-1] >= 0:
            steps[-1] += size
        elif size:
            steps.append(size)
    return tuple(steps)


def table_at(data: bytes, at: int) -> dict[int, Abbreviation]:
    """Decode the abbreviations of a unit: code -> abbreviation."""
    found = {}
    while data[at]:
        each, at = abbreviation_at(data, at)
        found[uleb(each.code_bytes, 0)[0]] = each
    return found


def _behind(data: bytes, at: int, form: int) -> int:
    """Give the place behind a value whose size depends on it.

    Raises:
        Unsupported: a form that is not known.
    """
    if form in _NUMBERS:
        return uleb(data, at)[1]
    if form == Form.STRING:
        return data.index(b"\0", at) + 1
    if form in {Form.EXPRLOC, Form.BLOCK}:
        size, at = uleb(data, at)
        return at + size
    if form in _BLOCKS:
        width = _BLOCKS[Form(form)]
        return at + width + int.from_bytes(data[at : at + width], "little")
    raise Unsupported(f"debug information has values of form {form:#x}")


def read_values(data: bytes, at: int, each: Abbreviation) -> dict[int, int]:
    """Give the attributes of an entry that have a size, as numbers; of a string in place, where it begins.

    Args:
        data: the unit.
        at: the place behind the entry's code.
        each: its abbreviation.
    """
    values = {}
    for name, form in each.attributes:
        size = _SIZES.get(form)
        behind = _behind(data, at, form) if size is None else at + size
        if size is not None:
            values[name] = int.from_bytes(data[at:behind], "little")
        elif form == Form.STRING:
            values[name] = at
        at = behind
    return values
