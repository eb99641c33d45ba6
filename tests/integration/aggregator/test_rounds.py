"""The life of a run over a real database, with a clock that the tests move. No transport."""

from dataclasses import replace

import pytest

from deerfield.errors import (
    AlreadySealed,
    BadRequest,
    BudgetExhausted,
    InvalidInput,
    NotMember,
    RoundClosed,
    RunEnded,
    UnknownRun,
)
from deerfield.exchange import announce
from deerfield.manifest import pieces
from deerfield.runspec import Privacy
from pipelines.simulation import LocalLink
from tests.attesting import again
from tests.fakes import TeachingSite, adapter, run_spec


def sites(aggregator, run, *names, noise_multiplier=0.0):
    return [
        TeachingSite(name, LocalLink(aggregator, name, run), adapter(seed), noise_multiplier)
        for seed, name in enumerate(names)
    ]


def kinds(aggregator, run):
    return [event.kind for event in aggregator.runs.events(run, 0)]


def last(aggregator, run, kind):
    return [event.detail for event in aggregator.runs.events(run, 0) if event.kind == kind][-1]


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


def test_a_site_that_never_joined_is_waited_for_until_the_deadline(aggregator, clock):
    run = aggregator.runs.start(run_spec("north", "south", quorum=1, deadline_s=500), "once")
    north, _ = sites(aggregator, run, "north", "south")
    north.step()
    clock.advance(499)
    assert aggregator.coordinator.close_due() == 0
    clock.advance(1)
    assert aggregator.coordinator.close_due() == 1


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


def test_an_evaluation_is_written_down_once_and_only_for_what_was_published(aggregator):
    run = aggregator.runs.start(run_spec("north"), "once")
    with pytest.raises(BadRequest, match="has published nothing"):
        aggregator.runs.evaluated(run, 0, 0, {"accuracy": 0.5})
    sites(aggregator, run, "north")[0].step()
    aggregator.coordinator.close_due()
    for _ in range(2):
        aggregator.runs.evaluated(run, 0, 0, {"accuracy": 0.5})
    assert kinds(aggregator, run).count("evaluated") == 1
