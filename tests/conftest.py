"""What every test shares: hypothesis profiles, and honesty about skipped kernel tests.

A test marked `kernel` may need tools or downloads that a machine lacks. On a developer's machine it is then skipped
with its reason; under CI=true the same skip is a failure, whatever its cause. A run that was asked for kernel tests
and skipped every one of them fails everywhere: it has shown nothing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("quick", max_examples=50, deadline=None)
settings.register_profile("long", max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

_MARKED = ("kernel", "slow")
_outcomes = pytest.StashKey[dict[str, str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker by which a test names the tools that it runs."""
    config.addinivalue_line("markers", "needs(*tools): programs on PATH without which the test cannot run")
    config.stash[_outcomes] = {}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose tools are missing; under CI the report hook turns that into a failure."""
    tools = [str(tool) for marker in item.iter_markers("needs") for tool in marker.args]
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not on PATH: {', '.join(missing)}")


def _must_run() -> bool:
    """Say whether a skipped kernel test counts as a failure."""
    return os.environ.get("CI", "").lower() in {"1", "true", "yes"}


def _skip_reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Give the words with which a test was skipped."""
    return report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn the skip of a kernel test into a failure under CI, and remember how each one ended."""
    report = yield
    if not any(item.get_closest_marker(name) for name in _MARKED):
        return report
    if report.skipped and not hasattr(report, "wasxfail") and _must_run():
        report.longrepr = f"skipped, which CI=true does not allow for kernel and slow tests: {_skip_reason(report)}"
        report.outcome = "failed"
    if report.when == "call" or report.outcome != "passed":
        item.config.stash[_outcomes][item.nodeid] = report.outcome
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn the skip of a whole file under tests/kernel into a failure under CI."""
    report = yield
    wants_kernel = "kernel" in collector.path.parts and str(collector.config.option.markexpr).startswith("kernel")
    if report.skipped and wants_kernel and _must_run():
        report.longrepr = f"file skipped, which CI=true does not allow: {_skip_reason(report)}"
        report.outcome = "failed"
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that chose kernel or slow tests and passed none of them."""
    outcomes = session.config.stash[_outcomes]
    if outcomes and "passed" not in outcomes.values() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say why a run without a failed test is not a success."""
    outcomes = terminalreporter.config.stash[_outcomes]
    if outcomes and set(outcomes.values()) == {"skipped"}:
        terminalreporter.write_line(
            "every kernel and slow test was skipped: nothing was shown, the run fails", red=True
        )
