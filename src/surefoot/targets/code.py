"""Layer 7: the code of a running kernel and its modules, out of their images and the target's memory.

Invariant: words are the target's own; rules and names come from files whose build-ids the target confirms, or
not at all. What is missing is said in a note.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from surefoot.dtypes import Addr, Insn
from surefoot.errors import SurefootError
from surefoot.image.binary import Image
from surefoot.image.livetext import Change, Differences, Mechanisms, compare, join_differences, mechanisms
from surefoot.metadata.rules import RuleTable, concatenate
from surefoot.targets.cache import TableCache
from surefoot.targets.imagetables import FunctionColumns, empty_rules, function_columns
from surefoot.targets.kerneltables import KernelTables, load_module_rules
from surefoot.targets.layouts import KernelLayout
from surefoot.targets.modulefiles import ModuleFiles
from surefoot.targets.modules import LoadedModule
from surefoot.targets.modulesymbols import kept_functions
from surefoot.targets.names import NameColumn
from surefoot.targets.reading import DrgnMemory
from surefoot.unwind.code import CodeMap, Functions, TextWords

__all__ = [
    "Piece",
    "Provable",
    "build_code",
    "changed_words",
    "compare_text",
    "kernel_piece",
    "live_words",
    "module_piece",
]

_CHUNK = 1 << 21
"""Size of the pieces in which text is read where it cannot be read whole."""
_PAGE = 4096


@dataclass(frozen=True)
class Provable:
    """What a proof of the code of one image starts from; addresses are the image's, as `differ` has them.

    Attributes:
        build_id: of the image.
        bias: what the target's addresses are above the image's.
        rules: a table from `for_lookup`.
        ranges: (address, words) of the image's code.
        live: (address, words) of what the target has there, and of code of which the image has no words.
        gone: (address, words) of code that the target has freed.
        differ: words of `live` that differ from `ranges`.
        module: the image, placed, if it is a module.
        relocated: (r,) uint64, sorted, where a module's file has no final word.
    """

    build_id: str
    bias: int
    rules: RuleTable
    ranges: Sequence[tuple[int, Insn]]
    live: Sequence[tuple[int, Insn]]
    gone: Sequence[tuple[int, Insn]]
    differ: Differences
    module: Image | None
    relocated: Addr


@dataclass(frozen=True)
class Piece:
    """The code of one image at its run-time addresses.

    Attributes:
        functions: code ranges.
        rules: a table from `for_lookup`, None where there are none.
        text: (address, words) of the executable ranges as they are in the target, or were before it freed them.
        changed: (c,) uint64, words that differ from the image's in a way that no known mechanism of the kernel
            explains; ascending.
        provable: for proofs; None without rules.
    """

    functions: FunctionColumns
    rules: RuleTable | None
    text: Sequence[tuple[int, Insn]]
    changed: Addr
    provable: Provable | None = None


def live_words(memory: DrgnMemory, addr: int, size: int) -> list[tuple[int, Insn]]:
    """Read the instruction words of [addr, addr + size); parts that cannot be read are left out."""
    data = memory.read(addr, size & ~3)
    if data is not None:
        return [(addr, np.frombuffer(data, dtype="<u4"))]
    if size <= _PAGE:
        return []
    step = _CHUNK if size > _CHUNK else _PAGE
    found: list[tuple[int, Insn]] = []
    at = addr
    while at < addr + size:
        length = min(step - at % step, addr + size - at)
        found.extend(live_words(memory, at, length))
        at += length
    return found


def kernel_piece(
    memory: DrgnMemory, kernel: KernelTables, bias: int, freed: tuple[int, int] | None, build_id: str
) -> Piece:
    """Give the code of the kernel image.

    Code that the kernel has freed after boot stays known, with the words of the image: the boot CPU's idle task
    keeps return addresses into it for ever (start_kernel, which calls rest_init and does not return), and nothing
    else is ever mapped there (arch/arm64/mm/init.c: free_initmem).

    Args:
        memory: the target's memory.
        kernel: the image's tables.
        bias: KASLR offset.
        freed: link addresses [low, high) of what has been freed, None while the kernel boots.
        build_id: of the image.
    """
    low, high = freed or (0, 0)
    gone = [(addr + bias, words) for addr, words in kernel.text.ranges if low <= addr < high]
    kept = [(addr, words) for addr, words in kernel.text.ranges if not low <= addr < high]
    text = [part for addr, words in kept for part in live_words(memory, addr + bias, 4 * words.size)]
    differ = compare_text(kernel.mechanisms, kept, text, bias)
    functions, changed = kernel.functions.shifted(bias), changed_words(differ, bias)
    if kernel.rules is None:
        return Piece(functions, None, text + gone, changed)
    live = [(addr - bias, words) for addr, words in text]
    freed_code = [(addr - bias, words) for addr, words in gone]
    nowhere = np.zeros(0, dtype=np.uint64)
    provable = Provable(build_id, bias, kernel.rules, kept, live, freed_code, differ, None, nowhere)
    return Piece(functions, kernel.rules.shifted(bias), text + gone, changed, provable)


def compare_text(
    known: Mechanisms, ranges: Sequence[tuple[int, Insn]], text: Sequence[tuple[int, Insn]], bias: int
) -> Differences:
    """Compare live words with those of an image.

    Args:
        known: where the image may change.
        ranges: (address, words) of the image, addresses as placed.
        text: (address, words) of the target.
        bias: what the target's addresses are above the image's.

    Returns:
        the words that differ, by the image's addresses. Words that could not be read are not judged.
    """
    found = []
    for start, live in text:
        addr = start - bias
        for base, words in ranges:
            low, high = max(addr, base), min(addr + 4 * live.size, base + 4 * words.size)
            if low < high:
                part = words[(low - base) // 4 : (high - base) // 4]
                found.append(compare(low, part, live[(low - addr) // 4 : (high - addr) // 4], known))
    return join_differences(found)


def changed_words(differ: Differences, bias: int) -> Addr:
    """Give the run-time addresses of live words that no known mechanism explains.

    A kprobe's BRK counts as unexplained: the instruction under it is not at hand here.

    Args:
        differ: what differs, by the image's addresses.
        bias: what the target's addresses are above the image's.

    Returns:
        (c,) uint64, ascending.
    """
    unexplained = (differ.cause == Change.OTHER) | (differ.cause == Change.KPROBE)
    return np.sort(differ.addr[unexplained] + np.uint64(bias % 2**64))


def module_piece(
    memory: DrgnMemory, layout: KernelLayout, module: LoadedModule, files: ModuleFiles, cache: TableCache | None
) -> tuple[Piece, str]:
    """Give the code of a loaded module, and a note on what is missing ("" for nothing)."""
    image, note = files.open(module.name, module.build_id)
    if image is not None:
        try:
            return _from_file(memory, module, image, cache), ""
        except SurefootError as error:
            note = f"module {module.name}: {error}"
    functions, nothing = kept_functions(memory, layout, module), np.zeros(0, dtype=np.uint64)
    return Piece(functions, None, _module_text(memory, module), nothing), note


def _module_text(memory: DrgnMemory, module: LoadedModule) -> list[tuple[int, Insn]]:
    """Read a module's code whole: its veneers lie in sections that the kernel sizes when it loads the module."""
    return [part for addr, size in module.text for part in live_words(memory, addr, size)]


