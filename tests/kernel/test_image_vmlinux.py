"""Debian's newest kernel and its modules, read and held against readelf, nm and the kernel's own kallsyms."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from surefoot.dtypes import Addr
from surefoot.image import tables
from surefoot.image.binary import Image, ImageKind
from surefoot.image.files import open_image
from surefoot.image.relocate import region_at, relr_places
from surefoot.image.rules import load_rules, rule_sources
from surefoot.image.symbols import SymbolKind
from surefoot.metadata.rules import Provenance
from surefoot.targets.vm import kernels

READELF: Final = "aarch64-linux-gnu-readelf"
pytestmark = [pytest.mark.kernel, pytest.mark.needs(READELF, "apt-get", "dpkg")]

KNOWN: Final = {
    "b114001d8228c02ea1c3170732da3a7b611ce811": {  # Debian 7.3.4 cloud-arm64
        "sites": 49172,
        "dropped": 356,
        "extable": {2: 902, 3: 21, 4: 6, 5: 9},
        "alternatives": (28838, 12770),
    }
}
"""Counts of kernels that were examined by other means, by build-id."""
BINDINGS: Final = ("LOCAL", "GLOBAL", "WEAK")
KINDS: Final = ("NOTYPE", "OBJECT", "FUNC")


@pytest.fixture(scope="module")
def kernel() -> kernels.Kernel:
    return kernels.fetch()


@pytest.fixture(scope="module")
def image(kernel: kernels.Kernel) -> Image:
    return open_image(kernel.vmlinux)


@pytest.fixture(scope="module")
def modules(kernel: kernels.Kernel) -> list[Path]:
    """Every fourth of the modules with debug symbols."""
    return sorted(kernel.debug_modules.rglob("*.ko"))[::4]


def readelf(*arguments: str) -> str:
    return subprocess.run([READELF, *arguments], capture_output=True, text=True, check=True).stdout


def symbols_of(path: Path) -> set[tuple[str, int, int, str, str]]:
    """(name, value, size, type, binding) of every symbol that names code or data, from readelf -s."""
    found = set()
    for line in readelf("-sW", str(path)).splitlines():
        parts = line.split()
        if len(parts) < 8 or parts[3] not in KINDS or parts[6] == "UND":
            continue
        name = parts[-1]
        if re.match(r"(__pi_|__kvm_nvhe_)?(\$|\.L)", name):
            continue
        found.add((name, int(parts[1], 16), int(parts[2], 0), parts[3], parts[4]))
    return found


def test_every_symbol_is_readelfs(image: Image, kernel: kernels.Kernel) -> None:
    symbols = image.symbols
    ours = {
        (
            symbols.name(i),
            int(symbols.addr[i]),
            int(symbols.size[i]),
            KINDS[symbols.kind[i]],
            BINDINGS[symbols.binding[i]],
        )
        for i in range(len(symbols))
    }
    assert ours == symbols_of(kernel.vmlinux)
    functions = image.functions
    code = {functions.name(i) for i in np.flatnonzero(functions.kind == SymbolKind.FUNC).tolist()}
    assert code == {name for name, _, _, kind, _ in ours if kind == "FUNC"}


def test_sections_and_build_id_are_readelfs(image: Image, kernel: kernels.Kernel) -> None:
    assert image.build_id == kernel.build_id
    found = re.search(r"Build ID: ([0-9a-f]+)", readelf("-nW", str(kernel.vmlinux)))
    assert found
    assert image.build_id == found[1]
    rows = re.findall(
        r"\[ *(\d+)\] (\S+) +\S+ +([0-9a-f]{16}) ([0-9a-f]+) ([0-9a-f]+)", readelf("-SW", str(kernel.vmlinux))
    )
    table = image.sections
    assert len(rows) == len(table) - 1
    for number, name, addr, offset, size in rows:
        i = int(number)
        got = (table.names[i], int(table.addr[i]), int(table.offset[i]), int(table.size[i]))
        assert got == (name, int(addr, 16), int(offset, 16), int(size, 16))


def test_it_is_fast_and_does_not_read_the_file(kernel: kernels.Kernel) -> None:
    """Functions of a 400 MB kernel in 0.15 s, in a process that never holds more than a third of the file."""
    spent = []
    for _ in range(5):
        started = time.perf_counter()
        fresh = open_image(kernel.vmlinux)
        assert fresh.functions.ranges.start.size > 50_000
        spent.append(time.perf_counter() - started)
    assert min(spent) < 0.15
    script = (
        "import sys\n"
        "from surefoot.image.files import open_image\n"
        "open_image(sys.argv[1]).functions.find('schedule')\n"
        "print([line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')][0])\n"
    )
    run = [sys.executable, "-c", script, str(kernel.vmlinux)]
    used = 1024 * int(subprocess.run(run, capture_output=True, text=True, check=True).stdout)
    assert used < kernel.vmlinux.stat().st_size / 3


def kallsyms(image: Image) -> tuple[Addr, list[str]]:
    """Decode the kernel's own symbol table, plainly (kernel/kallsyms.c:kallsyms_expand_symbol)."""

    def blob(first: str, last: str) -> bytes:
        start, stop = image.symbols.address_of(first), image.symbols.address_of(last)
        assert start is not None
        assert stop is not None
        return region_at(image, start, stop, first).data.tobytes()

    count = int.from_bytes(blob("kallsyms_num_syms", "kallsyms_names")[:4], "little")
    stream, text = blob("kallsyms_names", "kallsyms_markers"), blob("kallsyms_token_table", "kallsyms_token_index")
    index = np.frombuffer(blob("kallsyms_token_index", "kallsyms_offsets")[:512], dtype="<u2").tolist()
    tokens = [text[at : text.index(b"\0", at)] for at in index]
    names, at = [], 0
    for _ in range(count):
        size = stream[at]
        at += 1
        if size & 0x80:
            size = (size & 0x7F) | stream[at] << 7
            at += 1
        names.append(b"".join(tokens[byte] for byte in stream[at : at + size])[1:].decode())
        at += size
    offsets = np.frombuffer(blob("kallsyms_offsets", "kallsyms_seqs_of_names")[: 4 * count], dtype="<i4")
    place = image.symbols.address_of("kallsyms_offsets")  # each offset is relative to itself
    assert place is not None
    here = np.uint64(place) + np.arange(count, dtype=np.uint64) * np.uint64(4)
    return here + offsets.astype(np.int64).view(np.uint64), names


