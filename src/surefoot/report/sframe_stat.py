"""Layer 8: the numbers of an SFrame section."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from surefoot.dtypes import Row
from surefoot.metadata.rules import FunctionFlag, FunctionIndex
from surefoot.metadata.sframe import Extents, SFrameSection
from surefoot.report.sframe_dump import header_json
from surefoot.report.sframe_text import SCHEMA_STAT

__all__ = ["stat_json"]


def stat_json(
    section: SFrameSection, code: Extents, names: Sequence[str], cfi_sizes: Mapping[str, int]
) -> dict[str, object]:
    """Give sizes, rows and coverage.

    Args:
        section: the section.
        code: executable sections.
        names: (n) names of the executable sections.
        cfi_sizes: bytes of the file's CFI sections.
    """
    rules = section.to_rules()
    index = rules.functions
    tables = section.tables
    descriptors = sum(len(table.fdes) * table.header.fde_size for table in tables)
    row_bytes = sum(table.header.fre_len for table in tables)
    parts = {
        "headers": sum(table.header.size for table in tables),
        "descriptors": descriptors,
        "rows": row_bytes,
        "padding": section.size - sum(table.header.size for table in tables) - descriptors - row_bytes,
    }
    info = np.concatenate([table.fres.info for table in tables])
    kinds = np.concatenate([table.fdes.info & 15 for table in tables])
    flags = index.flags
    functions = {
        "flexible": sum(int(table.fdes.is_flex.sum()) for table in tables),
        "signal frames": int(((flags & FunctionFlag.SIGNAL) != 0).sum()),
        "outermost": int(((flags & FunctionFlag.OUTERMOST) != 0).sum()),
        "repeated blocks": int(((flags & FunctionFlag.REPEATED) != 0).sum()),
        "key B": int(((flags & FunctionFlag.KEY_B) != 0).sum()),
        "refused": int(((flags & FunctionFlag.REFUSED) != 0).sum()),
    }
    rows = {f"starts of {1 << kind} bytes": int((kinds == kind).sum()) for kind in range(3)}
    rows |= {f"words of {1 << size} bytes": int((((info >> 5) & 3) == size).sum()) for size in range(3)}
    rows["repeating their predecessor"] = int(rules.same_as_previous().sum())
    return {
        "schema": SCHEMA_STAT,
        **header_json(section),
        "parts": parts,
        "functions": functions,
        "encoding": rows,
        "coverage": _coverage(index, code, names),
        "cfi": dict(cfi_sizes),
    }


def _coverage(index: FunctionIndex, code: Extents, names: Sequence[str]) -> dict[str, dict[str, int]]:
    """Give covered and total bytes of each executable section."""
    out: dict[str, dict[str, int]] = {}
    for at in range(code.start.size):
        start, end, section = int(code.start[at]), int(code.start[at] + code.size[at]), int(code.section[at])
        mine = np.flatnonzero((index.section == section) & (index.size > 0) & (index.row_count > 0))
        covered = _union(index, mine, start, end)
        name = names[at]
        out[name if name not in out else f"{name} ({at})"] = {"covered": covered, "size": end - start}
    return out


def _union(index: FunctionIndex, functions: Row, low: int, high: int) -> int:
    """Bytes of low..high that at least one of the functions covers."""
    order = functions[np.argsort(index.start[functions], kind="stable")]
    start = np.clip(index.start[order], np.uint64(low), np.uint64(high))
    end = np.clip(index.end[order], np.uint64(low), np.uint64(high))
    if not order.size:
        return 0
    reach = np.maximum.accumulate(end)
    before = np.append(np.uint64(low), reach[:-1])
    fresh = np.maximum(start, before)
    return int((np.maximum(end, fresh) - fresh).sum())
