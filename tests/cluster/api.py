"""A Kubernetes API for the tests: what it does with a request, whatever the objects are and whoever keeps them.

It answers as the real one does where a client can tell: whoever has no token is nobody, a verb that was not granted is
forbidden, a name is taken once, objects have a kind, a version and their metadata, what is refused is a Status with
reason and code, pages end with a token. What kinds there are is plugged in as `Resource`s.
"""

import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import yaml

from deerfield.certificates import Files
from tests import json_server
from tests.cluster.release import Object
from tests.json_server import Refused, Request

PATH = re.compile(r"/(?:api/(v1)|apis/([^/]+/[^/]+))/namespaces/([^/]+)/([^/]+)(?:/([^/]+))?")
NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
VERBS = {"POST": "create", "DELETE": "delete", "GET": "get"}
REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "AlreadyExists",
    422: "Invalid",
    503: "ServiceUnavailable",
}
VERSION = "1.37"  # of the schemas that objects are held against


@dataclass(frozen=True)
class Call:
    """What is asked of which objects."""

    account: tuple[str, str]  # its namespace and name
    verb: str
    group: str
    resource: str
    namespace: str
    name: str  # empty where many are meant, or one that is to be made
    query: dict[str, str]
    body: Any


class Asked(NamedTuple):
    """What the API was asked, and with which status it answered."""

    account: str
    verb: str
    resource: str
    status: int


def _fixed(owner: Object) -> None:
    raise Refused(405, "the server does not allow this method on the requested resource")


@dataclass(frozen=True)
class Resource:
    """A kind of object: where they are, and what a new one, or the end of one, brings about."""

    kind: str
    version: str  # with the group: v1, batch/v1
    all: Callable[[str], Iterable[Object]]  # of a namespace, as a client sees them
    put: Callable[[Object], object] = _fixed
    drop: Callable[[Object], object] = _fixed
    complete: Callable[[Object], Object] = lambda made: made  # a new one as it is kept; may raise Refused

    def find(self, namespace: str, name: str) -> Object | None:
        return next((each for each in self.all(namespace) if each["metadata"]["name"] == name), None)


