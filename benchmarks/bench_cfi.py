"""Decode .debug_frame of a vmlinux: Surefoot against other tools, CPU seconds of whole processes.

Usage: python benchmarks/bench_cfi.py VMLINUX [--runs N] [--skip pyelftools]

Every job is a process of its own that starts from nothing, interpreter and imports included, with its output thrown
away; CPU is user + system time of the process as the kernel reports it when it ends. The best of N runs,
which other load disturbs least, is printed with its ratio to Surefoot's best, and whether the goal is met. One run is
all that pyelftools is given.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
from pathlib import Path
from typing import Final

READELF: Final = ("aarch64-linux-gnu-readelf", "readelf")
GOALS: Final = {"llvm-dwarfdump": 1.0, "readelf": 4.0, "pyelftools": 40.0}
"""CPU time of the other tool, in multiples of ours, that has to be reached."""
RSS_GOAL_MB: Final = 600


def debug_frame(path: Path) -> memoryview:
    """Map a little-endian ELF64 file and give its .debug_frame section; nothing else of it is read."""
    with path.open("rb") as file:
        view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    (table,) = struct.unpack_from("<Q", view, 0x28)
    entry, count, names = struct.unpack_from("<HHH", view, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", view, table + k * entry) for k in range(count)]
    strings = headers[names][4]
    for name, _, _, _, offset, size in headers:
        if bytes(view[strings + name : strings + name + 13]) == b".debug_frame\0":
            return view[offset : offset + size]
    raise SystemExit(f"{path} has no .debug_frame")


def run_ours(path: Path) -> None:
    """Decode with Surefoot."""
    from surefoot.metadata.cfi import decode_debug_frame

    table = decode_debug_frame(debug_frame(path))
    print(f"{len(table.functions)} FDEs, {len(table)} rows, {len(table.reasons)} reasons to refuse")


def run_pyelftools(path: Path) -> None:
    """Decode every entry with pyelftools."""
    from elftools.elf.elffile import ELFFile

    with path.open("rb") as file:
        entries = ELFFile(file).get_dwarf_info().CFI_entries()
        print(sum(len(entry.get_decoded().table) for entry in entries))


def jobs(path: Path) -> dict[str, list[str] | str]:
    """Give the command of each tool, or why there is none."""
    import shutil

    script = [sys.executable, str(Path(__file__).resolve())]
    found: dict[str, list[str] | str] = {"surefoot": [*script, "--ours", str(path)]}
    llvm = shutil.which("llvm-dwarfdump")
    found["llvm-dwarfdump"] = [llvm, "--debug-frame", str(path)] if llvm else "llvm-dwarfdump is not installed"
    readelf = next((tool for name in READELF if (tool := shutil.which(name))), None)
    command = [str(readelf), "--debug-dump=frames-interp", str(path)]
    found["readelf"] = command if readelf else "no readelf is installed"
    try:
        import elftools  # noqa: F401

        found["pyelftools"] = [*script, "--pyelftools", str(path)]
    except ImportError:
        found["pyelftools"] = "pyelftools is not installed"
    return found


def measure(command: list[str]) -> tuple[float, float]:
    """Run a command and give its CPU seconds and its peak memory in MB."""
    import subprocess

    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{command[0]} ended with status {child.returncode}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> int:
    """Print the comparison; 1 where a goal is missed."""
    import argparse
    import statistics

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vmlinux", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--skip", action="append", default=[], choices=sorted(GOALS))
    options = parser.parse_args()
    met = True
    ours = 0.0
    print(f"{'tool':16}{'best s':>8}{'median':>8}{'peak MB':>9}{'x ours':>8}   goal")
    for name, command in jobs(options.vmlinux).items():
        if isinstance(command, str) or name in options.skip:
            print(f"{name:16}{command if isinstance(command, str) else 'skipped'}")
            continue
        runs = [measure(command) for _ in range(1 if name == "pyelftools" else options.runs)]
        best, memory = min(run[0] for run in runs), max(run[1] for run in runs)
        ours = ours or best
        ratio = best / ours
        good = ratio >= GOALS[name] if name in GOALS else memory < RSS_GOAL_MB
        goal = f"at least {GOALS[name]:g}x" if name in GOALS else f"below {RSS_GOAL_MB} MB"
        met &= good
        middle = statistics.median(run[0] for run in runs)
        print(f"{name:16}{best:8.3f}{middle:8.3f}{memory:9.0f}{ratio:8.2f}   {goal}: {'met' if good else 'MISSED'}")
    return 0 if met else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--ours"]:  # the measured processes import nothing that they do not need
        run_ours(Path(sys.argv[2]))
    elif sys.argv[1:2] == ["--pyelftools"]:
        run_pyelftools(Path(sys.argv[2]))
    else:
        sys.exit(main())
