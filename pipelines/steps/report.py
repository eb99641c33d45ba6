"""The report of a run, written whatever has become of it: what could not be had is said on the page."""

from dataclasses import replace
from pathlib import Path

from deerfield.errors import DeerfieldError, InvalidInput
from deerfield.wire.backoff import Backoff
from pipelines.report_page import Found, render
from pipelines.report_page.reporting import NAME, at_aggregator, completed
from pipelines.steps.reach import MINUTE, runs_at
from pipelines.steps.running import say

NEVER = "no run was started: what comes before the rounds has failed"


def report(
    run: str,
    aggregator: str,
    evaluation: Path | None,
    verdict: Path | None,
    manifest: Path | None,
    out: Path,
    failure: str = "",
    backoff: Backoff = MINUTE,
) -> None:
    """Writes the page of `run` to `out`, and keeps it with the run in MLflow as report.html.

    `run` is empty where none was started; `failure` is what the pipeline says of itself. Nothing that is missing ends
    it: neither an aggregator that is away, which `backoff` waits for, nor a document that was never written.
    """
    found, gaps = _heard(run, aggregator, backoff)
    for name, path in {"evaluation": evaluation, "verdict": verdict, "manifest": manifest}.items():
        try:
            found = completed(found, {name: path} if path else {})
        except InvalidInput as error:
            gaps.append(str(error))
        if path is None:
            gaps.append(f"{name}.json: none was written")
    page = render(replace(found, missing=tuple(gaps), failure=failure))
    out.write_text(page, encoding="utf-8")
    for gap in gaps:
        say(f"missing: {gap}")
    if found.result is not None:
        _attach(run, aggregator, page, backoff)


def _heard(run: str, aggregator: str, backoff: Backoff) -> tuple[Found, list[str]]:
    """What the aggregator tells of the run, and what is missing of it."""
    if not run:
        return Found(), [NEVER]
    try:
        with runs_at(aggregator, backoff) as runs:
            return at_aggregator(runs, run), []
    except DeerfieldError as error:
        return Found(run=run), [f"the aggregator told nothing of {run}: {error}"]


def _attach(run: str, aggregator: str, page: str, backoff: Backoff) -> None:
    """Keeps the page with the run; where that fails the task's own artifact is still there."""
    try:
        with runs_at(aggregator, backoff) as runs:
            sha256 = runs.attach(run, NAME, page.encode())
    except DeerfieldError as error:
        say(f"{NAME} could not be kept with the run: {error}")
        return
    say(f"kept with the run as {NAME}, sha256 {sha256}")
