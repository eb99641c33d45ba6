"""evaluation.json: candidate, champion and base on one test set, with intervals. Schema: docs/evaluation.md."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from deerfield.bootstrap import CONFIDENCE, RESAMPLES, Resampled, resample
from deerfield.calibration import reliability
from deerfield.classes import POINTS, Curve, confusion, per_class, roc
from deerfield.documents.evaluation import CANDIDATE
from deerfield.metrics import statistics
from pipelines.evaluation.scores import Scores

SCHEMA = 1
PRIMARY = "macro_f1"  # what gates and pages look at first
FEWEST, MOST = 25, 6000  # points of a ROC curve, and of all curves of a model: the file stays below a megabyte


def document(
    scores: Mapping[str, Scores],
    about: Mapping[str, Mapping[str, str]],
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> dict[str, Any]:
    """What the scores of several models on one test set come to; `about` has each one's version and digest.

    Of the keys of evaluation.json it leaves `test_set`, `reported` and `leakage` to its caller.
    """
    some = next(iter(scores.values()))
    whole = resample(_judges(scores), some.units, resamples=resamples, seed=seed)
    sites = {} if some.sites is None else _by_site(scores, resamples, seed)
    models = {
        name: {
            **about[name],
            "metrics": _intervals(whole[name], confidence),
            **by_label(each),
            "by_site": {
                site: {"examples": count, "metrics": _intervals(found[name], confidence)}
                for site, (count, found) in sites.items()
            },
        }
        for name, each in scores.items()
    }
    others = [name for name in scores if name != CANDIDATE]
    return {
        "schema": SCHEMA,
        "labels": list(some.classes),
        "primary": PRIMARY,
        "models": models,
        "differences": {name: _intervals(whole[CANDIDATE].minus(whole[name]), confidence) for name in others},
        "by_site": models[CANDIDATE]["by_site"],
        "confidence": confidence,
        "resamples": resamples,
        "seed": seed,
        "notes": notes(some),
    }


def by_label(scores: Scores) -> dict[str, Any]:
    """Figures of one model that have no interval: by label, confusion matrix, ROC curves, calibration."""
    table = confusion(scores.probabilities, scores.labels)
    points = min(POINTS, max(FEWEST, MOST // len(scores.classes)))
    curves = {
        label: _curve(roc(scores.probabilities[:, k], scores.labels == k, points))
        for k, label in enumerate(scores.classes)
    }
    hot = np.eye(len(scores.classes), dtype=np.bool_)[scores.labels]
    width, mass = (reliability(scores.probabilities, scores.labels, by=by) for by in ("width", "mass"))
    return {
        "per_class": dict(zip(scores.classes, map(asdict, per_class(table)), strict=True)),
        "confusion": table.tolist(),
        "roc": curves,
        "roc_micro": _curve(roc(scores.probabilities.ravel(), hot.ravel())),  # every label of every example, pooled
        "calibration": {**asdict(width), "ece_equal_mass": mass.ece},
    }


def _curve(curve: Curve | None) -> dict[str, Any] | None:
    if curve is None:
        return None
    return {name: value if name == "auc" else np.round(value, 6).tolist() for name, value in asdict(curve).items()}


def notes(scores: Scores) -> list[str]:
    """What a reader has to know of the test set, a sentence each."""
    counts = np.bincount(scores.labels, minlength=len(scores.classes))
    missing = [label for label, count in zip(scores.classes, counts, strict=True) if not count]
    found = []
    if len(missing) == len(scores.classes) - 1:
        only = scores.classes[int(counts.argmax())]
        found.append(f"every example of the test set has the label {only}: nothing can be ranked, and AUC is undefined")
    elif missing:
        found.append(f"no example of the test set has the label {', '.join(missing)}: macro averages leave it out")
    return found


def named(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics under the names that they have in documents: an average over labels is called one."""
    return {name if name == "accuracy" else f"macro_{name}": value for name, value in metrics.items()}


def summary(judged: Mapping[str, Any]) -> list[str]:
    """An evaluation in a few lines, for a log: the primary metric of each model, and how far the others are off."""
    primary, percent = judged["primary"], f"{judged['confidence']:.0%}"
    lines = [
        f"{judged['test_set']['examples']} test examples; intervals of {percent} from {judged['resamples']} resamples"
    ]
    for name, found in judged["models"].items():
        called = f"{name} (version {found['version']})" if found["version"] else name
        lines.append(f"{primary} of {called}: {told(found['metrics'][primary])}")
    for name, found in judged["differences"].items():
        lines.append(f"{primary} of the candidate less that of {name}: {told(found[primary])}")
    return [*lines, *judged["notes"]]


def told(interval: Mapping[str, float | None], form: str = ".4f") -> str:
    """A value with the bounds of its interval."""
    value, low, high = (interval[key] for key in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return "undefined"
    return f"{value:{form}} ({low:{form}} to {high:{form}})"


def _judges(scores: Mapping[str, Scores]) -> dict[str, Any]:
    return {name: statistics(each.probabilities, each.labels) for name, each in scores.items()}


def _by_site(scores: Mapping[str, Scores], resamples: int, seed: int) -> dict[str, tuple[int, dict[str, Resampled]]]:
    """Examples and resampled metrics of every model, on each site's part of the test set."""
    some = next(iter(scores.values()))
    found = {}
    for site in sorted(set(some.sites.tolist() if some.sites is not None else ())):
        parts = {name: each.at(site) for name, each in scores.items()}
        units = next(iter(parts.values())).units
        found[site] = (len(units), resample(_judges(parts), units, resamples=resamples, seed=seed))
    return found


def _intervals(found: Resampled, confidence: float) -> dict[str, dict[str, float | None]]:
    return {name: asdict(each) for name, each in named(found.intervals(confidence)).items()}
