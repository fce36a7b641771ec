"""`surefoot demo` as `make demo` runs it, on a real kernel."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Final

import pytest

from surefoot.targets.vm import machines

pytestmark = [pytest.mark.kernel, pytest.mark.needs("qemu-system-aarch64", "apt-get", "dpkg")]

TIMEOUT_S: Final = 900


def test_the_demo_traces_every_task_of_a_real_kernel() -> None:
    """The whole flow works from nothing, gives traces with verdicts by both walks, and leaves no guest behind."""
    words = [sys.executable, "-m", "surefoot.cli.main", "--json", "demo", "--real", "--seconds", "1"]
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["schema"] == "surefoot.stack/1"
    count = answer["summary"]["tasks"]
    assert count == len(answer["tasks"]) > 50
    assert answer["summary"]["reliable"]["hybrid"] > count // 2
    assert any("fgraph" in frame["evidence"] for task in answer["tasks"] for frame in task["frames"])
    assert not [machine.name for machine in machines.running() if machine.name.startswith("demo-")]
