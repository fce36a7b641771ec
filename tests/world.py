"""A synthetic arm64 kernel: real instruction words by label, unwind rules by hand, and what a walker needs of both.

Shares no code with surefoot's encoders, decoders or walker: only its data classes are filled in here. The programs
run on the scalar processor of `world_cpu`, which keeps the ground truth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np

from surefoot.metadata.rules import CfaBase, FpRule, FunctionIndex, RaRule, RuleTable
from surefoot.unwind.code import CodeMap, FunctionKind, Functions, TextWords

__all__ = [
    "ENTRY_RULE",
    "Function",
    "Op",
    "Program",
    "Rule",
    "call",
    "dynamic",
    "framed",
    "framed_low",
    "leaf",
    "lr_only",
    "maybe",
    "nops",
    "without_rules",
]

BASE: Final = 0xFFFF_8000_8001_0000
"""Where the first function lies."""


class Rule(NamedTuple):
    """The unwind rule before an instruction: CFA = base + off, and where the caller's x29 and the RA are from it."""

    base: str
    off: int
    fp: int | None = None
    ra: int | None = None


ENTRY_RULE: Final = Rule("sp", 0)


class Op(NamedTuple):
    """One instruction: what it does, its operand, and the rule before it (None: no metadata)."""

    name: str
    arg: Any = None
    rule: Rule | None = ENTRY_RULE

    def under(self, rule: Rule | None) -> Op:
        """Give the same instruction under another rule."""
        return self._replace(rule=rule)


FIXED_WORDS: Final = {
    "nop": 0xD503_201F,
    "hook": 0xD503_201F,
    "paciasp": 0xD503_233F,
    "autiasp": 0xD503_23BF,
    "bti": 0xD503_245F,
    "ret": 0xD65F_03C0,
    "eret": 0xD69F_03E0,
    "mov_x9_lr": 0xAA1E_03E9,
    "mov_lr_x0": 0xAA00_03FE,
    "mov_sp_fp": 0x9100_03BF,
    "mov_sp_x16": 0x9100_021F,
    "str_lr": 0xF81F_0FFE,
    "ldr_lr": 0xF841_07FE,
}


_PAIR: Final = 30 << 10 | 31 << 5 | 29
"""Registers of STP and LDP X29, X30, [SP]."""


def _pages(addr: int, target: int) -> int:
    pages = ((target >> 12) - (addr >> 12)) & 0x1F_FFFF
    return (pages & 3) << 29 | (pages >> 2) << 5


_BRANCHES: Final[dict[str, Callable[[int, int], int]]] = {
    "bl": lambda addr, target: 0x9400_0000 | (target - addr >> 2) & 0x3FF_FFFF,
    "b": lambda addr, target: 0x1400_0000 | (target - addr >> 2) & 0x3FF_FFFF,
    "b_cond": lambda addr, target: 0x5400_0000 | ((target - addr >> 2) & 0x7FFFF) << 5,
    "adrp": lambda addr, target: 0x9000_0010 | _pages(addr, target),
    "add_low": lambda _, target: 0x9100_0210 | (target & 0xFFF) << 10,
}
"""Instructions with a label: word from address and target."""

