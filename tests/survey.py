"""A survey of real dumps: every task's trace held against the kernel's own, against drgn's, and fp against hybrid.

Run by tests/kernel/test_survey.py, and by hand for the README's table:

    python tests/survey.py --dumps 20 --json survey.json
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from surefoot.image.files import open_image
from surefoot.targets.capture import Capture
from surefoot.targets.linux import LinuxTarget
from surefoot.targets.vm import kernels, machines
from surefoot.targets.vm.stacks import ThreadStack
from surefoot.targets.vmcore import open_vmcore
from surefoot.unwind.context import Mode
from surefoot.unwind.reasons import Reason
from surefoot.unwind.state import Source, Start
from surefoot.unwind.trace import Traces
from surefoot.unwind.walker import walk

KRETPROBES = ("vfs_read", "do_nanosleep", "do_wait", "anon_pipe_write")
SETTINGS = ("plain", "function_graph", "kretprobe", "both")


@dataclass
class Survey:
    """What one dump, or many added up, has shown."""

    dumps: int = 0
    tasks: int = 0
    reliable_fp: int = 0
    reliable_hybrid: int = 0
    fp_refused: Counter[str] = field(default_factory=Counter)
    hybrid_refused: Counter[str] = field(default_factory=Counter)
    boundary_tasks: int = 0
    """Tasks that fp refuses because of an exception boundary."""
    boundary_reliable: int = 0
    fp_only: list[str] = field(default_factory=list)
    """Tasks on which fp is reliable and hybrid is not."""
    holes: list[str] = field(default_factory=list)
    """Tasks whose fp walk is reliable and omits a function that hybrid shows."""
    recovered: int = 0
    """Frames whose return address came from a function-graph or kretprobe list."""
    proc_comparable: int = 0
    proc_equal: int = 0
    proc_explained: Counter[str] = field(default_factory=Counter)
    proc_unexplained: list[str] = field(default_factory=list)
    drgn_frames: int = 0
    drgn_explained: Counter[str] = field(default_factory=Counter)
    drgn_leaves_out: list[str] = field(default_factory=list)
    """Tasks of which drgn leaves frames out, with what its trace ends in."""
    drgn_missing: list[str] = field(default_factory=list)
    """Frames of drgn's that hybrid does not show, without an explanation."""

    def to_json(self) -> dict[str, Any]:
        """Give plain values."""
        return {name: dict(value) if isinstance(value, Counter) else value for name, value in vars(self).items()}

    def add(self, other: Survey) -> None:
        """Add the figures of another survey."""
        for name, value in vars(other).items():
            mine = getattr(self, name)
            if isinstance(value, Counter):
                mine.update(value)
            else:
                setattr(self, name, mine + value)


@dataclass
class Walked:
    """A dump with both walks."""

    target: LinuxTarget
    capture: Capture
    fp: Traces
    hybrid: Traces

    def frames(self, traces: Traces, row: int) -> range:
        return range(int(traces.first[row]), int(traces.first[row + 1]))

    def name(self, traces: Traces, frame: int) -> str:
        index = int(traces.function[frame])
        return self.capture.code.functions.names[index] if index >= 0 else hex(int(traces.pc[frame]))

    def label(self, row: int) -> str:
        return f"{self.capture.info.pid[row]} {self.capture.info.comm[row]}"


def walk_dump(vmcore: Path, vmlinux: Path, modules: Path) -> Walked:
    target = open_vmcore(vmcore, vmlinux, modules)
    capture = target.capture()
    walks = [
        walk(capture.code, capture.stacks, capture.tasks, capture.layout, mode=mode)
        for mode in (Mode.FP, Mode.HYBRID)
    ]
    return Walked(target, capture, *walks)


def survey_dump(walked: Walked, own: list[ThreadStack] | None, names: NameBook) -> Survey:
    """Hold one dump's traces against each other, the kernel's own and drgn's."""
    result = Survey(dumps=1, tasks=len(walked.fp))
    _compare_modes(walked, result)
    if own is not None:
        _compare_proc(walked, own, names, result)
    _compare_drgn(walked, result)
    return result


def _compare_modes(walked: Walked, result: Survey) -> None:
    fp, hybrid = walked.fp, walked.hybrid
    result.reliable_fp, result.reliable_hybrid = int(fp.reliable.sum()), int(hybrid.reliable.sum())
    for row in range(len(fp)):
        if fp.reason[row]:
            result.fp_refused[Reason(int(fp.reason[row])).name] += 1
        if hybrid.reason[row]:
            result.hybrid_refused[Reason(int(hybrid.reason[row])).name] += 1
        if fp.reason[row] == Reason.EXCEPTION_BOUNDARY:
            result.boundary_tasks += 1
            result.boundary_reliable += int(hybrid.reason[row] == 0)
        if fp.reason[row] == 0 and hybrid.reason[row]:
            reason = Reason(int(hybrid.reason[row])).name
            result.fp_only.append(f"{walked.label(row)}: {reason} at {int(hybrid.reason_addr[row]):#x}")
        if fp.reason[row] == 0 and hybrid.reason[row] == 0:
            shown = {int(fp.pc[i]) for i in walked.frames(fp, row)}
            extra = [walked.name(hybrid, i) for i in walked.frames(hybrid, row) if int(hybrid.pc[i]) not in shown]
            if extra:
                result.holes.append(f"{walked.label(row)}: fp omits {', '.join(extra)}")
    result.recovered = int(np.count_nonzero(hybrid.evidence & 0x180))


