"""The life of a run from its start to its end, over restarts, and what is refused. No transport."""

import pytest

from deerfield.errors import (
    AlreadySealed,
    BadRequest,
    InvalidInput,
    NotMember,
    RunEnded,
    UnknownRun,
)
from tests.fakes import TeachingSite, adapter, run_spec
from tests.integration.aggregator.teaching import kinds, last, sites


def test_a_run_goes_through_its_phases_and_finishes(aggregator):
    run = aggregator.runs.start(run_spec("north", "south", rounds=1), "once")
    both = sites(aggregator, run, "north", "south")
    for phase, factors in enumerate("BA"):
        assert [site.step() for site in both] == [True, True]
        assert not both[0].step()
        assert aggregator.coordinator.close_due() == 1
        published = last(aggregator, run, "phase_published")
        assert (published["phase"], published["factors"], published["sites"]) == (phase, factors, ["north", "south"])
        assert published["deviation"] < 1e-6
    assert kinds(aggregator, run) == [
        "run_started",
        *(["task_taken", "update_sealed"] * 2 + ["phase_published"]) * 2,
        "run_finished",
    ]
    with pytest.raises(RunEnded, match="FINISHED"):
        both[0].step()
    view = aggregator.runs.get(run)
    assert (view.state, view.round, view.phase) == ("FINISHED", 1, 0)
    assert view.model.digest == last(aggregator, run, "run_finished")["digest"]
    assert aggregator.runs.get(run, (0, 0)).model.digest != view.model.digest


def test_the_order_of_arrival_changes_no_bit(tmp_path, open_in):
    digests = set()
    for order in (0, 1):
        aggregator = open_in(tmp_path / str(order))
        run = aggregator.runs.start(run_spec("north", "south", rounds=1, strategy="fedavg"), "once")
        both = sites(aggregator, run, "north", "south")
        for site in both[:: -1 if order else 1]:
            site.step()
        aggregator.coordinator.close_due()
        digests.add(aggregator.runs.get(run).model.digest)
        aggregator.desk.store.close()
    assert len(digests) == 1


def test_the_same_request_is_the_same_run_and_another_run_is_refused(aggregator):
    run = aggregator.runs.start(run_spec("north"), "once")
    assert aggregator.runs.start(run_spec("north"), "once") == run
    with pytest.raises(InvalidInput, match="another run"):
        aggregator.runs.start(run_spec("south"), "once")
    assert [view.run for view in aggregator.runs.list()] == [run]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"federation": {"sites": []}}, "name the sites"),
        ({"adapter": {}}, "adapter is empty"),
        ({"strategy": {"name": "central"}}, "pools all data"),
        ({"strategy": {"name": "nonesuch"}}, "unknown"),
        ({"model": {"base": "tiny", "input": "text", "lora": {"rank": 4}}}, "rank 4"),
    ],
)
def test_a_run_that_cannot_be_run_is_refused_at_the_start(aggregator, changes, message):
    spec = type(run_spec()).model_validate(run_spec("north", "south").model_dump() | changes)
    with pytest.raises(InvalidInput, match=message):
        aggregator.runs.start(spec, "once")


def test_a_commit_may_be_asked_again_and_again_and_another_update_conflicts(aggregator):
    run = aggregator.runs.start(run_spec("north", "south", rounds=1), "once")
    north, south = sites(aggregator, run, "north", "south")
    assignment = north.link.next_task()
    update = north.update(assignment)
    for _ in range(3):
        north.link.send(assignment, update)
    assert kinds(aggregator, run).count("update_sealed") == 1
    with pytest.raises(AlreadySealed):
        north.link.send(assignment, TeachingSite("north", north.link, adapter(9)).update(assignment))
    south.step()
    aggregator.coordinator.close_due()
    north.link.send(assignment, update)  # the same answer after the phase has closed
    with pytest.raises(AlreadySealed):
        north.link.send(assignment, TeachingSite("north", north.link, adapter(9)).update(assignment))


def test_only_members_of_a_known_run_are_served(aggregator):
    run = aggregator.runs.start(run_spec("north"), "once")
    with pytest.raises(NotMember, match="south is not one of the sites"):
        aggregator.coordinator.next_task("south", run)
    with pytest.raises(UnknownRun):
        aggregator.coordinator.next_task("north", "nonesuch")
    assert aggregator.coordinator.next_task("south") is None
    assert aggregator.coordinator.next_task("north").key.run == run


def test_an_aborted_run_stays_aborted_and_a_computation_under_way_is_dropped(aggregator):
    run = aggregator.runs.start(run_spec("north", rounds=1), "once")
    sites(aggregator, run, "north")[0].step()
    closing = aggregator.coordinator.due()
    assert aggregator.coordinator.due() is None  # handed out once
    closed = closing.compute()
    assert aggregator.runs.abort(run, "enough").state == "ABORTED"
    assert not aggregator.coordinator.publish(closing, closed)
    aggregator.coordinator.fail(run, "too late to fail")
    assert aggregator.runs.abort(run, "again").reason == "enough"
    assert kinds(aggregator, run)[-1] == "run_aborted"


def test_a_restarted_aggregator_goes_on_where_the_last_one_was(tmp_path, open_in):
    first = open_in(tmp_path)
    run = first.runs.start(run_spec("north", "south", rounds=1), "once")
    north, south = sites(first, run, "north", "south")
    north.step()
    assignment = south.link.next_task()
    first.desk.store.close()

    second = open_in(tmp_path)
    _, south = sites(second, run, "north", "south")
    south.link.send(assignment, south.update(assignment))
    assert second.coordinator.due() is not None  # closed, and then it dies before it publishes
    second.desk.store.close()

    third = open_in(tmp_path)
    assert third.coordinator.close_due() == 1
    for site in sites(third, run, "north", "south"):
        site.step()
    third.coordinator.close_due()
    assert third.runs.get(run).state == "FINISHED"
    undisturbed = open_in(tmp_path / "undisturbed")
    again = undisturbed.runs.start(run_spec("north", "south", rounds=1), "once")
    for _ in range(2):
        for site in sites(undisturbed, again, "north", "south"):
            site.step()
        undisturbed.coordinator.close_due()
    assert undisturbed.runs.get(again).model.digest == third.runs.get(run).model.digest
    undisturbed.desk.store.close()
    third.desk.store.close()


def test_an_evaluation_is_written_down_once_and_only_for_what_was_published(aggregator):
    run = aggregator.runs.start(run_spec("north"), "once")
    with pytest.raises(BadRequest, match="has published nothing"):
        aggregator.runs.evaluated(run, 0, 0, {"accuracy": 0.5})
    sites(aggregator, run, "north")[0].step()
    aggregator.coordinator.close_due()
    for _ in range(2):
        aggregator.runs.evaluated(run, 0, 0, {"accuracy": 0.5})
    assert kinds(aggregator, run).count("evaluated") == 1
