"""Sections that GNU as and ld wrote, row by row as readelf interprets them (tests/golden/cfi/build.sh)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from cfi_readelf import differences
from surefoot.metadata.cfi import decode_debug_frame, decode_eh_frame
from surefoot.metadata.rules import FunctionFlag, RuleTable

GOLDEN: Final = Path(__file__).parent.parent / "golden" / "cfi"


def _decode(section: str) -> RuleTable:
    """Decode a fixture."""
    data = (GOLDEN / f"{section}.bin").read_bytes()
    address = int((GOLDEN / f"{section}.addr").read_text(), 16)
    return (decode_eh_frame if section == "eh_frame" else decode_debug_frame)(data, section_addr=address)


@pytest.mark.parametrize("section", ["debug_frame", "eh_frame"])
def test_rows_are_those_of_readelf(section: str) -> None:
    """Every address, CFA, x29 and return address, expressions and other registers included."""
    table = _decode(section)
    table.check()
    lines = (GOLDEN / f"{section}.txt").read_text().splitlines()
    assert differences(table, lines) == ([], 3, 33)
    assert table.reasons == ()


@pytest.mark.parametrize("section", ["debug_frame", "eh_frame"])
def test_what_readelf_does_not_print(section: str) -> None:
    """Whether the return address is signed, augmentation letters and the bytes of expressions, from frames.s."""
    table = _decode(section)
    flags = table.functions.flags.tolist()
    key_b = FunctionFlag.KEY_B if section == "eh_frame" else 0  # binutils 2.40 writes the letter there only
    assert flags == [0, 0, 0, 0, FunctionFlag.SIGNAL, key_b, 0]
    first = table.functions.first_row.tolist()
    signed = table.ra_signed.tolist()
    assert signed[first[1] : first[2]] == [False, *[True] * 7, False, *[True] * 4]
    assert signed[first[5] : first[6]] == [False, True]
    assert b"\x8f\x10\x06" in table.expressions
    assert b"\x8f\x08" in table.expressions


def test_both_sections_say_the_same() -> None:
    """One source, two encodings: pointers relative to their place, or absolute."""
    one, two = _decode("debug_frame"), _decode("eh_frame")
    for name in ("start", "cfa_base", "cfa_off", "fp_rule", "fp_off", "ra_rule", "ra_off", "ra_signed", "func"):
        assert getattr(one, name).tolist() == getattr(two, name).tolist(), name
    assert one.functions.start.tolist() == two.functions.start.tolist()
