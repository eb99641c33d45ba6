"""The rounds of a run, driven by the aggregator: this step starts it or finds it again, and says what happens.

It holds no state. Whoever runs it again with the same request_id is at the same run: nothing is trained twice.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from deerfield.errors import DeerfieldError, InvalidInput, RunAborted, RunFailed, TooFewSites, Unreachable
from deerfield.exchange import LIVE, RunView
from deerfield.runfile import spec_of
from deerfield.runspec import RunSpec
from deerfield.strategies import make
from deerfield.wire.backoff import Backoff
from deerfield.wire.client import RunsClient
from pipelines.runs import runs_report
from pipelines.runs.operator_link import say as warn
from pipelines.steps.reach import MINUTE, runs_at

AWAY_S = 3600.0  # how long an aggregator may be away in the middle of a run; then the next try of the task waits on
ASK_S = 10.0  # the longest pause before it is asked again
JOIN_S = 3600
SAID = frozenset(
    {
        *("run_started", "phase_published", "declined", "left", "lost", "run_paused", "run_resumed", "run_restored"),
        *("evaluated", "registered", "tracking_waits", "tracking_failed"),
        *("run_finished", "run_failed", "run_aborted"),
    }
)  # the kinds of event that are worth a line: a task taken, an update and progress are not
TOO_FEW = "TOO_FEW_SITES"  # begins the reason that a run is aborted with, by which the task's next try knows why

Say = Callable[[str], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended, and the digest of its model."""

    run: str
    state: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A run at the aggregator, and who takes part."""

    run: str
    sites: tuple[str, ...]
    base_digest: str  # of the base model


def start(run: str, request_id: str, aggregator: str, sites: Sequence[str] = ()) -> Started:
    """Starts a run, or finds the one that `request_id` has started; `run` is a run file's text.

    A run file that names no sites is completed with `sites`, as the partition has them.

    Raises:
        InvalidInput: the run file lacks something or cannot be run, or the request_id started another run.
        Unreachable: the aggregator did not answer for a minute.
    """
    with runs_at(aggregator) as runs:
        name = runs.start(completed(run, sites), request_id)
        spec = runs.get(name).spec
    return Started(run=name, sites=spec.federation.sites, base_digest=str(spec.model.digest))


def rounds(
    run: str, request_id: str, aggregator: str, say: Say, sites: Sequence[str] = (), join_timeout_s: float = JOIN_S
) -> Outcome:
    """Follows the run of `request_id` to its end, and starts it where nobody has; says a line for what happens.

    Raises:
        InvalidInput, Unreachable: as in `start`; an aggregator that has answered may be away for an hour.
        TooFewSites: fewer than the quorum had joined after `join_timeout_s`; the run was aborted.
        RunAborted, RunFailed: it ended otherwise without its model; the message says why.
    """
    spec = completed(run, sites)
    with runs_at(aggregator) as runs:
        name = runs.start(spec, request_id)
        view = runs.get(name)
    say(f"run {name}: {view.state}, {view.round} of {make(view.spec).declares.rounds} rounds done")
    with (
        joined(aggregator, view, join_timeout_s),
        runs_at(aggregator, Backoff(last_s=ASK_S, patience_s=AWAY_S, tell=warn)) as runs,
    ):
        return _followed(runs, name, say)


def completed(run: str, sites: Sequence[str]) -> RunSpec:
    """The run of a run file's text, its `embedded:` section left out; `sites` are those of one that names none.

    Raises:
        InvalidInput: it lacks what only its base model can say.
    """
    spec = spec_of(run, "run")
    if not spec.federation.sites and sites:
        federation = spec.federation.model_copy(update={"sites": tuple(sites)})
        spec = RunSpec.model_validate(spec.model_copy(update={"federation": federation}).model_dump())
    if not spec.federation.sites:
        raise InvalidInput("run: federation: sites is empty; name the sites as their certificates do")
    if not spec.adapter or spec.model.digest is None:
        raise InvalidInput(
            "run: it does not describe its base model (model: digest, adapter); let deerfield runs describe write the "
            "run file that a pipeline is given"
        )
    return spec


def _followed(runs: RunsClient, name: str, say: Say) -> Outcome:
    digest = ""
    for event in runs.watch(name):
        if event.kind in SAID:
            say(runs_report.line(event))
        if event.kind == "run_finished":
            digest = str(event.detail["digest"])
    view = runs.get(name)
    if view.state == "FINISHED":
        return Outcome(run=name, state=view.state, digest=digest or view.model.digest)
    raise _failure(view)


def _failure(view: RunView) -> RunFailed:
    if view.reason.startswith(TOO_FEW):
        return TooFewSites(f"run {view.run} was aborted: {view.reason.removeprefix(f'{TOO_FEW}: ')}")
    if view.state == "ABORTED":
        return RunAborted(f"run {view.run} was aborted: {view.reason}")
    return RunFailed(f"run {view.run} failed: {view.reason}")


@contextmanager
def joined(aggregator: str, view: RunView, timeout_s: float) -> Iterator[None]:
    """Ends the run if too few of its sites have asked for a task within `timeout_s`; a paused run is waited for.

    On a thread of its own: whoever follows the run sees it end as any other.
    """
    over = threading.Event()

    def pause(seconds: float) -> None:
        if over.wait(seconds):
            raise Unreachable("nobody waits for an answer any more")

    def watch() -> None:
        while not over.wait(timeout_s):
            try:
                with runs_at(aggregator, Backoff(patience_s=MINUTE.patience_s, sleep=pause)) as runs:
                    if _decided(runs, view.run, timeout_s):
                        return
            except DeerfieldError:  # whoever follows the run hears the same, and says so
                continue

    thread = threading.Thread(target=watch, name="joined", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _decided(runs: RunsClient, name: str, timeout_s: float) -> bool:
    """Whether nobody need look again: the first phase has its sites or is over, or the run was aborted here."""
    view = runs.get(name)
    if view.state not in LIVE or (view.round, view.phase) != (0, 0):
        return True
    if view.state == "PAUSED":
        return False
    came = sorted(site for site, state in view.sites.items() if state != "WAITING")
    if len(came) < (least := needed(view.spec)):
        who = ", ".join(came) or "none"
        runs.abort(
            name,
            f"{TOO_FEW}: {len(came)} of {len(view.sites)} sites joined within {timeout_s:g} s ({who}), a phase needs "
            f"{least}; start the others, or write a longer join_timeout_s",
        )
    return True


def needed(spec: RunSpec) -> int:
    """Updates that a phase needs; under unit site it closes with any number."""
    return 1 if spec.privacy.unit == "site" else spec.federation.quorum or len(spec.federation.sites)
