"""Layer 2: what CIEs and FDEs say ahead of their programs.

CIEs are few and repeat themselves (a compiler writes the same one per object file), so equal ones are read once, one
after the other; FDEs are many and read all at once, encoding by encoding.

Invariant: a CIE that cannot be read exactly carries a reason, and with it all its functions; a header that does not
fit its record is an error.

Source: DWARF 5, section 6.4.1; Linux Standard Base Core 5.0, section 10.6; for augmentation letters B and G
AADWARF64, section 5.1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from surefoot.dtypes import Addr, Code, Mask, Off, Row
from surefoot.errors import Inconsistent, Truncated
from surefoot.metadata.cfi.opcodes import RA
from surefoot.metadata.cfi.pointers import ABSOLUTE, OMIT, Bases, read_pointers, refuse_encoding, width_of
from surefoot.metadata.cfi.reasons import Refusals
from surefoot.metadata.cfi.records import Records
from surefoot.metadata.cfi.section import LEB_MAX, Section
from surefoot.metadata.rules import FunctionFlag

__all__ = ["Cie", "Fdes", "Options", "read_cies", "read_fdes"]

_VERSIONS: Final = (1, 3, 4)
_CODE_FACTOR_MAX: Final = 2**31
_DATA_FACTOR_MAX: Final = 2**31
_ALIGNED: Final = 0x50
_SIZE_MAX: Final = np.uint64(2**32)


@dataclass(frozen=True, slots=True)
class Options:
    """What the caller knows and the section does not say.

    Attributes:
        eh: .eh_frame instead of .debug_frame.
        address_size: bytes of an address where the CIE does not say (before version 4).
        bases: what relative pointers count from.
        relocated: the section belongs to a relocatable object.
    """

    eh: bool
    address_size: int = 8
    bases: Bases = field(default_factory=Bases)
    relocated: bool = False


@dataclass(slots=True)
class Cie:
    """One common information entry.

    Attributes:
        first: offset of its program.
        end: offset behind it.
        code_factor: bytes per unit of a location advance.
        data_factor: bytes per unit of a factored offset.
        address_size: bytes of an address.
        encoding: DW_EH_PE_* of its FDEs' addresses.
        augmented: its FDEs carry augmentation data.
        flags: bits of FunctionFlag for its functions.
        blind: why its FDEs' addresses cannot be read, or empty.
        reason: why its functions' rows cannot be decoded (with `blind` the same), or empty.
    """

    first: int
    end: int
    code_factor: int = 1
    data_factor: int = 1
    address_size: int = 8
    encoding: int = ABSOLUTE
    augmented: bool = False
    flags: int = 0
    blind: str = ""
    reason: str = ""


class _Cursor:
    """Reads one CIE forwards."""

    def __init__(self, section: Section, pos: int, end: int, start: int) -> None:
        self.section, self.pos, self.end, self.start = section, pos, end, start

    def byte(self) -> int:
        """Give the next byte."""
        if self.pos >= self.end:
            self.section.fail(Truncated, "a CIE ends inside its header", self.start)
        self.pos += 1
        return int(self.section.data[self.pos - 1])

    def leb(self, *, signed: bool = False) -> int:
        """Give the next LEB128 number of up to LEB_MAX bytes; for longer ones something that is far too large."""
        value = shift = 0
        for _ in range(LEB_MAX):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value - (1 << shift) if signed and byte & 0x40 else value
        return 1 << 70

    def text(self) -> str:
        """Give the NUL-terminated string that follows."""
        chars = bytearray()
        while byte := self.byte():
            chars.append(byte)
        return chars.decode("latin-1")


def read_cies(section: Section, cies: Records, options: Options) -> tuple[list[Cie], Row]:
    """Read all CIEs, equal ones once.

    Args:
        section: the bytes.
        cies: their records.
        options: what the section does not say.

    Returns:
        the different CIEs, and (cies,) int64, which of them each record is.

    Raises:
        Truncated: a CIE's header does not fit its record.
    """
    seen: dict[bytes, int] = {}
    found: list[Cie] = []
    which: list[int] = []
    spans = zip(cies.start.tolist(), cies.body.tolist(), cies.end.tolist(), strict=True)
    for start, body, end in spans:
        text = section.data[body:end].tobytes()
        if text not in seen:
            seen[text] = len(found)
            found.append(_read_cie(_Cursor(section, body, end, start), options))
        which.append(seen[text])
    return found, np.array(which, dtype=np.int64)


def _read_cie(cursor: _Cursor, options: Options) -> Cie:
    """Read one CIE up to its program."""
    cie = Cie(cursor.end, cursor.end, address_size=options.address_size)
    version = cursor.byte()
    if version not in _VERSIONS:
        cie.blind = f"CIE version {version} is not known"
        return cie
    augmentation = cursor.text()
    if augmentation == "eh":
        cie.blind = "augmentation 'eh' (GCC 2) is not supported"
        return cie
    if version == 4:
        cie.address_size, segment = cursor.byte(), cursor.byte()
        if cie.address_size not in {4, 8} or segment:
            cie.blind = f"address size {cie.address_size} with segment selector size {segment} is not supported"
            return cie
    cie.code_factor, cie.data_factor = cursor.leb(), cursor.leb(signed=True)
    register = cursor.byte() if version == 1 else cursor.leb()
    if register != RA:
        cie.reason = f"return address column {register} is not x30"
    if cie.code_factor >= _CODE_FACTOR_MAX:
        cie.reason = "code alignment factor of 2 GiB or more"
    if abs(cie.data_factor) >= _DATA_FACTOR_MAX:
        cie.reason = "data alignment factor of 2 GiB or more"
    _read_augmentation(cursor, augmentation, cie, options)
    cie.first = cursor.pos
    return cie


def _read_augmentation(cursor: _Cursor, letters: str, cie: Cie, options: Options) -> None:
    """Read what the augmentation string announces; leaves the cursor at the program."""
    after = -1
    if letters.startswith("z"):
        cie.augmented = True
        after = cursor.leb() + cursor.pos
        if after > cursor.end:
            cursor.section.fail(Truncated, "a CIE's augmentation data does not fit its record", cursor.start)
    for letter in letters[cie.augmented :]:
        if letter == "S":
            cie.flags |= FunctionFlag.SIGNAL
        elif letter == "B":
            cie.flags |= FunctionFlag.KEY_B
        elif letter in "RLP" and cie.augmented:
            _read_encoding(cursor, letter, cie, options)
        elif letter != "G":  # G: the frame's memory is tagged, which changes no rule
            cie.blind = f"augmentation {letters[:8]!r} is not known"
        if cie.blind:
            return
    if cie.augmented:
        if cursor.pos > after:
            cursor.section.fail(
                Inconsistent, "a CIE's augmentation data is shorter than its string says", cursor.start
            )
        cursor.pos = after


def _read_encoding(cursor: _Cursor, letter: str, cie: Cie, options: Options) -> None:
    """Read an encoding; a personality routine's pointer behind it is passed over."""
    encoding = cursor.byte()
    if letter == "R":
        cie.encoding = encoding
        cie.blind = refuse_encoding(encoding, options.bases)
    elif letter == "P" and encoding != OMIT:
        width = width_of(encoding, cie.address_size)
        if not width or encoding & 0x70 == _ALIGNED:
            cie.blind = f"personality routine with pointer encoding {encoding:#04x}"
            return
        for _ in range(width):
            cursor.byte()


