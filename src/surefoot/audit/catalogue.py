"""Layer 6: every finding code of the audit: how bad it is, what it means, who repairs it and how.

Invariant: a code's meaning never changes; a code that is no longer reported keeps its line. docs/audit.md has a
section for each, and a test compares the two.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Final, NamedTuple

__all__ = ["CATALOGUE", "CodeInfo", "Owner", "Part", "Severity"]


class Severity(IntEnum):
    """How bad a finding is."""

    NOTE = 0
    """Worth knowing; nobody has to act."""
    WARNING = 1
    """Costs certainty: a stack through this code is called unreliable, or has to be read with care."""
    ERROR = 2
    """Makes wrong answers: whoever believes the metadata, or the kernel's own walk, is misled."""


class Owner(StrEnum):
    """Who can repair a finding."""

    COMPILER = "compiler"
    ASSEMBLER = "assembler"
    ASSEMBLY = "hand-written assembly"
    LINKER = "linker"
    KERNEL = "kernel"


class Part(StrEnum):
    """The section of the report that a code belongs to."""

    COVERAGE = "Functions without metadata"
    PROOFS = "Metadata against the code"
    CALLS = "Calls that never return"
    FIXUPS = "Exception table"
    PATCHED = "Code that the kernel rewrites"
    ENTRY = "Exception entry and exit"
    TRAMPOLINES = "Return trampolines"
    PATCHING = "Functions that cannot be live patched"
    LIVE = "The running kernel against its image"


class CodeInfo(NamedTuple):
    """What a code stands for.

    Attributes:
        part: section of the report.
        severity: how bad.
        owner: who can repair it.
        title: a few words for headings.
        meaning: what is wrong, and what follows from it.
        fix: what its owner can do.
    """

    part: Part
    severity: Severity
    owner: Owner
    title: str
    meaning: str
    fix: str


_E, _W, _N = Severity.ERROR, Severity.WARNING, Severity.NOTE

