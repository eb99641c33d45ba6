"""The rounds step as one task: by itself (`step`), or under kfp.local with retries (`kfp`): HOW RUN.json AGGREGATOR."""

import sys
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

REQUEST = "job-1"


def rounds(compiled_by: str, run: str, request_id: str, aggregator: str) -> str:
    """As the pipeline's own, but for what is kept with the run: that needs MLflow."""
    from pipelines.steps.rounds import rounds as work
    from pipelines.steps.running import say, step

    with step(compiled_by):
        return work(run, request_id, aggregator, say, (), 300).run


def in_kfp(run: str, aggregator: str) -> str:
    """What kfp.local makes of it, with a retry after a second."""
    from kfp import dsl, local

    from deerfield import __version__

    @dsl.pipeline(name="rounds-alone")
    def pipeline(run: str, aggregator: str) -> str:
        made = dsl.component(rounds, base_image="python:3.11", install_kfp_package=False)
        given = {"run": run, "aggregator": aggregator, "request_id": dsl.PIPELINE_JOB_ID_PLACEHOLDER}
        return made(compiled_by=__version__, **given).set_retry(3, "1s").set_caching_options(False).output

    with TemporaryDirectory() as folder:
        local.init(local.SubprocessRunner(use_venv=False), pipeline_root=folder)
        return pipeline(run=run, aggregator=aggregator).output


def by_itself(run: str, aggregator: str) -> str:
    from deerfield import __version__

    return rounds(__version__, run, REQUEST, aggregator)


if __name__ == "__main__":
    how, path, aggregator = sys.argv[1:]
    warnings.simplefilter("ignore")
    answer = {"step": by_itself, "kfp": in_kfp}[how](Path(path).read_text(), aggregator)
    print(f"answer: {answer}", flush=True)
