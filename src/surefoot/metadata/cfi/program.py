"""Layer 2: instruction streams cut into instructions, all programs at once.

The length of the instruction that would begin at a byte depends on that byte and a few behind it, so it is worked out
for every byte of the section first. Then all programs advance in lockstep, one instruction per pass, which is one
indexing and one addition; programs that end drop out. When few are left and a pass costs more than the work in it,
the rest is done by doubling: with "where n instructions further lead" known for all bytes, one indexing gives 2n.

Invariant: work is bounded by the bytes of the programs (times the logarithm of the longest), whatever they hold.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Addr, Bytes, Code, Mask, Off, Row, Row32
from surefoot.metadata.cfi import opcodes
from surefoot.metadata.cfi.opcodes import FLAGS, HEAD, HEAD_FLAGS, LEBS, LENGTH, UNKNOWN, Flag
from surefoot.metadata.cfi.reasons import Refusals
from surefoot.metadata.cfi.section import LEB_MAX, Section

__all__ = ["Ops", "Programs", "instruction_lengths", "split"]

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

    def take(self, which: Row) -> Programs:
        """Give the chosen programs."""
        return replace(
            self,
            first=self.first[which],
            end=self.end[which],
            cie=self.cie[which],
            start=self.start[which],
            size=self.size[which],
        )


@dataclass(frozen=True, slots=True)
class Ops:
    """The instructions that matter, program by program, each program behind a head (see opcodes.HEAD).

    Attributes:
        pos: (n,) int64, offset of the first byte; for a head one less than the program's.
        code: (n,) uint8, first byte.
        flags: (n,) uint16, bits of Flag.
        arg: (n,) int64, offset of the operand that follows the register, or of the first one.
        lane: (n,) int32, number of the program.
        heads: (p,) int64, index of each program's head.
    """

    pos: Off
    code: Code
    flags: NDArray[np.uint16]
    arg: Off
    lane: Row32
    heads: Row

    def __len__(self) -> int:
        return int(self.pos.size)

    def having(self, bits: int) -> Row:
        """(k,) int64, indices of the instructions that have one of the bits."""
        return np.flatnonzero(self.flags & np.uint16(bits))

    def refuse(self, refused: Refusals, which: Row, sentence: str) -> None:
        """Refuse the programs of some instructions from there on."""
        refused.add(self.lane[which], self.pos[which], sentence)


def instruction_lengths(section: Section, programs: Programs) -> NDArray[np.int32]:
    """Give the length of the instruction that would start at each byte of the section.

    Returns:
        (bytes,) int32; UNKNOWN for unknown instructions and operands that cannot be read.
    """
    code = section.data[: section.size]
    length = LENGTH[code]
    lebs = LEBS[code]
    long = section.data >= 0x80
    after, second = long[1 : section.size + 1], long[2 : section.size + 2]
    some = np.flatnonzero(((lebs >= 1) & after) | ((lebs == 2) & second))
    if some.size:
        first = section.leb_length(some + 1)
        two = np.where(lebs[some] == 2, section.leb_length(some + 1 + first), 0)
        whole = 1 + first + two
        whole[(first > LEB_MAX) | (two > LEB_MAX)] = UNKNOWN
        length[some] = whole
    for block in opcodes.BLOCK:
        at = np.flatnonzero((code == block) & (length < UNKNOWN))
        before = 1 if block == opcodes.DEF_CFA_EXPRESSION else 1 + section.leb_length(at + 1)
        content = section.leb(at + before, signed=False)
        fits = content.ok & (content.value < section.size)
        length[at] = np.where(fits, length[at] + content.value * fits, UNKNOWN)
    _size_set_loc(code, length, programs)
    return length


def _size_set_loc(code: Bytes, length: NDArray[np.int32], programs: Programs) -> None:
    """DW_CFA_set_loc holds a pointer in the encoding of its program's CIE."""
    form = programs.encoding & 0x0F
    width = np.array([0, 0, 2, 4, 8, 0, 0, 0, 0, 0, 2, 4, 8, 0, 0, 0])[form]
    width = np.where((form == 0) | (form == 8), programs.address_size, width)
    if not len(programs) or bool(np.all(width == 8)):
        return
    at = np.flatnonzero(code == opcodes.SET_LOC)
    lane = np.maximum(np.searchsorted(programs.first, at, side="right") - 1, 0)
    mine = width[programs.cie[lane]]
    length[at] = np.where(mine > 0, 1 + mine, UNKNOWN)


