"""A small Kubernetes API for the tests: the Secrets of its namespaces over HTTP on a loopback port, kept in memory.

It answers as the real one does where the Kubernetes client and its callers can tell: objects have a kind, a version and
their metadata; what is refused is a Status with reason and code; a type asks for its keys; pages end with a token.
"""

import base64
import binascii
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import yaml

NAME = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
REASONS = {400: "BadRequest", 403: "Forbidden", 404: "NotFound", 409: "AlreadyExists", 422: "Invalid"}
KEYS = {"kubernetes.io/tls": {"tls.crt", "tls.key"}}  # all of them; of basic-auth one of two is enough
VERBS = {"GET": "get", "POST": "create"}


class Refused(Exception):
    """An answer that is a Status: its code, and its message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Cluster:
    """What the API holds, and what its caller may do; every request is noted as (verb, name)."""

    port: int = 0
    namespaces: dict[str, dict[str, dict]] = field(default_factory=lambda: {"lungs": {}})
    verbs: set[str] = field(default_factory=lambda: {"get", "create"})
    requests: list[tuple[str, str]] = field(default_factory=list)
    before: Callable[[str, str], object] = lambda verb, name: None  # may change what is there, or raise Refused
    lock: threading.RLock = field(default_factory=threading.RLock)

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, dict]:
        found = re.fullmatch(r"/api/v1/namespaces/([^/]+)/secrets(?:/([^/]+))?", path)
        if found is None:
            raise Refused(404, "the server could not find the requested resource")
        namespace, name = found[1], found[2] or ""
        verb = "list" if method == "GET" and not name else VERBS[method]
        sent = json.loads(body) if body else {}
        name = name or sent.get("metadata", {}).get("name", "")
        self.requests.append((verb, name))
        self.before(verb, name)
        if verb not in self.verbs:
            raise Refused(403, f'secrets "{name}" is forbidden: cannot {verb} resource "secrets" in "{namespace}"')
        with self.lock:
            if verb == "create":
                return 201, self._create(namespace, name, sent)
            held = self.namespaces.get(namespace, {})
            if verb == "list":
                return 200, _page(list(held.values()), query)
            if name not in held:
                raise Refused(404, f'secrets "{name}" not found')
            return 200, held[name]

    def _create(self, namespace: str, name: str, sent: dict) -> dict:
        if namespace not in self.namespaces:
            raise Refused(404, f'namespaces "{namespace}" not found')
        if (sent.get("kind"), sent.get("apiVersion")) not in ((None, None), ("Secret", "v1")):
            raise Refused(400, f"the object provided is unrecognized: {sent.get('kind')}")
        self.put(sent, namespace, new=True)
        return self.namespaces[namespace][name]

    def put(self, secret: dict, namespace: str = "lungs", *, new: bool = False) -> None:
        """Keeps a Secret, typed and checked; a new one only where none is called so."""
        name, kind = secret["metadata"]["name"], secret.get("type") or "Opaque"
        data = secret.get("data") or {}
        if re.fullmatch(NAME, name) is None:
            raise Refused(422, f'Secret "{name}" is invalid: metadata.name: Invalid value')
        with self.lock:
            if new and name in self.namespaces[namespace]:
                raise Refused(409, f'secrets "{name}" already exists')
            if absent := KEYS.get(kind, set()) - set(data):
                raise Refused(422, f'Secret "{name}" is invalid: data[{sorted(absent)[0]}]: Required value')
            for key, value in data.items():
                if re.fullmatch(r"[-._a-zA-Z0-9]+", key) is None:
                    raise Refused(422, f'Secret "{name}" is invalid: data[{key}]: Invalid value')
                try:
                    base64.b64decode(value, validate=True)
                except (binascii.Error, TypeError):
                    raise Refused(400, "illegal base64 data at input byte 0") from None
            metadata = {**secret["metadata"], "namespace": namespace, "uid": f"{namespace}/{name}"}
            kept = {"kind": "Secret", "apiVersion": "v1", "metadata": metadata, "type": kind, "data": data}
            self.namespaces[namespace][name] = kept

    def data(self, name: str, namespace: str = "lungs") -> dict[str, bytes]:
        """The content of a Secret."""
        return {key: base64.b64decode(value) for key, value in self.namespaces[namespace][name]["data"].items()}

    def change(self, name: str, **data: bytes | None) -> None:
        """Puts other values at keys of a Secret (`_` for dots); None takes one out."""
        held = self.namespaces["lungs"][name]["data"]
        for key, value in data.items():
            held.pop(key.replace("_", "."), None)
            if value is not None:
                held[key.replace("_", ".")] = base64.b64encode(value).decode()

    def kube_config(self, path: Path) -> Path:
        """A file by which a client finds the server."""
        place = {"server": f"http://127.0.0.1:{self.port}"}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "here", "cluster": place}],
            "users": [{"name": "tester", "user": {"token": "secret"}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "tester"}}],
            "current-context": "here",
        }
        path.write_text(yaml.safe_dump(document))
        return path


def _page(held: list[dict], query: dict[str, str]) -> dict:
    first, limit = int(query.get("continue", 0)), int(query.get("limit", 0)) or len(held)
    last = first + limit
    metadata = {"continue": str(last)} if last < len(held) else {}
    items = [{key: value for key, value in each.items() if key != "kind"} for each in held[first:last]]
    return {"kind": "SecretList", "apiVersion": "v1", "metadata": metadata, "items": items}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # an answer goes out in one piece
    cluster: Cluster

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            code, answer = self.cluster.answer(self.command, parts.path, query, body)
        except Refused as error:
            code = error.code
            status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
            answer = {**status, "message": str(error), "reason": REASONS.get(code, ""), "code": code}
        data = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = _handle  # noqa: N815

    def log_message(self, format: str, *arguments: object) -> None:
        """Says nothing: the tests read `requests`."""


@contextmanager
def serving() -> Iterator[Cluster]:
    """An API with one namespace, `lungs`, that holds nothing; whoever asks may get and create."""
    cluster = Cluster()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"cluster": cluster}))
    server.daemon_threads = True
    cluster.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield cluster
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
