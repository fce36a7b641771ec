"""Functions and names: look-ups against plain loops, aliases as kallsyms chooses them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elf_builder import FUNC, GLOBAL, LOCAL, NOTYPE, OBJECT, REL, WEAK, A, Elf, X
from surefoot.errors import Inconsistent
from surefoot.image.binary import Image, decode_image
from surefoot.image.functions import Functions
from surefoot.image.names import KSYM_NAME_LEN, NameTable
from surefoot.image.symbols import SymbolKind

BASE = 0xFFFF_8000_8000_0000
SIZE = 0x400
Spec = tuple[str, int, int, int, int]


def image_of(symbols: list[Spec], *, kind: int = 3) -> Image:
    """An image of one text section with symbols (name, offset, size, kind, binding)."""
    elf = Elf(kind).section(".text", bytes(SIZE), flags=A | X, addr=0 if kind == REL else BASE)
    for name, offset, size, type_, binding in symbols:
        elf.symbol(name, offset + (0 if kind == REL else BASE), size, kind=type_, binding=binding)
    image = decode_image(np.frombuffer(elf.build(), dtype=np.uint8))
    return image.placed(np.array([0, BASE, 0, 0, 0], dtype=np.uint64)) if kind == REL else image


def at(*offsets: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.array([BASE + offset for offset in offsets], dtype=np.uint64)


def names_of(functions: Functions, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[str]:
    return ["" if row < 0 else functions.name(row) for row in rows.tolist()]


def test_containing_and_nearest_differ() -> None:
    """Behind a function's end nothing contains the address, but kallsyms still prints the function."""
    functions = image_of([("f", 0x10, 0x10, FUNC, GLOBAL), ("g", 0x30, 8, FUNC, LOCAL)]).functions
    asked = at(0xF, 0x10, 0x1F, 0x20, 0x2F, 0x30, 0x38, SIZE)
    assert names_of(functions, functions.lookup(asked)) == ["", "f", "f", "", "", "g", "", ""]
    assert names_of(functions, functions.nearest(asked)) == ["", "f", "f", "f", "f", "g", "g", ""]


def test_return_addresses_are_looked_up_inside_the_call() -> None:
    """A call that ends a function returns to the next one's first byte, and still belongs to the first."""
    functions = image_of([("f", 0, 16, FUNC, GLOBAL), ("g", 16, 16, FUNC, GLOBAL)]).functions
    asked = at(16, 16)
    assert names_of(functions, functions.lookup(asked, np.array([True, False]))) == ["f", "g"]


def test_labels_do_not_hide_functions() -> None:
    functions = image_of([("f", 0, 32, FUNC, GLOBAL), ("inner", 8, 0, NOTYPE, GLOBAL)]).functions
    assert names_of(functions, functions.lookup(at(12))) == ["f"]
    assert names_of(functions, functions.nearest(at(12))) == ["inner"]


def test_the_inner_of_nested_symbols_is_taken_and_the_outer_resumes() -> None:
    functions = image_of([("outer", 0, 32, FUNC, GLOBAL), ("inner", 8, 8, NOTYPE, GLOBAL)]).functions
    assert names_of(functions, functions.lookup(at(4, 8, 15, 16, 31, 32))) == [
        "outer",
        "inner",
        "inner",
        "outer",
        "outer",
        "",
    ]
    ranges = functions.ranges
    assert list(ranges.names) == ["outer", "inner", "outer"]
    assert ranges.start.tolist() == at(0, 8, 16).tolist()
    assert ranges.end.tolist() == at(8, 16, 32).tolist()
    assert ranges.kind.tolist() == [SymbolKind.FUNC, SymbolKind.NOTYPE, SymbolKind.FUNC]
    assert list(ranges.names[1:]) == ["inner", "outer"]


@pytest.mark.parametrize(
    ("aliases", "first"),
    [
        ([("weak", WEAK), ("zz_strong", LOCAL)], "zz_strong"),
        ([("__pi_memcpy", GLOBAL), ("memcpy", GLOBAL)], "memcpy"),
        ([("__start_code", GLOBAL), ("___three", GLOBAL)], "___three"),
        ([("__softirqentry_text_start", GLOBAL), ("___f", GLOBAL)], "___f"),
        ([("b", GLOBAL), ("a", LOCAL)], "a"),
        ([("_x", GLOBAL), ("__a", GLOBAL)], "_x"),
        ([("__efistub_a", GLOBAL), ("___a", WEAK)], "___a"),
        ([("same_up_to_thirty_two_characters_b", GLOBAL), ("same_up_to_thirty_two_characters_a", GLOBAL)],) * 2,
    ],
)
def test_aliases_are_chosen_as_kallsyms_does(
    aliases: list[tuple[str, int]], first: str | list[tuple[str, int]]
) -> None:
    wanted = first if isinstance(first, str) else aliases[1][0]
    specs = [(name, 0, 16, FUNC, binding) for name, binding in aliases]
    for order in (specs, specs[::-1]):
        functions = image_of(order).functions
        assert names_of(functions, functions.nearest(at(4))) == [wanted]
        assert names_of(functions, functions.lookup(at(4))) == [wanted]


