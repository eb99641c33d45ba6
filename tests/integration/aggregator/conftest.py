"""An aggregator behind real gRPC on a loopback port, over a real SQLite file, on an event loop in a thread."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from deerfield import keyfile
from deerfield.strategies import make
from deerfield.wire.backoff import Backoff
from deerfield.wire.channel import connect
from deerfield.wire.client import RunsClient, SiteClient
from services.aggregator.assembly import Aggregator, assemble_aggregator
from services.aggregator.blobs import FolderBlobs
from services.aggregator.database import open_database
from services.aggregator.desk import Desk
from services.aggregator.identity import from_metadata
from services.aggregator.recorder import Untracked
from services.aggregator.server import Ports, serving
from services.aggregator.store import Store
from tests.fakes import Clock

ANY = Ports(listening="127.0.0.1:0", health="127.0.0.1:0")


def open_aggregator(folder: Path, clock: Clock) -> Aggregator:
    """The aggregator over what lies in `folder`: called twice, it is a restart."""
    folder.mkdir(exist_ok=True)
    desk = Desk(
        store=Store(open_database(f"sqlite:///{folder / 'aggregator.db'}")),
        uploads=FolderBlobs(folder / "uploads"),
        published=FolderBlobs(folder / "published"),
        make=make,
        clock=clock,
        key=keyfile.load(folder / "aggregator.key"),
    )
    return assemble_aggregator(desk)


@dataclass
class Served:
    """A running server, and clients of it."""

    aggregator: Aggregator
    ports: Ports
    stack: ExitStack

    def site(self, name: str, run: str = "") -> SiteClient:
        channel = self.stack.enter_context(connect(self.ports.listening, role="site", site=name))
        return SiteClient(channel, run=run, backoff=Backoff(patience_s=5))

    @property
    def runs(self) -> RunsClient:
        return self.stack.enter_context(RunsClient.connect(self.ports.listening))


@contextmanager
def served(aggregator: Aggregator, tracking=None, gate=None) -> Iterator[Served]:
    """Serves `aggregator` on a thread for as long as the block runs."""
    started, box = threading.Event(), {}

    async def serve() -> None:
        box["stop"], box["loop"] = asyncio.Event(), asyncio.get_running_loop()
        identify = gate.identify if gate else from_metadata
        async with serving(aggregator, tracking or Untracked(), identify, ANY, gate) as box["ports"]:
            started.set()
            await box["stop"].wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert started.wait(10)
    with ExitStack() as stack:
        yield Served(aggregator, box["ports"], stack)
    box["loop"].call_soon_threadsafe(box["stop"].set)
    thread.join(10)
    assert not thread.is_alive()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def aggregator(tmp_path, clock):
    aggregator = open_aggregator(tmp_path, clock)
    yield aggregator
    aggregator.desk.store.close()


@pytest.fixture
def server(aggregator):
    with served(aggregator) as found:
        yield found
