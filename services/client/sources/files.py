"""Opens a source's file, folder or hub id as named columns; what the columns mean is `data`'s business.

Nothing is copied into a cache outside a temporary folder: the data stay where the hospital keeps them.
"""

import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np

from deerfield.errors import InvalidInput
from deerfield.runfile import Source
from services.client.sources import hub, store

READERS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet", ".npz": "npz"}
NAMES = "class_names"  # npz: the names of integer labels, not a column

Invalid = Literal["refuse", "drop"]  # a row that cannot be used: named in an error, or left out


def load(source: Source, invalid: Invalid) -> Any:
    """A dict of equally long arrays for npz, a `datasets.Dataset` for everything else."""
    if store.is_object(source.path):
        return load(source.model_copy(update={"path": str(store.local(source.path))}), invalid)
    path = Path(source.path)
    kind = "imagefolder" if path.is_dir() else READERS.get(_suffix(path)) if path.is_file() else None
    if path.exists() and kind is None:
        raise InvalidInput(f"{path}: {path.suffix or 'this'} is no format that deerfield reads ({', '.join(READERS)})")
    try:
        return _npz(source) if kind == "npz" else _dataset(source, kind, invalid)
    except (OSError, ValueError, KeyError) as error:
        raise InvalidInput(f"{source.path} cannot be read: {first_line(error)}") from error


def _npz(source: Source) -> dict[str, Any]:
    arrays: dict[str, Any] = dict(np.load(source.path, allow_pickle=False))
    length = len(arrays[source.input]) if source.input in arrays else None
    return {name: v for name, v in arrays.items() if name == NAMES or length is None or len(v) == length}


def _dataset(source: Source, kind: str | None, invalid: Invalid) -> Any:
    import datasets

    datasets.disable_progress_bars()
    there = source.path
    if kind is None and not hub.reachable():
        if (folder := hub.cached_data(source.path)) is None:
            raise InvalidInput(
                f"{source.path} is no file or folder here, and the model hub cannot be reached; give a local path in "
                f"`embedded: source: path:`, or fill the hub's cache here beforehand (hf download --repo-type dataset)"
            )
        there = str(folder)
    with tempfile.TemporaryDirectory(prefix="deerfield-data-") as cache:
        options = {"split": source.split, "cache_dir": cache, "keep_in_memory": True}
        if kind is None:
            return datasets.load_dataset(there, **options)
        where = {"data_dir": source.path} if kind == "imagefolder" else {"data_files": {source.split: source.path}}
        extra = _texts(source, invalid) if kind == "csv" else {}
        if kind == "csv" and _is_bare(source, extra):
            return _without_rows(source, extra["features"], invalid)
        try:
            return datasets.load_dataset(kind, **where, **options, **extra)
        except datasets.exceptions.DatasetGenerationError as error:  # says what is wrong with the file only underneath
            raise ValueError(first_line(error.__cause__ or error)) from error


def _texts(source: Source, invalid: Invalid) -> dict[str, Any]:
    """Reads every column of a csv as text: one empty cell would turn all integers of its column into fractions."""
    import datasets
    import pandas as pd

    separator = "\t" if _suffix(Path(source.path)) == ".tsv" else ","
    try:
        names = pd.read_csv(source.path, sep=separator, nrows=0).columns
    except pd.errors.EmptyDataError:
        raise InvalidInput(
            f"{source.path} is empty; it needs a line of column names, then one line for each row"
        ) from None
    features = datasets.Features({str(name): datasets.Value("string") for name in names})
    lines = "error" if invalid == "refuse" else "skip"
    return {"sep": separator, "features": features, "keep_default_na": False, "na_values": [""], "on_bad_lines": lines}


def _is_bare(source: Source, texts: dict[str, Any]) -> bool:
    """Whether a csv is a header and nothing else, which `datasets` calls no data."""
    import pandas as pd

    return bool(pd.read_csv(source.path, sep=texts["sep"], nrows=1, on_bad_lines=texts["on_bad_lines"]).empty)


def _without_rows(source: Source, features: Any, invalid: Invalid) -> Any:
    """No example: refused while a person prepares data; at a site, one patient less may not change its answer."""
    import datasets

    if invalid == "refuse":
        raise InvalidInput(f"{source.path} has column names and no rows; add the examples, one line each")
    return datasets.Dataset.from_dict({name: [] for name in features}, features=features)


def _suffix(path: Path) -> str:
    return path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix


def first_line(error: BaseException) -> str:
    """The first line of what a library said, or the name of its error."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
