"""Layer 2: instruction streams cut into instructions, all programs at once.

The length of the instruction that would begin at a byte depends on that byte and a few behind it, so it is worked out
for every byte of the section first, all but the rare ones, which are looked at when they are met. Then all programs
advance in lockstep, one instruction per pass, which is one indexing and one addition; programs that end drop out.
When few are left and a pass costs more than the work in it, the rest is done by doubling: with "where n instructions
further lead" known for all bytes, one indexing gives 2n.

Invariant: work is bounded by the bytes of the programs (times the logarithm of the longest), whatever they hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Addr, Code, Mask, Off, Row, Row32
from surefoot.metadata.cfi import opcodes
from surefoot.metadata.cfi.opcodes import (
    FLAGS,
    HEAD,
    HEAD_FLAGS,
    LEBS,
    LENGTH,
    SHAPE,
    SHAPE_LEB,
    SHAPE_LEBS,
    SHAPE_LENGTH,
    SHAPE_MATTERS,
    UNKNOWN,
    Flag,
)
from surefoot.metadata.cfi.reasons import Refusals
from surefoot.metadata.cfi.section import LEB_MAX, Section

__all__ = ["Ops", "Programs", "Shapes", "instruction_shapes", "size_set_locs", "split"]

_CHECK_EVERY: Final = 32
"""Passes between two looks at whether doubling is cheaper."""
_PASS_COST: Final = 600
"""What a pass over few programs costs, in bytes that one round of doubling handles in the same time (measured)."""
_NAMES: Final = {
    opcodes.AARCH64_SET_RA_STATE: "DW_CFA_AARCH64_set_ra_state",
    opcodes.AARCH64_NEGATE_RA_STATE_WITH_PC: "DW_CFA_AARCH64_negate_ra_state_with_pc",
}


@dataclass(frozen=True, slots=True)
class Programs:
    """Where programs are and what they start from; arrays have one entry per program, ascending in the section.

    Attributes:
        first: (p,) int64, offset of the first instruction.
        end: (p,) int64, offset behind the last.
        cie: (p,) int64, which CIE gives factors and initial rules.
        start: (p,) uint64, address of the first row.
        size: (p,) uint64, bytes that rows may speak of; below 2**32.
        encoding: (cies,) int64, DW_EH_PE_* of addresses in the program.
        address_size: (cies,) int64, bytes of an address.
        code_factor: (cies,) uint64, below 2**31.
        data_factor: (cies,) int64, within 31 bits and a sign.
    """

    first: Off
    end: Off
    cie: Row
    start: Addr
    size: Addr
    encoding: Row
    address_size: Row
    code_factor: Addr
    data_factor: Off

    def __len__(self) -> int:
        return int(self.first.size)


@dataclass(frozen=True, slots=True)
class Shapes:
    """What an instruction that starts at each byte of the section would be.

    Attributes:
        length: (bytes,) uint8; 0 where it takes a closer look.
        matters: (bytes,) bool, whether it has to do with SP, x29, x30 or the CFA.
    """

    length: Code
    matters: Mask


@dataclass(frozen=True, slots=True)
class Ops:
    """The instructions that matter, program by program, each program behind a head (see opcodes.HEAD).

    Attributes:
        pos: (n,) int64, offset of the first byte; for a head one less than the program's.
        code: (n,) uint8, first byte.
        flags: (n,) uint16, bits of Flag.
        skip: (n,) uint8, bytes of the register operand of EXTENDED instructions, else 0.
        lane: (n,) int32, number of the program.
        heads: (p,) int64, index of each program's head.
    """

    pos: Off
    code: Code
    flags: NDArray[np.uint16]
    skip: Code
    lane: Row32
    heads: Row

    def __len__(self) -> int:
        return int(self.pos.size)

    def arg(self, which: Row) -> Off:
        """(k,) int64, offsets of operands: the first one, or the one that follows the register."""
        return self.pos[which] + (self.skip[which] + np.int64(1))

    def having(self, bits: int) -> Row:
        """(k,) int64, indices of the instructions that have one of the bits."""
        return np.flatnonzero((self.flags & np.uint16(bits)) != 0)

    def refuse(self, refused: Refusals, which: Row, sentence: str) -> None:
        """Refuse the programs of some instructions from there on."""
        refused.add(self.lane[which], self.pos[which], sentence)


def instruction_shapes(section: Section) -> Shapes:
    """Give the length of the instruction that would start at each byte of the section.

    One-byte operands, nearly all there are, come out of a table of the first byte; where a LEB128 operand may be
    longer it is measured. The rest (blocks, unknown instructions, too long numbers) is left to `_exact_lengths`.
    """
    code = section.data[: section.size]
    shape = np.frombuffer(code.tobytes().translate(SHAPE), dtype=np.uint8)
    length = shape & np.uint8(SHAPE_LENGTH)
    more = section.data & np.uint8(0x80)
    more = more[1 : section.size + 1] | (more[2 : section.size + 2] >> np.uint8(1))
    some = np.flatnonzero((more & shape & np.uint8(SHAPE_LEB | SHAPE_LEBS)) != 0)
    first = section.leb_length(some + 1)
    two = np.flatnonzero((shape[some] & np.uint8(SHAPE_LEBS)) != 0)
    whole = 1 + first
    second = section.leb_length(some[two] + whole[two])
    whole[two] += second
    whole[first > LEB_MAX] = 0
    whole[two[second > LEB_MAX]] = 0
    length[some] = np.where(length[some] != 0, whole, 0)
    return Shapes(length, (shape & np.uint8(SHAPE_MATTERS)) != 0)


def size_set_locs(section: Section, shapes: Shapes, programs: Programs) -> None:
    """Correct the length of DW_CFA_set_loc, which holds a pointer in the encoding of its program's CIE."""
    form = programs.encoding & 0x0F
    width = np.array([0, 0, 2, 4, 8, 0, 0, 0, 0, 0, 2, 4, 8, 0, 0, 0])[form]
    width = np.where((form == 0) | (form == 8), programs.address_size, width)
    if bool(np.all(width == 8)):
        return
    at = np.flatnonzero(section.data[: section.size] == opcodes.SET_LOC)
    lane = np.maximum(np.searchsorted(programs.first, at, side="right") - 1, 0)
    mine = width[programs.cie[lane]]
    shapes.length[at] = np.where(mine > 0, 1 + mine, 0)


