"""`deerfield evaluate`: finds the model, lets a client process score it, prints the metrics and how sure they are."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from deerfield.bootstrap import CONFIDENCE, resample
from deerfield.errors import InvalidInput
from deerfield.metrics import statistics
from pipelines.evaluation import scores
from pipelines.evaluation.scores import Scores
from pipelines.processes.site_process import answer, scratch
from pipelines.registry.reader import RegistryReader, Version, open_registry

SCORES = "scores.npz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to score on what."""

    model: str
    data: str
    base: str | None
    input: str | None
    label: str
    rows: Path | None
    tracking: str | None
    patient: str | None = None


def evaluate(request: Request, *, as_json: bool) -> None:
    """Prints accuracy, macro precision, recall, F1 and AUC of the model on the data.

    Raises:
        InvalidInput: the model, its base or the data cannot be found or do not fit.
    """
    if request.rows is not None and not request.rows.is_file():
        raise InvalidInput(f"--rows {request.rows}: there is no such file")
    with scratch("evaluate") as folder:
        scored = _score(request, _adapter(request, folder), folder)
        found = scores.read(folder / SCORES)
    intervals = _intervals(found)
    if as_json:
        print(json.dumps({**scored, "intervals": intervals}, indent=2, sort_keys=True))
        return
    over = f"{len(set(found.units.tolist()))} patients" if request.patient else "examples, each alone"
    grid = Table("metric", "value", f"{CONFIDENCE:.0%} interval", caption=f"over {over}", caption_justify="left")
    for name, value in scored["metrics"].items():
        low, high = intervals[name]["low"], intervals[name]["high"]
        grid.add_row(name, f"{value:.4f}", "undefined" if low is None else f"{low:.4f} to {high:.4f}")
    console = Console()
    console.print(f"{request.model} on {request.data} ({scored['examples']} examples)", highlight=False, soft_wrap=True)
    console.print(grid)


def _intervals(found: Scores) -> dict[str, dict[str, float | None]]:
    """The bounds of every metric's confidence interval, over resampled patients where a column names them."""
    resampled = resample({"model": statistics(found.probabilities, found.labels)}, found.units)["model"]
    return {name: {"low": each.low, "high": each.high} for name, each in resampled.intervals().items()}


def _adapter(request: Request, into: Path) -> Path:
    """The adapter folder of a model, downloaded from the registry where it is a models:/ URI."""
    if not request.model.startswith("models:/"):
        folder = Path(request.model)
        if not (folder / "adapter_config.json").exists():
            raise InvalidInput(f"{folder} is no adapter folder (it has no adapter_config.json) and no models:/ URI")
        return folder
    if request.tracking is None:
        raise InvalidInput(f"{request.model} is in a registry: say which with --tracking or MLFLOW_TRACKING_URI")
    registry = open_registry(request.tracking)
    return registry.adapter(_version(registry, request.model), into)


def _version(registry: RegistryReader, uri: str) -> Version:
    """The version that models:/NAME/VERSION or models:/NAME@ALIAS stands for."""
    named = re.fullmatch(r"models:/([^/@]+)(?:/(\d+)|@([^/@]+))", uri)
    if named is None:
        raise InvalidInput(f"{uri} names no version; write models:/NAME/VERSION or models:/NAME@ALIAS")
    model, version, alias = named.groups()
    if version is not None:
        return registry.version(model, version)
    found = registry.aliased(model, alias)
    if found is None:
        known = ", ".join(
            f"{each.version} ({', '.join(each.aliases)})" for each in registry.versions(model) if each.aliases
        )
        raise InvalidInput(f"no version of {model} is its {alias}; with an alias are: {known or 'none'}")
    return found


def _score(request: Request, adapter: Path, folder: Path) -> dict[str, Any]:
    """Runs the scoring where torch is: in a process of services.client."""
    argv = ["--adapter", str(adapter), "--data", request.data, "--label", request.label]
    argv += ["--scores", str(folder / SCORES)]
    optional = {"base": request.base, "input": request.input, "rows": request.rows, "patient": request.patient}
    for flag, value in optional.items():
        argv += [f"--{flag}", str(value)] if value is not None else []
    return answer("evaluate", argv, folder)
