"""Audit a whole vmlinux, proofs included: `surefoot audit` against `objdump -d` of the same text, CPU and memory.

Usage: python benchmarks/bench_audit.py VMLINUX [--runs N]

Every job is a whole process, interpreter and imports included, its output thrown away; CPU is user + system time as
the kernel reports it when the process ends. The best of N runs, which other load disturbs least, is printed, and
whether the goals are met: less CPU than objdump in every format, less than 2 GB.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final, NamedTuple

OBJDUMP: Final = ("aarch64-linux-gnu-objdump", "objdump")
FORMATS: Final = ("text", "json", "sarif", "html")
PEAK_GOAL_MB: Final = 2000


class Run(NamedTuple):
    """What one process cost: CPU seconds, peak memory in MB."""

    cpu: float
    memory: float


def measure(command: list[str]) -> Run:
    """Run a command; its output is thrown away."""
    import subprocess

    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as child:
        errors = child.stderr.read() if child.stderr is not None else ""
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode not in {0, 1}:  # 1: there are findings
        raise SystemExit(f"{' '.join(command)} ended with status {child.returncode}:\n{errors}")
    return Run(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def main() -> int:
    """Print the comparison; 1 where a goal is missed."""
    import argparse
    import shutil

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vmlinux", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    entry = "import sys; from surefoot.cli.main import main; sys.exit(main())"
    ours = [sys.executable, "-c", entry, "audit", str(options.vmlinux), "--quiet", "--format"]
    jobs = {f"audit, {form}": [*ours, form] for form in FORMATS}
    tool = next((name for name in OBJDUMP if shutil.which(name)), None)
    if tool is not None:
        jobs["objdump -d"] = [tool, "-d", str(options.vmlinux)]
    runs: dict[str, list[Run]] = {name: [] for name in jobs}
    for _ in range(options.runs):  # in turns: a machine that slows down slows all of them
        for name, command in jobs.items():
            runs[name].append(measure(command))
    best = {name: Run(min(r.cpu for r in each), min(r.memory for r in each)) for name, each in runs.items()}
    limit = best["objdump -d"].cpu if tool is not None else float("inf")
    met = True
    print(f"{'job':16}{'CPU s':>8}{'peak MB':>9}   goal")
    for name, run in best.items():
        if name == "objdump -d":
            print(f"{name:16}{run.cpu:8.2f}{run.memory:9.0f}")
            continue
        good = run.cpu < limit and run.memory < PEAK_GOAL_MB
        met &= good
        print(
            f"{name:16}{run.cpu:8.2f}{run.memory:9.0f}   less CPU than objdump, 2 GB: {'met' if good else 'MISSED'}"
        )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
