"""Random damage to a world: stack words, starting registers and bookkeeping, near misses preferred."""

from __future__ import annotations

import random
from copy import deepcopy

from world_cpu import Entry
from world_kernel import Task

__all__ = ["corrupt"]


def corrupt(task: Task, rng: random.Random, count: int = 1) -> Task:
    """Give a copy of a task with `count` values changed."""
    result = deepcopy(task)
    for _ in range(count):
        kind = rng.choice(("word", "word", "word", "word", "register", "book", "final"))
        if kind == "word" and result.memory:
            live = [addr for addr in result.memory if result.sp <= addr < result.high] or list(result.memory)
            addr = rng.choice(live if rng.random() < 0.8 else list(result.memory))
            result.memory[addr] = bad_value(result, result.memory[addr], rng)
        elif kind == "register":
            name = rng.choice(("pc", "sp", "fp", "lr"))
            setattr(result, name, bad_value(result, getattr(result, name), rng))
        elif kind == "book":
            _corrupt_book(result, rng)
        else:
            result.final = bad_value(result, result.final, rng)
    return result


def _corrupt_book(task: Task, rng: random.Random) -> None:
    book = rng.choice((task.fgraph, task.kretprobe))
    action = rng.choice(("drop", "copy", "value", "add"))
    if action == "add" or not book:
        book.insert(rng.randrange(len(book) + 1), Entry(bad_value(task, task.pc, rng), bad_value(task, task.fp, rng)))
    elif action == "drop":
        del book[rng.randrange(len(book))]
    elif action == "copy":
        book.insert(rng.randrange(len(book) + 1), deepcopy(rng.choice(book)))
    else:
        entry = rng.choice(book)
        name = rng.choice(("ret", "key", "func"))
        setattr(entry, name, bad_value(task, getattr(entry, name), rng))


def bad_value(task: Task, value: int, rng: random.Random) -> int:
    """Give another value: a flipped bit, a neighbour, a word of the same stack, an address in it, an extreme."""
    kind = rng.randrange(7)
    if kind == 0:
        return value ^ 1 << rng.randrange(64)
    if kind == 1:
        return (value + rng.choice((-32, -16, -8, -4, -1, 1, 4, 8, 16, 32, 48))) % 2**64
    if kind in {2, 3} and task.memory:
        return rng.choice(list(task.memory.values()))
    if kind == 4:
        return rng.randrange(task.high - task.size, task.high, 8)
    if kind == 5:
        return rng.choice([pc for pc, _ in task.truth] or [0])
    return rng.choice(
        (0, 1, 2, 2**64 - 1, 2**64 - 8, 2**64 - 16, 2**63, task.high, task.high - 16, rng.getrandbits(64))
    )
