"""Fields against the same done with Python integers."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from surefoot.isa import fields

words = st.integers(0, 2**32 - 1)


@given(words, st.integers(0, 31), st.integers(1, 32))
def test_fields_are_what_integers_say(word: int, lsb: int, width: int) -> None:
    width = min(width, 32 - lsb)
    array = np.array([word], dtype=np.uint32)
    plain = (word >> lsb) % 2**width
    assert fields.field(array, lsb, width).tolist() == [plain]
    signed = plain - 2**width if plain >> (width - 1) else plain
    assert fields.signed_field(array, lsb, width).tolist() == [signed]


def test_add_immediate_applies_its_shift() -> None:
    """Add x0, x1, #0x123 and add x0, x1, #0x123, lsl #12."""
    array = np.array([0x9104_8C20, 0x9144_8C20], dtype=np.uint32)
    assert fields.add_immediate(array).tolist() == [0x123, 0x123000]


def test_load_offsets_are_scaled() -> None:
    """Ldr x0, [x1, #0x18]: registers and offset."""
    array = np.array([0xF940_0C20], dtype=np.uint32)
    assert fields.load_offset(array, 8).tolist() == [0x18]
    assert fields.rd(array).tolist() == [0]
    assert fields.rn(array).tolist() == [1]
