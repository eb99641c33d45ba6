"""Sites that wait for a task ask the database when there may be one, and at no other time."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import pytest

from deerfield.errors import RunEnded
from services.aggregator.rounds.coordinator import Coordinator
from tests.fakes import TeachingSite, adapter, run_spec
from tests.integration.aggregator.conftest import open_aggregator, served
from tests.integration.federation import wait_for

SITES = ("north", "south", "west", "east")


class Counting(Coordinator):
    """Counts who has asked for a task."""

    asked: Counter[str]

    def next_task(self, site, run=""):
        self.asked[site] += 1
        return super().next_task(site, run)


def told(server):
    """How many events the recorder has passed on, each of which wakes those who watch."""
    with server.aggregator.desk.store.edge() as edge:
        return edge.cursor("tracking")


@pytest.fixture
def counted(tmp_path, clock):
    opened = open_aggregator(tmp_path / "aggregator", clock)
    coordinator = Counting(opened.desk, opened.lost_after_s)
    coordinator.asked = Counter()
    with closing(opened.desk.store), served(replace(opened, coordinator=coordinator)) as server:
        yield server, coordinator.asked


def test_a_site_that_waits_asks_once_for_a_phase_however_many_others_commit(counted):
    server, asked = counted
    run = server.runs.start(run_spec(*SITES, rounds=1), "once")
    north, *others = [TeachingSite(site, server.site(site, run), adapter(i)) for i, site in enumerate(SITES)]
    assert north.step()
    with ThreadPoolExecutor() as pool:
        waits = pool.submit(north.link.next_task)
        wait_for(lambda: asked["north"] == 2, 20)
        for site in others[:-1]:
            assert site.step()
        wait_for(lambda: told(server) == len(server.aggregator.runs.events(run, 0)), 20)
        assert asked["north"] == 2
        assert others[-1].step()
        assert waits.result(20).task.phase == 1
    assert asked["north"] == 3


@pytest.mark.parametrize("end", ["aborted", "failed"])
def test_a_site_that_waits_learns_at_once_that_its_run_is_over(counted, clock, end):
    server, _ = counted
    run = server.runs.start(run_spec("north", "south", rounds=1, deadline_s=500), "once")
    north = TeachingSite("north", server.site("north", run), adapter(0))
    assert north.step()
    with ThreadPoolExecutor() as pool:
        waits = pool.submit(north.link.next_task)
        if end == "aborted":
            server.runs.abort(run, "enough")
        else:
            clock.advance(501)
        with pytest.raises(RunEnded):
            waits.result(20)  # a poll lasts 25 s
