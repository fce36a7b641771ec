"""A run of kernel tests is honest: it cannot succeed by leaving everything out."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Protocol

import pytest

pytest_plugins = ["pytester"]

CONFTEST: Final = Path(__file__).parent / "conftest.py"
OPTIONS: Final = ("-p", "no:cacheprovider", "-p", "no:randomly", "-m", "kernel or slow", "-ra")
SKIPPED: Final = "import pytest\n\n@pytest.mark.kernel\ndef test_a():\n    pytest.skip('no guest')\n"
NEEDY: Final = "import pytest\n\n@pytest.mark.slow\n@pytest.mark.needs('no-such-tool')\ndef test_b():\n    pass\n"
GOOD: Final = "import pytest\n\n@pytest.mark.kernel\ndef test_c():\n    pass\n"
WHOLE_FILE: Final = "import pytest\n\npytest.skip('no qemu', allow_module_level=True)\n"
EXPECTED: Final = "import pytest\n\n@pytest.mark.kernel\n@pytest.mark.xfail\ndef test_d():\n    raise ValueError\n"


class Run(Protocol):
    """Run test files in a folder of their own."""

    def __call__(self, *texts: str, ci: bool) -> pytest.RunResult:
        """Give the outcome."""
        ...


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Give a function that runs test files under the project's conftest, with or without CI."""

    def go(*texts: str, ci: bool) -> pytest.RunResult:
        pytester.makeconftest(CONFTEST.read_text(encoding="utf-8"))
        pytester.makeini("[pytest]\nmarkers =\n    kernel: x\n    slow: x\n")
        for number, text in enumerate(texts):
            path = pytester.path / "kernel" / f"test_{number}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        if ci:
            monkeypatch.setenv("CI", "true")
        else:
            monkeypatch.delenv("CI", raising=False)
        return pytester.runpytest_inprocess(*OPTIONS)

    return go


def test_a_run_that_skipped_everything_fails(run: Run) -> None:
    """Without CI a skip is a skip, but a run in which nothing passed has shown nothing."""
    result = run(SKIPPED, NEEDY, ci=False)
    assert result.parseoutcomes() == {"skipped": 2}
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["every kernel and slow test was skipped*", "*not on PATH: no-such-tool*"])


def test_a_run_that_skipped_some_passes_without_ci(run: Run) -> None:
    """On a developer's machine a part may be left out, with its reason."""
    result = run(SKIPPED, GOOD, ci=False)
    assert result.parseoutcomes() == {"skipped": 1, "passed": 1}
    assert result.ret == pytest.ExitCode.OK


def test_a_skip_is_a_failure_under_ci(run: Run) -> None:
    """Under CI every kernel and slow test has to run, whether it skips itself or lacks a tool."""
    result = run(SKIPPED, NEEDY, GOOD, ci=True)
    assert result.parseoutcomes() == {"failed": 1, "errors": 1, "passed": 1}
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*CI=true does not allow*no guest*"])


def test_a_skipped_file_is_a_failure_under_ci(run: Run) -> None:
    """A file under kernel/ that skips itself as a whole does not go unnoticed."""
    assert run(WHOLE_FILE, GOOD, ci=True).ret != pytest.ExitCode.OK
    assert run(WHOLE_FILE, GOOD, ci=False).ret == pytest.ExitCode.OK


def test_an_expected_failure_is_no_skip(run: Run) -> None:
    """A test marked xfail has run."""
    assert run(EXPECTED, GOOD, ci=True).parseoutcomes() == {"xfailed": 1, "passed": 1}


def test_a_run_without_tests_fails(run: Run) -> None:
    """Nothing collected is not a success."""
    assert run("", ci=True).ret == pytest.ExitCode.NO_TESTS_COLLECTED
