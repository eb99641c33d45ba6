"""A commit of which nobody knows whether it was done: every edge of a run may be asked again."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import pytest
from sqlalchemy import make_url

from deerfield import keyfile
from deerfield.errors import Superseded, Unreachable
from deerfield.strategies import make
from pipelines.embedded.simulation import LocalLink
from services.aggregator.assembly import Aggregator, assemble_aggregator
from services.aggregator.blobstore.blobs import MemoryBlobs
from services.aggregator.desk import Desk
from services.aggregator.rounds.patience import Patience
from services.aggregator.rounds.recorder import Recorder, Untracked
from services.aggregator.sql.database import IN_MEMORY, open_database
from services.aggregator.sql.exclusion import SESSION_LOCK
from services.aggregator.sql.store import Store
from tests import severing
from tests.fakes import Clock, TeachingSite, adapter, run_spec
from tests.integration.federation import wait_for

EDGES = (  # one of each transaction
    "run_started",
    "task_taken",
    "upload_announced",
    "upload_sealed",
    "phase_aggregating",
    "phase_published",
    "run_finished",
    "cursor_moved",
    "site_left",
    "site_back",
    "site_lost",
    "task_declined",
    "run_failed",
    "run_aborted",
)
SITES = ("north", "south")

Answer = TypeVar("Answer")


def asked(call: Callable[[], Answer]) -> Answer:
    """What a call answers once its database is there; as sites and operators do, it is asked until then."""
    answers: list[Answer] = []

    def attempt() -> bool:
        with suppress(Unreachable):
            answers.append(call())
        return bool(answers)

    wait_for(attempt, 30)
    return answers[0]


def assembled(url: str, key: Path, clock: Clock, on_edge: Callable[[str], None] = lambda _: None) -> Aggregator:
    desk = Desk(
        store=Store(open_database(url, takeover_s=10), on_edge),
        uploads=MemoryBlobs(),
        published=MemoryBlobs(),
        make=make,
        clock=clock,
        key=keyfile.load(key),
    )
    return assemble_aggregator(desk)


def told(aggregator: Aggregator) -> None:
    recorder = Recorder(aggregator.desk.store, Untracked(), aggregator.desk.clock)
    asked(recorder.drain)


def lives(aggregator: Aggregator, clock: Clock) -> tuple[str, list[tuple[str, object]]]:
    """The digest of a run with everything in it that a run may meet, and what is written down of it and two others."""
    runs, coordinator = aggregator.runs, aggregator.coordinator

    def sites(run: str) -> list[TeachingSite]:
        return [TeachingSite(name, LocalLink(aggregator, name, run), adapter(i)) for i, name in enumerate(SITES)]

    def step(site: TeachingSite) -> None:
        assignment = asked(site.link.next_task)
        update = site.update(assignment)
        asked(lambda: site.link.send(assignment, update))

    whole = asked(lambda: runs.start(run_spec(*SITES, rounds=1), "whole"))
    north, south = sites(whole)
    for _ in "BA":
        asked(north.link.next_task)
        asked(lambda: coordinator.leave("south", whole, "for a while"))
        asked(south.link.next_task)
        clock.advance(61)
        asked(north.link.next_task)
        asked(coordinator.close_due)  # south is lost, and then back
        step(south)
        step(north)
        asked(coordinator.close_due)
    asked(lambda: runs.evaluated(whole, 0, 1, {"accuracy": 0.5}))
    failing = asked(lambda: runs.start(run_spec(*SITES), "failing"))
    assignment = asked(sites(failing)[0].link.next_task)
    asked(lambda: sites(failing)[0].link.decline(assignment, "NOT_MAPPED", "nobody of these here"))
    asked(coordinator.close_due)
    aborted = asked(lambda: runs.start(run_spec(*SITES), "aborted"))
    asked(lambda: runs.abort(aborted, "enough"))
    told(aggregator)
    events = [(event.kind, event.detail) for run in (whole, failing, aborted) for event in runs.events(run, 0)]
    return runs.get(whole).model.digest, events


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    clock = Clock()
    aggregator = assembled(IN_MEMORY, tmp_path_factory.mktemp("key") / "k", clock)
    return lives(aggregator, clock)


@pytest.fixture
def through(postgres_server):
    """A database behind a line that can be cut: its name, its URL, the line."""
    name = postgres_server.create()
    with severing.line(postgres_server.port) as line:
        url = make_url(postgres_server.url(name)).set(port=line.port)
        yield name, url.render_as_string(hide_password=False), line
    postgres_server.drop(name)


@pytest.mark.parametrize("lost", ["request", "answer"])
@pytest.mark.parametrize("kind", EDGES)
def test_a_connection_lost_in_a_commit_changes_nothing_of_a_run(through, tmp_path, undisturbed, kind, lost):
    _, url, line = through
    reached = []

    def cut(edge: str) -> None:
        if edge == f"{kind}:before_commit" and not reached:
            reached.append(edge)
            line.arm(lost)

    clock = Clock()
    aggregator = assembled(url, tmp_path / "k", clock, cut)
    found = lives(aggregator, clock)
    aggregator.desk.store.close()
    assert line.cuts == 1
    if kind == "site_lost":  # after an outage, as after a restart, a site has time to be heard
        found, undisturbed = without_lost(*found), without_lost(*undisturbed)
    assert found == undisturbed


def without_lost(digest, events):
    return digest, [event for event in events if event[0] != "lost"]


class Reads:
    """A tracking that looks into the database, as MLflow's does, the first time after the line was cut."""

    def __init__(self, store: Store, line: severing.Line) -> None:
        self.store, self.line, self.told = store, line, 0

    def record(self, event):
        if not self.told and not self.line.cuts:
            self.line.cuts += 1
            self.line.cut()
        with self.store.edge() as edge:
            edge.run(event.run)
        self.told += 1


