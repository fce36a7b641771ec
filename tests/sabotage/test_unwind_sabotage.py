"""The soundness tests can fail: with a planted fault in the walker or its inputs, a check on random worlds notices.

Each fault is planted, the same checks as in tests/property run over a fixed set of worlds, and at least one of them
must complain: a reliable trace that is not the truth, an ordinary stack that is refused, or a damaged stack that is
accepted although an independent judge sees that it is none.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from checker import Checker
from surefoot.metadata.rules import FpRule, RaRule
from surefoot.unwind import context as context_module
from surefoot.unwind import records, rewritten, steps, trampolines, verify, walker
from surefoot.unwind.callsites import Call
from surefoot.unwind.code import CodeMap, Functions
from surefoot.unwind.context import Context
from surefoot.unwind.regions import FunctionClass
from surefoot.unwind.state import Layout
from world import Program, framed, lr_only, maybe, nops, without_rules
from world_corrupt import corrupt
from world_kernel import Task, World, frames_of, kernel, random_functions, random_task

Patch = pytest.MonkeyPatch


def worlds(count: int = 8) -> list[tuple[Program, list[Task]]]:
    """Worlds with some assembly, intact."""
    result = []
    for seed in range(count):
        rng = random.Random(seed)
        functions = random_functions(rng)
        functions[4] = without_rules(lr_only("f4", [*nops(1), *maybe("f0")]))
        functions[5] = without_rules(framed("f5", maybe("f1")))
        program = kernel(functions)
        result.append((program, [random_task(program, rng, slot) for slot in range(12)]))
    return result


Change = Callable[[Program, CodeMap, Task], tuple[CodeMap, Task]]


def faults(change: Change | None = None) -> tuple[int, int, int]:
    """Count wrong reliable traces, intact reliable ones, and damaged ones that the judge rejects."""
    wrong = reliable = rejected = 0
    for program, tasks in worlds():
        code = program.code()
        judge = Checker(code)
        changed = [change(program, code, task) if change else (code, task) for task in tasks]
        traces = World(program, [task for _, task in changed], code=changed[0][0]).walk()
        for i, task in enumerate(tasks):
            if traces.reliable[i]:
                reliable += 1
                wrong += frames_of(traces, i) != task.truth
        rng = random.Random(99)
        damaged = [corrupt(task, rng) for _, task in changed for _ in range(4)]
        traces = World(program, damaged, code=changed[0][0]).walk()
        for i, task in enumerate(damaged):
            frames = frames_of(traces, i)
            rejected += bool(traces.reliable[i] and frames != task.truth and not judge.is_trace(frames))
    return wrong, reliable, rejected


BASE: dict[str, tuple[int, int, int]] = {}


def base() -> tuple[int, int, int]:
    """The counts without a fault."""
    if not BASE:
        BASE["counts"] = faults()
    return BASE["counts"]


def noticed(change: Change | None = None) -> bool:
    """Whether a fault shows in any count."""
    wrong, reliable, rejected = faults(change)
    return wrong > 0 or rejected > 0 or reliable < base()[1]


def test_without_a_fault_nothing_is_noticed() -> None:
    """The baseline: no wrong trace, none rejected, most stacks reliable."""
    wrong, reliable, rejected = base()
    assert (wrong, rejected) == (0, 0)
    assert reliable > 50


def rule_offset(_: Program, code: CodeMap, task: Task) -> tuple[CodeMap, Task]:
    """Every SP-based CFA 16 bytes too high."""
    rules = code.rules
    return replace(code, rules=replace(rules, cfa_off=(rules.cfa_off + 16).astype(np.int32))), task


def rules_say_in_lr(_: Program, code: CodeMap, task: Task) -> tuple[CodeMap, Task]:
    """The prologue forgotten: every return address in LR."""
    rules = code.rules
    in_lr = np.full_like(rules.ra_rule, RaRule.IN_LR)
    kept = np.full_like(rules.fp_rule, FpRule.UNCHANGED)
    return replace(
        code, rules=replace(rules, ra_rule=in_lr, fp_rule=kept, cfa_off=np.zeros_like(rules.cfa_off))
    ), task


def dropped_rules(_: Program, code: CodeMap, task: Task) -> tuple[CodeMap, Task]:
    """Every third row missing: its predecessor is taken to hold."""
    return replace(code, rules=code.rules.take_rows(np.flatnonzero(np.arange(len(code.rules)) % 3 != 1))), task


def function_missing(_: Program, code: CodeMap, task: Task) -> tuple[CodeMap, Task]:
    """Symbols of every other function lost."""
    keep = np.arange(code.functions.start.size) % 2 == 0
    names = [name for name, kept in zip(code.functions.names, keep.tolist(), strict=True) if kept]
    old = code.functions
    return replace(code, functions=Functions(old.start[keep], old.end[keep], old.kind[keep], names)), task


def bookkeeping_shifted(_: Program, code: CodeMap, task: Task) -> tuple[CodeMap, Task]:
    """The newest function-graph entry lost."""
    return code, replace(task, fgraph=task.fgraph[1:])


def stale_lr(_: Program, code: CodeMap, task: Task) -> tuple[CodeMap, Task]:
    """LR of running tasks that of a moment ago."""
    return code, replace(task, lr=task.truth[-1][0])


@pytest.mark.parametrize(
    "change", [rule_offset, rules_say_in_lr, dropped_rules, function_missing, bookkeeping_shifted, stale_lr]
)
def test_false_input_is_noticed(change: Change) -> None:
    """Metadata, symbols or bookkeeping that are not true change what the walker says; no trace becomes wrong."""
    wrong, reliable, _ = faults(change)
    assert reliable < base()[1] or wrong


def no_call_check(patch: Patch) -> None:
    """Every return address taken to follow a fitting call."""
    patch.setattr(verify, "check_calls", lambda _, ra, __: np.full(ra.shape, Call.DIRECT, dtype=np.uint8))


def no_record_check(patch: Patch) -> None:
    """A rule believed without a look at the frame record, or at where it leads."""
    patch.setattr(steps, "_agree", lambda _ctx, _cur, _at, by_rule, **_: by_rule)
    patch.setattr(verify, "check_calls", lambda _, ra, __: np.full(ra.shape, Call.DIRECT, dtype=np.uint8))


def boundary_by_record(patch: Patch) -> None:
    """Exception boundaries crossed along the frame record, as by the kernel's plain walk."""

    def step(ctx: Context, cur: Any, at: Any, _: Any) -> Any:
        return records.read_record(ctx, cur, at, cur.fp[at])

    patch.setattr(steps, "_boundary_step", step)


