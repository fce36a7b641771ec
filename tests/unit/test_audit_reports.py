"""An audit as text, JSON, SARIF and HTML: complete, valid, and harmless whatever the symbols are called."""

from __future__ import annotations

import json
import re
from functools import cache
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

import json_schema
import sarif_schema
from audit_cases import CASES, vectors
from audit_kernel import NOP, RET, TEXT, Kernel, plain, sub_sp
from surefoot.audit.catalogue import CATALOGUE
from surefoot.isa.branches import branch_target, is_compare_branch, is_immediate_branch
from surefoot.report.audit_code import branch_goal
from surefoot.report.audit_html import audit_html
from surefoot.report.audit_json import audit_json
from surefoot.report.audit_text import audit_text
from surefoot.report.audit_view import AuditReport, build_image
from surefoot.report.sarif import sarif
from surefoot.report.style import Style

EVIL = "a<script>alert(1)</script>\x1b[31m&\"'"


def report_of(*kernels: Kernel, lines: bool = False) -> AuditReport:
    ask = (lambda addr: f"dir/file<{addr & 0xFF}>.c:{addr & 0xFF}") if lines else None
    images = [
        build_image(kernel.audit(), name="vmlinux" if not k else f"m{k}.ko", module=f"m{k}" if k else "", lines=ask)
        for k, kernel in enumerate(kernels)
    ]
    return AuditReport(images, ("a note",))


@cache
def everything() -> AuditReport:
    """All codes, over as many images as it takes."""
    return report_of(*(build() for build, _ in CASES.values()), lines=True)


def evil() -> AuditReport:
    kernel = plain()
    kernel.func(EVIL, sub_sp(16), NOP, RET)
    return report_of(kernel)


def text_of(
    report: AuditReport, *, color: bool = False, encoding: str = "utf-8", width: int = 120, **more: Any
) -> str:
    return "".join(audit_text(report, Style.make(width=width, color=color, encoding=encoding), **more))


def test_json_is_what_the_schema_says() -> None:
    schema = json_schema.load("audit-1.json")
    for report in (everything(), evil(), report_of(vectors())):
        assert json_schema.findings(schema, json.loads(json.dumps(audit_json(report)))) == []


def test_json_holds_every_finding() -> None:
    report = everything()
    found = audit_json(report)
    assert len(found["findings"]) == sum(len(image.findings) for image in report.images)  # type: ignore[arg-type]
    codes = {each["code"]: each["count"] for each in found["codes"]}  # type: ignore[attr-defined]
    assert set(codes) == set(CASES)
    assert found["severities"] == {severity.name.lower(): count for severity, count in report.severities.items()}


def test_json_counts_every_instruction_once() -> None:
    found: Any = audit_json(report_of(plain()))
    assert found["addresses"] == {"proven": 3, "refuted": 0, "unproven": 0, "no_metadata": 0}
    assert found["functions"] == {"proven": 1, "refuted": 0, "unproven": 0, "no_metadata": 0}
    assert [region["name"] for region in found["images"][0]["regions"]] == [".text"]


def test_listing_shows_edge_row_and_verdict() -> None:
    """Around a refuted row stand the instruction that leads there, the claim and the verdicts."""
    build, _ = CASES["restored-early"]
    report = report_of(build())
    (finding,) = report.main.by_code["restored-early"]
    lines = report.main.show(finding).code
    assert [line.mark for line in lines] == ["", "", "e", ">", ""]
    assert [line.text for line in lines] == [
        "stp x29, x30, [sp, #-0x10]!",
        "mov x29, sp",
        "ldp x29, x30, [sp]",
        "add sp, sp, #0x10",
        "ret",
    ]
    assert [line.verdict for line in lines] == ["proven", "proven", "proven", "refuted", "proven"]
    assert lines[2].row == "CFA=x29+16 x29=[CFA-16] RA=[CFA-8]"
    assert lines[3].row == ""


def test_sarif_is_valid() -> None:
    for report in (everything(), evil()):
        log = json.loads(json.dumps(sarif(report)))
        assert sarif_schema.findings(log) == []


def test_the_official_schema_can_say_no() -> None:
    """A level that the standard does not have, and a property that it does not know, are found."""
    log: Any = json.loads(json.dumps(sarif(everything())))
    log["runs"][0]["results"][0]["level"] = "fatal"
    log["runs"][0]["tool"]["driver"]["colour"] = "red"
    places = {line.split(":")[0] for line in sarif_schema.findings(log)}
    assert places == {"$.runs[0].results[0].level", "$.runs[0].tool.driver"}


