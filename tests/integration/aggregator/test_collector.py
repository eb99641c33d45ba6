"""What is deleted, and what never: the law is that every manifest that a row holds is complete after any pass."""

import asyncio
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from itertools import chain, count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import and_, select

from deerfield.errors import DeerfieldError, RunEnded, Superseded
from deerfield.exchange import Key, announce
from deerfield.manifest import assemble, describe, pieces
from pipelines.simulation import LocalLink
from services.aggregator.blobstore.bucket import open_blobs, read_place
from services.aggregator.blobstore.collector import Collector, collecting
from services.aggregator.blobstore.retention import Retention
from services.aggregator.sql.database import Database
from services.aggregator.sql.exclusion import take_over
from services.aggregator.sql.records import manifest_of, state_of
from services.aggregator.sql.store import Store
from services.aggregator.sql.tables import PHASE, phases, tasks, uploads
from tests import s3
from tests.attesting import again
from tests.fakes import TeachingSite, adapter, run_spec

HOUR, DAY = 3600.0, 24 * 3600.0


@pytest.fixture
def clock(clock):
    """Blobs have the times of their server: the tests' clock starts there too."""
    clock.now = time.time()
    return clock


@pytest.fixture
def database_of(aggregator):
    return aggregator.desk.store._engine


def site(aggregator, run, name, seed=1):
    return TeachingSite(name, LocalLink(aggregator, name, run), adapter(seed))


def finished(aggregator, *names, name="teaching run", rounds=1):
    """A run to its end; answers its name."""
    run = aggregator.runs.start(run_spec(*names, rounds=rounds, name=name), name)
    every = [site(aggregator, run, each, seed) for seed, each in enumerate(names)]
    with suppress(RunEnded):
        while True:
            for each in every:
                each.step()
            aggregator.coordinator.close_due()
    return run


def orphan(blobs, data=b"of an upload that was given up"):
    blobs.put(sha := sha256(data).hexdigest(), data)
    return sha


def held(aggregator):
    """The chunks that rows hold, in updates and in states: read from the tables, apart from what the collector does."""
    same = and_(*(tasks.c[name] == phases.c[name] for name in PHASE))
    with aggregator.desk.store._engine.begin() as connection:
        updates = connection.execute(select(uploads.c.manifest).where(uploads.c.held)).scalars().all()
        starts = connection.execute(select(tasks.c.start).join(phases, same).where(phases.c.held)).scalars().all()
        both = connection.execute(select(phases.c.before, phases.c.after).where(phases.c.held)).all()
    states = [state_of(text) for text in chain(*both) if text]
    named = [manifest_of(text) for text in starts]
    named += [manifest for state in states for manifest in (state.shared, *state.personal.values())]
    return (
        frozenset(chain.from_iterable(manifest_of(text).chunks for text in updates)),
        frozenset(chain.from_iterable(manifest.chunks for manifest in named)),
    )


def check_law(aggregator, unsent=frozenset()):
    """Every manifest that a row holds is complete, but for what was not yet sent; so is the last model of every run."""
    desk, (updates, states) = aggregator.desk, held(aggregator)
    assert {sha for sha in updates - unsent if not desk.uploads.has(sha)} == set()
    assert {sha for sha in states if not desk.published.has(sha)} == set()
    for view in aggregator.runs.list():
        for manifest in (view.model, *view.personal.values()):
            assert describe(assemble(manifest, desk.published.get)) == manifest


def shas(blobs):
    return {blob.sha for blob in blobs.kept()}


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
    check_law(aggregator)


def test_an_upload_begun_again_after_a_collection_is_told_what_is_missing(aggregator, clock):
    run = aggregator.runs.start(run_spec("north", rounds=1, deadline_s=90 * DAY), "once")
    north, key = site(aggregator, run, "north"), Key(run=run, incarnation=1, round=0, phase=0)
    assignment = north.link.next_task()
    first, second = north.update(assignment), site(aggregator, run, "north", 7).update(assignment)
    begun = announce(first)
    aggregator.intake.begin("north", key, begun)
    for sha, data in pieces(first.delta, begun.manifest, begun.manifest.chunks):
        aggregator.desk.uploads.put(sha, data)
    aggregator.intake.begin("north", key, announce(second))
    clock.advance(2 * DAY)
    aggregator.collector.collect()
    retried = again(first)
    assert aggregator.intake.begin("north", key, announce(retried)) == begun.manifest.chunks
    north.link.send(assignment, retried)
    assert aggregator.coordinator.close_due() == 1
    check_law(aggregator)


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


