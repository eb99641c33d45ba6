"""Compiles the pipelines: the same options and version give the same bytes."""

from pathlib import Path
from tempfile import TemporaryDirectory

from deerfield import __version__
from deerfield.errors import InvalidInput
from pipelines.compiled.compile_options import CompileOptions

NAMES = ("federated-training", "simulated-consortium")


def compiled(name: str, options: CompileOptions, *, namespace: str | None = None, manifests: bool = False) -> str:
    """The compiled pipeline as YAML; with `manifests` as custom resources Pipeline and PipelineVersion.

    Raises:
        InvalidInput: there is no pipeline of this name.
    """
    if name not in NAMES:
        raise InvalidInput(f"there is no pipeline {name!r}; there are {' and '.join(NAMES)}")
    from kfp.compiler import Compiler
    from kfp.compiler.compiler_utils import KubernetesManifestOptions

    from pipelines.compiled.graphs import PIPELINES

    resources = KubernetesManifestOptions(
        pipeline_version_name=version_name(name), namespace=namespace, include_pipeline_manifest=True
    )
    with TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        Compiler().compile(
            PIPELINES[name](options),
            str(path),
            kubernetes_manifest_format=manifests,
            kubernetes_manifest_options=resources if manifests else None,
        )
        return path.read_text("utf-8")


def version_name(name: str) -> str:
    """The name of the version that this deerfield compiles."""
    return f"{name}-{__version__.replace('+', '-')}"


def write(text: str, out: Path) -> bool:
    """Writes a compiled pipeline; False if the file holds it already. Raises InvalidInput where none can be written."""
    try:
        if out.is_file() and out.read_text("utf-8") == text:
            return False
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, "utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{out} cannot be written ({error}); name another --out") from error
    return True
