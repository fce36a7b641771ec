"""Sabotage: one fault at a time in the walker, its inputs, the rules or the assembly; the campaign catches it.

Caught means that the hybrid walk, otherwise right everywhere, is wrong somewhere, owes an answer somewhere, or gives
fewer exact traces than it did; or that the machine itself breaks down.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from surefoot.machine.board import Board, MachineFault
from surefoot.machine.campaign import Job, Outcome, judge
from surefoot.machine.contenders import Contender
from surefoot.machine.loader import Variant, load_kernel
from surefoot.machine.recorder import Boundaries, Recorder, record
from surefoot.machine.target import Machine
from surefoot.machine.windows import Windows
from surefoot.metadata.rules import CfaBase, FpRule, RaRule, RuleTable
from surefoot.proof.verdicts import NO_PROOFS
from surefoot.unwind import context, cursor, records, rewritten, steps, tracer, walker
from surefoot.unwind.code import CodeMap, Functions
from surefoot.unwind.reasons import Reason
from surefoot.unwind.state import Bookkeeping, Layout, Stacks

KERNEL = load_kernel()
WINDOWS = Windows.of(KERNEL)
COUNT = 3_000


def _record(tracing: int, patch: Callable[[Board], None] = lambda _board: None) -> Boundaries:
    """Run the machine, its text patched before the first instruction."""
    recorder = Recorder(KERNEL, every=3)
    board = Board(KERNEL, seed=11, observer=recorder)
    patch(board)
    recorder.attach(board)
    machine = Machine(board)
    machine.control("tracing", tracing)
    board.run(40_000)
    (batch,) = record(machine, recorder, boundaries=COUNT, batch=COUNT, tracing=tracing != 0)
    return batch


@pytest.fixture(scope="module")
def batches() -> dict[int, Boundaries]:
    """Boundaries with every return address in its place, with kretprobes, and with both tracers on."""
    return {tracing: _record(tracing) for tracing in (0, 2, 3)}


def _judge(batch: Boundaries) -> tuple[int, int, int]:
    """Give wrong verdicts, answers owed, and exact traces of the hybrid walk."""
    outcome = Outcome()
    judge(batch, [Contender.HYBRID], WINDOWS, outcome, view="outside", job=Job(Variant.SFRAME, 0, 0, COUNT, 0))
    total = outcome.total(Contender.HYBRID)
    return total["wrong_reliable"], outcome.unexcused, total["exact"]


@pytest.fixture(scope="module")
def sound(batches: dict[int, Boundaries]) -> dict[int, tuple[int, int, int]]:
    """What the sound walk gives: nothing wrong, nothing owed."""
    return {tracing: _judge(batch) for tracing, batch in batches.items()}


def _caught(found: tuple[int, int, int], sound: tuple[int, int, int]) -> bool:
    return found[0] > 0 or found[1] > sound[1] or found[2] < sound[2]


def test_the_sound_walk_is_clean(sound: dict[int, tuple[int, int, int]]) -> None:
    """Without a fault nothing is wrong and no answer is owed."""
    for wrong, owed, exact in sound.values():
        assert wrong == 0
        assert owed <= 0.005 * COUNT
        assert exact > 300


# --- the rule table: (name, fault), without proofs, which would refute most of them before any walk ---


def _column(name: str, change: Callable[[RuleTable], Any]) -> Callable[[RuleTable], RuleTable]:
    return lambda rules: replace(rules, **{name: change(rules)})


def _is(name: str, value: int) -> Callable[[RuleTable], Any]:
    return lambda rules: getattr(rules, name) == value


def _shifted(by: int) -> Callable[[RuleTable], RuleTable]:
    def shift(rules: RuleTable) -> RuleTable:
        inner = np.append(False, rules.func[1:] == rules.func[:-1])
        return replace(rules, start=np.where(inner, rules.start + np.uint64(by % 2**64), rules.start))

    return shift


saved, in_lr = _is("ra_rule", RaRule.AT_CFA), _is("ra_rule", RaRule.IN_LR)
RULES: dict[str, Callable[[RuleTable], RuleTable]] = {
    "CFA offset of saved rows": _column("cfa_off", lambda r: np.where(saved(r), r.cfa_off + 16, r.cfa_off)),
    "CFA offset of unsaved rows": _column("cfa_off", lambda r: np.where(in_lr(r), r.cfa_off + 16, r.cfa_off)),
    "return address one word down": _column("ra_off", lambda r: r.ra_off - 8),
    "return address one word up": _column("ra_off", lambda r: r.ra_off + 8),
    "frame pointer one word up": _column("fp_off", lambda r: r.fp_off + 8),
    "saved return address called live": _column("ra_rule", lambda r: np.full_like(r.ra_rule, RaRule.IN_LR)),
    "saved frame pointer called live": _column("fp_rule", lambda r: np.full_like(r.fp_rule, FpRule.UNCHANGED)),
    "CFA counted from x29": _column("cfa_base", lambda r: np.full_like(r.cfa_base, CfaBase.FP)),
    "rows one instruction late": _shifted(4),
    "rows one instruction early": _shifted(-4),
    "rows called undefined": _column("ra_rule", lambda r: np.where(in_lr(r), RaRule.UNDEFINED, r.ra_rule)),
}


@pytest.mark.parametrize("name", RULES)
def test_a_fault_in_the_rules_is_caught(
    name: str, batches: dict[int, Boundaries], sound: dict[int, tuple[int, int, int]]
) -> None:
    """Rules that are wrong in one way give wrong or missing answers."""
    batch = batches[0]
    code = replace(batch.code, rules=RULES[name](batch.code.rules), proofs=NO_PROOFS)
    assert _caught(_judge(replace(batch, code=code)), sound[0])


# --- what the walker is given ---


def _books(change: Callable[[Bookkeeping], Bookkeeping], which: str) -> Callable[[Boundaries], Boundaries]:
    def fault(b: Boundaries) -> Boundaries:
        if which == "fgraph":
            return replace(b, tasks=replace(b.tasks, fgraph=change(b.tasks.fgraph)))
        return replace(b, tasks=replace(b.tasks, kretprobe=change(b.tasks.kretprobe)))

    return fault


def _layout(**values: int) -> Callable[[Boundaries], Boundaries]:
    return lambda b: replace(b, layout=replace(b.layout, **values))


def _labels(*names: str) -> Callable[[Boundaries], Boundaries]:
    def drop(b: Boundaries) -> Boundaries:
        labels = {name: addr for name, addr in b.code.labels.items() if name not in names}
        return replace(b, code=replace(b.code, labels=labels))

    return drop


def _empty(book: Bookkeeping) -> Bookkeeping:
    return Bookkeeping.none(book.first.size - 1)


INPUTS: dict[str, tuple[int, Callable[[Boundaries], Boundaries]]] = {
    "stale LR": (0, lambda b: replace(b, tasks=replace(b.tasks, lr=np.roll(b.tasks.lr, 333)))),
    "stale x29": (0, lambda b: replace(b, tasks=replace(b.tasks, fp=np.roll(b.tasks.fp, 333)))),
    "stack pointer off by a record": (0, lambda b: replace(b, tasks=replace(b.tasks, sp=b.tasks.sp + np.uint64(16)))),
    "final record elsewhere": (
        0,
        lambda b: replace(b, tasks=replace(b.tasks, final_record=b.tasks.final_record + np.uint64(8))),
    ),
    "codes left on pointers": (0, _layout(pac_mask=0)),
    "saved pc one word off": (0, _layout(pt_regs_pc=248)),
    "saved lr one word off": (0, _layout(pt_regs_lr=232)),
    "saved sp one word off": (0, _layout(pt_regs_sp=240)),
    "metadata record one word off": (0, _layout(pt_regs_stackframe=288)),
    "tracer's registers of another size": (3, _layout(ftrace_regs_size=96)),
    "lost trampoline entries": (3, _books(_empty, "fgraph")),
    "lost probe instances": (3, _books(_empty, "kretprobe")),
    "entries of another frame": (3, _books(lambda k: replace(k, key=k.key + np.uint64(16)), "fgraph")),
    "instances of another frame": (3, _books(lambda k: replace(k, key=k.key + np.uint64(16)), "kretprobe")),
    "entries of another function": (3, _books(lambda k: replace(k, func=np.roll(k.func, 1)), "fgraph")),
    "no return_to_handler": (3, _labels("return_to_handler")),
    "no kretprobe trampoline": (3, _labels("__kretprobe_trampoline")),
    "no call_on_irq_stack": (0, _labels("call_on_irq_stack")),
    "no entry text": (0, _labels("__entry_text_start")),
    "no ret_from_fork": (0, _labels("ret_from_fork")),
}


@pytest.mark.parametrize("name", INPUTS)
def test_a_fault_in_the_inputs_is_caught(
    name: str, batches: dict[int, Boundaries], sound: dict[int, tuple[int, int, int]]
) -> None:
    """A register, list, offset or label that is wrong gives wrong or missing answers."""
    tracing, fault = INPUTS[name]
    assert _caught(_judge(fault(batches[tracing])), sound[tracing])


# --- the walker itself: (tracing, module or class, attribute, what replaces it) ---


def _skip_record(ctx: Any, cur: Any, at: Any, fp: Any) -> Any:
    step = records.read_record(ctx, cur, at, fp)
    return records.read_record(ctx, cur, at, np.where(step.reason == 0, step.fp, fp))


def _exact_lookup(self: Functions, addr: Any, is_ra: Any) -> Any:
    return _functions_lookup(self, addr, np.zeros_like(is_ra))


def _early_lookup(self: RuleTable, addr: Any, is_ra: Any) -> Any:
    return _rules_lookup(self, addr, np.ones_like(is_ra))


def _late_lookup(self: RuleTable, addr: Any, is_ra: Any) -> Any:
    return _rules_lookup(self, addr + np.uint64(4), is_ra)


def _stack_word_off(self: Stacks, stack: Any, addr: Any) -> Any:
    return _stacks_read(self, stack, addr + np.uint64(8))


def _outer_record(ctx: Any, cur: Any, at: Any) -> Any:
    return records.read_record(ctx, cur, at, cur.fp[at] + np.uint64(16))


def _strict_leftover(ctx: Any, cur: Any, at: Any) -> Any:
    cur.spare[:] = -1
    return _leftover(ctx, cur, at)


def _nothing_popped(_ctx: Any, cur: Any, at: Any) -> Any:
    return cur.sp[at], np.zeros(at.size, dtype=bool)


def _here_only(ctx: Any, step: Any) -> None:
    elsewhere = (step.fp < ctx.stacks.low[step.stack]) | (step.fp >= ctx.stacks.high[step.stack])
    step.fail(elsewhere, Reason.RECORD_BELOW_SP, step.fp)


_leftover = rewritten.leftover
_functions_lookup, _rules_lookup, _stacks_read = Functions.lookup, RuleTable.lookup, Stacks.read
WALKER: dict[str, tuple[int, Any, str, Any]] = {
    "every second record": (0, steps, "read_record", _skip_record),
    "functions looked up behind the call": (0, Functions, "lookup", _exact_lookup),
    "boundaries looked up one byte early": (0, RuleTable, "lookup", _early_lookup),
    "rules looked up one instruction late": (0, RuleTable, "lookup", _late_lookup),
    "memory read one word up": (0, Stacks, "read", _stack_word_off),
    "boundaries taken for calls": (0, context.Context, "is_exact", lambda _s, pc, _k: np.zeros(pc.shape, dtype=bool)),
    "no change of stacks": (0, steps, "ALLOWED", np.zeros_like(cursor.ALLOWED)),
    "authentication codes kept": (0, Layout, "strip", lambda _self, addrs: addrs),
    "nothing recovered": (3, steps, "recover", lambda *_words: None),
    "tracers left by the outer record": (3, steps, "leave_tracer", _outer_record),
    "own entries unclaimed": (3, tracer, "_claim", lambda *_words: None),
    "half-written entries not told": (3, walker, "leftover", _strict_leftover),
    "addresses read before they are written": (3, rewritten, "_has_key", lambda _c, entry, *_: entry < 0),
    "addresses in transit not read": (3, rewritten, "_popped", _nothing_popped),
    "parents on this stack only": (3, rewritten, "_place_parent", _here_only),
    "instances of returned functions kept": (2, steps, "pass_returned", lambda *_words: None),
    "entries used again": (3, rewritten, "_traced_function", lambda _c, m: np.full(m.entry.shape, -1)),
}


@pytest.mark.parametrize("name", WALKER)
def test_a_fault_in_the_walker_is_caught(
    name: str,
    batches: dict[int, Boundaries],
    sound: dict[int, tuple[int, int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A walker with one wrong turn gives wrong or missing answers."""
    tracing, where, what, instead = WALKER[name]
    batch = batches[tracing]
    if where is RuleTable:  # proofs look their rules up in the same way
        batch = replace(batch, code=replace(batch.code, proofs=NO_PROOFS))
    monkeypatch.setattr(where, what, instead)
    assert _caught(_judge(batch), sound[tracing])


