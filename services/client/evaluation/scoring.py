"""Scores models example by example, on data that the hub owns: probabilities in a file, for whoever judges them.

A site never does this: what a model says of single patients stays with the hospital.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import file_digest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deerfield import peft_folder
from deerfield.errors import InvalidInput
from deerfield.fingerprint import fingerprint, overlap, read_fingerprints
from deerfield.runfile import Source, parse
from deerfield.runspec import RunSpec, Section
from deerfield.tensors import Tensors, Wide
from services.client.sources import data, store
from services.client.sources.manifests import content_sha256
from services.client.training import backbones, models
from services.client.training.cached import Cached
from services.client.training.device import Device
from services.client.training.trainer import predict


class Scored(Section):
    """One model of a request."""

    adapter: str  # its folder
    base: str | None = None  # the base model here; default: as the adapter names it
    trained: bool = True  # False: the base under the state that training starts from, which no site has touched


class Request(Section):
    """What to score on what; the document of `--request`."""

    source: Source
    sha256: str = ""  # that the source must have; empty: any
    training: str | None = None  # file of the fingerprints of training data, which no test example may be among
    models: Mapping[str, Scored]  # by the name of their files


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What one model says of each example, and what is known of the examples."""

    probabilities: Wide  # (n, labels)
    examples: data.Table
    labels: tuple[str, ...]
    fingerprints: tuple[str, ...] = ()

    def write(self, path: Path) -> None:
        """Writes an npz: probabilities, labels (indices of classes), classes, units, fingerprints; sites if known."""
        table = self.examples
        arrays: dict[str, Any] = {
            "probabilities": self.probabilities,
            "labels": table.examples.labels,
            "classes": np.array(self.labels),
            "units": owners(table),
            "fingerprints": np.array(self.fingerprints),
        }
        if table.sites is not None:
            arrays["sites"] = table.sites
        np.savez_compressed(path, **arrays)


def owners(table: data.Table) -> NDArray[np.str_]:
    """The unit of each example; a patient of two sites is two, as in a partition by that column."""
    units = table.examples.units
    if table.sites is None:
        return units
    return np.array([f"{site}/{unit}" for site, unit in zip(table.sites, units, strict=True)], dtype=np.str_)


@dataclass
class Scorer:
    """Models and data, each loaded once: adapters on one base share it, and what its frozen layers make of the data."""

    hardware: Device
    examples: data.Examples
    _opened: dict[str, tuple[models.Classifier, Cached]] = field(default_factory=dict)

    def score(self, spec: RunSpec, base: str, adapter: Tensors | None) -> Wide:
        """Probabilities (n, labels) of every example; `adapter` None stands for the state that training starts from.

        Raises:
            InvalidInput: the base model is missing, or another one than the run's.
        """
        key = f"{base}\n{spec.labels}\n{spec.model.model_dump_json()}"
        if key not in self._opened:
            classifier = classifier_of(spec, base, self.hardware)
            self._opened[key] = classifier, Cached(classifier, self.examples)
        classifier, cached = self._opened[key]
        zero = {name: np.zeros(shape, np.float32) for name, shape in classifier.schema().items()}
        classifier.load(models.SHARED, zero if adapter is None else adapter)
        return predict(classifier, cached)


def classifier_of(spec: RunSpec, base: str, hardware: Device) -> models.Classifier:
    """The model of `spec` on the base model that is called `base` here.

    Raises:
        InvalidInput: it is missing, or another one than the run's.
    """
    folder = backbones.locate(base)
    if (found := backbones.digest(folder)) != spec.model.digest:
        raise InvalidInput(
            f"base model {base!r} has digest {found[:12]}, the adapter was trained on {str(spec.model.digest)[:12]}; "
            f"name that one with --base"
        )
    return models.load(folder, spec, device=hardware)


def score_all(path: Path, out: Path, hardware: Device) -> dict[str, Any]:
    """Serves a request: `out/NAME.npz` for each of its models; answers what was read.

    Raises:
        InvalidInput: the request, a model, the base or the data cannot be used; the models' labels or inputs differ; or
            a test example is among the training data.
    """
    request = parse(Request, json.loads(path.read_text()), str(path))
    opened = {name: peft_folder.read(Path(each.adapter)) for name, each in request.models.items()}
    spec = _common({name: spec for name, (spec, _) in opened.items()})
    table = data.read(request.source, spec.labels, spec.model.input)
    fingerprints = tuple(fingerprint(each) for each in table.examples.inputs)
    sha = _check_sha256(request, sha256_of(request.source, table, spec.labels, fingerprints))
    checked = _refuse_overlap(request, fingerprints)
    scorer = Scorer(hardware, table.examples)
    for name, each in request.models.items():
        own, adapter = opened[name]
        base = each.base or own.model.base
        found = scorer.score(own, base, adapter if each.trained else None)
        in_order = found[:, [own.labels.index(label) for label in spec.labels]]
        Scores(probabilities=in_order, examples=table, labels=spec.labels, fingerprints=fingerprints).write(
            out / f"{name}.npz"
        )
    return {"examples": len(table.examples), "labels": spec.labels, "checked": checked, "sha256": sha}


def sha256_of(source: Source, table: data.Table, labels: Sequence[str], fingerprints: Sequence[str]) -> str:
    """Of the file of a source; where it is a folder, a hub id or chosen rows, of its examples and their labels."""
    path = store.local(source.path)
    if path.is_file() and source.rows is None:
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()
    return content_sha256(fingerprints, [labels[label] for label in table.examples.labels])


def _common(specs: Mapping[str, RunSpec]) -> RunSpec:
    """The first of the specs, if all have its labels, in whatever order, and read what it reads."""
    (first, spec), *others = specs.items()
    for name, other in others:
        if set(other.labels) != set(spec.labels):
            raise InvalidInput(
                f"{first} knows the labels {', '.join(spec.labels)}, and {name} {', '.join(other.labels)}: they cannot "
                f"be compared on one test set; give a model with other labels another name"
            )
        if other.model.input != spec.model.input:
            raise InvalidInput(
                f"{first} reads {spec.model.input}s and {name} {other.model.input}s: they cannot be compared on one "
                f"test set; give a model that reads something else another name"
            )
    return spec


def _check_sha256(request: Request, found: str) -> str:
    if request.sha256 not in ("", found):
        raise InvalidInput(
            f"{request.source.path} has sha256 {found[:12]}, and its manifest says {request.sha256[:12]}: somebody has "
            f"changed it; run the partition again"
        )
    return found


def _refuse_overlap(request: Request, fingerprints: Sequence[str]) -> int:
    """How many training examples the test set was held against, which share none with it."""
    if request.training is None:
        return 0
    training = read_fingerprints(store.local(request.training))
    if shared := overlap(fingerprints, training):
        raise InvalidInput(
            f"{request.source.path}: {len(shared)} of {len(fingerprints)} test examples are among the {len(training)} "
            f"training examples of {request.training}, by their content; the first is row {shared[0] + 1}: whoever has "
            f"seen them in training is judged too well; take them out of one of the two"
        )
    return len(training)
