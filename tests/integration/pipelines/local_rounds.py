"""Runs the rounds task of federated-training alone under kfp.local, with its retries: RUN.json AGGREGATOR FOLDER."""

import sys
import warnings
from pathlib import Path

from kfp import dsl, local

from pipelines.compile_options import CompileOptions
from pipelines.graphs import Graph, Place


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def parts(manifest: dsl.Output[dsl.Dataset]):
    import json
    from pathlib import Path

    Path(manifest.path).write_text(json.dumps({"schema": 1, "kind": "consortium", "sites": {}}))


@dsl.pipeline(name="rounds-alone")
def pipeline(run: str, aggregator: str, image: str = "python:3.11"):
    place = Place(aggregator, "", image, "tls", "s3", "tracking", None)
    Graph(CompileOptions(retry_after_s=1), place).rounds(run, 300, parts())


if __name__ == "__main__":
    run, aggregator, folder = sys.argv[1:]
    warnings.simplefilter("ignore")
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=folder)
    pipeline(run=Path(run).read_text(), aggregator=aggregator)
