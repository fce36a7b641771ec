"""Layer 7: a capture: everything a walk needs of a target, copied at one instant.

Invariant: plain data. A capture is walked, recorded and replayed without the target it came from.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Mask, Row32
from surefoot.errors import Inconsistent, Unavailable
from surefoot.unwind.code import CodeMap
from surefoot.unwind.state import Bookkeeping, Layout, Stacks, Tasks

__all__ = ["Capture", "TaskList"]


@dataclass(frozen=True, slots=True)
class TaskList:
    """What people want to know of tasks; n entries, in the order of `Tasks`.

    Attributes:
        pid: (n,) int32; the idle task of every CPU has pid 0.
        tgid: (n,) int32.
        comm: (n) names.
        state: (n) letters as `ps` shows them: R S D T t X Z P I.
        cpu: (n,) int32, the CPU that the task runs on or ran on last.
        on_cpu: (n,) bool, a CPU runs it, or is about to.
        kthread: (n,) bool, kernel threads.
        switches: (n,) uint64, voluntary and involuntary context switches so far: a blocked task whose count is
            the same later has not run in between.
    """

    pid: Row32
    tgid: Row32
    comm: tuple[str, ...]
    state: tuple[str, ...]
    cpu: Row32
    on_cpu: Mask
    kthread: Mask
    switches: NDArray[np.uint64]

    def __len__(self) -> int:
        return int(self.pid.size)

    def check(self) -> None:
        """Verify that all columns have one length.

        Raises:
            Inconsistent: they have not.
        """
        count = len(self)
        columns = (self.tgid.size, len(self.comm), len(self.state), self.cpu.size, self.on_cpu.size)
        if any(size != count for size in (*columns, self.kthread.size, self.switches.size)):
            raise Inconsistent(f"the task list's columns do not all have {count} entries")

    def take(self, rows: list[int]) -> TaskList:
        """Give the chosen tasks."""
        at = np.array(rows, dtype=np.int64)
        return TaskList(
            self.pid[at],
            self.tgid[at],
            tuple(self.comm[i] for i in rows),
            tuple(self.state[i] for i in rows),
            self.cpu[at],
            self.on_cpu[at],
            self.kthread[at],
            self.switches[at],
        )


@dataclass(frozen=True)
class Capture:
    """The tasks, stacks and code of a target at one instant.

    Attributes:
        name: of the target, for headings.
        release: `uname -r` of its kernel.
        build_id: of its kernel, lower-case hexadecimal.
        info: what people want to know of the tasks.
        tasks: what the walk starts from.
        stacks: stack memory.
        layout: structure offsets.
        code: functions, words, rules.
        notes: sentences on what is missing: a module without a file, a list that breaks off.
    """

    name: str
    release: str
    build_id: str
    info: TaskList
    tasks: Tasks
    stacks: Stacks
    layout: Layout
    code: CodeMap
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.info)

    def rows_of(self, pids: list[int]) -> list[int]:
        """Give the rows of the tasks with these process IDs, in the capture's order.

        Raises:
            Unavailable: there is no such task.
        """
        wanted = set(pids)
        rows = [row for row, pid in enumerate(self.info.pid.tolist()) if pid in wanted]
        missing = sorted(wanted - {int(self.info.pid[row]) for row in rows})
        if missing:
            listed = ", ".join(str(pid) for pid in missing)
            raise Unavailable(f"no task with pid {listed} in {self.name}", hint="list the tasks without --task")
        return rows

    def take(self, rows: list[int]) -> Capture:
        """Give a capture of the chosen tasks and the stacks that they may be on; the code stays whole."""
        at = np.array(rows, dtype=np.int64)
        used = np.unique(self.tasks.stacks[at])
        used = used[used >= 0]
        place = np.full(len(self.stacks) + 1, -1, dtype=np.int32)  # the last one answers for index -1
        place[used] = np.arange(used.size, dtype=np.int32)
        tasks = Tasks(
            start=self.tasks.start[at],
            pc=self.tasks.pc[at],
            sp=self.tasks.sp[at],
            fp=self.tasks.fp[at],
            lr=self.tasks.lr[at],
            stacks=place[self.tasks.stacks[at]],
            final_record=self.tasks.final_record[at],
            fgraph=_take_entries(self.tasks.fgraph, rows),
            kretprobe=_take_entries(self.tasks.kretprobe, rows),
        )
        return replace(self, info=self.info.take(rows), tasks=tasks, stacks=_take_stacks(self.stacks, used.tolist()))


def _take_entries(book: Bookkeeping, rows: list[int]) -> Bookkeeping:
    """Give the bookkeeping of the chosen tasks."""
    spans = [range(int(book.first[row]), int(book.first[row + 1])) for row in rows]
    at = np.array([entry for span in spans for entry in span], dtype=np.int64)
    first = np.cumsum(np.array([0, *(len(span) for span in spans)], dtype=np.int64))
    broken = book.broken[np.array(rows, dtype=np.int64)]
    return Bookkeeping(first, book.ret[at], book.key[at], book.func[at], broken)


def _take_stacks(stacks: Stacks, rows: list[int]) -> Stacks:
    """Give the chosen stacks with their words."""
    at = np.array(rows, dtype=np.int64)
    sizes = ((stacks.high[at] - stacks.captured[at]) >> np.uint64(3)).astype(np.int64)
    pieces = [
        stacks.words[off : off + size] for off, size in zip(stacks.word_off[at].tolist(), sizes.tolist(), strict=True)
    ]
    words = np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.uint64)
    word_off = np.cumsum(sizes) - sizes
    return Stacks(stacks.low[at], stacks.high[at], stacks.kind[at], stacks.captured[at], word_off, words)
