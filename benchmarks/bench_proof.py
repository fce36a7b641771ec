"""Prove all rows of a vmlinux: CPU seconds of the whole process against `objdump -d`, and of the fast path alone.

Usage: python benchmarks/bench_proof.py VMLINUX [--runs N]

CPU is user + system time as the kernel reports it when the process ends, interpreter, imports and the decoding of the
rules included; the best of N runs counts. The fast path is timed inside the process.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

OBJDUMP: Final = "aarch64-linux-gnu-objdump"
FAST_GOAL_S: Final = 3.0
RSS_GOAL_MB: Final = 2000


def prove_image(path: Path) -> None:
    """Prove an image; print seconds of the parts."""
    from surefoot.image.files import open_image
    from surefoot.image.rules import load_rules
    from surefoot.proof.domain import Domain
    from surefoot.proof.edges import check_edges
    from surefoot.proof.entries import find_entries
    from surefoot.proof.inputs import code_of
    from surefoot.proof.noreturn import find_noreturn, without_return
    from surefoot.proof.prove import prove, summarise
    from surefoot.proof.survey import survey

    image = open_image(path)
    rules = load_rules(image).with_abi_defaults().for_lookup()
    code = code_of(image)
    begin = time.process_time()
    domain = Domain.of(rules, image.text.ranges)
    found = survey(domain, code)
    on = without_return(domain, found, find_noreturn(domain, found, code))
    check_edges(domain, found, find_entries(domain, found, code, image.text.ranges), code, on)
    fast = time.process_time()
    del domain, found, on
    proof = prove(rules, image.text.ranges, code)
    total = time.process_time() - fast
    counts = summarise(proof.verdicts).tolist()
    print(f"{fast - begin:.2f} {total:.2f} {counts[3]} proven, {counts[2]} refuted, {counts[1]} unproven")


def measure(words: list[str], runs: int) -> tuple[float, int, str]:
    """Give the least CPU seconds of a command, the most memory in MB, and its last output."""
    best, memory, output = float("inf"), 0, ""
    for _ in range(runs):
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for line in child.stdout:
                output = line.strip()
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise SystemExit(f"{words[0]} failed")
        best = min(best, usage.ru_utime + usage.ru_stime)
        memory = max(memory, usage.ru_maxrss >> 10)
    return best, memory, output


def main() -> int:
    """Measure and compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument("vmlinux", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        prove_image(given.vmlinux)
        return 0
    ours, memory, output = measure([sys.executable, __file__, str(given.vmlinux), "--only"], given.runs)
    fast, total, counts = output.split(maxsplit=2)
    theirs, _, _ = measure([OBJDUMP, "-d", str(given.vmlinux)], 1)
    print(f"{counts}\nfast path {fast} s (goal {FAST_GOAL_S:.0f}), whole proof {total} s")
    print(f"process {ours - float(fast):.2f} s and {memory} MB, objdump -d {theirs:.2f} s")
    good = float(fast) <= FAST_GOAL_S and ours - float(fast) < theirs and memory < RSS_GOAL_MB
    print("goals met" if good else "goals MISSED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
