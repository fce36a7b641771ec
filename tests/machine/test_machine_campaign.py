"""The campaign: it finds what walkers get wrong, and nothing wrong with the hybrid walk."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from surefoot.machine.campaign import COUNTS, Job, Outcome, plan, run_job
from surefoot.machine.contenders import Contender, answer
from surefoot.machine.loader import Variant, load_kernel
from surefoot.machine.recorder import Recorder, record, start_machine
from surefoot.machine.windows import EXCUSED, Window, Windows

EVERY = list(Contender)


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    """A small campaign under every tracer."""
    found = Outcome()
    for tracing in range(4):
        variant = Variant.CFI if tracing == 2 else Variant.SFRAME
        found.add(run_job(Job(variant, tracing, 7, 6_000, 8), EVERY))
    return found


def _tried_elsewhere(outcome: Outcome) -> int:
    """Boundaries outside the places that excuse a refusal."""
    names = (window.name.lower() for window in set(Window) - set(EXCUSED))
    return sum(outcome.total(Contender.HYBRID, window=name)["tried"] for name in names)


def test_the_hybrid_walk_is_never_wrong(outcome: Outcome) -> None:
    """No verdict RELIABLE is wrong, from outside, from inside, or of a task that is switched out."""
    total = outcome.total(Contender.HYBRID)
    assert outcome.total(Contender.HYBRID, view="outside")["tried"] == 24_000
    assert total["wrong_reliable"] == total["missing"] == total["invented"] == 0
    assert [wrong for wrong in outcome.wrong if wrong.contender == Contender.HYBRID] == []
    assert total["exact"] > 5_000


def test_shadow_call_stacks_make_no_difference() -> None:
    """The build that returns by its shadow call stack is walked as soundly, with both tracers on."""
    found = run_job(Job(Variant.SCS, 3, 7, 5_000, 8), [Contender.HYBRID])
    total = found.total(Contender.HYBRID)
    assert total["wrong_reliable"] == 0
    assert total["exact"] > 2_000
    assert found.unexcused <= 0.005 * total["tried"]


def test_refusals_are_where_they_should_be(outcome: Outcome) -> None:
    """Outside entry code, trampolines and bare assembly at most half a percent is refused without an excuse."""
    assert outcome.unexcused <= 0.005 * _tried_elsewhere(outcome)
    assert outcome.unexcused == sum(count for name, count in outcome.reasons.items() if name.endswith("!"))
    assert outcome.unexcused == sum(count for name, count in outcome.refused.items() if name.endswith("!"))
    total = outcome.total(Contender.HYBRID)
    assert sum(outcome.reasons.values()) == sum(outcome.refused.values()) == total["refused"]


RIGHT = {
    "entry": {"ENTRY_CODE", "SWITCHING"},
    "trampoline": {"TRAMPOLINE_WINDOW", "TEXT_CHANGED", "NOT_TEXT"},
    "bare": {"NO_METADATA", "NO_RULE_AT_BOUNDARY", "CALL_MISMATCH", "NOT_A_CALL", "RULE_RECORD_MISMATCH", "ASSEMBLY"},
}


def test_refusals_give_the_right_reason(outcome: Outcome) -> None:
    """Each place has reasons of its own; what is owed is owed to a return stack that is being written."""
    for name in outcome.reasons:
        reason, place = name.split("/")
        assert reason in RIGHT[place] if place in RIGHT else reason == "FGRAPH_MISMATCH", name


def test_walks_from_inside_are_many(outcome: Outcome) -> None:
    """At one boundary in about twenty an interrupt's handler has walked the task that it interrupted."""
    inside = outcome.total(Contender.HYBRID, view="inside")
    assert inside["tried"] > 24_000 / 30
    assert inside["exact"] > 0.7 * inside["tried"]
    fp = outcome.total(Contender.FP_FIRST, view="inside")
    assert fp["tried"] == inside["tried"]
    assert fp["missing"] > 50


def test_the_campaign_is_able_to_fail(outcome: Outcome) -> None:
    """FP-first and LR-first both miss callers and invent some."""
    for contender in (Contender.FP_FIRST, Contender.LR_FIRST):
        total = outcome.total(contender, view="outside")
        assert total["missing"] > 1_000
        assert total["invented"] > 100
        assert total["wrong_reliable"] > 1_000


def test_frame_records_alone_are_right_in_bodies_only(outcome: Outcome) -> None:
    """FP-first loses the caller of every leaf and every function without a record."""
    for window in (Window.LEAF, Window.PROLOGUE, Window.EPILOGUE):
        total = outcome.total(Contender.FP_FIRST, window=window.name.lower(), view="outside")
        assert total["tried"] > 0
        assert total["exact"] < 0.05 * total["tried"]


def test_counts_add_up(outcome: Outcome) -> None:
    """Every boundary is exact, refused or wrong, for every contender alike."""
    tried = outcome.total(Contender.HYBRID)["tried"]
    for contender in Contender:
        total = outcome.total(contender)
        assert set(total) <= set(COUNTS)
        assert total["tried"] == tried
        assert total["exact"] + total["refused"] + total["wrong_reliable"] == tried
    again = Outcome.from_json(json.loads(json.dumps(outcome.to_json())))
    assert again == outcome


def test_every_window_is_met(outcome: Outcome) -> None:
    """The load goes through every kind of place, bare assembly excepted, which is rare."""
    for window in set(Window) - {Window.BARE}:
        assert outcome.total(Contender.HYBRID, window=window.name.lower())["tried"] > 0


def test_plans_give_every_boundary_to_one_job() -> None:
    """Jobs are distinct and add up, and one that is planned twice is the same."""
    jobs = plan(900_000, seed=3, tracings=(0, 1, 2, 3))
    assert sum(job.boundaries for job in jobs) == 900_000
    assert len({job.name for job in jobs}) == len(jobs)
    assert jobs == plan(900_000, seed=3, tracings=(0, 1, 2, 3))
    assert {job.variant for job in jobs} == set(Variant)
    assert {job.variant for job in plan(40_000, seed=3, tracings=(0, 1, 2, 3))} == set(Variant)


def test_a_stale_link_register_is_caught() -> None:
    """A boundary whose LR is another one's gives a wrong LR-first answer and a refusal or a mismatch elsewhere."""
    kernel = load_kernel()
    recorder = Recorder(kernel)
    machine = start_machine(kernel, recorder)
    (batch,) = record(machine, recorder, boundaries=2_000, batch=2_000, tracing=False)
    leaf = Windows.of(kernel).lookup(batch.tasks.pc, np.zeros(len(batch), dtype=np.bool_)) == Window.LEAF
    stale = replace(batch, tasks=replace(batch.tasks, lr=np.roll(batch.tasks.lr, 777)))
    good, bad = answer(Contender.LR_FIRST, batch), answer(Contender.LR_FIRST, stale)
    assert np.count_nonzero(leaf) > 50
    assert good.pc.tolist() != bad.pc.tolist()
