"""Layer 5: the few functions that the walker must know by name, because no metadata describes them.

Everything here is assembly of arch/arm64 whose stack effect is documented in the source named beside it. A
kernel that lacks a symbol simply has no function of that class.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import numpy as np

from surefoot.dtypes import Code
from surefoot.unwind.code import CodeMap, FunctionKind

__all__ = ["LABELS", "FunctionClass", "classify"]


class FunctionClass(IntEnum):
    """How the walker treats a function."""

    NORMAL = 0
    """By its rules and its frame record."""
    ENTRY = 1
    """Vectors and stubs of entry.S: as a caller, its frame is the struct pt_regs at SP."""
    FORK = 2
    """ret_from_fork (entry.S): the final record is at x29."""
    START = 3
    """__primary_switched, __secondary_switched (head.S): the final record is at x29."""
    IRQ_STACK = 4
    """call_on_irq_stack (entry.S): pushes {x29, x30} on the old stack, points x29 at it and changes stacks."""
    SWITCH = 5
    """cpu_switch_to (entry.S): SP, x29 and x30 of two tasks at once."""
    RETURN_TO_HANDLER = 6
    """return_to_handler (entry-ftrace.S): the return trampoline of function-graph tracing."""
    KRETPROBE = 7
    """__kretprobe_trampoline (probes/kprobes_trampoline.S)."""
    FTRACE_CALLER = 8
    """ftrace_caller and its stubs (entry-ftrace.S): the caller's return address is in x9 on entry."""
    SDEI = 9
    """__sdei_asm_handler (entry.S): a plain frame record at what is an exception boundary."""
    FIRMWARE = 10
    """__efi_rt_asm_wrapper (efi-rt-wrapper.S): calls code that is not the kernel's."""
    ASSEMBLY = 11
    """Any other SYM_CODE, and code that parks x29, x30 or SP elsewhere: suspend, hypervisor, idmap."""


_BY_NAME: Final[dict[str, FunctionClass]] = {
    "ret_from_fork": FunctionClass.FORK,
    "__primary_switched": FunctionClass.START,
    "__secondary_switched": FunctionClass.START,
    "call_on_irq_stack": FunctionClass.IRQ_STACK,
    "cpu_switch_to": FunctionClass.SWITCH,
    "return_to_handler": FunctionClass.RETURN_TO_HANDLER,
    "__kretprobe_trampoline": FunctionClass.KRETPROBE,
    "ftrace_caller": FunctionClass.FTRACE_CALLER,
    "ftrace_common": FunctionClass.FTRACE_CALLER,
    "ftrace_stub": FunctionClass.FTRACE_CALLER,
    "ftrace_stub_graph": FunctionClass.FTRACE_CALLER,
    "ftrace_stub_direct_tramp": FunctionClass.FTRACE_CALLER,
    "__sdei_asm_handler": FunctionClass.SDEI,
    "__sdei_handler_abort": FunctionClass.SDEI,
    "__efi_rt_asm_wrapper": FunctionClass.FIRMWARE,
    "__efi_rt_asm_recover": FunctionClass.FIRMWARE,
    "__cpu_suspend_enter": FunctionClass.ASSEMBLY,
    "cpu_resume": FunctionClass.ASSEMBLY,
    "_cpu_resume": FunctionClass.ASSEMBLY,
    "__guest_enter": FunctionClass.ASSEMBLY,
    "__guest_exit": FunctionClass.ASSEMBLY,
}

_BY_RANGE: Final[tuple[tuple[str, str, FunctionClass], ...]] = (
    ("__entry_text_start", "__entry_text_end", FunctionClass.ENTRY),
    ("__idmap_text_start", "__idmap_text_end", FunctionClass.ASSEMBLY),
    ("__hyp_idmap_text_start", "__hyp_idmap_text_end", FunctionClass.ASSEMBLY),
    ("__hyp_text_start", "__hyp_text_end", FunctionClass.ASSEMBLY),
    ("__relocate_new_kernel_start", "__relocate_new_kernel_end", FunctionClass.ASSEMBLY),
    ("__hibernate_exit_text_start", "__hibernate_exit_text_end", FunctionClass.ASSEMBLY),
)

LABELS: Final[tuple[str, ...]] = (*_BY_NAME, *(name for low, high, _ in _BY_RANGE for name in (low, high)))
"""Names of the symbols whose run-time addresses CodeMap.labels should hold."""


def classify(code: CodeMap) -> Code:
    """Give the class of every function.

    Args:
        code: functions and labels.

    Returns:
        (f,) uint8, `FunctionClass`.

    Source:
        arch/arm64/kernel/entry.S, entry-ftrace.S, head.S, vmlinux.lds.S of Linux 7.3.
    """
    functions = code.functions
    # Code that breaks the procedure call standard (SYM_CODE_*) is followed only where it is known by name.
    code_kind = functions.kind == FunctionKind.CODE
    result = np.where(code_kind, np.uint8(FunctionClass.ASSEMBLY), np.uint8(FunctionClass.NORMAL))
    for low, high, kind in _BY_RANGE:
        if low in code.labels and high in code.labels:
            first, last = np.searchsorted(
                functions.start, np.array([code.labels[low], code.labels[high]], dtype=np.uint64)
            )
            result[first:last] = kind
    named = [(code.labels[name], kind) for name, kind in _BY_NAME.items() if name in code.labels]
    if named:
        addrs = np.array([addr for addr, _ in named], dtype=np.uint64)
        index = functions.lookup(addrs, np.zeros(addrs.size, dtype=np.bool_))
        kinds = np.array([kind for _, kind in named], dtype=np.uint8)
        result[index[index >= 0]] = kinds[index >= 0]
    return result
