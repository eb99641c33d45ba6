"""result.json, as far as a report reads it: what else stands in it is nothing to the page."""

from collections.abc import Mapping
from math import inf
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, ConfigDict

from deerfield.documents.reading import Document, Part

Epsilon = Annotated[float, BeforeValidator(lambda value: inf if value == "infinity" else value)]
Times = tuple[float | None, float | None]  # a task was taken, and answered; seconds since the run began


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


class ResultDocument(Document):
    """result.json; docs/result.md."""

    WHAT: ClassVar[str] = "the result of a run"
    SCHEMA: ClassVar[int | None] = None

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