@dataclass(frozen=True, slots=True)
class Fdes:
    """FDE headers; arrays have one entry per FDE, in the order of the section.

    Attributes:
        offset: (f,) int64, offset of the record.
        cie: (f,) int64, which of the different CIEs.
        start: (f,) uint64, first address; 0 where it cannot be read.
        size: (f,) uint64, bytes; 0 where it cannot be read.
        place: (f,) int64, offset of the first address's field (where a relocation patches it).
        first: (f,) int64, offset of the program.
        end: (f,) int64, offset behind it.
        flags: (f,) uint8, bits of FunctionFlag.
    """

    offset: Off
    cie: Row
    start: Addr
    size: Addr
    place: Off
    first: Off
    end: Off
    flags: Code

    def __len__(self) -> int:
        return int(self.offset.size)


def read_fdes(
    section: Section, records: Records, cies: list[Cie], which: Row, refused: Refusals, options: Options
) -> Fdes:
    """Read all FDE headers.

    Args:
        section: the bytes.
        records: all records.
        cies: the different CIEs.
        which: (CIE records,) int64, from `read_cies`.
        refused: takes the functions that cannot be decoded at all, by number of the FDE.
        options: what the section does not say.

    Raises:
        Inconsistent: an FDE names a CIE that is not in the chain of records.
        Truncated: an FDE's header does not fit its record.
    """
    fdes = records.take(np.flatnonzero(~records.is_cie))
    places = records.start[records.is_cie]
    at = np.searchsorted(places, fdes.cie)
    known = at < places.size
    known[known] = places[at[known]] == fdes.cie[known]
    for bad in np.flatnonzero(~known)[:1].tolist():
        message = f"an FDE names offset {int(fdes.cie[bad]):#x}, where there is no CIE"
        section.fail(Inconsistent, message, int(fdes.start[bad]))
    cie = which[at]
    count = fdes.start.size
    start, size = np.zeros(count, dtype=np.uint64), np.zeros(count, dtype=np.uint64)
    first = fdes.end.copy()
    refused.add_whole([item.blind or item.reason for item in cies], cie)
    shapes = [None if item.blind else (item.encoding, item.address_size, item.augmented) for item in cies]
    numbers = {shape: number for number, shape in enumerate(dict.fromkeys(shapes))}
    shape_of = np.array([numbers[shape] for shape in shapes], dtype=np.int64)[cie]
    for shape, number in numbers.items():  # few: they differ in encodings only
        if shape is not None:
            mine = np.flatnonzero(shape_of == number)
            shaped = Cie(0, 0, encoding=shape[0], address_size=shape[1], augmented=shape[2])
            start[mine], size[mine], first[mine] = _addresses(section, fdes, mine, shaped, refused, options)
    _check_fit(section, fdes, first)
    flags = np.array([item.flags for item in cies] or [0], dtype=np.uint8)[cie]
    return Fdes(fdes.start, cie, start, size, fdes.body, first, fdes.end, flags)


