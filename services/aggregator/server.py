"""The aggregator as a server: both ports, the loop that closes phases, the recorder, and their end."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial

import grpc
import structlog
from grpc_health.v1._async import HealthServicer

from deerfield.errors import InvalidInput
from deerfield.exchange import Event
from deerfield.wire import federation_pb2_grpc as rpc
from services.aggregator.assembly import Aggregator
from services.aggregator.attaching import Attaching
from services.aggregator.auditing.decisions import Decisions
from services.aggregator.blobstore.collector import collecting
from services.aggregator.champions.promotions import Promotions
from services.aggregator.champions.redoing import redoing
from services.aggregator.driver import drive
from services.aggregator.metrics import Metrics
from services.aggregator.rounds.patience import Patience
from services.aggregator.rounds.recorder import Recorder, Tracking
from services.aggregator.rpc.audited import Audited
from services.aggregator.rpc.checked import Checked
from services.aggregator.rpc.departed import note_departed
from services.aggregator.rpc.drain import Drain, Draining
from services.aggregator.rpc.gate import Gate
from services.aggregator.rpc.health import add_health, add_reflection, set_serving
from services.aggregator.rpc.identity import Identify, claimed
from services.aggregator.rpc.observed import Observed
from services.aggregator.rpc.pulse import Pulse
from services.aggregator.rpc.readable import Readable
from services.aggregator.rpc.runs_servicer import RunsServicer
from services.aggregator.rpc.seldom import Seldom
from services.aggregator.rpc.servicer import FederationServicer
from services.aggregator.rpc.throttle import Throttle
from services.aggregator.rpc.traffic import Traffic
from services.telemetry.exposition import exposed

PROBES = 64  # calls at once on the probe port
GRACE_S = 1.0  # for calls that are under way when the server stops; clients ask again
PROMOTION_GRACE_S = 5.0  # its intent is written down: the next start does the rest
RECORDER_GRACE_S = 30.0  # a model may be on its way to the registry


log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where the server can be reached: host:port each."""

    listening: str
    health: str
    metrics: str = ""  # plain HTTP for Prometheus; empty: there is none


@asynccontextmanager
async def serving(
    aggregator: Aggregator,
    tracking: Tracking,
    identify: Identify,
    asked: Ports,
    gate: Gate | None = None,
) -> AsyncIterator[Ports]:
    """Serves for as long as the block runs, over TLS behind a gate; hands it the ports that were bound.

    After the block uploads that are under way have the aggregator's `drain_s` to finish.

    Raises:
        InvalidInput: a port is in use or cannot be bound.
    """
    health = HealthServicer()
    note_departed()
    shared = _Shared(aggregator, tracking)
    expires = gate.expires if gate else None
    shared.metrics.read(aggregator.desk, shared.traffic.admission, aggregator.lost_after_s, expires)
    data = _data_server(aggregator, identify, gate, shared)
    probes = grpc.aio.server(options=aggregator.bounds.options(), maximum_concurrent_rpcs=PROBES)
    for server in (data, probes):
        add_health(server, health)
    ports = Ports(listening=_bind(data, asked.listening, gate), health=_bind(probes, asked.health))
    await asyncio.gather(data.start(), probes.start())
    await set_serving(health)
    shared.recorder.start()
    shared.decisions.process("started")
    try:
        async with _beside(aggregator, shared, gate) as driving:
            with exposed(shared.metrics.registry, asked.metrics) as fetched:
                yield replace(ports, metrics=fetched)
                await health.enter_graceful_shutdown()
                await _drained(shared, driving, aggregator.drain_s)
    finally:
        await health.enter_graceful_shutdown()
        await asyncio.gather(data.stop(GRACE_S), probes.stop(GRACE_S))
        await asyncio.to_thread(shared.promotions.stop, PROMOTION_GRACE_S)
        await asyncio.to_thread(shared.recorder.stop, RECORDER_GRACE_S)
    shared.decisions.flush()  # behind an orderly end only: what broke the server may have been the database
    shared.decisions.process("ended")


