"""A site that holds no GPU, for the tests: a real custody and link, and a cluster whose Jobs are processes."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from services.client.custody.custody import Custody
from services.client.ondemand import bench, restart
from services.client.ondemand.jobs import Jobs, connect
from services.client.ondemand.manifest import load
from services.client.policy import Policy
from services.client.site import Site
from tests.cluster import processes
from tests.cluster.processes import NAMESPACE, Cluster

QUICK = bench.Patience(start_s=20.0, settle_s=0.3, files_s=0.02, cluster_s=0.1)
JOB = ("tests.integration.tasked",)


def write_job(path: Path, *module: str, environment: dict[str, str] | None = None) -> Path:
    """The Job that the chart would render; its container runs a Python module of this tree."""
    container = {
        "name": "task",
        "image": "deerfield-client:test",
        "command": [sys.executable, "-m", *(module or JOB)],
        "env": [{"name": name, "value": value} for name, value in (environment or {}).items()],
    }
    labels = {"app.kubernetes.io/instance": "north", "app.kubernetes.io/name": "deerfield-site"}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [container], "restartPolicy": "Never"}}
    job = {"metadata": {"name": "task", "namespace": NAMESPACE, "labels": labels}, "spec": {"template": pod}}
    path.write_text(yaml.safe_dump({"apiVersion": "batch/v1", "kind": "Job", **job}))
    return path


@dataclass
class Agent:
    """The agent's part of a site, whose process is this one."""

    folder: Path
    cluster: Cluster
    rules: Policy
    patience: bench.Patience = QUICK
    environment: dict[str, str] = field(default_factory=dict)  # of its Jobs

    @property
    def work(self) -> Path:
        return self.folder / "tasks"

    def jobs(self) -> Jobs:
        template = load(write_job(self.folder / "job.yaml", environment=self.environment), "north")
        return Jobs(template, connect({"KUBECONFIG": str(self.cluster.kubeconfig(self.folder))}))

    @contextmanager
    def site(self, link: Any, **how: Any) -> Iterator[Site]:
        """A site that has just started."""
        with Custody("north", self.rules, self.folder / "state") as custody:
            made = self.workbench(custody)
            restart.take_over(self.work, self.rules, custody.account, made.jobs)
            build = partial(bench.build, made)
            yield Site(name="north", link=link, account=custody.account, build=build, beats=False, **how)

    def workbench(self, custody: Custody) -> bench.JobWorkbench:
        return bench.JobWorkbench(
            site="north",
            policy=self.rules,
            split_key=custody.split_key,
            work=self.work,
            jobs=self.jobs(),
            patience=self.patience,
        )


@contextmanager
def clustered(folder: Path) -> Iterator[Cluster]:
    with processes.serving(folder) as cluster:
        yield cluster
        left = cluster.log.read_text() if cluster.log.exists() else ""
    assert "Traceback" not in left or "MemoryError" in left, left
