"""The frozen values that travel between the aggregator and the sites."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from deerfield.tensors import Factors, Tensors

# What one epsilon protects: one example, all examples of one patient, all data of one site (central, simulations only).
# "none" is no privacy and costs infinity.
Unit: TypeAlias = Literal["record", "patient", "site", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spend:
    """One subsampled Gaussian release, in the terms an accountant needs and no others."""

    unit: Unit
    noise_multiplier: float  # noise standard deviation / clip; 0 costs infinity
    sample_rate: float  # Poisson probability of a unit to be in a step
    steps: int  # of DP-SGD; under unit "site" the sums over all sites, one for each phase
    clip: float  # L2 bound on one unit's gradient, or on a site's update; inf where nothing is clipped


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What one site is asked to do in one phase: public and free of data."""

    round: int  # from 0
    phase: int  # from 0 within the round
    factors: Factors
    epochs: int  # local epochs, each 1 / sample_rate steps
    start: Tensors  # everything the site needs: both factors and the head


@dataclass(frozen=True, slots=True, kw_only=True)
class Attestation:
    """What a site signs about one update: public terms, and where its ledger stands once the update is written down."""

    site: str
    population: str
    run: str
    incarnation: int
    round: int
    phase: int
    update: str  # digest of the update's tensors
    spend: Spend
    beside: tuple[Spend, ...] = ()  # what the whole run releases apart from its updates: DP metrics
    accountant: str  # what computed the epsilons
    epsilon_before: float  # of the population, over all runs
    epsilon_after: float
    delta_after: float  # that runs have used up; 0 under the filter `renyi`, whose epsilons are at the policy's delta
    ledger_sequence: int  # of the newest entry
    ledger_head: str  # its hash, hex
    data_commitment: str = ""  # salted, to the population's data, hex; empty in what was signed before protocol 4
    public_key: str = ""  # of the site: Ed25519, hex; empty until it is signed
    signature: str = ""  # hex


@dataclass(frozen=True, slots=True, kw_only=True)
class Countersigned:
    """The newest head of a population's ledger that the aggregator has seen attested, signed by the aggregator."""

    site: str
    population: str
    sequence: int
    head: str  # hash of the ledger's entry `sequence`, hex
    epsilon_after: float
    delta_after: float
    aggregator_key: str = ""  # Ed25519, hex; empty until it is signed
    signature: str = ""  # hex


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What one site gives back: the release and its cost."""

    site: str
    round: int
    phase: int
    base: str  # digest of the start tensors it was trained against
    delta: Tensors  # trained minus start, on exactly the trained entries
    attestation: Attestation | None = None  # None where nothing is sent: the aggregator takes no update without one
    metrics: Mapping[str, float] = field(default_factory=dict)  # empty unless the site's policy lets them leave


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Everything that aggregation carries from phase to phase."""

    round: int
    phase: int
    shared: Tensors
    personal: Mapping[str, Tensors] = field(default_factory=dict)  # by site; empty unless the strategy personalises
