"""Asks an aggregator whether it takes a caller: by the standard health service, the one call that changes nothing.

`grpc.health.v1.Health/Check` is spelt out, because its messages are as small as that: an empty request is about the
whole server, and the answer's one field is 1 where it serves.
"""

from collections.abc import Callable

import grpc

from deerfield.errors import Unreachable
from deerfield.wire import limits
from deerfield.wire.backoff import ONE_MINUTE, Backoff
from deerfield.wire.calls import unary

CHECK = "/grpc.health.v1.Health/Check"
SERVING = b"\x08\x01"


def ask(channel: grpc.Channel, backoff: Backoff = ONE_MINUTE) -> None:
    """Returns once the aggregator has answered that it serves, which it does to whoever may call.

    Raises:
        NotAuthenticated: not to this caller.
        Unreachable: nobody has answered, or one that is ending, until `backoff` lost patience.
    """
    check: Callable[..., bytes] = channel.unary_unary(CHECK)

    def once() -> None:
        if unary(check, b"", limits.HELLO_S) != SERVING:
            raise Unreachable("the aggregator is ending or not ready; ask again when it has started")

    backoff.retry(once)
