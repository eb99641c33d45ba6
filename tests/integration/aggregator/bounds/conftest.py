"""An aggregator with bounds of the test's own, and whoever calls it."""

from contextlib import ExitStack

import pytest

from deerfield.wire import limits
from deerfield.wire.channel import connect
from deerfield.wire.federation_pb2_grpc import FederationStub
from services.aggregator.assembly import assemble_aggregator
from services.aggregator.bounds import Bounds
from tests.integration.aggregator.conftest import MEASURED, open_aggregator, served


@pytest.fixture
def bounded(tmp_path, clock):
    """Serves an aggregator with bounds of the test's own."""
    with ExitStack() as stack:

        def serve(gate=None, **bounds):
            opened = open_aggregator(tmp_path / "aggregator", clock)
            stack.callback(opened.desk.store.close)
            return stack.enter_context(
                served(assemble_aggregator(opened.desk, bounds=Bounds(**bounds)), gate=gate, asked=MEASURED)
            )

        yield serve


def site_stub(server, stack, name="north"):
    return FederationStub(stack.enter_context(connect(server.ports.listening, role="site", site=name)))


def assert_served(server):
    """Somebody else is answered."""
    assert server.site("south").hello().protocol == limits.PROTOCOL
