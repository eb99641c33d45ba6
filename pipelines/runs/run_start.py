"""A run file for a cluster: what a person must have written, and what the base model completes."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import typer
import yaml

from deerfield.documents.partition_manifest import NAME as MANIFEST
from deerfield.documents.partition_manifest import consortium
from deerfield.documents.partition_manifest import text as text_of
from deerfield.errors import InvalidInput
from deerfield.runfile import load_spec, mapping, parse
from deerfield.runspec import RunSpec
from deerfield.strategies import make
from deerfield.wire.client import RunsClient

GIVE = "whose the training data are must be said before its model is promoted: deerfield promote --manifest FILE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A run file, and the base model where the file does not describe it yet."""

    file: Path
    base: str | None  # folder, hub id or package:NAME, on this machine


def completed(request: Request) -> RunSpec:
    """The run as it can be started: its sites, its base model's digest and the shapes that travel.

    Raises:
        InvalidInput: something is missing, or the base model here is another than the file names.
    """
    spec = load_spec(request.file)
    make(spec)  # refuses a bad strategy or unit
    if not spec.federation.sites:
        raise InvalidInput(f"{request.file}: federation: sites is empty; name the sites as their certificates do")
    if request.base is None:
        if not spec.adapter or spec.model.digest is None:
            raise InvalidInput(
                f"{request.file} does not describe its base model (model: digest, adapter); give --base FOLDER, where "
                "the model is, or let deerfield runs describe write the file"
            )
        return spec
    return described(request.file, spec, request.base)


def described(file: Path, spec: RunSpec, base: str) -> RunSpec:
    """The run with what the base model in `base` says.

    Raises:
        InvalidInput: it cannot be loaded, or is another than the file names.
    """
    from pipelines.processes.site_process import answer, scratch

    with scratch("describe") as folder:
        path = folder / "spec.json"
        path.write_text(spec.canonical())
        found = answer("describe", ["--spec", str(path), "--base", base], folder)
    if spec.model.digest not in (None, found["digest"]):
        raise InvalidInput(
            f"{file}: model: digest is {spec.model.digest}, the base model in {base} has {found['digest']}; correct "
            "one of them"
        )
    asked = spec.model_dump()
    shapes = {name: list(shape) for name, shape in spec.adapter.items()}
    if shapes and shapes != found["adapter"]:
        raise InvalidInput(f"{file}: adapter is not that of the base model in {base}; leave it out")
    asked["model"]["digest"] = found["digest"]
    return parse(RunSpec, {**asked, "adapter": found["adapter"], "convolutions": found["convolutions"]}, str(file))


def keep_manifest(runs: RunsClient, run: str, spec: RunSpec, file: Path) -> None:
    """Keeps with a run whose the data are: its sites'. Of a file with an `embedded:` section that is not known here."""
    if embedded(file):
        typer.echo(f"warning: {file} has an embedded: section, so {run} has kept no manifest; {GIVE}", err=True)
        return
    found = text_of(consortium(spec.federation.sites, spec.labels, spec.seed))
    with suppress(InvalidInput):  # an aggregator that tracks nothing registers nothing that could be promoted
        runs.attach(run, MANIFEST, found.encode())


def check_out(out: Path) -> None:
    """Raises InvalidInput if a run file cannot go to `out`."""
    if out.exists() or out.is_symlink():
        raise InvalidInput(f"{out} is there already, and is never overwritten; name another file")
    if not out.parent.is_dir():
        raise InvalidInput(f"{out.parent} is no folder; make it first")


def text(spec: RunSpec) -> str:
    """A run file."""
    document: dict[str, Any] = spec.model_dump(mode="json", exclude_defaults=True)
    return yaml.safe_dump(document, sort_keys=False, default_flow_style=None, allow_unicode=True)


def embedded(file: Path) -> dict[str, Any]:
    """The `embedded:` section of a run file, if it has one: a simulation's sites are made by it."""
    return {key: value for key, value in mapping(file, "a run file", "name").items() if key == "embedded"}


def write(spec: RunSpec, out: Path, beside: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Writes a run file, and what is to stand `beside` the run; raises InvalidInput where none can be written."""
    kept = yaml.safe_dump(dict(beside), sort_keys=False, allow_unicode=True) if beside else ""
    try:
        with out.open("x") as file:
            file.write(text(spec) + kept)
    except OSError as error:
        raise InvalidInput(f"{out} cannot be written ({error.strerror})") from error
