"""Trace every task of a dump: `surefoot stack`, cold and warm, against drgn on the same files.

Usage: python benchmarks/bench_stack.py VMCORE VMLINUX MODULES [--runs N] [--phases]

Every job is a whole process, interpreter and imports included, its output thrown away. drgn opens the dump, loads
the kernel's debug information and prints the stack trace of every task (it loads no module's). Cold: an empty cache
folder, so that tables are decoded and the rules at exception boundaries are proved; warm: the folder that a run
before has filled. Jobs take turns, so that a machine that slows down slows all of them. The medians of N runs are
printed with their ratios to drgn, and whether the goals are met.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Final, NamedTuple

GOALS: Final = {"surefoot cold": 2.5, "surefoot warm": 1.3}
"""Wall time in multiples of drgn's that may not be exceeded."""


class Run(NamedTuple):
    """What one process cost: wall and CPU seconds, peak memory in MB."""

    wall: float
    cpu: float
    memory: float


def run_drgn(vmcore: str, vmlinux: str) -> None:
    """Open a dump with drgn and print all traces; a process of its own."""
    import drgn
    from drgn.helpers.linux.pid import for_each_task

    prog = drgn.Program()
    prog.set_core_dump(vmcore)
    prog.load_debug_info([vmlinux])
    for task in for_each_task(prog):
        print(task.pid.value_(), task.comm.string_().decode())
        try:
            print(prog.stack_trace(task))
        except ValueError as error:  # a dead task has no stack
            print(error)


def run_phases(vmcore: str, vmlinux: str, modules: str) -> None:
    """Print what each phase of a warm run takes; a process of its own."""
    import numpy as np

    start = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal start
        now = time.perf_counter()
        print(f"  {name:28}{(now - start) * 1000:8.1f} ms")
        start = now

    from surefoot.targets.cache import TableCache
    from surefoot.targets.vmcore import open_vmcore

    lap("imports")
    target = open_vmcore(vmcore, vmlinux, modules, cache=TableCache())
    lap("open, load tables")
    size = target.code.text.words.size
    lap(f"code ({size} words)")
    capture = target.capture()
    lap(f"capture ({len(capture)} tasks)")
    capture = target.prove_boundaries(capture)
    lap(f"proofs ({np.size(getattr(capture.code.proofs, 'asked', ()))} boundaries)")
    from surefoot.unwind.context import Mode
    from surefoot.unwind.walker import walk

    lap("import the walker")
    for mode in Mode:
        traces = walk(capture.code, capture.stacks, capture.tasks, capture.layout, mode=mode)
        lap(f"walk, {mode.value} ({traces.pc.size} frames)")


def measure(command: list[str], cache: str) -> Run:
    """Run a command with a cache folder of its own."""
    import subprocess

    environment = os.environ | {"SUREFOOT_CACHE": cache}
    start = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, text=True
    ) as child:
        errors = child.stderr.read() if child.stderr is not None else ""
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode not in {0, 1}:  # 1: some stack is unreliable
        raise SystemExit(f"{' '.join(command)} ended with status {child.returncode}:\n{errors}")
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def main() -> int:
    """Print the comparison; 1 where a goal is missed."""
    import argparse
    import statistics
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vmcore")
    parser.add_argument("vmlinux")
    parser.add_argument("modules")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--phases", action="store_true", help="also print what each phase of a warm run takes")
    options = parser.parse_args()
    script = [sys.executable, str(Path(__file__).resolve())]
    inputs = [options.vmcore, options.vmlinux]
    entry = "import sys; from surefoot.cli.main import main; sys.exit(main())"
    files = ["--vmcore", options.vmcore, "--vmlinux", options.vmlinux, "--modules", options.modules]
    ours = [sys.executable, "-c", entry, "stack", *files]
    runs: dict[str, list[Run]] = {"drgn": [], "surefoot cold": [], "surefoot warm": []}
    with tempfile.TemporaryDirectory() as folder:
        warm = f"{folder}/warm"
        measure(ours, warm)
        for i in range(options.runs):
            runs["drgn"].append(measure([*script, "--drgn", *inputs], warm))
            runs["surefoot cold"].append(measure(ours, f"{folder}/cold{i}"))
            runs["surefoot warm"].append(measure(ours, warm))
        print(f"{'job':16}{'wall s':>8}{'min':>8}{'CPU s':>8}{'peak MB':>9}{'x drgn':>8}   goal")
        met, base = True, 0.0
        for name, results in runs.items():
            wall, cpu = (statistics.median(column) for column in list(zip(*results, strict=True))[:2])
            base = base or wall
            line = f"{name:16}{wall:8.3f}{min(run.wall for run in results):8.3f}{cpu:8.3f}"
            line += f"{max(run.memory for run in results):9.0f}{wall / base:8.2f}"
            if name in GOALS:
                good = wall / base <= GOALS[name]
                met &= good
                line += f"   at most {GOALS[name]:g}x: {'met' if good else 'MISSED'}"
            print(line)
        if options.phases:
            print("phases of a warm run:", flush=True)
            import subprocess

            command = [*script, "--phase-times", *inputs, options.modules]
            subprocess.run(command, check=True, env=os.environ | {"SUREFOOT_CACHE": warm})
    return 0 if met else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--drgn"]:  # the measured processes import nothing that they do not need
        run_drgn(*sys.argv[2:4])
    elif sys.argv[1:2] == ["--phase-times"]:
        run_phases(*sys.argv[2:5])
    else:
        sys.exit(main())
