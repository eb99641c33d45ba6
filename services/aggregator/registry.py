"""Registers a run's adapter: PEFT format, kilobytes, a pyfunc whose code is `adapter_model.py`; no torch is needed."""

import warnings
from collections.abc import Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from deerfield import peft_folder
from deerfield.runspec import RunSpec
from deerfield.tensors import Tensors
from services.aggregator.rounds.recorder import Registered

ALIAS = "candidate"
MODEL_CODE = Path(__file__).with_name("adapter_model.py")
REQUIREMENTS = ("mlflow==3.17.2", "torch==2.13.0", "transformers==5.23.0", "peft==0.21.2", "safetensors>=0.8", "pillow")
EXAMPLES = {"text": "The scan shows no sign of disease.", "image": "(the bytes of a PNG or JPEG file)"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What a run came to."""

    run: str
    spec: RunSpec
    adapter: Tensors
    digest: str
    epsilon: Mapping[str, float]  # of each site

    @property
    def tags(self) -> Mapping[str, str]:
        """What a model version says about itself."""
        return {
            "deerfield.run": self.run,
            "deerfield.digest": self.digest,
            "deerfield.strategy": str(self.spec.strategy["name"]),
            "deerfield.spec_sha256": self.spec.sha256,
            "deerfield.base": self.spec.model.base,
            "deerfield.base_digest": str(self.spec.model.digest),
            "deerfield.delta": f"{self.spec.privacy.delta:g}",
            **{f"deerfield.epsilon.{site}": f"{value:.6g}" for site, value in self.epsilon.items()},
        }


def register(client: Any, mlflow_run: str, release: Release) -> Registered:
    """Registers the adapter as a version of the model named like the run, unless it already is one.

    `client` is an `mlflow.MlflowClient`; the alias `candidate` moves to the version.
    """
    name = release.spec.name
    version = _known(client, release) or _log_version(client, mlflow_run, release)
    client.set_registered_model_alias(name, ALIAS, version)
    return Registered(name=name, version=version)


def _known(client: Any, release: Release) -> str | None:
    versions = client.search_model_versions(f"name = '{release.spec.name}'")
    mine = [version for version in versions if version.tags.get("deerfield.run") == release.run]
    return str(mine[0].version) if mine else None


def _log_version(client: Any, mlflow_run: str, release: Release) -> str:
    import mlflow

    spec = release.spec
    with TemporaryDirectory() as folder:
        adapter = Path(folder) / "adapter"
        peft_folder.write(adapter, spec, release.adapter)
        with mlflow.start_run(run_id=mlflow_run), warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*input example was not provided", UserWarning)  # it would be executed
            warnings.filterwarnings("ignore", ".*Any type hint is inferred", UserWarning)  # MLflow, of its own code
            info = mlflow.pyfunc.log_model(
                name="adapter",
                python_model=str(MODEL_CODE),
                artifacts={"adapter": str(adapter)},
                model_config={"base": spec.model.base},
                signature=_signature(spec),
                pip_requirements=list(REQUIREMENTS),
            )
    client.log_dict(mlflow_run, {spec.model.input: [EXAMPLES[spec.model.input]]}, "input_example.json")
    with redirect_stderr(StringIO()):  # it prints what it did, in no form of a log, and turns that on again by itself
        return str(mlflow.register_model(info.model_uri, spec.name, tags=dict(release.tags)).version)


def _signature(spec: RunSpec) -> Any:
    """One column of texts or encoded image files in, the probability of each label out."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    kind = {"text": "string", "image": "binary"}[spec.model.input]
    return ModelSignature(
        inputs=Schema([ColSpec(kind, spec.model.input)]),
        outputs=Schema([ColSpec("double", label) for label in spec.labels]),
    )