class _Shared:
    """What the data port and the tasks beside it have in common."""

    def __init__(self, aggregator: Aggregator, tracking: Tracking) -> None:
        self.models = tracking.models
        self.promotions = Promotions(aggregator.desk, self.models)
        self.attaching = Attaching(aggregator.desk, tracked=self.models is not None)
        self.pulse, self.drain, self.metrics = Pulse(), Drain(), Metrics()
        beat = partial(_beat_from_thread, asyncio.get_running_loop(), self.pulse)
        patience = Patience(patience_s=aggregator.tracking_patience_s)
        self.recorder = Recorder(aggregator.desk.store, tracking, aggregator.desk.clock, beat, patience=patience)
        self.traffic = Traffic(aggregator.bounds, self.metrics, aggregator.intake.hear)
        self.decisions = Decisions(aggregator.desk.store, aggregator.desk.clock)


@asynccontextmanager
async def _beside(aggregator: Aggregator, shared: _Shared, gate: Gate | None) -> AsyncIterator[asyncio.Task[None]]:
    """What goes on beside the ports for as long as the block runs; hands it the task that closes phases."""
    async with asyncio.TaskGroup() as group:  # a driver or recorder that dies takes the server with it
        driving = group.create_task(
            drive(aggregator.coordinator, shared.pulse, shared.drain, shared.metrics.aggregating)
        )
        others = [_until_over(shared.recorder), collecting(aggregator.collector), shared.decisions.follow()]
        others += [redoing(shared.promotions)] if shared.models else []
        others += [gate.warning()] if gate else []
        tasks = [group.create_task(each) for each in others]
        yield driving
        for task in (driving, *tasks):
            task.cancel()


def _data_server(aggregator: Aggregator, identify: Identify, gate: Gate | None, shared: _Shared) -> grpc.aio.Server:
    """The server of sites and operators, which is bound to no port yet; its guards stand in the order of a call."""
    bounds = aggregator.bounds
    audited = Audited(shared.decisions, gate.shown if gate else claimed)  # outside the check: it sees what that refuses
    checked = [Checked(gate.check, gate.shown)] if gate else []
    throttle = Throttle(bounds, identify, time.monotonic, aggregator.intake.hear)
    guards = [
        Observed(shared.metrics, Seldom(time.monotonic)),
        audited,
        *checked,
        throttle,
        Draining(shared.drain),
        Readable(),
    ]
    most = bounds.calls_and_reserve
    data = grpc.aio.server(options=bounds.options(), interceptors=guards, maximum_concurrent_rpcs=most)
    federation = FederationServicer(aggregator, shared.pulse, identify, shared.traffic)
    rpc.add_FederationServicer_to_server(federation, data)
    runs = RunsServicer(aggregator, shared.pulse, identify, shared.promotions, shared.attaching)
    rpc.add_RunsServicer_to_server(runs, data)
    add_reflection(data)
    return data


async def _drained(shared: _Shared, driving: asyncio.Task[None], drain_s: float) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + drain_s
    shared.drain.begin()
    shared.pulse.close()  # nobody waits for a task
    shared.traffic.admission.close()
    if not await shared.drain.over(drain_s):
        log.warning("uploads are left behind; their sites send the rest again", drain_s=drain_s)
    await asyncio.wait([driving], timeout=max(end - loop.time(), 0))  # a phase that is not done is the next start's


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


def _beat_from_thread(loop: asyncio.AbstractEventLoop, pulse: Pulse, event: Event) -> None:
    is_end = event.kind == "run_failed"  # by its deadline or its quorum: nobody else says so
    with suppress(RuntimeError):  # the loop is already closed: nobody waits any more
        loop.call_soon_threadsafe(partial(pulse.beat, tasks=is_end))
