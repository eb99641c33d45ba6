"""The chart `deerfield-site` in a network of its own: a hospital, which reaches the aggregator and nothing else."""

import csv
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from tests.cluster import desk
from tests.cluster import release as helm
from tests.cluster.cluster import Cluster
from tests.cluster.consortium import NAME, ROOT
from tests.cluster.pod import Pod
from tests.cluster.release import Object, Release

CHART = ROOT / "helm/deerfield-site"
RELEASE, NAMESPACE = "site", "hospital"
SITES = ("east", "north", "west")
TLS = "site-certificate"
FEDERATION = "deerfield"


@dataclass
class Hospital:
    """One hospital; its private key is made here."""

    name: str
    cluster: Cluster
    release: Release | None = None

    def request(self) -> tuple[str, str]:
        """A new private key, and the request for its certificate, made at a desk here."""
        found = desk.sit(self.cluster, NAMESPACE)
        found.says("deerfield", "pki", "request", "/tmp/tls", "--federation", FEDERATION, "--site", self.name)
        key, request = (found.says("cat", f"/tmp/tls/tls.{kind}") + "\n" for kind in ("key", "csr"))
        self.cluster.delete(found.pod)
        return key, request

    def keep(self, key: str, certificate: str, authority: str) -> None:
        """Puts the Secret in place that the site's certificate is in, as `kubectl create secret` does."""
        held = {"tls.crt": certificate, "tls.key": key, "ca.crt": authority}
        meta = {"name": TLS, "namespace": NAMESPACE}
        self.cluster.apply({"kind": "Secret", "type": "kubernetes.io/tls", "metadata": meta, "stringData": held})

    def fill(self) -> None:
        """Puts data and base model on the hospital's volumes: a third of the trial's patients, and its model."""
        trial = ROOT / "examples/trial"
        for name in ("data", "models"):
            meta = {"name": name, "namespace": NAMESPACE}
            self.cluster.apply({"kind": "PersistentVolumeClaim", "metadata": meta, "spec": {}})
        with (trial / "notes.csv").open() as file:
            rows = list(csv.DictReader(file))
        patients = sorted({row["patient"] for row in rows})[SITES.index(self.name) :: len(SITES)]
        for name in ("notes", "public"):
            with (self.cluster.claim(NAMESPACE, "data") / f"{name}.csv").open("w") as file:
                writer = csv.DictWriter(file, rows[0].keys())
                writer.writeheader()
                writer.writerows(row for row in rows if row["patient"] in patients)
        shutil.copytree(trial / "model", self.cluster.claim(NAMESPACE, "models") / "trial")

    def install(self, **values: Any) -> None:
        """Installs the chart; its pod need not be ready."""
        self.release = helm.render(CHART, self.values() | values, RELEASE, NAMESPACE)
        self.cluster.begin(self.release)

    def uninstall(self) -> None:
        """Takes the release away, but for what is to be kept."""
        for each in self.release.plain():
            if helm.annotation(each, "helm.sh/resource-policy") != "keep":
                self.cluster.remove(each)

    @property
    def pod(self) -> Pod:
        return self.cluster.pod(f"{RELEASE}-site-0")

    def values(self) -> Mapping[str, Any]:
        """What a hospital writes into its values file."""
        digest = yaml.safe_load((ROOT / "examples/trial/run.yaml").read_text())["model"]["digest"]
        return {
            "site": {"name": self.name},
            "federation": FEDERATION,
            "aggregator": {"address": f"{NAME}:8600", "cidrs": ["203.0.113.7/32"]},
            "tls": {"existingSecret": TLS},
            "policy": {"inline": {"populations": populations(), "models": {digest: "/models/trial"}, "device": "cpu"}},
            "data": {"existingClaim": "data"},
            "models": {"existingClaim": "models"},
        }


def populations() -> Object:
    """Patients whose budget counts, and the same notes as if they were public, for runs compared bit by bit."""
    common = {"registration": "on_start", "reports": "terms", "units_low": 50, "units_high": 120}
    source = {"patient": "patient"}
    return {
        "notes": {
            **common,
            "source": source | {"path": "/data/notes.csv"},
            "unit": "patient",
            "epsilon": 8,
            "delta": 1e-5,
        },
        "public": {**common, "source": source | {"path": "/data/public.csv"}, "unit": "none"},
    }
