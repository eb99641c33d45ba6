"""A way to a PostgreSQL server that can be cut: altogether, or around the next COMMIT."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal

Lost = Literal["request", "answer"]  # what does not arrive: the server has not committed, or has


class Line:
    """Carries bytes to and from `port`; `arm` cuts the connection that the next COMMIT comes by."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.cuts = 0
        self._armed: Lost | None = None
        self._open = True
        self._sockets: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def arm(self, lost: Lost) -> None:
        self._armed = lost

    def cut(self) -> None:
        """Cuts what is there, and lets nobody through."""
        self._open = False
        for each in tuple(self._sockets):
            self._end(each)

    def mend(self) -> None:
        self._open = True

    def close(self) -> None:
        self._end(self._listener)
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if not self._open:
                    near.close()
                    continue
                try:
                    far = socket.create_connection(("127.0.0.1", self._to))
                except OSError:
                    near.close()
                    continue
                self._sockets |= {near, far}
                for carry, swallow in ((self._there, event := threading.Event()), (self._back, event)):
                    threading.Thread(target=carry, args=(near, far, swallow), daemon=True).start()

    def _there(self, near: socket.socket, far: socket.socket, swallow: threading.Event) -> None:
        with suppress(OSError):
            while data := near.recv(1 << 16):
                if self._armed and b"COMMIT\0" in data:
                    lost, self._armed = self._armed, None
                    self.cuts += 1
                    if lost == "request":
                        break
                    swallow.set()
                far.sendall(data)
        self._end(near)
        self._end(far)

    def _back(self, near: socket.socket, far: socket.socket, swallow: threading.Event) -> None:
        with suppress(OSError):
            while (data := far.recv(1 << 16)) and not swallow.is_set():
                near.sendall(data)
        self._end(near)
        self._end(far)

    def _end(self, which: socket.socket) -> None:
        self._sockets.discard(which)
        with suppress(OSError):
            which.shutdown(socket.SHUT_RDWR)
        which.close()


@contextmanager
def line(port: int) -> Iterator[Line]:
    """A line that ends with the block."""
    found = Line(port)
    try:
        yield found
    finally:
        found.close()
