"""`surefoot audit` as a command: what it reads, what it writes, and what it exits with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import json_schema
from audit_cases import CASES
from audit_kernel import NOP, Kernel, plain
from surefoot.cli.exits import Exit
from surefoot.cli.main import run
from surefoot.dtypes import Insn
from surefoot.targets import code, vmcore

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def surefoot(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Give a function that runs a command line."""
    monkeypatch.delenv("COLUMNS", raising=False)

    def call(*args: object) -> tuple[int, str, str]:
        status = run([str(arg) for arg in args])
        out, err = capsys.readouterr()
        return status, out, err

    return call


def write(folder: Path, kernel: Kernel, name: str = "vmlinux") -> Path:
    path = folder / name
    path.write_bytes(kernel.file())
    return path


@pytest.mark.parametrize(
    ("code_", "level", "status"),
    [
        ("row-wrong", None, Exit.NO),
        ("row-wrong", "error", Exit.NO),
        ("row-wrong", "never", Exit.WELL),
        ("asm-leaf", None, Exit.WELL),
        ("asm-leaf", "warning", Exit.NO),
        ("entry-code", "warning", Exit.WELL),
        ("entry-code", "note", Exit.NO),
    ],
)
def test_status(surefoot: Run, tmp_path: Path, code_: str, level: str | None, status: Exit) -> None:
    """The status says whether a finding is as bad as the threshold."""
    path = write(tmp_path, CASES[code_][0]())
    words = () if level is None else ("--fail-on", level)
    got, out, err = surefoot("audit", path, *words)
    assert (got, err) == (status, "")
    assert code_ in out


def test_formats(surefoot: Run, tmp_path: Path) -> None:
    """Each format says the same; --json is --format json."""
    path = write(tmp_path, CASES["row-wrong"][0]())
    outputs = {form: surefoot("audit", path, "--format", form)[1] for form in ("text", "json", "sarif", "html")}
    assert json_schema.findings(json_schema.load("audit-1.json"), json.loads(outputs["json"])) == []
    assert json.loads(outputs["sarif"])["version"] == "2.1.0"
    assert outputs["html"].startswith("<!doctype html>")
    assert "1 error" in outputs["text"]
    assert surefoot("--json", "audit", path)[1] == outputs["json"]


def test_output_file(surefoot: Run, tmp_path: Path) -> None:
    path, page = write(tmp_path, plain()), tmp_path / "page.html"
    status, out, err = surefoot("audit", path, "--format", "html", "-o", page)
    assert (status, out, err) == (Exit.WELL, "", f"written: {page}\n")
    assert "<canvas" in page.read_text(encoding="utf-8")
    assert surefoot("audit", path, "--quiet", "-o", tmp_path / "text") == (Exit.WELL, "", "")
    assert "\x1b" not in (tmp_path / "text").read_text(encoding="utf-8")


def test_bad_input_is_no_answer(surefoot: Run, tmp_path: Path) -> None:
    (tmp_path / "junk").write_bytes(b"junk" * 100)
    for words in (("nowhere",), (tmp_path / "junk",), (write(tmp_path, plain()), "--modules", tmp_path / "nowhere")):
        status, out, err = surefoot("audit", *words)
        assert (status, out) == (Exit.BAD, "")
        assert err.startswith("surefoot: ")
    assert surefoot("audit")[0] == Exit.BAD


def test_unwritable_output_is_no_answer(surefoot: Run, tmp_path: Path) -> None:
    status, _, err = surefoot("audit", write(tmp_path, plain()), "-o", tmp_path / "no" / "file")
    assert status == Exit.BAD
    assert "No such file" in err


def test_modules(surefoot: Run, tmp_path: Path) -> None:
    """Modules are audited with the kernel; one that cannot be read is a note."""
    folder = tmp_path / "modules"
    folder.mkdir()
    write(folder, plain(), "good.ko")
    (folder / "bad.ko").write_bytes(b"junk" * 100)
    _, out, _ = surefoot("--json", "audit", write(tmp_path, plain()), "--modules", folder)
    found = json.loads(out)
    assert [image["name"] for image in found["images"]] == ["vmlinux", "good.ko"]
    assert found["addresses"]["proven"] == 6
    (note,) = found["notes"]
    assert note.startswith("bad.ko: ")


def test_live(surefoot: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text of a dump is read at its run-time address and compared at the image's."""
    bias = 0x20_0000
    subject: dict[str, object] = {}

    class Target:
        memory = object()

        def __init__(self) -> None:
            self.bias = bias

    def open_vmcore(core: Path, image: Path, modules: Path | None, *, cache: object) -> Target:
        del cache
        subject.update(core=core, image=image, modules=modules)
        return Target()

    def live_words(memory: object, addr: int, size: int) -> list[tuple[int, Insn]]:
        del memory
        subject.update(addr=addr, size=size)
        return [(addr, np.full(size // 4, NOP, dtype=np.uint32))]

    monkeypatch.setattr(vmcore, "open_vmcore", open_vmcore)
    monkeypatch.setattr(code, "live_words", live_words)
    monkeypatch.setenv("SUREFOOT_CACHE", str(tmp_path / "cache"))
    kernel = plain()
    path = write(tmp_path, kernel)
    status, out, _ = surefoot("audit", path, "--live", "a.vmcore")
    assert status == Exit.NO
    assert "3 words of a.vmcore compared, 3 differ (3 other)" in out
    assert subject["core"] == Path("a.vmcore")
    assert subject["addr"] == kernel.image().text.addr[0] + np.uint64(bias)
