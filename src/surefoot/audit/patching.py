"""Layer 6: which functions have a patch site for ftrace, and why the others have none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from surefoot.audit.catalogue import CATALOGUE
from surefoot.audit.findings import Finding
from surefoot.audit.regions import in_regions
from surefoot.audit.subject import Subject
from surefoot.audit.textmap import Cover
from surefoot.dtypes import Addr, Code, Mask, Row
from surefoot.image.binary import ImageKind
from surefoot.image.symbols import SymbolKind
from surefoot.image.tables import PatchSites, patch_sites

__all__ = ["REASONS", "Patching", "patching", "patching_findings"]

REASONS: Final[dict[str, str]] = {
    "has a site": "",
    "init": "in init text, which is freed after boot",
    "entry": "in exception entry, interrupt entry or noinstr code, which must not be traced",
    "hypervisor": "runs at another exception level, through another mapping, or before the kernel proper",
    "kprobes": "marked as not to be probed",
    "assembly": "hand-written assembly or code of the linker",
    "rust": "compiled by rustc without patchable entries",
    "notrace": "compiled without one: notrace, inline but not inlined, or in a file built without ftrace's flags",
}
"""Reason -> what it means; the first stands for functions that can be patched."""
_NAMES: Final = tuple(REASONS)
_LINES: Final = 8
"""Functions named in a message."""


@dataclass(frozen=True)
class Patching:
    """Which functions can be patched; m code ranges.

    Attributes:
        rows: (f,) int64, code ranges that are functions.
        reason: (f,) uint8, index into REASONS; 0 for those with a site.
        sites: the table.
        call_ops: most sites have room for a literal: the kernel is built for CALL_OPS.
        livepatch: the kernel has live patching.
    """

    rows: Row
    reason: Code
    sites: PatchSites
    call_ops: bool
    livepatch: bool

    def counts(self) -> dict[str, int]:
        """Give how many functions each reason has, in the order of REASONS."""
        counts = np.bincount(self.reason, minlength=len(_NAMES))
        return {name: int(count) for name, count in zip(_NAMES, counts, strict=True)}


def patching(subject: Subject) -> Patching:
    """Sort all functions by whether they have a patch site, and why not."""
    ranges, image = subject.ranges, subject.image
    sites = patch_sites(image)
    rows = np.flatnonzero(ranges.kind == SymbolKind.FUNC)
    start = ranges.start[rows]
    # A function that a nested symbol cuts has several ranges: the first one stands for it.
    heads = image.functions.addr[ranges.function[rows]] == start
    rows, start = rows[heads], start[heads]
    names = ranges.names.table.take(ranges.function[rows])
    reason = np.full(rows.size, _NAMES.index("notrace"), dtype=np.uint8)
    rust = names.starts_with(b"_R") | names.starts_with(b"_ZN")
    for name, mask in (
        ("rust", rust),
        ("assembly", subject.verdicts[rows] == Cover.NO_METADATA),
        ("kprobes", in_regions(subject, ("kprobes",), start)),
        ("hypervisor", in_regions(subject, ("hyp", "hyp idmap", "idmap", "hibernate", "kexec", "head"), start)),
        ("entry", in_regions(subject, ("entry", "irq entry", "softirq entry", "noinstr", "cpu idle"), start)),
        ("init", _in_init(subject, start)),
        ("has a site", np.isin(start, sites.func)),
    ):
        reason[mask] = _NAMES.index(name)
    good = sites.func != 0
    call_ops = bool(good.any()) and 2 * int(np.count_nonzero(sites.has_literal[good])) > int(np.count_nonzero(good))
    return Patching(rows, reason, sites, call_ops, bool(image.symbols.find("klp_enable_patch").size))


def _in_init(subject: Subject, addr: Addr) -> Mask:
    """(n,) bool: the address is in a section that is freed after boot or at unload."""
    image = subject.image
    names = image.sections.names
    wanted = [i for i, name in enumerate(names) if name.startswith((".init.text", ".exit.text"))]
    return np.isin(image.text.section_at(addr), np.array(wanted, dtype=np.int32))


def patching_findings(subject: Subject) -> Iterator[Finding]:
    """Yield sites that are not as they should be, and one finding for each reason to have none."""
    found = patching(subject)
    if not found.livepatch and subject.image.kind == ImageKind.KERNEL:
        yield Finding("klp-disabled", 0, "", CATALOGUE["klp-disabled"].meaning)
    yield from _bad_sites(subject, found)
    ranges = subject.ranges
    for number, why in enumerate(REASONS.values()):
        rows = found.rows[found.reason == number]
        if not number or not rows.size:
            continue
        some = ", ".join(ranges.names[row] for row in rows[:_LINES].tolist())
        more = f" and {rows.size - _LINES} more" if rows.size > _LINES else ""
        first = int(ranges.start[rows[0]])
        message = (
            f"{rows.size} {'function has' if rows.size == 1 else 'functions have'} no patch site: {why}. {some}{more}"
        )
        yield Finding("site-none", first, ranges.names[int(rows[0])], message, count=int(rows.size))


def _bad_sites(subject: Subject, found: Patching) -> Iterator[Finding]:
    """Yield patch sites that ftrace drops or cannot use."""
    sites, ranges = found.sites, subject.ranges
    for entry in sites.entry[sites.func == 0].tolist():
        yield Finding("site-stray", entry, subject.name_at(entry), "No function starts at this patch site")
    row = subject.range_at(sites.func)
    known = (sites.func != 0) & (row >= 0)
    short = known & (sites.site + np.uint64(4) > ranges.end[np.maximum(row, 0)])
    lacking = known & ~sites.has_literal if found.call_ops else np.zeros(known.size, dtype=np.bool_)
    crooked = known & sites.has_literal & ((sites.func & np.uint64(7)) != 0)
    for code, mask, words in (
        ("site-short", short, "The function ends before its patch site does"),
        ("site-literal-missing", lacking, "No two NOPs lie before the function for the address of its ftrace_ops"),
        ("site-misaligned", crooked, "The literal before the function is not aligned to eight bytes"),
    ):
        for func in sites.func[mask].tolist():
            yield Finding(code, func, subject.name_at(func), words)
