"""The last task of a pipeline, which KFP gives nothing of the others: what it reports on, it finds by the request."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from deerfield.errors import DeerfieldError, InvalidInput, UnknownRun
from deerfield.exchange import run_id
from deerfield.runfile import spec_of
from pipelines.registry.reader import open_registry
from pipelines.steps.keep import EVALUATION, MANIFEST, VERDICT
from pipelines.steps.reach import runs_at
from pipelines.steps.report import report

Say = Callable[[str], object]


def close(run: str, request_id: str, aggregator: str, tracking: str, failure: str, out: Path, say: Say) -> None:
    """Writes the report of the run that `request_id` started, if it did, to `out`.

    `run` is the run file's text; `failure` is what KFP says of the tasks before, empty where all is well. A document
    that was never kept with the run, or cannot be had, is missing on the page, which is written all the same.
    """
    with TemporaryDirectory() as folder:
        name, model = _named(run, request_id, aggregator)
        found = _kept(model, name, tracking, Path(folder), say) if name else {}
        evaluation, verdict, manifest = (found.get(each) for each in (EVALUATION, VERDICT, MANIFEST))
        report(name, aggregator, evaluation, verdict, manifest, out, failure)


def _named(run: str, request_id: str, aggregator: str) -> tuple[str, str]:
    """The run of the request and its model; empty where it was never started."""
    try:
        model = spec_of(run, "run").name
        name = run_id(model, request_id)
        with runs_at(aggregator) as runs:
            runs.get(name)
    except (UnknownRun, InvalidInput):  # what cannot be read was not started
        return "", ""
    except DeerfieldError:  # the report says that it was told nothing of the run
        pass
    return name, model


def _kept(model: str, run: str, tracking: str, folder: Path, say: Say) -> dict[str, Path]:
    """The documents that MLflow has of a run."""
    try:
        return open_registry(tracking).kept(model, run, (EVALUATION, VERDICT, MANIFEST), folder)
    except DeerfieldError as error:
        say(f"missing: what was kept with the run: {error}")
        return {}
