"""Layer 7: the campaign: every way of walking against the truth, at every instruction of a load.

Invariant: a result is a sum over jobs; each job depends on nothing but its own numbers, so that jobs run in any
order, on any core, and again after an interruption.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from surefoot.dtypes import Addr, Mask, Row
from surefoot.machine.board import Board
from surefoot.machine.contenders import Answer, Contender, answer
from surefoot.machine.loader import Variant, load_kernel
from surefoot.machine.recorder import Boundaries, Recorder, blocked_tasks, record, start_machine
from surefoot.machine.target import Machine
from surefoot.machine.windows import EXCUSED, Window, Windows
from surefoot.unwind.reasons import Reason
from surefoot.unwind.trace import Traces

__all__ = ["COUNTS", "Job", "Outcome", "Wrong", "judge", "plan", "run_job"]

COUNTS: Final = ("tried", "exact", "missing", "invented", "refused", "wrong_reliable")
"""What is counted for each contender and window; a trace can both miss a caller and invent one."""

_BATCH: Final = 10_000
_MAX_WRONG: Final = 20
_IRQ_SEARCH: Final = 4_000

Tally = Counter[str]


@dataclass(frozen=True, slots=True)
class Job:
    """A part of a campaign.

    Attributes:
        variant: which kernel.
        tracing: 0 none, 1 function graph, 2 kretprobes, 3 both.
        seed: of the run.
        boundaries: how many to try from outside.
        inside: how many interrupts to inject, for the walk from inside.
        every: of the distinct boundaries, try one in so many.
    """

    variant: Variant
    tracing: int
    seed: int
    boundaries: int
    inside: int
    every: int = 1

    @property
    def name(self) -> str:
        """What a saved state calls it."""
        return f"{self.variant}/{self.tracing}/{self.seed}/{self.boundaries}/{self.inside}/{self.every}"


@dataclass(frozen=True, slots=True)
class Wrong:
    """A trace that was called reliable and is not the truth.

    Attributes:
        contender: whose.
        count: instructions executed before the boundary.
        job: name of its job.
        said: addresses of the trace, innermost first.
        truth: addresses of the true one.
    """

    contender: str
    count: int
    job: str
    said: tuple[int, ...]
    truth: tuple[int, ...]


@dataclass
class Outcome:
    """What came of one job or many.

    Attributes:
        tallies: by "view/tracing/contender/window", counts by name in `COUNTS`.
        reasons: refusals of the hybrid walk by "reason/window".
        unexcused: refusals of the hybrid walk outside code where a refusal is right.
        addresses: kernel addresses tried.
        wrong: the first few wrong RELIABLE verdicts of contenders that give verdicts.
    """

    tallies: dict[str, Tally] = field(default_factory=dict)
    reasons: Tally = field(default_factory=Counter)
    unexcused: int = 0
    addresses: set[int] = field(default_factory=set)
    wrong: list[Wrong] = field(default_factory=list)

    def add(self, other: Outcome) -> None:
        """Add what another job has found."""
        for key, tally in other.tallies.items():
            self.tallies.setdefault(key, Counter()).update(tally)
        self.reasons.update(other.reasons)
        self.unexcused += other.unexcused
        self.addresses |= other.addresses
        self.wrong = (self.wrong + other.wrong)[:_MAX_WRONG]

    def total(self, contender: str, *, view: str = "", tracing: int | None = None, window: str = "") -> Tally:
        """Sum the counts of one contender, of all views, windows and tracers unless one is named."""
        found: Tally = Counter()
        for key, tally in self.tallies.items():
            its_view, its_tracing, its_name, its_window = key.split("/")
            fits = its_name == contender and view in {"", its_view} and window in {"", its_window}
            if fits and (tracing is None or int(its_tracing) == tracing):
                found.update(tally)
        return found

    def to_json(self) -> dict[str, object]:
        """Give plain data, for `from_json`."""
        return {
            "tallies": {key: dict(tally) for key, tally in sorted(self.tallies.items())},
            "reasons": dict(self.reasons),
            "unexcused": self.unexcused,
            "addresses": sorted(self.addresses),
            "wrong": [[each.contender, each.count, each.job, each.said, each.truth] for each in self.wrong],
        }

    @classmethod
    def from_json(cls, data: dict[str, object]) -> Outcome:
        """Read what `to_json` gave.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is something else.
        """
        held: dict[str, object] = dict(data)
        tallies, reasons, wrong = held["tallies"], held["reasons"], held["wrong"]
        addresses, unexcused = held["addresses"], held["unexcused"]
        if not isinstance(tallies, dict) or not isinstance(reasons, dict) or not isinstance(wrong, list):
            raise TypeError("not an outcome")
        if not isinstance(addresses, list) or not isinstance(unexcused, int):
            raise TypeError("not an outcome")
        return cls(
            {str(key): Counter(tally) for key, tally in tallies.items()},
            Counter(reasons),
            unexcused,
            {int(addr) for addr in addresses},
            [Wrong(each[0], each[1], each[2], tuple(each[3]), tuple(each[4])) for each in wrong],
        )


def plan(boundaries: int, *, seed: int, tracings: Sequence[int], part: int = 100_000, every: int = 1) -> list[Job]:
    """Cut a campaign into jobs of a size that keeps every core busy.

    Args:
        boundaries: how many in all.
        seed: of the first run; each job has its own.
        tracings: which tracers to have on, in turn.
        part: boundaries of one job.
        every: see `Job`.
    """
    share = -(-boundaries // len(tracings))
    jobs = []
    for tracing in tracings:
        for number in range(-(-share // part)):
            count = min(part, share - number * part)
            variant = (Variant.SFRAME, Variant.SFRAME, Variant.CFI)[number % 3]
            jobs.append(Job(variant, tracing, seed + number, count, max(1, count // 1000), every))
    return jobs


def run_job(job: Job, contenders: Sequence[Contender], done: Callable[[int], None] = lambda _count: None) -> Outcome:
    """Run one job.

    Args:
        job: which.
        contenders: whom to compare.
        done: told how many boundaries have been judged.
    """
    kernel = load_kernel(job.variant)
    windows = Windows.of(kernel)
    recorder = Recorder(kernel, every=job.every)
    machine = start_machine(kernel, recorder, seed=job.seed, tracing=job.tracing)
    outcome = Outcome()
    batches = record(machine, recorder, boundaries=job.boundaries, batch=_BATCH, tracing=job.tracing != 0)
    count = -(-job.boundaries // _BATCH)
    for batch in batches:
        judge(batch, contenders, windows, outcome, view="outside", job=job)
        inside = _inside(machine, recorder, -(-job.inside // count))
        judge(inside, contenders, windows, outcome, view="inside", job=job)
        blocked = blocked_tasks(machine, recorder, batch.code)
        judge(blocked, contenders, windows, outcome, view="blocked", job=job)
        done(len(batch))
    outcome.addresses |= recorder.addresses
    return outcome


def _inside(machine: Machine, recorder: Recorder, samples: int) -> Boundaries:
    """Inject interrupts, each at another place, and give what their handler would see; the machine is put back."""
    board = machine.board
    recorder.start(limit=0, tracing=recorder.tracing)
    handler = machine.kernel.symbol("injected_interrupt")
    for number in range(samples):
        state, shadow = board.snapshot(), recorder.save()
        board.run(11 + 7 * number)
        if _reach_handler(board, handler):
            recorder.capture()
        board.restore(state)
        recorder.load(shadow)
    return recorder.take(machine.code())


def _reach_handler(board: Board, handler: int) -> bool:
    """Inject an interrupt and run to the first instruction of its handler."""
    board.inject()
    for _ in range(_IRQ_SEARCH):
        board.run(1)
        if board.registers.pc == handler:
            return True
    return False


def judge(
    batch: Boundaries,
    contenders: Sequence[Contender],
    windows: Windows,
    outcome: Outcome,
    *,
    view: str,
    job: Job,
) -> None:
    """Hold what each contender says of a batch against the truth, and count.

    Args:
        batch: the boundaries.
        contenders: whom to ask.
        windows: the windows of the batch's kernel.
        outcome: where the counts go.
        view: "outside", "inside" or "blocked".
        job: which job it is of.
    """
    if not len(batch):
        return
    first, addr, exact = batch.expected()
    every = np.zeros(len(batch), dtype=np.bool_)
    window = windows.lookup(_interrupted(batch, view), every)
    fp: Traces | None = None
    for contender in contenders:
        said = answer(contender, batch, fp=fp)
        if contender in {Contender.FP_FIRST, Contender.LR_FIRST, Contender.FP_RELIABLE}:
            fp = said.traces
        missing, invented = _compare(first, addr, exact, said)
        wrong = missing | invented
        marks = {
            "tried": ~every,
            "exact": said.claims & ~wrong,
            "missing": said.claims & missing,
            "invented": said.claims & invented,
            "refused": ~said.claims,
            "wrong_reliable": said.claims & wrong,
        }
        for code in np.unique(window).tolist():
            tally = outcome.tallies.setdefault(
                f"{view}/{job.tracing}/{contender}/{Window(code).name.lower()}", Counter()
            )
            here = window == code
            tally.update({name: int(np.count_nonzero(mask & here)) for name, mask in marks.items()})
        if contender is Contender.HYBRID:
            _count_refusals(said, windows, outcome)
        if contender in {Contender.HYBRID, Contender.SFRAME, Contender.FP_RELIABLE}:
            _keep_wrong(batch, said, (first, addr), np.flatnonzero(said.claims & wrong), contender, job, outcome)


def _interrupted(batch: Boundaries, view: str) -> Addr:
    """Give the address that each boundary is about: from inside, where the innermost exception came in between."""
    if view != "inside":
        return batch.tasks.pc
    first, addr, exact = batch.expected()
    found = batch.tasks.pc.copy()
    for i in range(len(batch)):
        part = np.flatnonzero(exact[first[i] + 1 : first[i + 1]])
        if part.size:
            found[i] = addr[first[i] + 1 + part[0]]
    return found


def _compare(first: Row, addr: Addr, exact: Mask, said: Answer) -> tuple[Mask, Mask]:
    """Tell which traces lack a true frame, and which have one that is not true.

    Args:
        first: (n + 1,) int64, the true frames of boundary i are first[i]:first[i + 1].
        addr: (m,) uint64.
        exact: (m,) bool.
        said: the answer.

    Returns:
        (n,) bool and (n,) bool; both are False only where the trace is the truth, frame by frame.
    """
    count = first.size - 1
    true_owner = np.repeat(np.arange(count), np.diff(first))
    said_owner = np.repeat(np.arange(count), np.diff(said.first))
    _, code = np.unique(np.concatenate([addr, said.pc]), return_inverse=True)
    width = np.int64(code.size * 2 + 2)
    true_key = true_owner * width + 2 * code[: addr.size] + exact
    said_key = said_owner * width + 2 * code[addr.size :] + said.exact
    missing = np.bincount(true_owner[~np.isin(true_key, said_key)], minlength=count) > 0
    invented = np.bincount(said_owner[~np.isin(said_key, true_key)], minlength=count) > 0
    size, other = np.diff(first), np.diff(said.first)
    missing |= ~invented & (other < size)
    invented |= ~missing & (other > size)
    same = np.flatnonzero(size == other)
    pick = np.isin(true_owner, same)
    differs = true_key[pick] != said_key[np.isin(said_owner, same)]
    moved = np.bincount(true_owner[pick][differs], minlength=count) > 0
    invented |= moved & ~missing
    return missing, invented


def _count_refusals(said: Answer, windows: Windows, outcome: Outcome) -> None:
    """Sort the hybrid walk's refusals by reason and place."""
    traces = said.traces
    rows = np.flatnonzero(~said.claims)
    if not rows.size:
        return
    frame = np.minimum(traces.first[rows] + traces.reason_frame[rows], traces.first[rows + 1] - 1)
    at = windows.lookup(traces.pc[frame], ~said.exact[frame])
    named = windows.lookup(traces.reason_addr[rows], np.ones(rows.size, dtype=np.bool_))
    in_text = (traces.reason_addr[rows] - np.uint64(windows.base)) >> np.uint64(2) < windows.codes.size
    excused = (
        np.isin(traces.reason_addr[rows], windows.probes) | np.isin(at, EXCUSED) | (in_text & np.isin(named, EXCUSED))
    )
    outcome.unexcused += int(np.count_nonzero(~excused))
    place = np.where(np.isin(at, EXCUSED) | ~in_text, at, named)
    for reason, window, right in zip(traces.reason[rows].tolist(), place.tolist(), excused.tolist(), strict=True):
        mark = "" if right else "!"
        outcome.reasons[f"{Reason(reason).name}/{Window(window).name.lower()}{mark}"] += 1


def _keep_wrong(
    batch: Boundaries,
    said: Answer,
    true: tuple[Row, Addr],
    rows: Row,
    contender: Contender,
    job: Job,
    outcome: Outcome,
) -> None:
    """Keep the first few wrong verdicts whole."""
    first, addr = true
    for i in rows[: max(0, _MAX_WRONG - len(outcome.wrong))].tolist():
        outcome.wrong.append(
            Wrong(
                contender=contender.value,
                count=int(batch.count[i]),
                job=job.name,
                said=tuple(said.pc[said.first[i] : said.first[i + 1]].tolist()),
                truth=tuple(addr[first[i] : first[i + 1]].tolist()),
            )
        )
