"""A small Kubeflow Pipelines for the tests: its v2beta1 REST API over HTTP on a loopback port, kept in memory.

It answers as the real one does where `kfp.Client` and its callers can tell: empty lists are left out, counts are texts,
times are whole seconds, a recurring run cannot be changed but switched, several may have one name, a cron with five
fields is taken, errors are google.rpc.Status (the upload service has a form of its own), a page ends with a token.
"""

import email
import email.policy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from deerfield.certificates import Files
from tests import json_server
from tests.json_server import Refused
from tests.kfp_installation import KfpServer
from tests.kfp_objects import Request

API = "/apis/v2beta1/"
UPLOADS = f"{API}pipelines/upload"
CODES = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 500: 13, 503: 14}  # of google.rpc


@dataclass(frozen=True)
class _Rest:
    """An installation as its REST API."""

    kfp: KfpServer

    def answer(self, asked: json_server.Request) -> tuple[int, dict]:
        request = Request(asked.method, asked.path.removeprefix(API), asked.query, asked.headers)
        self.kfp.requests.append(request)
        upload = asked.path.startswith(UPLOADS)
        request.body = _uploaded(asked) if upload else json.loads(asked.data or b"{}")
        return 200, self.kfp.answer(request)

    def refusal(self, asked: json_server.Request, error: Refused) -> dict:
        if asked.path.startswith(UPLOADS):
            return {"error_message": str(error), "error_details": str(error)}
        return {"code": CODES[error.status], "message": str(error), "error": str(error), "details": []}


def _uploaded(asked: json_server.Request) -> bytes:
    """The file of a multipart form."""
    head = f"Content-Type: {asked.headers['content-type']}\r\n\r\n".encode()
    form = email.message_from_bytes(head + asked.data, policy=email.policy.HTTP)
    for part in form.iter_parts():
        if part.get_param("name", header="content-disposition") == "uploadfile":
            return part.get_payload(decode=True)
    raise Refused(400, "Failed to read pipeline from file")


@contextmanager
def serving(files: Files | None = None, **how: Any) -> Iterator[KfpServer]:
    """A server that ends with the block; with a certificate's files, over TLS."""
    kfp = KfpServer(scheme="https" if files else "http", **how)
    with json_server.serving(_Rest(kfp), files=files) as kfp.port:
        yield kfp
