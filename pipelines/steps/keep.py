"""Keeps what a task has made with its run, as artifacts of the run's at MLflow, which the aggregator alone writes."""

from pathlib import Path

from pipelines.steps.reach import runs_at

MANIFEST, EVALUATION, VERDICT = "manifest.json", "evaluation.json", "verdict.json"


def keep(run: str, aggregator: str, name: str, path: Path) -> str:
    """Hands a file of at most 4 MiB to the aggregator, again without harm; answers its sha256.

    Raises:
        InvalidInput: the aggregator tracks nothing, so that nothing could be registered either.
        Refusal: the aggregator does not take it.
        Unreachable: the aggregator did not answer for a minute.
    """
    with runs_at(aggregator) as runs:
        return runs.attach(run, name, path.read_bytes())
