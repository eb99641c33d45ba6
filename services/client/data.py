"""A site's examples, read through Hugging Face `datasets`, and the public rules that they must keep.

Reads csv, json lines (also gzipped), parquet, folders of images (one folder a label), MedMNIST-style npz, and hub
ids. Nothing is copied into a cache outside a temporary folder: the data stay where the hospital keeps them.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deerfield.errors import InvalidInput
from deerfield.runfile import Source
from services.client import hub

READERS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet", ".npz": "npz"}
NAMES = "class_names"  # npz: the names of integer labels, not a column


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
        from PIL import Image

        value = self._column[int(index)]
        if isinstance(value, str):
            with Image.open(self._folder / value) as picture:
                return np.asarray(picture.convert("RGB"))
        return np.asarray(value.convert("RGB") if hasattr(value, "convert") else value, dtype=np.uint8)


@dataclass(frozen=True, slots=True)
class Table:
    """A source as read: its examples, and the column that names each row's site, where there is one."""

    examples: Examples
    sites: NDArray[np.str_] | None


def read(source: Source, labels: tuple[str, ...], kind: str) -> Table:
    """Reads `source`; `kind` is "text" or "image".

    Raises:
        InvalidInput: the source is not there, a column is missing, a value is empty, or a label is not declared.
    """
    columns = _Columns(source)
    if source.rows is not None:
        columns = columns.take(np.load(source.rows))
    indices = _indices(columns, source, labels)
    inputs = columns.texts(source.input) if kind == "text" else columns.pictures(source.input)
    count = len(indices)
    units = columns.strings(source.patient) if source.patient else np.arange(count).astype(str)
    sites = columns.strings(source.site) if source.site else None
    return Table(Examples(inputs, indices, units), sites)


def _indices(columns: "_Columns", source: Source, labels: tuple[str, ...]) -> NDArray[np.int64]:
    """Each row's label as an index into `labels`; integers count through the declared labels."""
    raw, names = columns.labels(source.label)
    index = {name: i for i, name in enumerate(labels)}
    if names is not None:
        raw = [names[int(value)] for value in raw]
    elif raw and all(isinstance(value, int) for value in raw) and not set(map(str, raw)) <= set(labels):
        raw = [labels[value] if 0 <= value < len(labels) else value for value in raw]
    strangers = sorted({str(value) for value in raw} - set(labels))
    if strangers:
        raise InvalidInput(
            f"{source.path}: column {source.label!r} holds {', '.join(map(repr, strangers[:3]))}, which `labels:` of "
            f"the run does not declare ({', '.join(labels)}); declare it or remove those rows"
        )
    return np.array([index[str(value)] for value in raw], dtype=np.int64)


class _Columns:
    """Named columns of one length, whatever the file was; checks that a column is there before it is read."""

    def __init__(self, source: Source, data: Any = None) -> None:
        self._source = source
        self._data = _load(source) if data is None else data

    def take(self, rows: NDArray[np.int64]) -> "_Columns":
        chosen = (
            {name: values if name == NAMES else values[rows] for name, values in self._data.items()}
            if isinstance(self._data, dict)
            else self._data.select(rows)
        )
        return _Columns(self._source, chosen)

    def _names(self) -> list[str]:
        return sorted(self._data) if isinstance(self._data, dict) else list(self._data.column_names)

    def _column(self, name: str) -> Any:
        if name not in self._names():
            raise InvalidInput(
                f"{self._source.path} has no column {name!r}; its columns are {', '.join(self._names())}: "
                f"name the right one in `embedded: source:`"
            )
        return self._data[name]

    def texts(self, name: str) -> list[str]:
        return self._filled(name, [None if value is None else str(value) for value in self._column(name)])

    def pictures(self, name: str) -> Sequence[Any]:
        path = Path(self._source.path)
        return Pictures(self._column(name), path if path.is_dir() else path.parent)

    def strings(self, name: str) -> NDArray[np.str_]:
        values = [None if value is None else str(value) for value in self._column(name)]
        return np.asarray(self._filled(name, values), dtype=np.str_)

    def labels(self, name: str) -> tuple[list[Any], list[str] | None]:
        """The raw labels, and the names of integer labels where the file carries them."""
        column = self._column(name)
        if isinstance(self._data, dict):
            return [int(value) for value in np.ravel(column)], _class_names(self._data)
        feature = self._data.features[name]
        return self._filled(name, list(column)), getattr(feature, "names", None)

    def _filled(self, name: str, values: list[Any]) -> list[Any]:
        empty = next((row for row, value in enumerate(values) if value is None or value == ""), None)
        if empty is not None:
            raise InvalidInput(f"{self._source.path}: column {name!r} is empty in row {empty + 1}; fill or remove it")
        return values


def _class_names(arrays: dict[str, Any]) -> list[str] | None:
    return [str(name) for name in arrays[NAMES]] if NAMES in arrays else None


def _load(source: Source) -> Any:
    """A dict of equally long arrays for npz, a `datasets.Dataset` for everything else."""
    path = Path(source.path)
    kind = "imagefolder" if path.is_dir() else READERS.get(_suffix(path)) if path.is_file() else None
    if path.exists() and kind is None:
        raise InvalidInput(f"{path}: {path.suffix or 'this'} is no format that deerfield reads ({', '.join(READERS)})")
    try:
        return _npz(source) if kind == "npz" else _dataset(source, kind)
    except (OSError, ValueError, KeyError) as error:
        raise InvalidInput(f"{source.path} cannot be read: {_first_line(error)}") from error


def _npz(source: Source) -> dict[str, Any]:
    arrays: dict[str, Any] = dict(np.load(source.path, allow_pickle=False))
    length = len(arrays[source.input]) if source.input in arrays else None
    return {name: v for name, v in arrays.items() if name == NAMES or length is None or len(v) == length}


def _dataset(source: Source, kind: str | None) -> Any:
    import datasets

    datasets.disable_progress_bars()
    if kind is None and not hub.reachable():
        raise InvalidInput(
            f"{source.path} is no file or folder here, and the model hub cannot be reached; give a local path in "
            f"`embedded: source: path:`"
        )
    with tempfile.TemporaryDirectory(prefix="deerfield-data-") as cache:
        options = {"split": source.split, "cache_dir": cache, "keep_in_memory": True}
        if kind is None:
            return datasets.load_dataset(source.path, **options)
        where = {"data_dir": source.path} if kind == "imagefolder" else {"data_files": {source.split: source.path}}
        extra = {"delimiter": "\t"} if source.path.endswith(".tsv") else {}
        return datasets.load_dataset(kind, **where, **options, **extra)


def _suffix(path: Path) -> str:
    return path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
