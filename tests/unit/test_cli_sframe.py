"""`surefoot sframe`: what it prints, its JSON, and its exit statuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import json_schema
import sframe_builder as make
from sframe_builder import Fde, Fre
from surefoot.cli.main import run

GOLDEN = Path(__file__).parent.parent / "golden" / "sframe"
OBJECT = str(GOLDEN / "v3" / "aarch64.o")
IMAGE = str(GOLDEN / "v3" / "aarch64.elf")
OUTERMOST = "an outermost frame cannot be marked in version 1"
SCS = str(GOLDEN / "v3" / "scs.o")


def as_json(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> dict[str, Any]:
    """Run with --json and give the object."""
    assert run(["sframe", *words, "--json"]) == status
    value: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert value["schema"] == f"surefoot.sframe-{words[0]}/1"
    assert json_schema.findings(json_schema.load(f"sframe-{words[0]}-1.json"), value) == []
    return value


def raw(folder: Path, *fdes: Fde, version: int = 3) -> str:
    """Write a bare section."""
    path = folder / "bare.sframe"
    path.write_bytes(make.section(list(fdes), version))
    return str(path)


@pytest.mark.parametrize("name", ["v3/aarch64.o", "v3/s390x.so", "v2/amd64.so", "v1/aarch64.elf"])
def test_dump_in_readelf_s_words(name: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert run(["sframe", "dump", "--format", "readelf", str(GOLDEN / name)]) == 0
    assert capfdbinary.readouterr().out == (GOLDEN / f"{name}.txt").read_bytes()


def test_dump_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sframe", "dump", IMAGE, "--symbol", "signed_*"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("SFrame version 3 for aarch64, flags sorted, pcrel: ")
    assert out[2].endswith(" signed_frame 28 bytes [key B]")
    assert out[4].split() == ["+0x4", "cfa=sp+0", "fp=fp", "ra=lr", "signed"]
    assert out[5].split() == ["+0x8", "cfa=sp+320", "fp=[cfa-320]", "ra=[cfa-312]", "signed"]


def test_colours_do_not_change_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sframe", "dump", IMAGE]) == 0
    plain = capsys.readouterr().out
    assert run(["sframe", "dump", IMAGE, "--color", "always"]) == 0
    coloured = capsys.readouterr().out
    assert "\x1b[" in coloured
    for code in ("0", "1", "2", "31", "33", "36"):
        coloured = coloured.replace(f"\x1b[{code}m", "")
    assert coloured == plain


def test_dump_by_address_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, "dump", IMAGE, "--symbol", "frame")["functions"][0]
    assert found["symbol"] == "frame"
    assert found["rows"][1] == {
        "start": f"0x{int(found['start'], 0) + 4:016x}",
        "cfa": "sp+32",
        "fp": "[cfa-32]",
        "ra": "[cfa-24]",
        "signed": False,
    }
    inside = hex(int(found["start"], 0) + 7)
    assert as_json(capsys, "dump", IMAGE, "--address", inside)["functions"] == [found]
    whole = as_json(capsys, "dump", IMAGE)
    assert (whole["version"], whole["abi"], whole["flags"]) == (3, "aarch64", ["sorted", "pcrel"])
    outermost = next(item for item in whole["functions"] if item["symbol"] == "outermost")
    assert outermost["rows"][1] | {"start": ""} == {
        "start": "",
        "cfa": None,
        "fp": None,
        "ra": "undefined",
        "signed": False,
    }


def test_dump_of_nothing_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sframe", "dump", IMAGE, "--symbol", "missing"]) == 1
    assert "SFrame version 3" in capsys.readouterr().out
    assert run(["sframe", "dump", IMAGE, "--symbol", "frame", "--format", "readelf"]) == 2
    assert run(["sframe", "dump", IMAGE, "--address", "frame"]) == 2
    assert run(["sframe", "dump", IMAGE, "--address", hex(2**64)]) == 2


def test_check_says_well_and_not_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sframe", "check", IMAGE, "--against-cfi"]) == 0
    capsys.readouterr()
    assert run(["sframe", "check", str(GOLDEN / "v3" / "bug1-restore.o"), "--against-cfi"]) == 1
    out = capsys.readouterr().out
    assert "error sframe-cfi-differs 0000000000000010 part+0x8: frame pointer, return address of 4 bytes" in out
    assert "error sframe-below-sp" in out
    assert "note" not in out


def test_check_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, "check", SCS, "--against-cfi", "--level", "note", status=1)
    assert found["errors"] is True
    assert found["counts"]["sframe-cfi-only"] == 4
    first = found["findings"][0]
    assert (first["code"], first["severity"], first["owner"]) == ("sframe-below-sp", "error", "source")
    assert (first["symbol"], first["address"]) == ("below_sp+0x14", f"0x{0x30:016x}")
    limited = as_json(capsys, "check", SCS, "--against-cfi", "--limit", "1", status=1)
    assert limited["counts"]["sframe-cfi-only"] == 4
    assert len(limited["findings"]) < len(found["findings"])


def test_check_of_a_damaged_section_is_an_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The decoder refuses it with status 2, the checker's answer is no."""
    path = raw(tmp_path, Fde(0, 8, num_fres=9))
    assert run(["sframe", "check", path]) == 1
    assert "sframe-rows-outside" in capsys.readouterr().out
    assert run(["sframe", "dump", path]) == 2
    said = capsys.readouterr().err
    assert "bare.sframe+0x1c: 9 rows do not fit" in said
    assert "surefoot sframe check" in said