def test_modules_take_the_first_alias_of_the_file() -> None:
    specs = [("zz", 0, 16, FUNC, WEAK), ("aa", 0, 16, FUNC, GLOBAL)]
    functions = image_of(specs, kind=REL).functions
    assert names_of(functions, functions.nearest(at(4))) == ["zz"]


def test_functions_go_before_assembly_and_data_at_one_address() -> None:
    specs = [("a_data", 0, 16, OBJECT, GLOBAL), ("b_code", 0, 16, NOTYPE, GLOBAL), ("c_func", 0, 8, FUNC, GLOBAL)]
    functions = image_of(specs).functions
    assert names_of(functions, functions.lookup(at(0, 8))) == ["c_func", "b_code"]


def test_names_that_occur_several_times_come_in_kallsyms_order() -> None:
    """By address in a kernel, in the order of the file in a module."""
    specs = [
        ("f", 0x40, 4, FUNC, LOCAL),
        ("f", 0, 4, FUNC, LOCAL),
        ("g", 8, 4, FUNC, LOCAL),
        ("f", 16, 4, FUNC, LOCAL),
    ]
    kernel, module = image_of(specs), image_of(specs, kind=REL)
    assert kernel.symbols.addr[kernel.symbols.find("f")].tolist() == at(0, 16, 0x40).tolist()
    assert module.symbols.addr[module.symbols.find("f")].tolist() == at(0x40, 0, 16).tolist()
    for image in (kernel, module):
        functions = image.functions
        assert functions.addr[functions.find("f")].tolist() == image.symbols.addr[image.symbols.find("f")].tolist()
        assert functions.find("nothing").size == 0
        assert [rows.size for rows in image.symbols.find_many(["g", "f", ""])] == [1, 3, 0]


def test_an_image_without_code_symbols_answers_nothing() -> None:
    functions = image_of([("x", 0, 0, NOTYPE, GLOBAL)]).functions
    assert functions.lookup(at(0)).tolist() == [-1]
    elf = Elf().section(".data", bytes(8), flags=A, addr=BASE).symbol("d", BASE, 8, kind=OBJECT, section=".data")
    empty = decode_image(np.frombuffer(elf.build(), dtype=np.uint8)).functions
    assert len(empty) == 0
    assert empty.lookup(at(0)).tolist() == empty.nearest(at(0)).tolist() == [-1]
    assert empty.starts_at(at(0)).tolist() == [False]
    assert len(empty.ranges.names) == 0


def test_function_starts() -> None:
    functions = image_of([("f", 8, 8, FUNC, LOCAL), ("c", 16, 8, NOTYPE, LOCAL)]).functions
    assert functions.starts_at(at(0, 8, 16, 0x300)).tolist() == [False, True, False, False]


symbol_lists = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "_c", "__d", "__start_e", "f" * 40, "f" * 40 + "g", "__efistub_h"]),
        st.integers(0, 40),
        st.integers(0, 24),
        st.sampled_from([FUNC, NOTYPE, OBJECT]),
        st.sampled_from([LOCAL, GLOBAL, WEAK]),
    ),
    min_size=1,
    max_size=14,
)


def rank(name: str, binding: int) -> tuple[bool, bool, bool, int, bytes]:
    """How kallsyms orders aliases, written down a second time (scripts/kallsyms.c:compare_symbols)."""
    provided = len(name) >= 8 and (
        name.startswith(("__start_", "__stop_", "__end_"))
        or (name.startswith("__") and name.endswith(("_start", "_end")))
    )
    underscores = len(name) - len(name.lstrip("_"))
    return name.startswith("__efistub_"), binding == WEAK, provided, underscores, name.encode()


@given(symbol_lists)
def test_lookups_equal_linear_scans(specs: list[Spec]) -> None:
    functions = image_of(specs).functions
    offsets = list(range(70))
    contains, nearest = [], []
    worth = {FUNC: 2, NOTYPE: 1, OBJECT: 0}
    for offset in offsets:
        around = [s for s in specs if s[1] <= offset < s[1] + s[2]]
        around.sort(key=lambda s: (-s[1], -worth[s[3]], rank(s[0], s[4])))
        contains.append(around[0][0] if around else "")
        before = [s for s in specs if s[1] <= offset]
        before.sort(key=lambda s: (-s[1], rank(s[0], s[4])))
        nearest.append(before[0][0] if before else "")
    assert names_of(functions, functions.lookup(at(*offsets))) == contains
    assert names_of(functions, functions.nearest(at(*offsets))) == nearest


