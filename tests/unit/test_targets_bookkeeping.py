"""Function-graph return stacks and kretprobe instances: followed exactly, or marked broken."""

from __future__ import annotations

import random

import pytest

from linux_memory import Kernel
from surefoot.targets.bookkeeping import read_fgraph, read_kretprobes
from surefoot.targets.tasks import RawTask
from surefoot.unwind.state import Bookkeeping

FRAME = 4
RESERVED, BITMAP, DATA = 0, 1, 2


def control(kind: int, back: int, words: int = 1) -> int:
    """Make a control word: distance, type, and the number of data words before it less one."""
    return back | kind << 10 | (words - 1) << 12


def frame(ret: int, func: int, fp: int, retp: int, kind: int = BITMAP) -> list[int]:
    """Make a frame with its control word."""
    return [ret, func, fp, retp, control(kind, FRAME)]


def data(values: list[int], back: int) -> list[int]:
    """Make a block of data with its control word, `back` words behind the frame's first."""
    return [*values, control(DATA, back, len(values))]


def _raw(kernel: Kernel, task: int) -> RawTask:
    block = kernel.memory.read(task, kernel.numbers["sizeof.task"])
    assert block is not None
    return RawTask(task, block, idle=False)


def _fgraph(
    words: list[int], top: int | None = None, without: tuple[str, ...] = (), numbers: dict[str, int] | None = None
) -> Bookkeeping:
    kernel = Kernel(without=without, numbers=numbers)
    task = kernel.task(1)
    stack = kernel.prog.put(
        kernel.prog.alloc(4096), b"".join(w.to_bytes(8, "little") for w in words).ljust(4096, b"\0")
    )
    kernel.set(task, "ret_stack", stack)
    kernel.set(task, "curr_ret_stack", (len(words) if top is None else top) % 2**32, 4)
    return read_fgraph(kernel.memory, kernel.layout, [_raw(kernel, task)])


def _entries(book: Bookkeeping) -> list[tuple[int, int, int]]:
    return list(zip(book.ret.tolist(), book.key.tolist(), book.func.tolist(), strict=True))


def test_frames_come_newest_first() -> None:
    book = _fgraph(frame(1, 2, 3, 4) + frame(5, 6, 7, 8))
    assert _entries(book) == [(5, 8, 6), (1, 4, 2)]
    assert book.first.tolist() == [0, 2]
    assert not book.broken[0]


def test_blocks_of_data_are_stepped_over() -> None:
    words = frame(1, 2, 3, 4) + data([7, 7, 7], 8) + data([9], 10) + frame(5, 6, 7, 8)
    assert _entries(_fgraph(words)) == [(5, 8, 6), (1, 4, 2)]


def test_a_frame_under_construction_is_left_out() -> None:
    book = _fgraph(frame(1, 2, 3, 4) + frame(5, 6, 7, 8, RESERVED) + data([1], 6))
    assert _entries(book) == [(1, 4, 2)]
    assert not book.broken[0]


@pytest.mark.parametrize(
    "words",
    [
        [*frame(1, 2, 3, 4)[:-1], control(BITMAP, 5)],  # leads below the stack
        [*frame(1, 2, 3, 4)[:-1], control(3, FRAME)],  # unknown type
        [*frame(1, 2, 3, 4)[:-1], control(BITMAP, 0)],
        frame(1, 2, 3, 4) + data([1], 7),  # distance disagrees with the frame's own
        [*frame(1, 2, 3, 4), 1, control(DATA, 6, 31)],  # data that would begin before the frame
        [0, *frame(1, 2, 3, 4)],  # a word too many
        [*frame(1, 2, 3, 4), 0],
    ],
)
def test_control_words_that_disagree_break_the_list(words: list[int]) -> None:
    assert _fgraph(words).broken[0]


@pytest.mark.parametrize("top", [-1, 100_000, 600])
def test_an_impossible_index_breaks_the_list(top: int) -> None:
    assert _fgraph([], top).broken[0]


def test_no_return_stack_is_no_list() -> None:
    kernel = Kernel()
    book = read_fgraph(kernel.memory, kernel.layout, [_raw(kernel, kernel.task(1))])
    assert book.first.tolist() == [0, 0]
    assert not book.broken[0]


def test_a_kernel_without_retp_cannot_tell_entries_apart() -> None:
    assert _fgraph(frame(1, 2, 3, 4), without=("ret_stack.retp",)).broken[0]


def test_an_array_of_structs_is_read_as_kernels_before_6_11_wrote_it() -> None:
    book = _fgraph([1, 2, 3, 4, 5, 6, 7, 8], 1, numbers={"ret_stack.words": 0})
    assert _entries(book) == [(5, 8, 6), (1, 4, 2)]
    assert not _fgraph([], -1, numbers={"ret_stack.words": 0}).broken[0]
    assert _fgraph([], 51, numbers={"ret_stack.words": 0}).broken[0]


def test_any_words_end_in_a_list() -> None:
    rng = random.Random(5)
    for _ in range(300):
        words = frame(1, 2, 3, 4) + data([7, 7], 7) + frame(5, 6, 7, 8)
        for _ in range(rng.randint(1, 3)):
            words[rng.randrange(len(words))] ^= 1 << rng.randrange(20)
        book = _fgraph(words)
        assert book.first[1] == book.ret.size


def _instances(kernel: Kernel, task: int, entries: list[tuple[int, int]]) -> list[int]:
    """Link kretprobe instances (ret_addr, fp), newest first; gives their addresses."""
    addrs = [kernel.prog.alloc(64) for _ in entries]
    link = kernel.numbers["kretprobe.llist"]
    nodes = [addr + link for addr in addrs]
    for addr, after, (ret, fp) in zip(addrs, [*nodes[1:], 0], entries, strict=True):
        kernel.prog.poke(addr + link, after)
        kernel.prog.poke(addr + kernel.numbers["kretprobe.ret_addr"], ret)
        kernel.prog.poke(addr + kernel.numbers["kretprobe.fp"], fp)
    kernel.set(task, "kretprobe_instances", nodes[0])
    return addrs


def test_kretprobe_instances_come_in_list_order() -> None:
    kernel = Kernel()
    task = kernel.task(1)
    _instances(kernel, task, [(11, 12), (21, 22)])
    book = read_kretprobes(kernel.memory, kernel.layout, [_raw(kernel, task), _raw(kernel, kernel.task(2))])
    assert _entries(book) == [(11, 12, 0), (21, 22, 0)]
    assert book.first.tolist() == [0, 2, 2]
    assert not book.broken.any()


@pytest.mark.parametrize("after", ["circle", "nowhere", "odd"])
def test_a_list_of_instances_that_does_not_end_is_broken(after: str) -> None:
    kernel = Kernel()
    task = kernel.task(1)
    first, last = _instances(kernel, task, [(11, 12), (21, 22)])
    link = kernel.numbers["kretprobe.llist"]
    value = {"circle": first + link, "nowhere": 0x1000, "odd": first + link + 1}[after]
    kernel.prog.poke(last + link, value)
    book = read_kretprobes(kernel.memory, kernel.layout, [_raw(kernel, task)])
    assert book.broken[0]
    assert _entries(book)[:2] == [(11, 12, 0), (21, 22, 0)]