def test_a_database_that_goes_away_is_no_failure_of_tracking(through, tmp_path):
    _, url, line = through
    aggregator = assembled(url, tmp_path / "k", Clock())
    run = aggregator.runs.start(run_spec("north"), "once")
    store, tracking = aggregator.desk.store, Reads(aggregator.desk.store, line)
    recorder = Recorder(store, tracking, Clock(), patience=Patience(quick_s=(0.0, 0.0)))
    with pytest.raises(Unreachable):
        recorder.drain()
    recorder.start()  # as in a server: it goes on by itself
    assert not recorder.over.done()
    line.mend()
    wait_for(lambda: tracking.told, 30)
    recorder.stop(10)
    assert recorder.over.exception() is None
    assert [event.kind for event in asked(lambda: aggregator.runs.events(run, 0))] == ["run_started"]
    store.close()


def number(database) -> int:
    with database.engine.begin() as connection:
        return connection.exec_driver_sql("SELECT number FROM fence").scalar_one()


def test_whoever_was_cut_off_has_its_lock_again_and_the_same_number(through, postgres_server):
    name, url, line = through
    opened = open_database(url, takeover_s=5)
    store = Store(opened)
    line.cut()
    wait_for(lambda: not postgres_server.holds(name, SESSION_LOCK), 20)
    with pytest.raises(Unreachable, match="the database failed"), store.edge():
        pass
    line.mend()
    wait_for(lambda: postgres_server.holds(name, SESSION_LOCK), 20)
    with store.edge() as edge:
        edge.set_cursor("r", 1)
    assert number(opened) == 1
    opened.close()


def test_whoever_was_cut_off_and_replaced_ends(through, postgres_server):
    name, url, line = through
    opened = open_database(url, takeover_s=5)
    store = Store(opened)
    line.cut()
    other = open_database(postgres_server.url(name), takeover_s=20)
    line.mend()

    def superseded() -> bool:
        try:
            with suppress(Unreachable), store.edge():
                pass
        except Superseded as error:
            return "was taken over by the aggregator on" in str(error)
        return False

    wait_for(superseded, 20)
    assert number(other) == 2
    opened.close()
    with Store(other).edge() as edge:
        edge.set_cursor("r", 1)
    other.close()
