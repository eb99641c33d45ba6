"""Gets an embedded run ready: splits one data set into sites, and describes the adapter of its base model.

This is what hospitals do for themselves on a cluster. It writes row numbers, never copies of the data:
`<site>.npy` for each site's training rows, `validation.npy` for the rows held out for everyone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deerfield import partition
from deerfield.errors import InvalidInput
from deerfield.runfile import Partition, RunFile
from services.client import backbones, data, models

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Split:
    """Row numbers: of every site's training examples, and of the validation examples."""

    sites: Mapping[str, Rows]
    validation: Rows


def prepare(run: RunFile, folder: Path, *, pooled: bool) -> dict[str, Any]:
    """Splits the run's data, writes the row numbers below `folder`, and describes the adapter of its base model.

    Raises:
        InvalidInput: the data or the base model cannot be used.
    """
    spec, embedded = run.spec, run.embedded
    base = backbones.locate(embedded.base or spec.model.base)
    classifier = models.load(base, spec)
    table = data.read(embedded.source, spec.labels, spec.model.input)
    parts = split(run, table, pooled=pooled)
    low, high = bounds(parts, embedded.units_low)
    files = write(parts, folder / "rows", None if embedded.source.rows is None else np.load(embedded.source.rows))
    return {
        "digest": backbones.digest(base),
        "adapter": classifier.schema(),
        "convolutions": classifier.convolutions(),
        "sites": {name: str(files[name]) for name in parts.sites},
        "validation": str(files["validation"]),
        "units_low": low,
        "units_high": high,
    }


def split(run: RunFile, table: data.Table, *, pooled: bool) -> Split:
    """Holds out validation units, then deals the rest to the sites; a unit is never in two places.

    Raises:
        InvalidInput: a site would have fewer units than `partition: minimum`.
    """
    examples, rules = table.examples, run.embedded.partition
    held = partition.held_out(examples.units, run.embedded.validation, key=f"validation/{run.seed}".encode())
    rest = np.flatnonzero(~held)
    if not held.any() or not len(rest):
        raise InvalidInput(
            f"{run.embedded.source.path}: {len(examples)} rows cannot be split into training and validation at "
            f"validation: {run.embedded.validation}"
        )
    sites = {"central": rest} if pooled else {k: rest[v] for k, v in _deal(run, table, rest).items()}
    sites = {name: _cap(rows, rules, run.seed, name) for name, rows in sites.items()}
    return Split(sites, np.flatnonzero(held))


def _deal(run: RunFile, table: data.Table, rest: Rows) -> Mapping[str, Rows]:
    rules, units = run.embedded.partition, table.examples.units[rest]
    if rules.kind == "column":
        if table.sites is None:
            raise InvalidInput("partition: kind 'column' needs source: site: the column that names the hospital")
        sites = table.sites[rest]
        apart = [f"{site}/{unit}" for site, unit in zip(sites, units, strict=True)]  # budgets add up over sites
        return partition.by_column(sites, apart, minimum=rules.minimum)
    if rules.kind == "iid":
        return partition.iid(units, rules.sites, seed=run.seed, minimum=rules.minimum)
    labels = table.examples.labels[rest]
    return partition.dirichlet(labels, units, rules.sites, alpha=rules.alpha, seed=run.seed, minimum=rules.minimum)


def _cap(rows: Rows, rules: Partition, seed: int, name: str) -> Rows:
    """At most `rules.at_most` of the rows, drawn by the seed."""
    if rules.at_most is None or len(rows) <= rules.at_most:
        return rows
    rng = np.random.default_rng([seed, *name.encode()])
    return np.sort(rng.permutation(rows)[: rules.at_most])


def bounds(split_: Split, declared: int | None) -> tuple[int, int]:
    """(units_low, units_high) over all sites, to two digits; a unit is a record.

    A real site declares them, because its count is private; here one person holds all the data, and says so in the
    output.
    """
    counts = [len(rows) for rows in split_.sites.values()]
    return declared or _two_digits(min(counts), np.floor), _two_digits(max(counts), np.ceil)


def _two_digits(count: int, rounding: np.ufunc) -> int:
    step = 10 ** max(0, len(str(count)) - 2)
    return max(1, int(rounding(count / step) * step))


def write(split_: Split, folder: Path, chosen: Rows | None) -> Mapping[str, Path]:
    """Saves the row numbers in the source, of which `chosen` were read; the file of each site and of "validation"."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"{name}.npy" for name in (*split_.sites, "validation")}
    for name, rows in (*split_.sites.items(), ("validation", split_.validation)):
        np.save(files[name], rows if chosen is None else chosen[rows])
    return files
