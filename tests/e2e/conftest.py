"""Containers and images for all tests of whole programs; tables of the images and of the charts at the end."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import look_alike, podman
from tests.cluster.node import Node, labelled
from tests.cluster.table import Table
from tests.images import NAMES, Images

BUILT = pytest.StashKey[list[str]]()
CHARTS = pytest.StashKey[Table]()
NAMES_SERVER = Path("/usr/lib/podman/aardvark-dns")


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[podman.Engine]:
    with podman.serving(tmp_path_factory.mktemp("podman")) as found:
        yield found


@pytest.fixture(scope="session")
def images(
    engine: podman.Engine, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Images]:
    flags = look_alike.flags(tmp_path_factory.mktemp("pip"))
    found = Images(engine, look_alike.make(os.environ | engine.environment), flags)
    yield found
    request.config.stash[BUILT] = list(found.table())


@pytest.fixture(scope="session")
def timed(request: pytest.FixtureRequest) -> Table:
    """Takes the time of a part of the tests of charts."""
    return request.config.stash.setdefault(CHARTS, Table())


@pytest.fixture(scope="module")
def node(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Where pods run, with all images; nothing of it is left."""
    if not NAMES_SERVER.exists():
        pytest.skip(f"no chart ran: podman has no names for containers without aardvark-dns: {podman.INSTALL}")
    for name in NAMES:
        images.built(name)
    with labelled(images.engine, tmp_path_factory.mktemp("cluster")) as found:
        yield found
    assert not found.states()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in config.stash.get(BUILT, []):
        terminalreporter.write_line(line)
    for line in config.stash.get(CHARTS, Table()).lines():
        terminalreporter.write_line(line)
