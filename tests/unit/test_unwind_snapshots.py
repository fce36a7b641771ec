"""Recorded stacks of real kernels, damaged: the quick version of tests/kernel/test_robustness.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from damage import survey, watch_reads
from reference_fp import kernel_walk
from surefoot.targets.snapshot import load_snapshot
from surefoot.unwind.context import Mode
from surefoot.unwind.walker import walk

SNAPSHOTS = sorted((Path(__file__).parent.parent / "golden" / "snapshots").glob("*.npz"))


@pytest.mark.parametrize("path", SNAPSHOTS, ids=lambda path: path.stem)
def test_damaged_snapshot(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is called reliable is a stack of the recorded code."""
    reads = watch_reads(monkeypatch)
    with pytest.MonkeyPatch.context() as patch:
        result = survey(load_snapshot(path), 300, 5, patch)
    assert reads["words"]
    assert result.counts["damaged"] == 300
    assert result.counts["rejected"] == 0
    assert result.counts["accepted"] <= 5, result.accepted


@pytest.mark.parametrize("path", SNAPSHOTS, ids=lambda path: path.stem)
def test_mode_fp_of_snapshot_is_the_kernel_s(path: Path) -> None:
    """On real stacks too, mode fp gives the frames and the verdict of the scalar reference."""
    capture = load_snapshot(path)
    traces = walk(capture.code, capture.stacks, capture.tasks, capture.layout, mode=Mode.FP)
    for task in range(len(capture.tasks)):
        kernel_says = kernel_walk(capture.stacks, capture.tasks, capture.layout, capture.code.labels, task)
        part = slice(int(traces.first[task]), int(traces.first[task + 1]))
        assert bool(traces.reliable[task]) == kernel_says.reliable
        assert traces.pc[part].tolist() == [pc for pc, _ in kernel_says.frames]
