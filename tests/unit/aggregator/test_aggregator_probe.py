"""The health command of the aggregator's image."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from deerfield.endpoint import seen_from_here
from services.aggregator.probe import ask
from services.probing import probe

main = partial(probe, "services.aggregator.probe", ask)


@pytest.fixture
def servicer() -> health.HealthServicer:
    return health.HealthServicer()


@pytest.fixture
def port(servicer: health.HealthServicer) -> Iterator[int]:
    server = grpc.server(ThreadPoolExecutor(1))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None).wait()


def test_it_is_well_while_the_aggregator_says_that_it_serves(servicer, port, capsys):
    assert main([f"0.0.0.0:{port}"]) == 0
    servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    assert main([f"0.0.0.0:{port}"]) == 1
    assert capsys.readouterr().err == f"error: 127.0.0.1:{port} says NOT_SERVING, not SERVING\n"


def test_it_is_not_well_where_nobody_listens(capsys):
    assert main(["127.0.0.1:1"]) == 1
    assert capsys.readouterr().err == "error: 127.0.0.1:1 does not answer (UNAVAILABLE)\n"
    assert main([]) == 2
    assert main(["somewhere"]) == 2


@pytest.mark.parametrize(
    ("listening", "seen"),
    [("0.0.0.0:8601", "127.0.0.1:8601"), ("[::]:8601", "[::1]:8601"), ("10.1.2.3:1", "10.1.2.3:1")],
)
def test_what_listens_everywhere_is_asked_on_this_machine(listening, seen):
    assert seen_from_here("health", listening) == seen
