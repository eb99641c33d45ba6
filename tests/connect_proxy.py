"""Two small proxies on loopback: one passes TCP on, the other opens tunnels by HTTP CONNECT; each lasts for a block."""

import socket
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Proxy:
    """A running proxy, and what went through it."""

    address: str
    opened: list[str] = field(default_factory=list)  # what was asked for, by each connection
    bytes_up: int = 0
    sockets: list[socket.socket] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://{self.address}"


@contextmanager
def passing_on(target: str) -> Iterator[Proxy]:
    """Passes every connection on to `target` (host:port), byte by byte: TLS goes through untouched."""

    def open_way(proxy: Proxy, near: socket.socket) -> socket.socket:
        proxy.opened.append(target)
        return _connect(target)

    with _proxy(open_way) as proxy:
        yield proxy


@contextmanager
def connecting(names: Mapping[str, str], user: str = "") -> Iterator[Proxy]:
    """Opens tunnels to the `names` that it knows and nowhere else, for `user` (name:password) if one is given."""

    def open_way(proxy: Proxy, near: socket.socket) -> socket.socket | None:
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            if not (byte := near.recv(1)):
                return None
            request += byte
        lines = request.decode().split("\r\n")
        verb, address, _ = lines[0].split(" ")
        proxy.opened.append(address)
        if user and f"proxy-authorization: basic {b64encode(user.encode()).decode()}".lower() not in map(
            str.lower, lines
        ):
            near.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            return None
        if verb != "CONNECT" or address not in names:
            near.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")
            return None
        far = _connect(names[address])
        near.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        return far

    with _proxy(open_way) as proxy:
        yield proxy


@contextmanager
def _proxy(open_way: Callable[[Proxy, socket.socket], socket.socket | None]) -> Iterator[Proxy]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        proxy, threads = Proxy(f"127.0.0.1:{listening.getsockname()[1]}"), []

        def start(target: Callable[..., None], *arguments: object) -> None:
            threads.append(threading.Thread(target=target, args=arguments))
            threads[-1].start()

        def serve(near: socket.socket) -> None:
            with suppress(OSError):
                if far := open_way(proxy, near):
                    proxy.sockets.append(far)
                    start(_pump, far, near, None)
                    _pump(near, far, proxy)
            near.close()

        def accept() -> None:
            with suppress(OSError):
                while True:
                    near, _ = listening.accept()
                    proxy.sockets.append(near)
                    start(serve, near)

        start(accept)
        yield proxy
        listening.shutdown(socket.SHUT_RDWR)
    threads[0].join(10)
    for each in proxy.sockets:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    for each in proxy.sockets:
        each.close()


def _connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), 10)


def _pump(source: socket.socket, target: socket.socket, counted: Proxy | None) -> None:
    with suppress(OSError):
        source.settimeout(None)
        while data := source.recv(65536):
            target.sendall(data)
            if counted:
                counted.bytes_up += len(data)
    for each in (source, target):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
