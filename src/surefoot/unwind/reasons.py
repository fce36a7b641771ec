"""Layer 5: the closed list of reasons why a stack is not reliable.

A reason is data: it comes with the frame and the address it speaks of. The list is closed: every place that
gives up names one of these, docs/reasons.md explains each, and a test ties the two together.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

__all__ = ["SENTENCES", "Reason"]


class Reason(IntEnum):
    """Why a walk could not be called reliable; NONE means that it is."""

    NONE = 0
    # The walk could not begin.
    ON_CPU = 1
    NO_REGISTERS = 2
    SWITCHING = 3
    SP_OUTSIDE = 4
    # The stack itself.
    FP_MISALIGNED = 10
    RECORD_OUTSIDE = 11
    STACK_ORDER = 12
    UNREADABLE = 13
    TOO_DEEP = 14
    RECORD_BELOW_SP = 15
    SP_UNKNOWN = 16
    # Frame records with metadata.
    METADATA_TYPE = 20
    FINAL_ELSEWHERE = 21
    END_UNEXPECTED = 22
    REGS_OUTSIDE = 23
    REGS_SP = 24
    REGS_UNEXPECTED = 25
    # Exception boundaries.
    EXCEPTION_BOUNDARY = 30
    NO_RULE_AT_BOUNDARY = 31
    ENTRY_CODE = 32
    TRAMPOLINE_WINDOW = 33
    CALLS_ONLY_METADATA = 34
    SLOT_BELOW_SP = 35
    SDEI_BOUNDARY = 36
    # Code and metadata.
    NOT_TEXT = 40
    NO_METADATA = 41
    RULE_REFUSED = 42
    RULE_UNDEFINED = 43
    RA_NOT_SAVED = 44
    RULE_RECORD_MISMATCH = 45
    TEXT_CHANGED = 46
    RULE_REFUTED = 47
    RULE_UNPROVEN = 48
    ASSEMBLY = 49
    FIRMWARE = 50
    # Call sites.
    NOT_A_CALL = 60
    CALL_MISMATCH = 61
    CALL_UNKNOWN = 62
    # Rewritten return addresses.
    FGRAPH_NO_MATCH = 70
    FGRAPH_BROKEN = 71
    FGRAPH_MISMATCH = 72
    KRETPROBE_NO_MATCH = 73
    KRETPROBE_BROKEN = 74
    IN_FTRACE_CALLER = 75


SENTENCES: Final[dict[Reason, str]] = {
    Reason.NONE: "every step is backed by evidence and the final record was reached",
    Reason.ON_CPU: "the task runs on a CPU, where the kernel's own reliable walk is not defined",
    Reason.NO_REGISTERS: "the task runs, but the registers of its CPU are not in the dump",
    Reason.SWITCHING: "its CPU was caught between two tasks",
    Reason.SP_OUTSIDE: "the stack pointer lies on none of the task's stacks",
    Reason.FP_MISALIGNED: "the frame pointer is not aligned to 8 bytes",
    Reason.RECORD_OUTSIDE: "the next frame record lies outside the stacks that the task may still be on",
    Reason.STACK_ORDER: "the walk would change stacks at a place or in a direction where no code does",
    Reason.UNREADABLE: "stack memory could not be read",
    Reason.TOO_DEEP: "more frames than a kernel stack can hold",
    Reason.RECORD_BELOW_SP: "the frame record lies below the stack pointer",
    Reason.SP_UNKNOWN: "the rule needs the stack pointer, which is not known here",
    Reason.METADATA_TYPE: "a frame record with metadata has an unknown type",
    Reason.FINAL_ELSEWHERE: "a final record stands where the task's stack does not end",
    Reason.END_UNEXPECTED: "a record with metadata follows a function that does not stand at an end of a stack",
    Reason.REGS_OUTSIDE: "the saved registers of an exception do not lie on one stack",
    Reason.REGS_SP: "the saved stack pointer of an exception does not lie right above the saved registers",
    Reason.REGS_UNEXPECTED: "the saved registers of an exception are not those of kernel code",
    Reason.EXCEPTION_BOUNDARY: "interrupted at an arbitrary instruction, which frame records alone cannot cross",
    Reason.NO_RULE_AT_BOUNDARY: "interrupted in code without unwind metadata: LR may or may not be a caller",
    Reason.ENTRY_CODE: "interrupted in exception entry or exit code",
    Reason.TRAMPOLINE_WINDOW: "interrupted in a trampoline, where the return address is in flux",
    Reason.CALLS_ONLY_METADATA: "interrupted in code whose unwind tables are exact at calls only (Rust)",
    Reason.SLOT_BELOW_SP: "the rule names a slot below the stack pointer, which an exception overwrites",
    Reason.SDEI_BOUNDARY: "an SDEI event interrupted the code below without leaving its registers on the stack",
    Reason.NOT_TEXT: "the address is not that of an instruction of a known function",
    Reason.NO_METADATA: "a function without unwind metadata, and no direct call vouches for its frame record",
    Reason.RULE_REFUSED: "the unwind rule here is of a kind that is not followed, or was not decoded",
    Reason.RULE_UNDEFINED: "the metadata says that no caller can be found from here",
    Reason.RA_NOT_SAVED: "at this call the metadata says the return address is still in LR, which the call destroys",
    Reason.RULE_RECORD_MISMATCH: "the rule and the frame record name different callers",
    Reason.TEXT_CHANGED: "the code here differs from the image in a way no known mechanism explains",
    Reason.RULE_REFUTED: "the rule here has been refuted by the code",
    Reason.RULE_UNPROVEN: "the rule here has not been proved (strict)",
    Reason.ASSEMBLY: "assembly that breaks the procedure call standard",
    Reason.FIRMWARE: "firmware was called from here; its frames are unknown",
    Reason.NOT_A_CALL: "the instruction before a return address is not a call",
    Reason.CALL_MISMATCH: "the call before a return address cannot lead to the frame below it",
    Reason.CALL_UNKNOWN: "the instruction before a return address could not be read",
    Reason.FGRAPH_NO_MATCH: "no entry of the function-graph return stack belongs to this frame",
    Reason.FGRAPH_BROKEN: "the function-graph return stack is damaged",
    Reason.FGRAPH_MISMATCH: "the function-graph entry of this frame is of another function",
    Reason.KRETPROBE_NO_MATCH: "no kretprobe instance belongs to this frame",
    Reason.KRETPROBE_BROKEN: "the list of kretprobe instances is damaged",
    Reason.IN_FTRACE_CALLER: "a tracer sends the task elsewhere (livepatch), or ftrace_caller's records are missing",
}
"""One sentence per reason, as printed."""
