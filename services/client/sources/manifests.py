"""What a manifest says of data that the hub owns: of each site's part and of the test set, counts and hashes."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deerfield.documents.partition_manifest import Manifest
from deerfield.fingerprint import overlap
from deerfield.runfile import RunFile
from services.client.sources import data, splitting

Rows = NDArray[np.int64]


def simulation(run: RunFile, sites: Mapping[str, Any], test: Any, fingerprints: str) -> dict[str, Any]:
    """The manifest of parts that are described already; `fingerprints` is where those of all training examples are."""
    return {
        "schema": Manifest.SCHEMA,
        "kind": "simulation",
        "source": "",
        "seed": run.seed,
        "unit": run.privacy.unit,
        "labels": list(run.labels),
        "sites": dict(sites),
        "test": test,
        "example_sha256": fingerprints,
    }


def counts(run: RunFile, examples: data.Examples, rows: Rows) -> dict[str, Any]:
    """How many units, examples and examples of each label there are at `rows`."""
    found = np.bincount(examples.labels[rows], minlength=len(run.labels)).tolist()
    return {
        "units": splitting.count(examples.units[rows], splitting.counted(run)),
        "examples": len(rows),
        "labels": dict(zip(run.labels, found, strict=True)),
    }


def content_sha256(fingerprints: Sequence[str], labels: Sequence[str]) -> str:
    """The sha256 of examples in their order, by what they hold and their labels, wherever they lie."""
    lines = (f"{example} {label}\n" for example, label in zip(fingerprints, labels, strict=True))
    return sha256("".join(lines).encode()).hexdigest()


def unseen(rows: Rows, fingerprints: Sequence[str], training: Sequence[str]) -> Rows:
    """Those of the held-out `rows` whose like nobody trains on: patients may have somebody else's very words."""
    return np.delete(rows, overlap(fingerprints, training))
