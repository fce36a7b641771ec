"""The chain of records: found whole, in either format and any alignment, or refused at the place where it breaks."""

from __future__ import annotations

import struct

import numpy as np
import pytest

import cfi_builder as b
from surefoot.errors import Inconsistent, InputError, Truncated, Unsupported
from surefoot.metadata.cfi import decode_debug_frame, decode_eh_frame
from surefoot.metadata.rules import Abi, Provenance


def _many(count: int, **options: bool | int) -> tuple[b.Frames, list[int]]:
    """Give a section with two CIEs and `count` FDEs of different lengths, and the offsets of the FDEs."""
    frames = b.Frames(**options)  # type: ignore[arg-type]
    cies = [frames.cie(), frames.cie(b.SP_PLUS_0 + b.offset(b.FP, 2))]
    offsets = []
    for k in range(count):
        program = b.advance(1) * (k % 7) + b.nop(k % 3)
        offsets.append(frames.fde(cies[k % 2], program, start=0x1000 + 0x100 * k, size=k % 7 * 4))
    return frames, offsets


@pytest.mark.parametrize("eh", [False, True])
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("align", [1, 4, 8])
@pytest.mark.parametrize("big", [False, True])
def test_every_format_gives_the_same_table(eh: bool, wide: bool, align: int, big: bool) -> None:
    """32- and 64-bit format, both sections, both byte orders, aligned or not: same functions, same rows."""
    frames, offsets = _many(100, eh=eh, wide=wide, align=align, big=big)
    decode = decode_eh_frame if eh else decode_debug_frame
    table = decode(frames.bytes(), big_endian=big)
    table.check()
    assert table.functions.source_off.tolist() == offsets
    assert table.functions.start.tolist() == [0x1000 + 0x100 * k for k in range(100)]
    assert table.functions.row_count.tolist() == [1 + k % 7 for k in range(100)]
    assert set(table.functions.provenance.tolist()) == {Provenance.EH_FRAME if eh else Provenance.DEBUG_FRAME}
    assert table.abi == (Abi.AARCH64_BE if big else Abi.AARCH64_LE)
    assert table.reasons == ()


@pytest.mark.parametrize("data", [b"", b"\0", b"\0" * 4, b"\0" * 1001])
def test_nothing_but_terminators_is_an_empty_table(data: bytes) -> None:
    for decode in (decode_debug_frame, decode_eh_frame):
        table = decode(data)
        assert (len(table), len(table.functions), table.reasons) == (0, 0, ())


def test_a_section_of_cies_only_is_an_empty_table() -> None:
    frames = b.Frames()
    frames.cie()
    assert len(decode_debug_frame(frames.bytes()).functions) == 0


@pytest.mark.parametrize("eh", [False, True])
def test_terminators_between_and_behind_records_are_passed_over(eh: bool) -> None:
    """What a linker leaves where it joins files that each end with a terminator."""
    frames = b.Frames(eh=eh)
    frames.fde(frames.cie())
    frames.data += bytes(4)
    cie = frames.cie()
    frames.fde(cie, start=0x9000)
    data = frames.bytes() + bytes(8)
    table = (decode_eh_frame if eh else decode_debug_frame)(data)
    assert table.functions.start.tolist() == [0x1000, 0x9000]


def test_bytes_that_look_like_records_inside_one_are_not_records() -> None:
    """A whole section as the operand of an expression: only the outer chain counts."""
    inner = b.one(b.advance(1))
    frames = b.Frames()
    cie = frames.cie()
    frames.fde(cie, b.op(0x10, b.uleb(19), b.block(inner)) + b.advance(2))
    frames.fde(cie, start=0x5000)
    table = decode_debug_frame(frames.bytes())
    assert table.functions.start.tolist() == [0x1000, 0x5000]
    assert table.functions.row_count.tolist() == [2, 1]


def _error(data: bytes, *, eh: bool = False) -> InputError:
    """Give the error that a section ends in."""
    with pytest.raises(InputError) as caught:
        (decode_eh_frame if eh else decode_debug_frame)(data)
    return caught.value