def _exact_lengths(section: Section, pos: Off) -> Off:
    """(k,) int64, lengths of instructions for which there is 0 in Shapes; UNKNOWN where they cannot be read."""
    code = section.data[pos]
    length = np.full(pos.size, UNKNOWN, dtype=np.int64)
    some = np.flatnonzero((code == opcodes.DEF_CFA_EXPRESSION) | (LEBS[code] == 2))
    at = pos[some] + 1
    pair = np.flatnonzero(code[some] != opcodes.DEF_CFA_EXPRESSION)
    register = section.leb_length(at[pair])
    at[pair] += register
    content = section.leb(at, signed=False)
    fits = content.ok & (content.value < section.size) & np.isin(code[some], opcodes.BLOCK)
    fits[pair[register > LEB_MAX]] = False
    whole = at + content.length + np.minimum(content.value, section.size) - pos[some]
    length[some[fits]] = whole[fits]
    return length


def split(section: Section, shapes: Shapes, programs: Programs, refused: Refusals) -> Ops:
    """Cut programs into instructions; those without effect on SP, x29, x30 and the CFA are left out.

    Args:
        section: the bytes.
        shapes: from `instruction_shapes`.
        programs: at least one; their bytes do not overlap, and before each lies a byte that is in none.
        refused: takes unknown and truncated instructions.
    """
    mark = np.zeros(section.size + 1, dtype=np.bool_)
    wrong = _mark(section, mark, shapes.length, programs)
    mark[:-1] &= shapes.matters
    mark[programs.first - 1] = True
    pos = np.flatnonzero(mark)
    _refuse_wrong(section, programs, wrong, refused)
    code = section.data[pos]
    heads = np.searchsorted(pos, programs.first - 1)
    code[heads] = HEAD
    flags = FLAGS[code]
    flags[heads] = HEAD_FLAGS
    counts = np.diff(np.append(heads, pos.size))
    lane = np.repeat(np.arange(len(programs), dtype=np.int32), counts)
    ops = Ops(pos, code, flags, np.zeros_like(code), lane, heads)
    _read_registers(section, ops, refused)
    return ops


