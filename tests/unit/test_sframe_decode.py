"""The strict decoder against sections assembled field by field."""

from __future__ import annotations

import numpy as np
import pytest

import sframe_builder as make
from sframe_builder import Fde, Fre
from surefoot.errors import InputError, Truncated, UnknownVersion, Unsupported
from surefoot.metadata import sframe
from surefoot.metadata.rules import CfaBase, FpRule, FunctionFlag, RaRule, RuleTable, SideKind


def rules(fdes: list[Fde], version: int = 3, **more: int) -> RuleTable:
    """Assemble, decode and interpret."""
    table = sframe.decode(make.section(fdes, version, **more)).to_rules()  # type: ignore[arg-type]
    table.check()
    return table


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("abi", [make.AARCH64, make.AARCH64_BE])
@pytest.mark.parametrize("flags", [0, make.SORTED | make.PCREL])
def test_every_version_and_byte_order_says_the_same(version: int, abi: int, flags: int) -> None:
    address = 0xFFFF_8000_8000_0000
    fdes = make.typical()
    for fde in fdes:
        fde.start += address
    data = make.section(fdes, version, abi=abi, flags=flags, addr=address)
    section = sframe.decode(data, section_addr=address)
    table = section.to_rules()
    table.check()
    assert section.version == version
    assert section.tables[0].header.big_endian == (abi == make.AARCH64_BE)
    assert (table.functions.start - address).tolist() == [0x1000, 0x1008, 0x1020, 0x1220]
    assert table.functions.size.tolist() == [8, 24, 0x200, 16]
    expected = [0x1000, 0x1008, 0x100C, 0x1010, 0x101C, 0x1020, 0x1028, 0x1210, 0x1220]
    assert (table.start - address).tolist() == expected
    assert table.cfa_base.tolist() == [1, 1, 1, 1, 1, 1, 1, 2, 0]
    assert table.cfa_off.tolist() == [0, 0, 0, 32, 0, 0, 0x1230, 32, 0]
    assert table.ra_rule.tolist() == [1, 1, 1, 2, 1, 1, 2, 2, 3]
    assert table.ra_off.tolist() == [0, 0, 0, -24, 0, 0, -0x1228, -24, 0]
    assert table.fp_rule.tolist() == [1, 1, 1, 2, 1, 1, 2, 2, 0]
    assert table.fp_off.tolist() == [0, 0, 0, -32, 0, 0, -0x1230, -32, 0]
    assert table.ra_signed.tolist() == [False, False, True, True, False, False, False, False, False]
    assert table.functions.flags.tolist() == [0, FunctionFlag.KEY_B, 0, 0]


def test_a_return_address_saved_without_the_frame_pointer() -> None:
    """Gas writes two words for it on AArch64."""
    table = rules([Fde(0, 8, [Fre(0, (16, -8))])])
    assert (table.ra_rule[0], table.ra_off[0], table.fp_rule[0]) == (RaRule.AT_CFA, -8, FpRule.UNCHANGED)


def test_amd64_takes_the_return_address_from_the_header() -> None:
    table = rules([Fde(0, 32, [Fre(0, (8,)), Fre(1, (16, -16)), Fre(4, (16, -16), make.FP)])], abi=make.AMD64)
    assert table.ra_off.tolist() == [-8, -8, -8]
    assert table.ra_rule.tolist() == [RaRule.AT_CFA] * 3
    assert table.fp_rule.tolist() == [FpRule.UNCHANGED, FpRule.AT_CFA, FpRule.AT_CFA]
    assert table.cfa_base.tolist() == [CfaBase.SP, CfaBase.SP, CfaBase.FP]


def test_s390x_scales_the_cfa_and_pads_the_return_address() -> None:
    table = rules([Fde(0, 32, [Fre(0, (0,)), Fre(6, (0x15, -48, -72)), Fre(8, (0, 0, -72))])], abi=make.S390X)
    assert table.cfa_off.tolist() == [160, 328, 160]
    assert table.ra_rule.tolist() == [RaRule.IN_LR, RaRule.AT_CFA, RaRule.IN_LR]
    assert table.fp_off.tolist() == [0, -72, -72]


def test_s390x_version_2_keeps_registers_in_odd_words() -> None:
    table = rules([Fde(0, 32, [Fre(0, (0, 17 << 1 | 1, 16 << 1 | 1))])], 2, abi=make.S390X)
    side = table.side_rules[table.side[0]]
    assert (side["ra"]["kind"], side["ra"]["reg"], side["ra"]["deref"]) == (SideKind.REGISTER, 17, False)
    assert (side["fp"]["kind"], side["fp"]["reg"]) == (SideKind.REGISTER, 16)
    assert table.ra_rule[0] == RaRule.OTHER


