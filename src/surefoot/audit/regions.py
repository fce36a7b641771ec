"""Layer 6: the regions of a kernel's text: sections, and the parts of .text that the linker script marks."""

from __future__ import annotations

from typing import Final

import numpy as np

from surefoot.audit.subject import Subject
from surefoot.dtypes import Addr, Mask

__all__ = ["MARKED", "in_regions", "region_names"]

MARKED: Final[dict[str, tuple[str, str]]] = {
    "entry": ("__entry_text_start", "__entry_text_end"),
    "irq entry": ("__irqentry_text_start", "__irqentry_text_end"),
    "softirq entry": ("__softirqentry_text_start", "__softirqentry_text_end"),
    "noinstr": ("__noinstr_text_start", "__noinstr_text_end"),
    "cpu idle": ("__cpuidle_text_start", "__cpuidle_text_end"),
    "scheduler": ("__sched_text_start", "__sched_text_end"),
    "locks": ("__lock_text_start", "__lock_text_end"),
    "kprobes": ("__kprobes_text_start", "__kprobes_text_end"),
    "hyp idmap": ("__hyp_idmap_text_start", "__hyp_idmap_text_end"),
    "hyp": ("__hyp_text_start", "__hyp_text_end"),
    "static calls": ("__static_call_text_start", "__static_call_text_end"),
    "idmap": ("__idmap_text_start", "__idmap_text_end"),
    "entry trampoline": ("__entry_tramp_text_start", "__entry_tramp_text_end"),
    "hibernate": ("__hibernate_exit_text_start", "__hibernate_exit_text_end"),
    "kexec": ("__relocate_new_kernel_start", "__relocate_new_kernel_end"),
}
"""Region -> the two symbols that bound it (arch/arm64/kernel/vmlinux.lds.S, asm-generic/vmlinux.lds.h)."""


def region_names(subject: Subject) -> tuple[list[str], Addr, Addr]:
    """Cut the text into sections and marked regions.

    Returns:
        names, (k,) uint64 starts and (k,) uint64 ends, ascending, without overlap, together all of the text. The
        name of a marked region is "section: region"; what lies between regions has the section's own name.
    """
    image = subject.image
    marks = sorted(
        (low, high, name) for name, pair in MARKED.items() for low, high in [subject.bounds(pair)] if low < high
    )
    names: list[str] = []
    cuts: list[tuple[int, int]] = []
    for number, (start, words) in enumerate(subject.parts):
        section = image.sections.names[int(image.text.section[number])]
        at, end = start, start + 4 * words.size
        for low, high, name in marks:
            if at <= low and high <= end:
                if at < low:
                    names.append(section)
                    cuts.append((at, low))
                names.append(f"{section}: {name}")
                cuts.append((low, high))
                at = high
        if at < end:
            names.append(section)
            cuts.append((at, end))
    bounds = np.array(cuts, dtype=np.uint64).reshape(-1, 2)
    return names, bounds[:, 0], bounds[:, 1]


def in_regions(subject: Subject, names: tuple[str, ...], addr: Addr) -> Mask:
    """(n,) bool: the address lies in one of the marked regions; "head" stands for .head.text."""
    found = np.zeros(addr.shape, dtype=np.bool_)
    for name in names:
        if name == "head":
            index = subject.image.sections.find(".head.text")
            bounds = [
                (
                    int(subject.image.sections.addr[i]),
                    int(subject.image.sections.addr[i] + subject.image.sections.size[i]),
                )
                for i in index
            ]
        else:
            bounds = [subject.bounds(MARKED[name])]
        for low, high in bounds:
            found |= (addr >= np.uint64(low)) & (addr < np.uint64(high))
    return found
