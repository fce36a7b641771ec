"""SFrame of whole kernels: converted from their CFI, equal to it at every instruction address."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import pytest

import sframe_tools
from built_kernel import NEEDS, small_scs_kernel
from surefoot.cli.main import run
from surefoot.image.anyelf import decode_any_elf
from surefoot.image.elfwrite import sframe_address
from surefoot.image.files import map_file, open_image
from surefoot.image.rules import load_rules
from surefoot.metadata import sframe
from surefoot.metadata.compare import compare
from surefoot.metadata.rules import Provenance, RuleTable
from surefoot.targets.vm import kernels

pytestmark = [pytest.mark.kernel, pytest.mark.needs(*NEEDS)]

CFI: Final = (Provenance.DEBUG_FRAME, Provenance.EH_FRAME)
MODULES: Final = 200
SEED: Final = 20261122
"""Chooses the modules: random.Random(SEED).sample over their sorted paths."""
Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def debian() -> kernels.Kernel:
    return kernels.fetch()


def convert(path: Path) -> tuple[RuleTable, sframe.Built, bytes]:
    """Give a file's CFI, what it was converted to, and the bytes."""
    elf = decode_any_elf(map_file(path), path.name)
    reference = load_rules(open_image(path), CFI)
    built = sframe.from_rules(reference, section_addr=sframe_address(elf), relocatable=elf.is_relocatable)
    return reference, built, sframe.encode(built.section)


def assert_equal_everywhere(reference: RuleTable, built: sframe.Built, data: bytes) -> int:
    """Hold that a section equals the CFI at every address; give the number of instruction addresses."""
    again = sframe.decode(data, section_addr=built.section.address, relocations=built.relocations)
    result = compare(again.to_rules(), reference)
    assert result.is_equal
    assert result.disputed == (0, 0)
    assert result.bytes_equal == result.bytes_both
    return result.bytes_both // 4


def test_debian_s_kernel_is_covered_and_equal(debian: kernels.Kernel, record_testsuite_property: Record) -> None:
    reference, built, data = convert(debian.vmlinux)
    assert built.left_out == ()
    assert built.section.num_fdes == len(reference.functions) > 50_000
    addresses = assert_equal_everywhere(reference, built, data)
    record_testsuite_property("debian", [built.section.num_fdes, built.section.num_fres, len(data), addresses])
    assert addresses > 4_000_000
    assert sframe.check(data, section_addr=built.section.address, machine=183) == []


def test_debian_s_modules_are_covered_and_equal(debian: kernels.Kernel, record_testsuite_property: Record) -> None:
    every = sorted(debian.debug_modules.rglob("*.ko"))
    chosen = random.Random(SEED).sample(every, min(MODULES, len(every)))
    functions = addresses = 0
    for path in chosen:
        if not any(decode_any_elf(map_file(path), path.name).find(name) for name in (".debug_frame", ".eh_frame")):
            continue
        reference, built, data = convert(path)
        assert built.left_out == (), path.name
        addresses += assert_equal_everywhere(reference, built, data)
        functions += built.section.num_fdes
    record_testsuite_property("modules", [len(chosen), functions, addresses])
    assert functions > 5_000


def test_readelf_reads_a_converted_kernel_and_module(debian: kernels.Kernel, tmp_path: Path) -> None:
    """The whole text is compared: half a million lines for the kernel."""
    tools = sframe_tools.newest()
    module = min((p for p in debian.debug_modules.rglob("*.ko") if p.stat().st_size > 500_000), key=lambda p: p.name)
    for path in (debian.vmlinux, module):
        out = tmp_path / path.name
        assert run(["sframe", "convert", str(path), "-o", str(out), "-q"]) == 0
        elf = decode_any_elf(map_file(out), out.name)
        index = elf.find(".sframe")[0]
        relocations = elf.relocations(index) if elf.is_relocatable else None
        section = sframe.decode(elf.section_bytes(index), section_addr=elf.addr(index), relocations=relocations)
        assert sframe.dump_readelf(section) == tools.readelf(out)
        assert not tools.run("aarch64-linux-gnu-readelf", "-SlW", out).stderr
        out.unlink()


def test_speed_on_debian_s_kernel(debian: kernels.Kernel) -> None:
    """Floors far below what is measured (see benchmarks/bench_sframe.py), so that only a broken algorithm fails."""
    reference, built, data = convert(debian.vmlinux)
    begin = time.process_time()
    sframe.encode(built.section)
    encoded = time.process_time()
    sframe.decode(data, section_addr=built.section.address).to_rules()
    decoded = time.process_time()
    rows = built.section.num_fres
    assert rows / (encoded - begin) > 1_000_000
    assert rows / (decoded - encoded) > 2_000_000
    assert len(reference) > rows


def test_a_kernel_with_shadow_call_stack_is_covered_and_equal(record_testsuite_property: Record) -> None:
    """Gas leaves most functions of this kernel without SFrame; flexible descriptors hold every one of them."""
    vmlinux = small_scs_kernel().kernel.vmlinux
    reference, built, data = convert(vmlinux)
    assert built.left_out == ()
    assert built.section.num_fdes == len(reference.functions)
    addresses = assert_equal_everywhere(reference, built, data)
    flexible = int(built.section.tables[0].fdes.is_flex.sum())
    record_testsuite_property("scs", [built.section.num_fdes, flexible, built.section.num_fres, len(data), addresses])
    assert flexible > 5_000
    codes = {item.code for item in sframe.check(data, section_addr=built.section.address, machine=183)}
    assert codes <= {"sframe-below-sp"}


def test_what_gas_wrote_for_that_kernel(record_testsuite_property: Record) -> None:
    """It equals the CFI where it speaks, and is no smaller than ours for the same functions."""
    vmlinux = small_scs_kernel().kernel.vmlinux
    elf = decode_any_elf(map_file(vmlinux), vmlinux.name)
    index = elf.find(".sframe")[0]
    gas = sframe.decode(elf.section_bytes(index), section_addr=elf.addr(index))
    assert sframe.encode(gas) == elf.section_bytes(index).tobytes()
    assert sframe.dump_readelf(gas) == sframe_tools.newest().readelf(vmlinux)
    reference = load_rules(open_image(vmlinux), CFI)
    result = compare(gas.to_rules(), reference)
    assert not (result.aspects & ~np.uint8(2)).any()
    covered = np.flatnonzero(~np.isin(reference.functions.start, gas.tables[0].fdes.start))
    rules = reference.take_rows(np.flatnonzero(~np.isin(reference.func, covered)))
    ours = sframe.encode(sframe.from_rules(rules, section_addr=gas.address).section)
    record_testsuite_property("sizes", [gas.size, len(ours)])
    assert len(ours) <= gas.size
