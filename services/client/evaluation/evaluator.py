"""Scores models on data that is public or belongs to the consortium: one adapter, or every phase of a run."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from deerfield import peft_folder
from deerfield.fingerprint import fingerprint
from deerfield.metrics import metrics
from deerfield.runfile import Embedded, Source
from deerfield.runspec import RunSpec
from deerfield.tensors import Tensors
from deerfield.wire.client import RunsClient
from services.client.evaluation.scoring import Scorer, Scores, classifier_of
from services.client.sources import data
from services.client.training import device, models
from services.client.training.cached import Cached
from services.client.training.trainer import predict

log = structlog.get_logger()

Score = Callable[[Tensors], Mapping[str, float]]


def scorer(spec: RunSpec, base: str, source: Source, hardware: device.Device) -> Score:
    """A function from an adapter to its metrics on `source`; model and data are loaded once.

    Raises:
        InvalidInput: the base model is missing or another one than the run's, or the data cannot be read.
    """
    classifier = classifier_of(spec, base, hardware)
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


def validation(spec: RunSpec, embedded: Embedded, rows: str | None) -> Score:
    """A scorer on the rows of an embedded run that were held out of all training; without `rows`, on its source."""
    source = embedded.source if rows is None else embedded.source.model_copy(update={"rows": rows})
    return scorer(spec, embedded.base or spec.model.base, source, device.choose(embedded.device, embedded.precision))


def evaluate_folder(
    folder: Path, source: Source, base: str | None, *, scores: Path | None = None, trained: bool = True
) -> dict[str, Any]:
    """The metrics of an adapter folder on a data file; what it says of each example goes to the npz `scores`.

    Not `trained` stands for the base model under the state that training starts from.
    """
    spec, adapter = peft_folder.read(folder)
    table = data.read(source, spec.labels, spec.model.input)
    found = Scorer(device.choose(), table.examples).score(spec, base or spec.model.base, adapter if trained else None)
    if scores is not None:
        fingerprints = tuple(fingerprint(each) for each in table.examples.inputs)
        Scores(probabilities=found, examples=table, labels=spec.labels, fingerprints=fingerprints).write(scores)
    return {"metrics": metrics(found, table.examples.labels), "examples": len(table.examples)}
