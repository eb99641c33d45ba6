"""Pausing, resuming and ending runs in every state, and a site whose key was lost. No transport."""

from contextlib import ExitStack

import pytest

from deerfield import keyfile
from deerfield.attestation import public_key
from deerfield.errors import RunEnded, UnknownRun
from pipelines.embedded.simulation import LocalLink
from services.client.custody import reconcile
from services.client.custody.custody import Custody
from services.client.custody.run_account import record_path
from services.client.site import Site
from tests.fakes import run_spec
from tests.integration.aggregator.teaching import kinds, last, sites
from tests.unit.client.sites import Bench, policy, spec


@pytest.fixture
def started(aggregator):
    """(run, its two sites): deer, one round of two phases, an hour for each."""
    run = aggregator.runs.start(run_spec("north", "south", rounds=1), "once")
    return run, sites(aggregator, run, "north", "south")


def test_a_paused_run_hands_out_nothing_new_and_takes_what_was_handed_out(aggregator, started):
    run, (north, south) = started
    assignment = north.link.next_task()
    assert aggregator.runs.pause(run, "audit").state == "PAUSED"
    assert south.link.next_task() is None
    assert north.link.next_task().key == assignment.key  # a site that was restarted may finish what it has begun
    assert aggregator.coordinator.heartbeat("north", assignment.key, 1, 2)
    north.link.send(assignment, north.update(assignment))
    assert aggregator.coordinator.close_due() == 0
    view = aggregator.runs.get(run)
    assert (view.state, dict(view.sites)) == ("PAUSED", {"north": "SEALED", "south": "WAITING"})
    assert aggregator.runs.resume(run).state == "RUNNING"
    assert south.step()
    assert aggregator.coordinator.close_due() == 1
    assert "lost" not in kinds(aggregator, run)


def test_a_paused_run_is_found_by_its_sites_that_name_no_run_and_holds_up_no_other(aggregator, started):
    run, _ = started
    other = aggregator.runs.start(run_spec("north", rounds=1, name="other"), "twice")
    aggregator.runs.pause(run, "")
    assert aggregator.coordinator.next_task("north").key.run == other


def test_the_clock_of_the_deadline_stands_still_and_nobody_is_lost_in_a_pause(aggregator, started, clock):
    run, (north, _) = started
    assert north.step()
    clock.advance(3500)
    aggregator.runs.pause(run, "audit")
    clock.advance(1_000_000)
    assert aggregator.coordinator.close_due() == 0
    assert aggregator.runs.get(run).state == "PAUSED"
    aggregator.runs.resume(run)
    assert last(aggregator, run, "run_resumed") == {"paused_s": 1_000_000}
    aggregator.coordinator.due()  # as every second: from here on the deadline counts
    clock.advance(3599)
    aggregator.coordinator.due()
    assert aggregator.runs.get(run).state == "RUNNING"
    clock.advance(1)
    aggregator.coordinator.due()
    assert aggregator.runs.get(run).state == "FAILED"
    assert "lost" not in kinds(aggregator, run)[: kinds(aggregator, run).index("run_resumed")]


def test_a_pause_survives_a_restart_with_its_clock(tmp_path, open_in, clock):
    before = open_in(tmp_path / "a")
    run = before.runs.start(run_spec("north", rounds=1), "once")
    before.runs.pause(run, "night")
    clock.advance(7200)
    before.desk.store.close()
    after = open_in(tmp_path / "a")
    assert after.runs.get(run).state == "PAUSED"
    clock.advance(7200)
    after.runs.resume(run)
    assert last(after, run, "run_resumed") == {"paused_s": 14400}
    (north,) = sites(after, run, "north")
    clock.advance(3599)
    assert north.step()
    assert after.coordinator.close_due() == 1


def test_pausing_and_resuming_again_change_nothing_and_an_ended_run_can_do_neither(aggregator, started):
    run, _ = started
    for _ in range(2):
        assert aggregator.runs.pause(run, "audit").reason == ""
    for _ in range(2):
        aggregator.runs.resume(run)
    assert kinds(aggregator, run) == ["run_started", "run_paused", "run_resumed"]
    assert last(aggregator, run, "run_paused") == {"reason": "audit"}
    aggregator.runs.abort(run, "enough")
    for call in (lambda: aggregator.runs.pause(run, ""), lambda: aggregator.runs.resume(run)):
        with pytest.raises(RunEnded, match="ABORTED: enough"):
            call()
    with pytest.raises(UnknownRun):
        aggregator.runs.pause("nobody's", "")


def test_a_computation_under_way_is_kept_back_in_a_pause_and_redone_bit_by_bit(aggregator, started):
    run, both = started
    for site in both:
        site.step()
    closing = aggregator.coordinator.due()
    first = closing.compute()
    aggregator.runs.pause(run, "")
    aggregator.coordinator.publish(closing, first)
    assert aggregator.runs.get(run).phase_state == "AGGREGATING"
    assert aggregator.coordinator.due() is None
    aggregator.runs.resume(run)
    again_ = aggregator.coordinator.due()
    second = again_.compute()
    aggregator.coordinator.publish(again_, second)
    assert first.next.state == second.next.state
    assert kinds(aggregator, run).count("phase_published") == 1


