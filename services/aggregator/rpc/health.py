"""The standard health service: on the data port and, in plaintext and alone, on a port for probes."""

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection

from deerfield.wire import federation_pb2 as pb

SERVICES = tuple(f"{pb.DESCRIPTOR.package}.{name}" for name in ("Federation", "Runs"))


def add_health(server: grpc.aio.Server, servicer: HealthServicer) -> None:
    """Serves health."""
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)


def add_reflection(server: grpc.aio.Server) -> None:
    """Lets tools such as grpcurl list the services."""
    reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)


async def set_serving(servicer: HealthServicer) -> None:
    """Says that the aggregator answers."""
    for service in ("", *SERVICES):
        await servicer.set(service, health_pb2.HealthCheckResponse.SERVING)
