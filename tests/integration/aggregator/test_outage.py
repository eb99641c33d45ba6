"""A real PostgreSQL server that is stopped and started again under a real aggregator in mid-round."""

from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from deerfield.errors import Unreachable
from deerfield.wire.backoff import Backoff
from deerfield.wire.channel import connect
from deerfield.wire.client import RunsClient
from services.aggregator.sql.exclusion import SESSION_LOCK, take_over
from tests import postgres
from tests.fakes import run_spec
from tests.integration.aggregator.processes import digest_undisturbed, running, working
from tests.integration.federation import wait_for

ROUNDS = 2
LOST, BACK = "a store failed", "a store works again"


@pytest.fixture(scope="module")
def server():
    with postgres.serving() as found:
        yield found


@pytest.fixture
def name(server):
    name = server.create()
    yield name
    server.drop(name)


def events(runs, run):
    return [(event.kind, event.detail) for event in runs.watch(run) if event.number]


def test_a_run_survives_a_restart_of_the_server_in_mid_round(server, name, tmp_path):
    with ExitStack() as stack:
        aggregator = stack.enter_context(running(tmp_path, database=server.url(name)))
        runs = stack.enter_context(aggregator.runs())
        run = runs.start(run_spec("north", "south", rounds=ROUNDS), "once")
        north = stack.enter_context(aggregator.site("north", run))
        south = stack.enter_context(aggregator.site("south", run))
        assert north.step()
        assignment = south.link.next_task()
        server.stop()
        wait_for(lambda: aggregator.said(LOST), 30)
        impatient = stack.enter_context(connect(aggregator.listening, role="operator"))
        for _ in range(5):
            with pytest.raises(Unreachable, match="the database failed"):
                RunsClient(impatient, backoff=Backoff(patience_s=0)).get(run)
        server.start()
        south.link.send(assignment, south.update(assignment))
        with working(aggregator, run):
            found = events(runs, run)
        assert runs.get(run).model.digest == digest_undisturbed(ROUNDS)
        sealed = [detail for kind, detail in found if kind == "update_sealed"]
        assert len(sealed) == len({(each["round"], each["phase"], each["site"]) for each in sealed}) == 2 * 2 * ROUNDS
        assert [kind for kind, _ in found].count("phase_published") == 2 * ROUNDS
        wait_for(lambda: server.holds(name, SESSION_LOCK), 30)
        assert (aggregator.said(LOST), aggregator.said(BACK)) == (1, 1)
        assert aggregator.said("Traceback") == 0
        aggregator.process.terminate()
        assert aggregator.process.wait(20) == 0


@pytest.mark.e2e
def test_a_run_survives_restart_after_restart_while_its_sites_work(server, name, tmp_path):
    with running(tmp_path, database=server.url(name)) as aggregator, aggregator.runs() as runs:
        run = runs.start(run_spec("north", "south", rounds=4), "once")
        with working(aggregator, run):
            watching = runs.watch(run)
            for event in watching:
                if event.kind == "phase_published" and event.detail["round"] < 2:
                    server.stop()
                    server.start()
            assert event.kind == "run_finished"
        kinds = [kind for kind, _ in events(runs, run)]
        assert (kinds.count("update_sealed"), kinds.count("phase_published")) == (16, 8)
        assert runs.get(run).model.digest == digest_undisturbed(4)
        assert aggregator.said("Traceback") == 0


def test_an_aggregator_that_was_replaced_while_its_server_was_away_ends(server, name, tmp_path: Path):
    with running(tmp_path, database=server.url(name)) as aggregator:
        server.stop()
        wait_for(lambda: aggregator.said(LOST), 30)
        blocked = aggregator.process.poll()
        server.start()
        engine = create_engine(server.url(name))
        with engine.begin() as connection:
            take_over(connection, 0.0)
        engine.dispose()
        assert blocked is None
        assert aggregator.process.wait(30) == 1
    last = (tmp_path / "aggregator.log").read_text().strip().splitlines()[-1]
    assert last.startswith("error: the database was taken over by the aggregator on ")
