"""Layer 9: joins what a look at a kernel shows with what Surefoot concludes from it, for Linux's own livepatch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from surefoot.errors import SurefootError
from surefoot.image.binary import Image
from surefoot.image.files import open_image
from surefoot.image.tables import patch_sites
from surefoot.patch.check import Range
from surefoot.patch.diagnose import Diagnosis, TaskLook, Walked, diagnose, stranded
from surefoot.patch.events import TaskState
from surefoot.patch.klp import KlpFunction, KlpKernel, KlpPatch, Side, searched, true_ranges
from surefoot.patch.klpends import Span, end_warnings
from surefoot.targets.klp_look import Look
from surefoot.targets.klp_memory import KlpMemory
from surefoot.targets.klp_module import is_livepatch, named_functions
from surefoot.unwind.code import Functions, TextWords
from surefoot.unwind.context import Mode
from surefoot.unwind.walker import walk

__all__ = ["Judged", "before_loading", "judge", "to_kernel"]


def to_kernel(memory: KlpMemory) -> KlpKernel:
    """Give what was read of the live patches in the form that conclusions are drawn from."""
    patches = tuple(
        KlpPatch(
            patch.name,
            patch.replace,
            patch.enabled,
            patch.forced,
            tuple(KlpFunction(**func._asdict()) for func in patch.functions),
        )
        for patch in memory.patches
    )
    return KlpKernel(patches, memory.transition, Side(memory.target), memory.stacks)


@dataclass(frozen=True)
class Judged:
    """A look and what follows from it.

    Attributes:
        look: what was seen.
        kernel: its live patches.
        walked: the stacks.
        tasks: in the order of the capture.
    """

    look: Look
    kernel: KlpKernel
    walked: Walked
    tasks: tuple[TaskLook, ...]

    def diagnosis(self) -> Diagnosis:
        """Say why the transition under way is stuck."""
        return diagnose(self.kernel, self.walked, self.tasks)

    def left_by(self, patch: str, side: Side) -> list[Range]:
        """Give the code that a transition of a patch leaves behind.

        Args:
            patch: its name.
            side: where the transition leads.
        """
        moving = replace(self.kernel, transition=patch, target=side)
        return true_ranges(self.walked.code, searched(moving))

    def stranded(self, left: Sequence[Range]) -> tuple[TaskState, ...]:
        """Give the tasks that are in code that was left behind."""
        return stranded(self.kernel, self.walked, self.tasks, left)

    def end_warnings(self, patch: str) -> list[str]:
        """Warn of calls that never return at the end of functions of a patch, old and new, as they lie in memory."""
        found = self.kernel.patch(patch)
        spans = [
            span
            for func in (found.functions if found else ())
            for span in (
                Span(func.name, func.old, func.old_size),
                Span(f"the new {func.name}", func.new, func.new_size),
            )
            if span.start and span.size >= 4
        ]
        return end_warnings(spans, self.walked.code.functions, self.walked.code.text)

    def runs(self) -> dict[int, tuple[int, bool]]:
        """Give what tells whether a task has run meanwhile: pid -> context switches so far, and whether it runs."""
        info = self.look.capture.info
        return {
            pid: (count, running)
            for pid, count, running in zip(
                info.pid.tolist(), info.switches.tolist(), info.on_cpu.tolist(), strict=True
            )
            if pid
        }


def judge(look: Look) -> Judged:
    """Walk the stacks of a look in both ways."""
    capture = look.capture
    kernel = to_kernel(look.memory)
    code = replace(capture.code, redirects=kernel.redirects())
    hybrid, fp = (
        walk(code, capture.stacks, capture.tasks, capture.layout, mode=mode) for mode in (Mode.HYBRID, Mode.FP)
    )
    info = capture.info
    tasks = tuple(
        TaskLook(
            pid=int(info.pid[row]),
            comm=info.comm[row],
            kthread=bool(info.kthread[row]),
            state=info.state[row],
            cpu=int(info.cpu[row]),
            on_cpu=bool(info.on_cpu[row]),
            side=look.states[row],
            settled=bool(look.settled[row]),
        )
        for row in range(len(capture))
    )
    return Judged(look, kernel, Walked(code, hybrid, fp), tasks)


class _Code(NamedTuple):
    """An image as the warnings want it."""

    image: Image
    functions: Functions
    text: TextWords
    symbols: np.ndarray[tuple[int], np.dtype[np.uint64]]


def _code_of(image: Image) -> _Code:
    ranges = image.functions.ranges
    names = [image.functions.name(int(i)) for i in ranges.function]
    functions = Functions(ranges.start, ranges.end, np.zeros(ranges.start.size, dtype=np.uint8), names)
    return _Code(image, functions, TextWords.from_ranges(image.text.ranges), np.unique(image.symbols.addr))


def before_loading(module: Path, vmlinux: Path | None, modules: Sequence[Path]) -> list[str]:
    """Give what an operator has to know of a live patch before it is loaded.

    Args:
        module: its file.
        vmlinux: the kernel that it is for; None if that is not at hand.
        modules: folders with files of the modules that it may patch.

    Returns:
        sentences; empty if there is nothing to say, or nothing can be said.
    """
    try:
        patch = open_image(str(module)).laid_out()
        if not is_livepatch(patch):
            return []
        named = named_functions(patch)
        warnings = _ends(_code_of(patch), [(f"the new {item.name}", item.new) for item in named])
        for name in dict.fromkeys(item.object for item in named):
            image = _object(name, vmlinux, modules)
            if image is not None:
                wanted = [(item.name, item.position) for item in named if item.object == name]
                warnings += _old_functions(image, wanted)
    except SurefootError as error:
        return [f"nothing can be said before it is loaded: {error}"]
    return list(dict.fromkeys(warnings))


def _object(name: str, vmlinux: Path | None, modules: Sequence[Path]) -> Image | None:
    """Open the file of what is patched."""
    if name == "vmlinux":
        return None if vmlinux is None else open_image(str(vmlinux))
    for folder in modules:
        for path in folder.rglob("*.ko"):
            if path.name.removesuffix(".ko").replace("-", "_") == name:
                return open_image(str(path)).laid_out()
    return None


def _old_functions(image: Image, wanted: Sequence[tuple[str, int]]) -> list[str]:
    """Warn of functions that cannot be patched, or whose ends mislead the kernel."""
    sites = patch_sites(image).func
    places: list[tuple[str, int]] = []
    warnings: list[str] = []
    for name, position in wanted:
        rows = image.symbols.find(name)
        if not rows.size or position > rows.size:
            warnings.append(f"{name} is not in {Path(image.path).name}: the kernel will refuse the patch")
            continue
        if not position and rows.size > 1:
            warnings.append(
                f"{name} stands for {rows.size} functions: the kernel will refuse a patch without position"
            )
            continue
        addr = int(image.symbols.addr[rows[max(position, 1) - 1]])
        if not bool(np.any(sites == np.uint64(addr))):
            warnings.append(
                f"{name} has no patch site (notrace, assembly, or inlined): the kernel will refuse the patch"
            )
        places.append((name, addr))
    return warnings + _ends(_code_of(image), places)


def _ends(code: _Code, places: Sequence[tuple[str, int]]) -> list[str]:
    """Warn of calls at the ends of functions; sizes as kallsyms reckons them."""
    spans = []
    for name, addr in places:
        at = int(np.searchsorted(code.symbols, np.uint64(addr), side="right"))
        after = int(code.symbols[at]) if at < code.symbols.size else addr + 4
        spans.append(Span(name, addr, after - addr))
    return end_warnings(spans, code.functions, code.text)