# --- the kernel's assembly: (function, word as compiled, word instead) ---

_NOP = 0xD503_201F
ASSEMBLY: dict[str, tuple[int, str, int, int]] = {
    "call_on_irq_stack does not link its record": (0, "call_on_irq_stack", 0x9100_03FD, _NOP),
    "the interrupt's registers are marked as the stack's end": (0, "el1h_64_irq", 0xD280_0040, 0xD280_0020),
    "the interrupt's registers name another sp": (0, "el1h_64_irq", 0x9105_03F5, 0x9104_C3F5),
    "the interrupt's record is not linked": (0, "el1h_64_irq", 0x9104_A3FD, _NOP),
    "asm_sum saves the wrong pair": (0, "asm_sum", 0xA9BF_7BFD, 0xA9BF_77FE),
}


@pytest.mark.parametrize("name", ASSEMBLY)
def test_a_fault_in_the_assembly_is_caught(name: str, sound: dict[int, tuple[int, int, int]]) -> None:
    """Assembly that breaks its word gives wrong or missing answers, or breaks the machine."""
    tracing, function, word, instead = ASSEMBLY[name]
    low, high = KERNEL.span(function)
    words = np.frombuffer(KERNEL.read(low, high - low), dtype="<u4").tolist()
    addr = low + 4 * words.index(word)

    def patch(board: Board) -> None:
        whole = board.read_u64(addr & ~7)
        shift = 8 * (addr & 4)
        board.write_u64(addr & ~7, whole & ~(0xFFFF_FFFF << shift) | instead << shift)

    try:
        batch = _record(tracing, patch)
    except (MachineFault, ValueError):
        return
    # What the patched kernel says of itself: its own words are the code.
    code: CodeMap = replace(batch.code, changed=np.zeros(0, dtype=np.uint64))
    assert _caught(_judge(replace(batch, code=code)), sound[tracing])
