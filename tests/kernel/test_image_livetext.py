"""The text of a running kernel is its image's, but for what the known mechanisms wrote."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from surefoot.image.files import open_image
from surefoot.image.livetext import Change, compare, mechanisms
from surefoot.targets.vm import hole, kernels, machines

pytestmark = [pytest.mark.kernel, pytest.mark.needs("qemu-system-aarch64", "apt-get", "dpkg")]


@pytest.fixture(scope="module")
def kernel() -> kernels.Kernel:
    return kernels.fetch()


@pytest.fixture(scope="module")
def dump(kernel: kernels.Kernel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """A dump with the function-graph tracer and a kretprobe on, and how far KASLR moved the kernel."""
    machine = machines.boot(kernel, name=f"text-{os.getpid()}")
    try:
        machine.trace_on(kretprobes=["do_wait"])
        path = machine.dump(tmp_path_factory.mktemp("dump") / "vmcore").path
        info = re.search(rb"KERNELOFFSET=([0-9a-f]+)", path.read_bytes()[: 1 << 20])
        assert info
        yield path, int(info[1], 16)
    finally:
        machine.stop()


def test_nothing_in_text_is_left_unexplained(kernel: kernels.Kernel, dump: tuple[Path, int]) -> None:
    path, moved = dump
    image = open_image(kernel.vmlinux)
    program = hole.open_dump(path, kernel.vmlinux)
    known = mechanisms(image)
    causes = np.zeros(len(Change), dtype=np.int64)
    for name in (".text", ".rodata.text"):
        index = image.sections.find(name)[0]
        words = image.elf.words(index)
        addr = int(image.sections.addr[index])
        live = np.frombuffer(program.read(addr + moved, 4 * words.size), dtype="<u4")
        found = compare(addr, words, live, known)
        assert [hex(place) for place in found.unexplained.tolist()] == []
        causes += np.bincount(found.cause, minlength=len(Change))
    assert causes[Change.PATCH_SITE] > 40_000
    assert causes[Change.KPROBE] == 1
    assert causes[Change.ALTERNATIVE] > 10_000
    assert causes[Change.JUMP_LABEL] > 100
    assert causes[Change.RUNTIME_CONST] > 10
