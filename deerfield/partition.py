"""How one data set becomes several sites, and what each keeps aside: a unit (a patient, a group) is never split.

Rows are numbered from 0; `units` names the unit of each row. Whatever the kind, the answer depends on the seed and the
names of the units, never on the order of the rows. A minimum is of units, or of rows where each row counts (`per`).
"""

import hmac
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from deerfield.errors import InvalidInput

DRAWS = 100  # of a Dirichlet split before it is given up: beyond, the settings are at odds, not unlucky

Rows: TypeAlias = NDArray[np.int64]
Column: TypeAlias = Sequence[str] | NDArray[np.str_] | NDArray[np.int64]
Per: TypeAlias = Literal["unit", "row"]  # what a minimum counts


def by_column(
    values: Column, units: Column | None = None, *, minimum: int = 1, per: Per = "unit"
) -> Mapping[str, Rows]:
    """One site for each value: the natural split, where a column says which hospital a row is from.

    Without `units` each row is one. With them a unit must be at one site: give a patient who was at two hospitals a
    name at each, and their privacy losses add up.

    Raises:
        InvalidInput: a unit with rows at two sites, or a site with fewer than `minimum` units or rows.
    """
    homes = _strings(values)
    owners = [str(row) for row in range(len(homes))] if units is None else _strings(units)
    home: dict[str, str] = {}
    for site, unit in zip(homes, owners, strict=True):
        if home.setdefault(unit, site) != site:
            raise InvalidInput(
                f"partition: unit {unit!r} is at the sites {home[unit]!r} and {site!r}; "
                "name units apart at each site, or split by another column"
            )
    return _checked(home, owners, sorted(set(homes)), minimum=minimum, per=per, advice="leave that site out")


def iid(units: Column, sites: int, *, seed: int, minimum: int = 1, per: Per = "unit") -> Mapping[str, Rows]:
    """`sites` sites of equally many units, drawn without regard to anything.

    Raises:
        InvalidInput: fewer than `minimum` units or rows at a site.
    """
    owners, names = _strings(units), site_names(sites)
    shuffled = np.random.default_rng(seed).permutation(np.array(sorted(set(owners)), dtype=object))
    home = {unit: name for name, part in zip(names, np.array_split(shuffled, sites), strict=True) for unit in part}
    return _checked(home, owners, names, minimum=minimum, per=per, advice="use fewer sites")


def dirichlet(  # noqa: PLR0913  each is a setting of the split
    labels: Column, units: Column, sites: int, *, alpha: float, seed: int, minimum: int = 1, per: Per = "unit"
) -> Mapping[str, Rows]:
    """`sites` sites with skewed labels, as Hsu et al. 2019 (arXiv:1909.06335) make them.

    Each label's units are dealt out in proportions drawn from Dirichlet(alpha): small is skewed.
    A unit has the label of most of its rows. Splits with a site below `minimum` units are drawn again, 100 times at
    most, so a high minimum makes a split less skewed than `alpha` says.

    Raises:
        InvalidInput: no draw gave every site `minimum` units or rows.
    """
    if not alpha > 0:
        raise InvalidInput(f"partition: alpha is {alpha}; it must be above 0")
    generator = np.random.default_rng(seed)
    owners, names = _strings(units), site_names(sites)
    strata = _strata(_strings(labels), owners)
    for _ in range(DRAWS):
        home = {unit: names[site] for stratum in strata for unit, site in _deal(stratum, sites, alpha, generator)}
        counts = _counts(home, owners, per)
        if all(counts[name] >= minimum for name in names):
            break
    advice = f"raise alpha (now {alpha:g}) or use fewer sites"
    return _checked(home, owners, names, minimum=minimum, per=per, advice=advice)


def held_out(units: Column, fraction: float, key: bytes) -> NDArray[np.bool_]:
    """Which rows are kept for validation: those whose unit's HMAC-SHA256 under `key` falls in the lowest `fraction`.

    Each choice reads one unit's name and nothing else, so that no patient's presence moves another.
    """
    below, owners = int(fraction * 2**64), _strings(units)
    chosen = {unit: int.from_bytes(hmac.digest(key, unit.encode(), "sha256")[:8]) < below for unit in set(owners)}
    return np.array([chosen[unit] for unit in owners], dtype=np.bool_)


def site_names(sites: int) -> tuple[str, ...]:
    """site-1 to site-K, padded so that they sort by number."""
    return tuple(f"site-{number:0{len(str(sites))}d}" for number in range(1, sites + 1))


def _strings(column: Column) -> list[str]:
    return [str(value) for value in column]


def _strata(labels: Sequence[str], units: Sequence[str]) -> list[list[str]]:
    """The units of each label, sorted; a unit has its most frequent label, the first in the alphabet of equals."""
    votes: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for label, unit in zip(labels, units, strict=True):
        votes[unit][label] += 1
    strata = defaultdict(list)
    for unit, count in sorted(votes.items()):
        strata[min(count, key=lambda label: (-count[label], label))].append(unit)
    return [strata[label] for label in sorted(strata)]


def _deal(units: list[str], sites: int, alpha: float, generator: np.random.Generator) -> Iterable[tuple[str, int]]:
    """(unit, site number) for the units of one label."""
    shares = np.cumsum(generator.dirichlet(np.full(sites, alpha)))
    ends = np.rint(shares * len(units))
    places = np.searchsorted(ends, np.arange(len(units)), side="right")
    order = generator.permutation(len(units))
    return ((units[at], min(int(place), sites - 1)) for at, place in zip(order, places, strict=True))


def _rows(home: Mapping[str, str], units: Sequence[str]) -> Mapping[str, Rows]:
    rows: defaultdict[str, list[int]] = defaultdict(list)
    for row, unit in enumerate(units):
        rows[home[unit]].append(row)
    return {site: np.array(found, dtype=np.int64) for site, found in rows.items()}


def _counts(home: Mapping[str, str], units: Sequence[str], per: Per) -> Counter[str]:
    """How many units or rows each site has."""
    return Counter(home.values()) if per == "unit" else Counter(home[unit] for unit in units)


def _checked(  # noqa: PLR0913  each is part of the rule or of its sentence
    home: Mapping[str, str], units: Sequence[str], names: Sequence[str], *, minimum: int, per: Per, advice: str
) -> Mapping[str, Rows]:
    """The rows of the sites in the order of `names`; refuses a site with too few units or rows, the smallest first."""
    counts, rows = _counts(home, units, per), _rows(home, units)
    smallest = min(names, key=lambda name: counts[name])
    if counts[smallest] < max(minimum, 1):
        raise InvalidInput(
            f"partition: {smallest} would have {counts[smallest]} {per}s, the minimum is {minimum}; {advice}, "
            "or lower the minimum"
        )
    return {name: rows[name] for name in names}
