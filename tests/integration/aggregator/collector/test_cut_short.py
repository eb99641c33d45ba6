"""Passes that are killed, stopped or have lost the database, and what a crash left half-written."""

from dataclasses import replace

import pytest

from deerfield.errors import Superseded
from services.aggregator.blobstore.collector import Collector
from services.aggregator.blobstore.retention import Retention
from services.aggregator.sql.database import Database
from services.aggregator.sql.exclusion import take_over
from services.aggregator.sql.store import Store
from tests.integration.aggregator.collector.conftest import DAY, check_law, finished, orphan, shas


@pytest.fixture
def database_of(aggregator):
    return aggregator.desk.store._engine


@pytest.mark.parametrize("when", ["before_commit", "after_commit"])
def test_a_crash_between_the_rows_and_the_blobs_leaves_nothing_that_the_next_pass_does_not_find(
    aggregator, clock, when
):
    class Killed(BaseException):
        pass

    def kill(edge: str) -> None:
        if edge == f"updates_released:{when}":
            raise Killed

    desk = aggregator.desk
    finished(aggregator, "north", "south")
    clock.advance(8 * DAY)
    store = Store(Database(engine=desk.store._engine, keeper=desk.store._keeper, close=lambda: None), on_edge=kill)
    with pytest.raises(Killed):
        Collector(replace(desk, store=store), Retention()).collect()
    check_law(aggregator)
    assert shas(desk.uploads) != set()
    aggregator.collector.collect()
    assert shas(desk.uploads) == set()
    check_law(aggregator)


def test_who_has_lost_the_database_deletes_nothing(aggregator, clock, database_of):
    sha = orphan(aggregator.desk.uploads)
    clock.advance(2 * DAY)
    with database_of.begin() as connection:
        take_over(connection, clock.now)
    with pytest.raises(Superseded):
        aggregator.collector.collect()
    assert aggregator.desk.uploads.has(sha)


def test_a_pass_that_is_stopped_ends_and_says_that_it_is_not_complete(aggregator, clock):
    orphan(aggregator.desk.uploads)
    clock.advance(2 * DAY)
    aggregator.collector.stop()
    found = aggregator.collector.collect()
    assert (found.blobs, found.complete) == (0, False)


@pytest.mark.parametrize("place", ["folder"], indirect=True)  # a bucket has no half-written objects
def test_what_a_crash_left_half_written_goes_too(tmp_path, clock, open_in):
    aggregator = open_in(tmp_path)
    aside = tmp_path / "uploads" / "ab" / f"{'ab' * 32}.{'0' * 32}.part"
    aside.parent.mkdir()
    aside.write_bytes(b"half")
    clock.advance(2 * DAY)
    assert aggregator.collector.collect().blobs == 1
    assert not aside.exists()
