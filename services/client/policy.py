"""The site's policy file, owned by the hospital: what a run's public names mean here, and what may be done with it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, model_validator

from deerfield.errors import InvalidInput, NotMapped
from deerfield.runfile import Source, parse
from deerfield.runspec import RunSpec, Section
from deerfield.types import Unit


class Population(Section):
    """One group of patients or records, and the public bounds on its size."""

    source: Source
    units_low: int = Field(ge=1, description="public: at least so many units; the denominator of a step is q times it")
    units_high: int = Field(ge=1, description="public: at most so many units; delta is at most 1/(10 x units_high)")

    @model_validator(mode="after")
    def _is_a_range(self) -> "Population":
        if self.units_low > self.units_high:
            raise ValueError(f"units_low {self.units_low} is above units_high {self.units_high}")
        return self


class Policy(Section):
    """What this site maps and allows."""

    populations: Mapping[str, Population]
    models: Mapping[str, str] = Field(description="sha256 of a base model's weights -> folder, hub id or package:NAME")
    units: tuple[Unit, ...] = Field(
        ("record",), min_length=1, description="what a run may protect; 'none', no privacy at all, only if named here"
    )
    metrics: Literal["none", "clear"] = "none"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    threads: int = Field(1, ge=1)

    def population(self, spec: RunSpec) -> Population:
        """The population that the run names.

        Raises:
            NotMapped: the policy has none of that name or not for this unit, or its size asks for a smaller delta.
        """
        if spec.privacy.unit not in self.units:
            raise NotMapped(
                f"the run's privacy unit is {spec.privacy.unit!r}, this site's policy allows {', '.join(self.units)}; "
                f"add it to `units:` of the policy if that is meant"
            )
        if spec.population not in self.populations:
            raise NotMapped(
                f"population {spec.population!r} is not in this site's policy ({', '.join(sorted(self.populations))})"
            )
        population = self.populations[spec.population]
        limit = 1 / (10 * population.units_high)
        if spec.privacy.unit != "none" and spec.privacy.delta > limit:
            raise NotMapped(
                f"delta {spec.privacy.delta:g} is above 1/(10 x {population.units_high} units) = {limit:.1e}; "
                f"ask for a smaller one"
            )
        return population

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
    try:
        return parse(Policy, yaml.safe_load(path.read_text("utf-8")), str(path))
    except (OSError, yaml.YAMLError) as error:
        raise InvalidInput(f"policy {path} cannot be read: {error}") from error
