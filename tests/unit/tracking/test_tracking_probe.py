"""The health command of the MLflow server's image."""

import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from services.probing import probe
from services.tracking.probe import ask

main = partial(probe, "services.tracking.probe", ask)


class Answering(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        assert self.path == "/health"
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def listening() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_it_is_well_if_the_server_says_so_wherever_it_listens(listening):
    assert main([f"0.0.0.0:{listening}"]) == 0
    assert main([f"127.0.0.1:{listening}"]) == 0


def test_it_is_not_well_if_the_server_says_something_else_or_nothing(listening, capsys):
    Answering.status = 503
    try:
        assert main([f"0.0.0.0:{listening}"]) == 1
    finally:
        Answering.status = 200
    assert capsys.readouterr().err == f"error: 127.0.0.1:{listening} answers 503 at /health, not 200\n"
    assert main(["127.0.0.1:1"]) == 1
    assert main([]) == 2
