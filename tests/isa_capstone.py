"""What capstone says about A64 words, in the terms of `surefoot.isa.effects`, and where capstone is wrong.

Registers come from capstone's access lists, offsets and sizes from its operand text: nothing here looks at bits, but
for the tables of what capstone 5.0 refuses or accepts against the architecture. Every correction names its reason.
Source of the corrections: Arm Architecture Reference Manual (DDI 0487), the pages of the instructions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import capstone
from capstone import arm64

from surefoot.isa.effects import SP, Flow

ADDRESS: Final = 0x1000
SMCCC: Final = 0x3_FFFF
"""x0 to x17, which the SMC calling convention lets a callee change."""


@dataclass(frozen=True)
class Insn:
    """One disassembled word."""

    word: int
    name: str
    text: str
    operands: tuple[str, ...]
    reads: int
    writes: int
    groups: frozenset[str]


def _numbers() -> dict[int, int]:
    """Give the number of each of capstone's general registers; SP and WSP are 31."""
    found = {}
    for name, value in vars(arm64).items():
        match = re.fullmatch(r"ARM64_REG_[XW](\d+)", name)
        if match:
            found[value] = int(match[1])
    named = {"FP": 29, "LR": 30, "SP": SP, "WSP": SP}
    return found | {getattr(arm64, f"ARM64_REG_{name}"): number for name, number in named.items()}


_NUMBERS: Final = _numbers()


def _mask(registers: list[int]) -> int:
    return sum({1 << _NUMBERS[r] for r in registers if r in _NUMBERS})


def disassembler() -> Any:
    machine = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)
    machine.detail = True
    return machine


def disassemble(machine: Any, word: int) -> Insn | None:
    """Give what capstone makes of a word, its known mistakes corrected; None where it refuses."""
    found = next(machine.disasm(word.to_bytes(4, "little"), ADDRESS), None)
    if found is None:
        return None
    reads, writes = found.regs_access()
    insn = Insn(
        word,
        found.mnemonic,
        found.op_str,
        tuple(split(found.op_str)),
        _mask(reads),
        _mask(writes),
        frozenset(machine.group_name(group) for group in found.groups),
    )
    return corrected(insn)


def split(text: str) -> Iterator[str]:
    """Yield the operands of a text, cut at commas outside of brackets."""
    depth, start = 0, 0
    for place, letter in enumerate(text):
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and depth == 0:
            yield text[start:place].strip()
            start = place + 1
    if text:
        yield text[start:].strip()


def register(operand: str) -> int:
    """Give the bit of the general register that an operand is, else 0."""
    match = re.fullmatch(r"[xw](\d+)|w?(sp)", operand)
    return 0 if not match else 1 << (SP if match[2] else int(match[1]))


def number(operand: str) -> int:
    """Give the value of an immediate; capstone writes some negative ones without sign, in 64 bits."""
    value = int(operand.removeprefix("#"), 0)
    return value - (1 << 64) if value >= 1 << 63 else value


def _first(count: int, skip: int = 0) -> Callable[[Insn], int]:
    """Make a rule: these operands are written (and any write-back that capstone reports)."""

    def rule(insn: Insn) -> int:
        return base_written(insn) | sum({register(op) for op in insn.operands[skip : skip + count]})

    return rule


def base_written(insn: Insn) -> int:
    """Give the bit of the base that a pre- or post-indexed address writes back."""
    address = Address.of(insn)
    return register(address.base) if address and (address.pre or address.post is not None) else 0


def _marked(insn: Insn) -> int:
    """Memory copies write back every operand with an exclamation mark."""
    return sum({register(op.strip("[]!")) for op in insn.operands if op.endswith("!")})


@dataclass(frozen=True)
class Correction:
    """Capstone reports the wrong registers for some instructions."""

    names: str
    writes: Callable[[Insn], int]
    reason: str
    only: str = ""


_ATOMIC: Final = r"(add|clr|eor|set|smax|smin|umax|umin)(a|l|al)?[bh]?"

WRITES: Final = (
    Correction("cmp|cmn|tst", lambda _: 0, "the destination is the zero register; capstone marks a source written"),
    Correction("adds|subs", _first(1), "capstone takes the destination of the immediate form for a source"),
    Correction("ldraa|ldrab|ldg", _first(1), "capstone reports the loaded register as read"),
    Correction("addg|subg|irg|gmi|subps?", _first(1), "capstone reports no access at all"),
    Correction("add[vp]l|adds[vp]l|rdvl|rdsvl|cnt[bhwdp]", _first(1), "capstone reports no access at all", r"^[wxs]"),
    Correction("(paci|auti)[ab]1716", lambda _: 1 << 17, "x16 is the modifier, only read"),
    Correction("c?last[ab]|[su]mov|fmov|fj?cvt[anmpz][su]", _first(1), "lost general destination", r"^[wx]\d"),
    Correction("ldgm|ldlar[bh]?|firstp|lastp", _first(1), "lost general destination"),
    Correction("[su]q(inc|dec)[bhwdp]", _first(1), "the first operand is source and destination", r"^[wx]"),
    Correction("(inc|dec)[bhwdp]", _first(1), "the first operand is source and destination", r"^[wx]"),
    Correction("casp(a|l|al)?", _first(2), "the compared registers receive the old value"),
    Correction("cas(a|l|al)?[bh]?", _first(1), "the compared register receives the old value"),
    Correction(f"ld{_ATOMIC}|swp(a|l|al)?[bh]?", _first(1, 1), "the second operand receives the old value"),
    Correction(f"st{_ATOMIC}", lambda _: 0, "the destination is the zero register"),
    Correction("(ld|st)[1-4]r?", base_written, "the increment of a post-indexed structure access is only read"),
    Correction("cpy.*|set[gpme].*", _marked, "capstone reports no write-back", r"!"),
    Correction("svc|hvc|smc", lambda _: SMCCC, "the callee of the SMC calling convention is counted"),
    Correction("msr", lambda _: 1 << SP, "choosing the stack pointer changes SP", r"(?i)^spsel"),
    Correction("ld64b", lambda insn: 0xFF << number(insn.operands[0][1:]), "eight registers are loaded"),
    Correction("st64bv0?", _first(1), "the first operand receives the status"),
)

