"""Addresses as people write them: host:port, to listen at or to call, and URLs with a password in them."""

import re
from dataclasses import dataclass

from deerfield.errors import InvalidInput

LAST_PORT = 65535
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # what one listens at, and where that answers on this machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One end of a connection."""

    host: str  # an IPv6 address without its brackets
    port: int


def read_listening(name: str, address: str, example: str = "127.0.0.1:8600") -> Endpoint:
    """Where to listen; port 0 takes a free one. Raises InvalidInput, which names the setting."""
    found = _parse(address)
    if found is None:
        raise InvalidInput(f"{name}: {address[:80]!r} is no host:port, such as {example}; port 0 takes a free one")
    return found


def read_target(name: str, address: str) -> Endpoint:
    """Whom to call. Raises InvalidInput, which names the setting."""
    found = _parse(address)
    if "://" in address:
        raise InvalidInput(f"{name}: {address[:80]!r} is no host:port; write HOST:PORT without {_scheme(address)}")
    if found is None or found.port == 0:
        raise InvalidInput(f"{name}: {address[:80]!r} is no host:port, such as aggregator.example.org:8600")
    return found


def seen_from_here(name: str, address: str) -> str:
    """The host:port at which what listens at `address` answers on this machine; raises as `read_target` does."""
    end = read_target(name, address)
    host = EVERYWHERE.get(end.host, end.host)
    return f"[{host}]:{end.port}" if ":" in host else f"{host}:{end.port}"


def without_password(text: str) -> str:
    """A URL without what may be a password; rather too short than with one, but the path of a file stays whole."""
    return re.sub(r"([?&]password=)[^&]*", r"\1***", re.sub(r"(?<!file)(?<!sqlite)://.*@", "://***@", text))


def _scheme(address: str) -> str:
    return address[: address.index("://") + len("://")][:80]


def _parse(address: str) -> Endpoint | None:
    host, _, port = address.rpartition(":")
    if "/" in host:  # of a URL
        return None
    if not (host.strip("[]") and port.isascii() and port.isdigit() and len(port) <= len(str(LAST_PORT))):
        return None
    return Endpoint(host=host.strip("[]"), port=int(port)) if int(port) <= LAST_PORT else None
