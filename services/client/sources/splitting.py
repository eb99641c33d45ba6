"""Splits the rows of one data set: some are held out for everyone, the others are dealt to sites. Reads no model."""

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from deerfield import partition
from deerfield.errors import InvalidInput
from deerfield.runfile import RunFile
from deerfield.runspec import Name
from services.client.sources import data

NAME: TypeAdapter[str] = TypeAdapter(Name)
RESERVED = ("validation", "evaluator", "aggregator", "prepare", "preload")  # names of files and processes beside sites
NOUNS: Mapping[partition.Per, str] = {"unit": "patients", "row": "examples"}
Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Split:
    """Row numbers: of every site's training examples, and of the validation examples."""

    sites: Mapping[str, Rows]
    validation: Rows


def split(run: RunFile, table: data.Table, *, pooled: bool) -> Split:
    """Holds out validation patients, then deals the rest to the sites; no patient is ever in two places.

    So it is whatever the run protects: without a patient column each example is one.

    Raises:
        InvalidInput: a site would have fewer of the run's units than `partition: minimum`.
    """
    examples = table.examples
    held = partition.held_out(examples.units, run.embedded.validation, key=f"validation/{run.seed}".encode())
    rest = np.flatnonzero(~held)
    if not held.any() or not len(rest):
        raise InvalidInput(
            f"{run.embedded.source.path}: {len(examples)} rows cannot be split into training and validation at "
            f"validation: {run.embedded.validation}"
        )
    sites = {"central": rest} if pooled else {k: rest[v] for k, v in _deal(run, table, rest).items()}
    sites = {name: _cap(rows, examples.units, run, name) for name, rows in sites.items()}
    return Split(sites, np.flatnonzero(held))


def _deal(run: RunFile, table: data.Table, rest: Rows) -> Mapping[str, Rows]:
    rules, units, per = run.embedded.partition, table.examples.units[rest], counted(run)
    if rules.kind == "column":
        if table.sites is None:
            raise InvalidInput("partition: kind 'column' needs source: site: the column that names the hospital")
        sites = table.sites[rest]
        check_names(sorted(set(sites.tolist())), f"{run.embedded.source.path}: column {run.embedded.source.site!r}")
        apart = [f"{site}/{unit}" for site, unit in zip(sites, units, strict=True)]  # budgets add up over sites
        return partition.by_column(sites, apart, minimum=rules.minimum, per=per)
    if rules.kind == "iid":
        return partition.iid(units, rules.sites, seed=run.seed, minimum=rules.minimum, per=per)
    labels = table.examples.labels[rest]
    return partition.dirichlet(
        labels, units, rules.sites, alpha=rules.alpha, seed=run.seed, minimum=rules.minimum, per=per
    )


def counted(run: RunFile) -> partition.Per:
    """What the run counts: patients where it protects them, else examples."""
    return "unit" if run.privacy.unit == "patient" else "row"


def count(units: NDArray[np.str_], per: partition.Per) -> int:
    """How many units or rows there are."""
    return len(np.unique(units)) if per == "unit" else len(units)


def check_names(names: Iterable[str], where: str) -> None:
    """Refuses what cannot name a site: names become those of files, processes and members of the run.

    Raises:
        InvalidInput: names the first of them, the rule and `where` to change it.
    """
    for name in names:
        try:
            NAME.validate_python(name)
        except ValidationError:
            raise InvalidInput(
                f"{where} names a site {name!r}; a site's name is 1 to 63 characters of A-Z, a-z, 0-9, space, '.', "
                f"'_' and '-', and begins with a letter or digit: rename it in that column"
            ) from None
        if name.lower() in RESERVED:
            raise InvalidInput(f"{where} names a site {name!r}, which is reserved: rename it in that column")


def _cap(rows: Rows, units: NDArray[np.str_], run: RunFile, name: str) -> Rows:
    """Whole patients in the order of their keyed hash, until the next would bring more than `at_most` rows.

    Raises:
        InvalidInput: those are fewer of the run's units than `partition: minimum`.
    """
    rules = run.embedded.partition
    if rules.at_most is None or len(rows) <= rules.at_most:
        return rows
    owners, key = units[rows], f"at_most/{run.seed}/{name}".encode()
    found, counts = np.unique(owners, return_counts=True)
    order = sorted(range(len(found)), key=lambda at: hmac.digest(key, str(found[at]).encode(), "sha256"))
    fitting = int(np.searchsorted(np.cumsum(counts[order]), rules.at_most, side="right"))
    kept = np.isin(owners, found[order[:fitting]])
    if (left := count(owners[kept], counted(run))) < rules.minimum:
        raise InvalidInput(
            f"partition: {name} would keep {left} {NOUNS[counted(run)]} at at_most: {rules.at_most} examples, the "
            f"minimum is {rules.minimum}; raise at_most or lower the minimum"
        )
    return rows[kept]
