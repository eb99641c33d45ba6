"""JSON over HTTP for the servers of the tests: a port, requests as values, and errors as exceptions."""

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from deerfield.certificates import Files


@dataclass(frozen=True)
class Request:
    """What came over the wire."""

    method: str
    path: str
    query: dict[str, str]  # the first value of each
    headers: dict[str, str]  # by their names in lower case
    data: bytes


class Refused(Exception):
    """An answer that is an error: its status, and the sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class HangUp(Exception):
    """The connection ends without an answer."""


class Api(Protocol):
    """Who answers, from several threads at once."""

    def answer(self, request: Request) -> tuple[int, Any]:
        """The status and the document; raises Refused or HangUp."""

    def refusal(self, request: Request, error: Refused) -> Any:
        """The document in which this API tells an error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # an answer goes out in one piece, and waits for no acknowledgement of its head
    api: Api

    def _handle(self) -> None:
        request = self._read()
        try:
            self._send(*self.api.answer(request))
        except Refused as error:
            self._send(error.status, self.api.refusal(request, error))
        except HangUp:
            self.close_connection = True

    do_GET = do_POST = do_DELETE = _handle  # noqa: N815

    def _read(self) -> Request:
        parts = urlsplit(self.path)
        headers = {key.lower(): value for key, value in self.headers.items()}
        return Request(
            method=self.command,
            path=parts.path,
            query={key: values[0] for key, values in parse_qs(parts.query).items()},
            headers=headers,
            data=self.rfile.read(int(headers.get("content-length", 0))),
        )

    def _send(self, status: int, answer: Any) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Says nothing: an API notes what it was asked."""


@contextmanager
def serving(api: Api, host: str = "127.0.0.1", files: Files | None = None) -> Iterator[int]:
    """Serves until the block ends, on the port that it yields; with a certificate's files, over TLS."""
    server = ThreadingHTTPServer((host, 0), type("Handler", (_Handler,), {"api": api}))
    server.daemon_threads = True
    if files is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.certificate, files.key)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
