"""The chart `deerfield` in a cluster, and its operator: what the README has people do, typed into a pod."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from tests.cluster import api as apis
from tests.cluster import desk
from tests.cluster import release as helm
from tests.cluster.cluster import Cluster, Exposure, together
from tests.cluster.desk import Desk
from tests.cluster.pod import Pod
from tests.cluster.release import Release

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm/deerfield"
RELEASE, NAMESPACE = "deer", "consortium"
NAME = "aggregator.consortium.example"  # by which hospitals know it
TLS = "/etc/deerfield/tls"
TRIAL = "/opt/deerfield/share/trial"  # in the images
RUN_S = 900.0
Events: TypeAlias = list[dict[str, Any]]


@dataclass
class Consortium:
    """A release of the chart, begun: its hooks have run, its pods may not be there yet."""

    cluster: Cluster
    api: apis.Api
    release: Release
    operator: Desk

    @property
    def aggregator(self) -> Pod:
        return self.cluster.pod(f"{RELEASE}-aggregator")

    @property
    def tracking(self) -> Pod:
        return self.cluster.pod(f"{RELEASE}-tracking")

    def secret(self, name: str) -> dict[str, bytes]:
        """What a Secret of the release holds."""
        return self.cluster.store.entries("Secret", NAMESPACE, f"{RELEASE}-{name}", optional=False)

    def come_up(self) -> None:
        """Goes on as Helm does with --wait: the objects, until all pods are ready, and the hooks after."""
        for each in self.release.plain():
            self.cluster.apply(each)
        self.cluster.await_ready(self.release)
        self.cluster.run_hooks(self.release, "post-install")

    def sign(self, request: str) -> str:
        """The certificate for a request that a hospital has sent, signed by the CA out of its Secret."""
        name = f"/tmp/{time.monotonic_ns()}"
        self.operator.write(f"{name}.csr", request)
        self.operator.says(
            "deerfield", "pki", "sign", f"{name}.csr", "--ca", "/tmp/ca", "--out", f"{name}.crt", "--yes"
        )
        return self.operator.says("cat", f"{name}.crt") + "\n"

    def start(self, spec: Mapping[str, Any]) -> str:
        """Starts a run; answers its name."""
        path = self.operator.write("/tmp/run.yaml", yaml.safe_dump(dict(spec)))
        return self.operator.told("deerfield", "runs", "start", path)["run"]

    def events(
        self, run: str, others: Sequence[Cluster] = (), meanwhile: Callable[[], object] = lambda: None
    ) -> Events:
        """All that happened in a run, which must finish, followed to its end by `deerfield runs watch`.

        Until then the pods of `others` go on too, and `meanwhile` is called again and again.
        """
        out = self.cluster.node.folder / f"{run}.events"
        name = self.operator.pod.container().name
        with self.cluster.node.begin(out, "exec", name, "deerfield", "runs", "watch", run, "--json") as watching:

            def over() -> bool:
                meanwhile()
                return watching.poll() is not None

            try:
                together([self.cluster, *others], over, RUN_S, lambda: f"{out.read_text()}\n{self.aggregator.logs()}")
            finally:
                watching.kill()
        assert watching.returncode == 0, out.read_text()
        return [json.loads(line) for line in out.read_text().splitlines() if line.startswith("{")]

    def published(self, run: str) -> int:
        """How many phases of a run the aggregator's log tells of."""
        lines = [json.loads(line) for line in self.aggregator.logs().splitlines() if line.startswith("{")]
        return sum((line.get("event"), line.get("run")) == ("phase published", run) for line in lines)

    def promote(self, model: str) -> str:
        """Evaluates a model's candidate on the trial's notes as a pipeline does, and promotes it by rules."""
        source = json.dumps({"path": f"{TRIAL}/notes.csv", "patient": "patient"})
        call = (
            f"evaluate({model!r}, '1', {tracking_uri()!r}, '{TRIAL}/model', {source!r}, Path('/tmp/evaluation.json'))"
        )
        imports = "from pathlib import Path; from pipelines.steps.evaluate import evaluate"
        self.operator.says("python", "-c", f"{imports}; {call}")
        rules = self.operator.write("/tmp/gate.yaml", yaml.safe_dump({"minimum": 0.0, "bound": "value"}))
        given = ("--rules", rules, "--evaluation", "/tmp/evaluation.json")
        return self.operator.says("deerfield", "promote", f"{model}/1", *given)


def tracking_uri() -> str:
    """MLflow's address in the consortium's namespace."""
    return f"http://{RELEASE}-tracking:5000"


def run_file(name: str, sites: list[str], **changes: Any) -> dict[str, Any]:
    """The trial's run under another name, for other sites; `changes` replace whole sections."""
    spec = yaml.safe_load((ROOT / "examples/trial/run.yaml").read_text())
    federation = {**spec["federation"], "sites": sites}
    return {**spec, "name": name, "population": "notes", "federation": federation, **changes}


@contextmanager
def begun(cluster: Cluster, values: Mapping[str, Any], networks: Sequence[str] = ()) -> Iterator[Consortium]:
    """The chart's hooks have run in a cluster, and an operator has the CA.

    The aggregator will be tied to `networks`, by the name that hospitals know it by.
    """
    cluster.exposures += [Exposure(f"{RELEASE}-aggregator", each, NAME) for each in networks]
    given = {"aggregator": {"externalNames": [NAME]}} | dict(values)
    with apis.serving(cluster) as api:
        release = helm.render(CHART, given, RELEASE, NAMESPACE)
        cluster.run_hooks(release, "pre-install")
        yield Consortium(cluster, api, release, _operator(cluster))


def _operator(cluster: Cluster) -> Desk:
    """Who has the operator's certificate and MLflow's password, and may read the CA's Secret."""
    account = {"kind": "ServiceAccount", "name": "operator", "namespace": NAMESPACE}
    meta = {"name": "operator", "namespace": NAMESPACE}
    rules = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list"]}]
    cluster.apply({"kind": "ServiceAccount", "metadata": meta})
    cluster.apply({"kind": "Role", "metadata": meta, "rules": rules})
    cluster.apply({"kind": "RoleBinding", "metadata": meta, "roleRef": {"name": "operator"}, "subjects": [account]})
    auth = f"{RELEASE}-tracking-auth"
    told = {
        "DEERFIELD_AGGREGATOR": f"{RELEASE}-aggregator:8600",
        "DEERFIELD_TLS_CERTIFICATE": f"{TLS}/tls.crt",
        "DEERFIELD_TLS_KEY": f"{TLS}/tls.key",
        "DEERFIELD_TLS_CA": f"{TLS}/ca.crt",
        "MLFLOW_TRACKING_URI": tracking_uri(),
    }
    env: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in told.items()]
    for key in ("username", "password"):
        source = {"secretKeyRef": {"name": auth, "key": key}}
        env.append({"name": f"MLFLOW_TRACKING_{key.upper()}", "valueFrom": source})
    found = desk.sit(cluster, NAMESPACE, env=env, tls=f"{RELEASE}-operator-tls", account="operator")
    found.says("deerfield", "cluster", "ca", "--namespace", NAMESPACE, "--name", f"{RELEASE}-ca", "--out", "/tmp/ca")
    return found
