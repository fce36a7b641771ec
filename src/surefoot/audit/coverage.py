"""Layer 6: which code has metadata, and what the code without it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from surefoot.audit.catalogue import CATALOGUE
from surefoot.audit.directives import Suggestion, default_suggestion, suggestions
from surefoot.audit.findings import Finding
from surefoot.audit.regions import in_regions, region_names
from surefoot.audit.shapes import shapes_of
from surefoot.audit.subject import Subject
from surefoot.audit.textmap import Cover
from surefoot.audit.words import STUB_ENDS, STUB_MARKS
from surefoot.dtypes import Mask, Row
from surefoot.image.rules import load_rules, rule_sections
from surefoot.image.symbols import SymbolKind
from surefoot.metadata.rules import Provenance
from surefoot.proof.inputs import code_of

__all__ = ["Coverage", "SectionCoverage", "bare_functions", "coverage", "coverage_findings"]

_HYP_REGIONS: Final = ("hyp", "hyp idmap")
_BOOT_REGIONS: Final = ("idmap", "hibernate", "kexec", "head", "entry trampoline")
_TRACING: Final = (
    b"ftrace_caller",
    b"ftrace_common",
    b"ftrace_stub",
    b"return_to_handler",
    b"__kretprobe_trampoline",
    b"arch_rethook_trampoline",
    b"bpf_trampoline",
    b"my_tramp",
    b"dummy_tramp",
)
_ENTRY: Final = (
    b"vectors",
    b"el0",
    b"el1",
    b"ret_to_",
    b"ret_from_fork",
    b"cpu_switch_to",
    b"call_on_irq_stack",
    b"__sdei_",
    b"__bad_stack",
    b"__bp_harden",
    b"tramp_",
)
_HYP: Final = (
    b"__kvm_",
    b"__guest_",
    b"__hyp_",
    b"kvm_hyp_",
    b"hyp_",
    b"__host_",
    b"___kvm_",
    b"el2_",
    b"__vhe_",
    b"__finalise_el2",
    b"cpu_el2_",
    b"__pkvm_",
    b"abort_guest_exit",
    b"wa_epilogue",
)
_BOOT: Final = (
    b"__primary_",
    b"__secondary_",
    b"secondary_",
    b"primary_",
    b"__cpu_suspend_",
    b"cpu_resume",
    b"_cpu_resume",
    b"cpu_do_",
    b"idmap_",
    b"__efi_",
    b"efi_",
    b"__enable_mmu",
    b"__cpu_",
    b"init_kernel_el",
    b"init_el2",
    b"swsusp_",
    b"hibernate_",
    b"el1_sync_",
    b"arm64_relocate_",
    b"relocate_",
    b"_cpu_",
    b"cpu_soft_restart",
    b"__cpu_soft_restart",
)


@dataclass(frozen=True)
class SectionCoverage:
    """Functions and instructions of one region of the text.

    Attributes:
        name: section, or region of it that linker symbols mark.
        start: first address.
        end: first address behind.
        functions: (6,) int64, code ranges by `Cover`.
        words: (6,) int64, words by `Cover`.
    """

    name: str
    start: int
    end: int
    functions: NDArray[np.int64]
    words: NDArray[np.int64]


@dataclass(frozen=True)
class Coverage:
    """Which code has metadata.

    Attributes:
        words: (6,) int64, words of the text by `Cover`.
        functions: (6,) int64, code ranges by `Cover`.
        sections: the same by region.
    """

    words: NDArray[np.int64]
    functions: NDArray[np.int64]
    sections: tuple[SectionCoverage, ...]


def coverage(subject: Subject) -> Coverage:
    """Count functions and instructions by what is known of them."""
    text, ranges, verdicts = subject.map, subject.ranges, subject.verdicts
    names, starts, ends = region_names(subject)
    low, high = text.span(starts, ends)
    found = []
    at = np.searchsorted(starts, ranges.start, side="right") - 1
    for i, name in enumerate(names):
        words = np.bincount(text.cover[low[i] : high[i]], minlength=len(Cover))
        functions = np.bincount(verdicts[at == i], minlength=len(Cover))
        found.append(SectionCoverage(name, int(starts[i]), int(ends[i]), functions, words))
    return Coverage(text.totals(), np.bincount(verdicts, minlength=len(Cover)), tuple(found))


def bare_functions(subject: Subject) -> tuple[Row, list[str]]:
    """Give the code ranges without metadata, and the finding code of each.

    Returns:
        (b,) int64 rows of `subject.ranges`, and b codes.
    """
    ranges = subject.ranges
    rows = np.flatnonzero((subject.verdicts == Cover.NO_METADATA) | (subject.verdicts == Cover.DATA))
    shapes = shapes_of(subject.map, *subject.map.span(ranges.start[rows], ranges.end[rows]))
    names = ranges.names.table.take(ranges.function[rows])
    code_kind = ranges.kind[rows] == SymbolKind.NOTYPE

    def named(prefixes: tuple[bytes, ...]) -> Mask:
        found = np.zeros(rows.size, dtype=np.bool_)
        for prefix in prefixes:
            found |= names.starts_with(prefix)
        return found

    stubs = named(tuple(mark.encode() for mark in STUB_MARKS))
    for end in STUB_ENDS:
        stubs |= names.ends_with(end.encode())
    kinds = np.full(rows.size, "asm-irregular", dtype="U16")
    kinds[shapes.is_framed] = "asm-frame"
    kinds[shapes.is_leaf] = "asm-leaf"
    start = ranges.start[rows]
    boot = in_regions(subject, _BOOT_REGIONS, start) | (named(_BOOT) & (code_kind | ~shapes.is_leaf))
    hyp = in_regions(subject, _HYP_REGIONS, start) | named(_HYP)
    for mask, code in (
        (code_kind & ~shapes.is_framed, "asm-irregular"),
        (boot, "boot-code"),
        (hyp, "hypervisor-code"),
        (in_regions(subject, ("entry",), start) | named(_ENTRY), "entry-code"),
        (named(_TRACING), "trampoline-code"),
        (stubs, "linker-stub"),
        (subject.verdicts[rows] == Cover.DATA, "data-in-text"),
    ):
        kinds[mask] = code
    return rows, kinds.tolist()


def coverage_findings(subject: Subject) -> Iterator[Finding]:
    """Yield a finding for each code range without metadata."""
    if subject.proof is None:
        info = CATALOGUE["metadata-none"]
        yield Finding("metadata-none", 0, "", info.meaning)
        return
    rows, codes = bare_functions(subject)
    ranges = subject.ranges
    suggested = _suggested(subject, rows, codes)
    for row, code in zip(rows.tolist(), codes, strict=True):
        start, end = int(ranges.start[row]), int(ranges.end[row])
        message, lines = f"{_LEAD[code]} ({end - start} bytes)", tuple[str, ...]()
        if row in suggested:
            message, lines = f"{message}: {suggested[row]}", suggested[row].lines
        elif code == "asm-irregular":
            message += (
                ": it does not follow the procedure call standard (SYM_CODE), so that nothing is known on entry"
            )
        yield Finding(code, start, ranges.names[row], message, size=end - start, suggestion=lines)
    yield from _without_sframe(subject)


def _suggested(subject: Subject, rows: Row, codes: list[str]) -> dict[int, Suggestion]:
    """Suggest directives for the assembly among functions without metadata, by code range."""
    ranges = subject.ranges
    called = ranges.kind[rows] == SymbolKind.FUNC
    found = {
        row: default_suggestion(int(ranges.end[row] - ranges.start[row]))
        for row, code in zip(rows.tolist(), codes, strict=True)
        if code == "asm-leaf"
    }
    moving = rows[called & np.isin(codes, ("asm-frame", "asm-irregular"))]
    if moving.size:
        code = code_of(subject.image, subject.parts)
        made = suggestions(subject.map, ranges.start[moving], ranges.end[moving], code)
        found |= dict(zip(moving.tolist(), made, strict=True))
    return found


def _without_sframe(subject: Subject) -> Iterator[Finding]:
    """Yield one finding for all functions that call frame information describes and .sframe does not."""
    image, proof = subject.image, subject.proof
    if proof is None or image.bases is not None:
        return
    index = proof.rules.functions
    if not len(index) or int(index.provenance[0]) == Provenance.SFRAME or not rule_sections(image, Provenance.SFRAME):
        return
    there = load_rules(image, (Provenance.SFRAME,)).functions
    rows = np.flatnonzero(~np.isin(index.start, there.start))
    if rows.size:
        starts = index.start[rows[:_SOME]].tolist()
        names = ", ".join(subject.name_at(start) for start in starts)
        more = f" and {rows.size - _SOME} more" if rows.size > _SOME else ""
        message = f"{rows.size} of {len(index)} functions are not in .sframe: {names}{more}"
        yield Finding("sframe-missing", starts[0], subject.name_at(starts[0]), message, count=int(rows.size))


_SOME: Final = 8
"""Functions named in a message."""
_LEAD: Final = {
    "asm-leaf": "Leaf assembly without metadata",
    "asm-frame": "Assembly with a frame, without metadata",
    "asm-irregular": "Assembly without metadata",
    "entry-code": "Entry code",
    "trampoline-code": "Tracing trampoline",
    "hypervisor-code": "Hypervisor code",
    "boot-code": "Boot, suspend or firmware code",
    "linker-stub": "Code of the linker without metadata",
    "data-in-text": "Data in an executable section",
}
