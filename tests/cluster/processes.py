"""A cluster whose Jobs are processes of this machine, and whose volumes are its folders.

What a Job and its pod say of themselves has the words of the Job controller and the kubelet.
"""

import os
import signal
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster import api as apis
from tests.cluster import jobs
from tests.cluster.api import Api
from tests.cluster.release import Object
from tests.cluster.store import Store
from tests.json_server import Refused

NAMESPACE = "hospital"
ROLE = frozenset({("jobs", "create"), ("jobs", "get"), ("jobs", "list"), ("jobs", "delete"), ("pods", "list")})
UNSCHEDULABLE = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
EVICTED = "The node was low on resource: memory."


@dataclass
class Task:
    """What has become of a Job: the process of its container, if it has one."""

    job: Object
    process: subprocess.Popen[bytes] | None = None
    no_image: str = ""  # that cannot be pulled
    reason: str = ""  # of a pod that the cluster has ended

    @property
    def container(self) -> Object:
        return self.job["spec"]["template"]["spec"]["containers"][0]

    def start(self, log: Path) -> None:
        given = {each["name"]: each["value"] for each in self.container.get("env", ())}
        command = [*self.container["command"], *self.container["args"]]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("KUBE", "DEER"))}
        with log.open("ab") as out:
            self.process = subprocess.Popen(command, env=inherited | given, stdout=out, stderr=out)

    def end(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()

    def pod(self) -> Object:
        """The Job's pod as the API shows it."""
        meta = self.job["metadata"]
        labels = {**meta.get("labels", {}), jobs.LABEL: meta["name"]}
        metadata = {"name": f"{meta['name']}-abcde", "namespace": meta["namespace"], "labels": labels}
        if self.process is None and self.no_image:
            why = {"reason": "ImagePullBackOff", "message": f"Back-off pulling image {self.no_image}"}
            return jobs.pod(metadata, "Pending", {"waiting": why})
        if self.process is None:
            why = {"reason": "Unschedulable", "message": UNSCHEDULABLE}
            conditions = [{"type": "PodScheduled", "status": "False", **why}]
            return {"metadata": metadata, "status": {"phase": "Pending", "conditions": conditions}}
        code = self.process.poll()
        if code is None:
            return jobs.pod(metadata, "Running", {"running": {}})
        ended = jobs.pod(
            metadata, "Failed" if code else "Succeeded", jobs.terminated(code if code >= 0 else 128 - code)
        )
        if self.reason:
            ended["status"] |= {"reason": self.reason, "message": EVICTED}
        return ended


@dataclass
class Cluster:
    """The Jobs there are, and how it treats new ones."""

    log: Path
    jobs: dict[str, Task] = field(default_factory=dict)
    made: list[dict[str, Any]] = field(default_factory=list)  # every Job that there ever was
    role: frozenset[tuple[str, str]] = ROLE
    quota: int = 100
    lacks: str = ""  # what a new Job waits for: a node, an image, or a queue that suspends it
    store: Store = field(default_factory=Store)

    def __post_init__(self) -> None:
        self.api = Api(
            resources=jobs.resources(self.store, self.begin, self.end, self.pods),
            allows=lambda call: (call.resource, call.verb) in self.role,
            admit=self.admit,
            namespaces={NAMESPACE},
        )

    def kubeconfig(self, folder: Path) -> Path:
        """What KUBECONFIG names, in the place of a pod's service account."""
        return self.api.kube_config(folder / "kubeconfig", NAMESPACE)

    def admit(self, job: Object) -> None:
        """Holds a new Job against quota and schemas; raises Refused."""
        if len(self.jobs) >= self.quota:
            name = job["metadata"]["name"]
            raise Refused(403, f'jobs "{name}" is forbidden: exceeded quota: gpu, requested: count/jobs.batch=1')
        apis.hold_against_schemas(job)

    def begin(self, job: Object) -> None:
        """Keeps a Job, and starts its container if nothing is lacking."""
        self.jobs[job["metadata"]["name"]] = task = Task(job)
        self.made.append(job)
        self.store.put(job)
        if self.lacks == "queue":
            job["spec"]["suspend"] = True
        if self.lacks == "image":
            task.no_image = task.container["image"]
        if not self.lacks:
            task.start(self.log)

    def end(self, job: Object) -> None:
        """Ends a Job's container, and forgets the Job."""
        self.jobs.pop(job["metadata"]["name"]).end()
        self.store.drop(job)

    def pods(self, namespace: str) -> Iterable[Object]:
        """The pods of all Jobs that no queue holds back."""
        there = [each for each in self.jobs.values() if not each.job["spec"].get("suspend")]
        return [each.pod() for each in there if each.job["metadata"]["namespace"] == namespace]

    def kill(self, name: str, reason: str = "") -> None:
        """Ends a Job's container from outside; with a `reason`, it was the cluster that did."""
        task = self.jobs[name]
        assert task.process is not None
        task.reason = reason
        task.process.send_signal(signal.SIGKILL)
        task.process.wait(10)

    @property
    def running(self) -> list[str]:
        """The Jobs whose containers run."""
        return [name for name, task in self.jobs.items() if task.process is not None and task.process.poll() is None]


@contextmanager
def serving(folder: Path) -> Iterator[Cluster]:
    """A cluster that ends with the block, and every container with it; what they say is in `folder/jobs.log`."""
    cluster = Cluster(folder / "jobs.log")
    try:
        with apis.serving(cluster.api):
            yield cluster
    finally:
        with cluster.api.lock:
            for task in cluster.jobs.values():
                task.end()