def _unlisted_text(walked: Walked) -> list[tuple[int, int]]:
    """The code that the kernel leaves out of /proc/PID/stack (kernel/sched/core.c: in_sched_functions)."""
    symbols = open_image(walked.target._vmlinux).symbols
    ranges = []
    for part in ("__sched_text", "__lock_text"):
        low, high = symbols.address_of(f"{part}_start"), symbols.address_of(f"{part}_end")
        assert low is not None
        assert high is not None
        ranges.append((low + walked.target.bias, high + walked.target.bias))
    return ranges


def _within(pc: int, ranges: list[tuple[int, int]]) -> bool:
    return any(low <= pc < high for low, high in ranges)


def _compare_proc(walked: Walked, own: list[ThreadStack], names: NameBook, result: Survey) -> None:
    """Compare blocked tasks that have not run since their own trace was taken."""
    unlisted = _unlisted_text(walked)
    info, tasks = walked.capture.info, walked.capture.tasks
    rows = {int(pid): row for row, pid in enumerate(info.pid.tolist()) if pid}
    for thread in own:
        row = rows.get(thread.pid)
        if row is None or thread.nvcsw < 0 or not thread.frames or tasks.start[row] != Start.BLOCKED:
            continue
        if int(info.switches[row]) != thread.nvcsw + thread.nivcsw:
            continue
        result.proc_comparable += 1
        mine: list[str] = []
        theirs = [f"{frame.symbol}+{frame.offset:#x}" for frame in thread.frames]
        hybrid = walked.hybrid
        frames = [i for i in walked.frames(hybrid, row) if not _within(int(hybrid.pc[i]), unlisted)]
        for place, i in enumerate(frames):
            mine.append(_as_kernel(walked, hybrid, i, names, theirs[place] if place < len(theirs) else ""))
        if mine == theirs:
            result.proc_equal += 1
            continue
        why = _explain_proc(walked, row, theirs, names)
        if why:
            result.proc_explained[why] += 1
        else:
            result.proc_unexplained.append(f"{walked.label(row)}: ours {mine}, kernel {theirs}")


def _as_kernel(walked: Walked, traces: Traces, frame: int, names: NameBook, theirs: str) -> str:
    """Write a frame as the kernel did, if what it wrote is the same address; else by our own name.

    The kernel may choose another name of the same address, and %pB looks one byte back even for an interrupted pc,
    so that one at the very start of a function is printed as the end of the function before.
    """
    pc, index = int(traces.pc[frame]), int(traces.function[frame])
    symbol, _, offset = theirs.rpartition("+")
    if symbol and any(pc - walked.target.bias == addr + int(offset, 16) for addr in names.addresses(symbol)):
        return theirs
    if index < 0:
        return hex(pc)
    start = int(walked.capture.code.functions.start[index])
    return f"{walked.capture.code.functions.names[index]}+{pc - start:#x}"


def _explain_proc(walked: Walked, row: int, theirs: list[str], names: NameBook) -> str:
    """Name why the kernel's plain walk, which steps along frame records only, shows something else; "" if unknown.

    Two things must hold: our frame-pointer walk shows exactly what the kernel printed, and hybrid shows the same
    but for the one frame behind each place at which frame records are known to skip a caller.
    """
    unlisted = _unlisted_text(walked)
    fp = [i for i in walked.frames(walked.fp, row) if not _within(int(walked.fp.pc[i]), unlisted)]
    written = [_as_kernel(walked, walked.fp, i, names, text) for i, text in zip(fp, theirs, strict=False)]
    if len(fp) != len(theirs) or written != theirs:
        return ""
    hybrid, frames = walked.hybrid, list(walked.frames(walked.hybrid, row))
    fp_pcs = [int(walked.fp.pc[i]) for i in walked.frames(walked.fp, row)]
    why = set()
    for before, i in pairwise(frames):
        if fp_pcs.count(int(hybrid.pc[i])) >= [int(hybrid.pc[j]) for j in frames].count(int(hybrid.pc[i])):
            continue
        if int(hybrid.source[before]) == Source.REGS:
            why.add("the kernel's walk omits the caller of an interrupted function without a frame record")
        elif walked.name(hybrid, before) == "return_to_handler":
            why.add("the kernel's walk omits the caller of a function returning through return_to_handler")
        else:
            return ""
    return "; ".join(sorted(why))


