"""The JSON of `surefoot stack`: what its schema says, and everything that the text says."""

from __future__ import annotations

import json
from typing import Any

import pytest

import json_schema
import report_builder as make
from report_builder import Frame, Task, at
from surefoot.report.schema import STACK, address
from surefoot.report.stack_json import stack_json
from surefoot.report.stack_view import Vector
from surefoot.targets.linux import SourceLine
from surefoot.unwind.context import Mode
from surefoot.unwind.reasons import SENTENCES, Reason
from surefoot.unwind.state import Source, Start
from surefoot.unwind.trace import Evidence

SCHEMA = json_schema.load("stack-1.json")


def _object(*args: Any, **kwargs: Any) -> dict[str, Any]:
    """Give what a reader of the printed text gets."""
    result: dict[str, Any] = json.loads(json.dumps(stack_json(make.report(*args, **kwargs))))
    return result


def _task(pid: int, **kwargs: Any) -> dict[str, Any]:
    return next(task for task in _object(**kwargs)["tasks"] if task["pid"] == pid)


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("unreliable", [False, True])
def test_the_object_is_what_the_schema_says(mode: Mode, unreliable: bool) -> None:
    """Every key is described, and every value is as described."""
    assert json_schema.findings(SCHEMA, _object(mode=mode, unreliable=unreliable)) == []


def test_source_lines_are_described() -> None:
    """They appear on request only."""
    lines = [(SourceLine("f", "a.c", 7),)]
    given = [Task(1, "a", [Frame(at("schedule"))])]
    taken = json.loads(json.dumps(stack_json(make.report(given, lines=lambda _addrs: lines))))
    assert json_schema.findings(SCHEMA, taken) == []
    assert taken["tasks"][0]["frames"][0]["lines"] == [{"function": "f", "file": "a.c", "line": 7}]
    assert "lines" not in _task(1)["frames"][0]


def test_the_promised_keys_are_there() -> None:
    """The keys that the command promises, by these names."""
    whole = _object()
    assert whole["schema"] == STACK == "surefoot.stack/1"
    assert {"mode", "tasks", "summary"} <= whole.keys()
    for task in whole["tasks"]:
        assert {"pid", "comm", "on_cpu", "reliable", "reason", "frames"} <= task.keys()
        for frame in task["frames"]:
            assert {"pc", "symbol", "offset", "source", "evidence", "boundary"} <= frame.keys()
    assert whole["summary"]["tasks"] == 8
    assert whole["summary"]["reliable"] == {"fp": 3, "hybrid": 4}


def test_a_boundary() -> None:
    """With its kind and its registers, of the stack or of a CPU."""
    frame = _task(46)["frames"][3]
    assert frame["boundary"]
    assert (frame["symbol"], frame["offset"], frame["letters"]) == ("memcpy", 16, "P")
    assert frame["exception"] == "irq"
    assert frame["regs"]["address"] == "0xffff800090000100"
    assert frame["regs"]["pc"] == address((0x100 + 256) // 8)
    assert frame["regs"]["lr"] == address((0x100 + 240) // 8)
    assert _task(51)["frames"][0]["regs"]["address"] is None
    assert _task(51)["frames"][0]["ambiguous_lr"]["symbol"] == "zram_submit_bio"
    assert not _task(46)["frames"][4]["boundary"]


def test_a_reason_says_where() -> None:
    """Its name for programs; sentence, frame and both answers beside it."""
    task = _task(50)
    assert task["reason"] == "RULE_RECORD_MISMATCH"
    detail = task["reason_detail"]
    assert detail["sentence"] == SENTENCES[Reason.RULE_RECORD_MISMATCH]
    assert (detail["frame"], detail["at"]["symbol"], detail["other"]["symbol"]) == (1, "memcpy", "vfs_read")
    assert [frame["doubtful"] for frame in task["frames"]] == [False, False, True]
    assert task["comm"] == make.HOSTILE
    assert _task(61)["reason_detail"]["at"] is None
    assert _task(1)["reason"] is None
    assert _task(1)["reason_detail"] is None


def test_differences_are_named() -> None:
    """Also where both modes are sure and do not say the same."""
    differences = _object()["summary"]["differences"]
    assert [each["pid"] for each in differences["hybrid_only"]] == [46, 60]
    assert [(each["pid"], each["reason"]) for each in differences["fp_only"]] == [(50, "RULE_RECORD_MISMATCH")]
    (trace,) = differences["traces"]
    assert trace["pid"] == 174
    assert [place["symbol"] for place in trace["missing_in_fp"]] == ["vfs_read"]
    assert trace["only_in_fp"] == []


def test_the_schema_knows_every_word() -> None:
    """The enumerations of the schema are those of the code."""
    frame = SCHEMA["$defs"]["frame"]["properties"]
    assert frame["evidence"]["items"]["enum"] == [str(bit.name).lower() for bit in Evidence]
    assert frame["source"]["enum"] == [source.name.lower() for source in Source]
    assert frame["exception"]["enum"] == [*(vector.value for vector in Vector), None]
    assert SCHEMA["$defs"]["task"]["properties"]["start"]["enum"] == [start.name.lower() for start in Start]
    assert sorted(SCHEMA["properties"]["mode"]["enum"]) == sorted(mode.value for mode in Mode)


def _spoil(path: str, value: object) -> dict[str, Any]:
    """Give a valid object with one value replaced; the path is dotted."""
    whole = _object()
    target: Any = whole
    *steps, last = path.split(".")
    for step in steps:
        target = target[int(step)] if step.isdigit() else target[step]
    target[last] = value
    return whole


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("schema", "surefoot.stack/2"),
        ("mode", "guess"),
        ("tasks.0.pid", -1),
        ("tasks.0.pid", True),
        ("tasks.0.reason", "NOT_TEXT"),
        ("tasks.2.reason", None),
        ("tasks.0.state", "SS"),
        ("tasks.0.frames.0.pc", 1),
        ("tasks.0.frames.0.pc", "0xFFFF800080000010"),
        ("tasks.0.frames.0.evidence", ["hope"]),
        ("tasks.0.frames.0.letters", "X"),
        ("tasks.0.frames.0.extra", 1),
        ("summary.reliable", {"fp": 1}),
        ("summary.reasons", {"fp": {"because": 1}, "hybrid": {}}),
        ("notes", "none"),
    ],
)
def test_the_schema_refuses_what_is_wrong(path: str, value: object) -> None:
    """The validator and the schema together notice each of these."""
    assert json_schema.findings(SCHEMA, _spoil(path, value))
