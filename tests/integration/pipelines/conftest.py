"""An aggregator behind real gRPC for the tasks of a pipeline."""

import pytest

from tests.fakes import Clock
from tests.integration.aggregator.conftest import open_aggregator, served


@pytest.fixture
def tracking():
    """What keeps the files of its runs; None: nothing does."""


@pytest.fixture
def server(tmp_path, tracking):
    aggregator = open_aggregator(tmp_path / "aggregator", Clock())
    with served(aggregator, tracking=tracking) as found:
        yield found
    aggregator.desk.store.close()
