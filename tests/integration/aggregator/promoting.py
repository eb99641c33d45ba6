"""Models in a real MLflow whose versions come from finished runs of a real aggregator."""

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from deerfield.promotion import Promotion, Verdict
from deerfield.wire.promoting import read_verdict
from services.aggregator.assembly import Aggregator
from services.aggregator.champions.models import Models
from services.aggregator.champions.promotions import Promotions
from services.aggregator.rounds.recorder import Recorder, Untracked
from services.aggregator.tracking import MlflowTracking
from tests.fakes import run_spec
from tests.integration.aggregator.teaching import finish
from tests.registry import ModelsInMemory, verdict

MODEL = "teaching run"


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

    def promote(self, version: str, expected: str, **how: Any) -> Promotion:
        return self.promotions.promote(judged(version, expected, **how))


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
    """A run that has finished, and that the recorder has dealt with; no two have one model."""
    spec = run_spec("north", rounds=1, name=name).model_copy(update={"seed": number})
    run = finish(aggregator, spec, f"{name} {number}")
    Recorder(aggregator.desk.store, Untracked(), aggregator.desk.clock).drain()
    return run


def judged(version: str, expected: str, name: str = MODEL, **how: Any) -> Verdict:
    return read_verdict(name, version, expected, verdict(name, version, expected, **how))


def course(shop: Shop | ShopInMemory, name: str = MODEL) -> list[tuple[str, str, str, str]]:
    """What has moved a champion: (kind, state, before, behind), and that it is one unbroken line up to the alias."""
    history = shop.promotions.history(name)
    assert [each.number for each in history] == sorted({each.number for each in history})
    done = [each for each in history if each.state == "DONE"]
    for before, behind in pairwise(done):
        assert behind.previous == before.champion
    assert not done or done[-1].champion == shop.alias(name=name)
    return [(each.kind, each.state, each.previous, each.champion) for each in history]
