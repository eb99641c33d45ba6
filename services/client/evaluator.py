"""Scores models on data that is public or belongs to the consortium: one adapter, or every phase of a run."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from deerfield import peft_folder
from deerfield.errors import InvalidInput
from deerfield.metrics import metrics
from deerfield.runfile import Embedded, Source
from deerfield.runspec import RunSpec
from deerfield.tensors import Tensors
from deerfield.wire.client import RunsClient
from services.client import backbones, data, device, models
from services.client.cached import Cached
from services.client.trainer import predict

log = structlog.get_logger()

Score = Callable[[Tensors], Mapping[str, float]]


def scorer(spec: RunSpec, base: str, source: Source, hardware: device.Device) -> Score:
    """A function from an adapter to its metrics on `source`; model and data are loaded once.

    Raises:
        InvalidInput: the base model is missing or another one than the run's, or the data cannot be read.
    """
    folder = backbones.locate(base)
    if (found := backbones.digest(folder)) != spec.model.digest:
        raise InvalidInput(
            f"base model {base!r} has digest {found[:12]}, the adapter was trained on {str(spec.model.digest)[:12]}; "
            f"name that one with --base"
        )
    classifier = models.load(folder, spec, device=hardware)
    examples = Cached(classifier, data.read(source, spec.labels, spec.model.input).examples)

    def score(adapter: Tensors) -> Mapping[str, float]:
        classifier.load(models.SHARED, adapter)
        return metrics(predict(classifier, examples), examples.labels.numpy())

    return score


def follow(runs: RunsClient, run: str, score: Score) -> None:
    """Scores each adapter that `run` publishes and reports it to the aggregator, until the run ends.

    Where a strategy personalises, the figure is the mean over the sites' own adapters.
    """
    for event in runs.watch(run):
        if event.kind != "phase_published":
            continue
        published = runs.published(run, event)
        scores = [score(adapter) for adapter in published]
        mean = {name: float(np.mean([each[name] for each in scores])) for name in scores[0]}
        runs.evaluated(run, int(event.detail["round"]), int(event.detail["phase"]), mean)
        log.info("evaluated", round=event.detail["round"], phase=event.detail["phase"], **mean)


def validation(spec: RunSpec, embedded: Embedded, rows: str) -> Score:
    """A scorer on the rows of an embedded run that were held out of all training."""
    source = embedded.source.model_copy(update={"rows": rows})
    return scorer(spec, embedded.base or spec.model.base, source, device.choose(embedded.device, embedded.precision))


def evaluate_folder(folder: Path, source: Source, base: str | None) -> dict[str, Any]:
    """The metrics of an adapter folder on a data file."""
    spec, adapter = peft_folder.read(folder)
    score = scorer(spec, base or spec.model.base, source, device.choose())
    table = data.read(source, spec.labels, spec.model.input)
    return {"metrics": dict(score(adapter)), "examples": len(table.examples)}
