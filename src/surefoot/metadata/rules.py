"""Layer 2: the rule table, the one currency of unwind metadata.

Invariant: a table says exactly what its source said. A rule that does not fit the columns is kept in the
side table and its code is OTHER; nothing is rounded, wrapped or guessed. Everything that Surefoot knows about
a frame, whichever format it came from, passes through this class.

Terms (DWARF 5, section 6.4; SFrame specification, chapter 2): the CFA is the value of SP at the call site in the
caller; FP is x29 and RA the return address, x30 on entry of a function.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Addr, Code, Mask, Off, Off32, Row, Row32
from surefoot.errors import Inconsistent

__all__ = [
    "SIDE_DTYPE",
    "Abi",
    "CfaBase",
    "FpRule",
    "FunctionFlag",
    "FunctionIndex",
    "Provenance",
    "RaRule",
    "RuleTable",
    "SideKind",
    "concatenate",
    "empty_side",
    "overlap_runs",
]


class Abi(IntEnum):
    """Which register file the rules speak of; the numbers are SFrame's abi_arch (specification, section 2.1)."""

    AARCH64_BE = 1
    AARCH64_LE = 2
    AMD64_LE = 3
    S390X_BE = 4


class CfaBase(IntEnum):
    """What the CFA is computed from; cfa_off is added to it."""

    UNDEFINED = 0
    """No rule: the row marks code whose caller cannot be found."""
    SP = 1
    FP = 2
    OTHER = 3
    """See the side table."""


class FpRule(IntEnum):
    """Where the caller's frame pointer is."""

    NOT_STATED = 0
    """The source is silent; `RuleTable.with_abi_defaults` turns it into UNCHANGED."""
    UNCHANGED = 1
    """Still in the frame pointer register."""
    AT_CFA = 2
    """In memory at CFA + fp_off."""
    UNDEFINED = 3
    """Stated to be lost."""
    OTHER = 4
    """See the side table."""


class RaRule(IntEnum):
    """Where the return address is."""

    NOT_STATED = 0
    """The source is silent; `RuleTable.with_abi_defaults` turns it into IN_LR."""
    IN_LR = 1
    """Still in the return-address register."""
    AT_CFA = 2
    """In memory at CFA + ra_off."""
    UNDEFINED = 3
    """Stated to have none: the outermost frame."""
    OTHER = 4
    """See the side table."""


class Provenance(IntEnum):
    """Which metadata a function's rows came from."""

    DEBUG_FRAME = 1
    EH_FRAME = 2
    SFRAME = 3


class FunctionFlag(IntEnum):
    """Bits of FunctionIndex.flags."""

    SIGNAL = 1
    """Signal frame: the frame above was interrupted, not called (augmentation 'S', SFrame v3 bit 7)."""
    KEY_B = 2
    """Return addresses are signed with key B (augmentation 'B', SFrame func_info bit 5)."""
    OUTERMOST = 4
    """SFrame v3: a descriptor without rows that is no signal frame."""
    REPEATED = 8
    """SFrame MASK descriptor: rows repeat every block (PLT code)."""
    REFUSED = 16
    """The rows are incomplete because the source could not be decoded further; see FunctionIndex.reason."""


class SideKind(IntEnum):
    """How a rule in the side table is written."""

    NONE = 0
    REGISTER = 1
    """The value is register + offset, loaded from there if `deref`."""
    CFA_VALUE = 2
    """The value is CFA + offset itself (DW_CFA_val_offset)."""
    EXPRESSION = 3
    """A DWARF expression gives the address of the value (for the CFA: the value)."""
    VAL_EXPRESSION = 4
    """A DWARF expression gives the value."""
    RANGE = 5
    """A CFA-, FP- or RA-offset beyond the columns' 32 bits; `offset` holds it exactly."""


_SIDE_RULE: Final = np.dtype(
    [("kind", "u1"), ("deref", "?"), ("reg", "i4"), ("offset", "i8"), ("expr", "i8"), ("expr_len", "i4")]
)
SIDE_DTYPE: Final = np.dtype([("cfa", _SIDE_RULE), ("fp", _SIDE_RULE), ("ra", _SIDE_RULE)])
"""One entry per row whose `side` is not -1. `expr` is a byte offset into RuleTable.expressions."""


def empty_side(count: int = 0) -> NDArray[np.void]:
    """Give `count` side entries, (count,) SIDE_DTYPE, that say nothing yet."""
    return np.zeros(count, dtype=SIDE_DTYPE)


