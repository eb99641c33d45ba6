"""Aggregators as processes, and runs over them."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from deerfield.errors import RunEnded
from deerfield.strategies import make
from deerfield.wire.backoff import Backoff
from deerfield.wire.channel import connect
from deerfield.wire.client import RunsClient, SiteClient
from pipelines.embedded.simulation import LocalLink
from services.aggregator.assembly import assemble_aggregator
from services.aggregator.blobstore.blobs import MemoryBlobs
from services.aggregator.desk import Desk
from services.aggregator.sql.database import IN_MEMORY, open_database
from services.aggregator.sql.store import Store
from tests.attesting import key_of
from tests.fakes import Clock, TeachingSite, adapter, run_spec

PATIENT = Backoff(first_s=0.05, last_s=0.4, patience_s=120)
SITES = ("north", "south")


@dataclass
class Running:
    """An aggregator's process, what it printed, and the file of its log."""

    process: subprocess.Popen
    listening: str
    health: str
    log: Path

    def said(self, text: str) -> int:
        """How many lines of the log hold a text."""
        return sum(text in line for line in self.log.read_text().splitlines())

    @contextmanager
    def runs(self) -> Iterator[RunsClient]:
        with connect(self.listening, role="operator") as channel:
            yield RunsClient(channel, backoff=PATIENT)

    @contextmanager
    def site(self, name: str, run: str) -> Iterator[TeachingSite]:
        with connect(self.listening, role="site", site=name) as channel:
            yield TeachingSite(name, SiteClient(channel, run=run, backoff=PATIENT), adapter(SITES.index(name)))


def command(folder: Path, *flags: str, database: str = "") -> list[str]:
    places = ["--database", database or f"sqlite:///{folder / 'a.db'}", "--blobs", str(folder / "blobs")]
    ports = ["--listen", "127.0.0.1:0", "--health", "127.0.0.1:0"]
    return [sys.executable, "-m", "services.aggregator", *ports, *places, *flags]


@contextmanager
def running(folder: Path, *flags: str, database: str = "", env: dict[str, str] | None = None) -> Iterator[Running]:
    """An aggregator that is gone after the block, whatever happens; `env` is its environment, if not this process'."""
    log = folder / "aggregator.log"
    with ExitStack() as stack:
        errors = stack.enter_context(log.open("ab"))
        process = subprocess.Popen(
            command(folder, *flags, database=database), stdout=subprocess.PIPE, stderr=errors, text=True, env=env
        )
        stack.enter_context(process)
        stack.callback(process.kill)
        printed = process.stdout.readline()
        assert printed, log.read_text()
        yield Running(process, **json.loads(printed), log=log)


def work(site: TeachingSite) -> None:
    """Answers tasks until the run has ended."""
    with suppress(RunEnded):
        while True:
            site.step()


@contextmanager
def working(aggregator: Running, run: str, names: Sequence[str] = SITES) -> Iterator[None]:
    """Sites on threads, which have come to their run's end when the block has."""
    with ExitStack() as stack:
        threads = [
            threading.Thread(target=work, args=(stack.enter_context(aggregator.site(name, run)),)) for name in names
        ]
        for thread in threads:
            thread.start()
        yield
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()


def digest_undisturbed(rounds: int) -> str:
    """Of the model of the run that `working` does, which nothing disturbs."""
    store = Store(open_database(IN_MEMORY))
    blobs = {"uploads": MemoryBlobs(), "published": MemoryBlobs()}
    aggregator = assemble_aggregator(Desk(store=store, **blobs, make=make, clock=Clock(), key=key_of("aggregator")))
    run = aggregator.runs.start(run_spec(*SITES, rounds=rounds), "once")
    sites = [TeachingSite(name, LocalLink(aggregator, name, run), adapter(i)) for i, name in enumerate(SITES)]
    while aggregator.runs.get(run).state == "RUNNING":
        for site in sites:
            site.step()
        aggregator.coordinator.close_due()
    digest = aggregator.runs.get(run).model.digest
    store.close()
    return digest
