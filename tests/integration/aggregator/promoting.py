"""Models in a real MLflow whose versions come from finished runs of a real aggregator."""

import json
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from deerfield.documents.partition_manifest import NAME as MANIFEST
from deerfield.documents.partition_manifest import consortium
from deerfield.gate import Held
from deerfield.promotion import Promotion, Verdict
from deerfield.runspec import RunSpec
from deerfield.wire.promoting import read_verdict
from services.aggregator.assembly import Aggregator
from services.aggregator.attaching import Attaching
from services.aggregator.champions.models import Models, Version
from services.aggregator.champions.promotions import Promotions
from services.aggregator.rounds.recorder import Recorder, Untracked
from services.aggregator.tracking import MlflowTracking
from tests.fakes import run_spec
from tests.integration.aggregator.teaching import finish
from tests.registry import ModelsInMemory, verdict

MODEL = "teaching run"
BASE = "b" * 64


@dataclass
class Shop:
    """An aggregator and its MLflow."""

    aggregator: Aggregator
    tracking: MlflowTracking
    folder: Path

    @classmethod
    def opened(cls, aggregator: Aggregator, folder: Path, uri: str = "") -> "Shop":
        """Over the MLflow database in `folder`, unless another URI is given."""
        tracking = MlflowTracking(
            aggregator.desk, uri or f"sqlite:///{folder / 'mlflow.db'}", str(folder / "artifacts")
        )
        return cls(aggregator, tracking, folder)

    @property
    def models(self) -> Models:
        return self.tracking.models

    @property
    def mlflow(self) -> Any:
        return self.tracking._client()

    @property
    def promotions(self) -> Promotions:
        return Promotions(self.aggregator.desk, self.tracking.models)

    def version(self, number: int, name: str = MODEL, **tags: str) -> str:
        """A version as the aggregator registers it, without the bytes of a model."""
        run = finished(self.aggregator, number, name)
        with self.aggregator.desk.store.edge() as edge:
            tracked = self.tracking._run(edge.run(run))
        said = {"deerfield.run": run, "deerfield.digest": self.aggregator.runs.get(run).model.digest}
        if not self.mlflow.search_registered_models(f"name = '{name}'"):
            self.mlflow.create_registered_model(name)
        made = self.mlflow.create_model_version(name, str(self.folder), run_id=tracked, tags=said | tags)
        self.mlflow.set_registered_model_alias(name, "candidate", made.version)
        return str(made.version)

    def alias(self, alias: str = "champion", name: str = MODEL) -> str:
        return str(self.mlflow.get_registered_model(name).aliases.get(alias, ""))

    def tags(self, version: str, name: str = MODEL) -> dict[str, str]:
        return dict(self.mlflow.get_model_version(name, version).tags)

    def judged(self, version: str, expected: str, name: str = MODEL, **how: Any) -> Verdict:
        return judged(self.models, version, expected, name, **how)

    def promote(self, version: str, expected: str, **how: Any) -> Promotion:
        return self.promotions.promote(self.judged(version, expected, **how))


@dataclass
class ShopInMemory:
    """The same without MLflow."""

    aggregator: Aggregator
    models: ModelsInMemory = field(default_factory=ModelsInMemory)

    @property
    def promotions(self) -> Promotions:
        return Promotions(self.aggregator.desk, self.models)

    def version(self, number: int, name: str = MODEL) -> str:
        run = finished(self.aggregator, number, name)
        self.models.add(name, str(number), run=run, digest=self.aggregator.runs.get(run).model.digest)
        self.models.named[name]["candidate"] = str(number)
        return str(number)

    def judged(self, version: str, expected: str, name: str = MODEL, **how: Any) -> Verdict:
        return judged(self.models, version, expected, name, **how)

    def alias(self, alias: str = "champion", name: str = MODEL) -> str:
        return self.models.named[name].get(alias, "")

    def tags(self, version: str, name: str = MODEL) -> dict[str, str]:
        given = self.models.verdicts.get((name, version))
        previous = self.models.made[name, version].previous_champion
        return {
            **({"deerfield.verdict_sha256": given.sha256} if given else {}),
            **({"deerfield.previous_champion": previous} if previous else {}),
        }


def finished(aggregator: Aggregator, number: int, name: str = MODEL) -> str:
    """A run of a consortium that has finished, and that the recorder has dealt with; no two have one model."""
    run = attested_by_its_manifest(aggregator, consortium_spec(number, name), f"{name} {number}")
    Recorder(aggregator.desk.store, Untracked(), aggregator.desk.clock).drain()
    return run


def consortium_spec(number: int, name: str) -> RunSpec:
    """A run of one site; no two have one model."""
    plain = run_spec("north", rounds=1, name=name)
    model = plain.model.model_copy(update={"digest": BASE})
    return plain.model_copy(update={"seed": number, "model": model})


def attested_by_its_manifest(aggregator: Aggregator, spec: RunSpec, request: str) -> str:
    """A run to its last phase, with the manifest of a consortium."""
    run = finish(aggregator, spec, request)
    manifest = consortium(spec.federation.sites, spec.labels, spec.seed)
    Attaching(aggregator.desk, tracked=True).attach(run, MANIFEST, json.dumps(manifest).encode())
    return run


def judged(models: Models, version: str, expected: str, name: str = MODEL, **how: Any) -> Verdict:
    """The verdict of a gate that reads the registry."""
    candidate, champion = (_held(models.version(name, each)) if each else None for each in (version, expected))
    text = verdict(name, version, expected, candidate=candidate, champion=champion, **how)
    return read_verdict(name, version, expected, text)


def _held(found: Version | None) -> Held | None:
    return None if found is None else Held(version=found.version, run=found.run, digest=found.digest)


def course(shop: Shop | ShopInMemory, name: str = MODEL) -> list[tuple[str, str, str, str]]:
    """What has moved a champion: (kind, state, before, behind), and that it is one unbroken line up to the alias."""
    history = shop.promotions.history(name)
    assert [each.number for each in history] == sorted({each.number for each in history})
    done = [each for each in history if each.state == "DONE"]
    for before, behind in pairwise(done):
        assert behind.previous == before.champion
    assert not done or done[-1].champion == shop.alias(name=name)
    return [(each.kind, each.state, each.previous, each.champion) for each in history]
