"""Splits data that the hub owns over sites: a file for each, a test set, and a manifest that says what is in them.

The same data, run file and seed give the same bytes, so a second try finds every part that the first one wrote.
"""

import io
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deerfield.errors import InvalidInput
from deerfield.fingerprint import fingerprint
from deerfield.runfile import RunFile
from deerfield.strategies import make
from services.client.sources import data, manifests, splitting
from services.client.sources.store import Store

Rows = NDArray[np.int64]


def partition(run: RunFile, store: Store) -> dict[str, Any]:
    """Writes each site's part, the test set and the fingerprints of all training examples; answers the manifest.

    A held-out example whose like is trained on is in no part; the manifest counts such `copies`.

    Raises:
        InvalidInput: the source cannot be read or split, a label occurs nowhere, or nothing can be written.
    """
    source, kind = run.embedded.source, run.model.input
    data.check_unit(source, run.privacy.unit)
    table = data.read(source, run.labels, kind)
    _check_labels(run, table)
    split = splitting.split(run, table, pooled=make(run.spec).declares.topology == "pooled")
    _check_sites(run, tuple(split.sites))
    parts = Parts(run, table, store)
    sites = {name: parts.write(f"sites/{name}", rows) for name, rows in split.sites.items()}
    training = np.concatenate(list(split.sites.values()))
    unseen = parts.unseen(split.validation, training)
    test = {**parts.write("test", unseen), "copies": len(split.validation) - len(unseen)}
    return {
        **manifests.simulation(run, sites, test, parts.keep_fingerprints(training)),
        "source": source.path,
        "columns": source.model_dump(include={"input", "label", "patient", "site"}, exclude_none=True),
    }


def _check_labels(run: RunFile, table: data.Table) -> None:
    counts = np.bincount(table.examples.labels, minlength=len(run.labels))
    if absent := [repr(label) for label, count in zip(run.labels, counts, strict=True) if not count]:
        source = run.embedded.source
        raise InvalidInput(
            f"labels: {', '.join(absent)} occur{'s' if len(absent) == 1 else ''} in none of the {len(table.examples)} "
            f"rows of {source.path}, column {source.label!r}; take it out of `labels:`, or mend that column"
        )


def _check_sites(run: RunFile, found: Sequence[str]) -> None:
    if run.federation.sites and set(run.federation.sites) != set(found):
        raise InvalidInput(
            f"federation: sites names {', '.join(run.federation.sites)}; the data gives {', '.join(found)}; correct one"
        )


class Parts:
    """Writes parts of one table."""

    def __init__(self, run: RunFile, table: data.Table, store: Store) -> None:
        self._run = run
        self._table = table
        self._store = store

    def write(self, name: str, rows: Rows) -> dict[str, Any]:
        """Keeps the examples at `rows` in a parquet file; answers the part as the manifest has it."""
        content = self._parquet(rows)
        sha = sha256(content).hexdigest()
        where = self._store.keep(f"{name}/{sha}.parquet", content)
        return {**manifests.counts(self._run, self._table.examples, rows), "sha256": sha, "part": where}

    def unseen(self, rows: Rows, training: Rows) -> Rows:
        """The examples of `rows` whose like nobody trains on: held-out patients may have somebody else's very words.

        Raises:
            InvalidInput: none is left.
        """
        found = manifests.unseen(rows, self._fingerprints(rows), self._fingerprints(training))
        if not len(found):
            raise InvalidInput(
                f"{self._run.embedded.source.path}: each of the {len(rows)} examples held out for the test set has its "
                f"like among those of the sites; take repeated examples out of it"
            )
        return found

    def keep_fingerprints(self, rows: Rows) -> str:
        """Keeps a line for each example, in the order of the lines: nothing says which example was whose."""
        content = "".join(f"{line}\n" for line in sorted(self._fingerprints(rows))).encode()
        return self._store.keep(f"training/{sha256(content).hexdigest()}.txt", content)

    def _fingerprints(self, rows: Rows) -> list[str]:
        return [fingerprint(self._table.examples.inputs[int(row)]) for row in rows]

    def _parquet(self, rows: Rows) -> bytes:
        """A file that `data.read` reads with the same columns; labels by their names, pictures as PNG."""
        import datasets
        import pyarrow.parquet

        source, examples = self._run.embedded.source, self._table.examples
        columns: dict[str, Sequence[Any]] = {source.label: [self._run.labels[at] for at in examples.labels[rows]]}
        if source.patient is not None:
            columns[source.patient] = examples.units[rows].tolist()
        if source.site is not None and self._table.sites is not None:
            columns[source.site] = self._table.sites[rows].tolist()
        features = dict.fromkeys(columns, datasets.Value("string"))
        inputs = [examples.inputs[int(row)] for row in rows]
        if self._run.model.input == "image":
            columns[source.input], features[source.input] = [_png(each) for each in inputs], datasets.Image()
        else:
            columns[source.input], features[source.input] = inputs, datasets.Value("string")
        typed = datasets.Features(features)
        table = datasets.Dataset.from_dict(columns, features=typed).data.table
        out = io.BytesIO()
        pyarrow.parquet.write_table(table.replace_schema_metadata(typed.arrow_schema.metadata), out)
        return out.getvalue()


def _png(picture: NDArray[np.uint8]) -> dict[str, Any]:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(picture).save(out, "png")
    return {"bytes": out.getvalue(), "path": None}
