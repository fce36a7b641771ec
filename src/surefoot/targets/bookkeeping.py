"""Layer 7: the return addresses that tracing has taken off the stack, out of each task's own lists.

Invariant: whatever the memory holds, reading ends. A list that does not follow its own rules is given as far as
it went and marked broken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from surefoot.targets.layouts import KernelLayout
from surefoot.targets.reading import DrgnMemory, u32_at, u64_at
from surefoot.targets.tasks import RawTask
from surefoot.unwind.state import Bookkeeping

__all__ = ["read_fgraph", "read_kretprobes"]

# kernel/trace/fgraph.c of Linux 7.3: macros, which leave no trace in debug information. They came together with
# the array of words that layouts.py probes for (v6.11).
_FRAME_OFFSET_MASK: Final = 0x3FF
"""FGRAPH_FRAME_OFFSET_MASK: bits 0-9 of a control word, distance in words back to the start of the frame."""
_TYPE_SHIFT: Final = 10
_TYPE_MASK: Final = 0x3
"""FGRAPH_TYPE_SHIFT, FGRAPH_TYPE_MASK: 0 reserved (being pushed), 1 bitmap (a frame), 2 data (part of one)."""
_TYPE_RESERVED: Final = 0
_TYPE_BITMAP: Final = 1
_TYPE_DATA: Final = 2
_DATA_SHIFT: Final = 12
_DATA_MASK: Final = 0x1F
"""FGRAPH_DATA_SHIFT, FGRAPH_DATA_MASK: bits 12-16 of a data word, number of words of data before it less one."""
_MAX_WORDS: Final = 65536 // 8
"""SHADOW_STACK_SIZE is one page; pages of arm64 have at most 64 KiB."""
_MAX_STRUCTS: Final = 50
"""FTRACE_RETFUNC_DEPTH of kernels with an array of structs."""
_MAX_INSTANCES: Final = 4096
"""A task cannot be inside more kretprobed calls than fit on its stack."""


@dataclass(slots=True)
class _Lists:
    """The columns of a `Bookkeeping` while they grow."""

    first: list[int] = field(default_factory=lambda: [0])
    ret: list[int] = field(default_factory=list)
    key: list[int] = field(default_factory=list)
    func: list[int] = field(default_factory=list)
    broken: list[bool] = field(default_factory=list)

    def add(self, ret: int, key: int, func: int) -> None:
        self.ret.append(ret)
        self.key.append(key)
        self.func.append(func)

    def end_task(self, *, broken: bool) -> None:
        self.first.append(len(self.ret))
        self.broken.append(broken)

    def columns(self) -> Bookkeeping:
        ret, key, func = (np.array(column, dtype=np.uint64) for column in (self.ret, self.key, self.func))
        return Bookkeeping(
            np.array(self.first, dtype=np.int64), ret, key, func, np.array(self.broken, dtype=np.bool_)
        )


def read_fgraph(memory: DrgnMemory, layout: KernelLayout, tasks: Sequence[RawTask]) -> Bookkeeping:
    """Read the function-graph return stacks of all tasks, newest entry first.

    Source:
        kernel/trace/fgraph.c of Linux 7.3: get_ret_stack, ftrace_graph_get_ret_stack.
    """
    lists = _Lists()
    is_known = layout.has(
        "task.ret_stack", "task.curr_ret_stack", "sizeof.ret_stack", "ret_stack.retp", "ret_stack.func"
    )
    for task in tasks:
        stack = u64_at(task.block, layout["task.ret_stack"]) if "task.ret_stack" in layout.numbers else 0
        if not stack:
            lists.end_task(broken=False)
        elif not is_known:  # no retp: entries cannot be told apart (HAVE_FUNCTION_GRAPH_RET_ADDR_PTR is off)
            lists.end_task(broken=True)
        elif layout["ret_stack.words"]:
            lists.end_task(broken=not _fgraph_words(memory, layout, task, stack, lists))
        else:
            lists.end_task(broken=not _fgraph_structs(memory, layout, task, stack, lists))
    return lists.columns()


def _signed32(value: int) -> int:
    """Give a 32-bit word as the int it is."""
    return value - (value >> 31 << 32)


def _fgraph_words(memory: DrgnMemory, layout: KernelLayout, task: RawTask, stack: int, lists: _Lists) -> bool:
    """Read one return stack of words; False if it is broken.

    A frame is sizeof(struct ftrace_ret_stack) / 8 words and a control word behind them, then any number of blocks
    of data, each with its control word behind it. Every control word's distance leads to the frame's first word.
    """
    top = _signed32(u32_at(task.block, layout["task.curr_ret_stack"]))
    if top == 0:
        return True
    if not 0 < top <= _MAX_WORDS:
        return False
    block = memory.read(stack, 8 * top)
    if block is None:
        return False
    frame_words = layout["sizeof.ret_stack"] // 8
    while top > 0:
        base, is_pushed = _frame_start(block, top, frame_words)
        if base < 0:
            return False
        if is_pushed:
            frame = block[8 * base : 8 * (base + frame_words)]
            lists.add(*(u64_at(frame, layout[f"ret_stack.{name}"]) for name in ("ret", "retp", "func")))
        top = base
    return True


def _frame_start(block: bytes, top: int, frame_words: int) -> tuple[int, bool]:
    """Give the index of the first word of the frame that ends at word `top`, and whether it is complete.

    A reserved frame has no counterpart on the stack yet, because function_graph_enter_regs rewrites the return
    address after it is done with the frame; its retp may be left over from an older frame. It must not match.

    Returns:
        -1 if the control words of the frame disagree.
    """
    base = -1
    while True:
        control = u64_at(block, 8 * (top - 1))
        kind, back = control >> _TYPE_SHIFT & _TYPE_MASK, control & _FRAME_OFFSET_MASK
        start = top - 1 - back
        if back < frame_words or start < 0 or base not in {-1, start}:
            return -1, False
        base = start
        if kind in {_TYPE_BITMAP, _TYPE_RESERVED}:
            return base if back == frame_words else -1, kind == _TYPE_BITMAP
        if kind != _TYPE_DATA:
            return -1, False
        top -= 2 + (control >> _DATA_SHIFT & _DATA_MASK)
        if top - 1 < base + frame_words:
            return -1, False


def _fgraph_structs(memory: DrgnMemory, layout: KernelLayout, task: RawTask, stack: int, lists: _Lists) -> bool:
    """Read one return stack that is an array of structs (before v6.11); False if it is broken.

    curr_ret_stack is the index of the newest entry, -1 for none; arch/arm64 stored a depth biased by
    FTRACE_NOTRACE_DEPTH for functions that are not traced, which is refused here.
    """
    newest = _signed32(u32_at(task.block, layout["task.curr_ret_stack"]))
    if newest == -1:
        return True
    size = layout["sizeof.ret_stack"]
    if not 0 <= newest < _MAX_STRUCTS:
        return False
    block = memory.read(stack, (newest + 1) * size)
    if block is None:
        return False
    for at in range(newest * size, -1, -size):
        lists.add(*(u64_at(block, at + layout[f"ret_stack.{name}"]) for name in ("ret", "retp", "func")))
    return True


def read_kretprobes(memory: DrgnMemory, layout: KernelLayout, tasks: Sequence[RawTask]) -> Bookkeeping:
    """Read the kretprobe instances of all tasks, newest first.

    Source:
        kernel/kprobes.c of Linux 7.3: __kretprobe_find_ret_addr; include/linux/kprobes.h: struct kretprobe_instance.
    """
    lists = _Lists()
    is_known = layout.has("kretprobe.llist", "kretprobe.ret_addr", "kretprobe.fp")
    head = layout.numbers.get("task.kretprobe_instances")
    for task in tasks:
        node = 0 if head is None else u64_at(task.block, head)
        lists.end_task(broken=bool(node) and not (is_known and _instances(memory, layout, node, lists)))
    return lists.columns()


def _instances(memory: DrgnMemory, layout: KernelLayout, node: int, lists: _Lists) -> bool:
    """Follow one list of instances; False if it is broken."""
    link = layout["kretprobe.llist"]
    size = max(layout["kretprobe.llist"], layout["kretprobe.ret_addr"], layout["kretprobe.fp"]) + 8
    seen: set[int] = set()
    while node:
        block = memory.read(node - link, size) if node % 8 == 0 else None
        if block is None or node in seen or len(seen) > _MAX_INSTANCES:
            return False
        seen.add(node)
        lists.add(u64_at(block, layout["kretprobe.ret_addr"]), u64_at(block, layout["kretprobe.fp"]), 0)
        node = u64_at(block, link)
    return True
