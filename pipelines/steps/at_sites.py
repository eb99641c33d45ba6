"""The part of an evaluation that sites take in it, where the pipeline asks for it: their own scores of each model."""

from math import inf
from typing import Any

from deerfield.documents.evaluation import CANDIDATE
from deerfield.errors import InvalidInput, RunFailed, UnknownRun
from deerfield.exchange import Event
from deerfield.runspec import RunSpec
from deerfield.wire.backoff import Backoff
from deerfield.wire.client import RunsClient
from pipelines.evaluation import at_sites
from pipelines.registry.reader import Version
from pipelines.runs import runs_report
from pipelines.runs.operator_link import say as warn
from pipelines.steps.reach import runs_at
from pipelines.steps.rounds import ASK_S, AWAY_S, SAID
from pipelines.steps.running import say


def report(
    judged: dict[str, Any], candidate: Version, champion: Version | None, aggregator: str, epsilon: float
) -> None:
    """Adds to an evaluation what each site reports on each model, at `epsilon` at most; a note says what is missing.

    Asked again, of the same models and at the same epsilon, it is the same run, and costs nothing more.

    Raises:
        InvalidInput: epsilon is none, or the candidate's run protects what no evaluation can.
        Unreachable: the aggregator did not answer for an hour.
    """
    check(epsilon)
    with runs_at(aggregator, Backoff(last_s=ASK_S, patience_s=AWAY_S, tell=warn)) as runs:
        spec, left_out = _asked(runs, candidate, champion, epsilon)
        judged["notes"] += [left_out] if left_out else []
        try:
            run, found = at_sites.scored(runs, spec, _tell)
        except RunFailed as failed:
            judged["notes"].append(f"no site has scored the models: {failed}")
            return
    for name, told in found.items():
        judged["models"][name]["reported"] = told
    judged["reported"] = found[CANDIDATE]
    judged["notes"].append(f"what sites report, under the noise of their policies, is of run {run}")


def check(epsilon: float) -> None:
    """Raises InvalidInput for what is no epsilon that a site may spend; 0 asks no site."""
    if not 0 <= epsilon < inf:
        raise InvalidInput(f"evaluate_at_sites is {epsilon:g}: it is the epsilon that a site may spend, above 0, or 0")


def _asked(runs: RunsClient, candidate: Version, champion: Version | None, epsilon: float) -> tuple[RunSpec, str]:
    """The run to start, and why the champion is left out of it; empty if it is not."""
    without = at_sites.Request(candidate=candidate.run, epsilon=epsilon)
    if champion is None:
        return at_sites.asked(runs, without), ""
    try:
        request = at_sites.Request(candidate=candidate.run, champion=champion.run, epsilon=epsilon)
        return at_sites.asked(runs, request), ""
    except (InvalidInput, UnknownRun) as error:
        return at_sites.asked(runs, without), f"the champion was not scored at the sites: {error}"


def _tell(event: Event) -> None:
    if event.kind in SAID:
        say(runs_report.line(event))
