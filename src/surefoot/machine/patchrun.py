"""Layer 7: patching under load, at random instants: which calls mixed old and new code, were lost or made twice.

The load calls `pair_f`, which calls `pair_g`; they must be of one version, and the kernel counts where they are not.
An observer of the board counts the same from the instructions executed: it knows what each call really ran, and
shares nothing with the kernel's counters, the engine or the walker.

Invariant: nothing in here knows how a transition is carried through; a `Driver` does that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np

from surefoot.errors import TargetError
from surefoot.machine.board import Board, Stop
from surefoot.machine.loader import KernelFile
from surefoot.machine.patching import Patching
from surefoot.machine.target import Machine

__all__ = ["PAIR", "CallWatch", "Driver", "MakeDriver", "Naive", "Passage", "PatchJob", "Tally", "run_patching"]

PAIR: Final = (("pair_f", "pair_f_new"), ("pair_g", "pair_g_new"))
"""Functions that have to be patched together: old, new."""

_BODY: Final = 12
"""Behind the patch site and the first instruction, where a kretprobe may have put a BRK."""
_AIMED: Final = 0.4
_CLOSE: Final = 160
"""Instructions from a patch site to the end of the handlers and a little beyond."""
_INJECTED: Final = 0.25
_TURNED: Final = 0.25
_TURN_BY: Final = 6
"""How many transitions are turned round, and by which pass at the latest."""
_RETRACED: Final = 0.05
_CHANGING: Final = -1
_DRAIN: Final = 60_000
_QUANTUM: Final = 40


@dataclass(frozen=True, slots=True)
class PatchJob:
    """A run of many transitions, one after the other.

    Attributes:
        seed: of the machine, and of everything that is random here.
        transitions: how many.
        tracing: 1 function graph, 2 kretprobes, 3 both, -1: switched at random, in the middle of transitions too.
        light: the load sleeps more and calls the pair more often; else it does everything that it can.
        pace: instructions between two passes, at most.
        gap: instructions between two transitions, at most.
    """

    seed: int
    transitions: int
    tracing: int = 0
    light: bool = True
    pace: int = 1_200
    gap: int = 2_500


@dataclass(frozen=True, slots=True)
class Passage:
    """How one transition went.

    Attributes:
        applied: the new code is in force in the end.
        complete: every task has gone over, to whichever side.
        passes: over all tasks.
        turned: times that it was turned round.
        named: holds that were told with task and reason.
        nameless: holds that were told without; never above 0.
        causes: how many tasks went over by what.
    """

    applied: bool
    complete: bool
    passes: int = 1
    turned: int = 0
    named: int = 0
    nameless: int = 0
    causes: Counter[str] = field(default_factory=Counter)


class Driver(Protocol):
    """Carries transitions through on one machine."""

    def drive(self, *, forward: bool, between: Callable[[], bool], turn: Callable[[], bool]) -> Passage:
        """Apply the pair's patch, or take it back.

        Args:
            forward: apply it.
            between: runs the machine between two passes; False if it has ended.
            turn: asked after each pass: True to turn round.

        Raises:
            TargetError: the machine has ended.
        """
        ...


MakeDriver = Callable[[Patching], Driver]


class Naive:
    """What live patching without a consistency model does: every site at once, for everybody."""

    def __init__(self, patching: Patching) -> None:
        """Take a machine."""
        self._patching = patching

    def drive(self, *, forward: bool, between: Callable[[], bool], turn: Callable[[], bool]) -> Passage:
        """Switch the whole table."""
        del between, turn
        find = self._patching.find
        table = [(find(old), find(new), find(new)) for old, new in PAIR]
        self._patching.redirect(table if forward else [])
        return Passage(applied=forward, complete=True)


@dataclass(slots=True)
class Tally:
    """What came of a job, or of several.

    Attributes:
        transitions: carried through, to whichever side.
        incomplete: given up with tasks left.
        turned: times that one was turned round.
        passes: over all tasks.
        named: holds told with task and reason.
        nameless: holds told without.
        causes: how many tasks went over by what.
        calls: of the pair, finished, by the observer.
        old: of these, wholly old.
        new: wholly new.
        mixed: old and new.
        lost: without one of the functions.
        doubled: with one of them twice.
        told_mixed: mixes that the kernel found out itself.
        told_calls: calls that the kernel counted, of those that were made and have returned.
        begun: calls begun, by the observer, when the machine was drained.
        undrained: jobs in whose end calls were still under way.
        insns: instructions executed.
        died: what a machine died of.
    """

    transitions: int = 0
    incomplete: int = 0
    turned: int = 0
    passes: int = 0
    named: int = 0
    nameless: int = 0
    causes: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    old: int = 0
    new: int = 0
    mixed: int = 0
    lost: int = 0
    doubled: int = 0
    told_mixed: int = 0
    told_calls: int = 0
    begun: int = 0
    undrained: int = 0
    insns: int = 0
    died: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Add what came of another job."""
        for name in self.__dataclass_fields__:
            mine, its = getattr(self, name), getattr(other, name)
            setattr(self, name, mine + its)

    @property
    def clean(self) -> bool:
        """Nothing mixed, lost, doubled, miscounted or unexplained."""
        faults = (self.mixed, self.lost, self.doubled, self.told_mixed, self.incomplete, self.nameless)
        return not any(faults) and not self.died and self.begun == self.calls == self.told_calls