@pytest.mark.parametrize("eh", [False, True])
@pytest.mark.parametrize(
    ("extra", "kind", "message"),
    [
        (b"\1\2", Truncated, "the section ends inside a record's length"),
        (b"\x40\0\0\0" + b"\1" * 16, Truncated, "a record does not fit between its start and the section's end"),
        (b"\2\0\0\0" + b"\1" * 16, Truncated, "a record does not fit between its start and the section's end"),
        (b"\xff\xff\xff\xff\0\0\1", Truncated, "a record does not fit between its start and the section's end"),
        (b"\xf3\xff\xff\xff" + b"\1" * 8, Unsupported, "record length 0xfffffff3 is reserved"),
    ],
)
def test_a_broken_record_is_named_with_its_place(eh: bool, extra: bytes, kind: type, message: str) -> None:
    frames, _ = _many(5, eh=eh)
    error = _error(frames.bytes() + extra, eh=eh)
    assert type(error) is kind
    assert str(error) == f"{'.eh_frame' if eh else '.debug_frame'}+{len(frames.data):#x}: {message}"


@pytest.mark.parametrize("target", [0x7FFF_FFF0, 2, 0x14])
def test_an_fde_that_names_no_cie_is_named(target: int) -> None:
    """Behind the section, inside a CIE, or another FDE."""
    frames = b.Frames()
    frames.cie()
    frames.fde(0)
    place = frames.fde(target)
    error = _error(frames.bytes())
    assert type(error) is Inconsistent
    assert str(error) == f".debug_frame+{place:#x}: an FDE names offset {target:#x}, where there is no CIE"


def test_a_cie_inside_another_record_is_no_cie() -> None:
    """The FDE's target looks like a CIE, but it is the operand of somebody's expression."""
    frames = b.Frames()
    cie = frames.cie()
    inner = b.Frames()
    inner.cie()
    at = frames.fde(cie, b.op(0x10, b.uleb(19), b.block(b"\0" + inner.bytes())))
    hidden = frames.bytes().index(inner.bytes(), at)
    assert hidden % 4 == 0
    place = frames.fde(hidden)
    frames.cie()
    error = _error(frames.bytes())
    assert type(error) is Inconsistent
    assert str(error) == f".debug_frame+{place:#x}: an FDE names offset {hidden:#x}, where there is no CIE"


def test_an_fde_of_eh_frame_counts_back_from_its_identifier() -> None:
    frames = b.Frames(eh=True)
    frames.cie()
    place = frames.fde(-64)
    message = str(_error(frames.bytes(), eh=True))
    assert message == f".eh_frame+{place:#x}: an FDE names offset -0x40, where there is no CIE"


def test_every_cut_of_a_section_is_an_error_or_a_shorter_table() -> None:
    """Cut at a record's end, a section is the table of the records before; elsewhere it is Truncated."""
    frames, offsets = _many(4)
    whole = frames.bytes()
    ends = {0, 16, *offsets, len(whole)}
    for size in range(len(whole)):
        if size in ends or not any(whole[max(end for end in ends if end <= size) : size]):
            table = decode_debug_frame(whole[:size])
            assert table.functions.source_off.tolist() == [off for off in offsets if off < size]
        else:
            assert type(_error(whole[:size])) is Truncated, size


def test_a_section_of_two_gib_is_refused() -> None:
    """Sizes are checked before anything is copied."""
    untouched = np.zeros(2**31, dtype=np.uint8)
    with pytest.raises(Unsupported, match=r"\.debug_frame\+0x0: 2 GiB or more of call frame information"):
        decode_debug_frame(untouched)


def test_zero_words_are_many_but_quickly_done() -> None:
    """A hundred thousand terminators before the only records."""
    frames = b.Frames()
    frames.data += bytes(400_000)
    cie = frames.cie()
    frames.fde(cie)
    assert len(decode_debug_frame(frames.bytes()).functions) == 1


def test_lengths_are_read_in_the_section_s_byte_order() -> None:
    data = b.one(b.nop())
    with pytest.raises(InputError):
        decode_debug_frame(data, big_endian=True)
    assert struct.unpack_from("<I", data)[0] < len(data)