def test_flexible_rows_fill_the_columns_where_they_can() -> None:
    """The window row of a shadow-call-stack function: RA in x30, FP in memory."""
    rows = [Fre(0, (0xF9, 48, 2, -40, 2, -48)), Fre(4, (0xF9, 48, 0, 2, -48)), Fre(8, (0xF9, 0)), Fre(12, ())]
    table = rules([Fde(0, 16, rows, flex=True)])
    assert table.side.tolist() == [-1] * 4
    assert table.cfa_off.tolist() == [48, 48, 0, 0]
    assert table.ra_rule.tolist() == [RaRule.AT_CFA, RaRule.IN_LR, RaRule.IN_LR, RaRule.UNDEFINED]
    assert table.ra_off.tolist() == [-40, 0, 0, 0]
    assert table.fp_rule.tolist() == [FpRule.AT_CFA, FpRule.AT_CFA, FpRule.UNCHANGED, FpRule.NOT_STATED]
    assert table.fp_off.tolist() == [-48, -48, 0, 0]


def test_flexible_rows_go_to_the_side_table_where_they_must() -> None:
    rows = [Fre(0, (0x93, -8, 0x93, -8)), Fre(4, (0xF9, 0, 0x11, 0))]
    table = rules([Fde(0, 16, rows, flex=True)])
    first, second = table.side_rules[table.side]
    assert table.cfa_base.tolist() == [CfaBase.OTHER, CfaBase.SP]
    assert first["cfa"].item() == (SideKind.REGISTER, True, 18, -8, 0, 0)
    assert first["ra"].item() == (SideKind.REGISTER, True, 18, -8, 0, 0)
    assert second["ra"].item() == (SideKind.REGISTER, False, 2, 0, 0, 0)
    assert table.ra_rule.tolist() == [RaRule.OTHER] * 2


def test_flags_of_version_3() -> None:
    fdes = [
        Fde(0, 8, [], signal=True),
        Fde(8, 8, []),
        Fde(16, 64, [Fre(0), Fre(8, (16,))], mask=True, rep_size=16),
        Fde(80, 8, signal=True),
    ]
    flags = rules(fdes).functions.flags.tolist()
    expected = [FunctionFlag.SIGNAL, FunctionFlag.OUTERMOST, FunctionFlag.REPEATED, FunctionFlag.SIGNAL]
    assert flags == [int(flag) for flag in expected]


def test_tables_back_to_back_are_one_section() -> None:
    one = make.section([Fde(0x100, 8)], addr=0)
    pad = -len(one) % 8
    two = make.section([Fde(0x200, 8), Fde(0x300, 8)], addr=len(one) + pad)
    section = sframe.decode(one + bytes(pad) + two + bytes(4))
    assert [len(table.fdes) for table in section.tables] == [1, 2]
    assert section.to_rules().functions.start.tolist() == [0x100, 0x200, 0x300]


def test_relocations_say_where_functions_are() -> None:
    """Values of the fields and the PCREL flag do not count; R_AARCH64_NONE marks a discarded function."""
    data = make.section([Fde(0, 8, raw=77), Fde(0, 8, raw=0), Fde(0, 8)], flags=0)
    relocations = sframe.RelocationTable(
        offset=np.array([60, 28, 44], dtype=np.uint64),
        type=np.array([260, 260, 256], dtype=np.uint32),
        symbol_value=np.array([0x10, 0x20, 0], dtype=np.uint64),
        symbol_section=np.array([5, 1, 0], dtype=np.int32),
        addend=np.array([4, -8, 0], dtype=np.int64),
    )
    table = sframe.decode(data, relocations=relocations).to_rules()
    assert table.functions.section.tolist() == [1, -1, 5]
    assert table.functions.start[[0, 2]].tolist() == [0x18, 0x14]
    assert table.functions.row_count.tolist() == [1, 0, 1]
    assert table.reasons[table.functions.reason[1]] == "the function was discarded by the linker"


@pytest.mark.parametrize("width", [0, 1, 2])
@pytest.mark.parametrize("count", [1, 2, 255, 2047, 2048, 2049, 2304, 2305, 9001])
def test_long_functions_are_read_in_pieces(width: int, count: int) -> None:
    """Chains beyond the lockstep limit take another path; it must find the same rows."""
    step = 1 if width else 0
    long_rows = [Fre(i * step, (i % 100,) * (1 + i % 3)) for i in range(count)]
    short = [Fre(i, (i,)) for i in range(5)]
    data = make.section([Fde(0, 16, short), Fde(16, 65536, long_rows, kind=width), Fde(70000, 16, short)])
    fres = sframe.decode(data).tables[0].fres
    assert fres.start.tolist() == [0, 1, 2, 3, 4, *[row.start for row in long_rows], 0, 1, 2, 3, 4]
    words = [word for row in [*short, *long_rows, *short] for word in row.words]
    assert fres.words.tolist() == words


