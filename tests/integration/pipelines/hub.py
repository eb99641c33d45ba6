"""A hub to promote models at: an aggregator behind gRPC, a real MLflow on SQLite, sites that teach, evaluations."""

import json
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deerfield.documents.partition_manifest import NAME as MANIFEST
from deerfield.documents.partition_manifest import consortium, text
from deerfield.runspec import Privacy
from pipelines.registry.reader import RegistryReader, Version, open_registry
from services.aggregator.tracking import MlflowTracking
from tests import command, mlflow_server
from tests.fakes import Clock, TeachingSite, adapter, run_spec
from tests.integration.aggregator.conftest import Served, open_aggregator, served
from tests.integration.federation import wait_for

NOISE = 4.0  # over the clip: a run of one round costs less than its epsilon
BASE = "b" * 64
RULES = {"minimum": 0.7, "epsilon": {"run": 3, "lifetime": 8}, "worst_site": {"minimum": 0.5, "margin": 0.1}}


@dataclass
class Hub:
    """What an engineer of the hub has at hand."""

    server: Served
    tracking: str
    folder: Path

    @property
    def registry(self) -> RegistryReader:
        return open_registry(self.tracking)

    @property
    def mlflow(self) -> Any:
        return mlflow_server.client(self.tracking)

    @property
    def aggregator(self) -> str:
        return self.server.ports.listening

    def trained(self, name: str, seed: int = 0, *, kept: bool = True, **changes: Any) -> Version:
        """The version that a run of two sites has become; runs of one name are over one population.

        It has kept the manifest of a consortium, unless it is to have none.
        """
        privacy = Privacy(unit="record", epsilon=3.0, clip=1.0, sample_rate=0.5)
        plain = run_spec("north", "south", rounds=1, privacy=privacy, name=name)
        model = plain.model.model_copy(update={"digest": BASE})
        spec = plain.model_copy(update={"model": model, "seed": seed, "population": name, **changes})
        run = self.server.runs.start(spec, f"{name} {seed}")
        noise = 0.0 if spec.privacy.unit == "none" else NOISE
        sites = [
            TeachingSite(site, self.server.site(site, run), adapter(seed + number), noise)
            for number, site in enumerate(spec.federation.sites)
        ]
        for _ in range(2):  # the exchanges of a round
            for site in sites:
                assert site.step()
        told = {event.kind: event.detail for event in self.server.runs.watch(run)}
        assert "registered" in told, told
        if kept:
            manifest = consortium(spec.federation.sites, spec.labels, spec.seed)
            self.server.runs.attach(run, MANIFEST, text(manifest).encode())
            wait_for(lambda: self.registry.kept(name, run, (MANIFEST,), self.folder))
        return self.registry.version(name, str(told["registered"]["version"]))

    def rules(self, **changes: Any) -> Path:
        """A rules file."""
        path = self.folder / "gate.yaml"
        path.write_text(json.dumps(RULES | changes))  # JSON is YAML
        return path

    def evaluated(self, version: Version, f1: float = 0.8, against: float = 0.8, **changes: Any) -> Path:
        """evaluation.json of a version with this macro-F1, give or take 0.01, and of the champion that there is."""
        champion = self.registry.champion(version.model)
        models = {"candidate": _scored(version, f1)}
        differences = {}
        if champion is not None:
            models["champion"] = _scored(champion, against)
            differences["champion"] = {"macro_f1": _figure(f1 - against)}
        document = {
            "schema": 1,
            "test_set": {"source": "held-out.csv", "sha256": "e" * 64, "examples": 200},
            "models": models,
            "labels": ["no", "yes"],
            "primary": "macro_f1",
            "differences": differences,
            "leakage": {"checked": 0, "overlap": 0},
            "confidence": 0.95,
        }
        path = self.folder / f"evaluation {version}.json"
        path.write_text(json.dumps(document | changes))
        return path

    def deerfield(self, *arguments: object, width: int = 100, **environment: str) -> tuple[int, str]:
        """The command: its exit code, and what it printed; an error is its sentence and code."""
        here = {"DEERFIELD_AGGREGATOR": self.aggregator, "MLFLOW_TRACKING_URI": self.tracking, "COLUMNS": str(width)}
        return command.deerfield(*arguments, **here | environment)

    def promote(self, version: Version, *options: object, f1: float = 0.8, **rules: Any) -> tuple[int, str]:
        """`deerfield promote` of a version with this macro-F1."""
        files = ("--rules", self.rules(**rules), "--evaluation", self.evaluated(version, f1))
        return self.deerfield("promote", f"{version.model}/{version.version}", *files, *options)

    def champion(self, name: str) -> str:
        """The version with the alias; empty: none."""
        found = self.registry.champion(name)
        return found.version if found else ""


@contextmanager
def opened(folder: Path):
    """A hub over `folder`, for as long as the block runs."""
    tracking = mlflow_server.database(folder)
    aggregator = open_aggregator(folder / "aggregator", Clock())
    keeps = MlflowTracking(aggregator.desk, tracking, str(folder / "artifacts"))
    with served(aggregator, tracking=keeps) as server:
        yield Hub(server, tracking, folder)
    aggregator.desk.store.close()


def _figure(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.01, "high": value + 0.01}


def _scored(version: Version, f1: float) -> dict[str, Any]:
    return {
        "version": version.version,
        "digest": version.digest,
        "metrics": {"macro_f1": _figure(f1), "accuracy": _figure(f1 + 0.05)},
        "by_site": {
            "north": {"examples": 100, "metrics": {"macro_f1": _figure(f1 - 0.1)}},
            "south": {"examples": 100, "metrics": {"macro_f1": _figure(f1 + 0.1)}},
        },
        "confusion": [[80, 20], [20, 80]],
        "roc": {"no": None, "yes": None},
        "calibration": {"ece": 0.05, "bins": []},
    }
