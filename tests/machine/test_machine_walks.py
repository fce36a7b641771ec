"""The walker on the emulated machine, against what the CPU really did."""

from __future__ import annotations

import numpy as np
import pytest

from surefoot.dtypes import Mask
from surefoot.machine.loader import Variant, load_kernel
from surefoot.machine.recorder import Boundaries, Recorder, record, start_machine
from surefoot.unwind.reasons import Reason
from surefoot.unwind.state import Source
from surefoot.unwind.trace import Traces
from surefoot.unwind.walker import walk

_EXCUSED = {Reason.ENTRY_CODE, Reason.SWITCHING, Reason.ASSEMBLY, Reason.SP_OUTSIDE}


def _exact(batch: Boundaries, traces: Traces) -> Mask:
    """(n,) bool: which traces are the truth, frame by frame."""
    first, addr, exact = batch.expected()
    result = np.diff(first) == np.diff(traces.first)
    for i in np.flatnonzero(result).tolist():
        ours = slice(int(traces.first[i]), int(traces.first[i + 1]))
        true = slice(int(first[i]), int(first[i + 1]))
        same = np.array_equal(traces.pc[ours], addr[true])
        result[i] = same and np.array_equal(traces.source[ours] == Source.REGS, exact[true])
    return np.asarray(result)


def _walked(variant: Variant, tracing: int, count: int) -> tuple[Recorder, list[tuple[Boundaries, Traces]]]:
    kernel = load_kernel(variant)
    recorder = Recorder(kernel)
    machine = start_machine(kernel, recorder, tracing=tracing)
    batches = record(machine, recorder, boundaries=count, batch=10_000, tracing=tracing != 0)
    return recorder, [(batch, walk(batch.code, batch.stacks, batch.tasks, batch.layout)) for batch in batches]


@pytest.mark.parametrize(
    ("variant", "tracing"),
    [
        (Variant.SFRAME, 0),
        (Variant.CFI, 0),
        (Variant.SFRAME, 1),
        (Variant.SFRAME, 2),
        (Variant.CFI, 3),
        (Variant.SCS, 0),
    ],
)
def test_reliable_means_complete(variant: Variant, tracing: int) -> None:
    """Before every instruction of a load, a trace that is called reliable is the truth, frame by frame."""
    recorder, walked = _walked(variant, tracing, 8_000)
    reliable = sum(int(np.count_nonzero(traces.reliable)) for _, traces in walked)
    for batch, traces in walked:
        assert not np.any(traces.reliable & ~_exact(batch, traces))
    assert reliable > 800
    assert len(recorder.addresses) > 400


def test_ordinary_code_is_never_refused() -> None:
    """Without tracing, what is refused is entry code, a task switch, or assembly that nobody annotated."""
    kernel = load_kernel()
    bare = {kernel.symbol(name) for name in ("asm_sum_bare", "asm_norecord_bare", "asm_trampoline")}
    _, walked = _walked(Variant.SFRAME, 0, 15_000)
    for _, traces in walked:
        for i in np.flatnonzero(~traces.reliable).tolist():
            reason = Reason(int(traces.reason[i]))
            frame = int(traces.first[i] + traces.reason_frame[i])
            functions = traces.function[frame - 1 : frame + 2]
            starts = set(kernel.functions.start[functions[functions >= 0]].tolist())
            assert reason in _EXCUSED or starts & bare, (reason, i)


def test_a_batch_is_what_single_captures_are() -> None:
    """A boundary taken while running gives the trace that the stopped machine gives there."""
    kernel = load_kernel()
    recorder = Recorder(kernel, every=97)
    machine = start_machine(kernel, recorder)
    other = start_machine(kernel, Recorder(kernel))
    for batch in record(machine, recorder, boundaries=24, batch=1, tracing=False):
        other.board.run(int(batch.count[0]) - 1 - other.board.count)
        instant = other.instant(batch.code)
        (row,) = np.flatnonzero(instant.info.on_cpu).tolist()
        assert int(instant.tasks.pc[row]) == int(batch.tasks.pc[0])
        ours = walk(batch.code, batch.stacks, batch.tasks, batch.layout)
        whole = walk(instant.code, instant.stacks, instant.tasks.take(np.array([row])), instant.layout)
        assert ours.pc.tolist() == whole.pc.tolist()
        assert ours.reason.tolist() == whole.reason.tolist()


def test_injected_interrupts_leave_no_trace() -> None:
    """Looking from inside changes nothing outside, and what is reliable there is the truth."""
    kernel = load_kernel()
    runs = []
    for inside in (0, 7):
        recorder = Recorder(kernel)
        machine = start_machine(kernel, recorder, tracing=3)
        (batch,) = record(machine, recorder, boundaries=3_000, batch=3_000, tracing=True, inside=inside)
        runs.append((batch, recorder.take_aside(batch.code)))
    (plain, nothing), (batch, aside) = runs
    assert len(nothing) == 0
    for name in ("pc", "sp", "fp", "lr"):
        assert getattr(plain.tasks, name).tolist() == getattr(batch.tasks, name).tolist()
    assert plain.count.tolist() == batch.count.tolist()
    assert len(aside) > 3_000 / 7 / 4
    assert set(aside.tasks.pc.tolist()) == {kernel.symbol("injected_interrupt")}
    traces = walk(aside.code, aside.stacks, aside.tasks, aside.layout)
    assert not np.any(traces.reliable & ~_exact(aside, traces))
    assert np.count_nonzero(traces.reliable) > len(aside) / 2


def test_redirected_functions_are_walked_rightly() -> None:
    """With the handler of live patching on, new functions run in place of the old, and reliable means complete."""
    kernel = load_kernel()
    recorder = Recorder(kernel)
    machine = start_machine(kernel, recorder, tracing=1, settle=3_000)
    for row, name in enumerate(("pair_f", "pair_g")):
        entry = kernel.symbol("klp_funcs") + row * kernel["klp_func_size"]
        for field, value in (("old", kernel.symbol(name)), ("new", kernel.symbol(f"{name}_new")), ("mode", 3)):
            machine.board.write_u64(entry + kernel[f"klp_func_{field}"], value)
    for tracing in (1, 0):  # the kernel writes its sites anew, and finds the functions in its table
        machine.control("tracing", tracing)
        machine.board.run(100_000)
        assert machine.control("tracing_now") == tracing
    (batch,) = record(machine, recorder, boundaries=15_000, batch=15_000, tracing=False)
    low, high = kernel.span("pair_f_new")
    assert any(low <= addr < high for addr in recorder.addresses)
    traces = walk(batch.code, batch.stacks, batch.tasks, batch.layout)
    assert not np.any(traces.reliable & ~_exact(batch, traces))
