"""Which HTTP proxy leads to the aggregator, if any: as is said, or as gRPC reads the environment.

gRPC is told the answer (`grpc.http_proxy`), and so is whoever names the cause of a failure: both take the same way.
"""

import base64
import ipaddress
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from deerfield.errors import InvalidInput, Unreachable

VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")  # the first that is set, as gRPC has it
EXCEPTIONS = ("no_grpc_proxy", "no_proxy")
ANSWER_BYTES = 8192  # of headers, before the tunnel opens
OPEN = range(200, 300)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """A proxy that opens tunnels by HTTP CONNECT."""

    url: str = field(repr=False)  # as gRPC takes it, with the user and password if there are any
    host: str
    port: int
    authorization: str = field(repr=False)  # for the header, or empty

    def __str__(self) -> str:
        """Where it is, without the password."""
        return f"{self.host}:{self.port}"


def parse(url: str) -> Proxy:
    """The proxy of a URL; raises InvalidInput for one that is none."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        parts, host, port = urlsplit(""), "", None
    if parts.scheme != "http" or not host or port is None or parts.path.strip("/"):
        raise InvalidInput(
            f"proxy: {_shown(url)!r} is no proxy; write http://HOST:PORT, or http://USER:PASSWORD@HOST:PORT"
        )
    user = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    authorization = f"Basic {base64.b64encode(user.encode()).decode()}" if parts.username else ""
    return Proxy(url=url, host=host, port=port, authorization=authorization)


def choose(address: str, said: str = "", environment: Mapping[str, str] = os.environ) -> Proxy | None:
    """The proxy on the way to `address` (host:port): the one that was said, else the environment's.

    This machine itself is never reached through the environment's.

    Raises:
        InvalidInput: what was said, or the environment's, is no proxy.
    """
    if said:
        return parse(said)
    host = host_of(address)
    url = next((environment[name] for name in VARIABLES if environment.get(name)), "")
    if not url or is_loopback(host) or _is_excepted(host, environment):
        return None
    return parse(url)


def options(proxy: Proxy | None) -> tuple[tuple[str, Any], ...]:
    """The channel options that send gRPC this way and no other."""
    return (("grpc.http_proxy", proxy.url),) if proxy else (("grpc.enable_http_proxy", 0),)


def host_of(address: str) -> str:
    """The host of host:port."""
    return address.rpartition(":")[0].strip("[]")


def is_loopback(host: str) -> bool:
    """Can this machine alone reach it?"""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def tunnel(proxy: Proxy, address: str, timeout_s: float) -> socket.socket:
    """A connection to `address` through the proxy.

    Raises:
        Unreachable: there is none, and why.
    """
    headers = [f"CONNECT {address} HTTP/1.1", f"Host: {address}"]
    if proxy.authorization:
        headers.append(f"Proxy-Authorization: {proxy.authorization}")
    try:
        connection = socket.create_connection((proxy.host, proxy.port), timeout_s)
    except OSError as error:
        raise Unreachable(f"the proxy {proxy} cannot be reached ({reason_of(error)}); check its address") from None
    try:
        connection.sendall("\r\n".join([*headers, "", ""]).encode())
        status = _status(connection)
    except OSError as error:
        connection.close()
        raise Unreachable(f"the proxy {proxy} does not answer ({reason_of(error)}); check its address") from None
    words = status.split(" ", 2)
    if not (status.startswith("HTTP/") and len(words) > 1 and words[1].isdecimal() and int(words[1]) in OPEN):
        connection.close()
        said = " ".join(words[1:]) if status.startswith("HTTP/") else "no HTTP"
        raise Unreachable(f"the proxy {proxy} opens no way to {address} ({said[:80]}); ask who runs it to allow it")
    return connection


def reason_of(error: OSError) -> str:
    """What the system says of a failure, in a few words."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return (error.strerror or type(error).__name__).lower()


def _status(connection: socket.socket) -> str:
    """The first line of the proxy's answer; all its headers are read, and nothing of what follows."""
    answer = b""
    while not answer.endswith(b"\r\n\r\n") and len(answer) < ANSWER_BYTES:
        if not (byte := connection.recv(1)):
            break
        answer += byte
    return answer.split(b"\r\n", 1)[0].decode("latin-1")


def _is_excepted(host: str, environment: Mapping[str, str]) -> bool:
    listed = next((environment[name] for name in EXCEPTIONS if environment.get(name)), "")
    return any(_matches(host, entry.strip()) for entry in listed.split(",") if entry.strip())


def _matches(host: str, entry: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:  # one of them is a name: gRPC goes by its end
        return host.lower().endswith(entry.lower())


def _shown(url: str) -> str:
    return url.rpartition("@")[2][:80]