def test_a_computation_that_ends_after_the_pause_is_published_once(aggregator, started):
    run, both = started
    for site in both:
        site.step()
    closing = aggregator.coordinator.due()
    aggregator.runs.pause(run, "")
    aggregator.runs.resume(run)
    assert aggregator.coordinator.due() is None
    aggregator.coordinator.publish(closing, closing.compute())
    assert aggregator.coordinator.due() is None
    assert kinds(aggregator, run).count("phase_published") == 1


def test_a_computation_that_breaks_in_a_pause_fails_the_run(aggregator, started):
    run, both = started
    for site in both:
        site.step()
    closing = aggregator.coordinator.due()
    aggregator.runs.pause(run, "")
    aggregator.coordinator.fail(closing.key.run, "aggregation failed")
    assert aggregator.runs.get(run).state == "FAILED"


def opened(aggregator, run, both):
    pass


def collecting(aggregator, run, both):
    both[0].link.next_task()


def sealed(aggregator, run, both):
    both[0].step()


def aggregating(aggregator, run, both):
    for site in both:
        site.step()
    assert aggregator.coordinator.due() is not None


def paused(aggregator, run, both):
    both[0].step()
    aggregator.runs.pause(run, "")


def paused_while_aggregating(aggregator, run, both):
    aggregating(aggregator, run, both)
    aggregator.runs.pause(run, "")


def second_phase(aggregator, run, both):
    sealed(aggregator, run, both)
    both[1].step()
    aggregator.coordinator.close_due()


STATES = [opened, collecting, sealed, aggregating, paused, paused_while_aggregating, second_phase]


@pytest.mark.parametrize("reach", STATES)
def test_abort_ends_a_run_in_every_state(aggregator, started, reach):
    run, both = started
    reach(aggregator, run, both)
    assert aggregator.runs.abort(run, "enough").state == "ABORTED"
    assert kinds(aggregator, run)[-1] == "run_aborted"
    assert aggregator.coordinator.due() is None
    for site in both:
        with pytest.raises(RunEnded, match="ABORTED: enough"):
            site.step()
    aggregator.runs.abort(run, "again")
    assert (aggregator.runs.get(run).reason, kinds(aggregator, run).count("run_aborted")) == ("enough", 1)


def finished(aggregator, run, both):
    for _ in range(2):
        for site in both:
            site.step()
        aggregator.coordinator.close_due()


def failed(aggregator, run, both):
    aggregator.coordinator.fail(run, "broken")


@pytest.mark.parametrize(("end", "state"), [(finished, "FINISHED"), (failed, "FAILED")])
def test_abort_changes_nothing_of_a_run_that_is_over(aggregator, started, end, state):
    run, both = started
    end(aggregator, run, both)
    before = kinds(aggregator, run)
    assert aggregator.runs.abort(run, "too late").state == state
    assert (aggregator.runs.get(run).state, kinds(aggregator, run)) == (state, before)


def site(stack, aggregator, run, state):
    """North with a real ledger in `state`."""
    custody = stack.enter_context(Custody("north", policy(population={"epsilon": 50.0}), state))
    link = LocalLink(aggregator, "north", run)
    return Site(name="north", link=link, account=custody.account, build=lambda _: Bench([]), beats=False)


def test_a_site_that_has_lost_its_key_goes_on_with_a_new_ledger_that_has_spent_as_much(aggregator, tmp_path):
    asked = spec(federation={"sites": ["north"], "deadline_s": 1e9})
    run = aggregator.runs.start(asked, "once")
    with ExitStack() as stack:
        lost = site(stack, aggregator, run, tmp_path / "lost")
        assert lost.step()
        aggregator.coordinator.close_due()
    before = aggregator.intake.head("north", "p")
    new = tmp_path / "new"

    def declined():
        with ExitStack() as stack:
            assert site(stack, aggregator, run, new).step()
        return last(aggregator, run, "declined")["reason"]

    assert declined() == "LEDGER_BEHIND"
    run = aggregator.runs.start(asked, "twice")  # north was alone, and a phase without an update fails a run
    record = record_path(new, "p")
    reconcile.write(reconcile.Request(state=new, population="p", operator="ada", reason="disk", record=record))
    assert declined() == "BAD_ATTESTATION"
    run = aggregator.runs.start(asked, "thrice")
    key = public_key(keyfile.load(new / keyfile.SITE))
    old = aggregator.runs.repin("north", key, "the disk broke")
    assert old == public_key(keyfile.load(tmp_path / "lost" / keyfile.SITE))
    with ExitStack() as stack:
        assert site(stack, aggregator, run, new).step()
    assert kinds(aggregator, run)[-1] == "update_sealed"
    after = aggregator.intake.head("north", "p")
    assert after.epsilon_after > before.epsilon_after
    assert last(aggregator, run, "site_repinned") == {
        "site": "north",
        "before": old,
        "public_key": key,
        "reason": "the disk broke",
    }
    assert aggregator.runs.repin("north", key, "once more") == key
    assert kinds(aggregator, run).count("site_repinned") == 1
    with ExitStack() as stack:  # the old key is nobody's any more
        run = aggregator.runs.start(asked, "again")
        assert site(stack, aggregator, run, tmp_path / "lost").step()
    assert last(aggregator, run, "declined")["reason"] == "LEDGER_BEHIND"