class CallWatch:
    """An observer that follows every call of the pair, and stops the machine near one on request.

    Attributes:
        begun: calls begun.
        done: (functions that ran in the order of `PAIR`: 0 old, 1 new) of every kind of call that ended, with counts.
    """

    def __init__(self, kernel: KernelFile) -> None:
        """Prepare for a run."""
        self.begun = 0
        self.done: Counter[tuple[tuple[int, ...], ...]] = Counter()
        self._board: Board | None = None
        self._open: dict[int, tuple[list[int], list[int]]] = {}
        self._bodies = {
            kernel.symbol(name) + _BODY: (function, version)
            for function, names in enumerate(PAIR)
            for version, name in enumerate(names)
        }
        self._call = _call_of(kernel, "run_pair", "pair_f")
        self._watched = {*self._bodies, self._call, self._call + 4}
        self._sites = {kernel.symbol(name) + 4 for names in PAIR for name in names[:1]}
        self._aimed = False

    def attach(self, board: Board) -> None:
        """Name the board, whose current task tells calls apart."""
        self._board = board

    def aim(self, *, on: bool) -> None:
        """Stop the machine at the next patch site of the pair."""
        self._aimed = on

    def step(self, addr: int) -> None:
        """Hear that the instruction at `addr` is about to be executed."""
        if addr in self._watched:
            self._follow(addr)
        elif self._aimed and addr in self._sites and self._board is not None:
            self._aimed = False
            self._board.ask_stop()

    def exception(self, pc: int, *, user: bool, sync: bool) -> None:
        """Hear of an exception: calls are not affected."""

    def _follow(self, addr: int) -> None:
        if self._board is None:
            return
        task = self._board.current
        if addr == self._call:
            self.begun += 1
            self._open[task] = ([], [])
        elif addr == self._call + 4:
            ran = self._open.pop(task, ([], []))
            self.done[tuple(tuple(each) for each in ran)] += 1
        else:
            function, version = self._bodies[addr]
            self._open.setdefault(task, ([], []))[function].append(version)

    @property
    def mixed(self) -> int:
        """Calls that ran old and new code."""
        return sum(count for ran, count in self.done.items() if len({each for found in ran for each in found}) > 1)

    @property
    def under_way(self) -> int:
        """Calls that have not returned."""
        return len(self._open)


def _call_of(kernel: KernelFile, caller: str, callee: str) -> int:
    """Give the address of the only call of one function in another."""
    low, high = kernel.span(caller)
    words = np.frombuffer(kernel.read(low, high - low), dtype="<u4").tolist()
    goal = kernel.symbol(callee)
    found = [
        low + 4 * i for i, word in enumerate(words) if word == 0x9400_0000 | ((goal - low - 4 * i) >> 2 & 0x3FF_FFFF)
    ]
    (only,) = found
    return only


