"""evaluation.json: candidate, champion and base on one test set. docs/evaluation.md."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field, model_validator

from deerfield.documents.reading import Document, Number, Part, Whole

NAME = "evaluation.json"  # among a run's artifacts
CANDIDATE, CHAMPION = "candidate", "champion"  # names of models


class Interval(Part):
    """An estimate with the bounds of its confidence interval, where there are such."""

    value: Number | None
    low: Number | None = None
    high: Number | None = None


class ClassScores(Part):
    """How well one label is found."""

    precision: Number | None = None
    recall: Number | None = None
    f1: Number | None = None
    examples: Whole = 0


class Curve(Part):
    """A ROC curve."""

    fpr: tuple[Number, ...]
    tpr: tuple[Number, ...]
    thresholds: tuple[Number, ...] = ()
    auc: Number


class Bin(Part):
    """Examples of which a model was about equally sure; without any it has no frequencies."""

    low: Number
    high: Number
    examples: Whole
    confidence: Number | None
    accuracy: Number | None


class Calibration(Part):
    """How far stated probabilities are from observed frequencies."""

    ece: Number | None
    bins: tuple[Bin, ...]


class SiteScores(Part):
    """A model on one site's part of the test set."""

    examples: Whole = 0
    metrics: Mapping[str, Interval] = {}


class Scored(Part):
    """One model on the test set."""

    version: str = ""
    digest: str = ""
    metrics: Mapping[str, Interval]
    by_site: Mapping[str, SiteScores] = {}
    per_class: Mapping[str, ClassScores] = {}
    confusion: tuple[tuple[Whole, ...], ...]
    roc: Mapping[str, Curve | None]
    roc_micro: Curve | None = None
    calibration: Calibration
    reported: Mapping[str, Mapping[str, Number | None]] = {}  # by site, where the sites were asked to score it


class TestSet(Part):
    """Data that no site has trained on."""

    source: str = ""
    sha256: str
    examples: Whole = Field(ge=0)


class Leakage(Part):
    """How many training examples the test set was held against, and how many of its own were found there."""

    checked: Whole = Field(ge=0)
    overlap: Whole = Field(ge=0)


class Evaluation(Document):
    """evaluation.json."""

    WHAT: ClassVar[str] = "the evaluation of a version"

    test_set: TestSet
    labels: tuple[str, ...]
    primary: str
    models: Mapping[str, Scored]
    differences: Mapping[str, Mapping[str, Interval]] = {}
    by_site: Mapping[str, SiteScores] = {}
    reported: Mapping[str, Mapping[str, Number | None]] = {}
    leakage: Leakage
    confidence: Number
    resamples: Whole = 0
    notes: tuple[str, ...] = ()
    whole: Mapping[str, Any] = Field({}, repr=False)  # as it was written

    @property
    def candidate(self) -> Scored:
        """The model that the others are compared with."""
        return self.models[CANDIDATE]

    @model_validator(mode="before")
    @classmethod
    def _keeps_the_whole(cls, data: Any) -> Any:
        return {**data, "whole": {"notes": [], "differences": {}, **data}} if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _holds_together(self) -> "Evaluation":
        if CANDIDATE not in self.models:
            raise ValueError("models: there is no candidate")
        size = len(self.labels)
        for name, scored in self.models.items():
            if [len(row) for row in scored.confusion] != [size] * size:
                raise ValueError(f"models: {name}: confusion is not a table of {size} labels")
        tables = [*(scored.metrics for scored in self.models.values()), *self.differences.values()]
        if any(self.primary not in table for table in tables):
            raise ValueError(f"primary: {self.primary} is not among the metrics of every model and difference")
        return self
