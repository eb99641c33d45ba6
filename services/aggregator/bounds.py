"""What an operator may bound: how much at once, how often, how long. What both sides must agree on is in `wire.limits`.

Every field is a flag of the same name; docs/protocol.md lists them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import TypeAlias

from deerfield.wire import limits

Options: TypeAlias = Sequence[tuple[str, int]]
RESERVE = 1024  # calls that are told TOO_BUSY by us, before gRPC refuses without a word of ours


def _bound(default: float, text: str) -> float:
    found: float = field(default=default, metadata={"help": text})
    return found


def _count(default: int, text: str) -> int:
    found: int = field(default=default, metadata={"help": text})
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Counts and times of one aggregator."""

    runs: int = _count(64, "runs that are running at once")
    sites: int = _count(20_000, "sites of one run")
    calls: int = _count(4096, "calls under way at once, those that wait in NextTask among them")
    calls_each: int = _count(32, "calls of one caller under way at once")
    watches_each: int = _count(16, "of these, Watch streams")
    streams: int = _count(100, "calls under way at once on one connection; its client holds the others back")
    uploads: int = _count(4, "uploads taken in at once")
    queue: int = _count(32, "uploads that wait for their turn")
    queue_s: float = _bound(60.0, "seconds that an upload waits for its turn")
    rate: float = _bound(50.0, "calls a second of one kind from one caller, in the long run")
    burst: int = _count(200, "calls of one kind from one caller that may come at once")
    request_s: float = _bound(30.0, "seconds for the message of a call to arrive, once its headers have")
    idle_s: float = _bound(limits.IDLE_S, "seconds without a chunk that end an upload; one brings 1 MiB in that time")
    handshake_s: float = _bound(20.0, "seconds for a connection to become one, TLS and HTTP/2 together")
    unused_s: float = _bound(300.0, "seconds after which a connection without calls is closed")
    keepalive_s: float = _bound(limits.KEEPALIVE_S, "seconds of silence after which a connection is asked for life")
    keepalive_timeout_s: float = _bound(20.0, "seconds for its answer")

    def options(self) -> Options:
        """What gRPC itself has to see to, on top of what the wire asks of every server."""
        mine = {
            "grpc.max_concurrent_streams": self.streams,
            "grpc.server_handshake_timeout_ms": int(self.handshake_s * 1000),
            "grpc.max_connection_idle_ms": int(self.unused_s * 1000),
            "grpc.keepalive_time_ms": int(self.keepalive_s * 1000),
            "grpc.keepalive_timeout_ms": int(self.keepalive_timeout_s * 1000),
            # without it a ping has a minute, whatever keepalive says
            "grpc.http2.ping_timeout_ms": int(self.keepalive_timeout_s * 1000),
        }
        return tuple({**dict(limits.SERVER_OPTIONS), **mine}.items())

    @property
    def calls_and_reserve(self) -> int:
        """For gRPC's own limit, which refuses what is beyond every answer of ours."""
        return self.calls + RESERVE


NAMES = tuple(each.name for each in fields(Bounds))