def _compare_drgn(walked: Walked, result: Survey) -> None:
    """Look for functions that drgn's best-effort trace shows and hybrid does not."""
    walked.target.load_debug_info()
    prog = walked.target.prog
    hybrid, info = walked.hybrid, walked.capture.info
    for row in range(len(hybrid)):
        pid = int(info.pid[row])
        if not pid or walked.capture.tasks.start[row] not in (Start.BLOCKED, Start.REGS):
            continue
        shown = {int(hybrid.pc[i]) for i in walked.frames(hybrid, row)}
        try:
            trace = list(prog.stack_trace(pid))
        except (ValueError, LookupError) as error:
            result.drgn_explained[f"drgn gives no trace: {type(error).__name__}"] += 1
            continue
        pcs = []
        for frame in trace:
            if frame.is_inline:
                continue
            try:
                pcs.append((frame.pc, frame.name or hex(frame.pc)))
            except LookupError:
                continue
        result.drgn_frames += len(pcs)
        _judge_drgn(walked, row, shown, pcs, result)


def _judge_drgn(walked: Walked, row: int, shown: set[int], pcs: list[tuple[int, str]], result: Survey) -> None:
    hybrid = walked.hybrid
    theirs = {pc for pc, _ in pcs}
    trampolines = {walked.capture.code.labels.get(name) for name in ("return_to_handler", "__kretprobe_trampoline")}
    doubtful = bool(hybrid.reason[row])
    for pc, name in pcs:
        if pc in shown:
            continue
        if pc in trampolines:
            result.drgn_explained["drgn shows the trampoline where hybrid shows the original return address"] += 1
        elif doubtful:
            result.drgn_explained[f"hybrid has refused: {Reason(int(hybrid.reason[row])).name}"] += 1
        else:
            result.drgn_missing.append(f"{walked.label(row)}: {name} at {pc:#x}")
    left_out = []
    for i in walked.frames(hybrid, row):
        if int(hybrid.pc[i]) in theirs:
            continue
        if int(hybrid.evidence[i]) & 0x180:
            result.drgn_explained["hybrid shows a recovered return address that drgn does not know"] += 1
        else:
            result.drgn_explained["hybrid shows a frame that drgn leaves out"] += 1
            left_out.append(walked.name(hybrid, i))
    if left_out:
        result.drgn_leaves_out.append(f"{walked.label(row)}: {', '.join(left_out)}; drgn ends in {pcs[-1][1]}")


class NameBook:
    """Link addresses by name, looked up once each."""

    def __init__(self, vmlinux: Path) -> None:
        self._symbols = open_image(vmlinux).symbols
        self._known: dict[str, list[int]] = {}

    def addresses(self, name: str) -> list[int]:
        """Give the addresses of all symbols of this name."""
        if name not in self._known:
            self._known[name] = self._symbols.addr[self._symbols.find(name)].tolist()
        return self._known[name]


def set_tracing(machine: machines.Machine, setting: str) -> None:
    machine.trace_off()
    if setting in ("function_graph", "both"):
        machine.trace_on(kretprobes=KRETPROBES if setting == "both" else ())
    elif setting == "kretprobe":
        machine.trace_on(graph="", kretprobes=KRETPROBES)


def survey_guest(machine: machines.Machine, dumps: int, seed: int, folder: Path) -> dict[str, Survey]:
    """Take dumps at arbitrary instants and survey each; figures by tracing setting."""
    rng = random.Random(seed)
    names = NameBook(machine.kernel.vmlinux)
    results = {setting: Survey() for setting in SETTINGS}
    per_setting = -(-dumps // len(SETTINGS))
    for number in range(dumps):
        setting = SETTINGS[number // per_setting]
        if number % per_setting == 0:
            set_tracing(machine, setting)
        time.sleep(rng.uniform(0.0, 1.5))
        sys.stderr.write(f"dump {number + 1} of {dumps}, {setting}\n")
        vmcore = folder / f"survey-{number}.vmcore"
        dump = machine.dump(vmcore, stacks=True)
        try:
            walked = walk_dump(vmcore, machine.kernel.vmlinux, machine.kernel.debug_modules)
            results[setting].add(survey_dump(walked, dump.stacks, names))
        finally:
            vmcore.unlink(missing_ok=True)
    set_tracing(machine, "plain")
    return results


def total(results: dict[str, Survey]) -> Survey:
    """Add all settings up."""
    everything = Survey()
    for part in results.values():
        everything.add(part)
    return everything


def main() -> int:
    """Survey a fresh guest and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dumps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    kernel = kernels.find() if kernels.installed() else kernels.fetch()
    machine = machines.boot(kernel, name=f"survey-{os.getpid()}")
    try:
        with tempfile.TemporaryDirectory() as folder:
            results = survey_guest(machine, arguments.dumps, arguments.seed, Path(folder))
    finally:
        machine.stop()
    answer: dict[str, Any] = {name: part.to_json() for name, part in results.items()}
    answer["total"] = total(results).to_json()
    text = json.dumps(answer, indent=2)
    if arguments.json:
        arguments.json.write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
