"""Layer 8: traces as a reader sees them: what the text and the JSON of `surefoot stack` have in common.

Invariant: a view holds plain Python values and says exactly what the walk said. Frames come from the stable
interface (`UnwindState`, `Trace`); the walker's columns are read only to find where a task's frames begin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from surefoot.targets.linux import SourceLine
from surefoot.unwind.consume import Registers, Trace
from surefoot.unwind.context import Mode
from surefoot.unwind.reasons import Reason
from surefoot.unwind.state import Source, Start
from surefoot.unwind.trace import Evidence

__all__ = [
    "Difference",
    "FrameView",
    "Omission",
    "Place",
    "StackReport",
    "Tally",
    "TaskMeta",
    "TaskView",
    "Vector",
    "letters",
]


class Vector(Enum):
    """The kinds of exceptions, by the last part of their vectors' names (arch/arm64/kernel/entry.S)."""

    IRQ = "irq"
    FIQ = "fiq"
    SYNC = "sync"
    ERROR = "error"

    @property
    def words(self) -> str:
        """What a person calls it."""
        return _VECTOR_WORDS[self]


_VECTOR_WORDS = {
    Vector.IRQ: "IRQ",
    Vector.FIQ: "FIQ",
    Vector.SYNC: "synchronous exception",
    Vector.ERROR: "SError",
}


@dataclass(frozen=True, slots=True)
class TaskMeta:
    """What is known of a task beside its stack.

    Attributes:
        pid: the kernel's pid, that of the thread; 0 for idle tasks.
        tgid: that of the thread group's leader.
        comm: the name, as it lies in memory.
        state: one letter, as `ps` shows it.
        cpu: the CPU that it runs on or last ran on.
        on_cpu: a CPU was running it.
        kthread: it is a kernel thread.
    """

    pid: int
    tgid: int
    comm: str
    state: str
    cpu: int
    on_cpu: bool
    kthread: bool


@dataclass(frozen=True, slots=True)
class Place:
    """An address and what lies there.

    Attributes:
        addr: the address.
        symbol: the function, None where none is known.
        offset: bytes from the function's start, 0 without one.
        size: bytes of the function, 0 without one.
        module: its module, None for the kernel itself.
        lines: where source lines were asked for: those of the instruction, innermost inlined function first.
    """

    addr: int
    symbol: str | None = None
    offset: int = 0
    size: int = 0
    module: str | None = None
    lines: tuple[SourceLine, ...] = ()


@dataclass(frozen=True, slots=True)
class FrameView:
    """One frame.

    Attributes:
        depth: 0 is the innermost.
        place: its pc.
        source: where the pc came from.
        evidence: what vouches for it.
        doubtful: found after certainty was lost.
        vector: at an exception boundary on the stack: the kind of exception, None where it is not known.
        regs: at a boundary: the interrupted registers.
        sp: stack pointer, None where unknown.
        fp: x29.
        ambiguous: LR that may or may not be a caller.
    """

    depth: int
    place: Place
    source: Source
    evidence: Evidence
    doubtful: bool
    vector: Vector | None
    regs: Registers | None
    sp: int | None
    fp: int
    ambiguous: Place | None

    @property
    def boundary(self) -> bool:
        """The code of this frame was interrupted; it did not call."""
        return self.source is Source.REGS


def letters(frame: FrameView) -> str:
    """Give the kernel's own letters for a frame: C, T, P or U by its source, then F and K.

    Source:
        arch/arm64/kernel/stacktrace.c: state_source_string, dump_backtrace_entry (Linux 7.3).
    """
    source = _LETTERS.get(frame.source, "")
    graph = "F" if frame.evidence & Evidence.FGRAPH else ""
    probe = "K" if frame.evidence & Evidence.KRETPROBE else ""
    return source + graph + probe


_LETTERS = {Source.CALLER: "C", Source.TASK: "T", Source.REGS: "P", Source.UNKNOWN: "U"}


@dataclass(frozen=True, slots=True)
class TaskView:
    """One task, its trace and the verdict.

    Attributes:
        meta: who it is.
        start: how its walk began.
        frames: innermost first.
        verdict: reliable or not, and why.
        reason_at: the place that the reason speaks of, None for a reliable trace.
        other_at: of RULE_RECORD_MISMATCH the frame record's answer (`reason_at` is the rule's), else None.
    """

    meta: TaskMeta
    start: Start
    frames: tuple[FrameView, ...]
    verdict: Trace
    reason_at: Place | None = None
    other_at: Place | None = None


@dataclass(frozen=True, slots=True)
class Tally:
    """How the tasks fared in one mode.

    Attributes:
        mode: how they were walked.
        reliable: how many are reliable.
        reasons: the others by reason, most frequent first.
    """

    mode: Mode
    reliable: int
    reasons: dict[Reason, int]


@dataclass(frozen=True, slots=True)
class Difference:
    """A task that only one of the modes fp and hybrid calls reliable.

    Attributes:
        task: the task.
        reason: why it is not reliable in the other mode.
    """

    task: TaskMeta
    reason: Reason


@dataclass(frozen=True, slots=True)
class Omission:
    """A task that both modes call reliable although their traces differ.

    Attributes:
        task: the task.
        missing: what the fp trace lacks, innermost first.
        extra: what only the fp trace has.
    """

    task: TaskMeta
    missing: tuple[Place, ...]
    extra: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class StackReport:
    """Everything that `surefoot stack` has to say.

    Attributes:
        name: of the target.
        release: of its kernel.
        build_id: of its kernel.
        mode: of the traces shown.
        strict: only proved rules were accepted.
        tasks: the traces.
        total: number of tasks walked, shown or not.
        tallies: by mode: fp, hybrid, and the mode of the traces if that is neither.
        fp_only: reliable in fp, but not in hybrid.
        hybrid_only: reliable in hybrid, but not in fp.
        omissions: reliable in both, with different traces.
        notes: what is missing or odd in the capture, a sentence each.
    """

    name: str
    release: str
    build_id: str
    mode: Mode
    strict: bool
    tasks: tuple[TaskView, ...]
    total: int
    tallies: tuple[Tally, ...]
    fp_only: tuple[Difference, ...] = ()
    hybrid_only: tuple[Difference, ...] = ()
    omissions: tuple[Omission, ...] = ()
    notes: Sequence[str] = ()

    @property
    def reliable(self) -> bool:
        """Every trace shown is reliable."""
        return all(task.verdict.reliable for task in self.tasks)