def test_check_without_findings_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = raw(tmp_path, Fde(0, 8))
    assert run(["sframe", "check", path]) == 0
    assert capsys.readouterr().out == f"{path}: no findings\n"
    assert run(["sframe", "check", path, "--against-cfi"]) == 2


def test_convert_an_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The function that gas drops gets its flexible descriptor; every address then equals the CFI."""
    out = tmp_path / "scs.o"
    summary = as_json(capsys, "convert", SCS, "-o", str(out))
    assert (summary["fdes"], summary["flexible"], summary["left_out"]) == (2, 1, [])
    assert run(["sframe", "diff", str(out), str(out), "--second-from", "cfi"]) == 0
    assert capsys.readouterr().out == "56 bytes of code in both, 56 equal, 0 differences\n"


def test_convert_a_linked_image_in_every_version(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for version, status, reasons in (
        (3, 0, set()),
        (2, 1, {"a signal frame cannot be marked before version 3"}),
        (
            1,
            1,
            {"a signal frame cannot be marked before version 3", "an outermost frame cannot be marked in version 1"},
        ),
    ):
        out = tmp_path / f"v{version}.elf"
        words = ("convert", IMAGE, "-o", str(out), "--version", str(version))
        summary = as_json(capsys, *words, status=status)
        left = [item for item in summary["left_out"] if item["size"]]
        assert {item["reason"] for item in left} == reasons
        assert {item["symbol"] for item in left} <= {"signal", "outermost"}
        assert as_json(capsys, "stat", str(out))["version"] == version
        assert run(["sframe", "check", str(out)]) == 0
        capsys.readouterr()


def test_convert_to_a_bare_section_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = tmp_path / "bare"
    address = as_json(capsys, "dump", IMAGE)["functions"][0]["start"]
    words = ["sframe", "convert", IMAGE, "--raw", "--from", "sframe", "--address", address, "-o", str(bare)]
    assert run(words) == 0
    assert capsys.readouterr().out.startswith(f"{bare}: SFrame version 3 from SFrame: ")
    older = tmp_path / "older"
    assert run(["sframe", "convert", str(bare), "--version", "2", "-o", str(older), "--quiet"]) == 1
    assert capsys.readouterr().out == ""
    assert run(["sframe", "diff", str(bare), str(older)]) == 1
    assert "no rule" in capsys.readouterr().out
    assert run(["sframe", "convert", OBJECT, "--raw", "-o", str(bare)]) == 2
    assert "relocatable" in capsys.readouterr().err
    assert run(["sframe", "convert", IMAGE, "--address", "0", "-o", str(bare)]) == 2


def test_convert_over_the_input(tmp_path: Path) -> None:
    """The output may be the input: it is written beside it and moved."""
    path = tmp_path / "a.o"
    shutil.copyfile(SCS, path)
    assert run(["sframe", "convert", str(path), "-o", str(path), "-q"]) == 0
    assert [item.name for item in tmp_path.iterdir()] == ["a.o"]
    assert run(["sframe", "convert", str(path), "-o", str(tmp_path / "no" / "such"), "-q"]) == 2


def test_diff_names_functions_and_rules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(make.section([Fde(0x1000, 16, [Fre(0), Fre(8, (32, -24, -32))])]))
    two.write_bytes(make.section([Fde(0x1000, 16, [Fre(0), Fre(12, (32, -24, -32))]), Fde(0x2000, 4)]))
    found = as_json(capsys, "diff", str(one), str(two), status=1)
    assert found["bytes_compared"] == 16
    assert [(item["start"], item["bytes"], item["aspects"]) for item in found["differences"]] == [
        (f"0x{0x1008:016x}", 4, ["cfa", "fp", "ra"]),
        (f"0x{0x2000:016x}", 4, ["only_second"]),
    ]
    assert found["differences"][0]["first"] == "cfa=sp+32 fp=[cfa-32] ra=[cfa-24]"
    assert run(["sframe", "diff", str(one), str(one)]) == 0


def test_stat_counts(capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, "stat", IMAGE)
    assert found["bytes"] == sum(found["parts"].values())
    assert found["coverage"][".text"]["covered"] <= found["coverage"][".text"]["size"]
    assert set(found["cfi"]) == {".eh_frame"}
    assert found["functions"]["signal frames"] == 1
    assert found["functions"]["key B"] == 1
    assert run(["sframe", "stat", IMAGE]) == 0
    assert ".text" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dump", "/no/such/file"], "cannot be read"),
        (["dump", __file__], "neither an ELF file nor an SFrame section"),
        (["dump", IMAGE, "--section", ".nothing"], "aarch64.elf: has no section .nothing"),
        (["check", IMAGE, "--section", ".nothing"], "has no section .nothing"),
        (["convert", str(GOLDEN / "v3" / "amd64.o"), "--from", "cfi", "-o", "/dev/null"], "arm64 only"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sframe", *words]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err


def test_other_machines_are_converted_from_their_sframe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """CFI is read for arm64 only; `auto` then takes the section that is there."""
    for name in ("amd64.so", "s390x.so", "s390x.o", "aarch64-be.o"):
        out = tmp_path / name
        assert run(["sframe", "convert", str(GOLDEN / "v3" / name), "-o", str(out), "-q"]) == 0
        assert run(["sframe", "diff", str(GOLDEN / "v3" / name), str(out), "-q"]) == 0
        capsys.readouterr()
