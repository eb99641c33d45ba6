"""`python -m services.aggregator.probe HOST:PORT`: the health command of the aggregator's image.

Ends with 0 if the aggregator whose `--health` is that address says that it serves, else with 1 and a sentence.
"""

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deerfield.endpoint import seen_from_here
from deerfield.errors import Unreachable
from services.probing import TIMEOUT_S, probe


def ask(address: str) -> None:
    """Raises Unreachable unless the aggregator that listens at `address` says that it serves."""
    target = seen_from_here("health", address)
    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            raise Unreachable(f"{target} does not answer ({error.code().name})") from None
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        raise Unreachable(f"{target} says {status}, not SERVING")


if __name__ == "__main__":
    sys.exit(probe("services.aggregator.probe", ask, sys.argv[1:]))
