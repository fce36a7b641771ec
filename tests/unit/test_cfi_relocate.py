"""Sections of object files: relocations are applied exactly or refused with their place."""

from __future__ import annotations

import numpy as np
import pytest

import cfi_builder as b
from surefoot.errors import Inconsistent, InputError, Truncated, Unsupported
from surefoot.metadata.cfi import Relocations, decode_debug_frame, decode_eh_frame
from surefoot.metadata.rules import FunctionFlag

ABS64, ABS32, ABS16, PREL64, PREL32, PREL16 = 257, 258, 259, 260, 261, 262


def _relocations(*rows: tuple[int, int, int, int, int]) -> Relocations:
    """Give relocations from (offset, type, symbol value, symbol section, addend)."""
    columns = list(zip(*rows, strict=True)) or [()] * 5
    return Relocations(
        np.array(columns[0], dtype=np.uint64),
        np.array(columns[1], dtype=np.uint32),
        np.array(columns[2], dtype=np.uint64),
        np.array(columns[3], dtype=np.int32),
        np.array(columns[4], dtype=np.int64),
    )


@pytest.mark.parametrize("big", [False, True])
def test_debug_frame_of_an_object_file(big: bool) -> None:
    """As gas writes it: the CIE pointer against .debug_frame, the address against the code's section."""
    frames = b.Frames(big=big)
    frames.cie()
    places = [frames.fde(0, b.advance(1), start=0) for _ in range(2)]
    rows = [(places[1] + 8, ABS64, 0x100, 7, 0x40), (places[0] + 8, ABS64, 0, 5, 0x20)]
    rows += [(place + 4, ABS32, 0, 9, 0) for place in places] + [(0, 0, 0, 0, 0), (3, 256, 0, 0, 0)]
    table = decode_debug_frame(frames.bytes(), relocations=_relocations(*rows), big_endian=big)
    assert table.functions.start.tolist() == [0x20, 0x140]
    assert table.functions.section.tolist() == [5, 7]
    assert table.start.tolist() == [0x20, 0x24, 0x140, 0x144]
    bases = np.zeros(8, dtype=np.uint64)
    bases[7] = 0xFFFF_8000_0000_0000
    assert table.placed(bases).for_lookup().start.tolist() == [0xFFFF_8000_0000_0140, 0xFFFF_8000_0000_0144][:1]


@pytest.mark.parametrize(("kind", "code", "width"), [(PREL32, 0x1B, 4), (PREL64, 0x1C, 8), (PREL16, 0x1A, 2)])
def test_eh_frame_of_an_object_file(kind: int, code: int, width: int) -> None:
    """PC-relative fields come out as offsets in the code's section, wherever the frame section lies."""
    frames = b.Frames(eh=True)
    cie = frames.cie(augmentation="zR", extra=bytes([code]))
    place = frames.fde(cie, b.advance(1), start=0, size=64, width=width, extra=b"")
    relocations = _relocations((place + 8, kind, 0x100, 4, 0x20))
    for addr in (0, 0x400):
        table = decode_eh_frame(frames.bytes(), relocations=relocations, section_addr=addr)
        assert (table.functions.start.tolist(), table.functions.section.tolist()) == ([0x120], [4])
        assert table.functions.flags.tolist() == [0]


@pytest.mark.parametrize("rows", [[], [(0, 0, 0, 0, 0)], [(24, ABS64, 0, 0, 0)], [(24, ABS64, 0, 0xFFF1, 0)]])
def test_a_function_without_a_section_is_refused(rows: list[tuple[int, int, int, int, int]]) -> None:
    """No relocation, or one against an undefined or absolute symbol: nobody knows where the code is."""
    table = decode_debug_frame(b.one(b.advance(1), start=0), relocations=_relocations(*rows))
    assert table.functions.flags.tolist() == [FunctionFlag.REFUSED]
    assert table.reasons == ("the function's address is not relocated against a section",)
    assert (len(table), table.functions.section.tolist()) == (0, [-1])


@pytest.mark.parametrize(
    ("rows", "kind", "message"),
    [
        ([(24, 275, 0, 5, 0)], Unsupported, "+0x18: relocation type 275"),
        ([(44, ABS64, 0, 5, 0)], Truncated, "+0x2c: a relocation patches bytes behind the section's end"),
        ([(2**63, ABS16, 0, 5, 0)], Truncated, f"+{2**63:#x}: a relocation patches bytes behind the section's end"),
        ([(24, ABS64, 0, 5, 0), (20, ABS64, 0, 5, 0)], Inconsistent, "+0x18: two relocations patch the same bytes"),
        ([(24, ABS64, 0, 5, 0)] * 2, Inconsistent, "+0x18: two relocations patch the same bytes"),
        ([(24, ABS32, 2**32, 5, 0)], Inconsistent, "+0x18: a relocated value does not fit 4 bytes"),
        ([(24, ABS32, 0, 5, -(2**31) - 1)], Inconsistent, "+0x18: a relocated value does not fit 4 bytes"),
        ([(24, ABS16, 65536, 5, 0)], Inconsistent, "+0x18: a relocated value does not fit 2 bytes"),
    ],
)
def test_relocations_that_cannot_be(rows: list[tuple[int, int, int, int, int]], kind: type, message: str) -> None:
    with pytest.raises(InputError) as caught:
        decode_debug_frame(b.one(b.advance(2), start=0), relocations=_relocations(*rows))
    assert type(caught.value) is kind
    assert str(caught.value) == f".debug_frame{message}"


def test_the_caller_s_bytes_are_not_changed() -> None:
    data = bytearray(b.one(b"", start=0))
    before = bytes(data)
    decode_debug_frame(data, relocations=_relocations((24, ABS64, 1, 5, 0)))
    assert bytes(data) == before
