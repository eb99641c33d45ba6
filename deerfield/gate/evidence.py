"""What the registry gate judges: values without a way to fetch them. What is not known is NaN, None or left out.

A verdict has them as JSON, where a number that is not known is null; `read` makes the same values of that.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, nan
from typing import Annotated, Any

from pydantic import BeforeValidator, TypeAdapter, ValidationError

from deerfield.errors import InvalidInput
from deerfield.types import Unit

Number = Annotated[float, BeforeValidator(lambda value: nan if value is None else value)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A metric, or a difference of two, with its bootstrap interval."""

    value: Number
    low: Number
    high: Number

    @property
    def known(self) -> bool:
        """Whether all of it is."""
        return isfinite(self.value) and isfinite(self.low) and isfinite(self.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """One model on the hub's test set."""

    version: str
    digest: str  # of the adapter that was scored
    metrics: Mapping[str, Figure]
    sites: Mapping[str, Mapping[str, Number]]  # metrics by site, where the test set or the sites have any
    ece: Number  # expected calibration error


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What the gate reads of evaluation.json."""

    candidate: Scored
    champion: Scored | None
    differences: Mapping[str, Figure]  # candidate minus champion by metric, on the same resamples
    confidence: Number  # of every interval, two-sided
    checked: int  # training examples that the test set was held against
    overlap: int  # examples of the test set that are among them
    test_sha256: str
    examples: int  # of the test set
    sha256: str  # of evaluation.json
    kept: str  # sha256 of the one that the run has kept; empty: it has kept none


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A version as the registry holds it."""

    version: str
    run: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What the sites spent, of the ledger's mirror and the run file."""

    unit: Unit
    sites: tuple[str, ...]  # of the run file
    epsilon: Mapping[str, Number]  # of this run, by site
    lifetime: Mapping[str, Number]  # of the population over all runs, by each site that delivered, when it last did
    delta: Number  # of this run
    lifetime_delta: Mapping[str, Number]
    run_limit: float | None  # the run file's privacy: epsilon
    lifetime_limit: float | None  # the run file's federation: lifetime_epsilon

    @property
    def absent(self) -> frozenset[str]:
        """The sites of the run that took a task, or may have, and delivered nothing: nobody here knows their cost."""
        unknown = (site for site in self.sites if not isfinite(self.epsilon.get(site, nan)))
        return frozenset(site for site in unknown if site not in self.lifetime)

    @property
    def idle(self) -> frozenset[str]:
        """The sites of the run that took no task: they spent nothing, and nothing is of them."""
        return frozenset(site for site in self.sites if site not in self.lifetime and self.epsilon.get(site) == 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """What verifying the mirror of the ledgers came to."""

    verified: bool
    phases: int  # whose attestations and countersigned heads were checked
    runs: tuple[str, ...]  # that they are of
    digest: str  # of what the last phase published
    findings: tuple[str, ...]
    notes: tuple[str, ...] = ()  # what is as it should be, and nobody should overlook


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """Where a version comes from; empty is not known."""

    spec_sha256: str  # of the run file, as the registry's tag has it
    run_file: str  # sha256 of the run file that the run has kept
    code: str  # version of deerfield at the aggregator
    base_digest: str  # as the registry's tag has it
    trained_on: str  # digest of the base model that the run file names
    commitments: Mapping[str, str]  # salted, to each site's data
    kind: str  # of the data's manifest: simulation, consortium; empty: there is none
    hub: Mapping[str, str]  # sha256 of each part that the hub owns, by site and `test`
    test_examples: int | None  # of the part `test`
    manifests: Mapping[str, str]  # sha256 of the manifest, by where it was found; of one and the same


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything about one version that the rules are held against."""

    model: str
    candidate: Held
    champion: Held | None  # whom the candidate is to replace
    evaluation: Evaluation
    spent: Spent
    proof: Proven | None  # None: there is no mirror of the ledgers
    lineage: Lineage
    time: float  # seconds since 1970, when it was collected


def read(document: Mapping[str, Any], where: str) -> Evidence:
    """The evidence in a verdict: of its model, its `evidence` and its time; keys that nobody judges are let be.

    Raises:
        InvalidInput: something is missing or cannot be; `where` begins the sentence.
    """
    try:
        return _EVIDENCE.validate_python(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"])) or "the whole of it"
        raise InvalidInput(f"{where}: {key}: {first['msg'][0].lower()}{first['msg'][1:]}") from None


_EVIDENCE = TypeAdapter(Evidence)
