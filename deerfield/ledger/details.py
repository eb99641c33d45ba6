"""What the entries say, as frozen values and as the JSON that stands in the ledger."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import inf
from typing import Any

from deerfield.exchange import Key as TaskKey
from deerfield.filters import Cap, Filter
from deerfield.ledger.entry import Head, number
from deerfield.privacy import epsilon
from deerfield.types import Countersigned, Spend, Unit

__all__ = [
    "ACCOUNTANT",
    "Known",
    "RunPlan",
    "TaskKey",
    "Terms",
    "known_detail",
    "known_from",
    "known_of",
    "run_plan",
    "terms_of",
]

ACCOUNTANT = "dp-accounting PLD"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the hospital's policy promises about a population; its unit is one for ever."""

    federation: str
    site: str
    population: str
    unit: Unit
    epsilon: float  # of all runs together; infinite where nothing is protected
    delta: float
    filter: Filter = "sum"
    order: float | None = None  # of the filter `renyi`
    units_low: int
    units_high: int
    commitment: str | None = None  # salted, to the data

    @property
    def cap(self) -> Cap:
        """The terms as a filter reads them."""
        return Cap(epsilon=self.epsilon, delta=self.delta, filter=self.filter, order=self.order)

    def detail(self, public_key: str) -> dict[str, Any]:
        """The detail of an `open` or `terms` entry."""
        order = None if self.order is None else float(self.order)
        numbers = {"epsilon": float(self.epsilon), "delta": float(self.delta), "order": order}
        return {**asdict(self), **numbers, "public_key": public_key}


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What somebody else, as a rule the aggregator, has on record about a population."""

    head: Head | None = None  # None: no entry is known, only that some are missing
    epsilon: float = inf  # of the population at that head
    delta: float | None = None  # of all its runs until then; None where no entry is known


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """Everything that a run may do to a population, known before its first phase."""

    run: str
    incarnation: int
    spec: str  # sha256 of the run as it was agreed, hex
    unit: Unit
    noise_multiplier: float
    sample_rate: float
    steps: int  # of the whole schedule, spare phases included
    clip: float  # L2; infinite where nothing is clipped
    delta: float  # of this run
    phases: int
    spare_phases: int = 0  # how many tasks may be trained a second time
    extra: tuple[Spend, ...] = ()  # further releases of the run, such as DP metrics
    accountant: str = ACCOUNTANT
    infinite_allowed: bool = False  # by the policy's own words; never written: what is written is what it costs

    def spend(self, steps: int) -> Spend:
        """`steps` steps of this run."""
        return Spend(
            unit=self.unit,
            noise_multiplier=self.noise_multiplier,
            sample_rate=self.sample_rate,
            steps=steps,
            clip=self.clip,
        )

    @property
    def tasks(self) -> int:
        """How many may be begun: more would also release more of what goes with each, such as DP metrics."""
        return self.phases + self.spare_phases

    @property
    def spends(self) -> tuple[Spend, ...]:
        """The whole schedule and everything beside it."""
        return (self.spend(self.steps), *self.extra)

    @property
    def epsilon(self) -> float:
        """What the run costs at its own delta; infinite without a unit or noise."""
        return epsilon(self.spends, self.delta)

    def detail(self) -> dict[str, Any]:
        """What a `run` entry says about the plan; the epsilons come with the charge."""
        return {
            "run": self.run,
            "incarnation": self.incarnation,
            "spec": self.spec,
            "unit": self.unit,
            "noise_multiplier": float(self.noise_multiplier),
            "sample_rate": float(self.sample_rate),
            "steps": self.steps,
            "clip": float(self.clip),
            "delta": float(self.delta),
            "accountant": self.accountant,
            "extra": [
                {
                    "noise_multiplier": float(each.noise_multiplier),
                    "sample_rate": float(each.sample_rate),
                    "steps": each.steps,
                }
                for each in self.extra
            ],
            "phases": self.phases,
            "spare_phases": self.spare_phases,
        }


def terms_of(detail: Mapping[str, Any]) -> Terms:
    """The terms in the detail of an `open` or `terms` entry without `flaw`."""
    values = {name: value for name, value in detail.items() if name != "public_key"}
    return Terms(**{**values, "epsilon": number(detail["epsilon"])})


def known_detail(name: str, known: Known | None) -> dict[str, Any]:
    """What a `reconcile` entry says about a record, under keys that begin with `name`."""
    head, epsilon, delta = (None, None, None) if known is None else (known.head, float(known.epsilon), known.delta)
    return {
        f"{name}_sequence": head and head.sequence,
        f"{name}_head": head and head.hash,
        f"{name}_epsilon": epsilon,
        f"{name}_delta": None if delta is None else float(delta),
    }


def known_of(name: str, detail: Mapping[str, Any]) -> Known | None:
    """The record under the keys that begin with `name`, in the detail of a `reconcile` entry without `flaw`."""
    sequence, value, epsilon = (detail[f"{name}_{key}"] for key in ("sequence", "head", "epsilon"))
    if epsilon is None:
        return None
    head = None if sequence is None or value is None else Head(sequence=sequence, hash=value)
    return Known(head=head, epsilon=number(epsilon), delta=detail[f"{name}_delta"])


def known_from(record: Countersigned) -> Known:
    """What the aggregator's countersigned record says."""
    return Known(
        head=Head(sequence=record.sequence, hash=record.head),
        epsilon=float(record.epsilon_after),
        delta=float(record.delta_after),
    )


def run_plan(detail: Mapping[str, Any]) -> RunPlan:
    """The plan in the detail of a `run` entry without `flaw`."""
    charged = ("epsilon", "epsilon_before", "epsilon_after")
    values = {name: value for name, value in detail.items() if name not in charged}
    for name in ("noise_multiplier", "clip"):
        values[name] = number(detail[name])
    # a unit adds at most 1 to counts, whatever is counted
    extra = tuple(
        Spend(**{**each, "noise_multiplier": number(each["noise_multiplier"])}, unit=detail["unit"], clip=1.0)
        for each in detail["extra"]
    )
    return RunPlan(**{**values, "extra": extra})
