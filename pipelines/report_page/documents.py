"""The documents that a report is made of, as far as it reads them: what else stands in them is nothing to it."""

from collections.abc import Mapping
from math import inf
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

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


class Calibration(Part):
    """How far stated probabilities are from observed frequencies."""

    ece: float | None = None


class Scored(Part):
    """One model on the test set."""

    version: str = ""
    digest: str = ""
    metrics: Mapping[str, Interval] = {}
    per_class: Mapping[str, ClassScores] = {}
    calibration: Calibration = Calibration()


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
    primary: str = "macro_f1"
    models: Mapping[str, Scored]
    differences: Mapping[str, Mapping[str, Interval]] = {}
    by_site: Mapping[str, SiteScores] = {}
    reported: Mapping[str, Mapping[str, float]] = {}
    leakage: Leakage | None = None
    confidence: float = 0.95
    resamples: int = 0


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