READ_TOO_FEW: Final = (
    ("cmp|cmn|tst", "see WRITES: the first source is marked as written"),
    ("stz?2?gm?", "capstone loses the register with the tag"),
    (r"cas.*|swp.*|ld(add|clr|eor|set|[su]max|[su]min).*|st(add|clr|eor|set|[su]max|[su]min).*", "lost source"),
    ("ld[1-4]r?|st[1-4]", "capstone loses the increment"),
    (r"[su]?q?(inc|dec)[bhwdp]|clast[ab]", "the first operand is source and destination"),
    ("svc|hvc|smc", "the SMC calling convention is counted"),
    ("addg|subg|ldg|irg|gmi|subps?|add[vp]l", "capstone reports no access at all"),
    ("wfet|wfit|index|pacga|[su]cvtf|ret|insr|fmov|dup|ins|mov|cpy", "lost source"),
    ("cpy.*|set[gpme].*", "capstone knows one source only"),
    ("while.*", "capstone loses both sources"),
    ("stlurb?|stlurh|stlr.*|stllr.*", "capstone loses the stored register"),
    ("ld1[bhwdq]|st1[bhwdq]|mova?|psel|ldr|str|zero|[su]mop[as]", "we count w8 to w15 for every slice index"),
    ("ldnt1.*|stnt1.*", "capstone loses the offset register of vector addresses"),
    ("st64b.*|ld64b", "capstone knows one of the eight registers"),
    ("ldra[ab]|retaa|retab|eretaa|eretab", "the modifier SP is counted"),
    ("(paci|auti)[ab](sp|z|1716)?|xpaclri", "implicit operands"),
    ("sysp?|dc|ic|at|tlbi|cfp|cpp|dvp", "register operands of system instructions are counted, used or not"),
)
READ_TOO_MANY: Final = (
    ("adds|subs", "the destination, see WRITES"),
    ("[su]bfx|[su]bfiz|bfc|bfxil|ls[lr]|asr|[su]xt[bhw]", "aliases: the destination is marked as read"),
    ("sysl|ldra[ab]|ldgm?|pacga|ldlar[bh]?", "the destination is marked as read"),
    ("eretaa|eretab", "the address comes from ELR, not from x30"),
)


def corrected(insn: Insn) -> Insn:
    """Give the instruction with the registers that it really writes."""
    for rule in WRITES:
        if re.fullmatch(rule.names, insn.name) and re.search(rule.only, insn.text):
            return Insn(**{**vars(insn), "writes": rule.writes(insn)})
    return insn


@dataclass(frozen=True)
class Address:
    """The memory operand of an instruction."""

    base: str
    offset: int | None
    pre: bool
    post: int | str | None
    rest: tuple[str, ...] = ()

    @staticmethod
    def of(insn: Insn) -> Address | None:
        """Read `[base, #offset]`, `[base, #offset]!`, `[base], #offset`, `[base, other, ...]`."""
        places = [k for k, op in enumerate(insn.operands) if op.startswith("[")]
        if not places:
            return None
        inside, mark = insn.operands[places[0]][1:].split("]", 1)
        base, *rest = [part.strip() for part in inside.split(",")]
        offset: int | None = 0
        if rest:
            offset = number(rest[0]) if rest[0].startswith("#") and len(rest) == 1 else None
        after = insn.operands[places[0] + 1 :]
        post: int | str | None = None
        if after and not insn.name.startswith(("cpy", "set")):
            post = number(after[0]) if after[0].startswith("#") else after[0]
        return Address(base, offset, mark == "!", post, tuple(rest))


FLOWS: Final = {
    "b": Flow.JUMP,
    "bl": Flow.CALL,
    "ret": Flow.RETURN,
    "retaa": Flow.RETURN,
    "retab": Flow.RETURN,
    "drps": Flow.ERET,
    **dict.fromkeys(("cbz", "cbnz", "tbz", "tbnz"), Flow.COND),
    **dict.fromkeys(("br", "braa", "brab", "braaz", "brabz"), Flow.JUMP_REG),
    **dict.fromkeys(("blr", "blraa", "blrab", "blraaz", "blrabz"), Flow.CALL_REG),
    **dict.fromkeys(("eret", "eretaa", "eretab"), Flow.ERET),
    **dict.fromkeys(("svc", "hvc", "smc", "brk", "hlt", "dcps1", "dcps2", "dcps3"), Flow.EXCEPTION),
}

GROUPS: Final = {"jump": {Flow.JUMP, Flow.COND, Flow.CALL, Flow.CALL_REG, Flow.JUMP_REG}, "call": {Flow.CALL}}
"""Groups of capstone 5.0 and the flows that an instruction of the group may have."""


def flow(insn: Insn) -> Flow:
    """Give the flow that the mnemonic says."""
    if insn.name.startswith(("b.", "bc.")):
        return Flow.COND
    return FLOWS.get(insn.name, Flow.NEXT)
