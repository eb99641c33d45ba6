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
from pipelines.site_process import answer


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


def score(
    models: Mapping[str, Model], source: Source, training: Path | None, folder: Path
) -> tuple[dict[str, Scores], int]:
    """Has a client process score all models on `source`; their scores, and how many examples of `training` it checked.

    Raises:
        InvalidInput: a model, its base or the data cannot be used, or an example is among those of `training`.
    """
    request = {
        "source": source.model_dump(),
        "training": None if training is None else str(training),
        "models": {
            name: {"adapter": str(each.adapter), "base": each.base, "trained": each.trained}
            for name, each in models.items()
        },
    }
    asked, out = folder / "request.json", folder / "scores"
    out.mkdir()
    asked.write_text(json.dumps(request))
    said: dict[str, Any] = answer("score", ["--request", str(asked), "--out", str(out)], folder)
    return {name: read(out / f"{name}.npz") for name in models}, int(said["checked"])


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