def _mark(section: Section, mark: Mask, length: Code, programs: Programs) -> Off:
    """Set `mark` at the first byte of every instruction; (k,) int64, those that do not end in their program."""
    busy = programs.first < programs.end
    pos, end = programs.first[busy], programs.end[busy]
    wrong: list[Off] = []
    passes = 0
    while pos.size:
        mark[pos] = True
        step = length[pos]
        after = pos + step
        if not step.all():
            asked = np.flatnonzero(step == 0)
            after[asked] += _exact_lengths(section, pos[asked])
        live = after < end
        over = after > end
        if over.any():
            wrong.append(pos[over])
        pos, end = after[live], end[live]
        passes += 1
        if passes % _CHECK_EVERY == 0 and pos.size:
            left = end - pos
            longest = int(left.max())
            if int(left.sum()) * longest.bit_length() < _PASS_COST * longest:
                wrong.append(_mark_by_doubling(section, mark, length, pos, end))
                break
    return np.concatenate([*wrong, pos[:0]])


def _mark_by_doubling(section: Section, mark: Mask, length: Code, pos: Off, end: Off) -> Off:
    """As `_mark`, for the programs' rests [pos, end)."""
    left = end - pos
    base = np.cumsum(left) - left
    total = int(left.sum())
    shift = np.repeat(pos - base, left)
    nodes = np.arange(total, dtype=np.int64)
    places = nodes + shift
    step = length[places].astype(np.int64)
    asked = np.flatnonzero(step == 0)
    step[asked] = _exact_lengths(section, places[asked])
    last = np.repeat(base + left, left)
    jump = np.where(nodes + step < last, nodes + step, total)
    jump = np.append(jump, total)
    reached = base
    while True:
        further = jump[reached]
        further = further[further < total]
        if not further.size:
            break
        reached = np.concatenate([reached, further])
        jump = jump[jump]
    mark[places[reached]] = True
    wrong: Off = places[reached[reached + step[reached] > last[reached]]]
    return wrong


def _refuse_wrong(section: Section, programs: Programs, wrong: Off, refused: Refusals) -> None:
    """Refuse programs with an instruction that is unknown or does not end in time; nothing behind it was reached."""
    if not wrong.size:
        return
    code = section.data[wrong]
    lanes = np.searchsorted(programs.first, wrong, side="right") - 1
    for value in np.unique(code).tolist():
        mine = np.flatnonzero(code == value)
        if LENGTH[value] == UNKNOWN:
            named = f" ({_NAMES[value]})" if value in _NAMES else ""
            sentence = f"call frame instruction {value:#04x}{named} is not supported"
        else:
            sentence = f"the operands of call frame instruction {value:#04x} are cut short or too long"
        refused.add(lanes[mine], wrong[mine], sentence)


def _read_registers(section: Section, ops: Ops, refused: Refusals) -> None:
    """Turn EXTENDED into the flag of the register that is named, and say how long that operand is."""
    some = ops.having(Flag.EXTENDED)
    if not some.size:
        return
    register = section.leb(ops.pos[some] + 1, signed=False)
    ops.skip[some] = register.length
    flag = np.zeros(some.size, dtype=np.uint16)
    flag[register.value == opcodes.FP] = Flag.FP
    flag[register.value == opcodes.RA] = Flag.RA
    flag[(register.value == opcodes.SP) | (register.value == opcodes.RA_SIGN_STATE)] = Flag.SP
    ops.flags[some] = flag
    ops.refuse(refused, some[~register.ok], "a register number beyond 63 bits")
