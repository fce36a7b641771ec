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

from surefoot.dtypes import Addr, Code, Mask, Row
from surefoot.machine.contenders import Answer, Contender, answer
from surefoot.machine.loader import Variant, load_kernel
from surefoot.machine.recorder import Boundaries, Recorder, blocked_tasks, record, start_machine
from surefoot.machine.windows import EXCUSED, Window, Windows
from surefoot.unwind.reasons import Reason
from surefoot.unwind.trace import Traces

__all__ = ["COUNTS", "Job", "Outcome", "Wrong", "judge", "plan", "run_job"]

COUNTS: Final = ("tried", "exact", "missing", "invented", "refused", "wrong_reliable")
"""What is counted for each contender and window; a trace can both miss a caller and invent one."""

_BATCH: Final = 2_500
_MAX_WRONG: Final = 20

Tally = Counter[str]


@dataclass(frozen=True, slots=True)
class Job:
    """A part of a campaign.

    Attributes:
        variant: which kernel.
        tracing: 0 none, 1 function graph, 2 kretprobes, 3 both.
        seed: of the run.
        boundaries: how many to try from outside.
        inside: at one boundary in so many, inject an interrupt, for the walk from inside; 0 for none.
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
        reasons: refusals of the hybrid walk by "reason/window", of the frame that could not be left; a "!" behind it
            marks those where an answer was owed.
        refused: refusals of the hybrid walk by the window that the boundary is about, marked alike.
        unexcused: refusals of the hybrid walk where an answer was owed.
        addresses: kernel addresses tried.
        wrong: the first few wrong RELIABLE verdicts of contenders that give verdicts.
    """

    tallies: dict[str, Tally] = field(default_factory=dict)
    reasons: Tally = field(default_factory=Counter)
    refused: Tally = field(default_factory=Counter)
    unexcused: int = 0
    addresses: set[int] = field(default_factory=set)
    wrong: list[Wrong] = field(default_factory=list)

    def add(self, other: Outcome) -> None:
        """Add what another job has found."""
        for key, tally in other.tallies.items():
            self.tallies.setdefault(key, Counter()).update(tally)
        self.reasons.update(other.reasons)
        self.refused.update(other.refused)
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
            "refused": dict(self.refused),
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
        tallies, reasons, refused, wrong = (held[name] for name in ("tallies", "reasons", "refused", "wrong"))
        addresses, unexcused = held["addresses"], held["unexcused"]
        if not isinstance(tallies, dict) or not isinstance(reasons, dict) or not isinstance(wrong, list):
            raise TypeError("not an outcome")
        if not isinstance(refused, dict):
            raise TypeError("not an outcome")
        if not isinstance(addresses, list) or not isinstance(unexcused, int):
            raise TypeError("not an outcome")
        return cls(
            {str(key): Counter(tally) for key, tally in tallies.items()},
            Counter(reasons),
            Counter(refused),
            unexcused,
            {int(addr) for addr in addresses},
            [Wrong(each[0], each[1], each[2], tuple(each[3]), tuple(each[4])) for each in wrong],
        )


def plan(
    boundaries: int,
    *,
    seed: int,
    tracings: Sequence[int],
    part: int = 100_000,
    every: int = 1,
    inside: int = 8,
) -> list[Job]:
    """Cut a campaign into jobs of a size that keeps every core busy; the builds of the kernel take turns.

    Args:
        boundaries: how many in all.
        seed: of the first run; each job has its own.
        tracings: which tracers to have on, in turn.
        part: boundaries of one job.
        every: see `Job`.
        inside: see `Job`.
    """
    share = -(-boundaries // len(tracings))
    jobs = []
    builds = tuple(Variant)
    for turn, tracing in enumerate(tracings):
        for number in range(-(-share // part)):
            count = min(part, share - number * part)
            variant = builds[(turn + number) % len(builds)]
            jobs.append(Job(variant, tracing, seed + number, count, inside, every))
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
    batches = record(
        machine,
        recorder,
        boundaries=job.boundaries,
        batch=_BATCH,
        tracing=job.tracing != 0,
        inside=job.inside,
    )
    for batch in batches:
        judge(batch, contenders, windows, outcome, view="outside", job=job)
        inside = recorder.take_aside(batch.code)
        judge(inside, contenders, windows, outcome, view="inside", job=job)
        blocked = blocked_tasks(machine, recorder, batch.code)
        judge(blocked, contenders, windows, outcome, view="blocked", job=job)
        done(len(batch))
    outcome.addresses |= recorder.addresses
    return outcome


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
            _count_refusals(said, windows, window, outcome)
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


def _count_refusals(said: Answer, windows: Windows, interrupted: Code, outcome: Outcome) -> None:
    """Sort the hybrid walk's refusals by reason and place.

    An answer is owed unless the walk came to an instruction where none can be given: one that was interrupted (by the
    boundary itself, or by an exception further out) in entry code, in a trampoline, on a probe's BRK or in bare
    assembly; or to a return address in bare assembly. A return address in a trampoline or in entry code is no excuse.

    Args:
        said: the answer.
        windows: of the kernel.
        interrupted: (n,) uint8, the window that each boundary is about.
        outcome: where the counts go.
    """
    traces = said.traces
    rows = np.flatnonzero(~said.claims)
    frame = np.minimum(traces.first[rows] + traces.reason_frame[rows], traces.first[rows + 1] - 1)
    pc, exact = traces.pc[frame], said.exact[frame]
    at = windows.lookup(pc, ~exact)
    named = windows.lookup(traces.reason_addr[rows], np.ones(rows.size, dtype=np.bool_))
    bare = (at == Window.BARE) | (named == Window.BARE)
    excused = bare | (exact & (np.isin(at, EXCUSED) | np.isin(pc, windows.probes)))
    outcome.unexcused += int(np.count_nonzero(~excused))
    place = np.where(bare, np.uint8(Window.BARE), np.where(excused & ~np.isin(at, EXCUSED), Window.TRAMPOLINE, at))
    columns = (traces.reason[rows].tolist(), place.tolist(), interrupted[rows].tolist(), excused.tolist())
    for reason, window, own, right in zip(*columns, strict=True):
        mark = "" if right else "!"
        outcome.reasons[f"{Reason(reason).name}/{Window(window).name.lower()}{mark}"] += 1
        outcome.refused[f"{Window(own).name.lower()}{mark}"] += 1


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
