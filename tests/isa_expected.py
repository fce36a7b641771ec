"""The frame effects that the text of an instruction says: SP, x29, x30 and the memory written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from isa_capstone import Address, Insn, number, register
from surefoot.isa.effects import FP, LR, NO_REG, SP, FpEffect, LrEffect, SpEffect, Store

LETTERS: Final = {"b": 1, "h": 2, "s": 4, "w": 4, "d": 8, "x": 8, "q": 16}
_OPS: Final = r"(add|clr|eor|set|smax|smin|umax|umin)(a|l|al)?"
_PLAIN: Final = r"st(u|t|l|ll|lu)?r"
_LOADS: Final = r"ld(u|a|la|x|ax|ap|apu)?r|ldn?p|ldxp|ldaxp"
_TAGS: Final = {"stg": 16, "stzg": 16, "st2g": 32, "stz2g": 32}
_PAUTH: Final = {
    "paciasp": (LrEffect.SIGN, SP),
    "pacibsp": (LrEffect.SIGN, SP),
    "paciaz": (LrEffect.SIGN, NO_REG),
    "pacibz": (LrEffect.SIGN, NO_REG),
    "autiasp": (LrEffect.AUTH, SP),
    "autibsp": (LrEffect.AUTH, SP),
    "autiaz": (LrEffect.AUTH, NO_REG),
    "autibz": (LrEffect.AUTH, NO_REG),
    "xpaclri": (LrEffect.STRIP, NO_REG),
}


@dataclass(frozen=True)
class Frame:
    """Effects as in the columns of `Effects`."""

    sp: tuple[int, int]
    fp: tuple[int, int, int]
    lr: tuple[int, int, int]


def _number(operand: str) -> int:
    return register(operand).bit_length() - 1


def _sum(insn: Insn) -> tuple[str, str, int] | None:
    """Give destination, source and amount of an addition of a constant, moves from and to SP included."""
    ops = insn.operands
    if insn.name in {"add", "sub"} and len(ops) >= 3 and ops[2].startswith("#") and ops[0][0] != "w":
        shift = int(ops[3].partition("#")[2]) if len(ops) > 3 else 0
        amount = number(ops[2]) << shift
        return ops[0], ops[1], amount if insn.name == "add" else -amount
    if insn.name == "mov" and "sp" in ops:
        return ops[0], ops[1], 0
    return None


def _written_back(insn: Insn, register_name: str) -> int | None:
    """Give the constant that an address adds to its base register, None where there is none."""
    address = Address.of(insn)
    if not address or address.base != register_name or insn.name.startswith(("cpy", "set")):
        return None
    if address.pre:
        return address.offset
    return address.post if isinstance(address.post, int) else None


def _loaded(insn: Insn, name: str) -> tuple[int, int] | None:
    """Give base and offset of the 8 bytes that a 64-bit load puts into a register."""
    address = Address.of(insn)
    if not re.fullmatch(_LOADS, insn.name) or not address or address.offset is None:
        return None
    targets = [op for op in insn.operands if not op.startswith(("[", "#"))]
    back = address.pre or address.post is not None
    if targets.count(name) != 1 or (back and address.base in targets) or len(set(targets)) < len(targets):
        return None
    offset = 0 if address.post is not None else address.offset
    return _number(address.base), offset + 8 * targets.index(name)


def _moved(insn: Insn, name: str) -> int | None:
    """Give the register that is copied whole into another, None where it is none."""
    if insn.operands[:1] != (name,) or len(insn.operands) < 2:
        return None
    plain = insn.name == "mov" or (insn.name == "add" and insn.operands[2:] == ("#0",))
    plain = plain or (insn.name == "sub" and insn.operands[2:] == ("#0",))
    bit = register(insn.operands[1])
    return _number(insn.operands[1]) if plain and bit and insn.operands[1][0] == "x" else None


def stack_pointer(insn: Insn) -> tuple[int, int]:
    """Give `sp` and `sp_imm`."""
    if not insn.writes >> SP & 1:
        return SpEffect.KEEP, 0
    total = _sum(insn)
    if total and total[0] == "sp":
        kinds = {"sp": SpEffect.ADD, "x29": SpEffect.FROM_FP}
        return (kinds[total[1]], total[2]) if total[1] in kinds else (SpEffect.OTHER, 0)
    amount = _written_back(insn, "sp")
    return (SpEffect.OTHER, 0) if amount is None else (SpEffect.ADD, amount)


def frame_pointer(insn: Insn) -> tuple[int, int, int]:
    """Give `fp`, `fp_reg` and `fp_imm`."""
    if not insn.writes >> FP & 1:
        return FpEffect.KEEP, NO_REG, 0
    total = _sum(insn)
    if total and total[0] == "x29" and total[1] in {"sp", "x29"}:
        return (FpEffect.FROM_SP if total[1] == "sp" else FpEffect.ADD), NO_REG, total[2]
    source = _moved(insn, "x29")
    if source is not None:
        return (FpEffect.ADD, NO_REG, 0) if source == FP else (FpEffect.FROM_REG, source, 0)
    amount = _written_back(insn, "x29")
    transferred = any(register(op) == 1 << FP for op in insn.operands)
    if amount is not None and not transferred:
        return FpEffect.ADD, NO_REG, amount
    slot = _loaded(insn, "x29")
    return (FpEffect.LOAD, *slot) if slot and amount is None else (FpEffect.OTHER, NO_REG, 0)


def link_register(insn: Insn) -> tuple[int, int, int]:
    """Give `lr`, `lr_reg` and `lr_imm`."""
    if insn.name in _PAUTH:
        return (*_PAUTH[insn.name], 0)
    if not insn.writes >> LR & 1:
        return LrEffect.KEEP, NO_REG, 0
    if insn.name.startswith("bl"):
        return LrEffect.CALL, NO_REG, 0
    match = re.fullmatch(r"(pac|aut)i(z?)[ab]", insn.name)
    if match:
        kind = LrEffect.SIGN if match[1] == "pac" else LrEffect.AUTH
        return kind, NO_REG if match[2] else _number(insn.operands[1]), 0
    if insn.name in {"xpaci", "xpacd"}:
        return LrEffect.STRIP, NO_REG, 0
    source = _moved(insn, "x30")
    if source is not None:
        return LrEffect.FROM_REG, source, 0
    slot = _loaded(insn, "x30")
    return (LrEffect.LOAD, *slot) if slot else (LrEffect.OTHER, NO_REG, 0)


def _vectors(insn: Insn) -> int | None:
    """Give the bytes of a store of one to four SIMD structures."""
    registers = insn.operands[0].split("}")[0].strip("{ ").split(",")
    shape = registers[0].strip().split(".")[1]
    digits = re.match(r"\d*", shape)
    lanes = int(digits[0]) if digits and digits[0] else 1
    return len(registers) * lanes * LETTERS[shape[-1]]


def _zeroes(insn: Insn) -> bool:
    """Tell whether this is DC ZVA, GVA or GZVA, or an unallocated neighbour that the tables treat alike."""
    if insn.name == "dc":
        return insn.operands[0].lower() in {"zva", "gva", "gzva"}
    return insn.name == "sys" and insn.operands[:3] == ("#3", "c7", "c4")


def stored_bytes(insn: Insn) -> int | None:
    """Give how many bytes an instruction stores: -1 if it depends on more than the word, None if it stores none."""
    name, ops = insn.name, insn.operands
    if _zeroes(insn):
        return -1
    if name in _TAGS:
        return _TAGS[name]
    if name.startswith(("cpy", "setp", "setm", "sete", "setg")) or name in {"stgm", "stzgm"}:
        return -1
    if name in {"st64b", "st64bv", "st64bv0"}:
        return 64
    if re.fullmatch(r"st[1-4]", name):
        return _vectors(insn)
    scalable = ops and re.match(r"\{?\s*(z|p|za)\d*[.h\[v, ]|\{?\s*(z|p)\d+|za", ops[0])
    if name.startswith("st") and scalable:
        return -1
    match = re.fullmatch(
        rf"(stl?x[rp]|stn?p|stgp|{_PLAIN}|casp(a|l|al)?|(cas|swp)(a|l|al)?|(st|ld){_OPS})([bh]?)", name
    )
    if not match:
        return None
    if name == "stgp":
        return 16
    suffix = match.groups()[-1]
    data = ops[1] if name.startswith(("stx", "stlx")) else ops[0]
    pair = name.startswith(("stp", "stnp", "casp", "stxp", "stlxp"))
    return LETTERS[suffix or data[0]] * (2 if pair else 1)


def store(insn: Insn) -> tuple[int, int, int, int, bool, int, int]:
    """Give `store`, `store_base`, `store_off`, `store_size`, `store_unknown`, `fp_at` and `lr_at`."""
    size = stored_bytes(insn)
    if size is None:
        return Store.NONE, NO_REG, 0, 0, False, -1, -1
    if _zeroes(insn):
        target = insn.operands[-1] if register(insn.operands[-1]) else "sp"
        return _zero_block(insn, target)
    address = Address.of(insn)
    assert address is not None, insn
    indexed = any(re.match(r"[xw]29\b", part) for part in address.rest)
    if indexed and address.base != "sp":
        return _through(FP, 0, 0, unknown=True)
    if address.base[0] == "z":
        return Store.ELSEWHERE, NO_REG, 0, 0, True, -1, -1
    number = _number(address.base.rstrip("!"))
    if size < 0 or address.offset is None:
        return _through(number, 0, 0, unknown=True)
    offset = 0 if address.post is not None else address.offset
    places = [-1, -1]
    back = address.pre or address.post is not None
    data = [op for op in insn.operands if not op.startswith(("[", "#"))]
    exact = re.fullmatch(r"st(u|l|ll|lu)?r|stn?p|stgp", insn.name)
    if exact and not (back and address.base in data):
        for k, name in enumerate(("x29", "x30")):
            places[k] = 8 * data.index(name) if name in data else -1
    return (*_through(number, offset, size, unknown=False)[:5], places[0], places[1])


def _zero_block(insn: Insn, target: str) -> tuple[int, int, int, int, bool, int, int]:
    """The block around an address; the zero register as address counts as register 31."""
    del insn
    return _through(_number(target), 0, 0, unknown=True)


def _through(base: int, offset: int, size: int, *, unknown: bool) -> tuple[int, int, int, int, bool, int, int]:
    kinds = {SP: Store.SP, FP: Store.FP}
    return kinds.get(base, Store.ELSEWHERE), base, offset, size, unknown, -1, -1
