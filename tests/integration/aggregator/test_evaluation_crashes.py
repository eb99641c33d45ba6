"""An evaluation whose aggregator dies at any point of it goes on, and ends as one that nothing has disturbed."""

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from services.aggregator.assembly import Aggregator, assemble_aggregator
from services.aggregator.blobstore.bucket import open_blobs
from services.aggregator.desk import Desk
from services.aggregator.rounds.recorder import Recorder, Untracked
from services.aggregator.sql.database import open_database
from services.aggregator.sql.store import Store
from tests.fakes import Clock, run_spec
from tests.integration.aggregator.conftest import open_aggregator, sqlite_in
from tests.integration.aggregator.teaching import finish, sites

SITES = ("north", "south")
KINDS = {  # that it must pass, or the points below are not all there are
    "run_started", "phase_open", "task_taken", "phase_collecting", "head_recorded", "upload_announced",
    "upload_sealed", "task_sealed", "phase_aggregating", "phase_published", "run_finished", "cursor_moved",
    "published",
}  # fmt: skip


class Killed(BaseException):
    """Goes through everything, as a process that is gone does."""


def drained(aggregator: Aggregator) -> None:
    Recorder(aggregator.desk.store, Untracked(), aggregator.desk.clock).drain()


def evaluated(aggregator: Aggregator) -> list[tuple[str, object]]:
    """The events of a run that scores the model of a finished one, and the base."""
    trained = next(each.model.digest for each in aggregator.runs.list() if each.spec.name == "trained")
    spec = run_spec(*SITES).model_copy(update={"strategy": {"name": "evaluate", "candidate": trained}})
    run = aggregator.runs.start(spec, "scored")
    together = sites(aggregator, run, *SITES)
    while aggregator.runs.get(run).state == "RUNNING":
        for each in together:
            each.step()
        closing = aggregator.coordinator.due()
        aggregator.coordinator.publish(closing, closing.compute())
    drained(aggregator)
    return [(event.kind, event.detail) for event in aggregator.runs.events(run, 0)]


@dataclass
class Finished:
    """What an aggregator has left whose one run has finished."""

    folder: Path
    desk: Desk

    def opened(self, folder: Path, reached: Callable[[str], None]) -> Aggregator:
        """An aggregator over a copy of it."""
        uploads, published = open_blobs(folder, on_durable=reached)
        store = Store(open_database(sqlite_in(folder), takeover_s=1), reached)
        return assemble_aggregator(replace(self.desk, store=store, uploads=uploads, published=published))

    def course(self, name: str, reached: Callable[[str], None]) -> list[tuple[str, object]]:
        """An evaluation's events, where an aggregator that is killed by what it reaches is started again."""
        folder = self.folder.with_name(name)
        shutil.copytree(self.folder, folder)
        while True:
            aggregator = self.opened(folder, reached)
            try:
                return evaluated(aggregator)
            except Killed:
                continue
            finally:
                aggregator.desk.store.close()


@pytest.fixture
def finished(tmp_path):
    aggregator = open_aggregator(tmp_path / "finished", Clock())
    finish(aggregator, run_spec(*SITES, rounds=1, name="trained"), "trained")
    drained(aggregator)
    aggregator.desk.store.close()
    return Finished(tmp_path / "finished", aggregator.desk)


@pytest.fixture
def calm(finished):
    """The events of an evaluation that nothing disturbs, and how often it reached each point."""
    points: list[str] = []
    return finished.course("calm", points.append), Counter(points)


def killing(points: list[str]) -> Callable[[str], None]:
    """Dies at the first of the `points`, which is taken away then, and so on."""

    def reached(point: str) -> None:
        if points[:1] == [point]:
            del points[0]
            raise Killed

    return reached


def test_deaths_one_after_another_change_nothing(finished, calm):
    events, points = calm
    assert {point.partition(":")[0] for point in points} >= KINDS
    left = [
        "published:after_rename",
        "run_started:after_commit",
        "upload_announced:before_commit",
        "upload_sealed:after_commit",
        "phase_aggregating:after_commit",
        "phase_published:before_commit",
        "phase_published:after_commit",
        "run_finished:before_commit",
    ]
    assert finished.course("killed", killing(left)) == events
    assert not left


@pytest.mark.e2e
def test_a_death_at_every_point_changes_nothing(finished, calm, subtests):
    events, points = calm
    for number, point in enumerate(points):
        with subtests.test(point=point):
            left = [point]
            assert finished.course(f"{number}", killing(left)) == events
            assert not left