class _Run:
    """One job under way."""

    def __init__(self, kernel: KernelFile, job: PatchJob, settle: int) -> None:
        self._job = job
        self._chance = np.random.default_rng(job.seed)
        self._turn_in = 0
        self.watch = CallWatch(kernel)
        self._board = Board(kernel, seed=job.seed, observer=self.watch)
        self.watch.attach(self._board)
        self.machine = Machine(self._board)
        self.machine.control("light", int(job.light))
        self.machine.control("tracing", max(job.tracing, 0))
        self._board.run(settle)

    def wander(self, most: int) -> bool:
        """Run to a random instant, often near a patch site, or with an interrupt; False if the machine ended."""
        chance, board = self._chance, self._board
        if self._job.tracing == _CHANGING and chance.random() < _RETRACED:
            self.machine.control("tracing", int(chance.integers(4)))
        if chance.random() < _AIMED:
            self.watch.aim(on=True)
            stop = board.run(most)
            self.watch.aim(on=False)
            if stop is Stop.ASKED:
                board.run(int(chance.integers(_CLOSE)))
        else:
            board.run(int(chance.integers(1, most)))
        if chance.random() < _INJECTED:
            board.inject()
        return board.status is None

    def between(self) -> bool:
        """Run between two passes."""
        return self.wander(self._job.pace)

    def plan_turn(self) -> None:
        """Decide whether the next transition is turned round, and when."""
        chance = self._chance
        self._turn_in = int(chance.integers(1, _TURN_BY)) if chance.random() < _TURNED else 0

    def turn(self) -> bool:
        """Say whether to turn round; once in a transition at most."""
        self._turn_in -= 1
        return self._turn_in == 0

    def drain(self) -> bool:
        """Run until no call is under way, so that counts can be compared; True if that came about."""
        for _ in range(_DRAIN):
            counts = self.machine.control("pair_calls"), self.machine.control("pair_returns")
            if counts == (self.watch.begun, self.watch.begun) and not self.watch.under_way:
                return True
            if self._board.run(_QUANTUM) is Stop.EXIT:
                break
        return False

    def count(self, tally: Tally) -> None:
        """Add what the observer and the kernel have counted."""
        tally.begun, tally.mixed = self.watch.begun, self.watch.mixed
        for ran, count in self.watch.done.items():
            versions = {version for each in ran for version in each}
            tally.calls += count
            tally.old += count * (versions == {0})
            tally.new += count * (versions == {1})
            tally.lost += count * any(not each for each in ran)
            tally.doubled += count * any(len(each) > 1 for each in ran)
        tally.told_mixed = self.machine.control("pair_errors")
        tally.told_calls = self.machine.control("pair_returns")
        tally.insns = self._board.count


def run_patching(
    kernel: KernelFile, make: MakeDriver, job: PatchJob, *, settle: int = 50_000, to_first: bool = False
) -> Tally:
    """Carry one transition through after the other, forth and back, while the load runs.

    Args:
        kernel: what runs.
        make: makes what carries transitions through.
        job: how many, and under which load.
        settle: instructions to run before the first.
        to_first: stop at the first mix.

    Returns:
        what came of it.
    """
    run, tally = _Run(kernel, job, settle), Tally()
    driver = make(Patching(run.machine))
    applied = False
    try:
        for _ in range(job.transitions):
            run.wander(job.gap)
            run.plan_turn()
            passage = driver.drive(forward=not applied, between=run.between, turn=run.turn)
            applied = passage.applied
            tally.transitions += passage.complete
            tally.incomplete += not passage.complete
            tally.passes += passage.passes
            tally.turned += passage.turned
            tally.named += passage.named
            tally.nameless += passage.nameless
            tally.causes += passage.causes
            if to_first and run.watch.mixed:
                break
    except TargetError as error:
        tally.died.append(f"seed {job.seed}: {error}")
    if not tally.died:
        tally.undrained += not run.drain()
    run.count(tally)
    return tally
