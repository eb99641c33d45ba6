"""What a hospital should know about a population before any run uses it: all of it stays here.

Labels are those of a run, so a population has none to check: they are counted as they are found.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deerfield.errors import InvalidInput
from services.client.policy import Population
from services.client.sources.columns import Columns, open_columns
from services.client.sources.data import check_unit

FEW = 1_000  # units: below, the noise of an epsilon that protects much is as large as what can be learnt

Pictures = Literal["decode", "trust"]  # every picture is decoded once, or is taken to be one


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a person should know before the population is used."""

    level: Literal["error", "warning"]
    about: Literal["columns", "records"]  # what the source is like, or what is in it
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What is in a population, for its hospital's eyes: none of it leaves."""

    population: str
    unit: str
    rows: int = 0
    usable_rows: int = 0  # with input, label and unit; what their labels are worth depends on the run
    rows_without_unit: int = 0
    units: int = 0  # with a usable row
    units_low: int
    units_high: int
    examples_median: float = 0.0  # of one unit
    examples_max: int = 0
    examples_high: int | None = None
    units_above: int = 0  # with more examples than that
    labels: Mapping[str, int]  # of usable rows, as found
    findings: tuple[Finding, ...] = ()

    @property
    def bounds_respected(self) -> bool:
        """Whether there are as many units as the policy declares."""
        return self.units_low <= self.units <= self.units_high

    @property
    def error(self) -> str | None:
        """The first thing that must be mended; None if nothing must."""
        return next((found.sentence for found in self.findings if found.level == "error"), None)

    def detail(self) -> dict[str, Any]:
        """The report as JSON."""
        return {**asdict(self), "bounds_respected": self.bounds_respected}


def survey(name: str, population: Population, *, pictures: Pictures = "decode") -> Report:
    """Looks at every row of the population; what is wrong with it stands in `findings`.

    Raises:
        InvalidInput: there is no such source, or it cannot be read at all.
    """
    columns, broken = _opened(population)
    empty = Report(
        population=name,
        unit=population.unit,
        units_low=population.units_low,
        units_high=population.units_high,
        examples_high=population.examples_high,
        labels={},
    )
    if missing := tuple(_missing_columns(name, population, columns)):
        return replace(empty, findings=missing)
    units, usable = _units(population, columns), _usable(population, columns, pictures)
    labels, kept = columns.shown(population.source.label), np.flatnonzero(usable)
    examples = Counter(str(units[row]) for row in kept)
    high = population.examples_high
    report = replace(
        empty,
        rows=len(units),
        usable_rows=len(kept),
        rows_without_unit=sum(unit is None for unit in units),
        units=len(examples),
        examples_median=float(median(examples.values())) if examples else 0.0,
        examples_max=max(examples.values(), default=0),
        units_above=sum(count > high for count in examples.values()) if high is not None else 0,
        labels=dict(sorted(Counter(str(labels[row]) for row in kept).items())),
    )
    return replace(report, findings=(*_errors(report, population, units), *_warnings(report, broken)))


def _opened(population: Population) -> tuple[Columns, str | None]:
    """The columns, and what is wrong with the lines of the file if some must be left out."""
    try:
        return open_columns(population.source, "refuse"), None
    except InvalidInput as error:
        return open_columns(population.source, "drop"), str(error)


def _missing_columns(name: str, population: Population, columns: Columns) -> list[Finding]:
    source = population.source
    found = []
    try:
        check_unit(source, population.unit)
    except InvalidInput as error:
        found.append(Finding("error", "columns", f"population {name!r}: {error}"))
    wanted = {"input": source.input, "label": source.label, "patient": source.patient, "site": source.site}
    for key, column in wanted.items():
        if column is not None and column not in columns.names():
            said = (
                f"population {name!r}: {source.path} has no column {column!r}; its columns are "
                f"{', '.join(columns.names())}: name the right one in `source: {key}:` of the policy"
            )
            found.append(Finding("error", "columns", said))
    return found


def _units(population: Population, columns: Columns) -> list[str | None]:
    """Whose each row is; None where that is empty."""
    if population.unit == "patient" and population.source.patient is not None:
        return columns.strings(population.source.patient)
    if population.unit == "site":
        return ["the site"] * len(columns)
    return [str(row) for row in range(len(columns))]


def _usable(population: Population, columns: Columns, pictures: Pictures) -> NDArray[np.bool_]:
    """The rows that a site would train on, if the run declares their labels: as in `data.read`."""
    source, kind = population.source, columns.kind()
    named = [source.label, source.patient, source.site, source.input if kind == "text" else None]
    usable = np.ones(len(columns), dtype=np.bool_)
    for column in named:
        if column is not None:
            usable &= ~columns.missing(column)
    if kind == "image" and pictures == "decode":
        images = columns.pictures()
        usable &= np.array([images.readable(row) for row in range(len(columns))], dtype=np.bool_)
    return usable


def _errors(report: Report, population: Population, units: list[str | None]) -> list[Finding]:
    name, nouns, found = report.population, _nouns(report.unit), []
    if report.rows_without_unit:
        found.append(
            f"column {population.source.patient!r} is empty in {report.rows_without_unit} of {report.rows} rows, first "
            f"in row {units.index(None) + 1}; say whose they are, or remove them: they would be left out"
        )
    if report.units < report.units_low:
        found.append(
            f"{report.units} {nouns} with a usable row are fewer than units_low {report.units_low}; declare less, with "
            "room to spare, in the policy"
        )
    if report.units > report.units_high:
        found.append(
            f"{report.units} {nouns} with a usable row are more than units_high {report.units_high}; declare more, "
            "with room to spare, in the policy, and a delta of at most 1/(10 x units_high)"
        )
    return [Finding("error", "records", f"population {name!r}: {said}") for said in found]


def _warnings(report: Report, broken: str | None) -> list[Finding]:
    name, nouns, found = report.population, _nouns(report.unit), []
    if broken is not None:
        found.append(f"lines of the file are left out, because they cannot be read ({broken}); mend them")
    if unusable := report.rows - report.usable_rows - report.rows_without_unit:
        found.append(
            f"{unusable} of {report.rows} rows cannot be used (input, label or another named column is empty, or the "
            "picture cannot be decoded); they are left out"
        )
    if report.units_above:
        found.append(
            f"{report.units_above} {nouns} have more than examples_high {report.examples_high} examples, one has "
            f"{report.examples_max}; a step takes only as many of each as the run's examples_per_unit"
        )
    if report.units < FEW and report.unit != "site":
        found.append(
            f"{report.units} {nouns} are fewer than {FEW}; at an epsilon that protects much, the noise may hide what "
            "they can teach: see `deerfield plan`"
        )
    return [Finding("warning", "records", f"population {name!r}: {said}") for said in found]


def _nouns(unit: str) -> str:
    return "patients" if unit == "patient" else "examples"
