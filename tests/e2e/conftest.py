"""Containers and images for all tests of whole programs; a table of the images at the end."""

import os
from collections.abc import Iterator

import pytest

from tests import look_alike, podman
from tests.images import Images

BUILT = pytest.StashKey[list[str]]()


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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in config.stash.get(BUILT, []):
        terminalreporter.write_line(line)
