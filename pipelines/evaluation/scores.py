"""What models say of each example of a test set, as `services.client score` writes it down, for judging here."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deerfield.errors import InvalidInput
from deerfield.metrics import Labels
from deerfield.runfile import Source
from deerfield.tensors import Wide
from pipelines.processes.site_process import answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model to score."""

    adapter: Path  # its folder
    base: str | None  # the base model here; None: as the adapter names it
    trained: bool = True  # False: the base under the state that training starts from


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What one model says of each example, and what the examples are."""

    probabilities: Wide  # (n, labels)
    labels: Labels  # (n,)
    classes: tuple[str, ...]  # the labels by name
    units: NDArray[np.str_]  # (n,), what is drawn together
    sites: NDArray[np.str_] | None  # (n,), where the test set has a column
    fingerprints: tuple[str, ...]  # of each example

    def at(self, site: str) -> "Scores":
        """The examples of one site."""
        rows = self.sites == site
        return Scores(
            probabilities=self.probabilities[rows],
            labels=self.labels[rows],
            classes=self.classes,
            units=self.units[rows],
            sites=None,
            fingerprints=tuple(np.array(self.fingerprints)[rows].tolist()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TestSet:
    """What the models are scored on."""

    source: Source
    sha256: str  # that its file must have; empty: any
    training: str | None  # where the fingerprints of training data are, which no example may be among


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a client process read, and the scores that it wrote."""

    models: Mapping[str, Scores]
    sha256: str  # of the test set
    checked: int  # training examples that it was held against


def score(models: Mapping[str, Model], test_set: TestSet, folder: Path) -> Found:
    """Has a client process score all models on the test set.

    Raises:
        InvalidInput: a model, its base or the data cannot be used, or an example is among those of training.
    """
    request = {
        "source": test_set.source.model_dump(),
        "sha256": test_set.sha256,
        "training": test_set.training,
        "models": {
            name: {"adapter": str(each.adapter), "base": each.base, "trained": each.trained}
            for name, each in models.items()
        },
    }
    asked, out = folder / "request.json", folder / "scores"
    out.mkdir()
    asked.write_text(json.dumps(request))
    said: dict[str, Any] = answer("score", ["--request", str(asked), "--out", str(out)], folder)
    found = {name: read(out / f"{name}.npz") for name in models}
    return Found(models=found, sha256=said["sha256"], checked=said["checked"])


def read(path: Path) -> Scores:
    """The scores in an npz file.

    Raises:
        InvalidInput: it is not there, or holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Scores(
                probabilities=arrays["probabilities"],
                labels=arrays["labels"],
                classes=tuple(arrays["classes"].tolist()),
                units=arrays["units"],
                sites=arrays.get("sites"),
                fingerprints=tuple(arrays["fingerprints"].tolist()),
            )
    except (OSError, ValueError, KeyError) as error:
        raise InvalidInput(f"{path} holds no scores ({error}); write it with `services.client score`") from error
