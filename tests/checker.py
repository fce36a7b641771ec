"""An independent judge of traces: does every return address follow a call that can lead to the frame below it?

Scalar code with an instruction decoder of its own. It reads the code's columns and the frames, and knows nothing of
how the walker came to them.
"""

from __future__ import annotations

from bisect import bisect_right

from surefoot.unwind.code import CodeMap

__all__ = ["Checker"]

_MAX_TAIL = 12
_BOTTOMS = ("ret_from_fork", "__primary_switched", "__secondary_switched")
"""Functions at the bottom of stacks that do not begin with an exception."""


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) & 1 else value


class Checker:
    """Judges the traces of one code map.

    Args:
        code: functions, words and labels.
    """

    def __init__(self, code: CodeMap) -> None:
        self.starts = [int(v) for v in code.functions.start]
        self.ends = [int(v) for v in code.functions.end]
        self.names = code.functions.names
        self.ranges = [int(v) for v in code.text.addr]
        self.offsets = [int(v) for v in code.text.word_off]
        self.words = code.text.words
        self.labels = code.labels
        self.redirects = [(int(old), int(new)) for old, new in code.redirects.tolist()]
        self._leads: dict[tuple[int, int], bool] = {}

    def function(self, addr: int) -> int:
        """Give the function that holds an address, -1 for none."""
        index = bisect_right(self.starts, addr) - 1
        return index if index >= 0 and addr < self.ends[index] else -1

    def word(self, addr: int) -> int | None:
        """Give an instruction word."""
        index = bisect_right(self.ranges, addr) - 1
        if index < 0 or addr % 4:
            return None
        at = self.offsets[index] + (addr - self.ranges[index]) // 4
        return int(self.words[at]) if at < self.offsets[index + 1] else None

    def is_trace(self, frames: list[tuple[int, bool]]) -> bool:
        """Whether frames, innermost first as (pc, exact), are a chain of calls and exceptions of this code."""
        below = -1
        for depth, (pc, exact) in enumerate(frames):
            function = self.function(pc if exact else pc - 1)
            if function < 0:
                return False
            fork = self.labels.get("ret_from_fork")
            if depth and exact and not self._is_entry(below):
                return False
            if depth and not exact and not self._may_call(pc, below):
                return False
            if not depth and not exact and pc != fork and not self._may_call(pc, self._named("cpu_switch_to")):
                return False
            below = function
        return self._is_entry(below) or below in {self._named(name) for name in _BOTTOMS}

    def _named(self, name: str) -> int:
        return self.function(self.labels.get(name, 0))

    def _is_entry(self, function: int) -> bool:
        """Whether a function is exception entry code, whose frame is the interrupted registers."""
        low, high = self.labels.get("__entry_text_start", 0), self.labels.get("__entry_text_end", 0)
        return function >= 0 and low <= self.starts[function] < high

    def _may_call(self, ra: int, callee: int) -> bool:
        """Whether the word before a return address is a call that can lead to a function."""
        handler = self._named("return_to_handler")
        word = self.word(ra - 4)
        if word is None:
            return False
        if (word & 0xFFFF_FC1F) == 0xD63F_0000 or (word & 0xFEFF_F800) == 0xD63F_0800:
            return True
        if word >> 26 != 0b100101:
            return False
        if callee == handler >= 0:
            return True  # the traced function has gone already
        return self._leads_to((ra - 4 + 4 * _signed(word & 0x3FF_FFFF, 26)) % 2**64, callee)

    def _leads_to(self, target: int, goal: int) -> bool:
        if (target, goal) not in self._leads:
            self._leads[target, goal] = self._search(target, goal)
        return self._leads[target, goal]

    def _search(self, target: int, goal: int) -> bool:
        todo, seen = [(self._past_veneer(target), 0)], set[int]()
        while todo:
            addr, depth = todo.pop()
            function = self.function(addr)
            if function == goal >= 0:
                return True
            if function < 0 or function in seen or depth > _MAX_TAIL:
                continue
            seen.add(function)
            todo += [(new, depth + 1) for old, new in self.redirects if self.function(old) == function]
            for at in range(self.starts[function], self.ends[function], 4):
                away = self._leaves(at)
                if away == -1:
                    return True
                if away is not None and self.function(away) != function:
                    todo.append((self._past_veneer(away), depth + 1))
        return False

    def _leaves(self, at: int) -> int | None:
        """Where a branch at an address goes: -1 for through a register, None for no branch."""
        word = self.word(at)
        if word is None:
            return None
        if (word & 0xFFFF_FC1F) == 0xD61F_0000 or (word & 0xFEFF_F800) == 0xD61F_0800:
            return -1
        if word >> 26 == 0b000101:
            return (at + 4 * _signed(word & 0x3FF_FFFF, 26)) % 2**64
        if word >> 24 == 0x54 or word >> 25 & 0x3F == 0b011010:
            return (at + 4 * _signed(word >> 5 & 0x7FFFF, 19)) % 2**64
        if word >> 25 & 0x3F == 0b011011:
            return (at + 4 * _signed(word >> 5 & 0x3FFF, 14)) % 2**64
        return None

    def _past_veneer(self, addr: int) -> int:
        """Follow `[bti c;] adrp x16; add x16, x16; br x16`."""
        at = addr + 4 if self.word(addr) == 0xD503_245F else addr
        page, low, jump = (self.word(at + offset) or 0 for offset in (0, 4, 8))
        if (page & 0x9F00_001F) != 0x9000_0010 or (low & 0xFFC0_03FF) != 0x9100_0210 or jump != 0xD61F_0200:
            return addr
        pages = _signed((page >> 5 & 0x7FFFF) << 2 | page >> 29 & 3, 21)
        return ((at & ~0xFFF) + (pages << 12) + (low >> 10 & 0xFFF)) % 2**64
