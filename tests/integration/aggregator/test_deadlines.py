"""How long a phase waits, and what puts its deadline off, with a clock that the tests move."""

import pytest

from deerfield.errors import (
    RoundClosed,
)
from deerfield.exchange import announce
from deerfield.manifest import pieces
from tests.fakes import run_spec
from tests.integration.aggregator.teaching import last, sites


def test_an_update_that_comes_late_is_refused_and_the_site_joins_the_next_phase(aggregator, clock):
    run = aggregator.runs.start(run_spec("north", "south", quorum=1, deadline_s=50), "once")
    north, south = sites(aggregator, run, "north", "south")
    assignment = south.link.next_task()
    north.step()
    assert aggregator.coordinator.close_due() == 0
    clock.advance(51)
    assert aggregator.coordinator.close_due() == 1
    assert last(aggregator, run, "phase_published")["sites"] == ["north"]
    with pytest.raises(RoundClosed, match="round 0, phase 1"):
        south.link.send(assignment, south.update(assignment))
    assert not south.link.heartbeat(assignment, 1, 2)
    assert south.step()


def test_a_site_that_never_joined_is_waited_for_until_the_deadline(aggregator, clock):
    run = aggregator.runs.start(run_spec("north", "south", quorum=1, deadline_s=500), "once")
    north, _ = sites(aggregator, run, "north", "south")
    north.step()
    clock.advance(499)
    assert aggregator.coordinator.close_due() == 0
    clock.advance(1)
    assert aggregator.coordinator.close_due() == 1


def test_steps_and_chunks_and_not_calls_put_the_deadline_off(aggregator, clock):
    run = aggregator.runs.start(run_spec("north", "south", quorum=1, deadline_s=100), "once")
    north, south = sites(aggregator, run, "north", "south")
    north.step()
    assignment = south.link.next_task()
    for step in (1, 2, 3):
        clock.advance(50)
        assert south.link.heartbeat(assignment, step, 9)
        assert aggregator.coordinator.close_due() == 0
    update, intake = south.update(assignment), aggregator.intake
    announcement = announce(update)
    missing = intake.begin("south", assignment.key, announcement)
    for sha, data in pieces(update.delta, announcement.manifest, missing):
        clock.advance(50)
        intake.put(missing, sha, data)
        intake.received("south")
        assert aggregator.coordinator.close_due() == 0
    for _ in range(2):
        clock.advance(50)
        south.link.heartbeat(assignment, 3, 9)  # alive, and no further than before
    assert aggregator.coordinator.close_due() == 1
    assert last(aggregator, run, "phase_published")["sites"] == ["north"]


def test_a_site_that_never_joined_is_waited_for_once(aggregator, clock):
    run = aggregator.runs.start(run_spec("north", "south", quorum=1, deadline_s=500), "once")
    north, south = sites(aggregator, run, "north", "south")
    north.step()
    clock.advance(500)
    assert aggregator.coordinator.close_due() == 1
    north.step()
    assert aggregator.coordinator.close_due() == 1
    assert south.step()
    assert aggregator.coordinator.close_due() == 0  # it is here now, and north is waited for


def test_after_a_restart_the_deadline_starts_again_whatever_the_time_of_day_says(tmp_path, clock, open_in):
    first = open_in(tmp_path)
    run = first.runs.start(run_spec("north", "south", deadline_s=500), "once")
    north, _ = sites(first, run, "north", "south")
    north.link.next_task()
    clock.advance(499)
    assert first.coordinator.close_due() == 0
    first.desk.store.close()
    clock.advance(10_000_000)
    second = open_in(tmp_path)
    assert second.coordinator.close_due() == 0
    assert second.runs.get(run).state == "RUNNING"
    for site in sites(second, run, "north", "south"):
        site.step()
    assert second.coordinator.close_due() == 1
    second.desk.store.close()
