"""Ten thousand damaged stacks of a real kernel, walked to a verdict, and an independent judge of those accepted."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from damage import Survey, survey, watch_reads
from surefoot.targets.cache import TableCache
from surefoot.targets.capture import Capture
from surefoot.targets.vm import kernels, machines
from surefoot.targets.vmcore import open_vmcore

pytestmark = [pytest.mark.kernel, pytest.mark.needs("qemu-system-aarch64", "apt-get", "dpkg")]

DAMAGED = int(os.environ.get("SUREFOOT_DAMAGED", "10000"))
KRETPROBES = ("vfs_read", "do_wait", "do_nanosleep")


@pytest.fixture(scope="module")
def captures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Capture]]:
    """Give two captures of one guest: without tracing, and with the graph tracer and kretprobes."""
    folder: Path = tmp_path_factory.mktemp("robustness")
    kernel = kernels.find() if kernels.installed() else kernels.fetch()
    machine = machines.boot(kernel, name=f"robustness-{os.getpid()}")
    try:
        machine.console.check("sleep 3")
        machine.dump(folder / "plain")
        machine.trace_on(kretprobes=KRETPROBES)
        machine.console.check("sleep 3")
        machine.dump(folder / "traced")
    finally:
        machine.stop()
    cache = TableCache(folder)
    names = ("plain", "traced")
    yield [open_vmcore(folder / n, kernel.vmlinux, kernel.debug_modules, cache=cache).capture() for n in names]
    for name in names:
        (folder / name).unlink()


def test_damaged_stacks_are_refused_or_well_formed(
    captures: list[Capture], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No exception, no endless walk, no read outside; what is accepted is a stack of this code, and is rare."""
    reads = watch_reads(monkeypatch)
    total = Survey()
    for seed, capture in enumerate(captures):
        with pytest.MonkeyPatch.context() as patch:
            part = survey(capture, DAMAGED // len(captures), seed, patch)
        total.counts += part.counts
        total.accepted += part.accepted
    with capsys.disabled():
        lines = (f"{dict(total.counts)}, {reads['words']} words read", *total.accepted)
        sys.stdout.write("\n" + "\n  ".join(lines) + "\n")
    assert total.counts["damaged"] == DAMAGED // len(captures) * len(captures)
    assert total.counts["changed"] > DAMAGED // 4
    assert total.counts["rejected"] == 0
    assert total.counts["accepted"] * 20 < total.counts["accepted without call sites"]
