"""Layer 2: the addresses at which rows begin.

Invariant: rows of one program ascend and stay in [start, start + size]; an instruction that would break this ends its
program. Sums cannot wrap: one step is below 2**32 and a section below 2**31 bytes.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from surefoot.dtypes import Addr, Code, Mask, Row
from surefoot.metadata.cfi import opcodes
from surefoot.metadata.cfi.opcodes import Flag
from surefoot.metadata.cfi.pointers import Bases, read_pointers, refuse_encoding
from surefoot.metadata.cfi.program import Ops, Programs
from surefoot.metadata.cfi.reasons import Refusals
from surefoot.metadata.cfi.section import Section

__all__ = ["row_starts"]

_OPERANDS: Final = (
    (opcodes.ADVANCE_LOC1, 1),
    (opcodes.ADVANCE_LOC2, 2),
    (opcodes.ADVANCE_LOC4, 4),
    (opcodes.MIPS_ADVANCE_LOC8, 8),
)
_STEP_MAX: Final = np.uint64(2**32)
_BEYOND: Final = "a location beyond the function's end"
_BACKWARDS: Final = "DW_CFA_set_loc leads backwards"


def row_starts(
    section: Section, ops: Ops, rows: Row, programs: Programs, bases: Bases, refused: Refusals
) -> tuple[Addr, Row]:
    """Give the address of every row.

    Args:
        section: the bytes.
        ops: the instructions.
        rows: (r,) int64, indices of those that begin a row.
        programs: where they come from.
        bases: what relative pointers count from.
        refused: takes instructions that leave the function.

    Returns:
        (r,) uint64 addresses, meaningless behind a refused instruction, and (p,) int64, first row of each program.
    """
    code = ops.code[rows]
    lane = ops.lane[rows]
    step = _steps(section, ops, rows, code)
    step *= programs.code_factor[programs.cie][lane]
    heads = np.flatnonzero((ops.flags[rows] & np.uint16(Flag.HEAD)) != 0)
    set_at = np.flatnonzero(code == opcodes.SET_LOC)
    if set_at.size:
        return _with_set_loc(section, ops, rows, step, set_at, programs, bases, refused), heads
    far = np.flatnonzero(step > _STEP_MAX)
    step[far] = _STEP_MAX  # enough to be found below: sizes are smaller
    total = np.cumsum(step, dtype=np.uint64)
    before = total[heads]
    tails = np.append(heads[1:], rows.size) - 1
    if bool(np.any(total[tails] - before > programs.size)):
        beyond = np.flatnonzero(total - before[lane] > programs.size[lane])
        ops.refuse(refused, rows[beyond], _BEYOND)
    return total + (programs.start - before)[lane], heads


def _steps(section: Section, ops: Ops, rows: Row, code: Code) -> Addr:
    """(r,) uint64, the operand of every advance, at most 2**32; 0 for heads and DW_CFA_set_loc."""
    short = np.where((code & 0xC0) == opcodes.ADVANCE_LOC, code & 0x3F, np.uint8(0))
    step = short.astype(np.uint64)
    for operation, width in _OPERANDS:
        some = np.flatnonzero(code == operation)
        if some.size:
            step[some] = np.minimum(section.fixed(ops.arg(rows[some]), width), _STEP_MAX)
    return step


def _with_set_loc(
    section: Section,
    ops: Ops,
    rows: Row,
    step: Addr,
    set_at: Row,
    programs: Programs,
    bases: Bases,
    refused: Refusals,
) -> Addr:
    """As the rest of `row_starts`, where some addresses are given outright.

    Addresses are counted from the function's start; a program continues from its last DW_CFA_set_loc.
    """
    lane = ops.lane[rows]
    given, exact = _set_locs(section, ops, rows[set_at], programs, bases, refused)
    given -= programs.start[lane[set_at]]
    outside = ~exact | (given > programs.size[lane[set_at]])
    ops.refuse(refused, rows[set_at[outside]], _BEYOND)
    step = np.minimum(step, _STEP_MAX)
    total = np.cumsum(step, dtype=np.uint64)
    anchor = np.zeros(rows.size, dtype=np.int64)
    heads = np.flatnonzero((ops.flags[rows] & np.uint16(Flag.HEAD)) != 0)
    anchor[heads] = heads
    anchor[set_at] = set_at
    anchor = np.maximum.accumulate(anchor)
    value = np.zeros(rows.size, dtype=np.uint64)
    value[set_at] = given
    offset = value[anchor] + total - total[anchor]
    ops.refuse(refused, rows[np.flatnonzero(offset > programs.size[lane])], _BEYOND)
    back = set_at[offset[set_at] < offset[set_at - 1]]
    ops.refuse(refused, rows[back], _BACKWARDS)
    return programs.start[lane] + offset


def _set_locs(
    section: Section, ops: Ops, which: Row, programs: Programs, bases: Bases, refused: Refusals
) -> tuple[Addr, Mask]:
    """Read the operands of DW_CFA_set_loc: (k,) uint64 addresses and (k,) bool, which of them are exact."""
    cie = programs.cie[ops.lane[which]]
    shape = programs.encoding[cie] * 16 + programs.address_size[cie]
    value = np.zeros(which.size, dtype=np.uint64)
    exact = np.zeros(which.size, dtype=np.bool_)
    for key in np.unique(shape).tolist():
        mine = np.flatnonzero(shape == key)
        sentence = refuse_encoding(key // 16, bases)
        if sentence:
            ops.refuse(refused, which[mine], sentence)
            continue
        value[mine], _, exact[mine], _ = read_pointers(section, ops.arg(which[mine]), key // 16, key % 16, bases)
    return value, exact
