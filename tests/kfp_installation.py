"""What the Kubeflow Pipelines of the tests holds, and how it answers a request."""

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

from tests.json_server import HangUp, Refused
from tests.kfp_objects import Request, in_namespace, keep, page, text, unique, with_status


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
        made = text(request.body, "display_name", "name", "description", "namespace")
        self._namespace(made.get("namespace", ""))
        made["name"] = made.get("name") or made["display_name"]
        unique(self.pipelines, made, "name", "namespace")
        return keep(self.pipelines, "pipeline_id", made)

    def list_pipelines(self, request: Request) -> dict:
        space = self._namespace(request.query.get("namespace", ""))
        return page(request, "pipelines", in_namespace(self.pipelines, space))

    def upload_version(self, request: Request) -> dict:
        pipeline = request.query.get("pipelineid", "")
        document = next(yaml.safe_load_all(request.body), None)
        if pipeline not in self.pipelines or not isinstance(document, dict) or "pipelineInfo" not in document:
            raise Refused(400, "Failed to create a pipeline version")
        self._namespace(self.pipelines[pipeline].get("namespace", ""))
        name = request.query["name"]
        made = {"pipeline_id": pipeline, "display_name": name, "name": name, "pipeline_spec": document}
        unique(self.versions, made, "name", "pipeline_id")
        return keep(self.versions, "pipeline_version_id", made)

    def list_versions(self, request: Request, pipeline: str) -> dict:
        if pipeline not in self.pipelines:
            raise Refused(404, f"ResourceNotFoundError: Pipeline {pipeline} not found")
        return page(request, "pipeline_versions", [v for v in self.versions.values() if v["pipeline_id"] == pipeline])

    def create_experiment(self, request: Request) -> dict:
        made = text(request.body, "display_name", "description", "namespace")
        self._namespace(made.get("namespace", ""))
        unique(self.experiments, made, "display_name", "namespace")
        return keep(self.experiments, "experiment_id", made | {"storage_state": "AVAILABLE"})

    def list_experiments(self, request: Request) -> dict:
        space = self._namespace(request.query.get("namespace", ""))
        return page(request, "experiments", in_namespace(self.experiments, space))

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
        made = text(body, "display_name", "description", "experiment_id", "pipeline_version_reference")
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
        return keep(self.recurring_runs, "recurring_run_id", with_status(made))

    def list_recurring_runs(self, request: Request) -> dict:
        space = self._namespace(request.query.get("namespace", ""))
        return page(request, "recurringRuns", in_namespace(self.recurring_runs, space))

    def get_recurring_run(self, request: Request, name: str) -> dict:
        return self._recurring(name)

    def delete_recurring_run(self, request: Request, name: str) -> dict:
        self._recurring(name)
        del self.recurring_runs[name]
        return {}

    def enable(self, request: Request, name: str) -> dict:
        with_status(self._recurring(name), mode="ENABLE")
        return {}

    def disable(self, request: Request, name: str) -> dict:
        with_status(self._recurring(name), mode="DISABLE")
        return {}

    def _recurring(self, name: str) -> dict:
        if name not in self.recurring_runs:
            raise Refused(404, f"ResourceNotFoundError: Job {name} not found")
        self._namespace(self.recurring_runs[name]["namespace"])
        return self.recurring_runs[name]

    def create_run(self, request: Request) -> dict:
        return keep(self.runs, "run_id", self._job(request.body) | {"state": "PENDING"})

    def list_runs(self, request: Request) -> dict:
        space = self._namespace(request.query.get("namespace", ""))
        return page(request, "runs", in_namespace(self.runs, space))


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
