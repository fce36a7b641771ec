"""What proofs take on trust is written down in one place and told in another."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from surefoot.proof.assumptions import ASSUMPTIONS

PAGE: Final = Path(__file__).parent.parent.parent / "docs" / "notes" / "edge-check.md"


def test_the_page_lists_what_the_code_lists() -> None:
    """docs/notes/edge-check.md has each assumption, in the order of the code and in its words."""
    text = PAGE.read_text(encoding="utf-8")
    told = re.findall(r"^`([a-z-]+)`\n: (.*?)(?=\n\n|\Z)", text, flags=re.MULTILINE | re.DOTALL)
    assert [name for name, _ in told] == [each.name for each in ASSUMPTIONS]
    for (_, words), each in zip(told, ASSUMPTIONS, strict=True):
        flat = " ".join(words.split())
        assert flat == f"{each.sentence} {each.checked}".strip()


def test_assumptions_are_sentences() -> None:
    assert len({each.name for each in ASSUMPTIONS}) == len(ASSUMPTIONS)
    for each in ASSUMPTIONS:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", each.name)
        assert all(text.endswith(".") for text in (each.sentence, each.checked) if text)
