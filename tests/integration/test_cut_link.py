import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.cut_link import CutLink


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it gets."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while piece := connection.recv(1000):
                connection.sendall(piece)

    def serve() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    thread = threading.Thread(target=serve)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(10)


@pytest.fixture
def link(echo: int) -> Iterator[CutLink]:
    with CutLink(echo) as link:
        yield link


def connected(link: CutLink) -> socket.socket:
    return socket.create_connection(("127.0.0.1", link.port), 10)


def said(connection: socket.socket, data: bytes) -> bytes:
    """What comes back of `data` before the end."""
    found = b""
    with suppress(OSError):
        connection.sendall(data)
        while len(found) < len(data) and (piece := connection.recv(1000)):
            found += piece
    return found


def test_bytes_pass_both_ways_and_are_counted(link):
    with connected(link) as one, connected(link) as other:
        assert said(one, b"x" * 100_000) == b"x" * 100_000
        assert said(other, b"yz") == b"yz"
    assert (link.up, link.down, link.connections) == (100_002, 100_002, 2)


def test_a_cut_breaks_what_is_open_and_refuses_what_is_new_until_it_is_restored(link):
    with connected(link) as open_one:
        assert said(open_one, b"a") == b"a"
        link.cut()
        assert said(open_one, b"b") == b""
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            connected(link)
    link.restore()
    with connected(link) as again:
        assert said(again, b"c") == b"c"


def test_a_link_cuts_itself_after_so_many_bytes(link):
    link.cut_at(1500)
    with connected(link) as one:
        assert len(said(one, b"x" * 10_000)) <= 1500
    link.await_cut()
    assert link.up == 1500
    with pytest.raises(ConnectionRefusedError):
        connected(link)


def test_a_stalled_link_passes_nothing_and_loses_nothing(link):
    with connected(link) as one:
        assert said(one, b"a") == b"a"
        link.stall()
        one.sendall(b"b")
        one.settimeout(0.2)
        with pytest.raises(TimeoutError):
            one.recv(1)
        link.restore()
        one.settimeout(10)
        assert one.recv(1) == b"b"