def test_aliases_are_the_kernels_own_choice(image: Image) -> None:
    """At every address in text, the name is the first that the kernel's own kallsyms has there."""
    addrs, names = kallsyms(image)
    assert bool(np.all(addrs[1:] >= addrs[:-1]))
    inside = np.flatnonzero(image.text.contains(addrs))
    first = inside[np.append(True, addrs[inside][1:] != addrs[inside][:-1])]
    assert first.size > 50_000
    functions = image.functions
    found = functions.nearest(addrs[first])
    assert not np.any(found < 0)
    ours = [functions.name(row) for row in found.tolist()]
    assert [(hex(addrs[k]), a, names[k]) for k, a in zip(first.tolist(), ours, strict=True) if a != names[k]] == []


def test_names_come_in_the_kernels_own_order(image: Image) -> None:
    """Names that occur several times: old_sympos counts the same positions as kallsyms."""
    addrs, names = kallsyms(image)
    places: dict[str, list[int]] = {}
    for addr, name in zip(addrs.tolist(), names, strict=True):
        places.setdefault(name, []).append(addr)
    text = {name for name, found in zip(names, image.text.contains(addrs).tolist(), strict=True) if found}
    several = [name for name, found in places.items() if len(found) > 1 and name in text]
    assert len(several) > 300
    for name, rows in zip(several, image.symbols.find_many(several), strict=True):
        assert image.symbols.addr[rows].tolist() == places[name]


