"""Prints the seconds that each level of tests took; lets tests interrupt what they start, however they were started."""

import signal
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests import s3

LONG = {
    "test_embedded.py",
    "test_embedded_endings.py",
    "test_budget.py",
    "test_restore.py",
    "test_run_local.py",
    "test_site_crash.py",
}


def pytest_configure() -> None:
    """A shell starts jobs in the background with SIGINT ignored, and whatever they start would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first, so that neither of two processes waits for the other at the end."""
    items.sort(key=lambda item: item.path.name not in LONG)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    seconds: defaultdict[str, float] = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                path = Path(report.fspath)
                seconds[path.parts[path.parts.index("tests") + 1] if "tests" in path.parts else "?"] += report.duration
    levels = ", ".join(f"{level} {spent:.0f} s" for level, spent in sorted(seconds.items()))
    terminalreporter.write_line(f"seconds for each level: {levels}")


@pytest.fixture(autouse=True)
def log_as_it_comes() -> Iterator[None]:
    """What a test makes of the log is gone after it."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[s3.Server]:
    """One for all tests that ask for it; each takes a bucket of its own."""
    with s3.serving() as server:
        yield server
