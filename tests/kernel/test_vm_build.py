"""`surefoot vm build` for real: a kernel with shadow call stack is built, booted, patched live, dumped and traced."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from built_kernel import NEEDS, SMALL, small_scs_kernel
from surefoot.targets.vm import kconfig, kernels, machines, recipe, sid
from surefoot.targets.vm.build import ROOT, Built

pytestmark = [pytest.mark.kernel, pytest.mark.needs("qemu-system-aarch64", *NEEDS)]

_SCS_REASON = "FP without RA on stack"


@pytest.fixture(scope="module")
def built() -> Built:
    """Give the kernel, built or out of the cache."""
    return small_scs_kernel()


@pytest.fixture(scope="module")
def kernel(built: Built) -> kernels.Kernel:
    return built.kernel


@pytest.fixture(scope="module")
def machine(kernel: kernels.Kernel) -> Iterator[machines.Machine]:
    """Give a guest with load that runs the kernel, gone when the tests are."""
    running = machines.boot(kernels.find(name=kernel.name), name=f"test-build-{os.getpid()}")
    try:
        yield running
    finally:
        running.stop()


def _surefoot(*words: str | Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "surefoot.cli.main", *map(str, words), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in {0, 1}, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_the_manifest_says_what_the_kernel_is_made_of(kernel: kernels.Kernel) -> None:
    made = kernel.build
    assert kernel.release == kernel.name
    assert kernel.release.endswith(f"-{SMALL.label}")
    assert kernel.build_id == kernels.read_build_id(kernel.vmlinux)
    assert made["options"] == SMALL.options
    assert made["key"] == SMALL.key(next(iter(kernel.packages.values()))["version"], made["toolchain"])
    assert len(made["toolchain"]) >= 3
    config = kconfig.parse((kernel.folder / "config").read_text())
    assert kconfig.refused(made["options"], config) == made["refused"] == {}


def test_building_again_is_a_look_into_the_cache(built: Built) -> None:
    begin = time.monotonic()
    again = small_scs_kernel()
    assert again == Built(built.kernel, new=False)
    assert time.monotonic() - begin < 5


def test_nothing_of_the_build_is_left(built: Built) -> None:
    root = sid.open_root(ROOT)
    assert not (root.folder / "build").exists()
    assert not list((root.folder / "dev").iterdir())
    folder = built.kernel.folder.parent
    assert not [path.name for path in folder.iterdir() if path.name.startswith(f".{built.kernel.name}")]


def test_the_assembler_leaves_most_functions_without_sframe(kernel: kernels.Kernel) -> None:
    """It drops thousands, for one reason; what it keeps is in the image, so the image has too little."""
    dropped = kernel.build["sframe_dropped"]
    assert set(dropped) == {_SCS_REASON}
    assert dropped[_SCS_REASON] > 8000
    log = (kernel.folder / "build.log").read_text("utf-8", "replace")
    assert recipe.dropped_functions(log) == dropped
    stat = _surefoot("sframe", "stat", kernel.vmlinux)
    assert stat["version"] == 3
    assert 1000 < stat["fdes"] < dropped[_SCS_REASON]
    text = stat["coverage"][".text"]
    assert text["covered"] < text["size"] / 2


def test_tools_of_the_root_run_inside_it_and_on_files_outside(tmp_path: Path) -> None:
    root = sid.open_root(ROOT)
    words = ["/bin/sh", "-c", "aarch64-linux-gnu-as --version && test -c /dev/null"]
    done = subprocess.run(root.inside(words), capture_output=True, text=True, check=True)
    direct = subprocess.run(
        [*root.tool("aarch64-linux-gnu-as"), "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == direct.stdout
    # One program on the system's own files needs no way in at all.
    source, result = tmp_path / "a.s", tmp_path / "a.o"
    source.write_text(".cfi_startproc\nret\n.cfi_endproc\n")
    subprocess.run([*root.tool("aarch64-linux-gnu-as"), "--gsframe", "-o", result, source], check=True)
    assert _surefoot("sframe", "stat", result)["fdes"] == 1


def test_a_live_patch_of_the_kernels_own_samples_goes_in(machine: machines.Machine) -> None:
    assert machine.console.check("uname -r").strip() == machine.kernel.release
    assert "test_klp_livepatch.ko" in machine.console.check("ls /livepatch").split()
    before = machine.console.check("cat /proc/cmdline")
    machine.console.check("insmod /livepatch/livepatch-sample.ko")
    state = "/sys/kernel/livepatch/livepatch_sample"
    deadline = time.monotonic() + 60
    while machine.console.check(f"cat {state}/transition").strip() != "0":
        assert time.monotonic() < deadline, "the transition does not end"
        time.sleep(0.5)
    assert machine.console.check(f"cat {state}/enabled").strip() == "1"
    assert machine.console.check("cat /proc/cmdline") == "this has been live patched\n"
    machine.console.check(f"echo 0 >{state}/enabled")
    while machine.console.check(f"cat {state}/transition 2>/dev/null || echo 0").strip() != "0":
        assert time.monotonic() < deadline, "the transition does not end"
        time.sleep(0.5)
    assert machine.console.check("cat /proc/cmdline") == before


def test_stacks_of_the_kernel_are_traced(machine: machines.Machine, tmp_path: Path) -> None:
    """With shadow call stack too, hybrid is certain of more stacks than the kernel's own walk."""
    made = machine.dump(tmp_path / "guest.vmcore")
    try:
        files = ("--vmcore", made.path, "--vmlinux", made.kernel.vmlinux, "--modules", made.kernel.debug_modules)
        summary = _surefoot("stack", *files)["summary"]
    finally:
        made.path.unlink()
    assert summary["tasks"] > 50
    assert summary["reliable"]["hybrid"] >= 0.9 * summary["tasks"]
    assert summary["reliable"]["hybrid"] >= summary["reliable"]["fp"]
    assert not summary["differences"]["fp_only"]
