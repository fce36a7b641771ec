"""`surefoot audit` on Debian's newest kernel, held against objdump, readelf, a browser and independent counts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

import json_schema
import sarif_schema
from surefoot.cli.exits import Exit
from surefoot.targets.vm import kernels

OBJDUMP: Final = "aarch64-linux-gnu-objdump"
READELF: Final = "aarch64-linux-gnu-readelf"
ADDR2LINE: Final = "aarch64-linux-gnu-addr2line"
pytestmark = [pytest.mark.kernel, pytest.mark.needs(OBJDUMP, READELF, ADDR2LINE, "apt-get", "dpkg")]

KNOWN: Final[dict[str, dict[str, Any]]] = {
    "b114001d8228c02ea1c3170732da3a7b611ce811": {  # Debian 7.3.4 cloud-arm64
        "calls_at_end": {"all": 9300, "in_next_symbol": 872, "at_its_start": 871},
        "types": {
            "UACCESS_ERR_ZERO": 902,
            "KACCESS_ERR_ZERO": 21,
            "UACCESS_CPY": 6,
            "LOAD_UNALIGNED_ZEROPAD": 9,
        },
        "rewritten": {"alternatives": 28838, "callbacks": 12770, "patch_sites": 49172},
        "preempt-in-return": 1,
    }
}
"""Counts of kernels that were examined by other means, by build-id."""


@pytest.fixture(scope="module")
def kernel() -> kernels.Kernel:
    return kernels.fetch()


def surefoot(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "surefoot.cli.main", "audit", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, encoding="utf-8")


@pytest.fixture(scope="module")
def answer(kernel: kernels.Kernel) -> dict[str, Any]:
    done = surefoot(kernel.vmlinux, "--json")
    assert (done.returncode, done.stderr) == (Exit.NO, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def of_code(answer: dict[str, Any], code: str) -> list[dict[str, Any]]:
    return [finding for finding in answer["findings"] if finding["code"] == code]


def test_the_json_is_what_the_schema_says(answer: dict[str, Any]) -> None:
    assert json_schema.findings(json_schema.load("audit-1.json"), answer) == []


def test_almost_everything_is_decided(answer: dict[str, Any], kernel: kernels.Kernel) -> None:
    """At least 99.5 % of the instructions with metadata are proved or refuted; what is not has a finding."""
    counts = answer["addresses"]
    ruled = counts["proven"] + counts["refuted"] + counts["unproven"]
    assert counts["unproven"] <= 0.005 * ruled
    named = sum(f["size"] // 4 for f in answer["findings"] if f["code"].startswith("unproven-"))
    assert named == counts["unproven"]
    assert answer["build_id"] == kernel.build_id


def test_refuted_instructions_have_findings(answer: dict[str, Any]) -> None:
    codes = ("rules-at-calls-only", "restored-early", "lr-overwritten", "row-wrong")
    assert sum(f["size"] // 4 for code in codes for f in of_code(answer, code)) == answer["addresses"]["refuted"]


def test_counts_are_those_taken_by_other_means(answer: dict[str, Any]) -> None:
    if answer["build_id"] not in KNOWN:
        pytest.skip("no counts of this build were taken")
    known, image = KNOWN[answer["build_id"]], answer["images"][0]
    assert image["calls_at_end"] == known["calls_at_end"]
    assert image["exception_table"]["types"] == known["types"]
    assert {name: image["rewritten"][name] for name in known["rewritten"]} == known["rewritten"]
    assert len(of_code(answer, "preempt-in-return")) == known["preempt-in-return"]


def test_tables_are_in_order(answer: dict[str, Any]) -> None:
    """No fixup leaves its function, rows agree, and the vectors lead to their stubs."""
    image = answer["images"][0]
    assert image["exception_table"]["leave_function"] == image["exception_table"]["rows_differ"] == 0
    assert len(image["vectors"]["targets"]) == 16
    assert image["vectors"]["templates"] == [0] * 8 + [1] * 4 + [2] * 4
    assert len(image["live_patching"]["functions"]) == 8


def test_listings_are_objdumps(answer: dict[str, Any], kernel: kernels.Kernel) -> None:
    """The mnemonics around findings are those that objdump prints."""
    for finding in [*of_code(answer, "restored-early")[:3], *of_code(answer, "lr-overwritten")]:
        lines = [line for line in finding["disassembly"] if line["address"]]
        low, high = int(lines[0]["address"], 16), int(lines[-1]["address"], 16) + 4
        bounds = [f"--start-address={low}", f"--stop-address={high}"]
        done = subprocess.run([OBJDUMP, "-d", *bounds, kernel.vmlinux], capture_output=True, text=True, check=True)
        theirs = dict(re.findall(r"^([0-9a-f]{16}):\t[0-9a-f]{8} \t(\S+)", done.stdout, flags=re.MULTILINE))
        for line in lines:
            assert line["text"].split()[0] == theirs[line["address"][2:]], finding["symbol"]


def test_claims_are_readelfs(answer: dict[str, Any], kernel: kernels.Kernel) -> None:
    """At the places that are refuted, readelf too says that the CFA is computed from x29."""
    wanted = [finding for finding in of_code(answer, "restored-early") if finding["symbol"].startswith("perf_")][:20]
    done = subprocess.run(
        [READELF, "--debug-dump=frames-interp", kernel.vmlinux], capture_output=True, text=True, check=True
    )
    rows = [(int(a, 16), cfa) for a, cfa in re.findall(r"^([0-9a-f]{16}) (\S+)", done.stdout, flags=re.MULTILINE)]
    rows.sort()
    starts = [addr for addr, _ in rows]
    from bisect import bisect_right

    assert wanted
    for finding in wanted:
        addr = int(finding["address"], 16)
        assert rows[bisect_right(starts, addr) - 1][1].startswith("x29+"), finding["symbol"]


def test_sarif(kernel: kernels.Kernel, tmp_path: Path) -> None:
    path = tmp_path / "audit.sarif"
    done = surefoot(kernel.vmlinux, "--format", "sarif", "-o", path, "--fail-on", "never", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (Exit.WELL, "", "")
    assert sarif_schema.findings(json.loads(path.read_text(encoding="utf-8"))) == []


TYPE: Final = """
addEventListener('load', () => {
  for (const [box, text] of [['#search', 'preempt_schedule'], ['#patch-search', 'cpu_switch_to'],
      ['[data-rows=window-rows]', 'kretprobe']]) {
    const input = document.querySelector(box);
    input.value = text;
    input.dispatchEvent(new Event('input'));
  }
});
"""
"""What a reader would type, for a browser that nobody sits at."""


@pytest.mark.needs("chromium")
def test_the_tables_can_be_searched(kernel: kernels.Kernel, tmp_path: Path) -> None:
    path = tmp_path / "audit.html"
    assert surefoot(kernel.vmlinux, "--format", "html", "-o", path, "--fail-on", "never").returncode == Exit.WELL
    path.write_text(path.read_text(encoding="utf-8") + f"<script>{TYPE}</script>", encoding="utf-8")
    page = dumped(path, tmp_path)
    found = page.split('<tbody id="rows">')[1].split("</tbody>")[0]
    assert 1 <= found.count("<tr>") < 10
    assert "ftrace_return_to_handler" in found
    bare = page.split('<tbody id="patch-rows">')[1].split("</tbody>")[0]
    assert re.findall(r'<td class="symbol">([^<]+)</td>', bare) == ["cpu_switch_to"]
    shown = re.findall(r'<tr(?: hidden="")?><td class="mono">([^<]+)<', page.split('id="window-rows"')[1])
    hidden = re.findall(r'<tr hidden=""><td class="mono">([^<]+)<', page.split('id="window-rows"')[1])
    assert set(shown) - set(hidden) == {"__kretprobe_trampoline"}


def dumped(path: Path, folder: Path) -> str:
    """The page after its scripts have run."""
    words = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    words += ["--virtual-time-budget=10000", "--dump-dom", path.as_uri()]
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.mark.needs("chromium")
def test_the_page_works_in_a_browser(kernel: kernels.Kernel, tmp_path: Path) -> None:
    """Its script runs to the end, fills the tables and draws the map, with nothing but the one file."""
    path = tmp_path / "audit.html"
    assert surefoot(kernel.vmlinux, "--format", "html", "-o", path, "--fail-on", "never").returncode == Exit.WELL
    page = dumped(path, tmp_path)
    assert 'data-ready="yes"' in page
    rows = page.split('<tbody id="rows">')[1].split("</tbody>")[0]
    assert rows.count('<td class="symbol">') == 100
    (canvas,) = re.findall(r"<canvas [^>]*>", page)
    assert re.search(r'height="\d{3,}"', canvas)


def test_a_module(kernel: kernels.Kernel) -> None:
    """A module of its own, branches resolved: nothing is refuted."""
    (path,) = kernel.debug_modules.rglob("virtio_net.ko")
    found = json.loads(surefoot(path, "--json").stdout)
    assert found["addresses"]["refuted"] == 0
    assert found["addresses"]["proven"] > 10000
    assert found["images"][0]["module"] == "virtio_net"


def test_source_lines_of_a_module_are_addr2lines(kernel: kernels.Kernel) -> None:
    """Every finding in .text has the file and line that addr2line gives for its offset in the section."""
    (path,) = kernel.debug_modules.rglob("virtio_net.ko")
    found = json.loads(surefoot(path, "--json", "--lines", "all").stdout)
    text = next(region for region in found["images"][0]["regions"] if region["name"] == ".text")
    low, high = int(text["start"], 16), int(text["end"], 16)
    places = {int(each["address"], 16) - low: each["source"] for each in found["findings"]}
    places = {off: source for off, source in places.items() if 0 <= off < high - low}
    command = [ADDR2LINE, "-e", str(path), "-j", ".text", *(hex(off) for off in places)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    theirs = [re.sub(r" \(discriminator \d+\)$", "", line) for line in done.stdout.splitlines()]
    assert len(theirs) == len(places) > 0
    for source, line in zip(places.values(), theirs, strict=True):
        assert source
        assert line.endswith("/" + source.removeprefix("./")), (source, line)
