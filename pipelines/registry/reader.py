"""What MLflow's registry holds, read and never written: the aggregator alone writes there.

All that is set in the process is MLflow's patience, which is minutes unless somebody says otherwise.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

from deerfield import peft_folder, tensors
from deerfield.endpoint import without_password
from deerfield.errors import InvalidInput
from pipelines.registry.troubles import reason, translated

CHAMPION, CANDIDATE = "champion", "candidate"  # aliases
RUN_TAG = "deerfield.run"  # our id of a run, at its MLflow run
EPSILON = "deerfield.epsilon."  # and the site
SPENT = ("epsilon", "epsilon_total")  # of the metrics NAME/SITE of a run, those that are no site's own report
PATIENCE = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # a hospital's run is nobody else's business
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # pauses of 0 and 4 s; MLflow's own 7 take four minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version of a registered model."""

    model: str
    version: str  # decimal
    mlflow_run: str  # id of the MLflow run that has its artifacts
    created_s: float  # since 1970
    aliases: tuple[str, ...]
    tags: Mapping[str, str]

    @property
    def digest(self) -> str:
        """Of its adapter, as the aggregator registered it; empty if it was registered by something else."""
        return self.tags.get("deerfield.digest", "")

    @property
    def run(self) -> str:
        """Our id of the run that trained it; empty if it was registered by something else."""
        return self.tags.get("deerfield.run", "")

    @property
    def epsilon(self) -> Mapping[str, float]:
        """What each site spent on it; infinite where the tag holds no number from 0 on."""
        sites = {name.removeprefix(EPSILON): value for name, value in self.tags.items() if name.startswith(EPSILON)}
        return {site: _spent(value) for site, value in sorted(sites.items())}

    def __str__(self) -> str:
        return f"version {self.version} of {self.model}"


def _spent(tag: str) -> float:
    try:
        spent = float(tag)
    except ValueError:
        return inf
    return spent if spent >= 0 else inf  # nan is below no limit, and above none