@dataclass(frozen=True, slots=True)
class FunctionIndex:
    """One entry per function descriptor (FDE), in the order of the source.

    Attributes:
        start: (f,) uint64, first address (offset inside the section where `section` is not -1).
        size: (f,) uint64, bytes.
        first_row: (f,) int64, index of the first row; a function's rows are adjacent.
        row_count: (f,) int64.
        provenance: (f,) uint8, `Provenance`.
        flags: (f,) uint8, bits of `FunctionFlag`.
        source_off: (f,) int64, byte offset of the descriptor in its section.
        section: (f,) int32, section header index of the code in relocatable objects, -1 in linked images.
        rep_size: (f,) uint8, bytes of the repeated block of REPEATED functions, else 0.
        reason: (f,) object-free int16, index into RuleTable.reasons, -1 where nothing was refused.
    """

    start: Addr
    size: Addr
    first_row: Row
    row_count: Row
    provenance: Code
    flags: Code
    source_off: Off
    section: Row32
    rep_size: Code
    reason: NDArray[np.int16]

    def __len__(self) -> int:
        return int(self.start.size)

    @property
    def end(self) -> Addr:
        """(f,) uint64, first address behind each function."""
        return self.start + self.size


@dataclass(frozen=True, slots=True)
class RuleTable:
    """Unwind rules as columns; row i holds from start[i] to the next row or the end of its function.

    Attributes:
        start: (r,) uint64, address of the first byte the row speaks of (REPEATED: offset in the block is
            start - function start).
        cfa_base: (r,) uint8, `CfaBase`.
        cfa_off: (r,) int32, bytes.
        fp_rule: (r,) uint8, `FpRule`.
        fp_off: (r,) int32, bytes from the CFA; 0 unless AT_CFA.
        ra_rule: (r,) uint8, `RaRule`.
        ra_off: (r,) int32, bytes from the CFA; 0 unless AT_CFA.
        ra_signed: (r,) bool, the return address carries a pointer authentication code.
        func: (r,) int32, index into `functions`.
        side: (r,) int32, index into `side_rules`, or -1.
        functions: the descriptors.
        side_rules: (s,) SIDE_DTYPE, rules that the columns cannot hold.
        expressions: the DWARF expressions that side rules point into.
        reasons: sentences naming why a function's rows were refused.
        abi: register file of the rules.
    """

    start: Addr
    cfa_base: Code
    cfa_off: Off32
    fp_rule: Code
    fp_off: Off32
    ra_rule: Code
    ra_off: Off32
    ra_signed: Mask
    func: Row32
    side: Row32
    functions: FunctionIndex
    side_rules: NDArray[np.void] = field(default_factory=empty_side)
    expressions: bytes = b""
    reasons: tuple[str, ...] = ()
    abi: Abi = Abi.AARCH64_LE

    def __len__(self) -> int:
        return int(self.start.size)

    @property
    def end(self) -> Addr:
        """(r,) uint64, first address behind each row: the next row's start, or the function's end."""
        if not len(self):
            return self.start.copy()
        ends = np.append(self.start[1:], np.uint64(0))
        last = np.append(self.func[1:] != self.func[:-1], np.True_)
        ends[last] = self.functions.end[self.func[last]]
        return ends

    def check(self) -> None:
        """Verify the structural invariants that every decoder promises.

        Raises:
            Inconsistent: columns of different length, rows outside their function or out of order.
        """
        rows = len(self)
        for item in fields(self)[:10]:
            if getattr(self, item.name).shape != (rows,):
                raise Inconsistent(f"rule table column {item.name} does not have {rows} rows")
        index = self.functions
        if rows and (int(self.func.min()) < 0 or int(self.func.max()) >= len(index)):
            raise Inconsistent("rule table row belongs to no function")
        if rows and bool(np.any(self.start < index.start[self.func])):
            raise Inconsistent("rule table row starts before its function")
        same = self.func[1:] == self.func[:-1]
        if bool(np.any(same & (self.start[1:] < self.start[:-1]))):
            raise Inconsistent("rule table rows of a function are not in ascending order")

    def with_abi_defaults(self) -> RuleTable:
        """Give the table with NOT_STATED replaced by what the procedure call standard says.

        x29 is callee-saved, hence UNCHANGED; x30 holds the return address on entry, hence IN_LR.

        Source:
            Procedure Call Standard for the Arm 64-bit Architecture (AAPCS64), section 6.1.1.
        """
        fp_rule = np.where(self.fp_rule == FpRule.NOT_STATED, np.uint8(FpRule.UNCHANGED), self.fp_rule)
        ra_rule = np.where(self.ra_rule == RaRule.NOT_STATED, np.uint8(RaRule.IN_LR), self.ra_rule)
        return replace(self, fp_rule=fp_rule, ra_rule=ra_rule)

    def take_rows(self, rows: Row) -> RuleTable:
        """Give a table of the chosen rows, all functions kept, first_row and row_count made anew.

        Args:
            rows: (k,) int64, row indices; rows of one function must be adjacent and in order.
        """
        func = self.func[rows]
        counts = np.bincount(func, minlength=len(self.functions)).astype(np.int64)
        first = np.zeros(len(self.functions), dtype=np.int64)
        if rows.size:
            heads = np.flatnonzero(np.append(True, func[1:] != func[:-1]))
            first[func[heads]] = heads
        index = replace(self.functions, first_row=first, row_count=counts)
        columns = {item.name: getattr(self, item.name)[rows] for item in fields(self)[:10]}
        return replace(self, functions=index, **columns)

    def same_as_previous(self) -> Mask:
        """(r,) bool: the row says the same as the row before it in the same function."""
        if not len(self):
            return np.zeros(0, dtype=np.bool_)
        same = np.zeros(len(self), dtype=np.bool_)
        same[1:] = self.func[1:] == self.func[:-1]
        for item in fields(self)[1:8]:
            column = getattr(self, item.name)
            same[1:] &= column[1:] == column[:-1]
        same[1:] &= (self.side[1:] < 0) & (self.side[:-1] < 0)
        return same

    def compact(self) -> RuleTable:
        """Give the table without rows that repeat their predecessor."""
        return self.take_rows(np.flatnonzero(~self.same_as_previous()))

    def for_lookup(self) -> RuleTable:
        """Give a compact table sorted by address, without empty functions and contradictions.

        Where two functions of the source overlap, both are left out unless they are equal in extent
        and rows: a hole is safe, a choice between two claims is not. REPEATED functions are left out.

        Returns:
            a table that `lookup` accepts; function order is by start address.
        """
        index = self.functions
        keep = (index.size > 0) & ((index.flags & FunctionFlag.REPEATED) == 0) & (index.row_count > 0)
        order = np.flatnonzero(keep)
        order = order[np.lexsort((index.size[order], index.start[order]))]
        order = order[self._undisputed(order)]
        counts = index.row_count[order]
        firsts = np.zeros(order.size, dtype=np.int64)
        np.cumsum(counts[:-1], out=firsts[1:])
        total = int(counts.sum())
        rows = np.repeat(index.first_row[order] - firsts, counts) + np.arange(total, dtype=np.int64)
        picked = {item.name: getattr(index, item.name)[order] for item in fields(index)}
        picked |= {"first_row": firsts, "row_count": counts}
        columns = {item.name: getattr(self, item.name)[rows] for item in fields(self)[:10]}
        columns["func"] = np.repeat(np.arange(order.size, dtype=np.int32), counts)
        return replace(self, functions=FunctionIndex(**picked), **columns).compact()

    def _undisputed(self, order: Row) -> Mask:
        """(k,) bool over functions sorted by (start, size): no other function claims the same bytes."""
        index = self.functions
        good = np.ones(order.size, dtype=np.bool_)
        for run in overlap_runs(index.start[order], index.end[order]):
            good[run] = False
            good[run[0]] = self.same_functions(order[run])
        return good

    def same_functions(self, which: Row) -> bool:
        """Whether functions, given by index, have the same extent, marks and rows, however these are kept."""
        index, first = self.functions, int(which[0])
        for name in ("start", "size", "row_count", "flags", "rep_size"):
            column = getattr(index, name)
            if bool((column[which] != column[first]).any()):
                return False
        nth = np.arange(int(index.row_count[first]), dtype=np.int64)
        rows = index.first_row[which][:, np.newaxis] + nth
        for item in fields(self)[:8]:
            column = getattr(self, item.name)
            if bool((column[rows] != column[rows[0]]).any()):
                return False
        side = self.side[rows]
        if bool(((side < 0) != (side[0] < 0)).any()):
            return False
        entries = self.side_rules[side[:, side[0] >= 0]]
        return bool((entries == entries[0]).all())

    def lookup(self, addr: Addr, is_ra: Mask) -> Row:
        """Give the rule row in force at each address.

        The table must come from `for_lookup`. A return address is looked up one byte earlier, inside the
        call: a call to a noreturn function can be the last instruction of its function.

        Args:
            addr: (n,) uint64, addresses with PAC bits stripped.
            is_ra: (n,) bool; True for return addresses, False for exact program counters.

        Returns:
            (n,) int64 row numbers; -1 where no row covers the address, never the nearest.

        Raises:
            Nothing. A hole in the metadata is data.
        """
        if not len(self):
            return np.full(addr.shape, -1, dtype=np.int64)
        at = addr - is_ra.astype(np.uint64)
        row = np.searchsorted(self.start, at, side="right").astype(np.int64) - 1
        safe = np.maximum(row, 0)
        func = self.func[safe]
        inside = (row >= 0) & (at < self.functions.start[func] + self.functions.size[func])
        return np.where(inside, row, np.int64(-1))

    def shifted(self, bias: int) -> RuleTable:
        """Give the table with every address moved by `bias` bytes (KASLR), modulo 2**64."""
        delta = np.uint64(bias % 2**64)
        index = replace(self.functions, start=self.functions.start + delta)
        return replace(self, start=self.start + delta, functions=index)

    def placed(self, bases: Addr) -> RuleTable:
        """Give the table of a relocatable object with its sections at their run-time addresses.

        Args:
            bases: (sections,) uint64, address of each section by header index; 0 = not loaded.

        Returns:
            functions of sections that are not loaded have size 0 (so `for_lookup` drops them);
            `section` is -1 throughout.
        """
        section = self.functions.section
        known = (section >= 0) & (section < bases.size)
        base = np.where(known, bases[np.where(known, section, 0)], np.uint64(0))
        loaded = base > 0
        index = replace(
            self.functions,
            start=self.functions.start + base,
            size=np.where(loaded, self.functions.size, np.uint64(0)),
            section=np.full(len(self.functions), -1, dtype=np.int32),
        )
        return replace(self, start=self.start + base[self.func], functions=index)


