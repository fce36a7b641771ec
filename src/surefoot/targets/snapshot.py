"""Layer 7: captures in recorded form: a few tasks with all that their traces can touch, in one small file.

Regression and corruption tests replay them without a kernel. A file is a NumPy archive of plain arrays and one
JSON text; reading believes nothing in it.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from surefoot.errors import Inconsistent, Truncated, Unavailable, UnknownVersion, Unsupported
from surefoot.image.rulecache import pack, unpack
from surefoot.metadata.rules import CfaBase, FpRule, RaRule, RuleTable
from surefoot.targets.capture import Capture, TaskList
from surefoot.targets.names import NameColumn
from surefoot.targets.reduction import reduce_capture
from surefoot.unwind.code import CodeMap, FunctionKind, Functions, TextWords
from surefoot.unwind.state import Bookkeeping, Layout, StackKind, Stacks, Start, Tasks

__all__ = ["load_snapshot", "record", "save_snapshot"]

_FORMAT: Final = "surefoot-snapshot"
_VERSION: Final = 1
_MAX_BYTES: Final = 256 << 20
"""Bound on what a file may unpack to."""

_Arrays = Mapping[str, NDArray[Any]]

_COLUMNS: Final = {
    "info.pid": "<i4",
    "info.tgid": "<i4",
    "info.cpu": "<i4",
    "info.on_cpu": "|b1",
    "info.kthread": "|b1",
    "info.switches": "<u8",
    "tasks.start": "|u1",
    "tasks.pc": "<u8",
    "tasks.sp": "<u8",
    "tasks.fp": "<u8",
    "tasks.lr": "<u8",
    "tasks.final_record": "<u8",
    "stacks.low": "<u8",
    "stacks.high": "<u8",
    "stacks.kind": "|u1",
    "stacks.captured": "<u8",
    "stacks.word_off": "<i8",
    "stacks.words": "<u8",
    "functions.start": "<u8",
    "functions.end": "<u8",
    "functions.kind": "|u1",
    "text.addr": "<u8",
    "text.word_off": "<i8",
    "text.words": "<u4",
    "code.changed": "<u8",
} | {
    f"{book}.{name}": kind
    for book in ("fgraph", "kretprobe")
    for name, kind in (("first", "<i8"), ("ret", "<u8"), ("key", "<u8"), ("func", "<u8"), ("broken", "|b1"))
}
"""One-dimensional arrays of a file and their types."""


def record(capture: Capture, pids: list[int], path: Path) -> Capture:
    """Write the chosen tasks of a capture, with all that their traces can touch, to a file.

    Args:
        capture: any.
        pids: of the tasks; 0 means all idle tasks.
        path: the file; replaced if it exists.

    Returns:
        what was written.

    Raises:
        Unavailable: no such task, or the file cannot be written.
    """
    reduced = reduce_capture(capture, capture.rows_of(pids))
    save_snapshot(reduced, path)
    return reduced


def save_snapshot(capture: Capture, path: Path) -> None:
    """Write a capture to a file; proofs are not kept.

    Raises:
        Unavailable: the file cannot be written.
    """
    code, tasks, stacks, info = capture.code, capture.tasks, capture.stacks, capture.info
    arrays: dict[str, NDArray[Any]] = {}
    owners = {
        "info": info,
        "tasks": tasks,
        "stacks": stacks,
        "fgraph": tasks.fgraph,
        "kretprobe": tasks.kretprobe,
        "functions": code.functions,
        "text": code.text,
        "code": code,
    }
    for name, kind in _COLUMNS.items():
        owner, column = name.split(".")
        arrays[name] = getattr(owners[owner], column).astype(kind)
    arrays["tasks.stacks"] = tasks.stacks.astype("<i4")
    arrays["code.redirects"] = code.redirects.astype("<u8")
    arrays |= {f"rules.{name}": array for name, array in pack(code.rules).items()}
    meta = {
        "format": _FORMAT,
        "version": _VERSION,
        "name": capture.name,
        "release": capture.release,
        "build_id": capture.build_id,
        "notes": list(capture.notes),
        "comm": list(info.comm),
        "state": list(info.state),
        "names": list(code.functions.names),
        "labels": code.labels,
        "layout": asdict(capture.layout),
        "live": code.text.live,
    }
    arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)
    try:
        with path.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
    except OSError as error:
        raise Unavailable(f"{path}: cannot be written: {error.strerror or error}") from error


def load_snapshot(path: Path) -> Capture:
    """Read a capture from a file.

    Raises:
        Unavailable: the file cannot be read.
        Unsupported: it is no snapshot.
        UnknownVersion: it is one of another version.
        Truncated, Inconsistent: it is damaged.
    """
    arrays = _read(path)
    try:
        return _assemble(arrays)
    except (Inconsistent, UnknownVersion, Unsupported) as error:
        raise error.at(file=str(path)) from error
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError, IndexError) as error:
        raise Inconsistent(f"the snapshot is damaged ({error})", file=str(path)) from error


def _read(path: Path) -> dict[str, NDArray[Any]]:
    """Give the arrays of a file."""
    name = str(path)
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(item.file_size for item in archive.infolist()) > _MAX_BYTES:
                raise Inconsistent(f"unpacks to more than {_MAX_BYTES >> 20} MB", file=name)
        with np.load(path, allow_pickle=False) as data:
            return {str(key): data[key] for key in data.files}
    except OSError as error:
        raise Unavailable(f"{name}: cannot be read: {error.strerror or error}") from error
    except (zipfile.BadZipFile, EOFError) as error:
        raise Unsupported("not a snapshot, or one that was cut off", file=name) from error
    except (zlib.error, ValueError, KeyError, NotImplementedError, RuntimeError, SyntaxError, MemoryError) as error:
        raise Truncated(f"the snapshot is damaged ({error})", file=name) from error


def _assemble(arrays: _Arrays) -> Capture:
    """Build the capture, checking every column."""
    meta = json.loads(_column(arrays, "meta", "|u1").tobytes())
    if meta["format"] != _FORMAT:
        raise Unsupported("not a snapshot")
    if meta["version"] != _VERSION:
        raise UnknownVersion(f"snapshot of version {meta['version']}, this is {_VERSION}")
    columns = {name: _column(arrays, name, kind) for name, kind in _COLUMNS.items()}

    def part(owner: str) -> dict[str, NDArray[Any]]:
        return {name.split(".")[1]: array for name, array in columns.items() if name.startswith(f"{owner}.")}

    info = TaskList(**part("info"), comm=_texts(meta["comm"]), state=_texts(meta["state"]))
    info.check()
    stacks = Stacks(**part("stacks"))
    _check_stacks(stacks)
    tasks = Tasks(
        **part("tasks"),
        stacks=_matrix(arrays, "tasks.stacks", "<i4"),
        fgraph=_book(part("fgraph"), len(info)),
        kretprobe=_book(part("kretprobe"), len(info)),
    )
    tasks.check(stacks)
    _require(len(tasks) == len(info), "tasks and their description differ in number")
    _require(_within(tasks.start, len(Start)), "a task starts in an unknown way")
    return Capture(
        name=str(meta["name"]),
        release=str(meta["release"]),
        build_id=str(meta["build_id"]),
        info=info,
        tasks=tasks,
        stacks=stacks,
        layout=_layout(meta["layout"]),
        code=_code(arrays, part, meta),
        notes=_texts(meta["notes"]),
    )


def _require(good: bool, problem: str) -> None:
    """Refuse a damaged file.

    Raises:
        Inconsistent: `good` is False.
    """
    if not good:
        raise Inconsistent(f"the snapshot is damaged: {problem}")


def _column(arrays: _Arrays, name: str, kind: str) -> NDArray[Any]:
    """Give a one-dimensional array of the right type."""
    array = arrays[name]
    _require(array.ndim == 1 and array.dtype == np.dtype(kind), f"array {name} is of another type")
    return array


def _matrix(arrays: _Arrays, name: str, kind: str) -> NDArray[Any]:
    """Give a two-dimensional array of the right type."""
    array = arrays[name]
    _require(array.ndim == 2 and array.dtype == np.dtype(kind), f"array {name} is of another type")
    return array


def _within(column: NDArray[np.uint8], count: int) -> bool:
    """Whether all values are below `count`."""
    return not column.size or int(column.max()) < count


def _texts(values: object) -> tuple[str, ...]:
    """Give a list of strings as a tuple."""
    good = isinstance(values, list) and all(isinstance(value, str) for value in values)
    _require(good, "a list of names is none")
    return tuple(values) if isinstance(values, list) else ()


def _book(columns: dict[str, NDArray[Any]], tasks: int) -> Bookkeeping:
    """Give bookkeeping whose columns fit each other; `Tasks.check` looks at `first`."""
    book = Bookkeeping(**columns)
    _require(book.ret.size == book.key.size == book.func.size, "bookkeeping columns differ in length")
    _require(book.broken.size == tasks and book.first.size == tasks + 1, "bookkeeping does not fit the tasks")
    return book


def _check_stacks(stacks: Stacks) -> None:
    """Verify the columns of the stacks."""
    sizes = {getattr(stacks, name).size for name in ("low", "high", "kind", "captured", "word_off")}
    _require(len(sizes) == 1, "stack columns differ in length")
    _require(_within(stacks.kind, len(StackKind)), "a stack is of an unknown kind")
    _require(bool(np.all(stacks.captured >= stacks.low)), "a stack is captured below its end")
    stacks.check()


def _layout(values: dict[str, object]) -> Layout:
    """Give the layout; every offset a small number."""
    _require(set(values) == {item.name for item in fields(Layout)}, "the layout has other members")
    numbers = {name: value for name, value in values.items() if type(value) is int}
    small = all(0 <= value < 1 << 16 for name, value in numbers.items() if name != "pac_mask")
    _require(len(numbers) == len(values) and small and 0 <= numbers["pac_mask"] < 1 << 64, "an offset is absurd")
    return Layout(**numbers)


def _code(arrays: _Arrays, part: Any, meta: dict[str, Any]) -> CodeMap:
    """Give the code."""
    names = NameColumn.of(_texts(meta["names"]))
    functions = Functions(**part("functions"), names=names)
    count = functions.start.size
    _require(functions.end.size == functions.kind.size == len(names) == count, "function columns differ in length")
    _require(bool(np.all(functions.start < functions.end)), "a function has no extent")
    _require(bool(np.all(functions.end[:-1] <= functions.start[1:])), "functions overlap")
    _require(_within(functions.kind, len(FunctionKind)), "a function is of an unknown kind")
    text = TextWords(**part("text"), live=bool(meta["live"]))
    _check_text(text)
    labels = meta["labels"]
    good = isinstance(labels, dict) and all(type(addr) is int and 0 <= addr < 1 << 64 for addr in labels.values())
    _require(good, "a label is no address")
    redirects = _matrix(arrays, "code.redirects", "<u8")
    _require(redirects.shape[1] == 2, "redirects are no pairs")
    changed = part("code")["changed"]
    _require(bool(np.all(changed[:-1] < changed[1:])), "changed words are out of order")
    return CodeMap(functions, text, _rules(arrays), redirects=redirects, changed=changed, labels=labels)


def _check_text(text: TextWords) -> None:
    """Verify the columns of the text."""
    _require(text.word_off.size == text.addr.size + 1, "text columns differ in length")
    sizes = np.diff(text.word_off)
    _require(bool(np.all(sizes > 0)) and int(text.word_off[0]) == 0, "a range of text has no extent")
    _require(int(text.word_off[-1]) == text.words.size, "words of text are missing")
    end = text.addr + sizes.astype(np.uint64) * np.uint64(4)
    good = bool(np.all(end[:-1] <= text.addr[1:])) and bool(np.all(text.addr < end))
    _require(good and not bool(np.any(text.addr & np.uint64(3))), "ranges of text overlap")


def _rules(arrays: _Arrays) -> RuleTable:
    """Give the rule table, ready for look-ups."""
    packed = {name.removeprefix("rules."): array for name, array in arrays.items() if name.startswith("rules.")}
    rules = unpack(packed)
    for column, kinds in ((rules.cfa_base, CfaBase), (rules.fp_rule, FpRule), (rules.ra_rule, RaRule)):
        _require(_within(column, len(kinds)), "a rule is of an unknown kind")
    index = rules.functions
    good = bool(np.all(index.end >= index.start)) and bool(np.all(rules.start[:-1] <= rules.start[1:]))
    _require(good and bool(np.all(index.end[:-1] <= index.start[1:])), "rules are out of order")
    _require(bool(np.all(rules.side < rules.side_rules.size)), "a rule points outside its side table")
    return rules
