"""The campaign of live patching on the emulated machine: thousands of transitions at random instants, and no mix.

    python tests/patch_campaign.py [TRANSITIONS] [SEED]

Runs each kind of load with the engine and, for a tenth of the transitions, with the naive driver that writes every
site at once; prints one line for each. Exit status 1 if a call mixed old and new code, was lost or made twice, or if
a transition neither ended nor named who holds it up; or if the naive driver shows no mix.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from surefoot.cli.patch_emulated import EngineDriver
from surefoot.machine.loader import load_kernel
from surefoot.machine.patchrun import MakeDriver, Naive, PatchJob, Tally, run_patching

LOADS = {
    "tracing off": (0.40, {"tracing": 0, "pace": 1_200}),
    "kretprobes": (0.24, {"tracing": 2, "pace": 1_200}),
    "function graph": (0.10, {"tracing": 1, "pace": 8_000}),
    "both": (0.10, {"tracing": 3, "pace": 8_000}),
    "switched at random": (0.13, {"tracing": -1, "pace": 4_000}),
    "full load, tracing off": (0.02, {"tracing": 0, "pace": 2_500, "light": False}),
    "full load, both": (0.01, {"tracing": 3, "pace": 12_000, "light": False}),
}
"""Share of the transitions, and what the load is like."""
CHUNK = 100
"""Transitions of one machine."""


def plan(transitions: int, seed: int) -> Iterator[tuple[str, PatchJob]]:
    """Give the jobs of a campaign: name of the load, job."""
    for name, (share, options) in LOADS.items():
        left = round(transitions * share)
        while left > 0:
            seed += 1
            yield name, PatchJob(seed=seed, transitions=min(CHUNK, left), **options)  # type: ignore[arg-type]
            left -= CHUNK


def run_one(make: MakeDriver, job: PatchJob) -> Tally:
    """Run one job, in a process of its own."""
    return run_patching(load_kernel(), make, job)


def campaign(transitions: int, seed: int, *, processes: int) -> tuple[dict[str, Tally], dict[str, Tally]]:
    """Run all jobs; gives the tallies by load, with the engine and with the naive driver."""
    found: tuple[dict[str, Tally], dict[str, Tally]] = ({}, {})
    work: list[tuple[int, MakeDriver, str, PatchJob]] = []
    work += [(0, EngineDriver, name, job) for name, job in plan(transitions, seed)]
    work += [(1, Naive, name, job) for name, job in plan(transitions // 10, seed)]
    with ProcessPoolExecutor(processes) as pool:
        futures = [(which, name, pool.submit(run_one, make, job)) for which, make, name, job in work]
        for which, name, future in futures:
            found[which].setdefault(name, Tally()).add(future.result())
    return found


def _line(name: str, tally: Tally) -> str:
    causes = ", ".join(f"{cause.removeprefix('by_')} {count}" for cause, count in sorted(tally.causes.items()))
    return (
        f"{name:<24}{tally.transitions:>8}{tally.turned:>8}{tally.incomplete:>8}{tally.passes:>8}{tally.named:>8}"
        f"{tally.calls:>9}{tally.old:>8}{tally.new:>8}{tally.mixed:>7}{tally.lost:>6}{tally.doubled:>8}"
        f"{tally.told_mixed:>7}{tally.told_calls:>9}{tally.insns:>12}  {causes}"
    )


def write(line: str) -> None:
    """Write a line of the answer."""
    sys.stdout.write(f"{line}\n")


def main() -> int:
    """Run, and print what came of it."""
    transitions = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000
    begin = time.monotonic()
    good, naive = campaign(transitions, seed, processes=os.cpu_count() or 1)
    heads = ("over", "turned", "stuck", "passes", "holds", "calls", "old", "new", "mixed", "lost", "doubled", "told")
    write(f"{'':<24}" + "  ".join(heads) + "  calls told, instructions, how tasks went over")
    totals = []
    for title, tallies in (("with the engine", good), ("naive", naive)):
        write(title)
        total = Tally()
        for name, tally in tallies.items():
            write(_line(f"  {name}", tally))
            total.add(tally)
        write(_line("  all", total))
        write(f"  nameless holds {total.nameless}, undrained {total.undrained}, died {total.died}")
        totals.append(total)
    write(f"{time.monotonic() - begin:.0f} s")
    return 0 if totals[0].clean and totals[1].mixed else 1


if __name__ == "__main__":
    raise SystemExit(main())
