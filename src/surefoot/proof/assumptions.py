"""Layer 4: what proofs take on trust, as sentences for reports and documentation.

Invariant: whatever the prover believes without checking it is here; docs/notes/edge-check.md lists the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["ASSUMPTIONS", "Assumption"]


@dataclass(frozen=True, slots=True)
class Assumption:
    """Something that proofs take on trust.

    Attributes:
        name: for links, lower-case words with hyphens.
        sentence: what is believed.
        checked: how much of it is checked all the same; empty where nothing is.
    """

    name: str
    sentence: str
    checked: str = ""


ASSUMPTIONS: Final = (
    Assumption(
        "calls",
        "A called function returns behind the call with SP, x19 to x29 and the caller's frame as they were.",
        "Functions whose code returns in another state are found; nothing is taken for granted behind their calls.",
    ),
    Assumption(
        "computed-stores",
        "A store through a computed address does not hit the words that hold the caller's x29 and return address: "
        "through a register other than SP and x29, by a register offset, or through SP or x29 at a distance from the "
        "CFA that is not known.",
        "Stores at constant distances from the CFA are checked.",
    ),
    Assumption(
        "computed-sp",
        "SP that is computed from a register does not rise above the words that hold the caller's x29 and return "
        "address.",
        "SP that is moved by constants, or set from x29, is checked.",
    ),
    Assumption(
        "entries",
        "Code is entered at functions, at symbols inside of them, at branch targets, at fixups and where jump tables "
        "lead; code without rules enters functions by its immediate branches only.",
    ),
    Assumption(
        "fragments",
        "A function whose first row does not fit a call, which nothing calls and others branch to, is entered by "
        "these branches only.",
    ),
    Assumption(
        "read-only",
        "Nobody writes sections without write permission, nor a kernel's .rodata outside of __ro_after_init: jump "
        "tables there hold what the image says.",
    ),
    Assumption(
        "tail-jumps",
        "An indirect jump in the state of an entry, through a pointer loaded at a constant offset from an address "
        "that was not made as those of table entries are, goes to the start of a function.",
    ),
    Assumption(
        "loose-jumps",
        "An indirect jump whose targets are not known stays in its function and the parts split off it; these are "
        "unproven. Proofs of single functions take that of the jumps of all others.",
    ),
    Assumption(
        "traps",
        "BRK behind BUG() and __builtin_trap() does not continue; other BRK, SVC, HVC and SMC keep SP, x29 and x30.",
    ),
    Assumption(
        "declarations",
        "With `surefoot audit --debug-info`, a function that the compiler takes never to return does not return.",
        "A function that has a return is not believed.",
    ),
    Assumption(
        "exceptions",
        "Handlers of interrupts, faults and traps restore every register but those that the exception table names.",
    ),
    Assumption(
        "eret",
        "ERET leaves the code under proof: it does not continue in the middle of a function.",
    ),
    Assumption(
        "shadow-stack",
        "What x18 points below is written by pushes and pops of the shadow call stack only.",
    ),
    Assumption(
        "patched-text",
        "Live text is what the image says, with words replaced as its alternatives and static branches announce; "
        "what ftrace and kprobes put there restores every register; callbacks of alternatives write code that keeps "
        "SP, x29 and x30, or NOPs in the place of branches.",
        "`surefoot audit --live` compares a running kernel's text with the image.",
    ),
)
"""In the order of their weight."""
