"""What a hub knows of sites before a run asks them: who has ever said Hello, and what its policy let it say then.

Everything here is public by the hospital's own policy: names, salted commitments, declared bounds; never a count.
"""

from dataclasses import dataclass, field

from deerfield.runspec import RunSpec
from deerfield.types import Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class PopulationReport:
    """What a site's policy lets it say of one population."""

    name: str
    commitment: str = ""  # salted, to its data, in hex; empty: none are registered
    on_start: bool = False  # they need not be registered before a run starts
    unit: Unit | None = None  # None, as the bounds are 0, where the policy keeps its terms to itself
    units_low: int = 0  # the policy's public bounds
    units_high: int = 0

    @property
    def registered(self) -> bool:
        """Whether a run may begin with its data."""
        return bool(self.commitment) or self.on_start


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteReport:
    """What a site said of its populations when it said Hello."""

    populations: tuple[PopulationReport, ...] = ()
    complete: bool = False  # its policy has no other population

    def population(self, name: str) -> PopulationReport | None:
        """What it said of one of them."""
        return next((each for each in self.populations if each.name == name), None)


NOTHING = SiteReport()


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownSite:
    """A site that the aggregator has heard from."""

    site: str
    protocol: int
    build: str
    report: SiteReport = field(default=NOTHING)
    said_at: float  # its newest Hello, in seconds since the epoch; 0: none, though it calls
    heard_at: float = 0.0  # its newest call; 0: none since this aggregator started


def obstacle(spec: RunSpec, known: KnownSite | None) -> str | None:
    """Why a site would not take part in a run, as far as that is known; None: nothing speaks against it."""
    if known is None:
        return "has never called the aggregator; let its hospital start it"
    name = spec.population
    if (found := known.report.population(name)) is None:
        return f"has no population {name!r} in its policy" if known.report.complete else None
    if not found.registered:
        return f"has no data registered for population {name!r}; let its hospital run deerfield register"
    return _outside_terms(spec, found)


def _outside_terms(spec: RunSpec, found: PopulationReport) -> str | None:
    asked = spec.privacy.unit
    if found.unit is None or asked == "none":  # whether a policy allows runs of unit none, it does not say
        return None
    if asked != found.unit:
        return f"protects each {found.unit} of population {found.name!r}, the run each {asked}"
    if asked != "site" and spec.privacy.delta > (limit := 1 / (10 * found.units_high)):
        return f"allows population {found.name!r} a delta of {limit:.1e}, the run asks for {spec.privacy.delta:g}"
    return None