def _from_file(memory: DrgnMemory, module: LoadedModule, image: Image, cache: TableCache | None) -> Piece:
    """Give the code of a module whose file is at hand."""
    bases = image.sections.bases({name: addr for name, addr in module.sections.items() if module.holds(addr)})
    placed = image.placed(bases)
    rules = load_module_rules(image, cache)
    table = None if rules is None else rules.placed(bases).for_lookup()
    text = _module_text(memory, module)
    if not text:  # before v6.4 the blocks are not known: read what the file calls code
        wanted = [(addr, 4 * words.size) for addr, words in placed.text.ranges]
        text = [part for addr, size in wanted for part in live_words(memory, addr, size)]
    known, ranges = mechanisms(placed), placed.text.ranges
    differ = compare_text(known, ranges, text, 0)
    functions, changed = function_columns(placed), changed_words(differ, 0)
    if table is None:
        return Piece(functions, None, text, changed)
    provable = Provable(image.build_id, 0, table, ranges, text, [], differ, placed, known.relocated)
    return Piece(functions, table, text, changed, provable)


def build_code(pieces: Sequence[Piece], labels: dict[str, int]) -> CodeMap:
    """Join the code of the kernel and its modules.

    Args:
        pieces: at least the kernel's.
        labels: run-time addresses of the symbols that the walker asks for.
    """
    pieces = sorted(pieces, key=lambda piece: int(piece.functions.start[0]) if piece.functions.start.size else 0)
    columns = [piece.functions for piece in pieces]
    joined = FunctionColumns(
        np.concatenate([part.start for part in columns]),
        np.concatenate([part.end for part in columns]),
        np.concatenate([part.kind for part in columns]),
        NameColumn.join([part.names for part in columns]),
    )
    if bool(np.any(joined.start[1:] < joined.end[:-1])):  # modules with interleaved sections
        joined = joined.take(np.argsort(joined.start, kind="stable"))
        inside = np.append(False, joined.start[1:] < np.maximum.accumulate(joined.end)[:-1])
        joined = joined.take(np.flatnonzero(~inside))
    functions = Functions(joined.start, joined.end, joined.kind, joined.names)
    text = TextWords.from_ranges([part for piece in pieces for part in piece.text])
    rules = _join_rules([piece.rules for piece in pieces])
    changed = np.sort(np.concatenate([piece.changed for piece in pieces]))
    return CodeMap(functions, text, rules, changed=changed, labels=labels)


def _join_rules(tables: Sequence[RuleTable | None]) -> RuleTable:
    """Join tables from `for_lookup` into one of that kind."""
    present = [table for table in tables if table is not None and len(table)]
    if not present:
        return empty_rules()
    joined = concatenate(sorted(present, key=lambda table: int(table.start[0])))
    is_sorted = bool(np.all(joined.functions.end[:-1] <= joined.functions.start[1:]))
    return joined if is_sorted else joined.for_lookup()
