"""The transition as a state machine, move by move, and the ledger of callbacks."""

from __future__ import annotations

import pytest

from surefoot.errors import PatchError
from surefoot.patch.check import Finding
from surefoot.patch.events import Hold
from surefoot.patch.model import Callbacks, PatchObject
from surefoot.patch.stack import Side
from surefoot.patch.transition import CallbackLedger, Cause, Look, TaskRow, Transition

CLEAR = Look(None)
HELD = Look(Finding(Hold.ON_STACK, "f", 0x1234, 1, "it will return into f"), ("schedule+0x4", "f+0x10", "g+0x8"))


def row(key: int, side: Side = Side.UNPATCHED, *, pending: bool = True, idle: bool = False) -> TaskRow:
    return TaskRow(key, 100 + key, f"t{key}", side, pending, idle)


def begun(*keys: int, goal: Side = Side.PATCHED) -> Transition:
    return Transition.begin("p", goal, [row(key, Side.IDLE, pending=False) for key in keys])


@pytest.mark.parametrize("goal", [Side.PATCHED, Side.UNPATCHED])
def test_all_tasks_start_on_the_other_side_with_the_flag(goal: Side) -> None:
    """Idle tasks too; nobody has been looked at."""
    transition = Transition.begin("p", goal, [row(1, Side.IDLE), row(2, goal, idle=True)])
    assert len(transition) == 2
    assert transition.left == (1, 2)
    assert [transition.side(key) for key in (1, 2)] == [goal.other] * 2
    assert all(transition.is_pending(key) for key in (1, 2))
    assert [task.hold for task in transition.blockers()] == [Hold.UNKNOWN] * 2


def test_a_transition_needs_a_side_to_go_to() -> None:
    """IDLE is none."""
    with pytest.raises(ValueError, match="one of two sides"):
        begun(1, goal=Side.IDLE)


def test_a_clear_stack_brings_a_task_over_and_a_held_one_does_not() -> None:
    """The hold is named; a later clear look brings the task over."""
    transition = begun(1, 2)
    assert transition.attempt(1, CLEAR)
    assert not transition.attempt(2, HELD)
    assert transition.left == (2,)
    assert not transition.is_pending(1)
    [blocker] = transition.blockers()
    assert (blocker.pid, blocker.hold, blocker.blocked_by) == (102, Hold.ON_STACK, "f")
    assert blocker.trace == ("schedule+0x4", "f+0x10", "g+0x8")
    assert not transition.is_complete
    assert transition.attempt(2, CLEAR)
    assert not transition.attempt(2, CLEAR)
    assert transition.is_complete
    assert transition.blockers() == ()


def test_leaving_the_kernel_brings_a_task_over_by_its_flag() -> None:
    """Whatever was seen of its stack; without the flag it does not."""
    transition = begun(1)
    transition.attempt(1, HELD)
    assert transition.leave_kernel(1)
    assert transition.side(1) is Side.PATCHED
    assert not transition.leave_kernel(1)
    transition.fork(1, row(2))
    assert not transition.leave_kernel(2)


def test_a_child_is_where_its_parent_is() -> None:
    """Side and flag; it has to go over itself."""
    transition = begun(1, 2)
    transition.attempt(1, CLEAR)
    transition.fork(1, row(3, Side.IDLE))
    transition.fork(2, row(4, Side.IDLE))
    assert (transition.side(3), transition.is_pending(3)) == (Side.PATCHED, False)
    assert (transition.side(4), transition.is_pending(4)) == (Side.UNPATCHED, True)
    assert transition.left == (2, 4)


def test_a_task_that_ends_holds_nothing_up() -> None:
    """And may end twice."""
    transition = begun(1)
    transition.attempt(1, HELD)
    transition.exit(1)
    transition.exit(1)
    assert transition.is_complete
    assert len(transition) == 0


def test_turning_round_exchanges_who_is_left() -> None:
    """Flags are those of the new direction, and old looks no longer count."""
    transition = begun(1, 2)
    transition.attempt(1, CLEAR)
    transition.attempt(2, HELD)
    transition.reverse()
    assert transition.goal is Side.UNPATCHED
    assert transition.left == (1,)
    assert (transition.is_pending(1), transition.is_pending(2)) == (True, False)
    assert [task.hold for task in transition.blockers()] == [Hold.UNKNOWN]
    transition.reverse()
    assert transition.left == (2,)
    assert [task.hold for task in transition.blockers()] == [Hold.UNKNOWN]


