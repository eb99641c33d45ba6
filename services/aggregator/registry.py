"""Registers a run's adapter: PEFT format, kilobytes, a pyfunc whose code is `adapter_model.py`; no torch is needed."""

import struct
import warnings
import zlib
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
TEXT_EXAMPLE = "The scan shows no sign of disease."
SIDE = 32  # pixels, of the example of an image


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What a run came to."""

    run: str
    spec: RunSpec
    adapter: Tensors
    digest: str
    epsilon: Mapping[str, float]  # of each site
    step: int = 0  # of its last phase: MLflow copies the metrics of that step to the model

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
    import pandas as pd

    spec = release.spec
    with TemporaryDirectory() as folder:
        adapter = Path(folder) / "adapter"
        peft_folder.write(adapter, spec, release.adapter)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*Any type hint is inferred", UserWarning)  # MLflow, of its own code
            warnings.filterwarnings("ignore", "Operation with range is deprecated")  # the same, on pandas 3
            # what `pyfunc.log_model` calls, but for two things: no run is opened or ended in this process, whoever has
            # opened it, and the example is held against the signature without the model, which needs torch
            info = mlflow.models.Model.log(
                artifact_path=None,
                model_id=_opened(client, mlflow_run),
                flavor=_Unexecuted,
                flavor_name="pyfunc.ModelFromCode",
                validate_serving_input=False,
                run_id=mlflow_run,
                step=release.step,
                python_model=str(MODEL_CODE),
                artifacts={"adapter": str(adapter)},
                model_config={"base": spec.model.base},
                signature=_signature(spec),
                input_example=pd.DataFrame({spec.model.input: [_example(spec)]}),
                pip_requirements=list(REQUIREMENTS),
            )
    with redirect_stderr(StringIO()):  # it prints what it did, in no form of a log, and turns that on again by itself
        return str(mlflow.register_model(info.model_uri, spec.name, tags=dict(release.tags)).version)


def _opened(client: Any, mlflow_run: str) -> str:
    """A new model of MLflow's in the run's own experiment, which says where its models are: not the default one's."""
    run = client.get_run(mlflow_run)
    opened = client.create_logged_model(run.info.experiment_id, "adapter", mlflow_run, params=run.data.params)
    return str(opened.model_id)


class _Unexecuted:
    """The pyfunc flavor as `Model.log` wants one; what is meant for `Model.log` alone goes no further."""

    @staticmethod
    def save_model(path: str, mlflow_model: Any, *, validate_serving_input: bool, **settings: Any) -> None:
        """Writes the model's folder."""
        import mlflow

        mlflow.pyfunc.save_model(path=path, mlflow_model=mlflow_model, **settings)


def _example(spec: RunSpec) -> str | bytes:
    """One input: a sentence, or a grey PNG file."""
    if spec.model.input == "text":
        return TEXT_EXAMPLE
    rows = b"".join(b"\0" + bytes(range(0, 8 * SIDE, 8)) for _ in range(SIDE))  # each after its filter, which is none
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 0, 0, 0, 0)  # 8 bits of grey for each pixel
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _signature(spec: RunSpec) -> Any:
    """One column of texts or encoded image files in, the probability of each label out."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    kind = {"text": "string", "image": "binary"}[spec.model.input]
    return ModelSignature(
        inputs=Schema([ColSpec(kind, spec.model.input)]),
        outputs=Schema([ColSpec("double", label) for label in spec.labels]),
    )
