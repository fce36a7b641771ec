"""SFrame of a vmlinux: Surefoot against GNU readelf, CPU seconds side by side.

Usage: python benchmarks/bench_sframe.py VMLINUX [--runs N]

The kernel is converted once, then both tools work on the same file. Whole commands are processes of their own,
interpreter and imports included, output thrown away; in-process figures are of this process, first call. The best of
N runs, which other load disturbs least, counts. readelf 2.47 comes from a private root in the user's cache folder.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

RSS_FACTOR: Final = 20
RSS_BASE_MB: Final = 100


def spent(command: list[str], runs: int) -> tuple[float, int]:
    """Give CPU seconds, user and system, and peak kilobytes of a command: the best of some runs.

    Modules are compiled once, as those of an installed package are.
    """
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    env.setdefault("PYTHONPYCACHEPREFIX", str(Path(tempfile.gettempdir()) / f"surefoot-bench-{os.getuid()}"))
    best, peak = float("inf"), 0
    for _ in range(runs):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in {0, 1}:
            raise SystemExit(f"{command[0]} ended with {process.returncode}")
        best, peak = min(best, usage.ru_utime + usage.ru_stime), max(peak, usage.ru_maxrss)
    return best, peak


def in_process(work: Callable[[], object], runs: int) -> float:
    """Give CPU seconds of a call: the best of some runs."""
    best = float("inf")
    for _ in range(runs):
        begin = time.process_time()
        work()
        best = min(best, time.process_time() - begin)
    return best


def goal(name: str, ours: float, limit: float, unit: str = "s") -> None:
    """Print a figure beside its limit."""
    met = "met" if ours <= limit else "MISSED"
    print(f"{name:46} {ours:9.3f} {unit:3} limit {limit:9.3f} {unit:3} {met}")


def main(words: list[str]) -> None:
    """Run every job and print the table."""
    from sframe_tools import newest
    from surefoot.image.anyelf import decode_any_elf
    from surefoot.image.files import map_file
    from surefoot.metadata import sframe

    vmlinux, runs = Path(words[0]), int(words[words.index("--runs") + 1]) if "--runs" in words else 5
    readelf = newest().root
    assert readelf is not None
    tool = readelf.tool("aarch64-linux-gnu-readelf")
    surefoot = [sys.executable, "-m", "surefoot.cli.main", "sframe"]
    with tempfile.TemporaryDirectory() as folder:
        out, bare = Path(folder) / "vmlinux", Path(folder) / "bare"
        convert, convert_peak = spent([*surefoot, "convert", str(vmlinux), "--raw", "-o", str(bare), "-q"], runs)
        spent([*surefoot, "convert", str(vmlinux), "-o", str(out), "-q"], 1)
        elf = decode_any_elf(map_file(out))
        index = elf.find(".sframe")[0]
        data, address = elf.section_bytes(index).tobytes(), elf.addr(index)
        section = sframe.decode(data, section_addr=address)
        print(f"{section.num_fdes} functions, {section.num_fres} rows, {len(data)} bytes")
        text, _ = spent([*tool, "--sframe", str(out)], runs)
        interpreted, _ = spent([*tool, "--debug-dump=frames-interp", str(vmlinux)], 1)
        decoding = in_process(lambda: sframe.decode(data, section_addr=address).to_rules(), runs)
        goal("decode to rules, in process (readelf / 2)", decoding, text / 2)
        dump, dump_peak = spent([*surefoot, "dump", "--format", "readelf", str(out)], runs)
        goal("dump --format readelf, command (readelf * 2)", dump, text * 2)
        goal("convert, command (readelf frames-interp)", convert, interpreted)
        encoding = in_process(lambda: sframe.encode(section), runs)
        goal("encode, seconds per million rows", encoding / section.num_fres * 1e6, 1.0)
        rules = section.to_rules()
        goal("rules to section and bytes, in process", in_process(lambda: built(sframe, rules), runs), interpreted)
        limit = RSS_FACTOR * len(data) / 1e6 + RSS_BASE_MB
        goal("peak memory of dump", dump_peak / 1e3, limit, "MB")
        goal("peak memory of convert", convert_peak / 1e3, limit, "MB")
        cfi = sum(int(elf.sections["size"][i]) for i in elf.find(".debug_frame"))
        print(f"{'size of .debug_frame':46} {cfi:9} bytes; SFrame is {100 * len(data) / max(1, cfi):.0f} % of it")


def built(sframe: object, rules: object) -> None:
    """Write rules as bytes."""
    made = sframe.from_rules(rules)  # type: ignore[attr-defined]
    sframe.encode(made.section)  # type: ignore[attr-defined]


if __name__ == "__main__":
    main(sys.argv[1:])
