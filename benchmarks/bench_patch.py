"""How long a guest stands still while it is patched by stopped consistency, and what the time goes to.

Usage: python benchmarks/bench_patch.py [CYCLES]

Boots Debian's kernel under the load of `surefoot vm`, loads the test modules and applies and reverts a patch of a
kernel function and a pair in a module. Every pause counts, also those in which a task was not clear and nothing was
written. Prints the distribution of the pauses and of their parts, the bound of 50 ms and twice the reads, the
attempts that a transition takes, and the processor time of this process in a pause, which does not depend on what
else the machine does.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from guest_modules import SOURCES, debian_modules
from surefoot.cli.patch_backend import Options
from surefoot.cli.patch_stopped import StoppedBackend
from surefoot.patch.events import EventKind
from surefoot.targets.gueststop import StoppedGuest
from surefoot.targets.vm import kernels, machines


def spread(name: str, values: list[float], unit: str = "ms") -> None:
    ordered = sorted(values)
    at = {share: ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.5, 0.9, 0.99)}
    print(
        f"{name:24} n={len(ordered):5d}  median {at[0.5]:7.2f}  90% {at[0.9]:7.2f}  99% {at[0.99]:7.2f}"
        f"  longest {ordered[-1]:7.2f} {unit}"
    )


def note_processor_time(into: list[float]) -> None:
    """Let every guest note the processor time that passes between pause and resume."""
    pause, resume = StoppedGuest.pause, StoppedGuest.resume
    began = [0.0]

    def pause_noted(self: StoppedGuest) -> bool:
        ran = pause(self)
        began[0] = time.process_time()
        return ran

    def resume_noted(self: StoppedGuest) -> None:
        into.append(1e3 * (time.process_time() - began[0]))
        resume(self)

    setattr(StoppedGuest, "pause", pause_noted)  # noqa: B010 - mypy lets no method be replaced otherwise
    setattr(StoppedGuest, "resume", resume_noted)  # noqa: B010


def main(cycles: int) -> int:
    processor: list[float] = []
    note_processor_time(processor)
    kernel = kernels.fetch("7.3")
    modules = debian_modules(kernel)
    machine = machines.boot(kernel, name=f"bench-patch-{os.getpid()}", gdb=True)
    figures: dict[str, list[float]] = {"pause_ms": [], "read_ms": [], "walk_ms": [], "write_ms": []}
    attempts, seconds = [], []
    try:
        for module in ("sfp_pair", "sfp_pair_new", "sfp_cmdline"):
            machine.console.push((modules / f"{module}.ko").read_bytes(), f"/run/{module}.ko")
            machine.console.check(f"insmod /run/{module}.ko")
        backend = StoppedBackend(machine, Options(modules=modules))
        for _ in range(cycles):
            patch = SOURCES / "patch-all.toml"
            for events in (backend.apply(str(patch), force=False), backend.revert("all", force=False)):
                began = time.monotonic()
                for event in events:
                    for name, values in figures.items():
                        if event.kind in {EventKind.RETRIED, EventKind.WRITTEN} and name in event.figures:
                            values.append(event.figures[name])
                assert event.kind is EventKind.COMPLETED, event.message
                attempts.append(event.figures["attempts"])
                seconds.append(time.monotonic() - began)
    finally:
        machine.stop()
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    pauses = len(figures["pause_ms"])
    print(f"{2 * cycles} transitions, {pauses} pauses; load of this machine {load} on {os.cpu_count()} processors")
    for name, values in figures.items():
        spread(name.removesuffix("_ms"), values)
    spread("processor time in pause", processor)
    spread("attempts", attempts, "")
    spread("transition", seconds, "s")
    bound = 50 + 2 * statistics.median(figures["read_ms"])
    median, own = statistics.median(figures["pause_ms"]), statistics.median(processor)
    print(f"median pause {median:.1f} ms (processor time {own:.1f} ms), bound {bound:.1f} ms")
    return 0 if median < bound else 1


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 50))