def test_sarif_names_rules_and_places() -> None:
    report = report_of(CASES["call-at-end"][0](), lines=True)
    run: Any = sarif(report)["runs"][0]  # type: ignore[index]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    for result in run["results"]:
        assert rules[result["ruleIndex"]] == result["ruleId"]
    (result,) = [each for each in run["results"] if each["ruleId"] == "call-at-end"]
    address = result["locations"][0]["physicalLocation"]["address"]
    assert address["fullyQualifiedName"] == "f+0x4"
    assert address["relativeAddress"] == 16
    assert result["properties"]["address"] == f"{TEXT + 16:#x}"
    assert result["relatedLocations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "dir/file%3C16%3E.c"


def test_fingerprints_do_not_know_addresses() -> None:
    """The same fault in the same function of a kernel that grew has the same fingerprint."""

    def prints(kernel: Kernel) -> set[str]:
        run: Any = sarif(report_of(kernel))["runs"][0]  # type: ignore[index]
        return {each["partialFingerprints"]["surefoot/v1"] for each in run["results"] if each["ruleId"] == "asm-leaf"}

    moved = plain()
    moved.func("more", NOP, RET)
    for kernel in (first := plain(), moved):
        kernel.func("f", NOP, RET, cfi=None)
    assert prints(first) == prints(moved)
    assert len(prints(first)) == 1


def test_text_explains_every_code() -> None:
    """Each code that the first image has stands there with its meaning and its repair."""
    for code, (build, symbol) in CASES.items():
        text = text_of(report_of(build()))
        flat = " ".join(text.split())
        assert f" {code} " in flat
        assert " ".join(CATALOGUE[code].meaning.split()) in flat
        assert CATALOGUE[code].fix in flat
        assert symbol in text


def test_text_knows_its_bounds() -> None:
    report = everything()
    quiet = text_of(report, quiet=True, examples=0)
    assert len(quiet) < len(text_of(report))
    assert CATALOGUE["klp-disabled"].fix not in quiet
    text_of(report, encoding="ascii").encode("ascii")
    assert "modules ─" in text_of(report)


def test_color_changes_nothing_else() -> None:
    report = everything()
    plain_text = text_of(report)
    assert re.sub(r"\x1b\[[0-9;]*m", "", text_of(report, color=True)) == plain_text
    assert "\x1b" not in plain_text


def test_symbols_cannot_write_to_the_terminal() -> None:
    assert "\x1b" not in text_of(evil())


class _Page(HTMLParser):
    """Collects elements, references and the data of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.references: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.data = ""
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        self.references += [str(given[name]) for name in ("src", "href") if name in given]
        self.ids += [str(given["id"])] if "id" in given else []
        self._inside = tag == "script" and given.get("type") == "application/json"

    def handle_data(self, data: str) -> None:
        self.data += data if self._inside else ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = False if tag == "script" else self._inside


def page_of(report: AuditReport) -> tuple[_Page, str]:
    text = audit_html(report)
    page = _Page()
    page.feed(text)
    page.close()
    return page, text


def test_page_is_self_contained() -> None:
    page, text = page_of(everything())
    assert page.references == []
    assert "url(" not in text
    assert "@import" not in text
    assert page.tags.count("script") == 2
    assert "canvas" in page.tags
    assert len(set(page.ids)) == len(page.ids)


def test_script_finds_what_it_asks_for() -> None:
    """Every element that the script looks up by its name is in the page."""
    page, text = page_of(report_of(plain()))
    asked = set(re.findall(r"\$\('([a-z-]+)'\)", text))
    assert asked
    assert asked <= set(page.ids)


def test_page_holds_every_finding() -> None:
    report = everything()
    data = json.loads(page_of(report)[0].data)
    assert len(data["findings"]) == sum(len(image.findings) for image in report.images)
    cells = [sum(map(sum, region["cells"])) for region in data["regions"]]
    assert sum(cells) == len(report.main.audit.subject.map)


def test_symbols_cannot_write_into_the_page() -> None:
    page, text = page_of(evil())
    assert page.tags.count("script") == 2
    assert "<script>alert" not in text
    assert EVIL in {row[2] for row in json.loads(page.data)["findings"]}


@pytest.mark.parametrize("code", ["metadata-none", "sframe-missing", "vector-shape"])
def test_every_form_of_any_case(code: str) -> None:
    """Findings without address, with a count and with a size go through all reports."""
    report = report_of(CASES[code][0]())
    assert code in text_of(report)
    assert code in json.dumps(sarif(report))
    assert code in audit_html(report)


def test_branch_targets_one_at_a_time_are_those_of_all() -> None:
    """Listings work targets out one by one; over random words they are what the array decoder says."""
    words = np.random.default_rng(11).integers(0, 2**32, 20_000, dtype=np.uint32)
    words[::4] = words[::4] & np.uint32(0x03FF_FFFF) | np.uint32(0x1400_0000)
    words[1::4] = words[1::4] & np.uint32(0x00FF_FFFF) | np.uint32(0x5400_0000)
    addrs = np.uint64(TEXT) + np.arange(words.size, dtype=np.uint64) * np.uint64(4)
    theirs = np.where(
        is_immediate_branch(words) & ~is_compare_branch(words), branch_target(words, addrs), np.uint64(0)
    )
    ours = [branch_goal(addr, word) for addr, word in zip(addrs.tolist(), words.tolist(), strict=True)]
    assert ours == theirs.tolist()
