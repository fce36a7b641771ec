"""CIE and FDE headers: what is read, what is refused for all functions of a CIE, what is an error."""

from __future__ import annotations

import pytest

import cfi_builder as b
from surefoot.errors import Inconsistent, InputError, Truncated
from surefoot.metadata.cfi import Bases, decode_debug_frame, decode_eh_frame
from surefoot.metadata.rules import FunctionFlag, RaRule, RuleTable

HERE = 0xFFFF_8000_1000_0000


def _reason(table: RuleTable, func: int = 0) -> str:
    """Give the sentence by which a function is refused, and check that it is marked so."""
    number = int(table.functions.reason[func])
    assert bool(table.functions.flags[func] & FunctionFlag.REFUSED) == (number >= 0)
    return table.reasons[number] if number >= 0 else ""


def _with(augmentation: str, extra: bytes | None, **options: int) -> RuleTable:
    """Decode an .eh_frame with one FDE under a CIE with this augmentation."""
    frames = b.Frames(eh=True)
    cie = frames.cie(augmentation=augmentation, extra=extra, version=3)
    frames.fde(cie, b.advance(1), extra=b"" if augmentation.startswith("z") else None, **options)
    return decode_eh_frame(frames.bytes(), section_addr=HERE)


@pytest.mark.parametrize("version", [1, 3, 4])
def test_versions_differ_in_the_column_and_the_sizes(version: int) -> None:
    frames = b.Frames()
    frames.fde(frames.cie(version=version), b.offset(b.RA, 2) + b.advance(3))
    table = decode_debug_frame(frames.bytes())
    assert table.start.tolist() == [0x1000, 0x100C]
    assert table.ra_off.tolist() == [-16, -16]
    assert table.ra_rule.tolist() == [RaRule.AT_CFA] * 2


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"version": 2}, "CIE version 2 is not known"),
        ({"version": 5}, "CIE version 5 is not known"),
        ({"augmentation": "eh"}, "augmentation 'eh' (GCC 2) is not supported"),
        ({"augmentation": "armcc+"}, "augmentation 'armcc+' is not known"),
        ({"augmentation": "R"}, "augmentation 'R' is not known"),
        ({"augmentation": "zQ", "extra": b""}, "augmentation 'zQ' is not known"),
        ({"version": 4, "sizes": b"\x02\x00"}, "address size 2 with segment selector size 0 is not supported"),
        ({"version": 4, "sizes": b"\x08\x04"}, "address size 8 with segment selector size 4 is not supported"),
        ({"augmentation": "zP", "extra": b"\x01\x05"}, "personality routine with pointer encoding 0x01"),
        ({"augmentation": "zP", "extra": b"\x50" + bytes(9)}, "personality routine with pointer encoding 0x50"),
        ({"augmentation": "zR", "extra": b"\xff"}, "pointer encoding 'omit' for an address that is needed"),
        ({"augmentation": "zR", "extra": b"\x9b"}, "pointer encoding 0x9b is indirect"),
        ({"augmentation": "zR", "extra": b"\x07"}, "pointer encoding 0x07 has an unknown form"),
        ({"augmentation": "zR", "extra": b"\x23"}, "pointer encoding 0x23 is textrel, and its base is not known"),
        ({"augmentation": "zR", "extra": b"\x3b"}, "pointer encoding 0x3b is datarel, and its base is not known"),
        ({"augmentation": "zR", "extra": b"\x4b"}, "pointer encoding 0x4b is funcrel, and its base is not known"),
        ({"augmentation": "zR", "extra": b"\x50"}, "pointer encoding 0x50 is aligned, and its base is not known"),
        (
            {"augmentation": "zR", "extra": b"\x6b"},
            "pointer encoding 0x6b is relative to something unknown, and its base is not known",
        ),
    ],
)
def test_a_cie_that_hides_addresses_refuses_its_functions(options: dict[str, object], reason: str) -> None:
    """They are listed without extent and rows; functions of other CIEs are not touched."""
    frames = b.Frames()
    odd = frames.cie(**options)  # type: ignore[arg-type]
    frames.fde(odd, b.advance(1))
    frames.fde(frames.cie(), b.advance(1), start=0x2000)
    table = decode_debug_frame(frames.bytes())
    assert _reason(table) == reason
    assert table.functions.start.tolist() == [0, 0x2000]
    assert table.functions.size.tolist() == [0, 0x100]
    assert table.functions.row_count.tolist() == [0, 2]
    assert _reason(table, 1) == ""
    assert table.reasons == (reason,)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"column": 29}, "return address column 29 is not x30"),
        ({"column": 33, "version": 3}, "return address column 33 is not x30"),
        ({"code": 2**31}, "code alignment factor of 2 GiB or more"),
        ({"code": 2**90}, "code alignment factor of 2 GiB or more"),
        ({"data": 2**31}, "data alignment factor of 2 GiB or more"),
        ({"data": -(2**31)}, "data alignment factor of 2 GiB or more"),
        (
            {"program": b.SP_PLUS_0 + b"\x3e"},
            "in the CIE: call frame instruction 0x3e is not supported",
        ),
        ({"program": b.SP_PLUS_0 + b.advance(0)}, "in the CIE: a location advance"),
        ({"program": b.restore(b.FP)}, "in the CIE: DW_CFA_restore, where there is nothing to restore"),
        ({"program": b.op(6, b.uleb(b.RA))}, "in the CIE: DW_CFA_restore, where there is nothing to restore"),
        (
            {"program": b.def_cfa_offset(8)},
            "in the CIE: DW_CFA_def_cfa_offset while the CFA is not a register and an offset",
        ),
    ],
)
def test_a_cie_whose_rules_are_odd_refuses_rows_only(options: dict[str, object], reason: str) -> None:
    """Addresses do not depend on the rules: the functions keep their extent."""
    frames = b.Frames()
    frames.fde(frames.cie(**options), b.advance(1))  # type: ignore[arg-type]
    table = decode_debug_frame(frames.bytes())
    assert _reason(table) == reason
    assert (table.functions.start.tolist(), table.functions.size.tolist()) == ([0x1000], [0x100])
    assert len(table) == 0


