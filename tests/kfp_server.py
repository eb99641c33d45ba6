"""A small Kubeflow Pipelines for the tests: its v2beta1 REST API over HTTP on a loopback port, kept in memory.

It answers as the real one does where `kfp.Client` and its callers can tell: empty lists are left out, counts are texts,
times are whole seconds, a recurring run cannot be changed but switched, several may have one name, a cron with five
fields is taken, errors are google.rpc.Status (the upload service has a form of its own), a page ends with a token.
"""

import email
import email.policy
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from deerfield.certificates import Files
from tests.kfp_installation import HangUp, KfpServer
from tests.kfp_objects import Refused, Request

API = "/apis/v2beta1/"
CODES = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 500: 13, 503: 14}  # of google.rpc


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # an answer goes out in one piece, and waits for no acknowledgement of its head
    kfp: KfpServer

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        headers = {key.lower(): value for key, value in self.headers.items()}
        data = self.rfile.read(int(headers.get("content-length", 0)))
        request = Request(self.command, parts.path.removeprefix(API), query, headers)
        self.kfp.requests.append(request)
        upload = request.path.startswith("pipelines/upload")
        try:
            request.body = _uploaded(headers, data) if upload else json.loads(data or b"{}")
            self._send(200, self.kfp.answer(request))
        except Refused as error:
            status = {"code": CODES[error.status], "message": str(error), "error": str(error), "details": []}
            other = {"error_message": str(error), "error_details": str(error)}
            self._send(error.status, other if upload else status)
        except HangUp:
            self.close_connection = True

    do_GET = do_POST = do_DELETE = _handle  # noqa: N815

    def _send(self, status: int, answer: dict) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Says nothing."""


def _uploaded(headers: dict[str, str], data: bytes) -> bytes:
    """The file of a multipart form."""
    head = f"Content-Type: {headers['content-type']}\r\n\r\n".encode()
    form = email.message_from_bytes(head + data, policy=email.policy.HTTP)
    for part in form.iter_parts():
        if part.get_param("name", header="content-disposition") == "uploadfile":
            return part.get_payload(decode=True)
    raise Refused(400, "Failed to read pipeline from file")


@contextmanager
def serving(files: Files | None = None, **how: Any) -> Iterator[KfpServer]:
    """A server that ends with the block; with a certificate's files, over TLS."""
    kfp = KfpServer(**how)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"kfp": kfp}))
    server.daemon_threads = True
    if files is not None:
        kfp.scheme = "https"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.certificate, files.key)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    kfp.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield kfp
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
