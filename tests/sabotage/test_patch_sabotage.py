"""The model test of live patching can fail: each planted fault in check, stack, transition or engine is noticed.

The same random operations as in tests/property/test_patch_engine.py run on the little kernel, from fixed seeds, until
a problem shows. Faults against the law, which let a task run versions that do not belong together, must be noticed as
just that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from patch_driver import drive
from patch_machine import Machine
from patch_world import World
from surefoot.patch import check
from surefoot.patch.check import Finding
from surefoot.patch.engine import Engine
from surefoot.patch.events import Hold
from surefoot.patch.model import PatchObject
from surefoot.patch.stack import FunctionStack, PatchStack, Side
from surefoot.patch.steps import Steps
from surefoot.patch.transition import CallbackLedger, Transition
from surefoot.unwind.state import Source

Patch = pytest.MonkeyPatch
SEEDS = 250
"""A fault that does not show in so many runs goes unnoticed."""


def problems() -> Iterator[tuple[int, list[str]]]:
    """Run from one seed after the other, every second time with interrupts and failures."""
    for seed in range(SEEDS):
        yield seed, drive(seed, trouble=seed % 2 == 1).problems


def first_problem() -> list[str]:
    """Give what is noticed first, nothing if nothing is."""
    return next((found for _, found in problems() if found), [])


def first_mix() -> str:
    """Give the first sign of a task in a version that it must not run."""
    marks = (" called ", " is in ")
    return next((text for _, found in problems() for text in found if any(mark in text for mark in marks)), "")


def test_without_a_fault_nothing_is_noticed() -> None:
    """The baseline."""
    assert [(seed, found) for seed, found in problems() if found] == []


# Faults against the law.


def no_stack_check(patch: Patch) -> None:
    """Every task is clear: naive patching, a task at a time."""
    patch.setattr(check, "holds", lambda traces, *_, **__: [None] * len(traces))


def _without(patch: Patch, dropped: Callable[[Finding], bool]) -> None:
    true_holds = check.holds

    def holds(*args: Any, **options: Any) -> list[Finding | None]:
        return [item if item and not dropped(item) else None for item in true_holds(*args, **options)]

    patch.setattr(check, "holds", holds)


def unreliable_is_clear(patch: Patch) -> None:
    """A stack that cannot be told holds nobody."""
    _without(patch, lambda item: item.hold is Hold.UNRELIABLE)


def running_is_clear(patch: Patch) -> None:
    """A task that runs goes over."""
    _without(patch, lambda item: item.hold is Hold.RUNNING)


def choosing_is_clear(patch: Patch) -> None:
    """A task in the tracer goes over, whatever it has chosen: as the kernel does."""
    _without(patch, lambda item: item.hold is Hold.CHOOSING)


def only_the_pc_is_choosing(patch: Patch) -> None:
    """The handler, called by the trampoline, is forgotten."""
    patch.setattr(check, "_choosing", lambda traces, inside, *_: inside & (traces.source == Source.REGS))


def raw_return_addresses(patch: Patch) -> None:
    """As klp_check_stack_func() compares them: a call that never returns counts for the next function."""
    patch.setattr(check, "_probes", lambda traces, _: traces.pc)


def only_the_innermost_frame(patch: Patch) -> None:
    """Callers are forgotten."""
    true_first = check._first_of

    def first_of(owner: Any, mask: Any, tasks: int) -> Any:
        inner = np.append([True], owner[1:] != owner[:-1]) if owner.size else mask
        return true_first(owner, mask & inner, tasks)

    patch.setattr(check, "_first_of", first_of)


def range_of_the_other_direction(patch: Patch) -> None:
    """What the task goes to is searched, not what it comes from."""
    true_searched = FunctionStack.searched
    patch.setattr(FunctionStack, "searched", lambda self, name, goal: true_searched(self, name, goal.other))


def original_instead_of_replaced(patch: Patch) -> None:
    """A stacked patch searches the function as it was built, not the version that it replaces."""

    def searched(self: FunctionStack, name: str, goal: Side) -> Any:
        at = self.at(name)
        return self.original.ranges if goal is Side.PATCHED else self.body_of(self.versions[at]).ranges

    patch.setattr(FunctionStack, "searched", searched)


def one_function_not_searched(patch: Patch) -> None:
    """The last function of a patch is forgotten."""
    true_searched = PatchStack.searched
    patch.setattr(PatchStack, "searched", lambda self, *args: true_searched(self, *args)[:-1])


def everybody_at_once(patch: Patch) -> None:
    """Naive immediate patching: the new code is chosen whatever side a task is on."""
    patch.setattr(FunctionStack, "select", lambda self, *_: self.body_of(self.versions[0] if self.versions else None))


def forks_unseen(patch: Patch) -> None:
    """Tasks made in mid-transition are not waited for."""
    true_observe = Transition.observe

    def observe(self: Transition, rows: Any) -> Any:
        return true_observe(self, [row for row in rows if row.key in self._members])

    patch.setattr(Transition, "observe", observe)


def one_left_is_none(patch: Patch) -> None:
    """A transition is called complete with one task left."""
    patch.setattr(Transition, "is_complete", property(lambda self: len(self.left) <= 1))


def turned_is_done(patch: Patch) -> None:
    """A transition that was turned round is taken to be back where it came from at once."""
    true_reverse, turned = Transition.reverse, set()

    def reverse(self: Transition) -> None:
        turned.add(id(self))
        true_reverse(self)

    patch.setattr(Transition, "reverse", reverse)
    patch.setattr(Transition, "is_complete", property(lambda self: id(self) in turned or not self.left))


def no_barrier(patch: Patch) -> None:
    """Tables and sides change under the handler."""
    patch.setattr(World, "barrier", lambda _: None)


def sides_set_after_the_table(patch: Patch) -> None:
    """A new task of a transition back is on no side when the table changes."""
    true_set = World.set_side

    def set_side(self: World, keys: Sequence[int], side: Side) -> None:
        if side is Side.PATCHED and self.goal is Side.IDLE:
            keys = keys[:-1]
        true_set(self, keys, side)

    patch.setattr(World, "set_side", set_side)


def module_comes_unpatched(patch: Patch) -> None:
    """A module that arrives later stays as it was built."""
    patch.setattr(Steps, "object_coming", lambda _self, _name: None)


AGAINST_THE_LAW = [
    no_stack_check,
    unreliable_is_clear,
    running_is_clear,
    choosing_is_clear,
    only_the_pc_is_choosing,
    raw_return_addresses,
    only_the_innermost_frame,
    range_of_the_other_direction,
    original_instead_of_replaced,
    one_function_not_searched,
    everybody_at_once,
    forks_unseen,
    one_left_is_none,
    turned_is_done,
    no_barrier,
    sides_set_after_the_table,
    module_comes_unpatched,
]


@pytest.mark.parametrize("plant", AGAINST_THE_LAW)
def test_fault_against_the_law_is_caught_as_a_mix(plant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    """Some task runs a version that never stood beside another one below it on the stack, or stays in old code."""
    plant(monkeypatch)
    assert first_mix()


# Other faults.


def rollback_skipped(patch: Patch) -> None:
    """A start that failed leaves what it has done."""
    patch.setattr(Steps, "_undo_start", lambda *_: None)


def rollback_without_callbacks(patch: Patch) -> None:
    """A start that failed does not tell the objects."""
    patch.setattr(CallbackLedger, "undo", lambda _: None)


def veto_counts_as_consent(patch: Patch) -> None:
    """post_unpatch is called although pre_patch has refused."""
    true_pre = CallbackLedger.pre_patch

    def pre_patch(self: CallbackLedger, item: PatchObject) -> None:
        self._ready.append(item)
        true_pre(self, item)
        self._ready.remove(item)

    patch.setattr(CallbackLedger, "pre_patch", pre_patch)


def idle_tasks_forgotten(patch: Patch) -> None:
    """They hold sides for ever."""
    true_tasks = World.tasks

    def tasks(self: World) -> Any:
        return [row for row in true_tasks(self) if not row.idle]

    patch.setattr(World, "tasks", tasks)


def stack_check_never_takes_over(patch: Patch) -> None:
    """Kernel threads that never leave the kernel are not moved."""
    patch.setattr(Transition, "attempt", lambda _self, _key, _look: False)
    true_set = World.set_side

    def set_side(self: World, keys: Sequence[int], side: Side) -> None:
        if len(keys) == len(self.tasks_by_pid) or side is Side.IDLE:
            true_set(self, keys, side)

    patch.setattr(World, "set_side", set_side)


def replaced_patches_stay(patch: Patch) -> None:
    """An atomic replace does not take the older patches away."""
    patch.setattr(PatchStack, "replace_older", lambda _self, _name: ())


def nothing_given_back(patch: Patch) -> None:
    """An atomic replace leaves functions that it does not name to the older patches."""
    patch.setattr(PatchStack, "_give_back", lambda _self, _patch, _function: None)


def two_transitions_at_once(patch: Patch) -> None:
    """Nobody is refused because another transition is under way."""
    patch.setattr(Engine, "_may_turn", lambda _self, _name, _goal: False)


def interrupt_ignored(patch: Patch) -> None:
    """Ctrl-C leaves everything as it is, and says nothing."""
    patch.setattr(Engine, "_after_interrupt", lambda _self, _name, _goal: iter(()))


def blockers_not_all_named(patch: Patch) -> None:
    """One task that holds the transition up is not named."""
    patch.setattr(Transition, "blockers", lambda self: self.states(self.left[1:]))


def modules_come_while_it_is_set_up(patch: Patch) -> None:
    """The table of a transition is made for the modules that were there before."""
    patch.setattr(Steps, "_may_change", lambda _: None)


def flags_left(patch: Patch) -> None:
    """Tasks that have gone over by their stack keep the flag."""
    true_set = World.set_pending

    def set_pending(self: World, keys: Sequence[int], pending: bool) -> None:
        true_set(self, keys if pending else (), pending)

    patch.setattr(World, "set_pending", set_pending)


@pytest.mark.parametrize(
    "plant",
    [
        rollback_skipped,
        rollback_without_callbacks,
        veto_counts_as_consent,
        idle_tasks_forgotten,
        stack_check_never_takes_over,
        replaced_patches_stay,
        nothing_given_back,
        two_transitions_at_once,
        interrupt_ignored,
        blockers_not_all_named,
        flags_left,
        modules_come_while_it_is_set_up,
    ],
)
def test_planted_fault_is_noticed(plant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    """Everything else that the engine promises is missed when it is gone."""
    plant(monkeypatch)
    assert first_problem()


@pytest.mark.parametrize("plant", [no_stack_check, unreliable_is_clear, one_left_is_none, rollback_skipped])
def test_hypothesis_finds_faults_too(plant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    """The state machine of the property test is not blind: it breaks an invariant by itself."""
    plant(monkeypatch)
    found = settings(
        max_examples=200,
        stateful_step_count=30,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        print_blob=False,
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Machine, settings=found)
