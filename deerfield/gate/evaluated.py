"""What the gate reads of evaluation.json."""

from collections.abc import Mapping
from hashlib import sha256
from math import nan
from pathlib import Path

from deerfield.documents import evaluation, reading
from deerfield.documents.evaluation import CHAMPION, Interval, SiteScores
from deerfield.gate.evidence import Evaluation, Figure, Scored


def read_evaluation(path: Path, kept: str = "") -> Evaluation:
    """What an evaluation found; `kept` is the sha256 of the one that the run has kept, empty where it has none.

    Raises:
        InvalidInput: the file cannot be read, or is no evaluation that this version reads.
    """
    content = reading.content(path, evaluation.Evaluation.WHAT)
    found = reading.parsed(evaluation.Evaluation, content, str(path))
    sites = _sites(found.by_site) or _told(found.reported)
    champion = found.models.get(CHAMPION)
    return Evaluation(
        candidate=_scored(found.candidate, sites),
        champion=None if champion is None else _scored(champion, _told(champion.reported)),
        differences={name: _figure(each) for name, each in found.differences.get(CHAMPION, {}).items()},
        confidence=found.confidence,
        checked=found.leakage.checked,
        overlap=found.leakage.overlap,
        test_sha256=found.test_set.sha256,
        examples=found.test_set.examples,
        sha256=sha256(content).hexdigest(),
        kept=kept,
    )


def _scored(model: evaluation.Scored, sites: Mapping[str, Mapping[str, float]]) -> Scored:
    return Scored(
        version=model.version,
        digest=model.digest,
        metrics={name: _figure(each) for name, each in model.metrics.items()},
        sites=_sites(model.by_site) or sites,
        ece=nan if model.calibration.ece is None else model.calibration.ece,
    )


def _told(reported: Mapping[str, Mapping[str, float | None]]) -> Mapping[str, Mapping[str, float]]:
    return {
        site: {name: nan if value is None else value for name, value in told.items()} for site, told in reported.items()
    }


def _sites(found: Mapping[str, SiteScores]) -> Mapping[str, Mapping[str, float]]:
    return {
        site: {name: nan if each.value is None else each.value for name, each in scores.metrics.items()}
        for site, scores in found.items()
    }


def _figure(interval: Interval) -> Figure:
    value, low, high = (nan if each is None else each for each in (interval.value, interval.low, interval.high))
    return Figure(value=value, low=low, high=high)