class RegistryReader:
    """The registered models of one MLflow. Raises `Unreachable` if it does not answer, `InvalidInput` as each says."""

    def __init__(self, tracking: str) -> None:
        from mlflow import MlflowClient

        self.tracking = tracking
        self._client = MlflowClient(tracking_uri=tracking, registry_uri=tracking)

    def models(self) -> tuple[str, ...]:
        """The names of all registered models."""
        with self._asked("list its models"):
            return tuple(sorted(model.name for model in _pages(self._client.search_registered_models)))

    def versions(self, model: str) -> tuple[Version, ...]:
        """All versions of a model, the newest first; InvalidInput if there is no such model."""
        with self._asked(f"list the versions of {model}"):
            aliases = self._aliases(model)
            found = [
                _version(each, aliases) for each in _pages(self._client.search_model_versions, f"name = '{model}'")
            ]
        return tuple(sorted(found, key=lambda each: int(each.version), reverse=True))

    def version(self, model: str, version: str) -> Version:
        """One version; InvalidInput if it is not there, or was deleted."""
        if re.fullmatch("[1-9][0-9]{0,8}", version) is None:
            raise InvalidInput(
                f"version {version!r} of {model} is no number; `deerfield models list` shows which exist"
            )
        with self._asked(f"find version {version} of {model}"):
            aliases = self._aliases(model)
            return _version(self._client.get_model_version(model, version), aliases)

    def champion(self, model: str) -> Version | None:
        """The version with the alias `champion`, if any has it; InvalidInput if there is no such model."""
        return self.aliased(model, CHAMPION)

    def aliased(self, model: str, alias: str) -> Version | None:
        """The version with this alias, if any has it; InvalidInput if there is no such model."""
        with self._asked(f"find the {alias} of {model}"):
            aliases = self._aliases(model)
            if alias not in aliases:
                return None
            return _version(self._client.get_model_version(model, aliases[alias]), aliases)

    def reported(self, version: Version) -> dict[str, dict[str, float]]:
        """By site, the newest metrics that it reported in the version's run, as far as its policy lets any out."""
        with self._asked(f"give the metrics of {version}"):
            newest = self._client.get_run(version.mlflow_run).data.metrics
        told: dict[str, dict[str, float]] = {}
        for key, value in sorted(newest.items()):
            name, _, site = key.rpartition("/")
            if site in version.epsilon and name not in SPENT and "/" not in name:
                told.setdefault(site, {})[name] = float(value)
        return told

    def artifacts(self, version: Version, folder: str = "") -> tuple[str, ...]:
        """The paths of the files in a folder of the version's MLflow run, in their order, without those below it."""
        with self._asked(f"list the artifacts of {version}"):
            found = self._client.list_artifacts(version.mlflow_run, folder or None)
        return tuple(sorted(each.path for each in found if not each.is_dir))

    def content(self, version: Version, path: str) -> bytes:
        """The bytes of an artifact of the version's MLflow run; InvalidInput if it is not there."""
        with TemporaryDirectory() as folder, self._asked(f"give {path} of {version}"):
            return Path(self._client.download_artifacts(version.mlflow_run, path, folder)).read_bytes()

    def document(self, version: Version, path: str) -> Any:
        """A JSON artifact of the version's MLflow run; InvalidInput if it is not there, or no JSON."""
        try:
            return json.loads(self.content(version, path))
        except ValueError as error:
            raise InvalidInput(f"{path} of {version} at {self._where} is no JSON ({error})") from None

    def adapter(self, version: Version, into: Path) -> Path:
        """The folder of the version's adapter, fetched below `into`, if its tensors have the digest of its tag.

        InvalidInput if the version was deleted meanwhile, has no adapter, or has another one than was registered.
        """
        from mlflow.artifacts import download_artifacts

        with self._asked(f"give the adapter of {version}"):
            uri = self._client.get_model_version_download_uri(version.model, version.version)
            local = Path(download_artifacts(artifact_uri=uri, dst_path=str(into), tracking_uri=self.tracking))
        found = next(local.rglob(peft_folder.CONFIG), None)
        if found is None:
            raise InvalidInput(f"{version} at {self._where} holds no adapter; was it registered by deerfield?")
        digest = tensors.digest(peft_folder.read(found.parent)[1])
        if digest != version.digest:
            raise InvalidInput(
                f"{version} at {self._where} holds an adapter with digest {digest[:12]}, and its tag deerfield.digest "
                f"is {version.digest[:12] or 'missing'}: somebody changed one of them; register the run again"
            )
        return found.parent

    def kept(self, model: str, run: str, names: Sequence[str], into: Path) -> dict[str, Path]:
        """Those of the artifacts `names` that our run `run` of `model` has, fetched below `into`."""
        with self._asked(f"give what is kept of run {run}"):
            experiment = self._client.get_experiment_by_name(model)
            ours = f"tags.`{RUN_TAG}` = '{run}'"
            found = self._client.search_runs([experiment.experiment_id], ours, max_results=1) if experiment else []
            ids = [each.info.run_id for each in found]
            there = {each.path for mlflow_run in ids for each in self._client.list_artifacts(mlflow_run)}
            return {
                name: Path(self._client.download_artifacts(ids[0], name, str(into))) for name in names if name in there
            }

    @property
    def _where(self) -> str:
        return without_password(self.tracking)

    def _aliases(self, model: str) -> dict[str, str]:
        if "'" in model or not model:
            raise InvalidInput(f"{model!r} is no name of a model; `deerfield models list` shows which exist")
        return dict(self._client.get_registered_model(model).aliases)

    @contextmanager
    def _asked(self, what: str) -> Iterator[None]:
        from mlflow.exceptions import MlflowException

        start = monotonic()
        try:
            yield
        except (MlflowException, OSError) as error:
            raise translated(error, self.tracking, what, monotonic() - start) from error


def open_registry(tracking: str) -> RegistryReader:
    """The registry at an MLflow tracking URI; nothing is asked of it yet.

    Raises:
        InvalidInput: the URI cannot be used, or its SQLite file is not there (MLflow would make one).
    """
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    if not tracking:
        raise InvalidInput("no MLflow tracking URI is given: say where the registry is with MLFLOW_TRACKING_URI")
    file = re.fullmatch(r"sqlite(?:\+\w+)?:///([^?]+)(?:\?.*)?", tracking)
    if file and not Path(file[1]).is_file():
        raise InvalidInput(f"MLflow's database {file[1]} is not there; mend MLFLOW_TRACKING_URI")
    from mlflow.exceptions import MlflowException

    try:
        return RegistryReader(tracking)
    except MlflowException as error:
        raise InvalidInput(f"{without_password(tracking)} is no MLflow tracking URI ({reason(error)})") from error


def _version(found: Any, aliases: Mapping[str, str]) -> Version:
    return Version(
        model=str(found.name),
        version=str(found.version),
        mlflow_run=str(found.run_id or ""),
        created_s=found.creation_timestamp / 1000,
        aliases=tuple(sorted(alias for alias, version in aliases.items() if str(version) == str(found.version))),
        tags=dict(found.tags),
    )


def _pages(search: Any, condition: str | None = None) -> Iterator[Any]:
    token = None
    while True:
        page = search(filter_string=condition, page_token=token)
        yield from page
        if not (token := page.token):
            return
