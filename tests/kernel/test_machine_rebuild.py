"""The machine's kernels are what their recipe makes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from surefoot.image.binary import decode_image
from surefoot.image.rules import load_rules
from surefoot.machine.loader import Variant
from surefoot.targets.vm import sid

SOURCES = Path(__file__).parents[2] / "src" / "surefoot" / "machine" / "kernel"
PINNED = dict(line.split() for line in (SOURCES / "TOOLCHAIN").read_text(encoding="utf-8").splitlines())
CROSS = "aarch64-linux-gnu-"


@pytest.mark.kernel
@pytest.mark.needs("apt-get", "dpkg")
def test_rebuilding_gives_identical_bytes() -> None:
    """The pinned tools make the files that ship, to the byte; other versions make kernels of the same functions."""
    with sid.using("machine"):
        root = sid.prepare("machine", [*PINNED, "make", *sid.BASE])
        work = root.folder / "machine"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(SOURCES, work)
        make = ["make", f"CROSS_COMPILE={CROSS}", f"CC={CROSS}gcc-16", "OUT=/machine/out", "all"]
        done = subprocess.run(root.inside(make, cwd="/machine"), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        same = all(root.version(name) == version for name, version in PINNED.items())
        for variant in Variant:
            name = f"kernel-{variant}.elf"
            built, shipped = (work / "out" / name).read_bytes(), (SOURCES / name).read_bytes()
            if same:
                assert built == shipped, name
            else:
                rules = [load_rules(decode_image(np.frombuffer(data, dtype=np.uint8))) for data in (built, shipped)]
                assert rules[0].functions.start.size == pytest.approx(rules[1].functions.start.size, rel=0.1)
        shutil.rmtree(work)
