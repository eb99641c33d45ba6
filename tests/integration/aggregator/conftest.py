"""An aggregator behind real gRPC on a loopback port, over a real database, on an event loop in a thread."""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
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
from services.aggregator.blobstore.bucket import open_blobs, read_place
from services.aggregator.desk import Desk
from services.aggregator.rounds.recorder import Untracked
from services.aggregator.rpc.identity import from_metadata
from services.aggregator.server import Ports, serving
from services.aggregator.sql.database import open_database
from services.aggregator.sql.store import Store
from tests import postgres, s3
from tests.fakes import Clock
from tests.integration.aggregator.security import Consortium, channel_of

ANY = Ports(listening="127.0.0.1:0", health="127.0.0.1:0")
MEASURED = Ports(listening="127.0.0.1:0", health="127.0.0.1:0", metrics="127.0.0.1:0")
LEFT_OUT = (("sqlite", "s3"), ("postgresql", "folder"))  # the two combinations that are left have each kind once


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves two of the four combinations of stores out, unless DEERFIELD_STORES is `all`."""
    if os.environ.get("DEERFIELD_STORES") == "all":
        return
    left_out = [item for item in items if _stores(item) in LEFT_OUT]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def _stores(item: pytest.Item) -> tuple[object, object]:
    """The database and the place of blobs that a test was given."""
    given = getattr(getattr(item, "callspec", None), "params", {})
    return given.get("database"), given.get("place")


def sqlite_in(folder: Path) -> str:
    """The URL of the database that belongs to a folder."""
    return f"sqlite:///{folder / 'aggregator.db'}"


def folder_in(folder: Path) -> str:
    """The blobs that belong to a folder, as `--blobs` names them."""
    return str(folder)


def open_aggregator(
    folder: Path,
    clock: Clock,
    url: Callable[[Path], str] = sqlite_in,
    place: Callable[[Path], str] = folder_in,
) -> Aggregator:
    """The aggregator over what lies in `folder`: opened again after its store was closed, it is a restart."""
    folder.mkdir(exist_ok=True)
    uploads, published = open_blobs(read_place(place(folder)), environment=s3.ENVIRONMENT)
    desk = Desk(
        store=Store(open_database(url(folder), takeover_s=1)),
        uploads=uploads,
        published=published,
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
def served(aggregator: Aggregator, tracking=None, gate=None, asked=ANY) -> Iterator[Served]:
    """Serves `aggregator` on a thread for as long as the block runs."""
    started, box = threading.Event(), {}

    async def serve() -> None:
        box["stop"], box["loop"] = asyncio.Event(), asyncio.get_running_loop()
        identify = gate.identify if gate else from_metadata
        async with serving(aggregator, tracking or Untracked(), identify, asked, gate) as box["ports"]:
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


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    with postgres.serving() as server:
        yield server


@pytest.fixture
def postgres_in(postgres_server: postgres.Server) -> Iterator[Callable[[Path], str]]:
    """As `sqlite_in`, with a database of the server for each folder."""
    names: dict[Path, str] = {}

    def url(folder: Path) -> str:
        if folder not in names:
            names[folder] = postgres_server.create()
        return postgres_server.url(names[folder])

    yield url
    for name in names.values():
        postgres_server.drop(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Callable[[Path], str]:
    """The URL of the database that belongs to a folder; a test that asks for it runs over each kind."""
    return sqlite_in if request.param == "sqlite" else request.getfixturevalue("postgres_in")


@pytest.fixture
def bucket(s3_server: s3.Server) -> str:
    return s3_server.bucket()


@pytest.fixture
def s3_in(s3_server: s3.Server) -> Callable[[Path], str]:
    """As `folder_in`, with a bucket of the server for each folder."""
    buckets: dict[Path, str] = {}

    def url(folder: Path) -> str:
        if folder not in buckets:
            buckets[folder] = s3_server.bucket()
        return s3_server.url(buckets[folder])

    return url


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest) -> Callable[[Path], str]:
    """The blobs that belong to a folder; a test that asks for it runs over each kind."""
    return folder_in if request.param == "folder" else request.getfixturevalue("s3_in")


@pytest.fixture
def open_in(
    database: Callable[[Path], str], place: Callable[[Path], str], clock: Clock
) -> Iterator[Callable[[Path], Aggregator]]:
    """Opens the aggregator of a folder; after the test they are all closed."""
    opened = []

    def opening(folder: Path) -> Aggregator:
        opened.append(open_aggregator(folder, clock, database, place))
        return opened[-1]

    yield opening
    for each in opened:
        each.desk.store.close()


@pytest.fixture
def aggregator(tmp_path, open_in):
    return open_in(tmp_path)


@pytest.fixture
def server(aggregator):
    with served(aggregator) as found:
        yield found


@pytest.fixture
def store(database, tmp_path):
    found = Store(open_database(database(tmp_path), takeover_s=1))
    yield found
    found.close()


@pytest.fixture
def consortium(tmp_path):
    return Consortium.found(tmp_path / "consortium")


@pytest.fixture
def secured(tmp_path, clock, consortium):
    """A server over TLS."""
    aggregator = open_aggregator(tmp_path / "aggregator", clock)
    with served(aggregator, gate=consortium.gate()) as found:
        yield found
    aggregator.desk.store.close()


@pytest.fixture
def address(secured):
    return secured.ports.listening


@pytest.fixture
def runs(consortium, address):
    """What an operator does at the server over TLS."""
    with channel_of(address, consortium.files("operator", "ada")) as channel:
        yield RunsClient(channel)
