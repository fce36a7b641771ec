"""Layer 9: most of `surefoot demo`: the emulated machine, its stacks, and one interrupt looked at closely.

Invariant: nothing outside this process is touched; the same seed prints the same text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final

import numpy as np

from surefoot.cli.demo_patch import patch_show
from surefoot.machine.contenders import Answer, Contender, answer
from surefoot.machine.loader import KernelFile, load_kernel
from surefoot.machine.recorder import Boundaries, Recorder, record, start_machine
from surefoot.machine.target import Instant, Machine
from surefoot.machine.windows import Window, Windows
from surefoot.report.stack_build import build_report
from surefoot.report.stack_json import stack_json
from surefoot.report.stack_text import traces_text
from surefoot.targets.capture import Capture, TaskList
from surefoot.unwind.context import Mode
from surefoot.unwind.trace import Evidence, Traces
from surefoot.unwind.walker import walk

if TYPE_CHECKING:
    from surefoot.report.style import Style

__all__ = ["machine_json", "machine_show"]

Step = Callable[[str], AbstractContextManager[None]]

_SEARCH: Final = 4_000
_TRIES: Final = 400
_TRACES: Final = 2
"""Stacks shown in each part."""
_MIN_FRAMES: Final = 8
_CANDIDATES: Final = 12_000
_FUNCTIONS: Final = ("dynamic_frame", "interpret", "sort", "many_registers", "indirect")
"""Whose prologues make a picture: their callers are several functions deep in the kernel."""
_CLOSE: Final = 4
"""Frames from the innermost on that are compared in print."""


def machine_show(seed: int, style: Style, step: Step) -> Iterator[str]:
    """Give the text of the demonstration, part by part.

    Args:
        seed: of the machine's run.
        style: how to print.
        step: announces what is being done.
    """
    kernel = load_kernel()
    with step("booting the emulated machine, and proving its unwind rules"):
        kernel.proof.verdict(np.zeros(0, dtype=np.uint64))
        machine = start_machine(kernel, Recorder(kernel), seed=seed)
        instant, rows = _search(machine, _has_boundary)
    proven = int(np.count_nonzero(kernel.proof.verdicts == 3))
    yield _heading(
        style, f"1. Stacks that cross an exception ({proven} of {kernel.proof.verdicts.size} rules proved)"
    )
    yield _stacks(instant, rows, style)
    with step("switching function-graph tracing on, which takes return addresses off the stacks"):
        machine = start_machine(kernel, Recorder(kernel), seed=seed, tracing=1)
        instant, rows = _search(machine, _has_recovered)
    yield _heading(style, "2. Return addresses that tracing took away, recovered (F)")
    yield _stacks(instant, rows, style)
    with step("interrupting functions in the middle of their prologues"):
        batch, at = _prologue(kernel, seed)
    yield _heading(style, "3. An interrupt in the middle of a prologue: three answers and the truth")
    yield from _compare(kernel, batch, at, style)
    with step("patching a system call with a hole while the load runs, and taking the patch back"):
        lines = list(patch_show(kernel, seed, style))
    yield _heading(style, "4. A system call is patched under load: who goes over to the new code when, and how")
    yield from lines


def machine_json(seed: int) -> Mapping[str, object]:
    """Give the machine's tasks at the instant that the demonstration begins with, as `surefoot stack --json` does."""
    kernel = load_kernel()
    machine = start_machine(kernel, Recorder(kernel), seed=seed)
    capture = _capture(_search(machine, _has_boundary)[0])
    parts = capture.code, capture.stacks, capture.tasks, capture.layout
    walks = {mode: walk(*parts, mode=mode) for mode in (Mode.FP, Mode.HYBRID)}
    return stack_json(build_report(capture, walks, Mode.HYBRID))


def _heading(style: Style, text: str) -> str:
    return f"\n{style.strong}{text}{style.off}\n\n"


def _search(machine: Machine, wanted: Callable[[Instant, Traces], list[int]]) -> tuple[Instant, list[int]]:
    """Let the machine run until some of its tasks make a picture."""
    code = machine.code()
    best: tuple[Instant, list[int]] | None = None
    for _ in range(_TRIES):
        machine.board.run(_SEARCH)
        instant = machine.instant(code)
        rows = wanted(instant, walk(code, instant.stacks, instant.tasks, instant.layout))
        if best is None or len(rows) > len(best[1]):
            best = instant, rows
        if len(rows) >= _TRACES:
            break
    return (best[0], best[1][:_TRACES]) if best is not None else (machine.instant(code), [0])


def _has_boundary(instant: Instant, traces: Traces) -> list[int]:
    """Find reliable stacks of preempted tasks, interrupted where LR still held the caller first."""
    del instant
    rows = [i for i in range(len(traces)) if traces.reliable[i] and _any(traces, i, Evidence.METADATA)]
    rows = [i for i in rows if traces.first[i + 1] - traces.first[i] >= _MIN_FRAMES]
    return sorted(rows, key=lambda i: not _any(traces, i, Evidence.LR))


def _has_recovered(instant: Instant, traces: Traces) -> list[int]:
    """Find reliable stacks with several recovered addresses, one of them of a task caught in the trampoline."""
    rows = [i for i in range(len(traces)) if traces.reliable[i] and _count(traces, i, Evidence.FGRAPH) > 1]
    rows.sort(key=lambda i: not _returns(instant, traces, i))
    return rows if rows and _returns(instant, traces, rows[0]) else rows[:1]


def _returns(instant: Instant, traces: Traces, i: int) -> bool:
    """Tell whether a task was switched out in the trampoline that traced functions return through."""
    functions = traces.function[traces.first[i] : traces.first[i + 1]].tolist()
    return any(instant.code.functions.names[row] == "return_to_handler" for row in functions if row >= 0)


