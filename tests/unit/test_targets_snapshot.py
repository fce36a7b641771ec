"""Recorded captures: what is read back equals what was written, and damage is refused."""

from __future__ import annotations

import json
import random
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from surefoot.dtypes import Insn
from surefoot.errors import Inconsistent, SurefootError, Truncated, Unavailable, UnknownVersion, Unsupported
from surefoot.metadata.rules import CfaBase, FpRule, FunctionIndex, RaRule, RuleTable
from surefoot.targets.capture import Capture, TaskList
from surefoot.targets.reduction import reduce_capture
from surefoot.targets.snapshot import load_snapshot, record, save_snapshot
from surefoot.unwind.code import CodeMap, FunctionKind, Functions, TextWords
from surefoot.unwind.context import Mode
from surefoot.unwind.state import Bookkeeping, Layout, Stacks, Start, Tasks
from surefoot.unwind.walker import walk

BASE = 0xFFFF_8000_8001_0000
STACK = 0xFFFF_8000_9000_0000
NOP, RET = 0xD503_201F, 0xD65F_03C0
NAMES = ("outer", "middle", "tail", "target", "veneered", "unrelated", "veneer_user")
SIZE = 0x100
"""Every function takes 64 words."""


def _at(name: str, word: int = 0) -> int:
    return BASE + SIZE * NAMES.index(name) + 4 * word


def _branch(kind: int, site: int, goal: int) -> int:
    return kind | (goal - site) // 4 & 0x3FF_FFFF


