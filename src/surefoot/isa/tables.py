"""Layer 1: the tables of all encodings, as one decoder and one array for each property of a form.

Invariant: arrays are indexed by the form number that the decoder gives; entry 0 is the form that may do anything.
Everything is built once, on first use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from surefoot.isa.encodings_base import BRANCHES, IMMEDIATE, REGISTER, SYSTEM
from surefoot.isa.encodings_memory import memory_tables
from surefoot.isa.encodings_simd import SIMD
from surefoot.isa.encodings_sme import SME
from surefoot.isa.encodings_sve import SVE_LOW
from surefoot.isa.encodings_sve2 import SVE_HIGH
from surefoot.isa.encodings_sve_memory import SME_MEMORY, SVE_MEMORY
from surefoot.isa.forms import Decoder, Form, parse

__all__ = ["Access", "Exact", "Offset", "Properties", "decoder", "properties"]

_FLOWS: Final = ("next", "jump", "cond", "call", "callreg", "jumpreg", "ret", "eret", "exc", "undef")
"""Notes on the flow of control, in the order of `effects.Flow`."""


class Access(IntEnum):
    """How an instruction uses the register that a field names."""

    NONE = 0
    ZR = 1
    """The register; 31 is the zero register."""
    SP = 2
    """The register; 31 is SP."""
    PAIR = 3
    """The register and the next one."""
    EIGHT = 4
    """The register and the seven after it."""


class Offset(IntEnum):
    """Where the offset of an address is."""

    NONE = 0
    U12 = 1
    S9 = 2
    S7 = 3
    S10 = 4
    FIXED = 5
    UNKNOWN = 6


class Exact(IntEnum):
    """Forms whose effect on x29, x30 or SP is more than "written"."""

    NONE = 0
    ADD = 1
    MOV = 2
    SIGN = 3
    AUTH = 4
    SIGN_PC = 5
    AUTH_PC = 6
    STRIP = 7
    CALL = 8


@dataclass(frozen=True)
class Properties:
    """What each of f forms does; every array has shape (f,).

    Attributes:
        flow: uint8, `effects.Flow`.
        target_x30: bool, the target of a branch is x30, else bits 9:5.
        write: four uint8 arrays of Access, for the fields at bits 0, 5, 10 and 16.
        read: likewise.
        write_fixed: uint32 mask of registers written whatever the fields say.
        read_fixed: uint32, likewise.
        exact: uint8, Exact.
        modifier: uint8, 0 for zero, 1 for SP, 2 for bits 9:5 (SIGN and AUTH).
        key: uint8, `effects.PauthKey`.
        bti: bool.
        load: uint8, registers loaded whole: 0, 1 (bits 4:0), 2 (also 14:10), 3 (also 20:16).
        keep: uint8, registers stored whole, likewise.
        store: bool, writes memory.
        base: uint8, lowest bit of the field with the base register; 255 if the address is in vectors.
        offset: uint8, Offset.
        unit: uint8 bytes, scale of the offset.
        by: int8 bytes, for Offset.FIXED.
        size: uint8 bytes stored; 0 if unknown.
        write_back: uint8, 0 none, 1 pre-indexed, 2 post-indexed, 3 post-indexed by a register.
    """

    flow: NDArray[np.uint8]
    target_x30: NDArray[np.bool_]
    write: tuple[NDArray[np.uint8], ...]
    read: tuple[NDArray[np.uint8], ...]
    write_fixed: NDArray[np.uint32]
    read_fixed: NDArray[np.uint32]
    exact: NDArray[np.uint8]
    modifier: NDArray[np.uint8]
    key: NDArray[np.uint8]
    bti: NDArray[np.bool_]
    load: NDArray[np.uint8]
    keep: NDArray[np.uint8]
    store: NDArray[np.bool_]
    base: NDArray[np.uint8]
    offset: NDArray[np.uint8]
    unit: NDArray[np.uint8]
    by: NDArray[np.int8]
    size: NDArray[np.uint8]
    write_back: NDArray[np.uint8]


_WRITES: Final = (
    {"wd": Access.ZR, "wD": Access.SP, "wdd": Access.PAIR, "wd8": Access.EIGHT},
    {"wn": Access.SP, "wz": Access.ZR},
    {"wa": Access.ZR},
    {"ws": Access.ZR, "wss": Access.PAIR},
)
_READS: Final = (
    {"rd": Access.ZR, "rD": Access.SP, "rdd": Access.PAIR, "rd8": Access.EIGHT},
    {"rn": Access.ZR, "rN": Access.SP},
    {"ra": Access.ZR},
    {"rm": Access.ZR, "rM": Access.SP, "rmm": Access.PAIR},
)
_FIXED: Final = {
    "15": 1 << 15,
    "16": 1 << 16,
    "17": 1 << 17,
    "30": 1 << 30,
    "sp": 1 << 31,
    "8-15": 0xFF00,
    "0-17": 0x3_FFFF,
}
_OFFSETS: Final = {"u12": Offset.U12, "s9": Offset.S9, "s7": Offset.S7, "s10": Offset.S10, "reg": Offset.UNKNOWN}
_WHOLE: Final = {"x1": 1, "x2": 2, "x2m": 3}
_OTHER: Final = frozenset(
    {"addi", "mov", "sign", "auth", "strip", "pc", "ka", "kb", "zero", "bti", "ld", "st", "pre", "post", "byreg"}
    | {"any", "atd", "vec", "unknown"}
)
_KNOWN: Final = (
    _OTHER
    | frozenset(_FLOWS)
    | frozenset(_OFFSETS)
    | frozenset(_WHOLE)
    | frozenset(name for fields in (_WRITES, _READS) for field in fields for name in field)
    | frozenset(f"{kind}{name}" for kind in "wr" for name in _FIXED)
)


def _pick(form: Form, choices: Mapping[str, int], default: int = 0) -> int:
    """Give the value of the one choice that a form notes."""
    found = [int(value) for name, value in choices.items() if name in form.notes]
    if len(found) > 1:
        raise ValueError(f"contradictory notes: {sorted(form.notes)}")
    return found[0] if found else default


def _exact(form: Form) -> Exact:
    notes = form.notes
    if "sign" in notes:
        return Exact.SIGN_PC if "pc" in notes else Exact.SIGN
    if "auth" in notes:
        return Exact.AUTH_PC if "pc" in notes else Exact.AUTH
    simple = {"addi": Exact.ADD, "mov": Exact.MOV, "strip": Exact.STRIP, "call": Exact.CALL, "callreg": Exact.CALL}
    return Exact(_pick(form, simple))


def _modifier(form: Form) -> int:
    if "zero" in form.notes:
        return 0
    return 1 if "rsp" in form.notes else 2


def _offset(form: Form) -> Offset:
    if "any" in form.notes or "vec" in form.notes:
        return Offset.UNKNOWN
    if dict(form.numbers).get("by") is not None:
        return Offset.FIXED
    return Offset(_pick(form, _OFFSETS))


def _write_back(form: Form) -> int:
    if "byreg" in form.notes:
        return 3
    return _pick(form, {"pre": 1, "post": 2})


def _base(form: Form) -> int:
    if "vec" in form.notes:
        return 255
    return 0 if "atd" in form.notes else 5


@cache
def _forms() -> tuple[Form, ...]:
    scalar = (BRANCHES, SYSTEM, IMMEDIATE, REGISTER, *memory_tables())
    found = parse(*scalar, SIMD, SVE_LOW, SVE_HIGH, SVE_MEMORY, SME, SME_MEMORY)
    for form in found:
        if unknown := form.notes - _KNOWN:
            raise ValueError(f"unknown notes {sorted(unknown)}")
    return tuple(found)


@cache
def decoder() -> Decoder:
    """Give the decoder over all tables."""
    return Decoder(list(_forms()))


def _fixed(forms: list[Form], kind: str) -> NDArray[np.uint32]:
    """Give the mask of registers that the notes name by number."""
    masks = [sum(mask for name, mask in _FIXED.items() if f"{kind}{name}" in form.notes) for form in forms]
    return np.array(masks, dtype=np.uint32)


@cache
def properties() -> Properties:
    """Give the properties of every form of `decoder()`."""
    forms = decoder().forms

    def column(values: list[int], kind: type[np.generic] = np.uint8) -> NDArray[np.uint8]:
        return np.array(values, dtype=kind)

    flow = {name: number for number, name in enumerate(_FLOWS)} | {"unknown": _FLOWS.index("undef")}
    whole = [_pick(form, _WHOLE) for form in forms]
    return Properties(
        flow=column([_pick(form, flow) for form in forms]),
        target_x30=np.array(["r30" in form.notes for form in forms]),
        write=tuple(column([_pick(form, field) for form in forms]) for field in _WRITES),
        read=tuple(column([_pick(form, field) for form in forms]) for field in _READS),
        write_fixed=_fixed(forms, "w"),
        read_fixed=_fixed(forms, "r"),
        exact=column([int(_exact(form)) for form in forms]),
        modifier=column([_modifier(form) for form in forms]),
        key=column([_pick(form, {"ka": 1, "kb": 2}) for form in forms]),
        bti=np.array(["bti" in form.notes for form in forms]),
        load=column([w if "ld" in form.notes else 0 for w, form in zip(whole, forms, strict=True)]),
        keep=column([w if "st" in form.notes else 0 for w, form in zip(whole, forms, strict=True)]),
        store=np.array(["st" in form.notes for form in forms]),
        base=column([_base(form) for form in forms]),
        offset=column([int(_offset(form)) for form in forms]),
        unit=column([form.number("unit", 1) for form in forms]),
        by=np.array([form.number("by") for form in forms], dtype=np.int8),
        size=column([form.number("size") if "st" in form.notes else 0 for form in forms]),
        write_back=column([_write_back(form) for form in forms]),
    )
