"""From image to rules: which source is taken, what a module's table speaks of, and packing for the cache."""

from __future__ import annotations

import struct
from dataclasses import fields, replace

import numpy as np
import pytest

from elf_builder import REL, A, Elf, Rel, X
from surefoot.errors import Inconsistent, InputError, Unsupported
from surefoot.image.binary import Image, decode_image
from surefoot.image.rulecache import pack, unpack
from surefoot.image.rules import load_rules, rule_sources
from surefoot.metadata.rules import FunctionIndex, Provenance, RuleTable

TEXT = 0xFFFF_8000_8000_0000


def debug_frame(start: int, size: int) -> bytes:
    """One CIE (CFA = SP + 0, RA x30) and one FDE that moves the CFA to SP + 16 after 4 bytes."""
    cie = struct.pack("<IB", 0xFFFFFFFF, 3) + b"\0\x04\x78\x1e" + b"\x0c\x1f\x00\0\0\0\0"
    fde = struct.pack("<IQQ", 0, start, size) + b"\x41\x0e\x10\0"
    return b"".join(struct.pack("<I", len(part)) + part for part in (cie, fde))


def eh_frame(start: int, size: int) -> bytes:
    """The same in the other format, absolute addresses."""
    cie = struct.pack("<IB", 0, 1) + b"\0\x04\x78\x1e" + b"\x0c\x1f\x00\0\0\0\0"
    fde = struct.pack("<IQQ", len(cie) + 8, start, size) + b"\x41\x0e\x20\0"
    return b"".join(struct.pack("<I", len(part)) + part for part in (cie, fde)) + bytes(4)


def image_of(elf: Elf) -> Image:
    return decode_image(np.frombuffer(elf.build(), dtype=np.uint8), "vmlinux")


def kernel() -> Elf:
    elf = Elf().section(".text", bytes(32), flags=A | X, addr=TEXT)
    return elf.section(".eh_frame", eh_frame(TEXT, 32), flags=A).section(".debug_frame", debug_frame(TEXT, 32))


def test_debug_frame_goes_first_and_the_order_can_be_chosen() -> None:
    image = image_of(kernel())
    assert rule_sources(image) == (Provenance.DEBUG_FRAME, Provenance.EH_FRAME)
    rules = load_rules(image)
    assert rules.start.tolist() == [TEXT, TEXT + 4]
    assert rules.cfa_off.tolist() == [0, 16]
    assert rules.functions.provenance.tolist() == [Provenance.DEBUG_FRAME]
    other = load_rules(image, (Provenance.SFRAME, Provenance.EH_FRAME))
    assert other.cfa_off.tolist() == [0, 32]
    assert other.functions.provenance.tolist() == [Provenance.EH_FRAME]


def test_no_metadata_is_an_error_that_says_what_to_give() -> None:
    image = image_of(Elf().section(".text", bytes(32), flags=A | X, addr=TEXT).section(".debug_frame", b""))
    assert rule_sources(image) == ()
    with pytest.raises(Unsupported, match="no unwind metadata") as caught:
        load_rules(image)
    assert "debug symbols" in caught.value.hint


def test_damage_is_named_with_file_and_section() -> None:
    image = image_of(Elf().section(".text", bytes(32)).section(".debug_frame", debug_frame(TEXT, 32)[:-3]))
    with pytest.raises(InputError, match=r"^vmlinux: \.debug_frame\+0x"):
        load_rules(image)


def test_rules_of_a_module_speak_of_sections_until_they_are_placed() -> None:
    elf = Elf(REL).section(".text", bytes(64), flags=A | X).section(".debug_frame", debug_frame(0, 32))
    elf.symbol("f", 32, 32)
    fde = 4 + len(debug_frame(0, 32)) - 4 - struct.calcsize("<IQQ") - 4
    elf.relocate(".debug_frame", Rel(fde + 4, 257, "f"))
    image = image_of(elf)
    rules = load_rules(image)
    assert rules.start.tolist() == [32, 36]
    assert rules.functions.section.tolist() == [1]
    bases = image.sections.bases({".text": 0x1000})
    assert rules.placed(bases).start.tolist() == [0x1020, 0x1024]
    assert load_rules(image.placed(bases)).start.tolist() == [32, 36]


def equal(a: RuleTable, b: RuleTable) -> bool:
    columns = [item.name for item in fields(RuleTable)[:10]]
    index = [item.name for item in fields(FunctionIndex)]
    same = all(np.array_equal(getattr(a, name), getattr(b, name)) for name in columns)
    same &= all(np.array_equal(getattr(a.functions, name), getattr(b.functions, name)) for name in index)
    same &= bool(np.array_equal(a.side_rules, b.side_rules))
    return same and (a.expressions, a.reasons, a.abi) == (b.expressions, b.reasons, b.abi)


def test_packed_tables_come_back_whole() -> None:
    table = replace(load_rules(image_of(kernel())), expressions=b"\x12\0\x34", reasons=("one", "", "zw\u00f6lf"))
    arrays = pack(table)
    assert not any(array.dtype.hasobject for array in arrays.values())
    assert equal(unpack(arrays), table)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("start", None),
        ("start", np.zeros(2, dtype=np.int64)),
        ("start", np.zeros((2, 1), dtype=np.uint64)),
        ("start", np.zeros(3, dtype=np.uint64)),
        ("functions.size", np.zeros(5, dtype=np.uint64)),
        ("func", np.array([0, 9], dtype=np.int32)),
        ("abi", np.array([99], dtype=np.uint8)),
        ("abi", np.zeros(0, dtype=np.uint8)),
        ("reasons", np.array([0xFF, 0], dtype=np.uint8)),
    ],
)
def test_packed_tables_that_cannot_be_are_refused(name: str, value: np.ndarray | None) -> None:
    arrays = pack(load_rules(image_of(kernel())))
    if value is None:
        del arrays[name]
    else:
        arrays[name] = value
    with pytest.raises(Inconsistent):
        unpack(arrays)