def split(section: Section, length: NDArray[np.int32], programs: Programs, refused: Refusals) -> Ops:
    """Cut programs into instructions; those without effect on SP, x29, x30 and the CFA are left out.

    Args:
        section: the bytes.
        length: from `instruction_lengths`.
        programs: at least one; their bytes do not overlap, and before each lies a byte that is in none.
        refused: takes unknown and truncated instructions.
    """
    mark = np.zeros(section.size + 1, dtype=np.bool_)
    mark[programs.first - 1] = True
    _mark(mark, length, programs)
    pos = np.flatnonzero(mark)
    # Only the last instruction of a program can be unknown or too long: nothing behind it was reached.
    heads = np.searchsorted(pos, programs.first - 1)
    last = np.append(heads[1:], pos.size) - 1
    _refuse_last(section, length, programs, np.flatnonzero(last > heads), pos[last], refused)
    code = section.data[pos]
    code[heads] = HEAD
    flags = FLAGS[code]
    flags[heads] = HEAD_FLAGS
    keep = np.flatnonzero(flags)
    pos, code, flags = pos[keep], code[keep], flags[keep]
    heads = np.flatnonzero(flags & np.uint16(Flag.HEAD))
    counts = np.diff(np.append(heads, pos.size))
    lane = np.repeat(np.arange(len(programs), dtype=np.int32), counts)
    ops = Ops(pos, code, flags, pos + 1, lane, heads)
    _read_registers(section, ops, refused)
    return ops


def _mark(mark: Mask, length: NDArray[np.int32], programs: Programs) -> None:
    """Set `mark` at the first byte of every instruction."""
    busy = programs.first < programs.end
    pos, end = programs.first[busy], programs.end[busy]
    passes = 0
    while pos.size:
        mark[pos] = True
        pos = pos + length[pos]
        live = pos < end
        pos, end = pos[live], end[live]
        passes += 1
        if passes % _CHECK_EVERY == 0 and pos.size:
            left = end - pos
            longest = int(left.max())
            if int(left.sum()) * longest.bit_length() < _PASS_COST * longest:
                _mark_by_doubling(mark, length, pos, end)
                return


def _mark_by_doubling(mark: Mask, length: NDArray[np.int32], pos: Off, end: Off) -> None:
    """As `_mark`, for the programs' rests [pos, end)."""
    left = end - pos
    base = np.cumsum(left) - left
    total = int(left.sum())
    shift = np.repeat(pos - base, left)
    nodes = np.arange(total, dtype=np.int64)
    jump = nodes + length[nodes + shift]
    jump[jump >= np.repeat(base + left, left)] = total
    jump = np.append(jump, total)
    reached = base
    while True:
        further = jump[reached]
        further = further[further < total]
        if not further.size:
            break
        reached = np.concatenate([reached, further])
        jump = jump[jump]
    mark[reached + shift[reached]] = True


def _refuse_last(
    section: Section, length: NDArray[np.int32], programs: Programs, lanes: Row, last: Off, refused: Refusals
) -> None:
    """Refuse programs whose last instruction is unknown or does not end in time."""
    pos = last[lanes]
    wrong = np.flatnonzero(pos + length[pos] > programs.end[lanes])
    lanes, pos = lanes[wrong], pos[wrong]
    code = section.data[pos]
    unknown = LENGTH[code] == UNKNOWN
    for value in np.unique(code).tolist():
        mine = np.flatnonzero(code == value)
        if unknown[mine[0]]:
            named = f" ({_NAMES[value]})" if value in _NAMES else ""
            sentence = f"call frame instruction {value:#04x}{named} is not supported"
        else:
            sentence = f"the operands of call frame instruction {value:#04x} are cut short or too long"
        refused.add(lanes[mine], pos[mine], sentence)


def _read_registers(section: Section, ops: Ops, refused: Refusals) -> None:
    """Turn EXTENDED into the flag of the register that is named, and move `arg` behind it."""
    some = ops.having(Flag.EXTENDED)
    if not some.size:
        return
    register = section.leb(ops.arg[some], signed=False)
    ops.arg[some] += register.length
    flag = np.zeros(some.size, dtype=np.uint16)
    flag[register.value == opcodes.FP] = Flag.FP
    flag[register.value == opcodes.RA] = Flag.RA
    flag[(register.value == opcodes.SP) | (register.value == opcodes.RA_SIGN_STATE)] = Flag.SP
    flag[~register.ok] = 0
    ops.flags[some] = flag
    ops.refuse(refused, some[~register.ok], "a register number beyond 63 bits")
