"""Gets an embedded run ready: splits one data set into sites, and describes the adapter of its base model.

This is what hospitals do for themselves on a cluster. It writes row numbers, never copies of the data:
`<site>.npy` for each site's training rows, `validation.npy` for the rows held out for everyone. The manifest says what
they hold.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deerfield.documents.partition_manifest import NAME as MANIFEST
from deerfield.documents.partition_manifest import text
from deerfield.errors import InvalidInput
from deerfield.fingerprint import fingerprint
from deerfield.runfile import RunFile
from deerfield.runspec import RunSpec
from deerfield.strategies import make
from services.client.sources import data, manifests
from services.client.sources.splitting import NOUNS, Rows, Split, count, counted, split
from services.client.training import backbones, device, models

ROWS = "rows"  # folder of row numbers
TEST_ROWS, FINGERPRINTS = "rows/test.npy", "rows/training.txt"


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
    chosen = None if embedded.source.rows is None else np.load(embedded.source.rows)
    files = write(parts, folder / ROWS, chosen)
    described = described_parts(run, table.examples, parts, folder, chosen)
    (folder / MANIFEST).write_text(text(described))
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


def described_parts(
    run: RunFile, examples: data.Examples, parts: Split, folder: Path, chosen: Rows | None
) -> dict[str, Any]:
    """The manifest of the split; writes the rows of its test set, and the training examples' fingerprints.

    It names no path but those two, below `folder`: where the data are, and what their columns are called, is the
    business of nobody who reads the run in MLflow. A held-out example whose like is trained on is in no test set.
    """
    sites, training = {}, []
    for name, rows in parts.sites.items():
        sites[name], prints = _described(run, examples, rows)
        training += prints
    held_out = [fingerprint(examples.inputs[int(row)]) for row in parts.validation]
    unseen = manifests.unseen(parts.validation, held_out, training)
    (folder / FINGERPRINTS).write_text("".join(f"{line}\n" for line in sorted(training)))
    if not len(unseen):
        return manifests.simulation(run, sites, None, FINGERPRINTS)
    np.save(folder / TEST_ROWS, unseen if chosen is None else chosen[unseen])
    test, _ = _described(run, examples, unseen)
    told = {**test, "rows": TEST_ROWS, "copies": len(parts.validation) - len(unseen)}
    return manifests.simulation(run, sites, told, FINGERPRINTS)


def _described(run: RunFile, examples: data.Examples, rows: Rows) -> tuple[dict[str, Any], list[str]]:
    """A part as the manifest has it, and the fingerprints of its examples."""
    prints = [fingerprint(examples.inputs[int(row)]) for row in rows]
    sha = manifests.content_sha256(prints, [run.labels[label] for label in examples.labels[rows]])
    return {**manifests.counts(run, examples, rows), "sha256": sha}, prints


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


def _bounds(run: RunFile, units: Mapping[str, NDArray[np.str_]]) -> tuple[int, int]:
    """(units_low, units_high) for the policies of all sites; under unit site each is one."""
    nouns, declared = NOUNS[counted(run)], run.embedded.units_low
    if run.privacy.unit == "site":
        return bounds(dict.fromkeys(units, 1), declared, "unit")
    return bounds({name: count(each, counted(run)) for name, each in units.items()}, declared, nouns)


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