def test_a_collection_racing_uploads_never_loses_a_chunk_that_was_acknowledged(aggregator, place, tmp_path, clock):
    """Chunks that nobody names, and that are old, are announced again in the moment in which they are collected."""
    grace_s, names = 2.0, [f"site-{number}" for number in range(8)]
    opened, _ = open_blobs(read_place(place(tmp_path)), grace_s, s3.ENVIRONMENT)
    desk = replace(aggregator.desk, uploads=opened, clock=time.time)
    aggregator = replace(aggregator, desk=desk, intake=type(aggregator.intake)(desk))
    run = aggregator.runs.start(run_spec(*names, rounds=1, deadline_s=DAY), "once")
    every = [site(aggregator, run, name, seed) for seed, name in enumerate(names)]
    begun = []
    for each in every:
        assignment = each.link.next_task()
        update = each.update(assignment)
        announcement = announce(update)
        begun.append((each, assignment, update, announcement.manifest))
        for sha, data in pieces(update.delta, announcement.manifest, announcement.manifest.chunks):
            opened.put(sha, data)
    until = time.time() + grace_s + 1.1
    while (left := until - time.time()) > 0:
        threading.Event().wait(left)
    collector, over = Collector(desk, Retention(gc_grace_s=grace_s)), threading.Event()

    def collect() -> None:
        while not over.is_set():
            collector.collect()

    with ThreadPoolExecutor(len(every) + 1) as pool:
        collected = pool.submit(collect)
        sent = [pool.submit(each.link.send, assignment, update) for each, assignment, update, _ in begun]
        try:
            for each in sent:
                each.result(60)
        finally:
            over.set()
        collected.result(60)
    check_law(aggregator)
    assert aggregator.coordinator.close_due() == 1


def test_it_collects_from_time_to_time_beside_everything_else(aggregator, clock, capsys):
    sha = orphan(aggregator.desk.uploads)
    clock.advance(2 * DAY)

    async def until_gone() -> None:
        task = asyncio.create_task(collecting(aggregator.collector, first_s=0.0, period_s=0.01))
        async with asyncio.timeout(30):
            while await asyncio.to_thread(aggregator.desk.uploads.has, sha):
                await asyncio.sleep(0.01)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(until_gone())
    assert "collected" in capsys.readouterr().out
    check_law(aggregator)


STEPS = st.sampled_from(
    ["north", "south", "half", "close", "collect", "orphan", "start", "abort", "hour", "day", "week"]
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, min_size=4, max_size=25), keep=st.sampled_from([None, 0.0, 3 * DAY]))
@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("place", ["folder"], indirect=True)
def test_after_any_pass_every_manifest_that_a_row_holds_is_complete(open_in, tmp_path, clock, steps, keep):
    tmp_path = tmp_path / os.urandom(4).hex()
    aggregator, numbers, unsent = open_in(tmp_path), count(), set()
    collector = Collector(aggregator.desk, Retention(keep_updates_s=3 * DAY, keep_states_s=keep))
    clock.now = time.time()

    def start() -> str:
        spec = run_spec("north", "south", rounds=2, quorum=1, name=f"r{next(numbers)}")
        return aggregator.runs.start(spec, spec.name)

    def half(run: str) -> None:
        """An upload whose connection broke after its first chunk."""
        north = site(aggregator, run, "north", next(numbers))
        if assignment := north.link.next_task():
            update = north.update(assignment)
            announcement = announce(update)
            key = Key(run=run, incarnation=1, round=assignment.task.round, phase=assignment.task.phase)
            aggregator.intake.begin("north", key, announcement)
            chunks = list(pieces(update.delta, announcement.manifest, announcement.manifest.chunks))
            aggregator.desk.uploads.put(*chunks[0])
            unsent.update(sha for sha, _ in chunks[1:])

    acts = {
        "north": lambda run: site(aggregator, run, "north", next(numbers)).step(),
        "south": lambda run: site(aggregator, run, "south", next(numbers)).step(),
        "half": half,
        "close": lambda _: aggregator.coordinator.close_due(),
        "collect": lambda _: collector.collect(),
        "orphan": lambda _: orphan(aggregator.desk.uploads, b"%d" % next(numbers)),
        "abort": lambda run: aggregator.runs.abort(run, "enough"),
        "hour": lambda _: clock.advance(HOUR),
        "day": lambda _: clock.advance(1.1 * DAY),
        "week": lambda _: clock.advance(7 * DAY),
    }
    run = start()
    for step in steps:
        with suppress(DeerfieldError):  # the run has ended, the phase is closed: a refusal is no failure here
            if step == "start":
                run = start()
            else:
                acts[step](run)
        if step == "collect":
            check_law(aggregator, {sha for sha in unsent if not aggregator.desk.uploads.has(sha)})
    collector.collect()
    check_law(aggregator, {sha for sha in unsent if not aggregator.desk.uploads.has(sha)})
