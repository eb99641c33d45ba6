"""Sites that decline, or too few that answer: when a phase closes without them, and when the run fails."""

import pytest

from deerfield.errors import (
    RunEnded,
)
from tests.fakes import run_spec
from tests.integration.aggregator.teaching import kinds, last, sites


def test_below_the_quorum_at_the_deadline_the_run_fails_and_says_who_is_missing(aggregator, clock):
    run = aggregator.runs.start(run_spec("east", "north", "south", quorum=2, deadline_s=50), "once")
    east, north, _ = sites(aggregator, run, "east", "north", "south")
    east.step()
    north.link.next_task()
    clock.advance(51)
    assert aggregator.coordinator.close_due() == 0
    reason = last(aggregator, run, "run_failed")["reason"]
    assert "1 of 3 updates came, the quorum is 2" in reason
    assert "north took the task and did not answer; south never took the task" in reason
    with pytest.raises(RunEnded, match="FAILED"):
        east.step()


def test_a_declined_task_does_not_hold_the_others_up(aggregator):
    run = aggregator.runs.start(run_spec("north", "south", rounds=1, quorum=1), "once")
    north, south = sites(aggregator, run, "north", "south")
    assignment = south.link.next_task()
    for _ in range(2):
        south.link.decline(assignment, "NOT_MAPPED", "no such population here")
    assert kinds(aggregator, run).count("declined") == 1
    assert south.link.next_task() is None
    north.step()
    assert aggregator.coordinator.close_due() == 1
    assert south.link.next_task() is not None  # asked again in the next phase


def test_a_run_that_can_no_longer_reach_its_quorum_fails_at_once(aggregator):
    run = aggregator.runs.start(run_spec("north", "south"), "once")
    north, south = sites(aggregator, run, "north", "south")
    north.link.next_task()
    south.link.decline(south.link.next_task(), "BUDGET_EXHAUSTED", "nothing left")
    aggregator.coordinator.close_due()
    assert "south declined (BUDGET_EXHAUSTED: nothing left)" in last(aggregator, run, "run_failed")["reason"]


def test_a_quorum_that_needs_a_lost_site_waits_for_it_and_fails_after_the_deadline_without_progress(aggregator, clock):
    run = aggregator.runs.start(run_spec("north", "south", deadline_s=500), "once")
    north, south = sites(aggregator, run, "north", "south")
    south.link.next_task()
    clock.advance(400)
    north.step()
    clock.advance(499)
    assert aggregator.coordinator.close_due() == 0
    assert last(aggregator, run, "lost")["site"] == "south"
    clock.advance(1)
    aggregator.coordinator.close_due()
    reason = last(aggregator, run, "run_failed")["reason"]
    assert "deadline 500 s after the last progress): south is lost" in reason


def test_a_lost_site_cannot_save_a_quorum_that_definite_answers_have_made_impossible(aggregator, clock):
    run = aggregator.runs.start(run_spec("east", "north", "south", quorum=2), "once")
    _, north, south = sites(aggregator, run, "east", "north", "south")
    south.link.next_task()
    clock.advance(100)
    north.link.decline(north.link.next_task(), "NOT_MAPPED", "")
    assert aggregator.coordinator.close_due() == 0
    aggregator.coordinator.leave("east", run, "maintenance")
    aggregator.coordinator.close_due()
    assert "the quorum is 2" in last(aggregator, run, "run_failed")["reason"]
