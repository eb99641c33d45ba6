"""Keeps what a task has made with its run, as artifacts of the run's at MLflow, which the aggregator alone writes."""

from pathlib import Path

from deerfield.documents import evaluation, partition_manifest
from deerfield.errors import InvalidInput, Refusal, TooBusy
from pipelines.steps.reach import runs_at
from pipelines.steps.rounds import Started, start
from pipelines.steps.sites import members

MANIFEST, EVALUATION, VERDICT = partition_manifest.NAME, evaluation.NAME, "verdict.json"


def keep(run: str, aggregator: str, name: str, path: Path) -> str:
    """Hands a file of at most 4 MiB to the aggregator, again without harm; answers its sha256.

    Raises:
        InvalidInput: the aggregator tracks nothing, so that nothing could be registered either.
        Refusal: the aggregator does not take it.
        Unreachable: the aggregator did not answer for a minute.
    """
    with runs_at(aggregator) as runs:
        return runs.attach(run, name, path.read_bytes())


def begin(run: str, request_id: str, aggregator: str, manifest: Path) -> Started:
    """As `rounds.start`, over the sites of a partition's manifest, which is kept with the run: its lineage names it.

    Raises:
        InvalidInput, Refusal, Unreachable: as in `rounds.start` and `keep`. A run whose manifest is not taken is
            aborted, before its sites have spent on what nobody would register.
        TooBusy: the aggregator had no room for the manifest; the run goes on, and another try hands it over.
    """
    started = start(run, request_id, aggregator, members(manifest))
    try:
        keep(started.run, aggregator, MANIFEST, manifest)
    except TooBusy:  # the task's next try hands it over; the run goes on
        raise
    except (InvalidInput, Refusal) as error:
        with runs_at(aggregator) as runs:
            runs.abort(started.run, f"its manifest could not be kept: {error}")
        raise
    return started
