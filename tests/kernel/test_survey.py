"""Real dumps of a Debian arm64 kernel under load: what issue A's table in the README rests on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from surefoot.targets.vm import kernels, machines
from surefoot.unwind.reasons import Reason
from survey import SETTINGS, Survey, survey_guest, total

pytestmark = [pytest.mark.kernel, pytest.mark.needs("qemu-system-aarch64", "apt-get", "dpkg-deb")]

DUMPS = int(os.environ.get("SUREFOOT_SURVEY_DUMPS", "20"))
NAMED = {reason.name for reason in Reason}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Survey]]:
    kernel = kernels.find() if kernels.installed() else kernels.fetch()
    machine = machines.boot(kernel, name=f"survey-{os.getpid()}", timeout=300)
    try:
        yield survey_guest(machine, DUMPS, 1, Path(tmp_path_factory.mktemp("survey")))
    finally:
        machine.stop()


def test_blocked_tasks_show_what_the_kernel_itself_shows(results: dict[str, Survey]) -> None:
    """Every task that has not run since /proc/PID/stack was read has the same trace, or a named difference."""
    whole = total(results)
    assert whole.proc_unexplained == []
    assert whole.proc_equal + sum(whole.proc_explained.values()) == whole.proc_comparable
    assert whole.proc_comparable >= 15 * DUMPS  # 300 for the 20 dumps of a full run


def test_hybrid_is_reliable_wherever_fp_rightly_is(results: dict[str, Survey]) -> None:
    """Only the holes of the frame-pointer walk may be refused: a tracer that is being called."""
    for line in total(results).fp_only:
        assert Reason.IN_FTRACE_CALLER.name in line or Reason.TRAMPOLINE_WINDOW.name in line


def test_boundaries_are_crossed_or_the_reason_is_named(results: dict[str, Survey]) -> None:
    """Of the tasks that fp refuses because of an exception boundary most are reliable; the others say why."""
    whole = total(results)
    assert whole.boundary_tasks > 0
    assert whole.boundary_reliable > whole.boundary_tasks // 2
    assert set(whole.hybrid_refused) <= NAMED


def test_no_function_is_missing_that_drgn_shows(results: dict[str, Survey]) -> None:
    """Drgn is a best-effort peer: whatever it shows as a real frame, hybrid shows as well or has refused."""
    whole = total(results)
    assert whole.drgn_frames > 0
    assert whole.drgn_missing == []


def test_tracing_is_seen_through(results: dict[str, Survey]) -> None:
    """With tracing on, rewritten return addresses are on the stacks and are recovered; without it there are none."""
    assert results["plain"].recovered == 0
    if len(SETTINGS) <= DUMPS:
        assert results["both"].recovered > 0
