"""Traces made by hand for the tests of reports: eight tasks, each of which shows one thing.

| pid | what it shows |
|---|---|
| 1 | blocked, reliable |
| 46 | an exception boundary, LR, a module, a recovered address |
| 50 | rule and record disagree; the rest is doubtful; a hostile name |
| 51 | a boundary without a rule: LR? |
| 60 | in user mode |
| 61 | no registers |
| 174 | both modes reliable, fp lacks a frame |
| 175 | a thread of 174 with an address in no function |
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from surefoot.metadata.rules import RuleTable
from surefoot.report.stack_build import Lines, build_report
from surefoot.report.stack_view import StackReport
from surefoot.targets.capture import Capture, TaskList
from surefoot.targets.imagetables import empty_rules
from surefoot.unwind.code import CodeMap, Functions, TextWords
from surefoot.unwind.context import Mode
from surefoot.unwind.reasons import Reason
from surefoot.unwind.state import STACK_KINDS, Bookkeeping, Layout, Source, Stacks, Start, Tasks
from surefoot.unwind.trace import Evidence, Traces

BASE = 0xFFFF_8000_8000_0000
STACK = 0xFFFF_8000_9000_0000
STACK_SIZE = 0x1000
NAMES = ("__schedule", "schedule", "el1h_64_irq", "memcpy", "vfs_read", "zram_submit_bio", "ret_from_fork")
SIZE = 0x100
HOSTILE = "ev\x1b[31mil"
CALLED = Evidence.RULE | Evidence.RECORD | Evidence.CALL_DIRECT


def at(name: str, offset: int = 0x10) -> int:
    """Give an address in a function."""
    return BASE + NAMES.index(name) * SIZE + offset


class Frame(NamedTuple):
    """One frame to put into a trace."""

    pc: int
    source: Source = Source.FRAME
    evidence: Evidence = CALLED
    ambiguous: int = 0
    regs: int = 0


@dataclass
class Task:
    """One task to put into a capture."""

    pid: int
    comm: str
    frames: list[Frame]
    start: Start = Start.BLOCKED
    state: str = "S"
    tgid: int = 0
    reason: Reason = Reason.NONE
    frame: int = 0
    addr: int = 0
    other: int = 0
    fp_frames: list[Frame] | None = None
    fp_reason: Reason | None = None
    fp_frame: int = 0
    on_cpu: bool = field(init=False)

    def __post_init__(self) -> None:
        self.on_cpu = self.start in {Start.REGS, Start.USER, Start.NO_REGS}


def _blocked(*rest: Frame) -> list[Frame]:
    return [Frame(at("__schedule"), Source.TASK, Evidence.SAVED), Frame(at("schedule")), *rest]


def tasks() -> list[Task]:
    """Give the tasks of the table above."""
    interrupted = [
        *_blocked(Frame(at("el1h_64_irq"))),
        Frame(at("memcpy"), Source.REGS, Evidence.METADATA, regs=STACK + 0x100),
        Frame(at("zram_submit_bio"), evidence=Evidence.RULE | Evidence.LR | Evidence.CALL_INDIRECT),
        Frame(at("vfs_read"), evidence=CALLED | Evidence.FGRAPH),
        Frame(at("ret_from_fork"), evidence=CALLED | Evidence.KRETPROBE),
    ]
    doubtful = Evidence.RECORD | Evidence.DOUBTFUL
    hole = _blocked(
        Frame(at("vfs_read"), evidence=Evidence.FGRAPH | Evidence.CALL_DIRECT), Frame(at("ret_from_fork"))
    )
    return [
        Task(1, "init", _blocked(Frame(at("ret_from_fork")))),
        Task(46, "kworker/u8:2", interrupted, state="R", fp_reason=Reason.EXCEPTION_BOUNDARY, fp_frame=3),
        Task(
            50,
            HOSTILE,
            [*_blocked(), Frame(at("vfs_read"), evidence=doubtful)],
            state="D",
            reason=Reason.RULE_RECORD_MISMATCH,
            frame=1,
            addr=at("memcpy"),
            other=at("vfs_read"),
            fp_reason=Reason.NONE,
        ),
        Task(
            51,
            "cat",
            [
                Frame(at("memcpy"), Source.REGS, Evidence.SAVED, ambiguous=at("zram_submit_bio")),
                Frame(at("vfs_read"), evidence=doubtful),
            ],
            start=Start.REGS,
            state="R",
            reason=Reason.NO_RULE_AT_BOUNDARY,
            addr=at("memcpy"),
            fp_reason=Reason.EXCEPTION_BOUNDARY,
        ),
        Task(60, "busy", [], start=Start.USER, state="R", fp_reason=Reason.ON_CPU),
        Task(61, "gone", [], start=Start.NO_REGS, state="R", reason=Reason.NO_REGISTERS),
        Task(174, "ls", hole, fp_frames=[hole[0], hole[1], hole[3]]),
        Task(
            175,
            "ls",
            [*_blocked(), Frame(0xFFFF_8000_A000_0040, evidence=doubtful)],
            tgid=174,
            reason=Reason.NOT_TEXT,
            frame=1,
            addr=0xFFFF_8000_A000_0040,
        ),
    ]


def capture(given: list[Task]) -> Capture:
    """Give a capture of the tasks: functions and one stack whose words count up."""
    count = len(given)
    none = np.zeros(count, dtype=np.uint64)
    start = np.array([at(name, 0) for name in NAMES], dtype=np.uint64)
    rules: RuleTable = empty_rules()
    return Capture(
        name="test.vmcore",
        release="7.3.4-test",
        build_id="ab" * 20,
        info=TaskList(
            pid=np.array([task.pid for task in given], dtype=np.int32),
            tgid=np.array([task.tgid or task.pid for task in given], dtype=np.int32),
            comm=tuple(task.comm for task in given),
            state=tuple(task.state for task in given),
            cpu=np.arange(count, dtype=np.int32) % 2,
            on_cpu=np.array([task.on_cpu for task in given], dtype=np.bool_),
            kthread=np.zeros(count, dtype=np.bool_),
            switches=none,
        ),
        tasks=Tasks(
            start=np.array([task.start for task in given], dtype=np.uint8),
            pc=np.array([task.frames[0].pc if task.frames else 0 for task in given], dtype=np.uint64),
            sp=none,
            fp=none,
            lr=none,
            stacks=np.zeros((count, STACK_KINDS), dtype=np.int32),
            final_record=none,
            fgraph=Bookkeeping.none(count),
            kretprobe=Bookkeeping.none(count),
        ),
        stacks=Stacks(
            low=np.array([STACK], dtype=np.uint64),
            high=np.array([STACK + STACK_SIZE], dtype=np.uint64),
            kind=np.zeros(1, dtype=np.uint8),
            captured=np.array([STACK], dtype=np.uint64),
            word_off=np.zeros(1, dtype=np.int64),
            words=np.arange(STACK_SIZE // 8, dtype=np.uint64),
        ),
        layout=Layout(),
        code=CodeMap(
            Functions(start, start + np.uint64(SIZE), np.zeros(len(NAMES), dtype=np.uint8), NAMES),
            TextWords.from_ranges([]),
            rules,
        ),
        notes=("module odd: no file with its build-id",),
    )


def traces(given: list[Task], *, fp: bool = False) -> Traces:
    """Give the traces of the tasks in a mode."""
    frames = [(task.fp_frames if fp else None) or task.frames for task in given]
    flat = [frame for each in frames for frame in each]
    code = capture(given).code
    pc = np.array([frame.pc for frame in flat], dtype=np.uint64)
    source = np.array([frame.source for frame in flat], dtype=np.uint8)
    reasons = [task.reason if not fp or task.fp_reason is None else task.fp_reason for task in given]
    depth = [task.fp_frame if fp and task.fp_reason is not None else task.frame for task in given]
    evidence = [Evidence.RECORD if fp else frame.evidence for frame in flat]
    return Traces(
        first=np.cumsum([0, *map(len, frames)]).astype(np.int64),
        pc=pc,
        source=source,
        evidence=np.array(evidence, dtype=np.uint16),
        function=code.functions.lookup(pc, (source != Source.REGS) & (pc != np.uint64(at("ret_from_fork", 0)))),
        sp=np.where(source == Source.REGS, np.uint64(STACK), np.uint64(0)),
        fp=np.full(pc.shape, STACK + 0x20, dtype=np.uint64),
        ambiguous=np.array([frame.ambiguous for frame in flat], dtype=np.uint64),
        regs=np.array([frame.regs for frame in flat], dtype=np.uint64),
        reason=np.array(reasons, dtype=np.uint8),
        reason_frame=np.array(depth, dtype=np.int64),
        reason_addr=np.array([task.addr for task in given], dtype=np.uint64),
        reason_other=np.array([task.other for task in given], dtype=np.uint64),
    )


def module_of(addr: int) -> str | None:
    """Name the one module."""
    return "zram" if at("zram_submit_bio", 0) <= addr < at("zram_submit_bio", SIZE) else None


def report(
    given: list[Task] | None = None, mode: Mode = Mode.HYBRID, *, unreliable: bool = False, lines: Lines | None = None
) -> StackReport:
    """Give the report on the tasks."""
    given = tasks() if given is None else given
    walks = {Mode.FP: traces(given, fp=True), Mode.HYBRID: traces(given), Mode.SFRAME: traces(given)}
    return build_report(capture(given), walks, mode, unreliable=unreliable, module_of=module_of, lines=lines)