def test_descriptors_may_share_rows_within_the_bounds_of_the_bytes() -> None:
    rows = [Fre(0, (0,)), Fre(4, (0x1000,), size=4)]
    shared = [Fde(0, 8, rows), Fde(8, 8, [], fre_off=0, num_fres=2)]
    data = make.section(shared, 2)
    assert sframe.decode(data).to_rules().start.tolist() == [0, 4, 8, 12]
    crowd = [Fde(0, 8, rows)] + [Fde(8 * i, 8, [], fre_off=0, num_fres=2) for i in range(1, 9)]
    with pytest.raises(InputError, match="more than 9 bytes can hold"):
        sframe.decode(make.section(crowd, 2))


HUGE = 2**32 - 1


@pytest.mark.parametrize(
    ("data", "error", "offset"),
    [
        (b"", Truncated, 0),
        (b"\xe2\xde\x03\x05" + bytes(23), Truncated, 0),
        (bytes(28), Unsupported, 0),
        (make.section([], version=3, magic=0x1234), Unsupported, 0),
        (b"\xe2\xde\x04\x05\x02" + bytes(23), UnknownVersion, 2),
        (make.section([], abi=9), Unsupported, 4),
        (make.section([], num_fdes=HUGE), Truncated, 28),
        (make.section([], fre_len=HUGE), Truncated, 28),
        (make.section([], num_fres=HUGE), InputError, 12),
        (make.section([Fde(0, 8, num_fres=0xFFFF)]), Truncated, 28),
        (make.section([Fde(0, 8, num_fres=HUGE)], 2), Truncated, 28),
        (make.section([Fde(0, 8, fre_off=HUGE)]), Truncated, 28),
        (make.section([Fde(0, 8, kind=3)]), InputError, 28),
        (make.section([Fde(0, 8, [Fre(0, info=0x62)])]), InputError, 49),
        (make.section([Fde(0, 8, [Fre(0, info=0x1F)])]), Truncated, 28),
        (make.section([], flags=0x45), InputError, 3),
        (make.section([], flags=make.FRAME_POINTER), InputError, 3),
        (make.section([], big=True), InputError, 4),
        (make.section([], aux_len=4), Truncated, 28),
        (make.section([], tail=b"\0\0\1"), InputError, 30),
        (make.section([Fde(0, 8)], freoff=8), InputError, 36),
    ],
)
def test_damage_is_an_error_with_its_offset(data: bytes, error: type[InputError], offset: int) -> None:
    with pytest.raises(error) as caught:
        sframe.decode(data)
    assert caught.value.offset == offset


@pytest.mark.parametrize(
    ("fde", "reason"),
    [
        (Fde(-4, 8), "beyond the address space"),
        (Fde(0, 8, [Fre(0), Fre(0)]), "ascending"),
        (Fde(0, 8, [Fre(4), Fre(0)]), "ascending"),
        (Fde(0, 8, [Fre(9)]), "outside the function"),
        (Fde(0, 64, [Fre(16)], mask=True, rep_size=16), "repeated block"),
        (Fde(0, 64, mask=True), "repeated block"),
        (Fde(0, 8, [Fre(0, (0, 1, 2, 3))]), "number of words"),
        (Fde(0, 8, [Fre(0, (0xF9,))], flex=True), "break off"),
        (Fde(0, 8, [Fre(0, (0xF9, 0, 2))], flex=True), "break off"),
        (Fde(0, 8, [Fre(0, (0xF9, 0, 0, 0, 0))], flex=True), "left over"),
        (Fde(0, 8, [Fre(0, (0, 8))], flex=True), "not based on a register"),
        (Fde(0, 8, [Fre(0, (16, 0, -16))]), "CFA+0"),
        (Fde(0, 8, info2=2), "type does not exist"),
    ],
)
def test_functions_that_cannot_be_believed_are_refused_by_name(fde: Fde, reason: str) -> None:
    table = rules([fde, Fde(0x100, 8)])
    assert table.functions.flags[0] & FunctionFlag.REFUSED
    assert table.functions.row_count.tolist() == [0, 1]
    assert reason in table.reasons[table.functions.reason[0]]
