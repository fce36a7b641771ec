"""Layer 8: the JSON of `surefoot stack`: surefoot.stack/1, described by docs/schema/stack-1.json.

Invariant: everything that the text shows is here, with the same words for evidence and reasons as in
`surefoot.unwind` (lower case for evidence, the enumeration's own names for reasons).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from surefoot.report.schema import STACK, address
from surefoot.report.stack_view import (
    Difference,
    FrameView,
    Omission,
    Place,
    StackReport,
    Tally,
    TaskMeta,
    TaskView,
    letters,
)
from surefoot.unwind.reasons import SENTENCES
from surefoot.unwind.trace import Evidence

__all__ = ["stack_json"]

_Object = dict[str, object]


def stack_json(report: StackReport) -> Mapping[str, object]:
    """Give the object that `surefoot stack --json` prints."""
    return {
        "schema": STACK,
        "mode": report.mode.value,
        "strict": report.strict,
        "target": {"name": report.name, "release": report.release, "build_id": report.build_id},
        "tasks": [_task(task) for task in report.tasks],
        "summary": {
            "tasks": report.total,
            "reliable": {tally.mode.value: tally.reliable for tally in report.tallies},
            "reasons": {tally.mode.value: _reasons(tally) for tally in report.tallies},
            "differences": {
                "fp_only": [_difference(each) for each in report.fp_only],
                "hybrid_only": [_difference(each) for each in report.hybrid_only],
                "traces": [_omission(each) for each in report.omissions],
            },
        },
        "notes": list(report.notes),
    }


def _reasons(tally: Tally) -> dict[str, int]:
    return {reason.name: count for reason, count in tally.reasons.items()}


def _difference(difference: Difference) -> _Object:
    return {"pid": difference.task.pid, "comm": difference.task.comm, "reason": difference.reason.name}


def _omission(omission: Omission) -> _Object:
    return {
        "pid": omission.task.pid,
        "comm": omission.task.comm,
        "missing_in_fp": [_place(place) for place in omission.missing],
        "only_in_fp": [_place(place) for place in omission.extra],
    }


def _place(place: Place, key: str = "address") -> _Object:
    """Give a place; its address is called `key`."""
    known = place.symbol is not None
    return {
        key: address(place.addr),
        "symbol": place.symbol,
        "offset": place.offset if known else None,
        "size": place.size if known else None,
        "module": place.module,
    }


def _meta(meta: TaskMeta) -> _Object:
    return {
        "pid": meta.pid,
        "tgid": meta.tgid,
        "comm": meta.comm,
        "state": meta.state,
        "cpu": meta.cpu,
        "on_cpu": meta.on_cpu,
        "kthread": meta.kthread,
    }


def _task(task: TaskView) -> _Object:
    return {
        **_meta(task.meta),
        "start": task.start.name.lower(),
        "reliable": task.verdict.reliable,
        "reason": None if task.verdict.reliable else task.verdict.reason.name,
        "reason_detail": _reason_detail(task),
        "frames": [_frame(frame) for frame in task.frames],
    }


def _reason_detail(task: TaskView) -> _Object | None:
    """Give where and why certainty was lost; null for a reliable task."""
    verdict = task.verdict
    if verdict.reliable:
        return None
    at, other = task.reason_at, task.other_at
    return {
        "sentence": SENTENCES[verdict.reason],
        "frame": verdict.frame,
        "at": None if at is None else _place(at),
        "other": None if other is None else _place(other),
    }


@lru_cache(maxsize=1024)
def _marks(evidence: Evidence) -> tuple[str, ...]:
    return tuple(bit.name.lower() for bit in Evidence if bit & evidence and bit.name is not None)


def _frame(frame: FrameView) -> _Object:
    regs = frame.regs
    result = {
        **_place(frame.place, "pc"),
        "source": frame.source.name.lower(),
        "letters": letters(frame),
        "evidence": list(_marks(frame.evidence)),
        "doubtful": frame.doubtful,
        "boundary": frame.boundary,
        "exception": frame.vector.value if frame.vector else None,
        "sp": None if frame.sp is None else address(frame.sp),
        "fp": address(frame.fp),
        "regs": None
        if regs is None
        else {
            "address": None if regs.addr is None else address(regs.addr),
            "pc": address(regs.pc),
            "sp": address(regs.sp),
            "fp": address(regs.fp),
            "lr": address(regs.lr),
        },
        "ambiguous_lr": None if frame.ambiguous is None else _place(frame.ambiguous),
    }
    if frame.place.lines:
        result["lines"] = [
            {"function": line.function, "file": line.file, "line": line.line} for line in frame.place.lines
        ]
    return result