def _addresses(
    section: Section, fdes: Records, mine: Row, shape: Cie, refused: Refusals, options: Options
) -> tuple[Addr, Addr, Off]:
    """Read address, size and the place of the program of the FDEs `mine`, which are of one shape."""
    body = fdes.body[mine]
    start, used, exact, _ = read_pointers(section, body, shape.encoding, shape.address_size, options.bases)
    size_at = body + used
    form = shape.encoding & 0x0F
    size, used, exact_size, negative = read_pointers(section, size_at, form, shape.address_size, Bases())
    first = size_at + used
    if shape.augmented:
        extra = section.leb(first, signed=False)
        exact &= extra.ok
        first = first + extra.length + np.minimum(extra.value, section.size)
    whole = np.full(mine.size, -1)
    limit = np.uint64(2**32 - 1) if shape.address_size == 4 else np.uint64(2**64 - 1)
    _refuse(refused, mine, whole, ~(exact & exact_size), f"an address or length has more than {LEB_MAX} bytes")
    _refuse(refused, mine, whole, negative, "the function's size is negative")
    _refuse(
        refused, mine, whole, (size > limit - start) & ~negative, "the function does not end in the address space"
    )
    _refuse(refused, mine, whole, size >= _SIZE_MAX, "the function has 4 GiB or more")
    return start, size, first


def _refuse(refused: Refusals, lanes: Row, place: Off, wrong: Mask, sentence: str) -> None:
    """Refuse the programs where `wrong` holds."""
    if wrong.any():
        refused.add(lanes[wrong], place[wrong], sentence)


def _check_fit(section: Section, fdes: Records, first: Off) -> None:
    """Demand that every header ends in its record."""
    for bad in np.flatnonzero(first > fdes.end)[:1].tolist():
        section.fail(Truncated, "an FDE's header does not fit its record", int(fdes.start[bad]))
