"""Layer 8: how text looks in a terminal: few styles, each with one meaning, as plain ANSI sequences.

Invariant: a style adds escape sequences and never changes the text between them; without colour every style is
empty. Text that comes from a target (names of tasks and symbols) passes through `printable`, so that no target
can write escape sequences into the reader's terminal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

__all__ = ["Glyphs", "Style", "printable", "wrap"]

_MIN_WIDTH: Final = 40
_MAX_BODY: Final = 120
"""Columns beyond which lines are not stretched: an eye does not follow longer ones."""


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The few characters that draw something.

    Attributes:
        rule: a horizontal line, repeated.
        dash: a lighter one.
        lost: marks the frame at which certainty was lost.
        ok: stands before a good verdict.
        bad: stands before a bad verdict.
        call: an arrow that stands for a call where there is little room.
    """

    rule: str = "─"
    dash: str = "╌"
    lost: str = "▸"
    ok: str = "✔"
    bad: str = "✘"
    call: str = "→"

    @classmethod
    def for_encoding(cls, encoding: str | None) -> Glyphs:
        """Give the characters that an encoding can print: line drawing, or ASCII."""
        glyphs = cls()
        drawn = glyphs.rule + glyphs.dash + glyphs.lost + glyphs.ok + glyphs.bad + glyphs.call
        try:
            drawn.encode(encoding or "ascii")
        except (UnicodeEncodeError, LookupError):
            return cls(rule="-", dash="-", lost=">", ok="+", bad="x", call="->")
        return glyphs


@dataclass(frozen=True, slots=True)
class Style:
    """Escape sequences by meaning, and the room there is.

    Only standard colours are used, which every theme, dark or light, makes readable, and `dim` and `bold`. An
    attribute is a sequence that switches a look on; `off` ends all of them.

    Attributes:
        width: columns of the terminal.
        glyphs: what lines are drawn with.
        strong: headings and names.
        dim: what is there for reference.
        good: a reliable stack.
        bad: an unreliable one.
        mark: boundaries and ambiguity: look here.
        letter: the kernel's letters.
        module: names of modules.
        off: ends any of them.
    """

    width: int
    glyphs: Glyphs
    strong: str = ""
    dim: str = ""
    good: str = ""
    bad: str = ""
    mark: str = ""
    letter: str = ""
    module: str = ""
    off: str = ""

    @property
    def body(self) -> int:
        """Columns that lines are laid out for."""
        return min(self.width, _MAX_BODY)

    @classmethod
    def make(cls, *, width: int, color: bool, encoding: str | None = "utf-8") -> Style:
        """Give the style of a terminal.

        Args:
            width: columns; at least 40 are assumed.
            color: use escape sequences.
            encoding: of the stream; decides between line drawing and ASCII.
        """
        width = max(width, _MIN_WIDTH)
        glyphs = Glyphs.for_encoding(encoding)
        if not color:
            return cls(width, glyphs)
        return cls(
            width,
            glyphs,
            strong="\x1b[1m",
            dim="\x1b[2m",
            good="\x1b[32m",
            bad="\x1b[31m",
            mark="\x1b[33m",
            letter="\x1b[36m",
            module="\x1b[35m",
            off="\x1b[0m",
        )


def printable(text: str) -> str:
    """Give text from a target with every character that a terminal would act upon written as an escape."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def wrap(text: str, width: int, indent: str = "", hang: str | None = None) -> Iterator[str]:
    """Break plain text into lines at its spaces.

    Args:
        text: words; runs of spaces become one.
        width: columns, the indent included; a longer word gets a line of its own.
        indent: what the first line begins with.
        hang: what the following lines begin with; the indent if None.
    """
    line, start = indent, len(indent)
    hang = indent if hang is None else hang
    for word in text.split():
        if len(line) > start and len(line) + 1 + len(word) > width:
            yield line
            line, start = hang, len(hang)
        line += word if len(line) == start else f" {word}"
    yield line
