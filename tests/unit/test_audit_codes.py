"""Every finding code: a kernel that has it, a kernel that has not, and its line in the documentation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from audit_cases import CASES, vectors
from audit_kernel import plain
from surefoot.audit.catalogue import CATALOGUE, Owner, Part, Severity
from surefoot.audit.findings import Finding, count_codes, worst

DOCS: Final = Path(__file__).parent.parent.parent / "docs"
LIVE: Final = {"live-unexplained", "live-verdict"}
"""Tested in test_audit_live.py."""
ALWAYS: Final = {"klp-disabled", "site-none"}
"""What the smallest kernel has."""


def test_every_code_has_a_case() -> None:
    assert list(CASES) == [code for code in CATALOGUE if code not in LIVE]


@pytest.mark.parametrize("code", CASES)
def test_the_code_is_found_where_it_is(code: str) -> None:
    """The planted fault is found at its function, with a message of one sentence."""
    build, symbol = CASES[code]
    found = [finding for finding in build().audit().findings if finding.code == code]
    assert symbol in {finding.symbol for finding in found}
    assert all(finding.message and "\n" not in finding.message for finding in found)


def test_a_sound_kernel_has_none() -> None:
    assert set(count_codes(plain().audit().findings)) == ALWAYS


def test_sound_vectors_have_none() -> None:
    assert set(count_codes(vectors().audit().findings)) == ALWAYS | {"entry-code"}


def test_codes_are_documented() -> None:
    """docs/audit.md explains every code once, in the order of the catalogue, under the heading of its part."""
    text = (DOCS / "audit.md").read_text(encoding="utf-8")
    assert re.findall(r"^`([a-z-]+)`\n: \S", text, flags=re.MULTILINE) == list(CATALOGUE)
    for part in Part:
        section = text.split(f"\n### {part.value}\n")[1].split("\n### ")[0].split("\n## ")[0]
        codes = re.findall(r"^`([a-z-]+)`\n: \S", section, flags=re.MULTILINE)
        assert codes == [code for code, info in CATALOGUE.items() if info.part is part]


def test_documented_levels_and_owners_are_the_codes() -> None:
    text = (DOCS / "audit.md").read_text(encoding="utf-8")
    for code, info in CATALOGUE.items():
        line = text.split(f"\n`{code}`\n: ")[1].split("\n")[0]
        assert line.startswith(f"*{info.severity.name.lower()}, {info.owner.value}.*"), code


def test_catalogue_is_complete() -> None:
    """Every owner, severity and part is used; every text is a sentence."""
    infos = list(CATALOGUE.values())
    assert {info.owner for info in infos} == set(Owner)
    assert {info.severity for info in infos} == set(Severity)
    assert {info.part for info in infos} == set(Part)
    assert all(text[-1] in ".)" for info in infos for text in (info.meaning, info.fix))
    assert all(info.title[-1] != "." for info in infos)


def test_worst() -> None:
    assert worst([]) is None
    findings = [Finding(code, 1, "f", "m") for code in ("entry-code", "asm-leaf", "entry-code")]
    assert worst(findings) is Severity.WARNING
    assert count_codes(findings) == {"asm-leaf": 1, "entry-code": 2}
