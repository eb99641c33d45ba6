"""The rules file of the registry gate: what a model must show before it becomes the champion."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from deerfield.runfile import mapping, parse, read_mapping
from deerfield.runspec import DELTA_LIMIT, Name, Section

METRIC = "macro_f1"
CONFIDENCE = 0.95
WHAT, KEY = "a file of the gate's rules", "minimum"  # and a key that every one has


class Regression(Section):
    """No worse than the champion: a non-inferiority test on the same test examples."""

    margin: float = Field(
        0.02,
        ge=0,
        le=1,
        description="the lower bound of candidate minus champion, by paired bootstrap, is at least minus this",
    )


class WorstSite(Section):
    """No site is left behind: the metric at the site where it is lowest, as it was measured, without an interval."""

    minimum: float | None = Field(None, ge=0, le=1, description="at the candidate's worst site; default: not judged")
    margin: float | None = Field(
        None,
        ge=0,
        le=1,
        description="how far the candidate's worst site may be below the champion's worst; default: not judged",
    )


class TestSet(Section):
    """On what a version must have been evaluated."""

    minimum: int = Field(
        100,
        ge=1,
        description="fewest examples: of few, the intervals of a metric near 1 are too narrow",
    )
    sha256: str | None = Field(
        None,
        pattern="^[0-9a-f]{64}$",
        description="of the one test set that counts; default: the part that the manifest of hub-owned data keeps "
        "apart, and in a consortium any",
    )


class Limits(Section):
    """What the population of one site may have spent."""

    run: float | None = Field(
        None, gt=0, le=1000, description="in this run; the run file's own privacy: epsilon holds beside it"
    )
    lifetime: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="in all runs so far, this one too; the run file's federation: lifetime_epsilon holds beside it",
    )


class Epsilon(Limits):
    """What the population of each site may have spent: known, finite, and within the smallest limit that is given."""

    sites: Mapping[Name, Limits] = Field({}, description="other limits for the sites that are named")
    absent: Literal["refused", "allowed"] = Field(
        "refused",
        description="a site of the run that delivered nothing: what it spent is on record at the site alone",
    )


Ed25519 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Signers(Section):
    """Whose signatures count; without them, those of whoever signed the run's first phase."""

    aggregator_key: Ed25519 | None = Field(
        None,
        description="the aggregator's public key (deerfield aggregator key); default: the one that signed first",
    )
    site_keys: Mapping[Name, Ed25519] = Field(
        {}, description="the public keys of sites, each by the site's name: no operator pins another"
    )


class Rules(Section):
    """One YAML file: the consortium's conditions. What no key is about is judged all the same."""

    metric: str = Field(
        METRIC, min_length=1, description="what is judged: a metric of the evaluation, the more the better"
    )
    minimum: float = Field(ge=0, le=1, description="of the metric on the hub's test set")
    bound: Literal["low", "value"] = Field(
        "low",
        description="what reaches the minimum: low, the lower end of the bootstrap interval, so that a small test set "
        "cannot pass by luck; value, the metric as measured",
    )
    confidence: float = Field(
        CONFIDENCE,
        ge=0.5,
        lt=1,
        description="of the two-sided intervals, which the evaluation must have at least: at 0.95 a candidate that is "
        "worse by the margin passes once in 40 times",
    )
    regression: Regression = Field(Regression(), description="against the champion, where there is one")
    test_set: TestSet = Field(TestSet(), description="on what the version must have been evaluated")
    worst_site: WorstSite = Field(WorstSite(), description="where the metric is lowest; not judged by default")
    calibration: float | None = Field(
        None, ge=0, le=1, description="largest expected calibration error (ECE); default: not judged"
    )
    privacy: Literal["required", "none_allowed"] = Field(
        "required",
        description="none_allowed: a run of unit none, whose epsilon is infinite, may pass; for public data alone",
    )
    epsilon: Epsilon = Field(Epsilon(), description="what the run and the populations may have spent")
    proof: Signers = Field(Signers(), description="what the mirror of the sites' ledgers must be signed by")
    delta: float = Field(
        DELTA_LIMIT, gt=0, le=DELTA_LIMIT, description="largest delta, of the run and of a population's whole life"
    )


DEFAULT = Rules(minimum=0.0)  # what a pipeline asks for that was given no rules: no worse than the champion


def load_rules(path: Path) -> Rules:
    """Reads and validates a rules file.

    Raises:
        InvalidInput: one sentence that names the key, its value, the limit and what to do.
    """
    return parse(Rules, mapping(path, WHAT, KEY), str(path))


def rules_of(text: str, where: str) -> Rules:
    """As `load_rules`, of a rules file's text, empty for `DEFAULT`; `where` names it in errors."""
    if not text.strip():
        return DEFAULT
    return parse(Rules, read_mapping(text, where, WHAT, KEY), where)
