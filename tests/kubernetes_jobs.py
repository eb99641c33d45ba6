"""A small Kubernetes for the tests: batch/v1 Jobs and their pods over HTTP on loopback, whose containers are processes.

It answers as the real API server does where an agent can tell: a Job is held against the API's schemas, a Role against
the verb, a name is taken once, errors are Status objects, and what a Job and its pod say of themselves has the words of
the Job controller and the kubelet. Volumes are the folders of this machine.
"""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate
import yaml

TOKEN, NAMESPACE = "an-agents-token", "hospital"
ROLE = frozenset({("jobs", "create"), ("jobs", "get"), ("jobs", "list"), ("jobs", "delete"), ("pods", "list")})
VERBS = {"POST": "create", "DELETE": "delete", "GET": "get"}
UNSCHEDULABLE = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Job:
    body: dict[str, Any]
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    no_image: str = ""  # that cannot be pulled
    pod_reason: str = ""  # of a pod that the cluster has ended

    @property
    def labels(self) -> dict[str, str]:
        return {**self.body["metadata"].get("labels", {}), "job-name": self.body["metadata"]["name"]}

    def shown(self) -> dict[str, Any]:
        return {**self.body, "status": self._status()}

    def _status(self) -> dict[str, Any]:
        code = None if self.process is None else self.process.poll()
        if code is None:
            return {"active": 1}
        if code == 0:
            return {"succeeded": 1, "conditions": [{"type": "Complete", "status": "True"}]}
        why = {"reason": "BackoffLimitExceeded", "message": "Job has reached the specified backoff limit"}
        return {"failed": 1, "conditions": [{"type": "Failed", "status": "True", **why}]}

    def pod(self) -> dict[str, Any]:
        status: dict[str, Any] = {"phase": "Pending"}
        if self.process is None and self.no_image:
            why = {"reason": "ImagePullBackOff", "message": f"Back-off pulling image {self.no_image}"}
            status["containerStatuses"] = [{"state": {"waiting": why}}]
        elif self.process is None:
            why = {"reason": "Unschedulable", "message": UNSCHEDULABLE}
            status["conditions"] = [{"type": "PodScheduled", "status": "False", **why}]
        elif (code := self.process.poll()) is None:
            status = {"phase": "Running", "containerStatuses": [{"state": {"running": {}}}]}
        else:
            code = code if code >= 0 else 128 - code
            ended = {"exitCode": code, "reason": "Error" if code else "Completed"}
            status = {
                "phase": "Failed" if code else "Succeeded",
                "containerStatuses": [{"state": {"terminated": ended}}],
            }
            if self.pod_reason:
                status |= {"reason": self.pod_reason, "message": "The node was low on resource: memory."}
        return {"metadata": {"name": f"{self.body['metadata']['name']}-abcde", "labels": self.labels}, "status": status}


