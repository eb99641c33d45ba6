"""The pipeline's own tasks up to the rounds, as one process: HOW RUN.json AGGREGATOR.

`step` calls the rounds' component with the manifest beside RUN.json; `kfp` runs the graph's partition and rounds under
kfp.local, with the retries of the compiled pipeline but a shorter pause before them.
"""

import sys
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

from deerfield import __version__
from pipelines.compiled import components
from pipelines.compiled.compile_options import CompileOptions

REQUEST = "job-1"
JOIN_S = 300
OPTIONS = CompileOptions(retry_after_s=1, data_claim=None)


def in_kfp(run: Path, aggregator: str) -> str:
    """What kfp.local makes of the graph's own tasks."""
    from kfp import dsl, local

    from pipelines.compiled.graphs import Graph, Place

    secrets = ("tls", "s3", "mlflow")  # which kfp.local ignores, as it does images

    @dsl.pipeline(name="up-to-the-rounds")
    def pipeline(run: str, aggregator: str) -> str:
        graph = Graph(OPTIONS, Place(aggregator, "", OPTIONS.image, *secrets, None))
        return graph.rounds(run, JOIN_S, graph.validate(run, "", "", 0.0)).output

    with TemporaryDirectory() as folder:
        local.init(local.SubprocessRunner(use_venv=False), pipeline_root=folder)
        return pipeline(run=run.read_text(), aggregator=aggregator).output


def by_itself(run: Path, aggregator: str) -> str:
    manifest = SimpleNamespace(path=str(run.with_name("manifest.json")))  # an artifact, as KFP hands it over
    return components.rounds(__version__, run.read_text(), REQUEST, aggregator, JOIN_S, manifest)


if __name__ == "__main__":
    how, path, aggregator = sys.argv[1:]
    warnings.simplefilter("ignore")
    answer = {"step": by_itself, "kfp": in_kfp}[how](Path(path), aggregator)
    print(f"answer: {answer}", flush=True)