@dataclass
class Api:
    """Who may do what with which objects, and the answers."""

    resources: dict[str, Resource]
    allows: Callable[[Call], object]
    admit: Callable[[Object], object] = lambda made: None  # holds every new object against something, or raises Refused
    before: Callable[[Call], object] = lambda call: None  # may change what is there, wait, or raise Refused
    namespaces: set[str] | None = None  # that there are; None: every one that is named
    tokens: dict[str, tuple[str, str]] = field(default_factory=dict)  # namespace and account
    asked: list[Asked] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)
    port: int = 0

    def token(self, namespace: str, account: str) -> str:
        """The token of an account, made when it is first asked for."""
        for token, known in self.tokens.items():
            if known == (namespace, account):
                return token
        token = uuid4().hex
        self.tokens[token] = (namespace, account)
        return token

    def kube_config(self, path: Path, namespace: str) -> Path:
        """A file by which a client finds the server, in the place of a pod's service account."""
        place, user = {"server": f"http://127.0.0.1:{self.port}"}, {"token": self.token(namespace, "tester")}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "here", "cluster": place}],
            "users": [{"name": "tester", "user": user}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "tester"}}],
            "current-context": "here",
        }
        path.write_text(yaml.safe_dump(document))
        return path

    def answer(self, request: Request) -> tuple[int, Object]:
        """Answers one request; raises Refused."""
        call, status = self._read(request), 500
        try:
            self.before(call)
            with self.lock:
                self._authorize(call)
                status, found = self._do(call)
            return status, found
        except Refused as error:
            status = error.status
            raise
        finally:
            self.asked.append(Asked(call.account[1], call.verb, call.resource, status))

    def refusal(self, request: Request, error: Refused) -> Object:
        """An error as a Status."""
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        return {**status, "message": str(error), "reason": REASONS[error.status], "code": error.status}

    def create(self, resource: str, namespace: str, sent: Object) -> Object:
        """Takes a new object in; raises Refused."""
        kind = self.resources[resource]
        if self.namespaces is not None and namespace not in self.namespaces:
            raise Refused(404, f'namespaces "{namespace}" not found')
        made = {"kind": kind.kind, "apiVersion": kind.version} | sent
        if (made["kind"], made["apiVersion"]) != (kind.kind, kind.version):
            raise Refused(400, f"the object provided is unrecognized: {made['kind']}")
        name = made["metadata"]["name"]
        if NAME.fullmatch(name) is None:
            raise Refused(422, f'{kind.kind} "{name}" is invalid: metadata.name: Invalid value')
        if kind.find(namespace, name) is not None:
            raise Refused(409, f'{resource} "{name}" already exists')
        made["metadata"] = {**made["metadata"], "namespace": namespace, "uid": uuid4().hex}
        self.admit(made)
        kind.put(kind.complete(made))
        return kind.find(namespace, name)

    def _read(self, request: Request) -> Call:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        account = self.tokens.get(token)
        if scheme.lower() != "bearer" or account is None:
            raise Refused(401, "Unauthorized")
        found = PATH.fullmatch(request.path)
        resource = self.resources.get(found[4]) if found else None
        if resource is None or resource.version != (found[1] or found[2]):
            raise Refused(404, f"the server could not find the requested resource {request.path}")
        name = found[5] or ""
        return Call(
            account=account,
            verb="list" if request.method == "GET" and not name else VERBS[request.method],
            group=resource.version.rpartition("/")[0],
            resource=found[4],
            namespace=found[3],
            name=name,
            query=request.query,
            body=json.loads(request.data or b"{}"),
        )

    def _authorize(self, call: Call) -> None:
        if not self.allows(call):
            user = f"system:serviceaccount:{':'.join(call.account)}"
            what = f'{call.verb} resource "{call.resource}" in "{call.namespace}"'
            raise Refused(403, f'{call.resource} is forbidden: User "{user}" cannot {what}')

    def _do(self, call: Call) -> tuple[int, Object]:
        kind = self.resources[call.resource]
        if call.verb == "create":
            return 201, self.create(call.resource, call.namespace, call.body)
        if call.verb == "list":
            return 200, _page(kind, kind.all(call.namespace), call.query)
        held = kind.find(call.namespace, call.name)
        if held is None:
            raise Refused(404, f'{call.resource} "{call.name}" not found')
        if call.verb == "delete":
            kind.drop(held)
        return 200, held


def _page(kind: Resource, found: Iterable[Object], query: dict[str, str]) -> Object:
    """The objects that a list is about, or one page of them; none of them says its kind."""
    wanted = dict(each.split("=", 1) for each in query.get("labelSelector", "").split(",") if each)
    chosen = [each for each in found if wanted.items() <= (each["metadata"].get("labels") or {}).items()]
    first, limit = int(query.get("continue", 0)), int(query.get("limit", 0)) or len(chosen)
    last = first + limit
    metadata = {"continue": str(last)} if last < len(chosen) else {}
    items = [{key: value for key, value in each.items() if key != "kind"} for each in chosen[first:last]]
    return {"kind": f"{kind.kind}List", "apiVersion": kind.version, "metadata": metadata, "items": items}


def hold_against_schemas(made: Object) -> None:
    """Refuses what the schemas of the real API refuse."""
    import kubernetes_validate

    try:
        kubernetes_validate.validate(made, VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        name = made["metadata"]["name"]
        raise Refused(422, f'{made["kind"]} "{name}" is invalid: {error.message}') from error


@contextmanager
def serving(api: Api, host: str = "127.0.0.1", files: Files | None = None) -> Iterator[Api]:
    """The API on a port of its own, until the block ends."""
    with json_server.serving(api, host, files) as api.port:
        yield api