@dataclass
class Cluster:
    """The Jobs there are, and how it treats new ones."""

    log: Path
    jobs: dict[str, Job] = field(default_factory=dict)
    made: list[dict[str, Any]] = field(default_factory=list)  # every Job that there ever was
    role: frozenset[tuple[str, str]] = ROLE
    quota: int = 100
    lacks: str = ""  # what a new Job waits for: a node, an image, or a queue that suspends it
    lock: threading.Lock = field(default_factory=threading.Lock)
    port: int = 0

    def kubeconfig(self, folder: Path) -> Path:
        """What KUBECONFIG names, in the place of a pod's service account."""
        named = {"name": "here"}
        path = folder / "kubeconfig"
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "here",
                    "clusters": [{**named, "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
                    "users": [{**named, "user": {"token": TOKEN}}],
                    "contexts": [{**named, "context": {"cluster": "here", "user": "here"}}],
                }
            )
        )
        return path

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        name = body["metadata"]["name"]
        if name in self.jobs:
            raise Refused(409, f'jobs.batch "{name}" already exists')
        if len(self.jobs) >= self.quota:
            raise Refused(403, f'jobs.batch "{name}" is forbidden: exceeded quota: gpu, requested: count/jobs.batch=1')
        try:
            kubernetes_validate.validate(body, "1.37", strict=True)
        except kubernetes_validate.ValidationError as error:
            raise Refused(422, f'Job.batch "{name}" is invalid: {error.message}') from error
        container = body["spec"]["template"]["spec"]["containers"][0]
        self.jobs[name] = job = Job(body, no_image=container["image"] if self.lacks == "image" else "")
        self.made.append(body)
        if self.lacks == "queue":
            body["spec"]["suspend"] = True
        if not self.lacks:
            self._start(job)
        return job.shown()

    def _start(self, job: Job) -> None:
        container = job.body["spec"]["template"]["spec"]["containers"][0]
        given = {each["name"]: each["value"] for each in container.get("env", ())}
        with self.log.open("ab") as log:
            command = [*container["command"], *container["args"]]
            inherited = {name: value for name, value in os.environ.items() if not name.startswith(("KUBE", "DEER"))}
            job.process = subprocess.Popen(command, env=inherited | given, stdout=log, stderr=log)
        job.started = time.monotonic()

    def delete(self, name: str) -> dict[str, Any]:
        job = self.jobs.pop(name)
        if job.process is not None:
            job.process.terminate()
            try:
                job.process.wait(10)
            except subprocess.TimeoutExpired:
                job.process.kill()
        return job.shown()

    def kill(self, name: str, reason: str = "") -> None:
        """Ends a Job's container from outside; with a `reason`, it was the cluster that did."""
        job = self.jobs[name]
        assert job.process is not None
        job.pod_reason = reason
        job.process.send_signal(signal.SIGKILL)
        job.process.wait(10)

    @property
    def running(self) -> list[str]:
        """The Jobs whose containers run."""
        return [name for name, job in self.jobs.items() if job.process is not None and job.process.poll() is None]

    def close(self) -> None:
        for name in list(self.jobs):
            self.delete(name)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16
    cluster: Cluster

    def _handle(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            with self.cluster.lock:
                self._send(200, self._answer(json.loads(data or b"null")))
        except Refused as error:
            status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": str(error)}
            self._send(error.status, {**status, "code": error.status})

    do_GET = do_POST = do_DELETE = _handle  # noqa: N815

    def _answer(self, body: Any) -> dict[str, Any]:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise Refused(401, "Unauthorized")
        parts = urlsplit(self.path)
        pieces = parts.path.strip("/").split("/")
        place = pieces.index(NAMESPACE) if NAMESPACE in pieces else 0
        group, (resource, name) = pieces[: place + 1], (*pieces[place + 1 :], "", "")[:2]
        known = {
            "jobs": ["apis", "batch", "v1", "namespaces", NAMESPACE],
            "pods": ["api", "v1", "namespaces", NAMESPACE],
        }
        if known.get(resource) != group:
            raise Refused(404, f"the server could not find the requested resource {parts.path}")
        verb = "list" if self.command == "GET" and not name else VERBS[self.command]
        if (resource, verb) not in self.cluster.role:
            raise Refused(403, f'{resource} is forbidden: User "agent" cannot {verb} resource "{resource}"')
        if name and name not in self.cluster.jobs:
            raise Refused(404, f'jobs.batch "{name}" not found')
        if verb == "create":
            return self.cluster.create(body)
        if verb == "get":
            return self.cluster.jobs[name].shown()
        if verb == "delete":
            return self.cluster.delete(name)
        return self._list(resource, parse_qs(parts.query).get("labelSelector", [""])[0])

    def _list(self, resource: str, selector: str) -> dict[str, Any]:
        wanted = dict(each.split("=", 1) for each in selector.split(",") if each)
        found = [job for job in self.cluster.jobs.values() if wanted.items() <= job.labels.items()]
        if resource == "pods":
            found = [job for job in found if not job.body["spec"].get("suspend")]
        return {"items": [job.pod() if resource == "pods" else job.shown() for job in found]}

    def _send(self, status: int, answer: dict[str, Any]) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Says nothing."""


@contextmanager
def serving(folder: Path) -> Iterator[Cluster]:
    """A cluster that ends with the block, and every container with it; what they say is in `folder/jobs.log`."""
    cluster = Cluster(folder / "jobs.log")
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"cluster": cluster}))
    server.daemon_threads = True
    cluster.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield cluster
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        with cluster.lock:
            cluster.close()
