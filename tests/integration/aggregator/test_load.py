"""The benchmark's sites behave as real ones do."""

import asyncio
from contextlib import closing

from benchmarks.ingest_load import Job, Site
from services.aggregator.assembly import assemble_aggregator
from services.aggregator.bounds import Bounds
from tests.fakes import run_spec
from tests.integration.aggregator.conftest import open_aggregator, served

SITES = ("site-0", "site-1", "site-2", "site-3")


def test_all_their_updates_arrive_though_most_are_told_to_come_again(tmp_path, clock):
    opened = open_aggregator(tmp_path / "aggregator", clock)
    narrow = assemble_aggregator(opened.desk, bounds=Bounds(uploads=1, queue=1))
    with closing(opened.desk.store), served(narrow) as server:
        run = server.runs.start(run_spec(*SITES, strategy="fedavg", rounds=1), "once")

        async def upload():
            job = Job(kind="upload", address=server.ports.listening, run=run, sites=SITES, seed=0)
            sites = [Site(job, name) for name in SITES]
            for site in sites:
                await site.prepare()
            await asyncio.gather(*(site.send() for site in sites))
            await asyncio.gather(*(site.channel.close() for site in sites))

        asyncio.run(upload())
        published = [event for event in server.runs.watch(run) if event.kind == "phase_published"]
    assert published[0].detail["sites"] == list(SITES)