@pytest.mark.parametrize(
    ("augmentation", "flags"),
    [("", 0), ("S", 1), ("B", 2), ("SB", 3), ("G", 0), ("zR", 0), ("zRS", 1), ("zRB", 2), ("zRBG", 2), ("zPLR", 0)],
)
def test_letters_become_flags(augmentation: str, flags: int) -> None:
    extra = b"".join({"R": b"\0", "P": b"\x1b\1\2\3\4", "L": b"\x1b"}.get(letter, b"") for letter in augmentation)
    table = _with(augmentation, extra if augmentation.startswith("z") else None)
    assert table.functions.flags.tolist() == [flags]
    assert table.start.tolist() == [0x1000, 0x1004]


def test_augmentation_data_may_be_longer_than_its_string_needs() -> None:
    assert _with("zR", b"\0\1\2\3").start.tolist() == [0x1000, 0x1004]


def _start(encoding: int, stored: bytes, size: bytes, bases: Bases | None = None) -> tuple[list[int], list[int], str]:
    """Give start, size and refusal of an FDE with a stored start and size in this encoding."""
    frames = b.Frames(eh=True)
    cie = frames.cie(augmentation="zR", extra=bytes([encoding]))
    frames.record(len(frames.data) + 4 - cie, stored + size + b"\0")
    table = decode_eh_frame(frames.bytes(), section_addr=HERE, bases=bases)
    return table.functions.start.tolist(), table.functions.size.tolist(), _reason(table)


PLACE = HERE + 20 + 8
"""Address of the first address field in what `_start` builds."""


@pytest.mark.parametrize(
    ("encoding", "stored", "size", "want"),
    [
        (0x00, (0x1234).to_bytes(8, "little"), bytes([16] + [0] * 7), (0x1234, 16)),
        (0x01, b.uleb(0x12345), b.uleb(300), (0x12345, 300)),
        (0x02, b"\x34\xf2", b"\x10\x00", (0xF234, 16)),
        (0x03, b"\x34\x12\0\xf0", b"\x10\x00\0\0", (0xF0001234, 16)),
        (0x04, b"\x34" + b"\xff" * 7, bytes([16] + [0] * 7), (2**64 - 0xCC, 16)),
        (0x09, b.sleb(-0x1000), b.sleb(300), (2**64 - 0x1000, 300)),
        (0x0A, b"\x00\xf0", b"\x10\x00", (2**64 - 0x1000, 16)),
        (0x0B, b"\x00\xf0\xff\xff", b"\x10\x00\0\0", (2**64 - 0x1000, 16)),
        (0x0C, b"\x00\xf0" + b"\xff" * 6, bytes([16] + [0] * 7), (2**64 - 0x1000, 16)),
        (0x08, b"\x00\xf0" + b"\xff" * 6, bytes([16] + [0] * 7), (2**64 - 0x1000, 16)),
        (0x1B, b"\x00\xf0\xff\xff", b"\x10\x00\0\0", (PLACE - 0x1000, 16)),
        (0x13, b"\x00\x10\0\0", b"\x10\x00\0\0", (PLACE + 0x1000, 16)),
        (0x19, b.sleb(-12345), b.sleb(16), (PLACE - 12345, 16)),
        (0x2B, b"\x00\xf0\xff\xff", b"\x10\x00\0\0", (0x7000, 16)),
        (0x3B, b"\x00\xf0\xff\xff", b"\x10\x00\0\0", (0x8000, 16)),
    ],
)
def test_pointer_encodings(encoding: int, stored: bytes, size: bytes, want: tuple[int, int]) -> None:
    start, length, reason = _start(encoding, stored, size, Bases(text=0x8000, data=0x9000))
    assert (start, length, reason) == ([want[0]], [want[1]], "")


