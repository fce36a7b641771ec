"""For every finding code of the audit a small kernel that has it, and the symbol that it is at."""

from __future__ import annotations

from collections.abc import Callable

from audit_kernel import (
    AUTIASP,
    BLR_X1,
    BR_X1,
    CLOSED,
    CODE_KIND,
    DATA,
    MOV_FP,
    MOV_LR_X0,
    MOV_LR_X1,
    MOV_X0_LR,
    NOP,
    PACIASP,
    RET,
    TEXT,
    Kernel,
    add_sp,
    b,
    bl,
    cbz_x0,
    opened,
    plain,
    pop,
    push,
    reload,
    sub_sp,
)
from cfi_builder import FP, SP, advance, def_cfa, def_cfa_offset, op
from dwarf_builder import Dwarf
from elf_builder import OBJECT
from sframe_builder import Fde, section
from surefoot.audit.entry import KINDS

__all__ = ["CASES", "vectors"]


def bare(name: str, *code: int, kind: int = 2) -> Kernel:
    """A kernel with a function that has no metadata."""
    kernel = plain()
    kernel.func(name, *code, cfi=None, kind=kind)
    return kernel


def ruled(name: str, *code: int, cfi: bytes = b"") -> Kernel:
    """A kernel with a function that has."""
    kernel = plain()
    kernel.func(name, *code, cfi=cfi)
    return kernel


def without_metadata() -> Kernel:
    kernel = Kernel(frames=None)
    kernel.func("f", RET)
    return kernel


def restored_early() -> Kernel:
    cfi = advance(1) + opened(16) + advance(1) + def_cfa(FP, 16) + advance(2) + CLOSED
    return ruled("f", push(16), MOV_FP, reload(), add_sp(16), RET, cfi=cfi)


def detour() -> Kernel:
    kernel = plain()
    kernel.func("f", push(16), b(12), pop(16), RET, cfi=advance(1) + opened(16) + advance(2) + CLOSED)
    kernel.func("e843419@0001_00000002_8", NOP, b(-12), cfi=None)
    return kernel


def below_sp() -> Kernel:
    cfi = advance(1) + opened(16) + advance(1) + def_cfa(SP, 0)
    return ruled("f", push(16), pop(16), RET, cfi=cfi)


def half_sframe() -> Kernel:
    """A kernel whose .sframe has one of its two functions."""
    kernel = ruled("f", RET)
    place = DATA + 0x1000 * len(kernel.tables)
    kernel.tables.append((".sframe", section([Fde(TEXT, 12)], addr=place)))
    return kernel


def end_call() -> Kernel:
    kernel = plain()
    kernel.func("f", push(16), bl(-4 * 4), cfi=advance(1) + opened(16))
    kernel.func("g", RET)
    return kernel


def promised(*, kept: bool) -> Kernel:
    """A kernel with a call of a function that never returns.

    Args:
        kept: the function is not declared so; else it is, and returns.
    """
    kernel = plain()
    kernel.debug = Dwarf()
    unit = kernel.debug.unit()
    unit.defined("good", TEXT)
    start = kernel.func("stop", *([b(0)] if kept else [cbz_x0(8), b(0), RET]))
    if not kept:
        unit.never("stop", start)
    cfi = advance(1) + opened(16) + advance(2) + CLOSED
    here = kernel.here
    kernel.func("caller", push(16), bl(start - here - 4), pop(16), RET, cfi=cfi)
    return kernel


def leaving_fixup() -> Kernel:
    kernel = plain()
    start = kernel.func("f", NOP, RET)
    kernel.fixup(start, TEXT)
    return kernel


def differing_fixup() -> Kernel:
    kernel = plain()
    start = kernel.func("f", push(16), NOP, pop(16), RET, cfi=advance(1) + opened(16) + advance(2) + CLOSED)
    kernel.fixup(start + 4, start + 12)
    return kernel


def alternative(*, ruled: bool) -> Kernel:
    kernel = plain()
    start = kernel.func("f", NOP, RET, cfi=b"" if ruled else None)
    kernel.align()
    kernel.alternative(start, kernel.put(sub_sp(16)))
    return kernel


def with_label(name: str) -> Kernel:
    kernel = plain()
    kernel.label(name, TEXT)
    return kernel


def leaving_branch() -> Kernel:
    kernel = plain()
    start = kernel.func("f", NOP, RET)
    kernel.table("__jump_table", ("i", start), ("i", TEXT), ("q", TEXT), relative=3)
    return kernel


def vectors(odd: int = -1, stub: tuple[int, ...] = (BLR_X1, RET), last: tuple[int, ...] = ()) -> Kernel:
    """A kernel with sixteen vectors and their stubs.

    Args:
        odd: vector that is not like the others, -1 for none.
        stub: words of the stubs.
        last: words of the last one instead.
    """
    kernel = plain()
    kernel.align(128)
    start = kernel.here
    stubs = start + 16 * 128
    for slot in range(16):
        goal = stubs + 4 * len(stub) * slot
        first = MOV_FP if slot == odd else sub_sp(320)
        kernel.put(first, b(goal - kernel.here - 4))
        kernel.align(128)
    kernel.elf.symbol("vectors", start, 16 * 128, kind=CODE_KIND)
    for name in KINDS[:-1]:
        kernel.func(name, *stub, cfi=None, kind=CODE_KIND)
    kernel.func(KINDS[-1], *(last or stub), cfi=None, kind=CODE_KIND)
    return kernel


