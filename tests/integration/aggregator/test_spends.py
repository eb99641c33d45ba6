"""What a run has cost each of its sites: what they attest, and tasks that were never answered."""

from dataclasses import replace

import pytest

from deerfield.errors import (
    BadRequest,
    BudgetExhausted,
)
from deerfield.runspec import Privacy
from tests.attesting import again
from tests.fakes import run_spec
from tests.integration.aggregator.teaching import last, sites


def test_a_spend_that_is_not_the_runs_is_refused_and_the_right_one_adds_up(aggregator):
    privacy = Privacy(unit="record", epsilon=3.0, clip=1.0, sample_rate=0.5)
    run = aggregator.runs.start(run_spec("north", rounds=1, privacy=privacy), "once")
    (careless,) = sites(aggregator, run, "north", noise_multiplier=0.5)
    with pytest.raises(BudgetExhausted, match="the run allows 3"):
        careless.step()
    (silent,) = sites(aggregator, run, "north", noise_multiplier=0.0)
    with pytest.raises(BudgetExhausted, match="epsilon inf"):
        silent.step()
    (north,) = sites(aggregator, run, "north", noise_multiplier=4.0)
    assignment = north.link.next_task()
    update = north.update(assignment)
    unclipped = replace(update.attestation.spend, clip=2.0)
    with pytest.raises(BadRequest, match="the run says"):
        north.link.send(assignment, again(update, spend=unclipped))
    spent = []
    for _ in range(2):
        north.step()
        aggregator.coordinator.close_due()
        spent.append(last(aggregator, run, "phase_published")["epsilon"]["north"])
    assert 0 < spent[0] < spent[1] <= 3


@pytest.mark.parametrize(
    ("reason", "counts"), [("", True), ("STALE_BASE", True), ("NOT_MAPPED", False), ("BUDGET_EXHAUSTED", False)]
)
def test_a_task_that_was_taken_and_never_sealed_is_charged_unless_it_was_declined_untrained(
    tmp_path, clock, open_in, reason, counts
):
    privacy = Privacy(unit="record", epsilon=3.0, clip=1.0, sample_rate=0.5)
    spec = run_spec("north", "south", rounds=1, quorum=1, deadline_s=500, privacy=privacy)
    aggregator = open_in(tmp_path)
    run = aggregator.runs.start(spec, "once")
    north, south = sites(aggregator, run, "north", "south", noise_multiplier=4.0)
    assignment = south.link.next_task()
    if reason:
        south.link.decline(assignment, reason, "")
        clock.advance(100)  # which makes it lost, and changes nothing about its reason
        aggregator.coordinator.due()
        south.link.next_task()  # it is back, to no task
    north.step()
    clock.advance(501)
    aggregator.coordinator.close_due()
    assert list(last(aggregator, run, "phase_published")["epsilon"]) == ["north"]  # nothing is known of south's noise
    both = [site.step() for site in (north, south)]
    aggregator.coordinator.close_due()
    spent = last(aggregator, run, "phase_published")["epsilon"]
    aggregator.desk.store.close()
    assert both == [True, True]
    assert (spent["south"] == spent["north"]) is counts
    assert spent["south"] <= spent["north"]
