"""Run every benchmark on a real kernel and print the measured ratios side by side: `make bench`.

Usage: python -m benchmarks [NAME]...

A benchmark is a file bench_NAME.py that can be run by itself. The line "Usage: python benchmarks/bench_NAME.py ..."
of its docstring names the inputs it takes: VMLINUX, VMCORE and MODULES are replaced by a fetched kernel and a dump of
it, options in brackets are left out. Both are made when they are not in the cache yet.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
INPUTS: Final = ("VMLINUX", "VMCORE", "MODULES")


def usage(path: Path) -> list[str]:
    """Give the words of a benchmark's usage line without the optional ones."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    line = re.search(r"^Usage: python \S+ ?(.*)$", text, flags=re.MULTILINE)
    return re.sub(r"\[[^]]*\]\S*", "", line[1]).split() if line else []


def make_inputs(wanted: set[str]) -> dict[str, str]:
    """Give the paths of the inputs that some benchmark wants; fetch a kernel and take a dump where needed."""
    if not wanted:
        return {}
    from surefoot.targets.vm import kernels, machines
    from surefoot.targets.vm.folders import cache_folder

    kernel = kernels.fetch(report=lambda line: print(line, file=sys.stderr))
    vmcore = cache_folder() / "bench" / f"{kernel.release}.vmcore"
    if "VMCORE" in wanted and not vmcore.exists():
        vmcore.parent.mkdir(parents=True, exist_ok=True)
        machine = machines.boot(kernel, name="bench")
        try:
            machine.dump(vmcore)
        finally:
            machine.stop()
    paths = (kernel.vmlinux, vmcore, kernel.debug_modules)
    return {name: str(path) for name, path in zip(INPUTS, paths, strict=True)}


def main(names: list[str]) -> int:
    """Run the chosen benchmarks, or all; give 1 if one failed."""
    files = {path.stem.removeprefix("bench_"): path for path in sorted(HERE.glob("bench_*.py"))}
    unknown = set(names) - set(files)
    if unknown:
        print(f"no such benchmark: {', '.join(sorted(unknown))}; there is: {', '.join(files)}", file=sys.stderr)
        return 2
    chosen = [files[name] for name in names or files]
    words = {path: usage(path) for path in chosen}
    inputs = make_inputs({word for each in words.values() for word in each if word in INPUTS})
    failed = []
    for path in chosen:
        command = [sys.executable, str(path), *(inputs.get(word, word) for word in words[path])]
        print(f"\n== {path.stem.removeprefix('bench_')} ==", flush=True)
        if subprocess.run(command, check=False).returncode:
            failed.append(path.stem)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