@given(symbol_lists)
def test_ranges_are_disjoint_and_say_what_lookup_says(specs: list[Spec]) -> None:
    functions = image_of(specs).functions
    ranges = functions.ranges
    assert bool(np.all(ranges.end > ranges.start))
    assert bool(np.all(ranges.start[1:] >= ranges.end[:-1]))
    assert functions.lookup(ranges.start).tolist() == ranges.function.tolist()
    assert functions.lookup(ranges.end - np.uint64(1)).tolist() == ranges.function.tolist()


def test_deep_nesting_is_no_slow_loop() -> None:
    """20,000 symbols inside each other: the innermost is found, quickly."""
    count = 20_000
    specs = [(f"n{k}", k, 2 * (count - k), FUNC, LOCAL) for k in range(count)]
    elf = Elf().section(".text", bytes(3 * count), flags=A | X, addr=BASE)
    for name, offset, size, kind, binding in specs:
        elf.symbol(name, BASE + offset, size, kind=kind, binding=binding)
    functions = decode_image(np.frombuffer(elf.build(), dtype=np.uint8)).functions
    assert names_of(functions, functions.lookup(at(0, count - 1, count + 1, count + 2))) == [
        "n0",
        f"n{count - 1}",
        f"n{count - 2}",
        f"n{count - 3}",
    ]


def test_symbols_at_the_end_of_the_address_space_do_not_wrap() -> None:
    elf = Elf().section(".text", bytes(8), flags=A | X, addr=2**64 - 8).symbol("top", 2**64 - 8, 100)
    functions = decode_image(np.frombuffer(elf.build(), dtype=np.uint8)).functions
    asked = np.array([2**64 - 8, 2**64 - 2, 0, 50], dtype=np.uint64)
    assert functions.lookup(asked).tolist() == [0, 0, -1, -1]


names = st.lists(st.text(st.characters(min_codepoint=1, max_codepoint=0x7FF), max_size=30), min_size=1, max_size=20)


def table_of(texts: list[str]) -> NameTable:
    blob = b"\0"
    off = []
    for text in texts:
        off.append(len(blob))
        blob += text.encode() + b"\0"
    return NameTable.of(np.frombuffer(blob, dtype=np.uint8), np.array(off, dtype=np.int64))


@given(names)
def test_names_are_found_where_they_are(texts: list[str]) -> None:
    table = table_of(texts)
    assert [table[k] for k in range(len(table))] == texts
    assert table.lengths.tolist() == [len(text.encode()) for text in texts]
    for text, rows in zip(texts, table.find_many(texts), strict=True):
        assert rows.tolist() == [k for k, other in enumerate(texts) if other == text]
    assert table.starts_with(b"a").tolist() == [text.startswith("a") for text in texts]
    assert table.ends_with(b"ab").tolist() == [text.endswith("ab") for text in texts]
    assert table.leading(b"_").tolist() == [len(text) - len(text.lstrip("_")) for text in texts]


@given(names, st.data())
def test_order_is_that_of_strcmp(texts: list[str], data: st.DataObject) -> None:
    groups = [data.draw(st.integers(0, 3)) for _ in texts]
    order = table_of(texts).order_within(np.array(groups, dtype=np.int64))
    wanted = sorted(range(len(texts)), key=lambda k: (groups[k], texts[k].encode(), k))
    assert order.tolist() == wanted


def test_long_names_are_whole() -> None:
    """Names beyond the kernel's limit, equal up to it: found exactly, told apart."""
    stem = "n" * (KSYM_NAME_LEN + 100)
    table = table_of([stem + "a", stem + "b", stem])
    assert [rows.tolist() for rows in table.find_many([stem + "b", stem, stem + "c"])] == [[1], [2], []]
    assert len(table[0]) == KSYM_NAME_LEN + 101


def test_names_that_share_their_ends_are_told_apart() -> None:
    """Linkers store `bar` as the end of `foobar`."""
    table = NameTable.of(np.frombuffer(b"\0foobar\0", dtype=np.uint8), np.array([1, 4], dtype=np.int64))
    assert table.find("bar").tolist() == [1]
    assert table.find("foobar").tolist() == [0]


@pytest.mark.parametrize(("blob", "off"), [(b"abc", 0), (b"abc\0", 4), (b"", 0), (b"a\0", -1)])
def test_names_outside_their_table_are_refused(blob: bytes, off: int) -> None:
    with pytest.raises(Inconsistent):
        NameTable.of(np.frombuffer(blob, dtype=np.uint8), np.array([off], dtype=np.int64))


def test_bytes_that_are_no_text_are_escaped() -> None:
    table = NameTable.of(np.frombuffer(b"\xff\xfeok\0", dtype=np.uint8), np.array([0], dtype=np.int64))
    assert table[0] == "\\xff\\xfeok"