def test_force_overrules_and_says_whom() -> None:
    """Only those that were left, with what held them."""
    transition = begun(1, 2)
    transition.attempt(1, CLEAR)
    transition.attempt(2, HELD)
    overruled = transition.force()
    assert [(task.pid, task.crossed, task.hold) for task in overruled] == [(102, False, Hold.ON_STACK)]
    assert transition.forced == overruled
    assert transition.is_complete
    assert transition.force() == ()


def test_the_target_is_believed() -> None:
    """Exits, forks, and crossings at the kernel's edge and in the idle loop are taken over, with their cause."""
    transition = begun(1, 2, 3, 4)
    transition.attempt(4, CLEAR)
    crossed = transition.observe(
        [
            row(1, Side.PATCHED, pending=False),
            row(2, Side.PATCHED, pending=False, idle=True),
            row(4, Side.PATCHED, pending=False),
            row(5, Side.PATCHED, pending=False),
            row(6, Side.UNPATCHED),
        ]
    )
    assert crossed == {1: Cause.EXIT, 2: Cause.IDLE, 5: Cause.FORK}
    assert transition.left == (6,)
    assert len(transition) == 5


@pytest.mark.parametrize("side", [Side.UNPATCHED, Side.IDLE])
def test_a_task_that_is_not_where_it_was_thought_has_not_crossed(side: Side) -> None:
    """The handler reads what the target says; such a task gets the flag again."""
    transition = begun(1)
    transition.attempt(1, CLEAR)
    assert transition.observe([row(1, side, pending=False)]) == {}
    assert transition.left == (1,)
    assert transition.unflagged() == (1,)
    [blocker] = transition.blockers()
    assert blocker.hold is Hold.UNKNOWN
    assert transition.attempt(1, CLEAR)


def test_a_new_task_without_the_flag_gets_it() -> None:
    """A target that forgets to inherit it does not make the transition hang."""
    transition = begun(1)
    transition.observe([row(1), row(2, Side.IDLE, pending=False)])
    assert transition.unflagged() == (2,)
    assert transition.left == (1, 2)


def test_states_come_in_the_order_asked_for() -> None:
    """Crossed ones have no hold."""
    transition = begun(1, 2, 3)
    transition.attempt(2, CLEAR)
    assert [(task.pid, task.crossed) for task in transition.states([3, 2])] == [(103, False), (102, True)]
    assert len(transition.states()) == 3


ITEMS = [PatchObject(name, (), Callbacks("pre_patch", "post_patch", "pre_unpatch", "post_unpatch")) for name in "abc"]


class Calls:
    """Records calls; the given ones fail."""

    def __init__(self, *failing: tuple[str, str]) -> None:
        self.made: list[tuple[str, str]] = []
        self._failing = failing

    def __call__(self, owner: str, symbol: str) -> None:
        if (owner, symbol) in self._failing:
            raise PatchError("no")
        self.made.append((owner, symbol))


def test_only_objects_whose_pre_patch_succeeded_are_undone_in_reverse_order() -> None:
    """Each once."""
    calls = Calls(("c", "pre_patch"))
    ledger = CallbackLedger(calls)
    for item in ITEMS[:2]:
        ledger.pre_patch(item)
    with pytest.raises(PatchError):
        ledger.pre_patch(ITEMS[2])
    assert ledger.ready == tuple(ITEMS[:2])
    ledger.undo()
    ledger.undo()
    assert calls.made == [("a", "pre_patch"), ("b", "pre_patch"), ("b", "post_unpatch"), ("a", "post_unpatch")]


def test_an_object_without_callbacks_is_ready() -> None:
    """Nothing is called for it."""
    calls = Calls()
    ledger = CallbackLedger(calls)
    ledger.pre_patch(PatchObject("x", ()))
    assert [item.name for item in ledger.ready] == ["x"]
    ledger.undo()
    assert calls.made == []


def test_what_the_others_fail_in_is_a_warning() -> None:
    """As in the kernel, where they give no result."""
    calls = Calls(("a", "post_patch"), ("a", "pre_unpatch"), ("a", "post_unpatch"))
    ledger = CallbackLedger(calls)
    ledger.pre_patch(ITEMS[0])
    ledger.post_patch(ITEMS[0])
    ledger.pre_unpatch(ITEMS[0])
    ledger.post_unpatch(ITEMS[0])
    assert calls.made == [("a", "pre_patch")]
    assert [text.split()[2] for text in ledger.warnings] == ["post_patch", "pre_unpatch", "post_unpatch"]
    assert ledger.ready == ()
