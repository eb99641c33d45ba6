"""The frozen values that travel between the aggregator and the sites."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from deerfield.tensors import Factors, Tensors

Unit: TypeAlias = Literal["record", "none"]  # what one epsilon protects; "none" is no privacy and costs infinity


@dataclass(frozen=True, slots=True, kw_only=True)
class Spend:
    """One subsampled Gaussian release, in the terms an accountant needs and no others."""

    unit: Unit
    noise_multiplier: float  # noise standard deviation / clip; 0 costs infinity
    sample_rate: float  # Poisson probability of a unit to be in a step
    steps: int
    clip: float  # L2 bound on one unit's gradient; inf where nothing is clipped


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What one site is asked to do in one phase: public and free of data."""

    round: int  # from 0
    phase: int  # from 0 within the round
    factors: Factors
    epochs: int  # local epochs, each 1 / sample_rate steps
    start: Tensors  # everything the site needs: both factors and the head


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What one site gives back: the release and its cost."""

    site: str
    round: int
    phase: int
    base: str  # digest of the start tensors it was trained against
    delta: Tensors  # trained minus start, on exactly the trained entries
    spend: Spend
    metrics: Mapping[str, float] = field(default_factory=dict)  # empty unless the site's policy lets them leave


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Everything that aggregation carries from phase to phase."""

    round: int
    phase: int
    shared: Tensors
    personal: Mapping[str, Tensors] = field(default_factory=dict)  # by site; empty unless the strategy personalises
