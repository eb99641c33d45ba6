"""What is deleted and when, and what never."""

from deerfield.exchange import Key, announce
from deerfield.manifest import describe, pieces
from services.aggregator.blobstore.collector import Collector
from services.aggregator.blobstore.retention import Retention
from tests.fakes import run_spec
from tests.integration.aggregator.collector.conftest import DAY, HOUR, check_law, finished, orphan, shas
from tests.integration.aggregator.teaching import site


def test_a_run_under_way_loses_nothing_however_old_and_orphans_go_after_the_grace(aggregator, clock):
    desk = aggregator.desk
    run = aggregator.runs.start(run_spec("north", "south", rounds=1, deadline_s=90 * DAY), "once")
    north, south = (site(aggregator, run, name, seed) for seed, name in enumerate(("north", "south")))
    north.step()
    assignment = south.link.next_task()
    update = south.update(assignment)
    announcement = announce(update)
    key = Key(run=run, incarnation=1, round=0, phase=0)
    aggregator.intake.begin("south", key, announcement)
    chunks = list(pieces(update.delta, announcement.manifest, announcement.manifest.chunks))
    desk.uploads.put(*chunks[0])
    orphans = orphan(desk.uploads), orphan(desk.published)
    clock.advance(23 * HOUR)
    assert aggregator.collector.collect().blobs == 0
    clock.advance(60 * DAY)
    found = aggregator.collector.collect()
    assert (found.blobs, found.updates, found.complete) == (2, 0, True)
    assert found.size_bytes == 2 * len(b"of an upload that was given up")
    assert not desk.uploads.has(orphans[0])
    assert not desk.published.has(orphans[1])
    assert aggregator.intake.begin("south", key, announcement) == announcement.manifest.chunks - {chunks[0][0]}
    check_law(aggregator, unsent={sha for sha, _ in chunks[1:]})
    south.link.send(assignment, update)
    assert aggregator.coordinator.close_due() == 1
    check_law(aggregator)


def test_updates_go_some_days_after_their_phase_has_closed_and_what_was_sealed_stays_sealed(aggregator, clock):
    desk = aggregator.desk
    run = aggregator.runs.start(run_spec("north", rounds=1), "once")
    north = site(aggregator, run, "north")
    assignment = north.link.next_task()
    update = north.update(assignment)
    receipt = north.link.send(assignment, update)
    aggregator.coordinator.close_due()
    sent = describe(update.delta).chunks
    clock.advance(6 * DAY)
    assert aggregator.collector.collect().updates == 0
    assert sent <= shas(desk.uploads)
    clock.advance(2 * DAY)
    found = aggregator.collector.collect()
    assert (found.updates, found.blobs) == (1, len(sent))
    assert shas(desk.uploads) == set()
    check_law(aggregator)
    status = aggregator.intake.status("north", Key(run=run, incarnation=1, round=0, phase=0))
    assert (status.sealed, status.missing, status.head) == (True, frozenset(), receipt)
    assert north.link.send(assignment, update) == receipt  # a site whose acknowledgement was lost
    assert aggregator.collector.collect().blobs == 0


def test_the_last_states_of_a_run_stay_for_ever_and_earlier_ones_as_long_as_is_asked(aggregator, clock):
    desk = aggregator.desk
    run = finished(aggregator, "north", "south", rounds=2)
    ended = aggregator.runs.get(run)
    going = aggregator.runs.start(run_spec("north", name="another", deadline_s=90 * DAY), "another")
    clock.advance(40 * DAY)
    aggregator.collector.collect()
    before = shas(desk.published)
    with desk.store.edge() as edge:
        named = edge.kept.states(run) | edge.kept.states(going)
    assert before == named
    soon = Collector(desk, Retention(keep_states_s=41 * DAY))
    assert soon.collect().phases == 0
    clock.advance(2 * DAY)
    found = soon.collect()
    assert found.phases == 3
    assert found.blobs == len(before - shas(desk.published)) > 0
    assert aggregator.runs.get(run) == ended
    check_law(aggregator)
    assert soon.collect().phases == 0


def test_what_was_announced_and_never_sealed_goes_when_its_phase_has_closed(aggregator, clock):
    run = aggregator.runs.start(run_spec("north", "south", rounds=1, quorum=1), "once")
    late = site(aggregator, run, "south", 2)
    assignment = late.link.next_task()
    update = late.update(assignment)
    announcement = announce(update)
    aggregator.intake.begin("south", Key(run=run, incarnation=1, round=0, phase=0), announcement)
    for sha, data in pieces(update.delta, announcement.manifest, announcement.manifest.chunks):
        aggregator.desk.uploads.put(sha, data)
    site(aggregator, run, "north").step()
    clock.advance(2 * HOUR)  # beyond the deadline
    aggregator.coordinator.close_due()
    clock.advance(DAY)
    assert aggregator.collector.collect().updates == 1
    assert not announcement.manifest.chunks & shas(aggregator.desk.uploads)
    assert not aggregator.intake.expected("south")  # nothing of it is taken any more
    check_law(aggregator)
