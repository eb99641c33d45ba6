"""A small Kubeflow Pipelines for the tests: its v2beta1 REST API over HTTP on a loopback port, kept in memory.

It answers as the real one does where `kfp.Client` and its callers can tell: empty lists are left out, counts are texts,
times are whole seconds, a recurring run cannot be changed but switched, several may have one name, a cron with five
fields is taken, errors are google.rpc.Status (the upload service has a form of its own), a page ends with a token.
"""

import base64
import email
import email.policy
import json
import re
import ssl
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from deerfield.certificates import Files

API = "/apis/v2beta1/"
CODES = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 500: 13, 503: 14}  # of google.rpc
KEYS = {"display_name", "name", "id", "created_at", "description"}  # that a filter may name
LONGEST_PAGE = 200


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class HangUp(Exception):
    """The connection ends without an answer."""


@dataclass
class Request:
    method: str
    path: str  # below the API's prefix
    query: dict[str, str]
    headers: dict[str, str]
    body: Any = None  # JSON, or the bytes of an uploaded file


@dataclass
class Fault:
    """Something that happens once, before a request is answered or after it was done."""

    method: str
    path: str  # regular expression, of the whole path
    does: Callable[[], Any]
    after: bool = False


@dataclass
class KfpServer:
    """What an installation holds, and what it was asked."""

    port: int = 0
    scheme: str = "http"
    multi_user: bool = False
    token: str | None = None  # None: everybody may ask
    namespaces: set[str] = field(default_factory=set)  # of a multi-user installation, that the token may use
    pipelines: dict[str, dict] = field(default_factory=dict)
    versions: dict[str, dict] = field(default_factory=dict)
    experiments: dict[str, dict] = field(default_factory=dict)
    recurring_runs: dict[str, dict] = field(default_factory=dict)
    runs: dict[str, dict] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    most_enabled: int = 0  # recurring runs of one name that were enabled at one time
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def address(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def changes(self) -> list[tuple[str, str]]:
        """The requests that were to change something."""
        return [(each.method, each.path) for each in self.requests if each.method != "GET"]

    def scheduled(self, name: str) -> list[dict]:
        return [each for each in self.recurring_runs.values() if each["display_name"] == name]

    def interrupt(self, method: str, path: str, *, answered: bool = False) -> None:
        """Ends the connection of the next such request: before it is looked at, or once it was done."""
        self.faults.append(Fault(method, path, self._hang_up, after=answered))

    def meanwhile(self, method: str, path: str, does: Callable[[], Any]) -> None:
        """Does something else before the next such request is looked at."""
        self.faults.append(Fault(method, path, does))

    def refuse(self, method: str, path: str, status: int, message: str = "", times: int = 1) -> None:
        def say() -> None:
            raise Refused(status, message)

        self.faults += [Fault(method, path, say) for _ in range(times)]

    def _hang_up(self) -> None:
        raise HangUp

    def strike(self, request: Request, *, after: bool) -> None:
        with self.lock:
            struck = next((each for each in self.faults if each.after == after and _hits(each, request)), None)
            if struck is not None:
                self.faults.remove(struck)
        if struck is not None:
            struck.does()

    def answer(self, request: Request) -> dict:
        self.strike(request, after=False)
        with self.lock:
            self._authenticate(request)
            done = self._route(request)
            for name in {each["display_name"] for each in self.recurring_runs.values()}:
                enabled = sum(each["mode"] == "ENABLE" for each in self.scheduled(name))
                self.most_enabled = max(self.most_enabled, enabled)
        self.strike(request, after=True)
        return done

    def _authenticate(self, request: Request) -> None:
        if self.token is None or request.path == "healthz":
            return
        if request.headers.get("authorization") != f"Bearer {self.token}":
            raise Refused(401, "Request header error: there is no user identity header")

    def _namespace(self, given: str) -> str:
        if not self.multi_user:
            if given:
                raise Refused(400, "In single-user mode, the namespace must be empty")
            return ""
        if not given:
            raise Refused(400, "Invalid input error: a namespace is required in multi-user mode")
        if given not in self.namespaces:
            raise Refused(403, f"User 'system:serviceaccount:{given}:registrar' is not authorized in {given}")
        return given

    def _route(self, request: Request) -> dict:
        for method, pattern, handler in ROUTES:
            if method == request.method and (found := re.fullmatch(pattern, request.path)):
                return handler(self, request, *found.groups())
        raise Refused(404, "Not Found")

    def healthz(self, request: Request) -> dict:
        return {"multi_user": True} if self.multi_user else {}

    def create_pipeline(self, request: Request) -> dict:
        made = _text(request.body, "display_name", "name", "description", "namespace")
        self._namespace(made.get("namespace", ""))
        made["name"] = made.get("name") or made["display_name"]
        _unique(self.pipelines, made, "name", "namespace")
        return _keep(self.pipelines, "pipeline_id", made)

    def list_pipelines(self, request: Request) -> dict:
        space = self._namespace(request.query.get("namespace", ""))
        return _page(request, "pipelines", _in(self.pipelines, space))

    def upload_version(self, request: Request) -> dict:
        pipeline = request.query.get("pipelineid", "")
        document = next(yaml.safe_load_all(request.body), None)
        if pipeline not in self.pipelines or not isinstance(document, dict) or "pipelineInfo" not in document:
            raise Refused(400, "Failed to create a pipeline version")
        self._namespace(self.pipelines[pipeline].get("namespace", ""))
        name = request.query["name"]
        made = {"pipeline_id": pipeline, "display_name": name, "name": name, "pipeline_spec": document}
        _unique(self.versions, made, "name", "pipeline_id")
        return _keep(self.versions, "pipeline_version_id", made)

    def list_versions(self, request: Request, pipeline: str) -> dict:
        if pipeline not in self.pipelines:
            raise Refused(404, f"ResourceNotFoundError: Pipeline {pipeline} not found")
        return _page(request, "pipeline_versions", [v for v in self.versions.values() if v["pipeline_id"] == pipeline])

    def create_experiment(self, request: Request) -> dict:
        made = _text(request.body, "display_name", "description", "namespace")
        self._namespace(made.get("namespace", ""))
        _unique(self.experiments, made, "display_name", "namespace")
        return _keep(self.experiments, "experiment_id", made | {"storage_state": "AVAILABLE"})

    def list_experiments(self, request: Request) -> dict:
        space = self._namespace(request.query.get("namespace", ""))
        return _page(request, "experiments", _in(self.experiments, space))

    def _job(self, body: dict) -> dict:
        """What a recurring run and a run have in common."""
        reference = body.get("pipeline_version_reference") or {}
        version = self.versions.get(reference.get("pipeline_version_id", ""))
        if version is None or version["pipeline_id"] != reference.get("pipeline_id"):
            raise Refused(404, f"ResourceNotFoundError: PipelineVersion {reference} not found")
        if body.get("experiment_id") not in self.experiments:
            raise Refused(404, f"ResourceNotFoundError: Experiment {body.get('experiment_id')} not found")
        experiment = self.experiments[body["experiment_id"]]
        if experiment["storage_state"] == "ARCHIVED":
            raise Refused(400, "Invalid input error: the experiment is archived")
        self._namespace(experiment.get("namespace", ""))
        made = _text(body, "display_name", "description", "experiment_id", "pipeline_version_reference")
        made["namespace"] = experiment.get("namespace", "")
        made["service_account"] = body.get("service_account") or "pipeline-runner"
        return made | {"runtime_config": body.get("runtime_config", {})}

    def create_recurring_run(self, request: Request) -> dict:
        made, body = self._job(request.body), request.body
        if not 1 <= int(body.get("max_concurrency", 0)) <= 10:
            raise Refused(400, "Invalid input error: The max concurrency of the recurring run is out of range")
        if len(body["trigger"]["cron_schedule"]["cron"].split()) not in (5, 6):
            raise Refused(400, "Invalid input error: Schedule cron is not a supported format")
        made |= {"max_concurrency": str(body["max_concurrency"]), "trigger": body["trigger"], "mode": body["mode"]}
        made |= {"no_catchup": True} if body.get("no_catchup") else {}
        return _keep(self.recurring_runs, "recurring_run_id", _with_status(made))

    def list_recurring_runs(self, request: Request) -> dict:
        space = self._namespace(request.query.get("namespace", ""))
        return _page(request, "recurringRuns", _in(self.recurring_runs, space))

    def get_recurring_run(self, request: Request, name: str) -> dict:
        return self._recurring(name)

    def delete_recurring_run(self, request: Request, name: str) -> dict:
        self._recurring(name)
        del self.recurring_runs[name]
        return {}

    def enable(self, request: Request, name: str) -> dict:
        _with_status(self._recurring(name), mode="ENABLE")
        return {}

    def disable(self, request: Request, name: str) -> dict:
        _with_status(self._recurring(name), mode="DISABLE")
        return {}

    def _recurring(self, name: str) -> dict:
        if name not in self.recurring_runs:
            raise Refused(404, f"ResourceNotFoundError: Job {name} not found")
        self._namespace(self.recurring_runs[name]["namespace"])
        return self.recurring_runs[name]

    def create_run(self, request: Request) -> dict:
        return _keep(self.runs, "run_id", self._job(request.body) | {"state": "PENDING"})

    def list_runs(self, request: Request) -> dict:
        space = self._namespace(request.query.get("namespace", ""))
        return _page(request, "runs", _in(self.runs, space))


ROUTES: list[tuple[str, str, Callable[..., dict]]] = [
    ("GET", "healthz", KfpServer.healthz),
    ("POST", "pipelines", KfpServer.create_pipeline),
    ("GET", "pipelines", KfpServer.list_pipelines),
    ("POST", "pipelines/upload_version", KfpServer.upload_version),
    ("GET", "pipelines/([^/]+)/versions", KfpServer.list_versions),
    ("POST", "experiments", KfpServer.create_experiment),
    ("GET", "experiments", KfpServer.list_experiments),
    ("POST", "recurringruns", KfpServer.create_recurring_run),
    ("GET", "recurringruns", KfpServer.list_recurring_runs),
    ("GET", "recurringruns/([^/:]+)", KfpServer.get_recurring_run),
    ("DELETE", "recurringruns/([^/:]+)", KfpServer.delete_recurring_run),
    ("POST", "recurringruns/([^/:]+):enable", KfpServer.enable),
    ("POST", "recurringruns/([^/:]+):disable", KfpServer.disable),
    ("POST", "runs", KfpServer.create_run),
    ("GET", "runs", KfpServer.list_runs),
]


def _hits(fault: Fault, request: Request) -> bool:
    return fault.method == request.method and re.fullmatch(fault.path, request.path) is not None


def _text(body: dict, *keys: str) -> dict:
    return {key: body[key] for key in keys if body.get(key)}


def _unique(kept: dict[str, dict], made: dict, *keys: str) -> None:
    if any(all(each.get(key) == made.get(key) for key in keys) for each in kept.values()):
        raise Refused(409, f"Already exist error: {made.get(keys[0])} already exists; the name must be unique")


def _keep(kept: dict[str, dict], key: str, made: dict) -> dict:
    made |= {key: str(uuid.uuid4()), "created_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
    kept[made[key]] = made
    return made


def _with_status(run: dict, **changed: str) -> dict:
    run.update(changed)
    run["status"] = {"ENABLE": "ENABLED", "DISABLE": "DISABLED"}[run["mode"]]
    return run


def _in(kept: dict[str, dict], namespace: str) -> list[dict]:
    return [each for each in kept.values() if each.get("namespace", "") == namespace]


def _page(request: Request, key: str, found: list[dict]) -> dict:
    chosen = [each for each in found if _passes(request.query.get("filter", ""), each)]
    size = min(int(request.query.get("page_size") or 20), LONGEST_PAGE)
    begin = int(base64.b64decode(request.query["page_token"])) if request.query.get("page_token") else 0
    page = {key: chosen[begin : begin + size], "total_size": len(chosen)}
    if len(chosen) > begin + size:
        page["next_page_token"] = base64.b64encode(str(begin + size).encode()).decode()
    return {name: value for name, value in page.items() if value}


def _passes(text: str, found: dict) -> bool:
    for each in json.loads(text)["predicates"] if text else ():
        value = each.get("stringValue", each.get("string_value"))
        if each["key"] not in KEYS or each["operation"] not in (1, "EQUALS") or value is None:
            raise Refused(400, f"Invalid input error: cannot filter by {each}")
        if found.get(each["key"]) != value:
            return False
    return True


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
