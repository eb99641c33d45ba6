"""Sites that leave or fall silent are not waited for until they come back."""

import pytest

from deerfield.exchange import announce
from tests.fakes import run_spec
from tests.integration.aggregator.teaching import kinds, last, sites


def test_nobody_waits_for_a_site_that_left_until_it_asks_again(aggregator):
    run = aggregator.runs.start(run_spec("north", "south", quorum=1), "once")
    north, south = sites(aggregator, run, "north", "south")
    aggregator.coordinator.leave("south", run, "maintenance")
    for _ in range(2):
        north.step()
        assert aggregator.coordinator.close_due() == 1
    assert south.step()
    assert aggregator.coordinator.close_due() == 0  # north is waited for, and south is back
    north.step()
    assert aggregator.coordinator.close_due() == 1
    assert last(aggregator, run, "phase_published")["sites"] == ["north", "south"]


def test_a_silent_site_is_lost_and_may_come_back(aggregator, clock):
    run = aggregator.runs.start(run_spec("north", "south", quorum=1), "once")
    north, south = sites(aggregator, run, "north", "south")
    assignment = south.link.next_task()
    clock.advance(40)
    assert south.link.heartbeat(assignment, 1, 9)
    clock.advance(40)
    north.step()
    assert aggregator.coordinator.close_due() == 0  # heard from 40 s ago
    clock.advance(21)
    assert aggregator.coordinator.close_due() == 1
    assert last(aggregator, run, "lost")["site"] == "south"
    north.step()
    assert aggregator.coordinator.close_due() == 1  # not waited for in the next phase either
    assert south.step()


def test_hours_of_silence_from_everybody_abort_nothing(aggregator, clock):
    run = aggregator.runs.start(run_spec("north", "south", deadline_s=86400), "once")
    both = sites(aggregator, run, "north", "south")
    assignments = [site.link.next_task() for site in both]
    for _ in range(20):
        clock.advance(3600)
        assert aggregator.coordinator.close_due() == 0
    assert kinds(aggregator, run).count("lost") == 2
    for site, assignment in zip(both, assignments, strict=True):  # they have trained meanwhile, and the link is back
        site.link.send(assignment, site.update(assignment))
    assert aggregator.coordinator.close_due() == 1
    assert last(aggregator, run, "phase_published")["sites"] == ["north", "south"]


@pytest.mark.parametrize("sends", [False, True])
def test_a_lost_site_that_goes_on_with_its_task_is_back(aggregator, clock, sends):
    run = aggregator.runs.start(run_spec("north", "south", quorum=1, rounds=1), "once")
    north, south = sites(aggregator, run, "north", "south")
    assignment = south.link.next_task()
    north.link.next_task()
    clock.advance(100)
    north.link.next_task()
    assert aggregator.coordinator.close_due() == 0
    assert last(aggregator, run, "lost")["site"] == "south"
    if sends:
        aggregator.intake.begin("south", assignment.key, announce(south.update(assignment)))
    else:
        assert south.link.heartbeat(assignment, 1, 9)
    north.step()
    assert aggregator.coordinator.close_due() == 0  # south is waited for
    south.link.send(assignment, south.update(assignment))
    assert aggregator.coordinator.close_due() == 1
    assert last(aggregator, run, "phase_published")["sites"] == ["north", "south"]
