"""The site's policy file, owned by the hospital: what a run's public names mean here, and what may be done with it.

Everything in it is decided before a run is known, and a run that asks for more is refused before data is read.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from deerfield.errors import NotMapped, PolicyRefused
from deerfield.filters import Cap
from deerfield.runfile import Source, mapping, parse
from deerfield.runspec import DELTA_LIMIT, Name, RunSpec, Section
from deerfield.strategies import make
from deerfield.strategy import Declaration
from deerfield.types import Unit


class Population(Section):
    """One group of patients or records, what protects it for its whole life, and the public bounds on its size."""

    source: Source = Field(description="where its examples are; no run names or sees it")
    unit: Unit = Field(description="what one epsilon protects, for ever: record, patient, site, or none (public data)")
    epsilon: float | None = Field(None, gt=0, le=1000, description="of all runs together; required unless unit is none")
    delta: float = Field(1e-5, gt=0, le=DELTA_LIMIT, description="of all runs together; at most 1/(10 x units_high)")
    filter: Literal["sum", "renyi"] = Field(
        "sum", description="how runs add up: sum of their epsilons and deltas, or a Renyi filter over steps taken"
    )
    order: float | None = Field(None, gt=1, le=256, description="renyi: its order, fixed in advance; such as 8")
    units_low: int = Field(ge=1, description="public: at least so many units; the denominator of a step is q times it")
    units_high: int = Field(ge=1, description="public: at most so many units; delta is at most 1/(10 x units_high)")
    examples_high: int | None = Field(
        None, ge=1, description="registration warns of units with more examples than this; default: no warning"
    )
    validation: float = Field(0.0, ge=0, lt=1, description="share of the units kept out of training, for metrics: dp")
    unprotected: bool = Field(False, description="whether runs of unit none may use it: epsilon is infinite ever after")
    reports: Literal["nothing", "registered", "terms"] = Field(
        "registered",
        description="what the hub is told before a run asks: nothing; registered: its name, and the salted commitment "
        "to its data, if they are; terms: its unit, units_low and units_high, too",
    )
    registration: Literal["required", "on_start"] = Field(
        "required",
        description="required: `deerfield register` comes first, and again when the data change; "
        "on_start: whatever is there when a run starts, for a trial on one machine",
    )

    @model_validator(mode="after")
    def _knows_whom_to_keep_out(self) -> "Population":
        if self.validation and self.source.patient is None:
            raise ValueError(
                "validation: who is kept out of training is decided by each one's own name, and not by a row's number; "
                "name the column of the patient, or of the record's id, in `source: patient:`"
            )
        return self

    @model_validator(mode="after")
    def _is_a_promise(self) -> "Population":
        if self.units_low > self.units_high:
            raise ValueError(f"units_low {self.units_low} is above units_high {self.units_high}")
        if self.unit == "none":
            return self
        if self.unit == "site" and self.units_high != 1:  # and so units_low
            raise ValueError(f"units_high is {self.units_high}: under unit site a site is one unit; write 1 for both")
        if self.epsilon is None:
            raise ValueError(f"epsilon is missing: unit {self.unit!r} needs a lifetime budget (or write unit: none)")
        if (self.filter == "renyi") != (self.order is not None):
            raise ValueError("order: a renyi filter needs one, such as 8, and a sum filter has none")
        limit = 1 / (10 * self.units_high)
        if self.delta > limit:
            raise ValueError(
                f"delta: {self.delta:g} is above 1/(10 x {self.units_high} units) = {limit:.1e}; write a smaller one"
            )
        return self

    @property
    def cap(self) -> Cap | None:
        """The lifetime budget; None where nothing is protected."""
        if self.unit == "none" or self.epsilon is None:
            return None
        return Cap(epsilon=self.epsilon, delta=self.delta, filter=self.filter, order=self.order)


class Metrics(Section):
    """Validation counts under noise, charged to the population's ledger like everything else."""

    noise_multiplier: float = Field(10.0, gt=0, description="standard deviation of each count over its sensitivity")
    every: int = Field(1, ge=1, description="phases between two evaluations, in training")