CATALOGUE: Final[dict[str, CodeInfo]] = {
    "metadata-none": CodeInfo(
        Part.COVERAGE,
        _E,
        Owner.KERNEL,
        "no unwind metadata",
        "The image has no .debug_frame, .eh_frame or .sframe: nothing is known of any exception boundary in it.",
        "Build with -g or -fasynchronous-unwind-tables, or with the assembler's --gsframe.",
    ),
    "asm-leaf": CodeInfo(
        Part.COVERAGE,
        _W,
        Owner.ASSEMBLY,
        "leaf assembly without metadata",
        "The function writes neither SP nor x29 nor x30 and calls nothing: an exception inside it could be unwound "
        "exactly, but no metadata says so and the walk has to give up.",
        "Put .cfi_startproc and .cfi_endproc around the body: the default rule holds at every instruction.",
    ),
    "asm-frame": CodeInfo(
        Part.COVERAGE,
        _W,
        Owner.ASSEMBLY,
        "assembly with an ordinary frame, without metadata",
        "The function saves x29 and x30 in a frame record as compiled code does, but no metadata says where: an "
        "exception inside it ends the walk.",
        "Annotate the push and the pop of the frame with .cfi directives.",
    ),
    "asm-irregular": CodeInfo(
        Part.COVERAGE,
        _W,
        Owner.ASSEMBLY,
        "assembly that moves SP, x29 or x30 its own way",
        "The function writes SP, x29 or x30 in a way that no default rule describes, and has no metadata.",
        "Annotate every instruction that changes them, or keep these registers out of the function.",
    ),
    "entry-code": CodeInfo(
        Part.COVERAGE,
        _N,
        Owner.KERNEL,
        "exception entry, context switch and stack switch",
        "The code changes stacks or builds struct pt_regs. It runs with exceptions masked, and walkers know it by "
        "name.",
        "Nothing, as long as its stack effect stays as documented in entry.S.",
    ),
    "trampoline-code": CodeInfo(
        Part.COVERAGE,
        _N,
        Owner.KERNEL,
        "tracing trampolines",
        "The code runs between a function and its caller, with the return address in a place of its own.",
        "Nothing, as long as walkers recover the return address from the task's bookkeeping.",
    ),
    "hypervisor-code": CodeInfo(
        Part.COVERAGE,
        _N,
        Owner.KERNEL,
        "code of another exception level",
        "The code runs at EL2 or swaps the registers of host and guest; it is on no kernel stack that is walked.",
        "Nothing.",
    ),
    "boot-code": CodeInfo(
        Part.COVERAGE,
        _N,
        Owner.KERNEL,
        "boot, suspend, hibernation, kexec and firmware",
        "The code runs before the kernel's stacks are set up, through another mapping, or on the firmware's terms.",
        "Nothing.",
    ),
    "linker-stub": CodeInfo(
        Part.COVERAGE,
        _W,
        Owner.LINKER,
        "code that the linker made, without metadata",
        "A veneer or an erratum stub holds an instruction of a function that has metadata, outside of that function. "
        "An exception there ends the walk.",
        "Let the linker write metadata for its stubs: the rule of the place they return to holds in them.",
    ),
    "data-in-text": CodeInfo(
        Part.COVERAGE,
        _N,
        Owner.ASSEMBLY,
        "data between instructions",
        "Data lies in an executable section; it cannot be told from code but by its symbol.",
        "Move it to .rodata.",
    ),
    "sframe-missing": CodeInfo(
        Part.COVERAGE,
        _W,
        Owner.ASSEMBLER,
        "functions that .sframe leaves out",
        "The compiler described these functions in call frame information, and the assembler wrote no SFrame for "
        "them: a kernel that unwinds by .sframe alone gives up there.",
        "See the assembler's warnings; with a shadow call stack GNU as refuses every function that reloads x30 "
        "first.",
    ),
    "rules-at-calls-only": CodeInfo(
        Part.PROOFS,
        _E,
        Owner.COMPILER,
        "rules that hold at calls only",
        "The function's rules do not follow its prologue or epilogue. A return address in it can be unwound; at an "
        "exception inside the prologue or epilogue the rule gives a wrong caller.",
        "Compile with asynchronous unwind tables (rustc -Cforce-unwind-tables=y -Zuse-sync-unwind=n, clang "
        "-fasynchronous-unwind-tables): without them LLVM states the frame from the end of the prologue on only.",
    ),
    "restored-early": CodeInfo(
        Part.PROOFS,
        _E,
        Owner.COMPILER,
        "x29 restored before the rules stop using it",
        "x29 gets the caller's value back while the row still computes the CFA from it. At the instructions up to "
        "the next row the rule finds the caller's frame instead of this one and skips a function.",
        "State the CFA by SP at the instruction behind the load of x29, not at the one that moves SP.",
    ),
    "lr-overwritten": CodeInfo(
        Part.PROOFS,
        _E,
        Owner.KERNEL,
        "x30 overwritten behind the compiler's back",
        "Inline assembly writes x30 (a run of `bl .+4`) while the row says that the return address is in it.",
        "Write the sequence as a function of its own in assembly with CFI, or save x30 where CFI says so.",
    ),
    "row-wrong": CodeInfo(
        Part.PROOFS,
        _E,
        Owner.COMPILER,
        "a row that is not so",
        "The row does not fit the machine state that the code makes on the way there.",
        "Compare the row with the instruction that leads to it, shown with the finding.",
    ),
    "exit-not-entry": CodeInfo(
        Part.PROOFS,
        _W,
        Owner.COMPILER,
        "a return that does not restore the entry state",
        "Control leaves the function while SP, x29 or x30 are not, or not surely, what they were on entry.",
        "If the path cannot be taken, end it with a trap so that this can be seen.",
    ),
    "stub-detour": CodeInfo(
        Part.PROOFS,
        _N,
        Owner.LINKER,
        "a detour through a stub of the linker",
        "The linker moved an instruction out of the function (Cortex-A53 erratum 843419) and branches to it and "
        "back. The function's rules are right; the stub has none.",
        "Let the linker write metadata for its stubs, or build without --fix-cortex-a53-843419.",
    ),
    "slot-below-sp": CodeInfo(
        Part.PROOFS,
        _E,
        Owner.COMPILER,
        "a slot below SP",
        "The row names a slot below SP: the next exception overwrites it with its struct pt_regs.",
        "Reload the register before SP moves above its slot, or state where it is then: on a shadow call stack at "
        "[x18 - 8].",
    ),
    "signing-wrong": CodeInfo(
        Part.PROOFS,
        _E,
        Owner.COMPILER,
        "a row that says wrongly whether the return address is signed",
        "The row says that the return address carries no pointer authentication code where it does, or the other way "
        "round. Whoever strips or authenticates by the row takes a wrong address for the caller's.",
        "Emit DW_CFA_AARCH64_negate_ra_state (.cfi_negate_ra_state) at the instruction behind PACIASP and AUTIASP.",
    ),
    "signing-open": CodeInfo(
        Part.PROOFS,
        _W,
        Owner.COMPILER,
        "a row whose word on signing depends on the path",
        "Paths that meet here disagree on whether the return address is signed, or pass an instruction that is not "
        "followed.",
        "Sign before paths part and authenticate behind where they meet, or on each.",
    ),
    "unproven-jump": CodeInfo(
        Part.PROOFS,
        _W,
        Owner.COMPILER,
        "a jump whose targets are not known",
        "The function has an indirect jump that is not a table in a known shape, so no row of it is proved.",
        "Describe jump tables in the object file, or compile the function without them (-fno-jump-tables).",
    ),
    "unproven-unreached": CodeInfo(
        Part.PROOFS,
        _N,
        Owner.COMPILER,
        "code that no path reaches",
        "No path from the function's entry leads to these instructions, so their rows cannot be proved.",
        "Nothing; often the code behind a call to a function that never returns.",
    ),
    "unproven-state": CodeInfo(
        Part.PROOFS,
        _W,
        Owner.COMPILER,
        "a row whose truth depends on the path",
        "Paths that meet here disagree on what the row speaks of, or pass an instruction that is not followed.",
        "Keep one frame layout at a join.",
    ),
    "unproven-rows": CodeInfo(
        Part.PROOFS,
        _W,
        Owner.COMPILER,
        "rows that could not be used",
        "The function's rows could not be decoded to their end, or its instructions are not in the file.",
        "See `surefoot sframe check`, or the reason in the message.",
    ),
    "call-at-end": CodeInfo(
        Part.CALLS,
        _W,
        Owner.KERNEL,
        "a return address in the next function",
        "The last instruction is a call to a function that never returns, and the next function follows at once: the "
        "return address is that function's first byte. The kernel's livepatch check compares raw return addresses, "
        "so it takes the neighbour for running and misses the caller.",
        "Look return addresses up one instruction earlier (klp_check_stack_func), or end such functions with a trap.",
    ),
    "noreturn-returns": CodeInfo(
        Part.CALLS,
        _E,
        Owner.KERNEL,
        "a return in a function that is declared not to return",
        "The compiler takes the function never to return and puts nothing behind its calls, but its code has a "
        "return: where that is taken, the caller runs on into whatever follows.",
        "End every path with a call that never returns or with BUG(), or drop the declaration.",
    ),
    "noreturn-undeclared": CodeInfo(
        Part.CALLS,
        _N,
        Owner.KERNEL,
        "a function that never returns and is not declared so",
        "No path through the function returns, which the compiler did not know where it compiled a call of it: it "
        "went on behind the call with code that nothing reaches, and whose rows cannot be proved.",
        "Declare the function __noreturn, unless it has to look like others (a hook, a stub).",
    ),
    "fixup-leaves-function": CodeInfo(
        Part.FIXUPS,
        _W,
        Owner.KERNEL,
        "a fixup in another function",
        "After a fault control continues in another function than the one that faulted, with its frame.",
        "Keep the fixup inside the function.",
    ),
    "fixup-rows-differ": CodeInfo(
        Part.FIXUPS,
        _E,
        Owner.KERNEL,
        "rows at the fault and at its fixup disagree",
        "A fault changes pc only, but the rows before and after it describe different frames: one of them is wrong.",
        "Move the fixup to a place with the same frame.",
    ),
    "alternative-frame": CodeInfo(
        Part.PATCHED,
        _E,
        Owner.KERNEL,
        "a replacement that changes the frame",
        "An alternative writes SP, x29 or x30 otherwise than the instruction it replaces, in code whose rows know "
        "only the original.",
        "Keep both sequences to the same effect on SP, x29 and x30.",
    ),
    "alternative-assembly": CodeInfo(
        Part.PATCHED,
        _N,
        Owner.KERNEL,
        "a replacement that writes SP, x29 or x30, in code without metadata",
        "An alternative in assembly writes SP, x29 or x30 otherwise than the instruction it replaces.",
        "Nothing; metadata for this code would have to hold for both.",
    ),
    "jump-label-leaves": CodeInfo(
        Part.PATCHED,
        _W,
        Owner.COMPILER,
        "a static branch into another function",
        "A jump label's target lies in another function than its site.",
        "Keep both in one function.",
    ),
    "vectors-missing": CodeInfo(
        Part.ENTRY,
        _N,
        Owner.KERNEL,
        "no exception vectors",
        "The image has no symbol `vectors`: exception entry could not be examined.",
        "Nothing for a module; for a kernel keep the symbol.",
    ),
    "vector-shape": CodeInfo(
        Part.ENTRY,
        _W,
        Owner.KERNEL,
        "a vector that differs from its siblings",
        "The sixteen vectors come from one template; this one has other instructions than those of its level.",
        "Keep the vectors in one macro, so that what holds for one holds for all.",
    ),
    "stub-shape": CodeInfo(
        Part.ENTRY,
        _W,
        Owner.KERNEL,
        "an entry stub that differs from its siblings",
        "The stubs behind the vectors come from one template; this one has other instructions than those of its "
        "level.",
        "Keep the stubs in one macro, so that what holds for one holds for all.",
    ),
    "stub-calls": CodeInfo(
        Part.ENTRY,
        _W,
        Owner.KERNEL,
        "an entry stub without one call",
        "An entry stub calls its C handler exactly once, so that one return address in it is legal; this one does "
        "not.",
        "Call C code once from each stub.",
    ),
    "preempt-in-return": CodeInfo(
        Part.TRAMPOLINES,
        _E,
        Owner.KERNEL,
        "a task can be preempted while its return address is on no stack",
        "ftrace_return_to_handler calls the scheduler synchronously. A task that is switched out there has no "
        "exception boundary: the kernel's reliable walk succeeds, and leaves out the function that is returned into.",
        "Keep preemption off until return_to_handler has the address in x30, or refuse return addresses inside "
        "return_to_handler.",
    ),
    "trampoline-window": CodeInfo(
        Part.TRAMPOLINES,
        _N,
        Owner.KERNEL,
        "instructions at which the return address is in a place of its own",
        "Inside the trampoline the return address is in the task's bookkeeping or in a scratch register.",
        "Nothing, as long as walkers know the window.",
    ),
    "klp-disabled": CodeInfo(
        Part.PATCHING,
        _N,
        Owner.KERNEL,
        "the kernel has no live patching",
        "The image was built without CONFIG_LIVEPATCH; what follows tells which functions could be patched.",
        "Build with CONFIG_LIVEPATCH, or patch with the machine stopped.",
    ),
    "site-none": CodeInfo(
        Part.PATCHING,
        _N,
        Owner.KERNEL,
        "functions without a patch site",
        "The functions have no entry in the table of patch sites, for the reason given.",
        "Where it is not on purpose, compile the file without CC_FLAGS_FTRACE removed.",
    ),
    "site-short": CodeInfo(
        Part.PATCHING,
        _W,
        Owner.COMPILER,
        "a function that ends inside its patch site",
        "The function is shorter than the instructions that ftrace patches at its entry.",
        "Pad the function to the length of its patch site.",
    ),
    "site-literal-missing": CodeInfo(
        Part.PATCHING,
        _W,
        Owner.COMPILER,
        "a patch site without room for its operations",
        "The kernel is built for CALL_OPS, but no two NOPs lie before this function.",
        "Compile with -fpatchable-function-entry=4,2 throughout.",
    ),
    "site-misaligned": CodeInfo(
        Part.PATCHING,
        _W,
        Owner.COMPILER,
        "a patch site whose literal is not aligned",
        "The literal before the function is not aligned to eight bytes: the kernel drops the site without a word.",
        "Align functions to eight bytes (-falign-functions=8 or -fmin-function-alignment=8).",
    ),
    "site-stray": CodeInfo(
        Part.PATCHING,
        _W,
        Owner.LINKER,
        "a patch site at which no function starts",
        "The table of patch sites has an entry that belongs to no function.",
        "Discard the entry together with its function.",
    ),
    "live-unexplained": CodeInfo(
        Part.LIVE,
        _E,
        Owner.KERNEL,
        "live words that no mechanism explains",
        "The text in memory differs from the image in a way that no table of the image announces: the metadata does "
        "not describe the code that runs.",
        "Find out who wrote there: a debugger, an out-of-tree patcher, or memory corruption.",
    ),
    "live-verdict": CodeInfo(
        Part.LIVE,
        _E,
        Owner.KERNEL,
        "a function that is proved in the image but not as it runs",
        "Over the words in memory the function's rules no longer hold everywhere.",
        "See what was patched there, listed with the finding.",
    ),
}
"""Every code, in the order of the report."""