def boundary_always_lr(patch: Patch) -> None:
    """LR taken for live at every boundary."""
    true_step = steps._boundary_step

    def step(ctx: Context, cur: Any, at: Any, row: Any) -> Any:
        result = true_step(ctx, cur, at, row)
        result.pc = cur.lr[at].copy()
        return result

    patch.setattr(steps, "_boundary_step", step)


def handler_by_record(patch: Patch) -> None:
    """return_to_handler left along the frame record: the hole of the kernel's walk."""

    def window(ctx: Context, cur: Any, at: Any) -> Any:
        step = records.read_record(ctx, cur, at, cur.fp[at])
        return step, np.full(at.size, -1, dtype=np.int64)

    patch.setattr(steps, "handler_window", window)
    patch.setattr(walker, "leftover", lambda _ctx, _cur, at: (np.zeros(at.size, dtype=bool),) * 2)


def fgraph_entry_skipped(patch: Patch) -> None:
    """The search begins one entry too far."""
    true_match = trampolines.match_entries

    def match(book: Any, task: Any, cursor: Any, *rest: Any, **options: Any) -> Any:
        return true_match(book, task, cursor + 1, *rest, **options)

    patch.setattr(rewritten, "match_entries", match)
    patch.setattr(walker, "leftover", lambda _ctx, _cur, at: (np.zeros(at.size, dtype=bool),) * 2)


def bare_code_trusted(patch: Patch) -> None:
    """Code without rules followed by its record, whoever called."""
    patch.setattr(steps, "makes_record", lambda _, funcs: np.ones(funcs.shape, dtype=bool))
    no_call_check(patch)


def everything_ordinary(patch: Patch) -> None:
    """Trampolines and entry code treated like compiled code."""

    def classify(code: CodeMap) -> Any:
        return np.full(code.functions.start.shape, FunctionClass.NORMAL, dtype=np.uint8)

    patch.setattr(context_module, "classify", classify)


def no_strip(patch: Patch) -> None:
    """Authentication codes left in."""
    patch.setattr(Layout, "strip", lambda _, addrs: addrs)


@pytest.mark.parametrize(
    "plant",
    [
        no_call_check,
        no_record_check,
        boundary_by_record,
        boundary_always_lr,
        handler_by_record,
        fgraph_entry_skipped,
        bare_code_trusted,
        everything_ordinary,
        no_strip,
    ],
)
def test_planted_fault_is_noticed(plant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    """Each piece of the walker's logic is missed by the checks when it is gone."""
    base()
    plant(monkeypatch)
    assert noticed()


@pytest.mark.parametrize("plant", [boundary_by_record, handler_by_record, bare_code_trusted])
def test_fault_against_the_law_is_caught_as_a_wrong_trace(plant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    """Where a fault lets the walk omit live functions, some reliable trace differs from the truth."""
    base()
    plant(monkeypatch)
    no_call_check(monkeypatch)
    assert faults()[0] > 0
