"""`deerfield evaluate`: finds the model, lets a client process score it, prints the metrics."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from deerfield.errors import InvalidInput
from pipelines.site_process import answer, scratch


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


def evaluate(request: Request, *, as_json: bool) -> None:
    """Prints accuracy, macro precision, recall, F1 and AUC of the model on the data.

    Raises:
        InvalidInput: the model, its base or the data cannot be found or do not fit.
    """
    if request.rows is not None and not request.rows.is_file():
        raise InvalidInput(f"--rows {request.rows}: there is no such file")
    with scratch("evaluate") as folder:
        scored = _score(request, _adapter(request, folder), folder)
    if as_json:
        print(json.dumps(scored, indent=2, sort_keys=True))
        return
    grid = Table("metric", "value", title=f"{request.model} on {request.data} ({scored['examples']} examples)")
    for name, value in scored["metrics"].items():
        grid.add_row(name, f"{value:.4f}")
    Console().print(grid)


def _adapter(request: Request, into: Path) -> Path:
    """The adapter folder of a model, downloaded from the registry where it is a models:/ URI."""
    if not request.model.startswith("models:/"):
        folder = Path(request.model)
        if not (folder / "adapter_config.json").exists():
            raise InvalidInput(f"{folder} is no adapter folder (it has no adapter_config.json) and no models:/ URI")
        return folder
    import mlflow
    from mlflow.exceptions import MlflowException

    if request.tracking is None:
        raise InvalidInput(f"{request.model} is in a registry: say which with --tracking or MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(request.tracking)
    try:
        local = Path(mlflow.artifacts.download_artifacts(request.model, dst_path=str(into)))
    except MlflowException as error:
        raise InvalidInput(f"{request.model} is not in {request.tracking}: {error.message}") from error
    found = next(local.rglob("adapter_config.json"), None)
    if found is None:
        raise InvalidInput(f"{request.model} holds no adapter; was it registered by deerfield?")
    return found.parent


def _score(request: Request, adapter: Path, folder: Path) -> dict[str, Any]:
    """Runs the scoring where torch is: in a process of services.client."""
    argv = ["--adapter", str(adapter), "--data", request.data, "--label", request.label]
    for flag, value in (("--base", request.base), ("--input", request.input), ("--rows", request.rows)):
        argv += [flag, str(value)] if value is not None else []
    return answer("evaluate", argv, folder)
