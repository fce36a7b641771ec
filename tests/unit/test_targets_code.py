"""The code of a running kernel: live words with their holes, changes, names, and the layout's table."""

from __future__ import annotations

import json

import numpy as np
import pytest

from linux_memory import NUMBERS, SYMBOLS, FakeProgram, Kernel, no_mechanisms
from surefoot.errors import Inconsistent
from surefoot.targets.code import Piece, build_code, changed_words, compare_text, live_words
from surefoot.targets.imagetables import FunctionColumns, empty_rules
from surefoot.targets.layouts import KernelLayout
from surefoot.targets.names import NameColumn
from surefoot.targets.reading import DrgnMemory

TEXT = 0xFFFF_8000_8001_0000
NOWHERE = np.zeros(0, dtype=np.uint64)


def _memory(*blocks: tuple[int, bytes]) -> DrgnMemory:
    prog = FakeProgram()
    for addr, data in blocks:
        prog.put(addr, data)
    return DrgnMemory(prog)


def test_text_with_holes_is_read_around_them() -> None:
    memory = _memory((TEXT, b"\x01\0\0\0" * 1024), (TEXT + 0x3000, b"\x02\0\0\0" * 1024))
    found = live_words(memory, TEXT, 0x4000)
    assert [(addr, words.size, int(words[0])) for addr, words in found] == [(TEXT, 1024, 1), (TEXT + 0x3000, 1024, 2)]
    assert live_words(memory, TEXT + 0x8000, 0x100) == []


def test_text_is_read_whole_where_it_can_be() -> None:
    memory = _memory((TEXT, bytes(0x400010)))
    ((addr, words),) = live_words(memory, TEXT, 0x400010)
    assert (addr, words.size) == (TEXT, 0x100004)


def test_changed_words_are_given_at_run_time_addresses() -> None:
    known = no_mechanisms()
    image = np.arange(100, dtype=np.uint32)
    live = image.copy()
    live[[3, 50]] = 0xFFFF, 0xD420_0080  # the second is a kprobe's BRK
    bias = 0x1000
    found = changed_words(compare_text(known, [(TEXT, image)], [(TEXT + bias, live[:60])], bias), bias)
    assert found.tolist() == [TEXT + bias + 12, TEXT + bias + 200]
    beyond = changed_words(compare_text(known, [(TEXT, image[:10])], [(TEXT + 40, live)], 0), 0)
    assert beyond.size == 0


def _piece(start: int, names: list[str], size: int = 0x100) -> Piece:
    starts = np.array([start + size * i for i in range(len(names))], dtype=np.uint64)
    kinds = np.zeros(len(names), dtype=np.uint8)
    functions = FunctionColumns(starts, starts + np.uint64(size), kinds, NameColumn.of(names))
    return Piece(functions, None, [(start, np.zeros(size * len(names) // 4, dtype=np.uint32))], NOWHERE)


def test_pieces_are_joined_in_address_order() -> None:
    code = build_code([_piece(0x9000, ["kernel_a", "kernel_b"]), _piece(0x1000, ["module"])], {})
    assert list(code.functions.names) == ["module", "kernel_a", "kernel_b"]
    assert code.text.addr.tolist() == [0x1000, 0x9000]
    assert len(code.rules) == 0


def test_functions_that_overlap_another_image_are_left_out() -> None:
    code = build_code([_piece(0x1000, ["a", "b", "c"]), _piece(0x1480, ["late"]), _piece(0x2000, [])], {})
    assert list(code.functions.names) == ["a", "b", "c", "late"]
    nested = [_piece(0x1000, ["a", "b"]), Piece(_piece(0x1080, ["x"]).functions, None, [], NOWHERE)]
    assert list(build_code(nested, {}).functions.names) == ["a"]  # b starts before x ends


def test_names_are_a_sequence() -> None:
    names = NameColumn.of(["one", "", "zwölf", "four"])
    assert list(names) == ["one", "", "zwölf", "four"]
    assert names[-1] == "four"
    assert names[1:3] == ["", "zwölf"]
    assert list(names.take(np.array([2, 0]))) == ["zwölf", "one"]
    assert list(NameColumn.join([names, names.take(np.array([0]))]))[3:] == ["four", "one"]
    with pytest.raises(IndexError):
        names[4]


def test_names_are_cut_out_of_a_string_table() -> None:
    table = np.frombuffer(b"\0alpha\0be\0", dtype=np.uint8)
    assert list(NameColumn.cut(table, np.array([7, 1, 0]), np.array([2, 5, 0]))) == ["be", "alpha", ""]


def test_an_empty_table_has_columns_of_the_right_types() -> None:
    table = empty_rules()
    table.check()
    assert table.lookup(np.array([5], dtype=np.uint64), np.array([False])).tolist() == [-1]
    assert table.start.dtype == np.uint64
    assert table.functions.reason.dtype == np.int16


def _with_thread_size() -> KernelLayout:
    return KernelLayout({**NUMBERS, "thread_size": 16384}, SYMBOLS)


def test_a_layout_survives_its_text() -> None:
    layout = _with_thread_size()
    assert KernelLayout.from_json(layout.to_json()) == layout
    assert layout.has("task.pid", "sizeof.module")
    assert not layout.has("task.pid", "nonsense")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        json.dumps({"numbers": {}, "symbols": {}}),
        json.dumps({"numbers": {**NUMBERS, "task.pid": "4"}, "symbols": {}}),
        json.dumps({"numbers": {**NUMBERS, "task.pid": True}, "symbols": {}}),
        json.dumps({"numbers": 1, "symbols": {}}),
    ],
)
def test_a_damaged_layout_is_refused(text: str) -> None:
    with pytest.raises(Inconsistent):
        KernelLayout.from_json(text)


def test_a_kernel_without_ftrace_regs_has_none_for_the_walker() -> None:
    layout = Kernel(without=("ftrace_regs.pc",)).layout.walker(0xFF << 56)
    assert (layout.ftrace_regs_size, layout.ftrace_regs_pc) == (0, 0)
    assert layout.pac_mask == 0xFF << 56
    assert Kernel().layout.walker(0).ftrace_regs_size == 112


def test_reads_say_what_is_not_there() -> None:
    memory = _memory((0x1000, b"name\0rest" + bytes(0x1000)))
    assert memory.read(0x500, 4) is None
    assert memory.read(2**64 - 4, 8) is None
    assert memory.read(0x1000, -1) is None
    assert memory.text(0x1000) == "name"
    assert memory.text(0x1000, 2) == "na"
    assert memory.text(0x500) is None
    assert memory.u64(0x10) is None
    data, good = memory.read_many(np.array([0x1000, 0x10], dtype=np.uint64), 4)
    assert good.tolist() == [True, False]
    assert data[0].tobytes() == b"name"
    low, words = memory.words(0x10, 0x18)
    assert (low, words.size) == (0x18, 0)
