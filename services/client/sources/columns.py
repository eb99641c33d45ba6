"""The columns of a source by name, whatever kind of file it was, and what their values are taken to be."""

import io
import struct
import zlib
from collections.abc import Callable, Sequence
from math import isnan
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deerfield.errors import InvalidInput
from deerfield.runfile import Source
from services.client.sources import files
from services.client.sources.files import NAMES, Invalid, first_line

ABSENT = -1  # the index of a label that the run does not declare
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif")
UNREADABLE = (OSError, ValueError, TypeError, SyntaxError, struct.error, zlib.error)  # what Pillow raises


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


def open_columns(source: Source, invalid: Invalid) -> "Columns":
    """The columns of `source`, of the rows that it names.

    Raises:
        InvalidInput: the source is not there or cannot be read.
    """
    columns = Columns(files.load(source, invalid), source)
    return columns if source.rows is None else columns.take(_rows(source.rows))


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


class Columns:
    """Named columns of one length, whatever the file was; checks that a column is there before it is read."""

    def __init__(self, data: Any, source: Source) -> None:
        self._data, self._source = data, source

    def __len__(self) -> int:
        return len(self._column(self._source.label))

    def take(self, rows: NDArray[np.int64]) -> "Columns":
        """These columns at `rows`, in that order."""
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
        return Columns(chosen, self._source)

    def names(self) -> list[str]:
        """What the columns are called."""
        return sorted(self._data) if isinstance(self._data, dict) else list(self._data.column_names)

    def _column(self, name: str) -> Any:
        if name not in self.names():
            raise InvalidInput(
                f"{self._source.path} has no column {name!r}; its columns are {', '.join(self.names())}: "
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
        """Where a column is empty."""
        return np.array([_empty(value) for value in self._values(name)], dtype=np.bool_)

    def is_empty(self, name: str | None) -> Callable[[int], str]:
        return lambda row: f"column {name!r} is empty in row {row + 1}; fill or remove it"

    def kind(self) -> Literal["text", "image"]:
        """What the input column holds, going by its type and, for text, by whether the first names a picture."""
        column = self._column(self._source.input)
        if isinstance(self._data, dict):
            return "image" if column.ndim > 1 else "text"
        if hasattr(self._data.features[self._source.input], "decode"):
            return "image"
        first = str(column[0]) if len(column) else ""
        return "image" if Path(first).suffix.lower() in PICTURES else "text"

    def shown(self, name: str) -> list[str | None]:
        """Each value as a person knows it: a numbered label by its name, where the file carries one."""
        names = self._class_names() if name == self._source.label else None
        return [None if _empty(value) else _shown(value, names) for value in self._values(name)]

    def pictures(self) -> Pictures:
        """The input column as images."""
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
