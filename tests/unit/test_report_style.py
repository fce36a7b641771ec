"""Text in a terminal: nothing from a target acts on it, and lines keep to its width."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surefoot.report.style import Glyphs, Style, printable, wrap


@given(st.text())
def test_printable_text_cannot_act_on_a_terminal(text: str) -> None:
    """No control character survives, and text that is harmless is not changed."""
    shown = printable(text)
    assert shown.isprintable()
    assert shown == text or not text.isprintable()


@given(st.lists(st.text("abc", min_size=1, max_size=12), min_size=1), st.integers(16, 60))
def test_wrapped_lines_keep_to_the_width(words: list[str], width: int) -> None:
    """Every word comes out once, in order, on lines that are not too long."""
    lines = list(wrap(" ".join(words), width, "  ", "    "))
    assert " ".join(lines).split() == words
    assert all(len(line) <= width for line in lines)
    assert lines[0].startswith("  ")
    assert all(line.startswith("    ") for line in lines[1:])


def test_a_long_word_gets_its_own_line() -> None:
    """A word is never cut."""
    assert list(wrap("a bbbbbbbbbb c", 6)) == ["a", "bbbbbbbbbb", "c"]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", None, "no-such-encoding"])
def test_other_encodings_get_ascii(encoding: str | None) -> None:
    """Where line drawing cannot be printed, ASCII is."""
    glyphs = Glyphs.for_encoding(encoding)
    drawn = glyphs.rule + glyphs.dash + glyphs.lost + glyphs.ok + glyphs.bad + glyphs.call
    assert drawn.isascii()
    assert Glyphs.for_encoding("utf-8") == Glyphs()


def test_no_colour_means_no_escapes() -> None:
    """Without colour every style is empty; with it every style can be ended."""
    plain, colored = Style.make(width=100, color=False), Style.make(width=100, color=True)
    names = ("strong", "dim", "good", "bad", "mark", "letter", "module", "off")
    assert all(getattr(plain, name) == "" for name in names)
    assert all(re.fullmatch(r"\x1b\[\d+m", getattr(colored, name)) for name in names)


def test_lines_are_neither_too_short_nor_too_long() -> None:
    """Absurd widths are not believed, and wide terminals do not stretch lines."""
    assert Style.make(width=1, color=False).body == 40
    assert Style.make(width=500, color=False).body == 120
