"""Linux 7.3's arch_stack_walk_reliable() for arm64 once more, one task and one word at a time.

Written from the kernel's behaviour (arch/arm64/kernel/stacktrace.c, asm/stacktrace/common.h, kernel/trace/fgraph.c:
ftrace_graph_ret_addr, kernel/kprobes.c: kretprobe_find_ret_addr), not from surefoot's walker, whose arrays it only
reads. It gives the frames of the plain walk, and whether the reliable walk accepts it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from surefoot.unwind.state import Layout, Stacks, Start, Tasks

__all__ = ["KernelWalk", "kernel_walk"]

_U64 = (1 << 64) - 1
FRAME, REGS_PC, TASK, CALLER = "frame", "regs", "task", "caller"


class _Refused(Exception):
    """-EINVAL."""


@dataclass
class KernelWalk:
    """Frames as (pc, source), and the verdict of the reliable walk."""

    frames: list[tuple[int, str]] = field(default_factory=list)
    reliable: bool = False


@dataclass
class _Entry:
    ret: int
    key: int


class _State:
    """struct kunwind_state."""

    def __init__(self, stacks: Stacks, tasks: Tasks, layout: Layout, labels: dict[str, int], task: int) -> None:
        self.stacks, self.layout = stacks, layout
        self.final = int(tasks.final_record[task])
        start = Start(int(tasks.start[task]))
        self.source = {Start.BLOCKED: TASK, Start.REGS: REGS_PC, Start.CALLER: CALLER}[start]
        self.pc, self.fp = self.strip(int(tasks.pc[task])), int(tasks.fp[task])
        self.current: list[int] | None = None  # [low, high, index in stacks]
        self.unused = [
            [int(stacks.low[i]), int(stacks.high[i]), int(i)] for i in tasks.stacks[task].tolist() if i >= 0
        ]
        self.handler = labels.get("return_to_handler")
        self.trampoline = labels.get("__kretprobe_trampoline")
        self.fgraph = self._entries(tasks.fgraph, task)
        self.graph_idx = 0
        self.probes = self._entries(tasks.kretprobe, task)
        self.kr_cur = -1

    @staticmethod
    def _entries(book: object, task: int) -> list[_Entry]:
        first, ret, key = book.first, book.ret, book.key  # type: ignore[attr-defined]
        return [_Entry(int(ret[j]), int(key[j])) for j in range(int(first[task]), int(first[task + 1]))]

    def strip(self, addr: int) -> int:
        return (addr | self.layout.pac_mask) if addr >> 55 & 1 else addr

    def word(self, stack: list[int], addr: int) -> int:
        index = stack[2]
        if addr < int(self.stacks.captured[index]):
            raise _Refused
        return int(
            self.stacks.words[int(self.stacks.word_off[index]) + (addr - int(self.stacks.captured[index])) // 8]
        )

    def find_stack(self, addr: int, size: int) -> list[int]:
        for stack in ([self.current] if self.current else []) + self.unused:
            if addr >= stack[0] and addr + size <= stack[1]:
                return stack
        raise _Refused

    def consume(self, stack: list[int], addr: int, size: int) -> None:
        if stack is not self.current:
            self.unused.remove(stack)
        self.current = [addr + size, stack[1], stack[2]]

    def recover(self) -> None:
        if self.handler is not None and self.pc == self.handler:
            self.pc = self._fgraph_ret_addr()
        if self.trampoline is not None and self.pc == self.trampoline:
            self.pc = self._kretprobe_ret_addr()

    def _fgraph_ret_addr(self) -> int:
        # idx counts entries from the oldest; 0 means "start at the newest", also after the oldest was found.
        at = self.graph_idx or len(self.fgraph)
        while at > 0:
            at -= 1
            entry = self.fgraph[len(self.fgraph) - 1 - at]
            if entry.key == self.fp and entry.ret != self.handler:
                self.graph_idx = at
                return entry.ret
        raise _Refused

    def _kretprobe_ret_addr(self) -> int:
        while True:
            at = self.kr_cur + 1
            while at < len(self.probes) and self.probes[at].ret == self.trampoline:
                at += 1
            if at >= len(self.probes) or self.probes[at].ret == 0:
                raise _Refused
            self.kr_cur = at
            if self.probes[at].key == self.fp:
                return self.probes[at].ret

    def step(self) -> bool:
        """kunwind_next; False at the end (-ENOENT)."""
        if self.fp % 8:
            raise _Refused
        stack = self.find_stack(self.fp, 16)
        new_fp, new_pc = self.word(stack, self.fp), self.word(stack, self.fp + 8)
        if new_fp == 0 and new_pc == 0:
            if not self.metadata():
                return False
        else:
            self.consume(stack, self.fp, 16)
            self.fp, self.pc, self.source = new_fp, new_pc, FRAME
        self.pc = self.strip(self.pc)
        self.recover()
        return True

    def metadata(self) -> bool:
        stack = self.find_stack(self.fp, 24)
        kind = self.word(stack, self.fp + 16)
        if kind == 1:
            if self.fp == self.final:
                return False
            raise _Refused
        if kind != 2:
            raise _Refused
        regs = self.fp - self.layout.pt_regs_stackframe
        stack = self.find_stack(regs, self.layout.pt_regs_size)
        self.pc = self.word(stack, regs + self.layout.pt_regs_pc)
        self.fp = self.word(stack, regs + self.layout.pt_regs_fp)
        self.consume(stack, regs, self.layout.pt_regs_size)
        self.source = REGS_PC
        return True


def kernel_walk(stacks: Stacks, tasks: Tasks, layout: Layout, labels: dict[str, int], task: int) -> KernelWalk:
    """Walk one task as Linux 7.3 does.

    The kernel's walk of a task without a stack gives no frames and is reliable; it refuses tasks that run.
    """
    start = Start(int(tasks.start[task]))
    if start is Start.NO_STACK:
        return KernelWalk(reliable=True)
    if start not in {Start.BLOCKED, Start.REGS, Start.CALLER}:
        return KernelWalk()
    result = KernelWalk()
    state = _State(stacks, tasks, layout, labels, task)
    crossed = False
    try:
        state.recover()
        while True:
            result.frames.append((state.pc, state.source))
            crossed |= state.source == REGS_PC
            if not state.step():
                break
    except _Refused:
        return result
    result.reliable = not crossed
    return result
