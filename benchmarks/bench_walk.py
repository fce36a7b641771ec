"""Walk a batch of 100,000 stacks: frames a second of each mode, one process.

Usage: python benchmarks/bench_walk.py VMCORE VMLINUX MODULES

The stacks are those of a dump, repeated; without a dump, those of the synthetic kernel of the tests. The best of
three rounds is printed, with its ratio to the goal of mode hybrid. The figure is the walker's alone: the stacks are
captured and the tables decoded before.
"""

from __future__ import annotations

import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from surefoot.unwind.code import CodeMap
from surefoot.unwind.consume import Walkable
from surefoot.unwind.context import Mode
from surefoot.unwind.state import Layout, Stacks, Tasks
from surefoot.unwind.walker import walk

STACKS: Final = 100_000
ROUNDS: Final = 3
GOAL: Final = 1_000_000
"""Frames a second in mode hybrid."""
DISTINCT: Final = 400
"""Stacks of the synthetic kernel that the batch repeats."""


@dataclass(frozen=True)
class _Given:
    """Stacks and the code that they belong to."""

    code: CodeMap
    stacks: Stacks
    tasks: Tasks
    layout: Layout


def synthetic() -> Walkable:
    """Make stacks of blocked and running tasks, traced and not."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from world_kernel import World, kernel, random_functions, random_task

    rng = random.Random(3)
    program = kernel(random_functions(rng, 60))
    world = World(program, [random_task(program, rng, slot) for slot in range(DISTINCT)])

    assert world.code is not None
    return _Given(world.code, world.stacks, world.columns, world.layout)


def captured(vmcore: str, vmlinux: str, modules: str) -> Walkable:
    """Capture all tasks of a dump."""
    from surefoot.targets.vmcore import open_vmcore

    return open_vmcore(vmcore, vmlinux, modules).capture()


def measure(source: Walkable, mode: Mode) -> tuple[int, int, float]:
    """Give the frames and reliable stacks of the batch, and the frames a second."""
    tasks = source.tasks.take(np.arange(STACKS, dtype=np.int64) % len(source.tasks))
    best = float("inf")
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        traces = walk(source.code, source.stacks, tasks, source.layout, mode=mode)
        best = min(best, time.perf_counter() - begin)
    return traces.pc.size, int(traces.reliable.sum()), traces.pc.size / best


def main(arguments: list[str]) -> int:
    """Print the figures beside the goal; give 1 if it is missed."""
    if len(arguments) not in {0, 3}:
        print(__doc__, file=sys.stderr)
        return 2
    source = captured(*arguments) if arguments else synthetic()
    rates = {}
    for mode in Mode:
        frames, reliable, rates[mode] = measure(source, mode)
        print(
            f"{mode.value:7} {STACKS:>8,} stacks {frames:>10,} frames {reliable:>8,} reliable "
            f"{rates[mode] / 1e6:6.2f} M frames/s"
        )
    print(f"hybrid reaches {rates[Mode.HYBRID] / GOAL:.2f} times the goal of {GOAL:,} frames/s")
    return 0 if rates[Mode.HYBRID] >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
