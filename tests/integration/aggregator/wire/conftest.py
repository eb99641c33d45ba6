"""A run over two sites behind real gRPC, and one of them."""

import pytest

from deerfield.wire.channel import connect
from deerfield.wire.federation_pb2_grpc import FederationStub
from tests.fakes import TeachingSite, adapter, run_spec


@pytest.fixture
def run(server):
    return server.runs.start(run_spec("north", "south", rounds=1), "once")


@pytest.fixture
def north(server, run):
    return TeachingSite("north", server.site("north", run), adapter(1))


@pytest.fixture
def stub(server):
    with connect(server.ports.listening, role="site", site="north") as channel:
        yield FederationStub(channel)