def _words() -> Insn:
    """Give outer: bl middle; middle: bl tail; tail: b target; target: b veneer -> veneered; unrelated: b outer."""
    words = np.full(SIZE // 4 * len(NAMES), NOP, dtype=np.uint32)

    def put(addr: int, word: int) -> None:
        words[(addr - BASE) // 4] = word

    for caller, callee in (("outer", "middle"), ("middle", "tail")):
        put(_at(caller, 4), _branch(0x9400_0000, _at(caller, 4), _at(callee)))
    put(_at("outer", 1), 0xA9BE_7BFD)  # stp x29, x30, [sp, #-32]!
    put(_at("middle", 1), 0xA901_7BFD)  # stp x29, x30, [sp, #16]
    put(_at("tail", 8), _branch(0x1400_0000, _at("tail", 8), _at("target")))
    put(_at("target", 8), _branch(0x1400_0000, _at("target", 8), _at("veneer_user", 40)))
    put(_at("unrelated", 8), _branch(0x1400_0000, _at("unrelated", 8), _at("outer")))
    page, low = _at("veneered") >> 12, _at("veneered") & 0xFFF
    delta = page - (_at("veneer_user", 40) >> 12)
    put(_at("veneer_user", 40), 0x9000_0010 | (delta & 3) << 29 | (delta >> 2 & 0x7FFFF) << 5)  # adrp x16
    put(_at("veneer_user", 41), 0x9100_0210 | low << 10)  # add x16, x16, #low
    put(_at("veneer_user", 42), 0xD61F_0200)  # br x16
    return words


def _rules() -> RuleTable:
    """Give one row per function: CFA = SP + 32, FP and RA saved."""
    count = len(NAMES)
    start = np.array([_at(name) for name in NAMES], dtype=np.uint64)
    number = np.arange(count)

    def full(value: int, kind: str) -> NDArray[Any]:
        return np.full(count, value, dtype=kind)

    index = FunctionIndex(
        start, full(SIZE, "u8"), number.astype("i8"), full(1, "i8"), full(1, "u1"), full(0, "u1"),
        full(0, "i8"), full(-1, "i4"), full(0, "u1"), full(-1, "i2"),
    )  # fmt: skip
    return RuleTable(
        start, full(CfaBase.SP, "u1"), full(32, "i4"), full(FpRule.AT_CFA, "u1"), full(-32, "i4"),
        full(RaRule.AT_CFA, "u1"), full(-24, "i4"), full(0, "?"), number.astype("i4"), full(-1, "i4"), index,
    )  # fmt: skip


def _capture() -> Capture:
    """Give three tasks; the first two are blocked in target, called by middle through tail, called by outer."""
    count, words = 3, 64
    stack_words = np.zeros(count * words, dtype=np.uint64)
    for i in range(count):
        frames = [(_at("middle", 5), 8), (_at("outer", 5), 12), (0, 16)]
        for k, (ra, after) in enumerate(frames):
            at = i * words + 4 + 4 * k
            stack_words[at] = STACK + 0x8000 * i + 8 * after
            stack_words[at + 1] = ra
    low = np.array([STACK + 0x8000 * i for i in range(count)], dtype=np.uint64)
    kind = np.zeros(count, dtype=np.uint8)
    stacks = Stacks(low, low + np.uint64(512), kind, low, np.arange(count) * words, stack_words)
    index = np.full((count, 6), -1, dtype=np.int32)
    index[:, 0] = np.arange(count)
    book = Bookkeeping(
        np.array([0, 1, 1, 2]),
        np.array([_at("outer", 5), 7], dtype=np.uint64),
        np.array([1, 2], dtype=np.uint64),
        np.array([_at("veneered", 1), 0], dtype=np.uint64),
        np.zeros(count, dtype=np.bool_),
    )
    pc = np.full(count, _at("target", 5), dtype=np.uint64)
    tasks = Tasks(
        np.array([Start.BLOCKED, Start.REGS, Start.USER], dtype=np.uint8),
        pc, low + np.uint64(32), low + np.uint64(32), pc, index, low + np.uint64(480), book, Bookkeeping.none(count),
    )  # fmt: skip
    functions = Functions(
        np.array([_at(name) for name in NAMES], dtype=np.uint64),
        np.array([_at(name) + SIZE for name in NAMES], dtype=np.uint64),
        np.full(len(NAMES), FunctionKind.FUNC, dtype=np.uint8),
        NAMES,
    )
    text = TextWords.from_ranges([(BASE, _words())])
    changed = np.array([_at("middle", 9), _at("unrelated", 9)], dtype=np.uint64)
    code = CodeMap(functions, text, _rules(), changed=changed, labels={"cpu_switch_to": _at("target")})
    ints = np.array([1, 2, 2], dtype=np.int32)
    flags = np.array([False, True, True])
    info = TaskList(ints, ints, ("a", "b", "ü"), ("S", "R", "R"), ints, flags, flags, ints.astype(np.uint64))
    return Capture("vmcore", "7.3", "ab", info, tasks, stacks, Layout(pac_mask=0xFFF0 << 48), code, ("a note",))


def _assert_equal(one: Capture, two: Capture) -> None:
    for owner in ("info", "tasks", "stacks"):
        a, b = getattr(one, owner), getattr(two, owner)
        for name in type(a).__slots__:
            if not isinstance(getattr(a, name), Bookkeeping):
                assert np.array_equal(getattr(a, name), getattr(b, name)), (owner, name)
    for book in ("fgraph", "kretprobe"):
        a, b = getattr(one.tasks, book), getattr(two.tasks, book)
        for name in Bookkeeping.__slots__:
            assert np.array_equal(getattr(a, name), getattr(b, name)), (book, name)
    assert (one.name, one.release, one.build_id, one.notes) == (two.name, two.release, two.build_id, two.notes)
    assert one.layout == two.layout
    assert one.code.labels == two.code.labels
    assert list(one.code.functions.names) == list(two.code.functions.names)
    for a, b, names in (
        (one.code.functions, two.code.functions, ("start", "end", "kind")),
        (one.code.text, two.code.text, ("addr", "word_off", "words", "live")),
        (one.code.rules, two.code.rules, ("start", "cfa_base", "cfa_off", "fp_rule", "ra_rule", "ra_off", "func")),
        (one.code, two.code, ("changed", "redirects")),
    ):
        for name in names:
            assert np.array_equal(getattr(a, name), getattr(b, name)), name


def test_a_snapshot_reads_back_as_it_was_written(tmp_path: Path) -> None:
    capture = _capture()
    save_snapshot(capture, tmp_path / "a.npz")
    _assert_equal(load_snapshot(tmp_path / "a.npz"), capture)


def test_a_record_holds_the_chosen_tasks_only(tmp_path: Path) -> None:
    written = record(_capture(), [2], tmp_path / "a.npz")
    assert written.info.pid.tolist() == [2, 2]
    assert written.tasks.fgraph.ret.tolist() == [7]
    _assert_equal(load_snapshot(tmp_path / "a.npz"), written)
    with pytest.raises(Unavailable, match="no task with pid 5"):
        record(_capture(), [5], tmp_path / "b.npz")


def test_the_reduced_code_holds_what_traces_touch_and_no_function_body() -> None:
    code = reduce_capture(_capture(), [0]).code
    assert list(code.functions.names) == ["outer", "middle", "tail", "target", "veneered"]
    words, known = code.text.words_at(
        np.array(
            [
                *(_at("outer", 1), _at("outer", 4), _at("middle", 1), _at("middle", 4)),
                *(_at("tail", 8), _at("target", 8), _at("veneer_user", 40)),
            ],
            dtype=np.uint64,
        )
    )
    assert known.all()
    assert (words != NOP).all()
    assert code.text.words.size < 20
    assert code.changed.tolist() == [_at("middle", 9)]
    held = code.rules.functions.start.tolist()
    assert _at("outer") in held
    assert _at("unrelated") not in held


def test_a_reduced_capture_walks_as_the_whole_one() -> None:
    whole = _capture()
    reduced = reduce_capture(whole, [0, 1, 2])
    for mode in Mode:
        a = walk(whole.code, whole.stacks, whole.tasks, whole.layout, mode=mode)
        b = walk(reduced.code, reduced.stacks, reduced.tasks, reduced.layout, mode=mode)
        for name in ("first", "pc", "source", "evidence", "sp", "fp", "reason", "reason_frame", "reason_addr"):
            assert np.array_equal(getattr(a, name), getattr(b, name)), (mode, name)


def test_a_reduction_without_rules_or_text_is_possible() -> None:
    capture = _capture()
    nothing = TextWords.from_ranges([])
    reduced = reduce_capture(replace(capture, code=replace(capture.code, text=nothing)), [0])
    assert reduced.code.text.words.size == 0


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        load_snapshot(tmp_path / "missing.npz")
    with pytest.raises(Unavailable):
        save_snapshot(_capture(), tmp_path / "no" / "folder.npz")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(Unsupported):
        load_snapshot(tmp_path / "text.npz")


def _rewrite(path: Path, change: Callable[[dict[str, NDArray[Any]]], None]) -> None:
    """Change a snapshot's arrays, checksums made anew."""
    with np.load(path) as data:
        arrays = {name: data[name] for name in data.files}
    change(arrays)
    np.savez_compressed(path, allow_pickle=True, **arrays)


def _meta(**values: object) -> Callable[[dict[str, NDArray[Any]]], None]:
    def change(arrays: dict[str, NDArray[Any]]) -> None:
        meta = json.loads(arrays["meta"].tobytes()) | values
        arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)

    return change


def _set(name: str, value: object) -> Callable[[dict[str, NDArray[Any]]], None]:
    def change(arrays: dict[str, NDArray[Any]]) -> None:
        arrays[name] = np.array(value, dtype=arrays[name].dtype)

    return change


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (_meta(format="other"), Unsupported),
        (_meta(version=2), UnknownVersion),
        (_meta(comm=["a"]), Inconsistent),
        (_meta(comm="abc"), Inconsistent),
        (_meta(names=["f"]), Inconsistent),
        (_meta(labels={"x": -1}), Inconsistent),
        (_meta(labels=[]), Inconsistent),
        (_meta(layout={}), Inconsistent),
        (_meta(notes=[1]), Inconsistent),
        (_set("meta", [1, 2, 3]), Inconsistent),
        (_set("tasks.start", [9, 0, 0]), Inconsistent),
        (_set("tasks.pc", [1]), Inconsistent),
        (_set("tasks.stacks", [[7] * 6] * 3), Inconsistent),
        (_set("stacks.kind", [9, 0, 0]), Inconsistent),
        (_set("stacks.word_off", [0, 64, 10**9]), Inconsistent),
        (_set("stacks.low", [2**64 - 1] * 3), Inconsistent),
        (_set("fgraph.first", [0, 5, 1, 2]), Inconsistent),
        (_set("fgraph.ret", [0]), Inconsistent),
        (_set("functions.end", [0] * 7), Inconsistent),
        (_set("functions.kind", [7] * 7), Inconsistent),
        (_set("text.word_off", [0, 10**9]), Inconsistent),
        (_set("text.addr", [2**64 - 4]), Inconsistent),
        (_set("code.changed", [4, 4]), Inconsistent),
        (_set("code.redirects", np.zeros((1, 3))), Inconsistent),
        (_set("rules.func", [-1] * 7), Inconsistent),
        (_set("rules.cfa_base", [200] * 7), Inconsistent),
        (_set("rules.side", [5] * 7), Inconsistent),
        (lambda arrays: arrays.pop("stacks.words"), Inconsistent),
        (lambda arrays: arrays.update({"stacks.words": np.zeros(192, dtype=np.float64)}), Inconsistent),
        (lambda arrays: arrays.update({"stacks.words": np.array([{}], dtype=object)}), Truncated),
    ],
)
def test_damage_is_refused(
    tmp_path: Path, change: Callable[[dict[str, NDArray[Any]]], None], error: type[SurefootError]
) -> None:
    path = tmp_path / "a.npz"
    save_snapshot(_capture(), path)
    _rewrite(path, change)
    with pytest.raises(error) as caught:
        load_snapshot(path)
    assert "a.npz" in str(caught.value)


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("big.npy", bytes(1 << 20))
    monkeypatch.setattr("surefoot.targets.snapshot._MAX_BYTES", 1000)
    with pytest.raises(Inconsistent, match="unpacks"):
        load_snapshot(path)


def test_random_damage_is_refused_or_walks(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    save_snapshot(_capture(), path)
    with np.load(path) as data:
        good = {name: data[name] for name in data.files}
    rng = random.Random(11)
    for round_ in range(250):
        arrays = {name: array.copy() for name, array in good.items()}
        for _ in range(rng.randint(1, 3)):
            name = rng.choice([name for name, array in arrays.items() if array.size])
            raw = arrays[name].reshape(-1).view(np.uint8)
            raw[rng.randrange(raw.size)] = rng.randrange(256)
        damaged = tmp_path / f"{round_}.npz"
        np.savez(damaged, **arrays)
        try:
            capture = load_snapshot(damaged)
        except SurefootError:
            continue
        for mode in Mode:
            walk(capture.code, capture.stacks, capture.tasks, capture.layout, mode=mode)


def test_random_bytes_are_refused_or_equal(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    save_snapshot(_capture(), path)
    good = path.read_bytes()
    rng = random.Random(12)
    for _ in range(200):
        data = bytearray(good)
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(bytes(data[: rng.randrange(len(data))] if rng.random() < 0.3 else data))
        with suppress(SurefootError):
            load_snapshot(path)