def test_every_function_contains_its_addresses(image: Image) -> None:
    """Start and last byte of every sized function lead back to its own address range."""
    functions = image.functions
    sized = np.flatnonzero((functions.kind == SymbolKind.FUNC) & (functions.size > 0))
    start, last = functions.addr[sized], functions.end[sized] - np.uint64(1)
    at = functions.lookup(start)
    assert bool(np.all(functions.addr[at] == start))
    assert bool(np.mean(functions.lookup(last) == at) > 0.999)  # a few contain other symbols


def test_patch_sites(image: Image) -> None:
    """Each is the second NOP of a function with four of them; the counts are those of readelf's section."""
    sites = tables.patch_sites(image)
    assert not np.any(sites.site == 0)
    for delta in (0, 4):
        words, good = image.text.words_at(sites.site - np.uint64(delta))
        assert bool(np.all(good & (words == 0xD503201F)))
    assert bool(np.all(image.functions.starts_at(sites.func)))
    pointers = relr_places(image.elf.section_bytes(image.sections.find(".relr.dyn")[0]).view("<u8"))
    first, last = (image.symbols.address_of(f"__{end}_mcount_loc") for end in ("start", "stop"))
    assert first is not None
    assert last is not None
    inside = (pointers >= np.uint64(first)) & (pointers < np.uint64(last))
    assert int(inside.sum()) == sites.entry.size + sites.dropped
    if image.build_id in KNOWN:
        known = KNOWN[image.build_id]
        assert (sites.entry.size, sites.dropped) == (known["sites"], known["dropped"])


def test_exception_table_and_alternatives(image: Image) -> None:
    extable = tables.exception_table(image)
    assert extable.insn.size == int(image.sections.size[image.sections.find("__ex_table")[0]]) // 12
    functions = image.functions
    assert bool(np.all(functions.lookup(extable.insn) == functions.lookup(extable.fixup)))
    found = tables.alternatives(image)
    assert found.orig.size == int(image.sections.size[image.sections.find(".altinstructions")[0]]) // 12
    assert bool(np.all(image.text.contains(found.orig) & image.text.contains(found.repl)))
    fixed = ~found.is_callback
    assert bool(np.all(found.orig_len[fixed] == found.repl_len[fixed]))
    jumps = tables.jump_table(image)
    words, _ = image.text.words_at(jumps.code)
    assert bool(np.all((words == 0xD503201F) | (words >> 26 == 5)))
    if image.build_id in KNOWN:
        known = KNOWN[image.build_id]
        types, counts = np.unique(extable.type, return_counts=True)
        assert dict(zip(types.tolist(), counts.tolist(), strict=True)) == known["extable"]
        assert (found.orig.size, int(found.is_callback.sum())) == known["alternatives"]


def test_rules_of_the_kernel(image: Image) -> None:
    assert rule_sources(image)[0] == Provenance.DEBUG_FRAME
    rules = load_rules(image)
    starts = image.functions.starts_at(rules.functions.start)
    assert float(np.mean(starts)) > 0.99


def test_modules(modules: list[Path]) -> None:
    """Every symbol is readelf's; tables point into text; every function descriptor lies in an executable section."""
    assert len(modules) > 10
    for path in modules:
        module = open_image(path)
        assert module.kind == ImageKind.MODULE
        assert module.build_id
        assert module.modinfo["name"].replace("-", "_") == path.stem.replace("-", "_")
        symbols = module.symbols
        ours = {
            (
                symbols.name(i),
                int(symbols.addr[i]),
                int(symbols.size[i]),
                KINDS[symbols.kind[i]],
                BINDINGS[symbols.binding[i]],
            )
            for i in range(len(symbols))
            if symbols.kind[i] < len(KINDS)
        }
        assert ours == symbols_of(path), path
        placed = module.laid_out()
        sites = tables.patch_sites(placed)
        assert not np.any(sites.site == 0), path
        assert bool(np.all(placed.text.contains(tables.exception_table(placed).insn))), path
        assert bool(np.all(placed.text.contains(tables.alternatives(placed).orig))), path
        assert bool(np.all(placed.text.contains(tables.jump_table(placed).target))), path
        if not placed.text.words:  # one that only carries data
            continue
        rules = load_rules(module).placed(placed.sections.addr)
        assert bool(np.all(placed.text.contains(rules.functions.start))), path
