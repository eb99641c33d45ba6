"""Opens a channel to the aggregator, and says on every call who is calling.

Over TLS the caller is who its certificate says. Over plaintext, which the aggregator serves on loopback alone, two
metadata keys say it. It travels in no message.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import grpc

from deerfield.certificates import Credentials
from deerfield.exchange import Role
from deerfield.wire.limits import CHANNEL_OPTIONS
from deerfield.wire.proxy import Proxy, options

ROLE_KEY = "deerfield-role"
SITE_KEY = "deerfield-site"
TURN_KEY = "deerfield-turn"  # in the answer to an upload: its chunks may come now


def connect(address: str, *, role: Role, site: str = "") -> grpc.Channel:
    """A plaintext channel to `address` (host:port) for one caller; it connects when it is first used."""
    channel = grpc.insecure_channel(address, options=(*CHANNEL_OPTIONS, *options(None)))
    return grpc.intercept_channel(channel, _Identified(((ROLE_KEY, role), (SITE_KEY, site))))


def connect_tls(address: str, own: Credentials, proxy: Proxy | None = None) -> grpc.Channel:
    """A channel to `address` (host:port, a name in the aggregator's certificate) for the owner of a certificate."""
    secret = grpc.ssl_channel_credentials(own.authority, own.key, own.certificate)
    return grpc.secure_channel(address, secret, options=(*CHANNEL_OPTIONS, *options(proxy)))


class _CallDetails(NamedTuple):
    method: str
    timeout: float | None
    metadata: tuple[tuple[str, str], ...]
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


class _Identified(
    grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor, grpc.StreamUnaryClientInterceptor
):
    """Adds the same metadata to every call."""

    def __init__(self, metadata: tuple[tuple[str, str], ...]) -> None:
        self._metadata = metadata

    def _call(self, proceed: Callable[[Any, Any], Any], details: Any, request: Any) -> Any:
        told = _CallDetails(
            details.method,
            details.timeout,
            (*(details.metadata or ()), *self._metadata),
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )
        return proceed(told, request)

    intercept_unary_unary = _call  # type: ignore[assignment]  # one body for what the stubs type as three
    intercept_unary_stream = _call  # type: ignore[assignment]
    intercept_stream_unary = _call  # type: ignore[assignment]