_IMMEDIATES: Final[dict[str, Callable[[int], int]]] = {
    "brk": lambda arg: 0xD420_0000 | arg << 5,
    "stp_pre": lambda arg: 0xA980_0000 | ((-arg // 8) & 0x7F) << 15 | _PAIR,
    "stp": lambda arg: 0xA900_0000 | (arg // 8) << 15 | _PAIR,
    "ldp_post": lambda arg: 0xA8C0_0000 | (arg // 8) << 15 | _PAIR,
    "ldp": lambda arg: 0xA940_0000 | (arg // 8) << 15 | _PAIR,
    "sub_sp": lambda arg: 0xD100_03FF | arg << 10,
    "add_sp": lambda arg: 0x9100_03FF | arg << 10,
    "add_fp": lambda arg: 0x9100_03FD | arg << 10,
}
"""Instructions with a number."""


def word_of(op: Op, addr: int, labels: dict[str, int]) -> int:
    """Encode one instruction (Arm ARM, C6.2)."""
    if op.name in FIXED_WORDS:
        return FIXED_WORDS[op.name]
    if op.name in _BRANCHES:
        return _BRANCHES[op.name](addr, labels[op.arg])
    if op.name in _IMMEDIATES:
        return _IMMEDIATES[op.name](op.arg)
    if op.name == "cbz":  # the operand is a number of instructions to skip, and when
        skip: int = op.arg[0]
        return 0xB400_0000 | (skip & 0x7FFFF) << 5
    return {"blr": 0xD63F_0000 | 1 << 5, "br": 0xD61F_0000 | 16 << 5}[op.name]


@dataclass
class Function:
    """A function to be placed; `notes` say what the scenarios may do with it."""

    name: str
    ops: list[Op]
    kind: FunctionKind = FunctionKind.FUNC
    sized: bool = True
    gap: int = 0
    """Words of padding behind it that belong to no function."""


def nops(count: int) -> list[Op]:
    """Straight-line code."""
    return [Op("nop")] * count


def call(target: str) -> list[Op]:
    """A direct call."""
    return [Op("bl", target)]


def maybe(target: str | Sequence[str]) -> list[Op]:
    """A call that the processor may skip: direct to a name, through a register to one of several."""
    what = Op("bl", target) if isinstance(target, str) else Op("blr", tuple(target))
    return [Op("cbz", (2, None)), what]


def framed(
    name: str,
    body: Sequence[Op],
    *,
    size: int = 32,
    site: bool = False,
    pac: bool = True,
    shrink: bool = False,
    tail: Op | None = None,
    noreturn: bool = False,
) -> Function:
    """An ordinary compiled function: `stp x29, x30, [sp, #-size]!; mov x29, sp; ...; ldp; ret`.

    Args:
        name: of the function.
        body: between prologue and epilogue.
        size: of the frame.
        site: with two patchable slots at the start.
        pac: with a signed return address.
        shrink: with an early return before the prologue.
        tail: a branch instead of the return.
        noreturn: the body ends with a call that does not return; nothing follows it.
    """
    saved = Rule("sp", size, -size, 8 - size)
    head = [Op("mov_x9_lr"), Op("nop")] if site else []
    ops = [*([Op("paciasp")] if pac else []), Op("stp_pre", size), Op("add_fp", 0, saved)]
    ops += [op.under(saved) for op in body]
    if noreturn:
        return Function(name, head + ops)
    ops += [Op("ldp_post", size, saved), *([Op("autiasp")] if pac else []), tail or Op("ret")]
    if shrink:
        ops = [Op("cbz", (len(ops) + 1, None)), *ops, Op("ret")]
    return Function(name, head + ops)


def framed_low(name: str, body: Sequence[Op], *, size: int = 64, at: int = 16) -> Function:
    """A compiled function with the record inside its frame: `sub sp; stp x29, x30, [sp, #at]; add x29, sp, #at`."""
    room, saved = Rule("sp", size), Rule("sp", size, at - size, at - size + 8)
    ops = [Op("sub_sp", size), Op("stp", at, room), Op("add_fp", at, saved), *(op.under(saved) for op in body)]
    return Function(name, [*ops, Op("ldp", at, saved), Op("add_sp", size, room), Op("ret")])


def dynamic(name: str, body: Sequence[Op], *, size: int = 32, extra: int = 64) -> Function:
    """A compiled function whose SP moves: its CFA is counted from x29."""
    saved, by_fp = Rule("sp", size, -size, 8 - size), Rule("fp", size, -size, 8 - size)
    ops = [Op("stp_pre", size), Op("add_fp", 0, saved), Op("sub_sp", extra, by_fp), *(op.under(by_fp) for op in body)]
    return Function(name, [*ops, Op("mov_sp_fp", None, by_fp), Op("ldp_post", size, by_fp), Op("ret")])


def leaf(name: str, count: int = 3, *, site: bool = False) -> Function:
    """A function without a frame."""
    return Function(name, [*([Op("mov_x9_lr"), Op("nop")] if site else []), *nops(count), Op("ret")])


def lr_only(name: str, body: Sequence[Op]) -> Function:
    """A function that saves x30 alone and keeps its caller's x29: no frame record."""
    saved = Rule("sp", 16, None, -16)
    ops = [Op("str_lr"), *(op.under(saved) for op in body), Op("ldr_lr", None, saved), Op("ret")]
    return Function(name, ops)


def without_rules(function: Function, *, kind: FunctionKind = FunctionKind.FUNC) -> Function:
    """Give the same function without metadata: assembly."""
    return Function(function.name, [op.under(None) for op in function.ops], kind, function.sized, function.gap)


@dataclass
class Program:
    """Functions at their addresses.

    Attributes:
        functions: in address order.
        labels: name -> address; also `name+index` is made by `at`.
        ops: address -> instruction.
        words: address -> word.
        extra_labels: further symbols, such as the bounds of the entry text.
        redirects: (old, new) names of live-patched functions.
        hooks: what the processor does at a "hook" instruction, by name.
    """

    functions: list[Function]
    extra_labels: dict[str, int] = field(default_factory=dict)
    redirects: list[tuple[str, str]] = field(default_factory=list)
    hooks: dict[str, Callable[..., None]] = field(default_factory=dict)
    labels: dict[str, int] = field(init=False)
    ops: dict[int, Op] = field(init=False)
    words: dict[int, int] = field(init=False)
    end: int = field(init=False)

    def __post_init__(self) -> None:
        self.labels, self.ops, self.words = {}, {}, {}
        addr = BASE
        for function in self.functions:
            addr = -(-addr // 8) * 8
            self.labels[function.name] = addr
            for index, op in enumerate(function.ops):
                self.ops[addr + 4 * index] = op
            addr += 4 * (len(function.ops) + function.gap)
        self.end = addr
        for at, op in self.ops.items():
            self.words[at] = word_of(op, at, self.labels)

    def at(self, name: str, index: int = 0) -> int:
        """Give the address of an instruction of a function."""
        return self.labels[name] + 4 * index

    def size_of(self, name: str) -> int:
        """Give the size of a function in bytes."""
        return 4 * len(next(f for f in self.functions if f.name == name).ops)

    def find(self, name: str, op: str, nth: int = 0) -> int:
        """Give the address of the nth instruction of a kind in a function."""
        start = self.labels[name]
        hits = [a for a in range(start, start + self.size_of(name), 4) if self.ops[a].name == op]
        return hits[nth]

    def function_at(self, addr: int) -> str | None:
        """Give the name of the function that holds an address."""
        for function in self.functions:
            start = self.labels[function.name]
            if start <= addr < start + 4 * len(function.ops):
                return function.name
        return None

    def code(self, *, live: bool = True, changed: Sequence[int] = (), **replaced: Any) -> CodeMap:
        """Give the walker's view of the program."""
        sized = [f for f in self.functions if f.sized]
        start = np.array([self.labels[f.name] for f in sized], dtype=np.uint64)
        end = start + np.array([4 * len(f.ops) for f in sized], dtype=np.uint64)
        kinds = np.array([f.kind for f in sized], dtype=np.uint8)
        functions = Functions(start, end, kinds, [f.name for f in sized])
        words = np.full((self.end - BASE) // 4, 0, dtype=np.uint32)
        for addr, word in self.words.items():
            words[(addr - BASE) // 4] = word
        pairs = [[self.labels[old], self.labels[new]] for old, new in self.redirects]
        fields: dict[str, Any] = {
            "functions": functions,
            "text": TextWords.from_ranges([(BASE, words)], live=live),
            "rules": self.rules().for_lookup(),
            "redirects": np.array(pairs, dtype=np.uint64).reshape(-1, 2),
            "changed": np.array(sorted(changed), dtype=np.uint64),
            "labels": {**self.labels, **self.extra_labels},
        }
        return CodeMap(**(fields | replaced))

    def rules(self) -> RuleTable:
        """Write the rule table down, a row per instruction; functions without rules have no descriptor."""
        rows: list[tuple[int, Rule, int]] = []
        index: list[tuple[int, int, int, int]] = []
        for function in self.functions:
            if any(op.rule is None for op in function.ops):
                continue
            start = self.labels[function.name]
            index.append((start, 4 * len(function.ops), len(rows), len(function.ops)))
            rows += [(start + 4 * i, op.rule, len(index) - 1) for i, op in enumerate(function.ops) if op.rule]
        return make_rules(rows, index)


def make_rules(rows: Sequence[tuple[int, Rule, int]], index: Sequence[tuple[int, int, int, int]]) -> RuleTable:
    """Fill in the columns of a rule table.

    Args:
        rows: (address, rule, function) of each row.
        index: (start, size, first row, rows) of each function.
    """
    bases = {"sp": CfaBase.SP, "fp": CfaBase.FP, "none": CfaBase.UNDEFINED, "other": CfaBase.OTHER}
    count = len(index)
    functions = FunctionIndex(
        start=np.array([item[0] for item in index], dtype=np.uint64),
        size=np.array([item[1] for item in index], dtype=np.uint64),
        first_row=np.array([item[2] for item in index], dtype=np.int64),
        row_count=np.array([item[3] for item in index], dtype=np.int64),
        provenance=np.ones(count, dtype=np.uint8),
        flags=np.zeros(count, dtype=np.uint8),
        source_off=np.zeros(count, dtype=np.int64),
        section=np.full(count, -1, dtype=np.int32),
        rep_size=np.zeros(count, dtype=np.uint8),
        reason=np.full(count, -1, dtype=np.int16),
    )
    rules = [row[1] for row in rows]
    return RuleTable(
        start=np.array([row[0] for row in rows], dtype=np.uint64),
        cfa_base=np.array([bases[r.base] for r in rules], dtype=np.uint8),
        cfa_off=np.array([r.off for r in rules], dtype=np.int32),
        fp_rule=np.array([FpRule.UNCHANGED if r.fp is None else FpRule.AT_CFA for r in rules], dtype=np.uint8),
        fp_off=np.array([r.fp or 0 for r in rules], dtype=np.int32),
        ra_rule=np.array([RaRule.IN_LR if r.ra is None else RaRule.AT_CFA for r in rules], dtype=np.uint8),
        ra_off=np.array([r.ra or 0 for r in rules], dtype=np.int32),
        ra_signed=np.zeros(len(rows), dtype=np.bool_),
        func=np.array([row[2] for row in rows], dtype=np.int32),
        side=np.full(len(rows), -1, dtype=np.int32),
        functions=functions,
    )
