"""Databases for whole federations, and a table of what was killed and what became of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pytest

from tests import postgres
from tests.chaos.consortium import Course

# "recomputed": with noise no two runs are alike; what was published is what its sealed manifests give, bit by bit
COLUMNS = ("kind", "runs", "kills", "restarts", "same hash", "seconds a run (median, most)", "all")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    with postgres.serving() as server:
        yield server


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Callable[[Path], str]:
    """The URL of a new database for a folder; of PostgreSQL where the test says so by `indirect`."""
    if getattr(request, "param", "sqlite") == "sqlite":
        return lambda folder: f"sqlite:///{folder / 'aggregator.db'}"
    server = request.getfixturevalue("postgres_server")
    return lambda folder: server.url(server.create())


@dataclass(frozen=True)
class Notes:
    """What a test has to tell at the end of all of them."""

    properties: list[tuple[str, object]]

    def __call__(self, kind: str, course: Course) -> None:
        """A run that held what it must, for the table."""
        told = (kind, course.kills, course.restarts, course.same, round(course.seconds, 1))
        self.properties.append(("chaos", told))

    def say(self, line: str) -> None:
        """A line of its own."""
        self.properties.append(("said", line))


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Notes:
    return Notes(request.node.user_properties)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows: dict[str, list[tuple[int, int, bool, float]]] = {}
    said: list[str] = []
    for reports in terminalreporter.stats.values():
        for report in reports:
            if type(report) is pytest.TestReport and report.when == "call":  # that of a subtest repeats its test's
                for name, told in report.user_properties:
                    if name == "said":
                        said.append(told)
                    elif name == "chaos":
                        rows.setdefault(told[0], []).append(tuple(told[1:]))
    if not rows:
        return
    terminalreporter.section("kills")
    for line in said:
        terminalreporter.write_line(line)
    table = [COLUMNS, *(_line(kind, of_kind) for kind, of_kind in rows.items())]
    widths = [max(len(line[place]) for line in table) for place in range(len(COLUMNS))]
    for line in table:
        terminalreporter.write_line("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))


def _line(kind: str, rows: list[tuple[int, int, bool, float]]) -> tuple[str, ...]:
    kills, restarts, same, seconds = zip(*rows, strict=True)
    told = f"{sum(each is True for each in same)} of {len(same)}" if None not in same else "recomputed"
    spread = f"{median(seconds):.1f}, {max(seconds):.1f}"
    return kind, str(len(rows)), str(sum(kills)), str(sum(restarts)), told, spread, f"{sum(seconds):.0f} s"
