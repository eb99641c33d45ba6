"""Passes beside an aggregator that works: no chunk is lost that an upload counts on."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

from deerfield.exchange import Key, announce
from deerfield.manifest import pieces
from services.aggregator.blobstore.bucket import open_blobs, read_place
from services.aggregator.blobstore.collector import Collector, collecting
from services.aggregator.blobstore.retention import Retention
from tests import s3
from tests.attesting import again
from tests.fakes import run_spec
from tests.integration.aggregator.collector.conftest import DAY, check_law, orphan
from tests.integration.aggregator.teaching import site


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
