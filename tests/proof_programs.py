"""Random functions with right rules, as compilers lay them out: prologues, bodies with branches, two epilogues."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Final

from a64 import FP, LR, NOP, RET, SP, Asm, Row, add, ldp, ldr, mov, stp, str_, sub

__all__ = ["program"]

_ENTRY: Final = Row()
_CONDITIONS: Final = 14


@dataclass
class _Frame:
    """A frame: its size, where the pair of x29 and x30 lies from SP, and how rows speak of it."""

    size: int
    pair: int
    by_fp: bool
    sets_fp: bool

    @property
    def row(self) -> Row:
        """The row while the frame is whole."""
        saved = Row(self.size, SP, self.pair - self.size, self.pair - self.size + 8)
        return replace(saved, base=FP, off=self.size - self.pair) if self.by_fp else saved


class _Writer:
    """Writes one program."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.asm = Asm()
        self.labels = 0

    def fresh(self) -> str:
        """Give a new label."""
        self.labels += 1
        return f"l{self.labels}"

    def function(self, name: str, callees: list[str]) -> None:
        """Write a function."""
        choice = self.random
        self.asm.function(name)
        if choice.random() < 0.2:
            self.asm.put(0xD503_233F)  # paciasp
        if choice.random() < 0.3:
            self.body(None, callees, 3)
            if choice.random() < 0.4:
                self.asm.put(RET)
                return
        size = 16 * choice.randrange(2, 12)
        pushed = choice.random() < 0.5
        pair = 0 if pushed else 16 * choice.randrange(size // 16)
        sets = choice.random() < 0.8
        frame = _Frame(size, pair, by_fp=sets and choice.random() < 0.4, sets_fp=sets)
        self.open(frame, pushed=pushed)
        for last in (False, True):
            self.body(frame, callees, choice.randrange(2, 8))
            after = self.fresh()
            if not last:
                self.asm.cbz(choice.randrange(8), after)
            self.close(frame, pushed=pushed)
            if not last:
                self.asm.row(frame.row)
                self.asm.label(after)

    def open(self, frame: _Frame, *, pushed: bool) -> None:
        """Write a prologue, with a row at each step."""
        saved = Row(frame.size, SP, frame.pair - frame.size, frame.pair - frame.size + 8)
        if pushed and frame.size <= 496:
            self.asm.put(stp(FP, LR, SP, -frame.size, "pre"))
        else:
            self.asm.put(sub(SP, SP, frame.size))
            self.asm.row(Row(frame.size))
            self.asm.put(stp(FP, LR, SP, frame.pair))
        self.asm.row(saved)
        if self.random.random() < 0.5:
            self.asm.put(stp(19, 20, SP, 16 if frame.pair != 16 and frame.size > 31 else frame.pair))
            if frame.pair == 16 or frame.size <= 31:
                self.asm.words.pop()
        if frame.sets_fp:
            self.asm.put(add(FP, SP, frame.pair))
            self.asm.row(frame.row)

    def close(self, frame: _Frame, *, pushed: bool) -> None:
        """Write an epilogue and a return."""
        if frame.by_fp:
            self.asm.put(mov(SP, FP) if not frame.pair else sub(SP, FP, frame.pair))
        if frame.by_fp or frame.sets_fp:
            self.asm.row(Row(frame.size, SP, frame.pair - frame.size, frame.pair - frame.size + 8))
        if pushed and frame.size <= 496:
            self.asm.put(ldp(FP, LR, SP, frame.size, "post"))
        else:
            self.asm.put(ldp(FP, LR, SP, frame.pair))
            self.asm.row(Row(frame.size))
            self.asm.put(add(SP, SP, frame.size))
        self.asm.row(_ENTRY)
        self.asm.put(RET)

    def body(self, frame: _Frame | None, callees: list[str], length: int) -> None:
        """Write instructions that leave the frame as it is, with a few branches and a loop."""
        loop, skip = self.fresh(), self.fresh()
        self.asm.label(loop)
        for number in range(length):
            kind = self.random.randrange(7)
            if kind == 0 and frame and callees:
                self.asm.bl(self.random.choice(callees))
            elif kind == 1 and frame:
                self.asm.put(self.local(frame))
            elif kind == 2:
                self.asm.put(add(self.random.randrange(8), self.random.randrange(8), self.random.randrange(64)))
            elif kind == 3:
                self.asm.put(str_(1, 2, 8))
            elif kind == 4:
                self.asm.put(ldr(3, 4, 16))
            elif kind == 5 and number == length // 2:
                self.asm.b_if(self.random.randrange(_CONDITIONS), skip)
            else:
                self.asm.put(NOP)
        if self.random.random() < 0.4:
            self.asm.cbz(self.random.randrange(8), loop)
        self.asm.label(skip)

    def local(self, frame: _Frame) -> int:
        """Give a store to a local variable, through SP or x29."""
        free = [place for place in range(0, frame.size, 8) if place not in {frame.pair, frame.pair + 8}]
        place = self.random.choice(free)
        if frame.sets_fp and place >= frame.pair and self.random.random() < 0.5:
            return str_(5, FP, place - frame.pair)
        return str_(5, SP, place)


def program(seed: int, count: int) -> Asm:
    """Give `count` functions that call each other."""
    writer = _Writer(seed)
    names = [f"f{number}" for number in range(count)]
    for name in names:
        writer.function(name, names)
    return writer.asm