class Policy(Section):
    """What this site maps and allows."""

    federation: str = Field("deerfield", min_length=1, max_length=64, description="the consortium, as in the ledger")
    populations: Mapping[Name, Population] = Field(description="by the name that runs give; no run reaches other data")
    models: Mapping[str, str] = Field(description="sha256 of a base model's weights -> folder, hub id or package:NAME")
    strategies: tuple[str, ...] = Field(
        (),
        description="allowed by name, `evaluate` among them, which only scores; default: all that guarantee the unit",
    )
    metrics: Literal["none", "dp", "clear"] = Field(
        "none", description="what leaves beside the release: nothing, noised counts, or clear (epsilon infinite)"
    )
    dp_metrics: Metrics = Field(Metrics(), description="metrics: dp: how often, and under how much noise")
    on_exhaustion: Literal["decline", "leave"] = Field(
        "decline", description="when the budget is used up: decline task by task, or leave the run"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes a GPU where there is one")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto takes bf16 autocast on a GPU")
    threads: int = Field(1, ge=1, description="CPU threads of the site")

    @model_validator(mode="after")
    def _reports_on_something(self) -> "Policy":
        for name, population in self.populations.items():
            if self.metrics == "dp" and population.unit in ("record", "patient") and not population.validation:
                raise ValueError(
                    f"populations: {name}: metrics dp reports on what `validation` keeps out of training, which is "
                    "nothing; write a share, such as validation: 0.1"
                )
        return self

    @model_validator(mode="after")
    def _gives_nobody_two_budgets(self) -> "Policy":
        found: dict[tuple[str, str, str | None], str] = {}
        for name, population in self.populations.items():
            source = population.source
            place = os.path.realpath(source.path), source.split, source.rows
            if (other := found.setdefault(place, name)) != name:
                raise ValueError(
                    f"populations: {other} and {name} have the same source, {source.path}, and the same people would "
                    "have two budgets; let runs name one of them"
                )
        return self

    def population(self, spec: RunSpec) -> Population:
        """The population that the run names, once everything about the run is allowed.

        Raises:
            NotMapped: the policy has none of that name.
            PolicyRefused: the run asks for another unit, strategy or delta than the policy allows, for a stricter
                policy than this one, or for nothing but metrics that this one lets nobody see.
        """
        if spec.population not in self.populations:
            raise NotMapped(
                f"population {spec.population!r} is not in this site's policy ({', '.join(sorted(self.populations))})"
            )
        population = self.populations[spec.population]
        refusals = (self._unit(spec, population), self._strategy(spec), self._required(spec, population))
        for refusal in (*refusals, self._evaluation(spec, population)):
            if refusal is not None:
                raise PolicyRefused(refusal)
        return population

    def _unit(self, spec: RunSpec, population: Population) -> str | None:
        unit = spec.privacy.unit
        if unit == "none" and population.unit != "none" and not population.unprotected:
            return (
                f"the run's privacy unit is 'none', and population {spec.population!r} protects each "
                f"{population.unit}; write `unprotected: true` there if its epsilon may become infinite for ever"
            )
        if unit not in ("none", population.unit):
            return (
                f"the run's privacy unit is {unit!r}, that of population {spec.population!r} is {population.unit!r}, "
                f"and it has one for ever; ask for that one"
            )
        if unit == "site" and self.metrics == "dp":
            return "unit site hides the site as a whole, and counts of its own examples cannot; write `metrics: none`"
        limit = 1 / (10 * population.units_high)  # of unit site the run file holds delta to the number of sites
        if unit != "none" and spec.privacy.delta > limit:
            return f"delta {spec.privacy.delta:g} is above 1/(10 x {population.units_high} units) = {limit:.1e}"
        return None

    def _strategy(self, spec: RunSpec) -> str | None:
        if self.strategies and spec.strategy["name"] not in self.strategies:
            return (
                f"strategy {spec.strategy['name']!r} is not allowed here ({', '.join(self.strategies)}); "
                f"add it to `strategies:` of the policy if that is meant"
            )
        return None

    def _required(self, spec: RunSpec, population: Population) -> str | None:
        """What the consortium asks of every site's policy, and this one does not keep."""
        required = spec.federation.lifetime_epsilon
        if required is None:
            return None
        if population.unprotected or self.metrics == "clear":
            what = "`unprotected: true`" if population.unprotected else "`metrics: clear`"
            return (
                f"the consortium requires a lifetime epsilon of at most {required:g}, and {what} lets population "
                f"{spec.population!r} spend more than any; take it out of the policy to take part"
            )
        if population.epsilon is None or population.epsilon > required:
            allowed = "no limit" if population.epsilon is None else f"{population.epsilon:g}"
            return (
                f"the consortium requires a lifetime epsilon of at most {required:g}, population {spec.population!r} "
                f"allows {allowed}; lower it in the policy to take part"
            )
        return None

    def _evaluation(self, spec: RunSpec, population: Population) -> str | None:
        """Why a run that trains nothing would get nothing here."""
        if make(spec).declares.epochs:
            return None
        unit, needed = spec.privacy.unit, "clear" if spec.privacy.unit == "none" else "dp"
        if self.metrics != needed:
            return (
                f"the run only asks what models score here, which under unit {unit!r} needs `metrics: {needed}`, and "
                f"the policy says `metrics: {self.metrics}`"
            )
        if not population.validation:
            return (
                f"population {spec.population!r} keeps nobody out of training, and models are scored on nobody else; "
                "write a share, such as validation: 0.1, before its next training run"
            )
        return None

    def every(self, declares: Declaration) -> int:
        """Phases from one evaluation to the next, under `metrics: dp`: a run that trains nothing has no others."""
        return self.dp_metrics.every if declares.epochs else 1

    def base(self, spec: RunSpec) -> str:
        """Where the run's base model is.

        Raises:
            NotMapped: no base model of that digest is mapped.
        """
        if spec.model.digest not in self.models:
            raise NotMapped(f"base model {spec.model.base!r} ({spec.model.digest}) is not in this site's policy")
        return self.models[spec.model.digest or ""]


def load(path: Path) -> Policy:
    """Reads a policy file.

    Raises:
        InvalidInput: it is not there, or not a policy.
    """
    return parse(Policy, mapping(path, "a policy", "populations"), str(path))
