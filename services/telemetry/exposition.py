"""Serves the metrics of a process over plain HTTP, for Prometheus to fetch."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from socket import AF_INET6
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import structlog
from prometheus_client import CollectorRegistry, make_wsgi_app

from deerfield.endpoint import read_listening
from deerfield.errors import InvalidInput

log = structlog.get_logger()

SILENCE_S = 10.0  # of somebody who has connected and asks for nothing


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Somebody has hung up in the middle: the log's business, and not stderr's."""
        log.warning("metrics not fetched", exc_info=True)


class _Server6(_Server):
    address_family = AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = SILENCE_S

    def log_message(self, format: str, *args: object) -> None:
        """A fetch is no news."""


@contextmanager
def exposed(registry: CollectorRegistry, address: str) -> Iterator[str]:
    """Serves `registry` at host:port for as long as the block runs, and hands it the port that was bound.

    An empty address serves nothing. Raises InvalidInput where the port cannot be bound.
    """
    if not address:
        yield ""
        return
    asked = read_listening("metrics", address, "127.0.0.1:8602")
    kind = _Server6 if ":" in asked.host else _Server
    try:
        server = make_server(asked.host, asked.port, make_wsgi_app(registry), kind, handler_class=_Handler)
    except OSError as error:
        raise InvalidInput(
            f"metrics: {address} is in use or cannot be bound ({error.strerror}); choose another port, or 0 for a "
            "free one"
        ) from None
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield f"{address.rpartition(':')[0]}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
