"""The verifier against the corpus: every code has an input, and good sections have no findings."""

from __future__ import annotations

import re
from contextlib import nullcontext, suppress
from pathlib import Path

import numpy as np
import pytest

import sframe_builder as make
import sframe_corpus
import surefoot.metadata.sframe as package
from sframe_builder import Fde, Fre
from surefoot.errors import InputError
from surefoot.metadata import sframe
from surefoot.metadata.rules import RuleTable
from surefoot.metadata.sframe import CATALOGUE, Extents, Severity
from surefoot.metadata.sframe.fitting import LEFT_OUT

CASES = [(code, case) for code, cases in sframe_corpus.CORPUS.items() for case in cases]
COMPARED = {code for code in CATALOGUE if code.startswith("sframe-cfi-")} | {
    "sframe-uncovered",
    "sframe-outside-code",
}


@pytest.mark.parametrize(("code", "case"), CASES, ids=[f"{code}:{case.what}" for code, case in CASES])
def test_every_input_of_the_corpus_is_found(code: str, case: sframe_corpus.Case) -> None:
    findings = sframe.check(case.data, machine=case.machine, relocations=case.relocations)
    mine = [finding for finding in findings if finding.code == code]
    assert mine, [finding.code for finding in findings]
    for name, expected in zip(("offset", "fde", "row"), case.at, strict=True):
        assert expected is None or getattr(mine[0], name) == expected
    assert mine[0].message
    assert not mine[0].message.endswith(".")


def test_every_code_has_an_input() -> None:
    assert set(sframe_corpus.CORPUS) | COMPARED == set(CATALOGUE)


def test_every_code_in_the_sources_is_in_the_catalogue_and_the_other_way() -> None:
    folder = Path(package.__file__).parent
    sources = "".join(file.read_text("utf-8") for file in folder.glob("*.py") if file.name != "catalogue.py")
    assert set(re.findall(r'"(sframe-[a-z0-9-]+)"', sources)) == set(CATALOGUE)


@pytest.mark.parametrize("info", CATALOGUE.values(), ids=CATALOGUE)
def test_entries_of_the_catalogue_are_sentences(info: sframe.CodeInfo) -> None:
    assert info.meaning.endswith(".")
    assert info.fix.endswith(".")
    assert info.owner in {"producer", "source", "nobody"}


@pytest.mark.parametrize(("code", "case"), CASES, ids=[f"{code}:{case.what}" for code, case in CASES])
def test_the_decoder_gives_a_result_or_an_input_error(code: str, case: sframe_corpus.Case) -> None:
    """What the scanner calls a fault stops the strict decoder; everything else is interpreted or refused."""
    with nullcontext() if CATALOGUE[code].severity < Severity.ERROR else suppress(InputError):
        sframe.decode(case.data, relocations=case.relocations).to_rules().check()


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("abi", [make.AARCH64, make.AARCH64_BE])
def test_what_compilers_write_has_no_findings(version: int, abi: int) -> None:
    assert sframe.check(make.section(make.typical(), version, abi=abi), machine=183) == []


def test_what_compilers_write_for_other_machines_has_no_findings() -> None:
    amd64 = [Fde(0, 9, [Fre(0, (8,)), Fre(1, (16, -16)), Fre(4, (16, -16), make.FP)])]
    amd64.append(Fde(16, 64, [Fre(0, (8,)), Fre(6, (16,))], mask=True, rep_size=16))
    assert sframe.check(make.section(amd64, abi=make.AMD64), machine=62) == []
    s390x = [Fde(0, 32, [Fre(0), Fre(6, (20, -48, -72)), Fre(10, (0, 0, -72))])]
    assert sframe.check(make.section(s390x, abi=make.S390X, tail=bytes(6)), machine=22) == []


def test_flexible_rows_of_the_shadow_call_stack_have_no_findings() -> None:
    rows = [Fre(0, (0xF9, 0)), Fre(8, (0xF9, 48, 2, -40, 2, -48)), Fre(20, (0xF9, 48, 0, 2, -48)), Fre(24, (0xF9, 0))]
    for row in rows:
        row.base = 0
    assert sframe.check(make.section([Fde(0, 32, rows, flex=True)])) == []


def test_findings_are_counted_beyond_the_limit() -> None:
    rows = [Fre(4 * i) for i in range(60)]
    findings = sframe.check(make.section([Fde(0, 240, rows)]), limit=10)
    assert [finding.code for finding in findings] == ["sframe-row-repeats"] * 11
    assert findings[-1].count == 49
    assert findings[0].address == 4


def test_a_damaged_section_is_judged_as_far_as_it_goes() -> None:
    """The first function's rows are cut off; the second is still checked."""
    fdes = [Fde(0x1000, 8, num_fres=9), Fde(0x1009, 8, [Fre(0, (0,)), Fre(2, (-8,))])]
    codes = {finding.code for finding in sframe.check(make.section(fdes))}
    assert {"sframe-code-align", "sframe-cfa-below-sp"} <= codes


def _rules(*fdes: Fde) -> RuleTable:
    return sframe.decode(make.section(list(fdes))).to_rules()


def _extents(*ranges: tuple[int, int]) -> Extents:
    start, size = (np.array([pair[i] for pair in ranges], dtype=np.uint64) for i in range(2))
    return Extents(start, size, np.full(len(ranges), -1, dtype=np.int32))


def test_coverage_names_bare_functions_and_stray_descriptors() -> None:
    rules = _rules(Fde(0x1000, 8), Fde(0x1010, 8), Fde(0x3000, 16))
    functions = _extents((0x1000, 8), (0x1008, 8), (0x1010, 4), (0x3000, 16))
    findings = sframe.check_coverage(rules, functions, _extents((0x3008, 0x100), (0x1000, 0x100)))
    assert [(finding.code, finding.address) for finding in findings] == [
        ("sframe-uncovered", 0x1008),
        ("sframe-outside-code", 0x3000),
    ]


def test_comparison_with_the_cfi_names_every_difference() -> None:
    mine = _rules(Fde(0x1000, 16, [Fre(0), Fre(8, (32, -24, -32))]), Fde(0x2000, 8))
    reference = _rules(Fde(0x1000, 16, [Fre(0), Fre(12, (32, -24, -32))]), Fde(0x3000, 8), Fde(0x4000, 4, [Fre(9)]))
    findings, result = sframe.check_against(mine, reference)
    assert [(finding.code, finding.address) for finding in findings] == [
        ("sframe-cfi-differs", 0x1008),
        ("sframe-cfi-only", 0x3000),
        ("sframe-cfi-missing", 0x2000),
        ("sframe-cfi-unusable", 0x4000),
    ]
    assert "SFrame says cfa=sp+32 fp=[cfa-32] ra=[cfa-24], CFI says cfa=sp+0 fp=fp ra=lr" in findings[0].message
    assert result.bytes_equal == 12


def test_the_page_lists_every_code_and_every_reason() -> None:
    """docs/sframe.md is compared with the catalogue, so that neither drifts."""
    page = (Path(__file__).parent.parent.parent / "docs" / "sframe.md").read_text("utf-8")
    listed = re.findall(r"^\| `(sframe-[a-z0-9-]+)` \| (\w+) \| (.*) \|$", page, flags=re.MULTILINE)
    assert listed == [(code, info.severity.name.lower(), info.meaning) for code, info in CATALOGUE.items()]
    assert all(f"- {reason}" in page for reason in LEFT_OUT)