def overlap_runs(start: Addr, end: Addr) -> list[Row]:
    """Give the runs of ranges in which each overlaps one before it.

    Args:
        start: (n,) uint64, ascending.
        end: (n,) uint64.

    Returns:
        indices of each run, its first range included; ranges that overlap nothing are in none.
    """
    if start.size < 2:
        return []
    hits = np.flatnonzero(start[1:] < np.maximum.accumulate(end)[:-1]) + 1
    if not hits.size:
        return []
    cuts = np.flatnonzero(np.append(True, np.diff(hits) != 1))
    last = np.append(cuts[1:], hits.size) - 1
    return [np.arange(hits[a] - 1, hits[b] + 1) for a, b in zip(cuts, last, strict=True)]


def concatenate(tables: list[RuleTable]) -> RuleTable:
    """Join tables of one ABI into one, functions and rows in the given order.

    Args:
        tables: at least one table; addresses must be comparable (all linked or all placed).

    Raises:
        Inconsistent: the tables speak of different register files.
    """
    if len({table.abi for table in tables}) > 1:
        raise Inconsistent("rule tables of different register files cannot be joined")
    if len(tables) == 1:
        return tables[0]
    columns: dict[str, list[NDArray[np.generic]]] = {item.name: [] for item in fields(RuleTable)[:10]}
    index: dict[str, list[NDArray[np.generic]]] = {item.name: [] for item in fields(FunctionIndex)}
    side, blob, reasons = [], b"", list[str]()
    rows = functions = side_count = 0
    for table in tables:
        for name, parts in columns.items():
            parts.append(getattr(table, name))
        columns["func"][-1] = (table.func + np.int32(functions)).astype(np.int32)
        columns["side"][-1] = np.where(table.side >= 0, table.side + np.int32(side_count), np.int32(-1))
        for name, parts in index.items():
            parts.append(getattr(table.functions, name))
        index["first_row"][-1] = table.functions.first_row + rows
        reason = table.functions.reason
        index["reason"][-1] = np.where(reason >= 0, reason + np.int16(len(reasons)), np.int16(-1)).astype(np.int16)
        moved = table.side_rules.copy()
        for what in ("cfa", "fp", "ra"):
            moved[what]["expr"] += len(blob)
        side.append(moved)
        blob += table.expressions
        reasons.extend(table.reasons)
        rows, functions, side_count = (
            rows + len(table),
            functions + len(table.functions),
            side_count + moved.size,
        )
    joined = FunctionIndex(**{name: np.concatenate(parts) for name, parts in index.items()})
    return RuleTable(
        **{name: np.concatenate(parts) for name, parts in columns.items()},
        functions=joined,
        side_rules=np.concatenate(side),
        expressions=blob,
        reasons=tuple(reasons),
        abi=tables[0].abi,
    )
