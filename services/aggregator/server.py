"""The aggregator as a server: both ports, the loop that closes phases, the recorder, and their end."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import grpc
from grpc_health.v1._async import HealthServicer

from deerfield.errors import InvalidInput
from deerfield.wire import federation_pb2_grpc as rpc
from deerfield.wire.limits import SERVER_OPTIONS
from services.aggregator.assembly import Aggregator
from services.aggregator.checked import Checked
from services.aggregator.driver import drive
from services.aggregator.gate import Gate
from services.aggregator.health import add_health, add_reflection, set_serving
from services.aggregator.identity import Identify
from services.aggregator.pulse import Pulse
from services.aggregator.readable import Readable
from services.aggregator.recorder import Recorder, Tracking
from services.aggregator.runs_servicer import RunsServicer
from services.aggregator.servicer import FederationServicer

GRACE_S = 1.0  # for calls that are under way when the server stops; clients ask again
RECORDER_GRACE_S = 30.0  # a model may be on its way to the registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where the server can be reached: host:port each."""

    listening: str
    health: str


@asynccontextmanager
async def serving(
    aggregator: Aggregator, tracking: Tracking, identify: Identify, asked: Ports, gate: Gate | None = None
) -> AsyncIterator[Ports]:
    """Serves for as long as the block runs, over TLS behind a gate; hands it the ports that were bound.

    Raises:
        InvalidInput: a port is in use or cannot be bound.
    """
    pulse, loop, health = Pulse(), asyncio.get_running_loop(), HealthServicer()
    guards = [Checked(gate.check), Readable()] if gate else [Readable()]
    data = grpc.aio.server(options=SERVER_OPTIONS, interceptors=guards)
    probes = grpc.aio.server(options=SERVER_OPTIONS)
    rpc.add_FederationServicer_to_server(FederationServicer(aggregator, pulse, identify), data)
    rpc.add_RunsServicer_to_server(RunsServicer(aggregator, pulse, identify), data)
    add_reflection(data)
    for server in (data, probes):
        add_health(server, health)
    ports = Ports(listening=_bind(data, asked.listening, gate), health=_bind(probes, asked.health))
    desk = aggregator.desk
    recorder = Recorder(desk.store, tracking, desk.clock, lambda: _beat_from_thread(loop, pulse))
    await asyncio.gather(data.start(), probes.start())
    await set_serving(health)
    recorder.start()
    try:
        async with asyncio.TaskGroup() as group:  # a driver or recorder that dies takes the server with it
            driving = group.create_task(drive(aggregator.coordinator, pulse))
            recording = group.create_task(_until_over(recorder))
            yield ports
            driving.cancel()
            recording.cancel()
    finally:
        await health.enter_graceful_shutdown()
        await asyncio.gather(data.stop(GRACE_S), probes.stop(GRACE_S))
        await asyncio.to_thread(recorder.stop, RECORDER_GRACE_S)


def _bind(server: grpc.aio.Server, address: str, gate: Gate | None = None) -> str:
    host, _, port = address.rpartition(":")
    try:
        _try_to_bind(host.strip("[]"), int(port))  # first, because gRPC writes complaints of its own to stderr
        bound = server.add_secure_port(address, gate.credentials()) if gate else server.add_insecure_port(address)
        return f"{host}:{bound}"
    except (OSError, RuntimeError, ValueError):
        raise InvalidInput(
            f"{address} is in use or cannot be bound; choose another port, or 0 for a free one"
        ) from None


def _try_to_bind(host: str, port: int) -> None:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    socket.create_server(address[:2], family=family).close()


async def _until_over(recorder: Recorder) -> None:
    over = asyncio.wrap_future(recorder.over)
    # asked for in any case: where the driver has failed first, this failure is nobody's, and no traceback
    over.add_done_callback(lambda done: done.cancelled() or done.exception())
    await asyncio.shield(over)  # a cancelled future could not be set any more


def _beat_from_thread(loop: asyncio.AbstractEventLoop, pulse: Pulse) -> None:
    with suppress(RuntimeError):  # the loop is already closed: nobody waits any more
        loop.call_soon_threadsafe(pulse.beat)