@pytest.mark.parametrize(
    ("encoding", "stored", "size", "reason"),
    [
        (0x0B, b"\0" * 4, b"\xff" * 4, "the function's size is negative"),
        (0x00, b"\xf0" + b"\xff" * 7, b"\x10" + bytes(7), "the function does not end in the address space"),
        (0x00, bytes(8), b"\0\0\0\0\1\0\0\0", "the function has 4 GiB or more"),
        (0x01, b"\x80" * 10 + b"\0", b"\1", "an address or length has more than 10 bytes"),
        (0x01, b"\1", b"\xff" * 9 + b"\x02", "an address or length has more than 10 bytes"),
    ],
)
def test_extents_that_cannot_be(encoding: int, stored: bytes, size: bytes, reason: str) -> None:
    assert _start(encoding, stored, size)[2] == reason


def test_addresses_of_four_bytes() -> None:
    """By the CIE of version 4, or by the caller; sums stay in 32 bits."""
    frames = b.Frames()
    frames.fde(frames.cie(version=4, sizes=b"\4\0"), b.advance(1), width=4, start=0xFFFF_0000, size=0x10000 - 1)
    frames.fde(frames.cie(version=4, sizes=b"\4\0"), b.advance(1), width=4, start=0xFFFF_0000, size=0x10000)
    table = decode_debug_frame(frames.bytes())
    assert table.functions.start.tolist() == [0xFFFF_0000] * 2
    assert (_reason(table), _reason(table, 1)) == ("", "the function does not end in the address space")
    frames = b.Frames()
    frames.fde(frames.cie(), b.advance(1), width=4)
    assert decode_debug_frame(frames.bytes(), address_size=4).start.tolist() == [0x1000, 0x1004]
    frames = b.Frames(eh=True)
    cie = frames.cie(augmentation="zR", version=4, sizes=b"\4\0", extra=b"\x1b")
    frames.fde(cie, start=-0x100, size=16, width=4, extra=b"", pcrel=0)
    assert decode_eh_frame(frames.bytes()).start.tolist() == [2**32 - 0x100]
    with pytest.raises(ValueError, match="address size 2"):
        decode_debug_frame(b"", address_size=2)


def _broken(frames: b.Frames, *, eh: bool = False) -> InputError:
    """Give the error that a section ends in."""
    with pytest.raises(InputError) as caught:
        (decode_eh_frame if eh else decode_debug_frame)(frames.bytes())
    return caught.value


@pytest.mark.parametrize("body", [b"", b"\1", b"\1\0\4", b"\1zR\0\4\x78\x1e"])
def test_a_cie_cut_inside_its_header(body: bytes) -> None:
    frames = b.Frames(align=1)
    frames.cie()
    place = frames.record(-1, body)
    error = _broken(frames)
    assert type(error) is Truncated
    assert str(error) == f".debug_frame+{place:#x}: a CIE ends inside its header"


def test_augmentation_data_has_to_fit() -> None:
    frames = b.Frames()
    frames.record(-1, b"\1zR\0\4\x78\x1e\x40\0")
    error = _broken(frames)
    assert type(error) is Truncated
    assert str(error) == ".debug_frame+0x0: a CIE's augmentation data does not fit its record"
    frames = b.Frames()
    frames.record(-1, b"\1zRL\0\4\x78\x1e\1\0\0")
    error = _broken(frames)
    assert type(error) is Inconsistent
    assert str(error) == ".debug_frame+0x0: a CIE's augmentation data is shorter than its string says"


@pytest.mark.parametrize(("eh", "body"), [(False, b"\0" * 15), (False, b""), (True, b"\0" * 16 + b"\x70\0")])
def test_an_fde_cut_inside_its_header(eh: bool, body: bytes) -> None:
    frames = b.Frames(eh=eh, align=1)
    cie = frames.cie(augmentation="zR" if eh else "", extra=b"\0" if eh else None)
    place = frames.record(len(frames.data) + 4 - cie if eh else cie, body)
    error = _broken(frames, eh=eh)
    assert type(error) is Truncated
    assert (
        str(error) == f"{'.eh_frame' if eh else '.debug_frame'}+{place:#x}: an FDE's header does not fit its record"
    )


def test_reasons_are_kept_even_when_there_are_too_many() -> None:
    """The table's index has 16 bits; a section with more different reasons says so in the last."""
    frames = b.Frames()
    for column in range(33_000):
        frames.fde(frames.cie(version=3, column=1000 + column))
    table = decode_debug_frame(frames.bytes())
    assert len(table.reasons) == 32_001
    assert _reason(table, 31_999) == "return address column 32999 is not x30"
    assert _reason(table, 32_999).startswith("refused for a reason that is no longer listed")
