"""A site's examples, read through Hugging Face `datasets`, and the public rules that they must keep.

Reads csv, json lines (also gzipped), parquet, folders of images (one folder a label), MedMNIST-style npz, and hub
ids. Nothing is copied into a cache outside a temporary folder: the data stay where the hospital keeps them.

A row that cannot be used is either refused by name (while a person prepares data) or left out (at a site, where one
record must not decide whether the site answers). Which rows these are is decided for each row by that row alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from deerfield.errors import InvalidInput
from deerfield.runfile import Source
from deerfield.types import Unit
from services.client.sources.columns import ABSENT, Rows, open_columns
from services.client.sources.files import Invalid

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Examples:
    """Labelled inputs, row by row."""

    inputs: Sequence[Any]  # str, or uint8 arrays (H, W) or (H, W, 3)
    labels: NDArray[np.int64]  # (n,), index into the run's label set
    units: NDArray[np.str_]  # (n,), the patient, group or record that each example belongs to

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.int64]) -> "Examples":
        """The examples at `rows`, in that order."""
        return Examples(Rows(self.inputs, rows), self.labels[rows], self.units[rows])


@dataclass(frozen=True, slots=True)
class Table:
    """A source as read: its examples, and the column that names each row's site, where there is one."""

    examples: Examples
    sites: NDArray[np.str_] | None


def check_unit(source: Source, unit: Unit) -> None:
    """Refuses a source that does not say which examples are one `unit`.

    Raises:
        InvalidInput: unit is patient, and the source names no patient column.
    """
    if unit == "patient" and source.patient is None:
        raise InvalidInput(
            f"{source.path}: privacy: unit 'patient' needs the column that names each example's patient; name it in "
            f"`source: patient:`, or protect single examples by unit: record"
        )


def read(source: Source, labels: tuple[str, ...], kind: str, *, invalid: Invalid = "refuse") -> Table:
    """Reads `source`; `kind` is "text" or "image".

    A row is invalid if its input, unit or site is empty, its image cannot be decoded, or its label is not declared.

    Raises:
        InvalidInput: the source is not there or lacks a column; under "refuse", a row is invalid.
    """
    columns = open_columns(source, invalid)
    indices = columns.labels(labels)
    names = {"input": source.input, "patient": source.patient, "site": source.site}
    cells = {key: columns.strings(name) for key, name in names.items() if name and (key != "input" or kind == "text")}
    pictures = columns.pictures() if kind == "image" else None
    faults = [_Fault(columns.missing(source.label), columns.is_empty(source.label))]
    faults += [_Fault(np.array([text is None for text in cells[key]]), columns.is_empty(names[key])) for key in cells]
    faults.append(_Fault(indices == ABSENT, columns.is_foreign(labels)))
    if pictures is not None:
        broken = np.array([not pictures.readable(row) for row in range(len(indices))], dtype=np.bool_)
        faults.append(
            _Fault(
                broken,
                lambda row: f"column {source.input!r} holds no readable image in row {row + 1}; mend or remove it",
            )
        )
    kept = _valid(faults, len(indices), source.path, invalid)
    text = {key: [str(values[row]) for row in kept] for key, values in cells.items()}
    inputs = text["input"] if pictures is None else Rows(pictures, kept)
    units = np.asarray(text["patient"], dtype=np.str_) if source.patient else kept.astype(str)
    sites = np.asarray(text["site"], dtype=np.str_) if source.site else None
    return Table(Examples(inputs, indices[kept], units), sites)


@dataclass(frozen=True, slots=True)
class _Fault:
    """One thing that may be wrong with a row."""

    rows: NDArray[np.bool_]  # (n,), true where it is
    sentence: Callable[[int], str]


def _valid(faults: Sequence[_Fault], count: int, path: str, invalid: Invalid) -> NDArray[np.int64]:
    """The numbers of the rows without a fault; under "refuse" that must be all."""
    bad = np.zeros(count, dtype=np.bool_)
    for fault in faults:
        if invalid == "refuse" and fault.rows.any():
            raise InvalidInput(f"{path}: {fault.sentence(int(np.argmax(fault.rows)))}")
        bad |= fault.rows.astype(np.bool_)
    if bad.any():
        log.warning("rows left out, because they cannot be used", rows=int(bad.sum()))
    return np.flatnonzero(~bad)
