"""Models of finished runs at the sites: the run that asks for their scores, and what the sites' policies let out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from deerfield.documents.evaluation import CANDIDATE, CHAMPION
from deerfield.errors import InvalidInput, RunFailed
from deerfield.exchange import Event, RunView
from deerfield.runfile import parse
from deerfield.runspec import RunSpec
from deerfield.strategies import make
from deerfield.wire.client import RunsClient
from pipelines.evaluation.evaluation_document import named

QUORUM = 1  # whose policies let nothing out, decline, and the others' scores are of use without theirs
DEADLINE_S = 3600.0  # without progress: who is not there by then is left out
DELTA_SHARE = 0.1  # of the candidate's run: a policy's delta is for few runs, and evaluations are many

Reported = Mapping[str, Mapping[str, Mapping[str, float]]]  # by model and site


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Which models to score, by the runs that they are of, and what that may cost a site."""

    candidate: str
    champion: str = ""  # empty: there is none
    base: bool = True  # the base model too
    epsilon: float | None = None  # at most; None where the candidate's run has unit none


def asked(runs: RunsClient, request: Request) -> RunSpec:
    """The run that evaluates, with the sites, population and privacy unit of the candidate's.

    Raises:
        InvalidInput: a run has no model, the two are not alike, or nothing or no unit is left to promise.
        UnknownRun: the aggregator does not know a run.
    """
    view = _finished(runs, request.candidate)
    spec, models = view.spec, {CANDIDATE: view.model.digest}
    if request.champion:
        other = _finished(runs, request.champion)
        if not spec.takes(other.spec):
            raise InvalidInput(
                f"the models of runs {view.run} and {other.run} have another base model, adapter, head or labels, and "
                "are not scored in one run"
            )
        models[CHAMPION] = other.model.digest
    if spec.privacy.unit != "none" and request.epsilon is None:
        raise InvalidInput(f"epsilon is missing: run {view.run} protects each {spec.privacy.unit}, and so does this")
    found = spec.model_dump()
    found |= {"rounds": 1, "epochs": 1, "strategy": {"name": "evaluate", **models, "base": request.base}}
    found["federation"] |= {"quorum": QUORUM, "deadline_s": DEADLINE_S, "robust": "none", "norm_limit": None}
    found["privacy"] |= {"spare_phases": 0}
    if spec.privacy.unit != "none":
        found["privacy"] |= {"epsilon": request.epsilon, "delta": spec.privacy.delta * DELTA_SHARE}
    evaluation = parse(RunSpec, found, "the evaluation")
    make(evaluation)  # refuses a unit of which no evaluation is private
    return evaluation


def scored(runs: RunsClient, spec: RunSpec, tell: Callable[[Event], object]) -> tuple[str, Reported]:
    """The run of `spec`, and what the sites reported in it; asked for again it is the same run, and costs nothing more.

    Raises:
        RunFailed: no site reported; the message says why each did not.
    """
    run = runs.start(spec, f"evaluation {spec.sha256}")
    names = tuple(make(spec).declares.models)
    found: dict[str, dict[str, dict[str, float]]] = {name: {} for name in names}
    for event in runs.watch(run):
        tell(event)
        if event.kind == "phase_published":
            told = event.detail["metrics"]
            found[names[event.detail["round"]]] = {site: named(told[site]) for site in sorted(told)}
    if (view := runs.get(run)).state != "FINISHED":
        raise RunFailed(
            f"run {run} {view.state.lower()}: {view.reason}; the same models at the same epsilon stay that run, so ask "
            "at another epsilon"
        )
    return run, found


def _finished(runs: RunsClient, name: str) -> RunView:
    view = runs.get(name)
    only_scores = bool(make(view.spec).declares.models)
    if view.state != "FINISHED" or view.personal or only_scores:
        why = "its sites keep models of their own" if view.personal else f"it is {view.state}"
        why = "it only scored others" if only_scores else why
        raise InvalidInput(f"run {name} has no model to score: {why}")
    return view
