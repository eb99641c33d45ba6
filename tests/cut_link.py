"""A network link that a test can cut: a TCP proxy on loopback that refuses, breaks or holds back, and counts bytes."""

import socket
import struct
import threading
from contextlib import suppress
from typing import Literal

CONNECTIONS = 256  # at once; further ones wait in the listener's queue
PIECE = 65536
WAIT_S = 30.0
RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no seconds: what was not sent yet is lost, as with a link that broke


class CutLink:
    """Forwards `127.0.0.1:port` to `target`, both ways. Use it as a context manager; every method is for any thread.

    `up` and `down` are the bytes that have passed to the target and back, `connections` those that were accepted.
    """

    def __init__(self, target: str | int) -> None:
        """`target` is host:port, or a port on loopback; it may be changed later, for new connections."""
        self.target = f"127.0.0.1:{target}" if isinstance(target, int) else target
        self.up = self.down = self.connections = 0
        self._changed = threading.Condition()  # guards everything here
        self._state: Literal["up", "stalled", "cut", "closed"] = "up"
        self._cut_at: int | None = None
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._turns = threading.Semaphore(CONNECTIONS)
        self._listener = _bound(0)
        self.port: int = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self._listen()

    def __enter__(self) -> "CutLink":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def cut(self) -> None:
        """Breaks every connection and refuses new ones until `restore`; the port stays ours."""
        with self._changed:
            if self._state in ("up", "stalled"):
                self._cut()

    def stall(self) -> None:
        """Keeps connections, and takes new ones, but passes nothing on until `restore`: a link that went silent."""
        with self._changed:
            if self._state == "up":
                self._state = "stalled"

    def restore(self) -> None:
        """Ends `cut`, `stall` and `cut_at`."""
        with self._changed:
            self._cut_at = None
            was, self._state = self._state, "closed" if self._state == "closed" else "up"
            self._changed.notify_all()
            if was == "cut":
                self._listen()

    def cut_at(self, up: int) -> None:
        """Cuts by itself as soon as `up` bytes in all have passed to the target; not one more passes."""
        with self._changed:
            self._cut_at = up
            if self.up >= up and self._state in ("up", "stalled"):
                self._cut()

    def await_cut(self, timeout_s: float = WAIT_S) -> None:
        """Waits until the link is cut; fails after `timeout_s`."""
        self._await(lambda: self._state == "cut", timeout_s, "the link is not cut")

    def await_up(self, up: int, timeout_s: float = WAIT_S) -> None:
        """Waits until `up` bytes in all have passed to the target; fails after `timeout_s`."""
        self._await(lambda: self.up >= up, timeout_s, f"fewer than {up} bytes have passed")

    def await_connections(self, count: int, timeout_s: float = WAIT_S) -> None:
        """Waits until `count` connections in all were accepted; fails after `timeout_s`."""
        self._await(lambda: self.connections >= count, timeout_s, f"fewer than {count} connections")

    def close(self) -> None:
        """Ends all connections and threads."""
        with self._changed:
            if self._state != "cut":
                self._cut()
            self._state = "closed"
            self._listener.close()
            self._changed.notify_all()
            threads = list(self._threads)
        for thread in threads:
            thread.join(WAIT_S)
            assert not thread.is_alive(), "a thread of the link is stuck"

    def _await(self, reached, timeout_s: float, otherwise: str) -> None:
        with self._changed:
            assert self._changed.wait_for(reached, timeout_s), (
                f"{otherwise} after {timeout_s} s: {self.up} up, {self.down} down, {self.connections} connections"
            )

    def _cut(self) -> None:
        self._state = "cut"
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        self._listener = _bound(self.port)  # bound and not listening: refuses, and nobody else gets the port
        for each in self._open:
            _reset(each)
        self._open.clear()
        self._changed.notify_all()

    def _listen(self) -> None:
        self._listener.listen(CONNECTIONS)
        self._start(self._accept, self._listener)

    def _start(self, act, *arguments: object) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        self._threads.append(threading.Thread(target=act, args=arguments, name="link", daemon=True))
        self._threads[-1].start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:  # cut
                return
            self._turns.acquire()
            with self._changed:
                if self._state in ("cut", "closed"):
                    _reset(near)
                    self._turns.release()
                    return
                self.connections += 1
                self._open.add(near)
                self._start(self._connect, near)
                self._changed.notify_all()

    def _connect(self, near: socket.socket) -> None:
        try:
            host, _, port = self.target.rpartition(":")
            with socket.create_connection((host.strip("[]"), int(port)), WAIT_S) as far, near:
                far.settimeout(None)
                with self._changed:
                    if near not in self._open:  # cut in the meantime
                        return
                    self._open.add(far)
                back = threading.Thread(target=self._pump, args=(far, near, "down"), name="link", daemon=True)
                back.start()
                self._pump(near, far, "up")
                back.join()
        except OSError:  # the target refuses, and so do we
            _reset(near)
        finally:
            with self._changed:
                self._open = {each for each in self._open if each.fileno() >= 0}
            self._turns.release()

    def _pump(self, source: socket.socket, sink: socket.socket, way: Literal["up", "down"]) -> None:
        with suppress(OSError):  # reset, at either end
            while piece := source.recv(PIECE):
                with self._changed:
                    self._changed.wait_for(lambda: self._state != "stalled")
                    if self._state != "up":
                        return
                    if way == "up" and self._cut_at is not None:
                        piece = piece[: self._cut_at - self.up]  # counted before it is sent: others send too
                    setattr(self, way, getattr(self, way) + len(piece))
                sink.sendall(piece)
                with self._changed:
                    if self._cut_at is not None and self.up >= self._cut_at and self._state == "up":
                        self._cut()
                    self._changed.notify_all()
            sink.shutdown(socket.SHUT_WR)  # the source has said all; the other way may still be in use
            return
        for each in (source, sink):
            _reset(each)


def _bound(port: int) -> socket.socket:
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.bind(("127.0.0.1", port))
    return found


def _reset(open_socket: socket.socket) -> None:
    with suppress(OSError):
        open_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        open_socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads
    open_socket.close()