def _count(traces: Traces, i: int, mark: Evidence) -> int:
    part = traces.evidence[traces.first[i] : traces.first[i + 1]]
    return int(np.count_nonzero(part & np.uint16(mark)))


def _any(traces: Traces, i: int, mark: Evidence) -> bool:
    return _count(traces, i, mark) > 0


def _stacks(instant: Instant, rows: list[int], style: Style) -> str:
    """Print the chosen stacks as `surefoot stack` does."""
    capture = _capture(instant).take(rows)
    parts = capture.code, capture.stacks, capture.tasks, capture.layout
    walks = {mode: walk(*parts, mode=mode) for mode in (Mode.FP, Mode.HYBRID)}
    return traces_text(build_report(capture, walks, Mode.HYBRID), style)


def _capture(instant: Instant) -> Capture:
    """Give the machine's instant as what reports are made of."""
    info = instant.info
    count = info.pid.size
    return Capture(
        name=instant.name,
        release=instant.release,
        build_id=instant.build_id,
        info=TaskList(
            pid=info.pid,
            tgid=info.pid,
            comm=info.comm,
            state=info.state,
            cpu=np.zeros(count, dtype=np.int32),
            on_cpu=info.on_cpu,
            kthread=info.kthread,
            switches=info.switches,
        ),
        tasks=instant.tasks,
        stacks=instant.stacks,
        layout=instant.layout,
        code=instant.code,
        notes=instant.notes,
    )


def _prologue(kernel: KernelFile, seed: int) -> tuple[Boundaries, list[int]]:
    """Find an instruction of a prologue where FP-first misses a caller, and one where LR-first invents one."""
    recorder = Recorder(kernel)
    machine = start_machine(kernel, recorder, seed=seed)
    (batch,) = record(machine, recorder, boundaries=_CANDIDATES, batch=_CANDIDATES, tracing=False)
    first, addr, _ = batch.expected()
    none = np.zeros(len(batch), dtype=np.bool_)
    window = Windows.of(kernel).lookup(batch.tasks.pc, none)
    function = kernel.functions.lookup(batch.tasks.pc, none)
    shown = np.array([kernel.functions.names[i] in _FUNCTIONS for i in function.tolist()])
    lr_is_caller = batch.layout.strip(batch.tasks.lr) == addr[first[:-1] + 1]
    early = np.flatnonzero(shown & (window == Window.PROLOGUE) & lr_is_caller)
    lr = batch.layout.strip(batch.tasks.lr).tolist()
    late = np.flatnonzero(shown & (window == Window.BODY) & ~lr_is_caller)
    late = np.array([i for i in late.tolist() if lr[i] not in addr[first[i] : first[i + 1]]], dtype=np.int64)
    late = late[[kernel.functions.lookup(batch.tasks.lr[[i]], none[:1])[0] != function[i] for i in late.tolist()]]
    # A function that calls itself makes a poor picture: the same name twice.
    early = early[kernel.functions.lookup(addr[first[early] + 1], ~none[: early.size]) != function[early]]
    return batch, [int(found[0]) for found in (early, late) if found.size]


def _compare(kernel: KernelFile, batch: Boundaries, at: list[int], style: Style) -> Iterator[str]:
    """Print the innermost frames of every answer beside the truth."""
    first, addr, exact = batch.expected()
    answers: dict[str, Answer] = {
        name: answer(contender, batch)
        for name, contender in (
            ("FP first", Contender.FP_FIRST),
            ("LR first", Contender.LR_FIRST),
            ("hybrid", Contender.HYBRID),
        )
    }
    for i in at:
        truth = _names(kernel, addr[first[i] : first[i + 1]], exact[first[i] : first[i + 1]])
        yield f"interrupted at {style.strong}{truth[0]}{style.off}, after {int(batch.count[i])} instructions\n"
        for name, said in answers.items():
            part = slice(int(said.first[i]), int(said.first[i + 1]))
            names = _names(kernel, said.pc[part], said.exact[part])
            verdict, color = _verdict(names, truth, claims=bool(said.claims[i]), style=style)
            yield f"  {name:<9} {_chain(names)}  {color}{verdict}{style.off}\n"
        yield f"  {'truth':<9} {_chain(truth)}\n\n"


def _names(kernel: KernelFile, addr: np.ndarray[tuple[int], np.dtype[np.uint64]], exact: object) -> list[str]:
    """Name addresses."""
    flags = np.asarray(exact, dtype=np.bool_)
    rows = kernel.functions.lookup(addr, ~flags).tolist()
    found = zip(addr.tolist(), rows, strict=True)
    starts = kernel.functions.start
    return [
        f"{kernel.functions.names[row]}+{at - int(starts[row]):#x}" if row >= 0 else f"{at:#x}" for at, row in found
    ]


def _chain(names: list[str]) -> str:
    """Give the innermost frames on one line."""
    shown = names[:_CLOSE]
    return " < ".join(shown) + (f" < ({len(names) - _CLOSE} more)" if len(names) > _CLOSE else "")


def _verdict(names: list[str], truth: list[str], *, claims: bool, style: Style) -> tuple[str, str]:
    """Say what is wrong with an answer."""
    if not claims:
        return "refused", style.mark
    if names == truth:
        return "right", style.good
    missing = [name for name in truth if name not in names]
    if missing:
        return f"MISSES {missing[0]}", style.bad
    invented = [name for name in names if name not in truth]
    return f"INVENTS {invented[0]}" if invented else "WRONG: a frame twice", style.bad