def preempted() -> Kernel:
    kernel = plain()
    goal = kernel.func("preempt_schedule_notrace", RET)
    cfi = advance(1) + opened(16) + advance(2) + CLOSED
    here = kernel.here
    kernel.func("ftrace_return_to_handler", push(16), bl(goal - here - 4), pop(16), RET, cfi=cfi)
    return kernel


def bad_site(lead: int, *code: int, name: str = "f", at: int = 0) -> Kernel:
    """A kernel of which most sites have a literal, and one site that is special.

    Args:
        lead: NOPs before the function.
        code: its words.
        name: its name.
        at: bytes from the first NOP to the recorded entry.
    """
    kernel = plain()
    for number in range(3):
        kernel.align()
        entry = kernel.put(NOP, NOP)
        kernel.func(f"usual{number}", NOP, NOP, RET)
        kernel.site(entry)
    kernel.align()
    if len(code) == 3 and lead == 2:  # crooked: eight bytes before it, but not on a multiple of eight
        kernel.put(NOP)
    entry = kernel.put(*[NOP] * lead) if lead else kernel.here
    kernel.func(name, *code)
    kernel.site(entry + at)
    return kernel


CASES: dict[str, tuple[Callable[[], Kernel], str]] = {
    "metadata-none": (without_metadata, ""),
    "asm-leaf": (lambda: bare("f", NOP, RET), "f"),
    "asm-frame": (lambda: bare("f", push(32), MOV_FP, BLR_X1, pop(32), RET), "f"),
    "asm-irregular": (lambda: bare("f", sub_sp(16), add_sp(16), RET), "f"),
    "entry-code": (lambda: bare("cpu_switch_to", RET), "cpu_switch_to"),
    "trampoline-code": (lambda: bare("return_to_handler", RET, kind=CODE_KIND), "return_to_handler"),
    "hypervisor-code": (lambda: bare("__guest_enter", RET), "__guest_enter"),
    "boot-code": (lambda: bare("__primary_switched", RET, kind=CODE_KIND), "__primary_switched"),
    "linker-stub": (detour, "e843419@0001_00000002_8"),
    "data-in-text": (lambda: bare("table", 1, 2, 3, kind=OBJECT), "table"),
    "sframe-missing": (half_sframe, "f"),
    "rules-at-calls-only": (lambda: ruled("f", sub_sp(16), NOP, add_sp(16), RET), "f"),
    "restored-early": (restored_early, "f"),
    "lr-overwritten": (lambda: ruled("f", MOV_X0_LR, bl(4), NOP, MOV_LR_X0, RET), "f"),
    "row-wrong": (
        lambda: ruled("f", NOP, NOP, RET, cfi=advance(1) + def_cfa_offset(16) + advance(1) + def_cfa_offset(0)),
        "f",
    ),
    "exit-not-entry": (lambda: ruled("f", push(16), RET, cfi=advance(1) + opened(16)), "f"),
    "stub-detour": (detour, "f"),
    "slot-below-sp": (below_sp, "f"),
    "signing-wrong": (lambda: ruled("f", PACIASP, NOP, AUTIASP, RET), "f"),
    "signing-open": (lambda: ruled("f", cbz_x0(8), PACIASP, NOP, RET), "f"),
    "unproven-jump": (lambda: ruled("f", push(16), BR_X1, cfi=advance(1) + opened(16)), "f"),
    "unproven-unreached": (lambda: ruled("f", RET, sub_sp(16), RET), "f"),
    "unproven-state": (lambda: ruled("f", cbz_x0(8), MOV_LR_X1, NOP, RET), "f"),
    "unproven-rows": (lambda: ruled("f", NOP, RET, cfi=advance(1) + op(0x3F)), "f"),
    "call-at-end": (end_call, "f"),
    "noreturn-returns": (lambda: promised(kept=False), "stop"),
    "noreturn-undeclared": (lambda: promised(kept=True), "stop"),
    "fixup-leaves-function": (leaving_fixup, "f"),
    "fixup-rows-differ": (differing_fixup, "f"),
    "alternative-frame": (lambda: alternative(ruled=True), "f"),
    "alternative-assembly": (lambda: alternative(ruled=False), "f"),
    "jump-label-leaves": (leaving_branch, "f"),
    "vectors-missing": (lambda: with_label("_stext"), ""),
    "vector-shape": (lambda: vectors(odd=5), "vectors"),
    "stub-shape": (lambda: vectors(last=(NOP, BLR_X1)), KINDS[-1]),
    "stub-calls": (lambda: vectors(stub=(NOP, RET)), KINDS[0]),
    "preempt-in-return": (preempted, "ftrace_return_to_handler"),
    "trampoline-window": (
        lambda: bare("return_to_handler", sub_sp(112), BLR_X1, add_sp(112), RET, kind=CODE_KIND),
        "return_to_handler",
    ),
    "klp-disabled": (plain, ""),
    "site-none": (plain, "good"),
    "site-short": (lambda: bad_site(2, NOP), "f"),
    "site-literal-missing": (lambda: bad_site(0, NOP, NOP, RET), "f"),
    "site-misaligned": (lambda: bad_site(2, NOP, NOP, RET), "f"),
    "site-stray": (lambda: bad_site(0, NOP, NOP, NOP, NOP, RET, at=16), "f"),
}
"""Code -> kernel and symbol. The codes of the live comparison have tests of their own."""
