"""Recorded stacks of a real kernel, walked again without it.

What is expected of them does not come from our walk: it is what the kernel's source says calls what, what the
kernel itself printed, or a count in the recording.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from surefoot.targets.capture import Capture
from surefoot.targets.snapshot import load_snapshot
from surefoot.unwind.consume import Trace, UnwindState, stack_walk
from surefoot.unwind.context import Mode
from surefoot.unwind.reasons import Reason
from surefoot.unwind.trace import Evidence

SNAPSHOTS = Path(__file__).parents[1] / "golden" / "snapshots"


def frames_of(capture: Capture, pid: int, mode: Mode) -> tuple[list[str], list[Evidence], Trace]:
    """Walk one recorded task; names, evidence and verdict."""
    names: list[str] = []
    evidence: list[Evidence] = []

    def consume(state: UnwindState) -> bool:
        names.append(state.symbol.name if state.symbol else hex(state.pc))
        evidence.append(state.evidence)
        return True

    verdict = stack_walk(consume, capture, capture.rows_of([pid])[0], mode=mode)
    return names, evidence, verdict


@pytest.fixture(scope="module")
def hole() -> Capture:
    return load_snapshot(SNAPSHOTS / "hole.npz")


# fs/open.c: vfs_open() calls do_dentry_open(); fs/seq_file.c: seq_read_iter() calls m->op->show, here s_show().
PARENTS = [(174, "do_dentry_open", "vfs_open"), (1998, "s_show", "seq_read_iter")]


@pytest.mark.parametrize(("pid", "parent", "above"), PARENTS)
def test_fp_calls_the_hole_reliable_and_omits_the_parent(hole: Capture, pid: int, parent: str, above: str) -> None:
    """The kernel's reliable walk goes from return_to_handler straight to the parent's caller."""
    names, _, verdict = frames_of(hole, pid, Mode.FP)
    assert verdict.reliable
    at = names.index("return_to_handler")
    assert names[at - 1] == "ftrace_return_to_handler"
    assert names[at + 1] == above
    assert parent not in names


@pytest.mark.parametrize(("pid", "parent", "above"), PARENTS)
def test_hybrid_shows_the_parent_from_the_return_stack(hole: Capture, pid: int, parent: str, above: str) -> None:
    """The function that the task returns into next is shown, with where it comes from, and then its caller."""
    names, evidence, verdict = frames_of(hole, pid, Mode.HYBRID)
    assert verdict.reliable
    at = names.index("return_to_handler")
    assert names[at + 1 : at + 3] == [parent, above]
    assert evidence[at + 1] & Evidence.FGRAPH
    assert not evidence[at + 1] & Evidence.RECORD  # no frame record names it
    assert names[-1] == "el0t_64_sync"


@pytest.mark.parametrize(("pid", "parent", "above"), PARENTS)
def test_without_the_return_stack_the_hole_is_refused(hole: Capture, pid: int, parent: str, above: str) -> None:
    """When the evidence is taken away, hybrid says that it does not know; it never falls back to the record."""
    del parent, above
    row = hole.rows_of([pid])[0]
    hole.tasks.fgraph.broken[row] = True
    try:
        _, _, verdict = frames_of(hole, pid, Mode.HYBRID)
    finally:
        hole.tasks.fgraph.broken[row] = False
    assert verdict.reason is Reason.FGRAPH_BROKEN


def test_traced_tasks_show_no_trampoline() -> None:
    """With function graph and kretprobes on, every rewritten address is recovered, and all entries are claimed."""
    capture = load_snapshot(SNAPSHOTS / "traced.npz")
    book = capture.tasks.fgraph
    claimed = 0
    for row, pid in enumerate(capture.info.pid.tolist()):
        names, evidence, verdict = frames_of(capture, pid, Mode.HYBRID)
        assert verdict.reliable, (pid, verdict)
        assert "__kretprobe_trampoline" not in names
        recovered = sum(bool(item & Evidence.FGRAPH) for item in evidence)
        # A frame entered by tail branches has several entries of one position; it is recovered once.
        positions = set(book.key[book.first[row] : book.first[row + 1]].tolist())
        assert recovered == len(positions)
        claimed += recovered
    assert claimed > 0


def test_boundaries_are_crossed_or_refused_by_name() -> None:
    """Fp refuses every interrupted task; hybrid crosses those under rules and names what stops it in the others."""
    capture = load_snapshot(SNAPSHOTS / "preempted.npz")
    refused = {}
    crossed = 0
    for pid in capture.info.pid.tolist():
        _, _, by_record = frames_of(capture, pid, Mode.FP)
        if by_record.reason is not Reason.EXCEPTION_BOUNDARY:
            continue
        _, _, verdict = frames_of(capture, pid, Mode.HYBRID)
        if verdict.reliable:
            crossed += 1
        else:
            refused[pid] = verdict.reason
    # 171 was stopped in the exception vectors, 1241 in copy_page(), which is assembly without metadata.
    assert refused == {171: Reason.ENTRY_CODE, 1241: Reason.NO_RULE_AT_BOUNDARY}
    assert crossed == 4


# /proc/168/stack as the guest printed it, without the frames of the scheduler, which it leaves out.
IN_A_TRACER = (
    "function_graph_enter_regs",
    "ftrace_graph_func",
    "ftrace_caller",
    "ksys_write",
    "__arm64_sys_write",
    "invoke_syscall",
    "el0_svc_common.constprop.0",
    "do_el0_svc",
    "el0_svc",
    "el0t_64_sync_handler",
    "el0t_64_sync",
)


def test_task_switched_out_in_a_tracer() -> None:
    """The walk goes through ftrace_caller and shows what the kernel itself shows, frame by frame."""
    capture = load_snapshot(SNAPSHOTS / "tracer.npz")
    names, evidence, verdict = frames_of(capture, 168, Mode.HYBRID)
    assert verdict.reliable
    assert tuple(names[3:]) == IN_A_TRACER
    assert evidence[names.index("ksys_write")] & Evidence.TRACER


# fs/stat.c: vfs_statx() calls vfs_getattr(), which ends in vfs_getattr_nosec(); fs/namei.c: filename_lookup()
# calls path_lookupat().
@pytest.mark.parametrize(
    ("pid", "traced", "caller"), [(617, "vfs_getattr_nosec", "vfs_statx"), (628, "path_lookupat", "filename_lookup")]
)
def test_function_whose_tracer_was_switched_out(pid: int, traced: str, caller: str) -> None:
    """The traced function stands at its patch site, before its caller."""
    names, _, verdict = frames_of(load_snapshot(SNAPSHOTS / "tracer.npz"), pid, Mode.HYBRID)
    assert verdict.reliable
    at = names.index("ftrace_caller")
    assert names[at - 1 : at + 3] == ["ftrace_graph_func", "ftrace_caller", traced, caller]
