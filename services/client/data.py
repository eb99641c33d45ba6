"""A site's examples, read through Hugging Face `datasets`, and the public rules that they must keep.

Reads csv, json lines (also gzipped), parquet, folders of images (one folder a label), MedMNIST-style npz, and hub
ids. Nothing is copied into a cache outside a temporary folder: the data stay where the hospital keeps them.

A row that cannot be used is either refused by name (while a person prepares data) or left out (at a site, where one
record must not decide whether the site answers). Which rows these are is decided for each row by that row alone.
"""

import io
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from deerfield.errors import InvalidInput
from deerfield.runfile import Source
from deerfield.types import Unit
from services.client import files
from services.client.files import NAMES, Invalid, first_line

ABSENT = -1  # the index of a label that the run does not declare
UNREADABLE = (OSError, ValueError, TypeError, SyntaxError, struct.error, zlib.error)  # what Pillow raises
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


class Rows(Sequence[Any]):
    """Some rows of a sequence, read when they are asked for: images are decoded one by one."""

    def __init__(self, whole: Sequence[Any], rows: NDArray[np.int64]) -> None:
        self._whole, self._rows = whole, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        return self._whole[int(self._rows[index])]


class Pictures(Sequence[Any]):
    """A column of images as uint8 arrays; a string is a path beside the data file."""

    def __init__(self, column: Sequence[Any], folder: Path) -> None:
        self._column, self._folder = column, folder

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, index: Any) -> Any:
        from PIL import Image, ImageOps

        value = self._column[int(index)]
        if isinstance(value, dict):  # as `datasets` keeps an image: its bytes, or where they are
            value = io.BytesIO(value["bytes"]) if value["bytes"] else value["path"]
        if not isinstance(value, str | io.BytesIO):
            return np.asarray(value, dtype=np.uint8)
        with Image.open(self._folder / value if isinstance(value, str) else value) as picture:
            return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))

    def readable(self, index: int) -> bool:
        """Whether the image can be decoded."""
        from PIL import Image

        try:
            Image.fromarray(self[index])
        except (*UNREADABLE, Image.DecompressionBombError):
            return False
        return True


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
    columns = _Columns(files.load(source, invalid), source)
    if source.rows is not None:
        columns = columns.take(_rows(source.rows))
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


def _rows(path: str) -> NDArray[np.int64]:
    try:
        return np.asarray(np.load(path), dtype=np.int64)
    except (OSError, ValueError) as error:
        raise InvalidInput(f"source: rows: {path} cannot be read: {first_line(error)}") from error


def _index(value: Any, names: Sequence[str] | None, labels: Sequence[str]) -> int:
    """A label's place in `labels`: by its name in the file or as it stands; a number may also count through them."""
    number = _integer(value)
    if names is not None and number is not None:
        return labels.index(names[number]) if 0 <= number < len(names) and names[number] in labels else ABSENT
    for text in (str(value), str(number)):
        if value is not None and text in labels:
            return labels.index(text)
    counts = number is not None and not any(_integer(label) is not None for label in labels)
    return number if counts and number is not None and 0 <= number < len(labels) else ABSENT


def _integer(value: Any) -> int | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return int(number) if number.is_integer() else None


class _Columns:
    """Named columns of one length, whatever the file was; checks that a column is there before it is read."""

    def __init__(self, data: Any, source: Source) -> None:
        self._data, self._source = data, source

    def take(self, rows: NDArray[np.int64]) -> "_Columns":
        try:
            chosen = (
                {name: values if name == NAMES else values[rows] for name, values in self._data.items()}
                if isinstance(self._data, dict)
                else self._data.select(rows)
            )
        except IndexError:
            raise InvalidInput(
                f"source: rows: {self._source.rows} names rows that {self._source.path} does not have"
            ) from None
        return _Columns(chosen, self._source)

    def _names(self) -> list[str]:
        return sorted(self._data) if isinstance(self._data, dict) else list(self._data.column_names)

    def _column(self, name: str) -> Any:
        if name not in self._names():
            raise InvalidInput(
                f"{self._source.path} has no column {name!r}; its columns are {', '.join(self._names())}: "
                f"name the right one in `embedded: source:`"
            )
        return self._data[name]

    def _values(self, name: str) -> list[Any]:
        column = self._column(name)
        if not isinstance(column, np.ndarray):
            return list(column)
        if column.size != len(column):
            raise InvalidInput(f"{self._source.path}: column {name!r} holds {column.shape}, not one value for each row")
        return list(column.ravel().tolist())

    def strings(self, name: str) -> list[str | None]:
        """Each value as text; None where it is empty."""
        return [None if _empty(value) else str(value) for value in self._values(name)]

    def missing(self, name: str) -> NDArray[np.bool_]:
        return np.array([_empty(value) for value in self._values(name)], dtype=np.bool_)

    def is_empty(self, name: str | None) -> Callable[[int], str]:
        return lambda row: f"column {name!r} is empty in row {row + 1}; fill or remove it"

    def pictures(self) -> Pictures:
        path = Path(self._source.path)
        column, data = self._column(self._source.input), self._data
        if not isinstance(data, dict) and hasattr(data.features[self._source.input], "decode"):
            from datasets import Image

            column = data.cast_column(self._source.input, Image(decode=False))[self._source.input]
        return Pictures(column, path if path.is_dir() else path.parent)

    def labels(self, labels: tuple[str, ...]) -> NDArray[np.int64]:
        """Each row's label as an index into `labels`, or ABSENT."""
        values = self._values(self._source.label)
        known = {value: _index(value, self._class_names(), labels) for value in set(values)}
        return np.array([known[value] for value in values], dtype=np.int64)

    def is_foreign(self, labels: tuple[str, ...]) -> Callable[[int], str]:
        """Says of all rows at once which labels are not declared: there may be several to add."""

        def sentence(row: int) -> str:
            name, names = self._source.label, self._class_names()
            values = {value for value in self._values(name) if _index(value, names, labels) == ABSENT}
            strangers = sorted({_shown(value, names) for value in values})
            return (
                f"column {name!r} holds {', '.join(map(repr, strangers[:3]))}, which `labels:` of the run does not "
                f"declare ({', '.join(labels)}), first in row {row + 1}; declare it or remove those rows"
            )

        return sentence

    def _class_names(self) -> list[str] | None:
        """The names of integer labels, where the file carries them."""
        if isinstance(self._data, dict):
            return [str(name) for name in self._data[NAMES]] if NAMES in self._data else None
        return getattr(self._data.features[self._source.label], "names", None)


def _empty(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and isnan(value))


def _shown(value: Any, names: Sequence[str] | None) -> str:
    number = _integer(value)
    return names[number] if names and number is not None and 0 <= number < len(names) else str(value)
