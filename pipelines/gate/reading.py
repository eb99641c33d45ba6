"""Reads what other steps wrote: evaluation.json, and the manifest of the data; keys that no rule judges are let be."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from math import nan
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict

from deerfield.errors import InvalidInput
from deerfield.runfile import parse
from pipelines.gate.evidence import TEST, Evaluation, Figure, Scored

SCHEMA = 1  # of either file


def _or_nan(value: Any) -> Any:
    return nan if value is None else value


def _as_figure(value: Any) -> Any:
    return {"value": value} if value is None or isinstance(value, int | float) else value


Number = Annotated[float, BeforeValidator(_or_nan)]  # a number that could not be computed is null


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Figure(_Part):
    value: Number
    low: Number = nan
    high: Number = nan

    def read(self) -> Figure:
        return Figure(value=self.value, low=self.low, high=self.high)


Metrics = Mapping[str, Annotated[_Figure, BeforeValidator(_as_figure)]]


class _Site(_Part):
    metrics: Metrics


class _Calibration(_Part):
    ece: Number = nan


class _Model(_Part):
    version: str
    digest: str
    metrics: Metrics
    by_site: Mapping[str, _Site] = {}
    reported: Mapping[str, Mapping[str, Number]] = {}
    calibration: _Calibration = _Calibration()


class _Models(_Part):
    candidate: _Model
    champion: _Model | None = None


class _Differences(_Part):
    champion: Metrics = {}


class _TestSet(_Part):
    sha256: str
    examples: int


class _Leakage(_Part):
    checked: int
    overlap: int


class _Evaluation(_Part):
    test_set: _TestSet
    models: _Models
    differences: _Differences = _Differences()
    by_site: Mapping[str, _Site] = {}
    reported: Mapping[str, Mapping[str, Number]] = {}
    leakage: _Leakage
    confidence: float


class _Hashed(_Part):
    sha256: str = ""


class _Manifest(_Part):
    kind: Literal["simulation", "consortium"]
    sites: Mapping[str, _Hashed]
    test: _Hashed = _Hashed()


def read_evaluation(path: Path) -> Evaluation:
    """What an evaluation found.

    Raises:
        InvalidInput: the file cannot be read, or is no evaluation that this version reads.
    """
    found = parse(_Evaluation, _document(path, "the evaluation of a version"), str(path))
    sites = {site: _values(each.metrics) for site, each in found.by_site.items()} or dict(found.reported)
    champion = found.models.champion
    return Evaluation(
        candidate=_scored(found.models.candidate, sites),
        champion=None if champion is None else _scored(champion, champion.reported),
        differences={name: each.read() for name, each in found.differences.champion.items()},
        confidence=found.confidence,
        checked=found.leakage.checked,
        overlap=found.leakage.overlap,
        test_sha256=found.test_set.sha256,
        examples=found.test_set.examples,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Whose the data are, and if they are the hub's, the sha256 of each site's part and of `test`."""

    kind: Literal["simulation", "consortium"]
    hub: Mapping[str, str]
    sha256: str  # of the file


def read_manifest(path: Path) -> Manifest:
    """The manifest that a partition has written.

    Raises:
        InvalidInput: the file cannot be read, or is no manifest that this version reads.
    """
    found = parse(_Manifest, _document(path, "the manifest of a partition"), str(path))
    parts = {**{site: each.sha256 for site, each in found.sites.items()}, TEST: found.test.sha256}
    return Manifest(
        kind=found.kind,
        hub=parts if found.kind == "simulation" else {},
        sha256=sha256(path.read_bytes()).hexdigest(),
    )


def _scored(model: _Model, sites: Mapping[str, Mapping[str, float]]) -> Scored:
    own = {site: _values(each.metrics) for site, each in model.by_site.items()}
    return Scored(
        version=model.version,
        digest=model.digest,
        metrics={name: each.read() for name, each in model.metrics.items()},
        sites=own or sites,
        ece=model.calibration.ece,
    )


def _values(metrics: Mapping[str, _Figure]) -> Mapping[str, float]:
    return {name: each.value for name, each in metrics.items()}


def _document(path: Path, what: str) -> Any:
    try:
        found = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}; it ought to be {what}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path} is no JSON ({error}); it ought to be {what}") from None
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        has = f"schema {found['schema']!r}" if isinstance(found, dict) and "schema" in found else "no schema"
        raise InvalidInput(f"{path} has {has}, and this version of deerfield reads {SCHEMA}: it ought to be {what}")
    return found
