"""The documents that a report is made of, as far as it reads them: what else stands in them is nothing to it."""

from collections.abc import Mapping
from math import inf
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Epsilon = Annotated[float, BeforeValidator(lambda value: inf if value == "infinity" else value)]
Times = tuple[float | None, float | None]  # a task was taken, and answered; seconds since the run began


class Part(BaseModel):
    """A part of a document: frozen; a key that it does not know is left alone."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class OpenPhase(Part):
    """A phase that was begun and never published."""

    round: int
    phase: int
    sites: Mapping[str, Times] = {}
    missing: Mapping[str, str] = {}  # by site, why


class Phase(OpenPhase):
    """A published phase of result.json; where it says nothing of `sites`, an older deerfield wrote it."""

    factors: str
    deviation: float | None
    bytes_up: int
    bytes_down: int
    seconds: float
    digest: str
    published_s: float | None = None  # seconds since the run began
    epsilon: Mapping[str, Epsilon]
    epsilon_total: Mapping[str, Epsilon]
    reported: Mapping[str, Mapping[str, float]] = {}  # by site, what its policy lets out
    evaluation: Mapping[str, float] = {}


class Incident(Part):
    """Something that a reader should know of; what else the event said stands in `model_extra`."""

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: str
    at_s: float = 0.0  # seconds since the run began
    round: int | None = None
    phase: int | None = None
    site: str = ""


class Site(Part):
    """What one site has spent."""

    epsilon: Epsilon | None = None  # in this run
    epsilon_total: Epsilon | None = None  # of its population, over all runs
    unit: str = ""
    noise_multiplier: float | None = None
    sample_rate: float | None = None
    steps: int = 0
    clip: float | None = None


class ResultDocument(Part):
    """result.json; docs/result.md."""

    run: str
    version: str = ""
    started: float = 0.0  # seconds since the epoch; 0 where it is not known
    ended_s: float | None = None  # seconds since the run began
    state: str
    reason: str = ""
    seconds: float = 0.0
    rounds: tuple[Phase, ...] = ()
    open: OpenPhase | None = None
    incidents: tuple[Incident, ...] = ()
    sites: Mapping[str, Site] = {}
    adapter_sha256: str | Mapping[str, str] = ""
    registered: Mapping[str, str] = {}


class Interval(Part):
    """An estimate with the bounds of its confidence interval, where there are such."""

    value: float | None
    low: float | None = None
    high: float | None = None


class ClassScores(Part):
    """How well one label is found."""

    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    examples: int = 0


class Curve(Part):
    """A ROC curve."""

    fpr: tuple[float, ...]
    tpr: tuple[float, ...]
    auc: float


class Bin(Part):
    """Examples of which a model was about equally sure; without any it has no frequencies."""

    low: float
    high: float
    examples: int
    confidence: float | None
    accuracy: float | None


class Calibration(Part):
    """How far stated probabilities are from observed frequencies."""

    ece: float
    bins: tuple[Bin, ...]


class Scored(Part):
    """One model on the test set."""

    version: str = ""
    digest: str = ""
    metrics: Mapping[str, Interval]
    per_class: Mapping[str, ClassScores] = {}
    confusion: tuple[tuple[int, ...], ...]
    roc: Mapping[str, Curve | None]
    calibration: Calibration
    reported: Mapping[str, Mapping[str, float]] = {}  # by site, where the sites were asked to score it


class SiteScores(Part):
    """The candidate on one site's part of the test set."""

    examples: int = 0
    metrics: Mapping[str, Interval] = {}


class TestSet(Part):
    """Data that no site has trained on."""

    source: str = ""
    sha256: str = ""
    examples: int = 0


class Leakage(Part):
    """How many test examples were looked for among the training examples, and how many were found there."""

    checked: int = 0
    overlap: int = 0


class Evaluation(Part):
    """evaluation.json."""

    schema_version: Literal[1] = Field(alias="schema")
    test_set: TestSet
    labels: tuple[str, ...]
    primary: str
    models: Mapping[str, Scored]
    differences: Mapping[str, Mapping[str, Interval]] = {}
    by_site: Mapping[str, SiteScores] = {}
    reported: Mapping[str, Mapping[str, float]] = {}
    leakage: Leakage | None = None
    confidence: float = 0.95
    resamples: int = 0
    notes: tuple[str, ...] = ()
    whole: Mapping[str, Any] = Field({}, repr=False)  # as it was written

    @model_validator(mode="before")
    @classmethod
    def _keeps_the_whole(cls, data: Any) -> Any:
        return (
            {**data, "whole": {"notes": [], "differences": {}, "confidence": 0.95, **data}}
            if isinstance(data, dict)
            else data
        )

    @model_validator(mode="after")
    def _holds_together(self) -> "Evaluation":
        if "candidate" not in self.models:
            raise ValueError("models: there is no candidate")
        size = len(self.labels)
        for name, scored in self.models.items():
            if [len(row) for row in scored.confusion] != [size] * size:
                raise ValueError(f"models: {name}: confusion is not a table of {size} labels")
        tables = [*(scored.metrics for scored in self.models.values()), *self.differences.values()]
        if any(self.primary not in table for table in tables):
            raise ValueError(f"primary: {self.primary} is not among the metrics of every model and difference")
        return self


class RuleVerdict(Part):
    """One rule of the gate, and what came of it."""

    rule: str
    passed: bool
    value: float | None = None
    limit: float | None = None
    detail: str = ""


class Verdict(Part):
    """verdict.json."""

    schema_version: Literal[1] = Field(alias="schema")
    passed: bool
    model: str
    version: str
    expected_champion: str = ""
    rules: tuple[RuleVerdict, ...]
    evidence: Mapping[str, Any] = {}


class SitePart(Part):
    """What a manifest says of one site: in a consortium, no more than its policy allows."""

    units: int | None = None
    examples: int | None = None
    labels: Mapping[str, int] = {}
    sha256: str = ""


class HubTestSet(Part):
    """The test set of a partition."""

    examples: int = 0
    sha256: str = ""


class Manifest(Part):
    """manifest.json."""

    schema_version: Literal[1] = Field(alias="schema")
    kind: Literal["simulation", "consortium"]
    source: str = ""
    seed: int | None = None
    labels: tuple[str, ...] = ()
    sites: Mapping[str, SitePart]
    test: HubTestSet | None = None
