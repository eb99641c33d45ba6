"""The API of a cluster for its own pods: Secrets, Jobs and pods over TLS, as far as the Roles of its accounts go.

It answers as the real API server does where its callers can tell: whoever has no token is nobody, a verb that no Role
has is forbidden, a name is taken once, errors are Status objects.
"""

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import kubernetes_validate
from cryptography import x509

from tests import pki
from tests.cluster.cluster import Cluster
from tests.cluster.pod import Pod
from tests.cluster.release import Object

GROUPS = {"secrets": "", "pods": "", "jobs": "batch"}
KINDS = {"secrets": "Secret", "jobs": "Job"}
VERBS = {"POST": "create", "DELETE": "delete", "GET": "get"}
VERSION = "1.37"  # of the schemas that objects are held against


class Refused(Exception):
    """What the API does not do."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Request:
    """What is asked of which objects."""

    who: tuple[str, str]  # namespace and account
    verb: str
    resource: str
    namespace: str
    name: str
    labels: dict[str, str]  # of those that are listed
    body: Any


@dataclass
class Api:
    """Who may do what, and the answers."""

    cluster: Cluster
    tokens: dict[str, tuple[str, str]] = field(default_factory=dict)  # namespace and account
    asked: list[tuple[str, str, str, int]] = field(default_factory=list)  # account, verb, resource, status

    def token(self, namespace: str, account: str) -> str:
        """The token of an account, made when it is first asked for."""
        for token, known in self.tokens.items():
            if known == (namespace, account):
                return token
        token = uuid4().hex
        self.tokens[token] = (namespace, account)
        return token

    def answer(self, method: str, path: str, bearer: str, body: Any) -> Object:
        """Answers one request.

        Raises:
            Refused: with the status and the sentence.
        """
        request, status = self._read(method, path, bearer, body), 200
        try:
            self._check(request)
            return self._do(request)
        except Refused as error:
            status = error.status
            raise
        finally:
            self.asked.append((request.who[1], request.verb, request.resource, status))

    def _read(self, method: str, path: str, bearer: str, body: Any) -> Request:
        parts = urlsplit(path)
        pieces = parts.path.strip("/").split("/")
        if "namespaces" not in pieces[:-2]:
            raise Refused(404, f"the server could not find the requested resource {parts.path}")
        if bearer not in self.tokens:
            raise Refused(401, "Unauthorized")
        namespace, resource, name = (*pieces[pieces.index("namespaces") + 1 :], "")[:3]
        selector = parse_qs(parts.query).get("labelSelector", [""])[0]
        return Request(
            who=self.tokens[bearer],
            verb="list" if method == "GET" and not name else VERBS[method],
            resource=resource,
            namespace=namespace,
            name=name,
            labels=dict(each.split("=", 1) for each in selector.split(",") if each),
            body=body,
        )

    def _check(self, asked: Request) -> None:
        """Holds a request against the Roles that are bound to its account in the namespace."""
        store, (space, account) = self.cluster.store, asked.who
        subject = {"kind": "ServiceAccount", "namespace": space, "name": account}
        for binding in store.all("RoleBinding", asked.namespace):
            subjects = [{"namespace": asked.namespace, **each} for each in binding.get("subjects") or ()]
            role = store.get("Role", asked.namespace, binding["roleRef"]["name"])
            bound = role is not None and any(subject.items() <= each.items() for each in subjects)
            if bound and any(_allows(rule, asked) for rule in role["rules"]):
                return
        user, what = f"system:serviceaccount:{space}:{account}", f'{asked.verb} resource "{asked.resource}"'
        raise Refused(403, f'{asked.resource} is forbidden: User "{user}" cannot {what} in "{asked.namespace}"')

    def _do(self, asked: Request) -> Object:
        if asked.verb == "list":
            found = self._pods(asked) if asked.resource == "pods" else self._all(asked)
            items = [each for each in found if asked.labels.items() <= (each["metadata"].get("labels") or {}).items()]
            return {"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}
        if asked.resource not in KINDS:
            raise Refused(404, "the server could not find the requested resource")
        kind = KINDS[asked.resource]
        if asked.verb == "create":
            return self._create(kind, asked.namespace, asked.body)
        held = self.cluster.store.get(kind, asked.namespace, asked.name)
        if held is None:
            raise Refused(404, f'{asked.resource} "{asked.name}" not found')
        if asked.verb == "delete":
            self.cluster.remove(held)
        return self._shown(held)

    def _create(self, kind: str, namespace: str, body: Object) -> Object:
        whole = {"apiVersion": "batch/v1" if kind == "Job" else "v1", "kind": kind, **body}
        name = whole["metadata"]["name"]
        if self.cluster.store.get(kind, namespace, name) is not None:
            raise Refused(409, f'{kind} "{name}" already exists')
        try:
            kubernetes_validate.validate(whole, VERSION, strict=True)
        except kubernetes_validate.ValidationError as error:
            raise Refused(422, f'{kind} "{name}" is invalid: {error.message}') from error
        whole["metadata"] = {**whole["metadata"], "namespace": namespace, "uid": uuid4().hex}
        self.cluster.apply(whole)
        return self._shown(whole)

    def _all(self, asked: Request) -> list[Object]:
        return [self._shown(each) for each in self.cluster.store.all(KINDS[asked.resource], asked.namespace)]

    def _pods(self, asked: Request) -> list[Object]:
        pods = [pod for (space, _), pod in self.cluster.pods.items() if space == asked.namespace]
        return [{"metadata": dict(pod.given["metadata"]), "status": _status(pod)} for pod in pods]

    def _shown(self, owner: Object) -> Object:
        if owner["kind"] != "Job":
            return owner
        meta = owner["metadata"]
        phases = [pod.phase for pod in self.cluster.made_by("Job", meta["namespace"], meta["name"])]
        if "Succeeded" in phases:
            status: Object = {"succeeded": 1, "conditions": [{"type": "Complete", "status": "True"}]}
        elif phases and phases[-1] == "Failed":
            why = {"reason": "BackoffLimitExceeded", "message": "Job has reached the specified backoff limit"}
            status = {"failed": 1, "conditions": [{"type": "Failed", "status": "True", **why}]}
        else:
            status = {"active": 1}
        return {**owner, "status": status}


def _allows(rule: Object, asked: Request) -> bool:
    named = rule.get("resourceNames")
    return (
        GROUPS.get(asked.resource) in rule["apiGroups"]
        and asked.resource in rule["resources"]
        and asked.verb in rule["verbs"]
        and (not named or asked.name in named)
    )


def _status(pod: Pod) -> Object:
    container = pod.container()
    if container.ended:
        ended = container.ended[-1]
        why = {"exitCode": ended.code, "reason": "Error" if ended.code else "Completed", "message": ended.message}
        return {"phase": pod.phase, "containerStatuses": [{"state": {"terminated": why}}]}
    state = {"running": {}} if container.running else {"waiting": {"reason": "ContainerCreating", "message": pod.waits}}
    return {"phase": pod.phase, "containerStatuses": [{"state": state}]}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16
    api: Api

    def _handle(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        bearer = self.headers.get("Authorization", "").partition(" ")[2]
        try:
            with self.api.cluster.lock:
                found = self.api.answer(self.command, self.path, bearer, json.loads(data or b"null"))
            self._send(200, found)
        except Refused as error:
            status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": str(error)}
            self._send(error.status, {**status, "code": error.status})

    do_GET = do_POST = do_DELETE = _handle  # noqa: N815

    def _send(self, status: int, answer: Object) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Says nothing."""


@contextmanager
def serving(cluster: Cluster) -> Iterator[Api]:
    """The API of a cluster at its gateway, known to all pods of it, until the block ends."""
    api = Api(cluster)
    files = pki.foreign(cluster.node.folder / f"{cluster.name}-api", x509.IPAddress(ip_address(cluster.gateway)))
    server = ThreadingHTTPServer((cluster.gateway, 0), type("Handler", (_Handler,), {"api": api}))
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    port = server.server_address[1]
    cluster.token = api.token
    cluster.variables |= {"KUBERNETES_SERVICE_HOST": cluster.gateway, "KUBERNETES_SERVICE_PORT": str(port)}
    cluster.authority = files.authority.read_text()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
