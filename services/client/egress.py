"""Shows that a site's process reaches nobody but its aggregator, as its network is meant to have it."""

import socket
import threading
from collections.abc import Sequence
from time import monotonic

import structlog

from deerfield.endpoint import Endpoint, read_target
from deerfield.errors import InvalidInput
from deerfield.wire.handshake import Way

SETTING = "--egress-proof"
TIMEOUT_S = 4.0  # for all of them: what drops packets answers never

log = structlog.get_logger()


def targets(text: str, way: Way) -> tuple[tuple[str, Endpoint], ...]:
    """The HOST:PORT that stand in `text` between commas, none of which is on the way to the aggregator.

    Raises:
        InvalidInput: one is no address, or is the aggregator's or its proxy's.
    """
    found = tuple((each, read_target(SETTING, each)) for each in map(str.strip, text.split(",")) if each)
    needed = {_place(read_target("--aggregator", way.address)): "the aggregator"}
    if way.proxy is not None:
        needed[way.proxy.host.lower(), way.proxy.port] = "the proxy to the aggregator"
    for shown, place in found:
        if (what := needed.get(_place(place))) is not None:
            raise InvalidInput(f"{SETTING}: {shown} is {what}, which a site must reach; name others")
    return found


def prove(found: Sequence[tuple[str, Endpoint]], timeout_s: float = TIMEOUT_S) -> None:
    """Tries to connect to all targets at once; what has not answered within `timeout_s` counts as out of reach.

    Raises:
        InvalidInput: one of them took the connection.
    """
    reached: set[str] = set()

    def connect(shown: str, place: Endpoint) -> None:
        try:
            socket.create_connection((place.host, place.port), timeout_s).close()
        except OSError:  # refused, dropped, or no such name here
            return
        reached.add(shown)

    threads = [threading.Thread(target=connect, args=each, name="egress", daemon=True) for each in found]
    for thread in threads:
        thread.start()
    end = monotonic() + timeout_s
    for thread in threads:  # daemons: where it is cut off, the resolver of a name may take minutes
        thread.join(max(end - monotonic(), 0))
    if reached:
        raise InvalidInput(
            f"{SETTING}: {', '.join(sorted(reached))} can be reached from here, and must not be; have the network "
            "policy of this pod enforced, or take it out of the proof"
        )
    if found:
        log.info("egress is closed", tried=[shown for shown, _ in found])


def _place(endpoint: Endpoint) -> tuple[str, int]:
    return endpoint.host.lower(), endpoint.port
