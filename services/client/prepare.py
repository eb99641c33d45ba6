"""Gets an embedded run ready: splits one data set into sites, and describes the adapter of its base model.

This is what hospitals do for themselves on a cluster. It writes row numbers, never copies of the data:
`<site>.npy` for each site's training rows, `validation.npy` for the rows held out for everyone.
"""

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from deerfield import partition
from deerfield.errors import InvalidInput
from deerfield.runfile import RunFile
from deerfield.runspec import Name, RunSpec
from deerfield.strategies import make
from services.client import backbones, data, device, models

NAME: TypeAdapter[str] = TypeAdapter(Name)
RESERVED = ("validation", "evaluator", "aggregator", "prepare", "preload")  # names of files and processes beside sites
NOUNS: Mapping[partition.Per, str] = {"unit": "patients", "row": "examples"}
Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Split:
    """Row numbers: of every site's training examples, and of the validation examples."""

    sites: Mapping[str, Rows]
    validation: Rows


def prepare(run: RunFile, folder: Path, *, pooled: bool) -> dict[str, Any]:
    """Splits the run's data, writes the row numbers below `folder`, and describes the adapter of its base model.

    Finds here, in one sentence, whatever would stop every site later.

    Raises:
        InvalidInput: the data, the base model or the device cannot be used.
    """
    spec, embedded = run.spec, run.embedded
    data.check_unit(embedded.source, spec.privacy.unit)
    hardware = _hardware(run)
    base = backbones.locate(embedded.base or spec.model.base)
    classifier = models.load(base, spec)
    for factors in make(spec).declares.phases:
        classifier.trained(models.SHARED, factors)
    table = data.read(embedded.source, spec.labels, spec.model.input)
    parts = split(run, table, pooled=pooled)
    low, high = _bounds(run, {name: table.examples.units[rows] for name, rows in parts.sites.items()})
    _check_delta(spec, len(parts.sites) if spec.privacy.unit == "site" else high)
    files = write(parts, folder / "rows", None if embedded.source.rows is None else np.load(embedded.source.rows))
    return {
        "digest": backbones.digest(base),
        "adapter": classifier.schema(),
        "convolutions": classifier.convolutions(),
        "sites": {name: str(files[name]) for name in parts.sites},
        "validation": str(files["validation"]),
        "units_low": low,
        "units_high": high,
        "device": str(hardware),
    }


def _hardware(run: RunFile) -> device.Device:
    """The device that the sites will choose, if the run's engine can compute on it."""
    hardware = device.choose(run.embedded.device, run.embedded.precision)
    if run.training.engine == "opacus" and hardware.precision != "fp32":
        raise InvalidInput(
            f"training: engine: opacus computes in fp32 alone, and the sites would train in {hardware.precision}; "
            f"write embedded: precision: fp32, or engine: fused"
        )
    return hardware


def _check_delta(spec: RunSpec, high: int) -> None:
    limit = 1 / (10 * high)
    if spec.privacy.unit != "none" and spec.privacy.delta > limit:
        raise InvalidInput(
            f"privacy: delta: {spec.privacy.delta:g} is above 1/(10 x {high} {spec.privacy.unit}s"
            f"{'' if spec.privacy.unit == 'site' else ' of the largest site'}) = {limit:.1e}; write a smaller one"
        )


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
    rules, units, per = run.embedded.partition, table.examples.units[rest], _per(run)
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


def _per(run: RunFile) -> partition.Per:
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
    if (left := count(owners[kept], _per(run))) < rules.minimum:
        raise InvalidInput(
            f"partition: {name} would keep {left} {NOUNS[_per(run)]} at at_most: {rules.at_most} examples, the minimum "
            f"is {rules.minimum}; raise at_most or lower the minimum"
        )
    return rows[kept]


def _bounds(run: RunFile, units: Mapping[str, NDArray[np.str_]]) -> tuple[int, int]:
    """(units_low, units_high) for the policies of all sites; under unit site each is one."""
    nouns, declared = NOUNS[_per(run)], run.embedded.units_low
    if run.privacy.unit == "site":
        return bounds(dict.fromkeys(units, 1), declared, "unit")
    return bounds({name: count(each, _per(run)) for name, each in units.items()}, declared, nouns)


def bounds(counts: Mapping[str, int], declared: int | None, nouns: str) -> tuple[int, int]:
    """(units_low, units_high) over all sites, to two digits; `counts` are each site's `nouns`: examples or patients.

    A real site declares them, because its count is private; here one person holds all the data, and says so in the
    output.

    Raises:
        InvalidInput: `declared` is no lower bound.
    """
    smallest = min(counts, key=lambda name: counts[name])
    low, high = counts[smallest], max(counts.values())
    if declared is not None and declared > low:
        raise InvalidInput(
            f"embedded: units_low: {declared} is above the {low} {nouns} of {smallest}; lower it, or leave it out"
        )
    return declared or _two_digits(low, np.floor), _two_digits(high, np.ceil)


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
