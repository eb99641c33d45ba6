"""The loop that closes phases: what it says, and what it keeps, of runs that are paused or aborted meanwhile."""

import asyncio
from contextlib import contextmanager

import pytest
from structlog.testing import capture_logs

from deerfield.errors import Unreachable
from services.aggregator.driver import _close_one
from tests.fakes import run_spec
from tests.integration.aggregator.conftest import open_aggregator
from tests.integration.aggregator.teaching import kinds, sites


@pytest.fixture
def aggregator(tmp_path, clock):
    opened = open_aggregator(tmp_path / "aggregator", clock)
    yield opened
    opened.desk.store.close()


@pytest.fixture
def due(aggregator):
    """A run whose first phase is due."""
    run = aggregator.runs.start(run_spec("north", rounds=1), "once")
    assert sites(aggregator, run, "north")[0].step()
    return run


def close_one(aggregator, after=lambda: None, pauses_s=None):
    """Closes what is due, with something that happens once it is computed; answers what was logged."""

    @contextmanager
    def timed():
        yield
        after()

    with capture_logs() as lines:
        asyncio.run(_close_one(aggregator.coordinator, {} if pauses_s is None else pauses_s, timed))
    return [line["event"] for line in lines]


def test_a_phase_is_said_to_be_published_when_it_was(aggregator, due):
    assert "phase published" in close_one(aggregator)
    assert kinds(aggregator, due).count("phase_published") == 1


@pytest.mark.parametrize("verb", ["pause", "abort"])
def test_a_phase_that_was_dropped_is_not_said_to_be_published(aggregator, due, verb):
    assert "phase published" not in close_one(aggregator, lambda: getattr(aggregator.runs, verb)(due, "audit"))
    assert "phase_published" not in kinds(aggregator, due)


def test_nothing_is_kept_of_a_run_that_was_aborted(aggregator, due):
    def away():
        raise Unreachable("the tensors are away")

    pauses_s = {}
    assert "aggregation waits for its tensors" in close_one(aggregator, away, pauses_s)
    assert [key.run for key in pauses_s] == [due]
    other = aggregator.runs.start(run_spec("north", rounds=1), "other")
    assignment = sites(aggregator, other, "north")[0].link.next_task()
    assert aggregator.coordinator.heartbeat("north", assignment.key, 1, 2)
    assert len(aggregator.runs.progress(other)) == 1
    for run in (due, other):
        aggregator.runs.abort(run, "enough")
    assert aggregator.runs.progress(other) == []
    close_one(aggregator, pauses_s=pauses_s)
    assert pauses_s == {}
